"""Displacement of one pixel of a cube through time, and before correction."""

from dataclasses import fields
from typing import Any

import numpy as np
import xarray as xr

from cube_denoise.blocks import BlockJob
from cube_denoise.conventions import CORRECTION_TIME, TIME, X, Y
from cube_denoise.inversion_window import Settings
from cube_denoise.invert import plan_inversion
from cube_denoise.reference_area import recorded_reference

LOOK = ("los_east", "los_north", "los_up")
VARIABLES = (
    *("displacement", "displacement_std", "velocity", "velocity_std"),
    *("correction_std", *LOOK),
)


def pixel_series(cube: xr.Dataset, row: int, column: int) -> xr.Dataset | None:
    """Series of a pixel.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``displacement`` (time, y, x), m.
    row, column : int

    Returns
    -------
    xarray.Dataset or None
        In memory, of `VARIABLES` what the cube has: series on (time),
        ``correction_std`` too (NaN where a date has none), and numbers. None if no
        date has data.
    """
    there = [n for n in VARIABLES if n in cube]
    pixel = cube[there].isel({Y: row, X: column}).load()
    if not np.isfinite(pixel["displacement"]).any():
        return None
    times = (TIME, CORRECTION_TIME)
    pixel = pixel.drop_vars([n for n in pixel.coords if n not in times])
    if "correction_std" in pixel:
        own = pixel["correction_std"].rename({CORRECTION_TIME: TIME})
        pixel = pixel.drop_vars(["correction_std", CORRECTION_TIME])
        pixel["correction_std"] = own.reindex({TIME: pixel[TIME]})
    return pixel


def is_corrected(cube: xr.Dataset) -> bool:
    """Whether the displacement is that of corrected pairs, and the raw ones are there.

    Then `raw_inversion` shows what the correction did.
    """
    if "displacement" not in cube or "unwrapped_phase" not in cube:
        return False
    return bool(cube["displacement"].attrs.get("phase_variable") == "corrected_phase")


def raw_inversion(cube: xr.Dataset) -> BlockJob:
    """Inversion of the pairs before correction as the corrected ones were.

    Reads the reference area of every pair; what `raw_series` of any pixel starts from.
    """
    made = cube["displacement"].attrs
    settings: dict[str, Any] = {f.name: made[f.name] for f in fields(Settings)}
    settings["reference_date"] = str(made["reference_time"])
    return plan_inversion(
        cube,
        reference=recorded_reference(made),
        variable="unwrapped_phase",
        **settings,
    )


def raw_series(
    cube: xr.Dataset, inversion: BlockJob, row: int, column: int
) -> xr.Dataset:
    """Series of a pixel before correction: reads a chunk of every pair.

    Parameters
    ----------
    cube : xarray.Dataset
    inversion : BlockJob
        As of `raw_inversion`.
    row, column : int

    Returns
    -------
    xarray.Dataset
        ``displacement`` and ``displacement_std`` (time), m; ``velocity`` and
        ``velocity_std``, m year-1.
    """
    window = {Y: slice(row, row + 1), X: slice(column, column + 1)}
    found = inversion.compute(cube, window)
    series = {n: (TIME, found[n].ravel()) for n in VARIABLES[:2]}
    rates = {n: found[n].item() for n in VARIABLES[2:4]}
    return xr.Dataset({**series, **rates}, {TIME: inversion.coords[TIME]})
