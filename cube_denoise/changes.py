"""What a source has that a cube has not: new, reprocessed and withdrawn pairs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cube_denoise import store
from cube_denoise.interferogram import Interferogram
from cube_denoise.places import without_secrets

COMPARED = ("unwrapped_phase", "coherence")
"""Roles of the rasters that make a pair what it is."""


@dataclass(frozen=True)
class Changes:
    """What an update has to do."""

    new: tuple[Interferogram, ...] = ()
    """Pairs that the cube has not."""
    reprocessed: tuple[Interferogram, ...] = ()
    """Pairs that the cube has from another item, or another version of it."""
    withdrawn: tuple[Mapping[str, Any], ...] = ()
    """Items of the cube that the search which brought them finds no longer."""

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.new or self.reprocessed or self.withdrawn)


def compare(
    known: Iterable[Mapping[str, Any]],
    records: Sequence[Interferogram],
    *,
    search: str | None = None,
) -> Changes:
    """Compare the items of a cube with the answer of a search.

    Parameters
    ----------
    known : iterable of mapping
        The cube's attribute ``items``, see `as_item`.
    records : sequence of interferogram.Interferogram
        One per pair, as from `catalog.resolve`.
    search : str, optional
        Mark of the search. Only pairs that the same search has brought can be
        withdrawn by it; without, none.

    Returns
    -------
    Changes
    """
    there = {tuple(item["key"]): item for item in known}
    found = {record.key for record in records}
    return Changes(
        new=tuple(r for r in records if r.key not in there),
        reprocessed=tuple(
            r for r in records if r.key in there and _differs(there[r.key], r)
        ),
        withdrawn=tuple(
            item
            for key, item in there.items()
            if search and item.get("search") == search and key not in found
        ),
    )


def _differs(item: Mapping[str, Any], record: Interferogram) -> bool:
    if item["id"] != record.id:
        return True
    # Cubes made by earlier versions tell nothing but the id.
    return "version" in item and item["version"] != source_version(record)


def difference(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """Which pairs came, were replaced and went, by the ids of their items."""
    old = {tuple(item["key"]): item for item in before}
    new = {tuple(item["key"]): item for item in after}
    same = ("id", "version")
    return {
        "added": [new[k]["id"] for k in new if k not in old],
        "replaced": [
            {"old": old[k]["id"], "new": new[k]["id"]}
            for k in new
            if k in old and any(new[k].get(n) != old[k].get(n) for n in same)
        ],
        "withdrawn": [old[k]["id"] for k in old if k not in new],
    }


def source_version(record: Interferogram) -> str:
    """Tell versions of a product apart.

    The STAC item's ``updated`` or ``created``; without either a fingerprint of where
    its rasters are and, for local files, their size and time of change. The query of a
    URL does not count: it may be a signature that is new each time. No server is asked.
    """
    if record.version:
        return record.version
    told = []
    for role in COMPARED:
        if role in record.assets:
            href = record.assets[role].href
            told.append([role, without_secrets(href), *_file(href)])
    return f"files:{store.fingerprint({'assets': told})}"


def as_item(record: Interferogram, search: str | None) -> dict[str, Any]:
    """What a cube remembers of where a pair came from."""
    found = {"id": record.id, "key": list(record.key)}
    found["version"] = source_version(record)
    return found | ({"search": search} if search else {})


def _file(href: str) -> list[int]:
    if "://" in href:
        return []
    try:
        told = Path(href).stat()
    except OSError:
        return []
    return [told.st_size, told.st_mtime_ns]
