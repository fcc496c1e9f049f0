"""Fewest whole cycles that close the loops of one pixel: the search, compiled.

Unwrapping errors of the pairs are integers k whose loop sums are the integer
misclosures r = T k, T being the signed loops (+1, +1, -1). What is looked for are all
integers z of least ``sum |z|`` with ``T z = -r``, the corrections that are likeliest
where errors are independent and rare.

The search is exact. It deepens one cycle at a time: in any solution some pair of any
loop that is still open changes by a cycle that helps that loop, which leaves three
branches, so depth d takes at most 3^d steps. Open loops that are too far from each
other for one minimal solution to touch both (`_merge_near`) are searched apart.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

DEEPEST = 30
"""Cycles that the errors of one cluster of open loops may take at most."""
STEPS = 2_000
"""Steps of the search after which a cluster of open loops counts as undecided."""
ABSENT, MOST = -32768, 1000
"""Mark of a loop without data; largest misclosure that is told apart, cycles."""


class LoopNetwork(NamedTuple):
    """Loops and the way back from pairs to loops, as the compiled search reads them."""

    triplets: np.ndarray
    """Pairs of every loop, int64, shape (loops, 3)."""
    start: np.ndarray
    """The loops of pair m are ``loop[start[m]:start[m + 1]]``."""
    loop: np.ndarray
    sign: np.ndarray
    """Sign of the pair in these loops."""

    @staticmethod
    def of(triplets: np.ndarray, pairs: int) -> "LoopNetwork":
        """Network of `triplets` among so many pairs."""
        triplets = np.ascontiguousarray(triplets, "int64").reshape(-1, 3)
        order = np.argsort(triplets, axis=None, kind="stable")
        start = np.searchsorted(triplets.ravel()[order], np.arange(pairs + 1))
        sign = np.array([1, 1, -1])[order % 3]
        return LoopNetwork(triplets, start, order // 3, sign)


@numba.njit(nogil=True, cache=True)
def search_pixels(
    phase: np.ndarray,
    where: np.ndarray,
    constants: np.ndarray,
    tolerance: float,
    network: LoopNetwork,
    cycles: np.ndarray,
    undecided: np.ndarray,
) -> None:
    """Search the pixels `where` and write `cycles` and `undecided`.

    Every pixel by itself; one that is like the one before takes its result.
    """
    loops, pairs = network.triplets.shape[0], phase.shape[0]
    code = np.empty(loops, np.int32)
    doubtful = np.empty(loops, np.bool_)
    last_code, last_doubtful = np.full(loops, MOST + 1, np.int32), doubtful.copy()
    change, unknown = np.zeros(pairs, np.int8), np.zeros(pairs, np.bool_)
    for p in where:
        any_open = False
        for t in range(loops):
            missed = -constants[t]
            missed += phase[network.triplets[t, 0], p]
            missed += phase[network.triplets[t, 1], p]
            missed -= phase[network.triplets[t, 2], p]
            if not math.isfinite(missed):
                code[t], doubtful[t] = ABSENT, False
                continue
            whole = np.rint(missed / (2 * math.pi))
            doubtful[t] = abs(missed - 2 * math.pi * whole) > tolerance
            code[t] = int(min(max(whole, -MOST), MOST))
            any_open |= code[t] != 0
        if not any_open:
            continue
        if (code != last_code).any() or (doubtful != last_doubtful).any():
            change[:], unknown[:] = 0, False
            _solve(code, doubtful, network, change, unknown)
            last_code[:], last_doubtful[:] = code, doubtful
        for m in range(pairs):
            cycles[m, p], undecided[m, p] = change[m], unknown[m]


@numba.njit(nogil=True, cache=True)
def _solve(
    code: np.ndarray,
    doubtful: np.ndarray,
    network: LoopNetwork,
    change: np.ndarray,
    unknown: np.ndarray,
) -> None:
    """Correction of one pixel from its misclosures `code`, cycles.

    `doubtful` marks loops far from whole cycles. Writes the cycles to add into `change`
    and the pairs to mask into `unknown`, both of zeros before.
    """
    opened = np.flatnonzero((code != 0) & (code != ABSENT))
    label = np.arange(opened.size)
    cost = np.ones(opened.size, np.int64)  # at least one cycle each
    solved = np.zeros(opened.size, np.bool_)
    good = np.zeros(opened.size, np.bool_)
    first = np.zeros((opened.size, change.size), np.int8)
    differs = np.zeros((opened.size, change.size), np.bool_)
    stamp = np.zeros(change.size + 1, np.int64)
    while True:
        _merge_near(opened, label, cost, solved, code, network)
        waiting = False
        for k in range(opened.size):
            if label[k] != k or solved[k]:
                continue
            waiting = True
            solved[k], good[k] = True, False
            members = opened[label == k]
            if _in_doubt(members, doubtful, network):
                # Masked however it could be corrected; that takes at least
                # so many cycles.
                cost[k] = _apart(members, members[:0], code, network, stamp)[0]
                continue
            first[k], differs[k] = 0, False
            good[k], cost[k] = _fewest(members, code, network, first[k], differs[k])
        if not waiting:
            break
    for k in range(opened.size):
        if label[k] != k:
            continue
        members = opened[label == k]
        if good[k]:
            for m in range(change.size):
                if differs[k, m]:
                    unknown[m] = True
                else:
                    change[m] += first[k, m]
            continue
        for t in members:
            for side in range(3):
                unknown[network.triplets[t, side]] = True
    for m in range(change.size):
        if unknown[m]:
            change[m] = 0


@numba.njit(nogil=True, cache=True)
def _merge_near(
    opened: np.ndarray,
    label: np.ndarray,
    cost: np.ndarray,
    solved: np.ndarray,
    code: np.ndarray,
    network: LoopNetwork,
) -> None:
    """Join clusters of open loops that one minimal solution could touch.

    A part of a solution that joins clusters of costs a and b, h pairs apart, has h
    pairs at least; where h > a + b for every two clusters, solving them apart is
    cheaper. (More than two: a tree that joins them is at least half as long as a tour.)
    """
    distance = np.full(code.size, -1, np.int64)
    owner = np.full(code.size, -1, np.int64)
    queue = np.empty(code.size, np.int64)
    near = np.zeros(opened.size, np.bool_)
    k = 0
    while k < opened.size:
        if label[k] != k:
            k += 1
            continue
        count, head, dearest = 0, 0, 0
        for j in range(opened.size):
            owner[opened[j]] = label[j]
            if label[j] == k:
                queue[count], distance[opened[j]] = opened[j], 0
                count += 1
            else:
                dearest = max(dearest, cost[label[j]])
        near[:] = False
        while head < count and distance[queue[head]] < cost[k] + dearest:
            t = queue[head]
            head += 1
            for side in range(3):
                m = network.triplets[t, side]
                for at in range(network.start[m], network.start[m + 1]):
                    u = network.loop[at]
                    if code[u] == ABSENT or distance[u] >= 0:
                        continue
                    distance[u], queue[count] = distance[t] + 1, u
                    count += 1
                    other = owner[u]
                    if other >= 0 and distance[u] <= cost[k] + cost[other]:
                        near[other] = True
        distance[queue[:count]] = -1
        if not near.any():
            k += 1
            continue
        near[k] = True
        low = np.flatnonzero(near)[0]
        cost[low], solved[low] = cost[near].max(), False
        for j in range(opened.size):
            if near[label[j]]:
                label[j] = low
        k = low  # those before it were far from each other and still are


@numba.njit(nogil=True, cache=True)
def _fewest(
    members: np.ndarray,
    code: np.ndarray,
    network: LoopNetwork,
    first: np.ndarray,
    differs: np.ndarray,
) -> tuple[bool, int]:
    """All minimal corrections of one cluster: the first, and where others differ.

    Returns whether the search came to its end, and the cycles it takes (if it did not,
    those it takes at least).
    """
    work = np.zeros(code.size, np.int64)
    change = np.zeros(first.size, np.int64)
    steps, far = 0, 0
    total = 0
    for t in members:
        work[t] = code[t]
        total += abs(code[t])
    for m in range(first.size):
        far = max(
            far, network.start[m + 1] - network.start[m]
        )  # loops that one step can help
    at_loop = np.zeros(DEEPEST + 1, np.int64)
    branch = np.zeros(DEEPEST + 1, np.int64)
    pair = np.zeros(DEEPEST + 1, np.int64)
    step = np.zeros(DEEPEST + 1, np.int64)
    stamp = np.zeros(first.size + 1, np.int64)
    least, _ = _apart(members, pair[:0], work, network, stamp)
    for deepest in range(max(least, -(-total // far)), DEEPEST + 1):
        found = 0
        depth = 0
        at_loop[0], branch[0] = members[0], 0
        while depth >= 0:
            if branch[depth] == 3:
                depth -= 1
                if depth >= 0:
                    total += _move(pair, step, depth, -1, work, change, code, network)
                continue
            t, side = at_loop[depth], branch[depth]
            branch[depth] += 1
            m = network.triplets[t, side]
            towards = (-1 if work[t] > 0 else 1) * (-1 if side == 2 else 1)
            if change[m] * towards < 0:
                continue
            steps += 1
            if steps > STEPS:
                return False, deepest
            pair[depth], step[depth] = m, towards
            total += _move(pair, step, depth, 1, work, change, code, network)
            left = deepest - depth - 1
            if 0 < total <= left * far:
                least, some = _apart(members, pair[: depth + 1], work, network, stamp)
                if least <= left:
                    depth += 1
                    at_loop[depth], branch[depth] = some, 0
                    continue
            if total == 0:
                found += 1
                for other in range(first.size):
                    if found == 1:
                        first[other] = change[other]
                    elif first[other] != change[other]:
                        differs[other] = True
            total += _move(pair, step, depth, -1, work, change, code, network)
        if found:
            return True, deepest
    return False, DEEPEST + 1


@numba.njit(nogil=True, cache=True)
def _move(
    pair: np.ndarray,
    step: np.ndarray,
    depth: int,
    way: int,
    work: np.ndarray,
    change: np.ndarray,
    code: np.ndarray,
    network: LoopNetwork,
) -> int:
    """Do (`way` 1) or undo (-1) a step; by how much that opens the loops."""
    m, by = pair[depth], way * step[depth]
    change[m] += by
    more = 0
    for at in range(network.start[m], network.start[m + 1]):
        t = network.loop[at]
        if code[t] == ABSENT:
            continue
        before = abs(work[t])
        work[t] += by * network.sign[at]
        more += abs(work[t]) - before
    return more


@numba.njit(nogil=True, cache=True)
def _apart(
    members: np.ndarray,
    moved: np.ndarray,
    work: np.ndarray,
    network: LoopNetwork,
    stamp: np.ndarray,
) -> tuple[int, int]:
    """Cycles that open loops sharing no pair need at least; and one that is open.

    Open are some `members` or loops of the pairs `moved`. `stamp` has a place for each
    pair and, last, the number of the call.
    """
    now = stamp[-1] + 1
    stamp[-1] = now
    least, some = 0, -1
    for k in range(-1, moved.size):
        loops = members
        if k >= 0:
            loops = network.loop[network.start[moved[k]] : network.start[moved[k] + 1]]
        for t in loops:
            if work[t] == 0:
                continue
            if some < 0:
                some = t
            one, two = network.triplets[t, 0], network.triplets[t, 1]
            three = network.triplets[t, 2]
            if stamp[one] < now and stamp[two] < now and stamp[three] < now:
                stamp[one] = stamp[two] = stamp[three] = now
                least += abs(work[t])
    return least, some


@numba.njit(nogil=True, cache=True)
def _in_doubt(
    members: np.ndarray,
    doubtful: np.ndarray,
    network: LoopNetwork,
) -> bool:
    """Whether a loop with a pair of an open loop is far from any whole cycle."""
    for t in members:
        for m in network.triplets[t]:
            if doubtful[network.loop[network.start[m] : network.start[m + 1]]].any():
                return True
    return False
