"""Adapt a stack network to a user's own stack, and judge whether that helped."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from cube_denoise import store
from cube_denoise.model_card import adapted_card
from cube_denoise.models import zoo
from cube_denoise.models.stack import StackNetwork
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.stack_samples import StackSampling
from cube_denoise.training import noise2noise
from cube_denoise.training.checkpoint import Checkpoint, as_csv
from cube_denoise.training.fit import Fit
from cube_denoise.training.gate import BANK, SIDES, Judged, judge, verdict
from cube_denoise.training.learner import Learner
from cube_denoise.training.noise2noise import Noise2Noise, train_between
from cube_denoise.training.recipe import Recipe
from cube_denoise.training.run import device_for
from cube_denoise.training.stacks import StackTask
from cube_denoise.training.task import Setup

log = logging.getLogger(__name__)

STEPS = 300
SPLITS = ("train", "validation", "test")
FEWEST = 4
"""Dates that each split must have."""
WORTH = 1e-3
"""Share of the misfit of held-out dates that training between dates must take off."""
LONG = 12
"""Dates that each split must have for a stage between dates."""
NOT_WORSE = 1.01
"""To this multiple the error may rise in that stage."""
BATCH_DATES = 16
"""Dates of a batch of the largest maps; of smaller maps more."""


@dataclass(frozen=True)
class Adaptation:
    """What came of adapting."""

    before: Judged
    after: Judged
    reasons: tuple[str, ...]
    """Why the new weights are refused; none if they are accepted."""
    folder: Path | None
    """Model folder; None if refused."""


def adapt(
    cube: str | Path,
    out: str | Path,
    *,
    model: str | Path = "stack",
    steps: int = STEPS,
    between: bool | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str = "auto",
) -> Adaptation:
    """Train a stack network on with the noise of a cube, and keep it if that helps.

    Noise transplant: what the cube holds on each date beside steady motion
    (`simulate.residual_fields`) is permuted in time, turned and changed in sign,
    given seasons where it follows elevation (`transplant.seasons`), and simulated
    deformation is put under it. The first 60 % of the dates are trained on,
    the next 20 % say when to stop, and the last 20 % whether the new weights are
    accepted: with the same deformation under their noise, the error must fall, and
    neither amplitudes nor false alarms may become worse (`gate.verdict`). A run that
    was interrupted goes on where it was. The noise is held in memory, 4 bytes for each
    pixel and date.

    Parameters
    ----------
    cube : str or pathlib.Path
        The cube.
    out : str or pathlib.Path
        Model folder to write, if the weights are accepted.
    model : str or pathlib.Path
        Stack network to begin with: a shipped one or a model folder.
    steps : int
        Most optimiser steps.
    between : bool, optional
        After the transplant, a short stage of Noise2Noise between interleaved dates of
        the cube itself (`noise2noise`). It is kept if it predicts held-out dates
        better, and is not worse in anything else. It takes about 60 dates, and is left
        out of shorter stacks if not given.
    seed : int
        Of the samples.
    threads : int, optional
        Of torch on the CPU.
    device : str
        "auto", "cpu" or "cuda".

    Returns
    -------
    Adaptation

    Raises
    ------
    ValueError
        If `model` is not a stack network, or the cube has too few dates.
    """
    first = zoo.load_model(model)
    if not isinstance(first, StackNetwork):
        raise ValueError(
            f"model={str(model)!r} is a {type(first).__name__}: only a StackNetwork "
            "can be adapted"
        )
    if steps < 1:
        raise ValueError(f"{steps=} must be at least 1")
    banks = noise_banks(cube)
    shortest = min(len(bank.fields) for bank in banks.values())
    if between is None:
        between = shortest >= LONG
    if between and shortest < LONG:
        raise ValueError(
            f"between=True: cube={str(cube)!r} has {shortest} dates to judge by, "
            f"{LONG} are needed, which takes about {5 * LONG} dates"
        )
    if threads:
        torch.set_num_threads(threads)
    device = device_for(device)
    settings = recipe(banks, steps)
    identity = {
        "adapted": str(model),
        "model_sha256": zoo.model_hash(model),
        "cube": str(cube),
        "seed": seed,
        **settings.record(),
    }
    learner = Learner(zoo.load_model(model), settings, seed=seed, device=device)
    fit = Fit(f"adapt {Path(model).name}", learner, Checkpoint(Path(out), identity))
    setup = Setup(first.config, seed, None, banks)
    fit.run(setup, workers=0)
    made = zoo.load_model(model)
    made.load_state_dict(fit.best)
    made.half().float().eval()
    before, after = (
        judge(network, banks["test"], seed=seed) for network in (first, made)
    )
    kept = None
    if between:
        made, after, kept = _between(cube, made, after, learner, setup)
    reasons = verdict(before, after)
    if reasons:
        fit.checkpoint.remove()
        return Adaptation(before, after, reasons, None)
    training: dict[str, Any] = identity | {
        "steps_taken": learner.done,
        "best_step": fit.best_step,
        "held_out_loss": round(fit.best_loss, 6),
        "between": kept,
        "minutes": round(fit.seconds / 60, 1),
        **fit.made_on(),
        "before": before._asdict(),
        "scores": after._asdict(),
    }
    folder = zoo.save_model(
        made,
        out,
        training=training,
        card=adapted_card(Path(out).name, made, training),
        curves=as_csv(fit.curve),
        half=True,
    )
    fit.checkpoint.remove()
    return Adaptation(before, after, (), folder)


def _between(
    cube: str | Path, model: Any, was: Judged, first: Learner, setup: Setup
) -> tuple[Any, Judged, bool]:
    """Train on between dates; the better network, its scores, and which it is."""
    opened, settings = store.open_cube(cube), first.recipe
    own, held = (
        Noise2Noise.from_cube(opened, setup.noise[split]) for split in ("train", "test")
    )
    made = copy.deepcopy(model)
    settings = replace(
        settings, steps=noise2noise.STEPS, learning_rate=noise2noise.LEARNING_RATE
    )
    learner = Learner(made, settings, seed=first.seed, device=first.device)
    train_between(learner, cast("StackTask", settings.task), setup, own)
    made = learner.average.cpu().half().float().eval()
    now = judge(made, setup.noise["test"], seed=setup.seed)
    errors = [held.blind_error(network) for network in (model, made)]
    reasons = verdict(was, now, gain=NOT_WORSE)
    if errors[1] < errors[0] * (1 - WORTH) and not reasons:
        return made, now, True
    log.info(
        "training between dates is not kept: misfit of held-out dates %.4f, before it "
        "was %.4f; %s",
        *reversed(errors),
        "; ".join(reasons) or "else as good",
    )
    return model, was, False


def noise_banks(cube: str | Path) -> dict[str, NoiseBank]:
    """Noise of a cube by split of its dates.

    Raises
    ------
    ValueError
        If a split has fewer than `FEWEST` dates.
    """
    opened = store.open_cube(cube)
    banks = {}
    for split in SPLITS:
        try:
            bank = NoiseBank.from_cube(opened, kind="residual", split=split)
        except ValueError as error:
            raise ValueError(
                f"cube={str(cube)!r} cannot be adapted to, which takes about 20 dates: "
                f"{split}: {error}"
            ) from None
        if len(bank.fields) < FEWEST:
            raise ValueError(
                f"cube={str(cube)!r} cannot be adapted to, which takes about 20 dates: "
                f"{split}: {len(bank.fields)} dates hold noise, {FEWEST} are needed"
            )
        banks[split] = bank
    return banks


def recipe(banks: Mapping[str, NoiseBank], steps: int) -> Recipe:
    """How a network is adapted to noise of these dates and this size."""
    smallest = min(banks["train"].shape)
    sides = tuple(n for n in SIDES if n <= smallest)[:2] or (smallest,)
    dates = len(banks["train"].fields)
    sampling = StackSampling(
        sides=sides,
        dates=(min(8, dates), min(48, dates)),
        volume=BATCH_DATES * sides[0] ** 2,
        bank=BANK,
    )
    return Recipe(
        task=StackTask(sampling=sampling),
        steps=steps,
        learning_rate=1e-3,
        clip=10.0,
        average=0.99,
        evaluate_every=25,
        evaluation_batches=6,
    )
