"""Run a stack network over windows of a cube: the displacement it sees on all dates.

Scenes of up to `TILE` pixels a side are seen whole. Of larger ones the network sees
tiles that overlap, on a lattice anchored at the first pixel of the cube, each less its
mean on every date; what these means are, it is asked of the whole scene at a lower
resolution. So the result of a pixel does not depend on the window asked for.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from cube_denoise import halo
from cube_denoise.blocks import spans, windows
from cube_denoise.cluster import task_threads
from cube_denoise.conventions import X, Y, phase_to_displacement
from cube_denoise.corrections.correction import Run
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
COHERENCE = 0.7
"""Told to the network where a cube has no coherence."""

Place = tuple[int, int]
"""First row and column of a tile."""


@dataclass(frozen=True)
class SeriesModel:
    """What all windows of one cube share."""

    network: Network
    stack: Stack
    wavelength: float
    """m"""
    years: np.ndarray
    """Of the dates, since the first."""
    means: Mapping[Place, np.ndarray]
    """Displacement of every tile, m, the mean over it on every date; empty where the
    scene is seen whole."""

    def within(self, shape: tuple[int, int], target: halo.Tile) -> "SeriesModel":
        """The same with the means of the tiles that one window needs alone."""
        needed = {_place(tile) for tile, _ in _views(shape, target)}
        means = {place: m for place, m in self.means.items() if place in needed}
        return SeriesModel(self.network, self.stack, self.wavelength, self.years, means)


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
    model = SeriesModel(
        network,
        stack,
        float(cube.attrs["wavelength"]),
        np.asarray(days, "float64") / 365.25,
        {},
    )
    shape = (cube.sizes[Y], cube.sizes[X])
    if _seen_whole(shape):
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
    seen, _ = _run(
        network,
        phase_to_displacement(series.reshape(-1, *small), model.wavelength),
        model.years,
        coarse["elevation"],
        coarse["coherence"],
    )
    every = halo.Tile(slice(0, shape[0]), slice(0, shape[1]))
    means = {}
    for tile, clipped in _views(shape, every):
        rows, columns = (
            slice(s.start // factor, -(-s.stop // factor)) for s in clipped
        )
        means[_place(tile)] = seen[:, rows, columns].mean((1, 2), dtype="float64")
    return SeriesModel(network, stack, model.wavelength, model.years, means)


def stack_displacement(
    cube: xr.Dataset, target: halo.Tile, model: SeriesModel
) -> tuple[np.ndarray, np.ndarray]:
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
    displacement : numpy.ndarray, float32, shape (dates, rows, columns)
        m, positive toward the satellite, up to a constant per date and one per pixel.
    std : numpy.ndarray, float32, same shape
        m.
    """
    shape = (cube.sizes[Y], cube.sizes[X])
    if _seen_whole(shape):
        whole = halo.Tile(slice(0, shape[0]), slice(0, shape[1]))
        seen, std = _tile(cube, whole, model)
        return seen[:, *target], std[:, *target]
    total: np.ndarray | None = None
    hann = np.sin(np.pi * (np.arange(TILE) + 0.5) / TILE) ** 2
    for tile, clipped in _views(shape, target):
        both = np.stack(_tile(cube, clipped, model))
        both[0] += model.means[_place(tile)][:, None, None].astype("float32")
        part = halo.intersect(clipped, target)
        if total is None:
            sides = [s.stop - s.start for s in target]
            total, weights = np.zeros((*both.shape[:2], *sides)), np.zeros(sides)
        inside = halo.shift(part, tile)
        weight = np.outer(hann[inside[0]], hann[inside[1]])
        here = (Ellipsis, *halo.shift(part, target))
        total[here] += weight * both[(Ellipsis, *halo.shift(part, clipped))]
        weights[here] += weight
    assert total is not None
    seen, std = (total / weights).astype("float32")
    return seen, std


def _seen_whole(shape: tuple[int, int]) -> bool:
    return max(shape) <= TILE


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


def _tile(
    cube: xr.Dataset, tile: halo.Tile, model: SeriesModel
) -> tuple[np.ndarray, np.ndarray]:
    """Displacement and its standard deviation in a tile, m."""
    phase = dates_of(cube, {Y: tile.y, X: tile.x}, model.stack)
    series = phase_to_displacement(phase, model.wavelength)
    return _run(
        model.network,
        series,
        model.years,
        _elevation(cube, tile),
        _coherence(cube, tile),
    )


def _run(
    network: Network,
    series: np.ndarray,
    years: np.ndarray,
    elevation: np.ndarray,
    coherence: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of the network; zeros where it is given no data at all."""
    from cube_denoise import device as devices

    visible = np.isfinite(series)
    if visible.any((1, 2)).sum() < 3:
        return np.zeros(series.shape, "float32"), np.full(
            series.shape, np.nan, "float32"
        )
    device = devices.device_here()
    model = loaded(network, device)
    if not isinstance(network.model, str):
        device = devices.device_of(model)
    seen, std = devices.outputs_of(
        model,
        (
            np.where(visible, series, 0).astype("float32"),
            visible,
            years.astype("float32"),
            np.nan_to_num(elevation),
            np.nan_to_num(coherence, nan=COHERENCE),
        ),
        device=device,
        precision=network.precision,
        threads=task_threads(network.threads),
    )
    return seen, std
