"""What workers share: the cores of their host, one cluster for a job, small tasks."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import LocalCluster

import cube_denoise
from cube_denoise import cluster as clusters
from cube_denoise import pipeline, steps
from cube_denoise.catalog import write_catalog
from cube_denoise.cluster import Workers, task_threads
from cube_denoise.correct import plan_correction
from cube_denoise.ingest import ingest, ingest_dataset
from cube_denoise.products import find_products

CORES = 12


def threads_of_a_task(_: Any) -> int:
    return task_threads(77)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """One Dask worker of one thread on a host of `CORES`."""
    monkeypatch.setattr("dask.system.CPU_COUNT", CORES)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as made:
        yield made


# --- cores ------------------------------------------------------------------------


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or os.cpu_count() == 1,
    reason="needs affinity and two cores",
)
def test_cores_are_those_that_may_be_used() -> None:
    """Not those of the node: a container or a job of a queue has fewer."""
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from cube_denoise.cluster import Workers\n"
        "from cube_denoise.corrections import find_correction\n"
        "threads = find_correction('dncnn').shared_by(1).threads\n"
        "print(Workers('threads').count, Workers('processes').count, threads)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "1", "1"]


def test_nobody_counts_the_cores_of_the_node() -> None:
    package = Path(cube_denoise.__file__).parent
    assert not [p for p in package.rglob("*.py") if "cpu_count" in p.read_text()]


def test_workers_that_join_later_share_the_cores(
    in_this_process: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "LOOK_EVERY", 0.0)
    with Workers(in_this_process.scheduler_address) as pool:
        for number in (1, 3, 2):
            in_this_process.scale(number)
            in_this_process.sync(in_this_process._correct_state)
            assert pool.count == number
            found = set(pool.in_order(threads_of_a_task, range(12)))
            assert found == {CORES // number}


def test_a_worker_that_dies_while_told_does_no_harm(
    in_this_process: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, told = clusters.share_cores, []

    def once_in_vain(*args: Any) -> None:
        told.append(args)
        if len(told) == 1:
            raise OSError("a worker has gone")
        tell(*args)

    monkeypatch.setattr(clusters, "share_cores", once_in_vain)
    with Workers(in_this_process.scheduler_address) as pool:
        pool.in_order(threads_of_a_task, range(2))
        assert len(told) == 1
        monkeypatch.setattr(clusters, "LOOK_EVERY", 0.0)
        assert pool.in_order(threads_of_a_task, range(2)) == [CORES] * 2
    assert len(told) == 2


# --- one cluster for a job --------------------------------------------------------


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[LocalCluster]:
    """Clusters that were begun, quick ones in this process."""
    made = []

    def start(*_: Any) -> LocalCluster:
        made.append(
            LocalCluster(
                n_workers=1,
                threads_per_worker=2,
                processes=False,
                dashboard_address=":0",
            )
        )
        return made[-1]

    monkeypatch.setattr(clusters, "started", start)
    return made


def test_a_job_begins_one_cluster(
    begun: list[LocalCluster], product_folder: Path, tmp_path: Path
) -> None:
    """For all its steps, and none if there is nothing to do."""
    write_catalog(find_products(product_folder)[0], tmp_path / "catalog")
    job = {
        "source": str(tmp_path / "catalog"),
        "cube": str(tmp_path / "cube"),
        "correct": {"method": "ramp"},
        "cluster": "dask",
        "workers": 1,
    }
    report = pipeline.run(job)
    assert report.correct is not None
    assert min(report.ingest.added, report.correct.done, report.invert.done) > 0
    assert len(begun) == 1
    pipeline.run(job)
    assert len(begun) == 1
    assert begun[0].status.name == "closed"


def test_kept_workers_begin_when_needed_and_end_once(begun: list[LocalCluster]) -> None:
    pool = Workers("dask", count=1)
    with pool.kept():
        assert not begun
        for _ in range(2):
            with pool:
                assert pool.in_order(abs, [-1, 2]) == [1, 2]
            assert [made.status.name for made in begun] == ["running"]
    assert [made.status.name for made in begun] == ["closed"]
    with pytest.raises(ZeroDivisionError), pool.kept(), pool:
        raise ZeroDivisionError
    assert [made.status.name for made in begun] == ["closed", "closed"]


# --- small tasks ------------------------------------------------------------------


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pickled size of each task given to workers."""
    found: list[int] = []
    original = Workers._submit

    def submit(self: Workers, function: Any, task: Any) -> Any:
        found.append(len(pickle.dumps((function, task))))
        return original(self, function, task)

    monkeypatch.setattr(Workers, "_submit", submit)
    return found


def test_a_task_that_reads_does_not_grow_with_the_pairs(
    sizes: list[int], product_folder: Path, tmp_path: Path
) -> None:
    """The one that reads static layers may try all records, and is one."""
    records = find_products(product_folder)[0]
    most = {}
    for count in (2, len(records)):
        sizes.clear()
        ingest(records[:count], tmp_path / str(count), chunk=32, shard=64)
        assert len(sizes) == count + 1
        most[count] = max(sizes[:count])
    one = len(pickle.dumps(records[0]))
    assert abs(most[len(records)] - most[2]) < 0.2 * one


def test_a_task_of_arrays_brings_one_pair(
    sizes: list[int], stack: xr.Dataset, tmp_path: Path
) -> None:
    layers = {n for n in ("unwrapped_phase", "coherence") if n in stack}
    one = sum(stack[n][0].nbytes for n in layers)
    ingest_dataset(stack.load(), tmp_path / "cube", chunk=32, shard=64)
    assert max(sizes[: stack.sizes["pair"]]) < one + 20_000


@pytest.mark.parametrize("guarded", [False, True])
def test_a_block_of_local_slopes_brings_its_own(guarded: bool) -> None:
    """Of its pair, or of all where all are corrected together; the same values."""
    generator = np.random.default_rng(3)
    days = np.arange("2020-01-01", "2020-01-10", dtype="datetime64[D]")
    shape = (days.size - 1, 328, 264)
    rise = np.add.outer(np.arange(shape[1]), np.arange(shape[2])) * 3.0
    phase = generator.normal(size=shape) + rise * generator.normal(size=(8, 1, 1)) / 900
    cube = xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase.astype("float32")),
            "elevation": (("y", "x"), rise.astype("float32")),
        },
        {
            "reference_time": ("pair", days[:-1].astype("datetime64[s]")),
            "secondary_time": ("pair", days[1:].astype("datetime64[s]")),
        },
        {"wavelength": 0.0555},
    )
    options = {"guarded": guarded, "relief": 40.0}
    job = plan_correction(cube, "local-phase-elevation", block=64, **options)[0]
    whole = len(pickle.dumps(job.compute))
    for window in job.windows:
        own = job.computing(window)
        np.testing.assert_array_equal(
            own(cube, window)["corrected_phase"],
            job.compute(cube, window)["corrected_phase"],
        )
        cells = 10 * 10 * (4 * (8 if guarded else 1) + 8)
        assert len(pickle.dumps(own)) < cells + 3_000 < whole


def test_a_step_sends_what_a_block_needs(
    stack: xr.Dataset, make_cube: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    carried: list[tuple[int, ...]] = []
    original = steps._one_window

    def one_window(cube: xr.Dataset, task: Any) -> Any:
        carried.append(tuple(task[0].keywords["apply"].slopes))
        return original(cube, task)

    monkeypatch.setattr(steps, "_one_window", one_window)
    steps.correct_cube(make_cube(), "local-phase-elevation", guarded=False)
    assert {len(pairs) for pairs in carried} == {1}
    assert {k for (k,) in carried} == set(range(stack.sizes["pair"]))
