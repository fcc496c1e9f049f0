"""Delay that follows the elevation, in each part of the scene in its own way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from scipy import ndimage

from cube_denoise.blocks import Window, spans
from cube_denoise.conventions import PAIR, X, Y, years_since
from cube_denoise.corrections.correction import (
    Correction,
    Plan,
    Run,
    pair_windows,
    read,
)
from cube_denoise.corrections.elevation import HEIGHT_UNIT, elevation_origin
from cube_denoise.corrections.series import STRIP, pair_constants
from cube_denoise.reference import read_window

CELL = 8
"""Side of the cells that pixels are summed over first, px, counted from the first pixel
of the cube; divides `correction.READ_SIZE` and `series.STRIP`."""
WINDOWS = (3, 7, 13, 25)
"""Sides of the windows tried, cells: 24, 56, 104, 200 px."""
MIN_PIXELS = 200
"""A window needs this many valid pixels (sum of the weights of the guard)."""
ROUNDS = 2
"""How often residuals are weighted."""
HUBER = 1.345
"""Residuals beyond this many robust standard deviations count less."""
SMOOTHING = 2.0
"""Standard deviation of the Gaussian that smooths the slopes, cells."""


@dataclass(frozen=True, kw_only=True)
class LocalPhaseElevation(Correction):
    r"""Remove what elevation explains of each pair, fitted in adaptive windows.

    Around every cell of 8 x 8 px a straight line in elevation, of slope k, is fitted to
    the phase in the smallest window of 24, 56, 104 or 200 px whose elevations have a
    standard deviation above `relief` and that holds 200 valid pixels. The fit is
    robust (Huber weights, two rounds). Slopes are smoothed (Gaussian of 16 px),
    interpolated linearly between cell centres, and

    .. math:: \varphi \to \varphi - k\,(h - \bar h)

    with the mean elevation :math:`\bar h` of the 200 px around. What is longer than
    that stays, stratified delay included: a slope that varies says nothing about it.
    Where no window has the relief s wanted, the slope is that of the largest, times
    :math:`(s_\mathrm{largest} / s)^2`: it falls smoothly to 0 on flat ground.

    Local slopes have been fitted in many ways (Murray et al. 2021; Yang et al. 2024);
    windows, weights and guard are a choice of our own.

    Deformation that follows the terrain within a window is removed with the delay, and
    small windows follow it closely: more so than one slope for the scene. The guard
    makes ground that moves count less: pixels have the weight
    :math:`1 / (1 + |v| / v_0)` with the stacking rate of their cell,
    :math:`v = \sum \varphi\,\Delta t / \sum \Delta t^2` less its median, and its
    robust spread :math:`v_0`. The relief and the pixels of a window are counted with
    these weights too: a window grows until it sees enough ground at rest. That tells
    motion from delay the better the longer the stack; a corrected pair then depends on
    all pairs.

    Closure is not quite kept: Huber weights and gaps differ from pair to pair.

    Parameters
    ----------
    relief : float
        Standard deviation of elevation that a window must have, m.
    guarded : bool
        Whether ground that moves counts less.

    Raises
    ------
    ValueError
        If `relief` is not positive.
    """

    name: ClassVar[str] = "local-phase-elevation"
    needs: ClassVar[tuple[str, ...]] = ("elevation",)
    relief: float = 100.0
    guarded: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.relief < np.inf:
            raise ValueError(
                f"relief={self.relief} must be a positive number of metres"
            )

    @property
    def whole_stack(self) -> bool:  # type: ignore[override]
        """See `Correction.whole_stack`: the guard looks at all pairs."""
        return self.guarded

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`."""
        origin = elevation_origin(cube)
        mean = _local_mean(cube, origin)
        guard = _guard(cube, run) if self.guarded else np.ones(mean.shape)
        fit = partial(
            _slopes, cube, origin=origin, relief=self.relief / HEIGHT_UNIT, guard=guard
        )
        slopes = dict(zip(pairs, run(fit, pairs), strict=True))
        removal = _Removal(
            {k: _Cells.of(found) for k, found in slopes.items()},
            _Cells.of(mean),
            origin,
        )
        return Plan(
            removal,
            frozenset(k for k, found in slopes.items() if np.isnan(found).all()),
            within=removal.within,
        )


def _guard(cube: xr.Dataset, run: Run) -> np.ndarray:
    """Weight of every cell by how fast it moves, 0..1, shape of the cells."""
    windows = pair_windows(cube)
    constants = pair_constants(cube, run)
    rate = np.full(_cell_shape(cube), np.nan)
    found = run(partial(_rate, cube, constants), windows)
    for window, part in zip(windows, found, strict=True):
        rate[_cells(window)] = part
    rate -= np.nanmedian(rate)
    spread = 1.4826 * np.nanmedian(np.abs(rate))
    weight = 1 / (1 + np.abs(rate) / max(spread, np.finfo("float64").tiny))
    return np.asarray(np.where(np.isnan(rate), 1, weight))


def _rate(cube: xr.Dataset, constants: np.ndarray, window: Window) -> np.ndarray:
    """Stacking rate, rad/yr, mean of each cell of a window; NaN without data."""
    span = years_since(cube["secondary_time"], 0) - years_since(
        cube["reference_time"], 0
    )
    rates = []
    for strip in spans(window[Y].stop, STRIP, start=window[Y].start):
        part = read_window(cube, "unwrapped_phase", {Y: strip, X: window[X]})
        total, square = np.zeros(part.shape[1:]), np.zeros(part.shape[1:])
        for phase, constant, years in zip(part, constants, span, strict=True):
            valid = np.isfinite(phase)
            total += np.where(valid, (phase - constant) * years, 0)
            square += valid * years**2
        valid = square > 0
        rate = np.divide(total, square, out=np.zeros_like(total), where=valid)
        sums = _cell_sums(np.stack([valid, rate]))
        rates.append(np.where(sums[0] > 0, sums[1] / np.maximum(sums[0], 1), np.nan))
    return np.concatenate(rates)


def _slopes(
    cube: xr.Dataset, pair: int, *, origin: float, relief: float, guard: np.ndarray
) -> np.ndarray:
    """Slope of one pair at every cell, rad/km, float32; NaN for one without data."""
    choice = trust = slope = level = None
    for _ in range(ROUNDS + 1):
        moments = np.zeros((5, *guard.shape))
        for window in pair_windows(cube):
            here = {PAIR: slice(pair, pair + 1), **window}
            phase = read(cube, "unwrapped_phase", here)[0]
            height = _height(cube, window, origin)
            valid = np.isfinite(phase) & np.isfinite(height)
            phase, height = np.where(valid, phase, 0), np.where(valid, height, 0)
            cells = _cells(window)
            weight = valid * _spread_out(guard[cells], valid.shape)
            if slope is not None and level is not None:
                expected = _spread_out(level[cells], valid.shape)
                expected += _spread_out(slope[cells], valid.shape) * height
                weight *= _huber(phase - expected, valid)
            terms = (1, height, phase, height**2, height * phase)
            stack = np.stack([weight * term for term in terms])
            moments[(slice(None), *cells)] = _cell_sums(stack)
        if not moments[0].any():
            return np.full(guard.shape, np.nan, "float32")
        sums = np.stack([_box(moments, size) for size in WINDOWS])
        if choice is None or trust is None:
            choice, trust = _choose(sums, relief)
        chosen = np.take_along_axis(sums, choice[None, None], 0)[0]
        slope, level = _line(chosen, trust)
    assert slope is not None
    return _smooth(slope).astype("float32")


def _choose(sums: np.ndarray, relief: float) -> tuple[np.ndarray, np.ndarray]:
    """Index of the window of every cell, and the factor of its slope.

    `sums` has the shape (windows, moments, rows, columns).
    """
    count, h, hh = sums[:, 0], sums[:, 1], sums[:, 3]
    n = np.where(count > 0, count, 1)
    std = np.sqrt(np.maximum(hh / n - (h / n) ** 2, 0))
    enough = (std >= relief) & (count >= MIN_PIXELS)
    some = enough.any(0)
    choice = np.where(some, enough.argmax(0), len(WINDOWS) - 1)
    flatness = np.minimum(std[-1] / relief, 1) ** 2
    return choice, np.where(some, 1, flatness * np.minimum(count[-1] / MIN_PIXELS, 1))


def _line(moments: np.ndarray, trust: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope (rad/km, times `trust`) and level (rad) of the line of every cell."""
    count, h, p, hh, hp = moments
    n = np.where(count > 0, count, 1)
    spread, common = hh - h**2 / n, hp - h * p / n
    sloping = spread > 1e-12 * n
    slope = np.where(sloping, common, 0) / np.where(sloping, spread, 1) * trust
    return slope, (p - slope * h) / n


def _huber(residual: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Weights of Huber for the residuals of a window, by their median size."""
    size = np.abs(residual)
    limit = HUBER * 1.4826 * (np.median(size[valid]) if valid.any() else 0.0)
    return np.asarray(np.minimum(1, limit / np.maximum(size, limit + 1e-12)))


def _local_mean(cube: xr.Dataset, origin: float) -> np.ndarray:
    """Mean height of the largest window around each cell, km, smoothed."""
    sums = np.zeros((2, *_cell_shape(cube)))
    for window in pair_windows(cube):
        height = _height(cube, window, origin)
        valid = np.isfinite(height)
        stack = np.stack([valid, np.where(valid, height, 0)])
        sums[(slice(None), *_cells(window))] = _cell_sums(stack)
    count, total = _box(sums, WINDOWS[-1])
    return _smooth(total / np.where(count > 0, count, 1))


def _height(cube: xr.Dataset, window: Window, origin: float) -> np.ndarray:
    """Height above the origin, km, shape (rows, columns)."""
    return np.asarray((read(cube, "elevation", window) - origin) / HEIGHT_UNIT)


@dataclass(frozen=True)
class _Removal:
    """See `correction.Apply`."""

    slopes: Mapping[int, "_Cells"]
    mean: "_Cells"
    origin: float

    def __call__(self, cube: xr.Dataset, window: Window) -> np.ndarray:
        here = {Y: window[Y], X: window[X]}
        above = _height(cube, here, self.origin) - self.mean.at_pixels(here)
        pairs = range(window[PAIR].start, window[PAIR].stop)
        corrected = np.empty((len(pairs), *above.shape), "float32")
        for n, k in enumerate(pairs):
            phase = read(cube, "unwrapped_phase", {PAIR: slice(k, k + 1), **here})[0]
            corrected[n] = phase - self.slopes[k].at_pixels(here) * above
        return corrected

    def within(self, window: Window) -> "_Removal":
        """Return what one window needs of it."""
        pairs = range(window[PAIR].start, window[PAIR].stop)
        slopes = {k: self.slopes[k].around(window) for k in pairs}
        return _Removal(slopes, self.mean.around(window), self.origin)


# --- cells -------------------------------------------------------------------------


def _cell_shape(cube: xr.Dataset) -> tuple[int, int]:
    return -(-cube.sizes[Y] // CELL), -(-cube.sizes[X] // CELL)


def _cells(window: Window) -> tuple[slice, slice]:
    """Cells of a window that begins with one."""
    y, x = (slice(window[d].start // CELL, -(-window[d].stop // CELL)) for d in (Y, X))
    return y, x


def _cell_sums(stack: np.ndarray) -> np.ndarray:
    """Sums over cells, shape (..., rows, columns) of cells."""
    rows, columns = (-(-n // CELL) for n in stack.shape[-2:])
    missing = (rows * CELL - stack.shape[-2], columns * CELL - stack.shape[-1])
    padded = np.pad(stack.astype("float64"), [(0, 0), (0, missing[0]), (0, missing[1])])
    return np.asarray(padded.reshape(-1, rows, CELL, columns, CELL).sum((2, 4)))


def _spread_out(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Value of its cell for every pixel of a window."""
    pixels = cells.repeat(CELL, 0).repeat(CELL, 1)
    return np.asarray(pixels[: shape[0], : shape[1]])


def _box(stack: np.ndarray, size: int) -> np.ndarray:
    """Sums over the `size` x `size` cells around each."""
    options: dict[str, Any] = {"mode": "constant", "cval": 0.0}
    ones = np.ones(size)
    rows = ndimage.correlate1d(stack, ones, axis=-2, **options)
    return np.asarray(ndimage.correlate1d(rows, ones, axis=-1, **options))


def _smooth(cells: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(cells, SMOOTHING, mode="nearest"))


@dataclass(frozen=True)
class _Cells:
    """Values of the cells of a scene, or of a part of it."""

    values: np.ndarray
    first: tuple[int, int]
    """Row and column of the first of `values`."""
    shape: tuple[int, int]
    """Rows and columns of the scene."""

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """Whole scene."""
        rows, columns = values.shape
        return cls(values, (0, 0), (rows, columns))

    def around(self, window: Window) -> "_Cells":
        """Return the part that the pixels of a window are interpolated from."""
        y, x = (
            slice(
                max(window[d].start // CELL - 1, first) - first,
                -(-window[d].stop // CELL) + 1 - first,
            )
            for d, first in zip((Y, X), self.first, strict=True)
        )
        first = (self.first[0] + y.start, self.first[1] + x.start)
        return _Cells(self.values[y, x], first, self.shape)

    def at_pixels(self, window: Window) -> np.ndarray:
        """Linear interpolation between cell centres; constant beyond the scene's."""
        values = self.values.astype("float64")
        for axis, dim in enumerate((Y, X)):
            last, first = self.shape[axis] - 1, self.first[axis]
            pixel = np.arange(window[dim].start, window[dim].stop)
            place = np.clip((pixel + 0.5) / CELL - 0.5, 0, last)
            low = np.minimum(place.astype(int), max(last - 1, 0))
            high = np.minimum(low + 1, last)
            part = (place - low).reshape((-1, 1) if axis == 0 else (1, -1))
            lower, upper = (values.take(k - first, axis) for k in (low, high))
            values = lower * (1 - part) + upper * part
        return np.asarray(values)
