"""Similarity of an estimated map to the true one: correlation and two kinds of SSIM.

A pixel that is NaN in either map is left out; a flat truth has no similarity (NaN).
"""

import numpy as np
from scipy.ndimage import gaussian_filter

RADIUS, SIGMA = 5, 1.5
"""Half width and standard deviation of the window of `ssim`, px (Wang et al. 2004)."""

K1, K2 = 0.01, 0.03
"""Constants of `ssim` in parts of the range of the truth (Wang et al. 2004)."""


def correlation(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Pearson correlation over the pixels valid in both; NaN if either is flat there.

    Blind to a constant and to the amplitude: a source attenuated tenfold scores 1. Read
    it beside `scores.amplitude_slope`.
    """
    e, t = _common(estimate, truth)
    if e.size == 0 or np.ptp(e) == 0 or np.ptp(t) == 0:
        return float("nan")
    e, t = e - e.mean(), t - t.mean()
    return float(np.sum(e * t) / np.sqrt(np.sum(e**2) * np.sum(t**2)))


def ssim_poster(estimate: np.ndarray, truth: np.ndarray) -> float:
    r"""SSIM as printed in the DnCNN poster (Li and Sagiya).

    .. math:: \mathrm{SSIM} = \frac{2\mu_x\mu'_x}{\mu_x^2 + \mu'^2_x} \times
        \frac{2\sigma_x\sigma'_x}{\sigma_x^2 + \sigma'^2_x}

    with the mean and standard deviation of each whole map. There is no covariance: it
    is blind to the pattern, and scores 1 for the truth with its pixels shuffled or
    mirrored about its mean. It depends on the constant of the maps, which an
    interferogram does not know. For comparison with the poster only.

    Both maps are put on the poster's scale of 0 to 255 by the range of the truth,
    without clipping the estimate; which range the poster uses is not said there.

    Parameters
    ----------
    estimate, truth : numpy.ndarray, one shape
        In one unit; NaN = no data.

    Returns
    -------
    float
        1 for equal mean and spread, 0 for a flat estimate; NaN if the truth is flat.
    """
    e, t = _common(estimate, truth)
    if e.size == 0 or np.ptp(t) == 0:
        return float("nan")
    low, span = t.min(), np.ptp(t)
    e, t = 255 * (e - low) / span, 255 * (t - low) / span
    mean = 2 * t.mean() * e.mean() / (t.mean() ** 2 + e.mean() ** 2)
    return float(mean * 2 * t.std() * e.std() / (t.var() + e.var()))


def ssim(estimate: np.ndarray, truth: np.ndarray) -> float:
    r"""Mean structural similarity in windows (Wang et al. 2004, equation 13).

    .. math:: \mathrm{SSIM} = \frac{(2\mu_x\mu_y + C_1)(2\sigma_{xy} + C_2)}
        {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}

    with Gaussian windows of 11 x 11 px and 1.5 px, :math:`C_i = (K_i L)^2`,
    :math:`K = 0.01, 0.03` and L the range of the truth, averaged over the pixels whose
    window lies inside the map. As an interferogram is known up to a constant, the
    estimate is given the mean of the truth over the valid pixels first. Then both are
    put on the scale of an image, 0 to L, by subtracting the minimum of the truth:
    about zero the first factor would turn over with the sign and hide a flipped map.
    The first factor is therefore strictest where the truth is lowest, and a map and
    its negative do not score alike. Missing pixels have no weight in the windows
    around them, and windows centred on one are left out.

    Parameters
    ----------
    estimate, truth : numpy.ndarray, shape (rows, columns)
        In one unit; NaN = no data.

    Returns
    -------
    float
        1 for maps that are equal up to a constant; NaN if the truth is flat.

    Raises
    ------
    ValueError
        If a map is not two-dimensional, or smaller than the window.
    """
    valid = _valid(estimate, truth)
    size = 2 * RADIUS + 1
    if valid.ndim != 2 or min(valid.shape) < size:
        raise ValueError(
            f"maps of shape {valid.shape} must have two dimensions of at least {size} "
            "px, the window of ssim"
        )
    inner = (slice(RADIUS, -RADIUS),) * 2
    if not valid[inner].any() or np.ptp(truth[valid]) == 0:
        return float("nan")
    e, t = _common(estimate, truth)
    low, span = t.min(), np.ptp(t)
    e, t = (_filled(v, valid) for v in (e - e.mean() + t.mean() - low, t - low))
    weight = _smooth(valid.astype("float64"))[inner]

    def local(values: np.ndarray) -> np.ndarray:
        return _smooth(values)[inner] / np.where(valid[inner], weight, np.nan)

    mean_e, mean_t = local(e), local(t)
    spread_e, spread_t = local(e**2) - mean_e**2, local(t**2) - mean_t**2
    shared = local(e * t) - mean_e * mean_t
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    index = (2 * mean_e * mean_t + c1) * (2 * shared + c2)
    index /= (mean_e**2 + mean_t**2 + c1) * (spread_e + spread_t + c2)
    return float(np.nanmean(index))


def _valid(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    if estimate.shape != truth.shape:
        raise ValueError(f"{estimate.shape=} must be that of truth, {truth.shape}")
    return np.isfinite(estimate) & np.isfinite(truth)


def _common(estimate: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values at the pixels valid in both, 1-D, float64."""
    valid = _valid(estimate, truth)
    return estimate[valid].astype("float64"), truth[valid].astype("float64")


def _filled(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The map that has these values at its valid pixels and 0 elsewhere."""
    filled = np.zeros(valid.shape)
    filled[valid] = values
    return filled


def _smooth(values: np.ndarray) -> np.ndarray:
    return gaussian_filter(values, SIGMA, mode="constant", radius=RADIUS)
