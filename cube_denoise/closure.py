"""Unwrapping errors from the closure of triplets: found, corrected, or masked.

A pair unwrapped wrongly is off by whole cycles, which its triplets tell. What triplets
cannot tell: cycles that are differences of whole cycles of the dates (an error of all
pairs of a date alike), and those of pairs in no triplet. Arrays in, arrays out; cubes
are for `unwrapping`.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

from cube_denoise.cycle_search import LoopNetwork, search_pixels

TREATMENTS = ("none", "mask", "correct")
"""What can be done to pairs that do not close."""
TOLERANCE = math.pi / 2
"""A loop farther than this from any whole number of cycles decides nothing, rad."""


class ClosedPhase(NamedTuple):
    """Phase after its unwrapping errors were treated, and what was done."""

    phase: np.ndarray
    """rad, shape (pairs, pixels); NaN = no data, or masked."""
    cycles: np.ndarray
    """Cycles added, int8, shape (pairs, pixels)."""
    masked: np.ndarray
    """Data made NaN, bool, shape (pairs, pixels)."""


def closure_cycles(closure: np.ndarray) -> np.ndarray:
    r"""Whole cycles of a misclosure, :math:`(c - \mathrm{wrap}(c)) / 2\pi`.

    As MintPy counts unwrapping errors (Yunjun et al. 2019).

    Parameters
    ----------
    closure : numpy.ndarray
        From `network.triplet_closure`, rad, less any constant of the loop.

    Returns
    -------
    numpy.ndarray
        Whole numbers, dtype of `closure`; NaN where it is.

    Examples
    --------
    >>> closure_cycles(np.array([0.4, 6.0, -7.0, 3.0])).tolist()
    [0.0, 1.0, -1.0, 0.0]
    """
    return np.rint(closure / (2 * np.pi))


def unwrapping_cycles(
    phase: np.ndarray,
    triplets: np.ndarray,
    *,
    loop_constants: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Fewest whole cycles that make every triplet of every pixel close.

    Each pixel by itself, over the triplets whose pairs all have data: of all integers
    that close them, those of least sum of magnitudes, found exactly (`cycle_search`).
    Where several are least, the pairs in which they differ are undecided, and the rest
    is corrected. Where a triplet next to an open one is farther than `tolerance` from
    whole cycles, or the errors are too many for the search, all pairs of the open
    triplets are undecided. With the undecided pairs taken away, all triplets close.
    Pixels whose triplets close are left as they are, so are pairs in no triplet.

    Parameters
    ----------
    phase : numpy.ndarray of float32 or float64, shape (pairs, pixels)
        Unwrapped phase, rad, NaN = no data. **Each pair less its own constant** (the
        phase of the reference area), unless `loop_constants` holds their closure.
    triplets : numpy.ndarray of int, shape (triplets, 3)
        From `network.closure_triplets`.
    loop_constants : numpy.ndarray, shape (triplets,), optional
        Closure that a triplet has without any error, rad, taken off before cycles are
        counted; NaN = the triplet decides nothing. None = zero.
    tolerance : float
        rad, above 0 and up to pi.

    Returns
    -------
    cycles : numpy.ndarray of int8, shape (pairs, pixels)
        Cycles to add: ``phase + 2 * pi * cycles``.
    undecided : numpy.ndarray of bool, shape (pairs, pixels)
        Pairs to mask; their cycles are 0.

    Raises
    ------
    ValueError
        If shapes, types, `triplets` or `tolerance` are not as above.
    """
    triplets, constants = _checked(phase, triplets, loop_constants)
    if not 0 < tolerance <= math.pi:
        raise ValueError(f"{tolerance=} must be above 0 and up to pi, rad")
    cycles = np.zeros(phase.shape, "int8")
    undecided = np.zeros(phase.shape, bool)
    where = _open_pixels(phase, triplets, constants.astype(phase.dtype))
    if where.size:
        network = LoopNetwork.of(triplets, phase.shape[0])
        search_pixels(
            phase, where, constants, float(tolerance), network, cycles, undecided
        )
    return cycles, undecided


def close_phase(
    phase: np.ndarray,
    triplets: np.ndarray,
    *,
    unwrapping: str = "correct",
    loop_constants: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
) -> ClosedPhase:
    """Phase with its unwrapping errors corrected or masked; nothing else is changed.

    Parameters
    ----------
    phase, triplets, loop_constants, tolerance
        As for `unwrapping_cycles`.
    unwrapping : {"correct", "mask", "none"}
        Add the cycles and mask what is undecided; mask both; or do nothing.

    Returns
    -------
    ClosedPhase
        The phase is `phase` itself where there is nothing to change.

    Raises
    ------
    ValueError
        As `unwrapping_cycles`, or if `unwrapping` is none of these.
    """
    if unwrapping not in TREATMENTS:
        raise ValueError(f"{unwrapping=} must be one of {', '.join(TREATMENTS)}")
    if unwrapping == "none":
        return ClosedPhase(
            phase, np.zeros(phase.shape, "int8"), np.zeros(phase.shape, bool)
        )
    cycles, masked = unwrapping_cycles(
        phase, triplets, loop_constants=loop_constants, tolerance=tolerance
    )
    if unwrapping == "mask":
        masked |= cycles != 0
        cycles[:] = 0
    moved = np.nonzero(cycles)
    if moved[0].size or masked.any():
        phase = phase.copy()
        phase[moved] += 2 * np.pi * cycles[moved].astype("float64")
        phase[masked] = np.nan
    return ClosedPhase(phase, cycles, masked)


def closure_rms(
    phase: np.ndarray,
    triplets: np.ndarray,
    *,
    loop_constants: np.ndarray | None = None,
) -> np.ndarray:
    """Root mean square closure of every pixel over its triplets.

    Parameters
    ----------
    phase, triplets, loop_constants
        As for `unwrapping_cycles`.

    Returns
    -------
    numpy.ndarray of float32, shape (pixels,)
        rad; NaN where no triplet has data.

    Raises
    ------
    ValueError
        As `unwrapping_cycles`.
    """
    triplets, constants = _checked(phase, triplets, loop_constants)
    square, count = np.zeros(phase.shape[1]), np.zeros(phase.shape[1], "int32")
    for (one, two, three), constant in zip(triplets, constants, strict=True):
        missed = phase[one] + phase[two] - phase[three] - constant
        there = np.isfinite(missed)
        square += np.where(there, missed, 0.0) ** 2
        count += there
    mean = square / np.where(count > 0, count, np.nan)
    return np.sqrt(mean).astype("float32")


def _checked(
    phase: np.ndarray, triplets: np.ndarray, loop_constants: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Triplets that count, int64, and their constants, float64."""
    if phase.ndim != 2 or phase.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"phase has shape {phase.shape} and dtype {phase.dtype}: it must be "
            "(pairs, pixels), float32 or float64"
        )
    triplets = np.asarray(triplets, "int64")
    if triplets.ndim != 2 or triplets.shape[1] != 3:
        raise ValueError(f"triplets has shape {triplets.shape}: it must be (n, 3)")
    if triplets.size and not 0 <= triplets.min() <= triplets.max() < phase.shape[0]:
        raise ValueError(
            f"triplets has indices {triplets.min()} to {triplets.max()}: they must be "
            f"of the {phase.shape[0]} pairs of phase"
        )
    constants = np.zeros(len(triplets))
    if loop_constants is not None:
        constants = np.asarray(loop_constants, "float64")
    if constants.shape != (len(triplets),):
        raise ValueError(
            f"loop_constants has shape {constants.shape}: it must have one value for "
            f"each of the {len(triplets)} triplets"
        )
    used = np.isfinite(constants)
    return triplets[used], constants[used]


@numba.njit(nogil=True, cache=True)
def _open_pixels(
    phase: np.ndarray, triplets: np.ndarray, constants: np.ndarray
) -> np.ndarray:
    """Pixels where some loop may miss by half a cycle: all that are searched.

    `constants` has the dtype of `phase`; indices are returned.
    """
    pixels = phase.shape[1]
    flags = np.zeros(pixels, np.uint8)
    least = phase.dtype.type(math.pi - 1e-3)  # the search looks again, in float64
    for begin in range(0, pixels, 1024):
        end = min(begin + 1024, pixels)
        part = flags[begin:end]
        for t in range(triplets.shape[0]):
            one = phase[triplets[t, 0], begin:end]
            two = phase[triplets[t, 1], begin:end]
            three = phase[triplets[t, 2], begin:end]
            for p in range(end - begin):
                part[p] |= abs(one[p] + two[p] - three[p] - constants[t]) > least
    return np.flatnonzero(flags)
