"""Shards encoded and decoded at once, in one thread.

zarr codes the chunks of a shard one by one and hands each from its event loop to a
thread and back: that takes about as long as compressing it, and several times as long
as decompressing. What comes out here is a shard like any other, which every reader of
Zarr takes.
"""

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import google_crc32c
import numpy as np
import zarr
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from zarr.abc.store import (
    ByteGetter,
    ByteSetter,
    RangeByteRequest,
    SuffixByteRequest,
)
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import NDBuffer
from zarr.core.buffer.cpu import Buffer
from zarr.core.chunk_grids import RegularChunkGrid
from zarr.core.indexing import BasicIndexer, ChunkProjection
from zarr.registry import fully_qualified_name, register_codec

_ABSENT = 2**64 - 1
"""Offset and length, in the index of a shard, of a chunk that is not there."""
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


def quick(array: Any) -> Any:
    """The same array, which writes whole shards of compressed floats at once."""
    (first, *others) = array.metadata.codecs
    if others or not isinstance(first, ShardingCodec) or array.dtype.kind != "f":
        return array
    codec = WholeShards.of(first)
    if codec is None:
        return array
    metadata = replace(array.metadata, codecs=(codec,))
    return zarr.Array(zarr.AsyncArray(metadata, array.store_path))


class WholeShards(ShardingCodec):
    """Sharding with Blosc: shards written anew, from their first pixel, at once."""

    @classmethod
    def of(cls, codec: ShardingCodec) -> Self | None:
        """The same codec; None where it is not as cubes have it."""
        same = cls(
            chunk_shape=codec.chunk_shape,
            codecs=codec.codecs,
            index_codecs=codec.index_codecs,
            index_location=codec.index_location,
        )
        return same if same._as_in_cubes() else None

    def _as_in_cubes(self) -> bool:
        kinds = [type(c) for c in self.codecs]
        ends = [type(c) for c in self.index_codecs]
        return (
            kinds == [BytesCodec, BloscCodec]
            and ends == [BytesCodec, Crc32cCodec]
            and self.index_location.value == "end"
        )

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: Any, shard_spec: ArraySpec
    ) -> NDBuffer | None:
        plain = all(isinstance(s, slice) and s.step in (None, 1) for s in selection)
        if not plain or not self._as_in_cubes():
            return await super()._decode_partial_single(
                byte_getter, selection, shard_spec
            )
        grid = RegularChunkGrid(chunk_shape=self.chunk_shape)
        wanted = list(BasicIndexer(tuple(selection), shard_spec.shape, grid))
        counts = [
            s // c for s, c in zip(shard_spec.shape, self.chunk_shape, strict=True)
        ]
        size = 16 * math.prod(counts) + 4
        every = len(wanted) == math.prod(counts)
        tail = await byte_getter.get(
            prototype=shard_spec.prototype,
            byte_range=None if every else SuffixByteRequest(size),
        )
        if tail is None:
            return None
        told = tail.as_numpy_array()
        index = _index(told[-size:].tobytes(), counts)
        places = [index[p.chunk_coords].tolist() for p in wanted]
        there = sorted(
            (begin, begin + length) for begin, length in places if begin != _ABSENT
        )
        pieces: list[tuple[int, np.ndarray]] | None = [(0, told)]
        if not every:
            pieces = await _read(byte_getter, _joined(there), shard_spec)
        if pieces is None:
            return None  # the shard was taken away since its index was read
        found = [None if b == _ABSENT else _part(pieces, b, n) for b, n in places]
        values = await asyncio.to_thread(
            self._values, wanted, found, selection, shard_spec
        )
        return shard_spec.prototype.nd_buffer.from_numpy_array(values)

    def _values(
        self,
        wanted: Sequence[ChunkProjection],
        found: Sequence[Any],
        selection: Sequence[slice],
        spec: ArraySpec,
    ) -> np.ndarray:
        """Values of a part of a shard, from the bytes of its chunks."""
        dtype = spec.dtype.to_native_dtype()
        shape = [len(range(n)[s]) for n, s in zip(spec.shape, selection, strict=True)]
        values = np.empty(shape, dtype)
        chunk = np.empty(self.chunk_shape, dtype)
        for projection, part in zip(wanted, found, strict=True):
            if part is None:
                values[projection.out_selection] = spec.fill_value
                continue
            Blosc().decode(part, out=chunk)
            values[projection.out_selection] = chunk[projection.chunk_selection]
        return values

    async def _encode_partial_single(
        self,
        byte_setter: ByteSetter,
        shard_array: NDBuffer,
        selection: Any,
        shard_spec: ArraySpec,
    ) -> None:
        values = shard_array.as_numpy_array()
        cut = tuple(selection)
        sizes = tuple(s.stop for s in cut if s == slice(0, getattr(s, "stop", 0), 1))
        anew = (
            len(sizes) == len(shard_spec.shape)
            and values.shape == sizes
            and np.isnan(shard_spec.fill_value)
            and (
                sizes == shard_spec.shape
                or await byte_setter.get(prototype=shard_spec.prototype) is None
            )
        )
        if not anew:
            await super()._encode_partial_single(
                byte_setter, shard_array, selection, shard_spec
            )
            return
        shard = await asyncio.to_thread(self._shard, values, shard_spec)
        if shard:
            await byte_setter.set(_Bytes(shard))
        else:
            await byte_setter.delete()

    def _shard(self, values: np.ndarray, spec: ArraySpec) -> bytes:
        """Bytes of a shard; none if it holds no data."""
        blosc: Any = self.codecs[1]
        codec = Blosc(
            cname=blosc.cname.value,
            clevel=blosc.clevel,
            shuffle=_SHUFFLES[blosc.shuffle.value],
            blocksize=blosc.blocksize,
        )
        counts = [s // c for s, c in zip(spec.shape, self.chunk_shape, strict=True)]
        index = np.full((*counts, 2), _ABSENT, "<u8")
        parts: list[bytes] = []
        begin = 0
        for place in np.ndindex(*counts):
            chunk = self._chunk(values, place)
            if chunk is None:
                continue
            parts.append(codec.encode(chunk))
            index[place] = begin, len(parts[-1])
            begin += len(parts[-1])
        if not parts:
            return b""
        table = index.tobytes()
        check = google_crc32c.value(table).to_bytes(4, "little")
        return b"".join((*parts, table, check))

    def _chunk(self, values: np.ndarray, place: tuple[int, ...]) -> np.ndarray | None:
        """One chunk, filled up with NaN beyond the values; None if it is all NaN."""
        part = values[
            tuple(
                slice(k * c, (k + 1) * c)
                for k, c in zip(place, self.chunk_shape, strict=True)
            )
        ]
        if not part.size or (np.isnan(part.flat[0]) and np.isnan(part).all()):
            return None
        if part.shape == self.chunk_shape:
            return np.ascontiguousarray(part)
        chunk = np.full(self.chunk_shape, np.nan, values.dtype)
        chunk[tuple(slice(n) for n in part.shape)] = part
        return chunk


def _index(told: bytes, counts: Sequence[int]) -> np.ndarray:
    """Begin and length of every chunk, from the last bytes of a shard."""
    table, check = told[:-4], told[-4:]
    if google_crc32c.value(table) != int.from_bytes(check, "little"):
        raise ValueError("the index of a shard does not have its checksum")
    return np.frombuffer(table, "<u8").reshape(*counts, 2)


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of bytes, sorted; those that touch become one."""
    joined: list[tuple[int, int]] = []
    for begin, end in ranges:
        if joined and joined[-1][1] == begin:
            begin = joined.pop()[0]
        joined.append((begin, end))
    return joined


async def _read(
    byte_getter: ByteGetter, ranges: Sequence[tuple[int, int]], spec: ArraySpec
) -> list[tuple[int, np.ndarray]] | None:
    """First byte and content of parts of a shard; None if it is not there any more."""
    parts = await asyncio.gather(
        *(
            byte_getter.get(
                prototype=spec.prototype, byte_range=RangeByteRequest(begin, end)
            )
            for begin, end in ranges
        )
    )
    read = [
        (begin, part.as_numpy_array())
        for (begin, _), part in zip(ranges, parts, strict=True)
        if part is not None
    ]
    return read if len(read) == len(parts) else None


def _part(
    pieces: Sequence[tuple[int, np.ndarray]], begin: int, length: int
) -> np.ndarray:
    """A chunk's bytes, of the last piece that begins no later."""
    first, content = next(p for p in reversed(pieces) if p[0] <= begin)
    return content[begin - first : begin - first + length]


@contextmanager
def quick_reading() -> Iterator[None]:
    """Arrays opened here are read, as long as they live, by `WholeShards`."""
    with zarr.config.set(
        {"codecs.sharding_indexed": fully_qualified_name(WholeShards)}
    ):
        yield


register_codec("sharding_indexed", WholeShards)


class _Bytes(Buffer):
    """A buffer of bytes that gives them without a copy."""

    def __init__(self, content: bytes) -> None:
        super().__init__(np.frombuffer(content, "B"))
        self.content = content

    def to_bytes(self) -> bytes:
        return self.content
