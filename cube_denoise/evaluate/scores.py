"""Scores against truth; none of them can be won by outputting zero alone.

All maps are compared after removing the mean over the pixels that are valid in both:
interferograms are known up to a constant. Estimates and truths share one unit (m, mm,
m/yr or rad), in which errors are given; ratios have none. A pixel that is NaN in any of
the maps compared is left out, and a score of nothing is NaN.
"""

from collections.abc import Sequence

import numpy as np


def _centred(*maps: np.ndarray) -> list[np.ndarray]:
    """Return the maps on their common valid pixels, 1-D, float64, means removed."""
    valid = np.logical_and.reduce([np.isfinite(m) for m in maps])
    kept = [m[valid].astype("float64") for m in maps]
    return [m - m.mean() if m.size else m for m in kept]


def _source(truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Valid pixels where the truth is over a tenth of its largest from its median."""
    t = np.where(valid, truth, np.nan).astype("float64")
    if not valid.any():
        return np.zeros(t.shape, bool)
    size = np.nan_to_num(np.abs(t - np.nanmedian(t)))
    return valid & (size > 0.1 * size.max())


def rms_error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square of estimate minus truth, in their unit; NaN without overlap."""
    e, t = _centred(estimate, truth)
    return float(np.sqrt(np.mean((e - t) ** 2))) if e.size else float("nan")


def percentile_error(
    estimate: np.ndarray, truth: np.ndarray, *, percentile: float = 95.0
) -> float:
    """Percentile of the magnitude of estimate minus truth, in their unit.

    Raises
    ------
    ValueError
        If `percentile` is not in 0..100.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"{percentile=} must be in 0..100")
    e, t = _centred(estimate, truth)
    return float(np.percentile(np.abs(e - t), percentile)) if e.size else float("nan")


def bias(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Mean of estimate minus truth inside the source, relative to the far field.

    A map is known up to a constant, so its mean error says nothing; what a constant
    cannot change is the error where the truth deforms less that where it does not.
    The source is where the truth differs from its median by more than a tenth of the
    largest such difference, the far field is the rest. In the unit of the maps,
    positive where the estimate is too high: a denoiser that attenuates gives uplift a
    negative and subsidence a positive bias. NaN when the truth is flat.
    """
    valid = np.isfinite(estimate) & np.isfinite(truth)
    inside = _source(truth, valid)
    outside = valid & ~inside
    if not inside.any() or not outside.any():
        return float("nan")
    error = np.subtract(estimate, truth, dtype="float64")
    return float(error[inside].mean() - error[outside].mean())


def reduction(estimate: np.ndarray, raw: np.ndarray, truth: np.ndarray) -> float:
    """Relative reduction of the rms error, 1 - rms(estimate) / rms(raw).

    1 is a perfect estimate, 0 that of a model that does nothing, negative one that
    does harm. Both errors are taken over the pixels that are valid in all three maps:
    masking the worst pixels gains nothing. NaN when the raw map has no error.
    """
    e, r, t = _centred(estimate, raw, truth)
    before = float(np.sum((r - t) ** 2))
    if not before > 0:
        return float("nan")
    return 1 - float(np.sqrt(np.sum((e - t) ** 2) / before))


def snr(truth: np.ndarray, noisy: np.ndarray) -> float:
    r"""Signal-to-noise ratio of the DnCNN poster (Li and Sagiya), a power ratio.

    .. math:: \mathrm{SNR} = P_x / P_{y - x}

    with the truth x and the noisy map y. Power is the mean square after removing the
    mean; the poster does not say whether it removes it. Infinite without noise, NaN
    when there is neither signal nor noise.
    """
    t, y = _centred(truth, noisy)
    power, noise = float(np.sum(t**2)), float(np.sum((y - t) ** 2))
    if noise > 0:
        return power / noise
    return float("inf") if power > 0 else float("nan")


def amplitude_slope(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Slope of the regression of estimate on truth where the truth deforms.

    1 keeps the deformation, 0 loses it. Only pixels where the magnitude of the truth
    (relative to its median) is over a tenth of its largest count; NaN when the truth
    is flat.
    """
    inside = _source(truth, np.isfinite(estimate) & np.isfinite(truth))
    e, t = _centred(estimate[inside], truth[inside])
    power = float(np.sum(t**2))
    return float(np.sum(e * t) / power) if power > 0 else float("nan")


def detection_threshold(
    amplitudes: Sequence[float] | np.ndarray,
    correlations: Sequence[float] | np.ndarray,
    *,
    level: float = 0.7,
) -> float:
    """Smallest amplitude of a source whose estimate correlates with it over `level`.

    Parameters
    ----------
    amplitudes : sequence of float, length n
        Amplitudes tried, all positive, in any order and unit.
    correlations : sequence of float, length n
        Correlation of estimate and truth at each; NaN (a flat estimate) is a source
        that was not found.
    level : float
        Correlation at which a source counts as found.

    Returns
    -------
    float
        In the unit of `amplitudes`: where the correlation first passes `level`, linear
        in the logarithm of the amplitude between the two amplitudes around it. NaN if
        it never does; the smallest amplitude tried (an upper bound) if it always does.

    Raises
    ------
    ValueError
        If the lengths differ, or an amplitude is not positive and finite.

    Examples
    --------
    >>> round(detection_threshold([1.0, 100.0], [0.5, 0.9]), 9)
    10.0
    """
    a, r = (np.asarray(v, "float64") for v in (amplitudes, correlations))
    if a.ndim != 1 or a.shape != r.shape:
        raise ValueError(
            f"amplitudes of shape {a.shape} and correlations of shape {r.shape} must "
            "be two sequences of one length"
        )
    if not np.all((a > 0) & np.isfinite(a)):
        raise ValueError(f"amplitudes={a.tolist()} must be positive and finite")
    order = np.argsort(a)
    a, r = a[order], r[order]
    over = r > level
    if not over.any():
        return float("nan")
    k = int(over.argmax())
    if k == 0 or not np.isfinite(r[k - 1 : k + 1]).all():
        return float(a[k])
    share = (level - r[k - 1]) / (r[k] - r[k - 1])
    return float(a[k - 1] * (a[k] / a[k - 1]) ** share)


def false_alarm(estimate: np.ndarray) -> float:
    """99th percentile of the magnitude of an estimate whose truth is zero."""
    (e,) = _centred(estimate)
    return float(np.quantile(np.abs(e), 0.99)) if e.size else float("nan")


def seam_energy(field: np.ndarray, spacing: int) -> float:
    """Mean square step across lines every `spacing` pixels over that elsewhere.

    1 means that the lines cannot be told from the rest of the field; blocks that do
    not join give more.
    """
    ratios = []
    for axis in (0, 1):
        steps = np.diff(field, axis=axis) ** 2
        at = np.arange(1, field.shape[axis]) % spacing == 0
        if at.any() and not at.all():
            on = np.nanmean(np.compress(at, steps, axis))
            ratios.append(on / np.nanmean(np.compress(~at, steps, axis)))
    return float(np.mean(ratios)) if ratios else float("nan")
