"""Stacks with the noise of a given one, redrawn: what a method makes of its noise."""

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr
from scipy.linalg import hadamard

from cube_denoise.conventions import TIME, X, Y, years_since
from cube_denoise.evaluate.injection import add_motion, stack_times
from cube_denoise.invert import invert

DRAWS = 32
"""At most this many stacks are drawn."""


def redrawn_stacks(
    cube: xr.Dataset, *, reference: Mapping[str, slice], weights: str, seed: int = 0
) -> Iterator[xr.Dataset]:
    """Redraw the noise of a stack: each date's takes another sign.

    The noise of a date is what differs there from a straight line through time in the
    inversion of the raw pairs (a wild bootstrap: Wu, 1986; Liu, 1988). Steady motion
    and the misclosure of the pairs stay as they are. Noise keeps its size, its shape
    and its date; what dates have in common is lost.

    Parameters
    ----------
    cube : xarray.Dataset
        In memory, with ``unwrapped_phase`` (pair, y, x), rad.
    reference : mapping with slices "y" and "x"
        Reference area of the inversion.
    weights : str
        Of the inversion: see `invert.invert`.
    seed : int
        Of which signs go to which date.

    Yields
    ------
    xarray.Dataset
        The cube with ``unwrapped_phase`` changed, without what was computed from it. As
        many as the smallest power of two above the number of dates, at most `DRAWS`.
        The signs of any two dates are orthogonal over the stacks, unless `DRAWS` cuts
        them short: the variance of anything linear comes out exactly.
    """
    raw = invert(cube, variable="unwrapped_phase", reference=reference, weights=weights)
    displacement = np.asarray(
        raw["displacement"].transpose(TIME, Y, X).values, "float64"
    )
    times = stack_times(cube)
    noise = np.nan_to_num(detrended(displacement, years_since(times, times[0])))
    for signs in _signs(times.size, np.random.default_rng(seed)):
        yield add_motion(cube, (signs - 1)[:, None, None] * noise)


def _signs(dates: int, generator: np.random.Generator) -> np.ndarray:
    """Signs, shape (draws, dates); columns orthogonal to each other and to ones."""
    order = 1 << dates.bit_length()
    columns = 1 + generator.permutation(order - 1)[:dates]
    rows = np.arange(order)
    if order > DRAWS:
        rows = generator.choice(order, DRAWS, replace=False)
    return np.asarray(hadamard(order)[np.ix_(rows, columns)], "float64")


def amplitude_of(displacement: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Regression of every pixel on a history beside a constant, (rows, columns).

    Parameters
    ----------
    displacement : numpy.ndarray, shape (dates, rows, columns)
        NaN = no data.
    history : numpy.ndarray, shape (dates,)
        Displacement of unit amplitude at the dates.
    """
    h = _apart(displacement, history)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nansum(h * displacement, 0) / np.nansum(h**2, 0))


def detrended(displacement: np.ndarray, years: np.ndarray) -> np.ndarray:
    """Displacement less a straight line through time, pixel by pixel."""
    line = amplitude_of(displacement, years) * _apart(displacement, years)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(displacement, 0) / np.isfinite(displacement).sum(0)
    return np.asarray(displacement - mean - line)


def _apart(displacement: np.ndarray, history: np.ndarray) -> np.ndarray:
    """History less its mean over the dates with data, pixel by pixel; else NaN."""
    valid = np.isfinite(displacement)
    h = np.where(valid, history[:, None, None], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(h - np.nansum(h, 0) / valid.sum(0))
