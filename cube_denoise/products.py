"""Readers of products: interferograms on disk -> records.

`hyp3` reads what ASF HyP3 delivers, `mintpy` and `licsbas` the stacks and series of
these programs, `read_geotiff_stack` any other folder of GeoTIFFs; `find_products` tells
which it is. Here end all differences of names, units and signs between providers.
"""

import csv
import math
import re
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime, time
from pathlib import Path

from cube_denoise import hyp3
from cube_denoise.hyp3 import read_hyp3, relative_orbit
from cube_denoise.interferogram import (
    ROLES,
    Asset,
    Interferogram,
    Raster,
    earlier_first,
    read_raster,
)
from cube_denoise.licsbas import is_licsar, read_licsar, read_licsbas
from cube_denoise.mintpy import read_mintpy

__all__ = [
    "ROLES",
    "Asset",
    "Interferogram",
    "earlier_first",
    "find_products",
    "read_geotiff_stack",
    "read_hyp3",
    "read_licsar",
    "read_licsbas",
    "read_mintpy",
    "relative_orbit",
]


def find_products(
    place: str | Path, *, track: str | None = None
) -> tuple[list[Interferogram], dict[Path, str]]:
    """Read every product at a place, whoever made it.

    Parameters
    ----------
    place : path
        ``ifgramStack.h5`` or ``timeseries.h5`` of MintPy, ``cum.h5`` of LiCSBAS; a
        ``GEOC`` or ``GEOCml*`` folder; or a folder of HyP3 products.
    track : str, optional
        Such as ``"A005"``; else as the products tell.

    Returns
    -------
    interferograms : list of Interferogram
    unreadable : dict
        Folder of a HyP3 product -> why it could not be read.

    Raises
    ------
    ValueError
        If there is no such place, or a stack or series that lacks something.
    """
    place = Path(place).resolve()
    if is_stack_file(place):
        read = read_licsbas if _is_licsbas(place) else read_mintpy
        return read(place, track=track), {}
    if place.is_dir() and is_licsar(place):
        return read_licsar(place, track=track), {}
    return hyp3.find_products(place, track=track)


def is_stack_file(place: str | Path) -> bool:
    """Whether a place is a local HDF5 file, by its name."""
    return "://" not in str(place) and Path(place).suffix in (".h5", ".hdf5", ".he5")


def _is_licsbas(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "cum" in file or "imdates" in file
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}") from error


def read_geotiff_stack(
    folder: str | Path,
    *,
    pattern: str,
    track: str,
    coherence: str | None = None,
    elevation: str | None = None,
    wavelength: float | None = None,
    incidence_angle: float | None = None,
    heading: float | None = None,
    baselines: str | Path | None = None,
    acquisitions: str | Path | None = None,
    nodata: float | None = 0.0,
    phase_sign: int = 1,
) -> list[Interferogram]:
    """Read the records of a stack of GeoTIFFs, one file per pair and layer.

    Parameters
    ----------
    folder : path
        All other paths are relative to it (or absolute).
    pattern : str
        Phase rasters (rad), such as ``"unw/{reference}-{secondary}_*.tif"``; the dates
        are YYYYMMDD. If the date called reference is the later one, the record swaps
        the two and flips the signs of phase and baseline.
    track : str
        Such as ``"A005"``.
    coherence : str, optional
        Pattern of the coherence rasters (0 to 1).
    elevation : str, optional
        One raster for all pairs, m.
    wavelength, incidence_angle, heading : float, optional
        m, degrees from the vertical, degrees clockwise from north. The first two are
        else read from the tags WAVELENGTH_METRES and INCIDENCE_DEGREES of each phase
        raster, and the last two from `acquisitions`.
    baselines : path, optional
        CSV with reference, secondary and bperp_mean_m or perpendicular_baseline (m).
    acquisitions : path, optional
        CSV with date and any of utc_center_time (HH:MM:SS), heading_deg and
        incidence_deg_center. Without times, acquisitions are at 00:00 UTC.
    nodata : float, optional
        No-data value of phase and coherence where their files declare no finite one.
    phase_sign : int
        +1 if the phase is positive for range increase from the date called reference
        to the one called secondary, else -1.

    Returns
    -------
    list of Interferogram
        In the order of their dates.
    """
    folder = Path(folder).resolve()
    phases = _match_files(folder, pattern, "pattern")
    coherences = _match_files(folder, coherence, "coherence") if coherence else {}
    baseline_of = _read_baselines(folder / baselines) if baselines else {}
    passes = _read_acquisitions(folder / acquisitions) if acquisitions else {}
    shared = {}
    if elevation:
        declared = read_raster(folder / elevation).nodata
        shared["elevation"] = Asset(
            str(folder / elevation), "elevation", ROLES["elevation"], declared
        )
    for argument, table in (("coherence", coherences), ("baselines", baseline_of)):
        missing = ["-".join(pair) for pair in phases if table and pair not in table]
        if missing:
            warnings.warn(f"{argument} has nothing for {missing}", stacklevel=2)
    found = []
    for (first, second), path in sorted(phases.items()):
        raster = read_raster(path)
        unit = raster.tags.get("DATA_UNITS", "rad").lower()
        if unit not in ("rad", "radian", "radians"):
            raise ValueError(
                f"{path} is in {unit!r} by its tags and must be in radians"
            )
        absent = sorted({first, second} - passes.keys())
        if passes and absent:
            raise ValueError(f"{acquisitions=} has no row for {absent} of {path.name}")
        times = (
            _date(d, passes.get(d, {}).get("utc_center_time")) for d in (first, second)
        )
        length = _tag(raster, "WAVELENGTH_METRES") if wavelength is None else wavelength
        if length is None:
            raise ValueError(
                f"{path} has no tag WAVELENGTH_METRES: give wavelength=, m"
            )
        course = _cell(passes, first, "heading_deg") if heading is None else heading
        angle = incidence_angle
        if angle is None:
            angle = _tag(raster, "INCIDENCE_DEGREES")
        if angle is None:
            angle = _cell(passes, first, "incidence_deg_center")
        layers = {"unwrapped_phase": (path, raster)}
        if (first, second) in coherences:
            file = coherences[first, second]
            layers["coherence"] = (file, read_raster(file))
        assets = {
            role: Asset(str(file), role, ROLES[role], _finite(info.nodata, nodata))
            for role, (file, info) in layers.items()
        }
        found.append(
            Interferogram(
                id=f"{track}_{path.name.removesuffix('.tif')}",
                **earlier_first(
                    *times,
                    perpendicular_baseline=baseline_of.get((first, second), math.nan),
                    phase_sign=phase_sign,
                )._asdict(),
                track=track,
                wavelength=length,
                crs=raster.crs,
                shape=raster.shape,
                transform=raster.transform,
                incidence_angle=angle,
                heading=course,
                assets=assets | shared,
            )
        )
    return sorted(found, key=lambda r: (r.reference_time, r.secondary_time))


def _match_files(
    folder: Path, pattern: str, argument: str
) -> dict[tuple[str, str], Path]:
    """Files of a pattern with two dates, by (reference, secondary)."""
    for token in ("{reference}", "{secondary}"):
        if token not in pattern:
            raise ValueError(f"{argument}={pattern!r} must contain {token}")
    digits = "[0-9]" * 8
    wildcard = pattern.replace("{reference}", digits).replace("{secondary}", digits)
    expression, seen = "", set()
    for part in re.split(r"(\{reference\}|\{secondary\}|\*\*/|[*?])", pattern):
        name = part.strip("{}")
        if part.startswith("{") and name in seen:
            expression += f"(?P={name})"
        elif part.startswith("{"):
            seen.add(name)
            expression += rf"(?P<{name}>\d{{8}})"
        else:
            wild = {"*": "[^/]*", "?": "[^/]", "**/": "(?:.*/)?"}
            expression += wild.get(part, re.escape(part))
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob(wildcard)):
        match = re.fullmatch(expression, path.relative_to(folder).as_posix())
        if match is None:
            continue
        pair = match["reference"], match["secondary"]
        if pair in found:
            raise ValueError(
                f"{argument}={pattern!r} matches both {found[pair].name} and "
                f"{path.name} for {pair[0]}-{pair[1]}: make it narrower"
            )
        found[pair] = path
    if not found:
        raise ValueError(f"{argument}={pattern!r} matches no file in {folder}")
    return found


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a CSV file that must have `columns`."""
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            missing = set(columns) - set(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"table {path} cannot be read: {error}") from error
    if missing:
        raise ValueError(f"table {path} must have columns {sorted(missing)}")
    return rows


def _read_baselines(path: Path) -> dict[tuple[str, str], float]:
    """Perpendicular baselines, m, by (reference, secondary)."""
    rows = _read_table(path, ("reference", "secondary"))
    names = ("perpendicular_baseline", "bperp_mean_m")
    column = next((n for n in names if rows and n in rows[0]), None)
    if column is None:
        raise ValueError(f"table {path} must have rows and one of the columns {names}")
    return {(r["reference"], r["secondary"]): float(r[column]) for r in rows}


def _read_acquisitions(path: Path) -> dict[str, dict[str, str]]:
    """Rows of the table by date (YYYYMMDD)."""
    return {row["date"]: row for row in _read_table(path, ("date",))}


def _date(date: str, time_of_day: str | None) -> datetime:
    try:
        moment = time.fromisoformat(time_of_day) if time_of_day else time()
        day = datetime.strptime(date, "%Y%m%d").date()
    except ValueError:
        raise ValueError(
            f"{date=} with {time_of_day=} must be YYYYMMDD and HH:MM:SS"
        ) from None
    return datetime.combine(day, moment, tzinfo=UTC)


def _cell(table: Mapping[str, Mapping[str, str]], row: str, name: str) -> float | None:
    text = table.get(row, {}).get(name)
    return float(text) if text else None


def _tag(raster: Raster, name: str) -> float | None:
    return float(raster.tags[name]) if name in raster.tags else None


def _finite(declared: float | None, fallback: float | None) -> float | None:
    """Prefer the declared no-data value to `fallback` unless it is only NaN."""
    return fallback if declared is None or math.isnan(declared) else declared
