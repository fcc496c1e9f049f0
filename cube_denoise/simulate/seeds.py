"""Seeds of everything drawn at random: no two purposes share one."""

import numpy as np

SPLITS = {"train": 0, "validation": 1, "test": 2}
"""First word of every seed of a split: samples of different splits never share one."""

SCENE_SEED, STACK_SEED = 3, 4
"""First words of the seeds of `simulate_scene` and of `simulate_stack`."""


def split_seed(split: str, *words: int) -> np.random.SeedSequence:
    """Seed of one sample of one split.

    Raises
    ------
    ValueError
        If `split` is not train, validation or test.
    """
    if split not in SPLITS:
        raise ValueError(f"{split=}: must be one of {', '.join(SPLITS)}")
    return np.random.SeedSequence([SPLITS[split], *words])


def child_seeds(
    seed: np.random.SeedSequence, count: int
) -> list[np.random.SeedSequence]:
    """Seeds of the parts of one sample; unlike ``spawn``, the same at every call."""
    return [
        np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, k))
        for k in range(count)
    ]
