"""The whole job on a small simulated region, judged against what was put in."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from rich.table import Table

from cube_denoise import evaluate, pipeline, plot, store
from cube_denoise.catalog import write_catalog
from cube_denoise.cluster import Workers
from cube_denoise.conventions import PAIR, phase_to_displacement
from cube_denoise.job import read_job
from cube_denoise.products import find_products
from cube_denoise.progress import progress
from cube_denoise.reference_area import recorded_reference
from cube_denoise.simulate.hyp3 import write_hyp3_products
from cube_denoise.simulate.scene import Scene, simulate_scene
from cube_denoise.steps import invert_cube

log = logging.getLogger(__name__)

OWN = ("products", "items", "catalog.json", "job.yaml", "cube", "maps", "results.json")
"""What the demo makes in its folder, beside its settings."""
SETTINGS = "demo.json"
RATE = 0.1
"""Largest line-of-sight rate of the scene, m/yr: a restless volcano, a pumped basin."""
SEAMS = 256
"""Blocks and tiles of a correction can meet only at multiples of this, pixels."""
MM = 1e3


def demo(
    folder: str | Path,
    *,
    seed: int = 0,
    model: str | Path = "dncnn-dilated",
    size: int = 320,
    dates: int = 20,
    workers: int | None = None,
) -> dict[str, Any]:
    """Simulate a region as HyP3 products, process them, compare with the truth.

    Parameters
    ----------
    folder : str or pathlib.Path
        Gets ``products``, ``catalog.json``, ``job.yaml``, ``cube`` (inverted pairs:
        corrected on branch ``main``, uncorrected on ``raw``), ``maps`` (PNG) and
        ``results.json``. A demo that is there already goes on where it stopped; one
        with other settings is replaced.
    seed : int
        Of the scene.
    model : str or pathlib.Path
        Name of a shipped model, or a model folder.
    size : int
        Rows and columns of the scene, pixels of 100 m.
    dates : int
        Acquisitions, 12 days apart; pairs are those of up to 36 days.
    workers : int, optional
        Threads; the number of cores when not given.

    Returns
    -------
    dict
        As in ``results.json``: settings and, under "scores", a list of dict with
        ``quantity``, ``metric``, ``unit``, ``raw``, ``corrected``.

    Raises
    ------
    ValueError
        If the model is unknown, or the folder holds something of those names that is
        not of a demo.
    """
    from cube_denoise.models import zoo

    sha256 = zoo.model_hash(model)
    folder = Path(folder)
    settings = {"seed": seed, "size": size, "dates": dates, "rate": RATE}
    _claim(folder, settings)
    scene = _simulated(folder, settings)
    name = str(model) if (zoo.WEIGHTS / str(model)).is_dir() else _absolute(model)
    job = {"source": "catalog.json", "cube": "cube", "correct": {"method": name}}
    (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    report = pipeline.run(read_job(folder / "job.yaml") | {"workers": workers})
    url = folder / "cube"
    corrected = store.open_cube(url)
    invert_cube(
        url,
        branch="raw",
        variable="unwrapped_phase",
        reference=recorded_reference(corrected["velocity"].attrs),
        workers=Workers("auto", count=workers),
    )
    raw = store.open_cube(url, branch="raw")
    results = {
        **settings,
        "model": Path(model).name,
        "model_sha256": sha256,
        "pairs": corrected.sizes[PAIR],
        "failed": report.ingest.failed,
        "scores": scores(raw, corrected, scene.truth),
    }
    _draw(folder / "maps", raw, corrected, scene.truth)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


def scores(
    raw: xr.Dataset, corrected: xr.Dataset, truth: xr.Dataset
) -> list[dict[str, Any]]:
    """Errors and kept amplitude of two inversions of one cube.

    Parameters
    ----------
    raw, corrected : xarray.Dataset
        Cubes as inverted without and with correction; the second has
        ``corrected_phase`` (pair, y, x), rad.
    truth : xarray.Dataset
        ``displacement`` (time, y, x), m, positive toward the satellite; ``velocity``
        (y, x), m/yr.

    Returns
    -------
    list of dict
        Of pairs and dates the medians. Means over the valid pixels are removed before
        an error is taken; the slope is that of `evaluate.amplitude_slope`.
    """
    wavelength = float(corrected.attrs["wavelength"])
    dates = truth["time"].values.astype("datetime64[s]")

    def date(moment: np.datetime64) -> int:
        return int(np.searchsorted(dates, moment.astype("datetime64[s]")))

    def motion(k: int) -> np.ndarray:
        ends = [corrected[f"{e}_time"].values[k] for e in ("reference", "secondary")]
        early, late = (truth["displacement"].values[date(e)] for e in ends)
        return np.asarray(late - early) * MM

    def pairs(name: str, score: Callable[..., float]) -> float:
        values = []
        for k in range(corrected.sizes[PAIR]):
            phase = corrected[name][k].values
            values.append(
                score(phase_to_displacement(phase, wavelength) * MM, motion(k))
            )
        return float(np.nanmedian(values))

    def series(cube: xr.Dataset, score: Callable[..., float]) -> float:
        origin = date(np.datetime64(cube["displacement"].attrs["reference_time"]))
        values = []
        for k, moment in enumerate(cube["time"].values):
            if (now := date(moment)) != origin:
                true = truth["displacement"].values[[origin, now]]
                estimate = cube["displacement"][k].values * MM
                values.append(score(estimate, (true[1] - true[0]) * MM))
        return float(np.nanmedian(values))

    def rate(cube: xr.Dataset, score: Callable[..., float]) -> float:
        return score(cube["velocity"].values * MM, truth["velocity"].values * MM)

    rows: list[tuple[str, str, str, float, float]] = []
    for metric, score in (
        ("rms error", evaluate.rms_error),
        ("amplitude slope", evaluate.amplitude_slope),
    ):
        unit = "mm" if metric == "rms error" else "1"
        found = {
            "pairs": [pairs(n, score) for n in ("unwrapped_phase", "corrected_phase")],
            "displacement": [series(cube, score) for cube in (raw, corrected)],
            "velocity": [rate(cube, score) for cube in (raw, corrected)],
        }
        for quantity, (before, after) in found.items():
            per_year = "/yr" if quantity == "velocity" and unit == "mm" else ""
            rows.append((quantity, metric, unit + per_year, before, after))
    if max(corrected.sizes["y"], corrected.sizes["x"]) > SEAMS:

        def seams(estimate: np.ndarray, _: np.ndarray) -> float:
            return evaluate.seam_energy(estimate, SEAMS)

        energies = [pairs(n, seams) for n in ("unwrapped_phase", "corrected_phase")]
        name = f"seam energy at {SEAMS} px"
        rows.append(("pairs", name, "1", energies[0], energies[1]))
    names = ("quantity", "metric", "unit", "raw", "corrected")
    return [dict(zip(names, row, strict=True)) for row in rows]


def results_table(results: dict[str, Any]) -> Table:
    """Table of the results of a demo, for rich to print."""
    table = Table(
        title=f"{results['pairs']} simulated pairs of {results['dates']} dates, seed "
        f"{results['seed']}, against the truth; network {results['model']}",
        caption="rms error: 0 is perfect. Amplitude slope: 1 keeps the deformation, 0 "
        "loses it; chance likeness of atmosphere and deformation shifts it, raw too. "
        "Seam energy: 1 means no seams. Medians over pairs and dates.",
    )
    for heading in ("", "score", "unit"):
        table.add_column(heading)
    for heading in ("raw", "corrected"):
        table.add_column(heading, justify="right")
    for row in results["scores"]:
        values = (f"{row[n]:.2f}" for n in ("raw", "corrected"))
        table.add_row(row["quantity"], row["metric"], row["unit"], *values)
    return table


def verdict(results: dict[str, Any]) -> str:
    """What the scores say, in a sentence or two."""
    found = {
        (row["quantity"], row["metric"]): (row["raw"], row["corrected"])
        for row in results["scores"]
    }
    pairs, velocity = (found[q, "rms error"] for q in ("pairs", "velocity"))
    slope = found["velocity", "amplitude slope"][1]

    def change(values: tuple[float, float]) -> str:
        return f"{values[1] / values[0] - 1:+.0%}"

    text = (
        f"Correction changes the rms error of the pairs by {change(pairs)} and that of "
        f"the velocity by {change(velocity)}; the corrected velocity keeps "
        f"{slope:.0%} of the deformation."
    )
    if velocity[1] > velocity[0]:
        text += (
            " The network takes part of the deformation for atmosphere, in every pair "
            "alike, and that adds up: here the raw pairs (branch raw) give the better "
            "velocity."
        )
    return text


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Take the folder; what a demo with other settings left there is removed."""
    there = [name for name in OWN if (folder / name).exists()]
    try:
        before = json.loads((folder / SETTINGS).read_text())
    except FileNotFoundError:
        if there:
            raise ValueError(
                f"folder={str(folder)!r} holds {', '.join(there)} that no demo made: "
                "give an empty or new one"
            ) from None
        before = settings
    except ValueError:
        before = {}
    if before != settings:
        log.warning("%s holds a demo with other settings: start anew", folder)
        for name in there:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif there:
        log.info("%s holds this demo: go on from there", folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / ".products-part", ignore_errors=True)
    (folder / SETTINGS).write_text(json.dumps(settings) + "\n")


def _simulated(folder: Path, settings: dict[str, Any]) -> Scene:
    """Make the scene; write its products and catalog unless they are there."""
    log.info("simulate %(dates)d dates of %(size)d x %(size)d pixels", settings)
    scene = simulate_scene(**settings)
    count = scene.cube.sizes[PAIR]
    products = folder / "products"
    if not products.exists():
        part = folder / ".products-part"
        with progress("products", count, unit="pairs") as advance:
            for k in range(count):
                write_hyp3_products(scene.cube.isel({PAIR: [k]}), part)
                advance(1)
        part.rename(products)
    if not (folder / "catalog.json").exists():
        write_catalog(find_products(products)[0], folder / "catalog.json")
    return scene


def _absolute(model: str | Path) -> str:
    return str(Path(model).absolute())


def _draw(
    folder: Path, raw: xr.Dataset, corrected: xr.Dataset, truth: xr.Dataset
) -> None:
    attributes = corrected["velocity"].attrs
    rows, columns = (slice(*attributes[f"reference_{n}"]) for n in ("rows", "columns"))
    true = truth["velocity"] - truth["velocity"][rows, columns].mean()
    maps = {
        "truth": true.assign_attrs(attributes),
        "from raw pairs": raw["velocity"],
        "from corrected pairs": corrected["velocity"],
    }
    comparison = plot.plot_maps(
        {name: (map_ * MM).assign_attrs(map_.attrs) for name, map_ in maps.items()},
        label="line-of-sight velocity (mm/yr),\npositive toward the satellite",
        title="Simulated region: velocity",
    )
    pair = int(np.argmax(corrected["valid_fraction"].values))
    figures = {
        "velocity-comparison": comparison,
        "velocity": plot.plot_velocity(corrected),
        "velocity-std": plot.plot_uncertainty(corrected),
        f"pair-{pair}": plot.plot_pair(corrected, pair),
        "network": plot.plot_network(corrected),
    }
    for name, figure in figures.items():
        plot.save_figure(figure, folder / f"{name}.png")
