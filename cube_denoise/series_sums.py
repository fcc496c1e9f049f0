"""Velocity and quality of an inversion from sums over its pairs and dates."""

import numpy as np

from cube_denoise.conventions import phase_to_displacement
from cube_denoise.inversion.continuation import (
    CLOSURE,
    COSINE,
    DATA,
    DATES,
    DD,
    LAG_D,
    LAG_DD,
    LAG_T,
    LAG_TD,
    LAG_TT,
    MISFIT,
    ONE_ONE,
    ONE_TIME,
    PAIRS,
    SINE,
    SQUARE,
    TD,
    TIME_TIME,
    TRIPLETS,
    TT,
    VARIANCE,
    D,
    T,
)
from cube_denoise.inversion_window import Settings
from cube_denoise.time_fit import SeriesFit
from cube_denoise.time_models import linear_design
from cube_denoise.velocity import rate_std


def maps_of(
    sums: np.ndarray, years: np.ndarray, settings: Settings, wavelength: float
) -> dict[str, np.ndarray]:
    """Maps of an inversion, as `invert.invert` gives them.

    Parameters
    ----------
    sums : numpy.ndarray, float64, shape (`continuation.SUMS`, pixels)
        Over all pairs and dates.
    years : numpy.ndarray, shape (dates,)
        Of all dates, from the first.
    settings : invert.Settings
        With a linear model.
    wavelength : float
        m.

    Returns
    -------
    dict of numpy.ndarray, shape (pixels,)
        By name of the variable.
    """
    metres = float(phase_to_displacement(1.0, wavelength))
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs, dates = sums[PAIRS], sums[DATES]
        fit = line_fit(sums, metres)
        spread = 1 / fit.gain
        scale = sums[MISFIT] / np.where(pairs > dates - 1, pairs - dates + 1, np.nan)
        mean = sums[T] / dates
        whole = scale * sums[ONE_ONE]
        rate = scale * (
            sums[TIME_TIME] - 2 * mean * sums[ONE_TIME] + mean**2 * sums[ONE_ONE]
        )
        scatter = scale * sums[VARIANCE] - whole / dates - rate / spread
        return {
            "velocity": fit.rate,
            "velocity_std": rate_std(
                fit,
                linear_design(years),
                uncertainty=settings.uncertainty,
                propagated=np.nan_to_num(rate / spread**2) * metres**2,
                expected=np.nan_to_num(scatter) * metres**2,
            ),
            "temporal_coherence": np.hypot(sums[COSINE], sums[SINE]) / pairs,
            "residual_rms": np.sqrt(sums[SQUARE] / pairs),
            "closure_rms": np.sqrt(sums[CLOSURE] / sums[TRIPLETS]),
            "pair_count": pairs,
            "gap_count": np.where(sums[DATA] > 0, years.size - dates, -1),
        }


def line_fit(sums: np.ndarray, scale: float) -> SeriesFit:
    """Fit a line to the linked dates, in units of `scale` per radian."""
    n = sums[DATES]
    n = np.where(n > 1, n, np.nan)
    t, d = sums[T] / n, sums[D] / n
    spread = sums[TT] - t * sums[T]
    rate = (sums[TD] - t * sums[D]) / spread
    offset = d - rate * t
    square = sums[DD] - d * sums[D] - rate**2 * spread
    lagged = (
        sums[LAG_DD]
        - offset * sums[LAG_D]
        - rate * sums[LAG_TD]
        + offset**2 * (n - 1)
        + offset * rate * sums[LAG_T]
        + rate**2 * sums[LAG_TT]
    )
    return SeriesFit(
        rate=scale * rate,
        parameters=scale * np.stack([offset, rate]),
        used=sums[DATES].astype("int64"),
        square=scale**2 * np.maximum(square, 0.0),
        lagged=scale**2 * lagged,
        gain=1 / spread,
        resampled=np.full(n.size, np.nan),
    )
