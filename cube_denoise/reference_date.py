"""The date to which a series refers: the first, one that is named, or the quietest."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import xarray as xr

from cube_denoise.blocks import Compute, windows
from cube_denoise.conventions import X, Y, years_since
from cube_denoise.velocity import fit_velocity

FIRST, LEAST_RESIDUAL = "first", "least-residual"

CELLS = 6
"""Windows along each side of the scene that dates are compared in."""

SIDE = 16
"""Their side, px."""

COHERENT = 0.7
"""Least temporal coherence of the pixels compared, as in MintPy."""

COMPLETE = 0.95
"""Least number of pixels that have a date, as a share of those of the best date."""


def asked_date(value: Any) -> str:
    """`reference_date` as it is recorded: "first", "least-residual" or an ISO date.

    Parameters
    ----------
    value : str, int, datetime.date or numpy.datetime64
        A date may be written 2020-01-31, 20200131 or with the time of the day.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if value in (FIRST, LEAST_RESIDUAL):
        return str(value)
    text = str(value) if isinstance(value, (str, int)) else value
    if isinstance(text, str) and len(text) == 8 and text.isdigit():
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    try:
        if not isinstance(text, (str, date, np.datetime64)):
            raise ValueError
        moment = np.datetime64(text)
        if np.isnat(moment) or np.datetime_data(moment)[0] in "YMW":
            raise ValueError
    except ValueError:
        raise ValueError(
            f"reference_date={value!r} must be {FIRST!r}, {LEAST_RESIDUAL!r} or a date "
            "such as 2020-01-31"
        ) from None
    return str(moment)


def reference_position(
    asked: str, times: np.ndarray, subsets: Sequence[np.ndarray]
) -> int:
    """Position in `times` of the date that `asked` names.

    Parameters
    ----------
    asked : str
        From `asked_date`. "first" and "least-residual" give the first date of the
        largest subset; for the latter `least_residual` finds the one.
    times : numpy.ndarray of datetime64[s]
        All dates, sorted.
    subsets : sequence of numpy.ndarray
        From `network.connected_subsets`.

    Raises
    ------
    ValueError
        If it names no date of the network, or two, or one without usable pairs.
    """
    if asked in (FIRST, LEAST_RESIDUAL):
        return int(np.searchsorted(times, subsets[0][0]))
    moment = np.datetime64(asked)
    found = np.flatnonzero(times.astype(moment.dtype) == moment)
    if found.size == 0:
        nearest = times[np.argmin(abs(times - moment.astype(times.dtype)))]
        raise ValueError(
            f"reference_date={asked!r} is not one of the {times.size} dates, "
            f"{times[0]} to {times[-1]}; the nearest is {nearest}"
        )
    if found.size > 1:
        raise ValueError(
            f"reference_date={asked!r} is {' and '.join(map(str, times[found]))}: give "
            "the time as well"
        )
    if not any(times[found[0]] in subset for subset in subsets):
        raise ValueError(
            f"reference_date={asked!r} has only pairs without data in the reference "
            "area: choose another date or area"
        )
    return int(found[0])


def least_residual(
    cube: xr.Dataset, compute: Compute, times: np.ndarray, candidates: np.ndarray
) -> int:
    """Position of the date at which series stray least from straight lines.

    A line is fitted to the series of each pixel; of every date the root mean square of
    the residuals is taken over the pixels, and the date with the least is chosen (as
    MintPy chooses its reference date, but of lines and without deramping). The pixels
    are those of at most 6 x 6 windows of 16 x 16 px, spread evenly over the scene, with
    a temporal coherence of at least 0.7. Dates that many of them lack do not compete.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
    compute : callable
        Gives ``displacement``, relative to any date, and ``temporal_coherence`` of a
        window of the cube.
    times : numpy.ndarray of datetime64, shape (dates,)
    candidates : numpy.ndarray of bool, shape (dates,)

    Raises
    ------
    ValueError
        If no pixel of the windows will do.
    """
    years = years_since(times, times[0])
    squares, count = np.zeros(times.size), np.zeros(times.size)
    sample = windows(**{d: _spread(cube.sizes[d]) for d in (Y, X)})
    for window in sample:
        found: Mapping[str, np.ndarray] = compute(cube, window)
        series = found["displacement"].reshape(times.size, -1).astype("float64")
        good = found["temporal_coherence"].ravel() >= COHERENT
        series = series[:, good & (np.isfinite(series).sum(0) >= 3)]
        rate, _ = fit_velocity(series, years, uncertainty="residual")
        left = series - rate * years[:, None]
        known = np.isfinite(left)
        level = np.where(known, left, 0).sum(0) / np.maximum(known.sum(0), 1)
        squares += (np.where(known, left - level, 0) ** 2).sum(1)
        count += known.sum(1)
    if not count.any():
        raise ValueError(
            f"reference_date={LEAST_RESIDUAL!r}: no pixel of the {len(sample)} windows "
            f"looked at has three dates and a temporal coherence of {COHERENT}; give "
            "a date"
        )
    rms = np.sqrt(squares / np.maximum(count, 1))
    rms[~candidates | (count < COMPLETE * count[candidates].max())] = np.inf
    return int(rms.argmin())


def _spread(size: int) -> list[slice]:
    """Windows of `SIDE` in the middles of `CELLS` equal parts; all if it is small."""
    if size <= CELLS * SIDE:
        return [slice(0, size)]
    middles = [size * (2 * k + 1) // (2 * CELLS) for k in range(CELLS)]
    return [slice(m - SIDE // 2, m + SIDE // 2) for m in middles]
