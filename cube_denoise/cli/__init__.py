"""Command line: thin commands over the library."""

from cube_denoise.cli.application import app

from cube_denoise.cli import sources, steps, look, judge, make  # isort: skip  # order of --help

__all__ = ["app", "judge", "look", "main", "make", "sources", "steps"]


def main() -> None:
    """Entry point of ``cube-denoise``."""
    app(prog_name="cube-denoise")
