"""The repository of a cube: where it is, opening it, its branches and history."""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import icechunk
import xarray as xr

from cube_denoise import places
from cube_denoise.places import local_path
from cube_denoise.processes import turn_in
from cube_denoise.store.answers import CubeError, SteadyStore, brief, steadily
from cube_denoise.store.owners import is_hidden
from cube_denoise.store.shards import quick_reading

icechunk.set_logs_filter("error")

_UNKNOWN = re.compile("(ref|snapshot|branch|object) not found|invalid snapshot id")


class CubeChangedError(RuntimeError):
    """The cube was changed by somebody else while a step was under way."""


def storage(url: str | Path) -> icechunk.Storage:
    """Icechunk storage of a cube's place; see `places.bucket` for buckets.

    Raises
    ------
    CubeError
        If the place is not one.
    """
    try:
        return places.icechunk_storage(url)
    except places.PlaceError as error:
        raise CubeError(str(error)) from None


def find_repository(url: str | Path) -> icechunk.Repository | None:
    """Open what is there, if there is a repository."""
    path = local_path(url)
    if path is not None and not path.is_dir():
        if path.exists():
            raise CubeError(f"url={str(url)!r} is a file and must be a folder")
        return None  # Icechunk would make the folder, and panic where it cannot.
    place = storage(url)
    if path is None:  # Icechunk would try a dead host for half a minute
        try:
            places.check(url)
        except places.PlaceError as error:
            raise CubeError(str(error)) from None
    if not icechunk.Repository.exists(place):
        return None
    return icechunk.Repository.open(place)


def is_empty(repository: icechunk.Repository) -> bool:
    """Whether making the cube was interrupted before its first commit."""
    newest = next(iter(repository.ancestry(branch="main")))
    return newest.parent_id is None


def create_repository(place: icechunk.Storage) -> icechunk.Repository:
    """Make a repository with nothing in it."""
    try:  # Icechunk 2 reads both formats, 1 only the first.
        return icechunk.Repository.create(place, spec_version=1)  # type: ignore[call-arg]
    except TypeError:
        return icechunk.Repository.create(place)


def open_repository(url: str | Path) -> icechunk.Repository:
    """Open the repository of a cube.

    Raises
    ------
    CubeError
        If there is none, or it cannot be reached.
    """

    def attempt() -> icechunk.Repository | None:
        repository = find_repository(url)
        return None if repository is None or is_empty(repository) else repository

    repository = steadily(url, "opened", attempt)
    if repository is None:
        raise CubeError(
            f"url={str(url)!r}: there is no cube; `cube-denoise ingest` makes one"
        )
    return repository


def exists(url: str | Path) -> bool:
    """Whether there is a cube.

    Raises
    ------
    CubeError
        If the place cannot be reached.
    """

    def attempt() -> bool:
        repository = find_repository(url)
        return repository is not None and not is_empty(repository)

    return steadily(url, "reached", attempt)


def is_being_made(url: str | Path) -> bool:
    """Whether there is a repository without the first commit of a cube."""
    try:
        repository = find_repository(url)
        return repository is not None and is_empty(repository)
    except (icechunk.IcechunkError, CubeError):
        return False


def open_cube(
    url: str | Path,
    *,
    branch: str = "main",
    snapshot: str | None = None,
    chunks: Any = None,
) -> xr.Dataset:
    """Open a cube for reading.

    Nothing is read but metadata; every access reads just the window asked for.

    Parameters
    ----------
    url : str or pathlib.Path
        Local path, ``s3://``, ``gs://`` or ``az://`` (`places.bucket`).
    branch : str
        Branch to read; an experiment on the same cube is another branch.
    snapshot : str, optional
        Id of an older state to read instead of the branch's newest.
    chunks : optional
        As in `xarray.open_zarr`; ``{}`` gives Dask arrays, one task per chunk. By
        default arrays are lazy without Dask.

    Returns
    -------
    xarray.Dataset
        dims (pair, time, y, x); the CRS is in the coordinate ``spatial_ref``
        (``cube.odc.crs``, ``cube.rio.crs``).

    Raises
    ------
    CubeError
        If there is no cube, branch or snapshot of that name, or it cannot be read:
        here, or when values are.
    """
    repository = open_repository(url)

    def attempt() -> xr.Dataset:
        return _dataset(_reading(repository, url, branch, snapshot), url, chunks=chunks)

    return steadily(url, "read", attempt)


def newest(url: str | Path, *, branch: str = "main") -> tuple[str, xr.Dataset]:
    """Newest state of a branch, or of main where the branch is not made yet.

    Returns
    -------
    snapshot : str
        Id of the state.
    cube : xarray.Dataset
        As from `open_cube`.

    Raises
    ------
    CubeError
        If there is no cube or it cannot be read.
    """
    repository = open_repository(url)

    def attempt() -> tuple[str, xr.Dataset]:
        known = branch in repository.list_branches()
        snapshot = repository.lookup_branch(branch if known else "main")
        session = _reading(repository, url, branch, snapshot)
        return snapshot, _dataset(session, url)

    return steadily(url, "read", attempt)


def _reading(
    repository: icechunk.Repository,
    url: str | Path,
    branch: str,
    snapshot: str | None = None,
) -> icechunk.Session:
    try:
        if snapshot:
            return repository.readonly_session(snapshot_id=snapshot)
        return repository.readonly_session(branch)
    except icechunk.IcechunkError as error:
        if not _UNKNOWN.search(brief(error)):
            raise
        if snapshot:
            what = f"{snapshot=}: {str(url)!r} has no such snapshot"
        else:
            known = ", ".join(sorted(visible_branches(repository)))
            what = f"{branch=}: {str(url)!r} has the branches {known}"
        raise CubeError(what) from None


def _dataset(
    session: icechunk.Session, url: str | Path, *, chunks: Any = None
) -> xr.Dataset:
    with quick_reading():
        return xr.open_dataset(
            SteadyStore(session.store, str(url)),  # type: ignore[arg-type]
            engine="zarr",
            consolidated=False,
            decode_coords="all",
            chunks=chunks,
            cache=False,
        )


@functools.lru_cache(maxsize=4)
def open_snapshot(url: str, snapshot: str) -> xr.Dataset:
    """One reader per process and snapshot, for tasks."""
    return open_cube(url, snapshot=snapshot)


def visible_branches(repository: icechunk.Repository) -> set[str]:
    """Names of the branches, without those of steps under way."""
    return {b for b in repository.list_branches() if not is_hidden(b)}


@contextmanager
def moving(url: str | Path) -> Iterator[None]:
    """Hold the right to move a branch that readers see; waits for its turn.

    In a bucket conditional requests keep two writers apart. A local disk has nothing
    of the kind: there processes take turns at a lock on the folder, which the kernel
    lets go when its holder dies.
    """
    path = local_path(url)
    if path is None:
        yield
        return
    with turn_in(path):
        yield


def move_branch(
    repository: icechunk.Repository,
    url: str | Path,
    branch: str,
    snapshot: str,
    *,
    base: str | None,
    doing: str,
) -> None:
    """Point a branch at another state, if it is still at `base` (None = not made yet).

    Raises
    ------
    CubeChangedError
        If somebody else has moved it.
    """
    try:
        if base == snapshot:
            return
        with moving(url):
            if base is None:
                repository.create_branch(branch, snapshot)
            else:
                repository.reset_branch(branch, snapshot, from_snapshot_id=base)
    except icechunk.IcechunkError as error:
        raise CubeChangedError(
            f"{url} was changed by another process during {doing}; "
            f"nothing is lost, run it again ({brief(error)})"
        ) from None


def commit_metadata(step: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """What a commit remembers: the step, what it was asked, and versions."""
    return {
        "step": step,
        "details": json.loads(json.dumps(details, default=str)),
        "versions": dict(_versions()),
    }


@functools.cache
def _versions() -> dict[str, str]:
    packages = ("cube-denoise", "icechunk", "numpy", "xarray", "zarr")
    return {p: version(p) for p in packages}


def newest_step(url: str | Path, *, branch: str = "main") -> dict[str, Any]:
    """Metadata of the newest commit of a branch (empty for a branch without)."""
    repository = open_repository(url)

    def attempt() -> dict[str, Any]:
        if branch not in repository.list_branches():
            return {}
        newest = next(iter(repository.ancestry(branch=branch)))
        return dict(newest.metadata or {})

    return steadily(url, "read", attempt)


def history(url: str | Path, *, branch: str = "main") -> list[dict[str, Any]]:
    """List the states that readers saw, newest first (id, time, message, ...).

    The steps of a job are in the metadata of its state (``details``, ``steps``).
    """
    repository = open_repository(url)

    def attempt() -> list[dict[str, Any]]:
        _reading(repository, url, branch)
        return [
            {
                "id": commit.id,
                "time": commit.written_at,
                "message": commit.message,
                "metadata": dict(commit.metadata or {}),
            }
            for commit in repository.ancestry(branch=branch)
            if was_shown(commit)
        ]

    return steadily(url, "read", attempt)


def was_shown(commit: icechunk.SnapshotInfo) -> bool:
    """Whether a commit is a state that readers saw, not one within a step or job."""
    metadata = commit.metadata or {}
    if metadata.get("within"):
        return False
    return bool(metadata.get("complete") or metadata.get("step") == "create")
