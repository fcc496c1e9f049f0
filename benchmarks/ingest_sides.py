"""The ways into a cube that `benchmarks.ingest` compares; one process runs one way.

``python -m benchmarks.ingest_sides SIDE SOURCE TARGET`` prints JSON: seconds, those of
the processors, the peak of resident memory over its start (bytes) and how often each
raster was opened.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array  # noqa: F401  (xarray loads it when it first makes a variable)
import numpy as np
import rasterio
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from cube_denoise import places, store
from cube_denoise.catalog import search
from cube_denoise.cluster import Workers
from cube_denoise.ingest import ingest
from cube_denoise.raster_access import opened

THREADS = 2
CODEC = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
"""That of a cube."""
BAND = "unwrapped_phase"


def prepare(side: str, source: str, target: str) -> Callable[[], None]:
    """Import what a side needs, and give what is to be timed."""
    if side == "cube_denoise":
        return lambda: into_cube(source, target)
    if side == "odc-stac":
        return through_odc(source, target)
    records = search(source)
    hrefs = [r.assets[BAND].href for r in records]
    if side == "rioxarray":
        return through_rioxarray(hrefs, target)
    if side == "plain loop":
        return lambda: plain_loop(hrefs, records[0].shape, target)
    if side == "decode":
        return lambda: decode(hrefs)
    if side == "encode":
        images = [read(h) for h in hrefs]
        return lambda: encode(images)
    raise ValueError(f"{side=} is not known")


def into_cube(source: str, target: str) -> None:
    """Search the catalog and ingest what it has."""
    report = ingest(search(source), target, workers=Workers(count=THREADS))
    assert not report.failed, report.failed


def read(href: str) -> np.ndarray:
    """Whole raster; the package's own access only where GDAL must be told a server."""
    with opened(href) if "://" in href else rasterio.open(href) as raster:
        return raster.read(1)


def plain_loop(hrefs: Sequence[str], shape: tuple[int, int], target: str) -> None:
    """Read a file, write a shard, in threads."""
    chunk, shard = cuts(shape[0])
    place: Any = target
    if places.is_bucket(target):
        place = zarr.storage.ObjectStore(places.object_store(target))
    array = zarr.create_array(
        place,
        shape=(len(hrefs), *shape),
        dtype="float32",
        chunks=(1, chunk, chunk),
        shards=(1, shard, shard),
        compressors=CODEC,
        fill_value=np.nan,
    )

    def one(k: int) -> None:
        array[k] = read(hrefs[k])

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(len(hrefs))))


def through_odc(source: str, target: str) -> Callable[[], None]:
    """Stack by item and write with Dask, a task per shard."""
    import dask
    import odc.stac
    import pystac

    def work() -> None:
        items = pystac.ItemCollection.from_file(source)
        size = items[0].properties["proj:shape"][0]
        cube = odc.stac.load(
            items,
            bands=[BAND],
            groupby="id",
            chunks={"x": size, "y": size},
            dtype="float32",
            nodata=float("nan"),
        )
        with dask.config.set(scheduler="threads", num_workers=THREADS):
            write(cube[BAND], target)

    return work


def through_rioxarray(hrefs: Sequence[str], target: str) -> Callable[[], None]:
    """Open lazily, concatenate and write with Dask."""
    import dask
    import rioxarray

    def work() -> None:
        layers = [
            rioxarray.open_rasterio(h, chunks={"x": -1, "y": -1}).squeeze("band")
            for h in hrefs
        ]
        cube = xr.concat(layers, "time").drop_attrs()
        with dask.config.set(scheduler="threads", num_workers=THREADS):
            write(cube.rename(BAND), target)

    return work


def write(cube: xr.DataArray, target: str) -> None:
    """Write a Dask-backed stack with the chunks and codec of a cube."""
    chunk, shard = cuts(cube.shape[-1])
    encoding = {
        "chunks": (1, chunk, chunk),
        "shards": (1, shard, shard),
        "compressors": [CODEC],
    }
    cube.to_dataset(name=BAND).to_zarr(
        target, encoding={BAND: encoding}, zarr_format=3, consolidated=False
    )


def cuts(size: int) -> tuple[int, int]:
    """Chunk and shard of a cube of `size` pixels a side."""
    chunk = min(store.CHUNK, size)
    return chunk, -(-min(store.SHARD, size) // chunk) * chunk


def decode(hrefs: Sequence[str]) -> None:
    """Read every file and forget it."""
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda h: read(h).size, hrefs):
            pass


def encode(images: Sequence[np.ndarray]) -> None:
    """Compress every chunk as the cube's codec does and forget it."""
    from numcodecs import blosc

    codec = blosc.Blosc(cname="zstd", clevel=3, shuffle=blosc.SHUFFLE)

    def one(image: np.ndarray) -> None:
        chunk, _ = cuts(image.shape[0])
        for y in range(0, image.shape[0], chunk):
            for x in range(0, image.shape[1], chunk):
                part = image[y : y + chunk, x : x + chunk]
                codec.encode(np.ascontiguousarray(part))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, images))


def status(name: str) -> int:
    """Bytes of a line of ``/proc/self/status``."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024


def opens() -> Counter[str]:
    """Count, from now on, how often each raster is opened."""
    counted: Counter[str] = Counter()
    really = rasterio.open

    def open_(path: Any, *args: Any, **options: Any) -> Any:
        counted[str(path)] += 1
        return really(path, *args, **options)

    rasterio.open = open_
    return counted


def check(side: str, source: str, target: str) -> None:
    """Refuse a result that is not what the first and the last file hold."""
    hrefs = {r.id: r.assets[BAND].href for r in search(source)}
    array: Any
    ids = list(hrefs)
    if side == "cube_denoise":
        cube = store.open_cube(target)
        array, ids = cube[BAND], [item["id"] for item in cube.attrs["items"]]
    elif places.is_bucket(target):
        array = zarr.open_array(zarr.storage.ObjectStore(places.object_store(target)))
    elif side == "plain loop":
        array = zarr.open_array(target, mode="r")
    else:
        array = zarr.open_group(target, mode="r")[BAND]
    for k in (0, len(ids) - 1):
        values = read(hrefs[ids[k]])
        np.testing.assert_array_equal(np.asarray(array[k]), values, err_msg=side)


def main(arguments: Sequence[str]) -> None:
    """Run one side."""
    side, source, target = arguments
    work = prepare(side, source, target)
    counted = opens()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begin, cpu = status("VmRSS"), time.perf_counter(), time.process_time()
    work()
    found = {
        "seconds": time.perf_counter() - begin,
        "processor": time.process_time() - cpu,
        "peak": status("VmHWM") - before,
        "opens": list(counted.values()),
    }
    if side not in ("decode", "encode"):
        check(side, source, target)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
