r"""Variance of a velocity whose errors are correlated in time.

The error of a displacement series is taken as the sum of two parts (errors that a
correction states are treated like the first, `correction_errors`):

* what decorrelation left, whose covariance C over the dates the network inversion
  propagates, with a scale that the residuals of the pairs give; it contributes
  :math:`g^T C g` to the variance of a rate that is the product of the row g with the
  series, and the trace of P C to the expected sum of squared residuals, P being the
  projection onto what the model leaves;
* what is left of those residuals then, atmosphere above all, of which the pairs know
  nothing since it is the same in all pairs of a date. Errors independent from date to
  date would contribute :math:`\sigma^2 |g|^2`; correlation multiplies that by an
  `Inflation`.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cube_denoise.time_fit import SeriesFit
from cube_denoise.time_models import Design

STEPS = 33
"""Values of the autocorrelation in a table."""
COUNTS = 6
"""Numbers of dates for which a table is made."""
CORRELATION_TIMES = 24
CAUTION = 2.0
"""How far an autocorrelation is raised (`Inflation`); from simulated series."""
FEWEST = 3
"""Residual degrees of freedom from which on an autocorrelation is estimated."""


@dataclass(frozen=True, eq=False)
class Inflation:
    r"""How much correlated errors raise the variance of a rate over independent ones.

    For first-order autoregressive errors, correlation :math:`e^{-|t - t'|/\tau}`, the
    residuals of a fit have in the mean the autocorrelation

    .. math:: r(\tau) = \frac{tr(P H P R)}{tr(P R)}, \qquad
        f(\tau) = \frac{g^T R g}{g^T g} \, \frac{N - p}{tr(P R)}

    at the lag of one date (H has 1/2 beside the diagonal), and f is by how much
    :math:`\sum e^2 |g|^2 / (N - p)` is too small. Both grow with :math:`\tau`, to those
    of a random walk. The table is f as a function of r: the autocorrelation found in a
    series gives the factor, with the bias corrected that the fit, the number of dates
    and their spacing have. It stands for the effective sample size
    :math:`N (1 - \rho) / (1 + \rho)`, which takes the autocorrelation as known.

    That of a single series scatters, and the interval is too short more often than it
    is too long. So the place u of r between its ends (0 to 1) is raised by
    :math:`2 N^{-1/2} u (1 - u)`: this project's choice, with which 68 % intervals held
    63 to 73 % of simulated truths for correlation times up to a quarter of the span.
    """

    counts: np.ndarray
    """Numbers of dates the table is for, increasing, the last one all dates."""
    lowest: np.ndarray
    """Residual autocorrelation of independent errors, one per count; f = 1 below."""
    highest: np.ndarray
    """That of a random walk, one per count; its f above."""
    table: np.ndarray
    """f at `STEPS` autocorrelations evenly from lowest to highest, shape (counts,
    STEPS)."""

    def __call__(self, autocorrelation: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Factor on the variance; 1 where the table has no row for so few dates."""
        row = np.searchsorted((self.counts[1:] + self.counts[:-1]) / 2, count)
        low, high = self.lowest[row], self.highest[row]
        with np.errstate(invalid="ignore"):
            place = np.clip((autocorrelation - low) / (high - low), 0.0, 1.0)
        place = np.nan_to_num(place) * (STEPS - 1)
        left = np.minimum(place.astype(np.intp), STEPS - 2)
        part = place - left
        factor = (1 - part) * self.table[row, left] + part * self.table[row, left + 1]
        return np.where(count < self.counts[0], 1.0, factor)


def inflation(design: Design) -> Inflation:
    """Make the table of a design.

    For pixels that lack dates it has rows of fewer ones, spread evenly.

    Parameters
    ----------
    design : time_models.Design

    Returns
    -------
    Inflation

    Raises
    ------
    ValueError
        If there are not at least `FEWEST` dates more than parameters.
    """
    dates, size = design.matrix.shape
    if dates < size + FEWEST:
        raise ValueError(
            f"{dates} dates and {size} parameters: an autocorrelation needs {FEWEST} "
            "dates more than parameters"
        )
    return _inflation(
        design.matrix.tobytes(), design.years.tobytes(), design.rate.tobytes(), size
    )


@lru_cache(maxsize=8)
def _inflation(matrix: bytes, years: bytes, rate: bytes, size: int) -> Inflation:
    G = np.frombuffer(matrix).reshape(-1, size)
    t, a = np.frombuffer(years), np.frombuffer(rate)
    counts = np.unique(np.geomspace(size + FEWEST, t.size, COUNTS).round().astype(int))
    found = []
    for count in counts:
        kept = np.unique(np.linspace(0, t.size - 1, count).round().astype(int))
        found.append(_curve(G[kept], t[kept], a))
    lowest, highest, table = (np.array(v) for v in zip(*found, strict=True))
    return Inflation(counts, lowest, highest, table)


def _curve(
    G: np.ndarray, t: np.ndarray, rate: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Lowest and highest autocorrelation and the factors between, for some dates."""
    inverse = np.linalg.pinv(G)
    g = rate @ inverse
    # Fewer dates may leave out what determines a parameter.
    dates, freedom = t.size, t.size - np.linalg.matrix_rank(G)
    apart = np.abs(t[:, None] - t)
    reach = np.geomspace(np.diff(t).min() / 5, 10 * (t[-1] - t[0]), CORRELATION_TIMES)
    # A random walk has the generalised covariance -|t - t'|: g and the residuals do not
    # see the constant that would make it one.
    kinds = [np.eye(dates), *(np.exp(-apart / tau) for tau in reach), -apart]
    r, f = np.empty(len(kinds)), np.empty(len(kinds))
    for k, R in enumerate(kinds):
        PR = R - G @ (inverse @ R)
        PRP = PR - (PR @ G) @ inverse
        trace = np.trace(PRP)
        r[k] = np.trace(PRP, offset=1) / trace
        f[k] = (g @ R @ g) / (g @ g) * freedom / trace
    r = np.maximum.accumulate(r)
    place = np.linspace(0.0, 1.0, STEPS)
    place += CAUTION / np.sqrt(dates) * place * (1 - place)
    return r[0], r[-1], np.interp(r[0] + np.minimum(place, 1.0) * (r[-1] - r[0]), r, f)


def rate_variance(
    fit: SeriesFit,
    parameters: int,
    *,
    factor: np.ndarray | float = 1.0,
    propagated: np.ndarray | None = None,
    expected: np.ndarray | None = None,
) -> np.ndarray:
    r"""Variance of the rate, (m/yr)^2.

    .. math:: \sigma_v^2 = f \, \max\left(0, \frac{\sum e^2 - tr(P C)}{N - p}\right)
        g^T g + g^T C g

    Without C, and with f = 1, this is equation 10 of Fattahi and Amelung (2015).

    Parameters
    ----------
    fit : time_fit.SeriesFit
        Of the series.
    parameters : int
        Number of parameters of its model, p.
    factor : numpy.ndarray or float
        f, from `Inflation`.
    propagated : numpy.ndarray, shape (pixels,), optional
        :math:`g^T C g`, (m/yr)^2: what decorrelation contributes.
    expected : numpy.ndarray, shape (pixels,), optional
        The trace of P C, m^2: what of the squared residuals it explains.

    Returns
    -------
    numpy.ndarray, shape (pixels,)
        NaN where the rate is, or where there are no more dates than parameters.

    Raises
    ------
    ValueError
        If one of `propagated` and `expected` is given without the other.
    """
    if (propagated is None) != (expected is None):
        raise ValueError(
            "propagated and expected describe one covariance: give both or neither"
        )
    freedom = np.where(fit.used > parameters, fit.used - parameters, np.nan)
    left = fit.square if expected is None else np.maximum(fit.square - expected, 0.0)
    variance = factor * left / freedom * fit.gain
    return variance if propagated is None else variance + propagated


def bootstrap_factor(fit: SeriesFit) -> np.ndarray:
    r"""Factor f of `rate_variance` that the block bootstrap over dates gives.

    It is the bootstrap in the limit of infinitely many samples (`time_fit.fit_series`),
    for which no random number is drawn. The residuals are raised by
    :math:`\sqrt{N / (N - p)}` for the parameters fitted.

    Returns
    -------
    numpy.ndarray, shape (pixels,)
        1 where there are no residuals.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = fit.resampled * fit.used / (fit.square * fit.gain)
    return np.where(fit.square > 0, factor, 1.0)


def block_length(dates: int) -> int:
    """Dates in a block of the bootstrap: 1.5 times their cube root, rounded up."""
    return int(np.ceil(1.5 * np.cbrt(dates)))
