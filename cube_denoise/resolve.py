"""One stack of what a search finds: one track, one frame, one product of each pair."""

import re
import warnings
from collections.abc import Iterable
from itertools import groupby

from odc.geo.geom import polygon

from cube_denoise.interferogram import Interferogram
from cube_denoise.stac_item import footprint, frame_property

SAME_PLACE = 0.5
"""Share of the smaller footprint that versions of one product have in common."""


def resolve(interferograms: Iterable[Interferogram]) -> list[Interferogram]:
    """Make a stack of what was found: one track, one record per pair, in time order.

    Of several records of the same pair (`Interferogram.key`) the one is kept whose id
    tells the highest version (``v3_0_1``, ``v1.0``), of those the one whose id sorts
    last, with a warning: the choice does not depend on the order of the search.

    Raises
    ------
    ValueError
        If they are of several tracks, or if records of one pair overlap by less than
        half (`SAME_PLACE`): they are neighbouring frames of one pass, and pairs of one
        would be mixed with pairs of the other.
    """
    records = sorted(interferograms, key=lambda r: (r.key, _edition(r.id), r.id))
    tracks = sorted({r.track for r in records})
    if len(tracks) > 1:
        raise ValueError(
            f"interferograms are of tracks {tracks} and must be of one: search with "
            "orbit="
        )
    kept = []
    for key, group in groupby(records, key=lambda r: r.key):
        *others, last = group
        for other in others:
            _check_place(other, last)
        if others:
            warnings.warn(
                f"pair {'_'.join(key)} was found {len(others) + 1} times: kept "
                f"{last.id!r}, left out {[r.id for r in others]}",
                stacklevel=2,
            )
        kept.append(last)
    return sorted(kept, key=lambda r: (r.reference_time, r.secondary_time))


def _edition(name: str) -> tuple[int, ...]:
    """Version that an id tells, such as (3, 0, 1); empty if it tells none."""
    found = re.findall(r"[-_]v(\d+(?:_\d+_\d+|(?:\.\d+)+))", name)
    told = found[-1] if found else ""
    return tuple(int(number) for number in re.findall(r"\d+", told))


def _check_place(one: Interferogram, other: Interferogram) -> None:
    """Refuse records of one pair that are of different frames."""
    if (one.crs, one.shape, one.transform) == (other.crs, other.shape, other.transform):
        return
    first, second = (
        polygon([(x, y) for x, y in footprint(r)], "EPSG:4326") for r in (one, other)
    )
    share = (first & second).area / min(first.area, second.area)
    if share < SAME_PLACE:
        frames = sorted({str(frame_property(r.frame)) for r in (one, other) if r.frame})
        how = f", cube_denoise:frame={' or '.join(frames)}" * bool(frames)
        raise ValueError(
            f"pair {'_'.join(one.key)} was found in two frames, which overlap by "
            f"{share:.0%}: {one.id!r} and {other.id!r}; a cube holds one frame: search "
            f"with a bbox that touches one alone, or a filter{how}"
        )
