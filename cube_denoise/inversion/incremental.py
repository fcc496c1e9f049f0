"""An inversion taken up where an earlier one stood (`continuation`): arrays only."""

from dataclasses import dataclass

import numpy as np

from cube_denoise.inversion import lanes
from cube_denoise.inversion.carried_spread import feed
from cube_denoise.inversion.continuation import (
    CLOSURE,
    COSINE,
    DATA,
    DATES,
    DD,
    LAG_D,
    LAG_DD,
    LAG_T,
    LAG_TD,
    LAG_TT,
    LAST_D,
    LAST_T,
    MISFIT,
    ONE_ONE,
    PAIRS,
    SINE,
    SQUARE,
    SUMS,
    TD,
    TRIPLETS,
    TT,
    VARIANCE,
    Continuation,
    D,
    T,
)
from cube_denoise.inversion.gaps import keep_linked
from cube_denoise.inversion.kernel import (
    WEIGHTS,
    ZERO,
    arrays,
    backward,
    compiled,
    cosine_and_sine,
    find_linked,
    forward,
    stage,
    state_rows,
)
from cube_denoise.inversion.lanes import LANES
from cube_denoise.inversion.spread import pair_variance, slopes, variances


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
    _add_closures(phase, constants, plan, state, saved, sums)
    return Continued(series, deviations, saved, sums)


def _add_closures(
    phase: np.ndarray,
    constants: np.ndarray | None,
    plan: Continuation,
    state: np.ndarray | None,
    saved: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Put the rows of the closures into `saved` and `sums`."""
    rows = slice(CLOSURE, TRIPLETS + 1)
    total = sums[rows]
    if state is not None:
        total[:] = state[rows]
    shift = np.zeros(phase.shape[0]) if constants is None else constants
    for part in range(plan.saves.size + 1):
        for one, two, three in plan.triplets[plan.part == part]:
            missed = phase[one] + phase[two] - phase[three]
            missed = missed - (shift[one] + shift[two] - shift[three])
            there = np.isfinite(missed)
            total[0] += np.where(there, missed, 0.0) ** 2
            total[1] += there
        if part < plan.saves.size:
            saved[part, rows] = total


@compiled
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
    staged_y = np.empty((1, pairs, LANES), np.float32)
    staged_w = np.empty((1, pairs, LANES), np.float32)
    y, w = staged_y[0], staged_w[0]
    variance = np.empty((pairs, LANES), np.float32)
    residual = np.empty((pairs, LANES), np.float32)
    state = np.empty((rows, LANES))
    slope = np.empty((entries + count, LANES))
    turned = np.empty((entries + count, LANES))
    loads = np.empty((4 * count, LANES))
    linked = np.empty((count, LANES))
    found = np.empty((count, LANES))
    data = np.empty((stops, LANES))
    times = np.empty(count)
    for date in range(place.size):
        if place[date] >= 0:
            times[place[date]] = years[date]
    # The first is what is begun with, the last what all adds up to.
    kept = np.empty((stops + 1, max(SUMS, of_state.shape[1]), LANES))
    for base in range(0, pixels, LANES):
        size = min(LANES, pixels - base)
        stage(phase, coherence, constants, way, base, staged_y, staged_w)
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
        linked[:] = 1.0
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
            feed(
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
        sums[:CLOSURE, base : base + size] = whole[:CLOSURE, :size]


@compiled
def _restore(kept, rows, into):
    for r in range(rows.size):
        if rows[r] >= 0:
            into[rows[r]] = kept[r]


@compiled
def _keep(kept, rows, given):
    for r in range(rows.size):
        if rows[r] >= 0:
            kept[r] = given[rows[r]]


@compiled
def _count_data(plan, w, data, k_from, k_to):
    pairs_from, pair = plan[4], plan[5]
    data[:] = 0.0
    for i in range(pairs_from[k_from], pairs_from[k_to]):
        weight = w[pair[i]]
        for p in range(LANES):
            data[p] += 1.0 if weight[p] > ZERO else 0.0


@compiled
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


@compiled
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


@compiled
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
