"""A velocity product as plain Zarr: sharded, with coarser levels as subgroups.

Level 0 is in the root group, so that ``xarray.open_zarr`` shows it; level k in the
group ``k`` has pixels twice as large as level k - 1. ``xarray.open_groups`` opens all;
``open_datatree`` does not, since it wants a dimension to have one size in a group and
in those inside it. A coarse pixel is of the pixels
that hold data alone, each pixel of level 0 counting the same:

* ``velocity`` is their mean, ``velocity_covariance`` the mean of their covariances and
  ``velocity_std`` the root mean square of their standard deviations. Whatever the
  correlation of their errors, the mean has no larger standard deviation than that.
* ``frame_count``, ``condition_number`` and ``last_date`` are the largest,
  ``first_date`` is the smallest.
* ``valid_fraction`` tells how much of the pixel they cover.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import dask
import numpy as np
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.codecs import BloscCodec

from cube_denoise.blocks import Window, spans, windows
from cube_denoise.coarsening import (
    METHODS,
    NO_DATE,
    halved,
    halved_fraction,
    weights_for,
)
from cube_denoise.conventions import X, Y
from cube_denoise.grid import coarser_grids, geobox_of, zarr_attributes
from cube_denoise.product_variables import (
    COMPONENT,
    COVARIANCE_TERM,
    LABELS,
    PRODUCT_VARIABLES,
    codes,
    label_attributes,
)
from cube_denoise.progress import progress
from cube_denoise.store.layout import CHUNK, EPOCH, SHARD, axis_attributes
from cube_denoise.store.levels import zarr_place
from cube_denoise.store.shards import quick


class _Level(NamedTuple):
    """One level being written."""

    grid: GeoBox
    group: zarr.Group
    arrays: Mapping[str, Any]

    def cuts(self, shard: int) -> tuple[dict[str, slice], ...]:
        """Windows of whole shards."""
        rows, columns = self.grid.shape
        return windows(y=spans(rows, shard), x=spans(columns, shard))


def write_pyramid(
    product: xr.Dataset,
    url: str | Path,
    *,
    chunk: int = CHUNK,
    shard: int = SHARD,
    workers: int | None = None,
) -> None:
    """Write a velocity product as plain Zarr v3 with a pyramid, shard by shard.

    Memory is that of some blocks of `shard` pixels a side, with all variables. Metadata
    are consolidated last: what is cut off has none in its root.

    Parameters
    ----------
    product : xarray.Dataset
        As `product_variables.checked_product` gives it. Dask arrays are computed block
        by block; best with chunks that are whole parts of a shard.
    url : str or pathlib.Path
        An empty place: local path, ``s3://``, ``gs://`` or ``az://``.
    chunk, shard : int
        Pixels a side of the units of reading and of writing; `shard` is an even
        multiple of `chunk`, or `chunk` itself.
    workers : int, optional
        Threads; as many as there are processors when not given.

    Raises
    ------
    ValueError
        If sizes do not fit, or the place refuses.
    """
    if chunk < 2 or chunk % 2 or shard % chunk:
        raise ValueError(f"{shard=} must be a multiple of {chunk=}, and that be even")
    place = zarr_place(url)
    grid = geobox_of(product)
    coarser = coarser_grids(grid, smallest=chunk)
    levels = []
    with zarr.config.set({"json_indent": None}):
        for k, box in enumerate((grid, *coarser)):
            told = zarr_attributes(box, levels=coarser if k == 0 else ())
            told |= {"Conventions": "CF-1.11", "coordinates": "spatial_ref"}
            attributes = told if k else {**product.attrs, **told}
            group = zarr.create_group(
                place, path=str(k or ""), zarr_format=3, attributes=attributes
            )
            arrays = _arrays(
                group, product, box, coarse=k > 0, chunk=chunk, shard=shard
            )
            levels.append(_Level(box, group, arrays))
    tasks = [(k, w) for k, level in enumerate(levels) for w in level.cuts(shard)]
    with progress("publish", len(tasks), unit="blocks") as advance:
        for k, level in enumerate(levels):
            if k == 0:
                write = _finest(product, level)
            else:
                write = _coarser(levels[k - 1], level, shard)
            for _ in _threaded(write, level.cuts(shard), workers):
                advance(1)
    with warnings.catch_warnings(), zarr.config.set({"json_indent": None}):
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        for path in (*map(str, range(1, len(levels))), None):
            zarr.consolidate_metadata(place, path=path)


def _threaded(
    write: Callable[[Window], None], cuts: Iterable[Window], workers: int | None
) -> Iterator[None]:
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        futures = [pool.submit(write, window) for window in cuts]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _arrays(
    group: zarr.Group,
    product: xr.Dataset,
    grid: GeoBox,
    *,
    coarse: bool,
    chunk: int,
    shard: int,
) -> dict[str, Any]:
    """Make the arrays of a level; coordinates are written."""
    sizes = {str(d): n for d, n in product.sizes.items()}
    sizes |= dict(zip((Y, X), grid.shape, strict=True))
    for key, coordinate in xr_coords(grid, dims=(Y, X)).items():
        name = str(key)
        axis = name in (Y, X)
        attributes = axis_attributes(name, grid) if axis else dict(coordinate.attrs)
        _whole(group, name, coordinate.values, coordinate.dims, attributes)
    for dim in (COMPONENT, COVARIANCE_TERM):
        if dim in product.dims:
            numbers = codes(dim, product[dim].values.tolist())
            _whole(group, dim, numbers, (dim,), label_attributes(dim))
    names = [str(n) for n in product.data_vars]
    if coarse and "valid_fraction" not in names:
        names.append("valid_fraction")
    known: dict[str, Mapping[str, Any]] = {
        name: product[name].attrs
        if name in product
        else PRODUCT_VARIABLES[name].attributes
        for name in names
    }
    return {
        name: _array(group, name, sizes, known[name], chunk, shard, coarse)
        for name in names
    }


def _whole(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    dims: Sequence[Any],
    attributes: Mapping[str, Any],
) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=values.shape or (),
        dimension_names=[str(d) for d in dims],
        attributes=dict(attributes),
    )
    array[...] = values


def _array(
    group: zarr.Group,
    name: str,
    sizes: Mapping[str, int],
    attributes: Mapping[str, Any],
    chunk: int,
    shard: int,
    coarse: bool,
) -> Any:
    """Make one array, filled with no data; chunks of one component, shards of all."""
    spec = PRODUCT_VARIABLES[name]
    kind = np.dtype(spec.dtype).kind
    lead = [sizes[d] for d in spec.dims[:-2]]
    told = {**attributes, "grid_mapping": "spatial_ref"}
    if kind == "M":
        told |= {"units": EPOCH, "calendar": "standard", "_FillValue": NO_DATE}
    if coarse and name in METHODS:
        told["cell_methods"] = f"area: {METHODS[name]}"
    array = group.create_array(
        name,
        shape=tuple(sizes[d] for d in spec.dims),
        dtype="int64" if kind == "M" else spec.dtype,
        chunks=(*(1 for _ in lead), chunk, chunk),
        shards=(*lead, shard, shard) if shard > chunk or lead else None,
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
        fill_value={"f": np.nan, "M": NO_DATE}.get(kind, 0),
        dimension_names=spec.dims,
        attributes=told,
    )
    return quick(array)


def _finest(product: xr.Dataset, level: _Level) -> Callable[[Window], None]:
    """Give what computes and writes a block of level 0."""

    def write(window: Window) -> None:
        block = product.isel(dict(window))
        # Here, so that nothing of a bucket is sent to a cluster.
        values = dask.compute(
            {str(n): a.data for n, a in block.data_vars.items()},
            scheduler="synchronous",
        )[0]
        for name, array in level.arrays.items():
            _put(array, window, np.asarray(values[name]))

    return write


def _put(array: Any, window: Window, values: np.ndarray) -> None:
    if values.dtype.kind == "M":  # NaT is NO_DATE
        values = values.astype("datetime64[s]").astype("int64")
    array[..., window[Y], window[X]] = values


def _coarser(below: _Level, level: _Level, shard: int) -> Callable[[Window], None]:
    """Give what reads the level below and writes a block, a quarter at a time."""
    labels = {}
    for dim in LABELS:
        if dim in below.group:
            numbers: Any = below.group[dim]
            labels[dim] = [LABELS[dim][k] for k in numbers[...].tolist()]

    def write(window: Window) -> None:
        cuts = {d: spans(s.stop, shard // 2, start=s.start) for d, s in window.items()}
        size = tuple(s.stop - s.start for s in (window[Y], window[X]))
        whole = {
            n: np.empty((*a.shape[:-2], *size), a.dtype)
            for n, a in level.arrays.items()
        }
        for part in windows(**cuts):
            y, x = (slice(2 * part[d].start, 2 * part[d].stop) for d in (Y, X))
            source: Any = (..., y, x)
            y, x = (
                slice(part[d].start - window[d].start, part[d].stop - window[d].start)
                for d in (Y, X)
            )
            inside: Any = (..., y, x)
            fraction = _fraction(below, source)
            for name, values in whole.items():
                if name == "valid_fraction":
                    values[inside] = halved_fraction(fraction)
                    continue
                weights = weights_for(
                    name, fraction, labels[COMPONENT], labels.get(COVARIANCE_TERM, ())
                )
                read = below.arrays[name][source]
                values[inside] = halved(name, read, weights)
        for name, array in level.arrays.items():
            array[..., window[Y], window[X]] = whole[name]

    return write


def _fraction(below: _Level, part: Any) -> np.ndarray:
    """How much of each pixel of a level has velocity, (component, y, x), float32."""
    if "valid_fraction" in below.arrays:
        return np.asarray(below.arrays["valid_fraction"][part])
    return np.isfinite(below.arrays["velocity"][part]).astype("float32")
