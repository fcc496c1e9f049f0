"""The convolutional autoencoder of Rouet-Leduc et al. (2021), in our reading.

What the paper says: a purely convolutional network from a noisy displacement series to
the displacement accumulated over it; time shrinks in the encoder, ground elevation
enters in the decoder. The rest (nine dates, kernels, widths, depths) is inferred from
what came after it; no code of the authors is public.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

CENTIMETRES = 100.0
"""In a metre."""
SLOPE = 0.1
"""Of the rectifiers, for negative values."""


@dataclass(frozen=True)
class SeriesAutoencoderConfig:
    """Everything needed to build the network."""

    dates: int = 9
    """Dates of a series, the first one included."""
    channels: int = 64
    between: int = 1
    """Convolutions in space alone between two that shrink time."""
    decoder: int = 5
    """Convolutions with elevation before the last one."""

    def __post_init__(self) -> None:
        if self.dates < 2:
            raise ValueError(f"dates={self.dates} must be at least 2")
        if self.between < 0 or self.decoder < 1:
            raise ValueError(
                f"between={self.between} must be at least 0 and "
                f"decoder={self.decoder} at least 1"
            )


class SeriesAutoencoder(nn.Module):
    """Displacement between the first and the last date, from a noisy series.

    Convolutions of three dates without padding shrink the time axis by two each, 9, 7,
    5, 3, 1; with an even number of dates the last one spans two. With the default
    configuration 13 convolutions, 630,913 parameters and a field of 27 pixels.

    Edges are reflected: a zero would mean "did not move", and noise that is correlated
    in space goes on beyond an edge much as it was before it.
    """

    def __init__(self, config: SeriesAutoencoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or SeriesAutoencoderConfig()
        c, left = self.config.channels, self.config.dates
        encoder: list[nn.Conv3d] = []
        while left > 1:
            span = min(3, left)
            encoder.append(_conv3d(c if encoder else 1, c, span))
            left -= span - 1
            if left > 1:
                encoder += [_conv3d(c, c, 1) for _ in range(self.config.between)]
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(
            _conv2d(c if k else c + 2, c) for k in range(self.config.decoder)
        )
        self.output = _conv2d(c, 1)
        self.receptive_radius = len(encoder) + self.config.decoder + 1
        """Pixels beyond which the series does not change an output pixel."""
        self.relative_elevation = True
        """Elevation is given from 0 to 1."""
        self.states_std = False
        """Standard deviations are NaN."""
        self.smallest_side = 2
        """Pixels a side that a map must have at least, for edges to be reflected."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight, SLOPE)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        # Start as the network that sees no displacement.
        nn.init.zeros_(self.output.weight)

    def forward(self, series: torch.Tensor, elevation: torch.Tensor) -> torch.Tensor:
        """Displacement between the first and the last date.

        Parameters
        ----------
        series : torch.Tensor, shape (batch, dates, y, x)
            Displacement since the first date, cm, without gaps.
        elevation : torch.Tensor, shape (batch, y, x)
            From 0 to 1, as `relative_elevation` makes it.

        Returns
        -------
        torch.Tensor, shape (batch, 1, y, x)
            cm.

        Raises
        ------
        ValueError
            If `series` has another number of dates.
        """
        if series.shape[1] != self.config.dates:
            raise ValueError(
                f"series has {series.shape[1]} dates: must be {self.config.dates}; "
                "see `slide` for others"
            )
        x = series[:, None]
        for convolution in self.encoder:
            x = functional.leaky_relu(convolution(x), SLOPE)
        x = torch.cat([x[:, :, 0], torch.stack([elevation, elevation**2], 1)], 1)
        for convolution in self.decoder:
            x = functional.leaky_relu(convolution(x), SLOPE)
        return self.output(x)

    def whole_stack(
        self,
        series: torch.Tensor,
        visible: torch.Tensor,
        years: torch.Tensor,
        elevation: torch.Tensor,
        coherence: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Displacement of all dates, by `slide`; given what the stack network is.

        Parameters
        ----------
        series : torch.Tensor, shape (batch, time, y, x)
            Displacement, m, since whichever date. Gaps are filled in time.
        visible : torch.Tensor of bool, shape (batch, time, y, x)
            Where it is known.
        years : torch.Tensor, shape (batch, time)
            Increasing.
        elevation : torch.Tensor, shape (batch, y, x)
            From 0 to 1 over the whole scene, as `relative_elevation` makes it.
        coherence : torch.Tensor
            Not used.

        Returns
        -------
        displacement : torch.Tensor, shape (batch, time, y, x)
            m, since the first date.
        std : torch.Tensor
            NaN: this network does not know it.
        """
        filled = fill_in_time(series, visible, years)
        moved = slide(self, CENTIMETRES * filled, elevation) / CENTIMETRES
        return moved, torch.full_like(moved, torch.nan)

    def fused(self) -> "SeriesAutoencoder":
        """Return an inference copy, its weights laid out for quick convolutions."""
        fused = copy.deepcopy(self).eval()
        for module in fused.modules():
            if isinstance(module, nn.Conv3d):
                weight = module.weight.data
                module.weight.data = weight.contiguous(
                    memory_format=torch.channels_last_3d
                )
        return fused


def fill_in_time(
    series: torch.Tensor, visible: torch.Tensor, years: torch.Tensor
) -> torch.Tensor:
    """Fill each pixel's gaps linearly in time, beyond its dates with the nearest.

    Parameters are those of `SeriesAutoencoder.whole_stack`; pixels that are never
    visible become 0.
    """
    last = series.shape[1] - 1
    number = torch.arange(last + 1, device=series.device)[:, None, None]
    before = torch.where(visible, number, -1).cummax(1).values
    after = torch.where(visible, number, last + 1).flip(1).cummin(1).values.flip(1)
    before, after = (
        torch.where(before < 0, after, before).clamp(max=last),
        torch.where(after > last, before, after).clamp(min=0),
    )
    time = years[:, :, None, None].expand_as(series)
    begin, end = time.gather(1, before), time.gather(1, after)
    share = torch.where(after > before, (time - begin) / (end - begin), 0)
    known = torch.where(visible, series, 0)
    low, high = known.gather(1, before), known.gather(1, after)
    return low + share * (high - low)


def relative_elevation(elevation: torch.Tensor) -> torch.Tensor:
    """Elevation from 0 at the lowest to 1 at the highest pixel of each map.

    In training the maps are patches. For a scene that is computed by tiles, call it
    once for the whole scene, or the tiles will not agree.

    Parameters
    ----------
    elevation : torch.Tensor, shape (batch, y, x)
        Any unit, without gaps.

    Returns
    -------
    torch.Tensor, shape (batch, y, x)
        0 where a map is flat.
    """
    low, high = elevation.aminmax(dim=2, keepdim=True)
    low, high = low.amin(1, keepdim=True), high.amax(1, keepdim=True)
    return (elevation - low) / torch.where(high > low, high - low, 1)


def slide(
    model: SeriesAutoencoder, series: torch.Tensor, elevation: torch.Tensor
) -> torch.Tensor:
    """Denoise a series of any length with a network that sees a few dates at once.

    The window starts at every date but the last and at ``T - 2`` places before the
    first; where it reaches beyond the series, its first or last date is repeated. With
    N dates, T = `model.config.dates` and positions held to 0..N-1, window k gives

        D[k] = d[k + T - 1] - d[k],    k = -(T - 2) .. N - 2.

    The series d, with d[0] = 0, is the least-squares solution of these N + T - 3
    equations: increments are integrated, and where windows overlap they are averaged.
    Without windows that reach beyond, there would be fewer equations than dates. Where
    windows of 9 of 60 dates err independently, no date errs by more than 1.6 times as
    much as one of them. What the paper does with longer series is not known.

    Parameters
    ----------
    model : SeriesAutoencoder
        Called with each window, since its first date.
    series : torch.Tensor, shape (batch, time, y, x)
        Displacement, cm, without gaps; since which date does not matter.
    elevation : torch.Tensor, shape (batch, y, x)
        From 0 to 1, as `relative_elevation` makes it.

    Returns
    -------
    torch.Tensor, shape of `series`
        Displacement since the first date, cm.

    Raises
    ------
    ValueError
        If `series` has fewer than two dates.
    """
    number, dates = series.shape[1], model.config.dates
    if number < 2:
        raise ValueError(f"series has {number} dates: must have at least 2")
    out = torch.zeros_like(series)
    for start, weights in zip(*_equations(number, dates), strict=True):
        seen = torch.arange(start, start + dates).clamp(0, number - 1)
        window = series[:, seen] - series[:, seen[:1]]
        moved = model(window, elevation)
        out += weights.to(out)[:, None, None] * moved
    return out


def _equations(number: int, dates: int) -> tuple[range, torch.Tensor]:
    """First dates of the windows, and what each adds to every date."""
    starts = range(2 - dates, number - 1)
    ends = torch.eye(number, dtype=torch.float64)
    first = torch.tensor(starts)
    last = (first + dates - 1).clamp(max=number - 1)
    differences = ends[last] - ends[first.clamp(min=0)]
    weights = torch.zeros(len(starts), number, dtype=torch.float64)
    weights[:, 1:] = torch.linalg.pinv(differences[:, 1:]).mT
    return starts, weights


def _conv3d(inputs: int, outputs: int, span: int) -> nn.Conv3d:
    return nn.Conv3d(
        inputs, outputs, (span, 3, 3), padding=(0, 1, 1), padding_mode="reflect"
    )


def _conv2d(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")
