"""Inside the workers: their share of the cores, and that they end with the client."""

import multiprocessing
import os
import threading
from collections.abc import Mapping
from multiprocessing.connection import wait
from typing import Any

from cube_denoise.cluster_kinds import cores

_here: dict[str, int] = {}


def task_threads(default: int) -> int:
    """Cores for a task of this process: its share in a Dask worker, else `default`."""
    return _here.get("threads", default)


def take(threads: int | None) -> None:
    """Set what `task_threads` gives; by reference, so in the worker's own module."""
    _here.clear()
    if threads is not None:
        _here["threads"] = threads


def tasks_by_host(workers: Mapping[str, Any]) -> dict[str, int]:
    """Tasks that run at once on every host of a Dask cluster."""
    tasks: dict[str, int] = {}
    for worker in workers.values():
        tasks[worker["host"]] = tasks.get(worker["host"], 0) + worker["nthreads"]
    return tasks


def share_cores(client: Any, tasks: Mapping[str, int]) -> None:
    """Share the cores of every host among the tasks that run there.

    Workers that join later know at least of themselves; tell them anew of the others.
    """
    from distributed import WorkerPlugin

    class ShareCores(WorkerPlugin):
        """Pickled by value: its class exists only where distributed does."""

        name = "cube-denoise"

        def setup(self, worker: Any) -> None:
            from distributed.comm import get_address_host

            there = tasks.get(get_address_host(worker.address), 0)
            take(max(1, cores() // max(there, worker.state.nthreads)))

        def teardown(self, worker: Any) -> None:
            take(None)

    client.register_plugin(ShareCores())  # takes the place of an earlier one


def end_with_client() -> None:
    """Begin a worker process: it ends when its client does, by whatever signal.

    Only the client commits, so that nothing it was writing shows.
    """
    client = multiprocessing.parent_process()
    assert client is not None, "this is no worker process"
    threading.Thread(
        target=_end_after, args=(client.sentinel,), name="end-with-client", daemon=True
    ).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
