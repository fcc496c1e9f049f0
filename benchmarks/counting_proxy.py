"""A proxy before a storage server, in a process of its own, that counts requests."""

import asyncio
import multiprocessing
import re
from collections.abc import Iterator, Mapping, MutableSequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import NamedTuple, Self
from urllib.parse import urlsplit

KINDS = ("chunks", "metadata", "rasters")
"""Of objects: pixels of a cube, everything else of a cube, and GeoTIFFs."""
BLOCK = 1 << 18


class Traffic(NamedTuple):
    """What went through; bytes with the headers."""

    requests: int = 0
    read: int = 0
    """Bytes to the client."""
    written: int = 0
    """Bytes from the client."""

    def minus(self, other: Self) -> "Traffic":
        """What came after `other`."""
        return Traffic(*(a - b for a, b in zip(self, other, strict=True)))


class Meter(NamedTuple):
    """A proxy that is running."""

    endpoint: str
    """Where clients connect."""
    counts: MutableSequence[int]

    def now(self) -> dict[str, Traffic]:
        """Traffic so far, by kind of object."""
        counts = list(self.counts)
        return {k: Traffic(*counts[3 * n : 3 * n + 3]) for n, k in enumerate(KINDS)}


def since(then: Mapping[str, Traffic], now: Mapping[str, Traffic]) -> dict[str, int]:
    """Total requests, bytes read and written between two looks, and those of chunks."""
    moved = {kind: now[kind].minus(then[kind]) for kind in KINDS}
    names = Traffic._fields
    total = {n: sum(getattr(t, n) for t in moved.values()) for n in names}
    return total | {f"{k} {n}": getattr(moved[k], n) for k in KINDS for n in names}


@contextmanager
def counting(endpoint: str) -> Iterator[Meter]:
    """Run a proxy before the server at `endpoint`, ``http://host:port``."""
    spawn = multiprocessing.get_context("spawn")
    counts = spawn.Array("q", 3 * len(KINDS))
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(endpoint, counts, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(30):
            raise RuntimeError("the counting proxy does not start")
        yield Meter(f"http://127.0.0.1:{ours.recv()}", counts)
    finally:
        process.terminate()
        process.join()


def _serve(endpoint: str, counts: MutableSequence[int], ready: Connection) -> None:
    with suppress(KeyboardInterrupt):
        asyncio.run(_listen(endpoint, counts, ready))


async def _listen(
    endpoint: str, counts: MutableSequence[int], ready: Connection
) -> None:
    where = urlsplit(endpoint)

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        up_reader, up_writer = await asyncio.open_connection(
            where.hostname, where.port, limit=BLOCK
        )
        kind = [KINDS.index("metadata")]
        answers = asyncio.create_task(_answers(up_reader, writer, counts, kind))
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await _requests(reader, up_writer, counts, kind)
        up_writer.close()
        with suppress(ConnectionError):
            await answers
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=BLOCK)
    ready.send(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


async def _requests(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    counts: MutableSequence[int],
    kind: list[int],
) -> None:
    """Pass requests on; `kind` is that of the newest, for its answer."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        kind[0] = number = KINDS.index(kind_of(head))
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
        left = int(length[1]) if length else 0
        counts[3 * number] += 1
        counts[3 * number + 2] += len(head) + left
        writer.write(head)
        while left:
            part = await reader.read(min(left, BLOCK))
            if not part:
                return
            left -= len(part)
            writer.write(part)
            await writer.drain()
        await writer.drain()


async def _answers(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    counts: MutableSequence[int],
    kind: list[int],
) -> None:
    while part := await reader.read(BLOCK):
        counts[3 * kind[0] + 1] += len(part)
        writer.write(part)
        await writer.drain()
    writer.close()


def kind_of(head: bytes) -> str:
    """Which of `KINDS` a request is for."""
    path = head.split(b" ", 2)[1].split(b"?")[0]
    if b"/chunks/" in path:
        return "chunks"
    return "rasters" if path.endswith(b".tif") else "metadata"
