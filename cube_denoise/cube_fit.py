"""Whether pairs fit into a cube: one track, one sensor, one grid, one time per date."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from cube_denoise import store
from cube_denoise.interferogram import Interferogram
from cube_denoise.same_pixels import place_on


def attributes_of(record: Interferogram) -> dict[str, Any]:
    """Attributes of a new cube for pairs like this one."""
    found = {"wavelength": record.wavelength, "track": record.track}
    return found | ({} if record.heading is None else {"heading": record.heading})


def check_fit(track: str, wavelength: float, cube: xr.Dataset, url: str | Path) -> None:
    """Refuse pairs of another track or sensor than the cube's."""
    if track != cube.attrs["track"]:
        raise ValueError(
            f"items are of track {track} and {url} is of track "
            f"{cube.attrs['track']}: one track per cube"
        )
    if abs(wavelength - cube.attrs["wavelength"]) > 1e-6:
        raise ValueError(
            f"items have wavelength {wavelength} m and {url} has "
            f"{cube.attrs['wavelength']} m: one sensor per cube"
        )


def has_own_pixels(record: Interferogram) -> bool:
    """Whether a record is not warped."""
    return record.assets["unwrapped_phase"].part is not None


def check_own_pixels(records: Sequence[Interferogram], grid: GeoBox) -> None:
    """Refuse a grid with other pixels than those of records that are not warped."""
    for record in records:
        if not has_own_pixels(record):
            continue
        own = GeoBox(record.shape, Affine(*record.transform), record.crs)
        if own.crs != grid.crs or place_on(grid, own.affine) is None:
            raise ValueError(
                f"{record.assets['unwrapped_phase'].href} is read on its own pixels "
                f"alone, {told(own)}, and the grid is {told(grid)}: give no other CRS "
                "or resolution, or make a cube of its own"
            )


def same_grid(one: GeoBox, other: GeoBox) -> bool:
    """Whether pixels coincide, to a thousandth of their size."""
    return (
        one.shape == other.shape
        and one.crs == other.crs
        and one.affine.almost_equals(other.affine, 1e-3 * abs(other.affine.a))
    )


def told(grid: GeoBox) -> str:
    """Describe a grid in a few words."""
    code = grid.crs.epsg if grid.crs is not None else None
    transform = ", ".join(f"{v:g}" for v in grid.affine[:6])
    rows, columns = grid.shape
    return f"{rows} x {columns} pixels at ({transform}), EPSG:{code or 'none'}"


def acquisitions(
    cube: xr.Dataset, records: Sequence[Interferogram]
) -> dict[str, np.datetime64]:
    """One time per acquisition date: products of one pass may differ by seconds.

    The time that the cube has, else the earliest of the records.
    """
    found: dict[str, np.datetime64] = {}
    for record in records:
        for date, moment in zip(
            record.key[:2], (record.reference_time, record.secondary_time), strict=True
        ):
            time = np.datetime64(int(moment.timestamp()), "s")
            found[date] = min(time, found.get(date, time))
    for name in store.PAIR_TIMES:
        for time in cube[name].values.astype("datetime64[s]"):
            found[str(time.astype("datetime64[D]"))] = time
    return found
