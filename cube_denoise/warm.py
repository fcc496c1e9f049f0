"""Compile what an inversion needs ahead of it: ``python -m cube_denoise.warm``.

numba keeps what it compiled, half a minute of work, beside the package or in the folder
that the environment variable NUMBA_CACHE_DIR names; processes that begin later load it
from there. Processes that begin at once would each compile.
"""

import numpy as np
import xarray as xr

from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.invert import UNWRAPPING, plan_inversion

DATES = 8


def compile_inversion(*, unwrapping: str = "none") -> None:
    """Invert a few made-up pixels.

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
    for treatment in UNWRAPPING:
        compile_inversion(unwrapping=treatment)
