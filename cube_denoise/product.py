"""Open a published velocity product, or a region of it: lazily."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.xr import xr_coords

from cube_denoise import store
from cube_denoise.blocks import spans
from cube_denoise.conventions import X, Y
from cube_denoise.grid import grid_of
from cube_denoise.product_folder import (
    VERSIONS,
    ProductError,
    ProductFolder,
    read_record,
)
from cube_denoise.product_region import Region, inside, region_of
from cube_denoise.product_stac import STORE

_STORED = ("zarr_conventions", "multiscales", "coordinates", "spatial:", "proj:")
"""Attributes that begin so are of the store, not of what is opened."""


def open_velocity(
    url: str | Path,
    *,
    bbox: Sequence[float] | None = None,
    geometry: Any = None,
    level: int = 0,
    version: str | None = None,
) -> xr.Dataset:
    """Open a published velocity product, or a region of it.

    Only metadata are read. What is read later goes with the region, not with the
    product: the chunks of 256 pixels a side that it touches.

    Parameters
    ----------
    url : str or pathlib.Path
        Where it was published: local path, ``s3://``, ``gs://`` or ``az://``.
    bbox : sequence of 4 float, optional
        West, south, east, north, degrees: the pixels that it touches, and what else is
        in the rectangle about them. West may be greater than east across the date line.
    geometry : mapping, shapely or odc.geo geometry, optional
        Polygon to clip to: pixels whose centre is outside have no data. GeoJSON and
        shapely are in longitudes and latitudes, degrees.
    level : int
        Of the pyramid, -1 the coarsest: pixels are ``2 ** level`` times as large. What
        they hold then is told by their attribute ``cell_methods``; see
        `store.write_pyramid`.
    version : str, optional
        Which one; the current when not given.

    Returns
    -------
    xarray.Dataset
        dims (component, y, x), Dask arrays with a chunk per shard: `velocity`,
        `velocity_std` (m year-1) and what else was published. Attributes ``url``,
        ``version``, ``versions`` (newest first), ``level``, ``levels`` (their number)
        and those of the product, such as ``frames``. The CRS is in ``spatial_ref``.

    Raises
    ------
    ProductError
        If there is no product at `url`, or not that version or level.
    ValueError
        If the region is none, or outside the product.

    Examples
    --------
    >>> import cube_denoise as cd
    >>> region = cd.open_velocity("s3://b/velocity", bbox=(29.5, 40.5, 30.5, 41.0))
    ... # doctest: +SKIP
    """
    folder = ProductFolder(url)
    known = [str(v["version"]) for v in read_record(folder)[VERSIONS]]
    chosen = known[0] if version is None else version
    if chosen not in known:
        raise ProductError(f"{version=} must be one of {', '.join(known)}")
    where = folder.place(f"{chosen}/{STORE}")
    whole = store.open_level(where, level=level)
    grid = grid_of(whole.attrs)
    region = region_of(grid, bbox=bbox, geometry=geometry)
    part = _in_chunks(whole, region, (where, level))
    if region.outline is not None:
        part = inside(part, region, grid)
    reference = xr_coords(grid[region.rows, region.columns])["spatial_ref"]
    told = {k: v for k, v in whole.attrs.items() if not k.startswith(_STORED)}
    told |= {"url": folder.url, "version": chosen, "versions": known}
    told["level"] = level % told["levels"]
    part = part.assign_coords(spatial_ref=reference)
    return part.drop_attrs(deep=False).assign_attrs(told)


def _in_chunks(whole: xr.Dataset, region: Region, token: Any) -> xr.Dataset:
    """Pixels of a region as Dask arrays: a task for each shard that it touches."""
    rows, columns = region.rows, region.columns
    shard = max(whole["velocity"].encoding["shards"][-2:])
    sizes = {
        d: tuple(s.stop - s.start for s in spans(part.stop, shard, start=part.start))
        for d, part in ((Y, rows), (X, columns))
    }
    cut = whole.isel({Y: rows, X: columns})
    chunks: dict[Any, Any] = dict.fromkeys(cut.dims, -1)
    return cut.chunk(chunks | sizes, token=f"{token} {rows} {columns}")
