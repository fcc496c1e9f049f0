"""How the peers of `benchmarks.inversion` are called, each in its own environment.

By their documented functions and commands; see `inversion_peers.PEERS` for what they
are. MintPy reads its HDF5 files itself, as it always does.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import pairwise

import numpy as np

from benchmarks.inversion_side import Inputs, Side

WAVELENGTH = 0.05546576
"""Of the files written for MintPy, m."""
DOLPHIN_ROWS = 16
"""Rows that dolphin solves with weights: of all it takes gigabytes and minutes."""


def mintpy_patch(inputs: Inputs, threads: int) -> Side:
    """MintPy's inversion of a box; on more cores, a box for each in processes."""
    from mintpy.ifgram_inversion import run_ifgram_inversion_patch

    rows, width = inputs.phase.shape[1] // inputs.width, inputs.width
    solve = partial(
        run_ifgram_inversion_patch,
        str(inputs.folder / "ifgramStack.h5"),
        ref_phase=np.zeros(inputs.first.size, "float32"),
        weight_func="no" if inputs.weights is None else "coh",
    )
    cuts = np.linspace(0, rows, threads + 1).astype(int)
    boxes = [(0, int(a), width, int(b)) for a, b in pairwise(cuts)]
    small = [(0, b[1], min(width, 32), b[1] + 1) for b in boxes]
    pool = ProcessPoolExecutor(threads) if threads > 1 else None

    def run(wanted: list[tuple[int, int, int, int]]) -> list[np.ndarray]:
        if pool is None:
            return [solve(box=box)[0] for box in wanted]
        tasks = [pool.submit(solve, box=box) for box in wanted]
        return [task.result()[0] for task in tasks]

    read = inputs.phase.nbytes * (1 if inputs.weights is None else 2)
    return Side(
        solve=lambda: run(boxes),
        series=lambda found: _phase(np.concatenate(found, 1)),
        version=version("mintpy"),
        warm_up=lambda: run(small),
        own_memory=read + 4 * inputs.days.size * inputs.phase.shape[1],
    )


def mintpy_command(inputs: Inputs, threads: int) -> Side:
    """MintPy's command, from HDF5 to HDF5, called in a process that has imported it."""
    import h5py
    from mintpy.cli.ifgram_inversion import main

    place = inputs.folder / f"mintpy-{threads}"
    place.mkdir(exist_ok=True)
    outputs = [place / f"{n}.h5" for n in ("timeseries", "coherence", "count")]
    command = [str(inputs.folder / "ifgramStack.h5"), "-o", *map(str, outputs)]
    command += ["-w", "no" if inputs.weights is None else "coh"]
    if threads > 1:
        command += ["--cluster", "local", "--num-worker", str(threads)]

    def renew() -> None:
        os.chdir(place)  # Dask leaves files
        for path in outputs:
            path.unlink(missing_ok=True)

    def series(_: object) -> np.ndarray:
        with h5py.File(outputs[0]) as file:
            return _phase(file["timeseries"][:])

    return Side(
        solve=lambda: main(command),
        series=series,
        version=version("mintpy"),
        warm_up=lambda: None,
        prepare=renew,
    )


def insar_rs(inputs: Inputs, threads: int) -> Side:
    """insar-rs, which has no weights; its threads are Rayon's."""
    from insar_rs import invert_sbas

    phase = inputs.phase.reshape(inputs.first.size, -1, inputs.width)
    network = [a.tolist() for a in (inputs.first, inputs.second, inputs.days)]
    return Side(
        # Of this wavelength, displacement is minus the phase.
        solve=lambda: invert_sbas(phase, *network, 4 * np.pi),
        series=lambda found: -_flat(found),
        version=version("insar-rs"),
        own_memory=4 * inputs.days.size * inputs.phase.shape[1],
    )


def dolphin(inputs: Inputs, threads: int) -> Side:
    """Least squares of dolphin; gaps are weights of zero, as it documents."""
    from dolphin.timeseries import get_incidence_matrix, invert_stack

    rows = inputs.phase.shape[1] // inputs.width
    if inputs.weights is not None:
        rows = min(rows, DOLPHIN_ROWS)
    pixels = rows * inputs.width
    shape = inputs.first.size, rows, inputs.width
    phase = inputs.phase[:, :pixels].reshape(shape)
    pairs = list(zip(inputs.first.tolist(), inputs.second.tolist(), strict=True))
    matrix = get_incidence_matrix(pairs)
    weights = None
    if inputs.weights is not None:
        weights = inputs.weights[:, :pixels].reshape(shape)
        weights = np.where(np.isnan(phase), np.float32(0), weights)
        phase = np.nan_to_num(phase)

    def series(found: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros((1, pixels), found.dtype), _flat(found)])

    return Side(
        # As an array of NumPy, which waits for JAX.
        solve=lambda: np.asarray(invert_stack(matrix, phase, weights)[0]),
        series=series,
        version=version("dolphin"),
        own_memory=4 * (inputs.days.size - 1) * pixels,
        pixels=pixels,
    )


def _flat(series: np.ndarray) -> np.ndarray:
    return series.reshape(series.shape[0], -1)


def _phase(moved: np.ndarray) -> np.ndarray:
    """Metres toward the satellite as phase."""
    return _flat(moved) * (-4 * np.pi / WAVELENGTH)
