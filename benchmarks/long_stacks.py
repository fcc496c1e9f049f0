"""What every method leaves of the displacement of long stacks, and how sure it is.

The second part of `benchmarks.atmosphere`: simulated stacks of the "test" split, which
training never draws, long enough for networks that see all dates at once. The
displacement of every date is judged, as pairs corrected by each method are inverted.
"""

import argparse
import logging
import math
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from benchmarks.atmosphere import corrected_by, in_processes, interval
from benchmarks.long_targets import Judged, deformation_rows, rest_rows, targets
from benchmarks.report import Row, report
from benchmarks.suite import DECADES, case_name
from cube_denoise import evaluate
from cube_denoise.conventions import PAIR, TIME, X, Y
from cube_denoise.correct import correct
from cube_denoise.corrections import CLASSICAL
from cube_denoise.evaluate.judge import RAW, applicable_methods
from cube_denoise.invert import invert
from cube_denoise.reference import choose_reference
from cube_denoise.simulate import Scene
from cube_denoise.simulate.seeds import child_seeds, split_seed
from cube_denoise.simulate.stack import simulate_stack

log = logging.getLogger(__name__)

VERSION = 1
"""Figures of different versions do not compare."""
SEED_WORD = 300 + VERSION
"""First word of the seeds within the "test" split."""
STACKS = {False: 10, True: 1}
"""Of every decade, and at rest; whole run and ``--quick``."""
SIZE = {False: 96, True: 32}
"""Pixels a side."""
DATES = {False: (24, 40), True: (8, 10)}
"""Fewest and most acquisitions, 12 days apart."""
LONGEST = 36
"""Longest pair, days: every date with the next three."""
BUDGET = 20.0
"""Seconds a stack that a network may take on average: slower ones see fewer stacks."""
PAIRS = 90
"""Of a stack, about."""
STD = "correction_std"
ONE_STD = math.erf(math.sqrt(0.5))
"""Probability within one standard deviation, 68.3 %."""


class Asked(NamedTuple):
    """One stack, and what it is corrected with."""

    decade: int | None
    """Lower end, log10; None at rest."""
    number: int
    quick: bool
    methods: tuple[str, ...]
    """Names of corrections and shipped models, model folders."""


def seed_of(decade: int | None, number: int) -> np.random.SeedSequence:
    """Seed of one stack."""
    row = len(DECADES) if decade is None else DECADES.index(decade)
    return split_seed("test", SEED_WORD, row, number)


def scene_of(decade: int | None, number: int, *, quick: bool) -> Scene:
    """Draw one stack: dates, terrain, sources, weather, decorrelation and gaps.

    The ratio of powers, deformation over delay, is that of the displacement series
    (`simulate_stack`), log-uniform within the decade.
    """
    seed = seed_of(decade, number)
    # `simulate_stack` takes the first five.
    rng = np.random.default_rng(child_seeds(seed, 6)[5])
    fewest, most = DATES[quick]
    dates = int(rng.integers(fewest, most + 1))
    power: dict[str, float] = {"amplitude": 0.0}
    if decade is not None:
        power = {"snr": 10 ** float(rng.uniform(decade, decade + 1))}
    return simulate_stack(
        seed=seed,
        shape=(SIZE[quick], SIZE[quick]),
        dates=dates,
        max_temporal_baseline=LONGEST,
        **power,
    )


def judge(asked: Asked) -> Judged:
    """Scores of all methods on one stack."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    scene = scene_of(asked.decade, asked.number, quick=asked.quick)
    cube, truth = scene
    reference = choose_reference(cube, variable="unwrapped_phase")
    scores = {}
    for name in (RAW, *asked.methods):
        began = time.thread_time()
        corrected = cube.rename(unwrapped_phase="corrected_phase")
        if name != RAW:
            corrected = corrected_by(cube, method=name)
        inverted = invert(
            corrected, variable="corrected_phase", reference=reference
        ).compute()
        found = displacement_scores(inverted, truth, reference, corrected.get(STD))
        found["seconds"] = time.thread_time() - began
        scores[label_of(name)] = found
    return Judged(case_name(asked.decade), float(truth.attrs["amplitude"]), scores)


def displacement_scores(
    inverted: xr.Dataset,
    truth: xr.Dataset,
    reference: Any,
    std: xr.DataArray | None = None,
) -> dict[str, float]:
    """Scores of an inversion against the truth.

    Parameters
    ----------
    inverted : xarray.Dataset
        As `invert` gives it.
    truth : xarray.Dataset
        As `simulate_stack` gives it.
    reference : ReferenceArea
        Of the inversion.
    std : xarray.DataArray, dims (correction_time, y, x), optional
        Of the displacement, m, as a network states it.

    Returns
    -------
    dict
        In mm, mm/yr, % and 1. Displacements are compared where there are data, less
        the mean over the map of each date, then less the mean over time of each pixel:
        the estimate and the truth alike.
    """
    from cube_denoise.training.stacks import centred

    estimate, true = (
        d["displacement"].transpose(TIME, Y, X).values.astype("float64")
        for d in (inverted, truth)
    )
    there = np.isfinite(estimate)
    estimate, true = (centred(np.where(there, a, np.nan)) for a in (estimate, true))
    velocity, error = (inverted[n].values for n in ("velocity", "velocity_std"))
    rate = truth["velocity"].values
    scores = {
        "velocity 68 % covers": 100
        * evaluate.coverage(
            velocity, error, rate - np.nanmean(reference.cut(rate)), level=ONE_STD
        )
    }
    if std is not None:
        spread = std.transpose(..., Y, X).values
        held = evaluate.coverage(estimate, spread, true, level=ONE_STD)
        scores["displacement 68 % covers"] = 100 * held
    if not truth["displacement"].any():
        return scores | {
            "false alarm": 1e3 * evaluate.false_alarm(estimate),
            "velocity false alarm": 1e3 * evaluate.false_alarm(velocity),
        }
    return scores | {
        "displacement rms error": 1e3 * evaluate.rms_error(estimate, true),
        "slope": evaluate.amplitude_slope(estimate, true),
        "correlation": evaluate.correlation(estimate, true),
        "velocity rms error": 1e3 * evaluate.rms_error(velocity, rate),
    }


def kind_of(method: str) -> str:
    """Say "classical", or what a network sees at once: "pair" or "stack"."""
    from cube_denoise.models import zoo

    if method in CLASSICAL or method == RAW:
        return "classical"
    return zoo.what_it_sees(method)


def label_of(method: str) -> str:
    """Name of a row: that of a model folder is its last part."""
    return method if "/" not in method else f"{Path(method).name} (given)"


def strides(methods: Sequence[str], *, quick: bool) -> dict[str, int]:
    """Which stacks each method sees: every n-th of a case, so as to keep `BUDGET`."""
    found = dict.fromkeys(methods, 1)
    if quick:
        return found
    cube = scene_of(None, 0, quick=quick).cube
    for name in (m for m in methods if kind_of(m) == "pair"):
        seconds = []
        for count in (1, 2, 6):  # the first call has more to load
            began = time.thread_time()
            correct(cube.isel({PAIR: slice(count)}), name).compute(
                scheduler="synchronous"
            )
            seconds.append(time.thread_time() - began)
        needed = (seconds[2] - seconds[1]) / 4 * PAIRS
        found[name] = min(max(1, math.ceil(needed / BUDGET)), STACKS[quick] // 2)
        log.info("%s: about %.0f s a stack", name, needed)
    return found


def judged_stacks(methods: dict[str, int], *, quick: bool) -> Iterator[Judged]:
    """Judge all stacks, those of a decade one after the other."""
    asked = [
        Asked(d, k, quick, tuple(m for m, n in methods.items() if k % n == 0))
        for d in (*DECADES, None)
        for k in range(STACKS[quick])
    ]
    yield from in_processes(judge, asked, quick=quick)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the rows")
    parser.add_argument(
        "--model", nargs="+", default=[], metavar="FOLDER", help="more networks"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these methods alone")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    found = applicable_methods(scene_of(None, 0, quick=True).cube)
    if given.only:
        found = [m for m in found if m in given.only]
    extra = [str(Path(folder).resolve()) for folder in given.model]
    methods = strides([*found, *extra], quick=given.quick)
    stacks = []
    for one in judged_stacks(methods, quick=given.quick):
        stacks.append(one)
        log.info(
            "%d stacks, %.0f s: %s", len(stacks), time.monotonic() - began, one.case
        )
    kinds = {label_of(m): kind_of(m) for m in (RAW, *methods)}
    rows = [*deformation_rows(stacks, kinds), *rest_rows(stacks)]
    fewer = {label_of(m): n for m, n in methods.items() if n > 1}
    seconds = {
        name: interval([s.scores[name]["seconds"] for s in stacks if name in s.scores])
        for name in kinds
    }
    notes = [
        f"Version {VERSION}: {len(stacks)} simulated stacks of {DATES[given.quick][0]} "
        f"to {DATES[given.quick][1]} dates, {SIZE[given.quick]} x {SIZE[given.quick]} "
        f"pixels, {time.monotonic() - began:.0f} s in all.",
        "Cases: power of the displacement over that of the delay, of the series. "
        "Medians over the stacks of a case",
        "(coverage: means) with 95 % bootstrap intervals over stacks. Displacements of "
        "all dates and pixels, each date",
        "less its mean over the map, each pixel less its mean over time. off best: "
        "paired, from the error of the",
        "classical correction, or network of single pairs, of the smallest error in "
        "the case among those",
        "judged on all of its stacks. slope: inside the",
        "sources; above 2 thresholds: of the stacks whose peak is above twice the peak "
        "from which on r > 0.7.",
        "false alarm: 99th percentile of what is left at rest. 68 % covers: of the "
        "truth, by one standard deviation as",
        "stated by the network (displacement) or the inversion (velocity, which has "
        "only the noise in time).",
        *(f"{m}: every {n}th stack of a case alone." for m, n in fewer.items()),
        "Seconds of processor time a stack, median: "
        + ", ".join(f"{m} {s[0]:.1f}" for m, s in seconds.items()),
        "",
        *targets(rows, kinds),
    ]
    report(rows, given.out, notes="\n".join(notes))
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    main()
