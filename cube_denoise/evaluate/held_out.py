r"""Prediction of dates that a correction has not seen: an error zero cannot win.

The atmosphere of a date is independent of that of the others while the ground moves
smoothly in time. For a prediction f made from other dates of the raw displacement
:math:`x_k = d_k + a_k` of date k (d deformation, a atmosphere)

.. math:: E\,\|f - x_k\|^2 = E\,\|f - d_k\|^2 + \mathrm{var}(a_k)

(Noise2Noise, Lehtinen et al. 2018; across dates: J-invariance, Batson and Royer 2019),
so the noisy target ranks predictions as the truth would, above a floor of
:math:`\mathrm{var}(a_k)` that no method gets below.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from cube_denoise.conventions import PAIR, TIME, X, Y, years_since
from cube_denoise.correction_errors import STATED
from cube_denoise.inversion_window import OUTPUTS
from cube_denoise.invert import invert
from cube_denoise.network import connected_subsets, pair_indices
from cube_denoise.reference import find_reference, phase_variable
from cube_denoise.reference_area import Reference, ReferenceArea

BANDWIDTH = 3.0
"""Default bandwidth in time, mean intervals between dates (as LiCSBAS filters)."""

DERIVED = ("corrected_phase", "correction_status", *STATED, *OUTPUTS)
"""What a correction or inversion made of all dates: a method does not get to see it."""

Corrector = Callable[[xr.Dataset], xr.Dataset]
"""Takes a cube, returns a dataset with ``corrected_phase`` of its pairs."""


@dataclass(frozen=True)
class HeldOutError:
    """How well displacement at hidden dates is predicted from the others."""

    ratio: float
    """Sum of squared errors over that of predicting no motion; 1 = no better."""
    error: float
    """Root mean square of prediction minus raw displacement, mm."""
    motion: float
    """Root mean square of the raw displacement: the error of predicting none, mm."""
    dates: xr.Dataset
    """``ratio``, ``error`` (mm), ``motion`` (mm), ``pixels`` (fraction of those that
    have a target) and ``fold`` of every hidden date, dims (time,)."""
    kept: np.ndarray
    """Dates never hidden: first, last, and those whose pairs hold the network
    together; datetime64[s]."""


def uncorrected(cube: xr.Dataset) -> xr.Dataset:
    """Return the pairs as they are, as ``corrected_phase``: what methods must beat."""
    return cube.assign(corrected_phase=cube["unwrapped_phase"])


def held_out_dates(
    cube: xr.Dataset,
    correct: Corrector,
    *,
    folds: int = 5,
    seed: int = 0,
    weights: str = "none",
    reference: Reference = None,
    bandwidth_days: float | None = None,
) -> HeldOutError:
    r"""Error of predicting hidden dates from the corrected others, over that of zero.

    The dates are split into folds. For each fold, all pairs that touch one of its dates
    are removed; `correct` gets the rest as if nothing else existed; its result is
    inverted, and the displacement at each hidden date is predicted from the visible
    dates by local-linear regression in time (Gaussian weights), pixel by pixel. The
    target is the displacement of that date in the inversion of all raw pairs. Both are
    centred by their means over the visible dates at each pixel, and over the pixels
    common to both at each date. Then

    .. math:: \text{ratio} =
        \frac{\sum_{k,p} (f_{kp} - x_{kp})^2}{\sum_{k,p} (0 - x_{kp})^2} .

    Outputting zero scores exactly 1, as does perfection where nothing moves. Less is
    better; more than 1 means that the prediction carries more noise than there is
    motion (raw pairs without deformation: about 1 + sum of squared weights). The floor
    is var(a) / (var(a) + var(d)), not 0: the target holds its own atmosphere. Compare
    methods on one stack; ratios of different stacks have different floors.

    What it cannot tell:

    * Small gains: they hide under the noise of the target. Differences between methods
      are more certain than the ratios, as all have the same targets.
    * The error at dates that a method does see. It judges what is left in *other*
      dates, after smoothing over several of them: noise that averages out in time
      counts by the sum of squared weights only. Smooth motion is favoured; a step at a
      hidden date cannot be predicted and is charged to every method alike.
    * Errors that neighbouring or all dates share: seasonal delay, phase bias of short
      pairs, unwrapping errors of long standing. To fit them lowers the ratio.
    * Anything constant over the scene, or at a pixel over all dates.

    Is it fair? The reference date's atmosphere is in every date of a series; centring
    on the V visible dates takes it off, and leaves their mean atmosphere in the target.
    In the raw prediction that cancels: its error is var(a) (1 + sum of squared
    weights). A perfect one keeps it: var(a) (1 + 1/V). As the weights sum to 1,
    perfection is never worse, but its margin is understated by var(a)/V.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        ``unwrapped_phase``, rad, with ``reference_time`` and ``secondary_time`` on
        ``pair``, the attribute ``wavelength`` (m) and what `correct` and `weights`
        need. The corrected pairs of one fold and two displacement series are held in
        memory: cut large cubes.
    correct : callable
        Called with a cube of the visible pairs, without anything derived from all
        (`DERIVED`). Must return a dataset with ``corrected_phase`` (pair, y, x), rad,
        of the same pairs; what it puts into gaps does not count. A function that brings
        other data of the hidden dates along cannot be found out here.
    folds : int
        Number of folds, 2 or more. Each takes one of every `folds` consecutive dates.
        First and last date are never hidden, nor is a date without which the rest of
        the network would not be connected in any fold.
    seed : int
        Of the drawing of the folds.
    weights : {"none", "coherence", "variance"}
        Of both inversions, as for `invert.invert`.
    reference : mapping, ReferenceArea, str or path, optional
        Reference area of all inversions, as for `invert`; chosen from the raw pairs by
        default. Centring over pixels takes its noise off.
    bandwidth_days : float, optional
        Standard deviation of the Gaussian weights in time; None = 3 mean intervals
        between the dates of the whole network.

    Returns
    -------
    HeldOutError
        NaN where no pixel has prediction and target.

    Raises
    ------
    ValueError
        If the options are not as above, the network is not connected, no date can be
        hidden, or `correct` returns other pairs than it was given.
    """
    phase_variable(cube, "unwrapped_phase")
    if bandwidth_days is not None and not bandwidth_days > 0:
        raise ValueError(f"{bandwidth_days=} must be positive")
    times = pair_indices(*_pair_times(cube))[2]
    fold_of = _split(cube, folds, np.random.default_rng(seed))
    raw = cube.drop_vars([n for n in DERIVED if n in cube])
    area = find_reference(raw, reference, variable="unwrapped_phase")
    days = 365.25 * years_since(times, times[0])
    bandwidth = bandwidth_days or BANDWIDTH * days[-1] / (times.size - 1)
    full = invert(raw, weights=weights, reference=area, variable="unwrapped_phase")
    target = full["displacement"].compute().values
    scores = np.full((times.size, 4), np.nan)
    for fold in range(folds):
        hidden = np.flatnonzero(fold_of == fold)
        if not hidden.size:
            continue
        visible = np.setdiff1d(np.arange(times.size), hidden)
        series = _visible_series(
            raw, correct, times[hidden], weights=weights, reference=area
        )
        scores[hidden] = _errors(series, target, hidden, visible, days, bandwidth)
    return _summary(scores, fold_of, times)


def local_linear(
    values: np.ndarray, offset: np.ndarray, bandwidth: float
) -> np.ndarray:
    """Value at offset 0 of a line fitted with Gaussian weights, each pixel by itself.

    Parameters
    ----------
    values : numpy.ndarray, shape (dates, ...)
        Any unit, NaN = no data.
    offset : numpy.ndarray, shape (dates,)
        Time of each date less that of the prediction.
    bandwidth : float
        Standard deviation of the weights, unit of `offset`.

    Returns
    -------
    numpy.ndarray, float64, shape (...)
        NaN where fewer than two dates hold data within reach of the weights.

    Examples
    --------
    >>> line = np.array([1.0, np.nan, 3.0, 4.0])
    >>> float(local_linear(line, np.array([-24.0, -12.0, 24.0, 48.0]), 36.0).round(9))
    2.0
    """
    exponent = -0.5 * (offset / bandwidth) ** 2
    kernel = np.exp(exponent - exponent.max())
    s0, s1, s2, t0, t1 = np.zeros((5, *values.shape[1:]))
    for value, t, weight in zip(values, offset / bandwidth, kernel, strict=True):
        there = weight * np.isfinite(value)
        known = there * np.nan_to_num(value)
        s0 += there
        s1 += there * t
        s2 += there * t**2
        t0 += known
        t1 += known * t
    determinant = s0 * s2 - s1**2
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (s2 * t0 - s1 * t1) / determinant
    return np.where(determinant > 1e-12 * s0**2, found, np.nan)


def _split(cube: xr.Dataset, folds: int, generator: np.random.Generator) -> np.ndarray:
    """Fold of every date, shape (dates,); -1 = never hidden."""
    if folds < 2:
        raise ValueError(f"{folds=} must be at least 2")
    early, late = _pair_times(cube)
    first, second, times = pair_indices(early, late)
    subsets = connected_subsets(early, late)
    if len(subsets) > 1:
        raise ValueError(
            f"the network is not connected: it has {len(subsets)} parts, the largest "
            f"of {subsets[0].size} of {times.size} dates; give a cube of one part"
        )
    fold_of = np.full(times.size, -1)

    def holds(k: int, fold: int) -> bool:
        hidden = [*np.flatnonzero(fold_of == fold), k]
        rest = ~(np.isin(first, hidden) | np.isin(second, hidden))
        if not rest.any():
            return False
        left = connected_subsets(early[rest], late[rest])
        return len(left) == 1 and left[0].size == times.size - len(hidden)

    inner = np.arange(1, times.size - 1)
    for start in range(0, inner.size, folds):
        group = inner[start : start + folds]
        for k, own in zip(group, generator.permutation(folds), strict=False):
            for fold in (own + np.arange(folds)) % folds:
                if holds(k, fold):
                    fold_of[k] = fold
                    break
    if (fold_of < 0).all():
        raise ValueError(
            f"no date of the {times.size} can be hidden without taking the network "
            "apart: it needs loops and three dates or more"
        )
    return fold_of


def _visible_series(
    raw: xr.Dataset,
    correct: Corrector,
    hidden: np.ndarray,
    *,
    weights: str,
    reference: ReferenceArea,
) -> np.ndarray:
    """Displacement of the visible dates, m, shape (visible, rows, columns)."""
    early, late = (np.isin(times, hidden) for times in _pair_times(raw))
    visible = raw.isel({PAIR: np.flatnonzero(~(early | late))})
    result = correct(visible.copy())
    if "corrected_phase" not in result:
        raise ValueError(
            f"correct returned {list(map(str, result.data_vars))}: it must return "
            "corrected_phase"
        )
    phase = result["corrected_phase"].transpose(PAIR, Y, X).compute()
    same = phase.shape == tuple(visible.sizes[d] for d in (PAIR, Y, X))
    for name in ("reference_time", "secondary_time"):
        if same and name in phase.coords:
            same = np.array_equal(phase[name].values, visible[name].values)
    if not same:
        raise ValueError(
            f"correct returned corrected_phase of shape {phase.shape} or of other "
            f"pairs: it must be of the {visible.sizes[PAIR]} pairs it was given, in "
            "their order"
        )
    known = np.isfinite(visible["unwrapped_phase"].transpose(PAIR, Y, X).values)
    kept = np.where(known, phase.values, np.nan)
    cube = visible.assign(corrected_phase=((PAIR, Y, X), kept))
    series = invert(
        cube, weights=weights, reference=reference, variable="corrected_phase"
    )
    return np.asarray(series["displacement"].compute().values)


def _errors(
    series: np.ndarray,
    target: np.ndarray,
    hidden: np.ndarray,
    visible: np.ndarray,
    days: np.ndarray,
    bandwidth: float,
) -> np.ndarray:
    """Sums of squared errors and motion (m^2), pixels of both and of the target.

    `series` holds the visible dates, `target` all; shapes (dates, rows, columns).
    Returns shape (hidden, 4).
    """
    shown = target[visible]
    both = np.isfinite(series) & np.isfinite(shown)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_series, mean_target = (
            np.where(both, a, 0.0).sum(0, dtype="float64") / both.sum(0)
            for a in (series, shown)
        )
    centred = np.where(both, series - mean_series, np.nan)
    found = np.zeros((hidden.size, 4))
    for row, k in zip(found, hidden, strict=True):
        prediction = local_linear(centred, days[visible] - days[k], bandwidth)
        truth = target[k] - mean_target
        common = np.isfinite(prediction) & np.isfinite(truth)
        row[2:] = common.sum(), np.isfinite(target[k]).sum()
        if common.any():
            f, x = prediction[common], truth[common]
            f, x = f - f.mean(), x - x.mean()
            row[:2] = np.sum((f - x) ** 2), np.sum(x**2)
    return found


def _summary(
    scores: np.ndarray, fold_of: np.ndarray, times: np.ndarray
) -> HeldOutError:
    """Ratios and roots of the sums of `_errors`, shape (dates, 4)."""
    hidden = fold_of >= 0

    def numbers(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        error, motion, pixels, _ = sums
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = 1e3 * np.sqrt(np.stack([error, motion]) / pixels)
            return error / motion, mean[0], mean[1]

    each = scores[hidden].T
    ratio, error, motion = numbers(each)
    with np.errstate(invalid="ignore"):
        share = each[2] / each[3]
    dates = xr.Dataset(
        {
            "ratio": (TIME, ratio, {"units": "1"}),
            "error": (TIME, error, {"units": "mm"}),
            "motion": (TIME, motion, {"units": "mm"}),
            "pixels": (TIME, share, {"units": "1"}),
            "fold": (TIME, fold_of[hidden]),
        },
        coords={TIME: times[hidden].astype("datetime64[ns]")},
    )
    ratio, error, motion = numbers(each.sum(1))
    kept = times[~hidden]
    return HeldOutError(float(ratio), float(error), float(motion), dates, kept)


def _pair_times(cube: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Reference and secondary time of the pairs, datetime64[s]."""
    early, late = (cube[n].values for n in ("reference_time", "secondary_time"))
    return early.astype("datetime64[s]"), late.astype("datetime64[s]")
