"""Shards encoded at once are those that zarr writes and reads."""

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from cube_denoise.store import shards

SHAPE, CHUNK, SHARD = (3, 20, 28), (1, 4, 4), (1, 16, 16)


def new_array(**changed):
    options = {
        "shape": SHAPE,
        "dtype": "float32",
        "chunks": CHUNK,
        "shards": SHARD,
        "compressors": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
        "fill_value": np.nan,
    }
    return zarr.create_array(MemoryStore(), **options | changed)


def chunks_of(array):
    return {k: v.to_bytes() for k, v in array.store._store_dict.items() if "c/" in k}


def decoded(raw, size):
    """Chunks of a shard by their place, as its index tells."""
    index = np.frombuffer(raw[-(16 * size + 4) : -4], "<u8").reshape(size, 2)
    return [None if n == 2**64 - 1 else raw[b : b + n] for b, n in index.tolist()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chunks_are_to_the_bit_those_of_zarr(dtype):
    values = np.random.default_rng(0).normal(size=SHAPE).astype(dtype)
    values[0, :4, :4] = np.nan  # a chunk that is left out
    values[1, :16, :16] = np.nan  # a shard that is left out
    values[2, 3, 5:9] = np.nan
    plain, ours = new_array(dtype=dtype), new_array(dtype=dtype)
    quick = shards.quick(ours)
    assert quick is not ours
    for array in (plain, quick):
        for k in range(3):
            array[k : k + 1] = values[k : k + 1]
    np.testing.assert_array_equal(ours[:], values)
    one, other = chunks_of(plain), chunks_of(ours)
    assert one.keys() == other.keys()
    assert "c/1/0/0" not in one
    for key in one:
        assert decoded(one[key], 16) == decoded(other[key], 16), key
        assert len(one[key]) == len(other[key])


def test_parts_of_shards_are_merged_with_what_is_there():
    random = np.random.default_rng(1)
    plain, ours = new_array(), new_array()
    quick = shards.quick(ours)
    for _ in range(40):
        corners = [np.sort(random.integers(0, n + 1, 2)) for n in SHAPE]
        where = tuple(slice(int(a), int(b)) for a, b in corners)
        values = random.normal(size=plain[where].shape).astype("float32")
        values[random.random(values.shape) < 0.3] = np.nan
        plain[where] = quick[where] = values
        np.testing.assert_array_equal(ours[:], plain[:])


def test_erasing_a_shard_removes_it():
    ours = new_array()
    quick = shards.quick(ours)
    quick[:] = np.ones(SHAPE, "float32")
    assert len(chunks_of(ours)) == 12
    quick[0] = np.full(SHAPE[1:], np.nan, "float32")
    assert len(chunks_of(ours)) == 8
    np.testing.assert_array_equal(ours[0], np.nan)
    np.testing.assert_array_equal(ours[1:], 1)


def test_scalars_are_written_as_ever():
    ours = new_array()
    shards.quick(ours)[1, 3:9, 2:5] = 7
    expected = np.full(SHAPE, np.nan, "float32")
    expected[1, 3:9, 2:5] = 7
    np.testing.assert_array_equal(ours[:], expected)


@pytest.mark.parametrize(
    "changed",
    [
        {"shards": None},
        {"dtype": "int16", "fill_value": 0},
        {"compressors": None},
    ],
)
def test_other_layouts_are_left_to_zarr(changed):
    array = new_array(**changed)
    assert shards.quick(array) is array


def test_another_fill_value_is_kept():
    ours = new_array(fill_value=0.0)
    quick = shards.quick(ours)
    values = np.zeros(SHAPE, "float32")
    values[0, 2, 3] = np.nan
    quick[:] = values
    np.testing.assert_array_equal(ours[:], values)
    assert chunks_of(ours).keys() == {"c/0/0/0"}
