"""Delay that follows the elevation the same way across the scene."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window
from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.corrections.correction import (
    Correction,
    Plan,
    Run,
    pair_windows,
    read,
)
from cube_denoise.normalise import sample_stride

HEIGHT_UNIT = 1000.0
"""m; heights are fitted in km, so that their powers are comparable."""


@dataclass(frozen=True, kw_only=True)
class PhaseElevation(Correction):
    r"""Remove from every pair what a polynomial in elevation explains of it.

    One least-squares fit per pair over all its valid pixels,

    .. math:: \varphi = c + \sum_{k=1}^{n} a_k (h - h_0)^k,

    of which the sum is subtracted and the constant c kept; :math:`h_0` is the median
    elevation of the scene, the same for all pairs, so that pairs with the same valid
    pixels that close still close.

    Whatever correlates with elevation goes: the stratified troposphere, but also
    deformation that happens to (the inflation of a volcano under its summit, a
    subsiding valley floor) and part of any turbulence or ramp that does. Delay that
    changes with elevation differently across the scene stays.

    Parameters
    ----------
    degree : int
        Degree n of the polynomial, 1 to 3.

    Raises
    ------
    ValueError
        If `degree` is out of range.
    """

    name: ClassVar[str] = "phase-elevation"
    needs: ClassVar[tuple[str, ...]] = ("elevation",)
    degree: int = 1

    def __post_init__(self) -> None:
        if self.degree not in (1, 2, 3):
            raise ValueError(f"degree={self.degree} must be 1, 2 or 3")

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`."""
        origin = elevation_origin(cube)
        fits = run(partial(_fit, cube, origin=origin, degree=self.degree), pairs)
        found = dict(zip(pairs, fits, strict=True))
        return Plan(
            partial(_apply, coefficients=found, origin=origin),
            frozenset(k for k, fit in found.items() if not np.isfinite(fit).all()),
        )


def elevation_origin(cube: xr.Dataset) -> float:
    """Median elevation of the scene, m, from every n-th pixel of a large one.

    Raises
    ------
    ValueError
        If no pixel has an elevation.

    Warns
    -----
    UserWarning
        If some have none: the corrected phase is lost there.
    """
    stride = sample_stride((cube.sizes[Y], cube.sizes[X]))
    sample = cube["elevation"].transpose(Y, X)[::stride, ::stride].values
    known = np.isfinite(sample)
    if not known.any():
        raise ValueError(
            "elevation has no data on the grid of the cube: bring the DEM onto it "
            "first (assigning one on another grid gives NaN)"
        )
    if not known.all():
        warnings.warn(
            f"elevation is missing at {1 - known.mean():.1%} of the pixels: the "
            "corrected phase has no data there",
            stacklevel=2,
        )
    return float(np.median(sample[known].astype("float64")))


def _fit(cube: xr.Dataset, pair: int, *, origin: float, degree: int) -> np.ndarray:
    """Coefficients of one pair, rad per km, per km^2...; NaN for one without data."""
    normal, right = np.zeros((degree + 1, degree + 1)), np.zeros(degree + 1)
    for window in pair_windows(cube):
        here = {PAIR: slice(pair, pair + 1), **window}
        phase = read(cube, "unwrapped_phase", here)[0]
        height = _height(cube, window, origin)
        valid = np.isfinite(phase) & np.isfinite(height)
        A = np.stack([height[valid] ** k for k in range(degree + 1)])
        normal += A @ A.T
        right += A @ phase[valid]
    if normal[0, 0] == 0:
        return np.full(degree, np.nan)
    # Minimum norm: flat terrain, or fewer pixels than terms, is no error.
    return np.asarray(np.linalg.lstsq(normal, right)[0][1:])


def _height(cube: xr.Dataset, window: Window, origin: float) -> np.ndarray:
    """Height above the origin, km, shape (rows, columns)."""
    return np.asarray((read(cube, "elevation", window) - origin) / HEIGHT_UNIT)


def _apply(
    cube: xr.Dataset,
    window: Window,
    *,
    coefficients: dict[int, np.ndarray],
    origin: float,
) -> np.ndarray:
    height = _height(cube, window, origin)
    fit = coefficients[window[PAIR].start]
    trend = sum(a * height ** (k + 1) for k, a in enumerate(fit))
    return (read(cube, "unwrapped_phase", window) - trend).astype("float32")
