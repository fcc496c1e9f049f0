"""Components of the dates of a stack: from which pixels, and which of them go."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from cube_denoise.blocks import spans
from cube_denoise.conventions import X, Y, years_since
from cube_denoise.corrections.correction import Run
from cube_denoise.corrections.series import STRIP, Stack, dates_of

SAMPLE = 40_000
"""Components are estimated from at most this many pixels."""
FEWEST_DATES = 5
"""Of four dates, no order has a permutation p below `SIGNIFICANT`."""
SIGNIFICANT = 0.05
"""A component grows with time if its permutation p is below this."""
PERMUTATIONS = 9999


@dataclass(frozen=True)
class Sample:
    """Phase of the dates at the sampled pixels."""

    phase: np.ndarray
    """rad, shape (dates, pixels), finite; the mean of every date and of every pixel
    is zero."""
    years: np.ndarray
    """Time of the dates, shape (dates,)."""
    dates: np.ndarray
    """Their positions among the dates of the stack, shape (dates,)."""
    medians: np.ndarray
    """What was taken off the dates of the stack, rad; 0 for those left out."""
    elevation: np.ndarray | None
    """m, shape (pixels,); None if the cube has none."""


@dataclass(frozen=True)
class Separated:
    """Components: ``sample.phase`` is about ``courses @ maps``."""

    courses: np.ndarray
    """Time courses, rad, shape (dates, components)."""
    maps: np.ndarray
    """Of zero mean and unit variance, shape (components, pixels)."""
    stability: np.ndarray | None = None
    """Stability index of each component, if it was estimated; shape (components,)."""


def sample_dates(cube: xr.Dataset, stack: Stack, run: Run) -> Sample:
    """Read the dates at every n-th pixel of the scene, counted from the first.

    Dates that are missing at more than half of these pixels are left out, then pixels
    that lack any of the others.

    Raises
    ------
    ValueError
        If fewer than `FEWEST_DATES` dates, or fewer than ten pixels a date, are left.
    """
    step = 1
    while -(-cube.sizes[Y] // step) * -(-cube.sizes[X] // step) > SAMPLE:
        step += 1
    some = cube.isel({Y: slice(None, None, step), X: slice(None, None, step)})
    strips = [
        {Y: rows, X: slice(0, some.sizes[X])} for rows in spans(some.sizes[Y], STRIP)
    ]
    parts = run(partial(dates_of, some, stack=stack), strips)
    phase = np.concatenate([p.reshape(p.shape[0], -1) for p in parts], axis=1)
    there = np.isfinite(phase)
    dates = np.flatnonzero(there.sum(1) > 0.5 * there.any(0).sum())
    if dates.size < FEWEST_DATES:
        raise ValueError(
            f"the pairs link {dates.size} dates: components need {FEWEST_DATES} or more"
        )
    complete = there[dates].all(0)
    if complete.sum() < 10 * dates.size:
        raise ValueError(
            f"{complete.sum()} of {there.any(0).sum()} sampled pixels have all "
            f"{dates.size} dates: components need {10 * dates.size} or more; leave out "
            "dates that are mostly missing"
        )
    phase = phase[dates][:, complete]
    medians = np.zeros(stack.times.size)
    medians[dates] = np.median(phase, axis=1)
    phase -= phase.mean(0)
    phase -= phase.mean(1, keepdims=True)
    elevation = None
    if "elevation" in some:
        elevation = some["elevation"].transpose(Y, X).values.reshape(-1)[complete]
    years = years_since(stack.times[dates], stack.times[dates[0]])
    return Sample(phase, years, dates, medians, elevation)


def check_overruled(keep: Sequence[int], remove: Sequence[int]) -> None:
    """Refuse a component or cluster that is to stay and to go."""
    both = set(keep) & set(remove)
    if both:
        raise ValueError(
            f"keep={list(keep)} and remove={list(remove)} share {sorted(both)}: a "
            "component or cluster can only stay or go"
        )


def judge(
    sample: Sample,
    found: Separated,
    *,
    least_stability: float = 0.0,
    keep: Sequence[int] = (),
    remove: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """Decide which components go.

    Parameters
    ----------
    sample, found
        The data and their components.
    least_stability : float
        Components below stay.
    keep, remove : sequence of int
        Components, counted from 1, of which it is known.

    Returns
    -------
    list of dict
        Per component: its number, "variance" (share of that of the sample; shares of
        components that are not orthogonal do not add up), "stability", "time" (rank
        correlation of the course with time, the sign of the component being chosen so
        that it is positive) and its permutation "p", "elevation" (rank correlation of
        the map with elevation), "verdict" ("kept" or "removed") and the "reason".

    Raises
    ------
    ValueError
        If `keep` or `remove` name a component that there is not.
    """
    count = found.maps.shape[0]
    unknown = sorted({*keep, *remove} - set(range(1, count + 1)))
    if unknown:
        raise ValueError(
            f"keep or remove names the components {unknown}: there are {count}"
        )
    total = float((sample.phase**2).sum())
    verdicts = []
    for k, (course, map_) in enumerate(zip(found.courses.T, found.maps, strict=True)):
        rho, p = growth(course, sample.years)
        stability = None if found.stability is None else float(found.stability[k])
        if k + 1 in keep or k + 1 in remove:
            goes, reason = k + 1 in remove, "asked for"
        elif stability is not None and stability < least_stability:
            goes, reason = False, "unstable: cannot be named"
        elif p < SIGNIFICANT:
            goes, reason = False, "grows with time"
        else:
            goes, reason = True, "does not grow with time"
        variance = float((course**2).sum() * (map_**2).sum()) / total
        upright = -map_ if rho < 0 else map_
        verdicts.append(
            {
                "component": k + 1,
                "variance": round(variance, 4),
                "stability": None if stability is None else round(stability, 3),
                "time": round(abs(rho), 3),
                "p": round(p, 4),
                "elevation": _elevation_correlation(upright, sample.elevation),
                "verdict": "removed" if goes else "kept",
                "reason": reason,
            }
        )
    return verdicts


def growth(course: np.ndarray, years: np.ndarray) -> tuple[float, float]:
    """Rank correlation of a time course with time and its permutation p, two-sided.

    Parameters
    ----------
    course : numpy.ndarray, shape (dates,)
    years : numpy.ndarray, shape (dates,)

    Returns
    -------
    rho : float
        Spearman's.
    p : float
        Share of `PERMUTATIONS` random orders, this one included, whose abs(rho) is not
        smaller; always the same for the same course.
    """
    ranks = stats.rankdata(course) - (course.size + 1) / 2
    time = stats.rankdata(years) - (course.size + 1) / 2
    scale = np.sqrt((ranks**2).sum() * (time**2).sum())
    if scale == 0:
        return 0.0, 1.0
    orders = np.random.default_rng(0).permuted(
        np.broadcast_to(ranks, (PERMUTATIONS, ranks.size)), axis=1
    )
    found, reached = ranks @ time, np.abs(orders @ time)
    p = (1 + np.sum(reached >= abs(found) - 1e-9)) / (1 + PERMUTATIONS)
    return float(found / scale), float(p)


def _elevation_correlation(
    map_: np.ndarray, elevation: np.ndarray | None
) -> float | None:
    """Rank correlation where there is an elevation; None if it is flat or absent."""
    if elevation is None:
        return None
    known = np.isfinite(elevation)
    if known.sum() < 3 or np.ptp(elevation[known]) == 0:
        return None
    return round(float(stats.spearmanr(map_[known], elevation[known])[0]), 3)
