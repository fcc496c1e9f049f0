"""A region of 50 x 50 km of a published product, and of one 16 times as large.

Products of east and up velocity with standard deviations and counts are published to an
S3 server (SeaweedFS) on loopback: 112 x 112 km and 448 x 448 km. A new process opens
each, takes a square of 50 x 50 km and reads all variables of it, once within a shard
and once across four. A proxy counts requests and bytes, headers included. What the
products say of their frames grows with them: 4 and 64.
"""

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from benchmarks.counting_proxy import Meter, counting, since
from benchmarks.report import Row, options, report

log = logging.getLogger(__name__)

SIDE, FACTOR = 112_000.0, 4
"""Of the small product, m; and how many times as long the side of the large one is."""
REGION = 50_000.0
"""Side of the region, m."""
CRS, CORNER = "EPSG:32635", (300_000.0, 4_700_000.0)
STARTS = {"within a shard": 100, "across four shards": 450}
"""Pixels from the corner of a shard to that of the region, of `store.SHARD` a side."""


@dataclass(frozen=True)
class Size:
    """What is published."""

    pixel: float
    """m"""
    shard: int
    """Pixels a side."""


SIZES = {False: Size(80.0, 1024), True: Size(320.0, 256)}
"""By ``--quick``."""


def product(side: float, size: Size) -> xr.Dataset:
    """A lazy product: smooth motion and noise, as real ones hardly compress."""
    import dask.array as da
    from affine import Affine
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

    count = round(side / size.pixel)
    grid = GeoBox(
        (count, count),
        Affine(size.pixel, 0, CORNER[0], 0, -size.pixel, CORNER[1]),
        CRS,
    )
    state = da.random.default_rng(0)
    blocks = {"chunks": (2, size.shard, size.shard)}
    velocity = state.normal(0, 1e-3, (2, count, count), **blocks)
    wave = da.sin(da.arange(count, chunks=size.shard) * size.pixel / 40e3)
    maps = {
        "velocity": (velocity + 0.02 * wave[:, None] * wave).astype("float32"),
        "velocity_std": (1e-3 + abs(velocity)).astype("float32"),
    }
    found = {n: (("component", "y", "x"), v) for n, v in maps.items()}
    numbers = da.full((count, count), 2, chunks=size.shard, dtype="int16")
    frames = round(4 * (side / SIDE) ** 2)
    told = [
        {
            "name": f"frame-{k:04}",
            "track": f"A{k % 175:03}",
            "url": f"s3://bucket/archive/cubes/frame-{k:04}.icechunk",
            "snapshot": "0123456789ABCDEFGHJK",
            "first_date": "2016-01-01",
            "last_date": "2026-01-01",
            "pair_count": 400,
            "offset": 0.00123,
            "offset_std": 0.0001,
            "bbox": [27.0, 40.0, 29.5, 42.0],
        }
        for k in range(frames)
    ]
    coords = {**xr_coords(grid, dims=("y", "x")), "component": ["east", "up"]}
    variables = {**found, "frame_count": (("y", "x"), numbers)}
    return xr.Dataset(variables, coords=coords, attrs={"frames": told})


READ = """
import json, sys
from odc.geo.geom import box
from cube_denoise.product import open_velocity
url, left, bottom, right, top, crs = sys.argv[1:]
square = box(float(left), float(bottom), float(right), float(top), crs)
found = open_velocity(url, geometry=square)
print(json.dumps(dict(found.sizes)), flush=True)
input()
found = found.load()
print(float(abs(found["velocity"]).mean()), flush=True)
"""


def read(
    url: str, start: int, shift: int, size: Size, meter: Meter
) -> tuple[dict[str, int], dict[str, int]]:
    """Traffic of opening a region and of reading it, in a process of its own."""
    left = CORNER[0] + (shift + start) * size.pixel
    top = CORNER[1] - (shift + start) * size.pixel
    side = round(REGION / size.pixel) * size.pixel
    places = [left, top - side, left + side, top]
    command = [sys.executable, "-c", READ, url, *map(str, places), CRS]
    before = meter.now()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        sizes = json.loads(child.stdout.readline())
        opened = meter.now()
        out, _ = child.communicate("go\n")
    count = round(REGION / size.pixel)
    assert (sizes["y"], sizes["x"]) == (count, count), sizes
    assert float(out) > 0
    return since(before, opened), since(opened, meter.now())


def rows_of(
    case: str, moved: Sequence[dict[str, int]], steps: Sequence[str]
) -> list[Row]:
    """Requests and bytes of steps."""
    return [
        row
        for step, traffic in zip(steps, moved, strict=True)
        for row in (
            Row(case, step, "requests", float(traffic["requests"]), "1"),
            Row(case, step, "read", traffic["read"] / 1e3, "kB"),
        )
    ]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    import pytest

    from tests import s3_server

    asked = options(__doc__, arguments)
    size = SIZES[asked.quick]
    with tempfile.TemporaryDirectory(prefix="cube-region-") as name:
        try:
            with s3_server.running(Path(name)) as server:
                rows, notes = measured(server, size)
        except pytest.skip.Exception as reason:
            print(f"No object storage: {reason}.")
            return []
    report(rows, asked.out, notes=notes)
    return rows


def measured(server: Any, size: Size) -> tuple[list[Row], str]:
    """Publish both products and read the region of each."""
    import pytest

    from cube_denoise.publish import publish
    from tests import s3_server

    rows: list[Row] = []
    total: dict[tuple[str, float], tuple[int, int]] = {}
    with pytest.MonkeyPatch.context() as patch, counting(server.endpoint) as meter:
        server.use(patch)
        for side in (SIDE, SIDE * FACTOR):
            patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
            url = f"s3://{s3_server.BUCKET}/velocity-{side / 1e3:.0f}"
            log.info("publish %s", url)
            publish(
                product(side, size),
                url,
                cog=False,
                chunk=size.shard // 4,
                shard=size.shard,
            )
            patch.setenv("AWS_ENDPOINT_URL", meter.endpoint)
            # Of the large product not the first shard, which may be special.
            shift = 0 if side == SIDE else 2 * size.shard
            for where, start in STARTS.items():
                first = round(start * size.shard / 1024)
                opened, loaded = read(url, first, shift, size, meter)
                case = f"{where}, of {side / 1e3:.0f} x {side / 1e3:.0f} km"
                rows += rows_of(case, (opened, loaded), ("open", "read all"))
                both = opened["requests"] + loaded["requests"]
                total[where, side] = both, opened["read"] + loaded["read"]
    notes = []
    for where in STARTS:
        small, large = (total[where, s] for s in (SIDE, SIDE * FACTOR))
        ratio = [b / a for a, b in zip(small, large, strict=True)]
        notes.append(
            f"{where}: of the product {FACTOR**2} times as large {ratio[0]:.3f} times "
            f"the requests and {ratio[1]:.3f} times the bytes."
        )
        case = f"{where}, large to small"
        rows.append(Row(case, "open and read", "requests", ratio[0], "1"))
        rows.append(Row(case, "open and read", "read", ratio[1], "1"))
    pixels = round(REGION / size.pixel)
    return rows, f"{pixels} x {pixels} pixels of {size.pixel:g} m.\n" + "\n".join(notes)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("cube_denoise").setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    main()
