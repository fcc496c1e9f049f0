"""Stacks of known sources for `benchmarks.separation`."""

from typing import NamedTuple

import numpy as np

from cube_denoise.conventions import los_unit_vector, years_since
from cube_denoise.simulate.assembly import PairedDates, Scene, assemble, short_pairs
from cube_denoise.simulate.atmosphere import seasonal_stratified_delay
from cube_denoise.simulate.climate import zonal_climate
from cube_denoise.simulate.ground import Ground, make_ground
from cube_denoise.simulate.pair_errors import PairErrors, observe_pairs
from cube_denoise.simulate.seeds import child_seeds, split_seed
from cube_denoise.simulate.sources import draw_history, draw_mogi
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.surface import subsidence_bowl
from cube_denoise.simulate.turbulence import Turbulence, turbulent_delays
from cube_denoise.velocity import fit_velocity

SEED_WORD = 821
"""First word of the seeds within the "test" split."""
SPACING = 150.0
INTERVAL, LONGEST = 12, 36
"""Days between dates, and of the longest pair."""
WAVELENGTH = 0.05546576
PEAK = (0.02, 0.1)
"""Largest displacement of a source over the stack, m."""


class KnownStack(NamedTuple):
    """A stack and the sources that it is made of."""

    scene: Scene
    """Cube and truth."""
    maps: np.ndarray
    """Of the deformation sources, m over the stack, shape (sources, rows, columns)."""
    courses: np.ndarray
    """Their evolution, from 0, largest magnitude 1, shape (sources, dates)."""


def known_stack(number: int, *, side: int, dates: int) -> KnownStack:
    """One or two sources with courses of their own, under a full atmosphere.

    Odd numbers have one source that moves steadily. Even ones have another beside it,
    with another history (`sources.draw_history`, drawn until it is not steady). The
    delay is stratified, of weather that follows the seasons, and turbulent; pairs of up
    to 36 days have decorrelation noise of 40 looks and 5 % of gaps.

    Parameters
    ----------
    number : int
        Of the stack, from 1.
    side : int
        Pixels of 150 m.
    dates : int
        Acquisitions, 12 days apart.

    Returns
    -------
    KnownStack
    """
    seed = split_seed("test", SEED_WORD, number)
    land, moving, air, pairs = map(np.random.default_rng, child_seeds(seed, 4))
    start = np.datetime64("2019-01-01T00:40:20", "s")
    start += np.timedelta64(int(land.integers(365)), "D")
    times = start + np.arange(dates) * np.timedelta64(INTERVAL, "D")
    years = years_since(times, times[0])
    relief = 10 ** land.uniform(2.7, 3.3)
    ground = make_ground((side, side), SPACING, relief, generator=land)
    los = los_unit_vector(39.0, -12.0)
    maps, courses = [], []
    for k in range(1 if number % 2 else 2):
        course = years / years[-1]
        while k and np.corrcoef(course, years)[0, 1] > 0.95:
            course = draw_history(years, moving)
        maps.append(_source(*ground.east_north(), los, moving))
        courses.append(course)
    sources = np.array(maps), np.array(courses)
    displacement = np.einsum("kyx,kt->tyx", *sources).astype("float32")
    delay = _delays(times, ground.elevation, air)
    paired = short_pairs(times, LONGEST)
    scene = _observed(
        paired, ground, displacement, delay, los, land, pairs, str(number)
    )
    return KnownStack(scene, *sources)


def _observed(
    paired: PairedDates,
    ground: Ground,
    displacement: np.ndarray,
    delay: np.ndarray,
    los: tuple[float, float, float],
    land: np.random.Generator,
    pairs: np.random.Generator,
    seed: str,
) -> Scene:
    """Cube and truth of what moved and delayed."""
    phase, coherence = observe_pairs(
        paired,
        displacement,
        delay,
        wavelength=WAVELENGTH,
        ground=ground,
        coherence_days=90.0,
        errors=PairErrors(unwrapping=0.0),
        generator=pairs,
    )
    years = years_since(paired.times, paired.times[0])
    largest = np.abs(displacement).max(0)
    return assemble(
        grid=ground.grid,
        dates=paired,
        orbit=land.normal(0, 60, paired.times.size),
        layers={
            "unwrapped_phase": phase,
            "coherence": coherence,
            "elevation": ground.elevation,
        },
        line_of_sight=los,
        attributes={"wavelength": WAVELENGTH, "heading": -12.0, "track": "A005"},
        truth={
            "displacement": displacement,
            "velocity": fit_velocity(displacement, years)[0].astype("float32"),
            "delay": delay,
            "source_mask": largest > 0.1 * largest.max(),
        },
        truth_attributes={"seed": seed},
    )


def _source(
    east: np.ndarray,
    north: np.ndarray,
    los: tuple[float, float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Point source or subsidence bowl in the inner part of the scene, m."""
    middle = [float(rng.uniform(*np.quantile(a, [0.2, 0.8]))) for a in (east, north)]
    if rng.integers(2):
        field = draw_mogi(east - middle[0], north - middle[1], los, rng)
    else:
        sigma = 10 ** rng.uniform(2.9, 3.4)
        field = subsidence_bowl(
            *(east, north),
            subsidence=1.0,
            sigma=(sigma, sigma * rng.uniform(0.5, 1)),
            azimuth=rng.uniform(0, 180),
            centre=(middle[0], middle[1]),
        ).along(los)
    size = 10 ** rng.uniform(*np.log10(PEAK)) * rng.choice([-1.0, 1.0])
    return np.asarray(size * field / np.abs(field).max())


def _delays(
    times: np.ndarray, elevation: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Turbulence and stratified delay of every date, m."""
    strong, weak = 10 ** rng.uniform([-2.4, -3.2], [-1.9, -2.7])
    regime = Turbulence(
        spectra=(
            Matern(strong, 10 ** rng.uniform(3.7, 4.3), 0.5),
            Matern(weak, 10 ** rng.uniform(3.0, 3.5), 1 / 3),
        ),
        anisotropy=float(rng.uniform(1, 2)),
        azimuth=float(rng.uniform(0, 180)),
    )
    delay = turbulent_delays(
        len(times),
        elevation.shape,
        spacing=SPACING,
        turbulence=regime,
        generator=rng,
    )
    delay += seasonal_stratified_delay(
        elevation,
        times,
        incidence=39.0,
        climate=zonal_climate(float(rng.uniform(10, 50))),
        generator=rng,
    )
    return delay


def station_stack(
    number: int, *, side: int, dates: int
) -> tuple[KnownStack, tuple[tuple[int, int], tuple[int, int]]]:
    """Stack as in the VAE-clustering paper, and the pixels of two stations.

    A basin that subsides steadily by 5 to 15 cm/yr, dates 6 days apart, pairs of 6, 12
    and 24 days; else as `known_stack`. The first station stands where nothing moves,
    the second one near the middle of the basin.

    Parameters
    ----------
    number, side, dates
        As for `known_stack`; 167 dates make about 490 pairs.

    Returns
    -------
    stack : KnownStack
    stations : pair of (int, int)
        Row and column of the reference station and of the other.
    """
    seed = split_seed("test", SEED_WORD + 1, number)
    land, moving, air, pairs = map(np.random.default_rng, child_seeds(seed, 4))
    start = np.datetime64("2018-01-01T00:40:20", "s")
    times = start + np.arange(dates) * np.timedelta64(6, "D")
    years = years_since(times, times[0])
    relief = 10 ** land.uniform(2.9, 3.3)
    ground = make_ground((side, side), SPACING, relief, generator=land)
    los = los_unit_vector(39.0, -168.0)
    east, north = ground.east_north()
    row, column = (int(n) for n in moving.integers(side // 2, 3 * side // 4, 2))
    sigma = 10 ** moving.uniform(3.1, 3.4)
    rate = subsidence_bowl(
        east,
        north,
        subsidence=float(moving.uniform(0.05, 0.15)),
        sigma=(sigma, 0.7 * sigma),
        azimuth=float(moving.uniform(0, 180)),
        centre=(float(east[row, column]), float(north[row, column])),
    ).along(los)
    displacement = (years[:, None, None] * rate).astype("float32")
    delay = _delays(times, ground.elevation, air)
    near = short_pairs(times, 24)
    apart = near.second - near.first
    kept = np.isin(apart, (1, 2, 4))
    paired = near._replace(first=near.first[kept], second=near.second[kept])
    scene = _observed(
        paired, ground, displacement, delay, los, land, pairs, str(number)
    )
    maps, courses = (rate * years[-1])[None], (years / years[-1])[None]
    return KnownStack(scene, maps, courses), ((side // 8, side // 8), (row, column))
