"""Diffusion in pixel space: samples of the deformation that an interferogram may hide.

The conditional network (as SR3 and Palette, Saharia et al., 2022) is given the noisy
interferogram, so its samples are draws of what lies beneath. The unconditional one is a
prior that takes the noise of the interferogram for its own. Noise is white (DDPM) or
has the spectrum of turbulence ("correlated").
"""

import copy
import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from cube_denoise.models.coloured import NOISES, member_noise
from cube_denoise.models.samplers import (
    NoiseSchedule,
    matched_start,
    noised_start,
    sample,
    weighted_mean,
)
from cube_denoise.models.unet import UNet, UNetConfig, mean_square

SCHEDULE = NoiseSchedule()
"""Of all the networks here."""


@dataclass(frozen=True)
class DiffusionConfig:
    """Everything needed to build the network, to feed it and to draw from it."""

    channels: tuple[int, ...] = (24, 32, 48, 64, 96)
    """As `blocks` and `dilations`: of the `UNetConfig`."""
    blocks: int = 1
    dilations: tuple[int, ...] = (1, 2, 4)
    inputs: tuple[str, ...] = ("displacement", "log_scale", "elevation", "valid")
    """Input channels, as in `normalise.network_inputs`."""
    normalisation: str = "robust"
    """How a pair is scaled, as in `normalise.scaling`."""
    conditional: bool = True
    """Whether the network is given the noisy displacement itself."""
    noise: str = "correlated"
    """Kind, of `coloured.NOISES`."""
    start: str = "noise"
    """"noise": from noise alone, if conditional. If not, "matched": from the
    interferogram, whose noise is taken for the diffusion's (`samplers.matched_start`),
    or "noised": from the interferogram with more noise added (`samplers.noised_start`,
    the poster's way)."""
    level: float = 1.0
    """Standard deviation of the noise of the interferogram, normalised."""
    strength: float = 0.25
    """For "noised": share of the steps that noise is added for."""
    sampler: str = "ddim"
    """"ddim" or "ancestral"."""
    steps: int = 8
    """Network runs per sample; 1 from a matched start is the one-step prediction. Few
    draw too little noise: by DDIM, 8 leave 0.82 of the spread and 16 leave 0.91."""
    members: int = 4
    """Samples per interferogram."""
    seed: int = 0
    """Of the samples."""
    std_factor: float = 1.0
    """Of the spread of the members in what `Ensemble.stated` gives; fitted after
    training (`training.generative`)."""

    def __post_init__(self) -> None:
        """Refuse choices that are unknown or do not go together (ValueError)."""
        for name, choices in (
            ("noise", tuple(NOISES)),
            ("start", ("noise", "matched", "noised")),
            ("sampler", ("ddim", "ancestral")),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name}={value!r} must be one of {choices}")
        if self.conditional != (self.start == "noise"):
            raise ValueError(
                f"start={self.start!r} with conditional={self.conditional}: networks "
                "that are given the interferogram start from 'noise', others from the "
                "interferogram ('matched' or 'noised')"
            )
        drawn = self.start != "matched" or self.sampler == "ancestral"
        if not drawn and self.members != 1:
            raise ValueError(
                f"members={self.members}: start='matched' with sampler='ddim' draws "
                "nothing at random, so there is one member"
            )
        if not (self.members > 0 and 0 < self.strength <= 1 and self.level > 0):
            raise ValueError(
                f"members={self.members} and level={self.level} must be positive, "
                f"strength={self.strength} from 0 to 1"
            )
        if not self.std_factor > 0:
            raise ValueError(f"std_factor={self.std_factor} must be positive")


class Ensemble(nn.Module):
    """Network that draws samples of the displacement that an interferogram hides."""

    config: Any
    """With `members` and `std_factor`."""
    receptive_radius: int | None = None
    """Wider than a tile."""

    def ensemble(self, x: torch.Tensor) -> torch.Tensor:
        """Samples of the displacement without its noise.

        Parameters
        ----------
        x : torch.Tensor, shape (batch, channels, y, x)
            Normalised inputs.

        Returns
        -------
        torch.Tensor, shape (batch, members, y, x)
            Normalised displacement. Member k is drawn from the same noise for every
            map of a shape, whatever else is in the batch.
        """
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Noise, normalised, (batch, 1, y, x), of inputs (batch, channels, y, x)."""
        return x[:, :1] - self.ensemble(x).mean(1, keepdim=True)

    def stated(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise, and the standard deviation of the displacement without it.

        The spread of the members about their mean times ``config.std_factor``; few
        members tell it roughly, each pixel by itself.

        Parameters
        ----------
        x : torch.Tensor, shape (batch, channels, y, x)
            Normalised inputs.

        Returns
        -------
        noise, std : torch.Tensor, shape (batch, 1, y, x)
            Normalised; the noise is that of `forward`.

        Raises
        ------
        ValueError
            If there is one member: it has no spread.
        """
        if self.config.members < 2:
            raise ValueError(
                f"members={self.config.members}: a standard deviation needs two or more"
            )
        members = self.ensemble(x)
        spread = members.std(1, keepdim=True)
        return x[:, :1] - members.mean(1, keepdim=True), self.config.std_factor * spread

    def fused(self) -> Self:
        """Return an inference copy; there is nothing to fold."""
        return copy.deepcopy(self).eval()


class DiffusionDenoiser(Ensemble):
    """Estimate the noise of an interferogram by the mean of samples of what is left.

    The U-Net in it estimates what is wrong with `samplers.weighted_mean` of the
    interferogram and of the state of the diffusion; if not conditional, of the state
    alone, which is the noise of the diffusion as in DDPM. A new conditional network
    knows of no deformation: its samples are the interferogram with noise of
    ``config.level`` about it.

    Parameters
    ----------
    config : DiffusionConfig, optional
        The default one when not given.
    """

    def __init__(self, config: DiffusionConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or DiffusionConfig()
        self.network = UNet(
            UNetConfig(
                channels=c.channels,
                blocks=c.blocks,
                dilations=c.dilations,
                inputs=("state", *c.inputs[0 if c.conditional else 1 :]),
                time=True,
            )
        )
        self._level = c.level if c.conditional else math.inf
        self.smallest_side = self.network.smallest_side
        """Pixels a side that a map must have at least."""

    def ensemble(self, x: torch.Tensor) -> torch.Tensor:
        """See `Ensemble.ensemble`."""
        c = self.config
        repeated = x.repeat_interleave(c.members, 0)
        noisy = repeated[:, :1]
        draw = member_noise(
            NOISES[c.noise],
            (1, *x.shape[-2:]),
            x,
            members=c.members,
            seed=c.seed,
        )
        if c.start == "noise":
            state, step = draw(), SCHEDULE.steps - 1
        elif c.start == "matched":
            state, step = matched_start(noisy, c.level, SCHEDULE)
        else:
            state, step = noised_start(noisy, c.strength, SCHEDULE, draw)

        def denoiser(state: torch.Tensor, step: int) -> torch.Tensor:
            steps = torch.full((len(state),), step, device=state.device)
            found = self._estimate(state, repeated, steps).to(state.dtype)
            kept = float(SCHEDULE.alpha_bar[step])
            mean, spread = weighted_mean(state, kept, noisy, self._level)
            return mean - spread * found

        clean = sample(
            denoiser,
            state,
            schedule=SCHEDULE,
            times=SCHEDULE.times(c.steps, start=step),
            noise=draw if c.sampler == "ancestral" else None,
        )
        return clean.reshape(len(x), c.members, *x.shape[-2:])

    def loss(
        self,
        inputs: torch.Tensor,
        noise: torch.Tensor,
        valid: torch.Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Mean square error of the U-Net's estimate at random steps, over valid pixels.

        For noise of any spectrum: the exact bound would weight by its inverse, but has
        the same minimum (Voleti et al., 2022).

        Parameters
        ----------
        inputs, noise, valid : torch.Tensor
            As in `dataset.Batch`.
        generator : torch.Generator, optional
            Draws the steps and the noise of the diffusion; of the device of `inputs`.
            Torch's own when not given.
        """
        count, _, *shape = inputs.shape
        here = inputs.device
        steps = torch.randint(
            SCHEDULE.steps, (count,), generator=generator, device=here
        )
        added = NOISES[self.config.noise].fields(
            count, shape, generator=generator, device=here
        )
        clean = inputs[:, :1] - noise
        state = SCHEDULE.add_noise(clean, added, steps)
        mean, spread = weighted_mean(
            state, SCHEDULE.kept(steps, state), inputs[:, :1], self._level
        )
        found = self._estimate(state, inputs, steps).float()
        return mean_square(found - (mean - clean) / spread, valid)

    def _estimate(
        self, state: torch.Tensor, inputs: torch.Tensor, steps: torch.Tensor
    ) -> torch.Tensor:
        given = inputs if self.config.conditional else inputs[:, 1:]
        time = (steps + 1) / SCHEDULE.steps
        return self.network(torch.cat([state, given], 1), time)
