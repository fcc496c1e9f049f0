"""Correct and invert ten demos' area on two workers of 1 GiB each.

The scene is one simulated scene repeated to 1024 x 1024 pixels, 10.24 times the demo's
320 x 320, of as many pairs. All are corrected with a narrow network and inverted; a
task holds one pair, so a few suffice to see the memory of a shipped network, which
takes minutes for each. The workers are a `LocalCluster` of two processes, used through
the address of its scheduler as any other cluster. Watched meanwhile: what they spilled
to disk since they began, workers lost and begun anew, pauses for lack of memory, the
tasks that the scheduler was given, the bytes of the largest, and the highest resident
memory of each worker (``VmHWM``).
"""

import logging
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import SchedulerPlugin

from benchmarks.memory import Sizes, make_cube, narrow_model
from benchmarks.report import Row, options, report
from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.invert import inversion_block, inversion_cuts
from cube_denoise.steps import correct_cube, invert_cube

log = logging.getLogger(__name__)

SIZE = 1024
"""Pixels a side."""
DEMO = 320
WORKERS, LIMIT = 2, "1GiB"
FULL = Sizes(size=SIZE, chunk=store.CHUNK, shard=store.SHARD, dates=20)
FEW = Sizes(size=SIZE, chunk=store.CHUNK, shard=store.SHARD, dates=3)
"""The demo's 20 dates are 54 pairs; 3 are 3."""
MODEL = "dncnn-dilated"


class Watch(SchedulerPlugin):
    """Counts what a scheduler sees."""

    def __init__(self) -> None:
        self.tasks: set[Any] = set()
        self.lost = 0

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        """Keep the key of every task."""
        self.tasks.add(key)

    def remove_worker(self, *_: Any, **__: Any) -> None:
        """Count it: none should go before the end."""
        self.lost += 1


class Measured(Workers):
    """Workers that know the size of the largest task they were given."""

    largest = 0

    def _submit(self, function: Callable[[Any], Any], task: Any) -> Any:
        size = len(cloudpickle.dumps((function, task)))
        Measured.largest = max(Measured.largest, size)
        return super()._submit(function, task)


def memory_of_worker(dask_worker: Any) -> dict[str, float]:
    """Highest resident memory, and all that was ever written to disk, bytes."""
    text = Path("/proc/self/status").read_text()
    written = getattr(dask_worker.data, "cumulative_metrics", {})
    return {
        "peak": int(text.split("VmHWM:")[1].split()[0]) * 1024.0,
        "spilled": float(
            sum(v for k, v in written.items() if "write" in str(k) and "bytes" in k)
        ),
    }


def blocks_of(url: Path, step: str) -> int:
    """Blocks that a step cuts a cube into."""
    cube = store.open_cube(url)
    if step == "invert":
        return math.prod(map(len, inversion_cuts(cube, inversion_block(cube)).values()))
    rows, columns = store.writing_unit(cube, "corrected_phase")
    area = -(-cube.sizes["y"] // rows) * -(-cube.sizes["x"] // columns)
    return area * cube.sizes["pair"]


def measure(url: Path, model: str, steps: Sequence[str]) -> list[Row]:
    """Steps on a new cluster each."""
    case = f"{SIZE} x {SIZE}, {store.open_cube(url).sizes['pair']} pairs"
    rows = []
    for step in steps:
        with (
            LocalCluster(
                n_workers=WORKERS,
                threads_per_worker=1,
                memory_limit=LIMIT,
                dashboard_address=":0",
            ) as cluster,
            Client(cluster) as client,
        ):
            watch = Watch()
            cluster.scheduler.add_plugin(watch)
            Measured.largest = 0
            pool = Measured(cluster.scheduler_address)
            if step == "correct":
                correct_cube(url, model, precision="float32", workers=pool)
            else:
                invert_cube(url, workers=pool)
            blocks = blocks_of(url, step)
            found = client.run(memory_of_worker).values()
            logs = [
                line for lines in client.get_worker_logs().values() for line in lines
            ]
            lost = watch.lost
        numbers = {
            "blocks": (blocks, "1"),
            "tasks": (len(watch.tasks), "1"),
            "largest task": (Measured.largest / 1e3, "kB"),
            "peak of a worker": (max(f["peak"] for f in found) / 2**20, "MiB"),
            "spilled": (sum(f["spilled"] for f in found), "bytes"),
            "pauses": (sum("Pausing worker" in str(line) for line in logs), "1"),
            "workers lost": (lost, "1"),
        }
        how = f"{step}, {Path(model).name}" if step == "correct" else step
        rows += [Row(case, how, m, float(v), u) for m, (v, u) in numbers.items()]
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked = options(__doc__, arguments)
    sizes = FEW if asked.quick else FULL
    with tempfile.TemporaryDirectory(prefix="cube-bounded-") as name:
        folder = Path(name)
        make_cube(folder / "cube", sizes, SIZE)
        narrow = narrow_model(folder / "narrow")
        rows = measure(folder / "cube", narrow, ("correct", "invert"))
        if not asked.quick:
            make_cube(folder / "few", FEW, SIZE)
            rows += measure(folder / "few", MODEL, ("correct",))
    bad = [r for r in rows if r.metric in ("spilled", "pauses", "workers lost")]
    kept = not any(r.value for r in bad)
    notes = (
        f"{WORKERS} workers of {LIMIT} and one thread; {sizes.describe()}; "
        f"{SIZE**2 / DEMO**2:.2f} times the demo's area.\n"
        f"{'Nothing' if kept else 'SOMETHING'} was spilled, paused or lost."
    )
    report(rows, asked.out, notes=notes)
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    main()
