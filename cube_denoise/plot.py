"""Maps of a cube, drawn as the field draws them; each function returns a `Figure`.

Blue is motion toward the satellite, red away from it, white none; grey is no data.
Big rasters are read with a stride, so memory does not grow with the scene.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cube_denoise.charts import plot_network, plot_series, track_of, variable_of
from cube_denoise.conventions import PAIR, X, Y, pair_label
from cube_denoise.map_axes import (
    AWAY,
    PLAIN,
    TOWARD,
    draw_map,
    height_over_width,
    largest_shown,
    thin,
)
from cube_denoise.reference_area import recorded_reference
from cube_denoise.reference_pixels import checked_area

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
    thinned = {name: thin(map_) for name, map_ in maps.items()}
    limit = largest_shown(thinned.values())
    norm = Normalize(0 if colours == PLAIN else -limit, limit)
    height = height_over_width(next(iter(maps.values())))
    width = 4.0 if len(maps) > 1 else 6.0
    figure = Figure(
        (width * len(maps) + 1.0, width * height + 1.3), layout="compressed"
    )
    axes = figure.subplots(1, len(maps), squeeze=False, sharey=True)[0]
    for axis, (name, map_) in zip(axes, maps.items(), strict=True):
        image = draw_map(axis, map_, norm=norm, colours=colours, thinned=thinned[name])
        axis.set(title=name, ylabel=axis.get_ylabel() if axis is axes[0] else "")
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


def _referenced(cube: xr.Dataset, phase: xr.DataArray) -> xr.DataArray:
    """Phase of a pair, thinned, zero over the reference area of the cube."""
    known = cube["velocity"].attrs if "velocity" in cube else {}
    area = {k: known[k] for k in ("reference_rows", "reference_columns") if k in known}
    thinned = thin(phase)
    zero = np.nanmedian(thinned) if np.isfinite(thinned).any() else 0.0
    if len(area) == 2:
        pixels = checked_area(recorded_reference(known), cube)
        inside = pixels.cut(phase.transpose(Y, X))
        zero = np.nanmean(inside) if np.isfinite(inside).any() else zero
    return (thinned - zero).assign_attrs(area, stride=thinned.attrs["stride"])


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
