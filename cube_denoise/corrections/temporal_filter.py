"""Atmosphere as what is rough in time and smooth in space."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy import ndimage, sparse

from cube_denoise import halo
from cube_denoise.blocks import Window, spans
from cube_denoise.conventions import X, Y
from cube_denoise.corrections.correction import Correction, Plan, Run
from cube_denoise.corrections.series import MEMORY, STRIP, Stack, dates_of, stack_of
from cube_denoise.grid import pixel_spacing
from cube_denoise.halo import Tile
from cube_denoise.reference import read_window

DAY = 86400.0
"""s"""
INTERVALS = 3
"""The default temporal width is this many mean intervals between dates."""
TIME_REACH, SPACE_REACH = 4.0, 3.0
"""Gaussians end at this many standard deviations."""


@dataclass(frozen=True, kw_only=True)
class TemporalFilter(Correction):
    r"""Remove what is rough in time and smooth in space (APS filter).

    The pairs are inverted for the phase x of the dates (`series.dates_of`). Of each
    date is taken what differs from the motion around it, and of that what neighbouring
    pixels share:

    .. math:: a_k = G_s * \left(x_k - \hat{x}_k\right), \qquad
        \varphi_{ij} \to \varphi_{ij} - (a_j - a_i),

    where :math:`\hat{x}_k` is the value at date k of a straight line fitted to the
    dates around it with weights :math:`\exp(-(t - t_k)^2 / 2 \sigma_t^2)`, cut off at
    4 standard deviations, and :math:`G_s *` the average over the pixels that hold
    data, weighted by a Gaussian of standard deviation :math:`\sigma_s`, cut off at 3.
    The idea is that of Ferretti et al. (2001) and StaMPS (Hooper et al. 2007); the
    default widths are those of LiCSBAS (Morishita et al. 2020). The straight line is
    ours: it keeps steady motion exactly, also at the first and last dates.

    Closure is kept, since differences of dates are subtracted. Lost is deformation that
    is rough in time and wider than :math:`\sigma_s`: part of a step, which is smeared
    over the dates around it, and of a cycle of period P about
    :math:`1 - \exp(-2 \pi^2 \sigma_t^2 / P^2)`. Kept is noise that is smooth in time
    (seasonal delay) or rough in space. The series becomes smoother; a rate fitted
    to it gains less: a straight line through all dates averages this noise anyway.

    Parameters
    ----------
    temporal_width : float, optional
        :math:`\sigma_t`, days; three mean intervals between dates when not given.
    spatial_width : float
        :math:`\sigma_s`, m.

    Raises
    ------
    ValueError
        If a width is not positive.
    """

    name: ClassVar[str] = "temporal-filter"
    whole_stack: ClassVar[bool] = True
    passes: ClassVar[str] = "hold no data or are not linked to the most dates"
    temporal_width: float | None = None
    spatial_width: float = 2000.0

    def __post_init__(self) -> None:
        for name in ("temporal_width", "spatial_width"):
            width = getattr(self, name)
            if width is not None and not 0 < width < np.inf:
                raise ValueError(f"{name}={width} must be a positive number")

    def reach(self, cube: xr.Dataset) -> tuple[int, int]:
        """See `Correction.reach`."""
        rows, columns = (_reach(self.spatial_width / p) for p in pixel_spacing(cube))
        return rows, columns

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`; fewer than three linked dates are an error."""
        stack = stack_of(cube, run)
        days = (stack.times - stack.times[0]).astype("float64") / DAY
        network = stack.network
        used = np.isfinite(stack.constants)
        linked = np.unique([network.first[used], network.second[used]])
        if linked.size < 3:
            raise ValueError(
                f"the pairs link {linked.size} dates: temporal-filter needs 3 or more"
            )
        width = self.temporal_width
        if width is None:
            width = INTERVALS * float(np.ptp(days[linked]) / (linked.size - 1))
        rows, columns = pixel_spacing(cube)
        apply = partial(
            _apply,
            stack=stack,
            kernels=_kernels(days, width),
            sigma=(self.spatial_width / rows, self.spatial_width / columns),
        )
        return Plan(apply, stack.unused, {"temporal_width_days": f"{width:g}"})


def _kernels(days: np.ndarray, width: float) -> list[sparse.csr_array]:
    """Matrices (dates, dates) that sum 1, t and t^2 around each date, weighted."""
    t = days[None, :] - days[:, None]
    weight = np.exp(-(t**2) / (2 * width**2))
    weight[np.abs(t) > TIME_REACH * width] = 0
    # Sparse products, unlike BLAS, treat every pixel alike to the last bit.
    return [sparse.csr_array(weight * t**power) for power in range(3)]


def _high_pass(x: np.ndarray, kernels: list[sparse.csr_array]) -> np.ndarray:
    """Difference from the lines around each date, shape (dates, pixels); NaN stays."""
    valid = np.isfinite(x)
    there, x = valid.astype("float64"), np.where(valid, x, 0)
    count, t, tt = (kernel @ there for kernel in kernels)
    y, ty = (kernel @ x for kernel in kernels[:2])
    count[~valid] = 1
    mean = t / count
    spread = tt - mean * t
    # A date alone, or dates so close together that they give no rate: their mean.
    sloping = spread > 1e-9 * tt
    slope = np.where(sloping, ty - mean * y, 0) / np.where(sloping, spread, 1)
    return np.where(valid, x - (y / count - slope * mean), np.nan)


def _low_pass(
    field: np.ndarray, sigma: tuple[float, float], inside: tuple[slice, slice]
) -> np.ndarray:
    """Gaussian average of the valid pixels around those `inside`; NaN where none."""
    valid = np.isfinite(field)
    weight = _gaussian(valid.astype("float64"), sigma, inside)
    total = _gaussian(np.where(valid, field, 0).astype("float64"), sigma, inside)
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def _gaussian(
    field: np.ndarray, sigma: tuple[float, float], inside: tuple[slice, slice]
) -> np.ndarray:
    y, x = inside
    options = {"mode": "constant", "truncate": SPACE_REACH}
    across = ndimage.gaussian_filter1d(field, sigma[1], axis=1, **options)[:, x]
    both = ndimage.gaussian_filter1d(across, sigma[0], axis=0, **options)
    return np.asarray(both[y])


def _apply(
    cube: xr.Dataset,
    window: Window,
    *,
    stack: Stack,
    kernels: list[sparse.csr_array],
    sigma: tuple[float, float],
) -> np.ndarray:
    tile = Tile(window[Y], window[X])
    reaches = zip(tile, map(_reach, sigma), strict=True)
    grown = (slice(s.start - r, s.stop + r) for s, r in reaches)
    wide = halo.clip(Tile(*grown), (cube.sizes[Y], cube.sizes[X]))
    rough = _roughness(cube, wide, stack, kernels)
    inside = halo.shift(tile, wide)
    shape = tuple(s.stop - s.start for s in tile)
    delay = np.empty((stack.network.size, *shape), "float32")
    for k, field in enumerate(rough):
        delay[k] = _low_pass(field, sigma, inside)
    del rough
    network = stack.network
    corrected = read_window(cube, "unwrapped_phase", window).astype("float32")
    for k, (i, j) in enumerate(zip(network.first, network.second, strict=True)):
        corrected[k] -= delay[j] - delay[i]
    return corrected


def _reach(sigma: float) -> int:
    return int(SPACE_REACH * sigma + 0.5)  # as of gaussian_filter1d


def _roughness(
    cube: xr.Dataset, tile: Tile, stack: Stack, kernels: list[sparse.csr_array]
) -> np.ndarray:
    """High-passed phase of the dates, rad, float32, shape (dates, rows, columns)."""
    rows, columns = (s.stop - s.start for s in tile)
    rough = np.empty((stack.network.size, rows, columns), "float32")
    for strip in spans(tile.y.stop, STRIP, start=tile.y.start):
        dates = dates_of(cube, {Y: strip, X: tile.x}, stack)
        flat = dates.reshape(dates.shape[0], -1)
        for part in spans(flat.shape[1], max(1, MEMORY // (64 * len(flat)))):
            flat[:, part] = _high_pass(flat[:, part], kernels)
        rough[:, strip.start - tile.y.start : strip.stop - tile.y.start] = dates
    return rough
