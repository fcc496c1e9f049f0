"""Pictures of radar displacement beside that of GNSS stations."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from cube_denoise.conventions import TIME
from cube_denoise.evaluate.gnss import STATION
from cube_denoise.evaluate.pictures import (
    COLOURS,
    MARKERS,
    MM,
    grid_axes,
    small_labels,
    styles_of,
)

if TYPE_CHECKING:
    from cube_denoise.evaluate.judge import Evaluation, Verdict


def plot_stations(evaluation: "Evaluation", *, demeaned: bool) -> Figure | None:
    """Draw radar against GNSS displacement of every method, with the line 1:1.

    Parameters
    ----------
    evaluation : Evaluation
    demeaned : bool
        Whether the mean over stations (less the reference station) at each date is
        removed of both.
    """
    judged = _with_stations(evaluation)
    if not judged:
        return None
    compared = {v.method: _compared(v, demeaned) for v in judged}
    end = 1.05 * max(
        float(np.nanmax(np.abs(c.values), initial=1e-3))
        for pair in compared.values()
        for c in pair
    )
    figure, axes, columns = grid_axes(len(judged), ratio=1.0)
    names = list(next(iter(compared.values()))[0][STATION].values)
    for k, (axis, (method, (insar, gnss))) in enumerate(
        zip(axes, compared.items(), strict=True)
    ):
        axis.axline((0, 0), slope=1, color="0.5", linewidth=1)
        for n, name in enumerate(names):
            axis.plot(
                gnss.sel({STATION: name}).values,
                insar.sel({STATION: name}).values,
                linestyle="none",
                marker=MARKERS[n % len(MARKERS)],
                color=COLOURS[n % len(COLOURS)],
                markersize=4,
                alpha=0.8,
                label=name if k == 0 else None,
            )
        axis.set(xlim=(-end, end), ylim=(-end, end), aspect="equal")
        misfit = float(abs(insar - gnss).mean(TIME).mean())
        axis.set_title(f"{method}: mean |difference| {misfit:.1f} mm", fontsize="small")
        axis.tick_params(labelsize="x-small")
        if k % columns == 0:
            axis.set_ylabel("radar (mm)")
        if k + columns >= len(axes):
            axis.set_xlabel("GNSS (mm)")
        small_labels(axis)
        axis.grid(alpha=0.3)
    said = "mean over stations removed" if demeaned else "as they are"
    figure.suptitle(f"Displacement at the stations, {said}", fontsize="large")
    if len(names) <= 20:
        figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    return figure


def plot_station_series(evaluation: "Evaluation", *, most: int = 12) -> Figure | None:
    """Draw displacement through time at the first `most` stations, mm.

    Less that of the reference station, which is left out.
    """
    judged = _with_stations(evaluation)
    if not judged:
        return None
    look = styles_of(evaluation)
    first = judged[0].stations
    assert first is not None
    others = first[STATION] != first.attrs["reference_station"]
    names = list(first[STATION].values[others][:most])
    columns = min(len(names), 3)
    figure, axes, _ = grid_axes(len(names), ratio=0.65, columns=columns)
    for k, (axis, name) in enumerate(zip(axes, names, strict=True)):
        at = first.sel({STATION: name})
        days = date2num(at[TIME].values)
        axis.errorbar(
            days,
            MM * at["gnss"].values,
            yerr=MM * at["gnss_std"].values,
            fmt="s",
            color="0.55",
            markersize=5,
            label="GNSS" if k == 0 else None,
        )
        for verdict in judged:
            assert verdict.stations is not None
            axis.plot(
                days,
                MM * verdict.stations["insar"].sel({STATION: name}).values,
                color=look[verdict.method].color,
                linewidth=1.6 if verdict.method == "raw" else 1.1,
                label=verdict.method if k == 0 else None,
            )
        locator = AutoDateLocator(maxticks=5)
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axis.set_title(str(name), fontsize="medium")
        axis.tick_params(labelsize="x-small")
        axis.grid(alpha=0.3)
    figure.supylabel(
        "line-of-sight displacement (mm),\npositive toward the satellite",
        fontsize="small",
        horizontalalignment="center",
    )
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    return figure


def _with_stations(evaluation: "Evaluation") -> "list[Verdict]":
    return [v for v in evaluation.verdicts if v.stations is not None]


def _compared(verdict: "Verdict", demeaned: bool) -> tuple[xr.DataArray, xr.DataArray]:
    """Radar and GNSS, mm, dims (station, time); the reference station left out."""
    assert verdict.stations is not None
    reference = verdict.stations.attrs["reference_station"]
    others = verdict.stations.sel({STATION: verdict.stations[STATION] != reference})
    pair = [MM * others[n] for n in ("insar", "gnss")]
    if demeaned:
        enough = (pair[0] - pair[1]).notnull().sum(STATION) > 1
        pair = [(p - p.mean(STATION)).where(enough) for p in pair]
    return pair[0], pair[1]
