"""Commands on the older states of a cube: history, diff, rollback, maintain."""

import json
from datetime import timedelta
from typing import Annotated

import typer

from cube_denoise.cli.application import Branch, Cube, command

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command
def history(cube: Cube, branch: Branch = "main", as_json: Json = False) -> None:
    """List the states of a cube, newest first: id, time, what was done.

    Example: cube-denoise history track-005 --json
    """
    from cube_denoise import store

    states = store.history(cube, branch=branch)
    if as_json:
        typer.echo(json.dumps(states, indent=1, default=str))
        return
    for state in states:
        time = state["time"].isoformat(timespec="seconds")
        typer.echo(f"{state['id']}  {time}  {state['message']}")


@command
def diff(
    cube: Cube,
    older: Annotated[str, typer.Argument(help="Id of a state.", metavar="A")],
    newer: Annotated[
        str | None, typer.Argument(help="Another; the newest if not given.")
    ] = None,
    branch: Branch = "main",
    layers: Annotated[
        bool, typer.Option("--layers", help="Compare the values of pairs as well.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what differs between two states: pairs, maps and by how much, attributes.

    Example: cube-denoise diff track-005 7F1X0QJ9S9MWTJ6HS1W0
    """
    from cube_denoise.versions import diff as diff_

    found = diff_(cube, older, newer, branch=branch, layers=layers)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for what in ("added", "withdrawn"):
        for item in found[what]:
            typer.echo(f"{what}: {item}")
    for item in found["replaced"]:
        typer.echo(f"replaced: {item['old']} by {item['new']}")
    for what, names in found["variables"].items():
        for name in names:
            typer.echo(f"variable {what}: {name}")
    for name, told in found["values"].items():
        rms = "none" if told["rms"] is None else f"{told['rms']:.4g}"
        typer.echo(
            f"{name}: differs by at most {told['max_abs']:.4g} {told['units']}, rms "
            f"{rms}, {told['known_in_one_only']} values known in one only"
        )
    for name, names in found["attributes"].items():
        typer.echo(f"attributes of {name or 'the cube'}: {', '.join(names)}")


@command
def rollback(
    cube: Cube,
    snapshot: Annotated[str, typer.Argument(help="Id of a state, as of history.")],
    branch: Branch = "main",
    force: Annotated[
        bool, typer.Option("--force", help="Even if a step is under way.")
    ] = False,
) -> None:
    """Show an older state of a cube again; the newer ones stay under a tag.

    Example: cube-denoise rollback track-005 7F1X0QJ9S9MWTJ6HS1W0
    """
    from cube_denoise import store

    left = store.newest(cube, branch=branch)[0]
    tag = store.rollback(cube, snapshot, branch=branch, force=force)
    typer.echo(
        f"{branch} shows {snapshot}; the newer states stay under the tag {tag}: "
        f"cube-denoise rollback {cube} {left} goes forward again"
    )


@command
def maintain(
    cube: Cube,
    days: Annotated[
        float, typer.Option(min=0, help="States younger than this stay.")
    ] = 30.0,
    keep: Annotated[
        int, typer.Option(min=2, help="So many of the newest states stay, at least.")
    ] = 10,
    grace_hours: Annotated[
        float,
        typer.Option(
            min=0,
            help="What nothing refers to, and work whose process is gone, is removed "
            "when it is older. A live step's newest data must be younger.",
        ),
    ] = 24.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would go.")
    ] = False,
) -> None:
    """Remove old states, work that was given up, and data that nothing refers to.

    Safe beside readers and writers: what a branch, a tag or live work needs stays.

    Example: cube-denoise maintain track-005 --days 90 --keep 20 --dry-run
    """
    from cube_denoise import store

    grace = timedelta(hours=grace_hours)
    done = store.maintain(cube, days=days, keep=keep, grace=grace, dry_run=dry_run)
    for name in done.branches:
        typer.echo(f"branch of work given up: {name}")
    for state in done.states:
        typer.echo(f"state: {state}")
    verb = "would be removed" if dry_run else "removed"
    typer.echo(
        f"{verb}: {len(done.branches)} branches, {len(done.states)} states, "
        f"{done.objects} objects, {done.bytes / 1e6:.1f} MB of chunks"
    )
