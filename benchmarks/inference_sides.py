"""Ways to run a network, each timed in a process of its own.

What the memory allocator learnt from another way would help or harm: pages that are
given back after every layer cost the plain loop a third of its time.
"""

import importlib
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

LONG = 20.0
"""Seconds from which a way is timed once, without warming up."""


@dataclass(frozen=True)
class Place:
    """Where it is computed."""

    device: str
    threads: int

    @property
    def label(self) -> str:
        """As a row names it."""
        if self.device != "cpu":
            return "GPU"
        return "1 thread" if self.threads == 1 else f"{self.threads} threads"

    def seconds(self, function: Callable[[], Any]) -> float:
        """Time of a call: of the processor on one thread, else of the wall."""
        import torch

        clock = time.process_time if self.label == "1 thread" else time.perf_counter
        torch.set_num_threads(self.threads)
        started = clock()
        function()
        if self.device != "cpu":
            torch.cuda.synchronize()
        return clock() - started


def made(architecture: str, arguments: Mapping[str, Any]) -> Any:
    """Network in eval mode, with no weights that are zero."""
    import torch

    from cube_denoise.models.registry import ARCHITECTURES

    module, config, _ = ARCHITECTURES[architecture]
    home = importlib.import_module(f"cube_denoise.models.{module}")
    torch.manual_seed(0)
    model = getattr(home, architecture)(getattr(home, config)(**arguments)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return model


@dataclass(frozen=True)
class Task:
    """A network, what it is measured on, and the ways to compute it."""

    model: Any
    """As created."""
    folder: Path
    cube: Any
    precision: str

    @property
    def stack(self) -> bool:
        """Whether the network sees all dates."""
        return not hasattr(self.model.config, "inputs")

    @property
    def pixels(self) -> int:
        """Of the result; times dates for a stack."""
        count = int(self.cube.sizes["y"] * self.cube.sizes["x"])
        return count * (self.dates if self.stack else 1)

    @property
    def dates(self) -> int:
        """Dates of the cube."""
        names = ("reference_time", "secondary_time")
        return int(np.unique([self.cube[n].values for n in names]).size)

    def arrays(self, rows: int, columns: int) -> tuple[np.ndarray, ...]:
        """Inputs of the network for a map, random."""
        draw = np.random.default_rng(0).standard_normal
        if not self.stack:
            return (draw((len(self.model.config.inputs), rows, columns), "float32"),)
        series = draw((self.dates, rows, columns), "float32") / 100
        years = np.arange(self.dates, dtype="float32") / 30
        level = np.full((rows, columns), 0.7, "float32")
        return series, np.ones(series.shape, bool), years, 100 * level, level

    def tiles(self, halo: bool) -> list[tuple[int, int]]:
        """Rows and columns of what the network sees, or keeps, one after the other."""
        from cube_denoise.halo import Tile
        from cube_denoise.inference import lattice_of

        shape = self.cube.sizes["y"], self.cube.sizes["x"]
        if self.stack:
            return [shape]
        lattice = lattice_of(shape, self.model.receptive_radius)
        cuts = [range(0, n, lattice.tile) for n in shape]
        whole = Tile(*(slice(0, n) for n in shape))
        if halo:
            seen = [view for view, _ in lattice.views(whole)]
            return [(y.stop - y.start, x.stop - x.start) for y, x in seen]
        sides = [
            [min(lattice.tile, n - k) for k in c]
            for c, n in zip(cuts, shape, strict=True)
        ]
        return [(rows, columns) for rows in sides[0] for columns in sides[1]]

    def ways(self, place: Place) -> dict[str, Callable[[], Callable[[], Any]]]:
        """What prepares each way; call what it returns."""
        whole = self.cube.sizes["y"], self.cube.sizes["x"]
        ways = {
            "ours": lambda: self.ours(place),
            "plain loop": lambda: self.eager(place),
            "tiles without halo": lambda: self.bare(place, self.tiles(halo=False)),
        }
        if not self.stack and self.model.receptive_radius is not None:
            ways["one go"] = lambda: self.bare(place, [whole])
        return ways

    def ours(self, place: Place) -> Callable[[], Any]:
        """The package's own path."""
        from cube_denoise.correct import correct

        chosen = {} if self.stack else {"precision": self.precision}
        lazy = correct(self.cube, self.folder, threads=place.threads, **chosen)
        return lambda: lazy["corrected_phase"].compute(scheduler="synchronous")

    def eager(self, place: Place) -> Callable[[], Any]:
        """The plain loop."""
        import torch

        model = self.model.to(place.device)
        ready = {
            shape: [
                torch.from_numpy(a)[None].to(place.device) for a in self.arrays(*shape)
            ]
            for shape in self.tiles(halo=True)
        }

        def run() -> None:
            with torch.inference_mode():
                for shape in self.tiles(halo=True):
                    model(*ready[shape])

        return run

    def bare(self, place: Place, shapes: Sequence[tuple[int, int]]) -> Any:
        """The inference copy alone on maps of these shapes."""
        from cube_denoise import device as devices
        from cube_denoise.inference import Network, loaded
        from cube_denoise.models import zoo

        sha256 = zoo.model_hash(self.folder)
        network = Network(str(self.folder), sha256, self.precision, place.threads)
        model = loaded(network, place.device)
        how: dict[str, Any] = {
            "device": place.device,
            "precision": self.precision,
            "threads": place.threads,
        }
        maps = [self.arrays(*shape) for shape in shapes]
        if self.stack:
            return lambda: [devices.outputs_of(model, a, **how) for a in maps]
        return lambda: list(devices.outputs(model, [a for (a,) in maps], **how))


def timed(
    task: Task, way: str, place: Place, rounds: int, *, fresh: bool
) -> list[float]:
    """Times of a way (`Task.ways`) in rounds, s; in a process of its own if `fresh`."""
    if not fresh:
        return _timed(task, way, place, rounds)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_timed, task, way, place, rounds).result()


def _timed(task: Task, way: str, place: Place, rounds: int) -> list[float]:
    from cube_denoise import device as devices

    with patch.object(devices, "device_here", return_value=place.device):
        run = task.ways(place)[way]()
        first = place.seconds(run)
        if first > LONG:
            return [first]
        return [place.seconds(run) for _ in range(rounds)]
