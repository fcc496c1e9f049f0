"""The command that separates a stack into clusters: separate."""

from pathlib import Path
from typing import Annotated

import typer

from cube_denoise.cli.application import (
    Branch,
    Cluster,
    Count,
    Cube,
    MemoryLimit,
    command,
    settings,
)


@command
def separate(
    cube: Cube,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for the cluster sheet."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="What splits the pairs: vae, pca, ica or nmf.")
    ] = "vae",
    clustering: Annotated[str, typer.Option(help="fishdbc or hdbscan.")] = "fishdbc",
    keep: Annotated[
        list[int] | None,
        typer.Option(help="Cluster that stays whatever the evidence; repeatable."),
    ] = None,
    remove: Annotated[
        list[int] | None,
        typer.Option(help="Cluster that goes whatever the evidence; repeatable."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Option of the method; repeatable.", metavar="KEY=VALUE"
        ),
    ] = None,
    look: Annotated[
        bool, typer.Option("--look", help="Only write the sheet; the cube stays.")
    ] = False,
    branch: Branch = "main",
    workers: Count = None,
    cluster: Cluster = "auto",
    memory_limit: MemoryLimit = None,
) -> None:
    """Split the pairs into components, cluster them, remove those of the atmosphere.

    The stack itself is all the data it needs: 20 pairs or more of 8 dates or more.
    Prints the evidence of every cluster. Look first, then decide with --keep and
    --remove: with the same seed the clusters have the same numbers.

    Example: cube-denoise separate track-005 --look -o sheet
    """
    from cube_denoise.cluster import Workers
    from cube_denoise.separate import separate_cube

    if look and out is None:
        raise ValueError("--look needs a folder for the sheet: -o FOLDER")
    report = separate_cube(
        cube,
        method=method,
        sheet=out,
        write=not look,
        branch=branch,
        workers=Workers(cluster, count=workers, memory_limit=memory_limit),
        clustering=clustering,
        keep=tuple(keep or ()),
        remove=tuple(remove or ()),
        **settings(options),
    )
    typer.echo("\n".join(report.notes))
    if report.done:
        typer.echo(f"corrected {report.done} pairs")
