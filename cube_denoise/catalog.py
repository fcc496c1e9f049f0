"""Catalogs of interferograms: STAC in, STAC out.

`search` gives the same records whether they come from a STAC API, a static catalog or
an item list. Every condition is applied here, whatever a server says it has applied.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pystac

from cube_denoise import source_profiles
from cube_denoise.conditions import (
    checked_bbox,
    orbit_conditions,
    overlaps,
    parse_condition,
    parse_interval,
)
from cube_denoise.longitudes import bounds_of, touch, union
from cube_denoise.products import Interferogram, find_products, is_stack_file
from cube_denoise.resolve import resolve
from cube_denoise.source_profiles import NamedProduct
from cube_denoise.stac_item import as_path, footprint, from_item, to_item
from cube_denoise.stac_source import guarded, listed, open_items, read_source

__all__ = [
    "from_item",
    "read_items",
    "resolve",
    "search",
    "to_item",
    "write_catalog",
    "write_items",
]

logger = logging.getLogger(__name__)


def search(
    source: str | Path,
    *,
    collections: Sequence[str] | None = None,
    bbox: Sequence[float] | None = None,
    datetime: str | None = None,
    orbit: str | int | None = None,
    filters: Sequence[str] | None = None,
    incidence_angle: float | None = None,
    heading: float | None = None,
    static: Sequence[str] = (),
) -> list[Interferogram]:
    """Find interferograms in a STAC API, a static catalog, an item list or a stack.

    Parameters
    ----------
    source : str or path
        URL of a STAC API; path or URL of a static catalog; path or URL of an item list
        (see `write_items`). A folder stands for the ``catalog.json`` in it. Or a HDF5
        stack or series as `products.find_products` reads it.
    collections : sequence of str, optional
        Ids of the collections to look in; otherwise all.
    bbox : sequence of 4 float, optional
        West, south, east, north, degrees; footprints that touch it are found. Across
        the antimeridian west > east, or east > 180.
    datetime : str, optional
        A date or ``start/end`` (``..`` = open). Pairs are found whose time from
        reference to secondary has a moment in common with it.
    orbit : str or int, optional
        Track (``"A005"``) or relative orbit (``5``).
    filters : sequence of str, optional
        Conditions on item properties that must all hold, such as
        ``"insar:temporal_baseline<=48"``. An item without the property is left out.
    incidence_angle, heading : float, optional
        Degrees; of OPERA's DISP-S1 products, which do not tell them.
    static : sequence of str, optional
        Or their static layers, paths or addresses, as of `opera.read_opera`.

    Returns
    -------
    list of Interferogram
        As found; empty when there are none. See `resolve`. Of items that are known by
        the name of their product alone (`source_profiles`) the headers are read; one
        that is broken or gone is left out, with a logged warning.
    """
    lists = {"collections": collections, "filters": filters, "static": static}
    for name, texts in lists.items():
        if isinstance(texts, str):
            raise ValueError(f"{name}={texts!r} must be a list")
    look: dict[str, Any]
    look = {"incidence_angle": incidence_angle, "heading": heading, "static": static}
    if datetime is not None and not isinstance(datetime, str):
        raise ValueError(
            f"{datetime=} must be text, such as '2018' or '2018-01-01/2018-07-31'"
        )
    conditions = [parse_condition(text) for text in filters or ()]
    conditions += orbit_conditions(orbit) if orbit is not None else []
    interval = parse_interval(datetime)
    if bbox is not None:
        bbox = checked_bbox(bbox)
    items: Iterator[pystac.Item]
    if is_stack_file(source):
        read, _ = find_products(source, **look)
        items = (to_item(record) for record in read)
    elif source_profiles.applies(source, collections):
        places = {"collections": collections, "bbox": bbox}
        items = open_items(source, (), {k: v for k, v in places.items() if v})
    else:
        narrowing = {"collections": collections, "bbox": bbox, "datetime": datetime}
        asked = {k: v for k, v in narrowing.items() if v}
        items = open_items(source, conditions, asked)
    found: dict[tuple[str | None, str], Interferogram | NamedProduct] = {}
    for item in guarded(items, source):
        key = item.collection_id, item.id
        if key in found:
            logger.info("%s gives item %s again: left out", source, item.id)
            continue
        if collections and item.collection_id not in collections:
            continue
        product = source_profiles.named_product(item)
        told = item.properties if product is None else product.properties
        if not all(
            condition.holds(told)
            for condition in conditions
            if product is None or condition.name in told
        ):
            continue
        if bbox and item.bbox and not touch(bbox, item.bbox):
            continue
        if product is not None:
            if overlaps(product.earlier, product.later, interval):
                found[key] = product
            continue
        record = from_item(item)
        if bbox and not item.bbox and not touch(bbox, _bounds(record)):
            continue
        if not overlaps(record.reference_time, record.secondary_time, interval):
            continue
        found[key] = record
    records = []
    entries = list(found.values())
    for record, entry in _read_headers(entries, look):
        if isinstance(entry, NamedProduct):
            told = {**to_item(record).properties, **entry.properties}
            if not all(condition.holds(told) for condition in conditions):
                continue
            if bbox and not touch(bbox, _bounds(record)):
                continue
        records.append(record)
    logger.info("%s: %d interferograms", source, len(records))
    return records


def _read_headers(
    found: Sequence[Interferogram | NamedProduct], look: Mapping[str, Any]
) -> Iterator[tuple[Interferogram, Interferogram | NamedProduct]]:
    """Records, and what was found of each, in that order."""
    named = [p for p in found if isinstance(p, NamedProduct)]
    read = iter(source_profiles.read_named(named, **look))
    for entry in found:
        record = next(read) if isinstance(entry, NamedProduct) else entry
        if record is not None:
            yield record, entry


def write_items(interferograms: Iterable[Interferogram], path: str | Path) -> Path:
    """Write records as an item list (a STAC ItemCollection), links absolute."""
    path = Path(path).resolve()
    with _whole(path) as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for k, record in enumerate(interferograms):
            item = to_item(record).to_dict(include_self_link=False)
            file.write(",\n" if k else "\n")
            json.dump(item, file, indent=1, allow_nan=False)
        file.write("\n]}\n")
    return path


def read_items(path: str | Path) -> list[Interferogram]:
    """Read all records of an item list."""
    data, href = read_source(path)
    if data["type"] != "FeatureCollection":
        raise ValueError(f"{path} is a STAC {data['type']} and must be an item list")
    return [from_item(item) for item in guarded(listed(data, href), path)]


def write_catalog(
    interferograms: Iterable[Interferogram],
    path: str | Path,
    *,
    collection: str = "interferograms",
) -> Path:
    """Write a static STAC collection: ``catalog.json`` and one file per item beside it.

    Rasters below the folder of the catalog, or below its parent, are linked relatively,
    so that they can be moved together with it. A reader sees the old catalog or the
    new one: items are written first, each whole; then the catalog; then items that only
    the old one had are removed.

    Parameters
    ----------
    interferograms : iterable of Interferogram
        At least one; ids must differ.
    path : path
        The JSON file, or the folder for a ``catalog.json``.
    collection : str
        Id of the collection.

    Returns
    -------
    Path
        Of the JSON file.
    """
    records = list(interferograms)
    if not records:
        raise ValueError("interferograms is empty: a catalog must have at least one")
    path = Path(path).resolve()
    if _ends_links(str(path)):
        raise ValueError(
            f"path={str(path)!r} must have no '#' or '?' in it: links would end there"
        )
    path = path if path.suffix == ".json" else path / "catalog.json"
    folder = path.parent / "items"
    names = [re.sub(r"[^\w.-]", "_", r.id) + ".json" for r in records]
    if len(set(names)) < len(names):
        twice = sorted({n[:-5] for n in names if names.count(n) > 1})
        raise ValueError(
            f"interferograms have ids {twice} more than once: resolve them"
        )
    times = (
        min(r.reference_time for r in records),
        max(r.secondary_time for r in records),
    )
    root = pystac.Collection(
        id=collection,
        description="Unwrapped interferograms, one item per pair.",
        extent=pystac.Extent(
            pystac.SpatialExtent([union([_bounds(r) for r in records])]),
            pystac.TemporalExtent([[*times]]),
        ),
        license="other",
    ).to_dict(include_self_link=False)
    kind = {"type": "application/json"}
    root["links"] = [{"rel": "root", "href": f"./{path.name}"} | kind]
    up = [
        {"rel": r, "href": f"../{path.name}"} | kind
        for r in ("root", "parent", "collection")
    ]
    before = _item_links(path)
    for record, name in zip(records, names, strict=True):
        item = to_item(record).to_dict(include_self_link=False)
        item |= {"collection": collection, "links": up}
        for asset in item["assets"].values():
            asset["href"] = _near(asset["href"], folder)
        _write_json(folder / name, item)
        link = {
            "rel": "item",
            "href": f"./items/{name}",
            "type": "application/geo+json",
        }
        root["links"].append(link)
    _write_json(path, root)
    for stale in before - {f"./items/{name}" for name in names}:
        (path.parent / stale).unlink(missing_ok=True)
    return path


def _item_links(path: Path) -> set[str]:
    """Item files of the catalog that `write_catalog` wrote here before, if it did."""
    try:
        links = json.loads(path.read_text())["links"]
        hrefs = {str(link["href"]) for link in links if link["rel"] == "item"}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {h for h in hrefs if re.fullmatch(r"\./items/[\w.-]+\.json", h)}


def _near(href: str, folder: Path) -> str:
    """Link relative to `folder` if the file is in or beside the folder above it."""
    path = as_path(href)
    near = path != href and Path(path).is_relative_to(folder.parent.parent)
    return os.path.relpath(path, folder) if near and not _ends_links(path) else href


def _ends_links(path: str) -> bool:
    return "#" in path or "?" in path


def _bounds(record: Interferogram) -> list[float]:
    """West, south, east, north, degrees."""
    return bounds_of(footprint(record))


def _write_json(path: Path, data: Any) -> None:
    with _whole(path) as file:
        file.write(json.dumps(data, indent=1, allow_nan=False) + "\n")


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """Write a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
