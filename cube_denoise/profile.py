"""Velocity along a line."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from cube_denoise.conventions import X, Y
from cube_denoise.grid import geobox_of, pixel_spacing
from cube_denoise.product_region import LONGITUDES_LATITUDES, covered
from cube_denoise.product_variables import COMPONENT

DISTANCE = "distance"
METHODS = ("linear", "nearest")
PIECE = 256
"""Pixels a side of the windows that a line is read by."""
MOST = 1_000_000
"""Points of a profile."""


def profile(
    product: xr.Dataset,
    line: Any,
    *,
    spacing: float | None = None,
    method: str = "linear",
) -> xr.Dataset:
    """Velocity and its standard deviation along a line; pixels beside it are not read.

    Parameters
    ----------
    product : xarray.Dataset
        As of `open_velocity`.
    line : sequence of (lon, lat), mapping or geometry
        Corners, degrees; or a GeoJSON, shapely or odc.geo LineString. Between corners
        it is the shortest on the ellipsoid.
    spacing : float, optional
        Between points, m; the pixel spacing when not given.
    method : {"linear", "nearest"}
        Between the centres of pixels, of which none may lack data; or that of the
        nearest. What is linear between standard deviations is no less than that of
        the velocity between.

    Returns
    -------
    xarray.Dataset
        dims (component, distance): ``velocity``, ``velocity_std`` (m year-1), NaN
        where there is no data or no product. ``distance`` is in m along the line;
        ``lon`` and ``lat`` (degrees) are coordinates.

    Raises
    ------
    ValueError
        If the line is none or all outside the product, or an option cannot be.
    """
    if method not in METHODS:
        raise ValueError(f"{method=} must be one of {', '.join(METHODS)}")
    grid = geobox_of(product)
    spacing = min(pixel_spacing(product)) if spacing is None else spacing
    if not spacing > 0:
        raise ValueError(f"{spacing=} must be positive")
    distance, lon, lat = _points(_corners(line), spacing)
    there = Transformer.from_crs(LONGITUDES_LATITUDES, str(grid.crs), always_xy=True)
    x, y = there.transform(lon, lat)
    columns, rows = ~grid.affine * (np.asarray(x), np.asarray(y))
    inside = (rows >= 0) & (rows < grid.shape[0]) & (columns >= 0)
    if not (inside & (columns < grid.shape[1])).any():
        raise ValueError(f"line is outside the product, which covers {covered(grid)}")
    maps = product[["velocity", "velocity_std"]]
    found = [
        _read(maps, x[part], y[part], window, method)
        for part, window in _pieces(rows, columns, grid)
    ]
    whole = xr.concat(found, DISTANCE).transpose(COMPONENT, DISTANCE)
    whole = whole.astype("float32").drop_attrs(deep=False)
    attributes = {"units": "m", "long_name": "distance along the line"}
    return whole.assign_coords(
        {
            DISTANCE: (DISTANCE, distance, attributes),
            "lon": (DISTANCE, lon, {"units": "degrees_east"}),
            "lat": (DISTANCE, lat, {"units": "degrees_north"}),
        }
    )


def _corners(line: Any) -> np.ndarray:
    """Corners as (n, 2) longitudes and latitudes."""
    if hasattr(line, "to_crs"):
        line = line.to_crs(LONGITUDES_LATITUDES)
    told = getattr(line, "__geo_interface__", line)
    if isinstance(told, dict):
        told = told.get("geometry", told)
        if told.get("type") != "LineString":
            raise ValueError(f"line must be a LineString, not {told.get('type')!r}")
        told = told["coordinates"]
    try:
        corners = np.asarray([tuple(c)[:2] for c in told], "float64")
    except (TypeError, ValueError):
        corners = np.empty((0, 2))
    good = corners.ndim == 2 and corners.shape[1:] == (2,) and len(corners) > 1
    if not good or not np.isfinite(corners).all() or (abs(corners[:, 1]) > 90).any():
        raise ValueError("line must be two or more (lon, lat) in degrees")
    return corners


def _points(
    corners: np.ndarray, spacing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances (m), longitudes and latitudes of points along a line, ends included."""
    geod = Geod(ellps="WGS84")
    lon, lat = corners.T
    azimuth, _, length = geod.inv(lon[:-1], lat[:-1], lon[1:], lat[1:])
    ends = np.concatenate([[0.0], np.cumsum(length)])
    if not ends[-1] > 0:
        raise ValueError("line has no length: its corners are one place")
    count = int(np.ceil(ends[-1] / spacing)) + 1
    if count > MOST:
        raise ValueError(f"{spacing=} gives {count} points: at most {MOST}")
    distance = np.minimum(np.arange(count) * spacing, ends[-1])
    part = np.clip(np.searchsorted(ends, distance, "right") - 1, 0, len(length) - 1)
    beyond = distance - ends[part]
    lon, lat = corners[part].T
    lon, lat, _ = geod.fwd(lon, lat, azimuth[part], beyond)
    return distance, np.asarray(lon), np.asarray(lat)


def _pieces(
    rows: np.ndarray, columns: np.ndarray, grid: GeoBox
) -> Iterator[tuple[slice, dict[str, slice]]]:
    """Parts of a line, and windows of pixels that hold them and one more around."""
    start = 0
    while start < len(rows):
        stop = start + 1
        ends = [rows[start]] * 2, [columns[start]] * 2
        while stop < len(rows):
            wider = [
                (min(low, at[stop]), max(high, at[stop]))
                for (low, high), at in zip(ends, (rows, columns), strict=True)
            ]
            if any(high - low > PIECE for low, high in wider):
                break
            ends = wider  # type: ignore[assignment]
            stop += 1
        window = {
            d: slice(*np.clip([int(low) - 1, int(high) + 2], 0, n).tolist())
            for d, (low, high), n in zip((Y, X), ends, grid.shape, strict=True)
        }
        yield slice(start, stop), window
        start = stop


def _read(
    maps: xr.Dataset,
    x: np.ndarray,
    y: np.ndarray,
    window: dict[str, slice],
    method: str,
) -> xr.Dataset:
    """Values at points of a window."""
    part = maps.isel(window)
    at = {X: xr.DataArray(x, dims=DISTANCE), Y: xr.DataArray(y, dims=DISTANCE)}
    if min(part.sizes[Y], part.sizes[X]) < 2:  # beside the product
        none = xr.full_like(at[X], np.nan)
        one = maps.isel({Y: 0, X: 0}, drop=True)
        return xr.Dataset({name: none * one[name] for name in maps})
    found = part.load().interp(at, method=method)  # type: ignore[arg-type]
    return found.drop_vars([X, Y, "spatial_ref"], errors="ignore")
