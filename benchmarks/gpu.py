"""Networks and the inversion on the GPU: pixels per second, against the CPU.

The peak is measured here: a product of two square matrices of random numbers, bfloat16
and TF32. Work of a network: what torch counts for a tile, halos and padding included;
the share is that over the peak of the same precision. Networks run alone (arrays from
memory, copies included) and as the correction of a cube by Dask-CUDA (reading, filling
of gaps and writing included; pixels of the cube).
Differences are to the same on the CPU at float32, in mm for tiles whose displacement
spreads by 10 mm. The inversion takes arrays from memory, the GPU against compiled code
on all cores: 60 dates, 3 nearest neighbours, irregular gaps, weights, standard
deviations; differences of the displacement at C band.

Without a GPU a small case runs on the CPU through the same code, and a `LocalCluster`
stands in for `LocalCUDACluster`: it says so.
"""

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inference import operations
from benchmarks.inversion_stack import neighbours, simulate
from benchmarks.report import Row, parser, report

log = logging.getLogger(__name__)

SPREAD = 10.0
"""mm"""
WAVELENGTH = 0.0555
"""m"""


@dataclass(frozen=True)
class Sizes:
    """How much is computed."""

    matrix: int
    """Side of the matrices of the peak."""
    tiles: int
    """Tiles that a network runs over."""
    inner: int | None
    """Kept pixels a side of a tile; None for those of the product."""
    compared: int
    """Tiles that the CPU computes too."""
    size: int
    """Pixels a side of the cube."""
    dates: int
    side: int
    """Pixels a side of what is inverted."""


ON_GPU = Sizes(
    matrix=8192, tiles=64, inner=None, compared=2, size=2048, dates=6, side=512
)
ON_GPU_QUICK = Sizes(
    matrix=8192, tiles=16, inner=None, compared=1, size=1024, dates=3, side=256
)
ON_CPU = Sizes(matrix=1024, tiles=4, inner=64, compared=2, size=256, dates=3, side=48)

CORRECT = """
import sys
from cube_denoise.cluster import Workers
from cube_denoise.steps import correct_cube
if __name__ == "__main__":
    url, model, precision, branch = sys.argv[1:]
    correct_cube(url, model, branch=branch, precision=precision, workers=Workers())
"""


def matrix_peak(device: str, precision: str, side: int) -> float:
    """Operations per second of a product of two matrices."""
    import torch

    low = precision == "bfloat16"
    generator = torch.Generator(device).manual_seed(0)
    a, b = (
        torch.randn((side, side), generator=generator, device=device) for _ in range(2)
    )
    if low:
        a, b = a.bfloat16(), b.bfloat16()
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        repeats = 20 if device == "cuda" else 3
        for warm in (True, False):
            started = _clock(device)
            for _ in range(3 if warm else repeats):
                a @ b
            seconds = _clock(device) - started
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * side**3 * repeats / seconds


def _clock(device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def network_rows(name: str, device: str, sizes: Sizes, peaks: dict[str, float]) -> Any:
    """One network over arrays that lie in memory."""
    import torch

    from cube_denoise import device as devices
    from cube_denoise.models import zoo

    on_cpu: Any = zoo.load_model(name).fused()
    on_cpu = on_cpu.to(memory_format=torch.channels_last)
    model = zoo.load_model(name).fused().to(device, memory_format=torch.channels_last)
    radius = on_cpu.receptive_radius
    side = sizes.inner or (512 if radius is not None and radius > 32 else 256)
    side += 2 * (radius or 0)
    generator = np.random.default_rng(0)
    shape = (len(on_cpu.config.inputs), side, side)
    few = [
        generator.standard_normal(shape, dtype="float32") for _ in range(sizes.compared)
    ]
    tiles = [few[k % len(few)] for k in range(sizes.tiles)]
    cores = os.cpu_count() or 1
    exact = list(devices.outputs(on_cpu, few, device="cpu", threads=cores))
    one = torch.from_numpy(few[0][None])
    pixel = operations(on_cpu, [one]) / side**2
    rows = []
    for precision in ("float32", *devices.rougher(device)):

        def run(some: list[np.ndarray], how: dict[str, Any], last: list[Any]) -> float:
            started = _clock(device)
            for values in devices.outputs(model, some, **how):
                last.append(values)
            return _clock(device) - started

        how = {"device": device, "precision": precision, "threads": cores}
        run(tiles[: max(4, len(few))], how, [])  # measures its memory, warms up
        found: list[Any] = []
        seconds = run(tiles, how, found)
        rate = sizes.tiles * side**2 / seconds
        change = max(
            float(np.abs(a - b).max()) for a, b in zip(found, exact, strict=False)
        )
        rms = float(
            np.sqrt(np.mean([(a - b) ** 2 for a, b in zip(found, exact, strict=False)]))
        )
        case = f"{name}, tiles of {side} px"
        work = rate * pixel
        numbers: dict[str, tuple[float, str]] = {
            "rate": (rate / 1e6, "Mpx/s"),
            "work": (work / 1e12, "TFLOP/s"),
            "largest difference": (change * SPREAD, "mm"),
            "rms difference": (rms * SPREAD, "mm"),
        }
        if precision in peaks:
            numbers["share of peak"] = (work / peaks[precision], "1")
        rows += [Row(case, precision, m, v, u) for m, (v, u) in numbers.items()]
    return rows


def cube_rows(name: str, device: str, sizes: Sizes, folder: Path) -> list[Row]:
    """Correction of a cube on a cluster, against that by threads without a GPU."""
    from benchmarks import memory
    from cube_denoise import store
    from cube_denoise.cluster import Workers
    from cube_denoise.steps import correct_cube

    url = folder / name
    cut = memory.Sizes(sizes.size, 256, 512, sizes.dates)
    memory.make_cube(url, cut, sizes.size)
    blind = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", CORRECT, str(url), name, "float32", "cpu"]
    started = time.perf_counter()
    subprocess.run(command, env=blind, check=True)
    seconds = {"threads, CPU": time.perf_counter() - started}
    kind = "cuda" if device == "cuda" else "dask"
    for precision in ("float32", "auto"):
        # Started, and the network loaded, before the clock is.
        with Workers(kind, count=1) as pool:
            pool.in_order(_warm, [name])
            address = pool.address
            started = time.perf_counter()
            correct_cube(
                url,
                name,
                branch=f"{kind}-{precision}",
                precision=precision,
                workers=Workers(address),
            )
            seconds[f"{kind}-{precision}"] = time.perf_counter() - started
    wavelength = store.open_cube(url).attrs["wavelength"]
    exact = store.open_cube(url, branch="cpu")["corrected_phase"].values
    case = f"{name}, cube of {exact.shape[0]} x {sizes.size} x {sizes.size}"
    rows = []
    for how, time_taken in seconds.items():
        rows.append(Row(case, how, "rate", exact.size / time_taken / 1e6, "Mpx/s"))
        branch = "cpu" if "," in how else how
        found = store.open_cube(url, branch=branch)["corrected_phase"]
        change = (found.values - exact) * wavelength / (4 * np.pi) * 1e3
        largest = float(np.nanmax(np.abs(change)))
        rms = float(np.sqrt(np.nanmean(change**2)))
        rows.append(Row(case, how, "largest difference", largest, "mm"))
        rows.append(Row(case, how, "rms difference", rms, "mm"))
        log.info("%s: precision %s", how, found.attrs["precision"])
    return rows


def inversion_rows(device: str, sizes: Sizes) -> list[Row]:
    """The inversion by torch against compiled code on all cores."""
    from cube_denoise.inversion.elimination import eliminate
    from cube_denoise.inversion.solver import solve

    shape = sizes.side, sizes.side
    stack = simulate(neighbours(60, 3), shape).with_gaps("irregular gaps")
    plan = eliminate(stack.first, stack.second, stack.dates, 0)
    ways: dict[str, dict[str, Any]] = {
        "all cores": {"threads": os.cpu_count() or 1},
        # "cpu" would be the compiled code.
        f"torch, {device}": {"device": "cuda" if device == "cuda" else "cpu:0"},
    }
    years = stack.days / 365.25
    rows = []
    for robust in ("none", "huber"):
        case = f"inversion, robust {robust}, {sizes.side} x {sizes.side} px"
        found = []
        for how, more in ways.items():
            for _ in range(2):  # the first compiles, and fills torch's memory
                started = time.perf_counter()
                solution = solve(
                    stack.phase,
                    plan,
                    coherence=stack.coherence,
                    weights="coherence",
                    robust=robust,
                    errors=True,
                    years=years,
                    **more,
                )
                seconds = time.perf_counter() - started
            found.append(solution)
            rate = stack.work / seconds / 1e6
            rows.append(Row(case, how, "rate", rate, "1e6 pixel-pairs/s"))
        for name in ("phase", "phase_std"):
            exact, other = (getattr(solution, name) for solution in found)
            change = float(np.nanmax(np.abs(other - exact))) * WAVELENGTH / (4 * np.pi)
            metric = f"largest difference of {name}"
            rows.append(Row(case, f"torch, {device}", metric, change * 1e3, "mm"))
    return rows


def _warm(name: str) -> None:
    from cube_denoise import device as devices
    from cube_denoise.inference import Network, loaded, network_reference
    from cube_denoise.models import zoo

    network = Network(network_reference(name), zoo.model_hash(name), "float32", 1)
    loaded(network, devices.device_here())


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    import torch

    from cube_denoise import device as devices
    from cube_denoise.models import zoo

    pairs = [n for n in zoo.shipped_models() if zoo.what_it_sees(n) == "pair"]
    more = parser(__doc__)
    more.add_argument("--only", nargs="+", metavar="NAME", choices=pairs, default=pairs)
    asked = more.parse_args(arguments)
    device = devices.device_here()
    if device == "cuda":
        sizes = ON_GPU_QUICK if asked.quick else ON_GPU
        place = torch.cuda.get_device_name()
    else:
        sizes, place = ON_CPU, "NO GPU HERE: a small case on the CPU; GPU run owed"
    precisions = ("bfloat16", "tf32") if device == "cuda" else ("float32",)
    peaks = {p: matrix_peak(device, p, sizes.matrix) for p in precisions}
    rows = [
        Row("matrix product", p, "work", v / 1e12, "TFLOP/s") for p, v in peaks.items()
    ]
    names = asked.only[:1] if asked.quick else asked.only
    for name in names:
        rows += network_rows(name, device, sizes, peaks)
    rows += inversion_rows(device, sizes)
    notes = [f"{place}; torch {torch.__version__}."]
    with tempfile.TemporaryDirectory(prefix="cube-gpu-") as folder:
        try:
            rows += cube_rows(names[0], device, sizes, Path(folder))
        except (ImportError, ValueError) as error:
            notes.append(f"No cube was corrected: {error}")
    report(rows, asked.out, notes="\n".join(notes))
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    main()
