"""The training loop: steps, evaluations, checkpoints, the best weights."""

import logging
import time
from itertools import islice

import torch

from cube_denoise.device import CUDA
from cube_denoise.progress import progress
from cube_denoise.training.checkpoint import Checkpoint, CurvePoint
from cube_denoise.training.learner import Learner
from cube_denoise.training.loader import batches
from cube_denoise.training.task import Batch, Setup

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
"""Time between checkpoints."""


class Fit:
    """Steps of a learner to the end of its recipe, and what they have found so far.

    Parameters
    ----------
    name : str
        For the log.
    learner : Learner
        Of a network with the weights to start from.
    checkpoint : Checkpoint
        Where an interrupted fit goes on.
    """

    def __init__(self, name: str, learner: Learner, checkpoint: Checkpoint) -> None:
        self.name, self.learner, self.checkpoint = name, learner, checkpoint
        self.curve: list[CurvePoint] = []
        """One point for each evaluation."""
        self.best: dict[str, torch.Tensor] = {}
        """Averaged weights with the lowest held-out loss, on the CPU."""
        self.best_loss, self.best_step = float("inf"), 0
        self.without_gain = 0
        self.seconds = 0.0
        self.losses: list[torch.Tensor] = []
        """Of the steps since the last evaluation."""
        self.places: list[tuple[str, str]] = []
        """Hardware and release of torch of every part of the run."""

    def run(self, setup: Setup, *, workers: int) -> None:
        """Train to the end, or until the held-out loss no longer falls.

        Goes on where a fit of the same identity was interrupted.

        Parameters
        ----------
        setup : Setup
            What the samples are drawn for.
        workers : int
            Processes that draw them; 0 for none but this one.

        Raises
        ------
        ValueError
            If the loss is no longer finite.
        """
        self._resume()
        recipe, learner = self.learner.recipe, self.learner
        first = learner.done
        if self._over():
            return
        place = learner.hardware(), str(torch.__version__)
        if place not in self.places:
            self.places.append(place)
        keys = [("validation", k) for k in range(recipe.evaluation_batches)]
        keys += [("train", k) for k in range(first, recipe.steps)]
        drawn = batches(
            recipe.task, setup, keys, workers=workers, pinned=learner.device == CUDA
        )
        validation = list(islice(drawn, recipe.evaluation_batches))
        begin = kept = time.monotonic()
        begin -= self.seconds
        with progress(self.name, recipe.steps - first, unit="steps") as advance:
            for batch in drawn:
                self.losses.append(learner.step(recipe.task, batch))
                self.seconds = time.monotonic() - begin
                if learner.done % recipe.evaluate_every == 0 or self._over():
                    self._evaluate(validation)
                advance(1)
                over = self._over()
                if over or time.monotonic() - kept > CHECKPOINT_SECONDS:
                    self._keep()
                    kept = time.monotonic()
                if over:
                    break

    def made_on(self) -> dict[str, str]:
        """Where the steps were taken: "hardware" and "torch", for model cards."""
        hardware, releases = (
            " and ".join(dict.fromkeys(names))
            for names in zip(*self.places, strict=True)
        )
        return {"hardware": hardware, "torch": releases}

    def _resume(self) -> None:
        state = self.checkpoint.read()
        if state is None:
            return
        self.learner.restore(state["learner"])
        self.curve = [CurvePoint(*row) for row in state["curve"]]
        self.best, self.best_loss = state["best"], state["best_loss"]
        self.best_step, self.without_gain = state["best_step"], state["without_gain"]
        self.seconds = state["seconds"]
        self.places = [(where, release) for where, release in state["places"]]
        self.losses = [loss.to(self.learner.device) for loss in state["losses"]]
        log.info("%s goes on at step %d", self.name, self.learner.done)

    def _keep(self) -> None:
        state = {
            "learner": self.learner.state(),
            "curve": [tuple(point) for point in self.curve],
            "best": self.best,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "without_gain": self.without_gain,
            "seconds": self.seconds,
            "places": self.places,
            "losses": [loss.cpu() for loss in self.losses],
        }
        self.checkpoint.write(state, self.curve)

    def _over(self) -> bool:
        recipe = self.learner.recipe
        patience = recipe.patience
        tired = patience is not None and self.without_gain >= patience
        return tired or self.learner.done >= recipe.steps

    def _evaluate(self, validation: list[Batch]) -> None:
        learner = self.learner
        loss = learner.held_out_loss(learner.recipe.task, validation)
        training = float(torch.stack(self.losses).double().mean())
        self.losses = []
        if not (loss < float("inf") and training < float("inf")):
            raise ValueError(
                f"{self.name}: the loss is {training} before step {learner.done} and "
                f"{loss} held out: its recipe's learning rate is too high"
            )
        self.curve.append(
            CurvePoint(
                learner.done, self.seconds, learner.learning_rate(), training, loss
            )
        )
        self.without_gain += 1
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, learner.done
            self.best = {
                key: value.cpu().clone()
                for key, value in learner.average.state_dict().items()
            }
            self.without_gain = 0
        log.info(
            "%s step %d of %d: loss %.4f, held out %.4f, best %.4f at step %d",
            self.name,
            learner.done,
            learner.recipe.steps,
            training,
            loss,
            self.best_loss,
            self.best_step,
        )
