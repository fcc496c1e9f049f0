"""Synthetic deformation on real noise: single pairs."""

import numpy as np

from cube_denoise.conventions import los_unit_vector
from cube_denoise.simulate.noise_bank import NoiseBank, RealNoise
from cube_denoise.simulate.pair import SimulatedPair
from cube_denoise.simulate.seeds import child_seeds
from cube_denoise.simulate.sources import draw_deformation

MOST = 0.3
"""Largest deformation of `transplant_pair`, m."""


def transplant_pair(
    noise: NoiseBank,
    shape: tuple[int, int],
    *,
    seed: np.random.SeedSequence | int,
    snr: float | None = None,
    deforming: bool | None = None,
) -> SimulatedPair:
    """Draw a pair as `simulate_pair` does, but on the noise of a user's own stack.

    Deformation and ratio of powers are drawn from the ranges of `simulate_pair`;
    terrain, coherence, gaps and noise are those of the bank.

    Parameters
    ----------
    noise : NoiseBank
        Of either kind.
    shape : (int, int)
        Rows and columns.
    seed : numpy.random.SeedSequence or int
        The same seed and bank give the same pair.
    snr : float, optional
        Power of the deformation over power of the noise, means removed; log-uniform in
        0.01 to 30 when not given. The deformation stays below 30 cm, whatever is asked.
    deforming : bool, optional
        False for pure noise; drawn (90 % True) when not given.

    Returns
    -------
    SimulatedPair

    Raises
    ------
    ValueError
        If the bank's scene is smaller than `shape`, or too full of gaps.
    """
    if not isinstance(seed, np.random.SeedSequence):
        seed = np.random.SeedSequence(seed)
    cut, moving = map(np.random.default_rng, child_seeds(seed, 2))
    real = noise.draw(shape, cut)
    heading = moving.choice([-12.0, -168.0]) + moving.uniform(-4, 4)
    ratio = 10 ** moving.uniform(-2, 1.5)
    active = moving.random() < 0.9
    unit = draw_deformation(
        *crop_coordinates(shape, real.spacing),
        line_of_sight=los_unit_vector(moving.uniform(29, 46), heading),
        generator=moving,
    )
    if deforming is None:
        deforming = active
    factor = 0.0
    if deforming:
        factor = scale_to_snr(unit, real.displacement, ratio if snr is None else snr)
    return on_real_noise(min(factor, MOST) * unit, real)


def crop_coordinates(
    shape: tuple[int, int], spacing: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """East and north of pixel centres, m from the lower left one.

    `spacing` is that of rows and of columns, m.
    """
    east, north = np.meshgrid(
        np.arange(shape[1]) * spacing[1], np.arange(shape[0])[::-1] * spacing[0]
    )
    return east, north


def scale_to_snr(unit: np.ndarray, noise: np.ndarray, snr: float) -> float:
    """Factor on `unit` for a ratio of powers to `noise`, means removed.

    Only pixels at which there is noise (not NaN) count.
    """
    there = np.isfinite(noise)
    powers = float(np.var(noise[there])), float(np.var(unit[there]))
    return float(np.sqrt(snr * powers[0] / max(powers[1], 1e-12)))


def on_real_noise(truth: np.ndarray, real: RealNoise) -> SimulatedPair:
    """Add deformation (rows, columns), m toward the satellite, to a draw of noise."""
    there = np.isfinite(real.displacement)
    return SimulatedPair(
        (truth + real.displacement).astype("float32"),
        truth.astype("float32"),
        real.elevation,
        real.coherence,
        float(np.var(truth[there]) / np.var(real.displacement[there])),
    )
