"""How every network is trained."""

from dataclasses import asdict, dataclass
from typing import Any

from cube_denoise.dataset import Signals
from cube_denoise.training.generative import GenerativeTask
from cube_denoise.training.pairs import PairTask
from cube_denoise.training.series import SeriesTask
from cube_denoise.training.stacks import StackTask
from cube_denoise.training.task import Task


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training run."""

    task: Task
    """Samples, loss and scores."""
    steps: int
    """Optimiser steps (AdamW)."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    warm_up: float = 0.1
    """Share of the steps over which the learning rate rises; then it falls to zero as a
    cosine."""
    weight_decay: float = 0.0
    clip: float = 1.0
    """Largest norm of the gradient."""
    average: float = 0.999
    """Decay of the moving average of the weights, which is what is kept."""
    mixed: bool = True
    """Compute in bfloat16 where the device has it."""
    channels_last: bool = True
    """Order of the memory of four-dimensional tensors: quicker for convolutions."""
    evaluate_every: int = 100
    """Steps between losses of the averaged weights on held-out scenes."""
    evaluation_batches: int = 8
    """Fixed batches of the validation split that make up the held-out loss."""
    patience: int | None = None
    """Evaluations without gain after which to stop; None = never. The weights of the
    best evaluation are kept in any case."""

    def record(self) -> dict[str, Any]:
        """Return all settings, JSON-able."""
        settings = asdict(self)
        settings["task"] = {"name": type(self.task).__name__, **settings["task"]}
        return settings


DOWN_TO_2_MM = Signals(weakest=0.002, descent=500)
"""The weakest signals come in the course of the first steps."""
SOON_DOWN_TO_2_MM = Signals(weakest=0.002, descent=200)
"""The same for short runs."""

RECIPES = {
    "dncnn": Recipe(
        steps=500,
        task=PairTask(batch=16, patch=64, crops=4, signals=SOON_DOWN_TO_2_MM),
    ),
    "dncnn-dilated": Recipe(
        steps=1000,
        task=PairTask(batch=16, patch=160, crops=4, signals=DOWN_TO_2_MM),
    ),
    "unet": Recipe(
        steps=1500, task=PairTask(batch=8, patch=128, crops=2, signals=DOWN_TO_2_MM)
    ),
    "restormer-small": Recipe(
        steps=1250,
        learning_rate=3e-4,
        weight_decay=1e-4,
        task=PairTask(batch=16, patch=128, crops=4, signals=DOWN_TO_2_MM),
    ),
    "swinir-tiny": Recipe(
        steps=1250,
        learning_rate=3e-4,
        task=PairTask(batch=32, patch=64, crops=8, signals=DOWN_TO_2_MM),
    ),
    "diffusion": Recipe(
        steps=1500,
        task=GenerativeTask(batch=8, patch=128, crops=2, signals=DOWN_TO_2_MM),
    ),
    "bridge": Recipe(
        steps=1500,
        task=GenerativeTask(batch=8, patch=128, crops=2, signals=DOWN_TO_2_MM),
    ),
    "autoencoder": Recipe(
        steps=2500, channels_last=False, evaluate_every=250, task=SeriesTask()
    ),
    "stack": Recipe(
        steps=3000,
        learning_rate=2e-3,
        warm_up=0.02,
        weight_decay=1e-3,
        clip=10.0,
        average=0.995,
        evaluate_every=200,
        task=StackTask(),
    ),
}
"""By variant (`models.registry`): how the shipped weights are made."""
