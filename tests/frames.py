"""Small stacks of frames that appear, change and go, for tests of updates."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from affine import Affine

from cube_denoise import store
from cube_denoise.catalog import write_items
from cube_denoise.interferogram import Asset, Interferogram

SIZE, DATES = 24, 6
START = datetime(2020, 1, 1, 5, tzinfo=UTC)
PLACE = Affine(80, 0, 500_000, 0, -80, 2_000_000)


def frames(folder: Path, *, spans: Sequence[int] = (1, 2), seed: int = 1) -> list[Any]:
    """Interferograms of `DATES` dates, up to two dates apart, as GeoTIFFs.

    The dates' phases are a steady motion and noise; every pair has noise of its own,
    some gaps and its own coherence, so that no pair can be left out or counted twice
    without moving the velocity.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    north, east = np.mgrid[:SIZE, :SIZE] / SIZE
    phase = [
        k * np.sin(3 * north) + random.normal(0, 1, north.shape) + k * east
        for k in range(DATES)
    ]
    pairs = [(a, a + n) for n in spans for a in range(DATES - n)]
    return [
        frame(
            folder,
            a,
            b,
            phase[b] - phase[a] + random.normal(0, 0.3, north.shape),
            np.clip(0.6 + random.normal(0, 0.1, north.shape), 0.1, 0.95),
            gaps=random.random(north.shape) < 0.03,
        )
        for a, b in pairs
    ]


def frame(
    folder: Path,
    a: int,
    b: int,
    phase: np.ndarray,
    coherence: np.ndarray,
    *,
    gaps: np.ndarray | None = None,
    **fields: Any,
) -> Interferogram:
    """Interferogram of dates number `a` and `b`."""
    if gaps is not None:
        phase = np.where(gaps, np.nan, phase)
    assets = {}
    for role, values, unit in (
        ("unwrapped_phase", phase, "rad"),
        ("coherence", coherence, "1"),
    ):
        path = folder / f"{a}-{b}-{role}.tif"
        profile = {"driver": "GTiff", "dtype": "float32", "count": 1}
        with rasterio.open(
            path,
            "w",
            height=SIZE,
            width=SIZE,
            crs="EPSG:32613",
            transform=PLACE,
            **profile,
        ) as target:
            target.write(values.astype("float32"), 1)
        assets[role] = Asset(str(path), role, unit, None)
    options: dict[str, Any] = {
        "id": f"frame-{a}-{b}",
        "reference_time": START + timedelta(12 * a),
        "secondary_time": START + timedelta(12 * b),
        "track": "A005",
        "wavelength": 0.0555,
        "perpendicular_baseline": 10.0 * (b - a),
        "crs": "EPSG:32613",
        "shape": (SIZE, SIZE),
        "transform": tuple(PLACE)[:6],
        "phase_sign": 1,
        "incidence_angle": 39.0,
        "heading": -12.0,
        "assets": assets,
        "version": "2021-01-01T00:00:00Z",
    }
    return Interferogram(**(options | fields))


def reprocessed(item: Interferogram, folder: Path, shift: float) -> Interferogram:
    """The same pair in a later version: its phase plus `shift` times a slope."""
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(item.assets["unwrapped_phase"].href) as source:
        phase, profile = source.read(1), source.profile
    path = folder / Path(item.assets["unwrapped_phase"].href).name
    with rasterio.open(path, "w", **profile) as target:
        target.write(phase + np.float32(shift) * np.linspace(0, 1, SIZE), 1)
    asset = replace(item.assets["unwrapped_phase"], href=str(path))
    return replace(
        item,
        assets={**item.assets, "unwrapped_phase": asset},
        version="2022-02-02T00:00:00Z",
    )


def job_of(
    folder: Path, items: Iterable[Interferogram], cube: str | Path, **more: Any
) -> dict[str, Any]:
    """Job on a catalog of `items` that is (re)written in `folder`."""
    source = write_items(items, folder / "items.json")
    base: Mapping[str, Any] = {
        "source": str(source),
        "cube": str(cube),
        "correct": {"method": "ramp"},
        "invert": {"reference": {"y": [0, 6], "x": [0, 6]}},
        "workers": 1,
        "cluster": "threads",
    }
    return {**base, **more}


def keys(cube: xr.Dataset) -> list[str]:
    """Ids of a cube's pairs, sorted."""
    return sorted(item["id"] for item in cube.attrs["items"])


def maps(url: str | Path) -> xr.Dataset:
    """Displacement and velocity of a cube."""
    return store.open_cube(url)[["displacement", "velocity", "velocity_std"]].load()


def assert_same_maps(one: str | Path, other: str | Path, atol: float = 1e-6) -> None:
    a, b = maps(one), maps(other)
    assert np.isfinite(a["velocity"]).mean() > 0.9
    np.testing.assert_array_equal(a["time"], b["time"])
    for name in a.data_vars:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=atol)


def branches(url: str | Path) -> set[str]:
    return set(store.open_repository(url).list_branches())


def tip(url: str | Path) -> str:
    return store.open_repository(url).lookup_branch("main")


def quiet() -> warnings.catch_warnings:
    """Warnings of small, odd networks are not what is tested."""
    return warnings.catch_warnings(action="ignore")
