"""How fast samples are drawn.

One core and one thread: every recipe, the pairs of `simulate_pair` that the shipped
networks were trained on, and whole stacks of 256 x 256 pixels. Real noise comes from a
simulated stack here; how real it is makes no difference to the time.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from threadpoolctl import threadpool_limits

from benchmarks.report import Row, options, report
from cube_denoise.simulate import NoiseBank, simulate_pair, simulate_scene
from cube_denoise.simulate.recipes import RECIPES, sample
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.simulate.stack import simulate_stack
from cube_denoise.simulate.transplant import transplant_pair

SECONDS = {False: 20.0, True: 1.0}
"""Time given to each, whole run and ``--quick``."""

KINDS = ("short-pairs", "residual")

Draw = Callable[[int], object]
"""Makes the sample of a number."""


def generators() -> Iterator[tuple[str, str, Draw]]:
    """What is drawn, on which noise, and how."""
    stack = simulate_scene(size=320, dates=24, seed=0).cube
    banks = {kind: NoiseBank.from_cube(stack, kind=kind) for kind in KINDS}
    yield "simulate_pair, 256 x 256", "simulated", _pair
    for kind, bank in banks.items():
        name = "transplant_pair, 256 x 256"
        yield name, kind, partial(_transplanted, bank)
    for recipe in RECIPES.values():
        size = f"{recipe.shape[0]} x {recipe.shape[1]}"
        if not recipe.needs_noise:
            yield f"{recipe.name}, {size}", "simulated", partial(_sample, recipe.name)
        for kind in recipe.noise_kinds:
            if recipe.name != "stack":  # it has more dates than the training split here
                draw = partial(_sample, recipe.name, noise=banks[kind])
                yield f"{recipe.name}, {size}", kind, draw
    yield "simulate_stack, 20 dates, 256 x 256", "simulated", _stack


def _pair(number: int) -> object:
    return simulate_pair((256, 256), seed=split_seed("test", 200, number))


def _transplanted(bank: NoiseBank, number: int) -> object:
    seed = split_seed("train", 200, number)
    return transplant_pair(bank, (256, 256), seed=seed)


def _sample(name: str, number: int, *, noise: NoiseBank | None = None) -> object:
    return sample(name, number, split="train", seed=200, noise=noise)


def _stack(number: int) -> object:
    return simulate_stack(seed=number, shape=(256, 256))


def rate(draw: Draw, seconds: float) -> tuple[float, int]:
    """Samples per second, and how many were drawn, after one that is not counted."""
    draw(0)
    begin, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - begin < seconds:
        count += 1
        draw(count)
    return count / (time.perf_counter() - begin), count


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked = options(__doc__, arguments)
    rows = []
    with threadpool_limits(1):
        for name, noise, draw in generators():
            found, count = rate(draw, SECONDS[asked.quick])
            case = f"{noise} noise"
            rows.append(Row(name, case, "samples per second", found, "1"))
            rows.append(Row(name, case, "drawn", float(count), "1"))
    report(rows, asked.out, notes="One core, one thread; each sample is a new one.")
    return rows


if __name__ == "__main__":
    main()
