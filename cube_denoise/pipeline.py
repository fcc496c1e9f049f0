"""The main job from search to velocity, as one mapping of options."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from odc.geo.geobox import GeoBox

from cube_denoise import store
from cube_denoise.catalog import search
from cube_denoise.cluster import Workers
from cube_denoise.grid import grid_of, regular_grid
from cube_denoise.ingest import IngestReport, ingest
from cube_denoise.interferogram import Interferogram
from cube_denoise.steps import StepReport, correct_cube, invert_cube

JOB_KEYS = {
    "source": "catalog.json, item list or STAC API (required)",
    "search": "arguments of catalog.search",
    "cube": "URL of the cube (required)",
    "branch": "branch to work on",
    "grid": "crs, resolution, bbox of a new cube",
    "correct": "arguments of correct_cube; leave out to invert the raw pairs",
    "invert": "arguments of invert_cube",
    "cluster": "who works, as of cluster.Workers; auto if left out",
    "workers": "number of threads, processes, GPUs or workers",
    "memory_limit": "of each worker of cluster dask or cuda",
}
"""Keys of a job and what they hold."""


@dataclass
class RunReport:
    """What a whole job did."""

    ingest: IngestReport
    correct: StepReport | None
    invert: StepReport


def run(job: Mapping[str, Any]) -> RunReport:
    """Search, ingest, correct and invert as a job says; every step resumes.

    Parameters
    ----------
    job : mapping
        Keys as in `JOB_KEYS`; the values' keys are the functions' arguments.

    Returns
    -------
    RunReport

    Raises
    ------
    ValueError
        If a key is unknown or missing, or nothing is found.
    """
    unknown = set(job) - set(JOB_KEYS)
    if unknown:
        raise ValueError(
            f"job has the keys {sorted(map(str, unknown))}: known are "
            f"{', '.join(JOB_KEYS)}"
        )
    for key in ("source", "cube"):
        if not job.get(key):
            raise ValueError(f"job has no {key!r}: {JOB_KEYS[key]}")
    branch = job.get("branch") or "main"

    def workers() -> Workers:
        return Workers(
            job.get("cluster") or "auto",
            count=job.get("workers"),
            memory_limit=job.get("memory_limit"),
        )

    workers()
    items = _call("search", search, job["source"], **(job.get("search") or {}))
    if not items:
        raise ValueError(
            f"source={job['source']!r}: no interferogram fits search="
            f"{job.get('search') or {}}"
        )
    ingested = ingest(
        items,
        job["cube"],
        grid=_new_grid(job, items),
        branch=branch,
        workers=workers(),
    )
    corrected = None
    if job.get("correct"):
        corrected = _call(
            "correct",
            correct_cube,
            job["cube"],
            branch=branch,
            workers=workers(),
            **job["correct"],
        )
    inverted = _call(
        "invert",
        invert_cube,
        job["cube"],
        branch=branch,
        workers=workers(),
        **(job.get("invert") or {}),
    )
    return RunReport(ingested, corrected, inverted)


def _new_grid(job: Mapping[str, Any], items: Sequence[Interferogram]) -> GeoBox | None:
    """Grid of a new cube; None for one that is there, which keeps its own."""
    asked = job.get("grid")
    if not asked:
        return None
    footprints = [(r.crs, r.shape, r.transform) for r in items]
    wanted: GeoBox = _call("grid", regular_grid, footprints, **asked)
    if not store.exists(job["cube"]):
        return wanted
    # New items may lie further out, so the extents need not agree.
    there = grid_of(store.open_cube(job["cube"]).attrs)
    if wanted.crs != there.crs or wanted.resolution != there.resolution:
        raise ValueError(
            f"job['grid']={asked} differs from the cube {job['cube']}, which has "
            f"{there.crs} at {abs(there.resolution.x):g}: make another cube, or leave "
            "it out"
        )
    return None


def _call(key: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call with options of a job file; a wrong one is the user's mistake."""
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError as error:
        raise ValueError(f"job[{key!r}]: {error}") from None
    return function(*args, **options)
