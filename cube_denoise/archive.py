"""An archive of frames: a STAC collection of cubes, one for each track and frame.

``collection.json`` lists the items, ``items/NAME.json`` is one frame, ``cubes/NAME``
its cube unless that is elsewhere, ``status/NAME.json`` how a bulk run fared. An item is
written whole by whoever works on its frame. The collection is changed only from the
state that was read (`json_objects`), so no writer undoes what another has listed; what
a killed one did not list is listed by the next. Readers take what is in ``items``.
"""

import logging
import posixpath
import re
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pystac
import xarray as xr
from pystac.utils import datetime_to_str

from cube_denoise import places, store
from cube_denoise.conventions import PAIR, TIME
from cube_denoise.grid import grid_of, is_anchored
from cube_denoise.json_objects import JsonObjects, below, join
from cube_denoise.longitudes import bounds_of, outline, union

log = logging.getLogger(__name__)

COLLECTION, ITEMS, CUBES = "collection.json", "items", "cubes"
KIND = "archive of frames"
MEDIA_TYPE = "application/vnd.zarr+icechunk"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MADE_WAITS = (0.02, 0.1, 0.3, 0.0)
"""Seconds after each look for the collection of a place that holds something else."""
READERS = 16
"""Objects read at once."""
EXTENSIONS = [
    "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
]
_ORBIT_STATES = {"A": "ascending", "D": "descending"}
_OWN = "cube_denoise:"
_EVERYWHERE = [-180.0, -90.0, 180.0, 90.0]

T = TypeVar("T")
Extent = tuple[list[float], tuple[str, str]]
"""Bounds and first and last moment of an item."""


@dataclass(frozen=True)
class ArchivedFrame:
    """A frame of an archive."""

    name: str
    track: str
    """Such as ``A005``."""
    url: str
    """Of the cube."""
    snapshot: str
    """State of the cube when the item was written."""
    bbox: tuple[float, float, float, float]
    """West, south, east, north, degrees; west > east across the antimeridian."""


def frames(url: str | Path) -> list[ArchivedFrame]:
    """List the frames of an archive, by name.

    Parameters
    ----------
    url : str or pathlib.Path
        Local folder, ``s3://``, ``gs://`` or ``az://``.

    Returns
    -------
    list of ArchivedFrame

    Raises
    ------
    ValueError
        If there is no archive, or an item cannot be read.
    """
    objects = JsonObjects(url)
    if not _checked(objects):
        raise ValueError(
            f"url={places.without_secrets(str(url))!r}: there is no archive of frames; "
            "`cube-denoise bulk` makes one"
        )
    found = _read_items(objects, objects.names(ITEMS), partial(_frame, url))
    return sorted(found, key=lambda f: f.name)


def make(url: str | Path) -> None:
    """Make an archive, unless it is there.

    Raises
    ------
    ValueError
        If there is something else.
    """
    objects = JsonObjects(url)
    if not _checked(objects):
        objects.change(COLLECTION, lambda known: None if known else _collection({}, []))


def add(url: str | Path, name: str, cube: str | Path, *, branch: str = "main") -> None:
    """Add a frame to an archive, or renew its item; the archive is made if new.

    Parameters
    ----------
    url : str or pathlib.Path
        The archive.
    name : str
        Of the frame: letters, digits, ``.``, ``_`` and ``-``.
    cube : str or pathlib.Path
        Its cube, there or elsewhere.
    branch : str
        Branch of the cube.

    Raises
    ------
    ValueError
        If the name cannot be, there is no cube or something else than an archive.
    """
    make(url)
    write_item(url, name, cube, branch=branch)
    list_items(url, changed=[name])


def cube_place(url: str | Path, name: str) -> str:
    """Where the cube of a frame is, unless it is elsewhere."""
    return join(url, f"{CUBES}/{check_name(name)}")


def check_name(name: Any) -> str:
    """Refuse names that cannot be those of objects and folders everywhere."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"{name=} of a frame must be text of letters, digits, '.', '_' and '-', "
            "such as A005-0123"
        )
    return name


def write_item(
    url: str | Path, name: str, cube: str | Path, *, branch: str = "main"
) -> str:
    """Write the item of a frame, not listed yet; the snapshot that it tells of."""
    check_name(name)
    snapshot, opened = store.newest(cube, branch=branch)
    if not is_anchored(grid_of(opened.attrs)):
        log.warning(
            "frame %s: its pixel edges are not at multiples of its resolution; joined "
            "with others it is resampled (grid: {anchored: true} for new cubes of "
            "products that can be warped)",
            name,
        )
    item = _item(url, name, cube, branch, snapshot, opened)
    JsonObjects(url).write(_item_name(name), item)
    return snapshot


def list_items(url: str | Path, *, changed: Collection[str] = ()) -> None:
    """List the items that the collection does not, and widen its extent.

    Parameters
    ----------
    url : str or pathlib.Path
        The archive.
    changed : collection of str
        Frames whose extent may have grown.
    """
    objects = JsonObjects(url)
    there = set(objects.names(ITEMS))
    wanted = {_item_name(name) for name in changed} & there

    def listed(known: dict[str, Any] | None) -> dict[str, Any] | None:
        links = (known or {}).get("links", ())
        before = {x["href"].removeprefix("./") for x in links if x["rel"] == "item"}
        missing = there - before
        if known and not missing | wanted:
            return None
        extents = _read_items(objects, missing | wanted, _extent)
        grown = _collection(known or {}, extents, also=sorted(missing))
        return None if grown == known else grown

    objects.change(COLLECTION, listed)


def _checked(objects: JsonObjects) -> bool:
    """Whether there is an archive; refuses whatever else there is."""
    url = places.without_secrets(objects.url)
    path = places.local_path(objects.url)
    if path is not None and path.is_file():
        raise ValueError(f"archive={url!r} is a file and must be a folder")
    for wait in MADE_WAITS:
        found = objects.read(COLLECTION)
        if found is not None:
            kind = found.data.get(_OWN + "kind")
            if found.data.get("type") == "Collection" and kind == KIND:
                return True
            what = f"{found.data.get('type')} {found.data.get('id')!r}"
            raise ValueError(f"archive={url!r} holds the STAC {what}, no {KIND}")
        if objects.is_empty():
            return False
        time.sleep(wait)  # another may just be making it
    cube = store.exists(objects.url)
    raise ValueError(
        f"archive={url!r} "
        + ("is a cube" if cube else "is not empty and has no collection.json")
        + ": give a new place, or that of an archive"
    )


def _read_items(
    objects: JsonObjects, names: Iterable[str], take: Callable[[dict[str, Any]], T]
) -> list[T]:
    """What `take` keeps of every item."""

    def read(name: str) -> T | None:
        found = objects.read(name)
        return None if found is None else take(found.data)

    with ThreadPoolExecutor(READERS) as pool:
        return [kept for kept in pool.map(read, sorted(names)) if kept is not None]


def _extent(item: dict[str, Any]) -> Extent:
    told = item["properties"]
    return item["bbox"], (told["start_datetime"], told["end_datetime"])


def _collection(
    known: dict[str, Any], extents: list[Extent], *, also: Iterable[str] = ()
) -> dict[str, Any]:
    """The collection, wide enough for `extents`, with links to `also` as well."""
    links = [x for x in known.get("links", ()) if x["rel"] == "item"]
    boxes, times = [box for box, _ in extents], [span for _, span in extents]
    if links:
        boxes += known["extent"]["spatial"]["bbox"]
        times += known["extent"]["temporal"]["interval"]
    open_ended: list[list[datetime | None]] = [[None, None]]
    made = pystac.Collection(
        id=known.get("id", "frames"),
        description="Cubes of interferograms, one for each track and frame.",
        extent=pystac.Extent(
            pystac.SpatialExtent([union(boxes) if boxes else _EVERYWHERE]),
            pystac.TemporalExtent(open_ended),
        ),
        license="other",
        extra_fields={_OWN + "kind": KIND},
    ).to_dict(include_self_link=False)
    if times:
        begins, ends = zip(*times, strict=True)
        made["extent"]["temporal"]["interval"] = [[min(begins), max(ends)]]
    root = {"rel": "root", "href": f"./{COLLECTION}", "type": "application/json"}
    new = [
        {"rel": "item", "href": f"./{name}", "type": "application/geo+json"}
        for name in also
    ]
    return made | {"links": [root, *links, *new]}


def _item(
    url: str | Path,
    name: str,
    place: str | Path,
    branch: str,
    snapshot: str,
    cube: xr.Dataset,
) -> dict[str, Any]:
    grid = grid_of(cube.attrs)
    ring = grid.footprint("EPSG:4326", npoints=4).exterior.coords
    first, last = _dates(cube)
    track = str(cube.attrs["track"])
    code = {k: cube.attrs[k] for k in ("proj:code", "proj:wkt2") if k in cube.attrs}
    item = pystac.Item(
        id=name,
        geometry=outline(ring),
        bbox=bounds_of(ring),
        datetime=None,
        properties={
            "start_datetime": first,
            "end_datetime": last,
            "sat:orbit_state": _ORBIT_STATES[track[0]],
            "sat:relative_orbit": int(track[1:]),
            **code,
            "proj:shape": list(grid.shape),
            "proj:transform": list(grid.affine)[:6],
            _OWN + "track": track,
            _OWN + "snapshot": snapshot,
            _OWN + "branch": branch,
            _OWN + "pairs": cube.sizes[PAIR],
            _OWN + "wavelength": float(cube.attrs["wavelength"]),
        },
        stac_extensions=EXTENSIONS,
    )
    item.add_asset(
        "cube",
        pystac.Asset(
            _href(url, place), media_type=MEDIA_TYPE, roles=["data"], title="cube"
        ),
    )
    up = {"href": f"../{COLLECTION}", "type": "application/json"}
    links = [{"rel": rel} | up for rel in ("root", "parent", "collection")]
    told = item.to_dict(include_self_link=False)
    return told | {"collection": "frames", "links": links}


def _dates(cube: xr.Dataset) -> tuple[str, str]:
    """First and last moment of a cube, RFC 3339."""
    names = [TIME] if cube.sizes.get(TIME) else list(store.PAIR_TIMES)
    moments = np.concatenate([cube[n].values for n in names]).astype("datetime64[s]")
    return tuple(  # type: ignore[return-value]
        datetime_to_str(m.item().replace(tzinfo=UTC))
        for m in (moments.min(), moments.max())
    )


def _href(url: str | Path, cube: str | Path) -> str:
    """Link from an item to its cube: relative if that is in the archive."""
    name = below(url, cube)
    if name is not None:
        return f"../{name}"
    path = places.local_path(cube)
    return str(cube) if path is None else path.as_uri()


def _frame(url: str | Path, item: dict[str, Any]) -> ArchivedFrame:
    told = item["properties"]
    href = item["assets"]["cube"]["href"]
    if "://" not in href:
        href = join(url, posixpath.normpath(posixpath.join(ITEMS, href)))
    west, south, east, north = item["bbox"]
    path = places.local_path(href)
    return ArchivedFrame(
        name=item["id"],
        track=told[_OWN + "track"],
        url=href if path is None else str(path),
        snapshot=told[_OWN + "snapshot"],
        bbox=(west, south, east, north),
    )


def _item_name(name: str) -> str:
    return f"{ITEMS}/{name}.json"
