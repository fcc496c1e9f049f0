"""The steps of the main job on a cube, each one staged, resumable and committed."""

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox

from cube_denoise import store
from cube_denoise.blocks import BlockJob, Window
from cube_denoise.catalog import search
from cube_denoise.cluster import Workers
from cube_denoise.conventions import PAIR, VARIABLES, X, Y
from cube_denoise.correct import (
    PASSED_THROUGH,
    describe,
    pair_label,
    plan_correction,
    torch_threads,
)
from cube_denoise.grid import grid_of, regular_grid
from cube_denoise.ingest import IngestReport, ingest
from cube_denoise.interferogram import Interferogram
from cube_denoise.invert import plan_inversion
from cube_denoise.progress import progress

log = logging.getLogger(__name__)


@dataclass
class StepReport:
    """What a step did to a cube."""

    done: int = 0
    """Pairs corrected, or pixels inverted; 0 if all was up to date."""
    notes: list[str] = field(default_factory=list)
    """What the user should know."""


def correct_cube(
    url: str | Path,
    model: str | Path,
    *,
    branch: str = "main",
    precision: str = "auto",
    workers: Workers | None = None,
) -> StepReport:
    """Correct the pairs of a cube that this model has not corrected yet.

    Parameters
    ----------
    url : str or pathlib.Path
        The cube.
    model : str or pathlib.Path
        Name of a shipped model or a model folder.
    branch : str
        Branch to change; made from ``main`` if new.
    precision : {"auto", "float32", "bfloat16"}
        See `correct.correct`.
    workers : cluster.Workers, optional
        Threads of this machine by default.

    Returns
    -------
    StepReport

    Raises
    ------
    ValueError
        If the cube lacks something or the model is unknown.
    """
    cube = _open(url, branch)
    label = describe(model)
    pairs = list(range(cube.sizes.get(PAIR, 0)))
    fresh = True
    if "corrected_phase" in cube:
        known = cube["corrected_phase"].attrs
        if all(known.get(k) == v for k, v in label.items()) and precision in (
            "auto",
            known["precision"],
        ):
            precision, fresh = known["precision"], False
            pairs = np.flatnonzero(cube["correction_status"].values == 0).tolist()
            if not pairs:
                return StepReport(notes=[f"all pairs are corrected with {model}"])
    pool = workers or Workers()
    job, status = _noted(
        report := StepReport(done=len(pairs)),
        partial(
            plan_correction,
            cube,
            model,
            pairs=pairs,
            precision=precision,
            block=store.writing_unit(cube, "corrected_phase")[0],
            threads=torch_threads(pool.count),
        ),
    )
    report.notes += _caution(model)
    attributes = dict(job.attributes)
    asked = {**label, "precision": precision, "pairs": pairs}

    def layout(root: zarr.Group) -> None:
        if fresh:
            names = ("corrected_phase", "correction_status")
            store.declare(root, names, job.sizes, attributes=attributes)

    def finish(root: zarr.Group) -> None:
        known = status.copy()
        if not fresh:
            known[:] = cube["correction_status"].values
            known[pairs] = status[pairs]
        store.write_layers(root, {"correction_status": known})

    passed = [k for k in pairs if status[k] == PASSED_THROUGH]
    _fill(
        url,
        "correct",
        branch,
        asked,
        job,
        pool,
        layout=layout,
        finish=finish,
        message=f"{len(pairs) - len(passed)} pairs with {label['model']}",
        details={"passed_through": [pair_label(cube, k) for k in passed]}
        | dict(job.attributes["corrected_phase"]),
    )
    return report


def _caution(model: str | Path) -> list[str]:
    """What a model does to deformation, beside what it does to noise."""
    from cube_denoise.models import zoo

    scores = zoo.held_out_scores(model)
    if "amplitude_slope" not in scores:
        return []
    return [
        f"on held-out simulated pairs {Path(model).name} takes "
        f"{scores['rms_error_reduction']:.0%} off the error and keeps "
        f"{scores['amplitude_slope']:.0%} of the deformation (medians); slow motion "
        "suffers most: compare with invert --variable unwrapped_phase"
    ]


def invert_cube(
    url: str | Path,
    *,
    branch: str = "main",
    weights: str = "coherence",
    reference: Mapping[str, Any] | None = None,
    variable: str | None = None,
    workers: Workers | None = None,
) -> StepReport:
    """Invert the pairs of a cube for displacement, velocity and their quality.

    Parameters
    ----------
    url, branch, workers
        As for `correct_cube`.
    weights, reference, variable
        See `invert.invert`; the limits of `reference` may be lists of two.

    Returns
    -------
    StepReport

    Raises
    ------
    ValueError
        If the cube lacks something or an option is unknown.
    """
    cube = _open(url, branch)
    area = _area(reference)
    asked = {
        "weights": weights,
        "reference": {d: [s.start, s.stop] for d, s in area.items()} if area else None,
        "variable": variable,
    }
    newest = store.newest_step(url, branch=branch)
    if newest.get("step") == "invert" and newest["details"] == {
        **newest["details"],
        **asked,
    }:
        return StepReport(notes=["displacement and velocity are up to date"])
    report = StepReport()
    job = _noted(
        report,
        partial(
            plan_inversion,
            cube,
            weights=weights,
            reference=area,
            variable=variable,
            block=store.writing_unit(cube, "velocity")[0],
        ),
    )
    report.done = cube.sizes[Y] * cube.sizes[X]
    chosen = dict(job.attributes["velocity"])
    rows, columns = chosen["reference_rows"], chosen["reference_columns"]
    if area is None:
        report.notes.append(
            f"reference area chosen by coherence: rows {rows[0]} to {rows[1]}, "
            f"columns {columns[0]} to {columns[1]}"
        )

    def layout(root: zarr.Group) -> None:
        store.declare(
            root,
            job.outputs,
            job.sizes,
            attributes=job.attributes,
            times=np.asarray(job.coords["time"]),
        )

    _fill(
        url,
        "invert",
        branch,
        asked,
        job,
        workers or Workers(),
        layout=layout,
        message=f"{cube.sizes[PAIR]} pairs of {chosen['phase_variable']}",
        details={"used": chosen, "notes": report.notes},
    )
    return report


def _open(url: str | Path, branch: str) -> xr.Dataset:
    """The newest state of `branch`, or of main where the branch is not made yet."""
    repository = store.open_repository(url)
    known = branch in repository.list_branches()
    return store.open_cube(url, branch=branch if known else "main")


def _noted(report: StepReport, plan: Callable[[], Any]) -> Any:
    """Call `plan`, keeping its warnings as notes of the report as well."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = plan()
    for warning in caught:
        report.notes.append(str(warning.message))
        log.warning("%s", warning.message)
    return result


def _fill(
    url: str | Path,
    step: str,
    branch: str,
    asked: Mapping[str, Any],
    job: BlockJob,
    workers: Workers,
    *,
    layout: Callable[[zarr.Group], None],
    message: str,
    details: Mapping[str, Any],
    finish: Callable[[zarr.Group], None] | None = None,
) -> None:
    """Stage a block job and publish it."""
    size = sum(
        np.dtype(VARIABLES[n].dtype).itemsize
        * np.prod([job.sizes[d] for d in VARIABLES[n].dims])
        for n in job.outputs
    )
    with store.stage(url, step=step, branch=branch, asked=asked) as stage:
        if not stage.resumed():
            stage.change(layout, "layout")
        with (
            workers as pool,
            progress(
                step, len(job.windows), unit="blocks", size=size / len(job.windows)
            ) as advance,
        ):
            work = partial(_one_window, compute=job.compute)
            stage.fill(work, job.windows, pool, advance=advance)
        stage.publish(message, details=details, edit=finish)


def _one_window(
    cube: xr.Dataset, window: Window, *, compute: Callable[..., dict[str, np.ndarray]]
) -> Iterator[tuple[Window, Mapping[str, np.ndarray]]]:
    yield window, compute(cube, window)


def _area(reference: Mapping[str, Any] | None) -> dict[str, slice] | None:
    """Reference area of a job file or command line as slices."""
    if reference is None:
        return None
    try:
        return {
            d: s if isinstance(s, slice) else slice(int(s[0]), int(s[1]))
            for d, s in ((d, reference[d]) for d in ("y", "x"))
        }
    except (KeyError, TypeError, ValueError, IndexError):
        raise ValueError(
            f"{reference=} must give pixel limits: y: [first, last + 1], x: likewise"
        ) from None


JOB_KEYS = {
    "source": "catalog.json, item list or STAC API (required)",
    "search": "arguments of catalog.search",
    "cube": "URL of the cube (required)",
    "branch": "branch to work on",
    "grid": "crs, resolution, bbox of a new cube",
    "correct": "arguments of correct_cube; leave out to invert the raw pairs",
    "invert": "arguments of invert_cube",
    "workers": "number of threads or processes",
    "scheduler": "threads, processes or an address",
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
        return Workers(job.get("scheduler") or "threads", count=job.get("workers"))

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
