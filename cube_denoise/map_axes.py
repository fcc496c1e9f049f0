"""One map in axes: its colours, its frame, its reference area.

Blue is motion toward the satellite, red away from it, white none; grey is no data.
Big rasters are read with a stride, so memory does not grow with the scene.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from cube_denoise.conventions import X, Y

MAX_PIXELS = 1500
"""Larger rasters are thinned to about this many pixels a side."""
TOWARD, AWAY, PLAIN = "RdBu", "RdBu_r", "viridis"
"""Colour maps: positive toward the satellite, positive away from it, no sign."""
NO_DATA = "0.8"


def draw_map(
    axis: Axes,
    map_: xr.DataArray,
    *,
    norm: Normalize,
    colours: str = TOWARD,
    thinned: xr.DataArray | None = None,
) -> AxesImage:
    """Draw one map into axes, with its coordinates and its reference area.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Gets the image, its labels and limits.
    map_, colours
        As for `plot_maps`.
    norm : matplotlib.colors.Normalize
        Of the colours.
    thinned : xarray.DataArray, optional
        The map as it was thinned before.
    """
    frame = _frame(map_)
    thinned = thin(map_) if thinned is None else thinned
    image = axis.imshow(
        np.ma.masked_invalid(thinned.values),
        cmap=colormaps[colours].with_extremes(bad=NO_DATA),
        norm=norm,
        extent=frame.extent(thinned),
        interpolation="nearest",
        origin="upper",
    )
    axis.set(
        xlabel=frame.labels[0],
        ylabel=frame.labels[1],
        xlim=frame.x,
        ylim=frame.y,
        aspect=frame.aspect,
    )
    axis.ticklabel_format(useOffset=False, style="plain")
    axis.locator_params(nbins=5)
    _mark_reference(axis, map_, frame)
    return image


def height_over_width(map_: xr.DataArray) -> float:
    """Height over width of a map as it is drawn, kept within 0.4 to 1.6."""
    frame = _frame(map_)
    return float(np.clip(frame.height / frame.width * frame.aspect, 0.4, 1.6))


def largest_shown(maps: Iterable[xr.DataArray]) -> float:
    """98th percentile of the magnitude of maps: the end of their common scale."""
    values = np.concatenate([np.abs(m.values[np.isfinite(m.values)]) for m in maps])
    return float(np.percentile(values, 98)) or 1.0 if values.size else 1.0


class _Frame(NamedTuple):
    """Where maps are drawn: limits in the unit of the axes."""

    x: tuple[float, float]
    y: tuple[float, float]
    step: tuple[float, float]
    aspect: float
    labels: tuple[str, str]

    @property
    def width(self) -> float:
        return abs(self.x[1] - self.x[0])

    @property
    def height(self) -> float:
        return abs(self.y[1] - self.y[0])

    def extent(self, map_: xr.DataArray) -> tuple[float, float, float, float]:
        """Of a thinned map: its last pixel may reach over the edge."""
        stride = int(map_.attrs["stride"])
        rows, columns = map_.shape
        left, top = self.x[0], self.y[1]
        right = left + columns * stride * self.step[0]
        return left, right, top + rows * stride * self.step[1], top


def _frame(map_: xr.DataArray) -> _Frame:
    """Frame of a whole map: kilometres, degrees, or pixels without coordinates."""
    limits, steps = [], []
    for dim in (X, Y):
        axis = map_[dim].values.astype("float64") if dim in map_.coords else None
        if axis is None or axis.size < 2:
            axis = np.arange(map_.sizes[dim], dtype="float64")
        step = (axis[-1] - axis[0]) / max(axis.size - 1, 1) or 1.0
        limits.append((axis[0] - step / 2, axis[-1] + step / 2))
        steps.append(step)
    units = str(map_[X].attrs.get("units", "")) if X in map_.coords else "pixel"
    degrees = "degree" in units
    scale = 1e-3 if units in ("m", "metre", "meter") else 1.0
    names = ("longitude (°)", "latitude (°)") if degrees else ("x (km)", "y (km)")
    if not degrees and scale == 1.0:
        names = (f"x ({units or 'CRS units'})", f"y ({units or 'CRS units'})")
    aspect = 1.0
    if degrees:
        aspect = 1 / max(np.cos(np.deg2rad(np.mean(limits[1]))), 0.05)
    (left, right), (top, bottom) = ((a * scale, b * scale) for a, b in limits)
    return _Frame(
        (left, right),
        (bottom, top),
        (steps[0] * scale, steps[1] * scale),
        float(aspect),
        names,
    )


def thin(map_: xr.DataArray) -> xr.DataArray:
    """Every n-th pixel, in memory, n in the attribute ``stride``."""
    if "stride" in map_.attrs:
        return map_
    stride = -(-max(map_.sizes[Y], map_.sizes[X]) // MAX_PIXELS)
    part = map_.transpose(Y, X)[::stride, ::stride].compute()
    return part.assign_attrs(map_.attrs, stride=stride)


def _mark_reference(axis: Axes, map_: xr.DataArray, frame: _Frame) -> None:
    """Draw the reference area, at least as large as can be seen."""
    rows, columns = (map_.attrs.get(f"reference_{n}") for n in ("rows", "columns"))
    if rows is None or columns is None:
        return
    left, right = (frame.x[0] + c * frame.step[0] for c in columns)
    top, bottom = (frame.y[1] + r * frame.step[1] for r in rows)
    grow_x = max(0.0, 0.025 * frame.width - abs(right - left)) / 2
    grow_y = max(0.0, 0.025 * frame.height - abs(top - bottom)) / 2
    corner = (min(left, right) - grow_x, min(top, bottom) - grow_y)
    size = (abs(right - left) + 2 * grow_x, abs(top - bottom) + 2 * grow_y)
    axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor="black"))
    end = corner[1] + size[1]
    high = end > max(frame.y) - 0.1 * frame.height  # its name would leave the map
    axis.annotate(
        "ref.",
        (corner[0] + size[0], end),
        xytext=(2, -1 if high else 1),
        textcoords="offset points",
        verticalalignment="top" if high else "bottom",
        fontsize="x-small",
    )
