"""Least squares of a time model to the series of many pixels, each by itself.

`LANES` pixels are solved in step. A block that is not full is filled with pixels
without data, and a pixel goes through the same operations whatever stands beside it:
its result depends on it alone, to the bit.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from cube_denoise.inversion.lanes import LANES
from cube_denoise.time_models import Design

SINGULAR = 1e-10
"""A pivot of the normal matrix below this part of its diagonal counts as zero."""


class SeriesFit(NamedTuple):
    """What `fit_series` finds; float64, shape (pixels,) unless said."""

    rate: np.ndarray
    """Velocity, m/yr; NaN where the pixel's dates do not determine the model."""
    parameters: np.ndarray
    """Shape (parameters, pixels), in the units of the design; NaN likewise."""
    used: np.ndarray
    """Number of dates used, int64."""
    square: np.ndarray
    r"""Sum of squared residuals :math:`\sum_i w_i e_i^2`, m^2."""
    lagged: np.ndarray
    r"""Sum over dates used and the one used before,
    :math:`\sum_i \sqrt{w_i w_{i-1}}\, e_i e_{i-1}`, m^2."""
    gain: np.ndarray
    """Variance of the rate for errors of unit variance (over w), |g|^2, 1/yr^2; the
    rate is g @ series."""
    resampled: np.ndarray
    """Variance of g @ errors, (m/yr)^2, over block bootstrap samples of the residuals;
    NaN if not asked for."""


def fit_series(
    displacement: np.ndarray,
    design: Design,
    *,
    weights: np.ndarray | None = None,
    block_length: int = 0,
) -> SeriesFit:
    r"""Least-squares parameters of a time model, over the dates that hold data.

    Minimises :math:`\sum_i w_i (d_i - (G m)_i)^2` by normal equations in an
    orthonormal basis of the design, in float64.

    Parameters
    ----------
    displacement : numpy.ndarray, float32 or float64, shape (dates, pixels)
        m, positive toward the satellite; NaN or infinite = no data.
    design : time_models.Design
        Of these dates.
    weights : numpy.ndarray, shape (dates,) or (dates, pixels), optional
        Inverse variance of the dates up to a factor; 0 or NaN = date not used. All
        equal when not given.
    block_length : int
        Dates in a block of the bootstrap (`SeriesFit.resampled`); 0 for none.

    Returns
    -------
    SeriesFit

    Raises
    ------
    ValueError
        If shapes do not match or a weight is negative or infinite.
    """
    series = np.ascontiguousarray(displacement)
    if series.dtype != np.float32:
        series = series.astype("float64")
    dates = design.matrix.shape[0]
    if series.ndim != 2 or series.shape[0] != dates:
        raise ValueError(
            f"displacement has shape {series.shape}: it must be (dates, pixels) with "
            f"the {dates} dates of the design"
        )
    weighting = _checked_weights(weights, series.shape)
    Q, R = np.linalg.qr(design.matrix)
    back = np.linalg.inv(R)
    options = weights is not None, block_length
    return SeriesFit(*_fit(series, Q, back, design.rate @ back, weighting, *options))


def _checked_weights(weights: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Weights as float64, shape (dates, pixels), 0 where NaN; one number for none."""
    if weights is None:
        return np.ones((1, 1))
    given = np.asarray(weights, "float64")
    if given.shape not in (shape, shape[:1]):
        raise ValueError(
            f"weights have shape {given.shape}: they must have {shape} or {shape[:1]}, "
            "that of the displacement or of its dates"
        )
    if (given < 0).any() or np.isinf(given).any():
        raise ValueError("weights must be finite and not negative")
    given = np.nan_to_num(given, nan=0.0)
    full = given if given.ndim == 2 else np.broadcast_to(given[:, None], shape)
    return np.ascontiguousarray(full)


@njit(nogil=True, cache=True)
def _fit(series, Q, back, functional, weights, weighted, block_length):  # type: ignore[no-untyped-def]
    """All blocks of pixels; see `SeriesFit` for the outputs, in order."""
    dates, pixels = series.shape
    size = Q.shape[1]
    rate = np.empty(pixels)
    parameters = np.empty((size, pixels))
    count = np.empty(pixels, np.int64)
    square, lagged, gain, resampled = (
        np.empty(pixels),
        np.empty(pixels),
        np.empty(pixels),
        np.full(pixels, np.nan),
    )
    d = np.empty((dates, LANES))
    w = np.empty((dates, LANES))
    M = np.empty((size, size, LANES))
    b = np.empty((size, LANES))
    z = np.empty((size, LANES))
    number, rss, lag, before = (
        np.empty(LANES),
        np.empty(LANES),
        np.empty(LANES),
        np.empty(LANES),
    )
    regular = np.empty(LANES, np.bool_)
    for start in range(0, pixels, LANES):
        stop = min(start + LANES, pixels)
        gaps = _gather(series, weights, weighted, start, stop, d, w, number)
        _normal(d, w, Q, gaps or weighted, M, b)
        if not weighted:
            # Exactly what a block without gaps has, so that neighbours do not matter.
            for j in range(LANES):
                if number[j] == dates:
                    for k in range(size):
                        for m in range(k + 1):
                            M[k, m, j] = 1.0 if k == m else 0.0
        _factor(M, number, regular)
        for k in range(size):
            z[k, :] = functional[k]
        _solve(M, b, z)
        _residuals(d, w, Q, b, weighted, rss, lag, before)
        for j in range(stop - start):
            pixel = start + j
            count[pixel] = np.int64(number[j])
            if not regular[j]:
                rate[pixel] = gain[pixel] = np.nan
                square[pixel] = lagged[pixel] = np.nan
                parameters[:, pixel] = np.nan
                continue
            total, spread = 0.0, 0.0
            for k in range(size):
                total += functional[k] * b[k, j]
                spread += functional[k] * z[k, j]
                value = 0.0
                for m in range(k, size):
                    value += back[k, m] * b[m, j]
                parameters[k, pixel] = value
            rate[pixel], gain[pixel] = total, spread
            square[pixel], lagged[pixel] = rss[j], lag[j]
            if block_length > 0:
                resampled[pixel] = _resampled(d, w, Q, z, j, block_length)
    return rate, parameters, count, square, lagged, gain, resampled


@njit(nogil=True, cache=True)
def _gather(series, weights, weighted, start, stop, d, w, number):  # type: ignore[no-untyped-def]
    """Copy a block of pixels; whether any of them lacks a date."""
    # Rows are sliced first: numba cannot see that start + j is not negative, and would
    # not use vector instructions.
    number[:] = 0.0
    d[:, stop - start :] = 0.0
    w[:, stop - start :] = 0.0
    for i in range(series.shape[0]):
        row, values, there = series[i, start:stop], d[i], w[i]
        for j in range(row.size):
            value = np.float64(row[j])
            known = value - value == 0.0
            values[j] = value if known else 0.0
            there[j] = 1.0 if known else 0.0
            if not weighted:
                number[j] += there[j]
        if weighted:
            given = weights[i, start:stop]
            for j in range(row.size):
                there[j] *= given[j]
                number[j] += 1.0 if there[j] > 0.0 else 0.0
    return number[: stop - start].min() < series.shape[0]


@njit(nogil=True, cache=True)
def _normal(d, w, Q, general, M, b):  # type: ignore[no-untyped-def]
    """Normal matrix (lower triangle) and right-hand side."""
    dates, size = Q.shape
    b[:] = 0.0
    M[:] = 0.0
    for i in range(dates):
        values, weight = d[i], w[i]
        for k in range(size):
            q, right = Q[i, k], b[k]
            if not general:
                for j in range(LANES):
                    right[j] += q * values[j]
                continue
            for j in range(LANES):
                right[j] += q * (weight[j] * values[j])
            for m in range(k + 1):
                product, sums = q * Q[i, m], M[k, m]
                for j in range(LANES):
                    sums[j] += product * weight[j]
    if not general:
        for k in range(size):
            M[k, k, :] = 1.0


@njit(nogil=True, cache=True)
def _factor(M, number, regular):  # type: ignore[no-untyped-def]
    """Cholesky factor of every lane in place; which are regular."""
    size = M.shape[0]
    for j in range(LANES):
        regular[j] = number[j] >= size
    for k in range(size):
        for j in range(LANES):
            whole = M[k, k, j]
            pivot = whole
            for m in range(k):
                pivot -= M[k, m, j] * M[k, m, j]
            if not pivot > SINGULAR * whole:
                regular[j] = False
                pivot = 1.0
            M[k, k, j] = np.sqrt(pivot)
        for n in range(k + 1, size):
            for m in range(k):
                for j in range(LANES):
                    M[n, k, j] -= M[n, m, j] * M[k, m, j]
            for j in range(LANES):
                M[n, k, j] /= M[k, k, j]


@njit(nogil=True, cache=True)
def _solve(M, b, z):  # type: ignore[no-untyped-def]
    """Solve for two right-hand sides in place."""
    size = M.shape[0]
    for k in range(size):
        for m in range(k):
            for j in range(LANES):
                b[k, j] -= M[k, m, j] * b[m, j]
                z[k, j] -= M[k, m, j] * z[m, j]
        for j in range(LANES):
            b[k, j] /= M[k, k, j]
            z[k, j] /= M[k, k, j]
    for k in range(size - 1, -1, -1):
        for m in range(k + 1, size):
            for j in range(LANES):
                b[k, j] -= M[m, k, j] * b[m, j]
                z[k, j] -= M[m, k, j] * z[m, j]
        for j in range(LANES):
            b[k, j] /= M[k, k, j]
            z[k, j] /= M[k, k, j]


@njit(nogil=True, cache=True)
def _residuals(d, w, Q, b, weighted, rss, lag, before):  # type: ignore[no-untyped-def]
    """Turn series into residuals over root weight; their sums of products."""
    dates, size = Q.shape
    rss[:] = 0.0
    lag[:] = 0.0
    before[:] = 0.0
    for i in range(dates):
        values, weight = d[i], w[i]
        for k in range(size):
            q, parameter = Q[i, k], b[k]
            for j in range(LANES):
                values[j] -= q * parameter[j]
        if weighted:
            for j in range(LANES):
                values[j] *= np.sqrt(weight[j])
        else:
            for j in range(LANES):
                values[j] *= weight[j]
        for j in range(LANES):
            error = values[j]
            rss[j] += error * error
            lag[j] += error * before[j]
            before[j] = error if weight[j] > 0.0 else before[j]


@njit(nogil=True, cache=True)
def _resampled(d, w, Q, z, lane, length):  # type: ignore[no-untyped-def]
    """Variance of g @ errors over all samples of blocks of residuals of a lane.

    The dates used are cut into blocks from the first on; each block takes the residuals
    of as many consecutive dates, which begin at any date with equal chance and go on
    with the first after the last.
    """
    dates, size = Q.shape
    g, e = np.empty(dates), np.empty(dates)
    used = 0
    for i in range(dates):
        if w[i, lane] > 0.0:
            value = 0.0
            for k in range(size):
                value += Q[i, k] * z[k, lane]
            g[used] = value * np.sqrt(w[i, lane])
            e[used] = d[i, lane]
            used += 1
    variance = 0.0
    for begin in range(0, used, length):
        end = min(begin + length, used)
        total, power = 0.0, 0.0
        for shift in range(used):
            drawn = 0.0
            place = shift
            for i in range(begin, end):
                drawn += g[i] * e[place]
                place = place + 1 if place + 1 < used else 0
            total += drawn
            power += drawn * drawn
        variance += power / used - (total / used) ** 2
    return variance
