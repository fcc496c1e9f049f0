"""Our solver as `benchmarks.inversion` calls it, and the memory pass beside it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from cube_denoise.blocks import spans
from cube_denoise.inversion.solver import solve
from cube_denoise.network import Network

STRIP = 65536
"""Pixels that the memory pass adds up at a time: 256 kB, in the second cache."""


def solve_ours(
    phase: np.ndarray,
    weights: np.ndarray | None,
    first: np.ndarray,
    second: np.ndarray,
    threads: int,
) -> np.ndarray:
    """Phase of the dates, rad, float32, (dates, pixels), 0 at the first, NaN unlinked.

    Parameters
    ----------
    phase : numpy.ndarray, float32, shape (pairs, pixels)
        rad, NaN = no data.
    weights : numpy.ndarray, float32, shape (pairs, pixels), or None
        None = all alike.
    first, second : numpy.ndarray of int, shape (pairs,)
    threads : int
    """
    plan = Network(first, second, int(second.max()) + 1, 0).plan
    way = "none" if weights is None else weights
    return solve(phase, plan, weights=way, quality=False, threads=threads).phase


def bandwidth(first: np.ndarray, second: np.ndarray, dates: int) -> int:
    """Bandwidth of the equations in the order of elimination."""
    return Network(first, second, dates, 0).plan.bandwidth


def memory_pass(
    phase: np.ndarray, weights: np.ndarray | None, dates: int, threads: int
) -> np.ndarray:
    """Read phase and weights once and write a series of nothing: the floor."""
    series = np.empty((dates, phase.shape[1]), "float32")
    if weights is None:
        weights = np.empty((0, phase.shape[1]), "float32")
    strips = spans(phase.shape[1], -(-phase.shape[1] // threads))
    _in_threads(
        lambda s: _pass(phase, weights, series, s.start, s.stop), strips, threads
    )
    return series


@numba.njit(nogil=True, fastmath=True, cache=True)
def _pass(
    phase: np.ndarray, weights: np.ndarray, series: np.ndarray, start: int, stop: int
) -> None:
    total = np.empty(STRIP, np.float32)
    for left in range(start, stop, STRIP):
        right = min(left + STRIP, stop)
        total[:] = 0
        for pair in range(phase.shape[0]):
            row = phase[pair, left:right]
            if weights.shape[0] > 0:
                _add_product(row, weights[pair, left:right], total)
            else:
                _add(row, total)
        for date in range(series.shape[0]):
            series[date, left:right] = total[: right - left]


@numba.njit(nogil=True, fastmath=True, cache=True)
def _add(row: np.ndarray, total: np.ndarray) -> None:
    for k in range(row.size):
        total[k] += row[k]


@numba.njit(nogil=True, fastmath=True, cache=True)
def _add_product(row: np.ndarray, by: np.ndarray, total: np.ndarray) -> None:
    for k in range(row.size):
        total[k] += row[k] * by[k]


def _in_threads(
    function: Callable[[slice], None], parts: list[slice], threads: int
) -> None:
    if threads == 1:
        for part in parts:
            function(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(function, parts))
