"""Run a network over windows of a pair: the noise it sees, whatever the window."""

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cube_denoise import halo
from cube_denoise.cluster import task_threads
from cube_denoise.conventions import X, Y, pair_label, phase_to_displacement
from cube_denoise.gaps import fill_gaps
from cube_denoise.normalise import Scaling, network_inputs

if TYPE_CHECKING:
    from torch import nn

FILL_MARGIN = 32
"""Pixels around a network's view that gap filling looks at."""
PRECISION_LIMIT = 1e-4
"""A faster precision is used if it changes a correction by less than this, m rms."""


@dataclass(frozen=True)
class Network:
    """A network by reference: every worker loads its own, once."""

    model: "str | nn.Module"
    """Folder of the model; a module itself only for work in this process."""
    sha256: str
    """Of the weights: a folder that was trained anew is loaded anew."""
    precision: str
    """"float32", "tf32" or "bfloat16"."""
    threads: int
    """Torch threads of one task, on cores of this machine."""


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

    Computed on the GPU if this process sees one. At float32 GPU and CPU differ by
    rounding; faster precisions by less than `PRECISION_LIMIT` where "auto" chose them.

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
    from cube_denoise import device as devices

    model, device = _ready(block.network)
    lattice = lattice_of((cube.sizes[Y], cube.sizes[X]), block.radius)
    views = list(lattice.views(target))
    sheds = getattr(model, "sheds_halo", False)
    readers = devices.READERS if device == devices.CUDA else 0
    found = devices.outputs(
        model,
        devices.in_advance(
            functools.partial(_channels, cube, pair, block), views, readers
        ),
        device=device,
        precision=block.network.precision,
        threads=task_threads(block.network.threads),
        goes_on=[lattice.goes_on(view) for view, _ in views] if sheds else None,
    )
    outputs = (
        _nothing(view) if out is None else out
        for (view, _), out in zip(views, found, strict=True)
    )
    return lattice.join(outputs, target)


def stated_std(
    cube: xr.Dataset, target: halo.Tile, pair: int, block: NoiseModel
) -> np.ndarray:
    """Standard deviation that a `models.diffusion.Ensemble` states, as `noise`.

    Where tiles overlap it is blended with the weights of their noise, as if their
    errors were the same: that is the most that the blended noise can have.

    Parameters
    ----------
    cube, target, pair, block
        As in `noise`.

    Returns
    -------
    numpy.ndarray, float32, shape of `target`
        In units of the pair's scale, the same for every window that holds a pixel; 0 in
        tiles without data.

    Raises
    ------
    ValueError
        If the network draws one sample alone.
    """
    from cube_denoise import device as devices

    model, device = _ready(block.network)
    lattice = lattice_of((cube.sizes[Y], cube.sizes[X]), block.radius)

    def std_of(views: tuple[halo.Tile, halo.Tile]) -> np.ndarray:
        channels = _channels(cube, pair, block, views)
        if channels is None:
            return _nothing(views[0])
        _, std = devices.outputs_of(
            model.stated,
            (channels,),
            device=device,
            precision=block.network.precision,
            threads=task_threads(block.network.threads),
        )
        return std[0]

    return lattice.join(map(std_of, lattice.views(target)), target)


def _ready(network: Network) -> tuple[Any, str]:
    """The network and where it lies."""
    from cube_denoise import device as devices

    device = devices.device_here()
    model = loaded(network, device)
    if not isinstance(network.model, str):
        device = devices.device_of(model)  # a module stays where it is
    return model, device


def _channels(
    cube: xr.Dataset, pair: int, block: NoiseModel, views: tuple[halo.Tile, halo.Tile]
) -> np.ndarray | None:
    """What the network is given of a view (`halo.TileFunction`); None without data."""
    view, clipped = views
    margin = halo.clip(halo.grow(clipped, FILL_MARGIN), (cube.sizes[Y], cube.sizes[X]))
    phase = read_tile(cube["unwrapped_phase"][pair], margin)
    inside = halo.shift(clipped, margin)
    valid = np.isfinite(phase[inside])
    if not valid.any():
        return None
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
        (c.start - v.start, v.stop - c.stop) for v, c in zip(view, clipped, strict=True)
    ]
    if any(any(b) for b in beyond):
        channels = np.pad(channels, [(0, 0), *beyond], mode="reflect")
    return channels


def _nothing(view: halo.Tile) -> np.ndarray:
    return np.zeros([s.stop - s.start for s in view], "float32")


def lattice_of(shape: tuple[int, int], radius: int | None) -> halo.Lattice:
    """How a map is cut for a network of that receptive radius."""
    tile = 512 if radius is not None and radius > 32 else 256
    return halo.Lattice(shape, tile, radius)


def read_tile(array: xr.DataArray, tile: halo.Tile) -> np.ndarray:
    """Values of a map (y, x) in a window, float32."""
    return np.asarray(array[{Y: tile.y, X: tile.x}].values, "float32")


_loading = threading.Lock()


def loaded(network: Network, device: str = "cpu") -> Any:
    """Return the network ready for inference; loaded once per process and device."""
    if not isinstance(network.model, str):
        return network.model.eval()
    with _loading:
        low = network.precision == "bfloat16"
        return _load(network.model, network.sha256, device, low)


@functools.lru_cache(maxsize=4)
def _load(folder: str, sha256: str, device: str, low: bool) -> Any:
    import torch

    from cube_denoise.models import zoo

    if zoo.model_hash(folder) != sha256:
        raise ValueError(f"{folder} changed while it was in use: run the step again")
    model: Any = zoo.load_model(folder).fused()
    if low and getattr(model, "all_bfloat16", False):
        # Autocast would convert them at every call.
        model = model.bfloat16()
    if zoo.what_it_sees(folder) == "stack":
        return model.to(device)
    return model.to(device, memory_format=torch.channels_last)


def network_label(model: "str | Path | nn.Module") -> dict[str, str]:
    """Name and hash of a model, for attributes and histories."""
    if isinstance(model, (str, Path)):
        from cube_denoise.models import zoo

        return {"method": Path(model).name, "model_sha256": zoo.model_hash(model)}
    return {"method": type(model).__name__, "model_sha256": ""}


def network_reference(model: "str | Path | nn.Module") -> "str | nn.Module":
    """Give the folder of a model by name or path; a module as it is."""
    if not isinstance(model, (str, Path)):
        return model
    from cube_denoise.models import zoo

    return str(zoo.model_folder(model).absolute())


def with_precision(block: NoiseModel, precision: str) -> NoiseModel:
    """Return the same model at another precision."""
    return replace(block, network=replace(block.network, precision=precision))


def fastest_precision(
    cube: xr.Dataset, block: NoiseModel, pairs: Sequence[int]
) -> tuple[str, str]:
    """Fastest precision of this process's device that changes a tile too little to see.

    Tried on the middle tile of the pair with the largest scale, in the process that
    calls: let a worker do it.

    Parameters
    ----------
    cube : xarray.Dataset
        As in `noise`.
    block : NoiseModel
        At "float32".
    pairs : sequence of int
        Positions of the pairs that may be tried.

    Returns
    -------
    precision : str
        "float32" unless another changes the tile by less than `PRECISION_LIMIT`.
    reason : str
        Why, for the log.
    """
    from cube_denoise import device as devices

    faster = devices.rougher(devices.device_here())
    if not pairs or not faster:
        return "float32", "nothing to try, or nothing faster here"
    pair = max(pairs, key=lambda k: block.scalings[k].scale)
    middle = halo.Tile(
        *(
            slice(n // 2 // 256 * 256, min(n // 2 // 256 * 256 + 256, n))
            for n in (cube.sizes[Y], cube.sizes[X])
        )
    )
    if not np.isfinite(read_tile(cube["unwrapped_phase"][pair], middle)).any():
        return "float32", "no data in the middle to try others on"
    exact = noise(cube, middle, pair, block)
    reasons = []
    for precision in faster:
        rough = noise(cube, middle, pair, with_precision(block, precision))
        change = float(np.sqrt(np.mean((rough - exact) ** 2)))
        change *= block.scalings[pair].scale
        label = pair_label(cube, pair)
        reasons.append(f"{precision} changes {label} by {change * 1e3:.3f} mm rms")
        if change < PRECISION_LIMIT:
            return precision, "; ".join(reasons)
    return "float32", "; ".join(reasons)
