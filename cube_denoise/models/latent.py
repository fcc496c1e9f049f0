"""Latent diffusion: an autoencoder a quarter the size, and diffusion in its latents.

After Rombach et al. (2022), without their adversarial and perceptual losses.
Deformation is smooth: diffusion in latents counts for nothing until the autoencoder
alone keeps it within `ERROR_LIMIT`.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from cube_denoise.models.coloured import NOISES, member_noise
from cube_denoise.models.diffusion import SCHEDULE, Ensemble
from cube_denoise.models.samplers import sample, weighted_mean
from cube_denoise.models.unet import Blocks, UNet, UNetConfig, mean_square, zero

FACTOR = 4
"""Pixels per latent pixel along a side."""
KL_WEIGHT = 1e-6
"""Of the divergence from unit variance, beside the absolute error."""
LEVEL = 1.0
"""Standard deviation of an interferogram's noise in latents, those of the truth being
1."""
FIRST_LOG_VARIANCE = -8.0
"""Of a new autoencoder's latents: too little to blur what it keeps."""
ERROR_LIMIT = 1e-3
"""rms error that an autoencoder must stay below to be used, m."""


@dataclass(frozen=True)
class AutoencoderKLConfig:
    """Everything needed to build the autoencoder and to feed it."""

    channels: tuple[int, int, int] = (24, 48, 64)
    """Of the full, half and quarter size."""
    latent: int = 4
    """Channels of the latents."""
    inputs: tuple[str, ...] = ("displacement",)
    """Input channels, as in `normalise.network_inputs`."""
    normalisation: str = "robust"
    """How a pair is scaled, as in `normalise.scaling`."""


class AutoencoderKL(nn.Module):
    """Keep a displacement map in a quarter of its rows and columns.

    The first latent is the mean of 4 x 4 pixels plus what is learned, and a map is its
    bicubic interpolation plus what is learned: a new autoencoder loses little of a
    smooth field.

    Parameters
    ----------
    config : AutoencoderKLConfig, optional
        The default one when not given.
    """

    def __init__(self, config: AutoencoderKLConfig | None = None) -> None:
        super().__init__()
        self.config = config or AutoencoderKLConfig()
        full, half, quarter = self.config.channels
        latent = self.config.latent
        into, out = (
            nn.Conv2d(quarter, 2 * latent, 3, padding=1),
            nn.Conv2d(full, 1, 3, padding=1),
        )
        self.encoder = nn.Sequential(
            nn.Conv2d(1, full, 3, padding=1),
            Blocks(full),
            nn.Conv2d(full, half, 3, stride=2, padding=1),
            Blocks(half),
            nn.Conv2d(half, quarter, 3, stride=2, padding=1),
            Blocks(quarter),
            into,
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, quarter, 3, padding=1),
            Blocks(quarter),
            nn.Conv2d(quarter, half, 1),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            Blocks(half),
            nn.Conv2d(half, full, 1),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            Blocks(full),
            out,
        )
        zero(out)
        zero(into)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the variance of the latents.

        Parameters
        ----------
        x : torch.Tensor, shape (batch, 1, y, x)
            Normalised displacement, sides multiples of 4.

        Returns
        -------
        mean, log_variance : torch.Tensor, shape (batch, latent, y / 4, x / 4)

        Raises
        ------
        ValueError
            If a side is no multiple of 4.
        """
        if any(side % FACTOR for side in x.shape[-2:]):
            raise ValueError(f"shape={tuple(x.shape)}: sides must be multiples of 4")
        mean, log_variance = self.encoder(x).chunk(2, 1)
        log_variance = (log_variance + FIRST_LOG_VARIANCE).clamp(-20, 10)
        first = functional.avg_pool2d(x, FACTOR)
        padding = [0, 0, 0, 0, 0, self.config.latent - 1]
        return mean + functional.pad(first, padding), log_variance

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalised displacement (batch, 1, y, x) of (batch, latent, y / 4, x / 4)."""
        smooth = functional.interpolate(
            latents[:, :1], scale_factor=FACTOR, mode="bicubic"
        )
        return smooth + self.decoder(latents)

    def loss(
        self,
        inputs: torch.Tensor,
        noise: torch.Tensor,
        valid: torch.Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Absolute error of the truth and of the noisy maps, and the divergence.

        Parameters
        ----------
        inputs, noise, valid : torch.Tensor
            As in `dataset.Batch`.
        generator : torch.Generator, optional
            Draws the latents; of the device of `inputs`.
            Torch's own when not given.
        """
        x = torch.cat([inputs[:, :1] - noise, inputs[:, :1]])
        mean, log_variance = self.encode(x)
        draw = torch.randn(mean.shape, generator=generator, device=mean.device)
        latents = mean + (0.5 * log_variance).exp() * draw
        weight = valid.repeat(2, 1, 1, 1)
        error = ((self.decode(latents).float() - x).abs() * weight).sum() / weight.sum()
        divergence = mean.square() + log_variance.exp() - 1 - log_variance
        return error + KL_WEIGHT * 0.5 * divergence.sum() / len(x)


@dataclass(frozen=True)
class LatentConfig:
    """Everything needed to build both networks, to feed them and to draw from them."""

    autoencoder: tuple[int, int, int] = (24, 48, 64)
    """Channels of the autoencoder."""
    latent: int = 4
    """Channels of the latents."""
    channels: tuple[int, ...] = (48, 64, 96)
    """As `blocks` and `dilations`: of the `UNetConfig`, in latents."""
    blocks: int = 1
    dilations: tuple[int, ...] = (1, 2, 4)
    inputs: tuple[str, ...] = ("displacement", "log_scale", "elevation", "valid")
    """Input channels, as in `normalise.network_inputs`."""
    normalisation: str = "robust"
    """How a pair is scaled, as in `normalise.scaling`."""
    steps: int = 8
    """Network runs per sample (DDIM)."""
    members: int = 4
    """Samples per interferogram."""
    seed: int = 0
    """Of the samples."""
    std_factor: float = 1.0
    """As in `diffusion.DiffusionConfig`."""


class LatentDenoiser(Ensemble):
    """Estimate noise by conditional diffusion, white, in the latents of a map.

    The U-Net in it estimates what that of `diffusion.DiffusionDenoiser` does. The
    autoencoder is trained first (`AutoencoderKL.loss`) and then taken over (`adopt`).

    Parameters
    ----------
    config : LatentConfig, optional
        The default one when not given.
    """

    def __init__(self, config: LatentConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or LatentConfig()
        self.autoencoder = AutoencoderKL(
            AutoencoderKLConfig(channels=c.autoencoder, latent=c.latent)
        ).requires_grad_(False)
        latents = ("latent",) * c.latent
        self.network = UNet(
            UNetConfig(
                channels=c.channels,
                blocks=c.blocks,
                dilations=c.dilations,
                inputs=(*latents, *latents, *c.inputs[1:]),
                outputs=c.latent,
                time=True,
            )
        )
        self.unit: torch.Tensor
        """Standard deviation of every latent: diffusion wants them at 1."""
        self.register_buffer("unit", torch.ones(1, c.latent, 1, 1))
        self.smallest_side = FACTOR * (self.network.smallest_side - 1) + 1
        """Pixels a side that a map must have at least."""

    def adopt(
        self, autoencoder: AutoencoderKL, truth: torch.Tensor, scale: torch.Tensor
    ) -> float:
        """Take over a trained autoencoder, if it keeps deformation well enough.

        Parameters
        ----------
        autoencoder : AutoencoderKL
            With the channels of the configuration.
        truth : torch.Tensor, shape (batch, 1, y, x)
            Held-out deformation, normalised.
        scale : torch.Tensor, shape (batch,)
            What a normalised unit is, m.

        Returns
        -------
        float
            rms error, m.

        Raises
        ------
        ValueError
            If the rms error of `truth` is not below `ERROR_LIMIT`.
        """
        with torch.no_grad():
            latents = autoencoder.encode(truth)[0]
            error = (autoencoder.decode(latents) - truth) * scale[:, None, None, None]
        rms = float(error.square().mean().sqrt())
        if not rms < ERROR_LIMIT:
            raise ValueError(
                f"the autoencoder errs by {rms * 1e3:.2f} mm rms: it must stay below "
                f"{ERROR_LIMIT * 1e3:.0f} mm"
            )
        self.autoencoder.load_state_dict(autoencoder.state_dict())
        self.unit.copy_(latents.std((0, 2, 3), keepdim=True).clamp_min(1e-3))
        return rms

    def ensemble(self, x: torch.Tensor) -> torch.Tensor:
        """See `Ensemble.ensemble`."""
        c = self.config
        rows, columns = x.shape[-2:]
        pad = [0, -columns % FACTOR, 0, -rows % FACTOR]
        x = functional.pad(x, pad, mode="reflect")
        noisy, given = (
            part.repeat_interleave(c.members, 0) for part in self._conditions(x)
        )
        draw = member_noise(
            NOISES["white"], noisy.shape[1:], x, members=c.members, seed=c.seed
        )

        def denoiser(state: torch.Tensor, step: int) -> torch.Tensor:
            time = torch.full((len(state),), (step + 1) / SCHEDULE.steps)
            found = self.network(
                torch.cat([state, noisy, given], 1), time.to(state.device)
            )
            kept = float(SCHEDULE.alpha_bar[step])
            mean, spread = weighted_mean(state, kept, noisy, LEVEL)
            return mean - spread * found.to(state.dtype)

        times = SCHEDULE.times(c.steps)
        latents = sample(denoiser, draw(), schedule=SCHEDULE, times=times)
        clean = self.autoencoder.decode(latents * self.unit)[..., :rows, :columns]
        return clean.reshape(len(x), c.members, rows, columns)

    def loss(
        self,
        inputs: torch.Tensor,
        noise: torch.Tensor,
        valid: torch.Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Mean square error of the U-Net's estimate at random steps.

        The autoencoder is not trained with it.

        Parameters
        ----------
        inputs, noise, valid : torch.Tensor
            As in `dataset.Batch`; sides multiples of 4.
        generator : torch.Generator, optional
            Draws the steps and the noise of the diffusion; of the device of `inputs`.
            Torch's own when not given.
        """
        noisy, given = self._conditions(inputs)
        with torch.no_grad():
            clean = self.autoencoder.encode(inputs[:, :1] - noise)[0] / self.unit
        count, here = len(inputs), inputs.device
        steps = torch.randint(
            SCHEDULE.steps, (count,), generator=generator, device=here
        )
        added = torch.randn(clean.shape, generator=generator, device=here)
        state = SCHEDULE.add_noise(clean, added, steps)
        time = (steps + 1) / SCHEDULE.steps
        found = self.network(torch.cat([state, noisy, given], 1), time).float()
        mean, spread = weighted_mean(state, SCHEDULE.kept(steps, state), noisy, LEVEL)
        weight = functional.avg_pool2d(valid, FACTOR)
        return mean_square(found - (mean - clean) / spread, weight)

    def _conditions(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of the noisy displacement, in units; the other inputs, as small."""
        with torch.no_grad():
            latents = self.autoencoder.encode(x[:, :1])[0] / self.unit
        return latents, functional.avg_pool2d(x[:, 1:], FACTOR)
