"""What an evaluation says, in sentences."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from cube_denoise.evaluate.injection import AMPLITUDE_UNITS
from cube_denoise.evaluate.tables import number

if TYPE_CHECKING:
    from cube_denoise.evaluate.judge import Evaluation

CLEAR = 0.05
"""Smaller relative differences from raw are not called differences."""
KEPT = 0.9
"""A method that keeps less of what moves is named."""
HISTORIES = {"steady": "steady motion", "step": "a sudden step"}


def findings(evaluation: "Evaluation") -> list[str]:
    """Say what the scores say, in a sentence each; nothing where they say nothing."""
    scores = {v.method: v.scores for v in evaluation.verdicts}

    def column(name: str) -> dict[str, float]:
        found = {m: s.get(name, np.nan) for m, s in scores.items()}
        return {m: v for m, v in found.items() if not np.isnan(v)}

    return [
        *_velocity(column("velocity reduction"), column("velocity slope")),
        *_held_out(column("held-out ratio")),
        *_detection(column),
        *_kept(evaluation, column),
        *_left_out(evaluation),
    ]


def _velocity(
    reduction: Mapping[str, float], slope: Mapping[str, float]
) -> Iterator[str]:
    others = {m: v for m, v in reduction.items() if m != "raw"}
    if not others:
        return
    better = [
        f"{m} by {v:.0f} % (slope {slope[m]:.2f})"
        for m, v in sorted(others.items(), key=lambda item: -item[1])
        if v > 100 * CLEAR
    ]
    worse = [m for m, v in others.items() if v < -100 * CLEAR]
    text = "No method brings the velocity clearly nearer to the truth than raw pairs."
    if better:
        text = f"Against the truth, the rms error falls with {_list(better)}."
    yield text
    if worse:
        yield f"The velocity is worse than that of raw pairs with {_list(worse)}."


def _held_out(ratio: Mapping[str, float]) -> Iterator[str]:
    if "raw" not in ratio or len(ratio) < 2:
        return
    raw = ratio["raw"]
    yield (
        f"Raw pairs predict the motion of hidden dates with {raw:.3f} of the squared "
        f"error of no motion; {_compared(ratio, '1')}."
    )
    if min(ratio.values()) >= 1 - CLEAR:
        yield (
            "No method predicts hidden dates better than no motion does: here is "
            "little motion, or much noise."
        )


def _detection(column: Callable[[str], dict[str, float]]) -> Iterator[str]:
    for history, told in HISTORIES.items():
        least = column(f"{history} detectable")
        if "raw" in least:
            unit = AMPLITUDE_UNITS[history]
            size = f"{number(least['raw'], unit)} {unit}"
            name = told.removeprefix("a ")
            found = f"The smallest {name} found in raw pairs is {size}"
            if np.isinf(least["raw"]):
                found = f"Of {told} not even the largest injected is found in raw pairs"
            yield f"{found} (median over sources); {_compared(least, unit)}."


def _kept(
    evaluation: "Evaluation", column: Callable[[str], dict[str, float]]
) -> Iterator[str]:
    for history, told in HISTORIES.items():
        lost = [
            f"{m} {100 * low:.0f} to {100 * high:.0f} %"
            for m, (low, high) in _by_radius(evaluation, history).items()
            if low < KEPT and m != "raw"
        ]
        if lost:
            part = _list(lost)
            yield f"Of {told} that was injected comes back, by its radius: {part}."
    wide = [
        f"{m} {100 * v:.0f} %"
        for m, v in column("slope on raw velocity").items()
        if v < KEPT and m != "raw"
    ]
    if wide:
        yield (
            f"Of the raw velocity, where it is largest, is kept: {_list(wide)}. If "
            "that is motion, it is lost, whatever becomes of the noise."
        )


def _by_radius(
    evaluation: "Evaluation", history: str
) -> dict[str, tuple[float, float]]:
    """Smallest and largest over radii of the median slope of sources, by method."""
    found = {}
    for verdict in evaluation.verdicts:
        slopes: dict[float, list[float]] = {}
        for one in verdict.recoveries:
            if one.case.history == history:
                known = one.slope[np.isfinite(one.slope)]
                slopes.setdefault(one.case.radius, []).extend(known)
        medians = [float(np.median(s)) for s in slopes.values() if s]
        if medians:
            found[verdict.method] = (min(medians), max(medians))
    return found


def _left_out(evaluation: "Evaluation") -> Iterator[str]:
    missing = [v.method for v in evaluation.verdicts if not v.scores]
    if missing:
        yield f"Not judged: {_list(missing)}; the notes say why."


def _compared(values: Mapping[str, float], unit: str) -> str:
    """Who is clearly below and above raw, as a part of a sentence."""
    raw = values["raw"]

    def those(chosen: Callable[[float], bool]) -> str:
        order = sorted(values.items(), key=lambda item: item[1])
        return _list(
            [f"{m} ({number(v, unit)})" for m, v in order if m != "raw" and chosen(v)]
        )

    better, worse = (
        those(lambda v: v < raw * (1 - CLEAR)),
        those(lambda v: v > raw * (1 + CLEAR)),
    )
    parts = []
    if better:
        parts.append(f"less with {better}")
    if worse:
        parts.append(f"more with {worse}")
    return ", ".join(parts) or "about the same with every method"


def _list(texts: list[str]) -> str:
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}"
