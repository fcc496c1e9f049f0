"""Which state an inversion leaves for later ones, and what they need to go on from it.

Dates are eliminated in time order, and a pair is taken up with the earlier of its
dates (the origin, which is ground, does not count). Before date f is eliminated, all
pairs of the dates before it have therefore become conductances between a few dates from
f on, the frontier, their conductances to ground, and currents. That is the *state* at
f; from it the dates from f on follow without any older pair, exactly. Dates before f
are averages of the frontier's and constants: they change by no more than the frontier.

The state also has what the older dates and pairs add to sums over all of them: those of
the residuals and closures, of the line through the dates, and the derivatives (see
`spread`) that give the variances of dates and rate.
"""

from dataclasses import dataclass

import numpy as np

from cube_denoise.inversion.elimination import Elimination, in_order
from cube_denoise.network import closure_triplets

PAIRS, COSINE, SINE, SQUARE, MISFIT, DATA = range(6)
DATES, T, TT, D, TD, DD = range(6, 12)
LAG_T, LAG_D, LAG_TT, LAG_TD, LAG_DD, LAST_T, LAST_D = range(12, 19)
VARIANCE, ONE_ONE, ONE_TIME, TIME_TIME = range(19, 23)
CLOSURE, TRIPLETS = range(23, 25)
SUMS = 25
"""Rows of the sums of a pixel, named above.

Over pairs used: their number, cosine, sine and square of the residuals, square over the
variance of the pair; pairs with data, linked or not. Over linked dates, with phase d at
year t: their number, t, t^2, d, t d, d^2; over dates and the one linked before it,
primed: t + t', d + d', t t', t d' + t' d, d d'; and the last t and d. Up to the factor
that the residuals give: the variances of the dates, and the covariance of the dates
between the coefficients 1 and 1, 1 and t, t and t. Over triplets with data: the square
of their closure, and their number.
"""


@dataclass(frozen=True)
class Continuation:
    """Symbolic part of an inversion of the dates from `begin` on."""

    begin: int
    """Number of the first date solved."""
    pairs: np.ndarray
    """Numbers of the pairs that are needed."""
    plan: Elimination
    """Of the dates solved, numbered from 0; the needed pairs likewise."""
    triplets: np.ndarray
    """Loops of three needed pairs, shape (triplets, 3)."""
    part: np.ndarray
    """With which part of the work, between the saves, each triplet counts."""
    frontier: int
    """How many of the first dates solved (without the origin) the state is about."""
    dates: int
    """Number of dates solved."""
    saves: np.ndarray
    """Dates, numbered like `begin`, at which the state is given."""
    rows: int
    """Numbers of a pixel's state."""
    places: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Which row of the elimination, of its derivatives and of the loads each row of the
    state is; -1 = none; shape (1 + saves, rows), the first for the state begun with."""


def taken(first: np.ndarray, second: np.ndarray, origin: int) -> np.ndarray:
    """Date with which each pair is taken up: the earlier that is not the origin."""
    early, late = np.minimum(first, second), np.maximum(first, second)
    return np.where(early == origin, late, early)


def frontier_at(first: np.ndarray, second: np.ndarray, origin: int, date: int) -> int:
    """Last date, exclusive, that pairs taken up before `date` reach; `date` if none."""
    both = (first != origin) & (second != origin)
    old = both & (taken(first, second, origin) < date)
    return max(date, int(np.maximum(first, second)[old].max(initial=-1)) + 1)


def frontier_size(first: np.ndarray, second: np.ndarray, origin: int, date: int) -> int:
    """Number of dates that the state at `date` is about."""
    end = frontier_at(first, second, origin, date)
    return end - date - (date <= origin < end)


def rows_of(frontier: int) -> int:
    """Numbers of a state of so many dates."""
    return SUMS + 7 * frontier + frontier * (frontier - 1)


def continuation(
    first: np.ndarray,
    second: np.ndarray,
    size: int,
    origin: int,
    *,
    begin: int = 0,
    saves: np.ndarray | None = None,
    rows: int | None = None,
) -> Continuation:
    """Plan an inversion of the dates from `begin` on.

    Parameters
    ----------
    first, second : numpy.ndarray of int, shape (pairs,)
        Numbers of the dates of all pairs of the network.
    size : int
        Number of dates of the network.
    origin : int
        Date that has phase zero.
    begin : int
        First date to solve; 0 = all.
    saves : numpy.ndarray of int, optional
        Later dates, increasing, at which the state is to be given.
    rows : int, optional
        Numbers of a state as stored; what is needed at most when not given.

    Returns
    -------
    Continuation

    Raises
    ------
    ValueError
        If `rows` are too few.
    """
    saves = np.asarray([] if saves is None else saves, int)
    pairs = np.flatnonzero(taken(first, second, origin) >= begin)
    one, two = first[pairs] - begin, second[pairs] - begin
    ground = origin - begin if origin >= begin else -1
    order = np.arange(size - begin)
    order = order[order != ground]
    frontier = frontier_size(first, second, origin, begin)
    if ground < 0:
        # The origin gets a number that no date has.
        one = np.where(first[pairs] == origin, size - begin, one)
        two = np.where(second[pairs] == origin, size - begin, two)
    plan = in_order(
        one, two, size - begin + (ground < 0), order, ground, frontier=frontier
    )
    fronts = [frontier, *(frontier_size(first, second, origin, s) for s in saves)]
    width = max(map(rows_of, fronts)) if rows is None else rows
    if width < max(map(rows_of, fronts)):
        raise ValueError(f"{rows=} do not hold the {max(fronts)} dates of a frontier")
    places = [np.full((len(fronts), width), -1) for _ in range(3)]
    for k, (date, front) in enumerate(zip([begin, *saves], fronts, strict=True)):
        _place(plan, int(np.searchsorted(order, date - begin)), front, k, places)
    triplets = np.empty((0, 3), int)
    if pairs.size:
        triplets = closure_triplets(first[pairs], second[pairs])
    date = taken(first[pairs], second[pairs], origin)[triplets].min(1, initial=size)
    return Continuation(
        begin=begin,
        pairs=pairs,
        plan=plan,
        triplets=triplets,
        part=np.searchsorted(saves, date, side="right"),
        frontier=frontier,
        dates=size - begin,
        saves=saves,
        rows=width,
        places=(places[0], places[1], places[2]),
    )


def _place(
    plan: Elimination, at: int, front: int, k: int, places: list[np.ndarray]
) -> None:
    """Fill row k of `places` for a frontier of positions from `at` on."""
    of_state, of_slope, of_load = (p[k] for p in places)
    entries, count = plan.entry_other.size, plan.order.size
    here = at + np.arange(front)
    row = SUMS
    of_state[row : row + front] = entries + here
    of_state[row + front : row + 2 * front] = entries + count + here
    of_slope[row + 2 * front : row + 3 * front] = entries + here
    for i in range(4):
        begin = row + (3 + i) * front
        of_load[begin : begin + front] = i * count + here
    row += 7 * front
    meshes = front * (front - 1) // 2
    for a in here:
        begin, end = plan.entry_start[a], plan.entry_start[a + 1]
        others = plan.entry_other[begin:end]
        for b in range(a + 1, at + front):
            i = int(np.searchsorted(others, b))
            if i < others.size and others[i] == b:
                of_state[row] = of_slope[row + meshes] = begin + i
            row += 1
