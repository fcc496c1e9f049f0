"""Commands that show what a cube holds: info, plot, export."""

import json
import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cube_denoise.cli.application import Branch, Cube, command, numbers

log = logging.getLogger(__name__)


@command
def info(
    cube: Cube,
    branch: Branch = "main",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what is in a cube: grid, dates, pairs, steps done, velocity.

    Example: cube-denoise info track-005 --json
    """
    from cube_denoise.summary import summarise, summary_table

    found = summarise(cube, branch=branch)
    if as_json:
        typer.echo(json.dumps(found, indent=1, default=str))
    else:
        Console(soft_wrap=True).print(summary_table(found), markup=False)


@command
def plot(
    cube: Cube,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the PNGs.")],
    pair: Annotated[
        str, typer.Option(help="Pair to draw: its position or YYYYMMDD-YYYYMMDD.")
    ] = "0",
    point: Annotated[
        str | None,
        typer.Option(help="Draw the series there; CRS of the cube.", metavar="X,Y"),
    ] = None,
    branch: Branch = "main",
) -> None:
    """Draw velocity and its uncertainty, a pair before and after, the network.

    What the cube does not hold yet is left out, and said.

    Example: cube-denoise plot track-005 -o maps --pair 20180106-20180130
    --point -99.1,19.4
    """
    from cube_denoise import plot as plots
    from cube_denoise.store import open_cube

    opened = open_cube(cube, branch=branch)
    figures = {}
    if "velocity" in opened:
        figures["velocity"] = plots.plot_velocity(opened)
        figures["velocity-std"] = plots.plot_uncertainty(opened)
    else:
        log.warning("no velocity to draw yet: cube-denoise invert %s", cube)
    number = plots.find_pair(opened, pair)
    figures[f"pair-{number}"] = plots.plot_pair(opened, number)
    figures["network"] = plots.plot_network(opened)
    if point is not None:
        x, y = numbers(point, "--point", 2)
        figures["series"] = plots.plot_series(opened, y, x)
    for name, figure in figures.items():
        typer.echo(plots.save_figure(figure, out / f"{name}.png"))


class Format(StrEnum):
    """Formats of ``export``."""

    zarr = "zarr"
    cog = "cog"
    mintpy = "mintpy"


@command
def export(
    cube: Cube,
    dest: Annotated[
        str,
        typer.Argument(
            help="Path or bucket (s3://...): of the store, or the folder of files.",
            metavar="DEST",
        ),
    ],
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="Plain Zarr v3, a COG per variable, or ifgramStack.h5 and "
            "geometryGeo.h5 for MintPy.",
        ),
    ] = Format.zarr,
    variable: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeatable; zarr: all by default, cog: velocity, velocity_std and "
            "temporal_coherence; mintpy: corrected_phase (if there) or unwrapped_phase."
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="mintpy: ifgramStack.h5 of the project; all but the phase is as there."
        ),
    ] = None,
    branch: Branch = "main",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there.")
    ] = False,
) -> None:
    """Write a cube as plain Zarr, maps as cloud-optimised GeoTIFF, pairs for MintPy.

    Example: cube-denoise export track-005 velocity --format cog

    Example: cube-denoise export track-005 corrected/inputs --format mintpy
    --like inputs/ifgramStack.h5
    """
    from cube_denoise import export as exports
    from cube_denoise import store
    from cube_denoise.mintpy_export import export_mintpy

    if like is not None and format_ is not Format.mintpy:
        raise ValueError("--like goes with --format mintpy")
    if format_ is Format.mintpy:
        if len(variable or ()) > 1:
            raise ValueError(f"--variable {', '.join(variable or ())}: give one phase")
        files = export_mintpy(
            store.open_cube(cube, branch=branch),
            dest,
            variable=variable[0] if variable else None,
            like=like,
            overwrite=overwrite,
        )
        for file in files:
            typer.echo(file)
        return
    if format_ is Format.zarr:
        opened = store.open_cube(cube, branch=branch, chunks={})
        missing = sorted(set(variable or ()) - set(map(str, opened.data_vars)))
        if missing:
            raise ValueError(
                f"--variable {missing[0]} is not in the cube; it has "
                f"{', '.join(sorted(map(str, opened.data_vars)))}"
            )
        part = opened[variable] if variable else opened
        store.export_zarr(part, dest, overwrite=overwrite)
        typer.echo(dest)
        return
    opened = store.open_cube(cube, branch=branch)
    for path in exports.export_geotiff(
        opened, dest, variables=variable or exports.DEFAULT, overwrite=overwrite
    ):
        typer.echo(path)
