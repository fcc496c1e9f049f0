"""The layout of a cube: its variables, their chunks and shards, room for pairs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.codecs import BloscCodec

from cube_denoise.conventions import (
    CHECKPOINT,
    PAIR,
    QUANTILE_LEVELS,
    TIME,
    TIMES,
    VARIABLES,
    X,
    Y,
)
from cube_denoise.grid import zarr_attributes
from cube_denoise.store.repository import (
    CubeError,
    brief,
    commit_metadata,
    create_repository,
    find_repository,
    is_empty,
    local_path,
    moving,
    storage,
)

CHUNK, SHARD = 256, 1024
"""Pixels a side of the unit of reading and of writing of pair layers."""
SERIES_CHUNK = 64
"""Pixels a side of a chunk of the displacement series."""
SERIES_DATES = 32
"""Dates of such a chunk: what an update of recent dates writes anew."""
TASK_WRITTEN = ("unwrapped_phase", "coherence", "corrected_phase")
"""Variables along ``pair`` that tasks write, one pair each."""
EPOCH = "seconds since 1970-01-01T00:00:00"
PAIR_TIMES = ("reference_time", "secondary_time")


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
        repository = find_repository(url)
        if repository is not None and not is_empty(repository):
            raise CubeError(f"url={str(url)!r}: there is a cube already")
        path = local_path(url)
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK):
                raise CubeError(f"url={str(url)!r}: the folder cannot be written to")
        with moving(url):
            repository = repository or create_repository(storage(url))
        session = repository.writable_session("main")
        root = zarr.create_group(
            session.store,
            attributes={
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
            },
        )
        for key, coordinate in xr_coords(grid, dims=(Y, X)).items():
            name, dims = str(key), [str(d) for d in coordinate.dims]
            attrs = dict(coordinate.attrs)
            if name in (Y, X):
                attrs = axis_attributes(name, grid)
            values = coordinate.values
            array = root.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=values.shape or (),
                dimension_names=dims,
                attributes=attrs,
            )
            array[...] = values
        sizes = {PAIR: 0, "quantile": 5, Y: grid.shape[0], X: grid.shape[1]}
        for name in PAIR_TIMES:
            root.create_array(
                name,
                shape=(0,),
                dtype="int64",
                chunks=(1024,),
                fill_value=0,
                dimension_names=(PAIR,),
                attributes={"units": EPOCH, "calendar": "standard"},
            )
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
        asked = {"grid": str(grid), "chunk": chunk}
        with moving(url):
            if not is_empty(repository):
                raise CubeError(f"url={str(url)!r}: there is a cube already")
            session.commit("create", metadata=commit_metadata("create", asked))
    except icechunk.IcechunkError as error:
        raise CubeError(f"url={str(url)!r} cannot be made: {brief(error)}") from None
    except OSError as error:
        raise CubeError(f"url={str(url)!r} cannot be made: {error}") from None


def axis_attributes(name: str, grid: GeoBox) -> dict[str, str]:
    """CF attributes of the coordinate ``y`` or ``x``."""
    if grid.crs is not None and grid.crs.geographic:
        known = {Y: ("latitude", "degrees_north"), X: ("longitude", "degrees_east")}
    else:
        known = {
            Y: ("projection_y_coordinate", "m"),
            X: ("projection_x_coordinate", "m"),
        }
    standard_name, units = known[name]
    return {"axis": name.upper(), "standard_name": standard_name, "units": units}


def _create_array(
    root: zarr.Group,
    name: str,
    sizes: Mapping[str, int],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Create (or replace) a variable of the data model, filled with no data.

    `attributes` are added to those of the data model, all in one write.
    """
    spec = VARIABLES[name]
    shape = tuple(sizes[d] for d in spec.dims)
    made: Any = root.attrs
    chunk, shard = int(made["chunk"]), int(made["shard"])
    # What the task of one pair writes must not share a chunk with another pair.
    lengths = {PAIR: 1 if name in TASK_WRITTEN else 1024, "quantile": 5, CHECKPOINT: 1}
    chunks, shards = [], []
    for d, n in zip(spec.dims, shape, strict=True):
        if d in TIMES:
            length = group = min(SERIES_DATES, max(n, 1))
        elif d in (Y, X):
            # A map or series task owns a chunk; a pair task owns a shard.
            series, pair = not {*TIMES}.isdisjoint(spec.dims), PAIR in spec.dims
            fine = series and chunk % SERIES_CHUNK == 0
            length = min(SERIES_CHUNK if fine else chunk, max(n, 1))
            whole = shard if pair else chunk
            group = length * max(1, min(whole, n + length - 1) // length)
        else:
            length = group = lengths.get(d, max(n, 1))
        chunks.append(length)
        shards.append(group)
    fill = np.nan if np.dtype(spec.dtype).kind == "f" else 0
    often = TIME in spec.dims or CHECKPOINT in spec.dims
    attrs: dict[str, Any] = dict(spec.attributes)
    if {Y, X} <= set(spec.dims):
        attrs["grid_mapping"] = "spatial_ref"
    root.create_array(
        name,
        shape=shape,
        dtype=spec.dtype,
        chunks=tuple(chunks),
        shards=tuple(shards) if shards != chunks else None,
        # What an inversion writes again and again is noise to a compressor.
        compressors=BloscCodec(
            cname="lz4" if often else "zstd",
            clevel=5 if often else 3,
            shuffle="shuffle",
        ),
        fill_value=fill,
        dimension_names=spec.dims,
        attributes={**attrs, **(attributes or {})},
        overwrite=True,
    )


def writing_unit(cube: xr.Dataset, name: str) -> tuple[int, int]:
    """Rows and columns that one task must own when it writes variable `name`."""
    unit = cube.attrs["shard"] if PAIR in VARIABLES[name].dims else cube.attrs["chunk"]
    return int(unit), int(unit)


def declare(
    root: zarr.Group,
    names: Sequence[str],
    sizes: Mapping[str, int],
    *,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    times: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Create or replace variables, empty, and the coordinates `times` (datetime64)."""
    for dim, values in (times or {}).items():
        _write_times(root, dim, values)
    for name in names:
        _create_array(root, name, sizes, (attributes or {}).get(name))


def lengthen(
    root: zarr.Group, names: Sequence[str], sizes: Mapping[str, int], times: np.ndarray
) -> None:
    """Give variables other sizes, and ``time`` other values; what fits is kept."""
    _write_times(root, TIME, times)
    for name in names:
        array: Any = root[name]
        array.resize(tuple(sizes[d] for d in VARIABLES[name].dims))


def remove(root: zarr.Group, names: Sequence[str]) -> None:
    """Delete variables, those that are there."""
    for name in names:
        if name in root:
            del root[name]


def _write_times(root: zarr.Group, dim: str, times: np.ndarray) -> None:
    seconds = np.asarray(times, "datetime64[s]").astype("int64")
    array = root.create_array(
        dim,
        shape=seconds.shape,
        dtype="int64",
        chunks=seconds.shape,
        dimension_names=(dim,),
        attributes={"units": EPOCH, "calendar": "standard", "standard_name": "time"},
        overwrite=True,
    )
    array[...] = seconds


def write_layers(root: zarr.Group, layers: Mapping[str, np.ndarray]) -> None:
    """Write whole small variables (per pair, or static maps), made if not there."""
    for name, values in layers.items():
        spec = VARIABLES[name]
        if name not in root:
            sizes = dict(zip(spec.dims, values.shape, strict=True))
            _create_array(root, name, sizes)
        array: Any = root[name]
        array[...] = values


def annotate(root: zarr.Group, attributes: Mapping[str, Mapping[str, Any]]) -> None:
    """Add attributes to variables that are there."""
    for name, added in attributes.items():
        root[name].update_attributes(dict(added))


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


def arrange_pairs(root: zarr.Group, sources: Sequence[int]) -> None:
    """Make pair `k` of what is pair ``sources[k]`` now; what is not named goes.

    Only pairs that change place are read and written.

    Parameters
    ----------
    root : zarr.Group
        Of the cube.
    sources : sequence of int
        Positions, all different, none before the place it goes to: ``sources[k] >= k``.

    Raises
    ------
    ValueError
        If `sources` is not so.
    """
    items = list(root.attrs["items"])  # type: ignore[arg-type]
    fits = all(k <= old < len(items) for k, old in enumerate(sources))
    if not fits or len(set(sources)) < len(sources):
        raise ValueError(
            f"{sources=} must be different positions below {len(items)}, none before "
            "the place it goes to"
        )
    moves = [(new, old) for new, old in enumerate(sources) if new != old]
    for names, array in _arrays(root):
        if PAIR not in names:
            continue
        shards = array.shards or array.chunks
        corners = [range(0, n, s) for n, s in zip(array.shape, shards, strict=True)]
        for new, old in moves:
            for corner in product(*corners[1:]):
                part = tuple(
                    slice(c, c + s) for c, s in zip(corner, shards[1:], strict=True)
                )
                array[(new, *part)] = array[(old, *part)]
        array.resize((len(sources), *array.shape[1:]))
    root.attrs["items"] = [items[k] for k in sources]


def _arrays(root: zarr.Group) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Dimension names and array of every variable."""
    for _, array in root.arrays():
        metadata: Any = array.metadata
        yield tuple(metadata.dimension_names or ()), array
