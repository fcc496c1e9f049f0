"""The command that joins frames: join."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cube_denoise.cli.application import Box, command, numbers


@command
def join(
    frames: Annotated[
        list[str],
        typer.Argument(
            help="Archives, cubes, or LiCSBAS folders (vel.geo.tif, ...).",
            metavar="FRAMES...",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            help="Product to publish: local path, s3://..., a new version.",
        ),
    ],
    gnss: Annotated[
        str | None,
        typer.Option(
            help="GNSS velocities to tie to: CSV, MIDAS table of the Nevada Geodetic "
            "Laboratory, or grids, east=FILE,north=FILE."
        ),
    ] = None,
    gnss_unit: Annotated[
        str | None, typer.Option(help="m/yr or mm/yr, where the file does not tell.")
    ] = None,
    plate: Annotated[
        str | None,
        typer.Option(
            help="Tie to a plate: latitude,longitude,rate of its pole, degrees and "
            "degrees in a million years."
        ),
    ] = None,
    order: Annotated[
        int, typer.Option(min=0, max=1, help="0: an offset a frame; 1: and a ramp.")
    ] = 0,
    north: Annotated[
        bool, typer.Option("--north", help="Give the north velocity of GNSS as well.")
    ] = False,
    crs: Annotated[str | None, typer.Option(help="Of the product.")] = None,
    resolution: Annotated[
        float | None, typer.Option(help="Pixel size in units of the CRS.")
    ] = None,
    bbox: Box = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for maps and bars.", metavar="FOLDER")
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Versions of the product that stay.")
    ] = None,
) -> None:
    """Join frames to one velocity: tie them, go to east and up, publish.

    Prints what every frame and seam was before and after. The order of frames does not
    matter; readers see the old product until the new one is whole.

    Example: cube-denoise join s3://bucket/archive -o s3://bucket/velocity
    --gnss stations.csv --gnss-unit mm/yr
    """
    from cube_denoise.joining.frames import read_frames
    from cube_denoise.joining.ground_files import read_ground
    from cube_denoise.joining.join import join as join_
    from cube_denoise.joining.seams import tables
    from cube_denoise.publish import check_place, publish

    check_place(out)
    ground = read_ground(gnss, plate=plate, unit=gnss_unit)
    joined = join_(
        read_frames(frames),
        ground=ground,
        order=order,
        north=north,
        crs=crs,
        resolution=resolution,
        bbox=numbers(bbox, "--bbox", 4),
    )
    typer.echo(tables(joined.seams, joined.ties))
    version = publish(joined.product, out, keep=keep)
    if plots is not None:
        from cube_denoise.joining.pictures import plot_join
        from cube_denoise.plot import save_figure
        from cube_denoise.product import open_velocity

        # As published: it is not computed again.
        published = replace(joined, product=open_velocity(out, version=version))
        for name, figure in plot_join(published).items():
            typer.echo(save_figure(figure, plots / f"{name}.png"))
    typer.echo(f"{out} {version}")
