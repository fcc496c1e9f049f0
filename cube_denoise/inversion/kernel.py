"""The arithmetic of the inversion, `LANES` pixels in step, compiled by numba.

A network of pairs is one of conductances (the weights) into which every pair feeds the
current weight x phase; the phases of the dates are the potentials, the origin is
ground. Dates are eliminated by the star-mesh transform, which adds and multiplies
positive numbers only: nothing cancels, a date that is not linked to the rest meets a
sum that is exactly zero, and a missing pair is a conductance of zero.

Every lane goes through the same operations, so a pixel's numbers do not depend on its
neighbours or on how blocks are cut.
"""

from typing import Any

import numpy as np
from numba import njit

from cube_denoise.inversion import lanes
from cube_denoise.inversion.elimination import Elimination
from cube_denoise.inversion.lanes import LANES

WEIGHTS = {"none": 0, "coherence": 1, "variance": 2}
"""How coherence becomes a weight: number of each way."""

GIVEN = 3
"""Number of the way that takes what is given in the place of coherence as weights."""

LOWEST, HIGHEST = np.float32(0.05), np.float32(0.99)
ZERO, ONE, HALF, TURN = (np.float32(v) for v in (0, 1, 0.5, 2 * np.pi))
NAN = np.float32(np.nan)
LARGEST = np.finfo(np.float32).max
ALL = np.uint64(2**64 - 1)

compiled: Any = njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"}
)


@compiled
def _alike(given, constant, into, weight):
    """Stage one row: weight 1.

    One function per kind of weight: a choice inside the loop keeps it from being
    compiled for whole rows.
    """
    for p in range(LANES):
        value = given[p]
        there = value == value
        shifted = np.float32(np.float64(value if there else ZERO) - constant)
        into[p] = shifted if there else ZERO
        weight[p] = ONE if there else ZERO


@compiled
def _by_coherence(given, quality, constant, into, weight):
    """Stage one row: weight is coherence; NaN counts as the lowest."""
    for p in range(LANES):
        value = given[p]
        there = value == value
        g = quality[p]
        g = g if g > LOWEST else LOWEST
        g = g if g < HIGHEST else HIGHEST
        shifted = np.float32(np.float64(value if there else ZERO) - constant)
        into[p] = shifted if there else ZERO
        weight[p] = g if there else ZERO


@compiled
def _by_variance(given, quality, constant, into, weight):
    """Stage one row: weight is g^2 / (1 - g^2) of coherence g."""
    for p in range(LANES):
        value = given[p]
        there = value == value
        g = quality[p]
        g = g if g > LOWEST else LOWEST
        g = g if g < HIGHEST else HIGHEST
        g = g * g
        g = g / (ONE - g)
        shifted = np.float32(np.float64(value if there else ZERO) - constant)
        into[p] = shifted if there else ZERO
        weight[p] = g if there else ZERO


@compiled
def _by_weight(given, quality, constant, into, weight):
    """Stage one row with given weights; how many are negative or not finite."""
    bad = 0
    for p in range(LANES):
        value, g = given[p], quality[p]
        there = (value == value) & (g > ZERO)
        bad += not (g >= ZERO) & (g <= LARGEST)
        shifted = np.float32(np.float64(value if there else ZERO) - constant)
        into[p] = shifted if there else ZERO
        weight[p] = g if there else ZERO
    return bad


@compiled
def stage(phase, coherence, constants, way, base, y, w):
    """Phase less constants, and weight, of pixels from `base`; 0 and 0 where missing.

    `y` and `w` have shape (tiles, pairs, LANES): several tiles at once, since pixels
    that follow each other are quicker to fetch. Returns how many given weights are
    negative or not finite.
    """
    wrong = 0
    tail = np.empty(LANES, np.float32)
    worth = np.full(LANES, ONE, np.float32)
    for m in range(phase.shape[0]):
        constant = constants[m]
        for tile in range(y.shape[0]):
            into, weight = y[tile, m], w[tile, m]
            begin = base + tile * LANES
            count = min(LANES, phase.shape[1] - begin)
            if count <= 0 or constant != constant:
                into[:] = ZERO
                weight[:] = ZERO
                continue
            given, quality = tail, worth
            if count == LANES:
                given = phase[m, begin : begin + LANES]
                if way > 0:
                    quality = coherence[m, begin : begin + LANES]
            else:
                tail[:] = NAN
                tail[:count] = phase[m, begin : begin + count]
                if way > 0:
                    worth[:count] = coherence[m, begin : begin + count]
            if way == GIVEN:
                wrong += _by_weight(given, quality, constant, into, weight)
            elif way == 2:
                _by_variance(given, quality, constant, into, weight)
            elif way == 1:
                _by_coherence(given, quality, constant, into, weight)
            else:
                _alike(given, constant, into, weight)
    return wrong


@compiled
def forward(plan, y, w, state, k_from, k_to):
    """Eliminate the positions `k_from` to `k_to` of `LANES` pixels.

    Rows of `state`: the entries, the positions' conductances to ground, their currents,
    the current of ground, and the inverse of each position's sum. Afterwards an entry
    is the ratio to its position's sum, and a current the potential that its position
    has if all later ones are zero.

    Returns whether a position is linked to nothing that comes later.
    """
    start, others, mesh_start, mesh, pairs_from, pair, early, late, into = plan
    entries, count = others.size, start.size - 1
    whole = True
    for k in range(k_from, k_to):
        ground, current = entries + k, entries + count + k
        share = entries + 2 * count + 1 + k
        for i in range(pairs_from[k], pairs_from[k + 1]):
            lanes.take_up(state, w, y, pair[i], into[i], late[i], early[i])
        lanes.copy(state, share, ground)
        for a in range(start[k], start[k + 1]):
            lanes.add(state, share, a)
        whole &= lanes.invert(state, share) == ALL
        at = mesh_start[k]
        for a in range(start[k], start[k + 1]):
            far = entries + others[a]
            lanes.branch(state, a, share, ground, current, far, far + count)
            # Entries after a still hold conductances, those before it ratios.
            for b in range(a + 1, start[k + 1]):
                lanes.add_product(state, mesh[at], a, b)
                at += 1
        lanes.scale(state, current, share)
    return not whole


@compiled
def backward(plan, state):
    """Potentials from the last position to the first, in place of the currents."""
    start, others = plan[0], plan[1]
    entries, count = others.size, start.size - 1
    state[entries + 2 * count] = 0.0
    for k in range(count - 1, -1, -1):
        for a in range(start[k], start[k + 1]):
            lanes.add_product(
                state, entries + count + k, a, entries + count + others[a]
            )


@compiled
def find_linked(plan, state, linked):
    """Which positions conductances link to ground: rows of 1 or 0, float64.

    `state` is as `forward` left it.
    """
    start, others = plan[0], plan[1]
    entries, count = others.size, start.size - 1
    for k in range(count - 1, -1, -1):
        lanes.link_ground(state, linked, entries + k, k)
        for a in range(start[k], start[k + 1]):
            lanes.link_later(state, linked, a, others[a], k)


@compiled
def cosine_and_sine(angle):
    """Cosine and sine of a float32 angle, rad, within 3e-7.

    Taylor series of half the wrapped angle, then doubled.
    """
    z = (angle - TURN * np.float32(np.floor(angle / TURN + HALF))) * HALF
    q = z * z
    sine = z * (
        ONE
        + q
        * (
            np.float32(-1 / 6)
            + q
            * (
                np.float32(1 / 120)
                + q
                * (
                    np.float32(-1 / 5040)
                    + q * (np.float32(1 / 362880) + q * np.float32(-1 / 39916800))
                )
            )
        )
    )
    cosine = ONE + q * (
        np.float32(-1 / 2)
        + q
        * (
            np.float32(1 / 24)
            + q
            * (
                np.float32(-1 / 720)
                + q
                * (
                    np.float32(1 / 40320)
                    + q * (np.float32(-1 / 3628800) + q * np.float32(1 / 479001600))
                )
            )
        )
    )
    return ONE - np.float32(2) * sine * sine, np.float32(2) * sine * cosine


@compiled
def misfit(plan, y, w, state, work, sums):
    """Residuals of all pairs, and their sums: cosine, sine, square, count, w square.

    `work` has four float32 arrays like `y`; its first is left with the residuals.
    """
    pair, early, late = plan[5], plan[6], plan[7]
    for i in range(pair.size):
        lanes.residual(state, y, work[0], pair[i], early[i], late[i])
    for m in range(pair.size):
        weight, residual = w[m], work[0, m]
        cosine, sine, square = work[1, m], work[2, m], work[3, m]
        for p in range(LANES):
            used = ONE if weight[p] > ZERO else ZERO
            r = residual[p]
            c, s = cosine_and_sine(r)
            cosine[p] = used * c
            sine[p] = used * s
            square[p] = used * (r * r)
    sums[:] = 0
    for m in range(pair.size):
        lanes.gather(sums, work[1], 0, m)
        lanes.gather(sums, work[2], 1, m)
        lanes.gather(sums, work[3], 2, m)
        lanes.gather_sign(sums, w, 3, m)
        lanes.gather_product(sums, work[3], w, 4, m)


def arrays(plan: Elimination) -> tuple[np.ndarray, ...]:
    """Index arrays of a plan as the functions here take them.

    The last four: pair, row of the potential of its early and of its late date, row
    that its conductance goes to.
    """
    width = np.diff(plan.entry_start).astype("int64")
    before = np.concatenate([[0], np.cumsum(width * (width - 1) // 2)])
    entries, count = plan.entry_other.size, plan.order.size
    near = np.repeat(np.arange(count), np.diff(plan.pair_start))
    far = np.where(plan.pair_other < 0, count, plan.pair_other)
    late = np.where(plan.pair_sign > 0, near, far)
    into = np.where(plan.pair_other < 0, entries + near, plan.pair_entry)
    return (
        *(plan.entry_start, plan.entry_other, before.astype("int32"), plan.mesh),
        *(plan.pair_start, plan.pair),
        *(
            (entries + count + rows).astype("int32")
            for rows in (near + far - late, late)
        ),
        into.astype("int32"),
    )


def state_rows(plan: Elimination) -> int:
    """Rows of the state of a tile."""
    return plan.entry_other.size + 3 * plan.order.size + 1
