"""Simulated stacks with the noise of real ones, and with GNSS stations.

Seeds are of the "test" split, which training never draws.
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from benchmarks import bhutan_gacos, mexico_city, real_stacks
from cube_denoise.conventions import PAIR, TIME, X, Y
from cube_denoise.evaluate.gnss import STATION
from cube_denoise.evaluate.stations import project_on_line_of_sight, sample_at_stations
from cube_denoise.simulate import Scene
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.pair_errors import PairErrors
from cube_denoise.simulate.seeds import child_seeds, split_seed
from cube_denoise.simulate.sensor import decorrelation_noise
from cube_denoise.simulate.stack import simulate_stack
from cube_denoise.simulate.stations import simulate_stations

SEED_WORD = 640
AMPLITUDES = (0.005, 0.08)
"""Smallest and largest peak of the deformation, m; even steps of the logarithm."""
STACKS = {False: 8, True: 2}
"""Deforming stacks of each case; whole run and ``--quick``."""
AT_REST = {False: 2, True: 1}
"""Stacks without deformation of each case."""
QUIET, MOVING = 4, 4
"""Stations of each stack far from the sources, of which the first is the reference, and
where the deformation is largest."""
FAR, NEAR = 0.1, 0.5
"""Largest displacement over its peak that is far, and least that is near; where less
than a part of `SHARE` of the scene is so, that part is."""
SHARE = {"far": 0.25, "near": 0.01}
LEAST_DATA = 0.8
"""Part of the pairs that must hold data at a station."""
HORIZONTAL, VERTICAL = 0.0015, 0.0023
"""Standard deviation of the daily GNSS solutions, m: 2 mm along the line of sight."""
RADAR_DAYS = 3.0
"""Half width of the mean over daily solutions around an acquisition, days."""
INTERVAL, LONGEST = 12, 36
"""Days between dates and longest pair: each date with its next three."""
LOOKS = 40.0
"""Of the decorrelation noise that is added to pairs of real noise."""
COHERENCE = 0.7
"""Where the real stack has none."""
LONG = 36
"""Dates of the stacks whose fields are used several times, turned and mirrored."""


class StationStack(NamedTuple):
    """A stack, its truth and its stations."""

    case: str
    """Name of the real stack and number of dates."""
    number: int
    """Of the stack within its case."""
    amplitude: float
    """Largest displacement of the truth, m; 0 at rest."""
    scene: Scene
    stations: xr.Dataset
    """With ``los`` and ``los_std``, m."""


class Source(NamedTuple):
    """Noise of one case."""

    case: str
    bank: NoiseBank
    dates: int
    shape: tuple[int, int]


def sources(*, quick: bool) -> Iterator[Source]:
    """Noise of the real stacks that lie there; those that do not are left out."""
    if mexico_city.FOLDER.is_dir():
        bank = _residual(_mexico())
        side = bank.shape
        yield Source("mexico-city-s1, 12 dates", bank, 12, side)
        if not quick:
            yield Source(f"mexico-city-s1, {LONG} dates", turned(bank), LONG, side)
    if quick:
        return
    if real_stacks.PERMIAN.is_dir():
        part = real_stacks.permian_cube().coarsen({Y: 2, X: 2}, boundary="trim").mean()
        bank = _residual(part.isel({Y: slice(0, part.sizes[X])}))
        yield Source(
            f"permian-opera-disp, {LONG} dates", turned(bank), LONG, (128,) * 2
        )
    if bhutan_gacos.FOLDER.is_dir():
        bank = _residual(_halved(bhutan_gacos.scene_cube()))
        yield Source("bhutan-alos-gacos, 8 dates", bank, 8, (128, 96))


def _halved(cube: xr.Dataset) -> xr.Dataset:
    """Means of 2 x 2 pixels."""
    return cube.coarsen({Y: 2, X: 2}, boundary="trim").mean()


def _mexico() -> xr.Dataset:
    from cube_denoise.store import open_cube

    with tempfile.TemporaryDirectory() as folder:
        url = mexico_city.mexico_cube(
            Path(folder) / "mexico", catalog=Path(folder) / "mexico.json"
        )
        return open_cube(url).load()


def _residual(cube: xr.Dataset) -> NoiseBank:
    """Residual fields of all dates, with a coherence everywhere."""
    bank = NoiseBank.from_cube(cube, kind="residual", split=None)
    known = np.isfinite(bank.coherence)
    return dataclasses.replace(
        bank, coherence=np.where(known, bank.coherence, np.float32(COHERENCE))
    )


def turned(bank: NoiseBank) -> NoiseBank:
    """Every field in all turns and reflections that keep the shape, as a field.

    Elevation then says nothing of any of them: it is flat. Coherence is the same
    everywhere.
    """
    square = bank.shape[0] == bank.shape[1]
    turns = [np.rot90(bank.fields, k, (1, 2)) for k in range(0, 4, 1 if square else 2)]
    fields = np.concatenate([*turns, *(f[..., ::-1] for f in turns)])
    return dataclasses.replace(
        bank,
        fields=fields,
        dates=np.tile(bank.dates, (len(fields) // len(bank.fields), 1)),
        elevation=np.zeros_like(bank.elevation),
        coherence=np.full_like(bank.coherence, np.median(bank.coherence)),
    )


def stacks(*, quick: bool) -> Iterator[StationStack]:
    """Yield all stacks, in a fixed order."""
    amplitudes = np.geomspace(*AMPLITUDES, STACKS[quick]).tolist()
    for k, source in enumerate(sources(quick=quick)):
        for number, amplitude in enumerate([*amplitudes, *[0.0] * AT_REST[quick]]):
            seed = split_seed("test", SEED_WORD, k, number)
            yield draw(source, amplitude, number, seed)


def draw(
    source: Source, amplitude: float, number: int, seed: np.random.SeedSequence
) -> StationStack:
    """Draw one stack with its stations."""
    cube, truth = simulate_stack(
        seed=seed,
        shape=source.shape,
        dates=source.dates,
        interval_days=INTERVAL,
        max_temporal_baseline=LONGEST,
        amplitude=amplitude,
        noise=source.bank,
        pair_errors=PairErrors(unwrapping=0.0),
    )
    rng = np.random.default_rng(child_seeds(seed, 6)[-1])  # the stack has five
    phase = cube["unwrapped_phase"]
    coherence = cube["coherence"].values
    cube = cube.assign(
        unwrapped_phase=phase
        + decorrelation_noise(coherence, looks=LOOKS, generator=rng)
    )
    cube["unwrapped_phase"].attrs = phase.attrs
    stations = _stations(Scene(cube, truth), rng)
    los = sample_at_stations(cube[["los_east", "los_north", "los_up"]], stations)
    projected = project_on_line_of_sight(stations, *los.data_vars.values())
    return StationStack(source.case, number, amplitude, Scene(cube, truth), projected)


def _stations(scene: Scene, rng: np.random.Generator) -> xr.Dataset:
    """Stations far from the sources, then stations on them; anywhere at rest."""
    cube, truth = scene
    held = cube["unwrapped_phase"].notnull().mean(PAIR)
    moved = truth["displacement"].where(held >= LEAST_DATA)
    largest = abs(moved).max(TIME)
    far, near = (
        fold(float(largest.quantile(share)), part * float(largest.max()))
        for fold, share, part in (
            (max, SHARE["far"], FAR),
            (min, 1 - SHARE["near"], NEAR),
        )
    )
    dates = moved[TIME].values
    parts = [
        simulate_stations(
            moved.where(there),
            cube,
            count=count,
            times=np.arange(dates[0], dates[-1], np.timedelta64(1, "D")),
            horizontal_std=HORIZONTAL,
            vertical_std=VERTICAL,
            generator=rng,
        )
        for there, count in ((largest <= far, QUIET), (largest >= near, MOVING))
    ]
    names = [
        f"{kind}{k + 1}"
        for kind, p in zip("QM", parts, strict=True)
        for k in range(p.sizes[STATION])
    ]
    return xr.concat(parts, STATION).assign_coords({STATION: names})
