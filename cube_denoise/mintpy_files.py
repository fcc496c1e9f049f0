"""What the HDF5 files of MintPy have in common: attributes as text, grid, dates."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

PLACE = ("X_FIRST", "Y_FIRST", "X_STEP", "Y_STEP")
"""Attributes of a geocoded file: outer corner of the first pixel, and pixel size."""


def attributes_of(file: Any) -> dict[str, str]:
    """Attributes of an open `h5py.File` as text."""
    return {
        k: v.decode() if isinstance(v, bytes) else str(v) for k, v in file.attrs.items()
    }


def crs_of(fields: Mapping[str, str], path: Path) -> str:
    """CRS of a geocoded file, from its attributes."""
    zone = re.fullmatch(r"(\d+)([NS])", fields.get("UTM_ZONE", ""))
    if "EPSG" in fields:
        return f"EPSG:{fields['EPSG']}"
    if zone:
        return f"EPSG:{32600 + 100 * (zone[2] == 'S') + int(zone[1])}"
    if not fields.get("X_UNIT", "degrees").startswith("deg"):
        raise ValueError(f"{path} is in {fields['X_UNIT']} and lacks EPSG or UTM_ZONE")
    return "EPSG:4326"


def transform_of(
    fields: Mapping[str, str], path: Path
) -> tuple[float, float, float, float, float, float]:
    """Affine transform of a geocoded file.

    Raises
    ------
    ValueError
        If the file is in radar coordinates.
    """
    missing = [k for k in PLACE if k not in fields]
    if missing:
        raise ValueError(
            f"{path} is in radar coordinates (it lacks {', '.join(missing)}): a cube "
            "needs geocoded images; load geocoded interferograms into MintPy, or "
            "geocode a time series with geocode.py and read that"
        )
    x, y, dx, dy = (_number(fields, k, path) for k in PLACE)
    return dx, 0.0, x, 0.0, dy, y


def number_of(fields: Mapping[str, str], name: str, path: Path) -> float | None:
    """Attribute as a number; None where there is none."""
    return _number(fields, name, path) if name in fields else None


def _number(fields: Mapping[str, str], name: str, path: Path) -> float:
    try:
        return float(fields[name])
    except ValueError:
        raise ValueError(
            f"{name}={fields[name]!r} in {path} must be a number"
        ) from None


def moment(date: bytes | str, fields: Mapping[str, str], path: Path) -> datetime:
    """Time of an acquisition: its date, at CENTER_LINE_UTC where that is given."""
    text = date.decode() if isinstance(date, bytes) else str(date)
    try:
        day = datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"date {text!r} in {path} must be YYYYMMDD") from None
    return day + timedelta(seconds=number_of(fields, "CENTER_LINE_UTC", path) or 0)
