"""Levels of a velocity product that `pyramid` wrote, opened lazily."""

from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.xr import xr_coords
from xarray.coders import CFDatetimeCoder

from cube_denoise import places
from cube_denoise.conventions import X, Y
from cube_denoise.grid import grid_of
from cube_denoise.product_variables import with_labels
from cube_denoise.store.repository import CubeError
from cube_denoise.store.shards import quick_reading


def zarr_place(url: str | Path) -> Any:
    """What zarr reads and writes at a place; of a local path nothing is made."""
    from zarr.storage import LocalStore, ObjectStore

    local = places.local_path(url)
    if local is not None:
        return LocalStore(local)
    return ObjectStore(places.object_store(url))


def open_level(url: str | Path, *, level: int = 0) -> xr.Dataset:
    """Open a level of a velocity product; nothing is read but metadata.

    Parameters
    ----------
    url : str or pathlib.Path
        Of the Zarr store.
    level : int
        0 is the finest, -1 the coarsest.

    Returns
    -------
    xarray.Dataset
        Lazy without Dask. Coordinates y and x are computed from the grid, not read;
        labels are text. Attributes are those of level 0 and of the level's grid.

    Raises
    ------
    CubeError
        If there is no such store or level, or it cannot be read.
    """
    root = _group(url, None)
    layout = root.attrs.get("multiscales", {}).get("layout", [None])
    count = len(layout)
    if level not in range(-count, count):
        raise CubeError(f"{level=} must be 0 to {count - 1}: there are {count} levels")
    level %= count
    found = root if level == 0 else _group(url, str(level))
    coords = xr_coords(grid_of(found.attrs), dims=(Y, X))
    found = with_labels(found.assign_coords(coords))
    return found.assign_attrs({**root.attrs, **found.attrs, "levels": count})


def _group(url: str | Path, path: str | None) -> xr.Dataset:
    try:
        with quick_reading():
            return xr.open_zarr(
                zarr_place(url),
                group=path,
                chunks=None,
                consolidated=True,
                zarr_format=3,
                drop_variables=[Y, X],
                decode_times=CFDatetimeCoder(time_unit="s"),
            )
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise CubeError(
            f"{places.without_secrets(str(url))} is no velocity product: {error}"
        ) from None
