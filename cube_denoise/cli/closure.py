"""The command that tells unwrapping errors: closures."""

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from cube_denoise.cli.application import Branch, Cube, command

if TYPE_CHECKING:
    import xarray as xr


class Treatment(StrEnum):
    """What is done to pairs that do not close."""

    correct = "correct"
    mask = "mask"
    none = "none"


@command
def closures(
    cube: Cube,
    unwrapping: Annotated[
        Treatment, typer.Option(help="What to do to pairs that do not close.")
    ] = Treatment.correct,
    variable: Annotated[
        str | None,
        typer.Option(help="corrected_phase (if there) or unwrapped_phase."),
    ] = None,
    branch: Branch = "main",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell the unwrapping errors of every pair: how its triplets close.

    Tells what correcting or masking would do; the cube is left as it is.

    Example: cube-denoise closures track-005 --unwrapping mask
    """
    from cube_denoise.store import open_cube
    from cube_denoise.unwrapping import closure_statistics

    opened = open_cube(cube, branch=branch)
    found = closure_statistics(opened, variable=variable, unwrapping=unwrapping.value)
    if as_json:
        typer.echo(json.dumps(closure_records(found), indent=1))
        return
    Console(soft_wrap=True).print(closure_table(found), markup=False)
    typer.echo(
        f"{int(found.open_pixels_before)} pixels with an open triplet, "
        f"{int(found.open_pixels_after)} after {unwrapping.value}; "
        f"{int((~found.decides).sum())} of {found.sizes['triplet']} triplets decide "
        "nothing"
    )


def closure_records(found: "xr.Dataset") -> list[dict[str, str | int | float | None]]:
    """Numbers of every pair, for JSON; shares are 0 to 1, null without data."""
    from cube_denoise.conventions import pair_label

    sides = found["triplet_pairs"].values.ravel()
    count = np.bincount(sides, minlength=found.sizes["pair"])
    names = ("pair_open_before", "pair_open_after", "corrected", "masked")
    return [
        {
            "pair": pair_label(found, k),
            "triplets": int(count[k]),
            "pixels": int(found["pixels"][k]),
            **{
                name.removeprefix("pair_"): None if value != value else value
                for name in names
                for value in [float(found[name][k])]
            },
        }
        for k in range(found.sizes["pair"])
    ]


def closure_table(found: "xr.Dataset") -> Table:
    """Table of `closure_records`, shares in percent."""
    table = Table(box=box.SIMPLE)
    table.add_column("pair", no_wrap=True)
    for name in ("loops", "pixels", "open %", "after %", "fixed %", "masked %"):
        table.add_column(name, justify="right")
    shares = ("open_before", "open_after", "corrected", "masked")
    for record in closure_records(found):
        values = (record[name] for name in shares)
        table.add_row(
            *(str(record[name]) for name in ("pair", "triplets", "pixels")),
            *("" if v is None else f"{100 * float(v):.3g}" for v in values),
        )
    return table
