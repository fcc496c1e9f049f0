"""A simulated scene as the product folders that ASF HyP3 would deliver."""

import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr
from rasterio.transform import Affine

from cube_denoise.conventions import PAIR, SENTINEL1_WAVELENGTH, X, Y
from cube_denoise.products import relative_orbit

_HEIGHT, _EARTH_RADIUS = 693_000.0, 6_371_000.0  # m
_CYCLE_ORBITS, _CYCLE_DAYS = 175, 12


def write_hyp3_products(scene: xr.Dataset, folder: str | Path) -> list[Path]:
    """Write every pair of a scene as an INSAR_GAMMA product that `read_hyp3` reads.

    Parameters
    ----------
    scene : xarray.Dataset
        ``unwrapped_phase`` (pair, y, x), rad, positive for range increase, NaN = no
        data; ``coherence`` (pair, y, x); ``elevation`` (y, x), m; ``los_east``,
        ``los_north``, ``los_up`` (y, x), unit vector to the satellite. Coordinates
        ``reference_time``, ``secondary_time`` (whole seconds, UTC) and
        ``perpendicular_baseline`` (m) on pair; ``x``, ``y`` of pixel centres, m.
        Attributes ``crs``, ``wavelength`` (m, that of Sentinel-1), ``heading``
        (degrees clockwise from north) and ``track`` (such as ``"A005"``).
    folder : path
        One folder per pair is made in it; files of the same name are replaced.

    Returns
    -------
    list of Path
        The product folders, in the order of the pairs.

    Notes
    -----
    As in HyP3's own products zero means no data: a value that is exactly zero is
    written as the smallest normal float32.
    """
    wavelength = scene.attrs["wavelength"]
    if abs(wavelength - SENTINEL1_WAVELENGTH) > 1e-6:
        raise ValueError(
            f"{wavelength=} of the scene must be that of Sentinel-1, "
            f"{SENTINEL1_WAVELENGTH}: HyP3 products do not tell theirs"
        )
    scene = scene.transpose(..., Y, X)
    if scene[Y][0] < scene[Y][-1]:
        scene = scene.isel({Y: slice(None, None, -1)})
    static = {
        "dem": scene["elevation"],
        "lv_theta": np.arcsin(scene["los_up"].clip(-1, 1)),
        "lv_phi": np.arctan2(scene["los_north"], scene["los_east"]),
    }
    transform = _transform(scene)
    folders = []
    for index in range(scene.sizes[PAIR]):
        pair = scene.isel({PAIR: index})
        dates = [_whole_second(pair[f"{d}_time"]) for d in ("reference", "secondary")]
        name = _name(*dates, spacing=transform.a)
        product = Path(folder) / name
        product.mkdir(parents=True, exist_ok=True)
        layers = {"unw_phase": pair["unwrapped_phase"], "corr": pair["coherence"]}
        for suffix, layer in (layers | static).items():
            path = product / f"{name}_{suffix}.tif"
            _write_raster(path, np.asarray(layer), transform, scene.crs)
        (product / f"{name}.txt").write_text(_metadata(pair, *dates))
        folders.append(product)
    return folders


def _whole_second(moment: xr.DataArray) -> datetime:
    value = moment.values.astype("datetime64[us]")
    if value != value.astype("datetime64[s]"):
        raise ValueError(
            f"{moment.name}={value} must be a whole second, as in the names of products"
        )
    return value.item().replace(tzinfo=UTC)


def _name(reference: datetime, secondary: datetime, *, spacing: float) -> str:
    days = abs(round((secondary - reference).total_seconds() / 86400))
    dates = f"{reference:%Y%m%dT%H%M%S}_{secondary:%Y%m%dT%H%M%S}"
    stem = f"S1AA_{dates}_VVP{days:03d}_INT{min(round(spacing), 99):02d}_G_ueF"
    return f"{stem}_{zlib.crc32(stem.encode()) & 0xFFFF:04X}"


def _absolute_orbit(moment: datetime, track: str) -> int:
    """Sentinel-1A orbit of the track nearest to a time (orbit 18302: 9 Sept 2017)."""
    days = (
        moment - datetime(2017, 9, 9, 17, 57, 48, tzinfo=UTC)
    ).total_seconds() / 86400
    near = 18302 + round(days * _CYCLE_ORBITS / _CYCLE_DAYS)
    behind = (int(track[1:]) - relative_orbit("A", near)) % _CYCLE_ORBITS
    orbit = near + behind - (_CYCLE_ORBITS if behind > _CYCLE_ORBITS // 2 else 0)
    if not 1 <= int(track[1:]) <= _CYCLE_ORBITS or not 1 <= orbit <= 999_999:
        raise ValueError(
            f"{track=} at {moment.isoformat()} must be a relative orbit of 1 to "
            f"{_CYCLE_ORBITS} at a time after the launch of Sentinel-1A"
        )
    return orbit


def _metadata(pair: xr.Dataset, reference: datetime, secondary: datetime) -> str:
    """Text of the ``.txt`` of a product."""
    track = pair.attrs["track"]
    direction = {"A": "ASCENDING", "D": "DESCENDING"}[track[0]]
    lines = {}
    for which, moment in (("Reference", reference), ("Secondary", secondary)):
        orbit = _absolute_orbit(moment, track)
        start = f"{moment:%Y%m%dT%H%M%S}"
        lines[f"{which} Granule"] = (
            f"S1A_IW_SLC__1SDV_{start}_{start}_{orbit:06d}_{orbit:06X}_0000"
        )
        lines[f"{which} Pass Direction"] = direction
        lines[f"{which} Orbit Number"] = str(orbit)
    up = float(pair["los_up"].mean())
    radius, distance = _EARTH_RADIUS, _EARTH_RADIUS + _HEIGHT
    slant = (distance**2 - radius**2 * (1 - up**2)) ** 0.5 - radius * up
    midnight = reference.replace(hour=0, minute=0, second=0)
    lines |= {
        "Baseline": repr(float(pair["perpendicular_baseline"])),
        "UTC time": repr((reference - midnight).total_seconds()),
        "Heading": repr(float(pair.attrs["heading"])),
        "Spacecraft height": repr(_HEIGHT),
        "Earth radius at nadir": repr(_EARTH_RADIUS),
        "Slant range center": repr(slant),
        "Unwrapping type": "mcf",
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


def _transform(scene: xr.Dataset) -> Affine:
    """Affine transform of pixel corners from the coordinates of pixel centres."""
    steps = []
    for name in (X, Y):
        centres = scene[name].values
        if centres.size < 2 or not np.allclose(
            np.diff(centres), centres[1] - centres[0]
        ):
            raise ValueError(f"{name} of the scene must be two or more even steps")
        steps.append(float(centres[1] - centres[0]))
    dx, dy = steps
    left, top = float(scene[X][0]) - dx / 2, float(scene[Y][0]) - dy / 2
    return Affine(dx, 0.0, left, 0.0, dy, top)


def _write_raster(path: Path, values: np.ndarray, transform: Affine, crs: str) -> None:
    data = values.astype("float32")
    data[data == 0] = np.finfo("float32").tiny
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": 1,
        "height": data.shape[0],
        "width": data.shape[1],
        "crs": crs,
        "transform": transform,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 3,
    }
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.nan_to_num(data, nan=0.0), 1)
