"""Peak memory of correct and invert when the area of the scene grows fourfold.

Each case runs in a fresh Python process that opens a cube made before, does one step
and reports the highest resident memory it ever had (``VmHWM`` of ``/proc/self/status``;
unlike ``ru_maxrss`` it does not inherit the parent's). Same pairs, chunks and workers
on both scenes; the smaller is already several blocks and network tiles wide, else the
ratio would only say that a small scene is smaller than one block.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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

    def describe(self) -> str:
        """Say how the cubes are cut."""
        return f"{self.dates} dates, chunk {self.chunk}, shard {self.shard}"


SCENES = {
    # `correct` works shard by shard; 2 dates are 1 pair. Tiles of the dilated network
    # are 512 px and see 102 px more: on fewer than four a side most lie at an edge and
    # take less memory than those of a larger scene.
    ("correct", False): Sizes(size=2048, chunk=256, shard=512, dates=2),
    ("correct", True): Sizes(size=768, chunk=128, shard=256, dates=2),
    # `invert` works chunk by chunk on all pairs; 8 dates are 18 pairs.
    ("invert", False): Sizes(size=768, chunk=128, shard=512, dates=8),
    ("invert", True): Sizes(size=384, chunk=64, shard=256, dates=6),
}
"""By step and ``--quick``."""

CHILD = """
import sys
from pathlib import Path
from cube_denoise.cluster import Workers
from cube_denoise.steps import correct_cube, invert_cube
step, url, model, workers = sys.argv[1:]
if step in ("correct", "correct: imports"):
    import torch
    import cube_denoise.models.zoo
if step == "correct":
    correct_cube(url, model, workers=Workers(count=int(workers)))
elif step == "invert":
    invert_cube(url, workers=Workers(count=int(workers)))
status = Path("/proc/self/status")
if status.exists():
    text = status.read_text()
    print(int(text.split("VmHWM:")[1].split()[0]) * 1024)
else:
    import resource
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


def peak_memory(step: str, url: Path, model: str = "") -> float:
    """Highest resident memory of one step in a process of its own, MB."""
    command = [sys.executable, "-c", CHILD, step, str(url), model, str(WORKERS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{step} of {url} failed:\n{done.stderr}")
    return int(done.stdout.split()[-1]) / 1e6


def make_cube(url: Path, sizes: Sizes, size: int) -> None:
    """Cube of one simulated scene repeated until it is `size` pixels a side."""
    import dask.array as da
    import numpy as np
    import xarray as xr

    from cube_denoise.cluster import Workers
    from cube_denoise.conventions import X, Y
    from cube_denoise.ingest import ingest_dataset
    from cube_denoise.simulate.scene import simulate_scene

    small = simulate_scene(size=128, dates=sizes.dates, seed=0).cube
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
        for number, (name, model) in enumerate(methods.items()):
            # Each method works on a cube that no other has changed.
            url = made.with_name(f"{made.name}-{number}")
            shutil.copytree(made, url)
            peak = peak_memory(step, url, model)
            shutil.rmtree(url)
            log.info("%s, %s: %.0f MB", case, name, peak)
            peaks[name].append(peak)
            rows.append(Row(case, name, "peak", peak, "MB"))
            rows.append(Row(case, name, "above imports", peak - imports, "MB"))
    for name, (small, large) in peaks.items():
        rows.append(Row(f"{step} area x 4", name, "ratio of peaks", large / small, "1"))
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    from cube_denoise.models import zoo

    asked = options(__doc__, arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="cube-memory-") as name:
        folder = Path(name)
        shipped = {} if asked.quick else {m: m for m in zoo.shipped_models()}
        networks = shipped or {
            "narrow untrained network": narrow_model(folder / "narrow")
        }
        for step, methods in (("correct", networks), ("invert", {"coherence": ""})):
            sizes = SCENES[step, asked.quick]
            rows += measure(step, methods, sizes, folder)
    worst = max(r.value for r in rows if r.metric == "ratio of peaks")
    verdict = "within" if worst <= LIMIT else "OVER"
    cuts = "; ".join(
        f"{step}: {SCENES[step, asked.quick].describe()}"
        for step in ("correct", "invert")
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
