"""Cubes as a step would leave them: coordinates and attributes, no data."""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cube_denoise import store
from cube_denoise.append import new_order
from cube_denoise.changes import as_item
from cube_denoise.conventions import PAIR, VARIABLES, X, Y
from cube_denoise.cube_fit import acquisitions
from cube_denoise.grid import zarr_attributes
from cube_denoise.ingest import ReadingPlan

OF_PAIRS = ("unwrapped_phase", "coherence", "phase_quantiles", "valid_fraction")


def empty_cube(
    grid: GeoBox,
    attributes: dict[str, object],
    *,
    chunk: int = store.CHUNK,
    shard: int = store.SHARD,
) -> xr.Dataset:
    """What `store.create_cube` would make, without data or place."""
    if chunk < 1 or shard % chunk:
        raise ValueError(f"{shard=} must be a multiple of {chunk=}")
    none = np.empty(0, "datetime64[s]")
    cube = xr.Dataset(
        coords=dict.fromkeys(store.PAIR_TIMES, (PAIR, none)),
        attrs={
            **zarr_attributes(grid),
            **attributes,
            **{"chunk": chunk, "shard": shard, "items": []},
        },
    ).assign_coords(xr_coords(grid, dims=(Y, X)))
    return _with(cube, OF_PAIRS)


def cube_after(
    cube: xr.Dataset, plan: ReadingPlan, search: str | None = None
) -> xr.Dataset:
    """What a cube would be after an ingest in which every pair can be read."""
    records = plan.source.records
    if not records and not plan.withdrawn:
        return cube
    order = new_order(cube.sizes[PAIR], len(records), plan.replaced, plan.withdrawn, ())
    moments = acquisitions(cube, records)
    times = {}
    for name, place in zip(store.PAIR_TIMES, (0, 1), strict=True):
        new = np.array([moments[r.key[place]] for r in records], "datetime64[s]")
        there = cube[name].values.astype("datetime64[s]")
        times[name] = (PAIR, np.concatenate([there, new])[order])
    items = [*cube.attrs["items"], *(as_item(r, search) for r in records)]
    names = [str(n) for n in cube.data_vars if PAIR in cube[n].dims]
    after = cube.drop_dims(PAIR).assign_coords(times)
    after.attrs["items"] = [items[k] for k in order]
    after = _with(after, [*(n for n in names if n in VARIABLES), *plan.layers])
    for name in names:
        after[name].attrs.update(cube[name].attrs)
    if "correction_status" in cube:
        status = cube["correction_status"].values
        status = np.concatenate([status, np.zeros(len(records), status.dtype)])
        after["correction_status"] = (PAIR, status[order])
    return after


def corrected_cube(cube: xr.Dataset) -> xr.Dataset:
    """The cube with a corrected phase, of which nothing is known."""
    return _with(cube, ("corrected_phase",))


def _with(cube: xr.Dataset, names: Iterable[str]) -> xr.Dataset:
    """Add variables that take no memory."""
    sizes = {**cube.sizes, "quantile": 5}
    sizes[PAIR] = cube[store.PAIR_TIMES[0]].size
    return cube.assign(
        {
            name: (
                VARIABLES[name].dims,
                np.broadcast_to(
                    np.zeros((), VARIABLES[name].dtype),
                    tuple(sizes[d] for d in VARIABLES[name].dims),
                ),
            )
            for name in names
        }
    )
