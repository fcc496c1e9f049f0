"""Whole shards encoded at once, in one thread.

zarr encodes the chunks of a shard one by one and hands each from its event loop to a
thread and back: that takes about as long as the compression. What comes out here is a
shard like any other, which every reader of Zarr takes.
"""

import asyncio
from dataclasses import replace
from typing import Any, Self

import google_crc32c
import numpy as np
import zarr
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from zarr.abc.store import ByteSetter
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import NDBuffer
from zarr.core.buffer.cpu import Buffer

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
        kinds = [type(c) for c in codec.codecs]
        ends = [type(c) for c in codec.index_codecs]
        if (
            kinds != [BytesCodec, BloscCodec]
            or ends != [BytesCodec, Crc32cCodec]
            or codec.index_location.value != "end"
        ):
            return None
        return cls(
            chunk_shape=codec.chunk_shape,
            codecs=codec.codecs,
            index_codecs=codec.index_codecs,
            index_location=codec.index_location,
        )

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


class _Bytes(Buffer):
    """A buffer of bytes that gives them without a copy."""

    def __init__(self, content: bytes) -> None:
        super().__init__(np.frombuffer(content, "B"))
        self.content = content

    def to_bytes(self) -> bytes:
        return self.content
