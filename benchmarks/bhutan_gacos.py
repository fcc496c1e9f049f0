"""North-west Bhutan, ALOS PALSAR (real): GACOS delays on a steep scene."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from benchmarks.report import Row, options, report
from cube_denoise.conventions import (
    PAIR,
    X,
    Y,
    displacement_to_phase,
    phase_to_displacement,
)
from cube_denoise.correct import correct
from cube_denoise.delays import open_delays
from cube_denoise.invert import invert

FOLDER = Path(__file__).parents[2] / "shared/data/bhutan-alos-gacos"
DELAYS = FOLDER / "GACOS/*.ztd"
INCIDENCE = 34.5
"""Degrees."""
WAVELENGTH = 0.2360571
"""ALOS PALSAR, m."""
SHAPE = (300, 200, 8)
OFFSET = (0.2006, -0.1278)
"""Degrees east and north from the scene to where the delays fit its elevation: the
median of least-squares fits of each date, which agree within 0.0001 degrees."""


def scene_cube(name: str = "depl_cumule") -> xr.Dataset:
    """Pairs of the first date with all others, and of all neighbours.

    Parameters
    ----------
    name : {"depl_cumule", "depl_cumule_gacos"}
        Displacements as they are or as their origin corrected them.

    Returns
    -------
    xarray.Dataset
        ``unwrapped_phase`` (pair, y, x), rad, and ``elevation`` (y, x), m.
    """
    table = np.loadtxt(FOLDER / "list_images.txt", dtype=str)
    times = [np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}", "s") for d in table[:, 1]]
    displacement = stack(name) / 1e3
    last = len(times) - 1
    pairs = [(0, k) for k in range(1, last + 1)] + [(k, k + 1) for k in range(1, last)]
    phase = np.stack(
        [
            displacement_to_phase(displacement[j] - displacement[i], WAVELENGTH)
            for i, j in pairs
        ]
    )
    with rasterio.open(FOLDER / "DEM_UTM.tif") as dem:
        grid = GeoBox(dem.shape, dem.transform, str(dem.crs))
        elevation = dem.read(1)
    first, second = np.array(pairs).T
    return xr.Dataset(
        {
            "unwrapped_phase": ((PAIR, Y, X), phase.astype("float32")),
            "elevation": ((Y, X), elevation),
        },
        {
            **xr_coords(grid, dims=(Y, X)),
            "reference_time": (PAIR, np.array(times)[first]),
            "secondary_time": (PAIR, np.array(times)[second]),
        },
        {"wavelength": WAVELENGTH},
    )


def stack(name: str) -> np.ndarray:
    """One of the cubes of the folder, mm, shape (dates, rows, columns)."""
    values = np.fromfile(FOLDER / name, "<f4").reshape(SHAPE)
    return np.moveaxis(values, -1, 0).astype("float64")


def moved_delays(folder: Path) -> Path:
    """Copy the delays to where they fit the elevation, `OFFSET` away."""
    for file in DELAYS.parent.glob("*.ztd*"):
        shutil.copyfile(file, folder / file.name)
    for header in folder.glob("*.rsc"):
        fields = dict(line.split() for line in header.read_text().splitlines())
        for key, offset in zip(("X_FIRST", "Y_FIRST"), OFFSET, strict=True):
            fields[key] = str(float(fields[key]) - offset)
        header.write_text("".join(f"{k} {v}\n" for k, v in fields.items()))
    return folder


def delays_at(cube: xr.Dataset, path: Path) -> np.ndarray:
    """Zenith delays at the pixels of the cube, m, shape (dates, rows, columns)."""
    from rasterio.warp import transform

    x, y = np.meshgrid(cube[X].values, cube[Y].values)
    lon, lat = transform("EPSG:32645", "EPSG:4326", x.ravel(), y.ravel())
    points = {
        d: xr.DataArray(np.reshape(v, x.shape), dims=("row", "column"))
        for d, v in ((X, lon), (Y, lat))
    }
    return np.asarray(open_delays(path).interp(points).values)


def effects(cube: xr.Dataset, method: str) -> Iterator[Row]:
    """Scatter of the pairs and of the velocity, and what follows the elevation."""
    height = cube["elevation"].values
    known = cube["corrected_phase"].where(np.isfinite(height))
    phase = known.values.astype("float64")
    pairs = 1e3 * phase_to_displacement(phase, WAVELENGTH)
    first = cube["reference_time"].values == cube["reference_time"].values[0]
    rate = invert(
        cube.assign(corrected_phase=known),
        variable="corrected_phase",
        weights="none",
        reference={Y: slice(0, 300), X: slice(0, 200)},
    )["velocity"].values

    def numbers() -> Iterator[tuple[str, float, str]]:
        spread = np.nanstd(pairs, (1, 2))
        for name, chosen in (("to first date", first), ("neighbours", ~first)):
            yield name, float(np.sqrt(np.mean(spread[chosen] ** 2))), "mm"
        yield "worst pair", float(spread.max()), "mm"
        with_height = [correlation(p, height) for p in pairs[first]]
        yield "correlation with elevation", float(np.mean(with_height)), "1"
        yield "velocity", 1e3 * float(np.nanstd(rate)), "mm/yr"

    for number in numbers():
        yield Row("bhutan-alos-gacos", method, *number)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the pixels where both have values."""
    both = np.isfinite(one) & np.isfinite(other)
    return float(np.corrcoef(one[both], other[both])[0, 1])


def delay_effects(cube: xr.Dataset, path: Path, method: str) -> Iterator[Row]:
    """Do the delays belong to this terrain? They should fall with elevation."""
    delays, height = delays_at(cube, path), cube["elevation"].values
    known = np.isfinite(height)
    yield Row(
        "bhutan-alos-gacos", method, "mean delay", float(delays[:, known].mean()), "m"
    )
    yield Row(
        "bhutan-alos-gacos",
        method,
        "delay with elevation",
        float(np.mean([correlation(d, height) for d in delays])),
        "1",
    )


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; ``--quick`` is the whole, it takes seconds."""
    chosen = options(__doc__, arguments)
    cube = scene_cube()
    rows = list(effects(cube.assign(corrected_phase=cube["unwrapped_phase"]), "raw"))
    origin = scene_cube("depl_cumule_gacos")
    origin = origin.assign(corrected_phase=origin["unwrapped_phase"])
    rows += effects(origin, "origin's correction")
    with tempfile.TemporaryDirectory() as folder:
        moved = moved_delays(Path(folder))
        for method, path in (("weather", DELAYS), ("weather, moved", moved)):
            result = correct(cube, "weather", delays=path, incidence=INCIDENCE)
            rows += effects(
                cube.assign(corrected_phase=result["corrected_phase"].compute()), method
            )
            rows += delay_effects(cube, path, method)
    result = correct(cube, "phase-elevation")["corrected_phase"].compute()
    rows += effects(cube.assign(corrected_phase=result), "phase-elevation")
    notes = (
        "mm: standard deviation over the pixels of a pair, rms over pairs. As they "
        "lie, the delays are those of other mountains; moved: those from "
        f"{OFFSET[0]:g} degrees east and {-OFFSET[1]:g} south, which fit the "
        "elevation."
    )
    report(rows, chosen.out, notes=notes)
    return rows


if __name__ == "__main__":
    main()
