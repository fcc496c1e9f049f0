"""Pictures of what came back of injected deformation."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cube_denoise.conventions import X, Y
from cube_denoise.evaluate.injection import AMPLITUDE_UNITS
from cube_denoise.evaluate.pictures import (
    MM,
    WIDTH,
    styles_of,
)
from cube_denoise.evaluate.recovery import (
    Kind,
    Recovery,
    by_kind,
)
from cube_denoise.map_axes import NO_DATA, TOWARD, height_over_width

if TYPE_CHECKING:
    from cube_denoise.evaluate.judge import Evaluation, Verdict


def histories(evaluation: "Evaluation") -> list[str]:
    """Histories of what was injected, steady first."""
    known = {k.history for v in evaluation.verdicts for k in by_kind(v.recoveries)}
    return [h for h in AMPLITUDE_UNITS if h in known]


def plot_slopes(evaluation: "Evaluation", history: str) -> Figure:
    """Draw how much of what was injected comes back, by radius, shape and amplitude.

    Lines are medians over the sources of a case, dots are its sources.
    """
    judged, look = injected_by(evaluation), styles_of(evaluation)
    cases = [r.case for r in judged[0].recoveries if r.case.history == history]
    shapes = list(dict.fromkeys(c.shape for c in cases))
    sizes = sorted({c.amplitude for c in cases})
    radii = sorted({c.radius for c in cases})
    columns = len(sizes)
    figure = Figure((WIDTH, 0.9 + 2.3 * len(shapes)), layout="constrained")
    axes = figure.subplots(
        len(shapes), columns, squeeze=False, sharex=True, sharey=True
    )
    low, high = 0.0, 1.0
    for k, verdict in enumerate(judged):
        shift = 1.0 + 0.018 * (k - (len(judged) - 1) / 2)  # dots beside each other
        color, marker = look[verdict.method]
        for n, shape in enumerate(shapes):
            for m, size in enumerate(sizes):
                found = sorted(
                    (r.case.radius * shift / 1e3, r.slope)
                    for r in verdict.recoveries
                    if (r.case.shape, r.case.amplitude) == (shape, size)
                    and r.case.history == history
                    and np.isfinite(r.slope).any()
                )
                if not found:
                    continue
                for radius, slope in found:
                    axes[n, m].plot(
                        np.full(slope.size, radius),
                        slope,
                        ".",
                        color=color,
                        alpha=0.35,
                        markersize=4,
                    )
                middle = [float(np.nanmedian(s)) for _, s in found]
                low, high = min(low, *middle), max(high, *middle)
                axes[n, m].plot(
                    [r for r, _ in found],
                    middle,
                    color=color,
                    marker=marker,
                    markersize=5,
                    linewidth=2.2 if verdict.method == "raw" else 1.3,
                    label=verdict.method if (n, m) == (0, 0) else None,
                )
    for n, shape in enumerate(shapes):
        axes[n, 0].set_ylabel(f"{shape}\n\nslope", fontsize="medium")
        for m, size in enumerate(sizes):
            axis = axes[n, m]
            axis.set_xscale("log")
            axis.set_xticks([r / 1e3 for r in radii], [f"{r / 1e3:.2g}" for r in radii])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
            axis.axhline(0, color="0.6", linewidth=0.8)
            if n == 0:
                axis.set_title(
                    f"{MM * size:g} {AMPLITUDE_UNITS[history]}", fontsize="medium"
                )
            if n == len(shapes) - 1:
                axis.set_xlabel("radius (km)", fontsize="small")
    margin = 0.12 * (high - low)
    axes[0, 0].set_ylim(max(low - margin, -1.5), min(high + margin, 2.5))
    figure.suptitle(
        f"Part of {told(history)} that comes back: 1 all of it, 0 nothing",
        fontsize="large",
    )
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    return figure


def plot_recovered(evaluation: "Evaluation", history: str) -> Figure:
    """Draw what was injected, and what came back by each method, on one scale.

    Of the middle amplitude; bowls of every radius, of the other shapes the middle one.
    Raw is left out: it gives back what went in.
    """
    judged = [v for v in injected_by(evaluation) if v.method != "raw"]
    first = injected_by(evaluation)[0]
    kinds = _kinds_drawn(first, history)
    ratio = height_over_width(any_map(evaluation))
    rows = 1 + len(judged)
    panel = min((WIDTH - 1.6) / len(kinds), 2.6)
    figure = Figure(
        (panel * len(kinds) + 1.6, rows * (panel * ratio + 0.06) + 1.1),
        layout="compressed",
    )
    axes = figure.subplots(rows, len(kinds), squeeze=False)
    shown = [_middle(first, kind) for kind in kinds]
    limit = MM * max(r.case.amplitude for r in shown)
    for m, (kind, one) in enumerate(zip(kinds, shown, strict=True)):
        maps = {"injected": one.injected}
        maps |= {v.method: _middle(v, kind).recovered for v in judged}
        for n, (name, map_) in enumerate(maps.items()):
            known = np.isfinite(map_)
            offset = 0.0
            if n and known.any():  # known up to a constant
                offset = float(np.median((map_ - one.injected)[known]))
            image = axes[n, m].imshow(
                np.ma.masked_invalid(MM * (map_ - offset)),
                cmap=colormaps[TOWARD].with_extremes(bad=NO_DATA),
                norm=Normalize(-limit, limit),
                aspect=pixel_aspect(evaluation),
                interpolation="nearest",
            )
            axes[n, m].set(xticks=[], yticks=[])
            if m == 0:
                axes[n, m].set_ylabel(
                    name, rotation=0, ha="right", va="center", fontsize="small"
                )
        axes[0, m].set_title(
            f"{kind.shape}\n{kind.radius / 1e3:.2g} km", fontsize="small"
        )
    size = MM * shown[0].case.amplitude
    figure.suptitle(
        f"What comes back of {told(history)}, {size:g} {AMPLITUDE_UNITS[history]}",
        fontsize="large",
    )
    bar = figure.colorbar(image, ax=axes, aspect=40, shrink=min(1.0, 5 / rows))
    bar.set_label(
        f"line of sight ({AMPLITUDE_UNITS[history]}), positive toward the satellite",
        fontsize="small",
    )
    bar.ax.tick_params(labelsize="small")
    return figure


def injected_by(evaluation: "Evaluation") -> "list[Verdict]":
    """Verdicts on methods that signals were injected for."""
    return [v for v in evaluation.verdicts if v.recoveries]


def _kinds_drawn(verdict: "Verdict", history: str) -> list[Kind]:
    """Bowls of every radius; of every other shape that of the middle one."""
    kinds = [k for k in by_kind(verdict.recoveries) if k.history == history]
    shapes = list(dict.fromkeys(k.shape for k in kinds))
    drawn = []
    for shape in shapes:
        own = sorted(k for k in kinds if k.shape == shape)
        drawn += own if shape == shapes[0] else [own[len(own) // 2]]
    return drawn


def _middle(verdict: "Verdict", kind: Kind) -> Recovery:
    group = by_kind(verdict.recoveries)[kind]
    return group[len(group) // 2]


def any_map(evaluation: "Evaluation") -> xr.DataArray:
    """A map of the scene."""
    maps = evaluation.verdicts[0].maps
    assert maps is not None
    return maps["velocity"].transpose(Y, X)


def pixel_aspect(evaluation: "Evaluation") -> float:
    """Height over width of a pixel."""
    rows, columns = evaluation.spacing
    return rows / columns


def told(history: str) -> str:
    """What a history is, in a sentence."""
    return "steady motion" if history == "steady" else "a sudden step"


def named(history: str) -> str:
    """What the amplitude of a history is."""
    return "steady rate" if history == "steady" else "sudden step"
