"""In which order the dates of a network are eliminated, and what that touches."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu


@dataclass(frozen=True)
class Elimination:
    r"""Symbolic factorisation of the equations of a network, the same for every pixel.

    The normal matrix of a network is the Laplacian of its graph, the pairs being
    conductances between the dates and the origin being ground. To eliminate a date is
    to replace the star of conductances around it by a mesh between its neighbours.
    Which ones that gives (the fill) follows from the pairs alone.

    Attributes are index arrays (int32) for `kernel`; *position* counts the dates in the
    order of their elimination, an *entry* is a conductance between two positions, the
    entries of one position standing next to each other, sorted by the other position.
    """

    order: np.ndarray
    """Date at each position, shape (positions,); the origin is not among them."""
    origin: int
    """The date that has phase zero; -1 if it was eliminated before (`resumed`)."""
    entry_start: np.ndarray
    """First entry of each position, shape (positions + 1,)."""
    entry_other: np.ndarray
    """The later position of each entry, shape (entries,)."""
    mesh: np.ndarray
    """Entry between the positions of entries a < b of one position, for all a, b."""
    pair_start: np.ndarray
    """First of the pairs taken up with each position, shape (positions + 1,)."""
    pair: np.ndarray
    """The pairs in the order they are taken up, shape (pairs,)."""
    pair_other: np.ndarray
    """Later position of each pair taken up; -1 = the origin."""
    pair_entry: np.ndarray
    """Entry of each pair taken up; -1 = none."""
    pair_sign: np.ndarray
    """+1 where the position is the later date of the pair, else -1 (int32)."""

    @property
    def cost(self) -> int:
        """Multiplications per pixel, about."""
        width = np.diff(self.entry_start)
        return int((width * (width + 1) // 2 + 4 * width + 2).sum())

    @property
    def bandwidth(self) -> int:
        """Most entries that a position has."""
        return int(np.diff(self.entry_start).max(initial=0))


def eliminate(
    first: np.ndarray, second: np.ndarray, size: int, origin: int
) -> Elimination:
    """Plan the elimination of a network's dates, all but the origin.

    Of time order and minimum degree (SuperLU's, on A + A^T) the cheaper is taken; time
    order where it is not a tenth dearer.

    Parameters
    ----------
    first, second : numpy.ndarray of int, shape (pairs,)
        Numbers of the reference and the secondary date of each pair.
    size : int
        Number of dates.
    origin : int
        Date that has phase zero.

    Returns
    -------
    Elimination
    """
    in_time = np.delete(np.arange(size), origin)
    plan = in_order(first, second, size, in_time, origin)
    if plan.bandwidth <= 2:
        return plan
    graph = sparse.coo_array((np.ones(first.size), (first, second)), (size, size))
    laplacian = csgraph.laplacian((graph + graph.T).tocsr()) + sparse.eye_array(size)
    kept = laplacian.tocsr()[in_time][:, in_time].tocsc()
    factor = splu(
        kept,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    least = in_order(first, second, size, in_time[np.argsort(factor.perm_c)], origin)
    return least if least.cost < plan.cost / 1.1 else plan


def in_order(
    first: np.ndarray,
    second: np.ndarray,
    size: int,
    order: np.ndarray,
    origin: int,
    *,
    frontier: int = 0,
) -> Elimination:
    """Plan the elimination of dates in a given order.

    Parameters
    ----------
    first, second, size, origin
        As for `eliminate`; pairs between the dates in `order` and the origin only.
    order : numpy.ndarray of int, shape (positions,)
        Dates, each once, without the origin.
    frontier : int
        How many of the first positions stand in conductances with each other from dates
        eliminated before.

    Returns
    -------
    Elimination
    """
    place = np.full(size, -1)
    place[order] = np.arange(order.size)
    a, b = place[first], place[second]
    early = np.where((a < 0) | ((b >= 0) & (b < a)), b, a)
    other = np.where(early == a, b, a)
    taken = np.argsort(early, kind="stable")
    neighbours: list[set[int]] = [set() for _ in order]
    for k in range(frontier):
        neighbours[k].update(range(k + 1, frontier))
    for k, o in zip(early, other, strict=True):
        if o >= 0:
            neighbours[k].add(int(o))
    entry: dict[tuple[int, int], int] = {}
    rows: list[list[int]] = []
    for k, found in enumerate(neighbours):
        row = sorted(found)
        rows.append(row)
        for r in row:
            entry[k, r] = len(entry)
        if row:
            neighbours[row[0]].update(row[1:])
    mesh = [
        entry[row[i], row[j]]
        for row in rows
        for i in range(len(row))
        for j in range(i + 1, len(row))
    ]
    counts = np.bincount(early, minlength=order.size)
    return Elimination(
        order=np.asarray(order),
        origin=origin,
        entry_start=_starts([len(row) for row in rows]),
        entry_other=_int([r for row in rows for r in row]),
        mesh=_int(mesh),
        pair_start=_starts(counts),
        pair=_int(taken),
        pair_other=_int(other[taken]),
        pair_entry=_int([entry.get((int(early[m]), int(other[m])), -1) for m in taken]),
        pair_sign=_int(np.where(early == b, 1, -1)[taken]),
    )


def _int(values: list[int] | np.ndarray) -> np.ndarray:
    return np.asarray(values, "int32")


def _starts(counts: list[int] | np.ndarray) -> np.ndarray:
    return _int(np.concatenate([[0], np.cumsum(counts)]))
