"""Charts of a cube: the network of its pairs, the series of a pixel."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from cube_denoise.conventions import PAIR, TIME, X, Y, years_since
from cube_denoise.network import incidence_matrix, pair_indices

MM = 1e3


def plot_network(cube: xr.Dataset) -> Figure:
    """Draw the network of pairs: perpendicular baseline against date.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``reference_time``, ``secondary_time`` and ``perpendicular_baseline`` (m;
        NaN = unknown) on ``pair``.

    Returns
    -------
    matplotlib.figure.Figure
        Pairs are lines, coloured by their mean coherence (over a sample of windows
        where the scene is large) or, without coherence, by their valid fraction.
        Baselines of dates are the least-squares fit to those of the pairs; a date
        without is drawn hollow at zero. Where no pair has one, pairs are drawn as
        bars in the order of their dates.
    """
    if cube.sizes.get(PAIR, 0) == 0:
        raise ValueError("cube has no pairs: there is no network to draw")
    first, second, times = pair_indices(
        cube["reference_time"].values, cube["secondary_time"].values
    )
    days = date2num(times)
    known, height = _date_baselines(cube)
    order = np.lexsort((second, first))
    figure = Figure((8, 4.5), layout="constrained")
    axis = figure.subplots()
    if known.any():
        ends = [[(days[i], height[i]), (days[j], height[j])] for i, j in _pairs(cube)]
        for chosen, face in ((known, "0.15"), (~known, "white")):
            axis.plot(
                *(days[chosen], height[chosen]),
                *("o",),
                markersize=5,
                markerfacecolor=face,
                markeredgecolor="0.15",
                zorder=3,
                label="" if face == "0.15" else "baseline unknown",
            )
        if not known.all():
            axis.legend(loc="best")
        axis.set_ylabel("perpendicular baseline (m)")
    else:
        row = np.empty(order.size, int)
        row[order] = np.arange(order.size)
        ends = [
            [(days[i], row[k]), (days[j], row[k])]
            for k, (i, j) in enumerate(_pairs(cube))
        ]
        axis.set_ylabel("pair (perpendicular baselines unknown)")
    quality, name = _pair_quality(cube)
    norm = Normalize(*_span(quality))
    axis.add_collection(
        LineCollection(
            ends, array=quality, cmap="viridis", norm=norm, linewidths=1.4, zorder=2
        )
    )
    axis.autoscale_view()
    axis.margins(0.04, 0.08)
    _date_axis(axis)
    axis.set_title(f"{len(ends)} pairs of {times.size} dates{track_of(cube)}")
    axis.grid(alpha=0.3)
    figure.colorbar(ScalarMappable(norm, "viridis"), ax=axis, label=name)
    return figure


def plot_series(cube: xr.Dataset, y: float, x: float) -> Figure:
    """Draw the displacement of one pixel through time, with its velocity.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``displacement`` (time, y, x), m, and ``velocity``, ``velocity_std``.
    y, x : float
        Coordinates in the CRS of the cube; the pixel they fall in is drawn.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the point is outside the cube or its pixel has no data.
    """
    variable_of(cube, "displacement")
    index = {name: _pixel(cube[name].values, name, at) for name, at in ((Y, y), (X, x))}
    pixel = cube[["displacement", "velocity", "velocity_std"]].isel(index).compute()
    series = pixel["displacement"].values * MM
    valid = np.isfinite(series)
    if not valid.any():
        raise ValueError(f"the pixel at x={x:g}, y={y:g} has no data in any date")
    times = cube[TIME].values
    years = years_since(times, times[0])
    rate, deviation = (float(pixel[n]) * MM for n in ("velocity", "velocity_std"))
    figure = Figure((8, 4.2), layout="constrained")
    axis = figure.subplots()
    days = date2num(times)
    line = rate * (years - years[valid].mean()) + series[valid].mean()
    axis.axhline(0, color="0.7", linewidth=0.8)
    axis.plot(days, line, color="0.4", label=f"{rate:.1f} ± {deviation:.1f} mm/yr")
    axis.plot(days[valid], series[valid], "o", color="#2166ac", label="displacement")
    _date_axis(axis)
    axis.set(
        ylabel="line-of-sight displacement (mm),\npositive toward the satellite",
        title=f"x = {x:.8g}, y = {y:.8g} (row {index[Y]}, column {index[X]})",
    )
    axis.legend()
    axis.grid(alpha=0.3)
    return figure


def _pixel(centres: np.ndarray, name: str, at: float) -> int:
    """Index of the pixel that a coordinate falls in."""
    half = abs(centres[-1] - centres[0]) / max(centres.size - 1, 1) / 2
    low, high = centres.min() - half, centres.max() + half
    if not low <= at <= high:
        raise ValueError(
            f"{name}={at:.10g} is outside the cube: it must be {low:.10g} to "
            f"{high:.10g}"
        )
    return int(np.abs(centres - at).argmin())


def _pairs(cube: xr.Dataset) -> list[tuple[int, int]]:
    first, second, _ = pair_indices(
        cube["reference_time"].values, cube["secondary_time"].values
    )
    return list(zip(first.tolist(), second.tolist(), strict=True))


def _date_baselines(cube: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Whether the baseline of a date is known, and the baseline (m, first date 0)."""
    early, late = cube["reference_time"].values, cube["secondary_time"].values
    pairs = _pairs(cube)
    count = 1 + max(j for _, j in pairs)
    baseline = np.full(len(pairs), np.nan)
    if "perpendicular_baseline" in cube.variables:
        baseline = cube["perpendicular_baseline"].values.astype("float64")
    there = np.isfinite(baseline)
    height, known = np.zeros(count), np.zeros(count, bool)
    if there.any():
        known[[k for pair, t in zip(pairs, there, strict=True) if t for k in pair]] = (
            True
        )
        A, _ = incidence_matrix(early, late)
        height = np.linalg.lstsq(A[there], baseline[there], rcond=None)[0]
    return known, height - height[0]


def _pair_quality(cube: xr.Dataset) -> tuple[np.ndarray, str]:
    """Mean coherence of every pair, or else its valid fraction; with its name."""
    if "coherence" in cube:
        total, count = np.zeros(cube.sizes[PAIR]), np.zeros(cube.sizes[PAIR])
        rows, columns = (_windows(cube.sizes[d]) for d in (Y, X))
        for y in rows:
            for x in columns:
                part = cube["coherence"].isel({Y: y, X: x}).values
                total += np.nansum(part, (1, 2))
                count += np.isfinite(part).sum((1, 2))
        if count.any():
            return total / np.where(count, count, np.nan), "mean coherence"
    if "valid_fraction" in cube:
        return cube["valid_fraction"].values, "fraction of pixels with data"
    return np.ones(cube.sizes[PAIR]), "pairs"


def _windows(length: int, *, size: int = 64, count: int = 3) -> list[slice]:
    """A few windows spread evenly along an axis; all of it where it is short."""
    if length <= size * count:
        return [slice(k, min(k + size, length)) for k in range(0, length, size)]
    starts = np.linspace(0, length - size, count).astype(int)
    return [slice(int(k), int(k) + size) for k in starts]


def _date_axis(axis: Axes) -> None:
    locator = AutoDateLocator(maxticks=8)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _span(values: np.ndarray) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (low, high) if high - low > 0.02 else (low - 0.01, high + 0.01)


def variable_of(cube: xr.Dataset, name: str) -> xr.DataArray:
    """Variable of the cube; a ValueError tells which step makes it."""
    if name not in cube:
        missing = {"unwrapped_phase": "ingest"}.get(name, "invert")
        raise ValueError(
            f"cube has no {name!r} (it has {', '.join(map(str, cube.data_vars))}): "
            f"run `cube-denoise {missing}` first"
        )
    return cube[name]


def track_of(cube: xr.Dataset) -> str:
    """Track of the cube, for a title."""
    return f", track {cube.attrs['track']}" if "track" in cube.attrs else ""
