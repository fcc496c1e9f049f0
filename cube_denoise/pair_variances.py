"""Errors of the pairs of a network from squared residuals, and which stand out."""

from collections.abc import Sequence

import numpy as np

from cube_denoise.network import Network

SPREADS = 5.0
"""Robust standard deviations (1.4826 times the median distance of all pairs from it)
above the median pair from which on a pair stands out."""
LEAST = 1.5
"""Suspicion below which it does not, however near each other the others are."""
REDUNDANT = 1e-6
"""A pair of whose variance less than this part is left in residuals is not judged."""
ROUNDS = 500
"""Steps toward the solution."""


def network_spread(
    network: Network, sample: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    r"""Leverage of pairs, and what their errors make of the squares of all residuals.

    Parameters
    ----------
    network : network.Network
    sample : sequence of two numpy.ndarray, shape (pairs,)
        For every pixel, which pairs have data, and the variance v of each.

    Returns
    -------
    leverage : numpy.ndarray, shape (pairs,)
        Mean diagonal of :math:`H = A (A^T A)^+ A^T` over the pixels where
        the pair has data, 1 for a pair in no loop; NaN without data.
    spread : numpy.ndarray, shape (pairs, pairs)
        Mean of :math:`(I - H)_{mk}^2 v_k` over the pixels.
    """
    pairs = network.first.size
    A = np.zeros((pairs, network.size))
    A[np.arange(pairs), network.first] = -1
    A[np.arange(pairs), network.second] = 1
    leverage, count, spread = np.zeros(pairs), np.zeros(pairs), np.zeros((pairs, pairs))
    for there, variance in sample:
        present = A * there[:, None]
        normal = present.T @ present
        H = present @ np.linalg.pinv(normal, 1e-10, hermitian=True) @ present.T
        shares = (np.eye(pairs) - H) ** 2 * variance
        spread += np.where(there[:, None] & there, shares, 0) / len(sample)
        leverage += np.where(there, np.diagonal(H), 0)
        count += there
    return leverage / np.where(count > 0, count, np.nan), spread


def own_variances(square: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Variances f >= 0 whose ``spread @ f`` comes nearest to `square`.

    Nearest by the Itakura-Saito divergence, which looks at ratios; from equal ones, so
    that pairs that cannot be told apart stay equal. `square` is positive.

    Parameters
    ----------
    square : numpy.ndarray, shape (pairs,)
    spread : numpy.ndarray, shape (pairs, pairs)
        From `network_spread`.

    Returns
    -------
    numpy.ndarray, shape (pairs,)
        NaN where the residual of a pair tells nothing.
    """
    found = np.full(square.size, np.nan)
    judged = np.flatnonzero(np.diagonal(spread) > REDUNDANT)
    K, q = spread[np.ix_(judged, judged)], square[judged]
    if judged.size:
        f = np.full(judged.size, q.sum() / K.sum())
        for _ in range(ROUNDS):
            expected = K @ f
            f = f * np.sqrt((K.T @ (q / expected**2)) / (K.T @ (1 / expected)))
        found[judged] = f
    return found


def stand_out(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Roots of variances over their median, and which are far above it.

    Parameters
    ----------
    factor : numpy.ndarray, shape (pairs,)
        Variances, NaN = not known.

    Returns
    -------
    suspicion : numpy.ndarray, shape (pairs,)
    flagged : numpy.ndarray of bool, shape (pairs,)
    """
    known = np.isfinite(factor)
    suspicion = np.full(factor.size, np.nan)
    if not known.any():
        return suspicion, known
    root = np.sqrt(factor[known])
    suspicion[known] = root / np.median(root)
    spread = 1.4826 * np.median(np.abs(suspicion[known] - 1))
    return suspicion, suspicion >= max(LEAST, 1 + SPREADS * spread)
