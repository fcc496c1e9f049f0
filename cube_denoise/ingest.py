"""Interferograms into a cube: one task per pair, warped onto the cube's grid."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox

from cube_denoise import catalog, store
from cube_denoise.cluster import Workers
from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.grid import grid_of, regular_grid
from cube_denoise.interferogram import Interferogram
from cube_denoise.pair_sources import ArrayPairs, PairSource, RasterPairs, read_task
from cube_denoise.progress import progress

log = logging.getLogger(__name__)


@dataclass
class IngestReport:
    """What an ingest did."""

    added: int = 0
    """Pairs that are new in the cube."""
    present: int = 0
    """Pairs asked for that were there already."""
    failed: dict[str, str] = field(default_factory=dict)
    """Item id -> why it could not be read."""


def ingest(
    items: Sequence[Interferogram],
    url: str | Path,
    *,
    grid: GeoBox | None = None,
    branch: str = "main",
    workers: Workers | None = None,
    chunk: int = store.CHUNK,
    shard: int = store.SHARD,
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
    if len({round(r.wavelength, 9) for r in records}) > 1:
        raise ValueError(
            "items mix wavelengths "
            f"{sorted({r.wavelength for r in records})} m: one sensor per cube"
        )
    try:
        cube = store.open_cube(url, branch=branch)
    except store.CubeError:
        if store.exists(url):
            cube = store.open_cube(url)  # the branch is made from main
        else:
            first = records[0]
            place = grid or regular_grid((r.crs, r.shape, r.transform) for r in records)
            store.create_cube(
                url,
                place,
                attributes=_attributes(first),
                chunk=chunk,
                shard=shard,
            )
            cube = store.open_cube(url)
    if grid is not None and grid != grid_of(cube.attrs):
        raise ValueError(
            f"grid={_told(grid)} differs from that of {url}, "
            f"{_told(grid_of(cube.attrs))}"
        )
    _check_fit(records[0].track, records[0].wavelength, cube, url)
    known = {tuple(item["key"]) for item in cube.attrs["items"]}
    new = [r for r in records if r.key not in known]
    report = IngestReport(present=len(records) - len(new))
    if not new:
        return report
    moments = _acquisitions(cube, records)
    source = RasterPairs(grid_of(cube.attrs), int(cube.attrs["shard"]), tuple(new))
    asked = {"items": [[r.id, r.assets["unwrapped_phase"].href] for r in new]}
    pairs = _Pairs(
        reference_time=np.array([moments[r.key[0]] for r in new]),
        secondary_time=np.array([moments[r.key[1]] for r in new]),
        perpendicular_baseline=np.array([r.perpendicular_baseline for r in new]),
        items=[{"id": r.id, "key": list(r.key)} for r in new],
    )
    layers = [] if "los_up" in cube else source.static_layers()
    return _append(url, branch, asked, pairs, source, layers, workers, report)


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
    place = dataset.odc.geobox
    if place is None or place.crs is None:
        raise ValueError("dataset has no CRS: give it one, e.g. dataset.odc.assign_crs")
    if not store.exists(url):
        attributes = {"track": dataset.attrs["track"]} | {
            n: float(dataset.attrs[n])
            for n in ("wavelength", "heading")
            if n in dataset.attrs
        }
        store.create_cube(url, place, attributes=attributes, chunk=chunk, shard=shard)
    try:
        cube = store.open_cube(url, branch=branch)
    except store.CubeError:
        cube = store.open_cube(url)  # the branch is made from main
    if not _same_grid(place, grid_of(cube.attrs)):
        raise ValueError(
            f"the grid of dataset, {_told(place)}, differs from that of {url}, "
            f"{_told(grid_of(cube.attrs))}"
        )
    _check_fit(dataset.attrs["track"], float(dataset.attrs["wavelength"]), cube, url)
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
    pairs = _Pairs(
        times[0][new],
        times[1][new],
        baseline,
        [{"id": "-".join(keys[k][:2]), "key": keys[k]} for k in new],
    )
    layers = [] if "los_up" in cube else source.static_layers()
    asked = {"dataset": [keys[k] for k in new]}
    return _append(url, branch, asked, pairs, source, layers, workers, report)


class _Pairs(NamedTuple):
    """Coordinates of new pairs, as `store.append_pairs` takes them."""

    reference_time: np.ndarray
    secondary_time: np.ndarray
    perpendicular_baseline: np.ndarray
    items: list[dict[str, Any]]


def _append(
    url: str | Path,
    branch: str,
    asked: dict[str, Any],
    pairs: _Pairs,
    source: PairSource,
    layers: list[str],
    workers: Workers | None,
    report: IngestReport,
) -> IngestReport:
    """Stage the new pairs, drop those that failed, publish the rest."""
    with store.stage(url, step="ingest", branch=branch, asked=asked) as stage:
        grid_sizes = {d: stage.cube.sizes[d] for d in (Y, X)}
        if not stage.resumed():

            def extend(root: zarr.Group) -> None:
                store.append_pairs(root, **pairs._asdict())
                store.declare(root, layers, grid_sizes)

            stage.change(extend, f"room for {len(pairs.items)} pairs")
        count = len(pairs.items)
        before = stage.cube.sizes[PAIR] - count
        tasks = [*range(count), *(["static"] if layers else [])]
        size = 2 * 4 * grid_sizes[Y] * grid_sizes[X]  # phase and coherence, bytes
        work = functools.partial(read_task, source=source, before=before)
        with (
            workers or Workers() as pool,
            progress("ingest", count, unit="pairs", size=size) as advance,
        ):
            stage.fill(
                work,
                tasks,
                pool,
                advance=advance,
                amount=lambda task: float(task != "static"),
            )
        failed = {
            pairs.items[k]["id"]: why for k, why in stage.skipped.items() if k < count
        }
        gone = [before + k for k in stage.skipped if k < count]
        report.failed, report.added = failed, count - len(gone)

        def finish(root: zarr.Group) -> None:
            if gone:
                store.drop_pairs(root, gone)
            if count in stage.skipped:
                log.warning("no elevation or look vectors: %s", stage.skipped[count])
                for name in layers:
                    del root[name]
            root.attrs["failed"] = [{"id": k, "reason": v} for k, v in failed.items()]

        title = f"{report.added} pairs" + (f", {len(failed)} failed" if failed else "")
        if report.added:
            stage.publish(title, details={"failed": failed}, edit=finish)
        else:
            stage.discard()
    return report


def _attributes(record: Interferogram) -> dict[str, Any]:
    found = {"wavelength": record.wavelength, "track": record.track}
    return found | ({} if record.heading is None else {"heading": record.heading})


def _check_fit(
    track: str, wavelength: float, cube: xr.Dataset, url: str | Path
) -> None:
    if track != cube.attrs["track"]:
        raise ValueError(
            f"items are of track {track} and {url} is of track "
            f"{cube.attrs['track']}: one track per cube"
        )
    if abs(wavelength - cube.attrs["wavelength"]) > 1e-6:
        raise ValueError(
            f"items have wavelength {wavelength} m and {url} has "
            f"{cube.attrs['wavelength']} m: one sensor per cube"
        )


def _same_grid(one: GeoBox, other: GeoBox) -> bool:
    """Whether pixels coincide, to a thousandth of their size."""
    return (
        one.shape == other.shape
        and one.crs == other.crs
        and one.affine.almost_equals(other.affine, 1e-3 * abs(other.affine.a))
    )


def _told(grid: GeoBox) -> str:
    code = grid.crs.epsg if grid.crs is not None else None
    transform = ", ".join(f"{v:g}" for v in grid.affine[:6])
    rows, columns = grid.shape
    return f"{rows} x {columns} pixels at ({transform}), EPSG:{code or 'none'}"


def _acquisitions(
    cube: xr.Dataset, records: Sequence[Interferogram]
) -> dict[str, np.datetime64]:
    """One time per acquisition date: products of one pass may differ by seconds.

    The time that the cube has, else the earliest of the records.
    """
    found: dict[str, np.datetime64] = {}
    for record in records:
        for date, moment in zip(
            record.key[:2], (record.reference_time, record.secondary_time), strict=True
        ):
            time = np.datetime64(int(moment.timestamp()), "s")
            found[date] = min(time, found.get(date, time))
    for name in store.PAIR_TIMES:
        for time in cube[name].values.astype("datetime64[s]"):
            found[str(time.astype("datetime64[D]"))] = time
    return found
