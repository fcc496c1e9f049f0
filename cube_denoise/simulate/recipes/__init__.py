"""Named recipes of training samples, each fixed by (split, seed, index).

``dncnn-paper``
    Pairs as in the DnCNN poster of Li and Sagiya.
``poster-sources``
    Pairs as in the poster of Popescu et al., on real noise.
``autoencoder-paper``
    Series of nine dates as of Rouet-Leduc et al. (2021).
``stack``
    Whole stacks of `simulate_stack`, this project's own.
"""

import zlib
from collections.abc import Iterator

import numpy as np

from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.recipes.autoencoder_paper import AUTOENCODER_PAPER
from cube_denoise.simulate.recipes.dncnn_paper import DNCNN_PAPER
from cube_denoise.simulate.recipes.poster_sources import POSTER_SOURCES
from cube_denoise.simulate.recipes.recipe import (
    Recipe,
    Sample,
    SimulatedSeries,
    samples_dataset,
)
from cube_denoise.simulate.recipes.stacks import STACK
from cube_denoise.simulate.seeds import split_seed

__all__ = [
    "RECIPES",
    "Recipe",
    "Sample",
    "SimulatedSeries",
    "find_recipe",
    "sample",
    "sample_seed",
    "samples",
    "samples_dataset",
]

RECIPES: dict[str, Recipe] = {
    r.name: r for r in (DNCNN_PAPER, POSTER_SOURCES, AUTOENCODER_PAPER, STACK)
}
"""By name."""


def find_recipe(name: str) -> Recipe:
    """Recipe of a name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"{name=}: recipes are {', '.join(RECIPES)}")
    return RECIPES[name]


def sample_seed(
    name: str, *, split: str, seed: int, index: int
) -> np.random.SeedSequence:
    """Seed of one sample: of its split, recipe, run and number."""
    return split_seed(split, zlib.crc32(name.encode()), seed, index)


def sample(
    name: str,
    index: int,
    *,
    split: str,
    seed: int = 0,
    shape: tuple[int, int] | None = None,
    noise: NoiseBank | None = None,
) -> Sample:
    """One sample of a recipe.

    Parameters
    ----------
    name : str
        Of `RECIPES`.
    index : int
        Number of the sample, from 0; below the size of the split where there is one.
    split : {"train", "validation", "test"}
        Splits share no seed, no region and no date of real noise.
    seed : int
        Another seed gives another data set.
    shape : (int, int), optional
        Rows and columns, instead of the recipe's.
    noise : NoiseBank, optional
        Real noise in place of simulated, of the same split (or of all dates, for
        training alone).

    Returns
    -------
    SimulatedPair, SimulatedSeries or Scene

    Raises
    ------
    ValueError
        If one of these is not as above, or the recipe has no use for the bank or needs
        one.
    """
    recipe = find_recipe(name)
    split_seed(split)
    size = recipe.sizes[split] if recipe.sizes else None
    if index < 0 or (size is not None and index >= size):
        raise ValueError(f"{index=}: the {split} split of {name} has {size} samples")
    if noise is None and recipe.needs_noise:
        raise ValueError(
            f"{name} puts deformation on real pairs: give noise, a NoiseBank of a stack"
        )
    if noise is not None:
        if noise.kind not in recipe.noise_kinds:
            raise ValueError(
                f"{name} takes noise of kind {' or '.join(recipe.noise_kinds)}, not "
                f"{noise.kind}"
            )
        noise.check_split(split)
    return recipe.draw(
        sample_seed(name, split=split, seed=seed, index=index),
        split=split,
        shape=shape or recipe.shape,
        noise=noise,
    )


def samples(
    name: str,
    *,
    split: str,
    seed: int = 0,
    start: int = 0,
    shape: tuple[int, int] | None = None,
    noise: NoiseBank | None = None,
) -> Iterator[Sample]:
    """Samples of a recipe from number `start` on, to the end of the split, if any.

    Parameters and errors are those of `sample`.
    """
    sizes = find_recipe(name).sizes
    split_seed(split)
    index = start
    while sizes is None or index < sizes[split]:
        yield sample(name, index, split=split, seed=seed, shape=shape, noise=noise)
        index += 1
