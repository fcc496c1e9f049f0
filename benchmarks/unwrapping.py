"""Whether unwrapping errors are found and corrected, and anything right is moved.

Simulated stacks with decorrelation and gaps, in networks of each date with its next 2,
3 or 4, and the real pairs over Mexico City, with regions of whole cycles added to
pairs. Then the real pairs as they are.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from benchmarks.mexico_city import FOLDER, mexico_cube
from benchmarks.report import Row, options, report
from cube_denoise import store
from cube_denoise.closure import closure_cycles, unwrapping_cycles
from cube_denoise.network import closure_triplets, triplet_closure
from cube_denoise.reference import choose_reference, reference_phase
from cube_denoise.simulate import PairErrors, simulate_stack
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.simulate.sensor import unwrapping_errors
from cube_denoise.unwrapping import closure_statistics, loop_constants

NEIGHBOURS = (2, 3, 4)
"""Later dates that every date is paired with."""
PROBABILITIES = (0.0, 0.05, 0.2, 0.6)
"""Of a pair to have an error."""
AREA = (0.05, 0.3)
"""Smallest and largest part of the map that an error takes."""
STACKS = {False: 4, True: 1}
SIZE = {False: 128, True: 48}
DATES = {False: 24, True: 12}
SPACING = 80.0
"""m."""
INTERVAL = 12
"""Days between dates."""

NOTES = """\
wrong: pairs and pixels with an error that was added. found: of these, those at pixels
where a triplet is open. fixed: given exactly their cycles. masked: taken away. left:
the rest, still wrong. Of what was changed, false: pairs and pixels that were right, or
got other cycles than theirs. right masked: of all that is right. closed and moved:
number of pairs at pixels without an open triplet that were changed or masked."""


class Pixels(NamedTuple):
    """Phases whose errors are known."""

    phase: np.ndarray
    """Without the errors that are added, rad, shape (pairs, rows, columns)."""
    triplets: np.ndarray
    constants: np.ndarray
    """Of the loops, rad."""


def simulated(neighbours: int, number: int, *, quick: bool) -> Pixels:
    """A stack whose pairs have decorrelation and gaps, but no unwrapping errors."""
    cube = simulate_stack(
        seed=split_seed("test", 205, neighbours, number),
        shape=(SIZE[quick], SIZE[quick]),
        spacing=SPACING,
        dates=DATES[quick],
        interval_days=INTERVAL,
        max_temporal_baseline=neighbours * INTERVAL,
        pair_errors=PairErrors(unwrapping=0.0),
    ).cube
    triplets = closure_triplets(*_times(cube))
    return Pixels(cube["unwrapped_phase"].values, triplets, np.zeros(len(triplets)))


def real(cube: xr.Dataset) -> Pixels:
    """The pairs over Mexico City, less the phase of the automatic reference area."""
    triplets = closure_triplets(*_times(cube))
    constants = reference_phase(cube, "unwrapped_phase", choose_reference(cube))
    phase = cube["unwrapped_phase"].values - constants[:, None, None]
    loops = loop_constants(cube, "unwrapped_phase", constants, triplets)
    return Pixels(phase.astype("float32"), triplets, loops)


def damage(pixels: Pixels, probability: float, number: int) -> np.ndarray:
    """Cycles to add to the pairs, int8, shape of the phase."""
    word = round(1000 * probability)
    return unwrapping_errors(
        len(pixels.phase),
        pixels.phase.shape[1:],
        spacing=SPACING,
        probability=probability,
        area=AREA,
        generator=np.random.default_rng(split_seed("test", 206, word, number)),
    )


def score(pixels: Pixels, wrong: np.ndarray) -> Counter[str]:
    """Counts of pairs and pixels, and the processor time that their search took.

    Parameters
    ----------
    pixels : Pixels
    wrong : numpy.ndarray of int, shape of the phase
        Cycles that are added.

    Returns
    -------
    collections.Counter
        ``all``, ``wrong``, ``found``, ``fixed``, ``masked``, ``changed``, ``false``,
        ``right masked``, ``closed and moved``, ``seconds``.
    """
    pairs = len(pixels.phase)
    phase = (pixels.phase + 2 * np.pi * wrong).astype("float32").reshape(pairs, -1)
    known = np.where(np.isfinite(phase), wrong.reshape(pairs, -1), 0)
    begin = time.thread_time()
    cycles, undecided = unwrapping_cycles(
        phase, pixels.triplets, loop_constants=pixels.constants
    )
    seconds = time.thread_time() - begin
    missed = triplet_closure(phase, pixels.triplets) - pixels.constants[:, None]
    opened = np.nan_to_num(closure_cycles(missed)).any(0)
    is_wrong, changed = known != 0, cycles != 0
    return Counter(
        {
            "all": np.isfinite(phase).sum(),
            "wrong": is_wrong.sum(),
            "found": (is_wrong & opened).sum(),
            "fixed": (is_wrong & (cycles == -known)).sum(),
            "masked": (is_wrong & undecided).sum(),
            "changed": changed.sum(),
            "false": (changed & (cycles != -known)).sum(),
            "right masked": (undecided & ~is_wrong).sum(),
            "closed and moved": ((changed | undecided) & ~opened).sum(),
            "seconds": seconds,
        }
    )


def rows_of(case: str, method: str, count: Counter[str]) -> Iterator[Row]:
    """Rates of what `score` counted; those of nothing are NaN."""

    def percent(part: float, whole: float) -> float:
        return 100 * part / whole if whole else float("nan")

    left = count["wrong"] - count["fixed"] - count["masked"]
    for name, value, whole in (
        ("wrong", count["wrong"], count["all"]),
        ("found", count["found"], count["wrong"]),
        ("fixed", count["fixed"], count["wrong"]),
        ("masked", count["masked"], count["wrong"]),
        ("left", left, count["wrong"]),
        ("false", count["false"], count["changed"]),
        ("right masked", count["right masked"], count["all"] - count["wrong"]),
    ):
        yield Row(case, method, name, percent(float(value), float(whole)), "%")
    yield Row(case, method, "closed and moved", float(count["closed and moved"]), "1")
    each = 1e9 * count["seconds"] / count["all"]
    yield Row(case, method, "processor time", each, "ns per pair and pixel")


def as_it_is(cube: xr.Dataset) -> Iterator[Row]:
    """Mexico City before and after each treatment."""
    for unwrapping in ("none", "mask", "correct"):
        found = closure_statistics(cube, unwrapping=unwrapping)
        for name, layer, weight in (
            ("open triplets", "open_after", "triplet_pixels"),
            ("corrected", "corrected", "pixels"),
            ("masked", "masked", "pixels"),
        ):
            share = float((found[layer] * found[weight]).sum() / found[weight].sum())
            yield Row("mexico-city-s1", unwrapping, name, 100 * share, "%")
        rest = float(found["open_pixels_after"])
        yield Row("mexico-city-s1", unwrapping, "open pixels", rest, "1")
    pixels = real(cube)
    moved = score(pixels, np.zeros(pixels.phase.shape, "int8"))["closed and moved"]
    yield Row("mexico-city-s1", "correct", "closed and moved", float(moved), "1")


def _times(cube: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    return cube["reference_time"].values, cube["secondary_time"].values


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark."""
    asked = options(__doc__, arguments)
    rows: list[Row] = []
    warm = np.zeros((3, 1), "float32")
    warm[0] = 7
    unwrapping_cycles(warm, np.array([[0, 1, 2]]))  # compiles
    for neighbours in NEIGHBOURS:
        stacks = [
            simulated(neighbours, k, quick=asked.quick)
            for k in range(STACKS[asked.quick])
        ]
        for probability in PROBABILITIES:
            count: Counter[str] = Counter()
            for k, pixels in enumerate(stacks):
                count.update(score(pixels, damage(pixels, probability, k)))
            case = f"simulated, {neighbours} neighbours"
            rows += rows_of(case, f"{probability:.0%} of pairs", count)
    if FOLDER.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            url = mexico_cube(Path(folder) / "cube", catalog=Path(folder) / "c.json")
            cube = store.open_cube(url).load()
        pixels = real(cube)
        for probability in PROBABILITIES:
            count = score(pixels, damage(pixels, probability, 0))
            case = "mexico-city-s1, added"
            rows += rows_of(case, f"{probability:.0%} of pairs", count)
        rows += as_it_is(cube)
    report(rows, asked.out, notes=NOTES)
    return rows


if __name__ == "__main__":
    main()
