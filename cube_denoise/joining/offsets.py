r"""Offsets of frames, solved over all overlaps and ties at once.

The generalised least-squares solution of the `equations` with the covariance of each
cell and point is unique if a point ties every chain of frames; without points it is the
solution of least norm. The noise of a cell is the standard deviation of its pixels,
times a factor that the residuals tell, one of each kind of equations; where a cell or
point is off by more than `HUBER` times that (a sinking basin that no station saw, an
unwrapping error), its noise is taken as larger (Huber's weights).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cube_denoise.joining.equations import (
    OVERLAPS,
    TIES,
    TRACKS,
    Rows,
    overlap_rows,
    sides,
    tie_rows,
)
from cube_denoise.joining.ground import Ground
from cube_denoise.joining.lattice import Basis, Lattice, Summary

RAMP_STD = 5e-3
"""m/yr on 100 km: standard deviation of a ramp before anything is known of it."""
ROUNDS = 8
"""Solutions, each with the factors and weights of the residuals of the one before."""
HUBER = 1.5
"""Residual over its standard deviation from which on a cell or point counts less."""
FEWEST_ROWS = 10
"""Equations of a kind without which its noise is taken as stated."""
_CUT = 0.7784655
"""Mean square of a standard normal number that is cut at `HUBER`."""
_FACTORS = (1e-4, 1e4)
_STEPS = 97
_SINGULAR = 1e-10


@dataclass(frozen=True)
class Offsets:
    """What every frame has too much."""

    names: tuple[str, ...]
    bases: tuple[Basis, ...]
    coefficients: np.ndarray
    """Of all frames one after another: m/yr, and m/yr on 100 km."""
    covariance: np.ndarray
    factors: Mapping[str, float]
    """On the variance of the noise, by kind of equations."""
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
    factors = dict.fromkeys((TIES, OVERLAPS, TRACKS), 1.0)
    prior = np.concatenate([[0.0] + [RAMP_STD**-2] * (b.size - 1) for b in bases])
    for _ in range(ROUNDS):
        coefficients, covariance = _solution(rows, factors, prior)
        factors = _factors(rows, coefficients, covariance, factors)
        rows = [_weighted(r, coefficients, factors) for r in rows]
    coefficients, covariance = _solution(rows, factors, prior)
    back = np.argsort(place)
    size = bases[0].size
    order_ = np.concatenate([np.arange(size) + size * b for b in back])
    return Offsets(
        tuple(s.name for s in summaries),
        tuple(bases[b] for b in back),
        coefficients[order_],
        covariance[np.ix_(order_, order_)],
        factors,
        ground is not None,
        tuple(_renumbered(r, place, order_) for r in rows),
    )


def _solution(
    rows: Sequence[Rows], factors: Mapping[str, float], prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and their covariance; of least norm where there are many."""
    normal, right = np.diag(prior), np.zeros(prior.size)
    for row in rows:
        weighted = np.linalg.solve(row.covariance(factors[row.kind]), row.design)
        normal[np.ix_(row.columns, row.columns)] += weighted.T @ row.design
        right[row.columns] += weighted.T @ row.values
    values, vectors = np.linalg.eigh(normal)
    kept = values > _SINGULAR * values[-1]
    covariance = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return covariance @ right, covariance


def _factors(
    rows: Sequence[Rows],
    coefficients: np.ndarray,
    covariance: np.ndarray,
    before: Mapping[str, float],
) -> dict[str, float]:
    r"""Factor on the noise that makes the residuals what they should be, by kind.

    The largest root s of :math:`\sum_k w_k (\min(r_k^2 / v_k, h^2) / c - 1 + m / n)`
    with :math:`v_k = s n_k + g_k` and :math:`w_k = s n_k / v_k`, the score of the
    variance with residuals cut at h = `HUBER`; m is the share of the coefficients that
    these equations determine (trace of the hat matrix).
    """
    found = dict(before)
    for kind in before:
        mine = [r for r in rows if r.kind == kind]
        if sum(r.values.size for r in mine) < FEWEST_ROWS:
            continue
        spent = 0.0
        for row in mine:
            error = row.design @ covariance[np.ix_(row.columns, row.columns)]
            error = error @ row.design.T
            inverse = np.linalg.inv(row.covariance(before[kind]))
            spent += float(np.sum(inverse * error))
        r = np.concatenate([w.residual(coefficients) ** 2 for w in mine])
        n = np.concatenate([(w.mixing**2) @ w.noise for w in mine])
        g = np.concatenate([np.diag(w.ground) for w in mine])
        expected = max(1 - spent / r.size, 0.1)

        def excess(
            log: float,
            r: np.ndarray = r,
            n: np.ndarray = n,
            g: np.ndarray = g,
            expected: float = expected,
        ) -> float:
            variance = np.exp(log) * n + g
            squares = np.minimum(r / variance, HUBER**2) / _CUT
            return float(np.sum(np.exp(log) * n / variance * (squares - expected)))

        logs = np.linspace(np.log(_FACTORS[0]), np.log(_FACTORS[1]), _STEPS)
        above = np.flatnonzero(np.array([excess(v) for v in logs]) > 0)
        last = above[-1] if above.size else 0
        if last < _STEPS - 1:
            root = brentq(excess, *logs[last : last + 2]) if above.size else logs[0]
            found[kind] = float(np.exp(root))
        else:
            found[kind] = _FACTORS[1]
    return found


def _weighted(
    row: Rows, coefficients: np.ndarray, factors: Mapping[str, float]
) -> Rows:
    """The same with the inflation that its residuals ask for."""
    plain = replace(row, inflation=1.0)
    residual = row.residual(coefficients)
    variance = np.diag(plain.covariance(factors[row.kind]))
    off = float(np.sqrt(np.mean(residual**2 / variance))) / HUBER
    return replace(row, inflation=max(1.0, off))


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
