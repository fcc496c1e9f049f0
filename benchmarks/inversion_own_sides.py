"""Our solver, our inversion of a cube and a pass without either solved."""

import json
import shutil
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import xarray as xr

import cube_denoise
from benchmarks.inversion_ours import memory_pass, solve_ours
from benchmarks.inversion_side import Inputs, Side
from cube_denoise.reference import read_window


def solver(inputs: Inputs, threads: int) -> Side:
    """Inversion of arrays in memory."""
    return Side(
        solve=lambda: solve_ours(
            inputs.phase, inputs.weights, inputs.first, inputs.second, threads
        ),
        series=np.asarray,
        version=cube_denoise.__version__,
        own_memory=_outputs(inputs),
    )


def memory(inputs: Inputs, threads: int) -> Side:
    """The memory pass."""
    return Side(
        solve=partial(
            memory_pass, inputs.phase, inputs.weights, inputs.days.size, threads
        ),
        series=np.asarray,
        version="numba",
        own_memory=_outputs(inputs),
    )


def through_cube(inputs: Inputs, threads: int) -> Side:
    """Inversion of the cube of the folder, from store to store."""
    from cube_denoise import store
    from cube_denoise.cluster import Workers
    from cube_denoise.conventions import displacement_to_phase
    from cube_denoise.steps import invert_cube

    made, used = inputs.folder / "cube", inputs.folder / f"cube-{threads}"
    y, x = json.loads((inputs.folder / "reference.json").read_text())
    pixel = {"y": [y, y + 1], "x": [x, x + 1]}

    def renew() -> None:
        shutil.rmtree(used, ignore_errors=True)
        shutil.copytree(made, used)

    def series(_: object) -> np.ndarray:
        cube = store.open_cube(str(used))
        moved = cube["displacement"].values
        moved = moved.reshape(moved.shape[0], -1)
        return displacement_to_phase(moved, float(cube.attrs["wavelength"]))

    return Side(
        solve=lambda: invert_cube(
            str(used), reference=pixel, workers=Workers("threads", count=threads)
        ),
        series=series,
        version=cube_denoise.__version__,
        prepare=renew,
    )


def store_pass(inputs: Inputs, threads: int) -> Side:
    """Read all pairs of the cube and write series and maps, without solving."""
    from cube_denoise import store
    from cube_denoise.blocks import windows
    from cube_denoise.cluster import Workers
    from cube_denoise.invert import inversion_block, inversion_cuts

    made, used = inputs.folder / "cube", inputs.folder / f"pass-{threads}"
    times = np.datetime64("2020-01-01", "s") + inputs.days.astype("m8[D]")

    def renew() -> None:
        shutil.rmtree(used, ignore_errors=True)
        shutil.copytree(made, used)

    def go() -> None:
        cube = store.open_cube(str(used))
        sizes = {"time": times.size, "y": cube.sizes["y"], "x": cube.sizes["x"]}
        cuts = windows(**inversion_cuts(cube, inversion_block(cube)))
        stage = store.stage(str(used), step="pass", branch="main", asked={})
        with stage as under_way, Workers("threads", count=threads) as workers:
            under_way.change(
                lambda root: store.declare(root, PASSED, sizes, times=times), "layout"
            )
            work = partial(_pass_on, dates=times.size)
            under_way.fill(work, cuts, workers, advance=lambda amount: None)
            under_way.publish("nothing solved")

    return Side(
        solve=go, series=np.asarray, version=cube_denoise.__version__, prepare=renew
    )


PASSED = ("displacement", "displacement_std", "velocity", "velocity_std")
"""What `store_pass` writes: the larger part of what an inversion does."""


def _pass_on(
    cube: xr.Dataset, window: Mapping[str, slice], *, dates: int
) -> Iterator[tuple[Mapping[str, slice], dict[str, np.ndarray]]]:
    """Pairs go on as if they were dates: noise that does not compress either."""
    phase, coherence = (
        read_window(cube, name, window) for name in ("unwrapped_phase", "coherence")
    )
    series = {"displacement": phase[:dates], "displacement_std": coherence[:dates]}
    yield {"time": slice(0, dates), **window}, series
    yield window, {"velocity": phase[0], "velocity_std": phase[1]}


def _outputs(inputs: Inputs) -> int:
    return 4 * inputs.days.size * inputs.phase.shape[1]
