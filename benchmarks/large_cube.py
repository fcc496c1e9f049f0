"""Every network on a cube of 2048 x 2048 pixels and 60 pairs.

The cube is one simulated scene of 128 x 128 pixels repeated; its pairs are of
consecutive dates, so a network of stacks sees 61 dates. Beside it stands a cube of a
quarter of the area, of as many pairs and cut alike: the highest resident memory of
`correct` on both says whether memory follows the block or the scene. Each run is a
fresh process with two threads (`memory`).

A network of pairs takes one pair in a task and the same for each, so by default it is
given one pair of the 60, and the autoencoder, which slides over the dates and is slow,
four dates; ``--all-pairs`` gives them all.
"""

import functools
import logging
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.memory import (
    LIMIT,
    WORKERS,
    Sizes,
    copied,
    make_cube,
    narrow_model,
    run_step,
)
from benchmarks.report import Row, parser, report, write
from cube_denoise import store
from cube_denoise.correct import CORRECTED
from cube_denoise.models import zoo
from cube_denoise.models.stack import StackConfig, StackNetwork

log = logging.getLogger(__name__)

# A gap in one pair of a chain parts the dates before it from those after it: of gaps of
# a thousandth, 60 pairs make 3 % of the pixels and dates unknown.
SCENES = {
    False: Sizes(size=1024, chunk=256, shard=512, dates=61, longest=12, gaps=0.001),
    True: Sizes(size=384, chunk=64, shard=256, dates=4, longest=12, gaps=0.001),
}
"""By ``--quick``; the larger cube has twice as many pixels a side."""
FEW_DATES = 2
"""Of the cube that networks of pairs are given: one pair."""
SLOW = {"autoencoder": 4}
"""Dates of the cube that slow networks of stacks are given, the fewest there can be."""

Made = Callable[[int, int], Path]
"""``made(side, dates)``: a cube."""


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked = options(arguments)
    sizes = SCENES[asked.quick]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="large-cube-") as name:
        folder = Path(name)

        @functools.cache
        def made(side: int, dates: int) -> Path:
            url = folder / f"{side}-{dates}"
            log.info("making a cube of %d x %d pixels, %d dates", side, side, dates)
            make_cube(url, replace(sizes, dates=dates), side)
            return url

        for label, model in networks(folder, asked).items():
            few = FEW_DATES if zoo.what_it_sees(model) == "pair" else SLOW.get(model)
            dates = sizes.dates if asked.all_pairs or few is None else few
            for row in measure(label, model, sizes, dates, made):
                told = row.case, row.method, row.metric, row.cell, row.unit
                log.info("%s, %s, %s: %s %s", *told)
                rows.append(row)
                if asked.out is not None:
                    write(rows, asked.out)
    report(rows, asked.out, notes=notes(rows, sizes))
    return rows


def options(arguments: Sequence[str] | None) -> Namespace:
    """Parse the options."""
    more = parser(__doc__)
    more.add_argument(
        "--all-pairs", action="store_true", help="for networks of pairs as well: hours"
    )
    more.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=zoo.shipped_models(),
        metavar="NAME",
        help="these networks alone",
    )
    return more.parse_args(arguments)


def networks(folder: Path, asked: Namespace) -> dict[str, str]:
    """Networks to run by label, those of stacks first."""
    if asked.quick:
        return {
            "narrow untrained stack network": narrow_stack(folder / "narrow-stack"),
            "narrow untrained network": narrow_model(folder / "narrow"),
        }
    names = asked.only or zoo.shipped_models()
    return {n: n for n in sorted(names, key=lambda n: zoo.what_it_sees(n) != "stack")}


def narrow_stack(folder: Path) -> str:
    """Untrained small network of stacks, for ``--quick``."""
    model = StackNetwork(StackConfig(channels=(4, 4), heads=1, widths=(2.0, 1.0, 0.5)))
    return str(zoo.save_model(model, folder, training={}, card="untrained\n"))


def measure(
    label: str, model: str, sizes: Sizes, dates: int, made: Made
) -> Iterator[Row]:
    """What `correct` with one network takes on both cubes, and their ratio."""
    peaks = []
    for side in (sizes.size, 2 * sizes.size):
        with copied(made(side, dates)) as url:
            ran = run_step("correct", url, model)
            corrected = corrected_pairs(url)
        peaks.append(ran.peak)
        numbers = {
            "pairs corrected": (corrected, "1"),
            "peak": (ran.peak, "MB"),
            "of the cube": (ran.peak / cube_size(sizes, side), "1"),
            "time": (ran.seconds, "s"),
            "processor time": (ran.processor_seconds, "s"),
        }
        case = f"{side} x {side} x {dates - 1}"
        for metric, (value, unit) in numbers.items():
            yield Row(case, label, metric, float(value), unit)
    yield Row("area x 4", label, "ratio of peaks", peaks[1] / peaks[0], "1")


def corrected_pairs(url: Path) -> int:
    """Pairs that were corrected, not only passed through."""
    status = store.open_cube(url)["correction_status"].values
    return int((status == CORRECTED).sum())


def cube_size(sizes: Sizes, side: int) -> float:
    """Size of the phase of all pairs of a cube as float32, MB."""
    return 4 * (sizes.dates - 1) * side**2 / 1e6


def notes(rows: Sequence[Row], sizes: Sizes) -> str:
    """What the rows are of, and whether the limit holds."""
    ratios = {r.method: r.value for r in rows if r.metric == "ratio of peaks"}
    over = [f"{label} {ratio:.2f}" for label, ratio in ratios.items() if ratio > LIMIT]
    return "\n".join(
        (
            f"case: pixels x pixels x pairs of consecutive dates; {WORKERS} threads, "
            f"chunk {sizes.chunk}, shard {sizes.shard}.",
            f"of the cube: peak over the phase of all {sizes.dates - 1} pairs as "
            f"float32, {cube_size(sizes, 2 * sizes.size):.0f} MB of the larger",
            "cube, also where a network was given fewer pairs.",
            f"Largest ratio {max(ratios.values()):.2f}; over the limit of {LIMIT:.2f}: "
            f"{', '.join(over) or 'none'}.",
        )
    )


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    main()
