"""A region of a grid: its window of pixels, and which of them are inside."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, box, unary_union
from shapely.affinity import translate
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from cube_denoise.conventions import X, Y
from cube_denoise.grid import crs_name, degrees_bounds

LONGITUDES_LATITUDES = "EPSG:4326"
_EDGE = 1e-6
"""Part of a pixel that a region may touch and not mean."""


class Region(NamedTuple):
    """Part of a grid."""

    rows: slice
    columns: slice
    outline: Geometry | None
    """Pixels are inside whose centre is; in the CRS of the grid. None for all."""


def region_of(
    grid: GeoBox, *, bbox: Sequence[float] | None = None, geometry: Any = None
) -> Region:
    """Find the pixels of a grid that a box or a polygon touches.

    Parameters
    ----------
    grid : odc.geo.geobox.GeoBox
        North up.
    bbox : sequence of 4 float, optional
        West, south, east, north, degrees; west may be greater across the date line.
    geometry : mapping, shapely or odc.geo geometry, optional
        Polygon; GeoJSON and shapely in longitudes and latitudes, degrees.

    Returns
    -------
    Region
        The whole grid when neither is given.

    Raises
    ------
    ValueError
        If both are given, it is no region, or does not touch the grid.
    """
    if bbox is not None and geometry is not None:
        raise ValueError("bbox and geometry are both given: give one of them")
    if bbox is None and geometry is None:
        rows, columns = grid.shape
        return Region(slice(0, rows), slice(0, columns), None)
    if bbox is not None:
        name, outline = f"bbox={tuple(bbox)}", _rectangle(bbox)
    else:
        name, outline = "geometry", _polygon(geometry)
    assert grid.crs is not None
    placed = outline.to_crs(grid.crs, resolution=_fine(outline))
    if grid.crs.geographic:  # the same place, as longitudes of the grid count it
        middles = (
            (b.left + b.right) / 2 for b in (grid.boundingbox, placed.boundingbox)
        )
        turns = round((next(middles) - next(middles)) / 360)
        if turns:
            placed = Geometry(translate(placed.geom, 360 * turns), grid.crs)
    bounds = placed.boundingbox
    left, top = ~grid.affine * (bounds.left, bounds.top)
    right, bottom = ~grid.affine * (bounds.right, bounds.bottom)
    limits = np.array([[top, bottom], [left, right]])
    if not np.isfinite(limits).all():
        raise ValueError(
            f"{name} cannot be placed on the grid, which is in {crs_name(grid.crs)}"
        )
    first = np.floor(limits[:, 0] + _EDGE).clip(0).astype(int)
    last = np.minimum(np.ceil(limits[:, 1] - _EDGE), grid.shape).astype(int)
    if (last <= first).any():
        raise ValueError(f"{name} is outside the product, which covers {covered(grid)}")
    down, across = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return Region(down, across, None if bbox is not None else placed)


def covered(grid: GeoBox) -> str:
    """Bounds of a grid in degrees, as text."""
    west, south, east, north = degrees_bounds(grid)
    return (
        f"longitudes {west:.4g} to {east:.4g} and latitudes {south:.4g} to {north:.4g}"
    )


def inside(part: xr.Dataset, region: Region, grid: GeoBox) -> xr.Dataset:
    """Take the data from pixels outside the outline of a region, lazily.

    `part` are the pixels of `region` as Dask arrays of one chunking in y and x.
    """
    import dask.array as da

    assert region.outline is not None
    rows, columns = (part.chunksizes[d] for d in (Y, X))
    place = grid.affine * Affine.translation(region.columns.start, region.rows.start)
    mask = da.map_blocks(
        _centres_inside,
        da.arange(sum(rows), chunks=(rows,))[:, None],
        da.arange(sum(columns), chunks=(columns,))[None, :],
        outline=region.outline.geom,
        place=place,
        chunks=(rows, columns),
        dtype=bool,
        meta=np.empty((0, 0), bool),
    )
    kept = xr.DataArray(mask, dims=(Y, X))
    found = part.copy()
    for name, array in part.data_vars.items():
        if array.dtype.kind in "iu":
            found[name] = array.where(kept, array.dtype.type(0))
        else:
            found[name] = array.where(kept)
    return found


def _centres_inside(
    rows: np.ndarray, columns: np.ndarray, outline: BaseGeometry, place: Affine
) -> np.ndarray:
    x, y = place * (columns + 0.5, rows + 0.5)  # type: ignore[operator]
    shapely.prepare(outline)
    return np.asarray(shapely.contains_xy(outline, *np.broadcast_arrays(x, y)))


def _rectangle(bbox: Sequence[float]) -> Geometry:
    try:
        west, south, east, north = map(float, bbox)
        if west > 0 > east:
            east += 360
        good = -360 <= west < east <= 360 and -90 <= south < north <= 90
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{bbox=} must be (west, south, east, north) in degrees")
    return box(west, south, east, north, LONGITUDES_LATITUDES)


def _polygon(geometry: Any) -> Geometry:
    """Polygon of GeoJSON, shapely or odc-geo, as it is given."""
    kinds = "a polygon: GeoJSON, or a geometry of shapely or odc.geo"
    found: Geometry | None
    if isinstance(geometry, Geometry):
        found = geometry
        if found.crs is None:
            raise ValueError("geometry has no CRS: give it one")
    else:
        told = getattr(geometry, "__geo_interface__", geometry)
        try:
            if told["type"] == "FeatureCollection":
                parts = [_polygon(f) for f in told["features"]]
                found = unary_union(parts) if parts else None
            else:
                own = told["geometry"] if told["type"] == "Feature" else told
                found = Geometry(shape(own), LONGITUDES_LATITUDES)
        except (
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            ShapelyError,
        ) as error:
            raise ValueError(f"geometry must be {kinds}, not {geometry!r}") from error
    if found is None or found.is_empty:
        raise ValueError("geometry is empty")
    if not found.area > 0:
        raise ValueError(f"geometry must be {kinds}; a {found.geom_type} has no area")
    return found


def _fine(outline: Geometry) -> float:
    """Distance of points that make its edges as good as curved where they must be."""
    bounds = outline.boundingbox
    return max(bounds.span_x, bounds.span_y) / 64
