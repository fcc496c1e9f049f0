"""The folder of a published product: its versions, and the one file that names them."""

import contextlib
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cube_denoise import places, store
from cube_denoise.json_objects import JsonObjects, join
from cube_denoise.processes import Process

RECORD = "collection.json"
"""What readers start from; replaced as a whole when a version is published."""
MARK = "publishing"
"""Of a version being written: who writes it. Whoever it is may be gone."""
VERSIONS = "cube_denoise:versions"
"""Key of the record: the versions, the current one first."""
PATIENCE = 24 * 3600.0
"""Seconds without a new object after which another host's work is given up."""
NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
"""Of a version: when it was begun, and a number drawn at random."""

Record = dict[str, Any]


class ProductError(ValueError):
    """A place that holds no product, or not what is asked of it."""


def read_record(folder: "ProductFolder") -> Record:
    """Read the record of a published product.

    Raises
    ------
    ProductError
        If there is none; it says what else is there.
    """
    found = folder.record()
    if found is not None:
        return found
    what = "there is no published product"
    if store.exists(folder.url):
        what = "this is a cube: open it with open_cube, or publish its velocity"
    raise ProductError(f"{_what(folder.url)}: {what}")


def versions_of(record: Record | None) -> set[str]:
    """Names of the versions that a record names."""
    return set() if record is None else {str(v["version"]) for v in record[VERSIONS]}


def _what(url: str | Path) -> str:
    return f"url={places.without_secrets(str(url))!r}"


class ProductFolder:
    """A local folder, or a prefix in a bucket, that holds a published product."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url).removesuffix(f"/{RECORD}")
        self.local = places.local_path(self.url)
        if self.local is None:
            places.check(self.url)
        self._objects = JsonObjects(self.url)

    def place(self, name: str) -> str:
        """Where something of the folder is."""
        return join(self.url, name)

    def record(self) -> Record | None:
        """Read the record; None if there is none."""
        try:
            found = self._objects.read(RECORD)
        except NotADirectoryError:
            found = None
        return None if found is None else self._checked(found.data)

    def _checked(self, data: dict[str, Any]) -> Record:
        if data.get("type") != "Collection" or not data.get(VERSIONS):
            raise ProductError(f"{_what(self.url)}: its {RECORD} is of something else")
        return data

    def replace_record(self, change: Callable[[Record | None], Record]) -> None:
        """Replace the record by ``change(record)``, seen by readers at once.

        If another publisher was quicker, it is read again and changed again: neither
        is lost.
        """
        self._objects.change(
            RECORD, lambda data: change(None if data is None else self._checked(data))
        )

    def begin(self) -> str:
        """Name a new version and mark it as being written."""
        import obstore

        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        version = f"{moment}-{secrets.token_hex(3)}"
        mine = Process.this()
        who = f"{mine.host}-{mine.pid}-{mine.born}"
        if self.local is not None:
            self.local.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.local, prefix=".begun-") as work:
                (Path(work) / version).mkdir()
                (Path(work) / version / MARK).write_text(who)
                (Path(work) / version).rename(self.local / version)
            return version
        try:
            obstore.put(places.object_store(self.place(version)), MARK, who.encode())
        except obstore.exceptions.BaseError as error:
            raise places.unreachable(self.url, error) from None
        return version

    def names(self) -> set[str]:
        """Names of all files and folders of the folder."""
        import obstore

        if self.local is not None:
            return {p.name for p in self.local.glob("*")}
        try:
            found = obstore.list_with_delimiter(places.object_store(self.url))
        except obstore.exceptions.BaseError as error:
            raise places.unreachable(self.url, error) from None
        files = [entry["path"] for entry in found["objects"]]
        return {path.rstrip("/").rpartition("/")[2] for path in files} | {
            path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]
        }

    def remove(self, version: str) -> None:
        """Delete a version; nothing may name it any more."""
        import obstore

        if self.local is not None:
            shutil.rmtree(self.local / version, ignore_errors=True)
            return
        try:
            bucket = places.object_store(self.place(version))
            for batch in obstore.list(bucket):
                obstore.delete(bucket, [entry["path"] for entry in batch])
        except obstore.exceptions.BaseError as error:
            raise places.unreachable(self.url, error) from None

    def end(self, version: str) -> None:
        """Take the mark off a version that is published."""
        import obstore

        if self.local is not None:
            (self.local / version / MARK).unlink(missing_ok=True)
            return
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(places.object_store(self.place(version)), [MARK])

    def abandoned(self) -> list[str]:
        """Versions that no record names and nobody is writing any more."""
        names = sorted(n for n in self.names() if NAME.fullmatch(n))
        left = [name for name in names if self._is_left(name)]
        # Read last: what was published before its mark was looked at is in it.
        listed = versions_of(self.record())
        return [name for name in left if name not in listed]

    def _is_left(self, version: str) -> bool:
        newest, who = self._signs(version)
        if who is None:  # its mark is taken off when it is published
            return True
        host, pid, born = who.split("-")
        gone = Process(host, int(pid), int(born)).is_gone()
        return time.time() - newest > PATIENCE if gone is None else gone

    def _signs(self, version: str) -> tuple[float, str | None]:
        """When something was written there, seconds since 1970, and by whom."""
        import obstore

        if self.local is not None:
            folder = self.local / version
            times = [p.stat().st_mtime for p in (folder, *folder.rglob("*"))]
            mark = folder / MARK
            return max(times), mark.read_text() if mark.exists() else None
        bucket = places.object_store(self.place(version))
        entries = [entry for batch in obstore.list(bucket) for entry in batch]
        newest = max((e["last_modified"].timestamp() for e in entries), default=0.0)
        if all(e["path"] != MARK for e in entries):
            return newest, None
        return newest, bytes(obstore.get(bucket, MARK).bytes()).decode()
