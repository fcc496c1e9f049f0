"""Displacement at a place through time, from the frames that a product is made of."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from odc.geo import geom

from cube_denoise import store
from cube_denoise.grid import geobox_of, grid_of
from cube_denoise.pixel_series import (
    is_corrected,
    pixel_series,
    raw_inversion,
    raw_series,
)
from cube_denoise.product_region import LONGITUDES_LATITUDES, covered

_EDGE = 0.01
"""Degrees by which bounds may be short of a curved edge."""


def point_series(
    product: xr.Dataset,
    lon: float,
    lat: float,
    *,
    frames: Sequence[str] | None = None,
    raw: bool = False,
) -> dict[str, xr.Dataset]:
    """Displacement series at a place, of each frame of a product that covers it.

    Every series is along the line of sight of its own frame, relative to the frame's
    own reference area and date: the offsets by which frames were joined are not in it.

    Parameters
    ----------
    product : xarray.Dataset
        As of `open_velocity`; the attribute ``frames`` tells the cubes.
    lon, lat : float
        Degrees.
    frames : sequence of str, optional
        Names of the frames to ask; all when not given.
    raw : bool
        Invert the phases before correction at this pixel, too, where the series is of
        corrected phases: reads a chunk of every pair.

    Returns
    -------
    dict of str to xarray.Dataset
        By frame. On (time): ``displacement`` (m, positive toward the satellite),
        ``displacement_std`` (decorrelation) and ``correction_std`` (what correction
        leaves) if the cube has them, and ``raw_displacement``. Scalars: ``velocity``,
        ``velocity_std`` (m year-1), ``los_east``, ``los_north``, ``los_up``.
        Attributes: ``frame``, ``track``, ``phase_variable``, ``reference_time``.

    Raises
    ------
    ValueError
        If the place is outside the product, a frame is unknown, or no frame that
        covers it can be read.

    Warns
    -----
    UserWarning
        If one of several frames there cannot be read.
    """
    _check_inside(product, lon, lat)
    known = {str(f["name"]): f for f in product.attrs.get("frames", ())}
    unknown = sorted(set(frames or ()) - set(known))
    if unknown:
        raise ValueError(f"frames={unknown} are none of {', '.join(known)}")
    found, failed = {}, []
    for name in frames or known:
        told = known[name]
        if "bbox" in told and not _near(told["bbox"], lon, lat):
            continue
        try:
            series = _of_frame(told, lon, lat, raw)
        except ValueError as error:
            failed.append(f"{name}: {error}")
            continue
        if series is not None:
            found[name] = series
    if failed and not found:
        raise ValueError(f"no series at {lon=}, {lat=}: {'; '.join(failed)}")
    for reason in failed:
        warnings.warn(f"left out {reason}", stacklevel=2)
    return found


def _near(bbox: Sequence[float], lon: float, lat: float) -> bool:
    """Whether a place is in the bounds of a frame, or as good as: a quick no."""
    west, south, east, north = bbox
    across = (east - west) % 360 if (west, east) != (-180, 180) else 360
    inside = (lon - west + _EDGE) % 360 <= across + 2 * _EDGE
    return inside and south - _EDGE <= lat <= north + _EDGE


def _check_inside(product: xr.Dataset, lon: float, lat: float) -> None:
    grid = geobox_of(product)
    x, y = _place(grid, lon, lat)
    column, row = ~grid.affine * (x, y)
    if not (0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]):
        raise ValueError(
            f"{lon=}, {lat=} is outside the product, which covers {covered(grid)}"
        )


def _place(grid: Any, lon: float, lat: float) -> tuple[float, float]:
    """Map coordinates of a place."""
    if not (np.isfinite([lon, lat]).all() and -90 <= lat <= 90):
        raise ValueError(f"{lon=}, {lat=} must be degrees")
    point = geom.point(lon, lat, LONGITUDES_LATITUDES).to_crs(grid.crs)
    x, y = point.coords[0]
    if grid.crs.geographic:  # as longitudes of the grid count it
        box = grid.boundingbox
        x += 360 * round(((box.left + box.right) / 2 - x) / 360)
    return float(x), float(y)


def _of_frame(
    told: dict[str, Any], lon: float, lat: float, raw: bool
) -> xr.Dataset | None:
    """Series of one frame; None if the place is beside its pixels or has no data."""
    if not told.get("url"):
        raise ValueError("the product does not tell where its cube is")
    cube = store.open_cube(told["url"], snapshot=told.get("snapshot"))
    if "displacement" not in cube:
        raise ValueError(f"{told['url']} has no displacement: invert it first")
    grid = grid_of(cube.attrs)
    column, row = (int(np.floor(v)) for v in ~grid.affine * _place(grid, lon, lat))
    if not (0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]):
        return None
    pixel = pixel_series(cube, row, column)
    if pixel is None:
        return None
    made = cube["displacement"].attrs
    if raw and is_corrected(cube):
        before = raw_series(cube, raw_inversion(cube), row, column)["displacement"]
        name = "displacement before correction"
        pixel["raw_displacement"] = before.assign_attrs(units="m", long_name=name)
    return pixel.drop_attrs(deep=False).assign_attrs(
        frame=told["name"],
        track=str(told.get("track", cube.attrs.get("track", ""))),
        phase_variable=str(made.get("phase_variable", "")),
        reference_time=str(made.get("reference_time", "")),
    )
