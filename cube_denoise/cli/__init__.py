"""Command line: thin commands over the library."""

from cube_denoise.cli.application import app

from cube_denoise.cli import (  # isort: skip  # in the order of --help
    sources,
    steps,
    bulk,
    join,
    separate,
    look,
    view,
    publish,
    closure,
    residuals,
    versions,
    judge,
    make,
)

__all__ = [
    "app",
    "bulk",
    "closure",
    "join",
    "judge",
    "look",
    "main",
    "make",
    "publish",
    "residuals",
    "separate",
    "sources",
    "steps",
    "versions",
    "view",
]


def main() -> None:
    """Entry point of ``cube-denoise``."""
    app(prog_name="cube-denoise")
