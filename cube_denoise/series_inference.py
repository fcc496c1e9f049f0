"""Run a stack network over windows of a cube: the displacement it sees on all dates.

A network with a finite view sees tiles with a halo. One with a wider view sees scenes
of up to `TILE` pixels a side whole; of larger ones tiles that overlap, on a lattice
anchored at the first pixel of the cube, each less its mean on every date; what these
means are, it is asked of the whole scene at a lower resolution. So the result of a
pixel does not depend on the window asked for.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr

from cube_denoise import halo
from cube_denoise.blocks import spans, windows
from cube_denoise.cluster import task_threads
from cube_denoise.conventions import X, Y, phase_to_displacement
from cube_denoise.corrections.correction import Run, pair_windows
from cube_denoise.corrections.series import Stack, dates_of
from cube_denoise.gaps import fill_gaps
from cube_denoise.inference import Network, loaded, read_tile
from cube_denoise.inversion.solver import solve
from cube_denoise.reference import read_window

TILE = 256
"""Pixels a side of a tile, and of the largest scene that is seen whole."""
READ_SIZE = 256
"""Side of the windows in which the whole scene is averaged, px; a multiple of any
factor of `_coarsening`."""
LEAST_DATES = 3
"""Visible dates without which nothing is known of a tile."""
COHERENCE = 0.7
"""Told to the network where a cube has no coherence."""

Place = tuple[int, int]
"""First row and column of a tile."""


class Seen(NamedTuple):
    """What a stack network sees in a window."""

    displacement: np.ndarray
    """m, positive toward the satellite, up to a constant per date and one per pixel;
    float32, shape (dates, rows, columns)."""
    std: np.ndarray
    """Of it, m, same shape."""
    trend_share: np.ndarray
    """Part of the variance of its errors that is of a trend in time, float32, shape
    (rows, columns); 1 where the network does not say."""

    def part(self, rows: slice, columns: slice) -> "Seen":
        """The same of some rows and columns."""
        return Seen(*(a[..., rows, columns] for a in self))


@dataclass(frozen=True)
class SeriesModel:
    """What all windows of one cube share."""

    network: Network
    stack: Stack
    wavelength: float
    """m"""
    years: np.ndarray
    """Of the dates, since the first."""
    radius: int | None
    """Receptive radius of the network, pixels; None for a wider view."""
    relief: tuple[float, float] | None
    """Elevation, m, that the network is told as 0 and 1; None = it is told metres."""
    means: Mapping[Place, np.ndarray]
    """Displacement of every tile, m, the mean over it on every date; empty where no
    tile is seen without it."""

    def within(self, shape: tuple[int, int], target: halo.Tile) -> "SeriesModel":
        """The same with the means of the tiles that one window needs alone."""
        needed = {_place(tile) for tile, _ in _views(shape, target)}
        means = {place: m for place, m in self.means.items() if place in needed}
        return replace(self, means=means)


def series_model(
    cube: xr.Dataset, network: Network, stack: Stack, run: Run
) -> SeriesModel:
    """Prepare a stack network for a cube; looks through all of it if it is large.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        With ``unwrapped_phase``, rad; ``elevation`` (m) and ``coherence`` are used
        where it has them.
    network : inference.Network
    stack : corrections.series.Stack
        Of this cube.
    run : callable
        See `corrections.correction.Run`.

    Returns
    -------
    SeriesModel
    """
    days = (stack.times - stack.times[0]) / np.timedelta64(1, "D")
    known = loaded(network)
    relative = getattr(known, "relative_elevation", False)
    model = SeriesModel(
        network=network,
        stack=stack,
        wavelength=float(cube.attrs["wavelength"]),
        years=np.asarray(days, "float64") / 365.25,
        radius=known.receptive_radius,
        relief=_relief(cube) if relative else None,
        means={},
    )
    shape = (cube.sizes[Y], cube.sizes[X])
    if halo.Lattice(shape, TILE, model.radius).whole or model.radius is not None:
        return model
    factor = _coarsening(shape)
    coarse = _coarse_scene(cube, factor, run)
    series = solve(
        np.ascontiguousarray(
            coarse["unwrapped_phase"].reshape(stack.constants.size, -1)
        ),
        stack.network.plan,
        constants=stack.constants,
    ).phase
    small = coarse["elevation"].shape
    seen = _run(
        model,
        phase_to_displacement(series.reshape(-1, *small), model.wavelength),
        coarse["elevation"],
        coarse["coherence"],
    ).displacement
    every = halo.Tile(slice(0, shape[0]), slice(0, shape[1]))
    means = {}
    for tile, clipped in _views(shape, every):
        rows, columns = (
            slice(s.start // factor, -(-s.stop // factor)) for s in clipped
        )
        means[_place(tile)] = seen[:, rows, columns].mean((1, 2), dtype="float64")
    return replace(model, means=means)


def stack_displacement(cube: xr.Dataset, target: halo.Tile, model: SeriesModel) -> Seen:
    """Displacement that the network sees on all dates in a window.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
    target : halo.Tile
        The window, pixels of the cube.
    model : SeriesModel
        Of this cube.

    Returns
    -------
    Seen
        NaN where the network is given too few dates.
    """
    shape = (cube.sizes[Y], cube.sizes[X])
    if model.radius is not None:
        return _with_halo(cube, target, model, model.radius)
    if (whole := halo.Lattice(shape, TILE, None).whole) is not None:
        return _tile(cube, whole, model).part(*target)
    total, weights = _empty(model, target, "float64"), np.zeros(_sides(target))
    hann = np.sin(np.pi * (np.arange(TILE) + 0.5) / TILE) ** 2
    for tile, clipped in _views(shape, target):
        seen = _tile(cube, clipped, model)
        if np.isnan(seen.displacement).any():
            continue  # its neighbours may know more
        mean = model.means[_place(tile)][:, None, None].astype("float32")
        seen = seen._replace(displacement=seen.displacement + mean)
        part = halo.intersect(clipped, target)
        inside = halo.shift(part, tile)
        weight = np.outer(hann[inside[0]], hann[inside[1]])
        here = halo.shift(part, target)
        found = seen.part(*halo.shift(part, clipped))
        for sums, values in zip(total.part(*here), found, strict=True):
            sums += weight * values
        weights[here] += weight
    with np.errstate(invalid="ignore"):
        return Seen(*((sums / weights).astype("float32") for sums in total))


def _with_halo(
    cube: xr.Dataset, target: halo.Tile, model: SeriesModel, radius: int
) -> Seen:
    """`stack_displacement` of a network with a finite view."""
    lattice = halo.Lattice((cube.sizes[Y], cube.sizes[X]), TILE, radius)
    whole = _empty(model, target, "float32")
    views = zip(lattice.tiles(target), lattice.views(target), strict=True)
    for tile, (view, _) in views:
        part = halo.intersect(tile, target)
        here = whole.part(*halo.shift(part, target))
        seen = _tile(cube, view, model).part(*halo.shift(part, view))
        for values, found in zip(here, seen, strict=True):
            values[:] = found
    return whole


def _sides(target: halo.Tile) -> list[int]:
    return [s.stop - s.start for s in target]


def _empty(model: SeriesModel, target: halo.Tile, dtype: str) -> Seen:
    """Zeros."""
    sides = _sides(target)
    series = (model.years.size, *sides)
    return Seen(*(np.zeros(shape, dtype) for shape in (series, series, sides)))


def _relief(cube: xr.Dataset) -> tuple[float, float]:
    """Lowest and highest elevation, m; of equals where there is none."""
    low, high = np.inf, -np.inf
    for window in pair_windows(cube) if "elevation" in cube else ():
        height = read_tile(cube["elevation"], halo.Tile(window[Y], window[X]))
        height = height[np.isfinite(height)]
        low, high = height.min(initial=low), height.max(initial=high)
    return (float(low), float(high)) if high >= low else (0.0, 0.0)


def _place(tile: halo.Tile) -> Place:
    return tile.y.start, tile.x.start


def _views(
    shape: tuple[int, int], target: halo.Tile
) -> Iterator[tuple[halo.Tile, halo.Tile]]:
    """Tiles that touch a window, and what of them lies on the map.

    Without those of which less than half a side does: others see that part as well.
    """
    for tile, clipped in halo.Lattice(shape, TILE, None).views(target):
        sides = [min(TILE // 2, n) for n in shape]
        if all(s.stop - s.start >= n for s, n in zip(clipped, sides, strict=True)):
            yield tile, clipped


def _coarsening(shape: tuple[int, int]) -> int:
    """Power of two by which the scene is made to fit a tile."""
    return 1 << math.ceil(math.log2(max(shape) / TILE))


def _coarse_scene(cube: xr.Dataset, factor: int, run: Run) -> dict[str, np.ndarray]:
    """Means over squares of pixels: of pairs, elevation and mean coherence."""
    cuts = windows(**{d: spans(cube.sizes[d], READ_SIZE) for d in (Y, X)})
    parts = run(partial(_coarse_window, cube, factor=factor), cuts)
    small = [-(-cube.sizes[d] // factor) for d in (Y, X)]
    whole: dict[str, np.ndarray] = {}
    for window, part in zip(cuts, parts, strict=True):
        for name, values in part.items():
            if name not in whole:
                whole[name] = np.empty((*values.shape[:-2], *small), "float32")
            y, x = (window[d].start // factor for d in (Y, X))
            rows, columns = values.shape[-2:]
            whole[name][..., y : y + rows, x : x + columns] = values
    return whole


def _coarse_window(
    cube: xr.Dataset, window: Mapping[str, slice], *, factor: int
) -> dict[str, np.ndarray]:
    """Means of the pixels that hold data; NaN where none does."""
    phase = read_window(cube, "unwrapped_phase", window)
    tile = halo.Tile(window[Y], window[X])
    return {
        "unwrapped_phase": _block_means(phase, factor),
        "elevation": _block_means(_elevation(cube, tile), factor),
        "coherence": _block_means(_coherence(cube, tile), factor),
    }


def _block_means(values: np.ndarray, factor: int) -> np.ndarray:
    there = np.isfinite(values)
    sums = []
    for part in (np.where(there, values, 0), there):
        for axis in (-2, -1):
            starts = np.arange(0, part.shape[axis], factor)
            part = np.add.reduceat(part, starts, axis, dtype="float64")
        sums.append(part)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[0] / sums[1], "float32")


def _elevation(cube: xr.Dataset, tile: halo.Tile) -> np.ndarray:
    """m, gaps filled; 0 where the cube has none."""
    shape = [s.stop - s.start for s in tile]
    if "elevation" not in cube:
        return np.zeros(shape, "float32")
    height = read_tile(cube["elevation"], tile)
    if not np.isfinite(height).any():
        return np.zeros(shape, "float32")
    return np.asarray(fill_gaps(height), "float32")


def _coherence(cube: xr.Dataset, tile: halo.Tile) -> np.ndarray:
    """Mean over the pairs; `COHERENCE` where there is none."""
    shape = [s.stop - s.start for s in tile]
    if "coherence" not in cube:
        return np.full(shape, COHERENCE, "float32")
    pairs = read_window(cube, "coherence", {Y: tile.y, X: tile.x})
    there = np.isfinite(pairs)
    count = there.sum(0)
    mean = np.where(there, pairs, 0).sum(0, dtype="float64") / np.maximum(count, 1)
    return np.where(count > 0, mean, COHERENCE).astype("float32")


def _tile(cube: xr.Dataset, tile: halo.Tile, model: SeriesModel) -> Seen:
    """What the network sees in a tile."""
    phase = dates_of(cube, {Y: tile.y, X: tile.x}, model.stack)
    series = phase_to_displacement(phase, model.wavelength)
    return _run(model, series, _elevation(cube, tile), _coherence(cube, tile))


def _run(
    prepared: SeriesModel,
    series: np.ndarray,
    elevation: np.ndarray,
    coherence: np.ndarray,
) -> Seen:
    """Outputs of the network; NaN where it would be given too few dates."""
    from cube_denoise import device as devices

    visible = np.isfinite(series)
    if visible.any((1, 2)).sum() < LEAST_DATES:
        nothing = np.full(series.shape, np.nan, "float32")
        return Seen(nothing, nothing, nothing[0])
    elevation = np.nan_to_num(elevation)
    if prepared.relief is not None:
        low, high = prepared.relief
        elevation = (elevation - low) / (high - low if high > low else 1.0)
    network = prepared.network
    device = devices.device_here()
    model = loaded(network, device)
    if not isinstance(network.model, str):
        device = devices.device_of(model)
    seen, std = devices.outputs_of(
        getattr(model, "whole_stack", model),
        (
            np.where(visible, series, 0).astype("float32"),
            visible,
            prepared.years.astype("float32"),
            elevation.astype("float32"),
            np.nan_to_num(coherence, nan=COHERENCE),
        ),
        device=device,
        precision=network.precision,
        threads=task_threads(network.threads),
    )
    share = np.ones(series.shape[1:], "float32")
    if hasattr(model, "trend_share"):
        told = devices.outputs_of(
            model.trend_share, (seen, std, visible), device=device
        )
        share *= told[0]
    return Seen(seen, std, share)
