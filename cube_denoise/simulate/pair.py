"""One interferogram with known truth: what single-image networks train on."""

from typing import NamedTuple

import numpy as np

from cube_denoise.conventions import (
    SENTINEL1_WAVELENGTH,
    los_unit_vector,
    phase_to_displacement,
)
from cube_denoise.simulate.atmosphere import (
    bilinear_ramp,
    self_affine_terrain,
    stratified_delay,
)
from cube_denoise.simulate.sensor import coherence_map, decorrelation_noise, gap_mask
from cube_denoise.simulate.sources import draw_deformation
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.turbulence import gaussian_fields


class SimulatedPair(NamedTuple):
    """Displacement maps of one pair; all arrays have shape (rows, columns)."""

    noisy: np.ndarray
    """m, positive toward the satellite, NaN = no data; deformation plus noise."""
    truth: np.ndarray
    """m, the deformation alone, everywhere."""
    elevation: np.ndarray
    """m, relative to its median."""
    coherence: np.ndarray
    """0..1"""
    snr: float
    """Power of the deformation over power of the noise, means removed."""


def simulate_pair(
    shape: tuple[int, int],
    *,
    seed: np.random.SeedSequence | int,
    snr: float | None = None,
    deforming: bool | None = None,
) -> SimulatedPair:
    """Draw a pair with random terrain, atmosphere, decorrelation and deformation.

    Each of the two dates has its own turbulence and stratified delay. Ranges are this
    project's (guided by the literature), not a paper's: pixel spacing 60-180 m;
    turbulence of 3-20 mm per date at 5-40 km plus 0.5-4 mm at 1-4 km; weather
    variability 0.2-0.7; a ramp of up to 15 mm in half the pairs; mean coherence
    0.35-0.9; gaps of up to 35 % in half the pairs.

    The shipped weights are trained on this function, so its numbers stay: its fields
    are drawn with ``padding="double"``. Turbulence and terrain longer than a quarter of
    the area come out smoother across it than asked for, by up to some 30 %.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    seed : numpy.random.SeedSequence or int
        The same seed gives the same pair.
    snr : float, optional
        Power of the deformation over power of the noise; drawn log-uniformly from
        0.01 to 30 when not given. The deformation is scaled to it.
    deforming : bool, optional
        False for pure noise; drawn (90 % True) when not given.

    Returns
    -------
    SimulatedPair
    """
    rng = np.random.default_rng(seed)
    spacing = 10 ** rng.uniform(np.log10(60), np.log10(180))
    incidence, heading = rng.uniform(29, 46), rng.choice([-12.0, -168.0])
    heading += rng.uniform(-4, 4)
    east, north = np.meshgrid(
        np.arange(shape[1]) * spacing, np.arange(shape[0])[::-1] * spacing
    )

    terrain = self_affine_terrain(
        shape,
        spacing=spacing,
        relief=10 ** rng.uniform(1.3, 3.4),
        smoothness=rng.uniform(0.8, 1.5),
        generator=rng,
        padding="double",
    )
    large, small = 10 ** rng.uniform([-2.52, -3.3], [-1.7, -2.4])
    turbulence = gaussian_fields(
        2,
        shape,
        spacing=spacing,
        spectra=[
            Matern(
                large, 10 ** rng.uniform(3.7, 4.6), rng.choice([1 / 3, 1 / 2, 5 / 6])
            ),
            Matern(small, 10 ** rng.uniform(3.0, 3.6), rng.choice([1 / 3, 1 / 2])),
        ],
        generator=rng,
        anisotropy=rng.uniform(1, 2.5),
        direction=rng.uniform(0, 180),
        padding="double",
    ) * 10 ** rng.normal(0, 0.17, (2, 1, 1))
    stratified = stratified_delay(
        terrain,
        incidence=incidence,
        variability=rng.uniform(0.2, 0.7),
        generator=rng,
        count=2,
    )
    delay = turbulence + stratified
    coherence = coherence_map(
        shape,
        spacing=spacing,
        mean=rng.uniform(0.35, 0.9),
        generator=rng,
        padding="double",
    )
    thermal = phase_to_displacement(
        decorrelation_noise(coherence, looks=rng.uniform(15, 80), generator=rng),
        SENTINEL1_WAVELENGTH,
    )
    # More delay on the later date looks like motion away: negative displacement.
    noise = -(delay[1] - delay[0]) + thermal
    if rng.random() < 0.5:
        noise = noise + bilinear_ramp(
            shape, amplitude=rng.uniform(0, 0.015), generator=rng
        )
    noise -= noise.mean()

    power_ratio = 10 ** rng.uniform(-2, 1.5)
    active = rng.random() < 0.9
    power_ratio = power_ratio if snr is None else snr
    active = active if deforming is None else deforming
    truth = draw_deformation(
        east, north, line_of_sight=los_unit_vector(incidence, heading), generator=rng
    )
    if active:
        # The peak stays below 30 cm, whatever the ratio asked for.
        factor = np.sqrt(power_ratio * noise.var() / max(float(truth.var()), 1e-12))
        truth = truth * min(factor, 0.3)
    else:
        truth = np.zeros_like(truth)
    ratio = float(truth.var() / noise.var())
    noisy = (truth + noise).astype("float32")
    if rng.random() < 0.5:
        valid = gap_mask(
            shape,
            spacing=spacing,
            fraction=rng.uniform(0, 0.35),
            length=10 ** rng.uniform(2.8, 3.6),
            generator=rng,
            padding="double",
        )
        noisy[~valid] = np.nan
    return SimulatedPair(
        noisy, truth.astype("float32"), terrain - np.median(terrain), coherence, ratio
    )
