"""Attributes that MintPy's files must have, from a cube.

What a cube does not know and MintPy's weights and errors of elevation need (number of
looks, height of the orbit) is that of Sentinel-1's interferometric wide swath, and left
out for other sensors.
"""

from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from cube_denoise.conventions import SENTINEL1_WAVELENGTH, X, Y
from cube_denoise.grid import geobox_of, pixel_spacing
from cube_denoise.reference_area import recorded_reference
from cube_denoise.reference_pixels import checked_area

RANGE_SPACING, AZIMUTH_SPACING = 2.3296, 14.1
"""Of one look of Sentinel-1 (IW), m: in slant range, and along the flight."""
ORBIT_RADIUS = 7_071_000.0
"""Distance of Sentinel-1 from the centre of the Earth, m; within 15 km."""
MAJOR, FLATTENING = 6_378_137.0, 1 / 298.257223563


def mintpy_attributes(cube: xr.Dataset, variable: str) -> dict[str, str]:
    """Attributes of ``ifgramStack.h5`` but its type and unit; all are text.

    Parameters
    ----------
    cube : xarray.Dataset
        With a CRS that has an EPSG code and the attributes ``wavelength`` and
        ``track``.
    variable : str
        Phase variable that is exported. Where the cube has a velocity, REF_Y and REF_X
        are the most coherent pixel of its reference area that has data in all pairs.

    Raises
    ------
    ValueError
        If one of these is missing.
    """
    for name in ("wavelength", "track"):
        if name not in cube.attrs:
            raise ValueError(f"cube.attrs has no {name!r}")
    grid, direction = geobox_of(cube), str(cube.attrs["track"])[0]
    assert grid.crs is not None
    if grid.crs.epsg is None or any((grid.affine.b, grid.affine.d)):
        raise ValueError(
            f"cube has the grid {grid.affine} in {grid.crs}: MintPy needs one with an "
            "EPSG code, north up"
        )
    unit = "degrees" if grid.crs.geographic else "meters"
    times = [cube[n].values for n in ("reference_time", "secondary_time")]
    days = np.unique(np.concatenate(times).astype("datetime64[D]"))
    told: dict[str, Any] = {
        "PROCESSOR": "hyp3",  # geocoded pairs, earlier date first
        "LENGTH": grid.shape[0],
        "WIDTH": grid.shape[1],
        "WAVELENGTH": cube.attrs["wavelength"],
        "ORBIT_DIRECTION": {"A": "ASCENDING", "D": "DESCENDING"}[direction],
        "relative_orbit": int(str(cube.attrs["track"])[1:]),
        "ANTENNA_SIDE": -1,
        "X_FIRST": grid.affine.c,
        "Y_FIRST": grid.affine.f,
        "X_STEP": grid.affine.a,
        "Y_STEP": grid.affine.e,
        "X_UNIT": unit,
        "Y_UNIT": unit,
        "EPSG": grid.crs.epsg,
        "START_DATE": day_text(days[0]),
        "END_DATE": day_text(days[-1]),
        "REF_DATE": day_text(days[0]),
        **_corners(grid, direction),
        **_sensor(cube, grid),
        **_reference_pixel(cube, variable),
    }
    code = int(grid.crs.epsg)
    if 32600 < code < 32661 or 32700 < code < 32761:
        told["UTM_ZONE"] = f"{code % 100}{'N' if code < 32700 else 'S'}"
    seconds = np.median(
        np.concatenate(
            [(t - t.astype("datetime64[D]")) / np.timedelta64(1, "s") for t in times]
        )
    )
    if seconds:  # midnight: the time of day is not known
        told["CENTER_LINE_UTC"] = float(seconds)
    heading = cube.attrs.get("heading", _heading(cube))
    if heading is not None:
        told["HEADING"] = float(heading)
    return {name: str(value) for name, value in told.items()}


def day_text(day: np.datetime64) -> str:
    """Date as YYYYMMDD."""
    return str(day.astype("datetime64[D]")).replace("-", "")


def is_sentinel1(cube: xr.Dataset) -> bool:
    """Whether the wavelength is that of Sentinel-1."""
    return abs(float(cube.attrs["wavelength"]) - SENTINEL1_WAVELENGTH) < 1e-5


def earth_radius(grid: GeoBox) -> float:
    """Distance of the ellipsoid from the centre of the Earth amid a grid, m."""
    latitude = np.radians(grid.extent.to_crs("EPSG:4326").centroid.coords[0][1])
    return float(MAJOR * (1 - FLATTENING * np.sin(latitude) ** 2))


def _sensor(cube: xr.Dataset, grid: GeoBox) -> dict[str, Any]:
    if not is_sentinel1(cube):
        return {"ALOOKS": 1, "RLOOKS": 1}
    rows, columns = pixel_spacing(cube)
    incidence = np.radians(39.0)  # amid the swath
    azimuth = max(1, round(rows / AZIMUTH_SPACING))
    ranges = max(1, round(columns * np.sin(incidence) / RANGE_SPACING))
    return {
        "PLATFORM": "Sen",
        "ALOOKS": azimuth,
        "RLOOKS": ranges,
        "RANGE_PIXEL_SIZE": RANGE_SPACING * ranges,
        "AZIMUTH_PIXEL_SIZE": AZIMUTH_SPACING * azimuth,
        "EARTH_RADIUS": earth_radius(grid),
        "HEIGHT": ORBIT_RADIUS - earth_radius(grid),
    }


def _corners(grid: GeoBox, direction: str) -> dict[str, float]:
    """Longitudes and latitudes: first line near and far range, last line likewise."""
    box = grid.boundingbox
    places = {
        "south west": (box.left, box.bottom),
        "south east": (box.right, box.bottom),
        "north west": (box.left, box.top),
        "north east": (box.right, box.top),
    }
    order = ["south west", "south east", "north west", "north east"]
    if direction == "D":  # flies south and looks west
        order.reverse()
    from rasterio.warp import transform

    assert grid.crs is not None
    x, y = zip(*(places[name] for name in order), strict=True)
    longitude, latitude = transform(grid.crs.to_wkt(), "EPSG:4326", x, y)
    return {f"LON_REF{k}": v for k, v in enumerate(longitude, 1)} | {
        f"LAT_REF{k}": v for k, v in enumerate(latitude, 1)
    }


def _heading(cube: xr.Dataset) -> float | None:
    """Flight direction of a satellite that looks right, from the look vectors."""
    if "los_east" not in cube or "los_north" not in cube:
        return None
    stride = {d: slice(None, None, max(1, cube.sizes[d] // 32)) for d in (Y, X)}
    east, north = (
        float(np.nanmean(cube[n].isel(stride).values))
        for n in ("los_east", "los_north")
    )
    heading = float(np.degrees(np.arctan2(north, -east)))
    return heading if np.isfinite(heading) else None


def _reference_pixel(cube: xr.Dataset, variable: str) -> dict[str, Any]:
    attributes = cube["velocity"].attrs if "velocity" in cube else {}
    if "reference_rows" not in attributes:
        return {}
    area = checked_area(recorded_reference(attributes), cube)
    whole = np.isfinite(area.cut(cube[variable])).all(0)
    if not whole.any():
        return {}
    quality = np.where(whole, 1.0, -1.0)
    if "coherence" in cube:
        mean = np.nan_to_num(area.cut(cube["coherence"])).mean(0)
        quality = np.where(whole, mean, -1.0)
    row, column = np.unravel_index(quality.argmax(), quality.shape)
    row, column = int(row) + area.y.start, int(column) + area.x.start
    return {"REF_Y": row, "REF_X": column}
