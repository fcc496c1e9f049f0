"""How much of the errors of a stack network is a trend, fitted to velocities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import least_squares
from scipy.special import expit

from cube_denoise.conventions import TIME, X, Y, years_since
from cube_denoise.correct import correct
from cube_denoise.invert import invert
from cube_denoise.models.stack import FOUND
from cube_denoise.models.stack_loss import SHARE
from cube_denoise.reference import choose_reference
from cube_denoise.simulate.assembly import Scene
from cube_denoise.velocity import fit_velocity

GRID = np.linspace(0.0, 1.0, 6)
"""Parts of the variance that are tried; linear in the logarithm between."""
SOME = 1000
"""Pixels, drawn of each stack."""
SOFT, WEAK = 0.1, 0.1
"""Logarithm of the standard deviation over which an error goes from in to out; weight
of the distances from one half, for what the stacks leave open."""


def rate_excess(model: Any, scene: Scene, number: int) -> np.ndarray:
    """Logarithm of errors of the velocity over `velocity_std`, with every of `GRID`.

    Parameters
    ----------
    model : torch.nn.Module
        Stack network in eval mode, on the CPU.
    scene : Scene
        Simulated stack.
    number : int
        Seed of which pixels are drawn.

    Returns
    -------
    numpy.ndarray, shape (`GRID`, `SOME`)
        The true velocity is that of a line through the true displacement on the dates
        that hold data, relative to the reference area, which `choose_reference` finds.
    """
    cube, truth = scene
    area = choose_reference(cube, variable="unwrapped_phase")
    corrected = cube.merge(correct(cube, model).compute(scheduler="synchronous"))
    some: np.ndarray | None = None
    found = []
    for share in GRID:
        stated = xr.full_like(corrected["correction_trend_share"], share)
        inverted = invert(
            corrected.assign(correction_trend_share=stated), reference=area
        ).compute(scheduler="synchronous")
        std = inverted["velocity_std"].values
        if some is None:
            error = _missed(inverted, truth, area)
            held = np.flatnonzero(np.isfinite(error) & (std > 0))
            some = np.random.default_rng(number).choice(held, SOME)
        found.append(np.log(np.abs(error.ravel()[some]) / std.ravel()[some] + 1e-6))
    return np.asarray(found)


def _missed(inverted: xr.Dataset, truth: xr.Dataset, area: Any) -> np.ndarray:
    """Error of the velocity, m/yr, shape (rows, columns)."""
    series, moved = (
        d["displacement"].transpose(TIME, Y, X).values for d in (inverted, truth)
    )
    times = inverted[TIME].values
    rate, _ = fit_velocity(
        np.where(np.isfinite(series), moved, np.nan), years_since(times, times[0])
    )
    error: np.ndarray = inverted["velocity"].values - rate + np.nanmean(area.cut(rate))
    return error


def fitted_share(
    sure: np.ndarray, excess: Sequence[np.ndarray], cases: np.ndarray
) -> tuple[float, ...]:
    """Parts at `FOUND` with which one `velocity_std` holds 68 % of the errors.

    As nearly as they can in every case (least squares of the shares held).

    Parameters
    ----------
    sure : numpy.ndarray, shape (stacks,)
        See `models.stack.FOUND`.
    excess : sequence of numpy.ndarray
        From `rate_excess`.
    cases : numpy.ndarray of int, shape (stacks,)
        Kind of each stack.
    """
    knots, at = np.log(FOUND), np.log(sure)

    def off(shares: np.ndarray) -> np.ndarray:
        place = np.interp(at, knots, shares) * (GRID.size - 1)
        low = place.astype(int).clip(max=GRID.size - 2)
        part = place - low
        over = np.array(
            [
                (1 - p) * e[k] + p * e[k + 1]
                for e, k, p in zip(excess, low, part, strict=True)
            ]
        )
        held = expit(-over / SOFT).mean(1)
        return np.array([held[cases == c].mean() for c in np.unique(cases)]) - SHARE

    fit = least_squares(
        lambda s: np.append(off(s), WEAK * (s - 0.5)),
        np.full(knots.size, 0.5),
        bounds=(0.0, 1.0),
    )
    return tuple(round(float(s), 3) for s in fit.x)
