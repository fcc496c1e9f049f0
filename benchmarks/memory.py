"""Peak memory of correct, separate and invert when the scene's area grows fourfold.

Each case runs in a fresh Python process that opens a cube made before, does one step
and reports the highest resident memory it ever had (``VmHWM`` of ``/proc/self/status``;
unlike ``ru_maxrss`` it does not inherit the parent's). Same pairs, chunks and workers
on both scenes; the smaller is already several blocks and network tiles wide, else the
ratio would only say that a small scene is smaller than one block. Networks that see a
whole stack need more than the two dates there are here: `large_cube` runs them.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import Row, options, report

log = logging.getLogger(__name__)

LIMIT = 1.20
"""Largest growth allowed."""
WORKERS = 2
"""Threads of each step."""


@dataclass(frozen=True)
class Sizes:
    """One step on two scenes: `size` pixels a side, and twice as many."""

    size: int
    chunk: int
    shard: int
    dates: int
    longest: int = 36
    """Longest pair, days; dates are 12 days apart."""
    gaps: float = 0.05
    """Fraction of each pair without data."""

    def describe(self) -> str:
        """Say how the cubes are cut."""
        return f"{self.dates} dates, chunk {self.chunk}, shard {self.shard}"


SCENES = {
    # `correct` works shard by shard; 2 dates are 1 pair. Tiles of the dilated network
    # are 512 px and see 102 px more: on fewer than four a side most lie at an edge and
    # take less memory than those of a larger scene.
    ("correct", False): Sizes(size=2048, chunk=256, shard=512, dates=2),
    ("correct", True): Sizes(size=768, chunk=128, shard=256, dates=2),
    # `separate` averages all pairs to 64 cells a side, then works shard by shard on all
    # of them; 9 dates are 21 pairs.
    ("separate", False): Sizes(size=768, chunk=128, shard=256, dates=9),
    ("separate", True): Sizes(size=384, chunk=64, shard=128, dates=9),
    # `invert` works chunk by chunk on all pairs; 8 dates are 18 pairs.
    ("invert", False): Sizes(size=768, chunk=128, shard=512, dates=8),
    ("invert", True): Sizes(size=384, chunk=64, shard=256, dates=6),
}
"""By step and ``--quick``."""

CHILD = """
import logging
import sys
import time
from pathlib import Path
from cube_denoise.cluster import Workers
from cube_denoise.separate import separate_cube
from cube_denoise.steps import correct_cube, invert_cube
step, url, model, workers = sys.argv[1:]
logging.basicConfig(format="%(message)s")
logging.getLogger("cube_denoise.progress").setLevel(logging.INFO)
if step in ("correct", "correct: imports"):
    import torch
    import cube_denoise.models.zoo
began = time.monotonic(), time.process_time()
if step == "correct":
    correct_cube(url, model, workers=Workers(count=int(workers)))
elif step == "separate":
    separate_cube(url, method=model, workers=Workers(count=int(workers)))
elif step == "invert":
    invert_cube(url, workers=Workers(count=int(workers)))
spent = time.monotonic() - began[0], time.process_time() - began[1]
status = Path("/proc/self/status")
if status.exists():
    text = status.read_text()
    peak = int(text.split("VmHWM:")[1].split()[0]) * 1024
else:
    import resource
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(peak, *spent)
"""


class Ran(NamedTuple):
    """What one step took."""

    peak: float
    """Highest resident memory of its process, MB."""
    seconds: float
    """Of the step alone, without the imports."""
    processor_seconds: float


def run_step(step: str, url: Path, model: str = "") -> Ran:
    """One step in a process of its own, which logs its progress."""
    command = [sys.executable, "-c", CHILD, step, str(url), model, str(WORKERS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{step} of {url} failed: its process says why, above")
    peak, seconds, processor_seconds = map(float, done.stdout.split()[-3:])
    return Ran(peak / 1e6, seconds, processor_seconds)


def peak_memory(step: str, url: Path, model: str = "") -> float:
    """Highest resident memory of one step in a process of its own, MB."""
    return run_step(step, url, model).peak


@contextmanager
def copied(made: Path) -> Iterator[Path]:
    """Copy of a cube beside it, for a method that finds no traces of others."""
    with tempfile.TemporaryDirectory(prefix=f"{made.name}-", dir=made.parent) as name:
        url = Path(name) / made.name
        shutil.copytree(made, url)
        yield url


def make_cube(url: Path, sizes: Sizes, size: int) -> None:
    """Cube of one simulated scene repeated until it is `size` pixels a side."""
    import dask.array as da
    import numpy as np
    import xarray as xr

    from cube_denoise.cluster import Workers
    from cube_denoise.conventions import X, Y
    from cube_denoise.ingest import ingest_dataset
    from cube_denoise.simulate.scene import simulate_scene

    small = simulate_scene(
        size=128,
        dates=sizes.dates,
        max_temporal_baseline=sizes.longest,
        gaps=sizes.gaps,
        seed=0,
    ).cube
    times = -(-size // 128)

    def repeated(variable: xr.Variable) -> xr.Variable:
        if not {Y, X} <= set(variable.dims):
            return variable
        block = da.from_array(
            np.asarray(variable), chunks=(1, 128, 128)[-variable.ndim :]
        )
        row = da.concatenate([block] * times, -1)
        whole = da.concatenate([row] * times, -2)[..., :size, :size]
        return xr.Variable(variable.dims, whole, variable.attrs)

    spacing = float(small[X][1] - small[X][0])
    axes = {
        Y: float(small[Y][0]) - spacing * np.arange(size),
        X: float(small[X][0]) + spacing * np.arange(size),
    }
    coords = {n: c for n, c in small.coords.items() if n not in (Y, X)}
    large = xr.Dataset(
        {n: repeated(v.variable) for n, v in small.data_vars.items()},
        coords=coords | axes,
        attrs=small.attrs,
    )
    ingest_dataset(
        large, url, chunk=sizes.chunk, shard=sizes.shard, workers=Workers(count=1)
    )


def narrow_model(folder: Path) -> str:
    """Untrained small network, for ``--quick`` and where none is shipped."""
    from cube_denoise.models import zoo
    from cube_denoise.models.dncnn import DnCNN, DnCNNConfig

    model = DnCNN(DnCNNConfig(depth=6, channels=16))
    return str(zoo.save_model(model, folder, training={}, card="untrained\n"))


def pair_networks() -> dict[str, str]:
    """Shipped networks that see one pair at a time."""
    from cube_denoise.models import zoo

    names = zoo.shipped_models()
    return {name: name for name in names if zoo.what_it_sees(name) == "pair"}


def measure(
    step: str, methods: dict[str, str], sizes: Sizes, folder: Path
) -> list[Row]:
    """Peak memory of one step on both scenes, and their ratio."""
    imports = peak_memory(f"{step}: imports", folder)
    rows = [Row(f"{step} nothing", "imports", "peak", imports, "MB")]
    peaks: dict[str, list[float]] = {name: [] for name in methods}
    for size in (sizes.size, 2 * sizes.size):
        made = folder / f"{step}-{size}"
        make_cube(made, sizes, size)
        case = f"{step} {size} x {size}"
        for name, model in methods.items():
            with copied(made) as url:
                peak = peak_memory(step, url, model)
            log.info("%s, %s: %.0f MB", case, name, peak)
            peaks[name].append(peak)
            rows.append(Row(case, name, "peak", peak, "MB"))
            rows.append(Row(case, name, "above imports", peak - imports, "MB"))
    for name, (small, large) in peaks.items():
        rows.append(Row(f"{step} area x 4", name, "ratio of peaks", large / small, "1"))
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked = options(__doc__, arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="cube-memory-") as name:
        folder = Path(name)
        networks = {} if asked.quick else pair_networks()
        networks = networks or {
            "narrow untrained network": narrow_model(folder / "narrow")
        }
        steps = {
            "correct": networks,
            "separate": {"pca-clustering": "pca"},
            "invert": {"coherence": ""},
        }
        for step, methods in steps.items():
            sizes = SCENES[step, asked.quick]
            rows += measure(step, methods, sizes, folder)
    worst = max(r.value for r in rows if r.metric == "ratio of peaks")
    verdict = "within" if worst <= LIMIT else "OVER"
    cuts = "; ".join(
        f"{step}: {SCENES[step, asked.quick].describe()}" for step in steps
    )
    notes = (
        f"{WORKERS} threads. {cuts}.\n"
        f"Largest ratio {worst:.2f}, {verdict} the limit of {LIMIT:.2f}."
    )
    report(rows, asked.out, notes=notes)
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    main()
