"""Real data whose formats no product reader knows, in this package's units and signs.

What the files leave out and how it was settled is told where it is used.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from cube_denoise.conventions import (
    PAIR,
    SENTINEL1_WAVELENGTH,
    SPEED_OF_LIGHT,
    VARIABLES,
    X,
    Y,
    displacement_to_phase,
)

DATA = Path(__file__).parents[2] / "shared/data"
ETNA = DATA / "etna-envisat"
PERMIAN = DATA / "permian-opera-disp"
CAMPI_FLEGREI = DATA / "campi-flegrei-licsbas"

ENVISAT_WAVELENGTH = SPEED_OF_LIGHT / 5.331e9
"""m."""
ETNA_REFERENCE = {Y: slice(17, 20), X: slice(13, 16)}
"""Pixels whose mean is 0 in every pair of the file."""
PERMIAN_REFERENCE = {Y: slice(254, 262), X: slice(138, 146)}
"""Around the reference point of the files, row 258, column 142."""
POZZUOLI = (40.825, 14.122)
"""Latitude and longitude of the middle of the uplift of Campi Flegrei, about."""


def etna_values() -> np.ndarray:
    """Pairs as the file has them: mm, earlier minus later; shape (pair, y, x)."""
    import h5py

    with h5py.File(ETNA / "Etna_sample.h5") as file:
        return np.asarray(file["igram"][:], "float64")


def etna_cube() -> xr.Dataset:
    """ENVISAT pairs: ``unwrapped_phase``, rad, later minus earlier.

    The values of the file are taken as mm of range, positive away.
    """
    import h5py

    with h5py.File(ETNA / "Etna_sample.h5") as file:
        design, ordinals = file["Jmat"][:], file["dates"][:]
        baseline = file["bperp"][:]
    times = np.datetime64("0001-01-01", "D") + (ordinals - 1).astype("timedelta64[D]")
    times = times.astype("datetime64[ns]")
    toward = 1e-3 * etna_values()  # of range: earlier minus later is motion toward
    return _cube(
        displacement_to_phase(toward, ENVISAT_WAVELENGTH),
        times[np.argmax(design == 1, 1)],
        times[np.argmax(design == -1, 1)],
        ENVISAT_WAVELENGTH,
    ).assign_coords(perpendicular_baseline=(PAIR, baseline))


def permian_cube() -> xr.Dataset:
    """OPERA displacement maps as pairs of the reference date and each epoch.

    NaN outside the connected component. The wavelength only makes radians of them.
    """
    import rasterio
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

    paths = sorted(PERMIAN.glob("displacement_*.tif"))
    maps = []
    for path in paths:
        labels = path.with_name(
            path.name.replace("displacement", "connected_component_labels")
        )
        with rasterio.open(path) as file, rasterio.open(labels) as components:
            grid = GeoBox.from_rio(file)
            maps.append(np.where(components.read(1) == 1, file.read(1), np.nan))
    dates = np.array([path.stem.split("_")[1:] for path in paths])
    early, late = (
        np.array([f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in column], "datetime64[ns]")
        for column in dates.T
    )
    phase = displacement_to_phase(
        np.stack(maps).astype("float64"), SENTINEL1_WAVELENGTH
    )
    cube = _cube(phase, early, late, SENTINEL1_WAVELENGTH)
    return cube.assign_coords(xr_coords(grid))


def _cube(
    phase: np.ndarray, early: np.ndarray, late: np.ndarray, wavelength: float
) -> xr.Dataset:
    spec = VARIABLES["unwrapped_phase"]
    return xr.Dataset(
        {"unwrapped_phase": (spec.dims, phase.astype("float32"), spec.attributes)},
        coords={"reference_time": (PAIR, early), "secondary_time": (PAIR, late)},
        attrs={"wavelength": wavelength},
    )


class CampiFlegrei(NamedTuple):
    """Layers and network of a LiCSBAS result."""

    layers: dict[str, np.ndarray]
    """By file name, shape (rows, columns); velocities mm/yr, ``hgt`` m; NaN = none."""
    latitude: np.ndarray
    """Of the rows, degrees."""
    longitude: np.ndarray
    """Of the columns, degrees."""
    spacing: tuple[float, float]
    """Of rows and columns, m."""
    reference_time: np.ndarray
    """Of every pair, datetime64[D]."""
    secondary_time: np.ndarray
    """Of every pair."""
    coherence: np.ndarray
    """Mean of every pair; NaN = not unwrapped."""
    rejected: np.ndarray
    """Which pairs LiCSBAS left out, for coverage, coherence or closure."""

    def within_km(self, latitude: float, longitude: float, radius: float) -> np.ndarray:
        """Pixels within `radius` km of a point, bool, shape (rows, columns)."""
        step = np.diff(self.latitude)[0], np.diff(self.longitude)[0]
        rows = (self.latitude - latitude) / step[0] * self.spacing[0]
        columns = (self.longitude - longitude) / step[1] * self.spacing[1]
        return np.hypot(rows[:, None], columns) <= 1e3 * radius


def campi_flegrei() -> CampiFlegrei:
    """Layers and network as LiCSBAS left them."""
    info = CAMPI_FLEGREI / "info"
    grid = _fields(info / "EQA.dem_par")
    shape = int(grid["nlines"][0]), int(grid["width"][0])
    layers = {
        path.name: np.fromfile(path, "<f4").reshape(shape).astype("float64")
        for path in sorted((CAMPI_FLEGREI / "results").iterdir())
    }
    corner, step = (
        (float(grid[f"{kind}_lat"][0]), float(grid[f"{kind}_lon"][0]))
        for kind in ("corner", "post")
    )
    sizes = _fields(info / "13parameters.txt")
    # Pairs that could not be unwrapped have coherence nan and a star behind it.
    stats = np.loadtxt(
        info / "11ifg_stats.txt", dtype=str, usecols=range(5), skiprows=3
    )
    dates = np.array(
        [
            [f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in name.split("_")]
            for name in stats[:, 0]
        ],
        "datetime64[D]",
    )
    bad = [np.loadtxt(info / f"{n}bad_ifg.txt", dtype=str) for n in (11, 12)]
    return CampiFlegrei(
        layers,
        corner[0] + step[0] * np.arange(shape[0]),
        corner[1] + step[1] * np.arange(shape[1]),
        (float(sizes["pixel_spacing_a"][0]), float(sizes["pixel_spacing_r"][0])),
        dates[:, 0],
        dates[:, 1],
        stats[:, 4].astype(float),
        np.isin(stats[:, 0], np.concatenate(bad)),
    )


def _fields(path: Path) -> dict[str, list[str]]:
    """Lines ``name: words`` of a parameter file."""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name.strip(): rest.split() for name, colon, rest in lines if colon}
