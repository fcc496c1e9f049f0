"""Compile what an inversion needs ahead of it: ``python -m cube_denoise.warm``.

numba keeps what it compiled, half a minute of work, beside the package or in the folder
that the environment variable NUMBA_CACHE_DIR names; processes that begin later load it
from there. Processes that begin at once would each compile.
"""

import numpy as np
import xarray as xr

from cube_denoise.closure import TREATMENTS
from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.inversion.continuation import (
    continuation,
    frontier_size,
    rows_of,
)
from cube_denoise.invert import plan_inversion
from cube_denoise.network import pair_indices

DATES = 8


def compile_inversion(*, unwrapping: str = "none") -> None:
    """Invert a few made-up pixels, in full and as an update does.

    Parameters
    ----------
    unwrapping : {"none", "mask", "correct"}
        As it will be asked of `invert.invert`; no other option makes more to compile.
    """
    cube = _stack()
    corner = {Y: slice(0, 1), X: slice(0, 1)}
    job = plan_inversion(cube, reference=corner, unwrapping=unwrapping)
    for window in job.windows:
        job.compute(cube, window)
    _resume(cube)


def _resume(cube: xr.Dataset) -> None:
    """Invert from the first date on, as updates do from a later one."""
    from cube_denoise.inversion.incremental import resume

    first, second, times = pair_indices(
        cube["reference_time"].values, cube["secondary_time"].values
    )
    saves = np.array([times.size // 2])
    rows = rows_of(frontier_size(first, second, 0, int(saves[0])))
    phase, coherence = (
        cube[name].values.reshape(first.size, -1)
        for name in ("unwrapped_phase", "coherence")
    )
    resume(
        phase,
        continuation(first, second, times.size, 0, begin=0, saves=saves, rows=rows),
        years=np.arange(times.size) / 30,
        coherence=coherence,
        constants=np.zeros(first.size),
        weights="coherence",
    )


def _stack() -> xr.Dataset:
    """Phase 0 but for a gap and an unwrapping error; consecutive pairs and triplets."""
    first = np.repeat(np.arange(DATES), 2)[:-3]
    second = first + np.tile([1, 2], DATES)[: first.size]
    days = np.datetime64("2020-01-01", "ns") + np.arange(DATES) * np.timedelta64(
        12, "D"
    )
    phase = np.zeros((first.size, 4, 4), "float32")
    phase[0, 1, 1], phase[1, 2, 2] = np.nan, 2 * np.pi
    dims = (PAIR, Y, X)
    return xr.Dataset(
        {
            "unwrapped_phase": (dims, phase),
            "coherence": (dims, np.full_like(phase, 0.5)),
        },
        coords={
            "reference_time": (PAIR, days[first]),
            "secondary_time": (PAIR, days[second]),
        },
        attrs={"wavelength": 0.0555},
    )


if __name__ == "__main__":
    for treatment in TREATMENTS:
        compile_inversion(unwrapping=treatment)
