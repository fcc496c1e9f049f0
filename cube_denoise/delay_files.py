"""Layouts in which weather models' delays come: GACOS, MintPy's ERA5.h5, NetCDF."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from odc.geo.crs import CRS

from cube_denoise.mintpy_files import attributes_of, crs_of

METRES = {"m": 1.0, "metre": 1.0, "meter": 1.0, "metres": 1.0, "meters": 1.0}
METRES |= {"cm": 0.01, "mm": 0.001}

Read = Callable[[int, slice, slice], np.ndarray]
"""``read(date, rows, columns)``: delay, m, NaN = no data, of one window of one date."""


class DelayGrid(NamedTuple):
    """Regular grid; the first pixel is that of row 0 and column 0."""

    crs: str
    shape: tuple[int, int]
    first: tuple[float, float]
    """(y, x) of the centre of the first pixel."""
    step: tuple[float, float]
    """(y, x), with sign."""

    def near(self, other: "DelayGrid") -> bool:
        """Whether both are one grid, to a thousandth of a pixel."""
        step = np.array(self.step)
        ends = [np.add(g.first, np.multiply(g.step, g.shape)) for g in (self, other)]
        moved = [np.subtract(other.first, self.first), ends[1] - ends[0]]
        same = self.shape == other.shape and CRS(self.crs) == CRS(other.crs)
        return same and bool((np.abs(moved) < 1e-3 * np.abs(step)).all())


class DelayFiles(NamedTuple):
    """What files hold, without their values."""

    days: list[str]
    """Dates, YYYY-MM-DD, in the order of the files."""
    grid: DelayGrid
    """On which all of them are."""
    read: Read
    """Reads a window."""
    delay_type: str | None
    """"zenith" or "line of sight"; None where the files do not say."""


def gacos_files(files: Sequence[Path], path: Path) -> DelayFiles:
    """GACOS zenith delays, m, one file a date; 0 = no data.

    ``YYYYMMDD.ztd`` are float32, little-endian, rows from the north-west, beside a
    ``.ztd.rsc``. The others are GeoTIFF whose names begin with the date.
    """
    if not files:
        raise ValueError(f"{path} has no file YYYYMMDD.ztd or YYYYMMDD*.tif")
    days = [_day(re.split(r"\D", f.name)[0], f) for f in files]
    grids = [_ztd_grid(f) if f.suffix == ".ztd" else _tif_grid(f) for f in files]
    for file, grid in zip(files, grids, strict=True):
        if not grid.near(grids[0]):
            raise ValueError(
                f"{file.name} is on another grid than {files[0].name}: {grid} and "
                f"{grids[0]} (a pattern such as 'folder/*.ztd' leaves files out)"
            )
    read = partial(_read_raster, tuple(files), grids[0].shape)
    return DelayFiles(days, grids[0], read, "zenith")


def _day(text: str, where: Any) -> str:
    """Date as YYYY-MM-DD."""
    try:
        if len(text) != 8:
            raise ValueError
        return datetime.strptime(text, "%Y%m%d").date().isoformat()
    except ValueError:
        raise ValueError(
            f"{where} has no date: {text!r} must be one as YYYYMMDD"
        ) from None


def _ztd_grid(file: Path) -> DelayGrid:
    header = file.with_name(file.name + ".rsc")
    if not header.is_file():
        raise ValueError(f"{file} has no {header.name} beside it")
    lines = (line.split(maxsplit=1) for line in header.read_text().splitlines())
    fields = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    projection = fields.get("PROJECTION", "LATLON")
    if projection.upper() not in ("LATLON", "LL"):
        raise ValueError(f"{header} has PROJECTION={projection}: must be LATLON")
    grid = _corner_grid(fields, ("FILE_LENGTH", "WIDTH"), "EPSG:4326", header)
    if file.stat().st_size != 4 * grid.shape[0] * grid.shape[1]:
        raise ValueError(
            f"{file} has {file.stat().st_size} bytes: must be 4 x {grid.shape[0]} x "
            f"{grid.shape[1]}, as its header says"
        )
    return grid


def _corner_grid(
    fields: Mapping[str, str], shape: tuple[str, str], crs: str, where: Path
) -> DelayGrid:
    """Grid of a ROI_PAC header, whose first coordinates are those of the corner."""
    places = ("Y_FIRST", "X_FIRST", "Y_STEP", "X_STEP")
    missing = [k for k in (*shape, *places) if k not in fields]
    if missing:
        raise ValueError(
            f"{where} lacks {', '.join(missing)}: delays must be geocoded, on a "
            "regular grid"
        )
    y, x, dy, dx = (float(fields[k]) for k in places)
    size = int(fields[shape[0]]), int(fields[shape[1]])
    return DelayGrid(crs, size, (y + dy / 2, x + dx / 2), (dy, dx))


def _tif_grid(file: Path) -> DelayGrid:
    import rasterio

    with rasterio.open(file) as raster:
        a, b, c, d, e, f = tuple(raster.transform)[:6]
        if raster.crs is None or b or d:
            raise ValueError(f"{file} must be north up and have a CRS")
        code = raster.crs.to_epsg()
        crs = raster.crs.to_wkt() if code is None else f"EPSG:{code}"
        return DelayGrid(crs, raster.shape, (f + e / 2, c + a / 2), (e, a))


def _read_raster(
    files: tuple[Path, ...], shape: tuple[int, int], k: int, rows: slice, columns: slice
) -> np.ndarray:
    if files[k].suffix == ".ztd":
        whole = np.memmap(files[k], "<f4", "r", shape=shape)
        values = np.array(whole[rows, columns])
    else:
        import rasterio
        from rasterio.windows import Window

        with rasterio.open(files[k]) as raster:
            part = Window.from_slices(rows, columns)
            values = raster.read(1, window=part, masked=True).astype("float32")
            values = values.filled(np.nan)
    return np.where(values == 0, np.float32(np.nan), values)


def mintpy_file(path: Path) -> DelayFiles:
    """Delays along the line of sight as MintPy keeps them, ``timeseries`` and ``date``.

    They have the sign of a displacement toward the satellite, which is undone. The
    grid and the unit are root attributes, strings.
    """
    import h5py

    with h5py.File(path) as file:
        if "timeseries" not in file or "date" not in file:
            raise ValueError(
                f"{path} has {sorted(file)}: must have 'timeseries' and 'date', as "
                "MintPy writes them; other delays can be given as NetCDF"
            )
        fields = attributes_of(file)
        shape = file["timeseries"].shape
        days = [_day(bytes(d).decode(), path) for d in file["date"][:]]
    fields |= {"LENGTH": str(shape[1]), "WIDTH": str(shape[2])}
    scale = -_metres(fields.get("UNIT"), path)
    grid = _corner_grid(fields, ("LENGTH", "WIDTH"), crs_of(fields, path), path)
    return DelayFiles(days, grid, partial(_read_mintpy, path, scale), "line of sight")


def _read_mintpy(
    path: Path, scale: float, k: int, rows: slice, columns: slice
) -> np.ndarray:
    import h5py

    with h5py.File(path) as file:
        return np.float32(scale) * file["timeseries"][k, rows, columns]


def netcdf_file(path: Path) -> DelayFiles:
    """Delays of a NetCDF file with one variable (time or date, y or lat, x or lon)."""
    import odc.geo.xr  # noqa: F401 (registers the accessor)

    with xr.open_dataset(path, cache=False) as data:
        names = [str(n) for n in data.data_vars if data[n].ndim == 3]
        if len(names) != 1:
            raise ValueError(
                f"{path} must have one variable of dims (time, y, x): found {names}"
            )
        array = data[names[0]]
        dims = tuple(
            next((d for d in array.dims if str(d).lower() in known), None)
            for known in (
                ("time", "date"),
                ("y", "lat", "latitude"),
                ("x", "lon", "longitude"),
            )
        )
        if None in dims or not set(dims) <= set(array.coords):
            raise ValueError(
                f"{names[0]} in {path} has dims {array.dims}: must be (time or date, y "
                "or lat, x or lon), with coordinates"
            )
        time, y, x = (array[d].values for d in dims)
        if np.issubdtype(time.dtype, np.datetime64):
            days = [str(d) for d in time.astype("datetime64[D]")]
        else:
            days = [
                _day(t.decode() if isinstance(t, bytes) else str(t), path) for t in time
            ]
        scale = _metres(array.attrs.get("units"), path)
        crs = array.odc.crs or array.attrs.get("crs")
        if crs is None and str(dims[1]).lower().startswith("lat"):
            crs = "EPSG:4326"
        if crs is None:
            raise ValueError(f"{path} has no CRS: give its variable an attribute 'crs'")
        axes = [_axis(v, d, path) for v, d in zip((y, x), dims[1:], strict=True)]
        first, step = zip(*axes, strict=True)
        grid = DelayGrid(str(crs), (y.size, x.size), first, step)
        kind = array.attrs.get("delay_type")
    read = partial(_read_netcdf, path, names[0], dims, scale)
    return DelayFiles(days, grid, read, kind)


def _axis(values: np.ndarray, dim: Any, path: Path) -> tuple[float, float]:
    """First value and step of an axis."""
    steps = np.diff(values.astype("float64"))
    if steps.size == 0 or np.ptp(steps) > 1e-3 * abs(steps.mean()):
        raise ValueError(f"{dim} in {path} must be at least two values, evenly spaced")
    return float(values[0]), float(values[-1] - values[0]) / steps.size


def _read_netcdf(
    path: Path,
    name: str,
    dims: tuple[Any, ...],
    scale: float,
    k: int,
    rows: slice,
    columns: slice,
) -> np.ndarray:
    window = dict(zip(dims, (k, rows, columns), strict=True))
    with xr.open_dataset(path, cache=False) as data:
        part = data[name].isel(window).transpose(*dims[1:]).values
    return np.asarray(part * scale, "float32")


def _metres(unit: str | None, path: Path) -> float:
    """Metres in a unit."""
    if unit not in METRES:
        raise ValueError(
            f"delays in {path} have the unit {unit!r}: must be m, cm or mm, given by "
            "the attribute 'units' (MintPy: 'UNIT')"
        )
    return METRES[unit]
