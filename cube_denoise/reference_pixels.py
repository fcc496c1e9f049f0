"""Pixels of a reference area: where slices, points and polygons lie on a grid."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from cube_denoise.conventions import X, Y
from cube_denoise.grid import pixel_spacing
from cube_denoise.reference_area import (
    LONLAT,
    Reference,
    ReferenceArea,
    asked_reference,
)


def checked_area(reference: Reference, cube: xr.Dataset) -> ReferenceArea:
    """Pixels of a reference that is given (not None or "auto"), if it lies in the cube.

    Which ones depends on the reference and the grid, not on where there are data. A
    window around a point and a polygon are cut at the edge of the grid; a pixel is in a
    polygon or a circle if its centre is.

    Raises
    ------
    ValueError
        If `reference` is none, the cube has no grid that a point or polygon needs, or
        no pixel is inside.
    """
    if isinstance(reference, ReferenceArea) and reference.mask is not None:
        found = _inside_grid({Y: reference.y, X: reference.x}, cube)
        return ReferenceArea(*found, reference.mask, reference.place)
    asked = asked_reference(reference)
    if asked is None:
        raise ValueError(f"{reference=} must give pixels, a point or a polygon")
    if "type" in asked:
        return _in_polygon(asked, cube)
    if isinstance(next(iter(asked.values())), list):
        return ReferenceArea(*_inside_grid({d: slice(*asked[d]) for d in (Y, X)}, cube))
    return _around_point(asked, cube)


def _inside_grid(parts: Mapping[str, slice], cube: xr.Dataset) -> tuple[slice, slice]:
    """Slices with explicit bounds, if they lie in the cube."""
    bounds = []
    for name in (Y, X):
        part, size = parts[name], cube.sizes[name]
        start = 0 if part.start is None else part.start
        stop = size if part.stop is None else part.stop
        if not 0 <= start < stop <= size:
            raise ValueError(
                f"reference {name}={part} must be a slice of pixels within 0..{size}"
            )
        bounds.append(slice(int(start), int(stop)))
    return bounds[0], bounds[1]


def _grid(cube: xr.Dataset) -> tuple[GeoBox, CRS]:
    import odc.geo.xr  # noqa: F401  (the .odc accessor)

    grid = cube.odc.geobox
    if grid is None or grid.crs is None:
        raise ValueError(
            "reference: a point or polygon needs a cube with y, x and a CRS, e.g. "
            "cube.odc.assign_crs; give pixel limits"
        )
    return grid, grid.crs


def _around_point(place: dict[str, Any], cube: xr.Dataset) -> ReferenceArea:
    from pyproj import Transformer

    grid, crs = _grid(cube)
    rows, columns = grid.shape
    told = ", ".join(f"{k}={v:.10g}" for k, v in place.items())
    bounds = grid.boundingbox
    if "lon" in place:
        to_grid = Transformer.from_crs(LONLAT, str(crs), always_xy=True)
        x, y = to_grid.transform(place["lon"], place["lat"])
        if crs.geographic:
            x -= 360 * round((x - (bounds.left + bounds.right) / 2) / 360)
        bounds = grid.geographic_extent.boundingbox
    else:
        x, y = place[X], place[Y]
    column, row = grid.wld2pix(x, y)
    if not (0 <= row < rows and 0 <= column < columns):
        raise ValueError(
            f"reference {told} is outside the cube, which reaches from "
            f"{bounds.left:.10g}, {bounds.bottom:.10g} to {bounds.right:.10g}, "
            f"{bounds.top:.10g}"
        )
    if "window" in place:
        half = place["window"] // 2
        limits = [
            slice(max(int(at) - half, 0), min(int(at) + half + 1, size))
            for at, size in ((row, rows), (column, columns))
        ]
        return ReferenceArea(limits[0], limits[1], place=place)
    steps = pixel_spacing(cube)
    limits, away = [], []
    for at, size, step in zip((row, column), (rows, columns), steps, strict=True):
        reach = place["radius"] / step
        first, last = max(int(at - reach), 0), min(int(at + reach) + 1, size)
        limits.append(slice(first, last))
        away.append((np.arange(first, last) + 0.5 - at) * step)
    mask = np.hypot(away[0][:, None], away[1]) <= place["radius"]
    if not mask.any():
        raise ValueError(
            f"reference {told}: no pixel centre is that near; pixels are "
            f"{steps[0]:.4g} x {steps[1]:.4g} m"
        )
    return ReferenceArea(limits[0], limits[1], mask, place)


def _in_polygon(geometry: dict[str, Any], cube: xr.Dataset) -> ReferenceArea:
    from odc.geo.xr import rasterize

    grid, crs = _grid(cube)
    own = geometry["crs"]["properties"]["name"] if "crs" in geometry else LONLAT
    parts = [
        Geometry({"type": "Polygon", "coordinates": p}, own).to_crs(crs)
        for p in geometry["coordinates"]
    ]
    corners = np.concatenate([_pixel_bounds(part, grid) for part in parts], 1)
    limits = []
    for low, high, size in zip(
        corners[:2].min(1), corners[2:].max(1), grid.shape, strict=True
    ):
        first, last = max(int(np.floor(low)), 0), min(int(np.ceil(high)), size)
        if first >= last:
            raise ValueError(
                f"the reference polygon is outside the cube: in pixels it reaches from "
                f"row {corners[0].min():.0f} to {corners[2].max():.0f} and from column "
                f"{corners[1].min():.0f} to {corners[3].max():.0f}, of {grid.shape.y} "
                f"and {grid.shape.x}"
            )
        limits.append(slice(first, last))
    window = grid[limits[0], limits[1]]
    mask = np.zeros(window.shape, bool)
    for part in parts:  # one by one: where two overlap GDAL would leave a hole
        mask |= rasterize(part, window).values.astype(bool)
    if not mask.any():
        raise ValueError(
            "the reference polygon holds no pixel centre: it must be larger than a "
            "pixel and inside the cube"
        )
    return ReferenceArea(limits[0], limits[1], mask, geometry)


def _pixel_bounds(part: Geometry, grid: GeoBox) -> np.ndarray:
    """First row and column, last row and column of a geometry, shape (4, 1)."""
    x, y = np.array(part.exterior.coords).T
    column, row = grid.wld2pix(x, y)
    return np.array([[row.min()], [column.min()], [row.max()], [column.max()]])
