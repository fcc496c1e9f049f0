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
        Between the centres of pixels, of which none may lack data; or of the pixel
        that a point falls in. What is linear between standard deviations is no less
        than that of the velocity between.

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
    if method == "linear" and min(grid.shape) < 2:
        raise ValueError(
            f"{method=} needs two pixels a side, and the product has "
            f"{grid.shape[0]} x {grid.shape[1]}: give method='nearest'"
        )
    distance, lon, lat = _points(_corners(line), spacing)
    there = Transformer.from_crs(LONGITUDES_LATITUDES, str(grid.crs), always_xy=True)
    x, y = there.transform(lon, lat)
    x, y = np.asarray(x), np.asarray(y)
    assert grid.crs is not None
    if grid.crs.geographic:  # as longitudes of the grid count it
        box = grid.boundingbox
        x = x + 360 * np.round(((box.left + box.right) / 2 - x) / 360)
    columns, rows = ~grid.affine * (x, y)
    inside = (rows >= 0) & (rows < grid.shape[0]) & (columns >= 0)
    if not (inside & (columns < grid.shape[1])).any():
        raise ValueError(f"line is outside the product, which covers {covered(grid)}")
    maps = product[["velocity", "velocity_std"]]
    read = _between if method == "linear" else _of_pixels
    found = [
        read(maps, rows[part], columns[part], window)
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


def _between(
    maps: xr.Dataset, rows: np.ndarray, columns: np.ndarray, window: dict[str, slice]
) -> xr.Dataset:
    """Values at places of a window, linear between the centres of pixels."""
    part = maps.isel(window).drop_vars([*maps.coords.keys() - {COMPONENT}])
    if min(part.sizes[Y], part.sizes[X]) < 2:  # beside the product
        return _of_pixels(maps, rows * np.nan, columns, window)
    places = {
        d: xr.DataArray(at - 0.5 - window[d].start, dims=DISTANCE)
        for d, at in ((Y, rows), (X, columns))
    }
    axes = {d: np.arange(part.sizes[d]) for d in (Y, X)}
    found: xr.Dataset = part.load().assign_coords(axes).interp(places)
    return found.drop_vars([Y, X])


def _of_pixels(
    maps: xr.Dataset, rows: np.ndarray, columns: np.ndarray, window: dict[str, slice]
) -> xr.Dataset:
    """Values of the pixels of a window that places fall in."""
    inside = np.ones(rows.shape, bool)
    places = {}
    for d, at in ((Y, rows), (X, columns)):
        inside &= (at >= 0) & (at < maps.sizes[d])
        near = np.where(inside, np.floor(at), window[d].start).astype(int)
        places[d] = xr.DataArray(near - window[d].start, dims=DISTANCE)
    kept = xr.DataArray(inside, dims=DISTANCE)
    if not inside.any():
        one = {d: xr.zeros_like(places[d]) for d in places}
        empty = maps.isel({Y: slice(0, 1), X: slice(0, 1)}).isel(one)
        found = empty.where(kept)
    else:
        found = maps.isel(window).load().isel(places).where(kept)
    return found.drop_vars([n for n in found.coords if n != COMPONENT])
