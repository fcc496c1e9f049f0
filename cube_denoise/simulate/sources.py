"""Random deformation sources, for training and for scenes."""

from collections.abc import Callable

import numpy as np

from cube_denoise.simulate.deformation import mogi, okada
from cube_denoise.simulate.surface import subsidence_bowl

LineOfSight = tuple[float, float, float]


def draw_deformation(
    east: np.ndarray,
    north: np.ndarray,
    *,
    line_of_sight: LineOfSight,
    generator: np.random.Generator,
) -> np.ndarray:
    """Line-of-sight displacement of one to three random sources, peak 1.

    Point sources, faults, dikes, sills and subsidence bowls with parameters drawn from
    the ranges in the functions below (proposed here, not taken from a paper).

    Parameters
    ----------
    east, north : numpy.ndarray, shape (rows, columns)
        Pixel centres, m.
    line_of_sight : (float, float, float)
        Unit vector toward the satellite.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, float32, shape (rows, columns)
        Positive toward the satellite, scaled to a largest magnitude of 1.
    """
    total = np.zeros(np.shape(east))
    for _ in range(generator.choice([1, 2, 3], p=[0.6, 0.25, 0.15])):
        draw = SOURCES[generator.integers(len(SOURCES))]
        field = draw(east, north, line_of_sight, generator)
        weight = generator.choice([-1.0, 1.0]) * 10 ** generator.uniform(-0.7, 0)
        total += weight * field / max(float(np.abs(field).max()), 1e-12)
    return (total / max(float(np.abs(total).max()), 1e-12)).astype("float32")


def _centre(
    east: np.ndarray, north: np.ndarray, generator: np.random.Generator
) -> tuple[float, float]:
    return (
        float(generator.uniform(east.min(), east.max())),
        float(generator.uniform(north.min(), north.max())),
    )


def _mogi(
    east: np.ndarray, north: np.ndarray, los: LineOfSight, rng: np.random.Generator
) -> np.ndarray:
    depth = 10 ** rng.uniform(2.9, 3.95)
    return mogi(
        east, north, depth=depth, volume_change=1e6, centre=_centre(east, north, rng)
    ).along(los)


def _fault(
    east: np.ndarray, north: np.ndarray, los: LineOfSight, rng: np.random.Generator
) -> np.ndarray:
    magnitude = rng.uniform(4.8, 6.4)
    length = 10 ** (0.59 * magnitude - 2.44) * 1000
    width = min(length, 12_000.0)
    dip = rng.uniform(30, 90)
    top = rng.uniform(0.2, 6) * 1000
    return okada(
        east,
        north,
        depth=top + width / 2 * np.sin(np.deg2rad(dip)),
        strike=rng.uniform(0, 360),
        dip=dip,
        length=length,
        width=width,
        slip=1.0,
        rake=rng.uniform(-180, 180),
        centre=_centre(east, north, rng),
    ).along(los)


def _dike(
    east: np.ndarray, north: np.ndarray, los: LineOfSight, rng: np.random.Generator
) -> np.ndarray:
    width = rng.uniform(1, 4) * 1000
    dip = rng.uniform(70, 90)
    top = rng.uniform(0.3, 3) * 1000
    return okada(
        east,
        north,
        depth=top + width / 2 * np.sin(np.deg2rad(dip)),
        strike=rng.uniform(0, 360),
        dip=dip,
        length=rng.uniform(2, 10) * 1000,
        width=width,
        opening=1.0,
        centre=_centre(east, north, rng),
    ).along(los)


def _sill(
    east: np.ndarray, north: np.ndarray, los: LineOfSight, rng: np.random.Generator
) -> np.ndarray:
    return okada(
        east,
        north,
        depth=rng.uniform(1, 7) * 1000,
        strike=rng.uniform(0, 360),
        dip=0.0,
        length=rng.uniform(1, 6) * 1000,
        width=rng.uniform(1, 4) * 1000,
        opening=1.0,
        centre=_centre(east, north, rng),
    ).along(los)


def _bowl(
    east: np.ndarray, north: np.ndarray, los: LineOfSight, rng: np.random.Generator
) -> np.ndarray:
    sigma = 10 ** rng.uniform(2.6, 3.8)
    return subsidence_bowl(
        east,
        north,
        subsidence=1.0,
        sigma=(sigma, sigma * rng.uniform(0.35, 1)),
        azimuth=rng.uniform(0, 180),
        centre=_centre(east, north, rng),
    ).along(los)


SOURCES: tuple[
    Callable[[np.ndarray, np.ndarray, LineOfSight, np.random.Generator], np.ndarray],
    ...,
] = (_mogi, _fault, _dike, _sill, _bowl)
