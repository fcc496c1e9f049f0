"""The fixed pixel grid of a cube (an `odc.geo.geobox.GeoBox`) and its attributes."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from pyproj.exceptions import CRSError

CONVENTIONS = (
    {
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "name": "proj:",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/geo-proj/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/geo-proj/blob/v1/README.md",
        "description": "Coordinate reference system information for geospatial data",
    },
    {
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "name": "spatial:",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
        "description": "Spatial coordinate information",
    },
)
MULTISCALES = {
    "uuid": "d35379db-88df-4056-af3a-620245f8e347",
    "name": "multiscales",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v1/README.md",
    "description": "Multiscale layout of zarr datasets",
}


def regular_grid(
    footprints: Iterable[tuple[str, tuple[int, int], tuple[float, ...]]],
    *,
    crs: str | None = None,
    resolution: float | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    anchored: bool = False,
) -> GeoBox:
    """Grid that covers rasters, snapped so that neighbouring grids share pixel edges.

    Parameters
    ----------
    footprints : iterable of (crs, (rows, columns), transform)
        Of the rasters; `transform` in affine order (a, b, c, d, e, f).
    crs : str, optional
        Of the grid; that of the first raster when not given.
    resolution : float, optional
        Pixel size in units of `crs`; that of the first raster when not given (needed
        when `crs` differs from the rasters').
    bbox : (west, south, east, north), optional
        Longitudes and latitudes in degrees; the union of the rasters when not given.
    anchored : bool
        Whether edges fall on multiples of the resolution even where those of the
        rasters do not: all such grids of one CRS and resolution share pixel edges.

    Returns
    -------
    odc.geo.geobox.GeoBox
        North up. With the rasters' own CRS and resolution its edges fall on the first
        raster's, else on multiples of the resolution.

    Raises
    ------
    ValueError
        If there is no raster, a CRS is unknown, the box is empty or outside the
        rasters, or a resolution is missing, not positive or too coarse.
    """
    boxes = [GeoBox(shape, Affine(*t[:6]), _known_crs(c)) for c, shape, t in footprints]
    if not boxes:
        raise ValueError("footprints is empty: a grid needs at least one raster")
    first = boxes[0]
    target = _known_crs(str(first.crs) if crs is None else crs)
    same_crs = first.crs == target
    if resolution is None:
        if not same_crs:
            raise ValueError(
                f"resolution=None with {crs=}: give the pixel size in units of that "
                f"CRS, the rasters are in {crs_name(first.crs)}"
            )
        resolution = abs(first.affine.a)
    if not resolution > 0:
        raise ValueError(f"{resolution=} must be positive")
    areas = [_bounds_in(b, target) for b in boxes]
    union = (
        min(a.left for a in areas),
        min(a.bottom for a in areas),
        max(a.right for a in areas),
        max(a.top for a in areas),
    )
    sides = (union[2] - union[0], union[3] - union[1])
    too_coarse = (
        f"{resolution=} is larger than the area, {sides[0]:g} x {sides[1]:g} in units "
        f"of {crs_name(target)}"
    )
    if resolution > 1.001 * max(sides):
        raise ValueError(too_coarse)
    if bbox is not None:
        west, south, east, north = bbox if len(bbox) == 4 else (math.nan,) * 4
        if not (-360 <= west < east <= 360 and -90 <= south < north <= 90):
            raise ValueError(f"{bbox=} must be (west, south, east, north) in degrees")
        wanted = BoundingBox(west, south, east, north, "EPSG:4326").to_crs(target)
        union = (
            max(union[0], wanted.left),
            max(union[1], wanted.bottom),
            min(union[2], wanted.right),
            min(union[3], wanted.top),
        )
        if union[0] >= union[2] or union[1] >= union[3]:
            raise ValueError(f"{bbox=} does not overlap any of the rasters")
    own = same_crs and math.isclose(resolution, abs(first.affine.a), rel_tol=1e-9)
    own = own and not anchored
    origin = (first.affine.c, first.affine.f) if own else (0.0, 0.0)
    step_y = abs(first.affine.e) if own else resolution
    left = _snap(union[0], origin[0], resolution, math.floor)
    right = _snap(union[2], origin[0], resolution, math.ceil)
    bottom = _snap(union[1], origin[1], step_y, math.floor)
    top = _snap(union[3], origin[1], step_y, math.ceil)
    if top <= bottom or right <= left:
        raise ValueError(too_coarse)
    transform = Affine(
        resolution,
        0,
        origin[0] + left * resolution,
        0,
        -step_y,
        origin[1] + top * step_y,
    )
    return GeoBox((top - bottom, right - left), transform, target)


def is_anchored(grid: GeoBox) -> bool:
    """Whether the edges of a grid are at multiples of its resolution."""
    a = grid.affine
    lines = (a.c / a.a, a.f / a.e)
    return a.a == -a.e and all(abs(n - round(n)) < 1e-3 for n in lines)


def crs_name(crs: CRS | None) -> str:
    """Short name of a CRS, such as EPSG:32611.

    Examples
    --------
    >>> crs_name(CRS(CRS("EPSG:32611").to_wkt()))
    'EPSG:32611'
    """
    if crs is None:
        return "no CRS"
    return f"EPSG:{crs.epsg}" if crs.epsg else crs.proj.name


def _known_crs(crs: Any) -> CRS:
    try:
        return CRS(crs)
    except CRSError:
        raise ValueError(
            f"{crs=} is unknown: give a code such as EPSG:32611, or WKT"
        ) from None


def _bounds_in(box: GeoBox, crs: CRS) -> BoundingBox:
    if box.crs == crs:
        return box.boundingbox
    return box.footprint(crs).boundingbox


def _snap(value: float, origin: float, step: float, rounding: Any) -> int:
    """Index of the grid line at or beyond `value`, forgiving rounding errors."""
    position = (value - origin) / step
    nearest = round(position)
    return nearest if abs(position - nearest) < 1e-3 else rounding(position)


def zarr_attributes(grid: GeoBox, *, levels: Sequence[GeoBox] = ()) -> dict[str, Any]:
    """Group attributes of the Zarr conventions proj, spatial and multiscales.

    Parameters
    ----------
    grid : odc.geo.geobox.GeoBox
        Of the group.
    levels : sequence of odc.geo.geobox.GeoBox
        Coarser grids, each of twice the pixel size of the one before, in the
        subgroups ``1``, ``2``, ...; level 0 is in the group itself.
    """
    bounds = grid.boundingbox
    if grid.crs is None:
        raise ValueError(f"{grid=} has no CRS: a cube needs one")
    epsg = grid.crs.epsg
    projection = (
        {"proj:code": f"EPSG:{epsg}"} if epsg else {"proj:wkt2": grid.crs.to_wkt()}
    )
    found: dict[str, Any] = {
        "zarr_conventions": [dict(c) for c in CONVENTIONS],
        **projection,
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": list(grid.affine)[:6],
        "spatial:shape": list(grid.shape),
        "spatial:bbox": [bounds.left, bounds.bottom, bounds.right, bounds.top],
        "spatial:registration": "pixel",
    }
    if levels:
        found["zarr_conventions"] += [dict(MULTISCALES)]
        boxes = enumerate((grid, *levels))
        found["multiscales"] = {
            "layout": [_layout(k, box) for k, box in boxes],
            "resampling_method": "average",
        }
    return found


def _layout(level: int, grid: GeoBox) -> dict[str, Any]:
    """Entry of a level in ``multiscales``.

    The group itself is ``/``, since xarray and zarr refuse to open ``.``.
    """
    step = 2.0 if level else 1.0
    found = {
        "asset": str(level or "/"),
        "transform": {"scale": [step, step], "translation": [0.0, 0.0]},
        "spatial:shape": list(grid.shape),
        "spatial:transform": list(grid.affine)[:6],
    }
    return found | ({"derived_from": str(level - 1 or "/")} if level else {})


def coarser_grids(grid: GeoBox, *, smallest: int) -> list[GeoBox]:
    """Grids of 2, 4, ... times the pixel size, down to one of `smallest` pixels a side.

    All begin at the same corner; the last row and column may reach beyond `grid`.
    """
    found = []
    while max(grid.shape) > smallest:
        rows, columns = grid.shape
        shape = (-(-rows // 2), -(-columns // 2))
        grid = GeoBox(shape, grid.affine * Affine.scale(2), grid.crs)
        found.append(grid)
    return found


def grid_of(attributes: Any) -> GeoBox:
    """Grid of a cube from its group attributes (`zarr_attributes` read back)."""
    return GeoBox(
        tuple(attributes["spatial:shape"]),
        Affine(*attributes["spatial:transform"]),
        attributes.get("proj:code") or attributes["proj:wkt2"],
    )


def degrees_outline(grid: GeoBox, *, npoints: int = 8) -> np.ndarray:
    """Outline of a grid in degrees, closed, without a jump at the date line.

    Parameters
    ----------
    grid : odc.geo.geobox.GeoBox
    npoints : int
        On each side.

    Returns
    -------
    numpy.ndarray, shape (points, 2)
        Longitudes, which may pass 180, and latitudes.
    """
    outline = grid.footprint("EPSG:4326", npoints=npoints)
    lon, lat = np.array(outline.exterior.coords).T
    lon = np.unwrap(lon, period=360)
    middle = (lon.min() + lon.max()) / 2
    return np.stack([lon - 360 * round(middle / 360), lat], 1)


def degrees_bounds(grid: GeoBox) -> tuple[float, float, float, float]:
    """West, south, east, north of a grid in degrees, -180 to 180.

    West is greater than east where the grid crosses the date line, as in GeoJSON.
    """
    lon, lat = degrees_outline(grid).T
    south, north = float(lat.min()), float(lat.max())
    if abs(lon[-1] - lon[0]) > 180:  # around a pole
        pole = south + north > 0
        return -180.0, south if pole else -90.0, 180.0, 90.0 if pole else north
    west, east = float(lon.min()), float(lon.max())
    if west < -180:
        west += 360
    if east > 180:
        east -= 360
    return west, south, east, north


def geobox_of(cube: xr.Dataset) -> GeoBox:
    """Grid of a dataset by its coordinates; `ValueError` if it has no CRS."""
    import odc.geo.xr  # noqa: F401  (the .odc accessor)

    grid = cube.odc.geobox
    if grid is None or grid.crs is None:
        raise ValueError(
            "cube has no CRS: give it one, e.g. cube.odc.assign_crs('EPSG:32613')"
        )
    return grid


def pixel_spacing(cube: xr.Dataset) -> tuple[float, float]:
    """Pixel spacing of a cube on the ground, m: of rows and of columns.

    That of a geographic grid is measured on the ellipsoid at the centre of the scene.

    Raises
    ------
    ValueError
        If the cube has no regular georeferenced grid.
    """
    import odc.geo.xr  # noqa: F401 (registers the accessor)
    from pyproj import Geod

    grid = cube.odc.geobox
    if grid is None or grid.crs is None:
        raise ValueError(
            "the cube has no regular grid with a coordinate reference system: its y, x "
            "and spatial_ref must give one"
        )
    rows, columns = abs(grid.resolution.y), abs(grid.resolution.x)
    if not grid.crs.geographic:
        return float(rows), float(columns)
    west, south, east, north = grid.extent.boundingbox
    lon, lat = (west + east) / 2, (south + north) / 2
    geod = Geod(ellps="WGS84")
    return (
        geod.inv(lon, lat - rows / 2, lon, lat + rows / 2)[2],
        geod.inv(lon - columns / 2, lat, lon + columns / 2, lat)[2],
    )
