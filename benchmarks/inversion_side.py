"""What the solvers of `benchmarks.inversion` are given, and how each is called.

Only NumPy and the standard library: it is imported in the peers' environments too.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Inputs:
    """A stack in memory, as `inversion_stack.Stack.save` wrote it."""

    phase: np.ndarray
    """Of the pairs, rad, NaN = no data, float32, shape (pairs, pixels)."""
    weights: np.ndarray | None
    """float32, shape (pairs, pixels); None = all alike."""
    first: np.ndarray
    second: np.ndarray
    days: np.ndarray
    width: int
    folder: Path

    @classmethod
    def load(cls, folder: Path, *, weighted: bool) -> "Inputs":
        """Read the arrays into memory."""
        network = json.loads((folder / "network.json").read_text())
        return cls(
            phase=np.load(folder / "phase.npy"),
            weights=np.load(folder / "coherence.npy") if weighted else None,
            **{k: np.array(network[k]) for k in ("first", "second", "days")},
            width=network["width"],
            folder=folder,
        )


@dataclass(frozen=True)
class Side:
    """One way to invert."""

    solve: Callable[[], Any]
    """What is timed."""
    series: Callable[[Any], np.ndarray]
    """Phase of the dates, rad, 0 at the first, (dates, pixels), from `solve`."""
    version: str
    warm_up: Callable[[], Any] | None = None
    """Done once before; None = `solve`."""
    prepare: Callable[[], Any] = lambda: None
    """Done before every `solve`, not timed."""
    own_memory: int = 0
    """Bytes of inputs that `solve` reads itself and of outputs that it holds."""
    pixels: int | None = None
    """Solves only so many, the first; None = all."""
