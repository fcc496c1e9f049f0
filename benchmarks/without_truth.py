"""What real stacks tell without truth: what fits together, what is left, what is known.

Closure, residuals, structure functions and spreads are won by outputting zero, which is
a row here for that reason; the held-out-date ratio is not.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import xarray as xr

from benchmarks import mexico_city
from benchmarks.real_stacks import (
    CAMPI_FLEGREI,
    ENVISAT_WAVELENGTH,
    ETNA,
    ETNA_REFERENCE,
    PERMIAN,
    PERMIAN_REFERENCE,
    POZZUOLI,
    CampiFlegrei,
    campi_flegrei,
    etna_cube,
    etna_values,
    permian_cube,
)
from benchmarks.report import Row, options, table
from cube_denoise import store
from cube_denoise.conventions import PAIR, X, Y, phase_to_displacement, years_since
from cube_denoise.correct import correct
from cube_denoise.corrections import CLASSICAL
from cube_denoise.evaluate.consistency import (
    elevation_correlation,
    inversion_summary,
    short_baseline_std,
    triplet_closure_rms,
)
from cube_denoise.evaluate.held_out import Corrector, held_out_dates, uncorrected
from cube_denoise.evaluate.similarity import correlation
from cube_denoise.evaluate.structure import pair_structure, structure_function
from cube_denoise.invert import invert
from cube_denoise.models import zoo
from cube_denoise.network import closure_triplets, connected_subsets, pair_indices
from cube_denoise.velocity import fit_velocity

DISTANCES_KM = (1.0, 5.0)
"""Distances of the structure functions; the largest scene is 15 km."""

Number = tuple[str, float, str]
"""Metric, value, unit."""


class Case(NamedTuple):
    """One data set: its rows, and what must be known to read them."""

    rows: list[Row]
    notes: str


def mexico(quick: bool) -> Case:
    """30 Sentinel-1 pairs, 13 dates, a city that sinks by 0.3 m/yr."""
    with TemporaryDirectory() as folder:
        url = mexico_city.mexico_cube(
            Path(folder) / "cube", catalog=Path(folder) / "catalog.json"
        )
        cube = store.open_cube(url).load()
    rows, notes = judged(cube, "mexico-city-s1", mexico_city.REFERENCE, quick)
    return Case(
        rows,
        "Phase in rad, positive away from the satellite (subsidence is positive in the "
        "pairs),\nlater minus earlier; mm and mm/yr positive toward. Reference: firm "
        "ground in the west." + notes,
    )


def etna(quick: bool) -> Case:
    """214 ENVISAT pairs, 61 dates, 20 x 20 pixels: no elevation, no coherence."""
    rows, notes = judged(etna_cube(), "etna-envisat", ETNA_REFERENCE, quick)
    values = etna_values()
    quarter = 1e3 * ENVISAT_WAVELENGTH / 4

    def numbers() -> Iterator[Number]:
        yield "jumps at pi", jump_edge(values, np.pi), "1"
        yield "jumps at lambda/4", jump_edge(values, quarter), "1"
        inside = values[:, ETNA_REFERENCE[Y], ETNA_REFERENCE[X]]
        yield "reference", float(np.abs(np.nanmean(inside, (1, 2))).max()), "mm"

    rows += [Row("etna-envisat", "the file", *n) for n in numbers()]
    rad = 4 * np.pi / (1e3 * ENVISAT_WAVELENGTH)
    return Case(
        rows,
        "Unit: the file states none. Unwrapping lets neighbours differ by half a cycle "
        "at most: pi rad\nor lambda/4. Jumps fall off sharply at "
        f"{quarter:.2f} (ratio to a smooth fall well below 1) and\nrun smoothly "
        f"through pi: the values are mm; 1 mm = {rad:.3f} rad at 5.331 GHz.\n"
        "Sign: igram is earlier minus later and is flipped; whether it means motion "
        "toward or away is\nnot stated: taken as range, positive away. Only the sign "
        "of velocities depends on that.\n"
        "Reference: rows 17-19, columns 13-15, ends included, where the mean of every "
        "pair is 0.\nNo regular grid and no elevation: no structure function, no "
        "correlation." + notes,
    )


def permian(quick: bool) -> Case:
    """8 displacement maps, all against one date."""
    cube = permian_cube()
    case = "permian-opera-disp"
    rows = []
    for name, method in (("raw", uncorrected), ("output zero", zero)):
        held_out = held_out_dates(cube, method, reference=PERMIAN_REFERENCE)
        corrected = method(cube)
        numbers = [*structure(corrected), *common_mode(corrected)]
        numbers += [
            ("held-out ratio", held_out.ratio, "1"),
            ("held-out error", held_out.error, "mm"),
        ]
        rows += [Row(case, name, *number) for number in numbers]
    return Case(
        rows,
        "Displacement in m, taken as positive toward the satellite (OPERA's convention;"
        " the files do\nnot say, nothing here depends on it); 0 on 2016-07-08 and at "
        "row 258, column 142.\n"
        "common: mean product of two epochs over mean square of one. 50 % is what equal"
        " atmospheres\nof all dates give, the reference date's being in every epoch; "
        "the excess is motion or a bad\nreference date. at reference: rms of the lines "
        "through the epochs on the reference date, where\ndisplacement is 0 by "
        "definition; expected: from the scatter about the lines alone.",
    )


def campi(quick: bool) -> Case:
    """Velocity layers and the network of 579 Sentinel-1 pairs."""
    data = campi_flegrei()
    case = "campi-flegrei-licsbas"
    rows = [
        Row(case, name, *number)
        for name in ("vel", "vel.mskd", "vel.filt")
        for number in velocity_statistics(data, name)
    ]
    rows += [
        Row(case, name, *number)
        for name, used in (
            ("all pairs", np.full(data.rejected.shape, True)),
            ("used", ~data.rejected),
        )
        for number in network_statistics(data, used)
    ]
    return Case(
        rows,
        "Velocities in mm/yr, positive toward the satellite (LiCSBAS): uplift of the "
        "caldera is positive.\nuplift: within 1 km of 40.825 N 14.122 E (Pozzuoli) "
        "less the median of the scene, as layers differ\nin reference (vel: row 65, "
        "column 86, which rises itself; vel.filt: vel plus a constant).\n"
        "structure: deformation included. loops: independent ones, pairs - dates + "
        "parts.\nNeither pairs nor series are there: no closure, no held-out dates.",
    )


CASES: dict[str, tuple[Path, Callable[[bool], Case]]] = {
    "mexico-city-s1": (mexico_city.FOLDER, mexico),
    "etna-envisat": (ETNA, etna),
    "permian-opera-disp": (PERMIAN, permian),
    "campi-flegrei-licsbas": (CAMPI_FLEGREI, campi),
}


def judged(
    cube: xr.Dataset, case: str, reference: dict[str, slice], quick: bool
) -> tuple[list[Row], str]:
    """Rows of every method that takes the cube; a note on those that do not."""
    rows, refused = [], []
    for name, method in methods(quick):
        try:
            found = list(stack_numbers(cube, method, reference))
        except ValueError as error:
            refused.append(f"{name} ({error})")
            continue
        rows += [Row(case, name, *number) for number in found]
    return rows, "".join(f"\nNot run: {text}." for text in refused)


def methods(quick: bool) -> Iterator[tuple[str, Corrector]]:
    """Yield what is judged: nothing, zero, classical corrections, shipped networks."""
    yield "raw", uncorrected
    yield "output zero", zero
    names = ["phase-elevation"] if quick else [*CLASSICAL, *zoo.shipped_models()]
    for name in names:
        yield name, partial(correct, method=name)


def zero(cube: xr.Dataset) -> xr.Dataset:
    """Leave nothing: the winner of all scores but one."""
    return cube.assign(corrected_phase=0 * cube["unwrapped_phase"])


def stack_numbers(
    cube: xr.Dataset, method: Corrector, reference: dict[str, slice]
) -> Iterator[Number]:
    """Yield what a stack of pairs tells of a correction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pairs passed through
        phase = method(cube)["corrected_phase"].transpose(PAIR, Y, X).compute()
        corrected = cube.assign(corrected_phase=((PAIR, Y, X), phase.values))
        weights = "coherence" if "coherence" in cube else "none"
        held_out = held_out_dates(cube, method, reference=reference, weights=weights)
    inversion = invert(corrected, reference=reference, weights=weights).compute()
    closure, fit = triplet_closure_rms(corrected), inversion_summary(inversion)
    yield "closure", closure.rms, "rad"
    yield "beyond pi", 100 * closure.beyond_pi, "%"
    yield "residual", fit.residual_rms, "rad"
    yield "temporal coherence", fit.temporal_coherence, "1"
    yield "shortest pairs", short_baseline_std(corrected).std, "mm"
    if "spatial_ref" in cube.coords:
        yield from structure(corrected)
    if "elevation" in cube:
        yield "elevation correlation", elevation_correlation(corrected).rms, "1"
    velocity = 1e3 * inversion["velocity"].values
    yield "velocity std", float(np.nanstd(velocity)), "mm/yr"
    yield "held-out ratio", held_out.ratio, "1"
    yield "held-out error", held_out.error, "mm"


def structure(cube: xr.Dataset) -> Iterator[Number]:
    """Yield the structure function of the pairs."""
    found = pair_structure(cube, distances_km=DISTANCES_KM)
    for distance, value in zip(DISTANCES_KM, found.values, strict=True):
        yield f"structure {distance:g} km", float(value), "mm"


def common_mode(cube: xr.Dataset) -> Iterator[Number]:
    """Yield what the epochs of a series with one reference date have in common."""
    phase = cube["corrected_phase"].values.astype("float64")
    epochs = 1e3 * phase_to_displacement(phase, cube.attrs["wavelength"])
    epochs = epochs[:, np.isfinite(epochs).all(0)]
    epochs = epochs - epochs.mean(1, keepdims=True)
    product = epochs @ epochs.T / epochs.shape[1]
    power = np.diag(product).mean()
    count = len(epochs)
    shared = (product.sum() - np.trace(product)) / (count * (count - 1))
    years = years_since(cube["secondary_time"].values, cube["reference_time"].values[0])
    rate, _ = fit_velocity(epochs, years)
    start = epochs.mean(0) - rate * years.mean()
    residual = epochs - start - years[:, None] * rate
    scatter = float(np.sqrt((residual**2).sum() / (count - 2) / epochs.shape[1]))
    gain = 1 / count + years.mean() ** 2 / np.sum((years - years.mean()) ** 2)
    yield "epochs", float(np.sqrt(power)), "mm"
    yield "common", float(100 * shared / power) if power else float("nan"), "%"
    yield "about lines", scatter, "mm"
    yield "at reference", float(np.sqrt(np.mean(start**2))), "mm"
    yield "expected", float(scatter * gain**0.5), "mm"


def velocity_statistics(data: CampiFlegrei, name: str) -> Iterator[Number]:
    """Yield the distribution and the structure of one velocity layer."""
    layer = data.layers[name]
    for level in (1, 50, 99):
        yield f"{level} %", float(np.nanpercentile(layer, level)), "mm/yr"
    near = np.nanmean(layer[data.within_km(*POZZUOLI, 1.0)])
    yield "uplift", float(near - np.nanmedian(layer)), "mm/yr"
    found = structure_function(layer, spacing=data.spacing, distances_km=DISTANCES_KM)
    for distance, value in zip(DISTANCES_KM, found, strict=True):
        yield f"structure {distance:g} km", float(value), "mm/yr"
    height = data.layers["hgt"]
    yield "elevation correlation", correlation(layer, height), "1"


def network_statistics(data: CampiFlegrei, used: np.ndarray) -> Iterator[Number]:
    """Yield how well the dates are tied to each other, and how coherent pairs are."""
    early, late = data.reference_time[used], data.secondary_time[used]
    dates = pair_indices(early, late)[2].size
    parts = len(connected_subsets(early, late))
    yield "pairs", float(used.sum()), "1"
    yield "dates", float(dates), "1"
    yield "parts", float(parts), "1"
    yield "loops", float(used.sum() - dates + parts), "1"
    yield "triangles", float(len(closure_triplets(early, late))), "1"
    yield "pairs per date", 2 * used.sum() / dates, "1"
    for level in (5, 50, 95):
        value = float(np.nanpercentile(data.coherence[used], level))
        yield f"coherence {level} %", value, "1"


def jump_edge(pairs: np.ndarray, size: float, *, width: float = 1.0) -> float:
    """How sharply the number of steps between neighbouring pixels falls off at `size`.

    Counts in [size, size + width) over [size - width, size), relative to the geometric
    mean of that ratio one width below and above: 1 where the fall is smooth.
    """
    steps = np.concatenate([np.diff(pairs, axis=k).ravel() for k in (1, 2)])
    edges = size + width * np.arange(-2, 3)
    n = np.histogram(np.abs(steps[np.isfinite(steps)]), edges)[0].astype("float64")
    return float(n[2] / n[1] / np.sqrt((n[1] / n[0]) * (n[3] / n[2])))


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; ``--quick`` leaves out most methods."""
    chosen = options(__doc__, arguments)
    rows: list[Row] = []
    for name, (folder, case) in CASES.items():
        if not folder.exists():
            print(f"{name}: not run, there is no folder {folder}\n")
            continue
        found = case(chosen.quick)
        print(f"{table(found.rows)}\n\n{found.notes}\n")
        rows += found.rows
    if chosen.out is not None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps([r.record for r in rows], indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
