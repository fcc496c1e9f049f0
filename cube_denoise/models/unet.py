"""A U-Net of plain residual blocks: the scene-wide baseline; diffusion runs on it too.

Encoder and decoder of residual convolutions without normalisation layers, so that
amplitudes pass through, joined by sums (as in NAFNet, Chen et al., 2022); dilated
blocks at the coarsest scale see the whole of a 256-pixel tile. With `time`, every
block is modulated by a diffusion or bridge time.
"""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn
from torch.nn import functional

EMBEDDING = 64
"""Sinusoids that a time is spread over, half of them cosines."""


@dataclass(frozen=True)
class UNetConfig:
    """Everything needed to build the network and to feed it."""

    channels: tuple[int, ...] = (32, 48, 64, 96, 96)
    """Of every scale, fine to coarse; each scale is half the size of the last."""
    blocks: int = 1
    """Residual blocks per scale, in the encoder and again in the decoder."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """Of the blocks at the coarsest scale, one each."""
    inputs: tuple[str, ...] = ("displacement", "log_scale", "elevation", "valid")
    """Input channels, as in `normalise.network_inputs`."""
    normalisation: str = "robust"
    """How a pair is scaled, as in `normalise.scaling`."""
    outputs: int = 1
    """Output channels."""
    time: bool = False
    """Whether the network is told a time."""


class UNet(nn.Module):
    """Estimate the noise of a normalised interferogram, or what a diffusion asks for.

    With the default configuration: five scales, 1,299,937 parameters, inputs seen from
    300 pixels away.

    Parameters
    ----------
    config : UNetConfig, optional
        The default one when not given.

    Raises
    ------
    ValueError
        If the configuration has fewer than two scales or no coarsest block.
    """

    receptive_radius: int | None = None
    """Wider than a tile."""

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or UNetConfig()
        widths, blocks = self.config.channels, self.config.blocks
        if len(widths) < 2 or not self.config.dilations:
            raise ValueError(
                f"channels={widths} must name at least two scales and "
                f"dilations={self.config.dilations} at least one block"
            )
        told = 2 * EMBEDDING if self.config.time else None
        self.multiple = 2 ** (len(widths) - 1)
        self.smallest_side = self.multiple // 2 + 1
        """Pixels a side that a map must have at least, for edges to be reflected."""
        self.time = (
            nn.Sequential(
                nn.Linear(EMBEDDING, 2 * EMBEDDING),
                nn.SiLU(),
                nn.Linear(2 * EMBEDDING, 2 * EMBEDDING),
            )
            if told
            else None
        )
        self.first = nn.Conv2d(len(self.config.inputs), widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in itertools.pairwise(widths):
            self.encoder.append(Blocks(fine, [1] * blocks, told))
            self.down.append(nn.Conv2d(fine, coarse, 3, stride=2, padding=1))
            self.up.append(nn.Conv2d(coarse, fine, 1))
            self.decoder.append(Blocks(fine, [1] * blocks, told))
        self.coarsest = Blocks(widths[-1], self.config.dilations, told)
        self.last = nn.Conv2d(widths[0], self.config.outputs, 3, padding=1)
        # Start as the network that removes nothing.
        zero(self.last)

    def forward(
        self, x: torch.Tensor, time: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Outputs (batch, outputs, y, x) for inputs (batch, channels, y, x).

        Parameters
        ----------
        x : torch.Tensor, shape (batch, channels, y, x)
            Normalised inputs, any size of at least `smallest_side`.
        time : torch.Tensor, shape (batch,), optional
            0 to 1; for networks with ``config.time``, and only for those.

        Raises
        ------
        ValueError
            If `time` is missing, or given to a network that is not told one.
        """
        if (time is None) != (self.time is None):
            raise ValueError(
                f"time={'None' if time is None else 'a tensor'}, but the network has "
                f"config.time={self.config.time}"
            )
        told = None
        if self.time is not None and time is not None:
            told = self.time(_sinusoids(time).to(x.dtype))
        rows, columns = x.shape[-2:]
        pad = [0, -columns % self.multiple, 0, -rows % self.multiple]
        x = self.first(functional.pad(x, pad, mode="reflect"))
        kept = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = blocks(x, told)
            kept.append(x)
            x = down(x)
        x = self.coarsest(x, told)
        for blocks, up in zip(reversed(self.decoder), reversed(self.up), strict=True):
            x = functional.interpolate(up(x), scale_factor=2.0, mode="bilinear")
            x = blocks(x + kept.pop(), told)
        return self.last(x)[..., :rows, :columns]

    def fused(self) -> Self:
        """Return an inference copy; there is nothing to fold."""
        return copy.deepcopy(self).eval()


def mean_square(error: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean square over the pixels where `valid` is 1."""
    weight = valid.expand_as(error)
    return (error.square() * weight).sum() / weight.sum()


def zero(layer: nn.Module) -> None:
    """Set all the weights of a layer to 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class _Block(nn.Module):
    """x + conv(SiLU(conv(SiLU(x)))), the inner map scaled and shifted by the time."""

    def __init__(self, channels: int, dilation: int, told: int | None) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
            for _ in range(2)
        )
        self.film = None if told is None else nn.Linear(told, 2 * channels)
        # Start as the identity.
        zero(self.second)
        if self.film is not None:
            zero(self.film)

    def forward(self, x: torch.Tensor, told: torch.Tensor | None) -> torch.Tensor:
        h = self.first(functional.silu(x))
        if self.film is not None and told is not None:
            gain, shift = self.film(told)[..., None, None].chunk(2, 1)
            h = h * (1 + gain) + shift
        return x + self.second(functional.silu(h))


class Blocks(nn.ModuleList):
    """Residual blocks of one scale, one per dilation; `told` numbers for each map."""

    def __init__(
        self,
        channels: int,
        dilations: Sequence[int] = (1,),
        told: int | None = None,
    ) -> None:
        super().__init__(_Block(channels, d, told) for d in dilations)

    def forward(
        self, x: torch.Tensor, told: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run one after the other."""
        for block in self:
            x = block(x, told)
        return x


def _sinusoids(time: torch.Tensor) -> torch.Tensor:
    """Spread times over frequencies from 1/10 to 1000 rad, (batch, `EMBEDDING`)."""
    half = EMBEDDING // 2
    powers = torch.arange(half, device=time.device) / half
    angles = time.float()[:, None] * 1000 * torch.exp(-math.log(1e4) * powers)
    return torch.cat([angles.cos(), angles.sin()], 1)
