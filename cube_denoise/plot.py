"""Maps of a cube, drawn as the field draws them; each function returns a `Figure`.

Blue is motion toward the satellite, red away from it, white none; grey is no data.
Big rasters are read with a stride, so memory does not grow with the scene.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cube_denoise.charts import plot_network, plot_series, track_of, variable_of
from cube_denoise.conventions import PAIR, X, Y, pair_label

__all__ = [
    "find_pair",
    "plot_maps",
    "plot_network",
    "plot_pair",
    "plot_series",
    "plot_uncertainty",
    "plot_velocity",
    "save_figure",
]

MAX_PIXELS = 1500
"""Larger rasters are thinned to about this many pixels a side."""
TOWARD, AWAY, PLAIN = "RdBu", "RdBu_r", "viridis"
"""Colour maps: positive toward the satellite, positive away from it, no sign."""
NO_DATA = "0.8"
MM = 1e3


def plot_velocity(cube: xr.Dataset) -> Figure:
    """Draw the line-of-sight velocity, mm/yr, positive toward the satellite.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``velocity`` (y, x), m/yr; its attributes tell the reference area.

    Returns
    -------
    matplotlib.figure.Figure
    """
    velocity = variable_of(cube, "velocity") * MM
    return plot_maps(
        {"": velocity},
        label="line-of-sight velocity (mm/yr),\npositive toward the satellite",
        title=f"Line-of-sight velocity{track_of(cube)}",
    )


def plot_uncertainty(cube: xr.Dataset) -> Figure:
    """Draw the standard deviation of the velocity, mm/yr.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``velocity_std`` (y, x), m/yr.

    Returns
    -------
    matplotlib.figure.Figure
    """
    deviation = variable_of(cube, "velocity_std") * MM
    return plot_maps(
        {"": deviation},
        label="formal standard deviation\nof the velocity (mm/yr)",
        title=f"Uncertainty of the velocity{track_of(cube)}",
        colours=PLAIN,
    )


def plot_pair(cube: xr.Dataset, pair: int) -> Figure:
    """Draw one pair: raw phase, corrected phase and what the correction took away.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``unwrapped_phase`` and, if it is corrected, ``corrected_phase``
        (pair, y, x), rad, positive away from the satellite.
    pair : int
        Position of the pair.

    Returns
    -------
    matplotlib.figure.Figure
        A pair is known up to a constant: each map is zero on average over the reference
        area, or in the median where none is known.

    Raises
    ------
    ValueError
        If there is no such pair.
    """
    variable_of(cube, "unwrapped_phase")
    count = cube.sizes.get(PAIR, 0)
    if not 0 <= pair < count:
        raise ValueError(f"{pair=} must be 0 to {count - 1}: the cube has {count}")
    names = [n for n in ("unwrapped_phase", "corrected_phase") if n in cube]
    raw, *corrected = (_referenced(cube, cube[n][pair]) for n in names)
    maps = {"raw": raw}
    title = f"Pair {pair_label(cube, pair)}{track_of(cube)}"
    if corrected:
        difference = (raw - corrected[0]).assign_attrs(raw.attrs)
        maps |= {"corrected": corrected[0], "raw minus corrected": difference}
    else:
        title += ", not corrected"
    return plot_maps(
        maps,
        label="unwrapped phase (rad),\npositive away from the satellite",
        title=title,
        colours=AWAY,
    )


def plot_maps(
    maps: Mapping[str, xr.DataArray],
    *,
    label: str,
    title: str = "",
    colours: str = TOWARD,
) -> Figure:
    """Draw maps of one quantity side by side on one scale.

    Parameters
    ----------
    maps : mapping of str to xarray.DataArray
        Heading -> (y, x) with coordinates; the attributes ``reference_rows`` and
        ``reference_columns``, if there, mark the reference area as a small square.
    label : str
        Of the colour bar: quantity, unit, sign.
    title : str
        Of the figure.
    colours : str
        `TOWARD`, `AWAY` (symmetric about zero, to the 98th percentile of the
        magnitude) or `PLAIN` (from zero to the 98th percentile).

    Returns
    -------
    matplotlib.figure.Figure
    """
    thinned = {name: _thin(map_) for name, map_ in maps.items()}
    limit = _limit(list(thinned.values()))
    norm = Normalize(0 if colours == PLAIN else -limit, limit)
    frame = _frame(next(iter(maps.values())))
    height = np.clip(frame.height / frame.width * frame.aspect, 0.4, 1.6)
    width = 4.0 if len(maps) > 1 else 6.0
    figure = Figure(
        (width * len(maps) + 1.0, width * height + 1.3), layout="compressed"
    )
    axes = figure.subplots(1, len(maps), squeeze=False, sharey=True)[0]
    colour_map = colormaps[colours].with_extremes(bad=NO_DATA)
    for axis, (name, map_) in zip(axes, thinned.items(), strict=True):
        image = axis.imshow(
            np.ma.masked_invalid(map_.values),
            cmap=colour_map,
            norm=norm,
            extent=frame.extent(map_),
            interpolation="nearest",
            origin="upper",
        )
        axis.set(
            title=name,
            xlabel=frame.labels[0],
            xlim=frame.x,
            ylim=frame.y,
            aspect=frame.aspect,
        )
        axis.ticklabel_format(useOffset=False, style="plain")
        axis.locator_params(nbins=5)
        _mark_reference(axis, maps[name], frame)
    axes[0].set_ylabel(frame.labels[1])
    if title:
        figure.suptitle(title)
    bar = figure.colorbar(
        image,
        ax=list(axes),
        extend="max" if colours == PLAIN else "both",
        shrink=0.9,
        label=label,
    )
    bar.ax.tick_params(labelsize="small")
    return figure


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


def _thin(map_: xr.DataArray) -> xr.DataArray:
    """Every n-th pixel, in memory, n in the attribute ``stride``."""
    if "stride" in map_.attrs:
        return map_
    stride = -(-max(map_.sizes[Y], map_.sizes[X]) // MAX_PIXELS)
    part = map_.transpose(Y, X)[::stride, ::stride].compute()
    return part.assign_attrs(map_.attrs, stride=stride)


def _limit(maps: list[xr.DataArray]) -> float:
    values = np.concatenate([np.abs(m.values[np.isfinite(m.values)]) for m in maps])
    return float(np.percentile(values, 98)) or 1.0 if values.size else 1.0


def _referenced(cube: xr.Dataset, phase: xr.DataArray) -> xr.DataArray:
    """Phase of a pair, thinned, zero over the reference area of the cube."""
    known = cube["velocity"].attrs if "velocity" in cube else {}
    area = {k: known[k] for k in ("reference_rows", "reference_columns") if k in known}
    thinned = _thin(phase)
    zero = np.nanmedian(thinned) if np.isfinite(thinned).any() else 0.0
    if len(area) == 2:
        rows, columns = (slice(*limits) for limits in area.values())
        inside = phase.transpose(Y, X)[rows, columns].values
        zero = np.nanmean(inside) if np.isfinite(inside).any() else zero
    return (thinned - zero).assign_attrs(area, stride=thinned.attrs["stride"])


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
    axis.annotate(
        "ref.",
        (corner[0] + size[0], corner[1] + size[1]),
        xytext=(2, 1),
        textcoords="offset points",
        fontsize="x-small",
    )


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG (or what the suffix says), whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        figure.savefig(part, dpi=150, bbox_inches="tight")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def find_pair(cube: xr.Dataset, text: str) -> int:
    """Position of a pair given as such or by its dates, ``YYYYMMDD-YYYYMMDD``."""
    if text.isdigit() and len(text) < 8:
        return int(text)
    labels = [pair_label(cube, k) for k in range(cube.sizes.get(PAIR, 0))]
    if text not in labels:
        raise ValueError(
            f"pair={text!r} is not in the cube; it has {len(labels)}, such as "
            f"{', '.join(labels[:2])}"
        )
    return labels.index(text)
