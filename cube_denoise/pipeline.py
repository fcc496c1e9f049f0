"""The main job from search to velocity, as one mapping of options."""

import inspect
import logging
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from cube_denoise import store
from cube_denoise.catalog import resolve, search
from cube_denoise.changes import Changes, compare, difference
from cube_denoise.cluster import Workers
from cube_denoise.corrections import find_correction
from cube_denoise.cube_fit import attributes_of, check_own_pixels, has_own_pixels
from cube_denoise.grid import grid_of, regular_grid
from cube_denoise.ingest import IngestReport, ingest, make_cube
from cube_denoise.interferogram import Interferogram
from cube_denoise.state import inversion_is_due, pairs_to_correct
from cube_denoise.steps import (
    StepReport,
    correct_cube,
    inversion_options,
    invert_cube,
)

log = logging.getLogger(__name__)

ATTEMPTS = 6
"""How often a job starts over because another one was quicker."""

JOB_KEYS = {
    "source": "catalog.json, item list or STAC API (required)",
    "search": "arguments of catalog.search",
    "cube": "URL of the cube (required)",
    "branch": "branch to work on",
    "grid": "crs, resolution, bbox, anchored of a new cube",
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
    record: dict[str, Any] = field(default_factory=dict)
    """What changed: JSON-able, and in the metadata of the job's last commit. Empty if
    nothing did."""


Allow = Callable[[Changes, Sequence[Mapping[str, Any]]], None]
"""``allow(changes, items of the cube)`` raises ValueError if that must not be done."""


def run(job: Mapping[str, Any]) -> RunReport:
    """Search, ingest, correct and invert as a job says; every step resumes.

    Readers see the cube as it was until all is done, then all at once.

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
    return carry_out(job, find(job), step="run")


def check(job: Mapping[str, Any]) -> None:
    """Refuse a job that is wrong whatever its source has.

    Raises
    ------
    ValueError
        As for `run`.
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
    workers_of(job)
    if job.get("correct"):
        bind("correct", correct_cube, job["cube"], **job["correct"])
        find_correction(**job["correct"])
    inverting = job.get("invert") or {}
    bind("invert", invert_cube, job["cube"], **inverting)
    inversion_options(**inverting)
    bind("grid", regular_grid, (), **(job.get("grid") or {}))
    bind("search", search, job["source"], **(job.get("search") or {}))


def find(job: Mapping[str, Any]) -> list[Interferogram]:
    """Check a job and search its source: one record per pair.

    Raises
    ------
    ValueError
        As for `run`.
    """
    check(job)
    items = search(job["source"], **(job.get("search") or {}))
    if not items:
        raise ValueError(
            f"source={job['source']!r}: no interferogram fits search="
            f"{job.get('search') or {}}"
        )
    return resolve(items)


def search_mark(job: Mapping[str, Any]) -> str:
    """Fingerprint of where and how a job searches."""
    asked = {"source": str(job["source"]), "search": job.get("search") or {}}
    return store.fingerprint(asked)


def carry_out(
    job: Mapping[str, Any],
    items: Sequence[Interferogram],
    *,
    step: str,
    allow: Allow | None = None,
) -> RunReport:
    """Bring a cube up to date with `items`, from the first pair to the velocity.

    The steps work on a hidden branch, and the job's branch is moved to its end in one
    step. A job that finds its cube changed by another one then starts over from there.

    Parameters
    ----------
    job : mapping
        Checked by `find`.
    items : sequence of interferogram.Interferogram
        One per pair.
    step : str
        Name of the job, for the history.
    allow : callable, optional
        Asked before anything is changed. Without, pairs are only added: reprocessed
        and withdrawn ones are left as they are.

    Returns
    -------
    RunReport

    Raises
    ------
    ValueError
        If the cube, the items and the options do not fit each other.
    CubeChangedError
        If other jobs were quicker `ATTEMPTS` times.
    """
    with workers_of(job).kept() as workers:
        for attempt in range(ATTEMPTS):
            try:
                return _attempt(job, items, step, allow, workers)
            except store.CubeChangedError as error:
                if attempt + 1 == ATTEMPTS:
                    raise
                log.info("%s: start over: %s", step, error)
                time.sleep(random.uniform(0.1, 1.0) * 2 ** min(attempt, 3))
    raise AssertionError


def _attempt(
    job: Mapping[str, Any],
    items: Sequence[Interferogram],
    step: str,
    allow: Allow | None,
    workers: Workers,
) -> RunReport:
    url, branch = job["cube"], job.get("branch") or "main"
    begin, mark = time.monotonic(), search_mark(job)
    grid = new_grid(job, items)
    if not store.exists(url):
        place = grid or regular_grid((r.crs, r.shape, r.transform) for r in items)
        check_own_pixels(items, place)
        make_cube(url, place, attributes_of(items[0]))
    _, cube = store.newest(url, branch=branch)
    changes = compare(cube.attrs["items"], items, search=mark)
    if allow is None:
        changes = Changes(new=changes.new)
    if not changes and not _is_due(cube, job):
        # They tell what is there, and do nothing.
        return _steps(job, items, branch, workers)
    if allow is not None:
        allow(changes, cube.attrs["items"])
    told = ("source", "search", "grid", "correct")
    asked = {"step": step, **{key: job.get(key) for key in told}}
    with store.draft(url, branch=branch, asked=asked) as draft:
        before = store.open_cube(url, snapshot=draft.base).attrs["items"]
        changes = compare(before, items, search=mark)
        if allow is None:
            report = _steps(job, items, draft.name, workers)
        else:
            allow(changes, before)
            gone = {tuple(item["key"]) for item in changes.withdrawn}
            report = _steps(
                job, items, draft.name, workers, replace=True, withdraw=gone
            )
        if not draft.changed():
            return report
        after = store.open_cube(url, snapshot=draft.tip).attrs["items"]
        report.record = difference(before, after) | {
            "failed": report.ingest.failed,
            "steps": draft.steps(),
            "snapshot_before": draft.base,
            "seconds": round(time.monotonic() - begin, 2),
        }
        parts = [
            f"{len(report.record[what])} {what}"
            for what in ("added", "replaced", "withdrawn", "failed")
            if report.record[what]
        ]
        title = ", ".join(parts) or "same pairs"
        report.record["snapshot_after"] = draft.publish(
            step, title, record=report.record
        )
        return report


def _is_due(cube: xr.Dataset, job: Mapping[str, Any]) -> bool:
    """Whether a correction or an inversion of the pairs that are there is due."""
    if job.get("correct"):
        correction = find_correction(**job["correct"])
        if pairs_to_correct(cube, correction)[1]:
            return True
    return inversion_is_due(cube, inversion_options(**(job.get("invert") or {})))


def _steps(
    job: Mapping[str, Any],
    items: Sequence[Interferogram],
    branch: str,
    workers: Workers,
    *,
    replace: bool = False,
    withdraw: Collection[tuple[str, ...]] = (),
) -> RunReport:
    """Do what is to be done, on one branch."""
    url = job["cube"]
    ingested = ingest(
        items,
        url,
        branch=branch,
        workers=workers,
        replace=replace,
        withdraw=withdraw,
        search=search_mark(job),
    )
    corrected = None
    if job.get("correct"):
        corrected = correct_cube(url, branch=branch, workers=workers, **job["correct"])
    inverted = invert_cube(
        url, branch=branch, workers=workers, **(job.get("invert") or {})
    )
    return RunReport(ingested, corrected, inverted)


def workers_of(job: Mapping[str, Any]) -> Workers:
    """Workers that a job asks for, not started."""
    return Workers(
        job.get("cluster") or "auto",
        count=job.get("workers"),
        memory_limit=job.get("memory_limit"),
    )


def new_grid(job: Mapping[str, Any], items: Sequence[Interferogram]) -> GeoBox | None:
    """Grid of a new cube; None for one that is there, which keeps its own.

    Items that are read on their own pixels alone keep them where `anchored` would move
    them.
    """
    asked = job.get("grid")
    if not asked:
        return None
    footprints = [(r.crs, r.shape, r.transform) for r in items]
    if asked.get("anchored") and any(has_own_pixels(r) for r in items):
        asked = {**asked, "anchored": False}
    wanted: GeoBox = bind("grid", regular_grid, footprints, **asked)()
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


def bind(
    key: str, function: Callable[..., Any], *args: Any, **options: Any
) -> Callable[[], Any]:
    """Bind options of a job file; a wrong one is the user's mistake."""
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError as error:
        raise ValueError(f"job[{key!r}]: {error}") from None
    return partial(function, *args, **options)
