"""The recipe ``poster-sources``: pairs as in the poster of Popescu et al.

Stated there: deformation of five models (earthquake, dike, point source, penny-shaped
crack, rectangular sill), "20 rad", on real interferograms of short baselines, those
with more than half missing left out.

From the group's public generator of synthetic interferograms (MIT licence): the
parameter grids, incidence and heading, 227 x 227 pixels of 100 m, and which peak-to-
peak phases a drawn model may have. Parameters between the values of a grid are drawn
evenly. This project's choice: every sample is scaled to 20 rad from peak to peak, and
sources lie anywhere in the middle four fifths of the map. Spacing, terrain and gaps are
those of the stack the noise comes from.
"""

from collections.abc import Callable

import numpy as np

from cube_denoise.conventions import displacement_to_phase, los_unit_vector
from cube_denoise.simulate.crack import penny_crack
from cube_denoise.simulate.deformation import Displacement, mogi, okada
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.pair import SimulatedPair
from cube_denoise.simulate.recipes.recipe import Recipe
from cube_denoise.simulate.seeds import child_seeds
from cube_denoise.simulate.transplant import crop_coordinates, on_real_noise

PEAK_TO_PEAK = 20.0
"""rad"""

TRIES = 100

Centre = tuple[float, float]
Model = Callable[[np.ndarray, np.ndarray, Centre, np.random.Generator], Displacement]


def _plane(top: float, bottom: float, dip: float) -> dict[str, float]:
    """Depth of the centre, width and dip of a plane between two depths, m."""
    width = (bottom - top) / np.sin(np.deg2rad(dip))
    return {"depth": (top + bottom) / 2, "width": float(width), "dip": dip}


def earthquake(
    east: np.ndarray, north: np.ndarray, centre: Centre, rng: np.random.Generator
) -> Displacement:
    """One metre of slip, mostly up or down a steep plane."""
    bottom, tops = [(6e3, (2.5e3, 3.5e3)), (10e3, (3e3, 5e3))][rng.integers(2)]
    rake = rng.uniform(60, 120) if rng.integers(2) else rng.uniform(-110, -75)
    return okada(
        east,
        north,
        **_plane(rng.uniform(*tops), bottom, rng.uniform(70, 90)),
        strike=36.0 * rng.integers(10),
        length=float(rng.choice([1.5e3, 2e3, 5e3])),
        slip=1.0,
        rake=rake,
        centre=centre,
    )


def dike(
    east: np.ndarray, north: np.ndarray, centre: Centre, rng: np.random.Generator
) -> Displacement:
    """Steep plane that opens by half a metre or three quarters."""
    bottom, tops = [(2e3, (0.25e3, 0.75e3)), (5e3, (0.5e3, 1e3))][rng.integers(2)]
    return okada(
        east,
        north,
        **_plane(rng.uniform(*tops), bottom, rng.uniform(70, 90)),
        strike=rng.uniform(0, 360),
        length=float(rng.choice([2e3, 5e3, 8e3])),
        opening=float(rng.choice([0.5, 0.75])),
        centre=centre,
    )


def rectangular_sill(
    east: np.ndarray, north: np.ndarray, centre: Centre, rng: np.random.Generator
) -> Displacement:
    """Flat plane that opens by 5, 10 or 15 m."""
    return okada(
        east,
        north,
        depth=rng.uniform(4e3, 6e3),
        strike=rng.uniform(0, 360),
        dip=float(rng.choice([0.0, 10.0])),
        length=float(rng.choice([0.75e3, 1e3, 3e3])),
        width=float(rng.choice([2e3, 5e3])),
        opening=float(rng.choice([5.0, 10.0, 15.0])),
        centre=centre,
    )


def point_source(
    east: np.ndarray, north: np.ndarray, centre: Centre, rng: np.random.Generator
) -> Displacement:
    """Point source, the deeper the larger."""
    size = rng.uniform(0, 1)
    return mogi(
        east,
        north,
        depth=1.5e3 + 6.5e3 * size,
        volume_change=10 ** (6.2 + 1.5 * size),
        centre=centre,
    )


def penny_sill(
    east: np.ndarray, north: np.ndarray, centre: Centre, rng: np.random.Generator
) -> Displacement:
    """Penny-shaped crack at 1 MPa."""
    return penny_crack(
        east,
        north,
        depth=rng.uniform(4e3, 5e3),
        radius=rng.uniform(4e3, 6e3),
        pressure=1e6,
        centre=centre,
    )


MODELS: dict[str, tuple[Model, float, float]] = {
    "earthquake": (earthquake, 12, 80),
    "dike": (dike, 12, 70),
    "point source": (point_source, 10, 60),
    "penny-shaped sill": (penny_sill, 10, 30),
    "rectangular sill": (rectangular_sill, 12, 50),
}
"""Models, with the smallest and largest peak-to-peak phase they are drawn with, rad."""


def draw_model(
    name: str,
    shape: tuple[int, int],
    *,
    spacing: tuple[float, float],
    wavelength: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Line-of-sight displacement of one model, 20 rad from peak to peak.

    Parameters
    ----------
    name : str
        Of `MODELS`.
    shape : (int, int)
        Rows and columns.
    spacing : (float, float)
        Of rows and columns, m.
    wavelength : float
        m.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, shape (rows, columns)
        m, positive toward the satellite.

    Raises
    ------
    ValueError
        If the area is so small that no model changes enough across it.
    """
    model, low, high = MODELS[name]
    rng = generator
    east, north = crop_coordinates(shape, spacing)
    for _ in range(TRIES):
        los = los_unit_vector(
            float(rng.choice(np.arange(30, 46, 3))), rng.uniform(0, 360)
        )
        centre = tuple(float(a.max() * rng.uniform(0.1, 0.9)) for a in (east, north))
        moved = model(east, north, (centre[0], centre[1]), rng).along(los)
        phase = float(np.ptp(displacement_to_phase(moved, wavelength)))
        if low <= phase <= high:
            return moved * (PEAK_TO_PEAK / phase)
    raise ValueError(
        f"{shape=} of pixels of {spacing} m: of {TRIES} models drawn ({name}) none "
        f"changes by {low} to {high} rad over it"
    )


def draw(
    seed: np.random.SeedSequence,
    *,
    split: str,
    shape: tuple[int, int],
    noise: NoiseBank | None,
) -> SimulatedPair:
    """Model on a real pair; see the module for what is the poster's and what is not."""
    if noise is None:
        raise ValueError("noise=None: this recipe needs a bank of real pairs")
    cut, source = map(np.random.default_rng, child_seeds(seed, 2))
    real = noise.draw(shape, cut)
    name = list(MODELS)[source.integers(len(MODELS))]
    truth = draw_model(
        name,
        shape,
        spacing=real.spacing,
        wavelength=noise.wavelength,
        generator=source,
    )
    return on_real_noise(truth, real)


POSTER_SOURCES = Recipe(
    "poster-sources",
    SimulatedPair,
    (227, 227),
    draw,
    noise_kinds=("short-pairs",),
    needs_noise=True,
)
