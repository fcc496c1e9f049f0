"""The fixed test suite: simulated stacks, and real noise with injected deformation.

A change of what is drawn, or of how many, is a new `VERSION`: figures of different
versions do not compare.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from cube_denoise.conventions import X, Y
from cube_denoise.evaluate.injection import Case
from cube_denoise.simulate import Scene
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.simulate.stack import simulate_stack

VERSION = 2
SEED_WORD = 200 + VERSION
"""First word of the seeds within the "test" split, which training never draws."""
DECADES = (-2, -1, 0, 1)
"""Lower ends of the decades, log10 of the power of the deformation over that of the
delay, in the pairs."""
TERRAINS = {"flat": 100.0, "steep": 2000.0}
"""Relief of the scenes, m."""
SCENES = {False: 6, True: 1}
"""Stacks of every decade and terrain; whole run and ``--quick``."""
SIZE = {False: 128, True: 48}
"""Pixels a side."""
DATES = {False: 12, True: 8}
"""Acquisitions, 12 days apart; pairs of 12 and 24 days."""


class Stack(NamedTuple):
    """One simulated stack of the suite."""

    case: str
    """``snr 0.01-0.1`` ..., ``pure noise``."""
    terrain: str
    """One of `TERRAINS`."""
    scene: Scene
    """Cube and truth."""


def case_name(decade: int | None) -> str:
    """Case of a decade; None for stacks at rest."""
    if decade is None:
        return "pure noise"
    return f"snr {10.0**decade:g}-{10.0 ** (decade + 1):g}"


def stacks(*, quick: bool) -> Iterator[Stack]:
    """Yield all simulated stacks, in a fixed order."""
    for decade in (*DECADES, None):
        for terrain in TERRAINS:
            for number in range(SCENES[quick]):
                yield Stack(
                    case_name(decade),
                    terrain,
                    _scene(decade, terrain, number, quick=quick),
                )


def seed_of(decade: int | None, terrain: str, number: int) -> np.random.SeedSequence:
    """Seed of one stack of the suite."""
    row = len(DECADES) if decade is None else DECADES.index(decade)
    return split_seed("test", SEED_WORD, row, list(TERRAINS).index(terrain), number)


def _scene(decade: int | None, terrain: str, number: int, *, quick: bool) -> Scene:
    seed = seed_of(decade, terrain, number)
    ratio = np.random.default_rng(seed.spawn(1)[0])
    # `spawn` counts: the stack is drawn from the seed as it was.
    seed = seed_of(decade, terrain, number)

    def draw(snr: float | None) -> Scene:
        return simulate_stack(
            seed=seed,
            shape=(SIZE[quick], SIZE[quick]),
            dates=DATES[quick],
            max_temporal_baseline=24,
            terrain=TERRAINS[terrain],
            **({"amplitude": 0.0} if snr is None else {"snr": snr}),
        )

    if decade is None:
        return draw(None)
    # The ratio asked for is that of the series; that of the pairs goes with it.
    wanted = 10 ** ratio.uniform(decade, decade + 1)
    return draw(wanted / float(draw(1.0).truth.attrs["snr_pairs"]))


class RealNoise(NamedTuple):
    """Real pairs to which known deformation is added."""

    name: str
    """Folder in ``../shared/data``."""
    cube: xr.Dataset
    """In memory."""
    reference: Mapping[str, slice]
    """Reference area, pixels."""
    cases: list[Case]
    """What is injected."""


def real_noise(folder: Path, *, quick: bool) -> Iterator[RealNoise]:
    """Yield the real stacks that lie there; those that do not are left out."""
    from benchmarks import mexico_city, real_stacks

    if mexico_city.FOLDER.is_dir():
        url = mexico_city.mexico_cube(folder / "mexico", catalog=folder / "mexico.json")
        from cube_denoise.store import open_cube

        cube = open_cube(url).load()
        yield RealNoise(
            "mexico-city-s1", cube, mexico_city.REFERENCE, _cases(150.0, quick=quick)
        )
    if real_stacks.PERMIAN.is_dir() and not quick:
        part = real_stacks.permian_cube().isel({Y: slice(160, 288), X: slice(80, 208)})
        reference = {
            d: slice(s.start - origin, s.stop - origin)
            for (d, s), origin in zip(
                real_stacks.PERMIAN_REFERENCE.items(), (160, 80), strict=True
            )
        }
        yield RealNoise(
            "permian-opera-disp", part.load(), reference, _cases(30.0, quick=quick)
        )


def _cases(spacing: float, *, quick: bool) -> list[Case]:
    """Two sizes, steady and sudden, at an amplitude near what can be found."""
    radii = (4,) if quick else (4, 10)
    return [
        Case("bowl", n * spacing, amplitude, history)
        for n in radii
        for history, amplitude in (("steady", 0.05), ("step", 0.02))
    ]
