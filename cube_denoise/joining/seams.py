"""What joining did: steps between frames and misfits to the ground."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cube_denoise.joining.equations import Rows
from cube_denoise.joining.noise import errors, stacked
from cube_denoise.joining.offsets import Offsets


@dataclass(frozen=True)
class Seam:
    """The step between two frames of one side, the first less the second, m/yr."""

    one: str
    other: str
    cells: int
    """That they share."""
    before: float
    after: float
    std: float
    """That the noise of the cells alone gives a step. Offsets are fitted to the same
    cells: where all is as stated, steps after are somewhat smaller."""


@dataclass(frozen=True)
class Tie:
    """How one frame fits the points that tie it, m/yr."""

    frame: str
    points: int
    before: float
    """Root mean square of frame less ground along the look."""
    after: float
    offset: float
    """At the centre of the frame."""
    offset_std: float


def seams(offsets: Offsets) -> list[Seam]:
    """Steps of all pairs of frames that share cells: weighted means over the cells."""
    found: dict[tuple[int, int], list[tuple[Rows, int]]] = defaultdict(list)
    for row in offsets.rows:
        for k, pair in enumerate(row.pairs):
            if not row.is_tie:
                a, b = pair
                sign = 1 if offsets.names[a] < offsets.names[b] else -1
                found[(a, b) if sign > 0 else (b, a)].append((row, sign * (k + 1)))
    steps = []
    for (a, b), parts in sorted(found.items(), key=lambda p: _names(offsets, p[0])):
        signs = np.array([math.copysign(1, k) for _, k in parts])
        places = [abs(k) - 1 for _, k in parts]
        rows = [r for r, _ in parts]
        block = stacked(
            rows, offsets.tracks, offsets.bases[0].lattice, range(len(rows))
        )
        inflation = np.array([r.inflation for r in rows])
        ends = np.cumsum([0] + [r.values.size for r in rows[:-1]])
        mine = ends + places
        covariance = errors(block, offsets.noise, inflation)[np.ix_(mine, mine)]
        covariance *= signs[:, None] * signs
        noise = np.diag(covariance)
        weights = (1 / noise) / (1 / noise).sum()
        before, after = (
            weights * signs @ [v[k] for v, k in zip(values, places, strict=True)]
            for values in (
                [r.values for r in rows],
                [r.residual(offsets.coefficients) for r in rows],
            )
        )
        steps.append(
            Seam(
                *_names(offsets, (a, b)),
                cells=len(parts),
                before=float(before),
                after=float(after),
                std=float(math.sqrt(weights @ covariance @ weights)),
            )
        )
    return steps


def _names(offsets: Offsets, pair: tuple[int, int]) -> tuple[str, str]:
    return offsets.names[pair[0]], offsets.names[pair[1]]


def ties(offsets: Offsets) -> list[Tie]:
    """Misfit of every frame to the points that tie it; 0 points where none does."""
    squares: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in offsets.rows:
        if row.is_tie:
            left = row.residual(offsets.coefficients)
            for (frame, _), raw, rest in zip(row.pairs, row.values, left, strict=True):
                squares[frame].append((raw, rest))
    found = []
    for k, name in enumerate(offsets.names):
        values = np.array(squares[k]).reshape(-1, 2)
        rms = np.sqrt((values**2).mean(0)) if len(values) else [math.nan] * 2
        found.append(
            Tie(name, len(values), float(rms[0]), float(rms[1]), *offsets.level(k))
        )
    return found


def step_over_std(steps: Sequence[Seam]) -> float:
    """Root mean square of the steps over their standard deviations; NaN without any."""
    if not steps:
        return math.nan
    return float(np.sqrt(np.mean([(s.after / s.std) ** 2 for s in steps])))


def tables(steps: Sequence[Seam], found: Sequence[Tie]) -> str:
    """What frames and seams were before and after, mm/yr, as text."""
    lines = ["frame, offset and misfit to the ground (root mean square), mm/yr"]
    width = max([len(t.frame) for t in found], default=0)
    for tie in found:
        misfit = "no point"
        if tie.points:
            before, after = 1e3 * tie.before, 1e3 * tie.after
            misfit = f"{before:6.2f} -> {after:6.2f}  ({tie.points} points)"
        offset = f"{1e3 * tie.offset:7.2f} ± {1e3 * tie.offset_std:4.2f}"
        lines.append(f"  {tie.frame:{width}}  {offset}  {misfit}")
    if steps:
        lines.append("step between frames that overlap, mm/yr")
    for seam in steps:
        values = f"{1e3 * seam.before:7.2f} -> {1e3 * seam.after:6.2f}"
        lines.append(
            f"  {seam.one:{width}}  {seam.other:{width}}  {values} ± "
            f"{1e3 * seam.std:4.2f}  ({seam.cells} cells)"
        )
    if steps:
        lines.append(
            f"steps over their standard deviations, root mean square: "
            f"{step_over_std(steps):.2f}"
        )
    return "\n".join(lines)
