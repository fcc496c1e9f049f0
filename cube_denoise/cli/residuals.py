"""The command that points at bad pairs: residuals."""

import json
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from cube_denoise.cli.application import Branch, Cube, command

if TYPE_CHECKING:
    import xarray as xr

NUMBERS = (
    *("mean", "rms", "beyond_half_pi", "beyond_pi", "square_share"),
    *("leverage", "noise_std", "suspicion"),
)

SHOWN = {
    "mean": "mean",
    "rms": "rms",
    "beyond_half_pi": "over\npi/2 %",
    "beyond_pi": "over\npi %",
    "square_share": "of all\nsquares",
    "noise_std": "noise",
    "suspicion": "suspi-\ncion ",
}
"""Columns of the table."""


@command
def residuals(
    cube: Cube,
    worst: Annotated[
        int | None,
        typer.Option(help="Only so many pairs, the most suspicious first.", min=1),
    ] = None,
    branch: Branch = "main",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what the inversion leaves of every pair, and point at bad pairs.

    Suspicion is how many times noisier a pair is than its coherence says, 1 for the
    median pair; pairs that stand out are marked with an exclamation mark.

    Example: cube-denoise residuals track-005 --worst 5
    """
    from cube_denoise.pair_residuals import pair_residuals
    from cube_denoise.store import open_cube

    found = pair_residuals(open_cube(cube, branch=branch))
    records = residual_records(found, worst)
    if as_json:
        typer.echo(json.dumps(records, indent=1))
        return
    Console(soft_wrap=True).print(residual_table(records), markup=False)
    flagged = [str(r["pair"]) for r in residual_records(found) if r["flagged"]]
    typer.echo(
        f"{len(flagged)} of {found.sizes['pair']} pairs stand out"
        + (f": {', '.join(flagged)}" if flagged else "")
    )


def residual_records(
    found: "xr.Dataset", worst: int | None = None
) -> list[dict[str, str | int | float | bool | None]]:
    """Numbers of every pair, for JSON; shares are 0 to 1, null where not known."""
    from cube_denoise.conventions import pair_label

    order = range(found.sizes["pair"])
    if worst is not None:
        suspicion = np.nan_to_num(found["suspicion"].values, nan=-1)
        order = np.argsort(-suspicion, kind="stable")[:worst].tolist()
    return [
        {
            "pair": pair_label(found, k),
            "pixels": int(found["pixels"][k]),
            **{
                name: None if value != value else value
                for name in NUMBERS
                for value in [float(found[name][k])]
            },
            "flagged": bool(found["flagged"][k]),
        }
        for k in order
    ]


def residual_table(
    records: list[dict[str, str | int | float | bool | None]],
) -> Table:
    """Table of `residual_records`: rad, and shares in percent."""
    table = Table(box=box.SIMPLE, collapse_padding=True)
    table.add_column("pair", no_wrap=True)
    for name in ("pixels", *SHOWN.values()):
        table.add_column(name, justify="right", no_wrap=True)
    for record in records:
        cells = []
        for name in SHOWN:
            value = record[name]
            percent = 100 if name.startswith(("beyond", "square")) else 1
            cells.append("" if value is None else f"{percent * float(value):.2f}")
        cells[-1] += "!" if record["flagged"] else " "
        table.add_row(str(record["pair"]), str(record["pixels"]), *cells)
    return table
