"""The small cube of `benchmarks.faults`: what it is made of, and what a reader sees."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

SIZE, DATES = 48, 6
TOLERANCE = 1e-6


class State(NamedTuple):
    """All that a reader sees of a cube, pairs in the order of their ids."""

    versions: dict[str, str]
    cube: xr.Dataset | None


def look(url: str) -> tuple[State, int]:
    """Open a cube as a reader does; its state, and pairs that are there twice."""
    from cube_denoise import store

    try:
        cube = store.open_cube(url)
    except store.CubeError as error:
        if "there is no cube" not in str(error):
            raise
        return State({}, None), 0
    items = cube.attrs["items"]
    ids = [item["id"] for item in items]
    versions = {item["id"]: str(item.get("version")) for item in items}
    doubled = len(ids) - len(versions)
    if not ids:
        return State({}, None), 0
    return State(versions, cube.load().isel(pair=np.argsort(ids))), doubled


def same(one: State, other: State) -> bool:
    """Whether two states are equal to `TOLERANCE`, and one's maps are of its pairs."""
    from cube_denoise.state import velocity_is_current

    if one.versions != other.versions:
        return False
    a, b = one.cube, other.cube
    if a is None or b is None:
        return a is b
    if set(a.variables) != set(b.variables) or a.sizes != b.sizes:
        return False
    if "velocity" in a and velocity_is_current(a) != velocity_is_current(b):
        return False
    return all(_close(a[n].values, b[n].values) for n in a.variables if a[n].ndim)


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    if np.issubdtype(a.dtype, np.floating):
        return np.allclose(a, b, rtol=0, atol=TOLERANCE, equal_nan=True)
    return bool(np.array_equal(a, b))


def material(folder: Path) -> tuple[str, str]:
    """Write the products; item lists of before and after the update."""
    import rasterio

    from cube_denoise.catalog import write_items
    from cube_denoise.products import find_products
    from cube_denoise.simulate import simulate_scene
    from cube_denoise.simulate.hyp3 import write_hyp3_products

    scene = simulate_scene(
        size=SIZE, dates=DATES, max_temporal_baseline=24, gaps=0.05, seed=4
    )
    write_hyp3_products(scene.cube.load(), folder / "products")
    items = sorted(find_products(folder / "products")[0], key=lambda r: r.key)
    first = items[1:-3]
    again = first[3]
    asset = again.assets["unwrapped_phase"]
    path = folder / "again.tif"
    with rasterio.open(asset.href) as source:
        phase, profile = source.read(1), source.profile
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.where(phase == 0, 0, phase + np.linspace(1, 3, SIZE)), 1)
    newer = replace(
        again,
        assets={**again.assets, "unwrapped_phase": replace(asset, href=str(path))},
        version="9999-01-01T00:00:00Z",
    )
    # Of the first, one goes, one is replaced, and four come: one of them is the oldest.
    then = [items[0], *(newer if r is again else r for r in first[1:]), *items[-3:]]
    return (
        str(write_items(first, folder / "before.json")),
        str(write_items(then, folder / "source.json")),
    )
