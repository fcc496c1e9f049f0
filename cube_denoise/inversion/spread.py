"""Standard deviation of dates and of a rate, from the coherence of the pairs.

For date phases x = N^-1 A^T W phi, N = A^T W A, and errors of the pairs that are
independent with variances S, the covariance is C = N^-1 M N^-1 with M = A^T W S W A. As
d/de (N - e M)^-1 = C at e = 0, its diagonal is the derivative of that of an inverse:
the recurrences for the diagonal of the inverse of a factored matrix (Takahashi et al.
1973) are carried out with their derivatives, at the cost of a few eliminations.
"""

import numpy as np

from cube_denoise.inversion import lanes
from cube_denoise.inversion.kernel import (
    GIVEN,
    HIGHEST,
    LOWEST,
    NAN,
    ONE,
    ZERO,
    compiled,
)
from cube_denoise.inversion.lanes import LANES


@compiled
def pair_variance(coherence, way, base, w, variance):
    """Phase variance of the pairs, up to a factor: (1 - g^2) / g^2 (Cramer-Rao).

    Where weights were given, their inverse; where there is no coherence, 1.
    """
    count = min(LANES, coherence.shape[1] - base)
    for m in range(w.shape[0]):
        into, weight = variance[m], w[m]
        into[:] = ONE
        if way == GIVEN:
            for p in range(LANES):
                into[p] = ONE / weight[p] if weight[p] > ZERO else ONE
        elif coherence.shape[0] == w.shape[0]:
            for p in range(count):
                g = coherence[m, base + p]
                g = g if g > LOWEST else LOWEST
                g = g if g < HIGHEST else HIGHEST
                into[p] = (ONE - g * g) / (g * g)


@compiled
def slopes(plan, w, variance, state, slope, turned, k_from, k_to):
    """Derivatives by e of the elimination of the positions `k_from` to `k_to`.

    `slope` holds those of the entries and of the conductances to ground, and gathers
    those that the elimination adds; `turned` gets those of the ratios and of the
    inverse sums. `state` is as `forward` left it.
    """
    start, others, mesh_start, mesh, pairs_from, pair, _, _, into = plan
    entries, count = others.size, start.size - 1
    drift = np.empty((3, LANES))
    for k in range(k_from, k_to):
        ground, inverse = entries + k, entries + 2 * count + 1 + k
        for i in range(pairs_from[k], pairs_from[k + 1]):
            lanes.take_slope(slope, w, variance, into[i], pair[i])
        lanes.take_over(turned, slope, ground, ground)
        for a in range(start[k], start[k + 1]):
            lanes.add_over(turned, slope, ground, a)
        lanes.turn(state, turned, drift, inverse, ground)
        at = mesh_start[k]
        for a in range(start[k], start[k + 1]):
            far = entries + others[a]
            lanes.branch_slope(state, slope, turned, drift, a, inverse, ground, far)
            # Row b is a ratio already: its conductance is ratio x sum.
            for b in range(a + 1, start[k + 1]):
                lanes.mesh_slope(state, slope, drift, mesh[at], a, b)
                at += 1


@compiled
def variances(plan, state, turned, found):
    """Variances of the positions, up to the factor of `variance`, into `found`.

    Those of positions that are not linked are without meaning.
    """
    start, others, mesh_start, mesh = plan[:4]
    entries, count = others.size, start.size - 1
    near, near_slope = np.zeros((entries, LANES)), np.zeros((entries, LANES))
    own, own_slope = np.zeros((count, LANES)), found
    for k in range(count - 1, -1, -1):
        lanes.take_over(own, state, k, entries + 2 * count + 1 + k)
        lanes.take_over(own_slope, turned, k, entries + k)
        at = mesh_start[k]
        for a in range(start[k], start[k + 1]):
            lanes.add_product_slope(
                *(state, turned, own, own_slope, near, near_slope, a, a, others[a])
            )
            for b in range(a + 1, start[k + 1]):
                lanes.add_product_slope(
                    *(state, turned, near, near_slope, near, near_slope),
                    *(a, b, mesh[at]),
                )
                lanes.add_product_slope(
                    *(state, turned, near, near_slope, near, near_slope),
                    *(b, a, mesh[at]),
                )
                at += 1
        for a in range(start[k], start[k + 1]):
            lanes.add_product_slope(
                *(state, turned, near, near_slope, own, own_slope, k, a, a)
            )


@compiled
def diagonal(plan, w, variance, state, found):
    """Variance of every position, in `found`, up to the factor of `variance`.

    `state` is as `forward` left it: ratios and the inverse of the sums. Positions that
    are not linked get numbers without meaning.
    """
    entries, count = plan[1].size, plan[0].size - 1
    slope = np.zeros((entries + count, LANES))
    turned = np.zeros((entries + count, LANES))
    slopes(plan, w, variance, state, slope, turned, 0, count)
    variances(plan, state, turned, found)


@compiled
def respond(plan, state, x):
    """Solve for the potentials that currents in rows of `x` make, in their place.

    `x` has one more row, of the origin.
    """
    start, others = plan[0], plan[1]
    entries, count = others.size, start.size - 1
    for k in range(count):
        here, inverse = x[k], state[entries + 2 * count + 1 + k]
        for a in range(start[k], start[k + 1]):
            ratio, later = state[a], x[others[a]]
            for p in range(LANES):
                later[p] += ratio[p] * here[p]
        for p in range(LANES):
            here[p] *= inverse[p]
    for k in range(count - 1, -1, -1):
        here = x[k]
        for a in range(start[k], start[k + 1]):
            ratio, later = state[a], x[others[a]]
            for p in range(LANES):
                here[p] += ratio[p] * later[p]
    x[count] = 0.0


@compiled
def add_products(plan, w, variance, one, two, found):
    """Covariance of two sums of dates, from what `respond` made of their coefficients.

    Up to the factor of `variance`.
    """
    pair, early, late = plan[5], plan[6], plan[7]
    potentials = plan[1].size + plan[0].size - 1
    found[:] = 0.0
    for i in range(pair.size):
        a, b = early[i] - potentials, late[i] - potentials
        weight, v = w[pair[i]], variance[pair[i]]
        one_a, one_b, two_a, two_b = one[a], one[b], two[a], two[b]
        for p in range(LANES):
            g = np.float64(weight[p])
            product = (one_b[p] - one_a[p]) * (two_b[p] - two_a[p])
            found[p] += g * g * np.float64(v[p]) * product


@compiled
def scale_of(chi2, pairs, missing, count):
    """Factor of `variance`: chi2 over redundancy; NaN without any."""
    found = np.empty(LANES)
    for p in range(LANES):
        redundancy = pairs[p] - (count - missing[p])
        found[p] = chi2[p] / redundancy if redundancy > 0.0 else NAN
    return found


@compiled
def weighted_squares(residual, w, variance, found):
    """Sum of the squared residuals over the pairs' variances, of those used."""
    found[:] = 0.0
    for m in range(w.shape[0]):
        r, weight, v = residual[m], w[m], variance[m]
        for p in range(LANES):
            used = ONE if weight[p] > ZERO else ZERO
            found[p] += np.float64(used * r[p] * r[p] / v[p])
