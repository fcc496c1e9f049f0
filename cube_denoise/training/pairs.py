"""The task of pair networks: the noise of one normalised interferogram."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from cube_denoise import evaluate
from cube_denoise.conventions import VARIABLES
from cube_denoise.dataset import Batch, Signals, pair_batch
from cube_denoise.gaps import fill_gaps
from cube_denoise.model_card import CardText
from cube_denoise.normalise import Scaling, five_numbers, network_inputs, scaling
from cube_denoise.simulate.pair import simulate_pair
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.training.task import Setup


@dataclass(frozen=True, kw_only=True)
class PairTask:
    """Predict noise, (noisy - truth) / scale, from crops of pairs (`training.task`)."""

    batch: int
    """Patches per step."""
    patch: int
    """Pixels a side."""
    crops: int
    """Patches per simulated scene."""
    objective: ClassVar[str] = "mean square error of the noise over valid pixels"
    signals: Signals = field(default_factory=Signals)
    """Strength of the deformation."""

    def draw(self, setup: Setup, split: str, number: int) -> Batch:
        """See `Task.draw`; held-out batches have the signals of the end of training."""
        signals = self.signals
        if split != "train":
            signals = replace(signals, descent=0)
        return pair_batch(
            number,
            setup.config.inputs,
            setup.config.normalisation,
            split=split,
            seed=setup.seed,
            batch=self.batch,
            patch=self.patch,
            crops=self.crops,
            signals=signals,
            recipe=setup.recipe,
            noise=setup.noise.get(split),
        )

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        """See `Task.loss`: mean square over valid pixels, normalised units."""
        error = (model(batch.inputs).float() - batch.noise).square()
        return (error * batch.valid).sum() / batch.valid.sum()

    def calibrated(self, model: Any) -> Any:
        """See `Task.calibrated`: nothing to fit."""
        return model

    def scores(self, model: Any) -> dict[str, float]:
        """See `Task.scores`."""
        return held_out_scores(model)

    def card(self, model: Any) -> CardText:
        """See `Task.card`."""
        radius = model.receptive_radius
        view = (
            "a scene at a time, in tiles of 256 pixels"
            if radius is None
            else f"{2 * radius + 1} pixels wide"
        )
        return CardText(
            purpose="Estimates the atmospheric and decorrelation noise of one "
            "unwrapped interferogram.",
            inputs=f"input channels {', '.join(model.config.inputs)}; "
            f'"{model.config.normalisation}" scaling of the whole pair',
            samples="simulated pairs only (`cube_denoise.simulate.pair`), "
            f"{self.signals.pure_noise:.0%} of them without deformation",
            batch=f"{self.batch} patches of {self.patch} x {self.patch} pixels",
            objective=self.objective,
            judged="Medians over simulated pairs of seeds that training never draws, "
            "256 x 256 pixels, power of deformation over power of noise from 0.01 "
            "to 30",
            limits=(
                f"Sees one pair at a time, {view}, and was trained on patches of "
                f"{self.patch}: it cannot tell a long-wavelength atmosphere from "
                "long-wavelength deformation.",
                "Damps real deformation, in every pair alike, so that it adds up in a "
                "velocity: `python -m benchmarks.atmosphere` and `python -m "
                "benchmarks.mexico_city` print by how much. Compare with the raw "
                "pairs.",
                "Trained at 60-180 m pixel spacing and C-band amplitudes (displacement "
                "of millimetres to 30 cm).",
                f"Output: {VARIABLES['corrected_phase'].long_name}.",
            ),
        )


def denoise(model: Any, displacement: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Apply a network to one whole displacement map (m, NaN = no data), in memory.

    `elevation` is in m relative to its median. For cubes use `correct.correct`.
    """
    inputs, scale = given(model, displacement, elevation)
    with torch.inference_mode():
        noise = model(inputs)[0, 0].numpy()
    return np.asarray(displacement - scale.scale * noise)


def given(
    model: Any, displacement: np.ndarray, elevation: np.ndarray
) -> tuple[torch.Tensor, Scaling]:
    """What a network sees of a map, as for `denoise`, and the unit of its output."""
    scale = scaling(model.config.normalisation, five_numbers(displacement))
    channels = network_inputs(
        model.config.inputs,
        fill_gaps(displacement),
        scaling=scale,
        valid=np.isfinite(displacement),
        elevation=elevation,
    )
    return torch.from_numpy(channels[None]), scale


def held_out_scores(model: Any, *, count: int = 24) -> dict[str, float]:
    """Scores on simulated pairs of the test split, which training never draws.

    Parameters
    ----------
    model : torch.nn.Module
        Pair network in eval mode, on the CPU.
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
        pair = simulate_pair((256, 256), seed=split_seed("test", 0, k), deforming=True)
        estimate = denoise(model, pair.noisy, pair.elevation)
        raw = evaluate.rms_error(pair.noisy, pair.truth)
        corrected = evaluate.rms_error(estimate, pair.truth)
        slope = evaluate.amplitude_slope(estimate, pair.truth)
        rows.append((raw * 1e3, corrected * 1e3, 1 - corrected / raw, slope))
    quiet = []
    for k in range(count // 4):
        pair = simulate_pair((256, 256), seed=split_seed("test", 1, k), deforming=False)
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
