"""Read velocities of the ground: CSV, MIDAS tables, grids; plates from text."""

import csv
import logging
import math
from pathlib import Path

import numpy as np
import xarray as xr

from cube_denoise.evaluate.gnss import COMPONENTS, STATION
from cube_denoise.joining.frames import METRES, MILLIMETRES
from cube_denoise.joining.ground import UP_STD, Field, Ground, Plate, Stations, layout

log = logging.getLogger(__name__)

FIELD_STD = 1e-3
"""m/yr, of a field that does not tell its own."""
PLATE_STD = 2e-3
"""m/yr, of what the ground moves beside a plate."""
FEWEST = 3
"""Stations without which there is nothing to interpolate."""
_MIDAS_COLUMNS = 27


def read_ground(
    gnss: str | Path | None = None,
    *,
    plate: str | None = None,
    unit: str | None = None,
) -> Ground | None:
    """Read GNSS velocities of a file or of grids, or the pole of a plate.

    Parameters
    ----------
    gnss : str or pathlib.Path, optional
        CSV with the columns ``station``, ``longitude``, ``latitude``, ``east``,
        ``north`` and, if known, ``up``, ``east_std``, ``north_std``, ``up_std``; a
        MIDAS table of the Nevada Geodetic Laboratory; or grids,
        ``east=FILE.nc,north=FILE.nc``.
    plate : str, optional
        ``latitude,longitude,rate``: pole in degrees, degrees in a million years.
    unit : str, optional
        ``"m/yr"`` or ``"mm/yr"``, where the file does not tell. That of a CSV must be
        given; MIDAS tables are in m/yr.

    Returns
    -------
    Ground or None
        None if nothing is given.

    Raises
    ------
    ValueError
        If both are given, a file cannot be read or no unit is known.
    """
    if gnss is not None and plate is not None:
        raise ValueError(f"{gnss=} and {plate=}: give one of them")
    if plate is not None:
        return _plate(plate)
    if gnss is None:
        return None
    if unit is not None and unit not in METRES + MILLIMETRES:
        raise ValueError(f"gnss_unit={unit!r} must be 'm/yr' or 'mm/yr'")
    text = str(gnss)
    if "=" in text:
        return _field(text, unit)
    path = Path(gnss)
    try:
        first = path.open(encoding="utf-8-sig").readline()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"gnss={text!r} cannot be read: {error}") from None
    found = _csv(path, unit) if "," in first else _midas(path)
    if found.sizes[STATION] < FEWEST:
        raise ValueError(
            f"gnss={text!r} has {found.sizes[STATION]} stations: it must have "
            f"{FEWEST} or more"
        )
    try:
        return Stations(found)
    except ValueError as error:
        raise ValueError(f"gnss={text!r}: {error}") from None


def _plate(text: str) -> Plate:
    try:
        latitude, longitude, rate = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"plate={text!r} must be latitude,longitude,rate of the pole, degrees and "
            "degrees in a million years"
        ) from None
    if not (abs(latitude) <= 90 and abs(longitude) <= 360 and abs(rate) <= 10):
        raise ValueError(
            f"plate={text!r}: the latitude must be -90 to 90, the longitude -360 to "
            "360, the rate -10 to 10 degrees in a million years"
        )
    return Plate(latitude, longitude, rate, PLATE_STD)


def _metres(unit: str | None, where: str) -> float:
    """What velocities are multiplied by to be in m/yr."""
    if unit in METRES:
        return 1.0
    if unit in MILLIMETRES:
        return 1e-3
    raise ValueError(
        f"{where} does not tell the unit of its velocities ({unit!r}): give gnss_unit="
        "'m/yr' or 'mm/yr' (--gnss-unit)"
    )


def _csv(path: Path, unit: str | None) -> xr.Dataset:
    metres = _metres(unit, f"gnss={str(path)!r}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = [c.strip() for c in reader.fieldnames or ()]
        reader.fieldnames = columns
        needed = (STATION, "longitude", "latitude", "east", "north")
        if missing := [c for c in needed if c not in columns]:
            raise ValueError(
                f"gnss={str(path)!r} has no columns {', '.join(missing)}; it has "
                f"{', '.join(columns)}"
            )
        rows = list(reader)

    def column(name: str, fallback: float) -> np.ndarray:
        try:
            cells = [(row.get(name) or "").strip() for row in rows]
            return np.array([float(c) if c else fallback for c in cells])
        except ValueError as error:
            raise ValueError(f"gnss={str(path)!r}, column {name}: {error}") from None

    values = [metres * column(n, math.nan) for n in COMPONENTS]
    stds = [metres * column(f"{n}_std", math.nan) for n in COMPONENTS]
    return _table(
        column("longitude", math.nan), column("latitude", math.nan), values, stds
    )


def _midas(path: Path) -> xr.Dataset:
    """Columns 9 to 14: velocities and their uncertainties, m/yr; 25, 26: where."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < _MIDAS_COLUMNS:
            raise ValueError(
                f"gnss={str(path)!r}, line {number}: {len(words)} columns; a MIDAS "
                f"table has {_MIDAS_COLUMNS}, and a CSV has commas"
            )
        try:
            rows.append([float(w) for w in (*words[8:14], *words[24:26])])
        except ValueError as error:
            raise ValueError(f"gnss={str(path)!r}, line {number}: {error}") from None
    table = np.array(rows).reshape(-1, 8)
    return _table(table[:, 7], table[:, 6], list(table.T[:3]), list(table.T[3:6]))


def _table(
    lon: np.ndarray, lat: np.ndarray, values: list[np.ndarray], stds: list[np.ndarray]
) -> xr.Dataset:
    """Layout; an unknown up is 0 with `UP_STD`, an unknown std `FIELD_STD`."""
    up, up_std = values[2], stds[2]
    unknown = np.isnan(up)
    stds = [np.where(np.isnan(s), FIELD_STD, s) for s in stds]
    values = [*values[:2], np.where(unknown, 0.0, up)]
    stds[2] = np.where(unknown, UP_STD, np.where(np.isnan(up_std), UP_STD, up_std))
    lon = (lon + 180) % 360 - 180
    place = np.isfinite(lon) & np.isfinite(lat)
    found = layout(
        lon[place], lat[place], np.stack(values, -1)[place], np.stack(stds, -1)[place]
    )
    if found.sizes[STATION] < lon.size:
        log.warning(
            "%d of %d GNSS stations have no place, no east or no north, and are left "
            "out",
            lon.size - found.sizes[STATION],
            lon.size,
        )
    return found


def _field(text: str, unit: str | None) -> Field:
    paths = dict(part.partition("=")[::2] for part in text.split(","))
    if sorted(paths) != ["east", "north"]:
        raise ValueError(f"gnss={text!r} must be east=FILE,north=FILE")
    maps = {}
    for name, path in paths.items():
        try:
            with xr.open_dataset(path) as file:
                dataset = file.load()
        except (OSError, ValueError) as error:
            raise ValueError(f"gnss={text!r}: {path} cannot be read: {error}") from None
        planes = [v for v in dataset.data_vars.values() if v.ndim == 2]
        names = {
            "lon": "longitude",
            "lat": "latitude",
            "x": "longitude",
            "y": "latitude",
        }
        if len(planes) != 1:
            raise ValueError(f"gnss={text!r}: {path} must hold one map")
        plane = planes[0]
        plane = plane.rename({d: names[d] for d in plane.dims if d in names})
        if set(plane.dims) != {"longitude", "latitude"}:
            raise ValueError(
                f"gnss={text!r}: {path} has dims {plane.dims} and must have longitude "
                "and latitude"
            )
        told = plane.attrs.get("units") or unit
        maps[name] = plane.drop_attrs() * _metres(told, f"gnss={text!r}: {path}")
    both = xr.Dataset(maps)
    both["longitude"] = (both["longitude"] + 180) % 360 - 180
    both = both.sortby(["longitude", "latitude"])
    return Field(both.transpose("latitude", "longitude"), FIELD_STD)
