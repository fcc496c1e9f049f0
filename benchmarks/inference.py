"""Networks through `correct`, beside the plain loop and the peak of this machine.

Each network has random weights. The package's own path corrects one pair of a cube in
memory: filling of gaps, tiles, halo or blending, the fastest precision of the device;
`correct` has looked at the cube before. The plain loop is the module as it was created:
float32, not fused, over the same tiles, which lie ready. Overhead is the time of the
path to that of its inference copy on the same pixels: in one go, and in tiles without
halo. Work is what torch counts for a pixel of a large map, halo and blending apart;
shares are of the best product of two matrices with as many threads, in the precision of
the way. Each way has a fresh process (not with ``--quick``); one thread is timed by
processor time, several by wall time.

The stack network sees a stack of 20 dates: pixels times dates, inversion included.
"""

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.inference_sides import Place, Task, made, timed
from benchmarks.report import Row, options, report

log = logging.getLogger(__name__)

EAGER = 4.0
"""Times the plain loop that DnCNN should reach on a CPU with bfloat16."""
OVERHEAD = 1.1
"""Times the network in one go that its tiles may take."""
JUDGED = "dncnn"
"""Network of both goals."""

UNNAMED: dict[str, Mapping[str, Any]] = {
    "Restormer": {"channels": 16, "blocks": (2, 2, 2, 2), "refinement": 2},
    "SwinIR": {"channels": 60, "depths": (6,) * 4, "heads": (6,) * 4},
    "UNet": {},
    "DiffusionDenoiser": {},
    "BridgeDenoiser": {},
    "LatentDenoiser": {},
    "StackNetwork": {},
}
"""Arguments of architectures that no variant has."""
NARROW: dict[str, tuple[str, Mapping[str, Any]]] = {
    JUDGED: ("DnCNN", {"depth": 6, "channels": 16}),
    "UNet": ("UNet", {"channels": (4, 8)}),
    "StackNetwork": ("StackNetwork", {"channels": (4, 8), "heads": 2}),
}
"""Networks of ``--quick``."""


@dataclass(frozen=True)
class Sizes:
    """How much is computed."""

    finite: int
    """Pixels a side of the scene of networks with a finite view."""
    wide: int
    """Of the others, and of the stack."""
    dates: int
    rounds: int
    matrices: tuple[int, ...]
    """Sides of the matrices of the peak."""


SIZES = {
    False: Sizes(1024, 256, 20, 3, (512, 1024, 2048)),
    True: Sizes(320, 64, 5, 1, (256,)),
}
"""By ``--quick``."""


def networks(quick: bool) -> dict[str, Any]:
    """Networks by name, random weights; pair networks first."""
    from cube_denoise.models.registry import ARCHITECTURES, VARIANTS

    chosen = NARROW
    if not quick:
        chosen = {name: (v.architecture, v.arguments) for name, v in VARIANTS.items()}
        named = {architecture for architecture, _ in chosen.values()}
        chosen |= {a: (a, more) for a, more in UNNAMED.items() if a not in named}
        chosen = {n: c for n, c in chosen.items() if c[0] in {"DnCNN", *UNNAMED}}
    order = sorted(chosen, key=lambda n: ARCHITECTURES[chosen[n][0]].sees == "stack")
    return {name: made(*chosen[name]) for name in order}


def matrix_peak(place: Place, precision: str, sides: Sequence[int]) -> float:
    """Operations per second of the best product of two square matrices."""
    import torch

    best = 0.0
    for side in sides:
        a, b = torch.randn(2, side, side, device=place.device).to(
            getattr(torch, precision)
        )
        repeats = max(1, round(4e9 / (2 * side**3)))
        for _ in range(4):
            seconds = place.seconds(
                lambda a=a, b=b, n=repeats: [a @ b for _ in range(n)]
            )
            best = max(best, 2 * side**3 * repeats / seconds)
    return best


def operations(model: Any, arrays: Sequence[Any]) -> float:
    """Floating-point operations of one call."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*arrays)
    return float(counter.get_total_flops())


def speed_rows(
    name: str,
    task: Task,
    place: Place,
    rounds: int,
    peaks: Mapping[str, float],
    *,
    fresh: bool,
) -> list[Row]:
    """Rates, overhead and shares of the peak."""
    times = {
        way: median(timed(task, way, place, rounds, fresh=fresh))
        for way in task.ways(place)
    }
    whole = task.cube.sizes["y"], task.cube.sizes["x"]
    work = work_of(task)
    rate = {way: task.pixels / seconds for way, seconds in times.items()}
    numbers = {
        "rate": (rate["ours"] / 1e6, "Mpx/s"),
        "plain loop": (rate["plain loop"] / 1e6, "Mpx/s"),
        "to plain loop": (rate["ours"] / rate["plain loop"], "1"),
        "to one go": (times["ours"] / times.get("one go", np.nan), "1"),
        "to tiles without halo": (times["ours"] / times["tiles without halo"], "1"),
        "work": (work / 1e6, "MFLOP/px"),
        "share of peak": (rate["ours"] * work / peaks[task.precision], "1"),
        "share, plain loop": (rate["plain loop"] * work / peaks["float32"], "1"),
    }
    case = f"{name}, {whole[0]} x {whole[1]}"
    case += f" x {task.dates} dates" if task.stack else ""
    return [
        Row(case, f"{place.label}, {task.precision}", metric, value, unit)
        for metric, (value, unit) in numbers.items()
        if np.isfinite(value)
    ]


def work_of(task: Task) -> float:
    """Operations for a pixel of a large map."""
    import torch

    side = 64
    arrays = [torch.from_numpy(a)[None] for a in task.arrays(side, side)]
    count = side**2 * (task.dates if task.stack else 1)
    return operations(task.model.to("cpu"), arrays) / count


def agreement(name: str, task: Task) -> list[Row]:
    """Largest difference of the inference copy to the module, and that of bfloat16."""
    import torch

    shape = (96, 96)
    place = Place("cpu", 1)
    with torch.inference_mode():
        given = [torch.from_numpy(a)[None] for a in task.arrays(*shape)]
        expected = task.model.to("cpu")(*given)
    exact = (expected[0] if task.stack else expected).numpy().squeeze()
    rows = []
    for precision in dict.fromkeys(("float32", task.precision)):
        found = replace(task, precision=precision).bare(place, [shape])()
        change = np.abs((found[0][0] if task.stack else found[0]) - exact)
        value = float(change.max() / exact.std())
        rows.append(Row("difference to the module", name, precision, value, "1"))
    return rows


def goals(rows: Sequence[Row], faster: bool) -> list[str]:
    """Say of each goal whether it was reached."""
    said = []
    for row in rows:
        if not row.case.startswith(f"{JUDGED},") or row.method.startswith("GPU"):
            continue
        if row.metric == "to plain loop" and faster:
            verdict = "reached" if row.value >= EAGER else "MISSED"
            said.append(
                f"{row.case}, {row.method}: {row.value:.2f} times the plain loop, goal "
                f"{EAGER:g}: {verdict}."
            )
        if row.metric == "to one go":
            verdict = "reached" if row.value <= OVERHEAD else "MISSED"
            said.append(
                f"{row.case}, {row.method}: overhead {row.value - 1:.1%}, goal "
                f"{OVERHEAD - 1:.0%}: {verdict}."
            )
    return said


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    import torch

    from cube_denoise import device as devices
    from cube_denoise.models import zoo
    from cube_denoise.simulate import PairErrors, simulate_stack

    asked = options(__doc__, arguments)
    sizes = SIZES[asked.quick]
    cores = os.cpu_count() or 1
    places = [Place("cpu", n) for n in dict.fromkeys((1, cores))]
    if asked.quick:
        del places[1:]
    if devices.device_here() == devices.CUDA:
        places.append(Place(devices.CUDA, cores))
    else:
        log.info("no GPU here")
    rows: list[Row] = []
    peaks: dict[Place, dict[str, float]] = {}
    for place in places:
        peaks[place] = {
            p: matrix_peak(place, p, sizes.matrices) for p in ("float32", "bfloat16")
        }
        for precision, peak in peaks[place].items():
            rows.append(
                Row("matrix product", place.label, precision, peak / 1e9, "GFLOP/s")
            )
    errors = PairErrors(gaps=0.1)
    with tempfile.TemporaryDirectory(prefix="cube-inference-") as name:
        for network, model in networks(asked.quick).items():
            folder = zoo.save_model(
                model, Path(name) / network, training={}, card="random weights\n"
            )
            stack = not hasattr(model.config, "inputs")
            finite = not stack and model.receptive_radius is not None
            side = sizes.finite if finite else sizes.wide
            cube = simulate_stack(
                seed=0,
                shape=(side, side),
                dates=sizes.dates if stack else 2,
                pair_errors=errors,
            ).cube
            for place in places:
                faster = () if stack else devices.rougher(place.device)
                task = Task(model, folder, cube, (*faster, "float32")[0])
                if place == places[0]:
                    rows += agreement(network, task)
                rows += speed_rows(
                    network,
                    task,
                    place,
                    sizes.rounds,
                    peaks[place],
                    fresh=not asked.quick,
                )
                log.info("%s, %s", network, place.label)
    notes = [f"torch {torch.__version__}, {cores} cores, medians of {sizes.rounds}."]
    notes += goals(rows, bool(devices.rougher(devices.CPU)))
    report(rows, asked.out, notes="\n".join(notes))
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    main()
