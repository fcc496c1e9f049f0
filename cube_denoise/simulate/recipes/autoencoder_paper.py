"""The recipe ``autoencoder-paper``: series as of Rouet-Leduc et al. (2021).

Stated there: noisy series in, cumulated deformation out; small synthetic deformation of
faults under turbulent and layered delays; ground elevation is given to the network.

The generator of that paper is not public. The ranges here are those of its nearest
public relative (Costantino and Jolivet), whose comments trace it to the original; they
are not the paper's. This project's choice, where that does not tell: the peak of the
deformation, log-uniform from 1 mm to what the slip gives, so that most of it is small,
as the paper has it; frames 12 days apart; elevation of +-1 km; the history of nuisance
sources (as of the fault); the peak of a transient image (1 mm to 10 cm); the area of a
patch (2 to 20 %); the pixel of 867 m (111 km over 128).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from cube_denoise.conventions import los_unit_vector
from cube_denoise.simulate.deformation import mogi, okada
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.recipes.recipe import Recipe, SimulatedSeries
from cube_denoise.simulate.seeds import child_seeds
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.stack import power
from cube_denoise.simulate.transplant import crop_coordinates
from cube_denoise.simulate.turbulence import gaussian_fields

FRAMES = 9
DAYS = 12
PIXEL = 867.0
"""m"""

LIMIT = 0.1
"""Largest magnitude of delays, glitches and patches, m."""

LEAST_PEAK = 0.001
"""Of the deformation to be found, m."""

QUIET = 0.1
"""Part of the samples without a fault."""


@dataclass(frozen=True)
class ExponentialFilters:
    r"""Spectrum of white noises filtered with :math:`w_i\, e^{-r/\lambda_i}`, summed.

    .. math:: S(f) = \sum_i \left[ \frac{2 \pi w_i \lambda_i^2}
              {(1 + (2 \pi f \lambda_i)^2)^{3/2}} \right]^2

    One field with this spectrum is, in law, the sum of the many filtered fields.
    """

    lengths: np.ndarray
    """lambda, in pixels."""
    weights: np.ndarray
    """w"""

    def density(self, frequency: np.ndarray) -> np.ndarray:
        """S(f), f in cycles per pixel."""
        total = np.zeros(np.shape(frequency))
        for length, weight in zip(self.lengths, self.weights, strict=True):
            root = 1 + (2 * np.pi * frequency * length) ** 2
            total += (2 * np.pi * weight * length**2) ** 2 / root**3
        return total

    @property
    def reach(self) -> float:
        """Distance at which points are independent, pixels."""
        return 10 * float(self.lengths.max())


def draw(
    seed: np.random.SeedSequence,
    *,
    split: str,
    shape: tuple[int, int],
    noise: NoiseBank | None,
) -> SimulatedSeries:
    """Series of a fault under much else; see the module for where its ranges are from.

    With `noise`, its residual fields take the place of delays, glitches and patches.
    """
    moving, nuisance, air = map(np.random.default_rng, child_seeds(seed, 3))
    if noise is None:
        terrain, rest = _delays(shape, air)
        spacing = (PIXEL, PIXEL)
    else:
        real = noise.draw_series(FRAMES, shape, air)
        terrain, rest, spacing = real.elevation, real.displacement, real.spacing
    east, north = crop_coordinates(shape, spacing)
    los = los_unit_vector(moving.uniform(35, 40), moving.uniform(0, 360))
    truth = np.zeros((FRAMES, *shape))
    if moving.random() >= QUIET:
        fault = _fault(east, north, los, moving)
        largest = float(np.abs(fault).max())
        fault *= (LEAST_PEAK / largest) ** moving.uniform(0, 1)
        truth = _in_time(fault, moving)
        truth -= truth[0]
    rest = rest + _nuisance(east, north, los, nuisance)
    noisy = truth + rest
    if noise is None:
        noisy = _glitches(noisy, air)
    disturbance = power(noisy - truth)
    return SimulatedSeries(
        noisy.astype("float32"),
        truth.astype("float32"),
        (terrain - np.median(terrain)).astype("float32"),
        np.arange(FRAMES) * DAYS / 365.25,
        power(truth) / disturbance,
    )


def _fault(
    east: np.ndarray,
    north: np.ndarray,
    los: tuple[float, float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Line-of-sight displacement of a fault, m, with a peak of 1 mm at least."""
    width, dip = rng.uniform(5e3, 20e3), rng.uniform(30, 90)
    centre = tuple(float(a.max() * rng.uniform(0.025, 0.975)) for a in (east, north))
    moved = okada(
        east,
        north,
        depth=rng.uniform(0, 20e3) + width / 2 * np.sin(np.deg2rad(dip)),
        strike=rng.uniform(0, 360),
        dip=dip,
        length=rng.uniform(50e3, 250e3),
        width=width,
        slip=rng.uniform(0, 5),
        rake=rng.uniform(-180, 180),
        centre=(centre[0], centre[1]),
    ).along(los)
    peak = float(np.abs(moved).max())
    return moved * max(1.0, LEAST_PEAK / max(peak, 1e-12))


def _in_time(field: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Field times a Gaussian distribution function of time, 0 to 1 or 0 to -1."""
    frames = np.arange(FRAMES, dtype=float)
    frames[rng.integers(FRAMES)] += rng.uniform(-0.5, 0.5)
    onset = rng.uniform(-4, 13)
    outside = not 0 <= onset <= FRAMES - 1
    history = ndtr((frames - onset) / rng.uniform(2.0 if outside else 0.1, 4.0))
    history = (history - history.min()) / max(float(np.ptp(history)), 1e-12)
    return np.asarray(rng.choice([-1, 1]) * history[:, None, None] * field)


def _nuisance(
    east: np.ndarray,
    north: np.ndarray,
    los: tuple[float, float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Motion that is not to be found, m, shape (FRAMES, rows, columns)."""
    total = np.zeros((FRAMES, *east.shape))
    if rng.random() < 0.5:
        centre = tuple(float(rng.uniform(0, a.max())) for a in (east, north))
        source = mogi(
            east,
            north,
            depth=rng.uniform(300, 2000),
            volume_change=rng.uniform(5e4, 5e5),
            centre=(centre[0], centre[1]),
        ).along(los)
        peak = max(float(np.abs(source).max()), 1e-12)
        total += _in_time(source * rng.uniform(0.01, 1.0) / peak, rng)
    if rng.random() < 0.5:  # an old fault: constant in time
        total += _fault(east, north, los, rng)
    if rng.random() < 0.5:  # an image in one frame or two
        image = _fault(east, north, los, rng)
        image *= 10 ** rng.uniform(-3, -1) / max(float(np.abs(image).max()), 1e-12)
        first = int(rng.integers(FRAMES))
        total[first : first + int(rng.integers(1, 3))] += image
    return total


def _delays(
    shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Elevation, m, and delays of all frames as displacement, m."""
    side = float(max(shape))
    surface = gaussian_fields(
        1,
        shape,
        spacing=1.0,
        spectra=[Matern(1.0, 10 * side, rng.uniform(0.5, 3))],
        generator=rng,
    )[0]
    h = 2 * (surface - surface.min()) / max(float(np.ptp(surface)), 1e-12) - 1
    linear, quadratic = rng.uniform(0, 10, 2)
    gain = rng.normal(1, 1, (FRAMES, 1, 1))
    stratified = gain * (linear * h + quadratic * h**2)
    lengths = 3 + 997 * rng.beta(1, 3.5, 100)
    turbulence = gaussian_fields(
        FRAMES,
        shape,
        spacing=1.0,
        spectra=[ExponentialFilters(lengths, rng.uniform(0.1, 1, 100) / lengths)],
        generator=rng,
    )
    total = stratified + rng.uniform(0, 10) * turbulence
    low, high = np.sort(rng.uniform(-LIMIT, LIMIT, 2))
    scaled = (total - total.min()) / max(float(np.ptp(total)), 1e-12)
    offsets = rng.normal(0, LIMIT / 3, (FRAMES, 1, 1))
    return 1000.0 * h, low + (high - low) * scaled + offsets


def _glitches(noisy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace single pixels of each frame and, in a tenth of samples, a patch."""
    noisy = noisy.copy()
    for frame in noisy:
        hit = rng.random(frame.shape) < 10 ** rng.uniform(-4, -1)
        frame[hit] = rng.uniform(-LIMIT, LIMIT, int(hit.sum()))
    if rng.random() < 0.1:
        shape = noisy.shape[1:]
        level = gaussian_fields(
            1,
            (shape[0], shape[1]),
            spacing=1.0,
            spectra=[Matern(1.0, max(shape) / 4, 1.0)],
            generator=rng,
        )[0]
        patch = level > np.quantile(level, 1 - rng.uniform(0.02, 0.2))
        noisy[:, patch] = rng.uniform(-LIMIT, LIMIT, (FRAMES, int(patch.sum())))
    return noisy


AUTOENCODER_PAPER = Recipe(
    "autoencoder-paper",
    SimulatedSeries,
    (128, 128),
    draw,
    noise_kinds=("residual",),
)
