"""Commands that simulate and train: simulate, train, demo."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cube_denoise.cli.application import Count, command
from cube_denoise.models.registry import VARIANTS

if TYPE_CHECKING:
    from cube_denoise.simulate import NoiseBank


Noise = Annotated[
    str | None,
    typer.Option(help="Cube whose own noise replaces the simulated.", metavar="CUBE"),
]


@command
def simulate(
    out: Annotated[
        Path, typer.Argument(help="Folder, or cube with --cube.", metavar="OUT")
    ],
    cube: Annotated[
        bool, typer.Option("--cube/--products", help="A cube, or HyP3-like products.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="stack: everything random, peak 2 mm to 20 cm; dncnn-paper, "
            "poster-sources, autoencoder-paper: training samples, as plain Zarr."
        ),
    ] = None,
    noise: Noise = None,
    size: Annotated[
        int | None, typer.Option(min=2, help="Rows and columns; 256, or the recipe's.")
    ] = None,
    spacing: Annotated[
        float | None, typer.Option(help="Pixel spacing, m; 100 or that of --noise.")
    ] = None,
    dates: Annotated[int, typer.Option(help="Acquisitions, 12 days apart.")] = 16,
    max_temporal_baseline: Annotated[
        int, typer.Option(help="Longest pair, days.")
    ] = 36,
    rate: Annotated[
        float, typer.Option(help="Largest line-of-sight rate, m/yr; not of recipes.")
    ] = 0.05,
    gaps: Annotated[
        float, typer.Option(help="Fraction without data, 0 to 0.5.")
    ] = 0.05,
    samples: Annotated[
        int, typer.Option(min=1, help="How many, of recipes of samples.")
    ] = 100,
    split: Annotated[
        str, typer.Option(help="train, validation or test; of samples and --noise.")
    ] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Of the scene.")] = 0,
) -> None:
    """Simulate a stack with known truth, written as plain Zarr to OUT-truth.zarr.

    Example: cube-denoise simulate products --size 256 --dates 16 --seed 1

    Example: cube-denoise simulate pairs --recipe dncnn-paper --samples 100
    """
    from cube_denoise import ingest_dataset, store
    from cube_denoise.simulate import PairErrors, simulate_scene, simulate_stack
    from cube_denoise.simulate.hyp3 import write_hyp3_products

    truth = out.with_name(f"{out.name}-truth.zarr")
    for path in (out, truth):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path} exists and is not empty: give another OUT")
    if recipe is None and noise is not None:
        raise ValueError(f"{noise=} needs a recipe: give --recipe stack")
    if recipe not in (None, "stack"):
        _simulate_samples(out, recipe, noise, samples, split, seed, size)
        return
    if recipe is None:
        scene = simulate_scene(
            size=size or 256,
            spacing=spacing or 100.0,
            dates=dates,
            max_temporal_baseline=max_temporal_baseline,
            rate=rate,
            gaps=gaps,
            seed=seed,
        )
    else:
        scene = simulate_stack(
            seed=seed,
            shape=(size or 256, size or 256),
            spacing=spacing,
            dates=dates,
            max_temporal_baseline=max_temporal_baseline,
            pair_errors=PairErrors(gaps=gaps),
            noise=_noise_bank(noise, recipe, split),
        )
    store.export_zarr(scene.truth, truth, overwrite=False)
    if cube:
        ingest_dataset(scene.cube, out)
    else:
        write_hyp3_products(scene.cube, out)
    typer.echo(f"{scene.cube.sizes['pair']} pairs in {out}, truth in {truth}")


def _simulate_samples(
    out: Path,
    recipe: str,
    noise: str | None,
    count: int,
    split: str,
    seed: int,
    size: int | None,
) -> None:
    """Write samples of pairs or series."""
    from itertools import islice

    from cube_denoise import store
    from cube_denoise.simulate import recipes

    drawn = recipes.samples(
        recipe,
        split=split,
        seed=seed,
        shape=(size, size) if size else None,
        noise=_noise_bank(noise, recipe, split),
    )
    found = recipes.samples_dataset(list(islice(drawn, count)))  # type: ignore[arg-type]
    found.attrs = {"recipe": recipe, "split": split, "seed": seed}
    store.export_zarr(found, out)
    typer.echo(f"{found.sizes['sample']} samples in {out}")


def _noise_bank(noise: str | None, recipe: str, split: str) -> "NoiseBank | None":
    """Bank of the kind that a recipe takes first."""
    from cube_denoise import store
    from cube_denoise.simulate import NoiseBank, recipes

    kinds = recipes.find_recipe(recipe).noise_kinds
    if noise is None:
        return None
    return NoiseBank.from_cube(store.open_cube(noise), kind=kinds[0], split=split)


@command
def train(
    name: Annotated[
        str,
        typer.Argument(help=f"Network: {', '.join(VARIANTS)}.", metavar="NAME"),
    ],
    out: Annotated[Path, typer.Argument(help="Model folder to write.", metavar="OUT")],
    seed: Annotated[int, typer.Option(min=0, help="Of samples and weights.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Processes that draw samples; 0, or several beside a GPU."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    recipe: Annotated[
        str | None,
        typer.Option(help="Of the samples: dncnn-paper, poster-sources."),
    ] = None,
    noise: Noise = None,
    noise_kind: Annotated[
        str, typer.Option(help="short-pairs, or residual fields of dates.")
    ] = "short-pairs",
) -> None:
    """Train a network on simulated samples; takes up an interrupted run.

    Example: cube-denoise train dncnn my-model --seed 1

    Example: cube-denoise train dncnn my-model --noise my-cube
    """
    from cube_denoise.training.run import train as train_

    samples: dict[str, str] = {"recipe": recipe} if recipe else {}
    if noise:
        samples |= {"noise": noise, "noise_kind": noise_kind}
    folder = train_(
        name,
        out,
        seed=seed,
        steps=steps,
        workers=workers,
        threads=threads,
        device=device,
        **samples,
    )
    typer.echo(folder)


@command
def adapt(
    cube: Annotated[str, typer.Argument(help="Cube to adapt to.", metavar="CUBE")],
    out: Annotated[Path, typer.Argument(help="Model folder to write.", metavar="OUT")],
    model: Annotated[
        str, typer.Option(help="Stack network to begin with, name or folder.")
    ] = "stack",
    steps: Annotated[int, typer.Option(min=1, help="Most optimiser steps.")] = 300,
    between: Annotated[
        bool | None,
        typer.Option(
            help="Then let some dates predict the others; done from 60 dates on.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Adapt a stack network to the noise of a cube; keep it only if that helps.

    Judged on dates that it was not trained on. Takes up an interrupted run.

    Example: cube-denoise adapt my-cube my-model

    Example: cube-denoise adapt my-cube my-model --model other-model --steps 400
    """
    from cube_denoise.training.adapt import adapt as adapt_

    found = adapt_(
        cube,
        out,
        model=model,
        steps=steps,
        between=between,
        seed=seed,
        threads=threads,
        device=device,
    )
    table = Table("on held-out dates", "before", "adapted")
    for name, label in (
        ("error", "error, of the noise"),
        ("slope", "deformation kept"),
        ("false_alarm_mm", "false alarms, mm"),
        ("coverage_68", "errors within the std"),
    ):
        values = (f"{getattr(j, name):.3f}" for j in (found.before, found.after))
        table.add_row(label, *values)
    Console().print(table)
    if found.folder is None:
        typer.echo("refused, nothing is written: " + "; ".join(found.reasons), err=True)
        raise typer.Exit(1)
    typer.echo(f"{found.folder}; correct the cube with --method {found.folder}")


@command
def demo(
    folder: Annotated[
        Path, typer.Argument(help="Folder to work in.", metavar="FOLDER")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the scene.")] = 0,
    model: Annotated[
        str, typer.Option(help="Shipped model or model folder.")
    ] = "dncnn-dilated",
    size: Annotated[int, typer.Option(min=64, help="Rows and columns.")] = 320,
    dates: Annotated[int, typer.Option(min=3, help="Acquisitions.")] = 20,
    workers: Count = None,
) -> None:
    """Simulate a region, run the whole job on it, compare with the truth.

    Running it again in the same folder goes on where it stopped.

    Example: cube-denoise demo demo --seed 1
    """
    from cube_denoise.demo import demo as demo_
    from cube_denoise.demo import results_table, verdict

    results = demo_(
        folder, seed=seed, model=model, size=size, dates=dates, workers=workers
    )
    Console().print(results_table(results))
    typer.echo(verdict(results))
    typer.echo(f"maps in {folder / 'maps'}, numbers in {folder / 'results.json'}")
