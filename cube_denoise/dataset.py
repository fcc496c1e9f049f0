"""Training samples for networks, drawn from the simulator on the fly."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from cube_denoise.gaps import fill_gaps
from cube_denoise.normalise import five_numbers, network_inputs, scaling
from cube_denoise.simulate.pair import simulate_pair
from cube_denoise.simulate.seeds import split_seed


class Batch(NamedTuple):
    """Patches for one training step, each (batch, channels, rows, columns)."""

    inputs: torch.Tensor
    """Network inputs, normalised."""
    noise: torch.Tensor
    """What the network must predict: (noisy - truth) / scale."""
    valid: torch.Tensor
    """1 where the loss counts."""


def pair_batches(
    inputs: Sequence[str],
    normalisation: str,
    *,
    split: str,
    seed: int,
    batch: int,
    patch: int,
    scene: int = 256,
    crops: int = 4,
    start: int = 0,
) -> Iterator[Batch]:
    """Endless batches of random crops of simulated pairs.

    A pair of ``scene`` pixels a side is normalised as a whole, as in inference, and
    cut into `crops` patches, each turned and mirrored at random. Batch k depends on
    (split, seed, k) alone, so that training can stop and resume.

    Parameters
    ----------
    inputs, normalisation
        Of the network's configuration.
    split : {"train", "validation", "test"}
        Which seeds to draw from.
    seed : int
        Seed of the run.
    batch : int
        Patches per batch, a multiple of `crops`.
    patch : int
        Pixels a side, at most `scene`.
    scene : int
        Pixels a side of a simulated pair.
    crops : int
        Patches per pair.
    start : int
        First batch to give.

    Yields
    ------
    Batch
    """
    if batch % crops or patch > scene:
        raise ValueError(
            f"{batch=} must be a multiple of {crops=} and {patch=} at most {scene=}"
        )
    number = start
    while True:
        patches = [
            one
            for k in range(batch // crops)
            for one in _crops(
                inputs,
                normalisation,
                split_seed(split, seed, number, k),
                patch,
                scene,
                crops,
            )
        ]
        stacked = (np.stack(arrays) for arrays in zip(*patches, strict=True))
        yield Batch(*(torch.from_numpy(a) for a in stacked))
        number += 1


def _crops(
    inputs: Sequence[str],
    normalisation: str,
    seed: np.random.SeedSequence,
    patch: int,
    scene: int,
    crops: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    draw, cut = seed.spawn(2)
    pair = simulate_pair((scene, scene), seed=draw)
    valid = np.isfinite(pair.noisy)
    scale = scaling(normalisation, five_numbers(pair.noisy))
    filled = fill_gaps(pair.noisy)
    channels = network_inputs(
        inputs, filled, scaling=scale, valid=valid, elevation=pair.elevation
    )
    noise = ((filled - pair.truth) / scale.scale)[None].astype("float32")
    rng = np.random.default_rng(cut)
    for _ in range(crops):
        row, column = rng.integers(0, scene - patch + 1, 2)
        here = (slice(None), slice(row, row + patch), slice(column, column + patch))
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        yield tuple(  # type: ignore[misc]
            _turn(a[here], turns, mirrored)
            for a in (channels, noise, valid[None].astype("float32"))
        )


def _turn(array: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    array = np.rot90(array, turns, (1, 2))
    return np.ascontiguousarray(array[:, :, ::-1] if mirrored else array)
