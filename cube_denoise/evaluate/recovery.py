"""What comes back of injected deformation, and the smallest that would be found.

A stack is corrected with and without a known signal. The difference is what came
back: what is in the stack already, deformation or noise, cancels in it but for what the
method does differently because of the signal.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.evaluate.held_out import Corrector
from cube_denoise.evaluate.injection import (
    REACH,
    Case,
    amplitude_map,
    centres,
    history_of,
    inject,
    stack_times,
)
from cube_denoise.evaluate.redrawn import amplitude_of, redrawn_stacks
from cube_denoise.grid import pixel_spacing
from cube_denoise.invert import invert


class Kind(NamedTuple):
    """What recoveries that differ in amplitude alone have in common."""

    history: str
    shape: str
    radius: float
    """m."""


FALSE_ALARM, MISSED = 0.05, 0.05
"""Rates that define the smallest detectable signal: of calling noise a signal (either
sign), and of missing a signal of that size."""

LEAST_KEPT = 0.01
"""Part of a signal that must come back for it to be found."""


class Recovery(NamedTuple):
    """What came back of one case, source by source."""

    case: Case
    rows: np.ndarray
    """Row of the centre of each source."""
    columns: np.ndarray
    """Column of the centre of each source."""
    slope: np.ndarray
    """Of the recovered on the injected map around each source: 1 keeps it."""
    rms_error: np.ndarray
    """Of recovered minus injected around each source, less their mean."""
    noise: np.ndarray
    """Standard deviation of the amplitude of such a source where there is none: see
    `recover`."""
    injected: np.ndarray
    """Injected map (rows, columns)."""
    recovered: np.ndarray
    """Recovered map (rows, columns); NaN = no data."""
    dates: int
    """Number of dates of the stack."""


def recover(
    cube: xr.Dataset,
    correct: Corrector,
    cases: Sequence[Case],
    *,
    reference: Mapping[str, slice],
    weights: str = "coherence",
    seed: int = 0,
) -> Iterator[Recovery]:
    r"""Inject each case, correct, and compare what comes back with what went in.

    The corrected difference is inverted like any stack, and the amplitude at a pixel is
    the regression of its displacement on the history of the signal; that of a source is
    matched to its shape within `REACH` radii.

    The noise of a source's amplitude is its spread over `redrawn.redrawn_stacks`, each
    corrected like the stack itself. Of raw pairs that is, with the amplitudes a_k of
    the source in the N dates less their straight lines and the history h_k,

    .. math:: \sigma^2 = \frac{N}{N-2}
              \frac{\sum_k (h_k - \bar h)^2 a_k^2}{(\sum_k (h_k - \bar h)^2)^2},

    the variance of a regression under errors that are independent from date to date
    with variances of their own (White, 1980). A method that makes the series smooth
    gains nothing by it: what counts is what reaches the amplitude. Real motion that is
    not steady counts as noise; errors correlated in time are not seen in it.

    Parameters
    ----------
    cube : xarray.Dataset
        In memory: the whole stack that is corrected.
    correct : callable
        See `held_out.Corrector`.
    cases : sequence of Case
        What to inject, one after the other.
    reference : mapping with slices "y" and "x"
        Reference area of the inversions.
    weights : str
        Of the inversions: see `invert.invert`.
    seed : int
        Of the redrawn stacks.

    Yields
    ------
    Recovery
        One per case, in their order.

    Raises
    ------
    ValueError
        If there are fewer than four dates or the cube lacks something.
    """
    times = stack_times(cube)
    if times.size < 4:
        raise ValueError(
            f"cube has {times.size} dates: injection needs at least 4 to tell a signal "
            "from noise"
        )

    def series(phase: xr.DataArray) -> np.ndarray:
        found = invert(
            cube.assign(corrected_phase=phase),
            variable="corrected_phase",
            reference=reference,
            weights=weights,
        )
        return np.asarray(found["displacement"].values, "float64")

    histories = {c.history: history_of(times, c) for c in cases}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in histories}
    for stack in redrawn_stacks(cube, reference=reference, weights=weights, seed=seed):
        noisy = series(correct(stack)["corrected_phase"].transpose(PAIR, Y, X))
        for name, history in histories.items():
            drawn[name].append(amplitude_of(noisy, history))
    before = correct(cube)["corrected_phase"].transpose(PAIR, Y, X).compute()
    for case in cases:
        after = correct(inject(cube, case))["corrected_phase"].transpose(PAIR, Y, X)
        response = series((after - before).assign_attrs(before.attrs).compute())
        recovered = amplitude_of(response, histories[case.history])
        yield _judged(cube, case, recovered, drawn[case.history], times.size)


def by_kind(recoveries: Iterable[Recovery]) -> dict[Kind, list[Recovery]]:
    """Recoveries of each kind, from the smallest to the largest amplitude."""
    found: dict[Kind, list[Recovery]] = {}
    for one in recoveries:
        case = one.case
        found.setdefault(Kind(case.history, case.shape, case.radius), []).append(one)
    return {k: sorted(g, key=lambda r: r.case.amplitude) for k, g in found.items()}


def smallest_detectable(recoveries: Sequence[Recovery]) -> np.ndarray:
    """Smallest amplitude at which each source is found, from cases of one shape.

    Found: called a signal 95 % of the time where noise alone is called one 5 % of the
    time (Student's t of the dates less two). What comes back of an amplitude between
    those injected is interpolated; below the smallest one it is taken to keep the same
    part of itself. Of which less than `LEAST_KEPT` comes back is not found, however
    little noise there is: else outputting zero would find everything.

    Parameters
    ----------
    recoveries : sequence of Recovery
        Of one shape, radius and history, different amplitudes.

    Returns
    -------
    numpy.ndarray, shape (sources,)
        Unit of the amplitudes; inf where not even the largest injected is found, NaN
        where the stack has no data.
    """
    kinds = by_kind(recoveries)
    if len(kinds) != 1:
        raise ValueError(f"recoveries are of {set(kinds)}: give those of one kind")
    (group,) = kinds.values()
    given = np.log([g.case.amplitude for g in group])
    grid = np.linspace(given[0] - np.log(100), given[-1], 2000)
    quantiles = stats.t.ppf([1 - FALSE_ALARM / 2, 1 - MISSED], group[0].dates - 2)
    found = []
    for noise, *slopes in zip(group[0].noise, *(g.slope for g in group), strict=True):
        if not np.isfinite([noise, *slopes]).all():
            found.append(np.nan)
            continue
        kept = np.interp(grid, given, slopes)
        found_out = kept * np.exp(grid) >= quantiles.sum() * noise
        enough = found_out & (kept > LEAST_KEPT)
        # From where on it stays found: what comes back need not grow with what goes in.
        last_missed = np.flatnonzero(~enough).max(initial=-1)
        found.append(
            np.exp(grid[last_missed + 1]) if last_missed + 1 < grid.size else np.inf
        )
    return np.array(found)


def _judged(
    cube: xr.Dataset,
    case: Case,
    recovered: np.ndarray,
    drawn: Sequence[np.ndarray],
    dates: int,
) -> Recovery:
    injected = amplitude_map(cube, case)
    rows, columns = centres(cube, case)
    reach = [int(np.ceil(REACH * case.radius / s)) for s in pixel_spacing(cube)]
    scores = []
    fewer = dates / (dates - 2)  # the straight line took two
    for row, column in zip(rows, columns, strict=True):
        here = (
            slice(max(row - reach[0], 0), row + reach[0] + 1),
            slice(max(column - reach[1], 0), column + reach[1] + 1),
        )
        error = recovered[here] - injected[here]
        valid = np.isfinite(error)
        rms = error[valid].std() if valid.any() else np.nan
        shape = injected[here] / case.amplitude
        matched = np.array([_matched(d[here], shape) for d in drawn])
        slope = _matched(recovered[here], injected[here])
        scores.append((slope, rms, np.sqrt(fewer * matched.var())))
    slope, error, noise = np.array(scores).T
    return Recovery(
        case,
        rows,
        columns,
        slope,
        error,
        noise,
        injected,
        recovered,
        dates,
    )


def _matched(values: np.ndarray, shape: np.ndarray) -> float:
    """Least-squares factor of `shape` in `values` beside a constant; NaN without data.

    NaN also where less than half of the source holds data.
    """
    valid = np.isfinite(values)
    inside = np.abs(shape) > 0.5 * np.abs(shape).max()
    if valid[inside].mean() < 0.5:
        return float("nan")
    s = shape[valid] - shape[valid].mean()
    return float(s @ values[valid].astype("float64") / (s @ s))
