"""Small JSON objects in a place: read whole, and replaced whole by one of many writers.

In a bucket, conditional requests keep two writers apart. On a local disk they take
turns at a lock on the folder, which the kernel lets go when its holder dies.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cube_denoise import places
from cube_denoise.processes import turn_in

ATTEMPTS = 50
"""How often a change starts over because another writer was quicker."""


class ObjectChangedError(RuntimeError):
    """An object was changed by another writer since it was read."""


@dataclass(frozen=True)
class Found:
    """An object as it was read."""

    data: dict[str, Any]
    mark: dict[str, str]
    """What tells this version of it from others."""


class JsonObjects:
    """The JSON objects of a place, by names such as ``status/one.json``.

    Parameters
    ----------
    url : str or pathlib.Path
        Local folder, made by the first object, or ``s3://``, ``gs://``, ``az://``.

    Raises
    ------
    PlaceError
        Here or later, if the place is not one or refuses.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._folder = places.local_path(url)
        self._store: Any = None if self._folder else places.object_store(url)

    def read(self, name: str) -> Found | None:
        """Object of a name, if there is one.

        Raises
        ------
        ValueError
            If it is not a JSON object.
        """
        got = self._read(name)
        if got is None:
            return None
        content, mark = got
        try:
            data = json.loads(content)
        except ValueError as error:
            raise ValueError(f"{join(self.url, name)} is not JSON: {error}") from None
        if not isinstance(data, dict):
            raise ValueError(f"{join(self.url, name)} must hold a JSON object")
        return Found(data, mark)

    def write(self, name: str, data: dict[str, Any]) -> None:
        """Write an object, whatever was there."""
        content = _content(data)
        if self._folder:
            _replace(self._folder / name, content)
        else:
            self._put(name, content, "overwrite")

    def replace(
        self, name: str, data: dict[str, Any], *, before: Found | None
    ) -> Found:
        """Write an object if it still is what it was before (None = not there).

        Raises
        ------
        ObjectChangedError
            If it is not. In a bucket also, rarely, where it was: when a request is sent
            again whose answer was lost.
        """
        content = _content(data)
        if self._folder:
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with turn_in(path.parent):
                now = self._read(name)
                if (now and now[1]) != (before and before.mark):
                    raise ObjectChangedError(str(path))
                _replace(path, content)
            return Found(data, _local_mark(content))
        mark = self._put(name, content, before.mark if before else "create")
        return Found(data, mark)

    def change(
        self,
        name: str,
        edit: Callable[[dict[str, Any] | None], dict[str, Any] | None],
    ) -> None:
        """Replace an object by what `edit` makes of it; None leaves it as it is.

        `edit` is called again if another writer was quicker.

        Raises
        ------
        ObjectChangedError
            If others were quicker `ATTEMPTS` times.
        """
        for attempt in range(ATTEMPTS):
            before = self.read(name)
            data = edit(before.data if before else None)
            if data is None:
                return
            try:
                self.replace(name, data, before=before)
                return
            except ObjectChangedError:
                if attempt + 1 == ATTEMPTS:
                    raise

    def names(self, folder: str) -> Iterator[str]:
        """Names of the objects in a folder, without those in folders below it."""
        if self._folder:
            place = self._folder / folder
            if place.is_dir():
                for entry in os.scandir(place):
                    if not entry.name.startswith(".") and entry.is_file():
                        yield f"{folder}/{entry.name}"
            return
        for batch in self._listed(f"{folder}/"):
            yield from (
                e["path"] for e in batch if "/" not in e["path"][len(folder) + 1 :]
            )

    def is_empty(self) -> bool:
        """Whether there is nothing in the place but what a killed writer left."""
        if self._folder:
            if not self._folder.is_dir():
                return not self._folder.is_file()
            return all(_is_part(entry.name) for entry in os.scandir(self._folder))
        return not any(self._listed(None))

    def _read(self, name: str) -> tuple[bytes, dict[str, str]] | None:
        if self._folder:
            try:
                content = (self._folder / name).read_bytes()
            except FileNotFoundError:
                return None
            return content, _local_mark(content)
        import obstore

        try:
            got = obstore.get(self._store, name)
            marks = {k: got.meta.get(k) for k in ("e_tag", "version")}
            return bytes(got.bytes()), {k: str(v) for k, v in marks.items() if v}
        except FileNotFoundError:
            return None
        except Exception as error:
            raise places.unreachable(self.url, error) from None

    def _put(self, name: str, content: bytes, mode: Any) -> dict[str, str]:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            put = obstore.put(self._store, name, content, mode=mode)
        except (AlreadyExistsError, PreconditionError):
            raise ObjectChangedError(join(self.url, name)) from None
        except Exception as error:
            raise places.unreachable(self.url, error) from None
        marks = {k: put.get(k) for k in ("e_tag", "version")}
        return {k: str(v) for k, v in marks.items() if v}

    def _listed(self, prefix: str | None) -> Iterator[Any]:
        import obstore

        try:
            yield from obstore.list(self._store, prefix=prefix)
        except Exception as error:
            raise places.unreachable(self.url, error) from None


def join(url: str | Path, name: str) -> str:
    """Place below another; options in the URL of a bucket stay at its end."""
    path = places.local_path(url)
    if path is not None:
        return str(path / name)
    base, mark, query = str(url).partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def below(url: str | Path, place: str | Path) -> str | None:
    """Name of a place below another, as `join` was given it; None if it is not."""
    one, other = places.local_path(url), places.local_path(place)
    if one is not None and other is not None:
        inside = other != one and other.is_relative_to(one)
        return other.relative_to(one).as_posix() if inside else None
    top, sub = urlsplit(str(url)), urlsplit(str(place))
    start = top.path.rstrip("/") + "/"
    if (top.scheme, top.netloc, top.query) != (sub.scheme, sub.netloc, sub.query):
        return None
    return sub.path[len(start) :] or None if sub.path.startswith(start) else None


def _content(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def _local_mark(content: bytes) -> dict[str, str]:
    return {"sha256": sha256(content).hexdigest()}


def _is_part(name: str) -> bool:
    return name.startswith(".") and name.endswith(".part")


def _replace(path: Path, content: bytes) -> None:
    """Write a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
