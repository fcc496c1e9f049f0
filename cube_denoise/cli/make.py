"""Commands that simulate and train: simulate, train, demo."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cube_denoise.cli.application import Count, command


@command
def simulate(
    out: Annotated[
        Path, typer.Argument(help="Folder, or cube with --cube.", metavar="OUT")
    ],
    cube: Annotated[
        bool, typer.Option("--cube/--products", help="A cube, or HyP3-like products.")
    ] = False,
    size: Annotated[int, typer.Option(min=2, help="Rows and columns.")] = 256,
    spacing: Annotated[float, typer.Option(help="Pixel spacing, m.")] = 100.0,
    dates: Annotated[int, typer.Option(help="Acquisitions, 12 days apart.")] = 16,
    max_temporal_baseline: Annotated[
        int, typer.Option(help="Longest pair, days.")
    ] = 36,
    rate: Annotated[
        float, typer.Option(help="Largest line-of-sight rate, m/yr.")
    ] = 0.05,
    gaps: Annotated[
        float, typer.Option(help="Fraction without data, 0 to 0.5.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the scene.")] = 0,
) -> None:
    """Simulate a stack with known truth, written as plain Zarr to OUT-truth.zarr.

    Example: cube-denoise simulate products --size 256 --dates 16 --seed 1
    """
    from cube_denoise import ingest_dataset, store
    from cube_denoise.simulate.hyp3 import write_hyp3_products
    from cube_denoise.simulate.scene import simulate_scene

    truth = out.with_name(f"{out.name}-truth.zarr")
    for path in (out, truth):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path} exists and is not empty: give another OUT")
    scene = simulate_scene(
        size=size,
        spacing=spacing,
        dates=dates,
        max_temporal_baseline=max_temporal_baseline,
        rate=rate,
        gaps=gaps,
        seed=seed,
    )
    store.export_zarr(scene.truth, truth, overwrite=False)
    if cube:
        ingest_dataset(scene.cube, out)
    else:
        write_hyp3_products(scene.cube, out)
    typer.echo(f"{scene.cube.sizes['pair']} pairs in {out}, truth in {truth}")


@command
def train(
    name: Annotated[
        str,
        typer.Argument(help="Architecture: dncnn or dncnn-dilated.", metavar="NAME"),
    ],
    out: Annotated[Path, typer.Argument(help="Model folder to write.", metavar="OUT")],
    seed: Annotated[int, typer.Option(min=0, help="Of samples and weights.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a network on simulated pairs; takes up an interrupted run.

    Example: cube-denoise train dncnn my-model --seed 1
    """
    from cube_denoise.train import train as train_

    typer.echo(
        train_(name, out, seed=seed, steps=steps, threads=threads, device=device)
    )


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
