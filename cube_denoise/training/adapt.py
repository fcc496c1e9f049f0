"""Adapt a stack network to a user's own stack, and judge whether that helped."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cube_denoise import evaluate, store
from cube_denoise.model_card import adapted_card
from cube_denoise.models import zoo
from cube_denoise.models.stack import StackNetwork
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.stack_samples import StackBatch, StackSampling, stack_batch
from cube_denoise.training.checkpoint import Checkpoint, as_csv
from cube_denoise.training.fit import Fit
from cube_denoise.training.learner import Learner
from cube_denoise.training.recipe import Recipe
from cube_denoise.training.run import device_for, hardware
from cube_denoise.training.stacks import StackTask, centred
from cube_denoise.training.task import Setup
from cube_denoise.training.transplant import transplanted

log = logging.getLogger(__name__)

STEPS = 200
BANK = 16
"""Different stacks whose deformation is drawn from."""
SPLITS = ("train", "validation", "test")
FEWEST = 4
"""Dates that each split must have."""
SIDES = (128, 96, 64, 32)
"""Pixels a side that samples may have."""
RATIOS = (0.1, 0.3, 1.0, 3.0)
"""Of the powers of deformation and noise, that a network is judged by."""
CLEAR = 1.0
"""Ratio from which on the amplitude must be kept."""
GAIN = 0.98
"""The error must fall to this part of what it was, at least."""
SLOPES = (0.9, 1.1)
"""Slopes of the estimate on the truth that are good enough."""
ALARMS = 1.1
"""False alarms may rise to this multiple of what they were, at most."""


class Judged(NamedTuple):
    """What a network makes of deformation under the noise of held-out dates."""

    error: float
    """Rms error over that of the noise; geometric mean over stacks and `RATIOS`."""
    slope: float
    """Of estimate on truth where the truth deforms; median at `CLEAR` and above."""
    false_alarm_mm: float
    """99th percentile of the estimate where nothing moves; median."""
    coverage_68: float
    """Share of the errors within the standard deviation; mean."""


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
    seed: int = 0,
    threads: int | None = None,
    device: str = "auto",
) -> Adaptation:
    """Train a stack network on with the noise of a cube, and keep it if that helps.

    Noise transplant: what the cube holds on each date beside steady motion
    (`simulate.residual_fields`) is permuted in time, turned and changed in sign, and
    simulated deformation is put under it. The first 60 % of the dates are trained on,
    the next 20 % say when to stop, and the last 20 % whether the new weights are
    accepted: with the same deformation under their noise, the error must fall, and
    neither amplitudes nor false alarms may become worse (`verdict`). A run that was
    interrupted goes on where it was. The noise is held in memory, 4 bytes for each
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
    if threads:
        torch.set_num_threads(threads)
    device = device_for(device)
    banks = noise_banks(cube)
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
    fit.run(Setup(first.config, seed, None, banks), workers=0)
    made = zoo.load_model(model)
    made.load_state_dict(fit.best)
    made.half().float().eval()
    before, after = (
        judge(network, banks["test"], seed=seed) for network in (first, made)
    )
    reasons = verdict(before, after)
    if reasons:
        fit.checkpoint.remove()
        return Adaptation(before, after, reasons, None)
    training: dict[str, Any] = identity | {
        "steps_taken": learner.done,
        "best_step": fit.best_step,
        "held_out_loss": round(fit.best_loss, 6),
        "minutes": round(fit.seconds / 60, 1),
        "hardware": hardware(learner),
        "torch": torch.__version__,
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


def recipe(banks: dict[str, NoiseBank], steps: int) -> Recipe:
    """How a network is adapted to noise of these dates and this size."""
    smallest = min(banks["train"].shape)
    sides = tuple(n for n in SIDES if n <= smallest)[:2] or (smallest,)
    dates = len(banks["train"].fields)
    sampling = StackSampling(
        sides=sides, dates=(min(8, dates), min(48, dates)), bank=BANK
    )
    return Recipe(
        task=StackTask(sampling=sampling),
        steps=steps,
        learning_rate=3e-4,
        clip=10.0,
        average=0.99,
        evaluate_every=25,
        evaluation_batches=6,
        patience=4,
    )


def judge(model: Any, bank: NoiseBank, *, seed: int = 0, count: int = 6) -> Judged:
    """Judge a network by simulated deformation under the noise of a bank.

    Parameters
    ----------
    model : torch.nn.Module
        Stack network in eval mode, on the CPU.
    bank : NoiseBank
        Of dates that it was not trained on.
    seed : int
        Of deformation and draws; the same for networks that are compared.
    count : int
        Batches for each ratio.

    Returns
    -------
    Judged
    """
    errors, slopes, alarms, held = [], [], [], []
    for ratio in (0.0, *RATIOS):
        for truth, noisy, seen, std in _probes(model, bank, ratio, seed, count):
            if not ratio:
                alarms.append(1e3 * evaluate.false_alarm(seen))
                continue
            errors.append(
                evaluate.rms_error(seen, truth) / evaluate.rms_error(noisy, truth)
            )
            if ratio >= CLEAR:
                slopes.append(evaluate.amplitude_slope(seen, truth))
            missed = np.abs(seen - truth)
            held.append((missed < std)[np.isfinite(missed)].mean())
    return Judged(
        round(float(np.exp(np.mean(np.log(errors)))), 4),
        round(float(np.median(slopes)), 4),
        round(float(np.median(alarms)), 4),
        round(float(np.mean(held)), 4),
    )


def verdict(before: Judged, after: Judged) -> tuple[str, ...]:
    """Reasons to refuse new weights; none if there are none."""
    reasons = []
    if not after.error <= GAIN * before.error:
        reasons.append(
            f"the error on held-out dates is {after.error:.3f} of the noise, before it "
            f"was {before.error:.3f}"
        )
    away = max(SLOPES[0] - after.slope, after.slope - SLOPES[1])
    if away > 0 and abs(after.slope - 1) > abs(before.slope - 1):
        reasons.append(
            f"of clear deformation {after.slope:.2f} is kept, before it was "
            f"{before.slope:.2f}"
        )
    if after.false_alarm_mm > ALARMS * before.false_alarm_mm:
        reasons.append(
            f"where nothing moves it sees {after.false_alarm_mm:.2f} mm, before it was "
            f"{before.false_alarm_mm:.2f} mm"
        )
    return tuple(reasons)


def _probes(
    model: Any, bank: NoiseBank, ratio: float, seed: int, count: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Truth, series, estimate and standard deviation of stacks, centred, m."""
    side = next((n for n in SIDES if n <= min(bank.shape)), min(bank.shape))
    dates = min(24, len(bank.fields))
    sampling = StackSampling(
        sides=(side,),
        dates=(dates, dates),
        volume=side * side * dates,
        bank=BANK,
        at_rest=0.0,
        hiding=0.0,
    )
    for number in range(count):
        batch = stack_batch(number, sampling, split="test", seed=seed)
        rng = np.random.default_rng(split_seed("test", seed, number, len(SPLITS)))
        batch = transplanted(batch, bank, rng, ratio=ratio)
        yield from _seen(model, batch)


def _seen(model: Any, batch: StackBatch) -> Iterator[tuple[np.ndarray, ...]]:
    with torch.inference_mode():
        estimate, std = model(*batch[:5])
    for k in range(len(batch.series)):
        there = batch.visible[k].numpy()
        truth, series, seen = (
            centred(np.where(there, a[k].float().numpy(), np.nan))
            for a in (batch.displacement, batch.series, estimate)
        )
        yield truth, series, seen, std[k].float().numpy()
