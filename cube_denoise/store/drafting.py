"""A job of several steps on a cube: readers see nothing of it, then all of it."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import icechunk

from cube_denoise.store import owners
from cube_denoise.store.answers import writable_group
from cube_denoise.store.repository import (
    CubeChangedError,
    CubeError,
    brief,
    commit_metadata,
    move_branch,
    open_repository,
)
from cube_denoise.store.staging import add_to_history, fingerprint

log = logging.getLogger(__name__)


class Draft:
    """A hidden branch for the steps of a job; get one from `draft`."""

    def __init__(
        self,
        repository: icechunk.Repository,
        url: str,
        *,
        branch: str,
        asked: Mapping[str, Any],
    ) -> None:
        self.repository, self.url, self.branch = repository, url, branch
        made = branch in repository.list_branches()
        self.base = repository.lookup_branch(branch if made else "main")
        """State of the target branch when the job began."""
        self._moved_from = self.base if made else None
        label = f"work-{fingerprint({'branch': branch, 'asked': asked})}"
        left = owners.abandoned(repository, label)
        found = [state for name in left if (state := self._left(name))]
        self.name = owners.claim(label)
        """The branch that the steps of the job change."""
        if found:
            log.info("take up an interrupted job")
        repository.create_branch(self.name, found[0] if found else self.base)
        owners.remove(repository, left)

    def _left(self, name: str) -> str | None:
        """State that an interrupted job left, if the target has not moved since."""
        state = None
        for commit in owners.commits(self.repository, name):
            if commit.id == self.base:
                return state
            # The record of the job is the last commit, and is made anew.
            if state is None and not (commit.metadata or {}).get("draft"):
                state = commit.id
        return None

    @property
    def tip(self) -> str:
        """Snapshot id of the newest state of the job."""
        return self.repository.lookup_branch(self.name)

    def changed(self) -> bool:
        """Whether any step has changed anything."""
        return self.tip != self.base

    def steps(self) -> list[str]:
        """What the steps of the job did, first to last, interrupted runs included."""
        told = []
        for commit in owners.commits(self.repository, self.name):
            if commit.id == self.base:
                break
            if (commit.metadata or {}).get("complete"):
                told.append(commit.message)
        return told[::-1]

    def publish(self, step: str, message: str, *, record: Mapping[str, Any]) -> str:
        """Show the state of the job on the target branch, at once.

        Parameters
        ----------
        step : str
            Name of the job, for the history.
        message : str
            What was done.
        record : mapping
            JSON-able; goes into the metadata of the last commit.

        Returns
        -------
        str
            Snapshot id.

        Raises
        ------
        CubeChangedError
            If the target branch has moved since the job began.
        """
        session = self.repository.writable_session(self.name)
        root = writable_group(session, self.url)
        add_to_history(root, f"{step}: {message}")
        metadata = commit_metadata(step, record) | {"complete": True, "draft": True}
        tip = session.commit(f"{step}: {message}", metadata=metadata)
        move_branch(
            self.repository,
            self.url,
            self.branch,
            tip,
            base=self._moved_from,
            doing=step,
        )
        self.discard()
        return tip

    def discard(self) -> None:
        """Forget the branch of the job."""
        owners.remove(self.repository, [self.name])


@contextmanager
def draft(url: str | Path, *, branch: str, asked: Mapping[str, Any]) -> Iterator[Draft]:
    """Begin, or take up again, a job of several steps on a cube.

    The steps are given `Draft.name` as their branch. What an error or a crash leaves is
    taken up by the next job that asks the same, unless the target has moved meanwhile;
    what is not published at the end is forgotten.

    Parameters
    ----------
    url : str or pathlib.Path
        The cube.
    branch : str
        Branch that shows the result at the end; made from ``main`` if new.
    asked : mapping
        JSON-able; what tells this job from others.

    Yields
    ------
    Draft
    """
    if owners.is_hidden(branch):
        raise ValueError(
            f"{branch=} must not begin with {' or '.join(owners.HIDDEN)}: these are "
            "branches of work under way"
        )
    repository = open_repository(url)
    job = None
    try:
        job = Draft(repository, str(url), branch=branch, asked=asked)
        yield job
        job.discard()
    except CubeChangedError:
        if job is not None:
            job.discard()
        raise
    except ValueError:
        if job is not None and not job.changed():
            job.discard()
        raise
    except icechunk.ConflictError:
        raise CubeChangedError(
            f"{url} is being changed by another process; run it again"
        ) from None
    except icechunk.IcechunkError as error:
        raise CubeError(f"url={str(url)!r}: {brief(error)}") from None
    finally:
        if job is not None:
            owners.release(job.name)
