"""Scores against truth; none of them can be won by outputting zero alone.

All maps are compared after removing the mean over the pixels that are valid in both:
interferograms are known up to a constant.
"""

import numpy as np


def _centred(*maps: np.ndarray) -> list[np.ndarray]:
    """Return the maps on their common valid pixels, 1-D, float64, means removed."""
    valid = np.logical_and.reduce([np.isfinite(m) for m in maps])
    kept = [m[valid].astype("float64") for m in maps]
    return [m - m.mean() if m.size else m for m in kept]


def rms_error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square of estimate minus truth, in their unit; NaN without overlap."""
    e, t = _centred(estimate, truth)
    return float(np.sqrt(np.mean((e - t) ** 2))) if e.size else float("nan")


def amplitude_slope(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Slope of the regression of estimate on truth where the truth deforms.

    1 keeps the deformation, 0 loses it. Only pixels where the magnitude of the truth
    (relative to its median) is over a tenth of its largest count; NaN when the truth
    is flat.
    """
    valid = np.isfinite(estimate) & np.isfinite(truth)
    t = np.where(valid, truth, np.nan).astype("float64")
    if not valid.any():
        return float("nan")
    size = np.abs(t - np.nanmedian(t))
    largest = np.nanmax(size)
    if largest == 0:
        return float("nan")
    inside = valid & (np.nan_to_num(size) > 0.1 * largest)
    e, t = _centred(estimate[inside], truth[inside])
    power = float(np.sum(t**2))
    return float(np.sum(e * t) / power) if power > 0 else float("nan")


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
