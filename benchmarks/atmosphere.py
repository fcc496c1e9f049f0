"""How much atmosphere every method takes out, and how much deformation with it.

Simulated stacks of the "test" split, which training never draws, by decade of the power
of the deformation over that of the delay in the pairs, and stacks at rest; and real
pairs with injected deformation. New methods and models appear as rows of their own.
"""

import logging
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from benchmarks import suite
from benchmarks.report import Row, parser, report
from cube_denoise.cluster import cores
from cube_denoise.correct import correct
from cube_denoise.corrections import find_correction
from cube_denoise.evaluate.held_out import uncorrected
from cube_denoise.evaluate.judge import RAW, applicable_methods
from cube_denoise.evaluate.recovery import recover, smallest_detectable
from cube_denoise.evaluate.scores import detection_threshold, false_alarm
from cube_denoise.evaluate.scoring import against_truth
from cube_denoise.invert import invert
from cube_denoise.reference import choose_reference
from cube_denoise.simulate import Scene

log = logging.getLogger(__name__)

ORACLE = "wiener"
"""Knows the true spectra: a bound, no method to be chosen."""
PROCESSES = cores()
RESAMPLES = 2000
"""Bootstrap samples of the scenes of a case."""
UNITS = {
    "velocity rms error": "mm/yr",
    "velocity reduction": "%",
    "velocity slope": "1",
    "pair reduction": "%",
    "pair slope": "1",
    "95 % covers": "%",
}
"""Scores of deforming stacks, and their units."""

Corrector = Callable[[xr.Dataset], xr.Dataset]


def methods(
    cube: xr.Dataset, truth: xr.Dataset | None, only: Sequence[str] = ()
) -> dict[str, Corrector]:
    """All that can be compared on a cube, or these alone, by name; raw first."""
    found: dict[str, Corrector] = {RAW: uncorrected}
    for name in applicable_methods(cube):
        if not only or name in only:
            found[name] = partial(corrected_by, method=find_correction(name))
    if truth is not None and (not only or ORACLE in only):
        oracle = find_correction(ORACLE, truth=truth)
        found[ORACLE] = partial(corrected_by, method=oracle)
    return found


def corrected_by(cube: xr.Dataset, *, method: Any) -> xr.Dataset:
    """The cube with its pairs corrected, and with what the method states."""
    found = correct(cube, method).compute(scheduler="synchronous")
    return cube.assign(found.data_vars)


def scene_scores(scene: Scene, only: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Scores of every method on one stack."""
    warnings.simplefilter("ignore", UserWarning)
    cube, truth = scene
    reference = choose_reference(cube, variable="unwrapped_phase")
    found: dict[str, dict[str, float]] = {}
    before: xr.Dataset | None = None
    for name, method in methods(cube, truth, only).items():
        corrected = method(cube)
        inversion = invert(
            corrected, variable="corrected_phase", reference=reference
        ).compute()
        if truth.attrs["amplitude"] == 0:
            found[name] = {
                "velocity false alarm": 1e3 * false_alarm(inversion["velocity"].values),
                "pair false alarm": _pair_alarm(corrected),
            }
            continue
        before = inversion if before is None else before
        scores = against_truth(corrected, inversion, truth, reference, before)
        error = "pair rms error"
        scores["pair reduction"] = 100 * (
            1 - scores[error] / found.get(RAW, scores)[error]
        )
        found[name] = scores
    return found


def in_processes(
    function: Callable[[Any], Any], items: Sequence[Any], *, quick: bool
) -> Iterator[Any]:
    """Yield results in the order of the items; `quick` stays in this process."""
    if quick:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, _one_thread) as pool:
        yield from pool.map(function, items)


def _one_thread() -> None:
    """Processes that each took all cores would wait for each other."""
    import torch

    torch.set_num_threads(1)
    threadpool_limits(1)


def _pair_alarm(cube: xr.Dataset) -> float:
    """Median over pairs of the 99th percentile of the magnitude, mm."""
    millimetres = 1e3 * cube.attrs["wavelength"] / (4 * np.pi)
    alarms = [false_alarm(one) for one in cube["corrected_phase"].values]
    return millimetres * float(np.median(alarms))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and its 95 % bootstrap interval over scenes."""
    known = np.array([v for v in values if np.isfinite(v)])
    if not known.size:
        return (float("nan"),) * 3
    rng = np.random.default_rng(0)
    drawn = np.median(rng.choice(known, (RESAMPLES, known.size)), axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(np.median(known)), float(low), float(high)


def _row(case: str, method: str, metric: str, unit: str, values: list[float]) -> Row:
    value, low, high = interval(values)
    return Row(case, method, metric, value, unit, low, high, len(values))


def simulated_rows(
    *, quick: bool, only: Sequence[str] = ()
) -> tuple[list[Row], dict[str, str]]:
    """Rows of all simulated stacks, and the best method of every case."""
    table: dict[str, dict[str, list[dict[str, float]]]] = {}
    peaks: list[float] = []
    began = time.monotonic()
    stacks = list(suite.stacks(quick=quick))
    score = partial(scene_scores, only=only)
    judged = in_processes(score, [s.scene for s in stacks], quick=quick)
    for count, (stack, scores) in enumerate(zip(stacks, judged, strict=True), 1):
        deforms = stack.case != suite.case_name(None)
        cases = (stack.case, f"{stack.terrain} terrain") if deforms else (stack.case,)
        for case in cases:
            for name, found in scores.items():
                table.setdefault(case, {}).setdefault(name, []).append(found)
        if deforms:
            peaks.append(float(np.abs(stack.scene.truth["velocity"]).max()))
        log.info("%d stacks, %.0f s: %s", count, time.monotonic() - began, stack.case)
    rows = []
    for case, by_method in table.items():
        for name, found in by_method.items():
            units = UNITS if "velocity slope" in found[0] else {}
            units = units or {"velocity false alarm": "mm/yr", "pair false alarm": "mm"}
            rows += [
                _row(case, name, metric, unit, [f[metric] for f in found])
                for metric, unit in units.items()
            ]
    rows += list(_thresholds(table, peaks))
    return rows, {c: best(t) for c, t in table.items() if c.startswith("snr")}


def _thresholds(
    table: Mapping[str, Mapping[str, list[dict[str, float]]]], peaks: Sequence[float]
) -> Iterator[Row]:
    """Peak velocity from which on the map correlates with the truth, by method."""
    cases = [suite.case_name(d) for d in suite.DECADES]
    order = np.argsort(peaks)
    for name in table[cases[0]]:
        # A map without contrast correlates with nothing.
        known = np.nan_to_num(
            [f["velocity correlation"] for c in cases for f in table[c][name]]
        )
        groups = np.array_split(order, min(8, len(order)))
        level = detection_threshold(
            1e3 * np.array([np.median(np.array(peaks)[g]) for g in groups]),
            np.array([np.median(known[g]) for g in groups]),
        )
        yield Row(
            "all snr",
            name,
            "peak where r > 0.7",
            float(level),
            "mm/yr",
            scenes=len(peaks),
        )


def best(by_method: Mapping[str, list[dict[str, float]]]) -> str:
    """Method of the smallest velocity error, and those that it does not clearly beat.

    Clearly: the median over scenes of the ratio of their errors stays on one side of 1
    in 95 % of bootstrap samples of the scenes.
    """
    errors = {
        name: np.array([f["velocity rms error"] for f in found])
        for name, found in by_method.items()
        if name != ORACLE
    }
    first = min(errors, key=lambda name: float(np.median(errors[name])))
    tied = []
    for name, values in errors.items():
        low = interval(list(values / errors[first]))[1]
        if name != first and low <= 1:
            tied.append(name)
    return first + (f" (not clearly better than {', '.join(tied)})" if tied else "")


def real_rows(folder: Path, *, quick: bool, only: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of the real stacks: what comes back of injected deformation."""
    for real in suite.real_noise(folder, quick=quick):
        for name, method in methods(real.cube, None, only).items():
            try:
                found = list(
                    recover(
                        real.cube,
                        method,
                        real.cases,
                        reference=real.reference,
                        weights="coherence" if "coherence" in real.cube else "none",
                    )
                )
            except ValueError as error:
                log.warning("%s does not run on %s: %s", name, real.name, error)
                continue
            for history, unit in (("steady", "mm/yr"), ("step", "mm")):
                chosen = [r for r in found if r.case.history == history]
                slopes = np.concatenate([r.slope for r in chosen])
                least = np.concatenate([smallest_detectable([r]) for r in chosen])
                case = f"{real.name}, injected"
                yield _row(case, name, f"{history} slope", "1", slopes.tolist())
                least = 1e3 * least[~np.isnan(least)]
                yield Row(
                    case,
                    name,
                    f"{history} detectable",
                    float(np.median(least)) if least.size else float("nan"),
                    unit,
                    scenes=least.size,
                )
        log.info("%s done", real.name)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    more = parser(__doc__)
    more.add_argument("--only", nargs="+", default=(), metavar="NAME")
    asked = more.parse_args(arguments)
    began = time.monotonic()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore", UserWarning)
        rows, winners = simulated_rows(quick=asked.quick, only=asked.only)
        rows += real_rows(Path(folder), quick=asked.quick, only=asked.only)
    pairs = 2 * suite.DATES[asked.quick] - 3
    scenes = 2 * suite.SCENES[asked.quick] * (len(suite.DECADES) + 1)
    size = suite.SIZE[asked.quick]
    notes = "\n".join(
        [
            f"Suite {suite.VERSION}: {scenes * pairs} simulated pairs of {size} x "
            f"{size} pixels in {scenes} stacks, {time.monotonic() - began:.0f} s in "
            "all. Medians over the stacks",
            "of a case (95 % bootstrap interval over stacks; over sources where "
            "deformation is injected).",
            "velocity: of the inverted stack; pair: median over the pairs of a stack. "
            "reduction: of the rms error",
            "of the raw stack. slope: of the estimated on the true deformation inside "
            "the sources; 1 keeps it,",
            "0 loses it. 95 % covers: of the true velocities, by two standard "
            "deviations as stated. false alarm:",
            "99th percentile of what is left where nothing moves. peak where r > 0.7: "
            "largest rate of a stack",
            "from which on the velocity map correlates with the true one.",
            f"{ORACLE} knows the true spectra of every pair: a bound, not a method.",
            "Weather-model delays are not in it: how wrong they are would have to be "
            "invented; see bhutan_gacos.",
            "",
            "Smallest error of the velocity:",
            *(f"  {case}: {name}" for case, name in winners.items()),
        ]
    )
    report(rows, asked.out, notes=notes)
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    main()
