"""The command publish: a cube's velocity as a product of its own."""

from typing import Annotated

import typer

from cube_denoise.cli.application import Branch, Cube, command


@command
def publish(
    cube: Cube,
    dest: Annotated[
        str,
        typer.Argument(
            help="Path or bucket (s3://...) of the product; a new version if there is "
            "one.",
            metavar="DEST",
        ),
    ],
    title: Annotated[str | None, typer.Option(help="Of the product.")] = None,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Versions that stay, this one included; all if not."),
    ] = None,
    cog: Annotated[
        bool, typer.Option("--cog/--no-cog", help="Write GeoTIFFs as well.")
    ] = True,
    branch: Branch = "main",
) -> None:
    """Publish the line-of-sight velocity of a cube: Zarr pyramid, COGs, STAC.

    Readers see the version before until the new one is whole.

    Example: cube-denoise publish track-005 s3://bucket/velocity-005 --keep 3
    """
    from cube_denoise import store
    from cube_denoise.cube_product import product_of_cube
    from cube_denoise.publish import publish as publish_

    snapshot, opened = store.newest(cube, branch=branch)
    product = product_of_cube(opened, url=cube, snapshot=snapshot)
    if title is not None:
        product = product.assign_attrs(title=title)
    version = publish_(product, dest, keep=keep, cog=cog)
    typer.echo(f"{dest} {version}")
