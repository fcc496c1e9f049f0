"""What a command would do and cost, without touching data and without writing."""

import resource
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from cube_denoise import store
from cube_denoise.catalog import resolve
from cube_denoise.changes import compare
from cube_denoise.cluster import Workers
from cube_denoise.conventions import PAIR
from cube_denoise.corrections import find_correction
from cube_denoise.cube_fit import attributes_of
from cube_denoise.estimate import (
    Rates,
    StepEstimate,
    estimate_correction,
    estimate_ingest,
    estimate_inversion,
    total,
)
from cube_denoise.grid import regular_grid
from cube_denoise.ingest import check_records, check_wavelength, plan_reading
from cube_denoise.interferogram import Interferogram
from cube_denoise.inversion_window import Settings
from cube_denoise.invert import check_inversion
from cube_denoise.network import acquisition_times
from cube_denoise.pipeline import (
    Allow,
    find,
    new_grid,
    search_mark,
    workers_of,
)
from cube_denoise.planned_cube import corrected_cube, cube_after, empty_cube
from cube_denoise.reference_date import reference_position
from cube_denoise.reference_pixels import checked_area
from cube_denoise.state import inversion_is_due, pairs_to_correct
from cube_denoise.steps import inversion_options

CAUTION = (
    "Tasks and bytes written are exact, if every pair can be read; bytes are before "
    "compression. Memory, stored size and time are estimates, of work made up on this "
    "machine."
)


@dataclass(frozen=True)
class DryRun:
    """What a command would do, step by step."""

    steps: tuple[StepEstimate, ...]
    workers: int
    """Tasks at once."""
    processes: int
    """Processes among which they are."""
    process_memory: int
    """Bytes that each holds beside its tasks: those of this one, now."""

    @property
    def total(self) -> StepEstimate:
        """All steps together."""
        return total(self.steps)

    @property
    def memory(self) -> int:
        """Bytes for all workers together."""
        return (
            self.processes * self.process_memory
            + self.workers * self.total.memory_per_task
        )

    @property
    def seconds(self) -> float:
        """Time for all steps, with this machine's cores."""
        return sum(s.seconds(self.workers) for s in self.steps)

    def told(self) -> dict[str, Any]:
        """As one JSON-able mapping."""
        steps = [
            asdict(s)
            | {"bytes_stored": s.bytes_stored, "seconds": s.seconds(self.workers)}
            for s in self.steps
        ]
        return {
            "steps": steps,
            "workers": self.workers,
            "memory": self.memory,
            "process_memory": self.process_memory,
            "bytes_stored": self.total.bytes_stored,
            "seconds": self.seconds,
            "caution": CAUTION,
        }


def plan_ingest(
    items: Sequence[Interferogram],
    url: str | Path,
    *,
    grid: GeoBox | None = None,
    branch: str = "main",
    workers: Workers | None = None,
    chunk: int = store.CHUNK,
    shard: int = store.SHARD,
) -> DryRun:
    """Plan `ingest.ingest`; same options and errors."""
    if not items:
        raise ValueError("items is empty: there is nothing to ingest")
    records = resolve(items)
    check_wavelength(records)
    cube = _there(url, branch)
    if cube is None:
        cube = _new(records, grid, chunk=chunk, shard=shard)
    check_records(records, cube, url, grid)
    step = estimate_ingest(cube, plan_reading(cube, records), len(records))
    return _dry_run([step], workers or Workers())


def plan_correct(
    url: str | Path,
    method: str | Path,
    *,
    branch: str = "main",
    workers: Workers | None = None,
    **options: Any,
) -> DryRun:
    """Plan `steps.correct_cube`; same options and errors."""
    _, cube = store.newest(url, branch=branch)
    pool = workers or Workers()
    step, _ = _correct(cube, pool, Rates(), {"method": method, **options})
    return _dry_run([step], pool)


def plan_invert(
    url: str | Path,
    *,
    branch: str = "main",
    workers: Workers | None = None,
    **options: Any,
) -> DryRun:
    """Plan `steps.invert_cube`; same options and errors."""
    _, cube = store.newest(url, branch=branch)
    return _dry_run([_invert(cube, Rates(), options)], workers or Workers())


def plan_job(
    job: Mapping[str, Any],
    *,
    updating: bool = False,
    allow: Allow | None = None,
    rates: Rates | None = None,
) -> DryRun:
    """Plan `pipeline.run`, or `update.update` if `updating`; same errors.

    Parameters
    ----------
    job : mapping
        See `pipeline.JOB_KEYS`. Its source is searched.
    updating : bool
        Whether reprocessed pairs are replaced, and withdrawn ones taken out.
    allow : callable
        As for `pipeline.carry_out`.
    rates : estimate.Rates, optional
        Give the same to many jobs.
    """
    records = find(job)
    check_wavelength(records)
    cube = _there(job["cube"], job.get("branch") or "main")
    grid = new_grid(job, records)
    if cube is None:
        cube = _new(records, grid)
    mark = search_mark(job)
    withdraw: Collection[tuple[str, ...]] = ()
    if updating:
        changes = compare(cube.attrs["items"], records, search=mark)
        if changes and allow is not None:
            allow(changes, cube.attrs["items"])
        withdraw = {tuple(item["key"]) for item in changes.withdrawn}
    check_records(records, cube, job["cube"], grid)
    pool = workers_of(job)
    steps = plan_steps(
        *(cube, records, job, pool, rates or Rates()),
        replace=updating,
        withdraw=withdraw,
    )
    return _dry_run(steps, pool)


def plan_steps(
    cube: xr.Dataset,
    records: Sequence[Interferogram],
    job: Mapping[str, Any],
    pool: Workers,
    rates: Rates,
    *,
    replace: bool = False,
    withdraw: Collection[tuple[str, ...]] = (),
) -> list[StepEstimate]:
    """Ingest, correction and inversion of a job, each on what the one before leaves.

    Parameters
    ----------
    cube : xarray.Dataset
        As it is, or `planned_cube.empty_cube`; of one frame.
    records : sequence of interferogram.Interferogram
        One per pair.
    job : mapping
        Keys ``correct`` and ``invert`` are used.
    pool : cluster.Workers
        Not started.
    rates : estimate.Rates
        Give the same to many frames.
    replace, withdraw
        As for `ingest.ingest`.
    """
    plan = plan_reading(cube, records, replace=replace, withdraw=withdraw)
    steps = [estimate_ingest(cube, plan, len(records))]
    cube = cube_after(cube, plan, search_mark(job))
    if job.get("correct"):
        step, anew = _correct(cube, pool, rates, job["correct"])
        steps.append(step)
        if anew:
            cube = corrected_cube(cube)
    steps.append(_invert(cube, rates, job.get("invert") or {}))
    return steps


def _correct(
    cube: xr.Dataset, pool: Workers, rates: Rates, options: Mapping[str, Any]
) -> tuple[StepEstimate, bool]:
    """Estimate, and whether anything is corrected."""
    correction = find_correction(**options).shared_by(pool.count)
    correction, pairs, _ = pairs_to_correct(cube, correction)
    step = estimate_correction(cube, correction, pairs, rates)
    return step, bool(pairs)


def _invert(cube: xr.Dataset, rates: Rates, options: Mapping[str, Any]) -> StepEstimate:
    asked = inversion_options(**options)
    if not inversion_is_due(cube, asked):
        return StepEstimate("invert", done=cube.sizes[PAIR])
    settings = Settings(**asked["settings"])
    variable = check_inversion(cube, settings, asked["variable"])
    early, late = (cube[n].values for n in store.PAIR_TIMES)
    times = acquisition_times(early, late)
    reference_position(settings.reference_date, times, [times])
    if asked["reference"] is not None:
        checked_area(asked["reference"], cube)
    return estimate_inversion(
        cube,
        settings=settings,
        variable=variable,
        chosen=asked["reference"] is None,
        rates=rates,
    )


def _there(url: str | Path, branch: str) -> xr.Dataset | None:
    return store.newest(url, branch=branch)[1] if store.exists(url) else None


def _new(
    records: Sequence[Interferogram], grid: GeoBox | None, **sizes: int
) -> xr.Dataset:
    place = grid or regular_grid((r.crs, r.shape, r.transform) for r in records)
    return empty_cube(place, attributes_of(records[0]), **sizes)


def _dry_run(steps: Sequence[StepEstimate], pool: Workers) -> DryRun:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return DryRun(
        steps=tuple(steps),
        workers=pool.count,
        processes=1 if pool.cluster == "threads" else pool.count,
        process_memory=peak * (1 if sys.platform == "darwin" else 1024),
    )
