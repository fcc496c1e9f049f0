"""Reweighting of pairs by their residuals, on the same elimination."""

import numpy as np

from cube_denoise.inversion import lanes
from cube_denoise.inversion.kernel import ONE, ZERO, backward, compiled, forward
from cube_denoise.inversion.lanes import LANES

LOSSES = {"none": 0, "l1": 1, "huber": 2}
"""What is minimised: squares, absolute values, or Huber's mixture of them."""

ITERATIONS = 50
"""Most times that the pairs of a pixel are weighted anew."""

SETTLED = 1e-4
"""A pixel is done once no date changes by more than this, rad."""

SMALLEST = np.float32(1e-3)
"""Residual, rad, below which ``l1`` weighs a pair as at this one."""

TUNING = 1.345
"""Huber's corner in standard deviations: 95 % efficient on normal errors."""


@compiled
def corner(residual, weight, found):
    """Huber's corner of every pixel, rad, from the median of its absolute residuals."""
    values = np.empty(weight.shape[0], np.float32)
    for p in range(LANES):
        n = 0
        for m in range(weight.shape[0]):
            if weight[m, p] > ZERO:
                values[n] = abs(residual[m, p])
                n += 1
        middle = np.median(values[:n]) if n > 0 else ONE
        found[p] = max(SMALLEST, np.float32(TUNING * 1.4826) * middle)


@compiled
def reweigh(plan, y, given, loss, state, work, weight):
    """Solve anew with weights by residuals until every pixel is settled.

    `state` holds the least-squares potentials, and later the robust ones; `weight`
    starts as `given` and ends as the weights of the last solution.
    """
    pair, early, late = plan[5], plan[6], plan[7]
    count = plan[0].size - 1
    potentials = plan[1].size + count
    before = np.empty((count, LANES))
    limit = np.full(LANES, SMALLEST, np.float32)
    moving = np.ones(LANES, np.bool_)
    for turn in range(ITERATIONS):
        for i in range(pair.size):
            lanes.residual(state, y, work[0], pair[i], early[i], late[i])
        if loss == 2 and turn == 0:
            corner(work[0], given, limit)
        for m in range(pair.size):
            residual, into, start = work[0, m], weight[m], given[m]
            for p in range(LANES):
                size = max(abs(residual[p]), limit[p])
                if moving[p]:
                    # Floored, so that a pair that is there stays a conductance.
                    into[p] = start[p] * max(limit[p] / size, np.float32(1e-6))
        before[:] = state[potentials : potentials + count]
        state[:] = 0.0
        forward(plan, y, weight, state, 0, count)
        backward(plan, state)
        any_moving = False
        for p in range(LANES):
            change = 0.0
            for k in range(count):
                change = max(change, abs(state[potentials + k, p] - before[k, p]))
            moving[p] = moving[p] and change > SETTLED
            any_moving |= moving[p]
        if not any_moving:
            break
