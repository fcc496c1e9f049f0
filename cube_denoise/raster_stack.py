"""Stacks of rasters, one file per pair and layer: whatever GDAL opens, or flat numbers.

The general door for products that no reader knows: GeoTIFFs, ``.vrt`` files of ISCE's
geocoded interferograms (band 2 is the phase), ENVI files, and GAMMA's geocoded flat
files with their ``dem_par``. Raw arrays of any kind come in by a ``.vrt`` beside them,
which tells their type, byte order, place and order of rows. Of 801 x 801 float32 with
the first row in the south, read from the last row backward::

    <VRTDataset rasterXSize="801" rasterYSize="801">
      <SRS>EPSG:32634</SRS>
      <GeoTransform>564550, 100, 0, 4440450, 0, -100</GeoTransform>
      <VRTRasterBand dataType="Float32" band="1" subClass="VRTRawRasterBand">
        <SourceFilename relativeToVRT="1">greece.unw</SourceFilename>
        <ImageOffset>2563200</ImageOffset>
        <PixelOffset>4</PixelOffset>
        <LineOffset>-3204</LineOffset>
        <ByteOrder>LSB</ByteOrder>
      </VRTRasterBand>
    </VRTDataset>
"""

import csv
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from cube_denoise.conventions import displacement_to_phase
from cube_denoise.file_parts import Part
from cube_denoise.gamma import FLOAT, read_map_grid
from cube_denoise.interferogram import (
    ROLES,
    Asset,
    Interferogram,
    Raster,
    earlier_first,
    read_raster,
)
from cube_denoise.product_files import check_heading

METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
"""Units of displacement, m."""
_SPELLINGS = {
    "rad": ("rad", "radian", "radians"),
    "m": ("m", "meter", "meters", "metre", "metres"),
    "cm": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
}


def read_raster_stack(
    folder: str | Path,
    *,
    pattern: str,
    track: str,
    coherence: str | None = None,
    mask: str | None = None,
    elevation: str | None = None,
    wavelength: float | None = None,
    incidence_angle: float | None = None,
    heading: float | None = None,
    baselines: str | Path | None = None,
    acquisitions: str | Path | None = None,
    nodata: float | None = 0.0,
    phase_sign: int = 1,
    unit: str | None = None,
    band: int = 1,
    grid: str | Path | None = None,
) -> list[Interferogram]:
    """Read the records of a stack of rasters, one file per pair and layer.

    Parameters
    ----------
    folder : path
        All other paths are relative to it (or absolute).
    pattern : str
        Phase rasters, such as ``"unw/{reference}-{secondary}_*.tif"``; the dates are
        YYYYMMDD. If the date called reference is the later one, the record swaps the
        two and flips the signs of phase and baseline.
    track : str
        Such as ``"A005"``.
    coherence : str, optional
        Pattern of the coherence rasters (0 to 1).
    mask : str, optional
        Pattern of rasters that are 0 where the phase does not hold: connected
        components, or a mask.
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
        +1 if the phase, or displacement, is positive for range increase (away from the
        satellite) from the date called reference to the one called secondary, else -1.
    unit : str, optional
        Of the phase rasters: ``"rad"`` (default), or of displacement along the line of
        sight ``"m"``, ``"cm"`` or ``"mm"``. A raster that tells another, as its unit
        or by the tag DATA_UNITS, is refused.
    band : int
        Of the phase rasters: 2 in unwrapped interferograms of ISCE.
    grid : path, optional
        GAMMA's ``dem_par`` of geocoded files: phase, coherence and elevation are then
        flat files of big-endian float32.

    Returns
    -------
    list of Interferogram
        In the order of their dates.

    Raises
    ------
    ValueError
        If a pattern matches no file, or a file is not as it must be.
    """
    if unit is not None and unit not in _SPELLINGS:
        raise ValueError(f"{unit=} must be one of {list(_SPELLINGS)}")
    folder = Path(folder).resolve()
    place = None if grid is None else read_map_grid(folder / grid)
    phases = _match_files(folder, pattern, "pattern")
    layers = {
        role: _match_files(folder, given, role)
        for role, given in (("coherence", coherence), ("mask", mask))
        if given
    }
    baseline_of = _read_baselines(folder / baselines) if baselines else {}
    passes = _read_acquisitions(folder / acquisitions) if acquisitions else {}
    shared = {}
    if elevation:
        shared["elevation"] = _asset("elevation", folder / elevation, place, None)
    tables: Mapping[str, Mapping[tuple[str, str], Any]]
    tables = layers | {"baselines": baseline_of}
    for argument, table in tables.items():
        missing = ["-".join(pair) for pair in phases if table and pair not in table]
        if missing:
            warnings.warn(f"{argument} has nothing for {missing}", stacklevel=2)
    found = []
    for (first, second), path in sorted(phases.items()):
        raster = _header(path, place, band)
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
        check_heading(course, track)
        angle = incidence_angle
        if angle is None:
            angle = _tag(raster, "INCIDENCE_DEGREES")
        if angle is None:
            angle = _cell(passes, first, "incidence_deg_center")
        role = "unwrapped_phase"
        assets = {
            role: replace(
                _asset(role, path, place, nodata, band),
                scale=_radians(_unit(raster, unit, path), length),
            )
        } | {
            role: _asset(role, files[first, second], place, nodata)
            for role, files in layers.items()
            if (first, second) in files
        }
        found.append(
            Interferogram(
                id=f"{track}_{_name(path, folder, pattern)}",
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


def _header(path: Path, place: Mapping[str, Any] | None, band: int = 1) -> Raster:
    """Header of a raster, or of a flat file on a grid."""
    if place is None:
        return read_raster(path, band)
    rows, columns = place["shape"]
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if size != 4 * rows * columns:
        raise ValueError(
            f"{path} has {size} bytes: must be 4 x {rows} x {columns}, as its grid "
            "tells; it may be cut short"
        )
    return Raster(**place, nodata=None, tags={}, dtype="float32", unit="")


def _asset(
    role: str,
    path: Path,
    place: Mapping[str, Any] | None,
    nodata: float | None,
    band: int = 1,
) -> Asset:
    header = _header(path, place, band)
    fallback = None if role == "mask" else nodata
    return Asset(
        str(path),
        role,
        ROLES[role],
        _finite(header.nodata, fallback) if role != "elevation" else header.nodata,
        part=None if place is None else Part(dtype=FLOAT),
        band=band if place is None else 1,
    )


def _unit(raster: Raster, given: str | None, path: Path) -> str:
    """Key of `_SPELLINGS`; what is given and what the raster tells must agree."""
    told = (raster.tags.get("DATA_UNITS") or raster.unit).strip().lower()
    wanted = given or "rad"
    if told and told not in _SPELLINGS[wanted]:
        raise ValueError(
            f"{path} is in {told!r} by its tags and must be in {wanted!r}: give its "
            f"unit, one of {', '.join(_SPELLINGS)} (cube-denoise index --unit, unit=)"
        )
    return wanted


def _radians(unit: str, wavelength: float) -> float:
    """What a number in a unit is in radians, positive alike."""
    if unit == "rad":
        return 1.0
    return abs(displacement_to_phase(METRES[unit], wavelength))


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


def _name(path: Path, folder: Path, pattern: str) -> str:
    """Name of a file; with folders below `folder` where the dates are in those."""
    last = pattern.rpartition("/")[2]
    if not all(token in last for token in ("{reference}", "{secondary}")):
        path = Path(path.relative_to(folder).as_posix().replace("/", "_"))
    return path.name.removesuffix(".tif")


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
