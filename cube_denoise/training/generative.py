"""The task of diffusion and of the bridge: pairs, with the network's own loss."""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from cube_denoise.model_card import CardText
from cube_denoise.models.stack_loss import SHARE
from cube_denoise.simulate.pair import SimulatedPair, simulate_pair
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.training.pairs import PairTask, given

PAIRS, SIDE = 150, 256
"""Pairs that the standard deviation is fitted to, and as many that judge it; pixels a
side: of a tile, as cubes are seen. Smaller maps ask for a larger factor."""
QUIET = 5
"""One in so many is without deformation, as in `pairs.held_out_scores`."""
STATED = 5
"""Tells the random numbers of these pairs from others."""
SOME = 2000
"""Pixels of each pair that the factor is fitted to."""


@dataclass(frozen=True, kw_only=True)
class GenerativeTask(PairTask):
    """Samples and scores of `PairTask`; the network draws times and noise itself."""

    objective: ClassVar[str] = "the network's own loss, at random times of its process"

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        """See `Task.loss`."""
        loss: torch.Tensor = model.loss(batch.inputs, batch.noise, batch.valid)
        return loss

    def calibrated(self, model: Any) -> Any:
        """See `Task.calibrated`: its standard deviation, if it states one."""
        return calibrated(model) if _states(model) else model

    def scores(self, model: Any) -> dict[str, float]:
        """See `Task.scores`; with `coverage`, if it states a standard deviation."""
        return super().scores(model) | (coverage(model) if _states(model) else {})

    def card(self, model: Any) -> CardText:
        """See `Task.card`."""
        text = super().card(model)
        if not _states(model):
            return text
        c = model.config
        return text._replace(
            judged=f"{text.judged}; coverage 68: part of the errors, each map less its "
            f"mean, within the standard deviation, mean over {PAIRS} pairs of {SIDE} x "
            f"{SIDE} pixels, of which one in {QUIET} is at rest",
            limits=(
                *text.limits,
                f"Its standard deviation (`pair_std`) is the spread of its {c.members} "
                f"samples times `std_factor` of the configuration, {c.std_factor}, "
                "fitted to simulated pairs of the validation split so that it holds "
                "68 % of the errors of all of them together. It does not of each: the "
                "spread hardly tells a pair with small errors from one with large. The "
                "scores tell what it holds by power of deformation over power of noise "
                f"(snr). On maps of fewer than {SIDE} pixels a side it is too small.",
            ),
        )


def calibrated(model: Any, *, count: int = PAIRS) -> Any:
    """Network whose standard deviation holds 68 % of the errors of all pairs together.

    One factor for the spread of its samples, by simulated pairs of the validation
    split, which neither training nor the scores draw.

    Parameters
    ----------
    model : torch.nn.Module
        A `models.diffusion.Ensemble` in eval mode, on the CPU; not changed.
    count : int
        Pairs.

    Returns
    -------
    torch.nn.Module
        The same with another ``config.std_factor``.

    Raises
    ------
    ValueError
        If the network draws one sample alone.
    """
    plain = _with_factor(model, 1.0)
    misses = []
    for k in range(count):
        missed = missed_by(plain, held_out_pair("validation", k))
        misses.append(np.random.default_rng(k).choice(missed, SOME))
    return _with_factor(model, round(float(np.quantile(misses, SHARE)), 3))


def coverage(model: Any, *, count: int = PAIRS) -> dict[str, float]:
    """Part of the errors within the standard deviation, on pairs of the test split.

    Parameters
    ----------
    model : torch.nn.Module
        A `models.diffusion.Ensemble` in eval mode, on the CPU.
    count : int
        Pairs.

    Returns
    -------
    dict
        Mean over pairs: of all, of those at rest, and by decade of the power of
        deformation over that of noise; without those of which there are none.

    Raises
    ------
    ValueError
        If the network draws one sample alone.
    """
    decades = ("_snr_below_0.1", "_snr_0.1_to_1", "_snr_1_to_10", "_snr_above_10")
    held: dict[str, list[float]] = {k: [] for k in ("", "_at_rest", *decades)}
    for k in range(count):
        pair = held_out_pair("test", k)
        decade = decades[int(np.digitize(pair.snr, (0.1, 1, 10)))]
        inside = float((missed_by(model, pair) < 1).mean())
        for name in ("", decade if pair.snr else "_at_rest"):
            held[name].append(inside)
    return {
        f"coverage_68{k}": round(float(np.mean(v)), 4) for k, v in held.items() if v
    }


def held_out_pair(split: str, number: int) -> SimulatedPair:
    """Draw a pair that training does not; powers as `simulate_pair` draws them."""
    return simulate_pair(
        (SIDE, SIDE),
        seed=split_seed(split, STATED, number),
        deforming=number % QUIET > 0,
    )


def missed_by(model: Any, pair: SimulatedPair) -> np.ndarray:
    """Errors of the pixels with data, in standard deviations, without sign.

    A map is known up to a constant: errors are less their mean.
    """
    inputs, scale = given(model, pair.noisy, pair.elevation)
    with torch.inference_mode():
        noise, std = (scale.scale * out[0, 0].numpy() for out in model.stated(inputs))
    error = (pair.noisy - noise - pair.truth).astype("float64")
    error -= np.nanmean(error)
    return np.asarray((np.abs(error) / std)[np.isfinite(error)])


def _states(model: Any) -> bool:
    """Whether it draws samples that differ."""
    return getattr(model.config, "members", 1) > 1


def _with_factor(model: Any, factor: float) -> Any:
    made = copy.deepcopy(model)
    made.config = dataclasses.replace(model.config, std_factor=factor)
    return made
