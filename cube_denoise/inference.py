"""Run a network over windows of a pair: the noise it sees, whatever the window."""

import functools
import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cube_denoise import halo
from cube_denoise.conventions import PAIR, X, Y, pair_label, phase_to_displacement
from cube_denoise.gaps import fill_gaps
from cube_denoise.normalise import Scaling, network_inputs

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

FILL_MARGIN = 32
"""Pixels around a network's view that gap filling looks at."""
PRECISION_LIMIT = 1e-4
"""bfloat16 is used if it changes the correction by less than this, m rms."""


@dataclass(frozen=True)
class Network:
    """A network by reference: every worker loads its own, once."""

    model: "str | nn.Module"
    """Folder of the model; a module itself only for work in this process."""
    sha256: str
    """Of the weights: a folder that was trained anew is loaded anew."""
    precision: str
    """"float32" or "bfloat16"."""
    threads: int
    """Torch threads of one task."""


@dataclass(frozen=True)
class NoiseModel:
    """What all windows of one correction share."""

    network: Network
    wavelength: float
    """m"""
    names: tuple[str, ...]
    """Input channels, as in `normalise.network_inputs`."""
    scalings: tuple[Scaling, ...]
    """Of every pair of the cube."""
    passed: frozenset[int]
    """Positions of the pairs that are not corrected."""
    elevation_median: float
    """Of the scene, m."""
    radius: int | None
    """Receptive radius of the network, pixels; None for a wider view."""


def noise(
    cube: xr.Dataset, target: halo.Tile, pair: int, block: NoiseModel
) -> np.ndarray:
    """Noise that the network sees in a window of one pair.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``unwrapped_phase`` (pair, y, x), rad, and ``elevation`` if it is an input.
    target : halo.Tile
        The window, pixels of the cube.
    pair : int
        Position of the pair.
    block : NoiseModel
        Network and scalings.

    Returns
    -------
    numpy.ndarray, float32, shape of `target`
        Displacement in units of the pair's scale (`normalise.Scaling`), the same for
        every window that holds a pixel.
    """
    import torch

    model = loaded(block.network)
    low = block.network.precision == "bfloat16"
    shape = (cube.sizes[Y], cube.sizes[X])

    def run(view: halo.Tile, clipped: halo.Tile) -> np.ndarray:
        margin = halo.clip(halo.grow(clipped, FILL_MARGIN), shape)
        phase = read_tile(cube["unwrapped_phase"][pair], margin)
        inside = halo.shift(clipped, margin)
        valid = np.isfinite(phase[inside])
        lengths = [s.stop - s.start for s in view]
        if not valid.any():
            return np.zeros(lengths, "float32")
        elevation = None
        if "elevation" in block.names:
            height = read_tile(cube["elevation"], margin) - block.elevation_median
            elevation = fill_gaps(height) if np.isfinite(height).any() else 0 * phase
            elevation = np.nan_to_num(elevation)[inside]
        channels = network_inputs(
            block.names,
            phase_to_displacement(fill_gaps(phase)[inside], block.wavelength),
            scaling=block.scalings[pair],
            valid=valid,
            elevation=elevation,
        )
        beyond = [
            (c.start - v.start, v.stop - c.stop)
            for v, c in zip(view, clipped, strict=True)
        ]
        if any(any(b) for b in beyond):
            channels = np.pad(channels, [(0, 0), *beyond], mode="reflect")
        torch.set_num_threads(block.network.threads)
        x = torch.from_numpy(np.ascontiguousarray(channels[None]))
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            return np.asarray(model(x)[0, 0].float())

    tile = 512 if block.radius is not None and block.radius > 32 else 256
    return halo.Lattice(shape, tile, block.radius).apply(run, target)


def read_tile(array: xr.DataArray, tile: halo.Tile) -> np.ndarray:
    """Values of a map (y, x) in a window, float32."""
    return np.asarray(array[{Y: tile.y, X: tile.x}].values, "float32")


_loading = threading.Lock()


def loaded(network: Network) -> Any:
    """Return the network ready for inference; loaded once per process."""
    if not isinstance(network.model, str):
        return network.model.eval()
    with _loading:
        return _load(network.model, network.sha256)


@functools.lru_cache(maxsize=2)
def _load(folder: str, sha256: str) -> Any:
    import torch

    from cube_denoise.models import zoo

    if zoo.model_hash(folder) != sha256:
        raise ValueError(f"{folder} changed while it was in use: run the step again")
    model: Any = zoo.load_model(folder).fused()
    return model.to(memory_format=torch.channels_last)


def network_reference(model: "str | Path | nn.Module") -> "str | nn.Module":
    """Give the folder of a model by name or path; a module as it is."""
    if not isinstance(model, (str, Path)):
        return model
    from cube_denoise.models import zoo

    return str(zoo.model_folder(model).absolute())


def with_precision(block: NoiseModel, precision: str) -> NoiseModel:
    """Return the same model at another precision."""
    return replace(block, network=replace(block.network, precision=precision))


def resolve_precision(
    cube: xr.Dataset, block: NoiseModel, scalings: tuple[Scaling, ...], asked: str
) -> str:
    """Resolve "auto" on the middle tile of the pair with the largest scale."""
    if asked != "auto":
        return asked
    import torch

    usable = [k for k in range(cube.sizes[PAIR]) if k not in block.passed]
    if not usable or not torch.cpu._is_avx512_bf16_supported():
        return "float32"
    pair = max(usable, key=lambda k: scalings[k].scale)
    middle = halo.Tile(
        *(
            slice(n // 2 // 256 * 256, min(n // 2 // 256 * 256 + 256, n))
            for n in (cube.sizes[Y], cube.sizes[X])
        )
    )
    if not np.isfinite(read_tile(cube["unwrapped_phase"][pair], middle)).any():
        log.info("precision float32: no data in the middle to try bfloat16 on")
        return "float32"
    exact = noise(cube, middle, pair, block)
    rough = noise(cube, middle, pair, with_precision(block, "bfloat16"))
    change = float(np.sqrt(np.mean((rough - exact) ** 2))) * scalings[pair].scale
    chosen = "bfloat16" if change < PRECISION_LIMIT else "float32"
    log.info(
        "precision %s (bfloat16 changes %s by %.3f mm rms)",
        chosen,
        pair_label(cube, pair),
        change * 1e3,
    )
    return chosen
