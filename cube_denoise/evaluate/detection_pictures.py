"""Pictures of the smallest deformation that would be found, by place and by method."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cube_denoise.evaluate.injection import AMPLITUDE_UNITS
from cube_denoise.evaluate.injection_pictures import (
    any_map,
    histories,
    injected_by,
    named,
    pixel_aspect,
)
from cube_denoise.evaluate.pictures import MM, WIDTH, plain_logarithm, styles_of
from cube_denoise.evaluate.recovery import Recovery, by_kind, smallest_detectable
from cube_denoise.map_axes import NO_DATA, PLAIN, height_over_width

if TYPE_CHECKING:
    from cube_denoise.evaluate.judge import Evaluation

MOST_NUMBERS = 30
"""Numbers are written beside the sources of a panel if there are at most so many."""


def plot_detectable_maps(evaluation: "Evaluation", history: str) -> Figure:
    """Draw the smallest signal that would be found at each place, by method and radius.

    Bowls: circles have their radius, the number is the smallest amplitude; hollow where
    even the largest injected one is not found.
    """
    judged = injected_by(evaluation)
    kinds = [k for k in by_kind(judged[0].recoveries) if k.history == history]
    shape = "bowl" if any(k.shape == "bowl" for k in kinds) else kinds[0].shape
    kinds = sorted(k for k in kinds if k.shape == shape)
    least = {
        (v.method, k): MM * smallest_detectable(by_kind(v.recoveries)[k])
        for v in judged
        for k in kinds
    }
    known = np.concatenate([a[np.isfinite(a)] for a in least.values()] or [np.ones(1)])
    ends = (known.min(), known.max()) if known.size else (1.0, 10.0)
    norm = LogNorm(0.95 * ends[0], 1.05 * ends[1])
    ratio = height_over_width(any_map(evaluation))
    panel = min((WIDTH - 1.8) / len(kinds), 3.2)
    figure = Figure(
        (panel * len(kinds) + 1.8, len(judged) * (panel * ratio + 0.08) + 1.1),
        layout="compressed",
    )
    axes = figure.subplots(len(judged), len(kinds), squeeze=False)
    for n, verdict in enumerate(judged):
        for m, kind in enumerate(kinds):
            group = by_kind(verdict.recoveries)[kind]
            _draw_sources(
                axes[n, m],
                group[-1],
                least[verdict.method, kind],
                norm,
                evaluation,
            )
            if n == 0:
                axes[n, m].set_title(
                    f"{shape}, radius {kind.radius / 1e3:.2g} km", fontsize="small"
                )
        axes[n, 0].set_ylabel(
            verdict.method, rotation=0, ha="right", va="center", fontsize="small"
        )
    figure.suptitle(
        f"Smallest {named(history)} that would be found, {AMPLITUDE_UNITS[history]}",
        fontsize="large",
    )
    bar = figure.colorbar(
        ScalarMappable(norm, PLAIN),
        ax=axes,
        aspect=40,
        shrink=min(1.0, 5 / len(judged)),
    )
    bar.set_label(
        f"smallest amplitude found ({AMPLITUDE_UNITS[history]})", fontsize="small"
    )
    plain_logarithm(bar.ax.yaxis)
    bar.ax.tick_params(labelsize="small")
    return figure


def _draw_sources(
    axis: Axes,
    one: Recovery,
    least: np.ndarray,
    norm: Normalize,
    evaluation: "Evaluation",
) -> None:
    """Circles on the pixel grid, coloured by the smallest amplitude found."""
    data = np.isfinite(one.recovered).astype(float)
    axis.imshow(
        data,
        cmap=ListedColormap([NO_DATA, "white"]),
        norm=Normalize(0, 1),
        aspect=pixel_aspect(evaluation),
        interpolation="nearest",
    )
    height, width = (2 * one.case.radius / s for s in evaluation.spacing)
    colours = colormaps[PLAIN](norm(np.where(np.isfinite(least), least, np.nan)))
    colours[~np.isfinite(least)] = (1, 1, 1, 0)
    axis.add_collection(
        EllipseCollection(
            np.full(least.size, width),
            np.full(least.size, height),
            np.zeros(least.size),
            units="xy",
            offsets=np.stack([one.columns, one.rows], 1),
            offset_transform=axis.transData,
            facecolors=colours,
            edgecolors="0.3",
            linewidths=0.8,
        )
    )
    rows, columns = one.injected.shape
    axis.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axis.set(xticks=[], yticks=[])
    if least.size > MOST_NUMBERS:
        return
    largest = MM * one.case.amplitude
    for row, column, value in zip(one.rows, one.columns, least, strict=True):
        text = f">{largest:g}" if np.isinf(value) else _short(value)
        axis.text(
            column,
            row - height / 2 - 0.015 * rows,
            text if not np.isnan(value) else "no data",
            ha="center",
            va="bottom",
            fontsize=7.5,
        )


def plot_detectable(evaluation: "Evaluation") -> Figure:
    """Draw the median smallest signal found by method, radius, shape and history.

    The larger the marker the wider the source; hollow triangles where most sources are
    not found at all.
    """
    judged, look = injected_by(evaluation), styles_of(evaluation)
    kinds = list(by_kind(judged[0].recoveries))
    panels = [
        (h, s)
        for h in histories(evaluation)
        for s in dict.fromkeys(k.shape for k in kinds if k.history == h)
    ]
    radii = sorted({k.radius for k in kinds})
    sizes = dict(zip(radii, np.linspace(4.5, 11, len(radii)), strict=True))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(
        (WIDTH, rows * (0.9 + 0.3 * len(judged)) + 0.9), layout="constrained"
    )
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    ends: dict[str, list[float]] = {}
    for axis, (history, shape) in zip(axes, panels, strict=False):
        for n, verdict in enumerate(judged):
            color, _ = look[verdict.method]
            points = []
            for kind, group in by_kind(verdict.recoveries).items():
                if (kind.history, kind.shape) != (history, shape):
                    continue
                least = MM * smallest_detectable(group)
                least = least[~np.isnan(least)]
                if not least.size:
                    continue
                value = float(np.median(least))
                missed = np.isinf(value)
                value = MM * group[-1].case.amplitude if missed else value
                points.append(value)
                axis.plot(
                    value,
                    n,
                    marker=">" if missed else "o",
                    markersize=sizes[kind.radius],
                    markerfacecolor="none" if missed else color,
                    markeredgecolor=color,
                    alpha=0.85,
                    linestyle="none",
                )
            ends.setdefault(history, []).extend(points)
            if points:
                axis.plot(
                    [min(points), max(points)], [n, n], color=color, linewidth=0.8
                )
        axis.set_title(f"{named(history)}: {shape}", fontsize="medium")
        axis.set_xscale("log")
        axis.set_xlabel(
            f"smallest found ({AMPLITUDE_UNITS[history]})", fontsize="small"
        )
        axis.tick_params(labelsize="small")
        axis.grid(alpha=0.3, which="both", axis="x")
    for axis, (history, _) in zip(axes, panels, strict=False):
        if ends[history]:
            axis.set_xlim(min(ends[history]) / 1.15, 1.15 * max(ends[history]))
        plain_logarithm(axis.xaxis)
    axes[0].set(
        yticks=range(len(judged)),
        yticklabels=[v.method for v in judged],
        ylim=(len(judged) - 0.4, -0.6),
    )
    for spare in axes[len(panels) :]:
        spare.remove()
    handles = [
        Line2D(
            [],
            [],
            marker="o",
            linestyle="none",
            color="0.5",
            markersize=sizes[r],
            label=f"radius {r / 1e3:.2g} km",
        )
        for r in radii
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize="small",
        frameon=False,
    )
    figure.suptitle("Smallest signal that would be found (left is better)")
    return figure


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
