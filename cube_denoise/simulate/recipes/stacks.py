"""The recipe ``stack``: whole stacks, this project's own."""

import numpy as np

from cube_denoise.simulate.assembly import Scene
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.recipes.recipe import Recipe
from cube_denoise.simulate.seeds import child_seeds
from cube_denoise.simulate.stack import simulate_stack

AT_REST = 0.1
"""Part of the stacks without deformation: a network must learn to find nothing."""


def draw(
    seed: np.random.SeedSequence,
    *,
    split: str,
    shape: tuple[int, int],
    noise: NoiseBank | None,
) -> Scene:
    """Stack of `simulate_stack`, peak log-uniform in 2 mm to 20 cm, or at rest."""
    choice, scene = child_seeds(seed, 2)
    at_rest = np.random.default_rng(choice).random() < AT_REST
    return simulate_stack(
        seed=scene, shape=shape, amplitude=0.0 if at_rest else None, noise=noise
    )


STACK = Recipe("stack", Scene, (128, 128), draw, noise_kinds=("residual",))
