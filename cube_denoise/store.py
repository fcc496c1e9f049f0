"""Cubes on disk or in a bucket: the only file that writes Zarr.

A cube is an Icechunk repository (transactional Zarr v3) with one root group. Work is
staged on a branch of its own, in commits that survive a crash, and becomes visible to
readers of the target branch in one step at the end.
"""

import functools
import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import icechunk
import numpy as np
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.codecs import BloscCodec

from cube_denoise.blocks import Window, variable_window
from cube_denoise.cluster import Workers
from cube_denoise.conventions import PAIR, QUANTILE_LEVELS, TIME, VARIABLES, X, Y
from cube_denoise.grid import zarr_attributes
from cube_denoise.progress import Advance

log = logging.getLogger(__name__)
icechunk.set_logs_filter("error")

CHUNK, SHARD = 256, 1024
"""Pixels a side of the unit of reading and of writing of pair layers."""
SERIES_CHUNK = 64
"""Pixels a side of a chunk of the displacement series, which holds all dates."""
COMMIT_SECONDS = 30.0
"""Staged work is committed this often, which bounds what a crash can cost."""
TASK_WRITTEN = (
    "unwrapped_phase",
    "coherence",
    "corrected_phase",
    "phase_quantiles",
    "valid_fraction",
)
"""Variables along ``pair`` that tasks write, one pair each."""
EPOCH = "seconds since 1970-01-01T00:00:00"
PAIR_TIMES = ("reference_time", "secondary_time")


class CubeError(ValueError):
    """A cube that cannot be opened, made or changed as asked."""


class CubeChangedError(RuntimeError):
    """The cube was changed by somebody else while a step was under way."""


class SkipTask(Exception):  # noqa: N818
    """Raised in a task that can give nothing, with the reason; the others go on."""


Work = Callable[[xr.Dataset, Any], Iterable[tuple[Window, Mapping[str, np.ndarray]]]]
"""What a worker does for one task: see `Stage.fill`."""


# --- opening ---------------------------------------------------------------------


def storage(url: str | Path) -> icechunk.Storage:
    """Icechunk storage of a local path, ``s3://`` or ``gs://`` URL.

    Credentials, region and endpoint (``AWS_ENDPOINT_URL``) come from the environment.

    Raises
    ------
    CubeError
        If the scheme is unknown, or there is no bucket in the URL.
    """
    path = _local_path(url)
    if path is not None:
        return icechunk.local_filesystem_storage(str(path))
    parts = urlsplit(str(url))
    prefix = parts.path.strip("/")
    if parts.scheme in ("s3", "gs") and not parts.netloc:
        raise CubeError(f"url={str(url)!r}: must be {parts.scheme}://bucket/path")
    if parts.scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get(
            "AWS_ENDPOINT_URL"
        )
        return icechunk.s3_storage(
            bucket=parts.netloc,
            prefix=prefix,
            from_env=True,
            endpoint_url=endpoint,
            allow_http=bool(endpoint and endpoint.startswith("http://")),
            force_path_style=bool(endpoint),
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        )
    if parts.scheme == "gs":
        return icechunk.gcs_storage(bucket=parts.netloc, prefix=prefix, from_env=True)
    raise CubeError(f"url={str(url)!r}: must be a local path, s3://... or gs://...")


def _local_path(url: str | Path) -> Path | None:
    """Absolute path of a cube on disk; None for one in a bucket."""
    parts = urlsplit(str(url))
    if parts.scheme not in ("", "file"):
        return None
    return Path(parts.path if parts.scheme else str(url)).absolute()


def _find_repository(url: str | Path) -> icechunk.Repository | None:
    """Open what is there, if there is a repository."""
    path = _local_path(url)
    if path is not None and not path.is_dir():
        if path.exists():
            raise CubeError(f"url={str(url)!r} is a file and must be a folder")
        return None  # Icechunk would make the folder, and panic where it cannot.
    place = storage(url)
    if not icechunk.Repository.exists(place):
        return None
    return icechunk.Repository.open(place)


def _is_empty(repository: icechunk.Repository) -> bool:
    """Whether making the cube was interrupted before its first commit."""
    newest = next(iter(repository.ancestry(branch="main")))
    return newest.parent_id is None


def open_repository(url: str | Path) -> icechunk.Repository:
    """Open the repository of a cube.

    Raises
    ------
    CubeError
        If there is none, or it cannot be reached.
    """
    try:
        repository = _find_repository(url)
        if repository is None or _is_empty(repository):
            raise CubeError(
                f"url={str(url)!r}: there is no cube; `cube-denoise ingest` makes one"
            )
        return repository
    except icechunk.IcechunkError as error:
        raise CubeError(f"url={str(url)!r} cannot be opened: {_brief(error)}") from None


def exists(url: str | Path) -> bool:
    """Whether there is a cube.

    Raises
    ------
    CubeError
        If the place cannot be reached.
    """
    try:
        repository = _find_repository(url)
        return repository is not None and not _is_empty(repository)
    except icechunk.IcechunkError as error:
        raise CubeError(
            f"url={str(url)!r} cannot be reached: {_brief(error)}"
        ) from None


def _brief(error: Exception) -> str:
    """What an Icechunk error says and its root cause, on one line."""
    lines = [
        re.sub(r"^[\s|│├╰`─▶>×-]*(x )?", "", line).strip()
        for line in str(error).splitlines()
    ]
    trace = re.compile(r"context:$|\d+: |at icechunk/|with ")
    kept = [line for line in lines if line and not trace.match(line)]
    return ": ".join(dict.fromkeys([*kept[:1], *kept[-1:]]))[:300]


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
        Local path, ``s3://`` or ``gs://``.
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
        If there is no cube, branch or snapshot of that name.
    """
    repository = open_repository(url)
    return _dataset(_reading(repository, url, branch, snapshot).store, chunks=chunks)


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
    except (icechunk.IcechunkError, ValueError):
        if snapshot:
            what = f"{snapshot=}: {str(url)!r} has no such snapshot"
        else:
            known = ", ".join(sorted(visible_branches(repository)))
            what = f"{branch=}: {str(url)!r} has the branches {known}"
        raise CubeError(what) from None


def visible_branches(repository: icechunk.Repository) -> set[str]:
    """Names of the branches, without those of steps under way."""
    return {b for b in repository.list_branches() if not b.startswith("staging-")}


def _dataset(store: Any, *, chunks: Any = None) -> xr.Dataset:
    return xr.open_dataset(
        store,
        engine="zarr",
        consolidated=False,
        decode_coords="all",
        chunks=chunks,
        cache=False,
    )


@functools.lru_cache(maxsize=4)
def _snapshot_dataset(url: str, snapshot: str) -> xr.Dataset:
    """One reader per process and snapshot, for tasks."""
    return open_cube(url, snapshot=snapshot)


# --- making ----------------------------------------------------------------------


def create_cube(
    url: str | Path,
    grid: GeoBox,
    *,
    attributes: Mapping[str, Any],
    chunk: int = CHUNK,
    shard: int = SHARD,
) -> None:
    """Make an empty cube on a grid: one commit, no pairs yet.

    Parameters
    ----------
    url : str or pathlib.Path
        Where; must not hold a cube yet.
    grid : odc.geo.geobox.GeoBox
        Pixel grid.
    attributes : mapping
        Of the root group; ``wavelength`` (m) and ``track`` are needed by later steps.
    chunk, shard : int
        Pixels a side of the unit of reading and of writing; `shard` is a multiple of
        `chunk`.

    Raises
    ------
    CubeError
        If there is a cube already or the place refuses.
    ValueError
        If `shard` is not a multiple of `chunk`.
    """
    if chunk < 1 or shard % chunk:
        raise ValueError(f"{shard=} must be a multiple of {chunk=}")
    try:
        repository = _find_repository(url)
        if repository is not None and not _is_empty(repository):
            raise CubeError(f"url={str(url)!r}: there is a cube already")
        path = _local_path(url)
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK):
                raise CubeError(f"url={str(url)!r}: the folder cannot be written to")
        repository = repository or _create(storage(url))
        session = repository.writable_session("main")
        root = zarr.create_group(session.store)
        root.attrs.update(
            {
                "Conventions": "CF-1.11",
                "title": "interferometric displacement cube",
                **zarr_attributes(grid),
                **attributes,
                "chunk": chunk,
                "shard": shard,
                "items": [],
                "failed": [],
                "coordinates": " ".join(
                    (*PAIR_TIMES, "perpendicular_baseline", "spatial_ref")
                ),
            }
        )
        for key, coordinate in xr_coords(grid, dims=(Y, X)).items():
            name, dims = str(key), [str(d) for d in coordinate.dims]
            attrs = dict(coordinate.attrs)
            if name in (Y, X):
                attrs = _axis_attributes(name, grid)
            values = coordinate.values
            array = root.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=values.shape or (),
                dimension_names=dims,
            )
            array.attrs.update(attrs)
            array[...] = values
        sizes = {PAIR: 0, "quantile": 5, Y: grid.shape[0], X: grid.shape[1]}
        for name in PAIR_TIMES:
            array = root.create_array(
                name,
                shape=(0,),
                dtype="int64",
                chunks=(1024,),
                fill_value=0,
                dimension_names=(PAIR,),
            )
            array.attrs.update({"units": EPOCH, "calendar": "standard"})
        quantile = root.create_array(
            "quantile", shape=(5,), dtype="float64", dimension_names=("quantile",)
        )
        quantile[...] = QUANTILE_LEVELS
        for name in (
            "perpendicular_baseline",
            "valid_fraction",
            "phase_quantiles",
            "unwrapped_phase",
            "coherence",
        ):
            _create_array(root, name, sizes)
        session.commit(
            "create", metadata=_metadata("create", {"grid": str(grid), "chunk": chunk})
        )
    except icechunk.IcechunkError as error:
        raise CubeError(f"url={str(url)!r} cannot be made: {_brief(error)}") from None
    except OSError as error:
        raise CubeError(f"url={str(url)!r} cannot be made: {error}") from None


def _create(place: icechunk.Storage) -> icechunk.Repository:
    try:  # Icechunk 2 reads both formats, 1 only the first.
        return icechunk.Repository.create(place, spec_version=1)  # type: ignore[call-arg]
    except TypeError:
        return icechunk.Repository.create(place)


def _axis_attributes(name: str, grid: GeoBox) -> dict[str, str]:
    if grid.crs is not None and grid.crs.geographic:
        known = {Y: ("latitude", "degrees_north"), X: ("longitude", "degrees_east")}
    else:
        known = {
            Y: ("projection_y_coordinate", "m"),
            X: ("projection_x_coordinate", "m"),
        }
    standard_name, units = known[name]
    return {"axis": name.upper(), "standard_name": standard_name, "units": units}


def _create_array(root: zarr.Group, name: str, sizes: Mapping[str, int]) -> zarr.Array:
    """Create (or replace) a variable of the data model, filled with no data."""
    spec = VARIABLES[name]
    shape = tuple(sizes[d] for d in spec.dims)
    attributes: Any = root.attrs
    chunk, shard = int(attributes["chunk"]), int(attributes["shard"])
    # What the task of one pair writes must not share a chunk with another pair.
    lengths = {PAIR: 1 if name in TASK_WRITTEN else 1024, "quantile": 5}
    chunks, shards = [], []
    for d, n in zip(spec.dims, shape, strict=True):
        if d == TIME:
            length, group = max(n, 1), max(n, 1)
        elif d in (Y, X):
            # A map or series task owns a chunk; a pair task owns a shard.
            series, pair = TIME in spec.dims, PAIR in spec.dims
            fine = series and chunk % SERIES_CHUNK == 0
            length = min(SERIES_CHUNK if fine else chunk, max(n, 1))
            whole = shard if pair else chunk
            group = length * max(1, min(whole, n + length - 1) // length)
        else:
            length = group = lengths[d]
        chunks.append(length)
        shards.append(group)
    fill = np.nan if np.dtype(spec.dtype).kind == "f" else 0
    array = root.create_array(
        name,
        shape=shape,
        dtype=spec.dtype,
        chunks=tuple(chunks),
        shards=tuple(shards) if shards != chunks else None,
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
        fill_value=fill,
        dimension_names=spec.dims,
        overwrite=True,
    )
    attrs: dict[str, Any] = dict(spec.attributes)
    if {Y, X} <= set(spec.dims):
        attrs["grid_mapping"] = "spatial_ref"
    array.attrs.update(attrs)
    return array


def writing_unit(cube: xr.Dataset, name: str) -> tuple[int, int]:
    """Rows and columns that one task must own when it writes variable `name`."""
    unit = cube.attrs["shard"] if PAIR in VARIABLES[name].dims else cube.attrs["chunk"]
    return int(unit), int(unit)


# --- changing --------------------------------------------------------------------


def _metadata(step: str, details: Mapping[str, Any]) -> dict[str, Any]:
    packages = ("cube-denoise", "icechunk", "numpy", "xarray", "zarr")
    return {
        "step": step,
        "details": json.loads(json.dumps(details, default=str)),
        "versions": {p: version(p) for p in packages},
    }


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
        self.name = f"staging-{step}-{branch}"
        self.base = repository.lookup_branch(branch)
        self.mark = fingerprint({"asked": self.asked, "base": self.base})
        self.tasks_done = 0
        self.skipped: dict[int, str] = {}
        """Tasks that gave nothing: position in the list -> reason."""
        self._resume_or_start()

    def _resume_or_start(self) -> None:
        if self.name in self.repository.list_branches():
            tip = self.repository.lookup_branch(self.name)
            commits = iter(self.repository.ancestry(snapshot_id=tip))
            newest = next(commits)
            if newest.metadata.get("complete") and tip != self.base:
                # Interrupted between the last commit and showing it.
                newest = next(commits)
                tip = newest.id
                self.repository.reset_branch(self.name, tip)
            metadata = newest.metadata or {}
            if tip != self.base and metadata.get("mark") == self.mark:
                self.tasks_done = int(metadata["tasks_done"])
                self.skipped = {int(k): v for k, v in metadata["skipped"].items()}
                log.info("%s: take up an interrupted run", self.step)
                return
            self.repository.delete_branch(self.name)
        self.repository.create_branch(self.name, self.base)

    @property
    def tip(self) -> str:
        """Snapshot id of the newest staged state."""
        return self.repository.lookup_branch(self.name)

    @property
    def cube(self) -> xr.Dataset:
        """The newest staged state, for reading."""
        return _snapshot_dataset(self.url, self.tip)

    def resumed(self) -> bool:
        """Whether an interrupted run left something to go on from."""
        return self.tip != self.base

    def change(self, edit: Callable[[zarr.Group], None], message: str) -> None:
        """Commit a change of structure or of small arrays, made in this process."""
        session = self.repository.writable_session(self.name)
        edit(zarr.open_group(session.store, mode="r+"))
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
            metadata=_metadata(self.step, self.asked) | mark,
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
        todo = list(tasks[self.tasks_done :])
        advance(sum(amount(task) for task in tasks[: self.tasks_done]))
        wave = 4 * workers.count
        while todo:
            session = self.repository.writable_session(self.name)
            do = _Fill(self.url, session.snapshot_id, session.fork(), work)
            forks: dict[int, Any] = {}
            started, finished = time.monotonic(), 0
            while todo and (not finished or not _due(started)):
                now, todo = todo[:wave], todo[wave:]
                position = {
                    id(task): self.tasks_done + finished + k
                    for k, task in enumerate(now)
                }
                for task, (fork, reason) in workers.run(do, now):
                    forks[id(fork)] = fork
                    if reason is not None:
                        self.skipped[position[id(task)]] = reason
                    advance(amount(task))
                finished += len(now)
            session.merge(*forks.values())
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
        root = zarr.open_group(session.store, mode="r+")
        if edit is not None:
            edit(root)
        # CF's audit trail; it makes every step a change, as a commit must be.
        line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {self.step}: {message}"
        earlier = root.attrs.get("history")
        root.attrs["history"] = f"{earlier}\n{line}" if earlier else line
        metadata = _metadata(self.step, self.asked | dict(details or {}))
        session.commit(
            f"{self.step}: {message}", metadata=metadata | {"complete": True}
        )
        tip = self.tip
        try:
            self.repository.reset_branch(self.branch, tip, from_snapshot_id=self.base)
        except icechunk.IcechunkError as error:
            raise CubeChangedError(
                f"{self.url} was changed by another process during {self.step}; "
                f"nothing is lost, run it again ({_brief(error)})"
            ) from None
        self.repository.delete_branch(self.name)
        return tip

    def discard(self) -> None:
        """Forget everything staged."""
        self.repository.delete_branch(self.name)


def _due(started: float) -> bool:
    return time.monotonic() - started >= COMMIT_SECONDS


@dataclass(frozen=True)
class _Fill:
    """Do one task and write what it gives into a forked session; runs in a worker."""

    url: str
    snapshot: str
    fork: Any
    work: Work

    def __call__(self, task: Any) -> tuple[Any, str | None]:
        cube = _snapshot_dataset(self.url, self.snapshot)
        root = zarr.open_group(self.fork.store, mode="r+")
        try:
            for window, arrays in self.work(cube, task):
                for name, values in arrays.items():
                    array: Any = root[name]
                    array[variable_window(name, window)] = values
        except SkipTask as reason:
            return self.fork, str(reason)
        return self.fork, None


@contextmanager
def stage(
    url: str | Path, *, step: str, branch: str, asked: Mapping[str, Any]
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

    Yields
    ------
    Stage
    """
    repository = open_repository(url)
    try:
        if branch not in repository.list_branches():
            repository.create_branch(branch, repository.lookup_branch("main"))
        yield Stage(repository, str(url), step=step, branch=branch, asked=asked)
    except icechunk.ConflictError:
        raise CubeChangedError(
            f"{url} is being changed by another process; run {step} again"
        ) from None
    except icechunk.IcechunkError as error:
        raise CubeError(f"url={str(url)!r}: {step} failed: {_brief(error)}") from None


def newest_step(url: str | Path, *, branch: str = "main") -> dict[str, Any]:
    """Metadata of the newest commit of a branch (empty for a branch without)."""
    repository = open_repository(url)
    if branch not in repository.list_branches():
        return {}
    newest = next(iter(repository.ancestry(branch=branch)))
    return dict(newest.metadata or {})


def history(url: str | Path, *, branch: str = "main") -> list[dict[str, Any]]:
    """List the steps that changed a branch, newest first (id, time, message, ...)."""
    repository = open_repository(url)
    _reading(repository, url, branch)
    return [
        {
            "id": commit.id,
            "time": commit.written_at,
            "message": commit.message,
            "metadata": dict(commit.metadata or {}),
        }
        for commit in repository.ancestry(branch=branch)
        if (commit.metadata or {}).get("complete")
        or (commit.metadata or {}).get("step") == "create"
    ]


def declare(
    root: zarr.Group,
    names: Sequence[str],
    sizes: Mapping[str, int],
    *,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    times: np.ndarray | None = None,
) -> None:
    """Create or replace variables, empty; `times` (datetime64) becomes ``time``."""
    if times is not None:
        seconds = np.asarray(times, "datetime64[s]").astype("int64")
        array = root.create_array(
            TIME,
            shape=seconds.shape,
            dtype="int64",
            chunks=seconds.shape,
            dimension_names=(TIME,),
            overwrite=True,
        )
        array.attrs.update(
            {"units": EPOCH, "calendar": "standard", "standard_name": "time"}
        )
        array[...] = seconds
    for name in names:
        array = _create_array(root, name, sizes)
        array.attrs.update(dict((attributes or {}).get(name, {})))


def write_layers(root: zarr.Group, layers: Mapping[str, np.ndarray]) -> None:
    """Write whole small variables (per pair, or static maps), made if not there."""
    for name, values in layers.items():
        spec = VARIABLES[name]
        if name not in root:
            sizes = dict(zip(spec.dims, values.shape, strict=True))
            _create_array(root, name, sizes)
        array: Any = root[name]
        array[...] = values


def append_pairs(
    root: zarr.Group,
    *,
    reference_time: np.ndarray,
    secondary_time: np.ndarray,
    perpendicular_baseline: np.ndarray,
    items: Sequence[Mapping[str, Any]],
) -> None:
    """Lengthen every variable along ``pair`` and write the new pairs' coordinates.

    Times are datetime64, baselines m; `items` are JSON-able records of the sources.
    """
    known = list(root.attrs["items"])  # type: ignore[arg-type]
    old, new = len(known), len(known) + len(items)
    for names, array in _arrays(root):
        if PAIR in names:
            axis = names.index(PAIR)
            shape = (*array.shape[:axis], new, *array.shape[axis + 1 :])
            array.resize(shape)
    for name, values in (
        ("reference_time", np.asarray(reference_time, "datetime64[s]")),
        ("secondary_time", np.asarray(secondary_time, "datetime64[s]")),
        ("perpendicular_baseline", np.asarray(perpendicular_baseline)),
    ):
        target: Any = root[name]
        target[old:new] = values.astype(target.dtype)
    root.attrs["items"] = known + [dict(i) for i in items]


def _arrays(root: zarr.Group) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Dimension names and array of every variable."""
    for _, array in root.arrays():
        metadata: Any = array.metadata
        yield tuple(metadata.dimension_names or ()), array


def drop_pairs(root: zarr.Group, gone: Sequence[int]) -> None:
    """Remove pairs, given by position; the others keep their order."""
    items = list(root.attrs["items"])  # type: ignore[arg-type]
    kept = [k for k in range(len(items)) if k not in set(gone)]
    for names, array in _arrays(root):
        if PAIR not in names:
            continue
        shards = array.shards or array.chunks
        corners = [range(0, n, s) for n, s in zip(array.shape, shards, strict=True)]
        for new, old in enumerate(kept):
            if new == old:
                continue
            for corner in product(*corners[1:]):
                part = tuple(
                    slice(c, c + s) for c, s in zip(corner, shards[1:], strict=True)
                )
                array[(new, *part)] = array[(old, *part)]
        array.resize((len(kept), *array.shape[1:]))
    root.attrs["items"] = [items[k] for k in kept]


# --- export ----------------------------------------------------------------------


def export_zarr(cube: xr.Dataset, url: str | Path, *, overwrite: bool = False) -> None:
    """Write plain Zarr v3 with consolidated metadata, readable by xarray alone.

    Parameters
    ----------
    cube : xarray.Dataset
        As opened with ``open_cube(url, chunks={})``, or a region of it.
    url : str or pathlib.Path
        Where to; any fsspec URL.
    overwrite : bool
        Replace what is there.

    Raises
    ------
    CubeError
        If there is something already, or it cannot be written.
    """
    plain = cube.drop_encoding()
    box = plain.odc.geobox
    if box is not None and box.crs is not None:  # a region has a place of its own
        plain.attrs |= zarr_attributes(box)
        plain = plain.assign_coords(spatial_ref=xr_coords(box)["spatial_ref"])
    for name in plain.variables:
        even = {d: max(c) for d, c in plain[name].variable.chunksizes.items()}
        if even:  # of a region, the first and last are smaller
            plain[name] = plain[name].variable.chunk(even)
            plain[name].encoding["chunks"] = tuple(even.values())
        if "spatial_ref" in cube.coords and {Y, X} <= set(plain[name].dims):
            plain[name].encoding["grid_mapping"] = "spatial_ref"
    for name in (*PAIR_TIMES, TIME):
        if name in plain:
            plain[name].encoding = {"units": EPOCH, "dtype": "int64"}
    # xarray does not list a grid mapping among the coordinates by itself.
    extra = [str(name) for name in plain.coords if name not in plain.dims]
    plain.attrs["coordinates"] = " ".join(sorted(extra))
    parts = urlsplit(str(url))
    if parts.scheme not in ("", "file"):
        _write_plain(plain, str(url), str(url), overwrite=overwrite)
        return
    target = Path(parts.path if parts.scheme else url).absolute()
    if target.exists() and not overwrite:
        raise CubeError(f"url={str(url)!r} exists: give another, or overwrite")
    if target.exists() and not (target / "zarr.json").is_file():
        raise CubeError(f"url={str(url)!r} is not a Zarr store: it is not overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place: there it is whole or not at all.
    prefix = f".{target.name}-"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as work:
        _write_plain(plain, f"{work}/new", str(url), overwrite=False)
        if target.exists():
            target.rename(f"{work}/old")
        Path(work, "new").rename(target)


def _write_plain(plain: xr.Dataset, where: str, url: str, *, overwrite: bool) -> None:
    """Write with metadata last; `url` is what the user calls it."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            warnings.filterwarnings("ignore", message="cannot serialize global coord")
            plain.to_zarr(
                where,
                mode="w" if overwrite else "w-",
                zarr_format=3,
                consolidated=True,
            )
    except (FileExistsError, zarr.errors.ContainsGroupError):
        raise CubeError(f"{url=} exists: give another, or overwrite") from None
    except (ImportError, ValueError) as error:  # unknown schemes, no driver for one
        raise CubeError(f"{url=} cannot be written: {error}") from None
