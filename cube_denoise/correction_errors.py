r"""Errors that a correction left in displacement series, as its network states them.

A network that sees all dates states a standard deviation :math:`s_i` of every date and
which part q of the variance is that of a trend: motion that is missed, or made up, is
much alike on all dates. The errors of a pixel, and by themselves those of the reference
area, which is taken off it, are given the covariance

.. math:: S = (1 - q) \, diag(s_i^2) + q \, u u^T, \qquad
    u_i = s_i \, sgn(t_i - \bar t),

whose diagonal is that of the standard deviations whatever q is. Where they grow from
the middle of the dates to both ends, as networks state them, u is a straight line. S
contributes :math:`g^T S g` to the variance of a rate
and the trace of P S to the squared residuals that are to be expected
(`rate_error.rate_variance`).
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window
from cube_denoise.conventions import CORRECTION_TIME
from cube_denoise.reference import area_means, read_window
from cube_denoise.reference_area import ReferenceArea
from cube_denoise.time_models import Design

STATED = ("correction_std", "correction_trend_share")
"""Variables that say it."""
PIECE = 1 << 14
"""Pixels at a time."""


@dataclass(frozen=True)
class StatedErrors:
    """What a cube says of the errors of its corrected phase."""

    dates: np.ndarray
    """Position in ``correction_time`` of every date of the series; -1 = none."""
    reference_std: np.ndarray
    """Of the reference area, on every date of the series, m; float64."""
    reference_share: float
    """Part of its variance that is of a trend."""

    def rate_terms(
        self, cube: xr.Dataset, window: Window, displacement: np.ndarray, design: Design
    ) -> tuple[np.ndarray, np.ndarray]:
        """What they contribute in a window.

        Parameters
        ----------
        cube : xarray.Dataset
        window : mapping of str to slice
            Along y and x.
        displacement : numpy.ndarray, shape (dates, pixels)
            Of that window, NaN = no data.
        design : time_models.Design
            Of these dates.

        Returns
        -------
        rate_variance : numpy.ndarray, float64, shape (pixels,)
            :math:`g^T S g`, (m/yr)^2.
        scatter : numpy.ndarray, float64, shape (pixels,)
            :math:`tr(P S)`, m^2.
        """
        stated, share = (read_window(cube, name, window) for name in STATED)
        flat = stated.reshape(stated.shape[0], -1)
        rate, scatter = np.empty((2, share.size))
        for start in range(0, share.size, PIECE):
            here = slice(start, start + PIECE)
            there = np.isfinite(displacement[:, here])
            std = flat[:, here][self.dates].astype("float64")
            std[self.dates < 0] = np.nan
            pixel, reference = (
                (_filled(std, there), share.ravel()[here].astype("float64")),
                (self.reference_std[:, None], np.asarray(self.reference_share)),
            )
            rate[here], scatter[here] = propagated(there, design, pixel, reference)
        return rate, scatter


def stated_errors(
    cube: xr.Dataset, variable: str, area: ReferenceArea, times: np.ndarray
) -> StatedErrors | None:
    """Return what a cube says of the errors of a phase; None if nothing.

    Parameters
    ----------
    cube : xarray.Dataset
    variable : str
        Phase that is inverted.
    area : ReferenceArea
        Which is read.
    times : numpy.ndarray of datetime64, shape (dates,)
        Of the series.
    """
    if variable != "corrected_phase" or not all(name in cube for name in STATED):
        return None
    made = [
        [cube[name].attrs.get(key) for key in ("method", "model_sha256")]
        for name in (variable, *STATED)
    ]
    if any(other != made[0] for other in made):
        return None  # of another correction
    std, share = (area_means(cube, name, area) for name in STATED)
    own = cube[CORRECTION_TIME].values
    place = np.searchsorted(own, times).clip(max=own.size - 1)
    dates = np.where(own[place] == times, place, -1)
    stated = np.where(dates >= 0, std[dates], np.nan)[:, None]
    reference = _filled(stated, np.ones(stated.shape, bool))
    return StatedErrors(dates, reference[:, 0], float(share))


def propagated(
    there: np.ndarray, design: Design, *errors: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the rate, and expected squared residuals, of independent errors.

    Each pixel by itself: the same to the bit whatever stands beside it.

    Parameters
    ----------
    there : numpy.ndarray of bool, shape (dates, pixels)
        Dates that the fit uses.
    design : time_models.Design
        Of all dates.
    *errors : (numpy.ndarray, numpy.ndarray)
        Standard deviations s, m, shape (dates, pixels) or (dates, 1), and the part q of
        the variance that is of a trend, shape (pixels,) or ().

    Returns
    -------
    rate_variance, scatter : numpy.ndarray, shape (pixels,)
        (m/yr)^2 and m^2, sums over the `errors`.
    """
    Q, R = np.linalg.qr(design.matrix)
    size, (dates, pixels) = Q.shape[1], there.shape
    normal = np.zeros((pixels, size, size))
    count, time = np.zeros((2, pixels))
    for i in range(dates):
        normal += there[i][:, None, None] * np.multiply.outer(Q[i], Q[i])
        count += there[i]
        time += there[i] * design.years[i]
    inverse = np.linalg.pinv(normal, hermitian=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = time / count
        side = np.sign(np.where(there, design.years[:, None] - mean, 0.0))
    rate = design.rate @ np.linalg.inv(R)
    solved = [_product(inverse[:, k], rate) for k in range(size)]
    variance, scatter = np.zeros((2, pixels))
    trends = [np.zeros((2 + size, pixels)) for _ in errors]
    for i in range(dates):
        gain = there[i] * sum(z * q for z, q in zip(solved, Q[i], strict=True))
        solved_row = [_product(inverse[:, k], Q[i]) for k in range(size)]
        leverage = sum(a * q for a, q in zip(solved_row, Q[i], strict=True))
        for (std, share), sums in zip(errors, trends, strict=True):
            own = np.where(there[i], (1 - share) * std[i] ** 2, 0.0)
            variance += gain**2 * own
            scatter += own * (1 - leverage)
            along = np.where(there[i], std[i] * side[i], 0.0)
            sums[0] += gain * along
            sums[1] += along**2
            for k in range(size):
                sums[2 + k] += Q[i, k] * along
    for (_, share), (gained, square, *seen) in zip(errors, trends, strict=True):
        fitted = sum(
            seen[k] * inverse[:, k, m] * seen[m]
            for k in range(size)
            for m in range(size)
        )
        variance += share * gained**2
        scatter += share * np.maximum(square - fitted, 0.0)
    return variance, scatter


def _product(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Rows times a vector, summed in one order whatever their number."""
    total = np.zeros(rows.shape[0])
    for k, value in enumerate(vector):
        total += rows[:, k] * value
    return total


def _filled(std: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Dates for which a pixel has none get the root mean square of its others."""
    known = np.isfinite(std)
    if known[there].all():
        return std
    square = np.where(known, std, 0.0) ** 2
    with np.errstate(invalid="ignore"):
        mean = np.sqrt(sum(square) / known.sum(0))
    return np.where(known, std, mean)
