"""Variance of sums over dates, carried along from the first date to the last.

What `spread` gives by solving for the potentials, for an elimination that is
interrupted to store its state: with the derivatives by e of the elimination of N - e M
go those of the energy that currents take, which for the coefficients b of a sum over
dates is the variance of that sum.
"""

from cube_denoise.inversion import lanes
from cube_denoise.inversion.kernel import compiled
from cube_denoise.inversion.lanes import LANES


@compiled
def feed(plan, state, turned, linked, times, loads, energy, k_from, k_to):
    r"""Eliminate coefficients b, 1 and t of linked dates, as currents.

    :math:`b^T N^{-1} b = \sum_k b_k^2 / s_k` with the currents and sums that positions
    have when they are eliminated; to `energy` goes its derivative by e,
    :math:`b^T C b`.
    """
    start, others = plan[0], plan[1]
    entries, count = others.size, start.size - 1
    values, slopes = loads[: 2 * count], loads[2 * count :]
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
            o = others[a]
            lanes.add_product_slope(
                *(state, turned, values, slopes, values, slopes, o, a, k)
            )
            lanes.add_product_slope(
                *(state, turned, values, slopes, values, slopes),
                *(count + o, a, count + k),
            )
