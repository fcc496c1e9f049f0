"""Compare a stack network adapted to odd noise with one that was trained on it.

Every stack is of a place whose noise the training never drew (`differing_noise`). A
network is adapted to it by `training.adapt`, whose gate may refuse. For comparison the
same network is trained on as long with new noise of that place without end.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.atmosphere import in_processes, interval
from benchmarks.differing_noise import VARIANTS, Place
from benchmarks.report import Row, report
from cube_denoise import evaluate
from cube_denoise.conventions import displacement_to_phase
from cube_denoise.simulate.assembly import Scene, assemble, short_pairs
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.simulate.stack import power

log = logging.getLogger(__name__)

VERSION = 2
"""Figures of different versions do not compare."""
SEED_WORD = 700 + VERSION
"""First word of the seeds within the "test" split."""
STACKS = {"other spectrum": 7, "uneven amplitude": 7, "stratified": 7, "scaled": 3}
"""Of every kind; one with ``--quick``."""
SEEDS = 3
"""Of adaptation, in turn."""
SIZE = {False: 64, True: 32}
"""Pixels a side; whole run and ``--quick``."""
DATES, INTERVAL = 40, 12
"""Of a stack; days."""
LONGEST = 36
"""Longest pair, days."""
STEPS = {False: 300, True: 2}
"""Of an adaptation, and of the network that is trained on the noise."""
RATIOS = (0.1, 0.3, 1.0, 3.0)
"""Powers of displacement over noise of the new stacks; the own stack has 0.3 or 1."""
NEW = {False: 2, True: 1}
"""New stacks of the place for each ratio, and as many at rest."""
WAVELENGTH = 0.0555
CLOSE, BETTER = 1.1, 0.75
"""Targets: adapted over trained on the noise, and over unadapted."""
SIDES = ("unadapted", "adapted", "trained on the noise")


class Series(NamedTuple):
    """A stack as arrays."""

    series: np.ndarray
    """m, (dates, rows, columns)."""
    truth: np.ndarray
    """m."""
    years: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """Scores of one stack."""

    kind: str
    variant: str
    own: dict[str, float]
    """Rms error of the stack itself over its noise, by side."""
    new: dict[str, float]
    """The same of new stacks of the place, geometric mean."""
    slope: dict[str, float]
    """Amplitude slope of the new stacks of a ratio of 1 or more, median."""
    alarm: dict[str, float]
    """99th percentile at rest over the rms noise, %, median."""
    refused: tuple[str, ...]
    """Reasons; none if the adapted weights were accepted."""


def noisy(place: Place, number: int, ratio: float, *, dates: int) -> Series:
    """Simulated deformation of the test split under new noise of a place."""
    from cube_denoise.stack_samples import StackSampling, stack_batch

    sampling = StackSampling(
        sides=(place.size,),
        dates=(dates, dates),
        volume=place.size**2 * dates,
        bank=8,
        at_rest=0.0,
        hiding=0.0,
    )
    drawn = stack_batch(number, sampling, split="test", seed=SEED_WORD)
    truth = drawn.displacement[0].numpy()
    years = INTERVAL / 365.25 * np.arange(dates)
    seed = split_seed("test", SEED_WORD, place.seed, number)
    noise = place.noise(years, np.random.default_rng(seed))
    truth = truth * np.float32(np.sqrt(ratio * power(noise) / power(truth)))
    return Series(truth + noise, truth, years)


def scene_of(place: Place, stack: Series) -> Scene:
    """Pairs of a stack, without errors of their own."""
    begin = np.datetime64("2019-03-01T00:40:20", "s")
    days = np.rint(365.25 * stack.years).astype("timedelta64[D]")
    dates = short_pairs(begin + days, LONGEST)
    pairs = zip(dates.first, dates.second, strict=True)
    phase = np.stack([stack.series[j] - stack.series[i] for i, j in pairs])
    return assemble(
        grid=place.ground.grid,
        dates=dates,
        orbit=np.zeros(days.size),
        layers={
            "unwrapped_phase": displacement_to_phase(phase, WAVELENGTH).astype("f4"),
            "coherence": np.full(phase.shape, 0.7, "float32"),
            "elevation": place.ground.elevation.astype("float32"),
        },
        line_of_sight=(0.6, 0.1, 0.79),
        attributes={"wavelength": WAVELENGTH, "heading": -12.0, "track": "A001"},
        truth={"displacement": stack.truth},
        truth_attributes={"seed": place.seed},
    )


def seen(model: Any, place: Place, stack: Series) -> tuple[np.ndarray, ...]:
    """Truth, series and estimate, centred, m."""
    import torch

    from cube_denoise.training.stacks import centred

    height = place.ground.elevation - np.median(place.ground.elevation)
    inputs = (
        torch.from_numpy(np.asarray(a, "float32"))[None]
        for a in (stack.years, height, np.full(height.shape, 0.7))
    )
    series = torch.from_numpy(stack.series)[None]
    with torch.inference_mode():
        estimate, _ = model(series, torch.ones_like(series, dtype=torch.bool), *inputs)
    return tuple(map(centred, (stack.truth, stack.series, estimate[0].numpy())))


def left(truth: np.ndarray, series: np.ndarray, estimate: np.ndarray) -> float:
    """Rms error of the estimate over that of the series."""
    return evaluate.rms_error(estimate, truth) / evaluate.rms_error(series, truth)


def trained_on(place: Place, model: str, cube: Path, *, seed: int, steps: int) -> Any:
    """Network trained on with new noise of a place in every sample."""
    import torch

    from cube_denoise.models import zoo
    from cube_denoise.stack_samples import StackBatch
    from cube_denoise.training.adapt import noise_banks, recipe
    from cube_denoise.training.learner import Learner
    from cube_denoise.training.task import Setup

    settings = recipe(noise_banks(cube), steps)
    learner = Learner(zoo.load_model(model), settings, seed=seed, device="cpu")
    setup = Setup(learner.model.config, seed)
    height = place.ground.elevation
    for step in range(steps):
        batch = settings.task.draw(setup, "train", step)
        rng = np.random.default_rng(split_seed("train", SEED_WORD, seed, step))
        assert isinstance(batch, StackBatch)
        side = batch.series.shape[-1]
        made = []
        for old, visible, years, truth in zip(
            *(
                a.numpy()
                for a in (batch.series, batch.visible, batch.years, batch.displacement)
            ),
            strict=True,
        ):
            y, x = rng.integers(place.size - side + 1, size=2)
            here = slice(y, y + side), slice(x, x + side)
            noise = place.noise(years, rng)[(slice(None), *here)]
            noise = rng.choice([-1, 1]) * (noise - noise.mean((1, 2), keepdims=True))
            simulated = np.where(visible, truth - old, np.nan)
            truth = truth * np.sqrt(power(noise) / max(power(simulated), 1e-16))
            series = np.where(visible, truth + noise, 0)
            maps = height[here] - np.median(height[here]), np.full((side, side), 0.7)
            made.append((series, visible, years, *maps, truth))
        fields = (np.stack(a) for a in zip(*made, strict=True))
        learner.step(
            settings.task,
            StackBatch(
                *(
                    torch.from_numpy(a if a.dtype == bool else a.astype("f4"))
                    for a in fields
                )
            ),
        )
    return learner.average.float().eval()


def judged(kind: str, number: int, model: str, *, quick: bool) -> Outcome:
    """Adapt to one stack and score all sides."""
    import torch

    from cube_denoise.ingest import ingest_dataset
    from cube_denoise.models import zoo
    from cube_denoise.training.adapt import adapt

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    variants = VARIANTS[kind]
    place = Place(variants[number % len(variants)], number, SIZE[quick])
    seed, steps = number % SEEDS, STEPS[quick]
    own = noisy(place, 1000 + number, RATIOS[1 + number % 2], dates=DATES)
    models = {"unadapted": zoo.load_model(model)}
    models["adapted"] = models["unadapted"]
    with tempfile.TemporaryDirectory() as folder:
        cube, out = Path(folder, "cube"), Path(folder, "adapted")
        ingest_dataset(scene_of(place, own).cube, cube)
        found = adapt(cube, out, model=model, steps=steps, seed=seed)
        if found.folder is not None:
            models["adapted"] = zoo.load_model(found.folder)
        models["trained on the noise"] = trained_on(
            place, model, cube, seed=seed, steps=steps
        )
    new: dict[str, list[float]] = {side: [] for side in SIDES}
    slope: dict[str, list[float]] = {side: [] for side in SIDES}
    alarm: dict[str, list[float]] = {side: [] for side in SIDES}
    for k, (ratio, _) in enumerate(product((0.0, *RATIOS), range(NEW[quick]))):
        stack = noisy(place, 100 * number + k, ratio, dates=DATES)
        for side, network in models.items():
            truth, series, estimate = seen(network, place, stack)
            if not ratio:
                noise = float(np.sqrt(np.mean(series**2)))
                alarm[side].append(100 * evaluate.false_alarm(estimate) / noise)
                continue
            new[side].append(left(truth, series, estimate))
            if ratio >= 1:
                slope[side].append(evaluate.amplitude_slope(estimate, truth))
    return Outcome(
        kind,
        place.variant,
        {s: left(*seen(network, place, own)) for s, network in models.items()},
        {s: float(np.exp(np.mean(np.log(v)))) for s, v in new.items()},
        {s: float(np.median(v)) for s, v in slope.items()},
        {s: float(np.median(v)) for s, v in alarm.items()},
        found.reasons,
    )


def _judged(asked: tuple[str, int], *, model: str, quick: bool) -> Outcome:
    return judged(*asked, model, quick=quick)


def rows_of(outcomes: Sequence[Outcome]) -> Iterator[Row]:
    """Rows of every kind and of all that differ from training but in scale."""
    differing = [o for o in outcomes if o.kind != "scaled"]
    cases = {k: [o for o in outcomes if o.kind == k] for k in STACKS}
    for case, chosen in (*cases.items(), ("all but scaled", differing)):
        if not chosen:
            continue
        for side in SIDES:
            for metric, values in (
                ("error, own stack", [o.own[side] for o in chosen]),
                ("error, new stacks", [o.new[side] for o in chosen]),
                ("slope", [o.slope[side] for o in chosen]),
                ("false alarm / noise", [o.alarm[side] for o in chosen]),
            ):
                unit = "%" if "alarm" in metric else "1"
                yield _row(case, side, metric, unit, values)
        for metric, part in (("own stack", "own"), ("new stacks", "new")):
            for other in ("unadapted", "trained on the noise"):
                ratios = [
                    getattr(o, part)["adapted"] / getattr(o, part)[other]
                    for o in chosen
                ]
                yield _row(f"{case}, paired", f"adapted / {other}", metric, "1", ratios)
        accepted = 100.0 * np.mean([not o.refused for o in chosen])
        yield Row(f"{case}, gate", "adapted", "accepted", float(accepted), "%")


def _row(
    case: str, method: str, metric: str, unit: str, values: Sequence[float]
) -> Row:
    value, low, high = interval(values)
    return Row(case, method, metric, value, unit, low, high, len(values))


def targets(rows: Sequence[Row]) -> list[str]:
    """What is to be reached, and whether it is."""
    lines = []
    for case in (*STACKS, "all but scaled"):
        for metric in ("own stack", "new stacks"):
            found = {
                r.method.removeprefix("adapted / "): r.value
                for r in rows
                if r.case == f"{case}, paired" and r.metric == metric
            }
            if not found:
                continue
            part, other = found["unadapted"], found["trained on the noise"]
            lines.append(
                f"{case}, {metric}: adapted error {100 * (1 - part):.0f} % below "
                f"unadapted (target 25: {_said(part <= BETTER)}), "
                f"{100 * (other - 1):+.0f} % of trained on the noise (target 10: "
                f"{_said(other <= CLOSE)})"
            )
    return lines


def _said(reached: bool) -> str:
    return "reached" if reached else "missed"


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the rows")
    parser.add_argument("--model", default="stack", help="network to begin with")
    parser.add_argument("--stacks", type=int, help="at most, of every kind")
    parser.add_argument(
        "--only", nargs="+", choices=list(STACKS), help="these kinds of noise alone"
    )
    given = parser.parse_args(arguments)
    kinds = given.only or list(STACKS)
    began = time.monotonic()
    most = 1 if given.quick else given.stacks or max(STACKS.values())
    outcomes = []
    # Kinds in turn: what is interrupted has seen all of them.
    asked = [(k, n) for n, k in product(range(most), kinds) if n < STACKS[k]]
    judge = partial(_judged, model=given.model, quick=given.quick)
    for one in in_processes(judge, asked, quick=given.quick):
        outcomes.append(one)
        log.info(
            "%d stacks, %.0f s: %s; own %s; new %s; slope %s; alarm %s; %s",
            len(outcomes),
            time.monotonic() - began,
            one.variant,
            *(
                " ".join(f"{v:.3f}" for v in values.values())
                for values in (one.own, one.new, one.slope, one.alarm)
            ),
            "; ".join(one.refused) or "accepted",
        )
    rows = list(rows_of(outcomes))
    steps = STEPS[given.quick]
    size = SIZE[given.quick]
    notes = [
        f"Version {VERSION}: {len(outcomes)} stacks of {DATES} dates, {size} x {size} "
        f"pixels, {SEEDS} seeds of adaptation in turn, {time.monotonic() - began:.0f} "
        "s in all.",
        f"adapted: {steps} steps with the noise of the first 60 % of the dates, or the "
        "unadapted network where the gate refuses.",
        f"trained on the noise: {steps} steps from the same weights, "
        "new noise of the place in every sample.",
        "Errors are rms, over that of the series as it is; new stacks: geometric mean "
        f"over {len(RATIOS)} ratios of powers from {RATIOS[0]} to {RATIOS[-1]}.",
        "Medians over stacks with 95 % bootstrap intervals.",
        "",
        *(
            f"refused, {o.kind} ({o.variant}): {'; '.join(o.refused)}"
            for o in outcomes
            if o.refused
        ),
        "",
        *targets(rows),
    ]
    report(rows, given.out, notes="\n".join(notes))
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    main()
