"""Interferograms into a cube: one task per pair, warped onto the cube's grid."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from cube_denoise import catalog, store
from cube_denoise.blocks import Window, spans, windows
from cube_denoise.cluster import Workers
from cube_denoise.conventions import PAIR, VARIABLES, X, Y, los_unit_vector
from cube_denoise.grid import grid_of, regular_grid
from cube_denoise.interferogram import Asset, Interferogram
from cube_denoise.normalise import five_numbers, sample_stride
from cube_denoise.progress import progress

log = logging.getLogger(__name__)

GDAL_OPTIONS = {
    "GDAL_CACHEMAX": 64,  # MB
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}

UNREADABLE = (RasterioError, CPLE_BaseError, ProjError, OSError)
"""What rasterio raises for a raster that is not as it should be."""
COORDINATE_TOLERANCE = 1e-4
"""Largest error of a coordinate in warping, pixels of the raster."""


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
    source = _Rasters(grid_of(cube.attrs), int(cube.attrs["shard"]), tuple(new))
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
    source = _Arrays(dataset.isel({PAIR: new}), int(cube.attrs["shard"]))
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
    source: "_Rasters | _Arrays",
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
        work = functools.partial(_work, source=source, before=before)
        title = f"ingest {count} pairs"
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


def _work(
    cube: xr.Dataset, task: int | str, *, source: "_Rasters | _Arrays", before: int
) -> Iterator[tuple[Window, Mapping[str, np.ndarray]]]:
    """Blocks of one pair, then its summary; or of the static layers."""
    shape = (cube.sizes[Y], cube.sizes[X])
    if isinstance(task, str):
        yield from source.static(shape)
        return
    pair = {PAIR: slice(before + task, before + task + 1)}
    stride = sample_stride(shape)
    sample: list[np.ndarray] = []
    valid = 0
    for window, phase, coherence in source.pair(task, shape):
        valid += int(np.isfinite(phase).sum())
        offsets = [-window[d].start % stride for d in (Y, X)]
        sample.append(phase[offsets[0] :: stride, offsets[1] :: stride].ravel())
        yield (
            {**pair, **window},
            {"unwrapped_phase": phase[None], "coherence": coherence[None]},
        )
    if not valid:
        raise store.SkipTask("no valid pixel on the grid of the cube")
    yield (
        pair,
        {
            "phase_quantiles": five_numbers(np.concatenate(sample))[None],
            "valid_fraction": np.array([valid / (shape[0] * shape[1])], "float32"),
        },
    )


def _blocks(shape: tuple[int, int], size: int) -> tuple[dict[str, slice], ...]:
    return windows(y=spans(shape[0], size), x=spans(shape[1], size))


@dataclass(frozen=True)
class _Rasters:
    """Pairs as rasters on grids of their own."""

    grid: GeoBox
    block: int
    records: tuple[Interferogram, ...]

    def pair(
        self, k: int, shape: tuple[int, int]
    ) -> Iterator[tuple[dict[str, slice], np.ndarray, np.ndarray]]:
        record = self.records[k]
        with self._open(record, ("unwrapped_phase", "coherence")) as read:
            for window in _blocks(shape, self.block):
                phase = read("unwrapped_phase", window) * np.float32(record.phase_sign)
                coherence = read("coherence", window)
                highest = np.nanmax(coherence, initial=0)
                lowest = np.nanmin(coherence, initial=0)
                if highest > 1.001 or lowest < -0.001:
                    raise store.SkipTask(
                        f"coherence from {lowest:g} to {highest:g}: must be 0 to 1"
                    )
                yield window, phase, coherence

    def static_layers(self) -> list[str]:
        """Names of the static layers that the records can give."""
        names = ["los_east", "los_north", "los_up"] if self._look() else []
        return names + (["elevation"] if self._elevation() else [])

    def _look(self) -> list[Interferogram]:
        return [
            r
            for r in self.records
            if {"look_elevation", "look_orientation"} <= set(r.assets)
            or (r.incidence_angle is not None and r.heading is not None)
        ]

    def _elevation(self) -> list[Interferogram]:
        return [r for r in self.records if "elevation" in r.assets]

    def static(
        self, shape: tuple[int, int]
    ) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
        """Elevation and look vectors of the first record that can give them."""
        if self._elevation():
            yield from _first_readable(self._elevation(), shape, self._read_elevation)
        if self._look():
            yield from _first_readable(self._look(), shape, self._read_look)

    def _read_elevation(
        self, record: Interferogram, shape: tuple[int, int]
    ) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
        with self._open(record, ("elevation",)) as read:
            for window in _blocks(shape, self.block):
                yield window, {"elevation": read("elevation", window)}

    def _read_look(
        self, record: Interferogram, shape: tuple[int, int]
    ) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
        names = ("look_elevation", "look_orientation")
        if not set(names) <= set(record.assets):
            assert record.incidence_angle is not None
            assert record.heading is not None
            los = los_unit_vector(record.incidence_angle, record.heading)
            for window in _blocks(shape, self.block):
                lengths = [window[d].stop - window[d].start for d in (Y, X)]
                yield (
                    window,
                    {
                        name: np.full(lengths, component, "float32")
                        for name, component in zip(
                            ("los_east", "los_north", "los_up"), los, strict=True
                        )
                    },
                )
            return
        with self._open(record, names) as read:
            for window in _blocks(shape, self.block):
                up, around = (read(name, window) for name in names)
                yield (
                    window,
                    {
                        "los_east": np.cos(up) * np.cos(around),
                        "los_north": np.cos(up) * np.sin(around),
                        "los_up": np.sin(up),
                    },
                )

    def _open(self, record: Interferogram, roles: Sequence[str]) -> "_Reader":
        return _Reader(record, roles, self.grid)


def _first_readable(
    records: Sequence[Interferogram],
    shape: tuple[int, int],
    read: Callable[..., Iterator[tuple[Window, dict[str, np.ndarray]]]],
) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
    """Whole layers of the first record that gives them; a later one starts over."""
    for record in records:
        try:
            yield from read(record, shape)
            return
        except store.SkipTask as reason:
            failure = reason
    raise failure


class _Reader:
    """Open rasters of one item, read as windows of the cube's grid."""

    def __init__(
        self, record: Interferogram, roles: Sequence[str], grid: GeoBox
    ) -> None:
        self.record, self.roles, self.grid = record, roles, grid
        self.stack = ExitStack()
        self.open: dict[str, WarpedVRT] = {}

    def __enter__(self) -> Any:
        try:
            self.stack.enter_context(rasterio.Env(**GDAL_OPTIONS))
            for role in self.roles:
                if role in self.record.assets:
                    self.open[role] = self._warped(self.record.assets[role])
        except UNREADABLE as error:
            self.stack.close()
            raise store.SkipTask(_one_line(error)) from error
        except BaseException:
            self.stack.close()
            raise
        return self.read

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def _warped(self, asset: Asset) -> WarpedVRT:
        raster = self.stack.enter_context(rasterio.open(asset.href))
        if raster.crs is None:
            raise store.SkipTask(f"{asset.href} has no CRS")
        own = GeoBox((raster.height, raster.width), raster.transform, raster.crs)
        # Pixels that coincide are copied, others are interpolated between valid ones.
        offset = [
            (a - b) / step
            for a, b, step in (
                (own.affine.c, self.grid.affine.c, own.affine.a),
                (own.affine.f, self.grid.affine.f, own.affine.e),
            )
        ]
        aligned = (
            own.crs == self.grid.crs
            and np.allclose(
                [own.affine.a, own.affine.e], [self.grid.affine.a, self.grid.affine.e]
            )
            and all(abs(o - round(o)) < 1e-3 for o in offset)
        )
        assert self.grid.crs is not None
        options: dict[str, Any] = {
            "crs": self.grid.crs.to_wkt(),
            "transform": self.grid.affine,
            "height": self.grid.shape[0],
            "width": self.grid.shape[1],
            "resampling": Resampling.nearest if aligned else Resampling.bilinear,
            "nodata": np.nan,
            "dtype": "float32",
            # Left to itself GDAL chooses both anew for every block that is read: how
            # it approximates coordinates (to 1/8 pixel) and how wide it averages.
            "tolerance": COORDINATE_TOLERANCE,
            "xscale": _shrinkage(own, self.grid)[0],
            "yscale": _shrinkage(own, self.grid)[1],
        }
        if asset.nodata is not None:
            options["src_nodata"] = asset.nodata
        return self.stack.enter_context(WarpedVRT(raster, **options))

    def read(self, role: str, window: Mapping[str, slice]) -> np.ndarray:
        """Values on a window of the grid, float32, NaN = no data."""
        y, x = window[Y], window[X]
        if role not in self.open:
            return np.full((y.stop - y.start, x.stop - x.start), np.nan, "float32")
        where = RasterWindow(x.start, y.start, x.stop - x.start, y.stop - y.start)
        try:
            values = self.open[role].read(1, window=where)
        except UNREADABLE as error:
            raise store.SkipTask(
                f"{self.record.assets[role].href}: {_one_line(error)}"
            ) from error
        return np.where(np.isfinite(values), values, np.nan).astype("float32")


@dataclass(frozen=True)
class _Arrays:
    """Pairs as arrays on the cube's grid."""

    dataset: xr.Dataset
    block: int

    def pair(
        self, k: int, shape: tuple[int, int]
    ) -> Iterator[tuple[dict[str, slice], np.ndarray, np.ndarray]]:
        for window in _blocks(shape, self.block):
            part = self.dataset.isel({PAIR: k, **window}).transpose(..., Y, X)
            phase = part["unwrapped_phase"].values.astype("float32")
            coherence = (
                part["coherence"].values.astype("float32")
                if "coherence" in part
                else np.full_like(phase, np.nan)
            )
            yield window, phase, coherence

    def static_layers(self) -> list[str]:
        names = ("elevation", "los_east", "los_north", "los_up")
        return [n for n in names if n in self.dataset]

    def static(
        self, shape: tuple[int, int]
    ) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
        for window in _blocks(shape, self.block):
            part = self.dataset.isel(window).transpose(..., Y, X)
            yield (
                window,
                {
                    n: part[n].values.astype(VARIABLES[n].dtype)
                    for n in self.static_layers()
                },
            )


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


def _shrinkage(own: GeoBox, grid: GeoBox) -> tuple[str, str]:
    """Pixels of the grid per pixel of a raster, along x and y, at most 1."""
    assert grid.crs is not None
    near = own if own.crs == grid.crs else own.to_crs(grid.crs)
    scales = (
        near.resolution.x / grid.resolution.x,
        near.resolution.y / grid.resolution.y,
    )
    x, y = (f"{min(abs(s), 1.0):.6f}" for s in scales)
    return x, y


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
