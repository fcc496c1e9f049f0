"""What a cluster is: evidence from its map and its course, and the verdict."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from cube_denoise.separation.clusters import Clusters
from cube_denoise.separation.coarse import CoarseStack

PERMUTATIONS = 999
ORDERS = 100
"""Orders that are ranked at once: bounds memory."""
SIGNIFICANT = 0.05
"""A course grows, or is smooth, if its permutation p is below this."""
GROWS, CLEARLY = 0.3, 0.5
"""Least rank correlation of what grows, and of what grows though its map follows
elevation as delay does: over hundreds of dates the least trend is significant."""
STRATIFIED = 0.5
"""Least absolute correlation with elevation of a delay that follows the terrain."""
RAMP = 0.9
"""Least share of the variance of a map that a plane explains in a ramp."""
LEAST_YEARS = 1.0
"""Span of a stack whose annual cycle can be told from a trend."""
CONSISTENT = 0.3
"""Least share of the variance of the amplitudes that differences of dates explain."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a cluster."""

    cluster: int
    """Its number, counted from 1."""
    members: int
    """Components in it."""
    variance: float
    """Share of the power of all pairs that the cluster takes, 0 to 1; shares of
    clusters that are not orthogonal do not add up."""
    stability: float
    """See `clusters.Clusters.stability`."""
    growth: float
    """Rank correlation of the amplitude of pairs with their temporal baseline, over all
    pairs of dates; the sign of the map is chosen so that it is not negative."""
    growth_p: float
    """Share of random orders of the dates that reach it in size."""
    consistency: float | None
    """Share of the variance of the amplitudes of the pairs that amplitudes of dates
    explain, less what they would of noise (adjusted R2); None where pairs are not
    redundant. Atmosphere and deformation are properties of dates: low = neither."""
    smoothness: float
    """Lag-1 autocorrelation of the amplitudes of dates."""
    smoothness_p: float
    """Share of random orders of the dates that reach it."""
    elevation: float | None
    """Correlation of the map with elevation; None where that is unknown or flat."""
    ramp: float
    """Share of the variance of the map that a plane explains."""
    centroid: float | None
    """Mean wavenumber of the map, weighted by power, cycles/km; None without a grid."""
    verdict: str
    """"kept" or "removed"."""
    reason: str
    """Why."""

    @property
    def told(self) -> dict[str, Any]:
        """As JSON knows it, rounded."""
        return {
            k: round(v, 4) if isinstance(v, float) else v
            for k, v in asdict(self).items()
        }


def judge(
    stack: CoarseStack,
    clusters: Clusters,
    amplitudes: np.ndarray,
    variance: np.ndarray,
    *,
    own: np.ndarray | None = None,
    least_stability: float = 0.0,
    keep: Sequence[int] = (),
    remove: Sequence[int] = (),
) -> list[Evidence]:
    """Gather the evidence of every cluster and decide which go.

    In this order: what is asked for; unstable ones stay; what grows with the temporal
    baseline stays, but where it follows elevation it must grow clearly; what follows
    elevation, or is a plane, goes; what dates do not explain is neither atmosphere nor
    deformation and stays; what is smooth in time stays; the rest, white in time, goes.

    Parameters
    ----------
    stack : CoarseStack
    clusters : Clusters
    amplitudes : numpy.ndarray, shape (pairs, clusters)
        rad, of the maps of the clusters in each pair.
    variance : numpy.ndarray, shape (clusters,)
        See `Evidence.variance`.
    own : numpy.ndarray, shape (pairs, clusters), optional
        rad, amplitudes in what the members themselves take of each pair, where they are
        of pairs: `Evidence.consistency` is of these.
    least_stability : float
        Clusters below stay.
    keep, remove : sequence of int
        Clusters, counted from 1, of which it is known.

    Returns
    -------
    list of Evidence
        In the order of the clusters.

    Raises
    ------
    ValueError
        If `keep` or `remove` name a cluster that there is not.
    """
    count = len(clusters.maps)
    unknown = sorted({*keep, *remove} - set(range(1, count + 1)))
    if unknown:
        raise ValueError(
            f"keep or remove names the clusters {unknown}: there are {count}"
        )
    courses = stack.to_dates @ amplitudes
    found = []
    for k in range(count):
        rho, p = growth(courses[:, k], stack.years)
        lag, lag_p = smoothness(courses[:, k])
        sign = -1 if rho < 0 else 1
        taken = (amplitudes if own is None else own)[:, k]
        consistency = _consistency(stack, taken)
        elevation = _elevation(stack, sign * clusters.maps[k])
        ramp = _ramp(stack, clusters.maps[k])
        stability = float(clusters.stability[k])
        layered = elevation is not None and abs(elevation) >= STRATIFIED
        grown = p < SIGNIFICANT and abs(rho) >= (CLEARLY if layered else GROWS)
        if k + 1 in keep or k + 1 in remove:
            goes, reason = k + 1 in remove, "asked for"
        elif stability < least_stability:
            goes, reason = False, "unstable"
        elif grown:
            goes, reason = False, "grows with the temporal baseline"
        elif layered:
            goes, reason = True, "follows elevation: stratified delay"
        elif ramp >= RAMP:
            goes, reason = True, "a plane: ramp"
        elif consistency is not None and consistency < CONSISTENT:
            goes, reason = False, "dates do not explain it"
        elif lag_p < SIGNIFICANT:
            goes, reason = False, "smooth in time"
        else:
            goes, reason = True, "white in time: turbulence"
        found.append(
            Evidence(
                cluster=k + 1,
                members=int((clusters.labels == k).sum()),
                variance=float(variance[k]),
                stability=stability,
                growth=abs(rho),
                growth_p=p,
                consistency=consistency,
                smoothness=lag,
                smoothness_p=lag_p,
                elevation=elevation,
                ramp=ramp,
                centroid=_centroid(stack, clusters.maps[k]),
                verdict="removed" if goes else "kept",
                reason=reason,
            )
        )
    return found


def growth(course: np.ndarray, years: np.ndarray) -> tuple[float, float]:
    """Rank correlation of amplitude and temporal baseline, and its permutation p.

    Over all pairs of dates, whichever pairs were formed: the amplitude of a pair is the
    difference of those of its dates. Of a year or more the annual cycle that is fitted
    together with a line is taken off first: delays follow the seasons, and a stack that
    is not of whole years sees a trend in them. The dates are put in random order, so
    pairs that share one stay tied.

    Parameters
    ----------
    course : numpy.ndarray, shape (dates,)
        Amplitude of the dates.
    years : numpy.ndarray, shape (dates,)
        Increasing.

    Returns
    -------
    rho : float
        Spearman's.
    p : float
        Share of `PERMUTATIONS` random orders and this one whose abs(rho) is not
        smaller; always the same for the same course.
    """
    i, j = np.triu_indices(course.size, 1)
    baseline = stats.rankdata(years[j] - years[i])
    baseline -= baseline.mean()
    season = _season(years)

    def rho(values: np.ndarray) -> np.ndarray:
        rest = values - values @ season.T
        ranks = stats.rankdata(rest[:, j] - rest[:, i], axis=1)
        ranks -= ranks.mean(1, keepdims=True)
        norm = np.sqrt((ranks**2).sum(1) * (baseline**2).sum())
        return np.asarray(ranks @ baseline / np.where(norm > 0, norm, 1))

    rng = np.random.default_rng(0)
    found = float(rho(course[None])[0])
    reached, left = 0, PERMUTATIONS
    while left:
        count = min(left, ORDERS)
        orders = rng.permuted(np.broadcast_to(course, (count, course.size)), axis=1)
        reached += int((np.abs(rho(orders)) >= abs(found) - 1e-9).sum())
        left -= count
    return found, (1 + reached) / (1 + PERMUTATIONS)


def _season(years: np.ndarray) -> np.ndarray:
    """Matrix that gives the annual part of a course, shape (dates, dates)."""
    if years[-1] - years[0] < LEAST_YEARS:
        return np.zeros((years.size, years.size))
    turn = 2 * np.pi * years
    G = np.stack([np.ones(years.size), years, np.cos(turn), np.sin(turn)], axis=1)
    return np.asarray(G[:, 2:] @ np.linalg.pinv(G)[2:])


def smoothness(course: np.ndarray) -> tuple[float, float]:
    """Lag-1 autocorrelation of a course and its permutation p, one-sided.

    Parameters
    ----------
    course : numpy.ndarray, shape (dates,)

    Returns
    -------
    lag, p : float
    """
    centred = course - course.mean()
    power = float((centred**2).sum())
    if power == 0:
        return 0.0, 1.0
    orders = np.random.default_rng(0).permuted(
        np.broadcast_to(centred, (PERMUTATIONS, centred.size)), axis=1
    )
    found = float((centred[1:] * centred[:-1]).sum() / power)
    drawn = (orders[:, 1:] * orders[:, :-1]).sum(1) / power
    return found, float((1 + (drawn >= found - 1e-9).sum()) / (1 + PERMUTATIONS))


def _consistency(stack: CoarseStack, amplitude: np.ndarray) -> float | None:
    pairs, unknowns = amplitude.size, np.linalg.matrix_rank(stack.differences)
    power = float((amplitude**2).sum())
    if pairs <= unknowns or power == 0:
        return None
    left = float(
        ((amplitude - stack.differences @ (stack.to_dates @ amplitude)) ** 2).sum()
    )
    return float(1 - left / power * pairs / (pairs - unknowns))


def _elevation(stack: CoarseStack, map_: np.ndarray) -> float | None:
    if stack.elevation is None:
        return None
    height = stack.elevation[stack.known]
    there = np.isfinite(height)
    if there.sum() < 3 or np.ptp(height[there]) == 0 or map_[there].std() == 0:
        return None
    return float(np.corrcoef(map_[there], height[there])[0, 1])


def _ramp(stack: CoarseStack, map_: np.ndarray) -> float:
    y, x = np.nonzero(stack.known)
    G = np.stack([np.ones(y.size), y, x], axis=1)
    left = map_ - G @ np.linalg.lstsq(G, map_)[0]
    return float(1 - left.var() / map_.var())


def _centroid(stack: CoarseStack, map_: np.ndarray) -> float | None:
    if stack.spacing is None:
        return None
    whole = np.zeros(stack.known.shape)
    whole[stack.known] = map_
    rows, columns = stack.known.shape
    window = np.outer(np.hanning(rows + 2)[1:-1], np.hanning(columns + 2)[1:-1])
    power = np.abs(np.fft.fft2(whole * window)) ** 2
    along = [
        np.fft.fftfreq(count, step / 1e3)
        for count, step in zip((rows, columns), stack.spacing, strict=True)
    ]
    wavenumber = np.hypot(*np.meshgrid(*along, indexing="ij"))
    power[0, 0] = 0
    return float((power * wavenumber).sum() / power.sum())
