"""Commands that judge methods: evaluate, methods."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cube_denoise.cli.application import Branch, Cube, command, settings

if TYPE_CHECKING:
    import xarray as xr


@command
def evaluate(
    cube: Cube,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the report.")],
    method: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable; all that the cube allows by default."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Option of a method; repeatable.", metavar="METHOD.KEY=VALUE"
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="True displacement, as simulate writes it.")
    ] = None,
    gnss: Annotated[
        list[Path] | None,
        typer.Option(help="Stations: one CSV, or .tenv3 files (repeatable)."),
    ] = None,
    reference_station: Annotated[
        str | None, typer.Option(help="Station that all displacement refers to.")
    ] = None,
    inject: Annotated[
        bool,
        typer.Option(
            "--inject/--no-inject", help="Add known deformation, see what comes back."
        ),
    ] = False,
    rows: Annotated[
        str | None, typer.Option(help="Part to judge: first:last + 1.", metavar="A:B")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Part to judge: first:last + 1.", metavar="A:B")
    ] = None,
    reference_rows: Annotated[
        str | None,
        typer.Option(help="Reference area, pixels of the cube.", metavar="A:B"),
    ] = None,
    reference_columns: Annotated[
        str | None,
        typer.Option(help="Reference area, pixels of the cube.", metavar="A:B"),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Of the inversions: coherence, variance or none.")
    ] = "coherence",
    folds: Annotated[int, typer.Option(help="Of the held-out dates.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and noise.")] = 0,
    branch: Branch = "main",
) -> None:
    """Judge methods on a cube beside the raw pairs; write a page and its numbers.

    The cube is not changed. It is held in memory several times: give --rows and
    --columns for a part of a large one. Rows and columns are counted from 0.

    Example: cube-denoise evaluate track-005 --method ramp --method pca --inject
    --set ramp.surface=bilinear -o report
    """
    from cube_denoise.corrections import find_correction
    from cube_denoise.evaluate.injection import default_cases
    from cube_denoise.evaluate.judge import applicable_methods, evaluate_cube
    from cube_denoise.evaluate.report import RECORD, write_report
    from cube_denoise.evaluate.tables import TELLING, rich_table, score_tables
    from cube_denoise.store import open_cube

    whole = open_cube(cube, branch=branch)
    part = {
        dim: _part(text, f"--{name}", whole.sizes[dim])
        for dim, name, text in (("y", "rows", rows), ("x", "columns", columns))
    }
    cut = whole.isel(part)
    chosen = list(dict.fromkeys(method or applicable_methods(cut)))
    given = _by_method(options, chosen)
    made = [find_correction(name, **given.get(name, {})) for name in chosen]
    if reference_station is not None and not gnss:
        raise ValueError("--reference-station needs --gnss")
    found = evaluate_cube(
        cut,
        made,
        truth=None if truth is None else _truth(truth, whole, part),
        stations=_stations(gnss) if gnss else None,
        reference_station=reference_station,
        cases=default_cases(cut) if inject else (),
        reference=_reference(reference_rows, reference_columns, part),
        weights=weights,
        folds=folds,
        seed=seed,
    )
    title = f"Evaluation of {cube}"
    if rows or columns:
        title += ", " + ", ".join(
            f"{name} {part[dim].start} to {part[dim].stop - 1}"
            for dim, name in (("y", "rows"), ("x", "columns"))
        )
    page = write_report(found, out, title=title)
    console = Console()
    for table in score_tables(found, chosen=TELLING):
        console.print(rich_table(table))
    for verdict in found.verdicts:
        for note in verdict.notes:
            typer.echo(f"{verdict.method}: {note}", err=True)
    typer.echo(f"report in {page}, numbers in {page.with_name(RECORD)}")


@command
def methods() -> None:
    """List the corrections: what each does, needs, and its options with defaults.

    Example: cube-denoise methods
    """
    from cube_denoise.corrections.catalogue import list_methods

    console = Console(highlight=False, soft_wrap=True)
    for found in list_methods():
        console.print(f"[bold]{found.name}[/bold]")
        console.print(f"  {found.text}", markup=False)
        if found.needs:
            console.print(f"  needs: {', '.join(found.needs)}", markup=False)
        if found.options:
            told = ", ".join(f"{k}={v}" for k, v in found.options.items())
            console.print(f"  options: {told}", markup=False)


def _by_method(
    options: list[str] | None, methods: list[str]
) -> dict[str, dict[str, Any]]:
    """Options of ``METHOD.KEY=VALUE`` by method; a method may be a path with dots."""
    found: dict[str, dict[str, Any]] = {}
    for text in options or ():
        name, _, _ = text.partition("=")[0].rpartition(".")
        if name not in methods:
            raise ValueError(
                f"--set {text!r} must be METHOD.KEY=VALUE with one of the methods "
                f"{', '.join(methods)}"
            )
        found.setdefault(name, {}).update(settings([text[len(name) + 1 :]]))
    return found


def _part(text: str | None, option: str, size: int) -> slice:
    """Slice of ``A:B``; all of it for None."""
    if text is None:
        return slice(0, size)
    first, colon, last = text.partition(":")
    known = colon and first.isdigit() and last.isdigit()
    if not known or not 0 <= int(first) < int(last) <= size:
        raise ValueError(
            f"{option} {text!r} must be first:last + 1 within 0:{size}, such as 45:55"
        )
    return slice(int(first), int(last))


def _reference(
    rows: str | None, columns: str | None, part: dict[str, slice]
) -> dict[str, slice] | None:
    """Reference area given in pixels of the cube, in those of the part."""
    if (rows is None) != (columns is None):
        raise ValueError("--reference-rows and --reference-columns go together")
    if rows is None:
        return None
    found = {}
    for dim, name, text in (("y", "rows", rows), ("x", "columns", columns)):
        option = f"--reference-{name}"
        area = _part(text, option, part[dim].stop)
        if area.start < part[dim].start:
            raise ValueError(
                f"{option} {text!r} must lie in the part judged, {name} "
                f"{part[dim].start}:{part[dim].stop}"
            )
        found[dim] = slice(area.start - part[dim].start, area.stop - part[dim].start)
    return found


def _truth(path: Path, cube: "xr.Dataset", part: dict[str, slice]) -> "xr.Dataset":
    """Truth of the part, from that of the cube."""
    import xarray as xr

    try:
        found = xr.open_zarr(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"--truth {path} cannot be read as Zarr: {error}") from None
    sizes = {d: found.sizes.get(d) for d in part}
    if sizes == {d: cube.sizes[d] for d in part}:
        found = found.isel(part)
    return found.load()


def _stations(paths: list[Path]) -> "xr.Dataset":
    from cube_denoise.evaluate.gnss import read_stations_csv, read_tenv3

    kinds = {path.suffix == ".tenv3" for path in paths}
    if kinds == {True}:
        return read_tenv3(paths)
    if len(paths) > 1:
        raise ValueError("--gnss must be .tenv3 files, or one CSV of all stations")
    return read_stations_csv(paths[0])
