"""Is a stated standard deviation honest? Scores of Gaussian predictions against truth.

Nothing is removed before comparing, unlike in `scores`: estimate and truth must refer
to the same area and date, as the stated standard deviation does. Pixels that are NaN in
any of the three maps are left out.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri

LEVELS = (*(round(0.05 * k, 2) for k in range(1, 20)), 0.99)
"""Levels of `reliability_curve` unless told."""


def coverage(
    estimate: np.ndarray, std: np.ndarray, truth: np.ndarray, *, level: float = 0.68
) -> float:
    """Fraction of the truth inside the central interval that should hold `level` of it.

    Less than `level` is overconfidence. Pixels of one map share their errors, so a
    single scene scatters about the true coverage by far more than the number of pixels
    suggests: average over scenes.

    Parameters
    ----------
    estimate, std, truth : numpy.ndarray, one shape
        Estimate, its stated standard deviation and the truth, in one unit.
    level : float
        Probability in the interval, 0 < level < 1; 0.68 and 0.95 are customary.

    Returns
    -------
    float
        In 0..1; NaN without valid pixels.

    Raises
    ------
    ValueError
        If shapes differ, a standard deviation is negative or `level` is not in 0..1.
    """
    return float(reliability_curve(estimate, std, truth, levels=(level,))[0])


def reliability_curve(
    estimate: np.ndarray,
    std: np.ndarray,
    truth: np.ndarray,
    *,
    levels: Sequence[float] = LEVELS,
) -> xr.DataArray:
    """`coverage` at several levels: the diagonal is honest, below it is overconfident.

    Returns
    -------
    xarray.DataArray, dims (level,)
        Fraction covered, with the coordinate ``level``.
    """
    asked = np.asarray(levels, "float64")
    if asked.ndim != 1 or not np.all((asked > 0) & (asked < 1)):
        raise ValueError(f"levels={asked.tolist()} must be between 0 and 1")
    error, sigma = _errors(estimate, std, truth)
    half_width = ndtri((1 + asked) / 2)
    covered = [
        float(np.mean(np.abs(error) <= z * sigma)) if error.size else float("nan")
        for z in half_width
    ]
    return xr.DataArray(covered, {"level": asked}, ["level"], name="coverage")


def gaussian_crps(estimate: np.ndarray, std: np.ndarray, truth: np.ndarray) -> float:
    r"""Mean continuous ranked probability score of Gaussian predictions.

    .. math:: \sigma \left[ z (2\Phi(z) - 1) + 2\varphi(z) - \pi^{-1/2} \right],
        \quad z = (x - \mu) / \sigma

    (Gneiting and Raftery 2007, with the sign that makes small good). It
    rewards small errors and an honest standard deviation together; with a standard
    deviation of 0 it is the mean absolute error.

    Parameters
    ----------
    estimate, std, truth : numpy.ndarray, one shape
        In one unit.

    Returns
    -------
    float
        In the unit of the maps; NaN without valid pixels.

    Raises
    ------
    ValueError
        If shapes differ or a standard deviation is negative.
    """
    error, sigma = _errors(estimate, std, truth)
    if not error.size:
        return float("nan")
    z = np.abs(error) / np.where(sigma > 0, sigma, 1.0)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    score = sigma * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return float(np.mean(np.where(sigma > 0, score, np.abs(error))))


def _errors(
    estimate: np.ndarray, std: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Errors and standard deviations at the pixels valid in all three, 1-D, float64."""
    estimate, std, truth = (np.asarray(m, "float64") for m in (estimate, std, truth))
    if not estimate.shape == std.shape == truth.shape:
        raise ValueError(
            f"{estimate.shape=}, {std.shape=} and {truth.shape=} must be the same"
        )
    if np.any(std < 0):
        raise ValueError(f"std has the value {np.nanmin(std):g}: none may be negative")
    error = estimate - truth
    valid = np.isfinite(error) & np.isfinite(std)
    return error[valid], std[valid]
