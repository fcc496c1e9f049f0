"""Splits, and seeds of everything drawn at random: no two purposes share one."""

import numpy as np

SPLITS = {"train": 0, "validation": 1, "test": 2}
"""First word of every seed of a split: samples of different splits never share one."""

SHARES = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}
"""Which part of the dates, in order of time, a split has."""

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


def dates_of_split(times: np.ndarray, split: str | None) -> np.ndarray:
    """Dates that belong to a split (`SHARES`); all for None.

    Parameters
    ----------
    times : numpy.ndarray of datetime64
        All dates of the stack, each once.
    split : {"train", "validation", "test"} or None

    Returns
    -------
    numpy.ndarray of datetime64
        Sorted.

    Raises
    ------
    ValueError
        If `split` is none of these.

    Examples
    --------
    >>> times = np.arange("2020-01-01", "2020-01-06", dtype="datetime64[D]")
    >>> [int(dates_of_split(times, name).size) for name in SHARES]
    [3, 1, 1]
    """
    times = np.sort(times)
    if split is None:
        return times
    if split not in SPLITS:
        raise ValueError(f"{split=}: must be None or one of {', '.join(SPLITS)}")
    low, high = SHARES[split]
    place = (np.arange(times.size) + 0.5) / times.size
    return times[(place >= low) & (place < high)]
