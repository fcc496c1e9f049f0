"""What is added pair by pair: decorrelation, unwrapping errors and gaps."""

from dataclasses import dataclass

import numpy as np

from cube_denoise.simulate.assembly import PairedDates, apparent_phase
from cube_denoise.simulate.ground import Ground
from cube_denoise.simulate.sensor import (
    coherence_map,
    decorrelation_noise,
    temporal_decorrelation,
    unwrapping_errors,
)
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.turbulence import gaussian_fields

GAP_LENGTH = 2_000.0
"""Size of gaps, m."""


@dataclass(frozen=True)
class PairErrors:
    """What goes wrong pair by pair; everything else is drawn date by date.

    Parameters
    ----------
    looks : float
        Independent looks behind the decorrelation noise; infinity for none.
    unwrapping : float
        Probability of a pair to have a region unwrapped wrongly, 0 to 1.
    gaps : float
        Part of each pair without data, 0 to 0.5.
    """

    looks: float = 40.0
    unwrapping: float = 0.02
    gaps: float = 0.05

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.looks > 0:
            raise ValueError(f"looks={self.looks} must be positive")
        if not 0 <= self.unwrapping <= 1:
            raise ValueError(f"unwrapping={self.unwrapping} must be from 0 to 1")
        if not 0 <= self.gaps <= 0.5:
            raise ValueError(f"gaps={self.gaps} must be from 0 to 0.5")


def observe_pairs(
    dates: PairedDates,
    displacement: np.ndarray,
    delay: np.ndarray,
    *,
    wavelength: float,
    ground: Ground,
    coherence_days: float,
    errors: PairErrors,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Phase and coherence of all pairs: differences of dates, plus `errors`.

    The coherence is that of its age (`sensor.temporal_decorrelation`) plus a map common
    to all pairs; with `ground.coherence` it is that instead, and no decorrelation noise
    is added. Half of the variance of what makes gaps is common to all pairs.

    Parameters
    ----------
    dates : PairedDates
        Dates and pairs.
    displacement, delay : numpy.ndarray, shape (dates, rows, columns)
        m toward the satellite; m of extra path. NaN = no data.
    wavelength : float
        m.
    ground : Ground
        Grid, and coherence of real noise.
    coherence_days : float
        Time constant of temporal decorrelation.
    errors : PairErrors
        What goes wrong.
    generator : numpy.random.Generator
        Parent of the sources of randomness; each kind of error has its own.

    Returns
    -------
    phase, coherence : numpy.ndarray, float32, shape (pairs, rows, columns)
        rad, positive for range increase; 0..1. NaN = no data.
    """
    wrong, speckle, holes = generator.spawn(3)
    shape, spacing = ground.elevation.shape, ground.spacing
    count = dates.first.size
    cycles = unwrapping_errors(
        count,
        shape,
        spacing=spacing,
        probability=errors.unwrapping,
        generator=wrong,
    )
    relative = coherence_map(shape, spacing=spacing, mean=0.5, generator=speckle)
    phase = np.empty((count, *shape), "float32")
    coherence = np.empty_like(phase)
    for k, (i, j) in enumerate(zip(dates.first, dates.second, strict=True)):
        phase[k] = apparent_phase(displacement, delay, i, j, wavelength)
        phase[k] += 2 * np.pi * cycles[k]
        if ground.coherence is not None:
            coherence[k] = ground.coherence
            continue
        days = (dates.times[j] - dates.times[i]) / np.timedelta64(86400, "s")
        mean = temporal_decorrelation(float(days), time_constant=coherence_days)
        coherence[k] = np.clip(mean + relative - 0.5, 0.05, 0.98)
        if np.isfinite(errors.looks):
            phase[k] += decorrelation_noise(
                coherence[k], looks=errors.looks, generator=speckle
            )
    if errors.gaps > 0:
        level = gaussian_fields(
            count + 1,
            shape,
            spacing=spacing,
            spectra=[Matern(1.0, GAP_LENGTH, 1.0)],
            generator=holes,
        )
        level = level[1:] + level[0]
        least = np.quantile(level, errors.gaps, (1, 2), keepdims=True)
        phase[level < least] = np.nan
    coherence[np.isnan(phase)] = np.nan
    return phase, coherence
