"""Training samples for networks, drawn from the simulator on the fly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Signals:
    """How strong the deformation of the samples is."""

    pure_noise: float = 0.1
    """Share of the samples without deformation."""
    weakest: float | None = None
    """Peak of the weakest deformation, m: peaks are then log-uniform from it to
    `strongest`. None: powers relative to the noise, as `simulate_pair` draws them."""
    strongest: float = 0.2
    """Peak of the strongest deformation, m; not used without `weakest`."""
    descent: int = 0
    """Batches over which the lower end comes down from `strongest` to `weakest`,
    evenly on a logarithmic scale: from easy to hard."""

    def lowest(self, number: int) -> float | None:
        """Peak of the weakest deformation of a batch, m."""
        if self.weakest is None or number >= self.descent:
            return self.weakest
        share = number / self.descent
        return float(self.strongest ** (1 - share) * self.weakest**share)


def pair_batch(
    number: int,
    inputs: Sequence[str],
    normalisation: str,
    *,
    split: str,
    seed: int,
    batch: int,
    patch: int,
    crops: int = 4,
    scene: int | None = None,
    signals: Signals = Signals(),
    recipe: str | None = None,
    noise: NoiseBank | None = None,
) -> Batch:
    """Random crops of pairs with known truth.

    The pairs are those of `simulate_pair`; with `noise` alone, of `transplant_pair`;
    with `recipe`, of that (`simulate.recipes`), over and over where it has an end, and
    with the signals that it draws.

    A pair of ``scene`` pixels a side is normalised as a whole, as in inference, and
    cut into `crops` patches, each turned and mirrored at random. The batch depends on
    its number, the split, the seed and these options alone, so that training can stop
    and resume, and any process can draw it.

    Parameters
    ----------
    number : int
        Of the batch, from 0.
    inputs, normalisation
        Of the network's configuration.
    split : {"train", "validation", "test"}
        Which seeds to draw from.
    seed : int
        Seed of the run.
    batch : int
        Patches, a multiple of `crops`.
    patch : int
        Pixels a side, at most `scene`.
    crops : int
        Patches per pair.
    scene : int, optional
        Pixels a side of a pair; 256, or as many as the recipe has rows, but at most as
        many as `noise` has.
    signals : Signals
        Strength of the deformation, but for recipes.
    recipe : str, optional
        Name of a recipe of pairs.
    noise : NoiseBank, optional
        Real noise instead of simulated, of the same split.

    Returns
    -------
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
        scene = min(scene, *noise.shape) if noise else scene
    if batch % crops or patch > scene:
        raise ValueError(
            f"{batch=} must be a multiple of {crops=} and {patch=} at most {scene=}"
        )
    pairs = batch // crops
    patches: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for k in range(pairs):
        draw, cut, strength = split_seed(split, seed, number, k).spawn(3)
        if made is not None:
            pair = _of_recipe(made, number * pairs + k, split, seed, scene, noise)
        else:
            rng = np.random.default_rng(strength)
            deforming = bool(rng.random() >= signals.pure_noise)
            if noise is not None:
                pair = transplant_pair(
                    noise, (scene, scene), seed=draw, deforming=deforming
                )
            else:
                pair = simulate_pair((scene, scene), seed=draw, deforming=deforming)
            lowest = signals.lowest(number)
            if deforming and lowest is not None:
                peak = np.exp(rng.uniform(np.log(lowest), np.log(signals.strongest)))
                pair = _with_peak(pair, float(peak))
        patches += _crops(inputs, normalisation, pair, cut, patch, crops)
    stacked = (np.stack(arrays) for arrays in zip(*patches, strict=True))
    return Batch(*(torch.from_numpy(a) for a in stacked))


def _with_peak(pair: SimulatedPair, peak: float) -> SimulatedPair:
    """Return the pair with its deformation scaled to a peak, m."""
    highest = float(np.abs(pair.truth).max())
    if highest == 0:
        return pair
    factor = peak / highest
    more = (factor - 1) * pair.truth
    return pair._replace(
        noisy=pair.noisy + more, truth=pair.truth + more, snr=pair.snr * factor**2
    )


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
