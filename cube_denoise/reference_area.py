"""Reference areas: what may be asked for, and what is recorded of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.crs import CRS
from odc.geo.geom import Geometry
from pyproj.exceptions import CRSError

from cube_denoise.conventions import X, Y

WINDOW = 5
"""Side of the square of pixels around a point, if neither it nor a radius is given."""

LONLAT = "EPSG:4326"

FORMS = {
    "pixels": ({Y, X}, "y: [first, last + 1], x: likewise"),
    "point": ({"lon", "lat"}, "lon and lat, or x and y in the cube's CRS"),
    "polygon": ({"type"}, "GeoJSON or the path of a GeoJSON file"),
}
"""Forms of a reference: the keys that tell it, and what it looks like."""


@dataclass(frozen=True, eq=False)
class ReferenceArea:
    """Pixels whose mean phase is zero in every pair."""

    y: slice
    """Rows of the window around them."""
    x: slice
    """Columns."""
    mask: np.ndarray | None = None
    """Which pixels of the window, bool; None = all."""
    place: Mapping[str, Any] | None = None
    """Point or polygon that was asked for, JSON-able."""

    def __eq__(self, other: object) -> bool:
        """Whether the pixels are the same."""
        if not isinstance(other, ReferenceArea):
            return NotImplemented
        same = (self.y, self.x) == (other.y, other.x)
        if self.mask is None or other.mask is None:
            return same and self.mask is other.mask
        return same and np.array_equal(self.mask, other.mask)

    __hash__ = None  # type: ignore[assignment]

    def cut(self, values: Any) -> np.ndarray:
        """Values of the window of an array (..., y, x), NaN outside the mask."""
        inside = np.asarray(values[..., self.y, self.x])
        return inside if self.mask is None else np.where(self.mask, inside, np.nan)

    def attributes(self) -> dict[str, Any]:
        """As layers record it; `recorded_reference` reads it back."""
        told: dict[str, Any] = {
            "reference_rows": [self.y.start, self.y.stop],
            "reference_columns": [self.x.start, self.x.stop],
        }
        if self.place is not None:
            told["reference_place"] = json.dumps(self.place)
        return told


Reference = Mapping[str, Any] | ReferenceArea | str | PathLike[str] | None
"""What the argument `reference` of an inversion may be; see `invert.invert`."""


def recorded_reference(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """`reference` that gives the same pixels again, from a layer's attributes."""
    if "reference_place" in attributes:
        place: dict[str, Any] = json.loads(attributes["reference_place"])
        return place
    return {
        Y: list(attributes["reference_rows"]),
        X: list(attributes["reference_columns"]),
    }


def asked_reference(reference: Reference) -> dict[str, Any] | None:
    """`reference` with its defaults and the content of its file, JSON-able.

    Two references that are written differently but mean the same give the same.

    Returns
    -------
    dict or None
        Pixel limits ``{"y": [first, last + 1], "x": likewise}``, a point, or a GeoJSON
        geometry; None if the area is to be chosen.

    Raises
    ------
    ValueError
        If it is none of these, or two of them at once.
    """
    if reference is None or reference == "auto":
        return None
    if isinstance(reference, ReferenceArea):
        return recorded_reference(reference.attributes())
    if isinstance(reference, (str, PathLike)):
        return _polygon(_read(Path(reference)), f"reference={str(reference)!r}")
    if not isinstance(reference, Mapping):
        raise _unknown(reference)
    form = _form(reference)
    if form == "polygon":
        return _polygon(reference, f"reference of type {reference['type']!r}")
    return _point(reference) if form == "point" else _pixels(reference)


def _form(reference: Mapping[str, Any]) -> str:
    """Name of the form in `FORMS`, if it is exactly one."""
    forms = [f for f, (keys, _) in FORMS.items() if keys & set(reference)]
    if len(forms) > 1 or ("point" in forms and {Y, X} & set(reference)):
        raise ValueError(
            f"reference has the keys {', '.join(map(str, reference))}: it gives "
            f"{' and '.join(forms)}, and must give one of them"
        )
    if not forms:
        raise _unknown(reference)
    if forms == ["pixels"]:
        if not {Y, X} <= set(reference):
            raise ValueError(
                f"{reference=} must have the slices {Y!r} and {X!r}, or be a point"
            )
        numbers = [isinstance(reference[d], (int, float)) for d in (Y, X)]
        return "point" if all(numbers) else "pixels"
    return forms[0]


def _unknown(reference: Any) -> ValueError:
    known = "; ".join(f"{name} ({looks})" for name, (_, looks) in FORMS.items())
    return ValueError(f'{reference=} must be "auto" or give {known}')


def _pixels(reference: Mapping[str, Any]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    try:
        if set(reference) != {Y, X}:
            raise ValueError
        for d in (Y, X):
            part = reference[d]
            if isinstance(part, slice):
                if part.step not in (None, 1):
                    raise ValueError
                part = (part.start, part.stop)
            first, last = (None if n is None else int(n) for n in part)
            limits[d] = [first, last]
    except (TypeError, ValueError):
        raise ValueError(
            f"{reference=} must give pixel limits: y: [first, last + 1], x: likewise"
        ) from None
    return limits


def _point(reference: Mapping[str, Any]) -> dict[str, Any]:
    names = ("lon", "lat") if {"lon", "lat"} & set(reference) else (X, Y)
    wrong = set(reference) - {*names, "window", "radius"}
    try:
        place = {n: float(reference[n]) for n in names}
    except (KeyError, TypeError, ValueError):
        place = {}
    if wrong or not place or not np.isfinite(list(place.values())).all():
        raise ValueError(
            f"{reference=} must give numbers for {' and '.join(names)}, and may give "
            "window (pixels) or radius (m)"
        )
    if "window" in reference and "radius" in reference:
        raise ValueError(
            f"{reference=} gives window and radius: it must give one of them"
        )
    size = {k: reference[k] for k in ("window", "radius") if k in reference}
    size = size or {"window": WINDOW}
    (name, value), number = *size.items(), (int, float)
    odd = isinstance(value, int) and value % 2 == 1
    if not isinstance(value, number) or not value > 0 or (name == "window" and not odd):
        raise ValueError(
            f"reference {name}={value!r} must be "
            + ("an odd number of pixels" if name == "window" else "metres, above 0")
        )
    return place | size


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"reference={str(path)!r} must be 'auto' or a GeoJSON file: {error}"
        ) from None
    return found if isinstance(found, Mapping) else {}


def _polygon(geojson: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """One geometry of all polygons, with the CRS if it is not of longitudes."""
    polygons: list[Any] = []
    parts: list[Any] = [geojson]
    while parts:
        part = parts.pop(0)
        kind = part.get("type") if isinstance(part, Mapping) else None
        inner = {"FeatureCollection": "features", "GeometryCollection": "geometries"}
        if kind in inner:
            parts = [*(part.get(inner[kind]) or ()), *parts]
        elif kind == "Feature":
            parts.insert(0, part.get("geometry"))
        elif kind in ("Polygon", "MultiPolygon"):
            given = part.get("coordinates") or ()
            polygons += [given] if kind == "Polygon" else given
        else:
            raise ValueError(f"{shown} has a {kind}: it must hold polygons only")
    if not polygons:
        raise ValueError(f"{shown} holds no polygon")
    polygons = [_rings(polygon, shown) for polygon in polygons]
    found: dict[str, Any] = {"type": "MultiPolygon", "coordinates": polygons}
    if "crs" in geojson:
        name = _crs(geojson["crs"], shown)
        if name is not None:
            found["crs"] = {"type": "name", "properties": {"name": name}}
        return found
    x, y = np.concatenate([ring for rings in polygons for ring in rings]).T
    if abs(x).max() > 360 or abs(y).max() > 90:
        raise ValueError(
            f"{shown} reaches from {x.min():g}, {y.min():g} to {x.max():g}, "
            f"{y.max():g}: without a member crs these must be longitudes and latitudes"
        )
    return found


def _rings(polygon: Any, shown: str) -> list[list[list[float]]]:
    """Coordinates of a polygon: x and y only, finite, rings that do not cross."""
    try:
        rings = [[[float(x), float(y)] for x, y, *_ in ring] for ring in polygon]
        if not rings or not all(np.isfinite(ring).all() for ring in rings):
            raise ValueError("no rings, or numbers that are not finite")
        if any(len(ring) < 4 or ring[0] != ring[-1] for ring in rings):
            raise ValueError("a ring has four points or more and ends as it begins")
        shape = Geometry({"type": "Polygon", "coordinates": rings}, None)
        if shape.is_empty or not shape.is_valid:
            raise ValueError("rings cross, or are empty")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{shown} holds an invalid polygon: {error}") from None
    return rings


def _crs(member: Any, shown: str) -> str | None:
    """Name of the CRS of a GeoJSON file; None if it is of longitudes and latitudes."""
    try:
        name = str(member["properties"]["name"])
        crs = CRS(name)
    except (TypeError, KeyError, CRSError):
        raise ValueError(
            f"{shown} has crs={member!r}: it must be "
            '{"type": "name", "properties": {"name": "EPSG:32614"}}, say'
        ) from None
    return None if crs == CRS(LONLAT) or "CRS84" in name else name
