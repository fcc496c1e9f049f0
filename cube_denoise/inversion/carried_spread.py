"""Standard deviation of dates and of a rate, part by part of the elimination.

What `spread` says, for an elimination that is interrupted to store its state: the
derivatives by e of the elimination of N - e M are carried along from the first date to
the last, and so are those of the energy that currents take, which for the coefficients
b of a sum over dates is the variance of that sum.
"""

import numpy as np

from cube_denoise.inversion.kernel import _compiled
from cube_denoise.inversion.lanes import LANES


@_compiled
def slopes(plan, w, variance, state, slope, turned, k_from, k_to):
    """Derivatives by e of the elimination of the positions `k_from` to `k_to`.

    `slope` holds those of the entries and of the conductances to ground, and gathers
    those that the elimination adds; `turned` gets those of the ratios and of the
    inverse sums. `state` is as `forward` left it.
    """
    start, others, mesh_start, mesh, pairs_from, pair, _, _, into = plan
    entries, count = others.size, start.size - 1
    total = np.empty(LANES)
    for k in range(k_from, k_to):
        for i in range(pairs_from[k], pairs_from[k + 1]):
            row, weight, v = slope[into[i]], w[pair[i]], variance[pair[i]]
            for p in range(LANES):
                g = np.float64(weight[p])
                row[p] -= g * g * np.float64(v[p])
        ground, inverse = state[entries + k], state[entries + 2 * count + 1 + k]
        ground_slope, inverse_slope = slope[entries + k], turned[entries + k]
        for p in range(LANES):
            inverse_slope[p] = ground_slope[p]
            total[p] = 1.0 / inverse[p] if inverse[p] > 0.0 else 0.0
        for a in range(start[k], start[k + 1]):
            row = slope[a]
            for p in range(LANES):
                inverse_slope[p] += row[p]
        for p in range(LANES):
            inverse_slope[p] *= -inverse[p] * inverse[p]
        at = mesh_start[k]
        for a in range(start[k], start[k + 1]):
            ratio, row, ratio_slope = state[a], slope[a], turned[a]
            far = slope[entries + others[a]]
            for p in range(LANES):
                ratio_slope[p] = (
                    row[p] * inverse[p] + ratio[p] * total[p] * inverse_slope[p]
                )
                far[p] += ratio_slope[p] * ground[p] + ratio[p] * ground_slope[p]
            for b in range(a + 1, start[k + 1]):
                second, second_slope, joined = state[b], slope[b], slope[mesh[at]]
                at += 1
                # Row b is a ratio already: its conductance is ratio x sum.
                for p in range(LANES):
                    joined[p] += (
                        ratio_slope[p] * second[p] * total[p]
                        + ratio[p] * second_slope[p]
                    )


@_compiled
def variances(plan, state, turned, found):
    """Variances of the positions, up to the factor of `variance`, into `found`.

    Those of positions that are not linked are without meaning.
    """
    start, others, mesh_start, mesh = plan[:4]
    entries, count = others.size, start.size - 1
    covariance = np.zeros((entries, LANES))
    covariance_slope = np.zeros((entries, LANES))
    variance_of, variance_slope = np.zeros((count, LANES)), found
    for k in range(count - 1, -1, -1):
        inverse, inverse_slope = state[entries + 2 * count + 1 + k], turned[entries + k]
        own, own_slope = variance_of[k], variance_slope[k]
        for p in range(LANES):
            own[p] = inverse[p]
            own_slope[p] = inverse_slope[p]
        at = mesh_start[k]
        for a in range(start[k], start[k + 1]):
            ratio, ratio_slope = state[a], turned[a]
            near, near_slope = covariance[a], covariance_slope[a]
            z, z_slope = variance_of[others[a]], variance_slope[others[a]]
            for p in range(LANES):
                near[p] += ratio[p] * z[p]
                near_slope[p] += ratio_slope[p] * z[p] + ratio[p] * z_slope[p]
            for b in range(a + 1, start[k + 1]):
                z, z_slope = covariance[mesh[at]], covariance_slope[mesh[at]]
                at += 1
                second, second_slope = state[b], turned[b]
                other, other_slope = covariance[b], covariance_slope[b]
                for p in range(LANES):
                    near[p] += second[p] * z[p]
                    near_slope[p] += second_slope[p] * z[p] + second[p] * z_slope[p]
                    other[p] += ratio[p] * z[p]
                    other_slope[p] += ratio_slope[p] * z[p] + ratio[p] * z_slope[p]
        for a in range(start[k], start[k + 1]):
            ratio, ratio_slope = state[a], turned[a]
            near, near_slope = covariance[a], covariance_slope[a]
            for p in range(LANES):
                own[p] += ratio[p] * near[p]
                own_slope[p] += ratio_slope[p] * near[p] + ratio[p] * near_slope[p]


@_compiled
def feed(plan, state, turned, linked, times, loads, energy, k_from, k_to):
    r"""Eliminate coefficients b, 1 and t of linked dates, as currents.

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
