"""Pictures of an evaluation: velocities, structure, held-out dates.

Each function returns a `Figure` as wide as a page. A method has one colour and one
marker in all of them; raw is black.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from cube_denoise.conventions import X, Y
from cube_denoise.corrections import CLASSICAL
from cube_denoise.map_axes import TOWARD, draw_map, height_over_width, largest_shown

if TYPE_CHECKING:
    from cube_denoise.evaluate.judge import Evaluation

WIDTH = 9.6
"""Of figures, inches: a page."""
MM = 1e3
RAW_COLOUR = "black"
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7B4FA3"),
    *("#8C6D31", "#A50026", "#66A61E", "#1B7F8C", "#E7298A", "#5E5E9E", "#B5651D"),
)
MARKERS = "osD^vP<X>dphH8"
VELOCITY = "line-of-sight velocity (mm/yr),\npositive toward the satellite"


class Style(NamedTuple):
    """How a method is drawn."""

    color: str
    marker: str


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Colour and marker of methods; those of the classical corrections are fixed."""
    own = [m for m in methods if m not in CLASSICAL and m != "raw"]
    order = [*CLASSICAL, *own]
    found = {"raw": Style(RAW_COLOUR, "o")}
    for k, name in enumerate(order):
        found[name] = Style(COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)])
    return found


def styles_of(evaluation: "Evaluation") -> dict[str, Style]:
    """`styles` of the methods of an evaluation."""
    return styles(v.method for v in evaluation.verdicts)


def grid_axes(
    panels: int, *, ratio: float, columns: int | None = None, bar: bool = False
) -> tuple[Figure, list[Axes], int]:
    """Figure of panels in rows of four at most, of one size; axes and panels in a row.

    Parameters
    ----------
    panels : int
        How many.
    ratio : float
        Height over width of a panel.
    columns : int, optional
        Panels in a row; chosen when not given.
    bar : bool
        Whether a colour bar will be put beside them.
    """
    if columns is None:
        columns = panels if panels <= 4 else 3 if panels in (5, 6, 9) else 4
    rows = -(-panels // columns)
    room = WIDTH - 0.7 - (1.1 if bar else 0.0)
    size = min(room / columns, 4.0)
    width = size * columns + WIDTH - room
    height = rows * (size * ratio + 0.35) + 0.9
    figure = Figure((width, height), layout="compressed")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels], columns


def draw_panels(
    maps: Mapping[str, xr.DataArray], *, label: str, title: str, limit: float | None
) -> Figure:
    """Maps on one scale, in rows; see `plot.plot_maps` for a single row.

    Parameters
    ----------
    maps : mapping of str to xarray.DataArray
        Heading -> (y, x).
    label : str
        Of the colour bar.
    title : str
        Of the figure.
    limit : float, optional
        End of the scale, which is symmetric about zero; from the maps when not given.
    """
    first = next(iter(maps.values()))
    ratio = height_over_width(first)
    figure, axes, columns = grid_axes(len(maps), ratio=ratio, bar=True)
    limit = largest_shown(maps.values()) if limit is None else limit
    for k, (axis, (name, map_)) in enumerate(zip(axes, maps.items(), strict=True)):
        image = draw_map(axis, map_, norm=Normalize(-limit, limit), colours=TOWARD)
        axis.set_title(name, fontsize="medium")
        axis.locator_params(nbins=4)
        axis.tick_params(labelsize="x-small")
        small_labels(axis)
        if k % columns:
            axis.set_ylabel("")
            axis.tick_params(labelleft=False)
        if k + columns < len(axes):
            axis.set_xlabel("")
            axis.tick_params(labelbottom=False)
    figure.suptitle(title, fontsize="large")
    bar = figure.colorbar(image, ax=axes, extend="both", aspect=30)
    bar.set_label(label, fontsize="small")
    bar.ax.tick_params(labelsize="small")
    return figure


def plot_velocities(evaluation: "Evaluation") -> Figure:
    """Draw the velocity of every method (and the true one) on one scale, mm/yr."""
    maps = _velocities(evaluation)
    title = "Velocity from the pairs as each method corrects them"
    limit = largest_shown([v for k, v in maps.items() if k in ("truth", "raw")])
    return draw_panels(maps, label=VELOCITY, title=title, limit=limit)


def plot_velocity_errors(evaluation: "Evaluation") -> Figure:
    """Draw velocity less true velocity of every method on one scale, mm/yr."""
    maps = _velocities(evaluation)
    true = maps.pop("truth")
    errors = {}
    for name, map_ in maps.items():
        error = map_ - true.values
        error = error - float(error.mean())
        rms = float(np.sqrt((error**2).mean()))
        errors[f"{name}: rms {rms:.1f}"] = error.assign_attrs(map_.attrs)
    return draw_panels(
        errors,
        label="velocity less true velocity (mm/yr),\nthe mean of each map removed",
        title="Error of the velocity",
        limit=None,
    )


def _velocities(evaluation: "Evaluation") -> dict[str, xr.DataArray]:
    """Maps in mm/yr by method, the true one first."""
    maps: dict[str, xr.DataArray] = {}
    judged = [v for v in evaluation.verdicts if v.maps is not None]
    for verdict in judged:
        assert verdict.maps is not None
        velocity = verdict.maps["velocity"].transpose(Y, X)
        maps[verdict.method] = (velocity * MM).assign_attrs(velocity.attrs)
    if evaluation.truth is None:
        return maps
    like = maps["raw"]
    true = MM * evaluation.truth["velocity"].transpose(Y, X).values
    area = evaluation.reference
    at_rest = like.copy(data=true - np.nanmean(area.cut(true)))
    return {"truth": at_rest.assign_attrs(like.attrs), **maps}


def plot_structure(evaluation: "Evaluation") -> Figure:
    """Draw the root of the structure function of the pairs by distance, mm."""
    figure = Figure((WIDTH, 4.2), layout="constrained")
    axis = figure.subplots()
    look = styles_of(evaluation)
    for verdict in evaluation.verdicts:
        if verdict.structure is None:
            continue
        known = verdict.structure.dropna("distance")
        known = known.where(known > 0, drop=True)  # a flat map has no logarithm
        axis.plot(
            known["distance"].values,
            known.values,
            **look[verdict.method]._asdict(),
            markersize=5,
            linewidth=2.2 if verdict.method == "raw" else 1.4,
            label=verdict.method,
        )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="distance (km)",
        ylabel="root of the structure function (mm)",
    )
    axis.set_title("How much two points of a pair differ, by their distance")
    plain_logarithm(axis.xaxis)
    plain_logarithm(axis.yaxis)
    axis.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    return figure


def plot_held_out(evaluation: "Evaluation") -> Figure | None:
    """Draw the held-out ratio of every method and of every hidden date."""
    judged = [v for v in evaluation.verdicts if v.held_out is not None]
    if not judged:
        return None
    figure = Figure((WIDTH, 1.6 + 0.42 * len(judged)), layout="constrained")
    axis = figure.subplots()
    look = styles_of(evaluation)
    for k, verdict in enumerate(judged):
        assert verdict.held_out is not None
        ratios = verdict.held_out.dates["ratio"].values
        ratios = ratios[ratios > 0]
        color, marker = look[verdict.method]
        # Dots of neighbouring dates alternate about the line, so that they can be told.
        offset = 0.12 * (np.arange(ratios.size) % 3 - 1)
        axis.plot(ratios, k + offset, ".", color=color, alpha=0.5, markersize=6)
        if np.isfinite(verdict.held_out.ratio) and verdict.held_out.ratio > 0:
            axis.plot(
                verdict.held_out.ratio,
                k,
                marker=marker,
                color=color,
                markersize=10,
                markeredgecolor="white",
                linestyle="none",
            )
        axis.annotate(
            f"{verdict.held_out.ratio:.3f}",
            (1.01, k),
            xycoords=("axes fraction", "data"),
            verticalalignment="center",
            fontsize="small",
        )
    axis.axvline(1, color="0.3", linewidth=1)
    axis.annotate(
        "1: predicts no better than no motion",
        (1, 1.02),
        xycoords=("data", "axes fraction"),
        horizontalalignment="center",
        fontsize="small",
    )
    axis.set(
        xscale="log",
        xlabel="squared error of predicting hidden dates over that of predicting no "
        "motion\n(large: all dates; dots: each date; left is better)",
        yticks=range(len(judged)),
        yticklabels=[v.method for v in judged],
        ylim=(len(judged) - 0.4, -0.6),
    )
    plain_logarithm(axis.xaxis)
    axis.grid(alpha=0.3, axis="x", which="both")
    return figure


def small_labels(axis: Axes) -> None:
    """Make the labels of axes small: panels are."""
    for one in (axis.xaxis, axis.yaxis):
        one.label.set_fontsize("small")


def plain_logarithm(axis: Axis) -> None:
    """Ticks as plain numbers on a logarithmic axis whose limits are set, 2 or more."""
    low, high = np.log10(axis.get_view_interval())
    steps = (1, 1.5, 2, 3, 4, 6, 8) if high - low < 1 else (1, 2, 5)
    axis.set_major_locator(LogLocator(subs=steps if high - low < 3 else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
