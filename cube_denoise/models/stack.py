"""Displacement of every date of a stack, seen all at once, with its uncertainty.

The series is smoothed in time in several ways, exactly and at every pixel alike; a
network that sees all of them decides, for every date, place and spatial scale, how much
of each to take. Nothing of it is from a paper: time-dependent shrinkage of the bands of
a Laplacian pyramid (Burt and Adelson, 1983), with learnt weights.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from cube_denoise.models.stack_features import (
    TRENDS,
    Features,
    candidate_count,
    features,
)

SCALARS = 25
"""Input channels beside the candidates."""
TRUST = (0.0, 0.6, 0.0, 0.4, 0.5)
"""Weights of the first of `Features.evidence` at the start."""
DOUBT = (2.0, 2.0)
"""Of the misfits in it at the start, around the pixel and on the date."""
START = 2
"""The candidate the untrained network gives: a local line, as in `temporal-filter`."""

FOUND = (0.7, 2.0, 8.0)
"""Rms of the estimate over that of its standard deviation, of a whole stack, at which
`StackConfig.std_factor` and `StackConfig.trend_share` are given; between, linear in its
logarithm (and in that of the former), constant beyond. It tells stacks where nothing is
found from those where some motion is, of which more is missed, and from those where
motion is plain."""
RECOVERED = (1.5, 2.0)
"""The same ratio, below which nothing of `StackConfig.recovery` is done and above which
all of it: where little is found it may be noise, which must not be made larger."""


@dataclass(frozen=True)
class StackConfig:
    """Everything needed to build the network."""

    channels: tuple[int, ...] = (24, 32, 48, 64)
    """At half the resolution, and at every further halving."""
    heads: int = 4
    """Of the attention over dates."""
    widths: tuple[float, ...] = (6.0, 2.5, 1.0)
    """Standard deviations of the local lines, in mean intervals between dates."""
    std_factor: float | tuple[float, ...] = 1.0
    """By which the standard deviation is multiplied, from held-out stacks: one number,
    or one for each of `FOUND`."""
    trend_share: float | tuple[float, ...] = 1.0
    """Part of the variance of the errors that is of a trend in time, from held-out
    stacks: one number, or one for each of `FOUND`. All of it where nothing is known."""
    recovery: float = 0.0
    r"""Part of the shrinkage that is undone, from held-out stacks. The estimate of
    least error of a signal of variance P in noise of variance N has the variance
    :math:`P^2 / (P + N)`, and its error :math:`P N / (P + N)`: with f the root of their
    ratio it is the signal times :math:`f^2 / (1 + f^2)`. It is multiplied by
    :math:`1 + r / f^2`, f of the whole stack (see `RECOVERED`)."""


class StackNetwork(nn.Module):
    """Estimate the displacement of all dates of a stack.

    Any number of dates from four on, any shape. The estimate

    - does not change if a constant is added to all times, to all elevations or, on any
      date, to the map of that date;
    - does not change if a map is added to all dates, where no date has gaps of its own;
    - turns with the data only as far as training taught it, likewise with their sign;
    - scales with the data but for one input channel, the logarithm of the noise level;
    - of all other dates is the same whether a date is hidden or not there at all.

    The noise level, the weights of the dates and the trends in elevation and position
    are those of the area given: give scenes whole, or large fixed tiles.
    """

    def __init__(self, config: StackConfig | None = None) -> None:
        super().__init__()
        self.config = config or StackConfig()
        widths = self.config.channels
        self.receptive_radius: int | None = None
        """Statistics are taken over all that is given."""
        self.smallest_side = 8
        self.multiple = 2 ** len(widths)
        """Maps are padded to a multiple of this."""
        self.count = candidate_count(len(self.config.widths))
        self.stem = nn.Conv2d(self.count + SCALARS, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths)
        )
        self.encoder = nn.ModuleList(_Block(c) for c in widths)
        self.in_time = nn.ModuleList(
            _Attention(c, self.config.heads) for c in widths[1:]
        )
        self.scene = nn.Sequential(
            nn.Linear(2 * widths[-1], widths[-1]),
            nn.ReLU(),
            nn.Linear(widths[-1], widths[-1]),
        )
        self.join = nn.ModuleList(nn.Conv2d(a + b, a, 1) for a, b in pairwise(widths))
        self.decoder = nn.ModuleList(_Block(c) for c in widths[:-1])
        told = len(TRUST) + 2 * (self.count - TRENDS)
        self.evidence = nn.ModuleList(nn.Conv2d(told, c, 1) for c in widths)
        for layer in self.evidence:
            assert isinstance(layer, nn.Conv2d)
            nn.init.zeros_(layer.weight)
        self.heads = nn.ModuleList(_Head(c, self.count) for c in widths)
        self.finest = _Head(widths[0], self.count)

    def forward(
        self,
        series: torch.Tensor,
        visible: torch.Tensor,
        years: torch.Tensor,
        elevation: torch.Tensor,
        coherence: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Displacement and its standard deviation.

        Parameters
        ----------
        series : torch.Tensor, shape (batch, time, y, x)
            Displacement of the dates, m, whatever their reference date and pixel.
        visible : torch.Tensor of bool, shape (batch, time, y, x)
            Where it is known; elsewhere its values do not matter (NaN is fine).
        years : torch.Tensor, shape (batch, time)
            Times, years from any origin, increasing.
        elevation : torch.Tensor, shape (batch, y, x)
            m, finite.
        coherence : torch.Tensor, shape (batch, y, x)
            0 to 1, finite.

        Returns
        -------
        displacement : torch.Tensor, shape (batch, time, y, x)
            m; the mean over the map is zero on every date, and at every pixel the mean
            over the dates that are visible anywhere. Hidden dates are predicted.
        std : torch.Tensor, shape (batch, time, y, x)
            m: it is within this of the truth at 68 of 100 pixels.

        Raises
        ------
        ValueError
            If there are fewer than four dates, the maps are smaller than
            `smallest_side`, or a stack has fewer than three visible dates.
        """
        rows, columns = series.shape[2:]
        if series.shape[1] < 4 or min(rows, columns) < self.smallest_side:
            raise ValueError(
                f"series of shape {tuple(series.shape)}: must have 4 dates or more of "
                f"{self.smallest_side} x {self.smallest_side} pixels or more"
            )
        with torch.autocast(series.device.type, enabled=False):
            found = features(
                series,
                visible,
                years,
                elevation,
                coherence,
                widths=self.config.widths,
                multiple=self.multiple,
            )
        estimate, log_std = self._combine(found)
        estimate = found.centred(estimate[:, :, :rows, :columns])
        std = found.scale * found.gain[:, :, START] * torch.exp(log_std)
        displacement, std = found.scale * estimate, std[:, :, :rows, :columns]
        sure = _sureness(displacement, std, visible)
        gain = recovery_gain(sure, self.config.recovery)
        return gain * displacement, self._factor(sure) * std

    @torch.no_grad()
    def trend_share(
        self, displacement: torch.Tensor, std: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """Part of the variance of the errors of a stack that is of a trend in time.

        Motion that is missed, or made up, is much alike on all dates, so the errors of
        a rate are larger than errors independent from date to date would make them.

        Parameters
        ----------
        displacement, std : torch.Tensor, shape (batch, time, y, x)
            As `forward` gives them.
        visible : torch.Tensor of bool, same shape

        Returns
        -------
        torch.Tensor, shape (batch,)
            0 to 1; see `StackConfig.trend_share`.
        """
        sure = _sureness(displacement, std, visible).flatten()
        share = self.config.trend_share
        if not isinstance(share, tuple):
            return torch.full_like(sure, share)
        return _between(sure, share)

    def fused(self) -> Self:
        """Return an inference copy; there is nothing to fold."""
        return copy.deepcopy(self).eval()

    def _factor(self, sure: torch.Tensor) -> torch.Tensor | float:
        """By which the standard deviation of each stack is multiplied."""
        factor = self.config.std_factor
        if not isinstance(factor, tuple):
            return factor
        return _between(sure, [math.log(f) for f in factor]).exp()

    def _combine(self, found: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised estimate and logarithm of its spread, padded."""
        shape = found.candidates.shape[:2]
        pyramid = _pyramid(found.candidates, len(self.config.channels))
        # Of the same size: each band, and the means that it is the difference from.
        bands = [a - _up(b) for a, b in pairwise(pyramid)] + [pyramid[-1]]
        evidence = [found.evidence(band) for band in bands[1:]]
        levels = self._decoded(found.inputs(pyramid[1]), evidence, found)
        estimate: torch.Tensor | None = None
        for k in reversed(range(len(levels))):
            weights, more = self.heads[k](levels[k], evidence[k])
            taken = (weights * bands[k + 1].flatten(0, 1)).sum(1) + more
            taken = taken.unflatten(0, shape)
            estimate = taken if estimate is None else _up(estimate) + taken
        assert estimate is not None
        weights, log_std = self.finest(levels[0], evidence[0])
        band = bands[0].flatten(0, 1)
        # One weight for 2 x 2 pixels: the finest band has no larger structure.
        n, c, y, x = band.shape
        fine = torch.einsum(
            "ncyaxb,ncyx->nyaxb", band.view(n, c, y // 2, 2, x // 2, 2), weights
        )
        estimate = _up(estimate) + fine.reshape(n, y, x).unflatten(0, shape)
        return estimate, _up(log_std.unflatten(0, shape))

    def _decoded(
        self, x: torch.Tensor, evidence: list[torch.Tensor], found: Features
    ) -> list[torch.Tensor]:
        """Features of every level, finest first, (batch * time, channels, y, x)."""
        batch = found.candidates.shape[0]
        x = x.contiguous(memory_format=torch.channels_last)
        levels = [self.encoder[0](self.stem(x) + self.evidence[0](evidence[0]))]
        for k, down in enumerate(self.down, 1):
            x = self.encoder[k](down(levels[-1]) + self.evidence[k](evidence[k]))
            levels.append(self.in_time[k - 1](x, found))
        top = levels[-1].unflatten(0, (batch, -1))
        seen = found.seen[:, :, None, None, None]
        mean = (top * seen).sum((1, 3, 4)) / seen.sum((1, 3, 4)) / top[0, 0, 0].numel()
        square = ((top**2) * seen).sum((1, 3, 4)) / seen.sum((1, 3, 4))
        spread = torch.sqrt(square / top[0, 0, 0].numel() + 1e-6)
        scene = self.scene(torch.cat([mean, spread], 1))
        levels[-1] = (top + scene[:, None, :, None, None]).flatten(0, 1)
        for k in reversed(range(len(levels) - 1)):
            wide = functional.interpolate(
                levels[k + 1], scale_factor=2.0, mode="nearest"
            )
            levels[k] = self.decoder[k](self.join[k](torch.cat([levels[k], wide], 1)))
        return levels


def recovery_gain(sure: Any, recovery: float) -> Any:
    """By which the estimate of a stack is multiplied (`StackConfig.recovery`).

    Parameters
    ----------
    sure : torch.Tensor or numpy.ndarray
        Rms of the estimate over that of its standard deviation, before both are
        multiplied.
    recovery : float
    """
    low, high = RECOVERED
    share = ((sure - low) / (high - low)).clip(0, 1)
    return 1 + recovery * share / sure.clip(low) ** 2


def _between(sure: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
    """What lies between values given at `FOUND`."""
    at = sure.log()
    total = torch.full_like(at, values[0])
    for ends, (before, after) in zip(pairwise(FOUND), pairwise(values), strict=True):
        low, high = map(math.log, ends)
        total += (after - before) * ((at - low) / (high - low)).clamp(0, 1)
    return total


@torch.no_grad()
def _sureness(
    displacement: torch.Tensor, std: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """Rms of the estimate of each stack over that of its spread, (batch, 1, 1, 1)."""
    power, stated = (
        torch.where(visible, a**2, 0.0).sum((1, 2, 3), keepdim=True)
        for a in (displacement, std)
    )
    return (power / stated).sqrt()


class _Head(nn.Module):
    """Weights of the candidates of a band, and a last channel.

    Those of the estimates of the whole displacement are positive and have a sum of at
    most one: steady motion, which most candidates keep exactly, is kept as soon as
    that sum is one. It starts as a Wiener filter would, at signal over noise, and with
    little weight for candidates that differ from the series by more than its noise. The
    trends have weights of either sign.
    """

    def __init__(self, channels: int, candidates: int) -> None:
        super().__init__()
        # Shares of the candidates, trends, how much of it all, and the last channel.
        self.layer = nn.Conv2d(channels, candidates + 2, 1)
        self.trust = nn.Parameter(torch.tensor(TRUST))
        self.doubt = nn.Parameter(torch.tensor(DOUBT))
        assert self.layer.bias is not None
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        with torch.no_grad():
            self.layer.bias[START] = 4.0

    def forward(
        self, x: torch.Tensor, evidence: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # In full precision: weights must be right to better than 1 %.
        with torch.autocast(x.device.type, enabled=False):
            out = self.layer(x.to(self.trust.dtype))
            size, misfit = evidence.tensor_split([len(TRUST)], 1)
            prior = torch.einsum("nkyx,k->nyx", size, self.trust)[:, None]
            near, far = misfit.relu().chunk(2, 1)
            shares = out[:, : -TRENDS - 2] - self.doubt[0] * near - self.doubt[1] * far
            taken = (out[:, -2:-1] + prior).sigmoid()
            weights = torch.cat(
                [shares.softmax(1) * taken, out[:, -TRENDS - 2 : -2]], 1
            )
        return weights, out[:, -1]


class _Block(nn.Module):
    """Residual block of two convolutions; no norm, for amplitudes are evidence."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.second.weight *= 0.3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(functional.relu(self.first(x)))


class _Attention(nn.Module):
    """Attention of every pixel over the visible dates, by content and by time."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.compare = nn.Linear(channels, 2 * channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.apart = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, heads))
        with torch.no_grad():
            self.out.weight *= 0.3

    def forward(self, x: torch.Tensor, found: Features) -> torch.Tensor:
        batch, dates = found.years.shape
        channels, rows, columns = x.shape[1:]
        # (batch, pixels, dates, channels)
        tokens = x.permute(0, 2, 3, 1)
        tokens = tokens.reshape(batch, dates, rows * columns, channels).transpose(1, 2)
        compared = self.compare(self.norm(tokens)).unflatten(-1, (2, self.heads, -1))
        query, key = compared.permute(3, 0, 1, 4, 2, 5).unbind(0)
        value = self.value(tokens).unflatten(-1, (self.heads, -1)).transpose(2, 3)
        bias = self.apart(found.apart).permute(0, 3, 1, 2).to(query.dtype)
        bias = bias.masked_fill(~found.seen_dates[:, None, None, :], -math.inf)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias[:, None]
        )
        mixed = self.out(mixed.transpose(2, 3).flatten(-2))
        mixed = mixed.transpose(1, 2).reshape(batch * dates, rows, columns, channels)
        return x + mixed.permute(0, 3, 1, 2)


def _pyramid(maps: torch.Tensor, depth: int) -> list[torch.Tensor]:
    """Maps and their means over 2, 4, ... pixels."""
    found = [maps]
    for _ in range(depth):
        coarser = functional.avg_pool2d(found[-1].flatten(0, -3), 2)
        found.append(coarser.unflatten(0, maps.shape[:-2]))
    return found


def _up(maps: torch.Tensor) -> torch.Tensor:
    """Twice as many pixels a side, linear between them."""
    flat = maps.flatten(0, -3)[:, None]
    flat = functional.interpolate(
        flat, scale_factor=2.0, mode="bilinear", align_corners=False
    )
    return flat[:, 0].unflatten(0, maps.shape[:-2])
