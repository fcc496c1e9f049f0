"""What each correction does to a real stack: 30 Sentinel-1 pairs over Mexico City.

There is no truth here. The city subsides by up to 0.3 m/yr; a correction whose velocity
has a slope well below 1 on the raw velocity inside the bowl removes real deformation.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.report import Row, parser, report
from cube_denoise import store
from cube_denoise.catalog import search, write_catalog
from cube_denoise.conventions import PAIR, X, Y, phase_to_displacement
from cube_denoise.correct import correct
from cube_denoise.evaluate.judge import applicable_methods
from cube_denoise.ingest import ingest
from cube_denoise.invert import invert
from cube_denoise.network import closure_triplets, triplet_closure
from cube_denoise.products import read_raster_stack

FOLDER = Path(__file__).parents[2] / "shared/data/mexico-city-s1"
REFERENCE = {Y: slice(45, 55), X: slice(15, 25)}
"""Firm ground in the west of the scene, pixels."""
BOWL = -0.05
"""The bowl is where the raw velocity is below this, m/yr."""


def mexico_cube(url: Path, *, catalog: Path) -> Path:
    """Index the folder, search the catalog and ingest: the door of a user."""
    records = read_raster_stack(
        FOLDER,
        pattern="unw/cropA_{reference}-{secondary}_VV_8rlks_eqa_unw.tif",
        coherence="coh/cropA_{reference}-{secondary}_VV_8rlks_flat_eqa_cc.tif",
        elevation="dem/cropA_T005A_dem.tif",
        track="A005",
        baselines="pairs.csv",
        acquisitions="acquisitions.csv",
    )
    write_catalog(records, catalog)
    done = ingest(search(str(catalog)), url)
    if done.failed or done.added != 30:
        raise RuntimeError(f"30 pairs expected: {done}")
    return url


def effects(cube: xr.Dataset, method: str) -> list[Row]:
    """Compare pairs, closure and velocity with those of the raw pairs.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``unwrapped_phase``, ``corrected_phase`` (pair, y, x), rad.
    method : str
        Name for the rows.

    Returns
    -------
    list of Row
        Maps are compared after removing the mean of each; closure after removing the
        whole cycles and the mean of each loop.
    """
    raw, corrected = (
        centred(cube[n].values) for n in ("unwrapped_phase", "corrected_phase")
    )
    before, after = (
        invert(cube, variable=n, reference=REFERENCE).compute()
        for n in ("unwrapped_phase", "corrected_phase")
    )
    inside = before["velocity"].values < BOWL
    slope = np.polyfit(*(c["velocity"].values[inside] for c in (before, after)), 1)[0]
    velocity = 1e3 * after["velocity"].values
    times = (cube[n].values for n in ("reference_time", "secondary_time"))
    change = phase_to_displacement(corrected - raw, cube.attrs["wavelength"])

    def numbers() -> Iterator[tuple[str, float, str]]:
        yield "pairs", rms(corrected), "rad rms"
        yield "change", 1e3 * rms(change), "mm rms"
        yield "closure", closure(corrected, closure_triplets(*times)), "rad rms"
        yield "residual", rms(after["residual_rms"].values), "rad rms"
        yield "slope in the bowl", float(slope), "1"
        yield "1st percentile", float(np.nanpercentile(velocity, 1)), "mm/yr"
        yield "99th percentile", float(np.nanpercentile(velocity, 99)), "mm/yr"

    return [Row("mexico-city-s1", method, *number) for number in numbers()]


def closure(phase: np.ndarray, triplets: np.ndarray) -> float:
    """Median over triplets of the rms closure, rad; phase has shape (pair, y, x)."""
    loops = triplet_closure(phase, triplets)
    cycles = np.round(np.nanmedian(loops, (1, 2), keepdims=True) / (2 * np.pi))
    loops = centred(loops - 2 * np.pi * cycles)
    return float(np.median(np.sqrt(np.nanmean(loops**2, (1, 2)))))


def centred(stack: np.ndarray) -> np.ndarray:
    """Maps less their means, float64."""
    stack = stack.astype("float64")
    return stack - np.nanmean(stack, (1, 2), keepdims=True)


def rms(values: np.ndarray) -> float:
    """Root mean square of the finite values."""
    return float(np.sqrt(np.nanmean(np.square(values, dtype="float64"))))


def corrected_cubes(
    cube: xr.Dataset, only: Sequence[str] = ()
) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the cube as every method, or these, correct it, beginning with none."""
    phase = cube["unwrapped_phase"]
    yield "raw", cube.assign(corrected_phase=phase)
    for method in applicable_methods(cube):
        if only and method not in only:
            continue
        result = correct(cube, method)["corrected_phase"]
        assert result.sizes[PAIR] == cube.sizes[PAIR]
        yield method, cube.assign(corrected_phase=result.compute())


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; ``--quick`` is the whole, it takes seconds."""
    more = parser(__doc__)
    more.add_argument("--only", nargs="+", default=(), metavar="NAME")
    chosen = more.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        url = mexico_cube(Path(folder) / "cube", catalog=Path(folder) / "catalog.json")
        cube = store.open_cube(url).load()
    cubes = corrected_cubes(cube, chosen.only)
    rows = [row for name, c in cubes for row in effects(c, name)]
    notes = f"The bowl is where the raw velocity is below {1e3 * BOWL:g} mm/yr."
    report(rows, chosen.out, notes=notes)
    return rows


if __name__ == "__main__":
    main()
