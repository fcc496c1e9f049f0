"""Older states of a cube: go back to one, let go of those that nobody needs."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import icechunk

from cube_denoise.store import owners
from cube_denoise.store.answers import steadily
from cube_denoise.store.repository import (
    CubeError,
    brief,
    move_branch,
    open_repository,
    visible_branches,
    was_shown,
)

GRACE = timedelta(days=1)
"""What nothing refers to is kept for so long: it may be about to be committed."""


def rollback(
    url: str | Path, snapshot: str, *, branch: str = "main", force: bool = False
) -> str:
    """Point a branch at an older state of it, or at a newer one again.

    The state it leaves gets a tag, so that it stays whatever is collected; `rollback`
    to the tag's state goes forward again.

    Parameters
    ----------
    url : str or pathlib.Path
        The cube.
    snapshot : str
        Id of a state, as in `history`.
    branch : str
        Branch to move.
    force : bool
        Even if a step is under way, which then starts over.

    Returns
    -------
    str
        Name of the tag of the state left behind.

    Raises
    ------
    CubeError
        If there is no such state or a step is under way.
    CubeChangedError
        If the branch moves meanwhile.
    """
    repository = open_repository(url)

    def attempt() -> str | None:
        known = branch in visible_branches(repository)
        return repository.lookup_branch(branch) if known else None

    tip = steadily(url, "read", attempt)
    if tip is None:
        raise CubeError(f"{branch=}: {str(url)!r} has no such branch")
    try:
        target = next(iter(repository.ancestry(snapshot_id=snapshot)))
    except (icechunk.IcechunkError, ValueError):
        raise CubeError(f"{snapshot=}: {str(url)!r} has no such state") from None
    if not was_shown(target):
        raise CubeError(
            f"{snapshot=} is within a step or a job: take one of the history"
        )
    if snapshot == tip:
        raise CubeError(f"{snapshot=} is what {branch} shows already")
    busy = steadily(url, "read", lambda: owners.live(repository))
    if busy and not force:
        raise CubeError(
            f"{len(busy)} step(s) are under way on {url}, such as "
            f"{owners.label_of(busy[0])}: wait for them, or insist with --force"
        )
    tag = f"before-rollback-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"
    try:
        repository.create_tag(tag, tip)
        move_branch(repository, url, branch, snapshot, base=tip, doing="rollback")
    except icechunk.IcechunkError as error:
        raise CubeError(f"url={str(url)!r}: {brief(error)}") from None
    return tag


@dataclass
class Upkeep:
    """What `maintain` removed, or would remove."""

    branches: list[str] = field(default_factory=list)
    """Hidden branches of work that was given up."""
    states: list[str] = field(default_factory=list)
    """Ids of states that left the history."""
    objects: int = 0
    """Objects of the store that nothing refers to."""
    bytes: int = 0
    """Size of the chunks among them."""


def maintain(
    url: str | Path,
    *,
    days: float = 30.0,
    keep: int = 10,
    grace: timedelta = GRACE,
    dry_run: bool = False,
) -> Upkeep:
    """Let go of old states, of work given up, and of what nothing refers to any more.

    Safe beside readers and writers: what a branch, a tag or live work needs stays, and
    so does everything younger than `grace`. A reader keeps the state it opened as long
    as that is among the newest `keep` of its branch or younger than `days`.

    Parameters
    ----------
    url : str or pathlib.Path
        The cube.
    days : float
        States younger than this stay.
    keep : int
        So many of the newest states of every branch stay, however old; at least 2.
    grace : datetime.timedelta
        Work whose process is gone and objects that nothing refers to go when they are
        older than this.
    dry_run : bool
        Only tell. Objects that only the states named need are not counted then.

    Returns
    -------
    Upkeep

    Raises
    ------
    ValueError
        If `keep` is below 2 or `days` negative.
    CubeError
        If the cube cannot be reached.
    """
    if keep < 2 or days < 0:
        raise ValueError(f"{keep=} must be at least 2 and {days=} not negative")
    repository = open_repository(url)
    now = datetime.now(UTC)
    try:
        done = Upkeep(branches=list(_given_up(repository, grace)))
        cutoff = _cutoff(repository, now - timedelta(days=days), keep)
        done.states = _older(repository, cutoff, without=done.branches)
        if not dry_run:
            owners.remove(repository, done.branches)
            if done.states:
                repository.expire_snapshots(cutoff)
        gone = repository.garbage_collect(now - grace, dry_run=dry_run)
    except icechunk.IcechunkError as error:
        raise CubeError(f"url={str(url)!r}: {brief(error)}") from None
    done.bytes = gone.bytes_deleted
    done.objects = (
        gone.chunks_deleted
        + gone.manifests_deleted
        + gone.snapshots_deleted
        + gone.attributes_deleted
        + gone.transaction_logs_deleted
    )
    return done


def _given_up(repository: icechunk.Repository, grace: timedelta) -> Iterator[str]:
    patience = grace.total_seconds()
    for name in sorted(repository.list_branches()):
        if not owners.is_hidden(name):
            continue
        silent = time.time() - owners.last_sign(repository, name)
        at_least = max(patience, owners.ADOPT_SECONDS)
        if silent >= patience and not owners.is_live(
            repository, name, patience=at_least
        ):
            yield name


def _cutoff(repository: icechunk.Repository, oldest: datetime, keep: int) -> datetime:
    """Time before which no branch has a state that must stay."""
    for branch in visible_branches(repository):
        shown = [c for c in repository.ancestry(branch=branch) if was_shown(c)]
        last = shown[min(keep, len(shown)) - 1]
        oldest = min(oldest, last.written_at)
    return oldest


def _older(
    repository: icechunk.Repository, cutoff: datetime, *, without: list[str]
) -> list[str]:
    """States before `cutoff` that no branch or tag points at, oldest last."""
    branches = set(repository.list_branches()) - set(without)
    tips = {repository.lookup_branch(name) for name in branches}
    tips |= {repository.lookup_tag(name) for name in repository.list_tags()}
    found = {
        commit.id: commit.written_at
        for tip in tips
        for commit in repository.ancestry(snapshot_id=tip)
        if commit.written_at < cutoff
        and commit.id not in tips
        and commit.parent_id is not None
    }
    return sorted(found, key=lambda k: found[k], reverse=True)
