"""A network under training: optimiser, schedule, averaged weights."""

import copy
import math
import platform
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from cube_denoise.cluster import cores
from cube_denoise.device import CUDA, keep_freed_memory, rougher
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.training.recipe import Recipe
from cube_denoise.training.task import Batch, Task


class Learner:
    """Takes steps on a network and keeps the moving average of its weights.

    Parameters
    ----------
    model : torch.nn.Module
        New network; it is moved to `device`.
    recipe : Recipe
        How it is trained.
    seed : int
        Of the random numbers of the loss: those of a step depend on it and on the
        step's number alone.
    device : {"cpu", "cuda"}
        Where to compute; in bfloat16 where it has that.
    """

    def __init__(self, model: Any, recipe: Recipe, *, seed: int, device: str) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        if device != CUDA:
            keep_freed_memory()
        self.format = (
            torch.channels_last if recipe.channels_last else torch.contiguous_format
        )
        self.mixed = recipe.mixed and "bfloat16" in rougher(device)
        self.model = model.to(device, memory_format=self.format).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
        )
        factor = partial(
            rate_factor, steps=recipe.steps, warm=round(recipe.warm_up * recipe.steps)
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.done = 0
        """Steps taken."""

    def step(self, task: Task, batch: Batch) -> torch.Tensor:
        """Take one step; returns the loss before it, detached."""
        loss = self._loss(task, self.model, batch, "train", self.done)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.schedule.step()
        self.done += 1
        self._move_average()
        return loss.detach()

    def held_out_loss(self, task: Task, batches: Sequence[Batch]) -> float:
        """Mean loss of the averaged weights on batches of the validation split."""
        with torch.inference_mode():
            losses = [
                float(self._loss(task, self.average, batch, "validation", k))
                for k, batch in enumerate(batches)
            ]
        return float(np.mean(losses))

    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def hardware(self) -> str:
        """Say where it computes, for model cards."""
        precision = "bfloat16" if self.mixed else "float32"
        if self.device == CUDA:
            return f"{torch.cuda.get_device_name()}, {precision}"
        threads = torch.get_num_threads()
        machine = platform.machine()
        return f"{machine} CPU, {threads} of {cores()} cores, {precision}"

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "done": self.done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, as if there had been no break."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.done = state["done"]

    def _loss(
        self, task: Task, model: Any, batch: Batch, split: str, number: int
    ) -> torch.Tensor:
        words = split_seed(split, self.seed, number).generate_state(1, np.uint64)
        torch.manual_seed(int(words[0]))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.mixed):
            return task.loss(model, self._here(batch))

    def _here(self, batch: Batch) -> Batch:
        if isinstance(batch, tuple):
            return type(batch)(*map(self._moved, batch))
        return {key: self._moved(value) for key, value in batch.items()}

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        layout = self.format if tensor.ndim == 4 else torch.preserve_format
        return tensor.to(self.device, non_blocking=True, memory_format=layout)

    @torch.no_grad()
    def _move_average(self) -> None:
        """Average weights and BatchNorm statistics; counters are those of the model.

        The average reaches back over a tenth of the steps taken at most: the first
        weights, which remove nothing, are soon forgotten.
        """
        decay = min(self.recipe.average, (1 + self.done) / (10 + self.done))
        now = self.model.state_dict()
        for key, mean in self.average.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(now[key], 1 - decay)
            else:
                mean.copy_(now[key])


def rate_factor(step: int, *, steps: int, warm: int) -> float:
    """Share of the peak learning rate: it rises evenly, then falls as a cosine.

    Parameters
    ----------
    step : int
        From 0.
    steps, warm : int
        Of the run, and of these how many to rise over.
    """
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))
