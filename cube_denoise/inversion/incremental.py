"""An inversion taken up where an earlier one stood.

Dates are eliminated in time order, and a pair is taken up with the earlier of its dates
(the origin, which is ground, does not count). Before date f is eliminated, all pairs of
the dates before it have therefore become conductances between a few dates from f on, the
frontier, their conductances to ground, and currents. That is the *state* at f; from it
the dates from f on follow without any older pair, exactly. Dates before f are averages of
the frontier's and constants, so that they change by no more than the frontier does.

The state also has what the older dates and pairs add to sums over all of them: those of
the residuals, of the line through the dates, and the derivatives (see `spread`) that give
the variance of dates and rate.
"""

from dataclasses import dataclass

import numpy as np

from cube_denoise.inversion import lanes
from cube_denoise.inversion.elimination import Elimination, in_order
from cube_denoise.inversion.gaps import keep_linked
from cube_denoise.inversion.kernel import (
    WEIGHTS,
    ZERO,
    _compiled,
    arrays,
    backward,
    cosine_and_sine,
    find_linked,
    forward,
    stage,
    state_rows,
)
from cube_denoise.inversion.lanes import LANES
from cube_denoise.inversion.spread import pair_variance, slopes, variances

PAIRS, COSINE, SINE, SQUARE, MISFIT, DATA = range(6)
DATES, T, TT, D, TD, DD = range(6, 12)
LAG_T, LAG_D, LAG_TT, LAG_TD, LAG_DD, LAST_T, LAST_D = range(12, 19)
VARIANCE, ONE_ONE, ONE_TIME, TIME_TIME = range(19, 23)
"""Rows of the sums of a pixel.

Over pairs used: their number, cosine, sine and square of the residuals, square over the
variance of the pair; pairs with data, linked or not. Over linked dates, with phase d at
year t: their number, t, t^2, d, t d, d^2; over dates and the one linked before it, primed:
t + t', d + d', t t', t d' + t' d, d d', and the last t and d. Up to the factor that the
residuals give: the variances of the dates, and the covariance of the dates between the
coefficients 1 and 1, 1 and t, t and t.
"""
SUMS = 23


@dataclass(frozen=True)
class Continuation:
    """Symbolic part of an inversion of the dates from `begin` on."""

    begin: int
    """Number of the first date solved."""
    pairs: np.ndarray
    """Numbers of the pairs that are needed."""
    plan: Elimination
    """Of the dates solved, numbered from 0; the needed pairs likewise."""
    frontier: int
    """How many of the first dates solved (without the origin) the state is about."""
    dates: int
    """Number of dates solved."""
    saves: np.ndarray
    """Dates, numbered like `begin`, at which the state is given."""
    rows: int
    """Numbers of a pixel's state."""
    places: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Which row of the elimination, of its derivatives and of the loads each row of the
    state is; -1 = none; shape (1 + saves, rows), the first for the state begun with."""


@dataclass(frozen=True)
class Continued:
    """What `resume` finds of the pixels; phases in rad, sign of the pairs."""

    phase: np.ndarray
    """Of the dates solved, float32, (dates, pixels); NaN where not linked."""
    phase_std: np.ndarray
    """Likewise; as `solver.solve` gives it."""
    states: np.ndarray
    """At the dates of `Continuation.saves`, float64, (saves, rows, pixels)."""
    sums: np.ndarray
    """Over all pairs and dates, (`SUMS`, pixels)."""


def taken(first: np.ndarray, second: np.ndarray, origin: int) -> np.ndarray:
    """Date with which each pair is taken up: the earlier that is not the origin."""
    early, late = np.minimum(first, second), np.maximum(first, second)
    return np.where(early == origin, late, early)


def frontier_at(first: np.ndarray, second: np.ndarray, origin: int, date: int) -> int:
    """Last date, exclusive, that pairs taken up before `date` reach; `date` if none."""
    both = (first != origin) & (second != origin)
    old = both & (taken(first, second, origin) < date)
    return max(date, int(np.maximum(first, second)[old].max(initial=-1)) + 1)


def frontier_size(first: np.ndarray, second: np.ndarray, origin: int, date: int) -> int:
    """Number of dates that the state at `date` is about."""
    end = frontier_at(first, second, origin, date)
    return end - date - (date <= origin < end)


def rows_of(frontier: int) -> int:
    """Numbers of a state of so many dates."""
    return SUMS + 7 * frontier + frontier * (frontier - 1)


def continuation(
    first: np.ndarray,
    second: np.ndarray,
    size: int,
    origin: int,
    *,
    begin: int = 0,
    saves: np.ndarray | None = None,
    rows: int | None = None,
) -> Continuation:
    """Plan an inversion of the dates from `begin` on.

    Parameters
    ----------
    first, second : numpy.ndarray of int, shape (pairs,)
        Numbers of the dates of all pairs of the network.
    size : int
        Number of dates of the network.
    origin : int
        Date that has phase zero.
    begin : int
        First date to solve; 0 = all.
    saves : numpy.ndarray of int, optional
        Later dates, increasing, at which the state is to be given.
    rows : int, optional
        Numbers of a state as stored; what is needed at most when not given.

    Returns
    -------
    Continuation
    """
    saves = np.asarray([] if saves is None else saves, int)
    pairs = np.flatnonzero(taken(first, second, origin) >= begin)
    one, two = first[pairs] - begin, second[pairs] - begin
    ground = origin - begin if origin >= begin else -1
    order = np.arange(size - begin)
    order = order[order != ground]
    frontier = frontier_size(first, second, origin, begin)
    if ground < 0:
        # The origin gets a number that no date has.
        one = np.where(first[pairs] == origin, size - begin, one)
        two = np.where(second[pairs] == origin, size - begin, two)
    plan = in_order(
        one, two, size - begin + (ground < 0), order, ground, frontier=frontier
    )
    fronts = [frontier, *(frontier_size(first, second, origin, s) for s in saves)]
    width = max(map(rows_of, fronts)) if rows is None else rows
    places = [np.full((len(fronts), width), -1) for _ in range(3)]
    for k, (date, front) in enumerate(zip([begin, *saves], fronts, strict=True)):
        _place(plan, int(np.searchsorted(order, date - begin)), front, k, places)
    return Continuation(
        begin=begin,
        pairs=pairs,
        plan=plan,
        frontier=frontier,
        dates=size - begin,
        saves=saves,
        rows=width,
        places=(places[0], places[1], places[2]),
    )


def _place(
    plan: Elimination, at: int, front: int, k: int, places: list[np.ndarray]
) -> None:
    """Fill row k of `places` for a frontier of positions from `at` on."""
    of_state, of_slope, of_load = (p[k] for p in places)
    entries, count = plan.entry_other.size, plan.order.size
    here = at + np.arange(front)
    row = SUMS
    of_state[row : row + front] = entries + here
    of_state[row + front : row + 2 * front] = entries + count + here
    of_slope[row + 2 * front : row + 3 * front] = entries + here
    for i in range(4):
        begin = row + (3 + i) * front
        of_load[begin : begin + front] = i * count + here
    row += 7 * front
    meshes = front * (front - 1) // 2
    for a in here:
        begin, end = plan.entry_start[a], plan.entry_start[a + 1]
        others = plan.entry_other[begin:end]
        for b in range(a + 1, at + front):
            i = int(np.searchsorted(others, b))
            if i < others.size and others[i] == b:
                of_state[row] = of_slope[row + meshes] = begin + i
            row += 1


def resume(
    phase: np.ndarray,
    plan: Continuation,
    *,
    years: np.ndarray,
    state: np.ndarray | None = None,
    coherence: np.ndarray | None = None,
    constants: np.ndarray | None = None,
    weights: str = "none",
) -> Continued:
    """Invert from a state on, each pixel by itself.

    Parameters
    ----------
    phase : numpy.ndarray, float32, shape (pairs, pixels), C-contiguous
        Of the pairs of `Continuation.pairs`, rad; NaN = no data.
    plan : Continuation
    years : numpy.ndarray, shape (dates,)
        Times of the dates solved, from the same moment as in the state.
    state : numpy.ndarray, float64, shape (rows, pixels), optional
        At `Continuation.begin`; none = nothing lies before it.
    coherence, constants, weights
        As for `solver.solve`.

    Returns
    -------
    Continued
    """
    pairs, pixels = phase.shape
    eliminated = plan.plan
    count = eliminated.order.size
    series = np.zeros((plan.dates, pixels), "float32")
    deviations = np.zeros((plan.dates, pixels), "float32")
    saved = np.zeros((plan.saves.size, plan.rows, pixels))
    sums = np.zeros((SUMS, pixels))
    date_cuts = np.array([0, *(plan.saves - plan.begin), plan.dates])
    place = np.full(plan.dates, -1)
    place[eliminated.order] = np.arange(count)
    _resume_tiles(
        phase,
        np.empty((0, pixels), "float32") if coherence is None else coherence,
        np.zeros(pairs) if constants is None else np.asarray(constants, "float64"),
        WEIGHTS[weights],
        arrays(eliminated),
        state_rows(eliminated),
        place,
        np.asarray(years, "float64"),
        np.searchsorted(eliminated.order, date_cuts),
        date_cuts,
        plan.places,
        np.empty((0, pixels)) if state is None else state,
        series,
        deviations,
        saved,
        sums,
    )
    return Continued(series, deviations, saved, sums)


@_compiled
def _resume_tiles(
    phase,
    coherence,
    constants,
    way,
    plan,
    rows,
    place,
    years,
    cuts,
    date_cuts,
    places,
    given,
    series,
    deviations,
    saved,
    sums,
):
    """All pixels, `LANES` at a time."""
    pairs, pixels = phase.shape
    entries, count = plan[1].size, plan[0].size - 1
    of_state, of_slope, of_load = places
    stops = cuts.size - 1
    y = np.empty((pairs, LANES), np.float32)
    w = np.empty((pairs, LANES), np.float32)
    variance = np.empty((pairs, LANES), np.float32)
    residual = np.empty((pairs, LANES), np.float32)
    state = np.empty((rows, LANES))
    slope = np.empty((entries + count, LANES))
    turned = np.empty((entries + count, LANES))
    loads = np.empty((4 * count, LANES))
    linked = np.empty((count, LANES), np.bool_)
    found = np.empty((count, LANES))
    data = np.empty((stops, LANES))
    times = np.empty(count)
    for date in range(place.size):
        if place[date] >= 0:
            times[place[date]] = years[date]
    # The first is what is begun with, the last what all adds up to.
    kept = np.empty((stops + 1, of_state.shape[1], LANES))
    for base in range(0, pixels, LANES):
        size = min(LANES, pixels - base)
        stage(phase, coherence, constants, way, base, y, w)
        kept[:] = 0.0
        if given.shape[0] > 0:
            kept[0, :, :size] = given[:, base : base + size]
        state[:] = 0.0
        slope[:] = 0.0
        turned[:] = 0.0
        loads[:] = 0.0
        _restore(kept[0], of_state[0], state)
        _restore(kept[0], of_slope[0], slope)
        _restore(kept[0], of_load[0], loads)
        broken = False
        for c in range(stops):
            if c > 0:
                _keep(kept[c], of_state[c], state)
            if forward(plan, y, w, state, cuts[c], cuts[c + 1]):
                broken = True
            _count_data(plan, w, data[c], cuts[c], cuts[c + 1])
        linked[:] = True
        if broken:
            find_linked(plan, state, linked)
        backward(plan, state)
        if broken:
            keep_linked(plan, linked, w)
        pair_variance(coherence, way, base, w, variance)
        energy = kept[stops, ONE_ONE : ONE_ONE + 3]
        energy[:] = kept[0, ONE_ONE : ONE_ONE + 3]
        for c in range(stops):
            if c > 0:
                _keep(kept[c], of_slope[c], slope)
                _keep(kept[c], of_load[c], loads)
                kept[c, ONE_ONE : ONE_ONE + 3] = energy
            slopes(plan, w, variance, state, slope, turned, cuts[c], cuts[c + 1])
            _feed(
                *(plan, state, turned, linked, times, loads, energy),
                *(cuts[c], cuts[c + 1]),
            )
        variances(plan, state, turned, found)
        whole = kept[stops]
        whole[:ONE_ONE] = kept[0, :ONE_ONE]
        for c in range(stops):
            if c > 0:
                kept[c, :ONE_ONE] = whole[:ONE_ONE]
            for p in range(LANES):
                whole[DATA, p] += data[c, p]
            _gather_pairs(
                plan, y, w, variance, state, residual, whole, cuts[c], cuts[c + 1]
            )
            _gather_dates(
                *(plan, state, linked, found, years, place, whole),
                *(date_cuts[c], date_cuts[c + 1]),
            )
        _give(plan, state, linked, found, place, whole, base, size, series, deviations)
        for c in range(1, stops):
            saved[c - 1, :, base : base + size] = kept[c, :, :size]
        sums[:, base : base + size] = whole[: sums.shape[0], :size]


@_compiled
def _restore(kept, rows, into):
    for r in range(rows.size):
        if rows[r] >= 0:
            into[rows[r]] = kept[r]


@_compiled
def _keep(kept, rows, given):
    for r in range(rows.size):
        if rows[r] >= 0:
            kept[r] = given[rows[r]]


@_compiled
def _count_data(plan, w, data, k_from, k_to):
    pairs_from, pair = plan[4], plan[5]
    data[:] = 0.0
    for i in range(pairs_from[k_from], pairs_from[k_to]):
        weight = w[pair[i]]
        for p in range(LANES):
            data[p] += 1.0 if weight[p] > ZERO else 0.0


@_compiled
def _feed(plan, state, turned, linked, times, loads, energy, k_from, k_to):
    r"""Eliminate coefficients b, 1 and t of linked dates, as currents, with derivatives.

    :math:`b^T N^{-1} b = \sum_k b_k^2 / s_k` with the currents and sums that positions
    have when they are eliminated; to `energy` goes its derivative by e,
    :math:`b^T C b`.
    """
    start, others = plan[0], plan[1]
    entries, count = others.size, start.size - 1
    for k in range(k_from, k_to):
        inverse, inverse_slope = state[entries + 2 * count + 1 + k], turned[entries + k]
        one, time = loads[k], loads[count + k]
        one_slope, time_slope = loads[2 * count + k], loads[3 * count + k]
        for p in range(LANES):
            here = 1.0 if linked[k, p] else 0.0
            one[p] += here
            time[p] += here * times[k]
            i, s = inverse[p], inverse_slope[p]
            energy[0, p] += one[p] * (2.0 * one_slope[p] * i + one[p] * s)
            energy[1, p] += (one[p] * time_slope[p] + one_slope[p] * time[p]) * i + one[
                p
            ] * time[p] * s
            energy[2, p] += time[p] * (2.0 * time_slope[p] * i + time[p] * s)
        for a in range(start[k], start[k + 1]):
            ratio, ratio_slope, o = state[a], turned[a], others[a]
            for p in range(LANES):
                loads[o, p] += ratio[p] * one[p]
                loads[count + o, p] += ratio[p] * time[p]
                loads[2 * count + o, p] += (
                    ratio_slope[p] * one[p] + ratio[p] * one_slope[p]
                )
                loads[3 * count + o, p] += (
                    ratio_slope[p] * time[p] + ratio[p] * time_slope[p]
                )


@_compiled
def _gather_pairs(plan, y, w, variance, state, residual, whole, k_from, k_to):
    """Add the residuals of the pairs taken up with some positions."""
    pairs_from, pair, early, late = plan[4], plan[5], plan[6], plan[7]
    for i in range(pairs_from[k_from], pairs_from[k_to]):
        m = pair[i]
        lanes.residual(state, y, residual, m, early[i], late[i])
        here, weight, v = residual[m], w[m], variance[m]
        for p in range(LANES):
            used = 1.0 if weight[p] > ZERO else 0.0
            c, s = cosine_and_sine(here[p])
            square = used * np.float64(here[p]) ** 2
            whole[PAIRS, p] += used
            whole[COSINE, p] += used * c
            whole[SINE, p] += used * s
            whole[SQUARE, p] += square
            whole[MISFIT, p] += square / v[p]


@_compiled
def _gather_dates(plan, state, linked, found, years, place, whole, begin, end):
    """Add some dates to the sums over dates."""
    potentials = plan[1].size + linked.shape[0]
    for date in range(begin, end):
        k, t = place[date], years[date]
        for p in range(LANES):
            if k >= 0 and not linked[k, p]:
                continue
            d = state[potentials + k, p] if k >= 0 else 0.0
            if whole[DATES, p] > 0.0:
                before_t, before_d = whole[LAST_T, p], whole[LAST_D, p]
                whole[LAG_T, p] += t + before_t
                whole[LAG_D, p] += d + before_d
                whole[LAG_TT, p] += t * before_t
                whole[LAG_TD, p] += t * before_d + before_t * d
                whole[LAG_DD, p] += d * before_d
            whole[DATES, p] += 1.0
            whole[T, p] += t
            whole[TT, p] += t * t
            whole[D, p] += d
            whole[TD, p] += t * d
            whole[DD, p] += d * d
            whole[LAST_T, p] = t
            whole[LAST_D, p] = d
            whole[VARIANCE, p] += found[k, p] if k >= 0 else 0.0


@_compiled
def _give(plan, state, linked, found, place, whole, base, size, series, deviations):
    """Phases of the dates and their standard deviations."""
    potentials = plan[1].size + linked.shape[0]
    for p in range(size):
        redundancy = whole[PAIRS, p] - (whole[DATES, p] - 1.0)
        scale = whole[MISFIT, p] / redundancy if redundancy > 0.0 else np.nan
        for date in range(place.size):
            k = place[date]
            there = linked[k, p] if k >= 0 else whole[DATA, p] > 0.0
            d = state[potentials + k, p] if k >= 0 else 0.0
            v = found[k, p] if k >= 0 else 0.0
            series[date, base + p] = d if there else np.nan
            known = there or k < 0
            deviations[date, base + p] = np.sqrt(scale * v) if known else np.nan
