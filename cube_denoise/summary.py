"""What is in a cube, in a few numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table

from cube_denoise import store
from cube_denoise.conventions import PAIR, TIME, X, Y, pair_label
from cube_denoise.grid import grid_of
from cube_denoise.network import pair_indices
from cube_denoise.state import velocity_is_current

STATUS = ("not corrected", "corrected", "passed through")
"""What the values of ``correction_status`` mean."""
PERCENTILES = (1, 25, 50, 75, 99)
SAMPLE = 2000
"""Percentiles are of every n-th pixel, so that about this many a side are read."""


def summarise(url: str | Path, *, branch: str = "main") -> dict[str, Any]:
    """Grid, dates, pairs, steps done and velocity of a cube.

    Parameters
    ----------
    url : str or pathlib.Path
        The cube.
    branch : str
        Branch to read.

    Returns
    -------
    dict
        JSON-able; velocities in mm/yr, positive toward the satellite.
    """
    cube = store.open_cube(url, branch=branch)
    grid = grid_of(cube.attrs)
    bounds = grid.boundingbox
    found: dict[str, Any] = {
        "url": str(url),
        "branch": branch,
        "branches": sorted(store.visible_branches(store.open_repository(url))),
        "track": cube.attrs.get("track"),
        "wavelength_m": cube.attrs.get("wavelength"),
        "crs": cube.attrs.get("proj:code") or str(grid.crs),
        "rows": cube.sizes[Y],
        "columns": cube.sizes[X],
        "pixel_size": [grid.affine.a, grid.affine.e],
        "bounds": [bounds.left, bounds.bottom, bounds.right, bounds.top],
        "variables": sorted(map(str, cube.data_vars)),
        "pairs": cube.sizes[PAIR],
        "failed": list(cube.attrs.get("failed", [])),
    }
    if cube.sizes[PAIR]:
        times = pair_indices(
            cube["reference_time"].values, cube["secondary_time"].values
        )[2]
        found |= {
            "dates": int(times.size),
            "first_date": str(times[0])[:10],
            "last_date": str(times[-1])[:10],
        }
    if "correction_status" in cube:
        status = cube["correction_status"].values
        found["correction"] = {
            **{name: int((status == k).sum()) for k, name in enumerate(STATUS)},
            "method": cube["corrected_phase"].attrs.get("method"),
            "passed": [
                pair_label(cube, k) for k in np.flatnonzero(status == 2).tolist()
            ],
        }
    if "velocity" in cube:
        found["velocity"] = _velocity(cube)
    found["steps"] = [
        {
            "time": step["time"].isoformat(timespec="seconds"),
            "message": step["message"],
            "snapshot": step["id"],
        }
        for step in store.history(url, branch=branch)
    ]
    return found


def _velocity(cube: xr.Dataset) -> dict[str, Any]:
    velocity = cube["velocity"]
    stride = -(-max(velocity.shape) // SAMPLE)
    values = velocity[::stride, ::stride].values * 1e3
    known = np.isfinite(values)
    some = known.any()
    levels = np.percentile(values[known], PERCENTILES) if some else np.full(5, np.nan)
    names = ("phase_variable", "weights", "reference_rows", "reference_columns")
    return {
        "percentiles_mm_per_year": {
            str(p): round(float(v), 2) if some else None
            for p, v in zip(PERCENTILES, levels, strict=True)
        },
        "valid_fraction": round(float(known.mean()), 4),
        "dates": cube.sizes[TIME],
        "of_these_pairs": velocity_is_current(cube),
        **{n: velocity.attrs[n] for n in names if n in velocity.attrs},
    }


def summary_table(found: dict[str, Any]) -> Table:
    """Table of `summarise`, for rich to print."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    left, bottom, right, top = (f"{v:.10g}" for v in found["bounds"])
    size = " x ".join(f"{abs(v):.6g}" for v in found["pixel_size"])
    table.add_row("cube", f"{found['url']}, branch {found['branch']}")
    table.add_row("branches", ", ".join(found["branches"]))
    table.add_row("track", f"{found['track']}, wavelength {found['wavelength_m']} m")
    table.add_row(
        "grid", f"{found['rows']} x {found['columns']} pixels of {size}, {found['crs']}"
    )
    table.add_row("bounds", f"x {left} to {right}, y {bottom} to {top}")
    if found["pairs"]:
        table.add_row(
            "pairs",
            f"{found['pairs']} of {found['dates']} dates, {found['first_date']} to "
            f"{found['last_date']}",
        )
    else:
        table.add_row("pairs", "none yet")
    for failure in found["failed"]:
        table.add_row("failed", f"{failure['id']}: {failure['reason']}")
    if "correction" in found:
        known = found["correction"]
        counts = ", ".join(f"{known[name]} {name}" for name in STATUS if known[name])
        table.add_row("correction", f"{counts} ({known['method']})")
        if known["passed"]:
            table.add_row("", "passed through: " + ", ".join(known["passed"]))
    if "velocity" in found:
        known = found["velocity"]
        levels = known["percentiles_mm_per_year"].items()
        table.add_row(
            "velocity",
            ", ".join(f"{v} ({p} %)" for p, v in levels)
            + f" mm/yr, toward the satellite; from {known.get('phase_variable')}, "
            f"{known['valid_fraction']:.1%} of pixels",
        )
        if not known["of_these_pairs"]:
            table.add_row("", "of an earlier state of the pairs: invert again")
        rows, columns = known.get("reference_rows"), known.get("reference_columns")
        if rows and columns:
            table.add_row(
                "reference",
                f"rows {rows[0]}:{rows[1]}, columns {columns[0]}:{columns[1]}",
            )
    for step in found["steps"]:
        table.add_row(
            "step", f"{step['time']}  {step['message']}  [{step['snapshot']}]"
        )
    return table
