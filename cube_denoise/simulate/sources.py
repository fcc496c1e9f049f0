"""Random deformation sources and histories, for training and for scenes."""

from collections.abc import Callable

import numpy as np

from cube_denoise.simulate import time_functions
from cube_denoise.simulate.crack import penny_crack
from cube_denoise.simulate.deformation import mogi, okada
from cube_denoise.simulate.surface import (
    interseismic,
    landslide_patch,
    subsidence_bowl,
)

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


def draw_moving_sources(
    east: np.ndarray,
    north: np.ndarray,
    years: np.ndarray,
    *,
    line_of_sight: LineOfSight,
    generator: np.random.Generator,
) -> np.ndarray:
    """Line-of-sight displacement of one to four sources, each with its own history.

    The sources of `draw_deformation`, penny-shaped sills, locked faults and landslides,
    with peaks of 0.2 to 1, each times a history of `draw_history`.

    Parameters
    ----------
    east, north : numpy.ndarray, shape (rows, columns)
        Pixel centres, m.
    years : numpy.ndarray, shape (dates,)
        Increasing.
    line_of_sight : (float, float, float)
        Unit vector toward the satellite.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, float32, shape (dates, rows, columns)
        Positive toward the satellite, zero on the first date, scaled to a largest
        magnitude of 1.
    """
    total = np.zeros((len(years), *np.shape(east)), "float32")
    for _ in range(generator.choice([1, 2, 3, 4], p=[0.5, 0.25, 0.15, 0.1])):
        draw = ALL_SOURCES[generator.integers(len(ALL_SOURCES))]
        field = draw(east, north, line_of_sight, generator)
        weight = generator.choice([-1.0, 1.0]) * 10 ** generator.uniform(-0.7, 0)
        field = weight * field / max(float(np.abs(field).max()), 1e-12)
        history = draw_history(years, generator)
        total += (history[:, None, None] * field).astype("float32")
    return total / max(float(np.abs(total).max()), 1e-12)


def draw_history(years: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Random evolution in time: steady in half of the cases.

    Else a step, a relaxation, afterslip, a transient, an annual cycle or a line with
    corners (`time_functions`), with its events between the first and the last date.
    The shares are this project's choice.

    Parameters
    ----------
    years : numpy.ndarray, shape (dates,)
        Increasing, two or more.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, float64, shape (dates,)
        Zero on the first date, scaled to a largest magnitude of 1.
    """
    span = float(years[-1] - years[0])
    # After the first date and not after the last: something happens in any case.
    event = years[-1] - span * generator.uniform(0, 0.95)
    tau = span * 10 ** generator.uniform(-1.3, 0)
    kind = generator.choice(len(HISTORY_SHARES), p=list(HISTORY_SHARES.values()))
    name = list(HISTORY_SHARES)[kind]
    if name == "linear":
        values = time_functions.linear(years)
    elif name == "step":
        values = time_functions.step(years, onset=event)
    elif name == "exponential":
        values = time_functions.exponential(years, onset=event - 0.2 * span, tau=tau)
    elif name == "logarithmic":
        values = time_functions.logarithmic(years, onset=event - 0.2 * span, tau=tau)
    elif name == "sigmoid":
        values = time_functions.sigmoid(years, centre=event, tau=tau / 4)
    elif name == "seasonal":
        values = time_functions.seasonal(years, peak=generator.uniform(0, 1))
    else:
        knots = np.linspace(years[0], years[-1], int(generator.integers(3, 6)))
        steps = generator.uniform(-0.3, 1, knots.size - 1)
        values = time_functions.piecewise_linear(
            years, knots=list(knots), values=[0.0, *np.cumsum(steps)]
        )
    values = values - values[0]
    return np.asarray(values / max(float(np.abs(values).max()), 1e-12))


HISTORY_SHARES = {
    "linear": 0.5,
    "step": 0.1,
    "exponential": 0.1,
    "logarithmic": 0.1,
    "sigmoid": 0.1,
    "seasonal": 0.05,
    "piecewise linear": 0.05,
}
"""How often `draw_history` draws which evolution."""


def _centre(
    east: np.ndarray, north: np.ndarray, generator: np.random.Generator
) -> tuple[float, float]:
    return (
        float(generator.uniform(east.min(), east.max())),
        float(generator.uniform(north.min(), north.max())),
    )


def draw_mogi(
    east: np.ndarray, north: np.ndarray, los: LineOfSight, rng: np.random.Generator
) -> np.ndarray:
    """Line-of-sight displacement of a point source 0.8 to 9 km deep, any scale."""
    depth = 10 ** rng.uniform(2.9, 3.95)
    return mogi(
        east, north, depth=depth, volume_change=1e6, centre=_centre(east, north, rng)
    ).along(los)


def draw_fault(
    east: np.ndarray, north: np.ndarray, los: LineOfSight, rng: np.random.Generator
) -> np.ndarray:
    """Line-of-sight displacement of 1 m of slip in an earthquake of Mw 4.8 to 6.4."""
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


def _penny(
    east: np.ndarray, north: np.ndarray, los: LineOfSight, rng: np.random.Generator
) -> np.ndarray:
    radius = 10 ** rng.uniform(2.7, 3.7)
    return penny_crack(
        east,
        north,
        depth=radius * 10 ** rng.uniform(-0.2, 0.5),
        radius=radius,
        pressure=1e6,
        centre=_centre(east, north, rng),
    ).along(los)


def _locked_fault(
    east: np.ndarray, north: np.ndarray, los: LineOfSight, rng: np.random.Generator
) -> np.ndarray:
    return interseismic(
        east,
        north,
        slip=1.0,
        locking_depth=10 ** rng.uniform(2.5, 4.2),
        strike=rng.uniform(0, 360),
        centre=_centre(east, north, rng),
    ).along(los)


def _landslide(
    east: np.ndarray, north: np.ndarray, los: LineOfSight, rng: np.random.Generator
) -> np.ndarray:
    half_length = 10 ** rng.uniform(2.5, 3.3)
    return landslide_patch(
        east,
        north,
        slip=1.0,
        azimuth=rng.uniform(0, 360),
        dip=rng.uniform(5, 40),
        semi_axes=(half_length, half_length * rng.uniform(0.3, 1)),
        order=rng.uniform(1, 4),
        centre=_centre(east, north, rng),
    ).along(los)


Draw = Callable[[np.ndarray, np.ndarray, LineOfSight, np.random.Generator], np.ndarray]

SOURCES: tuple[Draw, ...] = (draw_mogi, draw_fault, _dike, _sill, _bowl)
"""Those of `draw_deformation`; the shipped weights are trained on these alone."""

ALL_SOURCES: tuple[Draw, ...] = (*SOURCES, _penny, _locked_fault, _landslide)
"""Those of `draw_moving_sources`."""
