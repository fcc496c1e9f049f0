"""Our solver, the memory pass and our inversion of a cube, for `inversion_worker`."""

import json
import shutil
from functools import partial

import numpy as np

import cube_denoise
from benchmarks.inversion_ours import memory_pass, solve_ours
from benchmarks.inversion_side import Inputs, Side


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


def _outputs(inputs: Inputs) -> int:
    return 4 * inputs.days.size * inputs.phase.shape[1]
