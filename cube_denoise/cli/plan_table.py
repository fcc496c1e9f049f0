"""A dry run as a table for the terminal."""

import rich
from dask.utils import format_bytes, format_time
from rich.table import Table

from cube_denoise.dry_run import CAUTION, DryRun
from cube_denoise.estimate import COMPRESSION, StepEstimate


def plan_table(plan: DryRun) -> Table:
    """Give a column for each step and their sum."""
    steps = [*plan.steps, plan.total]
    table = Table(box=rich.box.SIMPLE)
    table.add_column("")
    for step in steps:
        table.add_column(step.step, justify="right")
    rows = {
        "method": lambda s: s.method,
        "pairs": lambda s: "" if s is steps[-1] else str(s.pairs),
        "done already": lambda s: "" if s is steps[-1] else str(s.done),
        "blocks": lambda s: str(s.tasks),
        "tasks in all": lambda s: str(s.tasks + s.looks),
        "read": lambda s: format_bytes(s.bytes_read),
        "written": lambda s: format_bytes(s.bytes_written),
        "stored, about": lambda s: format_bytes(s.bytes_stored),
        "memory of a task": lambda s: format_bytes(s.memory_per_task),
        "time, about": lambda s: format_time(_seconds(plan, s)),
    }
    for name, tell in rows.items():
        table.add_row(name, *map(tell, steps))
    return table


def plan_notes(plan: DryRun) -> list[str]:
    """What the numbers stand for."""
    return [
        f"{plan.workers} tasks at once: {format_bytes(plan.memory)} of memory "
        f"together, {format_bytes(plan.process_memory)} of it for each of "
        f"{plan.processes} processes",
        *(f"{s.step}: {note}" for s in plan.steps for note in s.notes),
        f"{CAUTION} Stored is {COMPRESSION:g} of what is written.",
    ]


def _seconds(plan: DryRun, step: StepEstimate) -> float:
    return plan.seconds if step.step == "total" else step.seconds(plan.workers)
