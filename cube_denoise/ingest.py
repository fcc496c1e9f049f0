"""Interferograms into a cube: one task per pair, warped onto the cube's grid."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from cube_denoise import catalog, store
from cube_denoise.append import NewPairs, append
from cube_denoise.changes import as_item, compare
from cube_denoise.cluster import Workers
from cube_denoise.conventions import PAIR
from cube_denoise.cube_fit import (
    acquisitions,
    attributes_of,
    check_fit,
    check_own_pixels,
    same_grid,
    told,
)
from cube_denoise.grid import grid_of, regular_grid
from cube_denoise.interferogram import Interferogram
from cube_denoise.pair_sources import ArrayPairs, RasterPairs


@dataclass
class IngestReport:
    """What an ingest did."""

    added: int = 0
    """Pairs that are new in the cube."""
    present: int = 0
    """Pairs asked for that were there already."""
    failed: dict[str, str] = field(default_factory=dict)
    """Item id -> why it could not be read."""
    replaced: int = 0
    """Pairs whose product was reprocessed: of `added`."""
    withdrawn: int = 0
    """Pairs taken out."""


def ingest(
    items: Sequence[Interferogram],
    url: str | Path,
    *,
    grid: GeoBox | None = None,
    branch: str = "main",
    workers: Workers | None = None,
    chunk: int = store.CHUNK,
    shard: int = store.SHARD,
    replace: bool = False,
    withdraw: Collection[tuple[str, ...]] = (),
    search: str | None = None,
) -> IngestReport:
    """Read interferograms into a cube; those already there are left alone.

    Parameters
    ----------
    items : sequence of interferogram.Interferogram
        As from `catalog.search`, of one track. Duplicates are resolved with a warning.
    url : str or pathlib.Path
        The cube; made on the first ingest.
    grid : odc.geo.geobox.GeoBox, optional
        Pixel grid of a new cube; by default that of the items (`grid.regular_grid`).
        A cube that exists keeps its grid.
    branch : str
        Branch to change.
    workers : cluster.Workers, optional
        Who reads; threads of this machine by default.
    chunk, shard : int
        Of a new cube, see `store.create_cube`.
    replace : bool
        Whether pairs whose product was reprocessed (`changes.compare`) are read anew,
        in the place of the old ones. An old one stays if the new one cannot be read.
    withdraw : collection of tuple
        Keys (`Interferogram.key`) of pairs to take out of the cube. The last pairs move
        into their places: only those are rewritten.
    search : str, optional
        Mark of the search that found the items, remembered with each.

    Returns
    -------
    IngestReport
        A pair that cannot be read is reported there and in the cube's attribute
        ``failed``; the others go in. Running again takes what is missing.

    Raises
    ------
    ValueError
        If there are no items, they mix tracks or wavelengths, or do not fit the cube.
    """
    if not items:
        raise ValueError("items is empty: there is nothing to ingest")
    records = catalog.resolve(items)
    check_wavelength(records)
    if not store.exists(url):
        place = grid or regular_grid((r.crs, r.shape, r.transform) for r in records)
        check_own_pixels(records, place)
        make_cube(url, place, attributes_of(records[0]), chunk=chunk, shard=shard)
    base, cube = store.newest(url, branch=branch)
    check_records(records, cube, url, grid)
    plan = plan_reading(cube, records, replace=replace, withdraw=withdraw)
    todo, withdrawn, replaced = list(plan.source.records), plan.withdrawn, plan.replaced
    report = IngestReport(present=len(records) - len(todo))
    if not todo and not withdrawn:
        return report
    moments = acquisitions(cube, records)
    pairs = NewPairs(
        reference_time=np.array([moments[r.key[0]] for r in todo], "datetime64[s]"),
        secondary_time=np.array([moments[r.key[1]] for r in todo], "datetime64[s]"),
        perpendicular_baseline=np.array([r.perpendicular_baseline for r in todo]),
        items=[as_item(r, search) for r in todo],
    )
    asked = {"items": [[i["id"], i["version"]] for i in pairs.items]}
    if replace or withdrawn:
        items_there = cube.attrs["items"]
        asked["withdraw"] = [items_there[k]["id"] for k in withdrawn]
    failed = append(
        url,
        pairs,
        plan.source,
        base=base,
        branch=branch,
        asked=asked,
        layers=plan.layers,
        workers=workers,
        replaced=replaced,
        withdrawn=withdrawn,
    )
    report.failed = {todo[k].id: why for k, why in failed.items()}
    report.added = len(todo) - len(failed)
    report.replaced = len(set(replaced) - set(failed))
    report.withdrawn = len(withdrawn)
    return report


def check_wavelength(records: Sequence[Interferogram]) -> None:
    """Refuse records of several sensors."""
    if len({round(r.wavelength, 9) for r in records}) > 1:
        raise ValueError(
            "items mix wavelengths "
            f"{sorted({r.wavelength for r in records})} m: one sensor per cube"
        )


def check_records(
    records: Sequence[Interferogram],
    cube: xr.Dataset,
    url: str | Path,
    grid: GeoBox | None,
) -> None:
    """Refuse records, or a grid asked for, that are not those of the cube."""
    if grid is not None and grid != grid_of(cube.attrs):
        raise ValueError(
            f"grid={told(grid)} differs from that of {url}, {told(grid_of(cube.attrs))}"
        )
    check_fit(records[0].track, records[0].wavelength, cube, url)
    check_own_pixels(records, grid_of(cube.attrs))


class ReadingPlan(NamedTuple):
    """What an ingest reads and takes out."""

    source: RasterPairs
    """With the new pairs, then those that replace one."""
    layers: list[str]
    """Static layers to read as well."""
    replaced: dict[int, int]
    """Position in the source -> position in the cube of the pair it replaces."""
    withdrawn: list[int]
    """Positions in the cube of the pairs taken out."""


def plan_reading(
    cube: xr.Dataset,
    records: Sequence[Interferogram],
    *,
    replace: bool = False,
    withdraw: Collection[tuple[str, ...]] = (),
) -> ReadingPlan:
    """Plan `ingest` of `records`, one per pair, into a cube; no data are read."""
    changes = compare(cube.attrs["items"], records)
    again = changes.reprocessed if replace else ()
    todo = (*changes.new, *again)
    place_of = {tuple(item["key"]): k for k, item in enumerate(cube.attrs["items"])}
    source = RasterPairs(grid_of(cube.attrs), int(cube.attrs["shard"]), todo)
    return ReadingPlan(
        source,
        [] if "los_up" in cube or not todo else source.static_layers(),
        {len(changes.new) + k: place_of[r.key] for k, r in enumerate(again)},
        sorted(place_of[key] for key in withdraw if key in place_of),
    )


def make_cube(
    url: str | Path,
    grid: GeoBox,
    attributes: Mapping[str, Any],
    *,
    chunk: int = store.CHUNK,
    shard: int = store.SHARD,
) -> None:
    """Make an empty cube, unless another process is making the same one."""
    for wait in (0.5, 1.0, 2.0, None):
        try:
            store.create_cube(
                url, grid, attributes=attributes, chunk=chunk, shard=shard
            )
            return
        except store.CubeError:
            if store.exists(url):
                return
            if wait is None or not store.is_being_made(url):
                raise
            time.sleep(wait)


def ingest_dataset(
    dataset: xr.Dataset,
    url: str | Path,
    *,
    branch: str = "main",
    workers: Workers | None = None,
    chunk: int = store.CHUNK,
    shard: int = store.SHARD,
) -> IngestReport:
    """Make a cube of a stack that is in xarray already (simulated, or your own).

    Parameters
    ----------
    dataset : xarray.Dataset
        ``unwrapped_phase`` (pair, y, x), rad, positive away, NaN = no data; optional
        ``coherence`` and static layers of `conventions.VARIABLES`; coordinates
        ``reference_time``, ``secondary_time``, ``perpendicular_baseline`` of ``pair``
        and a CRS that odc-geo finds; attributes ``wavelength`` (m) and ``track``.
    url, branch, workers, chunk, shard
        As in `ingest`; the workers must be threads.

    Returns
    -------
    IngestReport

    Raises
    ------
    ValueError
        If something of the above is missing, or it does not fit the cube.
    """
    import odc.geo.xr  # noqa: F401  (the .odc accessor)

    for name in ("unwrapped_phase", "reference_time", "secondary_time"):
        if name not in dataset.variables:
            raise ValueError(f"dataset has no variable {name!r}")
    for name in ("wavelength", "track"):
        if name not in dataset.attrs:
            raise ValueError(f"dataset.attrs has no {name!r}")
    unit = dataset["unwrapped_phase"].attrs.get("units", "rad")
    if unit not in ("rad", "radian", "radians"):
        raise ValueError(
            f"dataset has unwrapped_phase in units={unit!r}: must be in 'rad', which "
            "conventions.displacement_to_phase makes of metres toward the satellite"
        )
    place = dataset.odc.geobox
    if place is None or place.crs is None:
        raise ValueError("dataset has no CRS: give it one, e.g. dataset.odc.assign_crs")
    if not store.exists(url):
        attributes = {"track": dataset.attrs["track"]} | {
            n: float(dataset.attrs[n])
            for n in ("wavelength", "heading")
            if n in dataset.attrs
        }
        make_cube(url, place, attributes, chunk=chunk, shard=shard)
    base, cube = store.newest(url, branch=branch)
    if not same_grid(place, grid_of(cube.attrs)):
        raise ValueError(
            f"the grid of dataset, {told(place)}, differs from that of {url}, "
            f"{told(grid_of(cube.attrs))}"
        )
    check_fit(dataset.attrs["track"], float(dataset.attrs["wavelength"]), cube, url)
    times = [
        dataset[n].values.astype("datetime64[s]")
        for n in ("reference_time", "secondary_time")
    ]
    keys = [
        [str(a)[:10], str(b)[:10], dataset.attrs["track"]]
        for a, b in zip(*times, strict=True)
    ]
    twice = sorted({"-".join(k[:2]) for k in keys if keys.count(k) > 1})
    if twice:
        raise ValueError(f"dataset has the pairs {twice} more than once")
    known = [item["key"] for item in cube.attrs["items"]]
    new = [k for k, key in enumerate(keys) if key not in known]
    report = IngestReport(present=len(keys) - len(new))
    if not new:
        return report
    source = ArrayPairs(dataset.isel({PAIR: new}), int(cube.attrs["shard"]))
    baseline = (
        dataset["perpendicular_baseline"].values[new]
        if "perpendicular_baseline" in dataset.variables
        else np.full(len(new), np.nan)
    )
    pairs = NewPairs(
        times[0][new],
        times[1][new],
        baseline,
        [{"id": "-".join(keys[k][:2]), "key": keys[k]} for k in new],
    )
    layers = [] if "los_up" in cube else source.static_layers()
    asked = {"dataset": [keys[k] for k in new]}
    failed = append(
        url,
        pairs,
        source,
        base=base,
        branch=branch,
        asked=asked,
        layers=layers,
        workers=workers,
    )
    report.failed = {pairs.items[k]["id"]: why for k, why in failed.items()}
    report.added = len(new) - len(failed)
    return report
