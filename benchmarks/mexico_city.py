"""What each network does to a real stack: 30 Sentinel-1 pairs over Mexico City.

There is no truth here. The city subsides by up to 0.3 m/yr; a correction that lowers
the slope inside the bowl removes real deformation.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.report import main
from cube_denoise import store
from cube_denoise.catalog import search, write_catalog
from cube_denoise.conventions import phase_to_displacement
from cube_denoise.ingest import ingest
from cube_denoise.models import zoo
from cube_denoise.network import closure_triplets, triplet_closure
from cube_denoise.pipeline import correct_cube, invert_cube
from cube_denoise.products import read_geotiff_stack

FOLDER = Path(__file__).parents[2] / "shared/data/mexico-city-s1"
REFERENCE = {"y": [45, 55], "x": [15, 25]}
"""Firm ground in the west of the scene, pixels."""
BOWL = -0.05
"""The bowl is where the raw velocity is below this, m/yr."""


def mexico_cube(url: Path, *, catalog: Path) -> Path:
    """Index the folder, search the catalog and ingest: as a user would."""
    records = read_geotiff_stack(
        FOLDER,
        pattern="unw/cropA_{reference}-{secondary}_VV_8rlks_eqa_unw.tif",
        coherence="coh/cropA_{reference}-{secondary}_VV_8rlks_flat_eqa_cc.tif",
        elevation="dem/cropA_T005A_dem.tif",
        track="A005",
        baselines="pairs.csv",
        acquisitions="acquisitions.csv",
    )
    write_catalog(records, catalog)
    report = ingest(search(str(catalog)), url)
    if report.failed or report.added != 30:
        raise RuntimeError(f"30 pairs expected: {report}")
    return url


def correction_effects(cube: xr.Dataset, method: str) -> list[dict[str, Any]]:
    """Compare raw and corrected pairs, closure and velocity of a corrected cube.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``unwrapped_phase``, ``corrected_phase`` (pair, y, x), rad, and
        ``velocity`` (y, x), m/yr, of the corrected pairs.
    method : str
        Name for the rows.

    Returns
    -------
    list of dict
        Rows of a benchmark.
    """
    from cube_denoise.invert import invert

    area = {d: slice(*limits) for d, limits in REFERENCE.items()}
    raw, corrected = (
        centred(cube[n].values) for n in ("unwrapped_phase", "corrected_phase")
    )
    before = invert(cube, variable="unwrapped_phase", reference=area).compute()
    after = cube
    bowl = before["velocity"].values < BOWL
    x, y = before["velocity"].values[bowl], after["velocity"].values[bowl]
    good = np.isfinite(x) & np.isfinite(y)
    slope = np.polyfit(x[good], y[good], 1)[0]
    triplets = closure_triplets(
        cube["reference_time"].values, cube["secondary_time"].values
    )

    def closure(phase: np.ndarray) -> float:
        """Median over triplets of the rms closure, whole cycles of a loop removed."""
        loops = triplet_closure(phase, triplets)
        cycles = np.round(np.nanmedian(loops, (1, 2), keepdims=True) / (2 * np.pi))
        loops = centred(loops - 2 * np.pi * cycles)
        return float(np.median(np.sqrt(np.nanmean(loops**2, (1, 2)))))

    def rows() -> Any:
        change = phase_to_displacement(corrected - raw, cube.attrs["wavelength"])
        yield "change of the pairs", 1e3 * rms(change), "mm rms"
        yield "spread of the pairs, raw", rms(raw), "rad rms"
        yield "spread of the pairs, corrected", rms(corrected), "rad rms"
        yield "triplet closure, raw", closure(raw), "rad"
        yield "triplet closure, corrected", closure(corrected), "rad"
        yield "slope in the bowl", float(slope), "1"
        for name, result in (("raw", before), ("corrected", after)):
            velocity = 1e3 * result["velocity"].values
            low, high = np.nanpercentile(velocity, [1, 99])
            yield f"velocity 1st percentile, {name}", float(low), "mm/yr"
            yield f"velocity 99th percentile, {name}", float(high), "mm/yr"
            yield f"residual, {name}", rms(result["residual_rms"].values), "rad rms"

    return [
        {
            "case": "mexico-city-s1",
            "method": method,
            "metric": metric,
            "value": value,
            "unit": unit,
        }
        for metric, value, unit in rows()
    ]


def centred(stack: np.ndarray) -> np.ndarray:
    """Maps less their means, float64."""
    stack = stack.astype("float64")
    return stack - np.nanmean(stack, (1, 2), keepdims=True)


def rms(values: np.ndarray) -> float:
    """Root mean square of the finite values."""
    return float(np.sqrt(np.nanmean(np.square(values, dtype="float64"))))


def measure(quick: bool) -> list[dict[str, Any]]:
    """Rows of all shipped networks (quick or not: it takes seconds)."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        url = mexico_cube(Path(folder) / "cube", catalog=Path(folder) / "catalog.json")
        for model in zoo.shipped_models():
            correct_cube(url, model, branch=model)
            invert_cube(url, branch=model, reference=REFERENCE)
            rows += correction_effects(store.open_cube(url, branch=model).load(), model)
    return rows


if __name__ == "__main__":
    main(measure, __doc__)
