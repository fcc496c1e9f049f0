"""Line-of-sight velocities of many frames over known ground, with GNSS stations."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer
from scipy.ndimage import gaussian_filter

from cube_denoise.conventions import X, Y, los_unit_vector

CRS = "EPSG:32637"
ORIGIN = (300_000.0, 4_000_000.0)
"""West and south of the ground, m."""
INCIDENCE = (31.0, 44.0)
"""At the near and the far side of a frame, degrees."""
HEADINGS = {"A": -12.0, "D": -168.0}
FAULT = 0.02
"""m/yr: how fast the two sides of the fault pass each other."""


@dataclass(frozen=True)
class FrameScene:
    """Frames over one piece of ground."""

    frames: dict[str, xr.Dataset]
    """By name: ``velocity``, ``velocity_std`` (m/yr), look vectors, (y, x)."""
    truth: xr.Dataset
    """``east``, ``north``, ``up`` (y, x), m/yr, on the ground of all frames."""
    stations: xr.Dataset
    """GNSS velocities: ``east``, ``north``, ``up`` and their ``_std``, m/yr, with
    ``longitude`` and ``latitude``, dim (station,)."""
    errors: dict[str, np.ndarray]
    """By name: the frame's offset, m/yr, and its ramp east and north, m/yr on 100 km,
    about its centre."""


def simulate_frames(
    *,
    seed: int,
    tracks: int = 6,
    per_track: int = 10,
    size: tuple[int, int] = (100, 80),
    pixel: float = 1000.0,
    offset_std: float = 0.01,
    ramp_std: float = 0.0,
    white: float = 0.002,
    correlated: float = 0.001,
    length: float = 4000.0,
    alike: float = 0.0,
    stations: int = 40,
    station_std: tuple[float, float, float] = (5e-4, 5e-4, 1.5e-3),
) -> FrameScene:
    """Simulate frames of ascending and descending tracks, in turn, over one ground.

    The ground has a strike-slip fault, a turning plate and basins that sink. Frames of
    a track share a tenth of their length, tracks of a direction a third of their width.
    Every pixel has noise of its own and noise that is alike over `length`; the stated
    standard deviation is that of both.

    Parameters
    ----------
    seed : int
    tracks, per_track : int
        Ascending ones are first, third, ...
    size : (rows, columns)
        Of a frame.
    pixel : float
        m.
    offset_std : float
        m/yr, of the offsets of frames.
    ramp_std : float
        m/yr on 100 km, of their ramps.
    white, correlated : float
        Standard deviations of the noise, m/yr.
    length : float
        m.
    alike : float
        Share of the variance of the noise that frames of one track have in common
        where they overlap, as frames of the same acquisitions do: 0 to 1.
    stations : int
    station_std : (east, north, up)
        m/yr.

    Returns
    -------
    FrameScene
    """
    rng = np.random.default_rng(seed)
    rows, columns = size
    down, along = round(0.9 * rows), round(0.67 * columns)
    width = columns + along * ((tracks + 1) // 2 - 1) + columns // 4
    height = rows + down * (per_track - 1)
    top = ORIGIN[1] + height * pixel
    whole = GeoBox((height, width), Affine(pixel, 0, ORIGIN[0], 0, -pixel, top), CRS)
    truth = _ground(whole, rng)
    frames, errors = {}, {}
    smooth = correlated, length / pixel
    for k in range(tracks):
        side = "AD"[k % 2]
        left = along * (k // 2) + (columns // 4 if side == "D" else 0)
        common = np.zeros((height, columns))
        if alike:
            common = _noise(
                np.random.default_rng([seed, k]), common.shape, white, smooth
            )
        for number in range(per_track):
            window = (
                slice(down * number, down * number + rows),
                slice(left, left + columns),
            )
            name = f"{k + 1:03d}{side}_{number:05d}"
            error = rng.normal(0, 1, 3) * [offset_std, ramp_std, ramp_std]
            part = truth.isel({Y: window[0], X: window[1]})
            noise = math.sqrt(1 - alike) * _noise(rng, size, white, smooth)
            noise += math.sqrt(alike) * common[window[0]]
            frames[name] = _frame(part, whole[window], side, error, noise)
            frames[name]["velocity_std"] = xr.full_like(
                frames[name]["velocity"], math.hypot(white, correlated)
            ).assign_attrs(units="m year-1")
            frames[name].attrs["track"] = f"{side}{k + 1:03d}"
            errors[name] = error
    return FrameScene(
        frames, truth, _stations(truth, whole, stations, station_std, rng), errors
    )


def _ground(grid: GeoBox, rng: np.random.Generator) -> xr.Dataset:
    """Velocity of the ground, m/yr."""
    rows, columns = grid.shape
    y, x = np.mgrid[0:rows, 0:columns] * abs(grid.resolution.y) / 1000  # km
    apart = (y - 0.5 * y.max()) + 0.15 * (x - 0.5 * x.max())
    east = FAULT / math.pi * np.arctan(apart / 15.0) + 1e-5 * (y - y.mean())
    north = -1e-5 * (x - x.mean())
    up = np.zeros((rows, columns))
    for _ in range(max(3, rows * columns // 20_000)):
        cy, cx = rng.uniform(0, y.max()), rng.uniform(0, x.max())
        radius, depth = rng.uniform(4, 10), rng.uniform(0.005, 0.04)
        up -= depth * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * radius**2))
    parts = {"east": east, "north": north, "up": up}
    told = {n: ((Y, X), v, {"units": "m year-1"}) for n, v in parts.items()}
    return xr.Dataset(told, xr_coords(grid, dims=(Y, X)))


def _frame(
    part: xr.Dataset, grid: GeoBox, side: str, error: np.ndarray, noise: np.ndarray
) -> xr.Dataset:
    rows, columns = grid.shape
    across = np.linspace(0, 1, columns)
    near, far = INCIDENCE
    # Looking right, an ascending pass sees its near side in the west.
    share = across if side == "A" else 1 - across
    look = los_unit_vector(near + (far - near) * share, HEADINGS[side])
    east = (np.arange(columns) - (columns - 1) / 2) * grid.resolution.x / 1e5
    north = (np.arange(rows) - (rows - 1) / 2) * grid.resolution.y / 1e5
    velocity = error[0] + error[1] * east[None] + error[2] * north[:, None] + noise
    maps = {}
    for name, component in zip(("east", "north", "up"), look, strict=True):
        component = np.broadcast_to(component, grid.shape)
        maps[f"los_{name}"] = ((Y, X), component.astype("float32"), {"units": "1"})
        velocity = velocity + component * part[name].values
    maps["velocity"] = ((Y, X), velocity.astype("float32"), {"units": "m year-1"})
    return xr.Dataset(maps, xr_coords(grid, dims=(Y, X)))


def _noise(
    rng: np.random.Generator,
    size: tuple[int, ...],
    white: float,
    smooth: tuple[float, float],
) -> np.ndarray:
    """Noise of pixels, and noise of a standard deviation that is alike over some."""
    correlated, sigma = smooth
    noise: np.ndarray = white * rng.normal(size=size)
    noise += correlated * _smooth(rng, size, sigma)
    return noise


def _smooth(
    rng: np.random.Generator, size: tuple[int, ...], sigma: float
) -> np.ndarray:
    """Noise of unit variance that is alike over so many pixels."""
    margin = math.ceil(4 * sigma)
    wide = rng.normal(size=[n + 2 * margin for n in size])
    smooth = gaussian_filter(wide, sigma, mode="wrap") * 2 * math.sqrt(math.pi) * sigma
    return smooth[margin : margin + size[0], margin : margin + size[1]]


def _stations(
    truth: xr.Dataset,
    grid: GeoBox,
    count: int,
    std: tuple[float, float, float],
    rng: np.random.Generator,
) -> xr.Dataset:
    """Stations at random pixels, with errors."""
    rows = rng.integers(0, grid.shape[0], count)
    columns = rng.integers(0, grid.shape[1], count)
    x = grid.affine.c + (columns + 0.5) * grid.affine.a
    y = grid.affine.f + (rows + 0.5) * grid.affine.e
    lon, lat = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(x, y)
    found = {}
    for name, error in zip(("east", "north", "up"), std, strict=True):
        values = truth[name].values[rows, columns] + rng.normal(0, error, count)
        found[name] = ("station", values, {"units": "m year-1"})
        found[f"{name}_std"] = ("station", np.full(count, error), {"units": "m year-1"})
    return xr.Dataset(
        found, {"longitude": ("station", lon), "latitude": ("station", lat)}
    )
