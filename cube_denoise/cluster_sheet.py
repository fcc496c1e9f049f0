"""The cluster sheet: what was separated, the evidence, the verdicts, what they do."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cube_denoise.conventions import PAIR, TIME, X, Y, pair_label
from cube_denoise.evaluate import page
from cube_denoise.evaluate.scores import amplitude_slope
from cube_denoise.invert import invert
from cube_denoise.map_axes import (
    AWAY,
    TOWARD,
    draw_map,
    height_over_width,
    largest_shown,
)
from cube_denoise.reference import choose_reference
from cube_denoise.separation.cluster_removal import Separated
from cube_denoise.separation.clusters import alike

PAGE, RECORD = "sheet.html", "sheet.json"
WIDTH = 9.6
"""Of figures, inches."""
SHOWN = 12
"""Clusters that are drawn, and twice as many are in the table."""
PAIRS_SHOWN = 3
MOST_PIXELS = 400
"""Along a side of the maps that are inverted for the sheet."""
EMBEDDED = 2000
"""Components in the picture of all."""
COLUMNS = {
    "members": "components in it",
    "variance": "share of the power of all pairs that it takes; shares do not add up",
    "stability": "mean abs(correlation) of its maps with each other less that with "
    "all others",
    "growth": "rank correlation of its amplitude with the temporal baseline, over all "
    "pairs of dates, beyond an annual cycle",
    "growth_p": "share of random orders of the dates that reach it",
    "consistency": "share of the variance of its amplitudes that dates explain",
    "smoothness": "lag-1 autocorrelation of its amplitudes of dates",
    "smoothness_p": "share of random orders that reach it",
    "elevation": "correlation of its map with elevation",
    "ramp": "share of the variance of its map that a plane explains",
    "centroid": "mean wavenumber of its map, cycles/km",
}
"""Of the table: what they are."""


def write_sheet(
    cube: xr.Dataset,
    clusters: xr.Dataset,
    found: Separated,
    folder: str | Path,
    *,
    title: str = "Clusters",
) -> Path:
    """Write ``sheet.html``, one page with pictures in it, and ``sheet.json``.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``unwrapped_phase`` and ``corrected_phase`` (pair, y, x), rad.
    clusters : xarray.Dataset
        Of `separate.cluster_table`.
    found : separation.cluster_removal.Separated
        What it tells of.
    folder : str or pathlib.Path
        Made if it is not there. A sheet in it is replaced.
    title : str
        What was separated.

    Returns
    -------
    pathlib.Path
        The page.
    """
    folder = Path(folder)
    maps = velocities(cube)
    record = {
        "title": title,
        "looks": found.stack.looks,
        "pairs": len(found.stack.pairs),
        "clusters": [e.told for e in found.evidence],
        "slope_on_raw_velocity": _slope(maps),
    }
    texts = {
        RECORD: json.dumps(record, indent=1),
        PAGE: page.page(
            title,
            _parts(cube, clusters, found, maps),
            footer=f"All numbers: {RECORD}.",
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        part = folder / f".{name}.{os.getpid()}"
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(folder / name)
    return folder / PAGE


def velocities(cube: xr.Dataset) -> dict[str, xr.DataArray]:
    """Velocity from raw and from corrected pairs, m/yr, of every n-th pixel.

    Both with the reference area that `reference.choose_reference` takes for the raw
    ones.
    """
    step = -(-max(cube.sizes[Y], cube.sizes[X]) // MOST_PIXELS)
    some = cube.isel({Y: slice(None, None, step), X: slice(None, None, step)})
    kept = ["unwrapped_phase", "corrected_phase", "coherence"]
    some = some[[n for n in kept if n in some]].compute()
    weights = "coherence" if "coherence" in some else "none"
    area = choose_reference(some, variable="unwrapped_phase")
    return {
        name: invert(some, variable=variable, weights=weights, reference=area)[
            "velocity"
        ].compute()
        for name, variable in (
            ("raw", "unwrapped_phase"),
            ("corrected", "corrected_phase"),
        )
    }


def _slope(maps: dict[str, xr.DataArray]) -> float | None:
    slope = amplitude_slope(maps["corrected"].values, maps["raw"].values)
    return round(slope, 3) if np.isfinite(slope) else None


def _parts(
    cube: xr.Dataset,
    clusters: xr.Dataset,
    found: Separated,
    maps: dict[str, xr.DataArray],
) -> Iterator[str]:
    stack, count = found.stack, len(found.evidence)
    goes = sum(e.verdict == "removed" for e in found.evidence)
    outside = float((found.clusters.labels < 0).mean())
    yield page.paragraph(
        f"{len(stack.pairs)} pairs of {stack.years.size} dates, on {stack.known.sum()} "
        f"cells of {stack.looks} x {stack.looks} pixels: "
        f"{found.clusters.labels.size} components, {count} clusters, {goes} of which "
        f"go. {outside:.0%} of the components are in no cluster and stay in the signal."
    )
    yield page.heading("Evidence and verdicts")
    yield page.text_table(
        ("cluster", *COLUMNS, "verdict", "reason"),
        [
            (
                str(e.cluster),
                *(_cell(getattr(e, name)) for name in COLUMNS),
                e.verdict,
                e.reason,
            )
            for e in found.evidence[: 2 * SHOWN]
        ],
    )
    yield page.definitions(COLUMNS)
    if count:
        yield page.picture(
            plot_clusters(clusters),
            "Map of each cluster (of unit variance; red is motion away where the "
            "course rises) and its course, the amplitude at every date.",
        )
    yield page.picture(
        plot_components(found),
        "All components, by how much their maps look alike (t-SNE of 1 - "
        "abs(correlation), for the eye only: its distances mean little). Grey: in no "
        "cluster.",
    )
    if found.fit:
        yield page.paragraph(
            f"The network was fitted for {found.fit['epochs']} epochs; that of epoch "
            f"{found.fit['best']} is kept, the best on held-out pairs."
        )
        yield page.picture(plot_losses(found), "Loss by epoch, nats a tile.")
    yield page.heading("Pairs before and after")
    yield page.picture(
        plot_pairs(cube, found),
        "The pairs that lose most: as they were, what goes, what is left; rad.",
    )
    yield page.heading("Velocity with and without")
    slope = _slope(maps)
    told = "not known" if slope is None else f"{slope:.2f}"
    yield page.paragraph(
        "Straight line through the displacement of every pixel, with one reference "
        f"area. Slope of the corrected on the raw velocity where that is largest: "
        f"{told}; below 1, real motion may be lost, or noise. A calm map is not "
        "thereby right: cube-denoise evaluate --inject tells what is lost."
    )
    yield page.picture(plot_velocities(maps), "Line-of-sight velocity, mm/yr.")


def _cell(value: float | int | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def plot_clusters(clusters: xr.Dataset) -> Figure:
    """Draw map and course of the first clusters, two clusters a row."""
    count = min(SHOWN, clusters.sizes["cluster"])
    ratio = height_over_width(clusters["map"][0])
    rows = -(-count // 2)
    figure = Figure((WIDTH, rows * (2.1 * ratio + 0.7)), layout="compressed")
    axes = figure.subplots(
        rows, 4, squeeze=False, gridspec_kw={"width_ratios": [2, 2.6, 2, 2.6]}
    )
    for k in range(2 * rows):
        left, right = axes[k // 2, 2 * (k % 2)], axes[k // 2, 2 * (k % 2) + 1]
        if k >= count:
            left.remove()
            right.remove()
            continue
        one = clusters.isel(cluster=k)
        draw_map(left, one["map"], norm=Normalize(-3, 3), colours=AWAY)
        left.set(xlabel="", ylabel="", xticks=[], yticks=[])
        verdict = str(one["verdict"].values)
        number = int(one["cluster"])
        left.set_title(f"{number}: {verdict}", fontsize="small", loc="left")
        colour = "#D55E00" if verdict == "removed" else "#0072B2"
        right.plot(one[TIME].values, one["course"].values, ".-", color=colour, lw=0.8)
        right.axhline(0, color="0.7", lw=0.6)
        right.set_title(str(one["reason"].values), fontsize="x-small", loc="left")
        right.tick_params(labelsize="x-small", axis="both")
        right.locator_params(axis="y", nbins=4)
        for label in right.get_xticklabels():
            label.set(rotation=30, ha="right")
        right.set_ylabel("rad", fontsize="x-small")
    return figure


def plot_components(found: Separated) -> Figure:
    """Draw all components in a plane, by cluster."""
    from sklearn.manifold import TSNE

    figure = Figure((WIDTH / 2, 3.8), layout="compressed")
    axis = figure.subplots()
    there = np.flatnonzero(found.components.maps.any(1))[:EMBEDDED]
    axis.set(xticks=[], yticks=[])
    if there.size < 5:
        return figure
    apart = 1 - alike(found.components.maps[there])
    placed = TSNE(
        metric="precomputed",
        init="random",
        perplexity=min(30, (there.size - 1) / 3),
        random_state=0,
    ).fit_transform(apart)
    labels = found.clusters.labels[there]
    x, y = placed.T
    axis.scatter(x[labels < 0], y[labels < 0], s=6, color="0.75")
    for k in range(min(SHOWN, labels.max() + 1)):
        inside = labels == k
        axis.scatter(x[inside], y[inside], s=8, color=f"C{k % 10}", label=str(k + 1))
    if labels.max() >= 0:
        axis.legend(fontsize="x-small", ncols=2, title="cluster", title_fontsize=7)
    return figure


def plot_losses(found: Separated) -> Figure:
    """Draw how the fit of the network went."""
    figure = Figure((WIDTH / 2, 2.6), layout="compressed")
    axis = figure.subplots()
    for values, label in zip(
        np.transpose(found.fit["losses"]), ("fitted to", "held out"), strict=True
    ):
        axis.semilogy(np.arange(1, len(values) + 1), values, lw=1, label=label)
    axis.axvline(found.fit["best"], color="0.6", lw=0.8)
    axis.set(xlabel="epoch", ylabel="nats")
    axis.legend(fontsize="small")
    return figure


def plot_pairs(cube: xr.Dataset, found: Separated) -> Figure:
    """Draw the pairs that lose most: raw, removed, corrected."""
    goes = np.array([e.verdict == "removed" for e in found.evidence], bool)
    lost = (found.parts[goes].sum(0) ** 2).sum(1)
    chosen = found.stack.pairs[np.argsort(-lost, kind="stable")[:PAIRS_SHOWN]]
    step = -(-max(cube.sizes[Y], cube.sizes[X]) // MOST_PIXELS)
    rows = []
    for k in chosen:
        one = cube[["unwrapped_phase", "corrected_phase"]].isel(
            {PAIR: int(k), Y: slice(None, None, step), X: slice(None, None, step)}
        )
        raw = one["unwrapped_phase"].compute()
        left = one["corrected_phase"].compute()
        middle = float(np.nanmedian(raw.values))
        rows.append((pair_label(cube, int(k)), raw - middle, raw - left, left - middle))
    ratio = height_over_width(rows[0][1])
    figure = Figure((WIDTH, len(rows) * (2.6 * ratio + 0.4)), layout="compressed")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for across, (label, *maps) in zip(axes, rows, strict=True):
        limit = largest_shown(maps)
        for axis, map_, name in zip(
            across, maps, ("raw", "removed", "corrected"), strict=True
        ):
            image = draw_map(axis, map_, norm=Normalize(-limit, limit), colours=AWAY)
            axis.set(xlabel="", ylabel="", xticks=[], yticks=[])
            axis.set_title(f"{label} {name}", fontsize="small")
        figure.colorbar(image, ax=across, extend="both").ax.tick_params(
            labelsize="x-small"
        )
    return figure


def plot_velocities(maps: dict[str, xr.DataArray]) -> Figure:
    """Draw the velocity from raw and corrected pairs and their difference, mm/yr."""
    shown = {name: 1e3 * map_ for name, map_ in maps.items()}
    shown["corrected less raw"] = shown["corrected"] - shown["raw"]
    limit = largest_shown([shown["raw"]])
    ratio = height_over_width(shown["raw"])
    figure = Figure((WIDTH, 2.8 * ratio + 0.6), layout="compressed")
    axes = figure.subplots(1, 3, squeeze=False)[0]
    for axis, (name, map_) in zip(axes, shown.items(), strict=True):
        image = draw_map(axis, map_, norm=Normalize(-limit, limit), colours=TOWARD)
        axis.set(xlabel="", ylabel="", xticks=[], yticks=[])
        axis.set_title(name, fontsize="small")
    bar = figure.colorbar(image, ax=list(axes), extend="both")
    bar.set_label("mm/yr, positive toward", fontsize="x-small")
    bar.ax.tick_params(labelsize="x-small")
    return figure
