"""How fast this machine is: a second or two of made-up work, no data of a cube."""

import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window
from cube_denoise.cluster import GPU
from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.correct import plan_correction
from cube_denoise.corrections import Correction
from cube_denoise.inversion_window import Settings
from cube_denoise.invert import plan_inversion
from cube_denoise.network import pair_indices
from cube_denoise.normalise import five_numbers
from cube_denoise.store import PAIR_TIMES

SIDE = 192
"""Most pixels a side of what is tried."""
NETWORK_SIDE = 96
"""The same for a network, which computes much more for a pixel."""
QUICK = 0.2
"""What takes less, s, is done again without looking at its memory."""
VALUES = 1_500_000
"""Most phases in what is tried, where a block holds all pairs."""
TRIED_PAIRS = 2
"""Pairs tried where each is corrected by itself."""
NOISE = 0.2
"""Of what is tried, rad."""


@dataclass(frozen=True)
class Codec:
    """Speed of one core with the chunks of a cube and with rasters, bytes/s."""

    decode: float
    encode: float
    raster: float
    """Warping rasters that are in memory, deflated, onto a grid."""


@dataclass(frozen=True)
class Rate:
    """Cost of a step per value of phase (one pixel of one pair), for one core."""

    seconds: float
    """Computing blocks."""
    memory: float
    """Peak memory of a block, bytes."""
    look_seconds: float = 0.0
    """Looking through whole pairs first."""
    look_memory: float = 0.0
    looks: int = 0
    """How often every pair is looked through first, by a task each."""
    once: int = 0
    """Other tasks before the blocks."""
    once_seconds: float = 0.0
    """All of these together."""
    activations: float = 0.0
    """Memory of a network per pixel that it sees, bytes."""


def made_up(cube: xr.Dataset, pairs: Sequence[int], side: int) -> xr.Dataset:
    """Make a corner of a cube of its own dates and grid: screens of dates, and noise.

    Triplets close but for the noise, as those of most pixels do.
    """
    shape = tuple(min(cube.sizes[d], side) for d in (Y, X))
    corner = cube.isel({PAIR: list(pairs), Y: slice(shape[0]), X: slice(shape[1])})
    corner = corner.drop_vars(list(corner.data_vars))
    rng = np.random.default_rng(0)
    size = (len(pairs), *shape)
    first, second, times = pair_indices(*(corner[n].values for n in PAIR_TIMES))
    screens = rng.standard_normal((times.size, *shape), "float32").cumsum(2) / 8
    smooth = NOISE * rng.standard_normal(size, "float32")
    smooth += screens[second] - screens[first]
    corner["unwrapped_phase"] = ((PAIR, Y, X), smooth)
    if "coherence" in cube:
        values = rng.uniform(0.3, 0.9, size).astype("float32")
        corner["coherence"] = ((PAIR, Y, X), values)
    if "elevation" in cube:
        values = np.cumsum(rng.normal(size=shape), axis=1).astype("float32")
        corner["elevation"] = ((Y, X), 1000 + values)
    if "phase_quantiles" in cube:
        quantiles = [five_numbers(pair) for pair in smooth]
        corner["phase_quantiles"] = ((PAIR, "quantile"), quantiles)
        corner["valid_fraction"] = (PAIR, np.ones(len(pairs), "float32"))
    return corner


@cache
def codec_speed() -> Codec:
    """Measure Blosc zstd as cubes use it, and GDAL's deflate with a warp."""
    import rasterio
    from numcodecs import Blosc  # type: ignore[import-untyped]
    from rasterio.io import MemoryFile
    from rasterio.vrt import WarpedVRT

    rng = np.random.default_rng(0)
    values = np.cumsum(rng.normal(size=(512, 512)), axis=1).astype("float32")
    codec = Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE)
    packed = codec.encode(values)
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(80, 0, 0, 0, -80, 0)}
    options = {"driver": "GTiff", "dtype": "float32", "count": 1, "width": 512}
    with MemoryFile() as memory:
        with memory.open(
            height=512, compress="deflate", tiled=True, **options, **place
        ) as raster:
            raster.write(values, 1)

        def warp() -> None:
            with memory.open() as raster, WarpedVRT(raster, crs=place["crs"]) as vrt:
                vrt.read(1)

        raster_seconds = _seconds(warp)
    return Codec(
        decode=values.nbytes / _seconds(lambda: codec.decode(packed)),
        encode=values.nbytes / _seconds(lambda: codec.encode(values)),
        raster=values.nbytes / raster_seconds,
    )


def correction_rate(cube: xr.Dataset, correction: Correction) -> Rate:
    """Plan a correction of made-up data and correct a block.

    Parameters
    ----------
    cube : xarray.Dataset
        Its dates, grid and attributes are used, not its data.
    correction : corrections.Correction
        As it will be done.

    Returns
    -------
    Rate

    Raises
    ------
    ValueError
        If the dates or options do not allow this correction.
    """
    every, side = range(cube.sizes[PAIR]), SIDE
    if correction.whole_stack:
        side = min(SIDE, max(32, int((VALUES / len(every)) ** 0.5)))
    else:
        every = every[:TRIED_PAIRS]
        side = NETWORK_SIDE if correction.resource == GPU else SIDE
    small = made_up(cube, every, side)
    pixels = small.sizes[Y] * small.sizes[X]
    calls: list[tuple[int, float, int]] = []

    def run(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        found, seconds, peak = _measured(partial(function, tasks[0]))
        calls.append((len(tasks), seconds, peak))
        if len(tasks) == len(every):
            return [found] * len(tasks)  # noise is like noise
        return [found, *map(function, tasks[1:])]

    job, _ = plan_correction(small, correction, block=side, run=run)
    window = job.windows[0]
    with _layers(correction) as largest:
        _, seconds, peak = _measured(partial(job.compute, small, window))
    values = pixels * (window[PAIR].stop - window[PAIR].start)
    # A network only chooses a precision, on one tile.
    by_pair = [c for c in calls if c[0] == len(every) and correction.resource != GPU]
    others = [c for c in calls if c not in by_pair]
    return Rate(
        seconds=seconds / values,
        memory=peak / values,
        look_seconds=sum(c[1] for c in by_pair) / pixels,
        look_memory=max((c[2] for c in by_pair), default=0) / pixels,
        looks=len(by_pair),
        once=sum(c[0] for c in others),
        once_seconds=sum(c[0] * c[1] for c in others),
        activations=largest[0],
    )


@contextmanager
def _layers(correction: Any) -> Iterator[list[float]]:
    """Watch a network: bytes of its largest layer per pixel, in a list of one."""
    largest = [0.0]
    if correction.resource != GPU or correction.whole_stack:
        yield largest
        return
    from cube_denoise.device import device_here
    from cube_denoise.inference import Network, loaded, network_reference

    sha256 = correction.label["model_sha256"]
    reference = network_reference(correction.model)
    model = loaded(Network(reference, sha256, "float32", 1), device_here())

    def note(module: Any, inputs: Any, output: Any) -> None:
        sides = [t.numel() * t.element_size() for t in (inputs[0], output)]
        pixels = output.shape[0] * output.shape[-1] * output.shape[-2]
        # What comes in, a padded copy of it, and what goes out.
        largest[0] = max(largest[0], (2 * sides[0] + sides[1]) / pixels)

    leaves = [m for m in model.modules() if not any(True for _ in m.children())]
    hooks = [m.register_forward_hook(note) for m in leaves]
    try:
        yield largest
    finally:
        for hook in hooks:
            hook.remove()


def inversion_rate(cube: xr.Dataset, settings: Settings, variable: str) -> Rate:
    """Invert made-up data of a cube's own network; see `correction_rate`."""
    count = cube.sizes[PAIR]
    side = min(64, max(8, int((VALUES / 4 / count) ** 0.5)))
    small = made_up(cube, range(count), side)
    if variable != "unwrapped_phase":
        small = small.rename(unwrapped_phase=variable)
    corner: Window = {Y: slice(0, 4), X: slice(0, 4)}
    job = plan_inversion(
        small, reference=corner, variable=variable, block=side, **asdict(settings)
    )
    # What numba compiles, or loads, is done once and not for every value.
    job.compute(small, corner)
    _, seconds, peak = _measured(lambda: job.compute(small, job.windows[0]))
    values = small[variable].size
    return Rate(seconds=seconds / values, memory=peak / values)


def _seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Shortest of a few times, s."""
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return max(min(found), 1e-9)


def _measured(function: Callable[[], Any]) -> tuple[Any, float, int]:
    """What a function returns, its time (s) and its peak memory (bytes)."""
    started = not tracemalloc.is_tracing()
    if started:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    begin = time.perf_counter()
    try:
        found = function()
        seconds = time.perf_counter() - begin
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        if started:
            tracemalloc.stop()
    if seconds < QUICK:
        begin = time.perf_counter()
        found = function()
        seconds = time.perf_counter() - begin
    return found, max(seconds, 1e-9), max(peak, 0)
