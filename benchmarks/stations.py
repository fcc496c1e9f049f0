"""How much nearer to GNSS every method brings a stack at stations, and at what price.

The metric of the diffusion poster (Popescu et al.), mean absolute difference to GNSS at
stations, on stacks whose noise is that of real ones and whose motion is known.
Deformation and stations are simulated; noise is the residual of every date of a real
stack (`simulate.residual_fields`), with dates in another order and signs drawn anew.

`--model FOLDER`, as often as wanted, adds models to the shipped ones; the first of them
takes the place of the flagship.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from benchmarks import real_stacks, station_stacks
from benchmarks.atmosphere import corrected_by
from benchmarks.report import Row, options, report, table
from benchmarks.station_scores import AtStations, at_stations, lowered
from benchmarks.station_stacks import StationStack
from cube_denoise.conventions import PAIR, TIME, X, Y, displacement_to_phase
from cube_denoise.corrections import CLASSICAL
from cube_denoise.evaluate.held_out import uncorrected
from cube_denoise.evaluate.judge import RAW, applicable_methods
from cube_denoise.invert import invert
from cube_denoise.reference import choose_reference

log = logging.getLogger(__name__)

FLAGSHIP = "stack"
PERFECT, ZERO = "truth", "output zero"
"""Bounds: pairs without noise, and pairs without anything."""
EVERYWHERE = ("dncnn", "unet", FLAGSHIP)
"""Networks that see every stack."""
SUBSET = (2, 5, 8)
"""Numbers of the stacks that all other networks see, of cases of few dates."""
ALL = "all"
"""Case of all stacks."""
LARGE = 0.02
"""Deformation from which on the slope is told by itself, m."""
TABLED = 5
"""Number of the stack of each case whose stations are printed; `--out` has all."""

Corrector = Callable[[xr.Dataset], xr.Dataset]


class Judged(NamedTuple):
    """All methods on one stack, whose maps are not kept."""

    case: str
    number: int
    amplitude: float
    """As of `StationStack`."""
    found: dict[str, AtStations]
    """By method."""


def methods(
    stack: StationStack, models: Sequence[Path] = (), *, quick: bool = False
) -> dict[str, Corrector]:
    """All that a stack is corrected by, by name; raw first, bounds next."""
    found: dict[str, Corrector] = {
        RAW: uncorrected,
        PERFECT: partial(noise_free, truth=stack.scene.truth),
        ZERO: lambda cube: cube.assign(corrected_phase=0 * cube["unwrapped_phase"]),
    }
    for name in applicable_methods(stack.scene.cube):
        if name in CLASSICAL:
            known = not quick or name in ("ramp", "pca")
        else:
            known = not quick and (name in EVERYWHERE or _in_subset(stack))
        if known:
            found[name] = partial(corrected_by, method=name)
    for folder in models:
        found[folder.name] = partial(corrected_by, method=folder)
    return found


def _in_subset(stack: StationStack) -> bool:
    few = stack.scene.truth.sizes[TIME] < station_stacks.LONG
    return few and stack.number in SUBSET


def noise_free(cube: xr.Dataset, *, truth: xr.Dataset) -> xr.Dataset:
    """Pairs of the true displacement, where the cube has data."""
    moved = truth["displacement"].transpose(TIME, Y, X)
    early, late = (
        moved.sel({TIME: cube[n].values}).values
        for n in ("reference_time", "secondary_time")
    )
    phase = displacement_to_phase(late - early, cube.attrs["wavelength"])
    there = cube["unwrapped_phase"].transpose(PAIR, Y, X)
    return cube.assign(
        corrected_phase=there.copy(data=phase.astype("float32")).where(there.notnull())
    )


def judge(stack: StationStack, chosen: dict[str, Corrector]) -> Judged:
    """Correct, invert and compare; a method that refuses the stack is left out."""
    cube = stack.scene.cube
    reference = choose_reference(cube, variable="unwrapped_phase")
    judged = Judged(stack.case, stack.number, stack.amplitude, {})
    for name, method in chosen.items():
        try:
            corrected = method(cube)
        except ValueError as error:
            log.warning("%s does not run on %s: %s", name, stack.case, error)
            continue
        inverted = invert(corrected, variable="corrected_phase", reference=reference)
        judged.found[name] = at_stations(inverted["displacement"].compute(), stack)
    return judged


def rows_of(case: str, stacks: Sequence[Judged]) -> Iterator[Row]:
    """Rows of all methods on the stacks of a case; of `ALL`, if they ran on all."""
    moving = [s for s in stacks if s.amplitude > 0]
    resting = [s for s in stacks if s.amplitude == 0]
    for name in dict.fromkeys(n for s in stacks for n in s.found):
        mine = [s for s in moving if name in s.found]
        if case == ALL and len(mine) < len(moving):
            continue
        pairs = [(s.found[name], s.found[RAW]) for s in mine]
        row = partial(Row, case, name, scenes=len(mine))
        if not pairs:
            continue
        own, raw = (np.array([p[k].misfit.avg for p in pairs]) for k in (0, 1))
        yield row("raw mean", float(raw.mean()), "mm")
        yield row("mean", float(own.mean()), "mm")
        value, low, high = lowered(own, raw)
        yield row("lowered", value, "%", low=low, high=high)
        own, raw = (np.array([p[k].misfit.avg_demeaned for p in pairs]) for k in (0, 1))
        yield row("date means removed", lowered(own, raw)[0], "%")
        own, raw = (np.array([p[k].error for p in pairs]) for k in (0, 1))
        yield row("to truth", lowered(own, raw)[0], "%")
        for metric, least, most in (
            ("slope below", 0.0, LARGE),
            ("slope above", LARGE, np.inf),
        ):
            slopes = [s.found[name].slope for s in mine if least < s.amplitude <= most]
            value = float(np.nanmedian(slopes)) if slopes else float("nan")
            yield row(f"{metric} {1e3 * LARGE:g} mm", value, "1")
        alarms = [s.found[name].alarm for s in resting if name in s.found]
        value = float(np.median(alarms)) if alarms else float("nan")
        yield row("false alarm", value, "mm")


def best_classical(stacks: Sequence[Judged]) -> str:
    """Classical correction of the least mean difference over all that moves."""
    moving = [s for s in stacks if s.amplitude > 0]
    everywhere = [n for n in CLASSICAL if all(n in s.found for s in moving)]
    return min(
        everywhere,
        key=lambda n: float(np.mean([s.found[n].misfit.avg for s in moving])),
    )


def station_rows(judged: Judged, shown: Sequence[str]) -> Iterator[Row]:
    """Mean absolute difference at every station of a stack."""
    size = f"{1e3 * judged.amplitude:.0f} mm"
    case = f"{judged.case}, stack {judged.number + 1}: {size}"
    for station in judged.found[RAW].by_station:
        for name in shown:
            if name in judged.found:
                value = judged.found[name].by_station[station]
                yield Row(case, station, name, value, "mm")


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--model", type=Path, action="append", default=[])
    own, others = more.parse_known_args(arguments)
    asked = options(__doc__, others)
    began = time.monotonic(), time.process_time()
    judged: list[Judged] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for stack in station_stacks.stacks(quick=asked.quick):
            judged.append(judge(stack, methods(stack, own.model, quick=asked.quick)))
            log.info("%d stacks, %.0f s", len(judged), time.monotonic() - began[0])
    if not judged:
        print(f"not run: none of the real stacks lies in {real_stacks.DATA}")
        return []
    rows = [r for case, js in by_case(judged).items() for r in rows_of(case, js)]
    flagship = own.model[0].name if own.model else FLAGSHIP
    shown = [RAW, flagship, best_classical(judged), PERFECT]
    moving = [j for j in judged if j.amplitude > 0]
    stations = [r for j in moving for r in station_rows(j, shown)]
    for case in dict.fromkeys(j.case for j in moving):
        js = [j for j in moving if j.case == case]
        told = js[min(TABLED, len(js)) - 1]
        print(table(list(station_rows(told, shown))), end="\n\n")
    report(rows, None, notes=_notes(judged, shown, began))
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        records = [r.record for r in rows + stations]
        asked.out.write_text(json.dumps(records, indent=1) + "\n")
    return rows + stations


def by_case(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Stacks of every case, and of all where there are several."""
    found: dict[str, list[Judged]] = {}
    for one in judged:
        found.setdefault(one.case, []).append(one)
    return found | ({ALL: list(judged)} if len(found) > 1 else {})


def _notes(
    judged: Sequence[Judged], shown: Sequence[str], began: tuple[float, float]
) -> str:
    seconds = time.monotonic() - began[0], time.process_time() - began[1]
    small, large = (1e3 * a for a in station_stacks.AMPLITUDES)
    moving = [j for j in judged if j.amplitude > 0]
    lines = [
        f"{len(moving)} stacks that move, by {small:g} to {large:g} mm at most, and "
        f"{len(judged) - len(moving)} at rest; {seconds[0]:.0f} s in all, "
        f"{seconds[1]:.0f} s of processor time.",
        f"Stations of a stack: {station_stacks.QUIET} far from the sources (Q; Q1 is "
        "the reference of radar and GNSS and is not",
        f"counted), {station_stacks.MOVING} on them (M).",
        "mean, raw mean: mean absolute difference to GNSS at each station, mean over "
        "stations and moving stacks;",
        "raw mean is of the same stacks. lowered: 1 - mean / raw mean (95 % bootstrap "
        "interval over stacks).",
        "date means removed: the same less the mean over stations of each date, which "
        "a better reference",
        "cannot lower. to truth: the same to the true displacement, without the noise "
        "of GNSS. slope: of the",
        "estimated on the true displacement at stations, median over stacks whose peak "
        f"is below or above {1e3 * LARGE:g} mm;",
        "1 keeps it. false alarm: 99th percentile at the stations of stacks at rest, "
        "median over stacks.",
        f"{PERFECT}: pairs without noise, of which the noise of GNSS is left. {ZERO}: "
        "what the metric alone is",
        "won by. Both are bounds, no methods. Networks other than "
        f"{', '.join(EVERYWHERE)} see",
        f"stacks {', '.join(str(n + 1) for n in SUBSET)} of the cases of few dates "
        'only; "all" has the methods that ran on all stacks.',
        "",
    ]
    for name in shown[1:-1]:
        mine = [j for j in moving if name in j.found]
        if mine:
            raw, own = (
                np.mean([j.found[n].misfit.avg for j in mine]) for n in (RAW, name)
            )
            share = 100 * (1 - own / raw)
            lines.append(
                f"{name}: {own:.2f} mm where raw has {raw:.2f} mm, {share:.0f} % lower "
                f"({len(mine)} stacks)"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    main()
