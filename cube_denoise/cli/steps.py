"""Commands that work on a cube: ingest, correct, invert, run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cube_denoise.cli.application import (
    PAIRS_FAILED,
    Box,
    Branch,
    Cluster,
    Count,
    Cube,
    Dry,
    Json,
    MemoryLimit,
    command,
    numbers,
    settings,
)

if TYPE_CHECKING:
    from cube_denoise.cluster import Workers
    from cube_denoise.dry_run import DryRun
    from cube_denoise.ingest import IngestReport
    from cube_denoise.steps import StepReport


@command
def ingest(
    items: Annotated[
        str,
        typer.Argument(
            help="Item list, catalog, or HDF5 stack of MintPy or LiCSBAS to read.",
            metavar="ITEMS",
        ),
    ],
    cube: Cube,
    crs: Annotated[
        str | None, typer.Option(help="CRS of a new cube, such as EPSG:32614.")
    ] = None,
    resolution: Annotated[
        float | None,
        typer.Option(help="Pixel size of a new cube, in units of the CRS."),
    ] = None,
    bbox: Box = None,
    branch: Branch = "main",
    workers: Count = None,
    cluster: Cluster = "auto",
    memory_limit: MemoryLimit = None,
    chunk: Annotated[
        int, typer.Option(min=1, help="Of a new cube: pixels a side read at once.")
    ] = 256,
    shard: Annotated[
        int, typer.Option(min=1, help="Of a new cube: pixels a side written at once.")
    ] = 1024,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Read interferograms into a cube; makes the cube, or adds what is missing.

    Pairs that cannot be read are listed; the others go in and the exit code is 3.

    Example: cube-denoise ingest items.json track-005 --crs EPSG:32614 --resolution 80
    """
    from cube_denoise import catalog
    from cube_denoise import ingest as ingest_
    from cube_denoise.grid import regular_grid

    _check_json(dry_run, as_json)
    records = catalog.search(items)
    grid = None
    if crs or resolution or bbox:
        rasters = [(r.crs, r.shape, r.transform) for r in records]
        box = numbers(bbox, "--bbox", 4)
        grid = regular_grid(rasters, crs=crs, resolution=resolution, bbox=box)
    pool = _workers(cluster, workers, memory_limit)
    if dry_run:
        from cube_denoise.dry_run import plan_ingest

        sizes = {"chunk": chunk, "shard": shard}
        plan = plan_ingest(
            records, cube, grid=grid, branch=branch, workers=pool, **sizes
        )
        _tell_plan(plan, as_json)
        return
    report = ingest_(
        records,
        cube,
        grid=grid,
        branch=branch,
        workers=pool,
        chunk=chunk,
        shard=shard,
    )
    _tell_ingest(report)
    _exit_if_failed(report)


@command
def correct(
    cube: Cube,
    method: Annotated[
        str,
        typer.Option(
            help="Classical correction or shipped network by name, or a model folder; "
            "cube-denoise methods lists them."
        ),
    ],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Option of the method; repeatable.", metavar="KEY=VALUE"
        ),
    ] = None,
    branch: Branch = "main",
    workers: Count = None,
    cluster: Cluster = "auto",
    memory_limit: MemoryLimit = None,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Estimate the atmosphere of every pair and subtract it.

    Pairs that this method has corrected already are left alone.

    Example: cube-denoise correct track-005 --method ramp --set surface=bilinear
    """
    from cube_denoise.steps import correct_cube

    _check_json(dry_run, as_json)
    pool = _workers(cluster, workers, memory_limit)
    chosen = settings(options)
    if dry_run:
        from cube_denoise.dry_run import plan_correct

        plan = plan_correct(cube, method, branch=branch, workers=pool, **chosen)
        _tell_plan(plan, as_json)
        return
    report = correct_cube(cube, method, branch=branch, workers=pool, **chosen)
    _tell_step("corrected", "pairs", report)


@command
def invert(
    cube: Cube,
    weights: Annotated[
        str, typer.Option(help="coherence, variance or none.")
    ] = "coherence",
    robust: Annotated[
        str,
        typer.Option(help="none (least squares), l1 or huber, against bad pairs."),
    ] = "none",
    gaps: Annotated[
        str,
        typer.Option(
            help="Dates that a pixel's pairs do not link: nan, or linear to bridge."
        ),
    ] = "nan",
    unwrapping: Annotated[
        str,
        typer.Option(help="Pairs whose triplets do not close: none, mask or correct."),
    ] = "none",
    model: Annotated[
        str,
        typer.Option(
            help="Terms of the velocity fit, joined by +: linear, annual, semiannual, "
            "step:2020-06-01, exp:2020-06-01:90d, log:2020-06-01:30d, "
            "piecewise:2019-01-01,2021-01-01."
        ),
    ] = "linear",
    uncertainty: Annotated[
        str, typer.Option(help="Of the velocity: effective, residual or bootstrap.")
    ] = "effective",
    reference_rows: Annotated[
        str | None,
        typer.Option(help="Reference area: first row:last + 1.", metavar="A:B"),
    ] = None,
    reference_columns: Annotated[
        str | None,
        typer.Option(help="Reference area: first column:last + 1.", metavar="A:B"),
    ] = None,
    reference_point: Annotated[
        str | None,
        typer.Option(
            help="Reference area: 5 x 5 pixels around a place, degrees.",
            metavar="LON,LAT",
        ),
    ] = None,
    reference_polygon: Annotated[
        Path | None,
        typer.Option(help="Reference area: GeoJSON file.", metavar="FILE"),
    ] = None,
    reference_date: Annotated[
        str,
        typer.Option(
            help="Date of displacement 0: YYYY-MM-DD, first, or least-residual."
        ),
    ] = "first",
    variable: Annotated[
        str | None,
        typer.Option(help="corrected_phase (if there) or unwrapped_phase."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    branch: Branch = "main",
    workers: Count = None,
    cluster: Cluster = "auto",
    memory_limit: MemoryLimit = None,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Invert the pairs for displacement and velocity, positive toward the satellite.

    Without a reference area the most coherent one is taken, and said.

    Example: cube-denoise invert track-005 --reference-point -99.13,19.41
    """
    from cube_denoise.steps import invert_cube

    _check_json(dry_run, as_json)
    reference = _reference(
        reference_rows, reference_columns, reference_point, reference_polygon
    )
    pool = _workers(cluster, workers, memory_limit)
    options: dict[str, Any] = {"weights": weights, "reference": reference}
    options |= {"variable": variable, "robust": robust, "gaps": gaps}
    options |= {"unwrapping": unwrapping, "model": model, "uncertainty": uncertainty}
    options |= {"reference_date": reference_date, "device": device}
    if dry_run:
        from cube_denoise.dry_run import plan_invert

        plan = plan_invert(cube, branch=branch, workers=pool, **options)
        _tell_plan(plan, as_json)
        return
    report = invert_cube(cube, branch=branch, workers=pool, **options)
    _tell_step("inverted", "pixels", report)


@command
def run(
    job: Annotated[Path, typer.Argument(help="Job file, YAML.", metavar="JOB.yaml")],
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Search, ingest, correct and invert as a job file says; every step resumes.

    Keys: source, cube (required), search, branch, grid, correct, invert, cluster,
    workers, memory_limit; under them the arguments of the functions. Relative paths
    are relative to the file. The exit code is 3 if pairs could not be read.

    Example of a job: {source: catalog.json, cube: track-005, correct: {model: dncnn}}

    Example: cube-denoise run job.yaml
    """
    from cube_denoise.job import read_job
    from cube_denoise.pipeline import run as run_

    _check_json(dry_run, as_json)
    if dry_run:
        from cube_denoise.dry_run import plan_job

        _tell_plan(plan_job(read_job(job)), as_json)
        return
    report = run_(read_job(job))
    _tell_ingest(report.ingest)
    if report.correct is not None:
        _tell_step("corrected", "pairs", report.correct)
    _tell_step("inverted", "pixels", report.invert)
    _exit_if_failed(report.ingest)


@command
def update(
    job: Annotated[Path, typer.Argument(help="Job file of run.", metavar="JOB.yaml")],
    record: Annotated[
        Path | None,
        typer.Option(help="Write the run record there, not to standard output."),
    ] = None,
    allow_withdrawn: Annotated[
        bool,
        typer.Option(
            "--allow-withdrawn", help="Even if more than half of the pairs would go."
        ),
    ] = False,
    dry_run: Dry = False,
    as_json: Json = False,
) -> None:
    """Bring a cube up to date with its source, all at once; see run for job files.

    New pairs are added, reprocessed ones replaced, withdrawn ones left out; only what
    changed is corrected, where the method can. Prints what changed as one line of JSON.
    With nothing new it writes nothing. The exit code is 3 if pairs could not be read.

    Example: cube-denoise update job.yaml --record update.json
    """
    from cube_denoise.job import read_job
    from cube_denoise.update import run_record, write_record
    from cube_denoise.update import update as update_

    _check_json(dry_run, as_json)
    if dry_run:
        from cube_denoise.dry_run import plan_job
        from cube_denoise.update import withdrawal_limit

        allow = withdrawal_limit(allow_withdrawn)
        _tell_plan(plan_job(read_job(job), updating=True, allow=allow), as_json)
        return
    report = update_(read_job(job), allow_withdrawn=allow_withdrawn)
    if record is None:
        typer.echo(run_record(report))
    else:
        typer.echo(write_record(report, record))
    for item, reason in report.ingest.failed.items():
        typer.echo(f"failed: {item}: {reason}", err=True)
    _exit_if_failed(report.ingest)


def _workers(cluster: str, count: int | None, memory_limit: str | None) -> "Workers":
    from cube_denoise.cluster import Workers

    return Workers(cluster, count=count, memory_limit=memory_limit)


def _check_json(dry_run: bool, as_json: bool) -> None:
    if as_json and not dry_run:
        raise ValueError("--json goes with --dry-run")


def _tell_plan(plan: "DryRun", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(plan.told(), indent=1))
        return
    from rich.console import Console

    from cube_denoise.cli.plan_table import plan_notes, plan_table

    Console(soft_wrap=True).print(plan_table(plan), markup=False)
    typer.echo("\n".join(plan_notes(plan)))


def _reference(
    rows: str | None, columns: str | None, point: str | None, polygon: Path | None
) -> Any:
    """Reference area of an inversion, given at most once."""
    if (rows is None) != (columns is None):
        raise ValueError("--reference-rows and --reference-columns go together")
    given = {
        "--reference-rows": rows,
        "--reference-point": point,
        "--reference-polygon": polygon,
    }
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)}: give one reference area")
    if rows is not None and columns is not None:
        return {
            "y": _range(rows, "--reference-rows"),
            "x": _range(columns, "--reference-columns"),
        }
    if point is not None:
        lon, lat = numbers(point, "--reference-point", 2)
        return {"lon": lon, "lat": lat}
    return polygon


def _range(text: str, option: str) -> list[int]:
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit()):
        raise ValueError(f"{option} {text!r} must be first:last + 1, such as 45:55")
    return [int(first), int(last)]


def _tell_ingest(report: "IngestReport") -> None:
    typer.echo(
        f"{report.added} pairs added, {report.present} there before, "
        f"{len(report.failed)} failed"
    )
    for item, reason in report.failed.items():
        typer.echo(f"failed: {item}: {reason}", err=True)


def _tell_step(verb: str, unit: str, report: "StepReport") -> None:
    typer.echo(
        "; ".join([f"{verb} {report.done} {unit}"] * bool(report.done) + report.notes)
    )


def _exit_if_failed(report: "IngestReport") -> None:
    if report.failed:
        raise typer.Exit(PAIRS_FAILED)
