"""A training run, from random weights to a model folder."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch

from cube_denoise import store
from cube_denoise.cluster import cores
from cube_denoise.device import CUDA, device_here
from cube_denoise.model_card import model_card
from cube_denoise.models import zoo
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.training.checkpoint import Checkpoint, as_csv
from cube_denoise.training.fit import Fit
from cube_denoise.training.learner import Learner
from cube_denoise.training.recipe import RECIPES, Recipe
from cube_denoise.training.task import Setup

log = logging.getLogger(__name__)

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
    device = device_for(device)
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
    fit = Fit(name, learner, Checkpoint(Path(out), identity))
    fit.run(setup, workers=workers)

    model = zoo.create_model(name)
    model.load_state_dict(fit.best)
    model = settings.task.calibrated(model.half().float().eval())
    log.info("%s: scores on held-out samples", name)
    training: dict[str, Any] = identity | {
        "steps_taken": learner.done,
        "best_step": fit.best_step,
        "held_out_loss": round(fit.best_loss, 6),
        "minutes": round(fit.seconds / 60, 1),
        **fit.made_on(),
        "scores": settings.task.scores(model),
    }
    card = model_card(name, model, training, settings.task.card(model))
    folder = zoo.save_model(
        model, out, training=training, card=card, curves=as_csv(fit.curve), half=True
    )
    fit.checkpoint.remove()
    return folder


def _settings(name: str, steps: int | None) -> Recipe:
    zoo.variant_config(name)
    if name not in RECIPES:
        raise ValueError(f"{name=} has no recipe; those with one: {', '.join(RECIPES)}")
    if steps is None:
        return RECIPES[name]
    if steps < 1:
        raise ValueError(f"{steps=} must be at least 1")
    return dataclasses.replace(RECIPES[name], steps=steps)


def device_for(asked: str) -> str:
    """Device to train on, "auto" resolved.

    Raises
    ------
    ValueError
        If it is unknown or not here.
    """
    device = device_here() if asked == "auto" else asked
    if device not in ("cpu", CUDA):
        raise ValueError(f"{device=}: must be 'auto', 'cpu' or 'cuda'")
    if device == CUDA and device_here() != CUDA:
        raise ValueError(f"{device=}: this process sees no GPU")
    return device


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
