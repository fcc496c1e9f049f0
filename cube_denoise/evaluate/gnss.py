"""Read series of GNSS stations.

Layout of all station series: an `xarray.Dataset` with ``east``, ``north``, ``up`` and
``east_std``, ``north_std``, ``up_std`` of dims (station, time), m, NaN = no data;
``longitude`` and ``latitude`` of ``station``, degrees, longitude in -180..180; ``time``
in UTC or GPS time, whose difference of seconds does not matter here.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from cube_denoise.conventions import TIME

STATION = "station"
COMPONENTS = ("east", "north", "up")
SERIES = (*COMPONENTS, *(f"{name}_std" for name in COMPONENTS))
"""Variables of a station series, in the order of the columns of `_Series.values`."""

_TENV3 = {
    "east": ("e0(m)", "east(m)", "sig_e(m)"),
    "north": ("n0(m)", "north(m)", "sig_n(m)"),
    "up": ("u0(m)", "up(m)", "sig_u(m)"),
}
"""Columns of whole metres, the rest and the standard deviation, without underscores."""

_CSV = (STATION, "longitude", "latitude", TIME, *COMPONENTS)


class _Series(NamedTuple):
    longitude: float
    latitude: float
    times: np.ndarray
    """Shape (n,), datetime64[ns]."""
    values: np.ndarray
    """Shape (n, 6), `SERIES`, m."""


def read_tenv3(paths: str | Path | Iterable[str | Path]) -> xr.Dataset:
    """Station series of the Nevada Geodetic Laboratory, one ``.tenv3`` file a station.

    Position is the sum of the columns of whole metres and of the rest. What is returned
    is displacement since the first solution of each station. A daily solution is given
    the middle of its day, 12:00.

    Parameters
    ----------
    paths : path or iterable of paths
        Files with their header line.

    Returns
    -------
    xarray.Dataset, dims (station, time)
        The layout of this module, m; stations in the order of the files, ``time`` the
        union of their days. Longitude and latitude are NaN for files of the older kind,
        whose header has no such columns.

    Raises
    ------
    ValueError
        If there is no file, one is not a tenv3 file or has no solution, or a station or
        a day of one occurs twice.

    References
    ----------
    Blewitt, Hammond and Kreemer 2018, Harnessing the GPS data explosion for
    interdisciplinary science, Eos 99.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]
    found: dict[str, _Series] = {}
    for path in files:
        name, series = _read_tenv3_file(path)
        if name in found:
            raise ValueError(f"{path} is a second file of station {name}")
        found[name] = series
    return _layout(found, ", ".join(map(str, files)) or "paths")


def _read_tenv3_file(path: Path) -> tuple[str, _Series]:
    lines = path.read_text(errors="replace").splitlines()
    header = [word.lstrip("_") for word in lines[0].split()] if lines else []
    wanted = {"site", "YYMMMDD", "MJD", *(c for part in _TENV3.values() for c in part)}
    if missing := sorted(wanted - set(header)):
        raise ValueError(
            f"{path} is not a tenv3 file: its first line must be a header with the "
            f"columns {', '.join(missing)}"
        )
    column = {name: k for k, name in enumerate(header)}
    names, days, places = set(), [], []
    positions = []
    for number, line in enumerate(lines[1:], 2):
        words = line.split()
        if not words:
            continue
        if len(words) != len(header):
            raise ValueError(
                f"{path}, line {number}: {len(words)} columns, the header {len(header)}"
            )

        def value(name: str, words: list[str] = words, number: int = number) -> float:
            return _number(words[column[name]], f"{path}, line {number}, {name}")

        names.add(words[column["site"]])
        days.append(int(value("MJD")))
        if "latitude(deg)" in column:
            places.append((value("longitude(deg)"), value("latitude(deg)")))
        whole, rest, std = zip(
            *([value(c) for c in _TENV3[name]] for name in COMPONENTS), strict=True
        )
        positions.append((*whole, *rest, *std))
    if len(names) != 1:
        told = ", ".join(sorted(names)) or "none"
        raise ValueError(f"{path} must hold one station, it holds {told}")
    table = np.array(positions)
    since_first = table - table[np.argmin(days)]
    values = np.hstack([since_first[:, :3] + since_first[:, 3:6], table[:, 6:]])
    noon = np.datetime64("1858-11-17T12", "ns") + np.array(days).astype("m8[D]")
    longitude, latitude = np.median(places, axis=0) if places else (math.nan,) * 2
    return names.pop(), _Series(float(longitude), float(latitude), noon, values)


def read_stations_csv(path: str | Path) -> xr.Dataset:
    """Station series from a plain CSV file, one row a station and time.

    Parameters
    ----------
    path : path
        First row: the column names ``station``, ``longitude``, ``latitude`` (degrees),
        ``time`` (ISO 8601, UTC), ``east``, ``north``, ``up`` (m) and, if known,
        ``east_std``, ``north_std``, ``up_std`` (m), in any order. An empty cell is no
        data. Other columns are ignored.

    Returns
    -------
    xarray.Dataset, dims (station, time)
        The layout of this module, m; stations in the order of the file.

    Raises
    ------
    ValueError
        If a column is missing or named with a unit (``east_mm``), a cell cannot be
        read, a station has several positions or a time twice, or there is no station.
    """
    path = Path(path)
    rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        _check_columns(columns, path)
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{where}: it must have {len(columns)} cells")
            numbers = (
                _number(row.get(name, ""), f"{where}, {name}")
                for name in ("longitude", "latitude", *SERIES)
            )
            rows[row[STATION].strip()].append((_time(row[TIME], where), *numbers))
    found = {}
    for name, read in rows.items():
        table = np.array([numbers for _, *numbers in read])
        if not name or np.ptp(table[:, :2], axis=0).max() > 1e-3:
            raise ValueError(
                f"{path}: station {name!r} must have a name and a single position"
            )
        times = np.array([time for time, *_ in read])
        found[name] = _Series(table[0, 0], table[0, 1], times, table[:, 2:])
    return _layout(found, str(path))


def _check_columns(columns: list[str], path: Path) -> None:
    missing = [name for name in _CSV if name not in columns]
    united = [
        name
        for name in columns
        if name not in SERIES
        and any(name.startswith((f"{c}_", f"{c}(", f"{c} ", f"{c}[")) for c in SERIES)
    ]
    if united:
        raise ValueError(
            f"{path} has the columns {', '.join(united)}: all must be in metres and be "
            f"called {', '.join(SERIES)}"
        )
    if missing:
        raise ValueError(
            f"{path} has no columns {', '.join(missing)}; it has {', '.join(columns)}"
        )


def _number(text: str, where: str) -> float:
    try:
        return float(text) if text.strip() else math.nan
    except ValueError:
        raise ValueError(f"{where}: {text!r} is not a number") from None


def _time(text: str, where: str) -> np.datetime64:
    try:
        time = np.datetime64(text.strip().removesuffix("Z"), "ns")
        if not np.isnat(time):
            return time
    except ValueError:
        pass
    raise ValueError(f"{where}: time {text!r} is not ISO 8601, as 2018-01-06T12:00")


def _layout(found: dict[str, _Series], source: str) -> xr.Dataset:
    """Put stations with times of their own into the layout of this module."""
    if not found:
        raise ValueError(f"{source}: there is no station")
    times = np.unique(np.concatenate([s.times for s in found.values()]))
    values = np.full((len(SERIES), len(found), times.size), np.nan)
    for k, (name, series) in enumerate(found.items()):
        if np.unique(series.times).size < series.times.size:
            raise ValueError(f"{source}: station {name} has a time more than once")
        values[:, k, np.searchsorted(times, series.times)] = series.values.T
    longitude = np.array([s.longitude for s in found.values()])
    degrees = {"longitude": "degrees_east", "latitude": "degrees_north"}
    stations = xr.Dataset(
        {n: ((STATION, TIME), v) for n, v in zip(SERIES, values, strict=True)},
        {
            STATION: list(found),
            TIME: times,
            "longitude": (STATION, (longitude + 180) % 360 - 180),
            "latitude": (STATION, [s.latitude for s in found.values()]),
        },
    )
    for name in SERIES:
        stations[name].attrs["units"] = "m"
    for name, unit in degrees.items():
        stations[name].attrs["units"] = unit
    return stations
