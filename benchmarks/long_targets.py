"""Rows and targets of `benchmarks.long_stacks`, from the scores of its stacks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.atmosphere import RESAMPLES, interval
from benchmarks.report import Row
from benchmarks.suite import DECADES, case_name
from cube_denoise.evaluate.judge import RAW
from cube_denoise.evaluate.scores import detection_threshold

ALL = "all deforming"
REST = case_name(None)
LOW = case_name(-1)
"""The case of the targets for the error."""
GROUPS = 8
"""Of stacks by peak, whose median correlations make the detection threshold."""
ERROR = "displacement rms error"
COVERAGE = "displacement 68 % covers"


class Judged(NamedTuple):
    """Scores of all methods on one stack."""

    case: str
    """`suite.case_name`."""
    peak: float
    """Largest displacement, m; 0 at rest."""
    scores: dict[str, dict[str, float]]
    """By method, then by score."""


Summary = Callable[[Sequence[float]], tuple[float, float, float]]


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval over scenes."""
    known = np.array([v for v in values if np.isfinite(v)])
    if not known.size:
        return (float("nan"),) * 3
    rng = np.random.default_rng(0)
    drawn = rng.choice(known, (RESAMPLES, known.size)).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(known.mean()), float(low), float(high)


def deformation_rows(
    stacks: Sequence[Judged], kinds: Mapping[str, str]
) -> Iterator[Row]:
    """Rows of the decades, and of all of them together."""
    moving = [s for s in stacks if s.peak > 0]
    for case in (*dict.fromkeys(s.case for s in moving), ALL):
        chosen = [s for s in moving if case in (s.case, ALL)]
        best = {
            kind: best_of(chosen, [m for m in kinds if kinds[m] == kind and m != RAW])
            for kind in ("classical", "pair")
        }
        for method in kinds:
            found = [s for s in chosen if method in s.scores]
            yield from _method_rows(case, method, found, best)
    yield from threshold_rows(moving, kinds)


def _method_rows(
    case: str, method: str, found: Sequence[Judged], best: Mapping[str, str | None]
) -> Iterator[Row]:
    """Rows of one method on the stacks of a case that it has seen."""

    def values(score: str) -> list[float]:
        return [s.scores[method].get(score, float("nan")) for s in found]

    def off(score: str, other: str | None) -> list[float]:
        return [
            100 * (1 - s.scores[method][score] / s.scores[other][score])
            for s in found
            if other in s.scores
        ]

    rate = "velocity rms error"
    columns: tuple[tuple[str, str, list[float], Summary], ...] = (
        (ERROR, "mm", values(ERROR), interval),
        ("off raw", "%", off(ERROR, RAW), interval),
        ("off best classical", "%", off(ERROR, best["classical"]), interval),
        ("off best of pairs", "%", off(ERROR, best["pair"]), interval),
        ("slope", "1", values("slope"), interval),
        ("velocity error off raw", "%", off(rate, RAW), interval),
        (COVERAGE, "%", values(COVERAGE), mean_interval),
        ("velocity 68 % covers", "%", values("velocity 68 % covers"), mean_interval),
    )
    for metric, unit, known, summary in columns:
        if np.isfinite(known).any():
            value, low, high = summary(known)
            yield Row(case, method, metric, value, unit, low, high, len(known))


def best_of(stacks: Sequence[Judged], methods: Sequence[str]) -> str | None:
    """Method of the smallest median of the error over that of the raw stack.

    Of those judged on all stacks, if there are any: stacks differ more than methods.
    """
    whole = [m for m in methods if all(m in s.scores for s in stacks)]
    ratios = {
        m: [s.scores[m][ERROR] / s.scores[RAW][ERROR] for s in stacks if m in s.scores]
        for m in whole or methods
    }
    return min(ratios, key=lambda m: float(np.median(ratios[m])), default=None)


def threshold_rows(moving: Sequence[Judged], kinds: Mapping[str, str]) -> Iterator[Row]:
    """Detection threshold of each method, and the slope of what is above twice it."""
    case = "detection"
    for method in kinds:
        found = sorted((s for s in moving if method in s.scores), key=lambda s: s.peak)
        groups = np.array_split(np.arange(len(found)), min(GROUPS, len(found)))
        known = [np.nan_to_num(s.scores[method]["correlation"]) for s in found]
        level = detection_threshold(
            [1e3 * float(np.median([found[k].peak for k in g])) for g in groups],
            [float(np.median([known[k] for k in g])) for g in groups],
        )
        yield Row(case, method, "peak where r > 0.7", level, "mm", scenes=len(found))
        slopes = [s.scores[method]["slope"] for s in found if 1e3 * s.peak > 2 * level]
        value, low, high = interval(slopes)
        metric = "slope above 2 thresholds"
        yield Row(case, method, metric, value, "1", low, high, len(slopes))


def rest_rows(stacks: Sequence[Judged]) -> Iterator[Row]:
    """Rows of the stacks at rest."""
    still = [s for s in stacks if s.peak == 0]
    units = {
        "false alarm": ("mm", interval),
        "velocity false alarm": ("mm/yr", interval),
        COVERAGE: ("%", mean_interval),
        "velocity 68 % covers": ("%", mean_interval),
    }
    for method in dict.fromkeys(m for s in still for m in s.scores):
        found = [s.scores[method] for s in still if method in s.scores]
        for metric, (unit, summary) in units.items():
            values = [f[metric] for f in found if metric in f]
            if values:
                value, low, high = summary(values)
                yield Row(REST, method, metric, value, unit, low, high, len(values))


def targets(rows: Sequence[Row], kinds: Mapping[str, str]) -> Iterator[str]:
    """Say of every network of stacks which targets it meets."""
    known = {(r.case, r.method, r.metric): r for r in rows}
    decades = [case_name(d) for d in DECADES]
    for method in (m for m, kind in kinds.items() if kind == "stack"):
        yield f"Targets of {method}:"
        asked: list[tuple[str, str, float, float]] = [
            (LOW, "off best classical", 30, 100),
            (LOW, "off best of pairs", 30, 100),
            ("detection", "slope above 2 thresholds", 0.95, 1.05),
            (REST, "false alarm", 0, 3),
            *((case, COVERAGE, 63.0, 73.0) for case in (*decades, REST)),
        ]
        for case, metric, least, most in asked:
            row = known.get((case, method, metric))
            if row is None:
                continue
            verdict = "met" if least <= row.value <= most else "missed"
            unit = "" if row.unit == "1" else f" {row.unit}"
            yield (
                f"  {case}: {metric} {row.cell}{unit}, to reach {least:g} to {most:g}: "
                f"{verdict}"
            )
