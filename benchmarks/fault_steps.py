"""What the child processes of `benchmarks.faults` do: a step, a scheduler, a worker.

Children are forked from a process that has imported all they need, but has not begun
anything (`multiprocessing`'s fork server).
"""

import asyncio
import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PRELOAD = [
    "cube_denoise.steps",
    "cube_denoise.update",
    "cube_denoise.corrections",
    "cube_denoise.catalog",
    "cube_denoise.correct",
    "cube_denoise.invert",
    "rasterio",
    "rasterio.warp",
    "odc.geo.xr",
    "obstore",
    "dask.array",
    "distributed",
]
REFERENCE = {"y": [0, 8], "x": [0, 8]}
METHOD = "ramp"
CHUNK, SHARD = 16, 32
"""48 pixels a side are four shards for every pair, and nine blocks of an inversion."""


def job_of(source: str, cube: str, cluster: str) -> dict[str, Any]:
    """The job that brings a cube up to date with `source`."""
    return {
        "source": source,
        "cube": cube,
        "correct": {"method": METHOD},
        "invert": {"reference": REFERENCE},
        "cluster": cluster,
        "workers": None if "://" in cluster else 2,
    }


def take_step(
    step: str,
    url: str,
    cluster: str,
    before: str,
    source: str,
    environment: Mapping[str, str],
    log: str,
) -> None:
    """Do one step on a cube.

    Parameters
    ----------
    step : str
        ingest, correct, invert or update.
    url, cluster : str
        The cube; as of `cluster.Workers`.
    before, source : str
        Item lists: what `ingest` finds, and what `update` finds.
    environment : mapping
        Variables to set.
    log : str
        File for an error.
    """
    with _child(environment, log):
        from cube_denoise.catalog import resolve, search
        from cube_denoise.cluster import Workers
        from cube_denoise.ingest import ingest
        from cube_denoise.pipeline import search_mark
        from cube_denoise.steps import correct_cube, invert_cube
        from cube_denoise.store import staging
        from cube_denoise.update import update

        staging.COMMIT_SECONDS = 0  # as many commits as a long step has
        job = job_of(source, url, cluster)
        workers = Workers(cluster, count=job["workers"])
        if step == "ingest":
            ingest(
                resolve(search(before)),
                url,
                chunk=CHUNK,
                shard=SHARD,
                workers=workers,
                search=search_mark(job),
            )
        elif step == "correct":
            correct_cube(url, METHOD, workers=workers)
        elif step == "invert":
            invert_cube(url, reference=REFERENCE, workers=workers)
        else:
            update(job)


def run_scheduler(port: int, environment: Mapping[str, str], log: str) -> None:
    """Be a Dask scheduler on loopback."""
    from distributed import Scheduler

    async def serve() -> None:
        async with Scheduler(
            host="127.0.0.1", port=port, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            await scheduler.finished()

    with _child(environment, log):
        asyncio.run(serve())


def run_worker(
    address: str, folder: str, environment: Mapping[str, str], log: str
) -> None:
    """Be a Dask worker of one thread, without a nanny that would start it again."""
    from distributed import Worker

    async def serve() -> None:
        async with Worker(
            address,
            nthreads=1,
            memory_limit=0,
            local_directory=folder,
            dashboard=False,
            dashboard_address=":0",
        ) as worker:
            await worker.finished()

    with _child(environment, log):
        asyncio.run(serve())


@contextlib.contextmanager
def _child(environment: Mapping[str, str], log: str) -> Iterator[None]:
    """A process group of its own; an error goes to a file and ends it."""
    os.setsid()
    os.environ.update(environment)
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        print(f"ERROR {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
