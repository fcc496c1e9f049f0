"""A step on a cube: work staged on a branch of its own, shown at once at the end."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import icechunk
import xarray as xr
import zarr

from cube_denoise.cluster import Workers
from cube_denoise.progress import Advance
from cube_denoise.store import owners
from cube_denoise.store.answers import writable_group
from cube_denoise.store.filling import Fill, Part, Work, write_summaries
from cube_denoise.store.repository import (
    CubeChangedError,
    CubeError,
    brief,
    commit_metadata,
    move_branch,
    open_repository,
    open_snapshot,
)

log = logging.getLogger(__name__)

COMMIT_SECONDS = 30.0
"""Staged work is committed this often, which bounds what a crash can cost."""


def fingerprint(details: Mapping[str, Any]) -> str:
    """Short hash of what a step was asked to do."""
    text = json.dumps(details, sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:16]


class Stage:
    """A step under way, on a branch that readers of the cube do not see.

    Get one from `stage`. Every commit survives a crash; nothing shows on the target
    branch before `publish`.
    """

    def __init__(
        self,
        repository: icechunk.Repository,
        url: str,
        *,
        step: str,
        branch: str,
        asked: Mapping[str, Any],
    ) -> None:
        self.repository, self.url, self.step = repository, url, step
        self.branch, self.asked = branch, dict(asked)
        self.base = repository.lookup_branch(branch)
        self.mark = fingerprint({"asked": self.asked, "base": self.base})
        self.tasks_done = 0
        self.skipped: dict[int, str] = {}
        """Tasks that gave nothing: position in the list -> reason."""
        self.name = owners.claim(f"staging-{step}")
        self._resume_or_start()

    def _resume_or_start(self) -> None:
        """Begin where the best of the interrupted runs ended, on a branch of its own.

        What processes that are gone left of this step is removed; what a live one is
        doing is left alone.
        """
        left = owners.abandoned(self.repository, f"staging-{self.step}")
        found = [state for name in left if (state := self._left(name)) is not None]
        start = self.base
        if found:
            start, metadata = max(found, key=lambda f: int(f[1]["tasks_done"]))
            self.tasks_done = int(metadata["tasks_done"])
            self.skipped = {int(k): v for k, v in metadata["skipped"].items()}
            log.info("%s: take up an interrupted run", self.step)
        self.repository.create_branch(self.name, start)
        owners.remove(self.repository, left)

    def _left(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """Newest state of an interrupted run that can be gone on from."""
        for commit in owners.commits(self.repository, name):
            metadata = dict(commit.metadata or {})
            if commit.id == self.base:
                return None
            # It may end in the commit that was to be shown: that is made anew.
            if not metadata.get("complete"):
                known = metadata.get("mark") == self.mark
                return (commit.id, metadata) if known else None
        return None

    @property
    def tip(self) -> str:
        """Snapshot id of the newest staged state."""
        return self.repository.lookup_branch(self.name)

    @property
    def cube(self) -> xr.Dataset:
        """The newest staged state, for reading."""
        return open_snapshot(self.url, self.tip)

    def resumed(self) -> bool:
        """Whether an interrupted run left something to go on from."""
        return self.tip != self.base

    def change(self, edit: Callable[[zarr.Group], None], message: str) -> None:
        """Commit a change of structure or of small arrays, made in this process."""
        session = self.repository.writable_session(self.name)
        edit(writable_group(session, self.url))
        if session.has_uncommitted_changes:
            self._commit(session, message)

    def _commit(self, session: icechunk.Session, message: str) -> None:
        mark = {
            "mark": self.mark,
            "tasks_done": self.tasks_done,
            "skipped": {str(k): v for k, v in self.skipped.items()},
        }
        session.commit(
            f"{self.step}: {message} (staged)",
            metadata=commit_metadata(self.step, self.asked) | mark,
        )

    def fill(
        self,
        work: Work,
        tasks: Sequence[Any],
        workers: Workers,
        *,
        advance: Advance,
        amount: Callable[[Any], float] = lambda task: 1,
    ) -> None:
        """Do the tasks that are not staged yet, and stage what they give.

        The list of tasks must be the same, in the same order, in the run that
        resumes: what it depends on belongs into `asked`.

        Parameters
        ----------
        work : callable
            ``work(cube, task)`` yields (window, {variable: array}); picklable. It may
            raise `SkipTask`: see `skipped`.
        tasks : sequence
            Independent of each other; no two write into the same shard.
        workers : cluster.Workers
            Who does them.
        advance : callable
            Told the amount of work done.
        amount : callable
            Amount of work of a task.
        """
        advance(sum(amount(task) for task in tasks[: self.tasks_done]))
        while self.tasks_done < len(tasks):
            session = self.repository.writable_session(self.name)
            do = Fill(self.url, session.snapshot_id, session.fork(), work)
            forks: dict[int, Any] = {}
            summaries: list[Part] = []
            given = _until_due(range(self.tasks_done, len(tasks)))
            numbered = ((k, tasks[k]) for k in given)
            finished = 0
            for (k, task), done in workers.run(do, numbered):
                forks[id(done.fork)] = done.fork
                summaries += done.summaries
                if done.reason is not None:
                    self.skipped[k] = done.reason
                advance(amount(task))
                finished += 1
            session.merge(*forks.values())
            if summaries:
                write_summaries(writable_group(session, self.url), summaries)
            self.tasks_done += finished
            if session.has_uncommitted_changes:  # not if every task was skipped
                self._commit(session, f"{self.tasks_done} of {len(tasks)} blocks")

    def publish(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        edit: Callable[[zarr.Group], None] | None = None,
    ) -> str:
        """Make the staged state the newest of the target branch, at once.

        Parameters
        ----------
        message : str
            What was done, for the history.
        details : mapping, optional
            Added to what was asked in the commit's metadata.
        edit : callable, optional
            Last change of attributes or small arrays, part of the same commit.

        Returns
        -------
        str
            Snapshot id.

        Raises
        ------
        CubeChangedError
            If the target branch has moved since the step began.
        """
        session = self.repository.writable_session(self.name)
        root = writable_group(session, self.url)
        if edit is not None:
            edit(root)
        add_to_history(root, f"{self.step}: {message}")
        metadata = commit_metadata(self.step, self.asked | dict(details or {}))
        metadata["complete"] = True
        metadata["within"] = owners.is_hidden(self.branch)
        session.commit(f"{self.step}: {message}", metadata=metadata)
        tip = self.tip
        move_branch(
            self.repository, self.url, self.branch, tip, base=self.base, doing=self.step
        )
        self.discard()
        return tip

    def discard(self) -> None:
        """Forget everything staged."""
        owners.remove(self.repository, [self.name])


def add_to_history(root: zarr.Group, what: str) -> None:
    """Note in CF's audit trail what was done: a commit must change something."""
    line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {what}"
    earlier = root.attrs.get("history")
    root.attrs["history"] = f"{earlier}\n{line}" if earlier else line


def _until_due(positions: Iterable[int]) -> Iterator[int]:
    """One position at least, then others until it is time to commit."""
    started = time.monotonic()
    for k in positions:
        yield k
        if _due(started):
            return


def _due(started: float) -> bool:
    return time.monotonic() - started >= COMMIT_SECONDS


@contextmanager
def stage(
    url: str | Path,
    *,
    step: str,
    branch: str,
    asked: Mapping[str, Any],
    base: str | None = None,
) -> Iterator[Stage]:
    """Begin, or take up again, a step on a cube.

    Parameters
    ----------
    url : str or pathlib.Path
        The cube.
    step : str
        Name of the step, for history and resuming.
    branch : str
        Branch that shows the result at the end; made from ``main`` if new.
    asked : mapping
        JSON-able options. An interrupted run is taken up only if they are the same
        and the cube has not changed since.
    base : str, optional
        State that the step was planned on (`newest`).

    Yields
    ------
    Stage

    Raises
    ------
    CubeChangedError
        If the branch is not at `base`, or moves before the result is shown.
    """
    repository = open_repository(url)
    name = None
    try:
        if branch not in repository.list_branches():
            repository.create_branch(branch, repository.lookup_branch("main"))
        under_way = Stage(repository, str(url), step=step, branch=branch, asked=asked)
        name = under_way.name
        if base is not None and under_way.base != base:
            under_way.discard()
            raise CubeChangedError(
                f"{url} was changed by another process; run {step} again"
            )
        yield under_way
    except icechunk.ConflictError:
        raise CubeChangedError(
            f"{url} is being changed by another process; run {step} again"
        ) from None
    except icechunk.IcechunkError as error:
        raise CubeError(f"url={str(url)!r}: {step} failed: {brief(error)}") from None
    finally:
        if name is not None:
            owners.release(name)
