"""All pixels of a block, `LANES` at a time, compiled by numba.

numba's cache does not see changes of functions in other files: after one, remove
``__pycache__`` in this folder.
"""

import numpy as np

from cube_denoise.inversion import lanes
from cube_denoise.inversion.gaps import bridge, keep_linked
from cube_denoise.inversion.kernel import (
    backward,
    compiled,
    find_linked,
    forward,
    misfit,
    stage,
)
from cube_denoise.inversion.lanes import LANES
from cube_denoise.inversion.robust import reweigh
from cube_denoise.inversion.spread import (
    add_products,
    diagonal,
    pair_variance,
    respond,
    scale_of,
    weighted_squares,
)

TILES = 4
"""Tiles fetched and written at a time: lines of a kilobyte."""


@compiled
def solve_tiles(
    phase,
    coherence,
    constants,
    way,
    loss,
    gaps,
    plan,
    rows,
    order,
    origin,
    years,
    quality,
    errors,
    basis,
    series,
    maps,
    deviations,
    products,
    begin,
    end,
):
    """Solve the pixels `begin` to `end`, `LANES` at a time.

    Fills `series`, `maps` and `deviations`; `begin` is a multiple of `LANES`. Returns
    how many given weights are negative or not finite.
    """
    wrong = 0
    pairs = phase.shape[0]
    entries, count = plan[1].size, plan[0].size - 1
    potentials = entries + count
    staged_y = np.empty((TILES, pairs, LANES), np.float32)
    staged_w = np.empty((TILES, pairs, LANES), np.float32)
    rows_out = np.empty((count * TILES, LANES), np.float32)
    solved = rows_out.reshape(count, TILES * LANES)
    weight = np.empty((pairs if loss > 0 else 0, LANES), np.float32)
    work = np.empty((4, pairs, LANES), np.float32)
    variance = np.empty((pairs if errors else 0, LANES), np.float32)
    state = np.empty((rows, LANES))
    linked = np.empty((count, LANES))
    sums = np.empty((5, LANES))
    missing = np.empty(LANES)
    for base in range(begin, end, LANES):
        size = min(LANES, end - base)
        tile = (base - begin) // LANES % TILES
        if tile == 0:
            wrong += stage(phase, coherence, constants, way, base, staged_y, staged_w)
        y, w = staged_y[tile], staged_w[tile]
        state[:] = 0.0
        broken = forward(plan, y, w, state, 0, count)
        if broken:
            find_linked(plan, state, linked)
        backward(plan, state)
        final = w
        if loss > 0:
            weight[:] = w
            reweigh(plan, y, w, loss, state, work, weight)
            final = weight
        for k in range(count):
            if broken and gaps == 0:
                lanes.put_linked(
                    state, linked, rows_out, potentials + k, k, k * TILES + tile
                )
            else:
                lanes.put(state, rows_out, potentials + k, k * TILES + tile)
        if broken and gaps == 1:
            bridge(plan, w, linked, years, origin, solved, tile * LANES, order)
        if tile == TILES - 1 or base + LANES >= end:
            first = base - tile * LANES
            for k in range(count):
                series[order[k], first : base + size] = solved[k, : base + size - first]
        if not quality:
            continue
        missing[:] = 0.0
        if broken:
            for k in range(count):
                here = linked[k]
                for p in range(LANES):
                    missing[p] += 0.0 if here[p] else 1.0
            keep_linked(plan, linked, w)
            if loss > 0:
                keep_linked(plan, linked, weight)
        misfit(plan, y, w, state, work, sums)
        for p in range(size):
            used = sums[3, p]
            some = used if used > 0.0 else np.nan
            maps[0, base + p] = np.sqrt(sums[0, p] ** 2 + sums[1, p] ** 2) / some
            maps[1, base + p] = np.sqrt(sums[2, p] / some)
            maps[2, base + p] = used
            maps[3, base + p] = missing[p]
            if missing[p] == count:
                any_pair = False
                for m in range(pairs):
                    value = phase[m, base + p]
                    any_pair |= (value == value) and constants[m] == constants[m]
                if not any_pair:
                    maps[3, base + p] = -1.0
                    if origin >= 0:
                        series[origin, base + p] = np.nan
        if errors:
            pair_variance(coherence, way, base, w, variance)
            weighted_squares(work[0], w, variance, sums[4])
            scale = scale_of(sums[4], sums[3], missing, count)
            _propagate(
                plan,
                final,
                variance,
                state,
                scale,
                linked,
                broken,
                basis,
                origin,
                order,
                base,
                size,
                products,
                deviations,
            )
    return wrong


@compiled
def _propagate(
    plan,
    w,
    variance,
    state,
    scale,
    linked,
    broken,
    basis,
    origin,
    order,
    base,
    size,
    products,
    deviations,
):
    """Standard deviation of dates, their summed variance, and that of sums over them.

    Fills `deviations`, and of `products` the first row with the sum and the others with
    the covariances of the series' products with columns a <= b of `basis`.
    """
    count, columns = order.size, basis.shape[1]
    found = np.empty((count, LANES))
    diagonal(plan, w, variance, state, found)
    here = np.ones((count, LANES))
    if broken:
        for k in range(count):
            for p in range(LANES):
                here[k, p] = linked[k, p]
    total = np.zeros(LANES)
    for k in range(count):
        for p in range(LANES):
            total[p] += here[k, p] * found[k, p]
    x = np.empty((columns, count + 1, LANES))
    for c in range(columns):
        for k in range(count):
            for p in range(LANES):
                x[c, k, p] = here[k, p] * basis[order[k], c]
        respond(plan, state, x[c])
    one = np.empty(LANES)
    at = 1
    for p in range(size):
        products[0, base + p] = scale[p] * total[p]
    for a in range(columns):
        for b in range(a, columns):
            add_products(plan, w, variance, x[a], x[b], one)
            for p in range(size):
                products[at, base + p] = scale[p] * one[p]
            at += 1
    for p in range(size):
        deviations[origin, base + p] = scale[p] * 0.0
    for k in range(count):
        for p in range(size):
            there = not broken or linked[k, p]
            deviations[order[k], base + p] = (
                np.sqrt(scale[p] * found[k, p]) if there else np.nan
            )
