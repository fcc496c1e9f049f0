"""GAMMA's map parameter files, ``dem_par``: the grid of geocoded flat files.

Their corner is the middle of the first pixel; the numbers of the files that they
describe are big-endian.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLOAT = ">f4"
"""Numbers of GAMMA's flat files of REAL*4."""
_EQUIANGULAR = ("corner_lat", "corner_lon", "post_lat", "post_lon")
_PROJECTED = ("corner_north", "corner_east", "post_north", "post_east")


def read_parameters(*files: Path) -> dict[str, str]:
    """Keys and values (``key: value unit`` or ``key=value``) of the files there are."""
    found: dict[str, str] = {}
    for file in files:
        if file.is_file():
            for line in file.read_text().splitlines():
                if match := re.match(r"(\w+)\s*[:=]\s*(\S+)", line):
                    found.setdefault(match[1], match[2])
    return found


def read_number(text: Mapping[str, str], name: str, where: Path) -> float | None:
    """Number of a parameter; None where it is not told."""
    try:
        return float(text[name]) if name in text else None
    except ValueError:
        raise ValueError(f"{name}={text[name]!r} of {where} must be a number") from None


def read_map_grid(path: Path) -> dict[str, Any]:
    """CRS, shape and transform of a ``dem_par`` file (EQA or UTM)."""
    return map_grid(read_parameters(path), path)


def map_grid(text: Mapping[str, str], where: Path) -> dict[str, Any]:
    """CRS, shape and transform of map parameters.

    Parameters
    ----------
    text : mapping
        The parameters, as `read_parameters` gives them.
    where : pathlib.Path
        What they were read from.

    Raises
    ------
    ValueError
        If one is missing, or the projection is another than EQA or UTM.
    """
    kind = text.get("DEM_projection", "EQA").upper()
    if kind not in ("EQA", "UTM"):
        raise ValueError(f"{where} has DEM_projection {kind}: must be EQA or UTM")
    corner = _EQUIANGULAR if kind == "EQA" else _PROJECTED
    names = (*corner, "nlines", "width")
    values = [read_number(text, name, where) for name in names]
    zone = read_number(text, "projection_zone", where)
    if None in values or (kind == "UTM" and zone is None):
        missing = [n for n, v in zip(names, values, strict=True) if v is None]
        missing += ["projection_zone"] if kind == "UTM" and zone is None else []
        raise ValueError(f"{where} is not there or does not tell {', '.join(missing)}")
    y, x, dy, dx, rows, columns = (v for v in values if v is not None)
    crs = "EPSG:4326"
    if zone is not None and kind == "UTM":
        south = (read_number(text, "false_northing", where) or 0.0) > 0
        crs = f"EPSG:{32600 + 100 * south + int(zone)}"
    return {
        "crs": crs,
        "shape": (int(rows), int(columns)),
        "transform": (dx, 0.0, x - dx / 2, 0.0, dy, y - dy / 2),
    }
