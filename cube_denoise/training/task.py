"""What a family of networks learns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from cube_denoise.model_card import CardText
from cube_denoise.simulate.noise_bank import NoiseBank

Batch = Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...]
"""Tensors of one step: a dict or a NamedTuple."""


@dataclass(frozen=True)
class Setup:
    """What the samples of one training run are drawn for."""

    config: Any
    """Of the network."""
    seed: int
    """Of the run."""
    recipe: str | None = None
    """Of samples (`simulate.recipes`), instead of the task's own."""
    noise: Mapping[str, NoiseBank] = field(default_factory=dict)
    """Real noise by split, instead of simulated."""


class Task(Protocol):
    """Samples, loss and scores; a frozen dataclass whose fields are its settings.

    The settings are JSON-able: the model folder records them, and a checkpoint is only
    taken up with the same ones. Tasks are sent to worker processes, so that their class
    must be importable.
    """

    def draw(self, setup: Setup, split: str, number: int) -> Batch:
        """Draw a batch: from these arguments and the settings alone.

        Worker processes do it. `split` is "train" or "validation", `number` from 0.
        """

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Mean loss of a batch, a scalar with gradient, on the device of the batch.

        Called under autocast: take outputs to float32 before differences. Torch's
        generators are seeded anew for every batch, so random numbers (times, noise)
        come straight from ``torch.randn`` and the like. Without gradient and in eval
        mode, the mean over validation batches decides which weights are kept.
        """

    def calibrated(self, model: Any) -> Any:
        """Trained network, in eval mode on the CPU, with what is fitted at the end.

        From samples of the validation split; most tasks have nothing to fit.
        """

    def scores(self, model: Any) -> dict[str, float]:
        """Scores of the trained network, in eval mode on the CPU, on the test split."""

    def card(self, model: Any) -> CardText:
        """What the model card says of this task."""
