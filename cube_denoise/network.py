"""Networks of interferometric pairs: dates, components, loops, date-wise solution.

An interferogram of the dates i (reference, earlier) and j (secondary, later) measures
``phase = x[j] - x[i]``, x being the phase of each date.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse import csgraph


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
    """Pairs between numbered dates, solved for the phase of the dates pixel by pixel.

    Arrays have the pixels last; every pixel is solved by the same sequence of
    operations, so its result does not depend on which pixels come with it.
    """

    first: np.ndarray
    """Index of the reference date of each pair, shape (pairs,)."""
    second: np.ndarray
    """Index of the secondary date of each pair, shape (pairs,)."""
    size: int
    """Number of dates."""
    origin: int
    """The date that has phase zero."""

    def linked(self, valid: np.ndarray) -> np.ndarray:
        """Which dates a pixel's valid pairs link to the origin.

        Parameters
        ----------
        valid : numpy.ndarray of bool, shape (pairs, pixels)

        Returns
        -------
        numpy.ndarray of bool, shape (dates, pixels)
            Always True at the origin.
        """
        bits = np.packbits(valid, axis=1)  # eight pixels a byte
        reached = np.zeros((self.size, bits.shape[1]), "uint8")
        reached[self.origin] = 255
        order = np.lexsort((self.second, self.first))
        sweep = [(bits[k], self.first[k], self.second[k]) for k in order]
        while True:
            before = reached.copy()
            for edge, i, j in [*sweep, *reversed(sweep)]:
                either = (reached[i] | reached[j]) & edge
                reached[i] |= either
                reached[j] |= either
            if np.array_equal(before, reached):
                break
        return np.unpackbits(reached, axis=1, count=valid.shape[1]).view(bool)

    def elimination_order(self) -> tuple[np.ndarray, int]:
        """Order of the dates but the origin, and the bandwidth it gives the equations.

        Time order or reverse Cuthill-McKee, whichever is narrower.

        Returns
        -------
        order : numpy.ndarray of int, shape (dates - 1,)
        bandwidth : int
        """
        kept = np.delete(np.arange(self.size), self.origin)
        graph = sparse.coo_array(
            (np.ones(self.first.size), (self.first, self.second)),
            shape=(self.size, self.size),
        ).tocsr()
        graph = (graph + graph.T).tocsr()[kept][:, kept]
        cuthill_mckee = csgraph.reverse_cuthill_mckee(graph.tocsr(), True)
        edges = graph.tocoo()
        best, bandwidth = kept, kept.size
        for permutation in (np.arange(kept.size), cuthill_mckee):
            place = np.argsort(permutation)
            width = int(np.abs(place[edges.row] - place[edges.col]).max(initial=0))
            if width < bandwidth:
                best, bandwidth = kept[permutation], width
        return best, bandwidth

    def solve(
        self, phase: np.ndarray, weight: np.ndarray, linked: np.ndarray
    ) -> np.ndarray:
        r"""Weighted least-squares phase of the dates, each pixel by itself.

        Minimises :math:`\sum_m w_m (x_{j_m} - x_{i_m} - \varphi_m)^2` with
        :math:`x_\mathrm{origin} = 0` (Berardino et al. 2002, weighted). The normal
        matrix is the weighted Laplacian of the network; it is factored as banded
        L D L^T, all pixels in step.

        Parameters
        ----------
        phase : numpy.ndarray, float64, shape (pairs, pixels)
            rad, finite; any number where the weight is zero.
        weight : numpy.ndarray, float64, shape (pairs, pixels)
            Zero = pair not there.
        linked : numpy.ndarray of bool, shape (dates, pixels)
            From `linked`.

        Returns
        -------
        numpy.ndarray, float64, shape (dates, pixels)
            rad; NaN at dates that are not linked to the origin.
        """
        order, band = self.elimination_order()
        place = np.full(self.size, -1)
        place[order] = np.arange(order.size)
        i, j = place[self.first], place[self.second]
        pair = np.arange(i.size)
        inner = (i >= 0) & (j >= 0)
        # Row k * (band + 1) + d of `assemble` gives matrix entry (k + d, k).
        row = (band + 1) * np.concatenate(
            [i[i >= 0], j[j >= 0], np.minimum(i, j)[inner]]
        )
        row[row.size - inner.sum() :] += np.abs(i - j)[inner]
        column = np.concatenate([pair[i >= 0], pair[j >= 0], pair[inner]])
        value = np.where(np.arange(row.size) < row.size - inner.sum(), 1.0, -1.0)
        assemble = sparse.csr_array(
            (value, (row, column)), shape=(order.size * (band + 1), i.size)
        )
        matrix = (assemble @ weight).reshape(order.size, band + 1, -1)
        # A component without the origin has a singular block of its own: adding to its
        # diagonal makes that regular and cannot reach the other dates.
        matrix[:, 0] += ~linked[order]
        solution = self._incidence()[:, order].T @ (weight * phase)
        _solve_banded(matrix, solution)
        x = np.zeros((self.size, phase.shape[1]))
        x[order] = solution
        x[~linked] = np.nan
        return x

    def pair_phase(self, x: np.ndarray) -> np.ndarray:
        """Phase of the pairs, rad, of the phase of the dates; NaN dates count as 0."""
        return self._incidence() @ np.where(np.isnan(x), 0, x)

    def _incidence(self) -> sparse.csr_array:
        """`incidence_matrix` as a sparse array, shape (pairs, dates)."""
        pair = np.arange(self.first.size)
        sign = np.repeat([-1.0, 1.0], pair.size)
        where = (np.tile(pair, 2), np.concatenate([self.first, self.second]))
        return sparse.csr_array((sign, where), shape=(pair.size, self.size))


def _solve_banded(matrix: np.ndarray, x: np.ndarray) -> None:
    """Solve symmetric positive definite band systems in place, pixels in step.

    ``matrix[k, d]`` holds entry (k + d, k), shape (dates, band + 1, pixels); `x` holds
    the right-hand sides, then the solutions, shape (dates, pixels).
    """
    count, band = matrix.shape[0], matrix.shape[1] - 1
    for k in range(count):
        reach = min(band, count - 1 - k)
        below = matrix[k, 1 : reach + 1]
        ratio = below / matrix[k, 0]
        for d in range(1, reach + 1):
            matrix[k + d, : reach - d + 1] -= ratio[d - 1] * below[d - 1 :]
        x[k + 1 : k + 1 + reach] -= ratio * x[k]
        x[k] /= matrix[k, 0]
        below[:] = ratio
    for k in range(count - 1, -1, -1):
        for d in range(1, min(band, count - 1 - k) + 1):
            x[k] -= matrix[k, d] * x[k + d]
