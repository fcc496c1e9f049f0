"""Samples of whole stacks with known truth, drawn from the simulator on the fly."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from cube_denoise.conventions import los_unit_vector, years_since
from cube_denoise.simulate.ground import make_ground
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.simulate.sensor import (
    SENSORS,
    decorrelation_noise,
    unwrapping_errors,
)
from cube_denoise.simulate.sources import ALL_SOURCES, draw_history
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.stack import AMPLITUDES, power
from cube_denoise.simulate.stack_delays import draw_delays
from cube_denoise.simulate.turbulence import gaussian_fields

RATIOS = (0.005, 100.0)
"""Smallest and largest ratio of powers that is drawn."""
SPACINGS = (50.0, 250.0)
"""Smallest and largest pixel, m."""
SIDE, DATES = 128, 48
"""Pixels a side, and dates, of what is drawn once and combined many times."""
FAINT = 0.01
"""Parts of a source that vary by less than this part of its peak are drawn again."""
KINDS = ("air", "source", "level", "wrong")


class StackBatch(NamedTuple):
    """Stacks for one training step: the inputs of `StackNetwork`, and the truth."""

    series: torch.Tensor
    """Displacement with noise, m, (batch, time, y, x); 0 where it is not visible."""
    visible: torch.Tensor
    """bool, (batch, time, y, x)."""
    years: torch.Tensor
    """(batch, time), from the first date."""
    elevation: torch.Tensor
    """m, (batch, y, x)."""
    coherence: torch.Tensor
    """(batch, y, x)"""
    displacement: torch.Tensor
    """Truth, m, (batch, time, y, x), on hidden dates too."""


@dataclass(frozen=True)
class StackSampling:
    """What stacks are drawn; shares are of all stacks."""

    sides: tuple[int, ...] = (64, 64, 64, 128)
    """Pixels a side, one of these for each batch; at most 128."""
    dates: tuple[int, int] = (8, 48)
    """Fewest and most; log-uniform; at most 48."""
    volume: int = 64 * 64 * 80
    """Pixels times dates of a batch: the number of stacks follows."""
    bank: int = 128
    """Different stacks of delays; of sources, twice as many."""
    at_rest: float = 0.1
    """Without deformation."""
    hiding: float = 0.4
    """With hidden dates, up to a third of them."""
    gappy: float = 0.3
    """With dates that lack regions, up to half of their area."""
    erring: float = 0.7
    """With decorrelation noise and unwrapping errors, as an inversion leaves them."""
    layered: float = 0.25
    """With more delay in proportion to elevation, which follows the seasons."""
    odd: float = 0.3
    """With noise that the simulator does not make: of other strength on every date, and
    of two stacks mixed."""


def stack_batch(
    number: int,
    sampling: StackSampling | None = None,
    *,
    split: str,
    seed: int,
) -> StackBatch:
    """Batch `number` of simulated stacks, which depends on (split, seed, number) alone.

    Delays and sources are those of `simulate_stack`, on pixels of 50 to 250 m, some
    hundreds of each, drawn once: every stack combines the delays of one, on some of its
    dates, with one to four sources, each with a history of its own; a part of the area
    or all of it, coarsened, turned, mirrored, reversed in time and of either sign at
    random. The deformation has a ratio of powers to the noise that is log-uniform in
    `RATIOS`, or a peak log-uniform in `AMPLITUDES`.

    Parameters
    ----------
    number : int
        From 0.
    sampling : StackSampling, optional
        What is drawn; the defaults of the class when not given.
    split : {"train", "validation", "test"}
        Which seeds to draw from.
    seed : int
        Seed of the run.

    Returns
    -------
    StackBatch

    Raises
    ------
    ValueError
        If sides or dates are out of range, or the split is unknown.
    """
    how = sampling or StackSampling()
    if max(how.sides) > SIDE or how.dates[1] > DATES:
        raise ValueError(
            f"sides={how.sides} must be at most {SIDE}, dates={how.dates} {DATES}"
        )
    rng = np.random.default_rng(split_seed(split, seed, number, len(KINDS)))
    bank = _Bank(split, seed, how.bank)
    side = int(rng.choice(how.sides))
    low, high = np.log([how.dates[0], how.dates[1] + 1])
    most = max(how.dates[0], how.volume // (side * side))
    count = min(int(np.exp(rng.uniform(low, high))), most)
    stacks = max(1, round(how.volume / (side * side * count)))
    drawn = [_Drawing(how, bank, rng, count, side).stack() for _ in range(stacks)]
    fields = (torch.from_numpy(np.stack(a)) for a in zip(*drawn, strict=True))
    return StackBatch(*fields)


class _Air(NamedTuple):
    delay: np.ndarray
    times: np.ndarray
    elevation: np.ndarray
    spacing: float
    wavelength: float


@dataclass(frozen=True)
class _Bank:
    """What is slow to draw; each piece depends on (split, seed, its number) alone."""

    split: str
    seed: int
    size: int

    def air(self, rng: np.random.Generator) -> _Air:
        return _air(self.split, self.seed, int(rng.integers(self.size)))

    def source(self, rng: np.random.Generator) -> np.ndarray:
        return _source(self.split, self.seed, int(rng.integers(2 * self.size)))

    def level(self, rng: np.random.Generator) -> np.ndarray:
        return _level(self.split, self.seed, int(rng.integers(self.size)))

    def wrong(self, rng: np.random.Generator) -> np.ndarray:
        return _wrong(self.split, self.seed, int(rng.integers(self.size)))


def _generator(split: str, seed: int, number: int, kind: str) -> np.random.Generator:
    return np.random.default_rng(split_seed(split, seed, number, KINDS.index(kind)))


@lru_cache(512)
def _air(split: str, seed: int, number: int) -> _Air:
    rng = _generator(split, seed, number, "air")
    interval = int(rng.choice([6, 12, 12, 12, 24]))
    begin = np.datetime64("2018-01-01T00:40:20", "s")
    begin += np.timedelta64(int(rng.integers(365)), "D")
    times = begin + np.arange(DATES) * np.timedelta64(interval, "D")
    sensor = "alos-2" if rng.random() < 0.1 else "sentinel-1"
    radar = SENSORS[sensor]
    ground = make_ground((SIDE, SIDE), _log_uniform(rng, SPACINGS), None, generator=rng)
    delay = draw_delays(
        times,
        ground,
        incidence=float(rng.uniform(*radar.incidence)),
        sensor=sensor,
        generator=rng,
    )
    return _Air(delay, times, ground.elevation, ground.spacing, radar.wavelength)


@lru_cache(1024)
def _source(split: str, seed: int, number: int) -> np.ndarray:
    """Displacement of one source, peak 1."""
    rng = _generator(split, seed, number, "source")
    radar = SENSORS["sentinel-1"]
    heading = radar.ascending_heading if rng.integers(2) else radar.descending_heading
    axis = np.arange(SIDE) * _log_uniform(rng, SPACINGS)
    east, north = np.meshgrid(axis, axis)
    los = los_unit_vector(
        float(rng.uniform(*radar.incidence)), heading + float(rng.uniform(-4, 4))
    )
    field = ALL_SOURCES[rng.integers(len(ALL_SOURCES))](east, north, los, rng)
    return np.asarray(field / max(float(np.abs(field).max()), 1e-12), "float32")


@lru_cache(512)
def _level(split: str, seed: int, number: int) -> np.ndarray:
    """Smooth field from 0 to 1; all its values are as frequent."""
    rng = _generator(split, seed, number, "level")
    field = gaussian_fields(
        1,
        (SIDE, SIDE),
        spacing=_log_uniform(rng, SPACINGS),
        spectra=[Matern(1.0, 2_000.0, 1.0)],
        generator=rng,
    )[0]
    ranks = field.ravel().argsort().argsort().reshape(field.shape)
    return (ranks / field.size).astype("float32")


@lru_cache(512)
def _wrong(split: str, seed: int, number: int) -> np.ndarray:
    """Cycles of one unwrapping error."""
    rng = _generator(split, seed, number, "wrong")
    return unwrapping_errors(
        1,
        (SIDE, SIDE),
        spacing=_log_uniform(rng, SPACINGS),
        probability=1.0,
        generator=rng,
    )[0]


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


@dataclass(frozen=True)
class _Drawing:
    """One stack of a batch."""

    how: StackSampling
    bank: _Bank
    rng: np.random.Generator
    count: int
    side: int

    def stack(self) -> tuple[np.ndarray, ...]:
        """Series, visible, years, elevation, coherence and truth."""
        how, rng = self.how, self.rng
        air = self.bank.air(rng)
        # Some of the acquisitions in a row, so that intervals differ.
        spare = int(self.count * rng.uniform(0, 0.5)) if rng.random() < 0.5 else 0
        spare = min(spare, DATES - self.count)
        dates = np.sort(rng.choice(self.count + spare, self.count, replace=False))
        dates += rng.integers(DATES - self.count - spare + 1)
        times = air.times[dates]
        years = years_since(times, times[0])
        every = 2 if 2 * self.side <= SIDE and rng.integers(2) else 1
        delay, elevation = self.cut(every, air.delay[dates], air.elevation)
        noise = delay * 10 ** rng.uniform(-0.3, 0.2)
        if rng.random() < how.layered:
            noise = noise + self.layers(elevation, years) * noise.std()
        if rng.random() < how.odd:
            order = rng.permutation(DATES)[: self.count]
            (other,) = self.cut(every, self.bank.air(rng).delay[order])
            noise = (noise + other * 10 ** rng.uniform(-1, 0)) * np.exp(
                rng.normal(0, 0.5, (self.count, 1, 1))
            )
        (level,) = self.cut(every, self.bank.level(rng))
        coherence = np.clip(rng.uniform(0.3, 0.8) + level / 2 - 0.25, 0.05, 0.98)
        motion = self.motion(years, every)
        truth = motion * self.factor(motion, noise)
        if rng.integers(2):
            years, truth, noise = years[-1] - years[::-1], truth[::-1], noise[::-1]
        if rng.random() < how.erring:
            noise = noise + self.errors(coherence, air.wavelength, every)
        visible = self.visible(every)
        series = np.where(visible, truth - noise, 0)
        maps = (series, years, elevation, coherence, truth)
        series, years, elevation, coherence, truth = (
            np.ascontiguousarray(a, "float32") for a in maps
        )
        return series, visible, years, elevation, coherence, truth

    def cut(self, every: int, *maps: np.ndarray) -> list[np.ndarray]:
        """Part of maps that belong together, turned and mirrored at random."""
        reach = self.side * every
        y, x = self.rng.integers(0, SIDE - reach + 1, 2)
        turns, mirrored = int(self.rng.integers(4)), bool(self.rng.integers(2))
        found = []
        for one in maps:
            part = one[..., y : y + reach : every, x : x + reach : every]
            part = np.rot90(part, turns, (-2, -1))
            found.append(part[..., ::-1] if mirrored else part)
        return found

    def layers(self, elevation: np.ndarray, years: np.ndarray) -> np.ndarray:
        """Delay in proportion to elevation: a year's cycle, and other weather."""
        rng = self.rng
        course = np.cos(2 * np.pi * (years - rng.random()))
        course += rng.uniform(0, 1) * rng.standard_normal(self.count)
        height = (elevation - elevation.mean()) / max(float(elevation.std()), 1e-6)
        course *= _log_uniform(rng, (0.3, 3.0))
        return np.asarray(course[:, None, None] * height, "float32")

    def motion(self, years: np.ndarray, every: int) -> np.ndarray:
        """Displacement of peak 1, as `sources.draw_moving_sources` composes it."""
        rng = self.rng
        total = np.zeros((self.count, self.side, self.side), "float32")
        for _ in range(rng.choice([1, 2, 3, 4], p=[0.5, 0.25, 0.15, 0.1])):
            field = np.zeros(1)
            while np.ptp(field) < FAINT:
                (field,) = self.cut(every, self.bank.source(rng))
            field = field / np.ptp(field)
            weight = rng.choice([-1.0, 1.0]) * 10 ** rng.uniform(-0.7, 0)
            history = weight * draw_history(years, rng)
            total += history[:, None, None].astype("float32") * field
        return total / max(float(np.abs(total).max()), 1e-12)

    def factor(self, motion: np.ndarray, noise: np.ndarray) -> np.float32:
        """What displacements of peak 1 are multiplied with."""
        kind = self.rng.random()
        ratio = _log_uniform(self.rng, RATIOS)
        peak = _log_uniform(self.rng, AMPLITUDES)
        if kind < self.how.at_rest:
            return np.float32(0)
        if kind < 0.4:
            return np.float32(peak)
        found = np.sqrt(ratio * power(noise) / max(power(motion), 1e-12))
        return np.float32(np.clip(found, AMPLITUDES[0], 2.0))

    def visible(self, every: int) -> np.ndarray:
        """Where there are data: some dates lack regions, some are hidden."""
        rng, how = self.rng, self.how
        seen = np.ones((self.count, self.side, self.side), bool)
        if rng.random() < how.gappy:
            most = rng.uniform(0, 0.5)
            for k in np.flatnonzero(rng.random(self.count) < rng.uniform(0, 1)):
                (level,) = self.cut(every, self.bank.level(rng))
                seen[k] = level >= rng.uniform(0, most)
        if rng.random() < how.hiding:
            hidden = int(rng.integers(1, self.count // 3 + 1))
            seen[rng.choice(self.count, hidden, replace=False)] = False
        return seen

    def errors(
        self, coherence: np.ndarray, wavelength: float, every: int
    ) -> np.ndarray:
        """Errors of pairs as least squares over a network leave them on dates, m.

        Every date is linked with the next two to four.
        """
        rng = self.rng
        from_pairs = _dates_from_pairs(self.count, int(rng.integers(2, 5)))
        root = np.linalg.cholesky(
            from_pairs @ from_pairs.T + 1e-9 * np.eye(self.count)
        ).astype("float32")
        phase = np.tensordot(
            root,
            decorrelation_noise(
                np.broadcast_to(coherence, (self.count, *coherence.shape)),
                looks=_log_uniform(rng, (20.0, 200.0)),
                generator=rng,
            ),
            1,
        )
        chance = float(rng.choice([0.0, 0.02]))
        for pair in np.flatnonzero(rng.random(from_pairs.shape[1]) < chance):
            (cycles,) = self.cut(every, self.bank.wrong(rng))
            course = 2 * np.pi * from_pairs[:, pair].astype("float32")
            phase += course[:, None, None] * cycles
        return np.asarray(phase * wavelength / (4 * np.pi))


@lru_cache(256)
def _dates_from_pairs(count: int, reach: int) -> np.ndarray:
    """Least-squares solution of a network, (dates, pairs), mean of the dates zero."""
    apart = np.arange(count) - np.arange(count)[:, None]
    first, second = np.nonzero((apart > 0) & (apart <= reach))
    design = np.zeros((first.size, count))
    design[np.arange(first.size), first] = -1
    design[np.arange(first.size), second] = 1
    # A constant is not determined; some builds of LAPACK find 3e-15 for its value.
    return np.linalg.pinv(design, rcond=1e-10)
