r"""Offsets of frames, solved over all overlaps and ties at once.

The generalised least-squares solution of the `equations` with the covariance of their
errors (`noise`) is unique if a point ties every chain of frames; without points it is
the solution of least norm. It weighs equations block by block; the covariance that is
told of it holds what the noise of different blocks has in common, too. Where a cell or
point is off what those around tell of it by more than `noise.HUBER` standard deviations
(a sinking basin that no station saw, an unwrapping error), its noise is taken as larger
(Huber's weights).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cube_denoise.joining.equations import (
    Rows,
    overlap_rows,
    sides,
    tie_rows,
)
from cube_denoise.joining.ground import Ground
from cube_denoise.joining.lattice import Basis, Lattice, Summary
from cube_denoise.joining.likelihood import (
    inflations,
    likelier,
    solve,
    whole_covariance,
)
from cube_denoise.joining.noise import EXPECTED, Noise, blocks_of

RAMP_STD = 5e-3
"""m/yr on 100 km: standard deviation of a ramp before anything is known of it."""
ROUNDS = 40
"""Solutions at most, each with the noise and weights that the one before tells."""
CONVERGED = 1e-3
"""Change of the logarithms of the noise at which they end."""


@dataclass(frozen=True)
class Offsets:
    """What every frame has too much."""

    names: tuple[str, ...]
    tracks: tuple[str, ...]
    bases: tuple[Basis, ...]
    coefficients: np.ndarray
    """Of all frames one after another: m/yr, and m/yr on 100 km."""
    covariance: np.ndarray
    noise: Noise
    tied: bool
    """Whether stations or a plate fix the level; if not, it is of least norm."""
    rows: tuple[Rows, ...]

    def part(self, k: int) -> slice:
        """Coefficients of frame `k`."""
        start = sum(b.size for b in self.bases[:k])
        return slice(start, start + self.bases[k].size)

    def only(self, frames: Sequence[int]) -> "Offsets":
        """The same of some frames, by position, without the equations."""
        parts = [np.arange(len(self.coefficients))[self.part(k)] for k in frames]
        wanted = np.concatenate(parts) if parts else np.zeros(0, int)
        return replace(
            self,
            names=tuple(self.names[k] for k in frames),
            tracks=tuple(self.tracks[k] for k in frames),
            bases=tuple(self.bases[k] for k in frames),
            coefficients=self.coefficients[wanted],
            covariance=self.covariance[np.ix_(wanted, wanted)],
            rows=(),
        )

    def level(self, k: int) -> tuple[float, float]:
        """Offset of frame `k` at its centre and its standard deviation, m/yr."""
        at = self.part(k).start
        return float(self.coefficients[at]), float(np.sqrt(self.covariance[at, at]))


def solve_offsets(
    summaries: Sequence[Summary],
    lattice: Lattice,
    *,
    ground: Ground | None = None,
    order: int = 0,
) -> Offsets:
    """Solve the offsets of all frames; see the module.

    Parameters
    ----------
    summaries : sequence of Summary
        The order does not matter.
    lattice : Lattice
        They are on.
    ground : Ground, optional
        Stations, a field or a plate that fix the level.
    order : int
        0 = an offset a frame, 1 = and a ramp, of which `RAMP_STD` is expected.

    Returns
    -------
    Offsets
        In the order of `summaries`.

    Raises
    ------
    ValueError
        If frames share nothing with the others and no point, or look turned round.
    """
    if order not in (0, 1):
        raise ValueError(f"{order=} must be 0 (offsets) or 1 (and ramps)")
    place = sorted(range(len(summaries)), key=lambda k: summaries[k].name)
    ordered = [summaries[k] for k in place]
    bases = tuple(Basis.of(s, lattice, order) for s in ordered)
    rows = overlap_rows(ordered, bases, lattice, ground)
    if ground is not None:
        rows += tie_rows(ordered, bases, lattice, ground)
    _check_linked(ordered, rows, tied=ground is not None)
    blocks = blocks_of(rows, [s.frame.track for s in ordered], lattice)
    prior = np.concatenate([[0.0] + [RAMP_STD**-2] * (b.size - 1) for b in bases])
    noise, inflation = Noise.of(EXPECTED), np.ones(len(rows))
    limit, before = np.ones(EXPECTED.size), np.zeros(EXPECTED.size)
    for _ in range(ROUNDS):
        solution = solve(blocks, noise, inflation, prior)
        inflation = inflations(blocks, noise, solution, inflation)
        step, told = likelier(blocks, noise, solution)
        limit = np.where(step * before < 0, limit / 2, limit)
        before = np.clip(step, -limit, limit)
        noise = Noise.of(noise.logarithms + before, told)
        if np.abs(before).max() < CONVERGED:
            break
    solution = solve(blocks, noise, inflation, prior)
    coefficients = solution.coefficients
    covariance = whole_covariance(blocks, noise, solution)
    rows = [
        replace(r, inflation=float(i)) for r, i in zip(rows, inflation, strict=True)
    ]
    back = np.argsort(place)
    size = bases[0].size
    order_ = np.concatenate([np.arange(size) + size * b for b in back])
    return Offsets(
        tuple(s.name for s in summaries),
        tuple(s.frame.track for s in summaries),
        tuple(bases[b] for b in back),
        coefficients[order_],
        covariance[np.ix_(order_, order_)],
        noise,
        ground is not None,
        tuple(_renumbered(r, place, order_) for r in rows),
    )


def _check_linked(
    summaries: Sequence[Summary], rows: Sequence[Rows], *, tied: bool
) -> None:
    """Refuse frames that nothing compares with the others of their side."""
    count = len(summaries)
    pairs = [(a, count if b < 0 else b) for r in rows for a, b in r.pairs]
    side = sides(summaries)
    if not tied:  # the two sides have a level each
        first: dict[tuple[str, bool], int] = {}
        for k, s in enumerate(side):
            first.setdefault(s, k)
        pairs += [(k, count) for k in first.values()]
    a, b = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(a.size), (a, b)), shape=(count + 1, count + 1))
    _, label = connected_components(graph, directed=False)
    lost = [s.name for k, s in enumerate(summaries) if label[k] != label[count]]
    if lost:
        raise ValueError(
            f"frames {', '.join(lost)} share nothing with the others of their side"
            + (
                " and hold no station: leave them out, or give more stations"
                if tied
                else ": leave them out, or give GNSS velocities or a plate"
            )
        )


def _renumbered(row: Rows, place: Sequence[int], order: np.ndarray) -> Rows:
    """The same with frames and coefficients as the caller has them."""
    frames = tuple(place[f] for f in row.frames)
    pairs = tuple((place[a], place[b] if b >= 0 else -1) for a, b in row.pairs)
    columns = np.argsort(order)[row.columns]
    return replace(row, frames=frames, pairs=pairs, columns=columns)
