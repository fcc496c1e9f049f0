"""Train a network on the simulator; seeded, resumable, judged on held-out seeds."""

import logging
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cube_denoise import dataset, evaluate
from cube_denoise.conventions import VARIABLES
from cube_denoise.gaps import fill_gaps
from cube_denoise.models import zoo
from cube_denoise.models.dncnn import DnCNN
from cube_denoise.normalise import five_numbers, network_inputs, scaling
from cube_denoise.simulate.pair import simulate_pair

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run."""

    steps: int
    """Optimiser steps."""
    batch: int
    """Patches per step."""
    patch: int
    """Pixels a side."""
    crops: int
    """Patches per simulated scene."""
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule (Adam)."""


RECIPES = {
    "dncnn": Recipe(steps=1100, batch=32, patch=64, crops=4),
    "dncnn-dilated": Recipe(steps=1000, batch=6, patch=160, crops=2),
}
"""How the shipped weights are made."""

CHECKPOINT_EVERY = 50


def train(
    name: str,
    out: str | Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> Path:
    """Train an architecture and write its model folder.

    The loss is the mean square of predicted minus true noise over valid pixels, in
    normalised units. A checkpoint beside `out` is taken up again when the run was
    interrupted; batch k depends only on the seed and k, so the result is that of an
    undisturbed run.

    Parameters
    ----------
    name : str
        Architecture, as in `models.zoo.VARIANTS`.
    out : str or pathlib.Path
        Model folder to write.
    seed : int
        Of the samples and of the first weights.
    steps : int, optional
        Instead of the recipe's number of steps.
    threads : int, optional
        Of torch on the CPU.
    device : str
        "auto", "cpu" or "cuda".

    Returns
    -------
    pathlib.Path
        The model folder.

    Raises
    ------
    ValueError
        If `name` is unknown or `steps` is not positive.
    """
    torch.manual_seed(seed)
    model = zoo.create_model(name)
    recipe = RECIPES[name]
    if steps is not None:
        if steps < 1:
            raise ValueError(f"{steps=} must be at least 1")
        recipe = Recipe(**(asdict(recipe) | {"steps": steps}))
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
    )
    checkpoint = Path(out).with_name(f".{Path(out).name}-{seed}.checkpoint")
    identity = {"name": name, "seed": seed, **asdict(recipe)}
    done, elapsed = 0, 0.0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        if state["identity"] == identity:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            done, elapsed = state["step"], state["elapsed"]
            log.info("resume %s at step %d", name, done)
    batches = dataset.pair_batches(
        model.config.inputs,
        model.config.normalisation,
        split="train",
        seed=seed,
        batch=recipe.batch,
        patch=recipe.patch,
        crops=recipe.crops,
        start=done,
    )
    model.train()
    begin, losses = time.monotonic() - elapsed, []
    for step in range(done + 1, recipe.steps + 1):
        losses.append(_step(model, optimizer, next(batches), device))
        schedule.step()
        if step % CHECKPOINT_EVERY == 0 or step == recipe.steps:
            seconds = time.monotonic() - begin
            log.info(
                "%s step %d/%d loss %.4f, %.0f s, %.0f s left",
                name,
                step,
                recipe.steps,
                np.mean(losses[-CHECKPOINT_EVERY:]),
                seconds,
                seconds / step * (recipe.steps - step),
            )
            state = {
                "identity": identity,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "step": step,
                "elapsed": seconds,
            }
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    model.to("cpu").eval()
    minutes = (time.monotonic() - begin) / 60
    training: dict[str, Any] = identity | {
        "minutes": round(minutes, 1),
        "hardware": _hardware(device),
        "torch": torch.__version__,
        "scores": held_out_scores(model),
    }
    folder = zoo.save_model(model, out, training=training, card=_card(name, training))
    checkpoint.unlink(missing_ok=True)
    return folder


def _step(
    model: DnCNN, optimizer: torch.optim.Optimizer, batch: dataset.Batch, device: str
) -> float:
    inputs = batch.inputs.to(device, memory_format=torch.channels_last)
    noise, valid = batch.noise.to(device), batch.valid.to(device)
    with torch.autocast(device, torch.bfloat16):
        predicted = model(inputs)
    loss = ((predicted.float() - noise).square() * valid).sum() / valid.sum()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def denoise(
    model: DnCNN, displacement: np.ndarray, elevation: np.ndarray
) -> np.ndarray:
    """Apply a network to one whole displacement map (m, NaN = no data), in memory.

    `elevation` is in m relative to its median. For cubes use `correct.correct`.
    """
    scale = scaling(model.config.normalisation, five_numbers(displacement))
    channels = network_inputs(
        model.config.inputs,
        fill_gaps(displacement),
        scaling=scale,
        valid=np.isfinite(displacement),
        elevation=elevation,
    )
    with torch.inference_mode():
        noise = model(torch.from_numpy(channels[None]))[0, 0].numpy()
    return displacement - scale.scale * noise


def held_out_scores(model: DnCNN, *, count: int = 24) -> dict[str, float]:
    """Scores on simulated pairs of the test split, which training never draws.

    Parameters
    ----------
    model : DnCNN
        In eval mode.
    count : int
        Deforming pairs; a quarter as many without deformation are added.

    Returns
    -------
    dict
        Medians: rms error of raw and corrected pairs (mm), its relative reduction,
        amplitude slope, false-alarm level of raw and corrected pure noise (mm).
    """
    rows = []
    for k in range(count):
        pair = simulate_pair(
            (256, 256), seed=dataset.split_seed("test", 0, k), deforming=True
        )
        estimate = denoise(model, pair.noisy, pair.elevation)
        raw = evaluate.rms_error(pair.noisy, pair.truth)
        corrected = evaluate.rms_error(estimate, pair.truth)
        slope = evaluate.amplitude_slope(estimate, pair.truth)
        rows.append((raw * 1e3, corrected * 1e3, 1 - corrected / raw, slope))
    quiet = []
    for k in range(count // 4):
        pair = simulate_pair(
            (256, 256), seed=dataset.split_seed("test", 1, k), deforming=False
        )
        estimate = denoise(model, pair.noisy, pair.elevation)
        alarms = evaluate.false_alarm(pair.noisy), evaluate.false_alarm(estimate)
        quiet.append([1e3 * a for a in alarms])
    names = (
        "rms_error_raw_mm",
        "rms_error_corrected_mm",
        "rms_error_reduction",
        "amplitude_slope",
        "false_alarm_raw_mm",
        "false_alarm_corrected_mm",
    )
    values = (*np.median(rows, 0), *np.median(quiet, 0))
    return {n: round(float(v), 4) for n, v in zip(names, values, strict=True)}


def _hardware(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} of {os.cpu_count()} cores, bfloat16"


def _card(name: str, training: dict[str, Any]) -> str:
    """Model card in Markdown."""
    scores = "\n".join(
        f"| {key.replace('_', ' ')} | {value} |"
        for key, value in training["scores"].items()
    )
    model = zoo.create_model(name)
    patch, steps = training["patch"], f"--steps {training['steps']}"
    return f"""---
license: bsd-3-clause
library_name: cube_denoise
tags: [insar, interferometry, atmosphere, denoising]
---
# {name}

Estimates the atmospheric and decorrelation noise of one unwrapped interferogram.
DnCNN, {sum(p.numel() for p in model.parameters()):,} parameters, input channels
{", ".join(model.config.inputs)}; receptive radius {model.receptive_radius} pixels;
"{model.config.normalisation}" scaling of the whole pair.

## Training

    cube-denoise train {name} {name} --seed {training["seed"]} {steps}

Simulated pairs only (`cube_denoise.simulate.pair`), drawn on the fly:
{training["steps"]} steps of {training["batch"]} patches of {patch} x {patch} pixels,
Adam with one cycle to {training["learning_rate"]}, mean square error of the noise over
valid pixels. Seed {training["seed"]}; {training["minutes"]} minutes on
{training["hardware"]}; torch {training["torch"]}.
The parameter ranges are this project's, not those of a paper. No real data was used.

## Held-out scores

Medians over simulated pairs of seeds that training never draws, 256 x 256 pixels,
power of deformation over power of noise from 0.01 to 30:

| score | value |
| --- | --- |
{scores}

## Limits

- Sees one pair at a time, {2 * (model.receptive_radius or 0) + 1} pixels wide, and was
  trained on patches of {patch}: it cannot tell a long-wavelength atmosphere from
  long-wavelength deformation.
- Damps real deformation, in every pair alike, so that it adds up in a velocity:
  `python -m benchmarks.atmosphere` and `python -m benchmarks.mexico_city` print by how
  much. Compare with the raw pairs.
- Trained at 60-180 m pixel spacing and C-band amplitudes (displacement of millimetres
  to 30 cm).
- Output: {VARIABLES["corrected_phase"].long_name}.
"""
