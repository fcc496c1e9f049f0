"""Which values of a map a screen can show, and reading those alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox

from cube_denoise.blocks import spans
from cube_denoise.conventions import X, Y

STRIP, SERIES_STRIP = 256, 64
"""Rows read at once where values are averaged: those of a chunk of maps, of series."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class View:
    """What a screen shows, in map coordinates, and the pixels it shows it with."""

    left: float
    right: float
    bottom: float
    top: float
    columns: int
    rows: int

    @property
    def pixel(self) -> tuple[float, float]:
        """Height and width of a pixel of the screen, in map units."""
        return (
            (self.top - self.bottom) / self.rows,
            (self.right - self.left) / self.columns,
        )

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top."""
        return self.left, self.right, self.bottom, self.top

    def equalised(self, aspect: float = 1.0) -> "View":
        """Grow the view until a unit of y is `aspect` times as long as one of x.

        Examples
        --------
        >>> View(0, 10, 0, 10, columns=200, rows=100).equalised().right
        15.0
        """
        height, width = self.pixel
        unit = max(height * aspect, width)
        y, x = (self.bottom + self.top) / 2, (self.left + self.right) / 2
        half_y, half_x = unit / aspect * self.rows / 2, unit * self.columns / 2
        return replace(
            self, left=x - half_x, right=x + half_x, bottom=y - half_y, top=y + half_y
        )

    def resized(self, columns: int, rows: int) -> "View":
        """View of the same scale and centre on a screen of another size.

        Examples
        --------
        >>> View(0, 10, 0, 10, columns=10, rows=10).resized(20, 10).left
        -5.0
        """
        height, width = self.pixel
        y, x = (self.bottom + self.top) / 2, (self.left + self.right) / 2
        half_y, half_x = height * rows / 2, width * columns / 2
        return View(x - half_x, x + half_x, y - half_y, y + half_y, columns, rows)

    def holds(self, box: BoundingBox) -> bool:
        """Whether a box is seen whole."""
        across = self.left <= box.left and box.right <= self.right
        return across and self.bottom <= box.bottom and box.top <= self.top


@dataclass(frozen=True)
class Window:
    """Part of one level of a map, as it is read."""

    level: int
    """Position of the level, 0 = the finest."""
    rows: slice
    columns: slice
    factor: int
    """Pixels a side whose mean is one value, a power of two; `rows` and `columns` begin
    at multiples of it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of values."""
        sides = (self.rows, self.columns)
        rows, columns = (-(-(s.stop - s.start) // self.factor) for s in sides)
        return rows, columns


def whole(grid: GeoBox, columns: int, rows: int, *, margin: float = 0.02) -> View:
    """View of a whole grid, with a margin as a share of its sides."""
    box = grid.boundingbox
    x, y = (margin * side for side in (box.right - box.left, box.top - box.bottom))
    return View(box.left - x, box.right + x, box.bottom - y, box.top + y, columns, rows)


def aspect_of(grid: GeoBox) -> float:
    """How long a unit of y is on the ground, a unit of x being 1.

    1 but for degrees: there it is 1 / cos(latitude) at the centre of the grid.
    """
    if grid.crs is None or not grid.crs.geographic:
        return 1.0
    box = grid.boundingbox
    latitude = math.radians((box.bottom + box.top) / 2)
    return 1 / max(math.cos(latitude), 0.05)


def find_window(grids: Sequence[GeoBox], view: View) -> Window | None:
    """Window that a view needs: the coarsest that has a value for each screen pixel.

    Parameters
    ----------
    grids : sequence of odc.geo.geobox.GeoBox
        Of the levels of a pyramid, finest first, axes along x and y; one is enough.
    view : View

    Returns
    -------
    Window or None
        The coarsest level whose pixels are no larger than those of the screen, or the
        finest; averaged further by the largest power of two for which that stays so.
        None where the view shows nothing of the map.
    """
    height, width = (side * (1 + ROUNDING) for side in view.pixel)

    def fits(grid: GeoBox, factor: int = 1) -> bool:
        step = grid.affine
        return abs(step.e) * factor <= height and abs(step.a) * factor <= width

    level = max((k for k, grid in enumerate(grids) if fits(grid)), default=0)
    grid, factor = grids[level], 1
    while fits(grid, 2 * factor):
        factor *= 2
    step, (rows, columns) = grid.affine, grid.shape
    down = _inside((view.bottom - step.f) / step.e, (view.top - step.f) / step.e, rows)
    along = _inside(
        (view.left - step.c) / step.a, (view.right - step.c) / step.a, columns
    )
    if down is None or along is None:
        return None
    return Window(
        level, _aligned(down, factor, rows), _aligned(along, factor, columns), factor
    )


def extent(grid: GeoBox, window: Window) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of a window; its last values may reach over the map."""
    step, (rows, columns) = grid.affine, window.shape
    top = step.f + step.e * window.rows.start
    left = step.c + step.a * window.columns.start
    bottom = top + step.e * rows * window.factor
    right = left + step.a * columns * window.factor
    return min(left, right), max(left, right), min(bottom, top), max(bottom, top)


def read(array: xr.DataArray, window: Window, *, squares: bool = False) -> np.ndarray:
    """Values of a window: means over the pixels that hold data, NaN where none does.

    Parameters
    ----------
    array : xarray.DataArray, dims (..., y, x)
        The level of the window; a strip of it is in memory at a time.
    window : Window
    squares : bool
        Take the root of the mean square instead, as of standard deviations.

    Returns
    -------
    numpy.ndarray, float32, shape (..., rows, columns)
        Rows and columns in the order of the array.
    """
    array = array.transpose(..., Y, X)
    here = array.isel({X: window.columns})
    if window.factor == 1:
        return np.asarray(here.isel({Y: window.rows}).values, "float32")
    height = max(window.factor, STRIP if array.ndim == 2 else SERIES_STRIP)
    parts = []
    for rows in spans(window.rows.stop, height, start=window.rows.start):
        strip = np.asarray(here.isel({Y: rows}).values, "float64")
        means = _means(strip**2 if squares else strip, window.factor)
        parts.append((np.sqrt(means) if squares else means).astype("float32"))
    return np.concatenate(parts, axis=-2)


def upright(values: np.ndarray, grid: GeoBox) -> np.ndarray:
    """Values as a plot takes them: rows from the bottom up, columns from the left."""
    down, along = grid.affine.e < 0, grid.affine.a < 0
    return values[..., :: -1 if down else 1, :: -1 if along else 1]


def _inside(a: float, b: float, size: int) -> slice | None:
    """Pixels that an interval touches, in a row of `size`."""
    start, stop = max(math.floor(min(a, b)), 0), min(math.ceil(max(a, b)), size)
    return slice(start, stop) if start < stop else None


def _aligned(part: slice, factor: int, size: int) -> slice:
    """Grow a part to multiples of `factor`, within `size`."""
    start = part.start // factor * factor
    return slice(start, min(-(-part.stop // factor) * factor, size))


def _means(values: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of `factor` pixels, those at the end may be smaller."""
    short = [(0, -side % factor) for side in values.shape[-2:]]
    edges = [(0, 0)] * (values.ndim - 2) + short
    full = np.pad(values, edges, constant_values=np.nan)
    rows, columns = (side // factor for side in full.shape[-2:])
    cells = full.reshape(*full.shape[:-2], rows, factor, columns, factor)
    valid = np.isfinite(cells)
    count = valid.sum((-3, -1))
    total = np.where(valid, cells, 0).sum((-3, -1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
