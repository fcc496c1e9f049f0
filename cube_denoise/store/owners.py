"""Hidden branches of work under way: whose they are, and whether that process lives.

The name of such a branch tells its owner, so that it can be judged by anybody, at any
moment, without a file or a server for locks.
"""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import icechunk

from cube_denoise.processes import Process
from cube_denoise.processes import born as _born
from cube_denoise.processes import host as _host
from cube_denoise.processes import is_running as _is_running

HIDDEN = ("staging-", "work-")
"""Branches that readers are not shown begin with one of these."""
ADOPT_SECONDS = 1800.0
"""Work that another host left without a commit for so long may be taken up by others.

A host that lives commits every ``staging.COMMIT_SECONDS`` or whenever a round of tasks
ends; on the same host it is known whether the process lives."""

_MINE: set[str] = set()
"""Branches that this process is working on."""
_GONE: set[Process] = set()
"""Processes of other hosts that are known to work no longer."""


@dataclass(frozen=True)
class Owner:
    """Who works on a hidden branch."""

    host: str
    """First digits of the hash of the host name."""
    pid: int
    born: int
    """When the process began, in the kernel's ticks; 0 where that is not told."""
    since: int
    """When the branch was made, seconds since 1970."""


def claim(label: str) -> str:
    """Name for a new branch of this process; the work ``label`` says what it is."""
    pid = os.getpid()
    name = f"{label}-{_host()}-{pid}-{_born(pid)}-{int(time.time())}-{uuid4().hex[:8]}"
    _MINE.add(name)
    return name


def release(name: str) -> None:
    """Say that this process works on a branch no longer."""
    _MINE.discard(name)


def presume_gone(process: Process) -> None:
    """Say that a process works no longer: what it left may be taken up at once.

    For one of another host, which cannot be asked, by whoever knows.
    """
    _GONE.add(process)


def is_hidden(name: str) -> bool:
    """Whether a branch is one of work under way."""
    return name.startswith(HIDDEN)


def label_of(name: str) -> str:
    """The work that a hidden branch is for."""
    return name.rsplit("-", 5)[0]


def owner_of(name: str) -> Owner | None:
    """Read a branch name; None if it is not one made by `claim`."""
    parts = name.rsplit("-", 5)
    if len(parts) < 6 or not all(p.isdigit() for p in parts[2:5]):
        return None
    return Owner(parts[1], *(int(p) for p in parts[2:5]))


def is_live(
    repository: icechunk.Repository, name: str, *, patience: float | None = None
) -> bool:
    """Whether the owner of a hidden branch is, or may be, still at work.

    Parameters
    ----------
    repository : icechunk.Repository
        Of the cube.
    name : str
        Of the branch.
    patience : float, optional
        Seconds without a commit after which another host is given up; `ADOPT_SECONDS`
        by default.
    """
    owner = owner_of(name)
    if owner is None or Process(owner.host, owner.pid, owner.born) in _GONE:
        return False
    if owner.host == _host():
        if owner.pid == os.getpid() and owner.born == _born(owner.pid):
            return name in _MINE
        return _is_running(owner.pid) and _born(owner.pid) == owner.born
    patience = ADOPT_SECONDS if patience is None else patience
    return time.time() - last_sign(repository, name) < patience


def last_sign(repository: icechunk.Repository, name: str) -> float:
    """When something happened on a hidden branch, seconds since 1970."""
    owner = owner_of(name)
    since = float(owner.since) if owner is not None else 0.0
    newest = next(iter(commits(repository, name)), None)
    return since if newest is None else max(since, newest.written_at.timestamp())


def commits(
    repository: icechunk.Repository, name: str
) -> Iterator[icechunk.SnapshotInfo]:
    """Commits of a branch, newest first; none if it was removed meanwhile."""
    try:
        yield from repository.ancestry(branch=name)
    except icechunk.IcechunkError:
        if name in repository.list_branches():
            raise


def abandoned(repository: icechunk.Repository, label: str) -> list[str]:
    """Branches of a work, by `claim`'s label, whose owners are gone."""
    return [
        name
        for name in sorted(repository.list_branches())
        if is_hidden(name) and label_of(name) == label and not is_live(repository, name)
    ]


def live(repository: icechunk.Repository) -> list[str]:
    """Hidden branches that somebody works on."""
    return [
        name
        for name in sorted(repository.list_branches())
        if is_hidden(name) and is_live(repository, name)
    ]


def remove(repository: icechunk.Repository, names: Iterable[str]) -> None:
    """Delete hidden branches; another process may have been quicker."""
    for name in names:
        try:
            repository.delete_branch(name)
        except icechunk.IcechunkError:
            if name in repository.list_branches():
                raise
