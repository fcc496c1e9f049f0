"""A training run, from random weights to a model folder."""

import dataclasses
import logging
import platform
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from cube_denoise import store
from cube_denoise.cluster import cores
from cube_denoise.device import CUDA, device_here
from cube_denoise.model_card import model_card
from cube_denoise.models import zoo
from cube_denoise.progress import progress
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.training.checkpoint import Checkpoint, CurvePoint, as_csv
from cube_denoise.training.learner import Learner
from cube_denoise.training.loader import batches
from cube_denoise.training.recipe import RECIPES, Recipe
from cube_denoise.training.task import Setup

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
"""Time between checkpoints."""
MOST_WORKERS = 8
"""Processes that draw samples for a GPU, unless told otherwise."""


def train(
    name: str,
    out: str | Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    recipe: str | None = None,
    noise: str | Path | None = None,
    noise_kind: str = "short-pairs",
) -> Path:
    """Train a network and write its model folder.

    The moving average of the weights is judged on fixed batches of the validation
    split. The best is stored as float16, and the scores are those of what is stored.

    A run that was interrupted goes on from its checkpoint, a hidden folder beside
    `out`: batch k and the random numbers of step k depend on the seed and k alone, so
    that the result is that of an undisturbed run (to the bit on a CPU with the same
    number of threads), whatever the number of workers.

    Parameters
    ----------
    name : str
        Network, as in `models.registry.VARIANTS`.
    out : str or pathlib.Path
        Model folder to write.
    seed : int
        Of the samples and of the first weights.
    steps : int, optional
        Instead of the recipe's number of steps.
    workers : int, optional
        Processes that draw samples, 0 for none but this one; 0 on a CPU and up to
        `MOST_WORKERS` beside a GPU when not given.
    threads : int, optional
        Of torch on the CPU.
    device : str
        "auto", "cpu" or "cuda".
    recipe : str, optional
        Of the training samples (`simulate.recipes`); the task's own when not given.
    noise : str or pathlib.Path, optional
        Cube whose noise takes the place of simulated noise: of its training dates, and
        of its validation dates for the held-out loss (`simulate.noise_bank`). Scenes
        are as large as it allows, up to their usual size. The scores stay those of
        simulated samples.
    noise_kind : {"short-pairs", "residual"}
        Which noise of that cube.

    Returns
    -------
    pathlib.Path
        The model folder.

    Raises
    ------
    ValueError
        If `name`, `recipe` or `device` is unknown, `steps` or `workers` is not
        positive, the cube holds too little noise, or the loss is no longer finite.
    """
    settings = _settings(name, steps)
    if device == "auto":
        device = device_here()
    _check_device(device)
    if workers is None:
        workers = min(MOST_WORKERS, cores() - 1) if device == CUDA else 0
    if workers < 0:
        raise ValueError(f"{workers=} must be 0 or more")
    if threads:
        torch.set_num_threads(threads)
    origin = {"recipe": recipe} if recipe else {}
    if noise is not None:
        origin |= {"noise": str(noise), "noise_kind": noise_kind}
    banks = {} if noise is None else _noise_banks(noise, noise_kind)
    identity = {"name": name, "seed": seed, **settings.record(), **origin}

    torch.manual_seed(seed)
    model = zoo.create_model(name)
    learner = Learner(model, settings, seed=seed, device=device)
    setup = Setup(model.config, seed, recipe, banks)
    run = _Run(learner, Checkpoint(Path(out), identity))
    run.resume(name)
    run.go(name, setup, workers)

    model = zoo.create_model(name)
    model.load_state_dict(run.best)
    model.half().float().eval()
    training: dict[str, Any] = identity | {
        "best_step": run.best_step,
        "held_out_loss": round(run.best_loss, 6),
        "minutes": round(run.seconds / 60, 1),
        "hardware": _hardware(learner),
        "torch": torch.__version__,
        "scores": settings.task.scores(model),
    }
    card = model_card(name, model, training, settings.task.card(model))
    folder = zoo.save_model(
        model, out, training=training, card=card, curves=as_csv(run.curve), half=True
    )
    run.checkpoint.remove()
    return folder


class _Run:
    """The loop, and what it has found so far."""

    def __init__(self, learner: Learner, checkpoint: Checkpoint) -> None:
        self.learner, self.checkpoint = learner, checkpoint
        self.curve: list[CurvePoint] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_loss, self.best_step = float("inf"), 0
        self.without_gain = 0
        self.seconds = 0.0
        self.losses: list[torch.Tensor] = []
        """Of the steps since the last evaluation."""

    def resume(self, name: str) -> None:
        """Go on where a run of the same settings was interrupted, if one was."""
        state = self.checkpoint.read()
        if state is None:
            return
        self.learner.restore(state["learner"])
        self.curve = [CurvePoint(*row) for row in state["curve"]]
        self.best, self.best_loss = state["best"], state["best_loss"]
        self.best_step, self.without_gain = state["best_step"], state["without_gain"]
        self.seconds = state["seconds"]
        self.losses = [loss.to(self.learner.device) for loss in state["losses"]]
        log.info("%s goes on at step %d", name, self.learner.done)

    def keep(self) -> None:
        """Write a checkpoint."""
        state = {
            "learner": self.learner.state(),
            "curve": [tuple(point) for point in self.curve],
            "best": self.best,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "without_gain": self.without_gain,
            "seconds": self.seconds,
            "losses": [loss.cpu() for loss in self.losses],
        }
        self.checkpoint.write(state, self.curve)

    def go(self, name: str, setup: Setup, workers: int) -> None:
        """Train to the end, or until the held-out loss no longer falls."""
        recipe, learner = self.learner.recipe, self.learner
        first = learner.done
        if self._over():
            return
        keys = [("validation", k) for k in range(recipe.evaluation_batches)]
        keys += [("train", k) for k in range(first, recipe.steps)]
        drawn = batches(
            recipe.task,
            setup,
            keys,
            workers=workers,
            pinned=learner.device == CUDA,
        )
        validation = list(islice(drawn, recipe.evaluation_batches))
        begin = kept = time.monotonic()
        begin -= self.seconds
        with progress(name, recipe.steps - first, unit="steps") as advance:
            for batch in drawn:
                self.losses.append(learner.step(recipe.task, batch))
                self.seconds = time.monotonic() - begin
                if learner.done % recipe.evaluate_every == 0 or self._over():
                    self._evaluate(name, validation)
                advance(1)
                over = self._over()
                if over or time.monotonic() - kept > CHECKPOINT_SECONDS:
                    self.keep()
                    kept = time.monotonic()
                if over:
                    break

    def _over(self) -> bool:
        recipe = self.learner.recipe
        patience = recipe.patience
        tired = patience is not None and self.without_gain >= patience
        return tired or self.learner.done >= recipe.steps

    def _evaluate(self, name: str, validation: list[Any]) -> None:
        learner = self.learner
        loss = learner.held_out_loss(learner.recipe.task, validation)
        training = float(torch.stack(self.losses).double().mean())
        self.losses = []
        if not (loss < float("inf") and training < float("inf")):
            raise ValueError(
                f"{name}: the loss is {training} before step {learner.done} and "
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
            name,
            learner.done,
            learner.recipe.steps,
            training,
            loss,
            self.best_loss,
            self.best_step,
        )


def _settings(name: str, steps: int | None) -> Recipe:
    zoo.variant_config(name)
    if name not in RECIPES:
        raise ValueError(f"{name=} has no recipe; those with one: {', '.join(RECIPES)}")
    if steps is None:
        return RECIPES[name]
    if steps < 1:
        raise ValueError(f"{steps=} must be at least 1")
    return dataclasses.replace(RECIPES[name], steps=steps)


def _check_device(device: str) -> None:
    if device not in ("cpu", CUDA):
        raise ValueError(f"{device=}: must be 'auto', 'cpu' or 'cuda'")
    if device == CUDA and device_here() != CUDA:
        raise ValueError(f"{device=}: this process sees no GPU")


def _noise_banks(cube: str | Path, kind: str) -> dict[str, NoiseBank]:
    """Noise of the training and of the validation dates.

    Without enough validation dates held-out batches keep their simulated noise.
    """
    opened = store.open_cube(cube)
    banks = {"train": NoiseBank.from_cube(opened, kind=kind)}
    try:
        banks["validation"] = NoiseBank.from_cube(opened, kind=kind, split="validation")
    except ValueError as error:
        log.warning("held-out batches have simulated noise: %s", error)
    fields = len(banks["train"].fields)
    log.info("noise: %d fields of %d x %d", fields, *banks["train"].shape)
    return banks


def _hardware(learner: Learner) -> str:
    precision = "bfloat16" if learner.mixed else "float32"
    if learner.device == CUDA:
        return f"{torch.cuda.get_device_name()}, {precision}"
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} of {cores()} cores, {precision}"
