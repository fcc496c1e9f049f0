"""Correct and invert a cube in place: staged, resumable, shown at once."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from cube_denoise import store
from cube_denoise.blocks import BlockJob, Compute, Window
from cube_denoise.cluster import CPU_IO, GPU, Workers
from cube_denoise.conventions import (
    CORRECTION_TIME,
    PAIR,
    VARIABLES,
    X,
    Y,
    pair_label,
)
from cube_denoise.correct import PASSED_THROUGH, plan_correction
from cube_denoise.correction_errors import STATED
from cube_denoise.corrections import Correction, find_correction
from cube_denoise.extend import Parts, plan_extension
from cube_denoise.inversion.solver import check_device
from cube_denoise.inversion_window import Settings
from cube_denoise.invert import inversion_block, plan_inversion
from cube_denoise.last_inversion import KEPT, last_stand
from cube_denoise.places import PlaceError
from cube_denoise.progress import progress
from cube_denoise.reference_area import Reference, asked_reference
from cube_denoise.state import (
    inversion_is_due,
    pair_state,
    pairs_to_correct,
    stack_state,
)
from cube_denoise.warm import compile_inversion

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
    method: str | Path,
    *,
    branch: str = "main",
    workers: Workers | None = None,
    **options: Any,
) -> StepReport:
    """Correct the pairs of a cube that this method has not corrected yet.

    Where a corrected pair depends on the others, new pairs make all be corrected anew.

    Parameters
    ----------
    url : str or pathlib.Path
        The cube.
    method : str or pathlib.Path
        Name of a classical correction or of a shipped model, or a model folder.
    branch : str
        Branch to change; made from ``main`` if new.
    workers : cluster.Workers, optional
        Threads of this machine by default.
    **options
        Of the method; see `correct.correct`.

    Returns
    -------
    StepReport

    Raises
    ------
    ValueError
        If the cube lacks something or the method or an option is unknown.
    """
    base, cube = store.newest(url, branch=branch)
    pool = workers or Workers()
    correction = find_correction(method, **options).shared_by(pool.count)
    correction, pairs, fresh = pairs_to_correct(cube, correction)
    if not pairs and cube.sizes.get(PAIR, 0):
        return StepReport(notes=[f"all pairs are corrected with {method}"])
    report = StepReport(done=len(pairs))
    with pool:
        pool = pool.asking(correction.resource)
        return _correct(url, branch, base, cube, correction, pairs, fresh, pool, report)


def _correct(
    url: str | Path,
    branch: str,
    base: str,
    cube: xr.Dataset,
    correction: Correction,
    pairs: list[int],
    fresh: bool,
    pool: Workers,
    report: StepReport,
) -> StepReport:
    """Plan and stage a correction of some pairs; `fresh` replaces all there were."""
    job, status = _noted(
        report,
        partial(
            plan_correction,
            cube,
            correction,
            pairs=pairs,
            block=store.writing_unit(cube, "corrected_phase")[0],
            run=pool.in_order,
        ),
    )
    report.notes += correction.caution()
    attributes = {name: dict(told) for name, told in job.attributes.items()}
    if correction.whole_stack:
        attributes["corrected_phase"]["stack_state"] = stack_state(cube)
    asked = {**attributes["corrected_phase"], "pairs": pairs}

    def layout(root: zarr.Group) -> None:
        if fresh:
            store.remove(root, (*STATED, CORRECTION_TIME))
            names = (*job.outputs, "correction_status")
            store.declare(
                root, names, job.sizes, attributes=attributes, times=job.coords
            )

    def finish(root: zarr.Group) -> None:
        known = status.copy()
        if not fresh:
            known[:] = cube["correction_status"].values
            known[pairs] = status[pairs]
            store.annotate(root, job.attributes)
        store.write_layers(root, {"correction_status": known})

    passed = [k for k in pairs if status[k] == PASSED_THROUGH]
    _fill(
        url,
        "correct",
        branch,
        base,
        asked,
        job,
        pool,
        layout=layout,
        finish=finish,
        message=f"{len(pairs) - len(passed)} pairs with {asked['method']}",
        details={"passed_through": [pair_label(cube, k) for k in passed]}
        | dict(job.attributes["corrected_phase"]),
    )
    return report


def invert_cube(
    url: str | Path,
    *,
    branch: str = "main",
    weights: str = "coherence",
    robust: str = "none",
    gaps: str = "nan",
    unwrapping: str = "none",
    model: str = "linear",
    uncertainty: str = "effective",
    reference: Reference = None,
    reference_date: str | date = "first",
    variable: str | None = None,
    device: str = "cpu",
    workers: Workers | None = None,
) -> StepReport:
    """Invert the pairs of a cube for displacement, velocity and their quality.

    Where the last inversion had the same options, recent pairs alone are read and
    recent dates written (`extend`); the result is that of all pairs within 1e-6 m. Only
    `displacement_std` of dates that are not written keeps the scale of the residuals of
    then. A reference area that was chosen stays.

    Parameters
    ----------
    url, branch, workers
        As for `correct_cube`.
    weights, robust, gaps, unwrapping, model, uncertainty, variable
        See `invert.invert`.
    reference, reference_date
        Likewise. A cube that is updated keeps to an area that is given: which pixels it
        holds depends on the grid alone.
    device : {"cpu", "cuda"}
        Likewise. On "cuda" all pairs are inverted, and no states are kept to go on
        from; a cube that is up to date is left alone on either.

    Returns
    -------
    StepReport

    Raises
    ------
    ValueError
        If the cube lacks something or an option is unknown.
    """
    base, cube = store.newest(url, branch=branch)
    asked = inversion_options(
        weights=weights,
        robust=robust,
        gaps=gaps,
        unwrapping=unwrapping,
        model=model,
        uncertainty=uncertainty,
        reference=reference,
        reference_date=reference_date,
        variable=variable,
        device=device,
    )
    if not inversion_is_due(cube, asked):
        return StepReport(notes=["displacement and velocity are up to date"])
    pool = workers or Workers()
    if device != "cpu" and pool.cluster in ("threads", "processes"):
        from cube_denoise.inversion.tensor_tiles import checked_device

        checked_device(device)  # before the reference area is looked for
    report = StepReport()
    stand = last_stand(cube, asked)
    job = _noted(
        report,
        partial(
            plan_inversion,
            cube,
            **asked["settings"],
            reference=asked["reference"] if stand is None else stand.reference,
            variable=variable,
            block=inversion_block(cube),
            constants=None if stand is None else stand.constants,
            device=device,
        ),
    )
    extension, note = plan_extension(cube, job, asked, stand)
    report.notes += [note] if note else []
    report.done = cube.sizes[Y] * cube.sizes[X]
    chosen = dict(job.attributes["velocity"])
    chosen["inversion_options"] = store.fingerprint(asked)
    chosen["pair_state"] = pair_state(cube, chosen["phase_variable"])
    chosen["pairs_inverted"] = cube.sizes[PAIR]
    rows, columns = chosen["reference_rows"], chosen["reference_columns"]
    if asked["reference"] is None:
        by = "coherence" if "coherence" in cube else "the least variance of the phase"
        report.notes.append(
            f"reference area {'kept' if stand is not None else f'chosen by {by}'}: "
            f"rows {rows[0]} to {rows[1]}, columns {columns[0]} to {columns[1]}"
        )
    attributes = {n: {**job.attributes[n], **chosen} for n in job.outputs}
    message = f"{cube.sizes[PAIR]} pairs of {chosen['phase_variable']}"
    if extension is not None and not extension.fresh:
        begin = str(job.coords["time"][extension.begins[0]])[:10]
        message += f", dates from {begin} on"

    def layout(root: zarr.Group) -> None:
        if extension is None or extension.fresh:
            store.remove(root, KEPT)
            store.declare(
                root, job.outputs, job.sizes, attributes=attributes, times=job.coords
            )
        if extension is not None:
            extension.lay_out(root, cube, job, attributes)

    if pool.cluster in ("processes", "dask"):
        # Else all of them compile the same, at once.
        compile_inversion(unwrapping=asked["settings"]["unwrapping"])
    with pool:
        pool = pool.asking(CPU_IO if device == "cpu" else GPU)
        _fill(
            url,
            "invert",
            branch,
            base,
            asked,
            job,
            pool,
            extension,
            layout=layout,
            message=message,
            details={"used": chosen, "device": device, "notes": report.notes},
        )
    return report


def inversion_options(
    *,
    reference: Reference = None,
    variable: str | None = None,
    device: str = "cpu",
    **settings: Any,
) -> dict[str, Any]:
    """Options of `invert_cube` as it records them: all but the device.

    Raises
    ------
    ValueError
        If one is unknown or cannot be, whatever the cube.
    """
    check_device(device)
    return {
        "settings": asdict(Settings(**settings)),
        "reference": asked_reference(reference),
        "variable": variable,
    }


def _noted(report: StepReport, plan: Callable[[], Any]) -> Any:
    """Call `plan`, keeping its warnings as notes of the report as well."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = plan()
    for warning in (w for w in caught if w.category is UserWarning):
        report.notes.append(str(warning.message))
        log.warning("%s", warning.message)
    return result


def _fill(
    url: str | Path,
    step: str,
    branch: str,
    base: str,
    asked: Mapping[str, Any],
    job: BlockJob,
    pool: Workers,
    compute: Callable[[xr.Dataset, Window], Parts] | None = None,
    *,
    layout: Callable[[zarr.Group], None],
    message: str,
    details: Mapping[str, Any],
    finish: Callable[[zarr.Group], None] | None = None,
) -> None:
    """Stage a block job and publish it.

    `compute` takes the place of what the job does with a window.
    """
    size = sum(
        np.dtype(VARIABLES[n].dtype).itemsize
        * np.prod([job.sizes[d] for d in VARIABLES[n].dims])
        for n in job.outputs
    )
    with store.stage(url, step=step, branch=branch, asked=asked, base=base) as stage:
        if not stage.resumed():
            stage.change(layout, "layout")
        with progress(
            step, len(job.windows), unit="blocks", size=size / len(job.windows)
        ) as advance:
            work: store.Work = _one_window if compute is None else _all_parts
            tasks = [(compute or job.computing(w), w) for w in job.windows]
            try:
                stage.fill(work, tasks, pool, advance=advance)
            except ValueError as error:
                if not isinstance(error, store.CubeError | PlaceError):
                    stage.discard()  # going on would end in the same
                raise
        stage.publish(message, details=details, edit=finish)


def _one_window(
    cube: xr.Dataset, task: tuple[Compute, Window]
) -> Iterator[tuple[Window, Mapping[str, np.ndarray]]]:
    compute, window = task
    yield window, compute(cube, window)


def _all_parts(
    cube: xr.Dataset, task: tuple[Callable[[xr.Dataset, Window], Parts], Window]
) -> Parts:
    compute, window = task
    yield from compute(cube, window)
