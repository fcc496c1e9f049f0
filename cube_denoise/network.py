"""Networks of interferometric pairs: dates, components, loops.

An interferogram of the dates i (reference, earlier) and j (secondary, later) measures
``phase = x[j] - x[i]``, x being the phase of each date.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse import csgraph

from cube_denoise.inversion.elimination import Elimination, eliminate


def pair_indices(
    reference: ArrayLike, secondary: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the two dates of every pair stand in the sorted list of dates.

    Parameters
    ----------
    reference, secondary : array of datetime64, shape (pairs,)
        Earlier and later acquisition of each pair.

    Returns
    -------
    first, second : numpy.ndarray of int, shape (pairs,)
        ``times[first]`` is the reference, ``times[second]`` the secondary date.
    times : numpy.ndarray of datetime64[s], shape (dates,)
        The dates, sorted, each once.

    Raises
    ------
    ValueError
        If there is no pair, the lengths differ, a date is missing, a reference date is
        not before its secondary date, or a pair occurs twice.
    """
    early = np.atleast_1d(np.asarray(reference, "datetime64[s]"))
    late = np.atleast_1d(np.asarray(secondary, "datetime64[s]"))
    if early.shape != late.shape or early.ndim != 1:
        raise ValueError(
            f"reference has shape {early.shape} and secondary {late.shape}: give one "
            "date of each per pair"
        )
    if early.size == 0:
        raise ValueError("there are no pairs: a network needs one pair or more")
    if np.isnat(early).any() or np.isnat(late).any():
        raise ValueError("reference or secondary contains NaT: every pair needs dates")
    if (early >= late).any():
        k = int(np.argmax(early >= late))
        raise ValueError(
            f"pair {k} ({early[k]}, {late[k]}): reference must be before secondary"
        )
    times, indices = np.unique(np.concatenate([early, late]), return_inverse=True)
    first, second = indices[: early.size], indices[early.size :]
    _, once, count = np.unique(
        first * times.size + second, return_index=True, return_counts=True
    )
    if (count > 1).any():
        k = int(once[np.argmax(count > 1)])
        raise ValueError(
            f"pair ({early[k]}, {late[k]}) occurs more than once: keep one of each"
        )
    return first, second, times


def acquisition_times(reference: ArrayLike, secondary: ArrayLike) -> np.ndarray:
    """All dates of a network, sorted, each once, datetime64[s].

    Parameters and errors are those of `pair_indices`.
    """
    return pair_indices(reference, secondary)[2]


def incidence_matrix(
    reference: ArrayLike, secondary: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix that makes pairs of dates: ``phase of pairs = A @ phase of dates``.

    Parameters
    ----------
    reference, secondary : array of datetime64, shape (pairs,)
        Earlier and later acquisition of each pair.

    Returns
    -------
    A : numpy.ndarray, float64, shape (pairs, dates)
        -1 at the reference, +1 at the secondary date (Berardino et al. 2002).
    times : numpy.ndarray of datetime64[s], shape (dates,)

    Examples
    --------
    >>> A, times = incidence_matrix(["2020-01-01", "2020-01-13"], ["2020-01-25"] * 2)
    >>> A.astype(int).tolist()
    [[-1, 0, 1], [0, -1, 1]]
    """
    first, second, times = pair_indices(reference, secondary)
    A = np.zeros((first.size, times.size))
    rows = np.arange(first.size)
    A[rows, first] = -1
    A[rows, second] = 1
    return A, times


def connected_subsets(reference: ArrayLike, secondary: ArrayLike) -> list[np.ndarray]:
    """Dates that chains of pairs link to each other, largest group first.

    Parameters are those of `incidence_matrix`.

    Returns
    -------
    list of numpy.ndarray of datetime64[s]
        Sorted dates of each group; of groups of equal size the earlier one is first.
    """
    first, second, times = pair_indices(reference, secondary)
    graph = sparse.coo_array(
        (np.ones(first.size), (first, second)), shape=(times.size, times.size)
    )
    count, label = csgraph.connected_components(graph, directed=False)
    subsets = [times[label == k] for k in range(count)]
    return sorted(subsets, key=lambda dates: (-dates.size, dates[0]))


def closure_triplets(reference: ArrayLike, secondary: ArrayLike) -> np.ndarray:
    """All loops of three pairs.

    Parameters are those of `incidence_matrix`.

    Returns
    -------
    numpy.ndarray of int, shape (triplets, 3)
        Indices of the pairs (1, 2), (2, 3) and (1, 3) of the dates 1 < 2 < 3, sorted by
        those dates.
    """
    first, second, _ = pair_indices(reference, secondary)
    index = {(i, j): k for k, (i, j) in enumerate(zip(first, second, strict=True))}
    later: dict[int, list[int]] = {}
    for i, j in sorted(index):
        later.setdefault(i, []).append(j)
    found = [
        (index[i, j], index[j, k], index[i, k])
        for i, j in sorted(index)
        for k in later.get(j, [])
        if (i, k) in index
    ]
    return np.array(found, dtype=np.intp).reshape(-1, 3)


def triplet_closure(phase: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    r"""Misclosure of every loop, :math:`\varphi_{12} + \varphi_{23} - \varphi_{13}`.

    Parameters
    ----------
    phase : numpy.ndarray, shape (pairs, ...)
        Unwrapped phase, rad, NaN = no data.
    triplets : numpy.ndarray of int, shape (triplets, 3)
        From `closure_triplets`.

    Returns
    -------
    numpy.ndarray, shape (triplets, ...)
        rad; zero for phases that are differences of dates, a multiple of 2 pi where
        one was unwrapped wrongly; NaN where any of the three is.
    """
    one, two, three = np.asarray(triplets).T
    return phase[one] + phase[two] - phase[three]


@dataclass(frozen=True)
class Network:
    """Pairs between numbered dates."""

    first: np.ndarray
    """Index of the reference date of each pair, shape (pairs,)."""
    second: np.ndarray
    """Index of the secondary date of each pair, shape (pairs,)."""
    size: int
    """Number of dates."""
    origin: int
    """The date that has phase zero."""

    @cached_property
    def plan(self) -> Elimination:
        """How `inversion.solver.solve` eliminates the dates."""
        return eliminate(self.first, self.second, self.size, self.origin)

    def pair_phase(self, x: np.ndarray) -> np.ndarray:
        """Phase of the pairs, rad, of the phase of the dates; NaN dates count as 0."""
        pair = np.arange(self.first.size)
        sign = np.repeat([-1.0, 1.0], pair.size)
        where = (np.tile(pair, 2), np.concatenate([self.first, self.second]))
        incidence = sparse.csr_array((sign, where), shape=(pair.size, self.size))
        return incidence @ np.where(np.isnan(x), 0, x)
