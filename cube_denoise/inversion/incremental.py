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
    ONE,
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
        plan.triplets,
        plan.part,
        np.empty((0, pixels)) if state is None else state,
        series,
        deviations,
        saved,
        sums,
    )
    return Continued(series, deviations, saved, sums)


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
    triplets,
    part,
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
    terms = np.empty((3, LANES), np.float32)
    closures = np.empty((stops, 2, LANES))
    times = np.empty(count)
    for date in range(place.size):
        if place[date] >= 0:
            times[place[date]] = years[date]
    # The first is what is begun with, the last what all adds up to.
    kept = np.empty((stops + 1, max(SUMS, of_state.shape[1]), LANES))
    for base in range(0, pixels, LANES):
        size = min(LANES, pixels - base)
        stage(phase, coherence, constants, way, base, staged_y, staged_w)
        _close(y, w, triplets, part, closures)
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
        whole[CLOSURE : TRIPLETS + 1] = kept[0, CLOSURE : TRIPLETS + 1]
        for c in range(stops):
            if c > 0:
                kept[c, :ONE_ONE] = whole[:ONE_ONE]
                kept[c, CLOSURE : TRIPLETS + 1] = whole[CLOSURE : TRIPLETS + 1]
            for p in range(LANES):
                whole[DATA, p] += data[c, p]
                whole[CLOSURE, p] += closures[c, 0, p]
                whole[TRIPLETS, p] += closures[c, 1, p]
            _gather_pairs(
                *(plan, y, w, variance, state, residual, terms, whole),
                *(cuts[c], cuts[c + 1]),
            )
            _gather_dates(
                *(plan, state, linked, found, years, place, whole),
                *(date_cuts[c], date_cuts[c + 1]),
            )
        _give(plan, state, linked, found, place, whole, base, size, series, deviations)
        for c in range(1, stops):
            saved[c - 1, :, base : base + size] = kept[c, :, :size]
        sums[:, base : base + size] = whole[:SUMS, :size]


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
def _close(y, w, triplets, part, closures):
    """Sum of the squared closures, and their number, of each part of the work."""
    closures[:] = 0.0
    for i in range(part.size):
        one, two, three = triplets[i]
        a, b, c = y[one], y[two], y[three]
        there, also, too = w[one], w[two], w[three]
        square, count = closures[part[i], 0], closures[part[i], 1]
        for p in range(LANES):
            full = (there[p] > ZERO) & (also[p] > ZERO) & (too[p] > ZERO)
            missed = np.float64(a[p]) + np.float64(b[p]) - np.float64(c[p])
            square[p] += missed * missed if full else 0.0
            count[p] += 1.0 if full else 0.0


@compiled
def _gather_pairs(plan, y, w, variance, state, residual, terms, whole, k_from, k_to):
    """Add the residuals of the pairs taken up with some positions."""
    pairs_from, pair, early, late = plan[4], plan[5], plan[6], plan[7]
    cosine, sine, square = terms[0], terms[1], terms[2]
    for i in range(pairs_from[k_from], pairs_from[k_to]):
        m = pair[i]
        lanes.residual(state, y, residual, m, early[i], late[i])
        here, weight, v = residual[m], w[m], variance[m]
        for p in range(LANES):
            used = ONE if weight[p] > ZERO else ZERO
            r = here[p]
            c, s = cosine_and_sine(r)
            cosine[p] = used * c
            sine[p] = used * s
            square[p] = used * (r * r)
        lanes.gather_sign(whole, w, PAIRS, m)
        lanes.gather(whole, terms, COSINE, 0)
        lanes.gather(whole, terms, SINE, 1)
        lanes.gather(whole, terms, SQUARE, 2)
        for p in range(LANES):
            square[p] /= v[p]
        lanes.gather(whole, terms, MISFIT, 2)


@compiled
def _gather_dates(plan, state, linked, found, years, place, whole, begin, end):
    """Add some dates to the sums over dates."""
    potentials = plan[1].size + linked.shape[0]
    nothing, ones = np.zeros(LANES), np.ones(LANES)
    for date in range(begin, end):
        k, t = place[date], years[date]
        there = linked[k] if k >= 0 else ones
        given = state[potentials + k] if k >= 0 else nothing
        spread = found[k] if k >= 0 else nothing
        _gather_lags(there, given, t, whole)
        _gather_powers(there, given, spread, t, whole)


@compiled
def _gather_lags(there, given, t, whole):
    lag_t, lag_d = whole[LAG_T], whole[LAG_D]
    lag_tt, lag_td, lag_dd = whole[LAG_TT], whole[LAG_TD], whole[LAG_DD]
    last_t, last_d, dates = whole[LAST_T], whole[LAST_D], whole[DATES]
    for p in range(LANES):
        use = there[p] if dates[p] > 0.0 else 0.0
        d, before_t, before_d = given[p], last_t[p], last_d[p]
        lag_t[p] += use * (t + before_t)
        lag_d[p] += use * (d + before_d)
        lag_tt[p] += use * (t * before_t)
        lag_td[p] += use * (t * before_d + before_t * d)
        lag_dd[p] += use * (d * before_d)
        last_t[p] = t if there[p] > 0.0 else before_t
        last_d[p] = d if there[p] > 0.0 else before_d


@compiled
def _gather_powers(there, given, spread, t, whole):
    dates, of_t, of_tt = whole[DATES], whole[T], whole[TT]
    of_d, of_td, of_dd, variance = whole[D], whole[TD], whole[DD], whole[VARIANCE]
    for p in range(LANES):
        use, d = there[p], given[p]
        dates[p] += use
        of_t[p] += use * t
        of_tt[p] += use * (t * t)
        of_d[p] += use * d
        of_td[p] += use * (t * d)
        of_dd[p] += use * (d * d)
        variance[p] += use * spread[p]


@compiled
def _give(plan, state, linked, found, place, whole, base, size, series, deviations):
    """Phases of the dates and their standard deviations."""
    potentials = plan[1].size + linked.shape[0]
    scale = np.empty(LANES)
    for p in range(LANES):
        redundancy = whole[PAIRS, p] - (whole[DATES, p] - 1.0)
        scale[p] = whole[MISFIT, p] / redundancy if redundancy > 0.0 else np.nan
    for date in range(place.size):
        k = place[date]
        into = series[date, base : base + size]
        deviation = deviations[date, base : base + size]
        if k < 0:
            for p in range(size):
                into[p] = 0.0 if whole[DATA, p] > 0.0 else np.nan
                deviation[p] = 0.0 * scale[p]
            continue
        there, value, spread = linked[k], state[potentials + k], found[k]
        for p in range(size):
            nothing = np.nan if there[p] == 0.0 else 0.0
            into[p] = value[p] + nothing
            deviation[p] = np.sqrt(scale[p] * spread[p]) + nothing
