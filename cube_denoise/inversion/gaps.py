"""Dates that a pixel's pairs do not link to the reference date."""

import numpy as np

from cube_denoise.inversion import lanes
from cube_denoise.inversion.kernel import ZERO, compiled
from cube_denoise.inversion.lanes import LANES

GAPS = {"nan": 0, "linear": 1}
"""What becomes of unlinked dates: no data, or levels that follow the linear model."""


@compiled
def keep_linked(plan, linked, w):
    """Weight zero for pairs between dates that are not linked to the origin."""
    pairs_from, pair = plan[4], plan[5]
    for k in range(linked.shape[0]):
        for i in range(pairs_from[k], pairs_from[k + 1]):
            lanes.keep(w, linked, pair[i], k)


@compiled
def subsets(plan, w, p, origin_at, label):
    """Label positions, and the origin at `origin_at`, by the subsets of a pixel.

    `label` gets, for every one, the least number of its subset.
    """
    pairs_from, pair, early, late = plan[4], plan[5], plan[6], plan[7]
    potentials = plan[1].size + plan[0].size - 1
    for k in range(label.size):
        label[k] = k
    for k in range(pairs_from.size - 1):
        for i in range(pairs_from[k], pairs_from[k + 1]):
            if w[pair[i], p] > ZERO:
                a, b = early[i] - potentials, late[i] - potentials
                while label[a] != a:
                    a = label[a]
                while label[b] != b:
                    b = label[b]
                if a < b:
                    label[b] = a
                else:
                    label[a] = b
    for k in range(label.size):
        while label[k] != label[label[k]]:
            label[k] = label[label[k]]


@compiled
def bridge(plan, w, linked, years, origin, solved, base, order):
    """Put subsets that pairs do not link on one line with the linked dates.

    The subsets keep their shape; one rate, from all of them, and one level of the
    linked dates. It is the limit of a vanishing weight of the constraint of NSBAS.
    `years` are those of the dates; `solved` has the positions' phases, in `LANES`
    columns from `base`. NaN where no subset determines a rate.
    """
    size = linked.shape[0]
    label = np.empty(size + 1, np.int64)
    time = np.empty(size + 1)
    for k in range(size):
        time[k] = years[order[k]]
    time[size] = years[origin]
    n = np.empty(size + 1)
    mean_t, mean_d = np.empty(size + 1), np.empty(size + 1)
    for p in range(LANES):
        missing = False
        for k in range(size):
            missing |= not linked[k, p]
        if not missing:
            continue
        subsets(plan, w, p, size, label)
        n[:] = 0.0
        mean_t[:] = 0.0
        mean_d[:] = 0.0
        for k in range(size + 1):
            n[label[k]] += 1.0
            mean_t[label[k]] += time[k]
            if k < size:  # the origin has phase zero
                mean_d[label[k]] += np.float64(solved[k, base + p])
        for k in range(size + 1):
            if n[k] > 0.0:
                mean_t[k] /= n[k]
                mean_d[k] /= n[k]
        spread, product = 0.0, 0.0
        for k in range(size + 1):
            x = np.float64(solved[k, base + p]) if k < size else 0.0
            apart = time[k] - mean_t[label[k]]
            spread += apart * apart
            product += apart * (x - mean_d[label[k]])
        rate = product / spread if spread > 0.0 else np.nan
        home = label[size]
        for k in range(size):
            if label[k] != home:
                own = label[k]
                level = mean_d[home] + rate * (mean_t[own] - mean_t[home])
                moved = np.float64(solved[k, base + p]) - mean_d[own] + level
                solved[k, base + p] = np.float32(moved)
