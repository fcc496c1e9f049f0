"""Power spectra of random fields: what turbulence and other noise look like in space.

A spectrum is the two-dimensional power spectral density S(f), squared unit of the
field per (cycle/m)^2, f the radial frequency; the integral of ``2 pi f S(f) df`` is the
variance. The slope of a one-dimensional profile is that of S plus one.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from scipy.special import j0


class Spectrum(Protocol):
    """What `gaussian_fields` needs to know of a stationary isotropic field."""

    def density(self, frequency: np.ndarray) -> np.ndarray:
        """S(f), f in cycles per m."""

    @property
    def reach(self) -> float:
        """Distance at which points are independent, to some 1e-4 of the variance; m."""


@dataclass(frozen=True)
class Matern:
    r"""Matérn (von Kármán) spectrum.

    .. math:: S(f) = s^2\, \frac{4 \pi \nu (2\nu)^\nu}{l^{2\nu}}
              \left(\frac{2\nu}{l^2} + 4 \pi^2 f^2\right)^{-(\nu+1)}

    Parameters
    ----------
    std : float
        Standard deviation s of the field, in its own unit.
    length : float
        Correlation length l, m.
    smoothness : float
        nu; 1/2 is the covariance s^2 exp(-r/l), 1/3 gives the -8/3 slope of
        turbulence at large scales, 5/6 the -11/3 slope at small ones.

    Raises
    ------
    ValueError
        If `std` is negative, or `length` or `smoothness` not positive.
    """

    std: float
    length: float
    smoothness: float

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not self.std >= 0:
            raise ValueError(f"std={self.std} must not be negative")
        for name in ("length", "smoothness"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")

    def density(self, frequency: np.ndarray) -> np.ndarray:
        """S(f), f in cycles per m."""
        nu = self.smoothness
        constant = (
            self.std**2 * 4 * np.pi * nu * (2 * nu) ** nu / self.length ** (2 * nu)
        )
        wavenumber = 2 * np.pi * frequency
        return constant * (2 * nu / self.length**2 + wavenumber**2) ** -(nu + 1)

    @property
    def reach(self) -> float:
        """Distance at which points are independent, m."""
        return 10 * self.length / float(np.sqrt(2 * self.smoothness))


@dataclass(frozen=True)
class PowerLaw:
    r"""Power law with several regimes, cut at an outer and an inner scale.

    .. math:: S(f) \propto (f^2 + f_0^2)^{\beta_1/2}

    up to the first break, then :math:`f^{\beta_2}`, :math:`f^{\beta_3}` and so on,
    continuous, and zero beyond ``1 / inner_scale``. :math:`f_0` is ``1 / outer_scale``:
    below it S levels off, so that the variance is finite. The default regimes are those
    of Hanssen (2001), whose one-dimensional slopes -5/3, -8/3, -2/3 are one steeper
    in S.

    Parameters
    ----------
    std : float
        Standard deviation of the whole field, in its own unit; most of it is in
        wavelengths near the outer scale. `from_structure` takes differences instead.
    outer_scale : float
        m.
    breaks : tuple of float
        Wavelengths between the regimes, m, falling.
    slopes : tuple of float
        Of S against f in log-log, one more than breaks.
    inner_scale : float
        Shortest wavelength, m.

    Raises
    ------
    ValueError
        If the scales do not fall from outer to inner, or breaks and slopes do not fit.
    """

    std: float
    outer_scale: float = 50_000.0
    breaks: tuple[float, ...] = (1500.0, 250.0)
    slopes: tuple[float, ...] = (-8 / 3, -11 / 3, -5 / 3)
    inner_scale: float = 20.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not self.std >= 0:
            raise ValueError(f"std={self.std} must not be negative")
        scales = (self.outer_scale, *self.breaks, self.inner_scale)
        if not (np.all(np.diff(scales) < 0) and scales[-1] > 0):
            raise ValueError(
                f"outer_scale, *breaks, inner_scale = {scales} must fall, in m"
            )
        if len(self.slopes) != len(self.breaks) + 1:
            raise ValueError(
                f"slopes={self.slopes} must be one more than breaks={self.breaks}"
            )

    @classmethod
    def from_structure(
        cls, sigma: float, *, distance: float = 1000.0, **regimes: Any
    ) -> Self:
        """Make the power law whose differences over `distance` are `sigma`.

        Parameters
        ----------
        sigma : float
            Standard deviation of z(x + r) - z(x), in the unit of the field.
        distance : float
            r, m.
        **regimes
            ``outer_scale``, ``breaks``, ``slopes``, ``inner_scale``.
        """
        unit = cls(std=1.0, **regimes)
        return replace(unit, std=sigma / structure_function(unit, distance) ** 0.5)

    def density(self, frequency: np.ndarray) -> np.ndarray:
        """S(f), f in cycles per m."""
        f = np.asarray(frequency, float)
        shape = self._rolled_off(f)
        level = self._rolled_off(1 / self.breaks[0]) if self.breaks else 0.0
        for k, edge in enumerate(1 / np.array(self.breaks)):
            beyond = f > edge
            shape[beyond] = level * (f[beyond] / edge) ** self.slopes[k + 1]
            if k + 1 < len(self.breaks):
                level *= (self.breaks[k] / self.breaks[k + 1]) ** self.slopes[k + 1]
        shape[f > 1 / self.inner_scale] = 0.0
        return self.std**2 / self._variance() * shape

    @property
    def reach(self) -> float:
        """Distance at which points are independent, m."""
        return 10 * self.outer_scale / (2 * np.pi)

    def _rolled_off(self, frequency: Any) -> Any:
        return (frequency**2 + self.outer_scale**-2) ** (self.slopes[0] / 2)

    def _variance(self) -> float:
        """Integral of ``2 pi f`` times the shape, regime by regime."""
        edges = [1 / scale for scale in (*self.breaks, self.inner_scale)]
        f0 = 1 / self.outer_scale
        total = _integral(f0, np.hypot(edges[0], f0), self.slopes[0])
        level = self._rolled_off(edges[0])
        for low, high, slope in zip(edges, edges[1:], self.slopes[1:], strict=False):
            total += level * low**-slope * _integral(low, high, slope)
            level *= (high / low) ** slope
        return total


def _integral(low: float, high: float, slope: float) -> float:
    """Integral of ``2 pi f f^slope`` from `low` to `high`."""
    if slope == -2:
        return 2 * np.pi * float(np.log(high / low))
    return 2 * np.pi * (high ** (slope + 2) - low ** (slope + 2)) / (slope + 2)


def structure_function(spectrum: Spectrum, distance: float) -> float:
    r"""Mean squared difference of a field between points a distance apart.

    .. math:: D(r) = 2 \int_0^\infty S(f)\, [1 - J_0(2 \pi f r)]\, 2 \pi f\, df

    Parameters
    ----------
    spectrum : Spectrum
        Of the field.
    distance : float
        r, m.

    Returns
    -------
    float
        Squared unit of the field.
    """
    # Beyond f r = 20 the Bessel function has died away but for 0.07.
    fine = np.geomspace(1e-5 / spectrum.reach, 20 / distance, 20_000)
    coarse = np.geomspace(20 / distance, max(20 / distance, 1.0) * 1e3, 20_000)
    total = 0.0
    for f, factor in ((fine, 1 - j0(2 * np.pi * fine * distance)), (coarse, 1.0)):
        total += float(np.trapezoid(spectrum.density(f) * factor * 2 * np.pi * f, f))
    return 2 * total
