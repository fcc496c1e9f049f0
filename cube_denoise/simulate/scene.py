"""A whole stack with known truth: dates first, then differenced into pairs."""

import numpy as np
from odc.geo.geobox import GeoBox

from cube_denoise.conventions import (
    SENTINEL1_WAVELENGTH,
    los_unit_vector,
    years_since,
)
from cube_denoise.simulate.assembly import (
    Scene,
    apparent_phase,
    assemble,
    short_pairs,
)
from cube_denoise.simulate.atmosphere import (
    bilinear_ramp,
    self_affine_terrain,
    stratified_delay,
)
from cube_denoise.simulate.deformation import mogi, okada
from cube_denoise.simulate.seeds import SCENE_SEED
from cube_denoise.simulate.sensor import (
    coherence_map,
    decorrelation_noise,
    gap_mask,
    temporal_decorrelation,
)
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.surface import subsidence_bowl
from cube_denoise.simulate.turbulence import gaussian_fields


def simulate_scene(
    *,
    size: int = 256,
    spacing: float = 100.0,
    dates: int = 16,
    interval_days: int = 12,
    max_temporal_baseline: int = 36,
    rate: float = 0.05,
    gaps: float = 0.05,
    seed: int = 0,
) -> Scene:
    """Simulate a volcano, a creeping fault and a subsiding basin seen by Sentinel-1.

    Every date has its own turbulence (two scales), stratified delay and ramp; pairs are
    differences of dates, so closure holds but for decorrelation noise, which is drawn
    per pair from its coherence. Deformation is linear in time. The scene of a seed is
    quoted in the documentation, so its fields are drawn with ``padding="double"``: on
    areas shorter than 48 km the turbulence is somewhat smoother than its 12 km.

    Parameters
    ----------
    size : int
        Rows and columns.
    spacing : float
        Pixel spacing, m.
    dates : int
        Number of acquisitions.
    interval_days : int
        Days between them.
    max_temporal_baseline : int
        Longest pair, days.
    rate : float
        Largest line-of-sight rate, m/yr.
    gaps : float
        Fraction of each pair without data, 0..0.5.
    seed : int
        The same seed gives the same scene.

    Returns
    -------
    Scene

    Raises
    ------
    ValueError
        If there are fewer than two dates or no pair is short enough.
    """
    if dates < 2:
        raise ValueError(f"{dates=} must be at least 2")
    if max_temporal_baseline < interval_days:
        raise ValueError(
            f"{max_temporal_baseline=} must be at least {interval_days=}: no pair is "
            "left"
        )
    rng = np.random.default_rng(np.random.SeedSequence([SCENE_SEED, seed]))
    incidence, heading, shape = 39.0, -12.0, (size, size)
    los = los_unit_vector(incidence, heading)
    grid = GeoBox.from_bbox(
        (500_000, 2_000_000, 500_000 + size * spacing, 2_000_000 + size * spacing),
        crs="EPSG:32613",
        resolution=spacing,
    )
    elevation = self_affine_terrain(
        shape, spacing=spacing, relief=1200.0, generator=rng, padding="double"
    )
    velocity = rate * _rates(size * spacing, shape, los, rng)
    times = np.datetime64("2023-01-05T00:40:20", "s") + np.arange(
        dates
    ) * np.timedelta64(interval_days, "D")
    years = years_since(times, times[0])
    displacement = (years[:, None, None] * velocity).astype("float32")
    delay = _delays(dates, elevation, spacing, incidence, rng)

    paired = short_pairs(times, max_temporal_baseline)
    base_coherence = coherence_map(
        shape, spacing=spacing, mean=0.0, generator=rng, padding="double"
    )
    orbit = rng.normal(0, 60, dates)
    phase = np.empty((len(paired.first), *shape), "float32")
    coherence = np.empty_like(phase)
    for k, (i, j) in enumerate(zip(paired.first, paired.second, strict=True)):
        mean = temporal_decorrelation(float(j - i) * interval_days)
        coherence[k] = np.clip(mean + base_coherence - 0.05, 0.05, 0.98)
        phase[k] = apparent_phase(displacement, delay, i, j, SENTINEL1_WAVELENGTH)
        phase[k] += decorrelation_noise(coherence[k], looks=40, generator=rng)
        phase[k] += rng.normal(0, 3)  # each pair has its own constant
        missing = ~gap_mask(
            shape, spacing=spacing, fraction=gaps, generator=rng, padding="double"
        )
        phase[k, missing] = np.nan
        coherence[k, missing] = np.nan

    return assemble(
        grid=grid,
        dates=paired,
        orbit=orbit,
        layers={
            "unwrapped_phase": phase,
            "coherence": coherence,
            "elevation": elevation,
        },
        line_of_sight=los,
        attributes={
            "wavelength": SENTINEL1_WAVELENGTH,
            "heading": heading,
            "track": "A005",
        },
        truth={
            "displacement": displacement,
            "velocity": velocity.astype("float32"),
            "delay": delay,
        },
        truth_attributes={"seed": seed},
    )


def _rates(
    extent: float,
    shape: tuple[int, int],
    los: tuple[float, float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Line-of-sight rates with a largest magnitude of 1."""
    axis = (np.arange(shape[0]) + 0.5) / shape[0] * extent
    east, north = np.meshgrid(axis, axis[::-1])
    jitter = rng.uniform(-0.08, 0.08, 6) * extent
    volcano = mogi(
        east,
        north,
        depth=0.1 * extent,
        volume_change=1e6,
        centre=(0.3 * extent + jitter[0], 0.7 * extent + jitter[1]),
    ).along(los)
    basin = subsidence_bowl(
        east,
        north,
        subsidence=1.0,
        sigma=(0.1 * extent, 0.06 * extent),
        azimuth=rng.uniform(0, 180),
        centre=(0.72 * extent + jitter[2], 0.68 * extent + jitter[3]),
    ).along(los)
    fault = okada(
        east,
        north,
        depth=0.06 * extent,
        strike=rng.uniform(0, 360),
        dip=60.0,
        length=0.3 * extent,
        width=0.08 * extent,
        slip=1.0,
        rake=90.0,
        centre=(0.5 * extent + jitter[4], 0.25 * extent + jitter[5]),
    ).along(los)
    parts = [p / np.abs(p).max() for p in (volcano, basin, fault)]
    total = 0.8 * parts[0] + 1.0 * parts[1] + 0.4 * parts[2]
    return np.asarray(total / np.abs(total).max())


def _delays(
    dates: int,
    elevation: np.ndarray,
    spacing: float,
    incidence: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Delay of every date, m, float32, shape (dates, rows, columns)."""
    shape = (elevation.shape[0], elevation.shape[1])
    turbulence = gaussian_fields(
        dates,
        shape,
        spacing=spacing,
        spectra=[Matern(0.008, 12_000.0, 0.5), Matern(0.002, 2_000.0, 1 / 3)],
        generator=rng,
        padding="double",
    )
    turbulence *= 10 ** rng.normal(0, 0.17, (dates, 1, 1)).astype("float32")
    delay = turbulence + stratified_delay(
        elevation, incidence=incidence, variability=0.4, generator=rng, count=dates
    )
    for one in delay:
        one += bilinear_ramp(shape, amplitude=0.006, generator=rng)
    return delay
