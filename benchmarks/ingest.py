"""GeoTIFFs into a cube, beside other ways and the floor that codecs set.

60 pairs of 1024 x 1024 float32, tiled and deflated, become a cube of one shard a pair.
Beside it: a loop of rasterio and Zarr in threads, odc-stac and rioxarray write a Zarr
array of the same chunks, shards and codec. The floor is decoding the files and encoding
the cube's chunks, both from and to memory. All have two threads. Each side runs in
fresh processes, the sides in turn; times begin after the imports, and the files have
left the page cache. The same against an S3 server (SeaweedFS), through a proxy that
counts requests.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.counting_proxy import Meter, counting, since
from benchmarks.rasters import moved, write_pairs
from benchmarks.report import Row, options, report

log = logging.getLogger(__name__)

LIMIT = 1.4
"""Times the codec floor that an ingest may take on a local disk."""
PEERS = {"plain loop": "zarr", "odc-stac": "odc.stac", "rioxarray": "rioxarray"}
"""Other ways, and the package each needs."""


@dataclass(frozen=True)
class Size:
    """What is ingested, and how often."""

    files: int
    pixels: int
    rounds: int


SIZES = {False: Size(60, 1024, 3), True: Size(6, 256, 1)}
"""By ``--quick``."""


def forget(folder: Path) -> None:
    """Write files to disk and drop them from the page cache."""
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def run(
    side: str, source: Path, target: str, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One side in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ingest_sides", side, str(source), target],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | dict(environment or {}),
    )
    if done.returncode:
        raise RuntimeError(f"{side} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def installed(package: str) -> bool:
    """Whether a package is there; nothing of it is imported but its parents."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def locally(folder: Path, source: Path, size: Size) -> tuple[list[Row], str]:
    """All sides on the local disk."""
    sides = [s for s, package in PEERS.items() if installed(package)]
    skipped = [s for s in PEERS if s not in sides]
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(size.rounds):
        for side in ("decode", "encode", "cube_denoise", *sides):
            forget(folder)
            target = source.parent / "target"
            found.setdefault(side, []).append(run(side, source, str(target)))
            shutil.rmtree(target, ignore_errors=True)
        log.info("%s", {s: round(runs[-1]["seconds"], 2) for s, runs in found.items()})
    floor, busy = (
        sum(median(f[n] for f in found[s]) for s in ("decode", "encode"))
        for n in ("seconds", "processor")
    )
    case = f"local disk, {size.files} x {size.pixels} x {size.pixels}"
    rows = [
        row for side, runs in found.items() for row in rows_of(case, side, runs, size)
    ]
    rows += [
        Row(case, "codec floor", "time", floor, "s"),
        Row(case, "codec floor", "rate", megabytes(size) / floor, "MB/s"),
        Row(case, "codec floor", "processor time", busy, "s"),
    ]
    for side, runs in found.items():
        if side not in ("decode", "encode"):
            value = median(f["seconds"] for f in runs) / floor
            rows.append(Row(case, side, "to the floor", value, "1"))
            value = median(f["processor"] for f in runs) / busy
            rows.append(Row(case, side, "processor to the floor", value, "1"))
    note = "".join(f"Left out: {s} is not installed.\n" for s in skipped)
    return rows, note


def megabytes(size: Size) -> float:
    """Of all pixels."""
    return size.files * size.pixels**2 * 4 / 1e6


def rows_of(
    case: str, side: str, runs: Sequence[Mapping[str, Any]], size: Size
) -> list[Row]:
    """Rows of one side: medians, with the range of the time."""
    seconds = [f["seconds"] for f in runs]
    middle = median(seconds)
    rows = [
        Row(case, side, "time", middle, "s", min(seconds), max(seconds)),
        Row(case, side, "rate", megabytes(size) / middle, "MB/s"),
        Row(case, side, "processor time", median(f["processor"] for f in runs), "s"),
    ]
    if side in ("decode", "encode"):
        return rows
    opens = [n for f in runs for n in f["opens"]]
    return [
        *rows,
        Row(case, side, "peak over start", median(f["peak"] for f in runs) / 1e6, "MB"),
        Row(case, side, "opens of a file", float(max(opens)), "1"),
    ]


def in_bucket(folder: Path, pairs: Sequence[Any], size: Size) -> tuple[list[Row], str]:
    """Cube and plain loop with rasters and target on an S3 server."""
    import pytest

    from cube_denoise.catalog import write_items
    from tests import s3_server

    place = folder / "server"
    place.mkdir()
    with ExitStack() as stack:
        try:
            server = stack.enter_context(s3_server.running(place))
        except pytest.skip.Exception as reason:
            return [], f"No object storage: {reason}.\n"
        meter = stack.enter_context(counting(server.endpoint))
        with pytest.MonkeyPatch.context() as patch:
            server.use(patch)
            patch.setenv("AWS_ENDPOINT_URL", meter.endpoint)
            bucket = f"s3://{s3_server.BUCKET}"
            s3_server.upload(folder / "rasters", bucket)
            source = write_items(moved(pairs, bucket), folder / "bucket.json")
            return bucket_rows(source, bucket, meter, size), ""


def bucket_rows(source: Path, bucket: str, meter: Meter, size: Size) -> list[Row]:
    """Rows of both sides, and their requests."""
    case = f"S3, {size.files} x {size.pixels} x {size.pixels}"
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(min(size.rounds, 3)):
        for side in ("cube_denoise", "plain loop"):
            before = meter.now()
            target = f"{bucket}/{side.replace(' ', '-')}-{number}"
            measured = run(side, source, target)
            # Those of checking two pairs afterwards are among them.
            measured["traffic"] = since(before, meter.now())
            found.setdefault(side, []).append(measured)
    rows = []
    for side, runs in found.items():
        rows += rows_of(case, side, runs, size)
        for kind in ("", "rasters ", "chunks ", "metadata "):
            value = float(median(f["traffic"][f"{kind}requests"] for f in runs))
            rows.append(Row(case, side, f"{kind}requests", value, "1"))
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    from cube_denoise.catalog import write_items

    asked = options(__doc__, arguments)
    size = SIZES[asked.quick]
    with tempfile.TemporaryDirectory(prefix="cube-ingest-") as name:
        folder = Path(name)
        pairs = write_pairs(folder / "rasters", size.files, size.pixels)
        source = write_items(pairs, folder / "items.json")
        rows, notes = locally(folder / "rasters", source, size)
        more, note = in_bucket(folder, pairs, size)
    found = {(r.method, r.metric): r.value for r in rows}
    ours = found["cube_denoise", "to the floor"]
    verdict = "within" if ours <= LIMIT else "OVER"
    notes += note + (
        f"Two threads; medians, and ranges, of {size.rounds} runs; a block is "
        f"{4e-6 * size.pixels**2:.1f} MB.\n"
        f"An ingest takes {ours:.2f} times the codec floor: {verdict} the limit of "
        f"{LIMIT}."
    )
    report([*rows, *more], asked.out, notes=notes)
    return [*rows, *more]


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    main()
