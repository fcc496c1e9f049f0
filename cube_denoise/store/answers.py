"""What a store answers: asked again where it was cut short, refusals in one sentence.

Icechunk asks again for most of what fails, but not for metadata whose answer ended half
way; and what it cannot read of the metadata it calls not there.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import icechunk
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from cube_denoise import places

WAITS = (0.1, 0.4, 1.6)
"""Seconds before it is asked again."""
_QUICK = 5.0
"""Seconds; what took longer, Icechunk has asked again itself."""
_ROOT = "zarr.json"
_CUT = re.compile("I/O error|streaming error")

T = TypeVar("T")


class CubeError(ValueError):
    """A cube that cannot be opened, read, made or changed as asked."""


def brief(error: Exception) -> str:
    """What an Icechunk error says and its root cause, on one line."""
    lines = [
        re.sub(r"^[\s|│├╰`─▶>×-]*(x )?", "", line).strip()
        for line in str(error).splitlines()
    ]
    trace = re.compile(r"context:$|\d+: |at icechunk/|with ")
    kept = [line for line in lines if line and not trace.match(line)]
    return ": ".join(dict.fromkeys([*kept[:1], *kept[-1:]]))[:300]


def refusal(url: str | Path, what: str, error: Exception) -> CubeError:
    """Make one sentence of an Icechunk error; `what` cannot be done, such as "read"."""
    said = brief(error)
    known = places.explain(url, said, denied=True)
    shown = places.without_secrets(str(url))
    return CubeError(known or f"url={shown!r} cannot be {what}: {said}")


def was_cut(error: Exception) -> bool:
    """Whether the answer began well and ended before it was whole."""
    return bool(_CUT.search(brief(error)))


def steadily(url: str | Path, what: str, act: Callable[[], T]) -> T:
    """Do something that reads, again where an answer was cut.

    Raises
    ------
    CubeError
        If it cannot be done.
    """
    for wait in (*WAITS, None):
        begin = time.monotonic()
        try:
            return act()
        except icechunk.IcechunkError as error:
            if wait is None or not _worth_another(error, begin):
                raise refusal(url, what, error) from None
            time.sleep(wait)
    raise AssertionError


def _worth_another(error: Exception, begin: float) -> bool:
    return was_cut(error) and time.monotonic() - begin < _QUICK


class SteadyStore(WrapperStore[icechunk.IcechunkStore]):
    """Zarr store of a session: gives what is there, or raises `CubeError`.

    What is written goes through as it is. A failure never looks like a chunk that is
    not there, which is no data.
    """

    def __init__(self, store: icechunk.IcechunkStore, url: str) -> None:
        super().__init__(store)
        self._url = url

    def _with_store(self, store: icechunk.IcechunkStore) -> "SteadyStore":
        return type(self)(store, self._url)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read an object or a part of it; None if it is not there."""
        for wait in (*WAITS, None):
            begin = time.monotonic()
            try:
                found = await self._store.get(key, prototype, byte_range)
                if found is not None or key != _ROOT:
                    return found
                if wait is None:  # every cube has one
                    shown = places.without_secrets(self._url)
                    raise CubeError(f"url={shown!r} cannot be read: it has no root")
            except icechunk.IcechunkError as error:
                if wait is None or not _worth_another(error, begin):
                    raise refusal(self._url, "read", error) from None
            await asyncio.sleep(wait)
        raise AssertionError

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        async for answer in Store._get_many(self, requests):
            yield answer


def writable_group(session: Any, url: str) -> zarr.Group:
    """Root group of a session, or of a fork of it, to read and to write."""
    return zarr.open_group(SteadyStore(session.store, url), mode="r+")
