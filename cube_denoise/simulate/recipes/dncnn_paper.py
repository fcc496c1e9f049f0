"""The recipe ``dncnn-paper``: pairs as in the poster of Li and Sagiya.

Stated there: 300 x 300 pixels of 5.5 arcsec; reference maps of a rectangular fault
(Okada, 1985) or a point source (Mogi); noise of a correlated field, a stratified delay
and a bilinear ramp, times a weight of 0.6 to 1.2; 30,000 samples for training, 1,500
for validation and 7,000 for tests, each from a region of its own; tests by decades of
the power of the deformation over that of the noise, down to 0.01.

This project's choice, for the poster does not tell: all ranges of parameters, the
covariance of the correlated noise (exponential), ratios of powers log-uniform in 0.01
to 10, 8 % of samples without deformation. The poster takes weather from HGPT2 and
splits it with ITD; here `zonal_climate` and the standard column of
`seasonal_stratified_delay` stand in. No elevation data come with this package: the
region gives latitude, climate and the width of pixels, the terrain is random.
"""

from typing import NamedTuple

import numpy as np

from cube_denoise.conventions import los_unit_vector
from cube_denoise.simulate.atmosphere import (
    bilinear_ramp,
    seasonal_stratified_delay,
    self_affine_terrain,
)
from cube_denoise.simulate.climate import zonal_climate
from cube_denoise.simulate.noise_bank import NoiseBank, RealNoise
from cube_denoise.simulate.pair import SimulatedPair
from cube_denoise.simulate.recipes.recipe import Recipe
from cube_denoise.simulate.seeds import child_seeds
from cube_denoise.simulate.sources import draw_fault, draw_mogi
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.transplant import (
    crop_coordinates,
    on_real_noise,
    scale_to_snr,
)
from cube_denoise.simulate.turbulence import gaussian_fields


class Region(NamedTuple):
    """Box of longitudes and latitudes, degrees east and north."""

    west: float
    east: float
    south: float
    north: float


REGIONS = {
    "train": Region(54, 120, 26, 37),
    "validation": Region(-120, -100, 37, 46),
    "test": Region(70, 110, 40, 50),
}
SIZES = {"train": 30_000, "validation": 1_500, "test": 7_000}
WEIGHTS = (0.6, 1.2)
PIXEL = 5.5 / 3600
"""Degrees."""

METRES_PER_DEGREE = 111_195.0
"""Of a sphere of 6,371 km."""

QUIET = 0.08
"""Part of the samples without deformation."""


def draw(
    seed: np.random.SeedSequence,
    *,
    split: str,
    shape: tuple[int, int],
    noise: NoiseBank | None,
) -> SimulatedPair:
    """Pair of a region; see the module for what is the poster's and what is not."""
    place, source, air = map(np.random.default_rng, child_seeds(seed, 3))
    region = REGIONS[split]
    latitude = place.uniform(region.south, region.north)
    incidence = place.uniform(29, 46)
    heading = place.choice([-12.0, -168.0]) + place.uniform(-4, 4)
    if noise is None:
        real = _noise(shape, latitude, incidence, air)
    else:
        real = noise.draw(shape, air)
    weighted = np.float32(air.uniform(*WEIGHTS)) * real.displacement
    find = (draw_fault, draw_mogi)[source.integers(2)]
    unit = find(
        *crop_coordinates(shape, real.spacing),
        los_unit_vector(incidence, heading),
        source,
    )
    unit *= source.choice([-1.0, 1.0]) / max(float(np.abs(unit).max()), 1e-12)
    factor = scale_to_snr(unit, weighted, 10 ** source.uniform(-2, 1))
    if source.random() < QUIET:
        factor = 0.0
    return on_real_noise(factor * unit, real._replace(displacement=weighted))


def _noise(
    shape: tuple[int, int],
    latitude: float,
    incidence: float,
    rng: np.random.Generator,
) -> RealNoise:
    """Correlated field, stratified delay and ramp of two dates, in the bank's form."""
    dy = PIXEL * METRES_PER_DEGREE
    dx = dy * float(np.cos(np.deg2rad(latitude)))
    spacing = float(np.sqrt(dy * dx))
    terrain = self_affine_terrain(
        shape,
        spacing=spacing,
        relief=10 ** rng.uniform(2, 3.6),
        smoothness=rng.uniform(0.8, 1.5),
        generator=rng,
    )
    # Of one pair, the difference of two dates is one field. Oblong pixels stretch it.
    correlated = gaussian_fields(
        1,
        shape,
        spacing=spacing,
        spectra=[
            Matern(10 ** rng.uniform(-2.3, -1.5), 10 ** rng.uniform(3.7, 4.4), 0.5)
        ],
        generator=rng,
        anisotropy=dy / dx,
    )[0]
    first = np.datetime64("2015-01-01", "s") + np.timedelta64(
        int(rng.integers(1500)), "D"
    )
    times = first + np.array([0, int(rng.integers(12, 400))], "timedelta64[D]")
    stratified = seasonal_stratified_delay(
        terrain,
        times,
        incidence=incidence,
        climate=zonal_climate(latitude),
        generator=rng,
    )
    ramp = bilinear_ramp(shape, amplitude=rng.uniform(0.02, 0.06), generator=rng)
    displacement = correlated + ramp - (stratified[1] - stratified[0])
    displacement -= displacement.mean()
    return RealNoise(
        displacement,
        terrain - np.median(terrain),
        np.ones(shape, "float32"),
        (dy, dx),
        times,
    )


DNCNN_PAPER = Recipe(
    "dncnn-paper",
    SimulatedPair,
    (300, 300),
    draw,
    sizes=SIZES,
    noise_kinds=("short-pairs", "residual"),
)
