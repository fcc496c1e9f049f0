r"""Variational autoencoder that splits a mixture into sources by one shared decoder.

After Neri, Badeau and Depalle (2021), whose layers and widths ``arch="mlp"`` has; their
code was not used. Their sources are positive and summed images: ours have either sign,
so the last layer is linear. The mixture stays what it was, an exact sum,

.. math:: \hat\varphi = \sum_k s_k, \qquad s_k = D(z_k) - D(0), \qquad
          z_k \sim N(\mu_k(\varphi), \sigma_k^2(\varphi)).

``arch="conv"`` and the prior by Laplace are choices of this project.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

WIDTHS = (700, 600, 500, 400, 300)
"""Of the layers of the encoder of ``arch="mlp"``; the decoder has them backwards."""
CHANNELS = (32, 64, 128, 256)
"""Of the convolutions of ``arch="conv"``, each of which halves the map."""
LEAST_LOG_VARIANCE, LARGEST_LOG_VARIANCE = -12.0, 8.0
"""Bounds of what the encoder states: the exponential stays finite."""


@dataclass(frozen=True)
class SeparatorConfig:
    """Everything needed to build the network."""

    tile: int = 64
    """Pixels a side of a map; for "conv" a multiple of 16."""
    sources: int = 4
    """How many maps a mixture is split into."""
    latent: int = 20
    """Numbers that describe a source."""
    arch: str = "mlp"
    """"mlp" or "conv"."""
    prior: str = "normal"
    """Of the numbers that describe a source: "normal" or "laplace"."""

    def __post_init__(self) -> None:
        for name in ("tile", "sources", "latent"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")
        if self.arch not in ("mlp", "conv"):
            raise ValueError(f"arch={self.arch!r} must be 'mlp' or 'conv'")
        if self.prior not in ("normal", "laplace"):
            raise ValueError(f"prior={self.prior!r} must be 'normal' or 'laplace'")
        if self.arch == "conv" and self.tile % 2 ** len(CHANNELS):
            raise ValueError(
                f"tile={self.tile} must be a multiple of {2 ** len(CHANNELS)} for "
                "arch='conv'"
            )


class Separator(nn.Module):
    """Splits maps into sources that one decoder can draw.

    Maps are phase in units of the spread of the stack, 0 where there are no data.
    """

    def __init__(self, config: SeparatorConfig | None = None) -> None:
        super().__init__()
        self.config = config or SeparatorConfig()
        c = self.config
        mlp = c.arch == "mlp"
        self.encoder = _mlp_encoder(c.tile) if mlp else _conv_encoder(c.tile)
        wide = WIDTHS[-1] if mlp else CHANNELS[-1] * (c.tile // 2 ** len(CHANNELS)) ** 2
        self.mean = nn.Linear(wide, c.sources * c.latent)
        self.log_variance = nn.Linear(wide, c.sources * c.latent)
        self.decoder = (
            _mlp_decoder(c.latent, c.tile) if mlp else _conv_decoder(c.latent, c.tile)
        )

    def encode(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of the numbers that describe the sources.

        Parameters
        ----------
        maps : torch.Tensor, shape (batch, y, x)

        Returns
        -------
        mean, log_variance : torch.Tensor, shape (batch, sources, latent)
        """
        hidden = self.encoder(maps[:, None])  # (B, W)
        shape = (len(maps), self.config.sources, self.config.latent)
        log_variance = self.log_variance(hidden).clamp(
            LEAST_LOG_VARIANCE, LARGEST_LOG_VARIANCE
        )
        return self.mean(hidden).view(shape), log_variance.view(shape)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Sources that numbers describe; those of zero are the empty map.

        Parameters
        ----------
        z : torch.Tensor, shape (batch, sources, latent)

        Returns
        -------
        torch.Tensor, shape (batch, sources, y, x)
        """
        batch, sources, latent = z.shape
        # The empty map goes along: batch normalisation must treat it alike.
        flat = torch.cat([z.reshape(-1, latent), z.new_zeros(1, latent)])
        maps = self.decoder(flat)  # (B*K + 1, 1, T, T)
        maps = maps[:-1, 0] - maps[-1, 0]
        return maps.view(batch, sources, *maps.shape[1:])

    def forward(
        self, maps: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sources of maps, and how they are described.

        Parameters
        ----------
        maps : torch.Tensor, shape (batch, y, x)
        noise : torch.Tensor, shape (batch, sources, latent), optional
            Standard normal; without it the sources are those of the means.

        Returns
        -------
        sources : torch.Tensor, shape (batch, sources, y, x)
            Their sum is the map as the network sees it.
        mean, log_variance : torch.Tensor, shape (batch, sources, latent)
        """
        mean, log_variance = self.encode(maps)
        z = mean
        if noise is not None:
            z = mean + torch.exp(log_variance / 2) * noise
        return self.decode(z), mean, log_variance

    def divergence(
        self, mean: torch.Tensor, log_variance: torch.Tensor
    ) -> torch.Tensor:
        """Kullback-Leibler divergence from the prior, nats, shape (batch,)."""
        own = {"normal": _from_normal, "laplace": _from_laplace}[self.config.prior]
        return own(mean, log_variance).flatten(1).sum(1)


def misfit(
    maps: torch.Tensor, sources: torch.Tensor, known: torch.Tensor
) -> torch.Tensor:
    """Negative log-likelihood of maps, less its constant, by Laplace of unit variance.

    Parameters
    ----------
    maps : torch.Tensor, shape (batch, y, x)
    sources : torch.Tensor, shape (batch, sources, y, x)
    known : torch.Tensor of bool, shape (batch, y, x)
        Pixels that count.

    Returns
    -------
    torch.Tensor, shape (batch,)
        Sum over pixels of the absolute difference over the square root of a half.
    """
    difference = torch.where(known, maps - sources.sum(1), torch.zeros(()).to(maps))
    return difference.abs().flatten(1).sum(1) / math.sqrt(0.5)


def _from_normal(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    return (mean**2 + log_variance.exp() - 1 - log_variance) / 2


def _from_laplace(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Divergence of a normal distribution from Laplace's of unit variance."""
    std = torch.exp(log_variance / 2)
    ratio = mean / std
    # Mean of the absolute value of a normal variable.
    folded = std * math.sqrt(2 / math.pi) * torch.exp(-(ratio**2) / 2)
    folded = folded + mean * torch.erf(ratio / math.sqrt(2))
    entropy = (math.log(2 * math.pi * math.e) + log_variance) / 2
    return math.log(math.sqrt(2)) + math.sqrt(2) * folded - entropy


def _mlp_encoder(tile: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    before = tile**2
    for width in WIDTHS:
        layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers)


def _mlp_decoder(latent: int, tile: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = latent
    for width in reversed(WIDTHS):
        layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU()]
        before = width
    layers += [nn.Linear(before, tile**2), nn.Unflatten(1, (1, tile, tile))]
    return nn.Sequential(*layers)


def _conv_encoder(tile: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 1
    for channels in CHANNELS:
        convolution = nn.Conv2d(before, channels, 4, stride=2, padding=1)
        layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.Flatten())


def _conv_decoder(latent: int, tile: int) -> nn.Sequential:
    side = tile // 2 ** len(CHANNELS)
    before = CHANNELS[-1]
    layers: list[nn.Module] = [
        nn.Linear(latent, before * side**2),
        nn.Unflatten(1, (before, side, side)),
    ]
    for channels in (*reversed(CHANNELS[:-1]), CHANNELS[0]):
        layers += [_Wider(), nn.Conv2d(before, channels, 3, padding=1)]
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 3, padding=1))


class _Wider(nn.Module):
    """Twice as many pixels a side, by linear interpolation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(
            x, scale_factor=2.0, mode="bilinear", align_corners=False
        )
