"""The scene generator for judging and for training on stacks: random in everything."""

from typing import Any

import numpy as np
import xarray as xr

from cube_denoise.conventions import los_unit_vector, years_since
from cube_denoise.simulate.assembly import PairedDates, Scene, assemble, short_pairs
from cube_denoise.simulate.ground import Ground, make_ground
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.pair_errors import PairErrors, observe_pairs
from cube_denoise.simulate.seeds import STACK_SEED, child_seeds
from cube_denoise.simulate.sensor import SENSORS
from cube_denoise.simulate.sources import draw_moving_sources
from cube_denoise.simulate.stack_delays import draw_delays
from cube_denoise.velocity import fit_velocity

AMPLITUDES = (0.002, 0.2)
"""Smallest and largest peak that is drawn, m."""

SOURCE_LEVEL = 0.1
"""Sources reach as far as this part of the largest displacement."""

COHERENCE_DAYS = {"sentinel-1": 90.0, "alos-2": 400.0}
"""Time constant of temporal decorrelation; this project's round numbers."""


def simulate_stack(
    *,
    seed: int | np.random.SeedSequence,
    shape: tuple[int, int] | None = None,
    spacing: float | None = None,
    dates: Any = 20,
    interval_days: int = 12,
    max_temporal_baseline: float = 36,
    sensor: str = "sentinel-1",
    terrain: float | np.ndarray | xr.DataArray | None = None,
    amplitude: float | None = None,
    snr: float | None = None,
    atmosphere: float = 1.0,
    pair_errors: PairErrors | None = None,
    noise: NoiseBank | None = None,
) -> Scene:
    """Simulate a stack with random sources, histories, weather and terrain.

    Deformation (`sources.draw_moving_sources`) and delays (`stack_noise.draw_delays`)
    are drawn for dates; pairs are their differences, and their closure is zero but for
    `pair_errors`. Each part has random numbers of its own: the same seed with another
    `snr`, say, has the same atmosphere.

    Parameters
    ----------
    seed : int or numpy.random.SeedSequence
        The same seed gives the same stack.
    shape : (int, int), optional
        Rows and columns; (128, 128), or those of `terrain`.
    spacing : float, optional
        Pixel spacing, m; 100, or that of `terrain` or `noise`.
    dates : int or array_like of datetime64
        How many acquisitions, `interval_days` apart from a random day on; or which.
    interval_days : int
        Days between acquisitions.
    max_temporal_baseline : float
        Longest pair, days; all shorter ones are made.
    sensor : {"sentinel-1", "alos-2"}
        C or L band (`sensor.SENSORS`); L band has an ionosphere as well.
    terrain : float, numpy.ndarray or xarray.DataArray, optional
        Relief of random terrain, m (log-uniform in 20 to 2500 when not given); or the
        elevation itself, m, on the grid of the stack. A DataArray with a projected CRS
        is the grid.
    amplitude : float, optional
        Largest displacement over all dates, m; log-uniform in 2 mm to 20 cm when
        neither this nor `snr` is given. 0 for a stack at rest.
    snr : float, optional
        Scale the deformation to this ratio of powers instead: mean square over dates
        and pixels of the displacement over that of the delay, each less its mean over
        time (of each pixel) and over the map (of each date).
    atmosphere : float
        Factor on all delays.
    pair_errors : PairErrors, optional
        Decorrelation, unwrapping errors and gaps.
    noise : NoiseBank, optional
        Of kind "residual": its fields, permuted in time, in place of simulated delays
        and decorrelation, with its elevation, wavelength, spacing and gaps; those of
        `pair_errors` are added.

    Returns
    -------
    Scene
        The truth has ``displacement``, ``delay`` (time, y, x), ``velocity`` (y, x), the
        least-squares line through the true displacement, and ``source_mask`` (y, x),
        where the displacement exceeds a tenth of its peak on some date. Its attributes
        give ``amplitude``, ``snr`` as above, and, where there is noise, the same ratio
        for velocities (``snr_velocity``) and noise-free pairs (``snr_pairs``).

    Raises
    ------
    ValueError
        If an option is out of its range or contradicts another, no pair is left, the
        terrain is on another grid or has gaps, or the bank is too small.
    """
    if sensor not in SENSORS:
        raise ValueError(f"{sensor=}: must be one of {', '.join(SENSORS)}")
    if amplitude is not None and (snr is not None or not amplitude >= 0):
        raise ValueError(f"{amplitude=} with {snr=}: give one of them, not negative")
    if not atmosphere >= 0 or (snr is not None and not (snr >= 0 and atmosphere > 0)):
        raise ValueError(
            f"{atmosphere=} must not be negative; {snr=} neither, and it needs noise"
        )
    told = str(seed.entropy) if isinstance(seed, np.random.SeedSequence) else int(seed)
    if not isinstance(seed, np.random.SeedSequence):
        seed = np.random.SeedSequence([STACK_SEED, seed])
    view, land, moving, air, pairs = map(np.random.default_rng, child_seeds(seed, 5))
    times = _times(dates, interval_days, view)
    paired = short_pairs(times, max_temporal_baseline)
    if paired.first.size == 0:
        raise ValueError(f"{max_temporal_baseline=}: no pair of the dates is so short")
    radar = SENSORS[sensor]
    incidence = float(view.uniform(*radar.incidence))
    ascending = bool(view.integers(2))
    heading = radar.ascending_heading if ascending else radar.descending_heading
    heading += float(view.uniform(-4, 4))
    los = los_unit_vector(incidence, heading)
    wavelength = radar.wavelength
    if noise is None:
        ground = make_ground(shape, spacing, terrain, generator=land)
        delay = draw_delays(
            times, ground, incidence=incidence, sensor=sensor, generator=air
        )
    else:
        if spacing is not None or terrain is not None:
            raise ValueError("noise brings its own spacing and terrain: give neither")
        ground, delay = _real(noise, times.size, shape or (128, 128), air)
        wavelength = noise.wavelength
    delay *= np.float32(atmosphere)

    displacement = draw_moving_sources(
        *ground.east_north(),
        years_since(times, times[0]),
        line_of_sight=los,
        generator=moving,
    )
    if snr is not None:
        factor = float(np.sqrt(snr * power(delay) / power(displacement)))
    elif amplitude is not None:
        factor = amplitude
    else:
        low, high = np.log10(AMPLITUDES)
        factor = 10 ** moving.uniform(low, high)
    displacement = displacement * np.float32(factor)
    rate, of_noise = (
        fit_velocity(a, years_since(times, times[0]))[0] for a in (displacement, delay)
    )
    phase, coherence = observe_pairs(
        paired,
        displacement,
        delay,
        wavelength=wavelength,
        ground=ground,
        coherence_days=COHERENCE_DAYS[sensor],
        errors=pair_errors or PairErrors(),
        generator=pairs,
    )
    ratios = {
        "snr": (power(displacement), power(delay)),
        "snr_velocity": (np.var(rate), np.nanvar(of_noise)),
        "snr_pairs": tuple(_pair_power(a, paired) for a in (displacement, delay)),
    }
    largest = np.abs(displacement).max(0)
    return assemble(
        grid=ground.grid,
        dates=paired,
        orbit=view.normal(0, 60, times.size),
        layers={
            "unwrapped_phase": phase,
            "coherence": coherence,
            "elevation": ground.elevation,
        },
        line_of_sight=los,
        attributes={
            "wavelength": wavelength,
            "heading": heading,
            "track": "A005" if ascending else "D012",
        },
        truth={
            "displacement": displacement,
            "velocity": rate.astype("float32"),
            "delay": delay,
            "source_mask": largest > SOURCE_LEVEL * largest.max(),
        },
        truth_attributes={"seed": told, "amplitude": float(largest.max())}
        | {name: float(a / b) for name, (a, b) in ratios.items() if b > 0},
    )


def power(series: np.ndarray) -> float:
    """Mean square of a series less its means over time and over the map.

    Parameters
    ----------
    series : numpy.ndarray, shape (dates, rows, columns)
        NaN = no data.

    Returns
    -------
    float
        Squared unit of the series.
    """
    there = np.isfinite(series)
    centred = np.where(there, series, 0.0).astype("float64")
    for axes in (0, (1, 2)):
        count = np.maximum(there.sum(axes, keepdims=True), 1)
        centred -= centred.sum(axes, keepdims=True) / count
        centred[~there] = 0.0
    return float((centred**2).sum() / max(int(there.sum()), 1))


def _pair_power(series: np.ndarray, dates: PairedDates) -> float:
    """Mean over pairs of the variance over the map."""
    pairs = zip(dates.first, dates.second, strict=True)
    return float(np.mean([np.nanvar(series[j] - series[i]) for i, j in pairs]))


def _times(dates: Any, interval_days: int, rng: np.random.Generator) -> np.ndarray:
    start = np.datetime64("2018-01-01T00:40:20", "s")
    start += np.timedelta64(int(rng.integers(365)), "D")
    if isinstance(dates, (int, np.integer)):
        if dates < 2 or interval_days < 1:
            raise ValueError(
                f"{dates=} must be at least 2, {interval_days=} at least 1"
            )
        return start + np.arange(dates) * np.timedelta64(interval_days, "D")
    times = np.atleast_1d(np.asarray(dates, "datetime64[s]"))
    if times.size < 2 or not (np.diff(times) > np.timedelta64(0, "s")).all():
        raise ValueError(f"{dates=} must be two or more increasing dates")
    return times


def _real(
    noise: NoiseBank, count: int, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Ground, np.ndarray]:
    """Ground and delays of real noise, later seen as motion away."""
    drawn = noise.draw_series(count, shape, rng)
    grid = Ground.grid_of(shape, drawn.spacing)
    return Ground(grid, drawn.elevation, drawn.coherence), -drawn.displacement
