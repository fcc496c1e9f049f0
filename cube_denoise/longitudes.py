"""Places on the globe as GeoJSON has them, across the antimeridian too.

A box across it has a west that is larger than its east (RFC 7946), an outline is then
two polygons.
"""

from collections.abc import Sequence
from typing import Any


def continuous(ring: Sequence[Sequence[float]]) -> list[list[float]]:
    """Ring of [longitude, latitude] without jumps of 360 degrees; east beyond 180."""
    found = [list(ring[0])]
    for longitude, latitude in ring[1:]:
        turns = round((longitude - found[-1][0]) / 360)
        found.append([longitude - 360 * turns, latitude])
    west = min(longitude for longitude, _ in found)
    shift = (west + 180) // 360 * 360
    return [[longitude - shift, latitude] for longitude, latitude in found]


def bounds_of(ring: Sequence[Sequence[float]]) -> list[float]:
    """West, south, east, north of a ring."""
    west, south, east, north = (
        f(axis) for f in (min, max) for axis in zip(*continuous(ring), strict=True)
    )
    return [west, south, east - 360 if east > 180 else east, north]


def outline(ring: Sequence[Sequence[float]]) -> dict[str, Any]:
    """GeoJSON of the area in a ring: a polygon, or one on either side."""
    from shapely import box
    from shapely.affinity import translate
    from shapely.geometry import Polygon, mapping

    whole = continuous(ring)
    if max(longitude for longitude, _ in whole) <= 180:
        return {"type": "Polygon", "coordinates": [whole]}
    area = Polygon(whole)
    west = area.intersection(box(-180, -90, 180, 90))
    east = translate(area.intersection(box(180, -90, 540, 90)), -360)
    parts = [mapping(part)["coordinates"] for part in (west, east)]
    return {"type": "MultiPolygon", "coordinates": parts}


def union(boxes: Sequence[Sequence[float]]) -> list[float]:
    """Box around boxes; of all longitudes if only some are across the antimeridian."""
    west, south, east, north = zip(*boxes, strict=True)
    across = {box[0] > box[2] for box in boxes}
    limits = (min(west), max(east)) if len(across) == 1 else (-180.0, 180.0)
    return [limits[0], min(south), limits[1], max(north)]


def touch(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes have a point in common; also of six numbers, with heights."""
    flat = ([*b[:2], *b[3:5]] if len(b) == 6 else b for b in (one, other))
    (a, b, c, d), (e, f, g, h) = flat
    c, g = c + 360 * (c < a), g + 360 * (g < e)
    around = any(a <= g + turn and e + turn <= c for turn in (-360, 0, 360))
    return around and b <= h and f <= d
