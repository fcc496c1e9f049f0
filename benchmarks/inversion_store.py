"""The stack of `benchmarks.inversion` as MintPy's HDF5 file and as our cube."""

import json
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from benchmarks.inversion_peer_sides import WAVELENGTH
from benchmarks.inversion_stack import Stack
from cube_denoise.cluster import Workers
from cube_denoise.ingest import ingest_dataset

BEGIN = np.datetime64("2020-01-01")


def dates_of(stack: Stack) -> np.ndarray:
    """Day of every date of a stack."""
    return BEGIN + stack.days


def reference_pixel(stack: Stack) -> tuple[int, int]:
    """Row and column of the most coherent pixel that has all pairs."""
    whole = np.isfinite(stack.phase).all(0)
    best = int(np.argmax(np.where(whole, stack.coherence.mean(0), 0)))
    return best // stack.width, best % stack.width


def write_hdf5(stack: Stack, path: Path) -> None:
    """Write a stack of interferograms as MintPy's documentation lays it out."""
    days = np.array([str(d).replace("-", "") for d in dates_of(stack)], "S8")
    shape = (stack.first.size, -1, stack.width)
    row, column = reference_pixel(stack)
    with h5py.File(path, "w") as file:
        file["unwrapPhase"] = stack.phase.reshape(shape)
        file["coherence"] = stack.coherence.reshape(shape)
        file["date"] = np.stack([days[stack.first], days[stack.second]], 1)
        file["bperp"] = np.zeros(stack.first.size, "float32")
        file["dropIfgram"] = np.ones(stack.first.size, bool)  # True = used
        told = {
            "FILE_TYPE": "ifgramStack",
            "LENGTH": stack.phase.shape[1] // stack.width,
            "WIDTH": stack.width,
            "WAVELENGTH": WAVELENGTH,
            "UNIT": "radian",
            "PROCESSOR": "isce",
            "ALOOKS": 1,
            "RLOOKS": 1,
            "START_DATE": days[0].decode(),
            "END_DATE": days[-1].decode(),
            "REF_DATE": days[0].decode(),
            "REF_Y": row,
            "REF_X": column,
        }
        file.attrs.update({key: str(value) for key, value in told.items()})


def write_cube(stack: Stack, folder: Path) -> None:
    """Make the cube and say what its reference pixel is."""
    import odc.geo.xr  # noqa: F401  (the .odc accessor)

    shape = (stack.first.size, -1, stack.width)
    dims = ("pair", "y", "x")
    rows = stack.phase.shape[1] // stack.width
    times = dates_of(stack).astype("datetime64[s]")
    dataset = xr.Dataset(
        {
            "unwrapped_phase": (dims, stack.phase.reshape(shape)),
            "coherence": (dims, stack.coherence.reshape(shape)),
        },
        coords={
            "reference_time": ("pair", times[stack.first]),
            "secondary_time": ("pair", times[stack.second]),
            "y": 2_000_000 - 80.0 * np.arange(rows),
            "x": 500_000 + 80.0 * np.arange(stack.width),
        },
        attrs={"wavelength": WAVELENGTH, "track": "A005"},
    ).odc.assign_crs("EPSG:32613")
    made = ingest_dataset(dataset, str(folder / "cube"), workers=Workers("threads"))
    if made.failed:
        raise RuntimeError(f"the cube lacks pairs: {made.failed}")
    (folder / "reference.json").write_text(json.dumps(reference_pixel(stack)))
