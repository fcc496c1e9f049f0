"""The task of the series autoencoder: displacement between first and last date."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from cube_denoise.model_card import CardText
from cube_denoise.models.autoencoder import CENTIMETRES, relative_elevation
from cube_denoise.stack_samples import StackSampling, stack_batch
from cube_denoise.training.stacks import held_out_scores
from cube_denoise.training.task import Setup

REST = 0.15
"""Error, in units of the noise, below which less is hardly better."""


class SeriesBatch(NamedTuple):
    """Series for one training step."""

    series: torch.Tensor
    """Displacement with noise since the first date, cm, (batch, dates, y, x)."""
    elevation: torch.Tensor
    """0 to 1, (batch, y, x)."""
    displacement: torch.Tensor
    """Truth between first and last date, cm, (batch, 1, y, x)."""


@dataclass(frozen=True, kw_only=True)
class SeriesTask:
    """Displacement accumulated over a few dates (`training.task`)."""

    sampling: StackSampling = field(
        default_factory=lambda: StackSampling(
            sides=(48,), dates=(9, 9), volume=48 * 48 * 9 * 32, hiding=0.0, gappy=0.0
        )
    )
    """What stacks are drawn; their dates are those of the network."""

    def draw(self, setup: Setup, split: str, number: int) -> SeriesBatch:
        """See `Task.draw`.

        Raises
        ------
        ValueError
            If a recipe or real noise is asked for, or the dates are not the network's.
        """
        if setup.recipe is not None or setup.noise:
            raise ValueError(
                f"recipe={setup.recipe!r}: this network is trained on stacks of its "
                "own simulation; give neither a recipe nor noise"
            )
        dates = setup.config.dates
        if self.sampling.dates != (dates, dates):
            raise ValueError(
                f"sampling.dates={self.sampling.dates} must be {(dates, dates)}, "
                "those of the network"
            )
        batch = stack_batch(number, self.sampling, split=split, seed=setup.seed)
        series, truth = (
            CENTIMETRES * (a - a[:, :1]) for a in (batch.series, batch.displacement)
        )
        return SeriesBatch(series, relative_elevation(batch.elevation), truth[:, -1:])

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        """See `Task.loss`: logarithm of the rms error in units of the noise.

        With a mean absolute error the network learns to output zero, which is the
        median of what small signals let it know.
        """
        error = model(batch.series, batch.elevation).float() - batch.displacement
        noise = batch.series[:, -1:] - batch.displacement
        power, level = (a.square().mean((1, 2, 3)) for a in (error, noise))
        return (power / level.clamp_min(1e-6) + REST**2).log().mean() / 2

    def calibrated(self, model: Any) -> Any:
        """See `Task.calibrated`: nothing to fit."""
        return model

    def scores(self, model: Any) -> dict[str, float]:
        """See `Task.scores`: of whole series, as those of the stack network."""
        found = held_out_scores(model)
        del found["coverage_68"]
        return found

    def card(self, model: Any) -> CardText:
        """See `Task.card`."""
        how = self.sampling
        return CardText(
            purpose="Estimates the displacement between the first and the last of "
            f"{model.config.dates} dates; slides over longer stacks.",
            inputs="displacement series since the first date in cm, elevation from 0 "
            "to 1",
            samples="simulated stacks only (`cube_denoise.stack_samples`)",
            batch=f"{how.volume // (how.sides[0] ** 2 * how.dates[0])} series of "
            f"{how.sides[0]} x {how.sides[0]} pixels",
            objective="logarithm of the rms error of each series in units of its noise",
            judged="Medians over simulated stacks of seeds that training never draws, "
            "128 x 128 pixels, 12, 20 and 30 dates, power of deformation over power of "
            "noise from 0.1 to 1; false alarms on stacks without deformation; each "
            "date less its mean over the map, each pixel less its mean over time",
            limits=(
                f"Sees {2 * model.receptive_radius + 1} pixels: it cannot tell wide "
                "atmosphere from wide deformation.",
                "The architecture is our reading of the paper (Rouet-Leduc et al. "
                "2021), whose code is not public; how it slides over longer stacks is "
                "ours.",
                "It does not say how sure it is.",
            ),
        )
