"""A second task beside that of pairs, and the tiny network that tests train.

Its batch is a dict, and its loss draws levels and noise at random, as that of a
diffusion model does. Processes that draw samples, or are to be killed, import this.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cube_denoise.model_card import CardText
from cube_denoise.models import registry
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.training import fit, recipe, run
from cube_denoise.training.pairs import PairTask

TINY = registry.Variant(
    "DnCNN", {"depth": 4, "channels": 8, "inputs": ("displacement", "log_scale")}
)


@dataclass(frozen=True)
class ToyTask:
    """Find the noise added to straight slopes."""

    batch: int = 4
    side: int = 16

    def draw(self, setup, split, number):
        rng = np.random.default_rng(split_seed(split, setup.seed, number))
        slopes = rng.normal(size=(self.batch, 1, 1, 1)).astype("float32")
        along = np.linspace(-1, 1, self.side, dtype="float32")
        clean = np.broadcast_to(slopes * along, (self.batch, 1, self.side, self.side))
        return {"clean": torch.from_numpy(clean.copy())}

    def loss(self, model, batch):
        clean = batch["clean"]
        level = torch.rand(len(clean), 1, 1, 1, device=clean.device)
        noise = level * torch.randn_like(clean)
        inputs = torch.cat([clean + noise, level.expand_as(clean)], 1)
        return (model(inputs).float() - noise).square().mean()

    def calibrated(self, model):
        return model

    def scores(self, model):
        return {"last_bias": model.layers[-1].bias.item()}

    def card(self, model):
        return CardText(
            purpose="Straightens slopes.",
            inputs="a slope and a level",
            samples="slopes",
            batch=f"{self.batch} slopes",
            objective="mean square",
            judged="The last bias",
            limits=("Knows slopes alone.",),
        )


RECIPES = {
    "tiny": recipe.Recipe(
        task=PairTask(batch=2, patch=32, crops=2),
        steps=6,
        learning_rate=3e-3,
        evaluate_every=4,
        evaluation_batches=2,
    ),
    "toy": recipe.Recipe(
        task=ToyTask(),
        steps=30,
        learning_rate=3e-3,
        average=0.8,
        evaluate_every=4,
        evaluation_batches=2,
    ),
}


def main(out: str, seconds: str) -> None:
    """Train as in a process of its own; a checkpoint after every step."""
    torch.set_num_threads(1)
    registry.VARIANTS["toy"] = TINY
    draw = ToyTask.draw

    def slowly(*arguments):
        time.sleep(float(seconds))
        return draw(*arguments)

    ToyTask.draw = slowly  # type: ignore[method-assign]
    recipe.RECIPES["toy"] = RECIPES["toy"]
    fit.CHECKPOINT_SECONDS = 0.0
    run.train("toy", Path(out), device="cpu")


if __name__ == "__main__":
    main(*sys.argv[1:])
