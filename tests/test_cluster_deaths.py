"""Clients, workers and schedulers that die: nothing is left over, and it is told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr
from distributed import Client

from cube_denoise import cluster as clusters
from cube_denoise import store
from cube_denoise.cluster import ClusterError, Workers
from cube_denoise.steps import correct_cube

PATIENCE = 20.0
"""Seconds that a process may take to begin or to end."""


# --- a client that is killed -----------------------------------------------------

IDLE = """
import time
from cube_denoise.cluster import Workers

with Workers("processes", count=2) as pool:
    print("begun", pool.in_order(time.sleep, [0.1] * 4), flush=True)
    time.sleep(600)
"""
BUSY = """
import time
from cube_denoise.cluster import Workers

with Workers("processes", count=2) as pool:
    for _ in pool.run(time.sleep, [0.05, 0.05] + [600] * 8):
        print("begun", flush=True)
"""
WRITING = """
import sys
from cube_denoise.cluster import Workers
from cube_denoise.steps import correct_cube

with Workers("processes", count=2) as pool:
    for k in range(1000):
        correct_cube(sys.argv[1], "ramp", branch=f"try-{k}", workers=pool)
        print("begun", flush=True)
"""


def killed(script: str, *args: str, after: float) -> list[psutil.Process]:
    """SIGKILL a client some time after it says something; the workers it had."""
    client = subprocess.Popen(
        [sys.executable, "-c", script, *args], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    try:
        assert client.stdout.readline().startswith("begun")
        time.sleep(after)
        workers = [
            child
            for child in psutil.Process(client.pid).children()
            if any("spawn_main" in word for word in child.cmdline())
        ]
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
    return workers


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(IDLE, id="idle", marks=pytest.mark.slow),
        pytest.param(BUSY, id="busy"),
    ],
)
def test_processes_end_with_a_killed_client(script: str) -> None:
    workers = killed(script, after=0.2)
    assert len(workers) == 2
    gone, alive = psutil.wait_procs(workers, timeout=5)
    for worker in alive:
        worker.kill()
    assert (len(gone), alive) == (2, [])


@pytest.mark.slow
def test_nothing_is_written_after_the_client(make_cube: Callable[..., Path]) -> None:
    """Its workers are gone, readers see whole states, and a rerun gives the same."""
    url = make_cube()
    before = store.open_cube(url).load()
    for after in (0.05, 0.15):
        workers = killed(WRITING, str(url), after=after)
        assert not psutil.wait_procs(workers, timeout=5)[1]
        there = files(url)
        time.sleep(0.5)
        assert files(url) == there
        xr.testing.assert_identical(store.open_cube(url).load(), before)
    correct_cube(url, "ramp", branch="undisturbed")
    expected = store.open_cube(url, branch="undisturbed").corrected_phase.load()
    for name in (n for n in branches(url) if n.startswith("try-")):
        correct_cube(url, "ramp", branch=name)
        found = store.open_cube(url, branch=name).corrected_phase
        np.testing.assert_array_equal(found, expected)


def branches(url: Path) -> set[str]:
    return store.visible_branches(store.open_repository(url))


def files(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_size for p in folder.rglob("*") if p.is_file()}


# --- workers that die between tasks ----------------------------------------------


def test_a_pool_that_died_between_tasks_is_told() -> None:
    """Then not a result but giving the next task fails."""
    with Workers("processes", count=1) as pool:
        (worker,) = pool.in_order(own_id, [0])
        os.kill(worker, signal.SIGKILL)
        begin = time.monotonic()
        while not pool._executor._broken and time.monotonic() - begin < PATIENCE:
            time.sleep(0.01)
        with pytest.raises(ClusterError, match=r"worker process died.*run the step"):
            pool.in_order(own_id, [0])


def own_id(_: object) -> int:
    return os.getpid()


# --- a scheduler that dies --------------------------------------------------------


@contextmanager
def dask_of_processes(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Address and process of a scheduler that has one worker."""
    file = folder / "scheduler.json"
    options = ["--scheduler-file", str(file), "--no-dashboard"]
    here = ["--host", "127.0.0.1"]
    only = ["--nthreads", "1", "--no-nanny", "--local-directory", str(folder)]
    commands = (["scheduler", "--port", "0", *here], ["worker", *only])
    made = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    try:
        with Client(scheduler_file=str(file), timeout=PATIENCE) as client:
            client.wait_for_workers(1, timeout=PATIENCE)
            address = client.scheduler.address
        yield address, made[0]
    finally:
        for process in made:
            process.kill()
            process.wait()


@pytest.fixture
def impatient() -> Iterator[None]:
    """A client that does not try for long to find its scheduler again."""
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        yield


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "moment",
    [
        "while tasks run",
        pytest.param("between tasks", marks=pytest.mark.slow),
        "long ago",
    ],
)
def test_a_dead_scheduler_is_told(tmp_path: Path, moment: str) -> None:
    with (
        dask_of_processes(tmp_path) as (address, scheduler),
        pytest.raises(ClusterError, match=rf"{address}.* is gone.*run the step again"),
        Workers(address) as pool,
    ):
        tasks = pool.run(time.sleep, [0.1] * 1000)
        next(tasks)
        if moment == "while tasks run":
            scheduler.kill()
        else:
            tasks.close()
            scheduler.kill()
            time.sleep(0.5 if moment == "between tasks" else 3)
            pool._seen = (-clusters.LOOK_EVERY, {})
            tasks = pool.run(time.sleep, [0.1] * 1000)
        begin = time.monotonic()
        try:
            for _ in tasks:
                pass
        finally:
            assert time.monotonic() - begin < PATIENCE


@pytest.mark.usefixtures("impatient")
def test_a_result_that_never_comes_is_told(tmp_path: Path) -> None:
    """Dask may forget a result that it was fetching when the scheduler died."""
    with dask_of_processes(tmp_path) as (address, scheduler), Workers(address) as pool:
        clusters.LOOK_EVERY, usual = 0.2, clusters.LOOK_EVERY
        try:
            pool._executor._wrap_future = lambda future: clusters.Future()
            tasks = pool.run(time.sleep, [0.1] * 10)
            scheduler.kill()
            with pytest.raises(ClusterError, match="is gone"):
                next(tasks)
        finally:
            clusters.LOOK_EVERY = usual


@pytest.mark.usefixtures("impatient")
def test_a_step_goes_on_after_its_scheduler_died(
    make_cube: Callable[..., Path], tmp_path: Path
) -> None:
    url = make_cube()
    before = store.open_cube(url).load()
    with dask_of_processes(tmp_path) as (address, scheduler):
        pool = Workers(address)
        original, given = pool._submit, []

        def submit(*task: object) -> object:
            given.append(task)
            if len(given) == 3:
                scheduler.kill()
            return original(*task)  # type: ignore[arg-type]

        pool._submit = submit  # type: ignore[assignment, method-assign]
        with pytest.raises(ClusterError, match="is gone"):
            correct_cube(url, "ramp", workers=pool)
    xr.testing.assert_identical(store.open_cube(url).load(), before)
    undisturbed = make_cube()
    for place in (url, undisturbed):
        correct_cube(place, "ramp")
    found, expected = (
        store.open_cube(place).corrected_phase for place in (url, undisturbed)
    )
    np.testing.assert_array_equal(found, expected)
