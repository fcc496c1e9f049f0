"""Noise of a diffusion with the spectrum of turbulence instead of a white one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Coloured:
    r"""Gaussian noise with a power law and a white part, unit variance a pixel.

    .. math:: S(f) = (1 - p)\, c\, (f^2 + f_0^2)^{\beta/2} + p

    with f in cycles per pixel and c such that the power law has mean 1 over all
    frequencies but zero, where it is 0. Correlated noise for diffusion is that of
    Voleti et al. (2022, arXiv:2210.12254).

    Parameters
    ----------
    white : float
        p, the share of the variance that is white; 1 is white noise. It must not be 0:
        where the noise has no power, a network never learns to make detail.
    slope : float
        beta, of the two-dimensional spectrum; -8/3 is turbulence at large scales.
    outer_scale : float
        1 / f_0, pixels: beyond it the spectrum levels off, so that maps of any size
        have the same.
    padding : int
        Fields are cut from a periodic grid this many times their size; 1 leaves them
        periodic.

    Raises
    ------
    ValueError
        If `white` is not in (0, 1], `outer_scale` not positive or `padding` below 1.
    """

    white: float = 0.02
    slope: float = -8 / 3
    outer_scale: float = 64.0
    padding: int = 2

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not 0 < self.white <= 1:
            raise ValueError(f"white={self.white} must be above 0 and at most 1")
        if not self.outer_scale > 0:
            raise ValueError(f"outer_scale={self.outer_scale} must be positive, pixels")
        if self.padding < 1:
            raise ValueError(f"padding={self.padding} must be at least 1")

    def density(self, shape: Sequence[int]) -> torch.Tensor:
        """S on the frequencies of ``torch.fft.rfft2`` of a map, float64, mean 1.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of the periodic grid.
        """
        rows, columns = shape
        fy = torch.fft.fftfreq(rows, dtype=torch.float64)[:, None]
        fx = torch.fft.fftfreq(columns, dtype=torch.float64)
        power = (fy**2 + fx**2 + self.outer_scale**-2) ** (self.slope / 2)
        power[0, 0] = 0.0
        power = (1 - self.white) * power / power.mean() + self.white
        return power[:, : columns // 2 + 1]

    def fields(
        self,
        count: int,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """Independent fields (count, 1, rows, columns), float32.

        Parameters
        ----------
        count : int
            How many.
        shape : (int, int)
            Rows and columns.
        generator : torch.Generator, optional
            Source of randomness, of that device; torch's own when not given.
        device : torch.device or str
            Where to draw them.
        """
        rows, columns = shape
        if self.white == 1:
            size = (count, 1, rows, columns)
            return torch.randn(size, generator=generator, device=device)
        grid = rows * self.padding, columns * self.padding
        white = torch.randn((count, 1, *grid), generator=generator, device=device)
        spectrum = torch.fft.rfft2(white) * _amplitude(self, grid, white.device)
        field = torch.fft.irfft2(spectrum, s=grid)
        return field[..., :rows, :columns]


@lru_cache(maxsize=8)
def _amplitude(
    noise: Coloured, grid: tuple[int, int], device: torch.device
) -> torch.Tensor:
    return noise.density(grid).sqrt().float().to(device)


NOISES = {"white": Coloured(white=1.0), "correlated": Coloured()}
"""Kinds of noise by name."""


def member_noise(
    noise: Coloured,
    shape: Sequence[int],
    like: torch.Tensor,
    *,
    members: int,
    seed: int,
) -> Callable[[], torch.Tensor]:
    """Noise for an ensemble that is the same wherever a tile lies in a batch or cube.

    Parameters
    ----------
    noise : Coloured
        Spectrum.
    shape : (int, int, int)
        Channels, rows and columns of a map.
    like : torch.Tensor, shape (batch, ...)
        How many maps, their device and type.
    members, seed : int
        Member k draws from a generator of its own, seeded by `seed` and k.

    Returns
    -------
    callable
        Every call draws (batch * members, channels, rows, columns), members fastest.
    """
    generators = [
        torch.Generator().manual_seed((seed << 20) + k) for k in range(members)
    ]

    def draw() -> torch.Tensor:
        fields = [noise.fields(shape[0], shape[1:], generator=g) for g in generators]
        return torch.stack(fields)[:, :, 0].to(like).repeat(len(like), 1, 1, 1)

    return draw
