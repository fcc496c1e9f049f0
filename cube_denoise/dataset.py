"""Training samples for networks, drawn from the simulator on the fly."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch

from cube_denoise.gaps import fill_gaps
from cube_denoise.normalise import five_numbers, network_inputs, scaling
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.pair import SimulatedPair, simulate_pair
from cube_denoise.simulate.recipes import Recipe, find_recipe, sample
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.simulate.transplant import transplant_pair


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
    scene: int | None = None,
    crops: int = 4,
    start: int = 0,
    recipe: str | None = None,
    noise: NoiseBank | None = None,
) -> Iterator[Batch]:
    """Endless batches of random crops of pairs with known truth.

    The pairs are those of `simulate_pair`; with `noise` alone, of `transplant_pair`;
    with `recipe`, of that (`simulate.recipes`), over and over where it has an end.

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
    scene : int, optional
        Pixels a side of a pair; 256, or as many as the recipe has rows.
    crops : int
        Patches per pair.
    start : int
        First batch to give.
    recipe : str, optional
        Name of a recipe of pairs.
    noise : NoiseBank, optional
        Real noise instead of simulated, of the same split.

    Yields
    ------
    Batch

    Raises
    ------
    ValueError
        If the sizes do not fit each other, the recipe makes series, or `noise` is of
        another split.
    """
    made = None if recipe is None else find_recipe(recipe)
    if made is not None and made.record is not SimulatedPair:
        raise ValueError(f"{recipe=} makes series of dates: this needs one of pairs")
    if noise is not None:
        noise.check_split(split)
    if scene is None:
        scene = made.shape[0] if made else 256
    if batch % crops or patch > scene:
        raise ValueError(
            f"{batch=} must be a multiple of {crops=} and {patch=} at most {scene=}"
        )
    pairs = batch // crops
    number = start
    while True:
        patches: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for k in range(pairs):
            draw, cut = split_seed(split, seed, number, k).spawn(2)
            if made is not None:
                pair = _of_recipe(made, number * pairs + k, split, seed, scene, noise)
            elif noise is not None:
                pair = transplant_pair(noise, (scene, scene), seed=draw)
            else:
                pair = simulate_pair((scene, scene), seed=draw)
            patches += _crops(inputs, normalisation, pair, cut, patch, crops)
        stacked = (np.stack(arrays) for arrays in zip(*patches, strict=True))
        yield Batch(*(torch.from_numpy(a) for a in stacked))
        number += 1


def _of_recipe(
    recipe: Recipe,
    number: int,
    split: str,
    seed: int,
    scene: int,
    noise: NoiseBank | None,
) -> SimulatedPair:
    index = number % recipe.sizes[split] if recipe.sizes else number
    pair = sample(
        recipe.name, index, split=split, seed=seed, shape=(scene, scene), noise=noise
    )
    return cast(SimulatedPair, pair)


def _crops(
    inputs: Sequence[str],
    normalisation: str,
    pair: SimulatedPair,
    seed: np.random.SeedSequence,
    patch: int,
    crops: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    valid = np.isfinite(pair.noisy)
    scale = scaling(normalisation, five_numbers(pair.noisy))
    filled = fill_gaps(pair.noisy)
    channels = network_inputs(
        inputs, filled, scaling=scale, valid=valid, elevation=pair.elevation
    )
    noise = ((filled - pair.truth) / scale.scale)[None].astype("float32")
    rng = np.random.default_rng(seed)
    scene = len(valid)
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
