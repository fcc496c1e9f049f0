"""Train a network on the simulator; seeded, resumable, judged on held-out seeds."""

import logging
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cube_denoise import dataset, evaluate, store
from cube_denoise.cluster import cores
from cube_denoise.gaps import fill_gaps
from cube_denoise.model_card import model_card
from cube_denoise.models import zoo
from cube_denoise.models.dncnn import DnCNN
from cube_denoise.normalise import five_numbers, network_inputs, scaling
from cube_denoise.simulate import noise_bank, recipes
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
    recipe: str | None = None,
    noise: str | Path | None = None,
    noise_kind: str = "short-pairs",
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
    recipe : str, optional
        Of the training samples (`simulate.recipes`); those of `simulate_pair` when not
        given.
    noise : str or pathlib.Path, optional
        Cube whose noise takes the place of simulated noise in training: of its training
        dates alone (`simulate.noise_bank`). Scenes are as large as it allows, up to
        their usual size. The held-out scores stay those of `simulate_pair`.
    noise_kind : {"short-pairs", "residual"}
        Which noise of that cube.

    Returns
    -------
    pathlib.Path
        The model folder.

    Raises
    ------
    ValueError
        If `name` or `recipe` is unknown, `steps` is not positive, or the cube holds too
        little noise.
    """
    torch.manual_seed(seed)
    model = zoo.create_model(name)
    settings = RECIPES[name]
    if steps is not None:
        if steps < 1:
            raise ValueError(f"{steps=} must be at least 1")
        settings = Recipe(**(asdict(settings) | {"steps": steps}))
    samples, origin = _samples(recipe, noise, noise_kind)
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    checkpoint = Path(out).with_name(f".{Path(out).name}-{seed}.checkpoint")
    identity = {"name": name, "seed": seed, **asdict(settings), **origin}
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
        batch=settings.batch,
        patch=settings.patch,
        crops=settings.crops,
        start=done,
        **samples,
    )
    model.train()
    begin, losses = time.monotonic() - elapsed, []
    for step in range(done + 1, settings.steps + 1):
        losses.append(_step(model, optimizer, next(batches), device))
        schedule.step()
        if step % CHECKPOINT_EVERY == 0 or step == settings.steps:
            seconds = time.monotonic() - begin
            log.info(
                "%s step %d/%d loss %.4f, %.0f s, %.0f s left",
                name,
                step,
                settings.steps,
                np.mean(losses[-CHECKPOINT_EVERY:]),
                seconds,
                seconds / step * (settings.steps - step),
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
    folder = zoo.save_model(
        model, out, training=training, card=model_card(name, training)
    )
    checkpoint.unlink(missing_ok=True)
    return folder


def _samples(
    recipe: str | None, noise: str | Path | None, kind: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Options of `dataset.pair_batches`, and what the model folder says of them."""
    options: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if recipe is not None:
        options["recipe"] = origin["recipe"] = recipe
    if noise is not None:
        bank = noise_bank.NoiseBank.from_cube(store.open_cube(noise), kind=kind)
        usual = recipes.find_recipe(recipe).shape if recipe else (256, 256)
        options |= {"noise": bank, "scene": min(*usual, *bank.shape)}
        origin |= {"noise": str(noise), "noise_kind": kind}
        log.info("noise: %d fields of %d x %d", len(bank.fields), *bank.shape)
    return options, origin


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
    return f"{platform.machine()} CPU, {threads} of {cores()} cores, bfloat16"
