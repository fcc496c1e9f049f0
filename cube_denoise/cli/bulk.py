"""The command for many frames: bulk."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cube_denoise.cli.application import PAIRS_FAILED, Dry, MemoryLimit, command

if TYPE_CHECKING:
    from cube_denoise.bulk_plan import Plan
    from cube_denoise.bulk_status import BulkStatus

SHOWN = 50
"""Rows of a table; those that follow are counted."""


@command
def bulk(
    plan: Annotated[Path, typer.Argument(help="Plan, YAML.", metavar="PLAN.yaml")],
    status: Annotated[
        bool, typer.Option("--status", help="Only tell how the frames stand.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Bring frames that are done up to date.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(help="As for run, in the place of the plan's; auto: processes."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="In the place of the plan's.")
    ] = None,
    memory_limit: MemoryLimit = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Most frames under way.")
    ] = None,
    dry_run: Dry = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the status or dry run as JSON.")
    ] = False,
) -> None:
    """Run or update many frames into an archive, each as a job of one worker.

    A plan has the keys of a job, shared by all frames, and in the place of cube:
    archive and frames, a list or a CSV file with name, priority and keys of a job; or
    tracks, one frame for each track that the search finds. Run it again to go on or to
    try again what failed. The exit code is 3 if frames failed or cannot be planned.

    Example of a plan: {archive: frames, source: catalog.json, frames: tracks}

    Example: cube-denoise bulk plan.yaml --cluster dask --workers 8
    """
    from cube_denoise.bulk_plan import read_plan

    if as_json and not (dry_run or status):
        raise ValueError("--json goes with --status or --dry-run")
    asked = {"cluster": cluster, "workers": workers, "memory_limit": memory_limit}
    given = {k: v for k, v in asked.items() if v is not None}
    found = read_plan(plan)
    found = dataclasses.replace(
        found,
        shared={**found.shared, **given},
        at_once=found.at_once if at_once is None else at_once,
    )
    if status:
        _tell_status(found, as_json)
    elif dry_run:
        _tell_costs(found, update, as_json)
    else:
        _run(found, update)


def _run(plan: "Plan", update: bool) -> None:
    from cube_denoise.bulk import run_plan

    report = run_plan(plan, updating=update)
    deaths = f", {report.deaths} workers died" if report.deaths else ""
    unread = f", {report.unread} pairs not read" if report.unread else ""
    nothing = f" ({report.unchanged} with nothing new)" if report.unchanged else ""
    typer.echo(
        f"{report.done} frames done{nothing}, {report.already} before, "
        f"{len(report.failed)} failed{unread}{deaths}"
    )
    for name, reason in report.failed.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    if report.failed:
        raise typer.Exit(PAIRS_FAILED)


def _tell_status(plan: "Plan", as_json: bool) -> None:
    from cube_denoise.bulk_status import bulk_status

    found = bulk_status(plan)
    if as_json:
        typer.echo(json.dumps(found.told(), indent=1))
        return
    rows = [
        (s.frame, "running", f"{s.doing or 'begun'}, since {s.since[:19]}", s.attempts)
        for s in found.running
    ]
    rows += [(s.frame, "failed", s.reason, s.attempts) for s in found.failed]
    if rows:
        _print(("frame", "state", "", "attempts"), rows)
    typer.echo(_counts(found))


def _counts(found: "BulkStatus") -> str:
    from dask.utils import format_time

    told = ", ".join(f"{count} {state}" for state, count in found.counts.items())
    if found.unread:
        told += f"; {found.unread} pairs not read"
    left = found.seconds_left
    return told + ("" if left is None else f"; about {format_time(left)} left")


def _tell_costs(plan: "Plan", update: bool, as_json: bool) -> None:
    from dask.utils import format_bytes

    from cube_denoise.bulk_status import plan_frames
    from cube_denoise.dry_run import CAUTION
    from cube_denoise.estimate import total

    rows: list[Any] = []
    whole, told, wrong = total([]), {}, {}
    for name, planned in plan_frames(plan, updating=update):
        if isinstance(planned, str):
            wrong[name] = planned
            continue
        one = planned.total
        whole = total([whole, one])
        if as_json:
            told[name] = planned.told()
        if len(rows) < SHOWN:
            pairs = sum(s.pairs for s in planned.steps if s.step == "ingest")
            rows.append((name, pairs, *_cells(one, format_bytes)))
    if as_json:
        sums = {**dataclasses.asdict(whole), "bytes_stored": whole.bytes_stored}
        text = {"frames": told, "cannot_be_planned": wrong, "total": sums}
        typer.echo(json.dumps(text, indent=1))
        if wrong:
            raise typer.Exit(PAIRS_FAILED)
        return
    more = plan.count - len(wrong) - len(rows)
    if more:
        rows.append((f"and {more} more", "", "", "", "", "", ""))
    rows.append(("total", "", *_cells(whole, format_bytes)))
    _print(("frame", "pairs", "tasks", "read", "written", "stored", "worker-h"), rows)
    for name, reason in wrong.items():
        typer.echo(f"cannot be planned: {name}: {reason}", err=True)
    typer.echo(f"Worker-hours are of one core of this machine. {CAUTION}")
    if wrong:
        raise typer.Exit(PAIRS_FAILED)


def _cells(one: Any, size: Any) -> tuple[str, ...]:
    """Tasks, bytes and worker-hours of an estimate."""
    hours = (one.core_seconds + one.serial_seconds) / 3600
    told = (one.bytes_read, one.bytes_written, one.bytes_stored)
    return str(one.tasks + one.looks), *map(size, told), f"{hours:.3g}"


def _print(columns: Any, rows: Any) -> None:
    import rich
    from rich.console import Console
    from rich.table import Table

    table = Table(box=rich.box.SIMPLE)
    for k, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="right" if k > 1 else "left")
    for row in rows[: SHOWN + 2]:
        table.add_row(*map(str, row))
    Console(soft_wrap=True).print(table, markup=False)
