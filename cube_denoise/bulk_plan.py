"""Plans of many frames: an archive, what all jobs share, and the frames one by one.

A plan is a job (`pipeline.JOB_KEYS`) with ``archive`` and ``frames`` in the place of
``cube``. A table of frames is kept as text: each is read when its turn comes.
"""

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from cube_denoise import places, store
from cube_denoise.archive import CUBES, check_name, cube_place
from cube_denoise.catalog import search
from cube_denoise.job import (
    MAPPINGS,
    check_mappings,
    near,
    read_mapping,
    read_yaml,
    with_paths,
)
from cube_denoise.json_objects import below, join
from cube_denoise.pipeline import JOB_KEYS, bind, check, workers_of

ORDERS = ("priority", "plan", "cheapest")
POOL_KEYS = ("cluster", "workers", "memory_limit")
"""Keys of a job that are of the whole plan."""
PLAN_KEYS = {
    "archive": "URL of the archive (required)",
    "frames": "list of frames, a CSV file, or tracks: one frame for each that the "
    "search finds (required)",
    "order": "priority (largest first), plan (as listed) or cheapest; priority if left "
    "out",
    "at_once": "most frames under way; one for each worker if left out",
    **{k: v for k, v in JOB_KEYS.items() if k != "cube"},
}
"""Keys of a plan and what they hold."""
FRAME_KEYS = ("name", "priority", *(k for k in JOB_KEYS if k not in POOL_KEYS))
"""Keys of a frame; they come before those that all share."""
MERGED = ("search", "grid", "invert")
"""Keys under which a frame adds to what all share; others take its place."""


@dataclass(frozen=True)
class Frame:
    """One frame of a plan."""

    name: str
    job: dict[str, Any]
    """As of `pipeline.run`."""
    priority: float = 0.0

    @property
    def fingerprint(self) -> str:
        """Of what is asked for the frame."""
        told = (k for k in self.job if k not in POOL_KEYS)
        return store.fingerprint({k: self.job[k] for k in told})


class Entries(Protocol):
    """Frames as a plan gives them, each at a position."""

    def positions(self) -> Iterator[int]:
        """Yield all positions, in the order of the plan."""

    def at(self, position: int) -> dict[str, Any]:
        """Keys and values of a frame."""


@dataclass(frozen=True)
class ListedFrames:
    """Frames as a list."""

    entries: Sequence[Any]

    def positions(self) -> Iterator[int]:
        """Yield all positions, in the order of the plan."""
        yield from range(len(self.entries))

    def at(self, position: int) -> dict[str, Any]:
        """Keys and values of a frame."""
        entry = self.entries[position]
        if not isinstance(entry, dict):
            raise ValueError(
                f"frames[{position}]={entry!r} must hold keys and values, such as "
                "name: A005-0123"
            )
        return entry


@dataclass(frozen=True)
class FrameTable:
    """Frames as a CSV file; positions are offsets in it, as it was when it was read.

    Columns are keys of a frame, those below another key with a dot: ``search.orbit``.
    Cells are read as YAML but for names; what is empty is not given.
    """

    path: Path
    columns: tuple[str, ...]
    rows: bytes = field(repr=False)
    """What follows the first line."""

    @classmethod
    def of(cls, path: Path) -> "FrameTable":
        """Read a file."""
        try:
            with path.open("rb") as file:
                first = file.readline().decode("utf-8-sig")
                rows = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"frames file {path} cannot be read: {error}") from None
        columns = tuple(name.strip() for name in next(csv.reader([first]), ()))
        if "name" not in columns:
            raise ValueError(
                f"frames file {path} has the columns {list(columns)}: one must be name"
            )
        above = {c.partition(".")[0] for c in columns if "." in c}
        twice = sorted({c for c in columns if columns.count(c) > 1 or c in above})
        if twice:
            raise ValueError(
                f"frames file {path} has the columns {list(columns)}: {twice[0]!r} is "
                "given twice"
            )
        return cls(path, columns, rows)

    def positions(self) -> Iterator[int]:
        """Yield all positions, in the order of the plan."""
        position = 0
        while position < len(self.rows):
            end = self._end(position)
            if self.rows[position:end].strip():
                yield position
            position = end

    def _end(self, position: int) -> int:
        """Offset of the line after one."""
        return self.rows.find(b"\n", position) + 1 or len(self.rows)

    def at(self, position: int) -> dict[str, Any]:
        """Keys and values of a frame."""
        row = self.rows[position : self._end(position)]
        line = row.decode(errors="replace").rstrip("\r\n")
        try:
            (cells,) = csv.reader([line], strict=True)
            if len(cells) != len(self.columns):
                raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
            return self._entry(cells)
        except (csv.Error, yaml.YAMLError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"frames file {self.path}: {line!r}: {reason}") from None

    def _entry(self, cells: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for column, cell in zip(self.columns, cells, strict=True):
            if not cell.strip():
                continue
            key, dot, below = column.partition(".")
            value = cell.strip() if column == "name" else read_yaml(cell)
            if dot:
                found.setdefault(key, {})[below] = value
            else:
                found[key] = value
        return found


@dataclass(frozen=True)
class Plan:
    """A checked plan; get one from `read_plan` or `make_plan`."""

    archive: str
    shared: Mapping[str, Any]
    """Keys of a job."""
    entries: Entries
    folder: Path
    """What relative paths are relative to."""
    order: str = "priority"
    at_once: int | None = None
    count: int = 0
    """Number of frames."""
    prioritised: bool = False
    """Whether priorities differ."""
    _known: set[str] = field(default_factory=set, repr=False, compare=False)

    def frame(self, position: int) -> Frame:
        """Frame at a position.

        Raises
        ------
        ValueError
            If something of it cannot be, whatever its source has.
        """
        entry = self.entries.at(position)
        if "name" not in entry:
            raise ValueError(f"a frame has no name: {entry}")
        name = check_name(entry["name"])
        try:
            return Frame(name, self._job(name, entry), self._priority(entry))
        except ValueError as error:
            raise ValueError(f"frame {name!r}: {error}") from None

    def frames(self) -> Iterator[Frame]:
        """Yield all frames in the order of the plan."""
        return map(self.frame, self.entries.positions())

    def _priority(self, entry: Mapping[str, Any]) -> float:
        value = entry.get("priority", 0)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or math.isnan(value):
            raise ValueError(f"priority={value!r} must be a number")
        return float(value)

    def _job(self, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        if unknown := sorted(map(str, set(entry) - set(FRAME_KEYS))):
            of_plan = " (that is of the whole plan)" * (unknown[0] in PLAN_KEYS)
            raise ValueError(
                f"has the key {unknown[0]!r}{of_plan}: known are "
                f"{', '.join(FRAME_KEYS)}"
            )
        check_mappings(entry)
        own = {k: v for k, v in entry.items() if k in JOB_KEYS}
        job: dict[str, Any] = {**self.shared, **with_paths(own, self.folder)}
        for key in MERGED:
            if self.shared.get(key) and own.get(key):
                job[key] = {**self.shared[key], **job[key]}
        if not job.get("source"):
            raise ValueError(f"has no 'source': {JOB_KEYS['source']}")
        if not job.get("cube"):
            job["cube"] = cube_place(self.archive, name)
            job["grid"] = {"anchored": True, **(job.get("grid") or {})}
        told = {**job, "search": sorted(job.get("search") or {})}
        kind = store.fingerprint({k: told.get(k) for k in MAPPINGS})
        if kind not in self._known:
            check(job)
            self._known.add(kind)
        return job


def read_plan(path: str | Path) -> Plan:
    """Read and check a plan; relative paths in it are relative to the file.

    Parameters
    ----------
    path : str or pathlib.Path
        YAML with the keys of `PLAN_KEYS`.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If the file cannot be read, a key is unknown, something is missing, or two
        frames have one name or cube.
    """
    path = Path(path)
    return make_plan(read_mapping(path, "plan"), folder=path.resolve().parent)


def make_plan(told: Mapping[str, Any], *, folder: str | Path = ".") -> Plan:
    """Check a plan; see `read_plan`.

    Parameters
    ----------
    told : mapping
        Keys as in `PLAN_KEYS`.
    folder : str or pathlib.Path
        What relative paths are relative to.
    """
    folder = Path(folder).resolve()
    if unknown := sorted(map(str, set(told) - set(PLAN_KEYS))):
        raise ValueError(
            f"plan has the keys {unknown}: known are {', '.join(PLAN_KEYS)}"
        )
    for key in ("archive", "frames"):
        if not told.get(key):
            raise ValueError(f"plan has no {key!r}: {PLAN_KEYS[key]}")
    order, at_once = told.get("order") or "priority", told.get("at_once")
    if order not in ORDERS:
        raise ValueError(f"plan['order']={order!r} must be one of {', '.join(ORDERS)}")
    if at_once is not None and (type(at_once) is not int or at_once < 1):
        raise ValueError(f"plan['at_once']={at_once!r} must be a number from 1 on")
    check_mappings(told)
    shared = {k: v for k, v in told.items() if k in JOB_KEYS and v is not None}
    shared = with_paths(shared, folder)
    workers_of(shared)
    entries = _entries(told["frames"], shared, folder)
    archive = near(str(told["archive"]), folder)
    count, differ = _checked(Plan(archive, shared, entries, folder))
    return Plan(archive, shared, entries, folder, order, at_once, count, differ)


def _checked(plan: Plan) -> tuple[int, bool]:
    """Look at all frames: their number, and whether priorities differ."""
    names: set[str] = set()
    elsewhere: set[str] = set()
    at_home: set[str] = set()  # names below `home`, shorter than places
    home = _one_spelling(join(plan.archive, CUBES))
    priorities: set[float] = set()
    for frame in plan.frames():
        if frame.name in names:
            raise ValueError(f"plan has two frames of the name {frame.name!r}")
        names.add(frame.name)
        cube = _one_spelling(frame.job["cube"])
        name = below(home, cube)
        kept, key = (elsewhere, cube) if name is None else (at_home, name)
        if key in kept:
            raise ValueError(f"plan has two frames of the cube {cube!r}")
        kept.add(key)
        priorities.add(frame.priority)
    if not names:
        raise ValueError("plan['frames'] is empty: there is nothing to do")
    return len(names), len(priorities) > 1


def _one_spelling(place: str) -> str:
    """Place without what makes no difference: a slash at its end, ``./``, ``../``."""
    path = places.local_path(place)
    if path is not None:
        return os.path.normpath(path)
    base, mark, query = place.partition("?")
    return base.rstrip("/") + mark + query


def _entries(frames: Any, shared: Mapping[str, Any], folder: Path) -> Entries:
    if isinstance(frames, list):
        return ListedFrames(frames)
    if frames == "tracks":
        return ListedFrames([*_by_track(shared)])
    if isinstance(frames, str) and frames.endswith(".csv"):
        return FrameTable.of(Path(near(frames, folder)))
    raise ValueError(f"plan['frames']={frames!r} must be a {PLAN_KEYS['frames']}")


def _by_track(shared: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One frame for each track that the shared search finds."""
    if not shared.get("source"):
        raise ValueError(
            f"plan['frames']='tracks' needs a source: {JOB_KEYS['source']}"
        )
    asked = shared.get("search") or {}
    found = bind("search", search, shared["source"], **asked)()
    for track in sorted({record.track for record in found}):
        yield {"name": track, "search": {"orbit": track}}
