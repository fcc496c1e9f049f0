"""How deformation evolves: factors by which a displacement field is multiplied.

Times are years from any origin (`cube_denoise.conventions.years_since`), results
float64 of the same shape. None is referred to the first date: subtract its value.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit


def linear(years: ArrayLike, *, origin: float = 0.0) -> np.ndarray:
    r"""Steady motion, :math:`t - t_0`.

    Parameters
    ----------
    years : array_like
        Times, years.
    origin : float
        Time at which it is zero, years.

    Returns
    -------
    numpy.ndarray, float64
        Years: to be multiplied by a velocity, m/yr.

    Raises
    ------
    ValueError
        If a time is not a finite number.
    """
    return _times(years) - origin


def step(years: ArrayLike, *, onset: float) -> np.ndarray:
    r"""Sudden offset, as of an earthquake: 0 where :math:`t < t_0`, else 1.

    Parameters
    ----------
    years : array_like
        Times, years.
    onset : float
        First time at which it has happened, years.

    Returns
    -------
    numpy.ndarray, float64
        Unitless.

    Raises
    ------
    ValueError
        If a time is not a finite number.
    """
    return np.where(_times(years) >= onset, 1.0, 0.0)


def exponential(years: ArrayLike, *, onset: float, tau: float) -> np.ndarray:
    r"""Relaxation, :math:`1 - e^{-(t - t_0)/\tau}` from :math:`t_0` on, 0 before.

    As of a magma chamber that fills, or of viscoelastic rock; it ends at 1.

    Parameters
    ----------
    years : array_like
        Times, years.
    onset : float
        :math:`t_0`, years.
    tau : float
        Decay time, years.

    Returns
    -------
    numpy.ndarray, float64
        Unitless, 0 to 1.

    Raises
    ------
    ValueError
        If `tau` is not positive or a time is not a finite number.
    """
    return -np.expm1(-_since(years, onset, tau))


def logarithmic(years: ArrayLike, *, onset: float, tau: float) -> np.ndarray:
    r"""Afterslip, :math:`\ln(1 + (t - t_0)/\tau)` from :math:`t_0` on, 0 before.

    The form of rate-strengthening friction (Marone, Scholz and Bilham, 1991, "On the
    mechanics of earthquake afterslip", JGR 96, 8441-8452).

    Parameters
    ----------
    years : array_like
        Times, years.
    onset : float
        :math:`t_0`, years.
    tau : float
        Time scale, years.

    Returns
    -------
    numpy.ndarray, float64
        Unitless, without bound; 1 at :math:`(e - 1)\tau` after the onset.

    Raises
    ------
    ValueError
        If `tau` is not positive or a time is not a finite number.
    """
    return np.log1p(_since(years, onset, tau))


def sigmoid(years: ArrayLike, *, centre: float, tau: float) -> np.ndarray:
    r"""Transient, as of slow slip: :math:`1 / (1 + e^{-(t - t_c)/\tau})`.

    Parameters
    ----------
    years : array_like
        Times, years.
    centre : float
        :math:`t_c`, time at which half has happened, years.
    tau : float
        Time scale, years; 76 % happens within 2 `tau` of `centre` on either side.

    Returns
    -------
    numpy.ndarray, float64
        Unitless, 0 to 1.

    Raises
    ------
    ValueError
        If `tau` is not positive or a time is not a finite number.
    """
    _check_tau(tau)
    return np.asarray(expit((_times(years) - centre) / tau))


def seasonal(
    years: ArrayLike,
    *,
    peak: float = 0.0,
    semiannual: float = 0.0,
    semiannual_peak: float = 0.0,
) -> np.ndarray:
    r"""Annual cycle of amplitude 1, with a semi-annual one if wanted.

    .. math:: \cos 2\pi(t - t_1) + b \cos 4\pi(t - t_2)

    Parameters
    ----------
    years : array_like
        Times, years.
    peak : float
        :math:`t_1`, a time at which the annual cycle is largest, years.
    semiannual : float
        :math:`b`, amplitude of the semi-annual cycle over that of the annual one.
    semiannual_peak : float
        :math:`t_2`, a time at which the semi-annual cycle is largest, years.

    Returns
    -------
    numpy.ndarray, float64
        Unitless; its mean over a whole year is zero.

    Raises
    ------
    ValueError
        If a time is not a finite number.
    """
    t = _times(years)
    annual = np.cos(2 * np.pi * (t - peak))
    return annual + semiannual * np.cos(4 * np.pi * (t - semiannual_peak))


def piecewise_linear(
    years: ArrayLike, *, knots: Sequence[float], values: Sequence[float]
) -> np.ndarray:
    """Straight lines through (knots, values); the end values hold outside.

    Parameters
    ----------
    years : array_like
        Times, years.
    knots : sequence of float
        Times of the corners, years, increasing; two or more.
    values : sequence of float
        At the knots, as many.

    Returns
    -------
    numpy.ndarray, float64
        In the unit of `values`.

    Raises
    ------
    ValueError
        If the knots are fewer than two or do not increase, if there is not one finite
        value for each, or if a time is not a finite number.
    """
    x, y = np.asarray(knots, float), np.asarray(values, float)
    if x.ndim != 1 or x.size < 2 or not (np.diff(x) > 0).all():
        raise ValueError(f"{knots=} must be two or more increasing times (years)")
    if y.shape != x.shape or not np.isfinite(y).all():
        raise ValueError(
            f"{values=} must be {x.size} finite numbers, one for each knot"
        )
    return np.asarray(np.interp(_times(years), x, y))


def _since(years: ArrayLike, onset: float, tau: float) -> np.ndarray:
    """Time since the onset over `tau`, 0 before it."""
    _check_tau(tau)
    return np.maximum(_times(years) - onset, 0.0) / tau


def _check_tau(tau: float) -> None:
    if not tau > 0:
        raise ValueError(f"{tau=} must be positive (years)")


def _times(years: ArrayLike) -> np.ndarray:
    given = np.asarray(years)
    if given.dtype.kind not in "iuf":
        raise ValueError(
            f"years of type {given.dtype} must be numbers; `years_since` makes them "
            "from dates"
        )
    times = given.astype(float)
    if not np.isfinite(times).all():
        raise ValueError("years must be finite; found NaN or infinity")
    return times
