"""The command that shows a cube or a product as a page: view."""

import logging
from typing import Annotated

import typer

from cube_denoise.cli.application import Branch, command


@command
def view(
    url: Annotated[
        str,
        typer.Argument(
            help="Cube or published product: local path, s3://..., gs://... or "
            "az://...",
            metavar="URL",
        ),
    ],
    branch: Branch = "main",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 = any free one.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option(help="Open the page in the browser of this machine.")
    ] = True,
) -> None:
    """Show a cube or a published product as a page of this machine; Ctrl-C ends it.

    Velocity or uncertainty at any zoom; a click gives the displacement of a point,
    a slider that of a date. Nothing is asked of other machines. Needs Bokeh.

    Example: cube-denoise view track-005
    """
    try:
        from cube_denoise.view.server import serve
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] != "bokeh":
            raise
        raise ValueError("view needs Bokeh: pip install 'cube-denoise[view]'") from None
    from cube_denoise.view.opening import open_source

    # Else its loop would give the root logger a handler: every line would come twice.
    logging.getLogger("tornado").addHandler(logging.StreamHandler())
    serve(open_source(url, branch=branch), port=port, browser=browser)
