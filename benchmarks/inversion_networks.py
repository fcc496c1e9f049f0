"""What our solver costs on other networks; a part of `benchmarks.inversion`."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.inversion_ours import bandwidth
from benchmarks.inversion_peers import Runner
from benchmarks.inversion_stack import neighbours, simulate
from benchmarks.report import Row

log = logging.getLogger(__name__)

MOST = 1.1
"""Exponent of the time over pairs x bandwidth that still counts as linear."""


@dataclass(frozen=True)
class Networks:
    """Which networks, on how many pixels, and how often."""

    dates: Sequence[int]
    neighbours: Sequence[int]
    work: int
    """Pixels x pairs of each."""
    rounds: int


NETWORKS = {
    False: Networks((60, 200, 400), (3, 6, 10), 16_000_000, 5),
    True: Networks((60,), (3,), 400_000, 1),
}
"""By ``--quick``."""


def every(asked: Networks) -> Iterator[tuple[str, np.ndarray, int]]:
    """Name, pairs and number of dates of the networks."""
    for dates in asked.dates:
        for count in asked.neighbours:
            for annual in (False, True):
                name = f"{dates} dates, {count} neighbours" + ", annual" * annual
                yield name, neighbours(dates, count, annual=annual), dates


def measure(asked: Networks, threads: int) -> tuple[list[Row], str]:
    """Rows of all networks; whether the time goes with pairs x bandwidth."""
    rows: list[Row] = []
    costs: list[tuple[float, float]] = []
    for name, pairs, dates in every(asked):
        with tempfile.TemporaryDirectory(prefix="cube-network-") as place:
            folder = Path(place)
            pixels = max(asked.work // len(pairs) // 64, 1) * 64
            simulate(pairs, (64, pixels // 64)).save(folder)
            runner = Runner.start("cube_denoise", folder, threads, weighted=True)
            for _ in range(asked.rounds):
                runner.run()
            runner.stop()
        width = bandwidth(pairs[:, 0], pairs[:, 1], dates)
        seconds = [r["seconds"] for r in runner.runs]
        each = [1e6 * s / pixels for s in seconds]
        extra = [r["extra"] for r in runner.runs if r["extra"] is not None]
        costs.append((len(pairs) * width, median(each)))
        cost = 1e3 * median(each) / len(pairs) / width
        rate = 1e-6 * pixels * len(pairs) / median(seconds)
        rows += [
            Row("networks", name, "pairs", float(len(pairs)), "1"),
            Row("networks", name, "bandwidth", float(width), "1"),
            Row("networks", name, "pixels", float(pixels), "1"),
            Row("networks", name, "a pixel", median(each), "us", min(each), max(each)),
            Row("networks", name, "rate", rate, "M/s"),
            Row("networks", name, "a pair x bandwidth", cost, "ns"),
            Row("networks", name, "extra memory", max(extra) / 1e6, "MB"),
        ]
        log.info("%s: %.3g us a pixel", name, median(each))
    exponent, spread = fit(costs)
    verdict = "reached" if exponent <= MOST else "MISSED"
    rows.append(Row("goals", "exponent over pairs x bandwidth", "is", exponent, "1"))
    rows.append(Row("goals", "exponent over pairs x bandwidth", "limit", MOST, "1"))
    return rows, (
        f"{verdict}: the time of a pixel goes with (pairs x bandwidth)^{exponent:.2f}, "
        f"at most {MOST}; {spread:.2g} times between the networks in ns a pair x "
        f"bandwidth."
    )


def fit(costs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Exponent of the time over the size; largest over smallest time for a size."""
    size, time = np.log(np.array(costs)).T
    each = time - size
    return float(np.polyfit(size, time, 1)[0]), float(np.exp(each.max() - each.min()))
