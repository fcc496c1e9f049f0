"""Random fields with a given spectrum, and the turbulent delay of every date."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.fft

from cube_denoise.simulate.spectrum import Matern, Spectrum

Padding = Literal["exact", "double"]


def gaussian_fields(
    count: int,
    shape: tuple[int, int],
    *,
    spacing: float,
    spectra: Sequence[Spectrum],
    generator: np.random.Generator,
    anisotropy: float = 1.0,
    direction: float = 0.0,
    padding: Padding = "exact",
) -> np.ndarray:
    r"""Independent stationary Gaussian fields with a sum of spectra.

    .. math:: z(x) = \mathrm{Re} \sum_k \sqrt{S(f_k)\,\Delta f^2}\; w_k\,
              e^{2 \pi i f_k x}

    on a lattice of frequencies whose period is longer than the area by the distance at
    which points are independent (`Spectrum.reach`), so opposite edges do not meet.
    Where that would be a large grid the spectrum is split smoothly into bands, each a
    field of its own on a period that suits it: wavelengths longer than about a sixth of
    the area take a few dozen frequencies a side, whatever the length. The covariance is
    that of S within 0.001 of the variance for lengths short or long against the area,
    but for the variance of wavelengths under two pixels, which the fields lack.

    Parameters
    ----------
    count : int
        How many fields.
    shape : (int, int)
        Rows and columns.
    spacing : float
        Pixel spacing, m.
    spectra : sequence of Spectrum
        Components; their variances add.
    generator : numpy.random.Generator
        Source of randomness.
    anisotropy : float
        Ratio of the longest to the shortest correlation length; their geometric mean
        is that of the spectrum.
    direction : float
        Of the longest correlation, degrees from the column axis toward higher rows.
    padding : {"exact", "double"}
        "double" is the sampler that shipped weights were trained on, kept for
        `simulate_pair` and `simulate_scene` to repeat their numbers: one grid twice as
        long as the area. It is right for lengths up to a quarter of the area; at three
        times the area differences across it are about 30 % too small.

    Returns
    -------
    numpy.ndarray, float32, shape (count, rows, columns)

    Raises
    ------
    ValueError
        If `anisotropy` is below 1 or `spacing` not positive.
    """
    if not anisotropy >= 1:
        raise ValueError(f"{anisotropy=} must be at least 1: longest over shortest")
    if not spacing > 0:
        raise ValueError(f"{spacing=} must be positive, m")
    c, s = np.cos(np.deg2rad(direction)), np.sin(np.deg2rad(direction))
    stretch = np.sqrt(anisotropy)

    def density(fy: np.ndarray, fx: np.ndarray) -> np.ndarray:
        if anisotropy != 1.0:
            fx, fy = (c * fx + s * fy) * stretch, (-s * fx + c * fy) / stretch
        frequency = np.hypot(fx, fy)
        return np.asarray(sum(one.density(frequency) for one in spectra))

    if padding == "double":
        padded = tuple(scipy.fft.next_fast_len(2 * n) for n in shape)
        samplers = [_fine_band(density, shape, padded, spacing=spacing, low=None)]
    else:
        reach = max(one.reach for one in spectra) * float(stretch)
        samplers = _bands(density, shape, spacing=spacing, reach=reach)
    fields = np.empty((count, *shape), "float32")
    # The real and the imaginary part of one complex sum are two fields.
    for k in range(0, count, 2):
        both = np.asarray(sum(draw(generator) for draw in samplers))
        fields[k] = both.real
        if k + 1 < count:
            fields[k + 1] = both.imag
    return fields


_Density = Callable[[np.ndarray, np.ndarray], np.ndarray]
_Sampler = Callable[[np.random.Generator], np.ndarray]

_CYCLES = 3.0
"""Cycles of the longest wavelength of a band that fit in its padding: the covariance
of what is left after a smooth cut has then died away (measured: to below 1e-4)."""


def _bands(
    density: _Density, shape: tuple[int, int], *, spacing: float, reach: float
) -> list[_Sampler]:
    """Samplers, fine to coarse, whose sum has the whole spectrum.

    Each lives on a period longer than the area by `gap`. The first is the pixel grid,
    with a gap of half the side; every further gap is four times the last, up to the
    reach. A band passes what its predecessor left out.
    """
    side = float(np.sqrt(shape[0] * shape[1]))
    gap = min(reach, spacing * max(64.0, side / 2))
    padded = tuple(scipy.fft.next_fast_len(n + int(gap / spacing) + 1) for n in shape)
    cut = _CYCLES / gap if gap < reach else None
    samplers = [_fine_band(density, shape, padded, spacing=spacing, low=cut)]
    while cut is not None:
        high, gap = cut, min(reach, 4 * gap)
        cut = _CYCLES / gap if gap < reach else None
        samplers.append(
            _coarse_band(density, shape, gap, spacing=spacing, high=high, low=cut)
        )
    return samplers


def _fine_band(
    density: _Density,
    shape: tuple[int, int],
    padded: tuple[int, ...],
    *,
    spacing: float,
    low: float | None,
) -> _Sampler:
    """Sampler of all frequencies of the pixel grid above `low`, by one transform."""
    fy, fx = np.meshgrid(*(np.fft.fftfreq(n, spacing) for n in padded), indexing="ij")
    power = density(fy, fx)
    if low is not None:
        power *= 1 - _low_pass(np.hypot(fy, fx), low)
    amplitude = (np.sqrt(power) / spacing).astype("float32")
    amplitude *= np.float32(np.sqrt(padded[0] * padded[1]))

    def draw(generator: np.random.Generator) -> np.ndarray:
        white = generator.standard_normal((2, *padded), dtype="float32")
        both = scipy.fft.ifft2((white[0] + 1j * white[1]) * amplitude, workers=1)
        return np.asarray(both[: shape[0], : shape[1]])

    return draw


def _coarse_band(
    density: _Density,
    shape: tuple[int, int],
    gap: float,
    *,
    spacing: float,
    high: float,
    low: float | None,
) -> _Sampler:
    """Sampler of frequencies from `low` to twice `high`, by summing them per axis."""
    frequencies, waves = [], []
    for n in shape:
        period = n * spacing + gap
        most = int(2 * high * period)
        frequencies.append(np.arange(-most, most + 1) / period)
        phase = 2j * np.pi * np.outer(np.arange(n) * spacing, frequencies[-1])
        waves.append(np.exp(phase).astype("complex64"))
    fy, fx = np.meshgrid(*frequencies, indexing="ij")
    power = density(fy, fx) * _low_pass(np.hypot(fy, fx), high)
    if low is not None:
        power *= 1 - _low_pass(np.hypot(fy, fx), low)
    cell = np.prod([n * spacing + gap for n in shape])
    amplitude = np.sqrt(power / cell).astype("float32")

    def draw(generator: np.random.Generator) -> np.ndarray:
        white = generator.standard_normal((2, *amplitude.shape), dtype="float32")
        return np.asarray(
            waves[0] @ ((white[0] + 1j * white[1]) * amplitude) @ waves[1].T
        )

    return draw


def _low_pass(frequency: np.ndarray, cut: float) -> np.ndarray:
    """1 up to `cut`, 0 from twice that, smooth between in the logarithm."""
    octaves = np.clip(np.log2(np.maximum(frequency, 1e-30) / cut), 0, 1)
    return np.asarray(np.cos(np.pi / 2 * octaves**2 * (3 - 2 * octaves)) ** 2)


@dataclass(frozen=True)
class Turbulence:
    """How the turbulent delay of a stack behaves over space and dates.

    The defaults are this project's, guided by the literature; none is one paper's.

    Parameters
    ----------
    spectra : sequence of Spectrum
        Components of the line-of-sight delay of an ordinary date, m.
    anisotropy : float
        Ratio of the longest to the shortest correlation length, at least 1.
    azimuth : float
        Direction of the longest correlation, degrees clockwise from north, for maps
        whose first row is the northernmost.
    intermittency : float
        Standard deviation of the logarithm of a smooth field the delay is multiplied
        with, which makes it lively here and calm there; 0 leaves it Gaussian.
    intermittency_length : float
        Correlation length of that field, m.
    amplitude_spread : float
        Standard deviation of the logarithm of each date's amplitude; its median is 1.
    outlier_probability : float
        Of a bad date, 0 to 1.
    outlier_factor : float
        By which a bad date is stronger.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    spectra: Sequence[Spectrum] = (
        Matern(0.008, 12_000.0, 1 / 2),
        Matern(0.002, 2_000.0, 1 / 3),
    )
    anisotropy: float = 1.0
    azimuth: float = 0.0
    intermittency: float = 0.3
    intermittency_length: float = 10_000.0
    amplitude_spread: float = 0.4
    outlier_probability: float = 0.03
    outlier_factor: float = 3.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("intermittency", "amplitude_spread"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if not 0 <= self.outlier_probability <= 1:
            raise ValueError(
                f"outlier_probability={self.outlier_probability} must be 0 to 1"
            )


def turbulent_delays(
    count: int,
    shape: tuple[int, int],
    *,
    spacing: float,
    turbulence: Turbulence | None = None,
    generator: np.random.Generator,
) -> np.ndarray:
    r"""Turbulent line-of-sight delay of independent dates.

    .. math:: a_k\, e^{\sigma g_k(x) - \sigma^2}\, z_k(x)

    with z Gaussian of the spectra asked for, g Gaussian of unit variance, so that the
    factor's mean square is 1, and :math:`a_k` the amplitude of date k.

    Parameters
    ----------
    count : int
        Number of dates.
    shape : (int, int)
        Rows and columns.
    spacing : float
        Pixel spacing, m.
    turbulence : Turbulence, optional
        Spectra and how they vary; the defaults of the class when not given.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, float32, shape (count, rows, columns)
        m of extra path, of zero expectation; not referenced to any point.
    """
    how = turbulence or Turbulence()
    delays = gaussian_fields(
        count,
        shape,
        spacing=spacing,
        spectra=how.spectra,
        generator=generator,
        anisotropy=how.anisotropy,
        direction=how.azimuth - 90,
    )
    if how.intermittency > 0:
        exponent = gaussian_fields(
            count,
            shape,
            spacing=spacing,
            spectra=[Matern(how.intermittency, how.intermittency_length, 1.5)],
            generator=generator,
        )
        delays *= np.exp(exponent - np.float32(how.intermittency**2))
    amplitude = np.exp(generator.normal(0, how.amplitude_spread, count))
    bad = generator.random(count) < how.outlier_probability
    amplitude[bad] *= how.outlier_factor
    delays *= amplitude[:, None, None].astype("float32")
    return delays
