"""Ramps: a plane or a low-order surface of every pair."""

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

TERMS = {
    "plane": ((1, 0), (0, 1)),
    "bilinear": ((1, 0), (0, 1), (1, 1)),
    "quadratic": ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2)),
}
"""Powers of (x, y) by the name of the surface; the constant is always fitted."""


@dataclass(frozen=True, kw_only=True)
class Ramp(Correction):
    r"""Remove a surface fitted to all valid pixels of each pair.

    .. math:: \varphi = c + \sum_k a_k x^{p_k} y^{q_k}

    with x and y from -1 to 1 across the scene; the sum is subtracted and the constant
    kept. What is removed is long-wavelength: orbit errors, ionosphere, the largest
    scales of the troposphere - and deformation wider than the scene.

    Parameters
    ----------
    surface : {"plane", "bilinear", "quadratic"}
        Powers: x, y; and x y; and x^2, y^2.

    Raises
    ------
    ValueError
        If `surface` is none of these.
    """

    name: ClassVar[str] = "ramp"
    surface: str = "plane"

    def __post_init__(self) -> None:
        if self.surface not in TERMS:
            raise ValueError(
                f"surface={self.surface!r} must be one of {', '.join(TERMS)}"
            )

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`."""
        fits = run(partial(_fit, cube, surface=self.surface), pairs)
        found = dict(zip(pairs, fits, strict=True))
        return Plan(
            partial(_apply, coefficients=found, surface=self.surface),
            frozenset(k for k, fit in found.items() if not np.isfinite(fit).all()),
        )


def _fit(cube: xr.Dataset, pair: int, *, surface: str) -> np.ndarray:
    """Coefficients of one pair, rad; NaN for a pair without data."""
    size = len(TERMS[surface]) + 1
    normal, right = np.zeros((size, size)), np.zeros(size)
    for window in pair_windows(cube):
        here = {PAIR: slice(pair, pair + 1), **window}
        phase = read(cube, "unwrapped_phase", here)[0]
        valid = np.isfinite(phase)
        terms = _terms(cube, window, surface)
        A = np.stack([np.ones(int(valid.sum())), *(t[valid] for t in terms)])
        normal += A @ A.T
        right += A @ phase[valid]
    if normal[0, 0] == 0:
        return np.full(size - 1, np.nan)
    # Minimum norm: fewer pixels than terms is no error.
    return np.asarray(np.linalg.lstsq(normal, right)[0][1:])


def _terms(cube: xr.Dataset, window: Window, surface: str) -> list[np.ndarray]:
    """Surfaces of unit coefficient in a window, each (rows, columns)."""
    y, x = (
        np.linspace(-1, 1, cube.sizes[d])[window[d]] if cube.sizes[d] > 1 else [0.0]
        for d in (Y, X)
    )
    return [np.outer(np.power(y, q), np.power(x, p)) for p, q in TERMS[surface]]


def _apply(
    cube: xr.Dataset,
    window: Window,
    *,
    coefficients: dict[int, np.ndarray],
    surface: str,
) -> np.ndarray:
    terms = _terms(cube, window, surface)
    fit = coefficients[window[PAIR].start]
    ramp = sum(a * t for a, t in zip(fit, terms, strict=True))
    return (read(cube, "unwrapped_phase", window) - ramp).astype("float32")
