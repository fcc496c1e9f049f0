"""Who does the work: every cluster gives the same, asks for what there is, stays small.

A gateway, Kubernetes and GPUs cannot be had here. What stands in for them is a module
of that name whose clusters are Dask's own `LocalCluster`; what it was asked is checked.
"""

import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import LocalCluster

from cube_denoise import cluster as clusters
from cube_denoise import cluster_kinds, cluster_workers, store
from cube_denoise.cluster import CPU_IO, GPU, ClusterError, Workers
from cube_denoise.ingest import ingest
from cube_denoise.products import find_products
from cube_denoise.steps import correct_cube, invert_cube

HOLD = 0.3
"""Seconds that a task lasts where it matters that several run at once."""


def squared(x: int) -> int:
    return x * x


def who(task: Any) -> tuple[str, float, float]:
    """Worker that did a task, and when."""
    from distributed import get_worker

    start = time.time()
    time.sleep(HOLD)
    return str(get_worker().name), start, time.time()


def threads_of_a_task(_: Any) -> int:
    return clusters.task_threads(77)


def die(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def local(**options: Any) -> LocalCluster:
    """A cluster in this process."""
    return LocalCluster(**{"processes": False, "dashboard_address": ":0"} | options)


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="module")
def labelled() -> Iterator[LocalCluster]:
    """One worker that offers a GPU, one that offers to read and write, one neither."""
    with local(n_workers=0, threads_per_worker=2) as made:
        for name, resources in (
            ("gpu", {GPU: 1}),
            ("cpu", {CPU_IO: 2}),
            ("plain", {}),
        ):
            (spec,) = made.new_worker_spec().values()
            options = spec["options"] | {"resources": resources}
            made.worker_spec[name] = spec | {"options": options}
        made.sync(made._correct_state)
        yield made


@pytest.fixture(scope="module")
def two_processes() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        memory_limit="1GiB",
        dashboard_address=":0",
    ) as made:
        yield made


# --- names -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster": "fast"}, r"cluster='fast' must be one of auto, threads"),
        ({"count": 0}, "workers=0 must be at least 1"),
        ({"memory_limit": "1GiB"}, "memory_limit='1GiB' goes with cluster='dask'"),
        ({"cluster": "tcp://x:1", "memory_limit": "1GiB"}, "not with 'tcp://x:1'"),
        ({"cluster": "gateway"}, "cluster='gateway' needs a number of workers"),
        ({"cluster": "gateway://x.org/g"}, "needs a number of workers"),
    ],
)
def test_what_makes_no_sense_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Workers(**options)


@pytest.mark.parametrize(
    ("kind", "extra"),
    [("cuda", "cuda"), ("gateway", "gateway"), ("kubernetes", "kubernetes")],
)
def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, kind: str, extra: str
) -> None:
    for name in ("dask_cuda", "dask_gateway", "dask_kubernetes"):
        monkeypatch.setitem(sys.modules, name, None)
    message = rf"needs the package dask_{extra}.* pip install 'cube-denoise\[{extra}\]'"
    with pytest.raises(ValueError, match=message), Workers(kind, count=1):
        pass


def test_no_scheduler_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
        pytest.raises(ClusterError, match=r"no Dask scheduler .*tcp://127\.0\.0\.1:9"),
        Workers("tcp://127.0.0.1:9"),
    ):
        pass


def test_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DaskJob's scheduler, else GPUs with dask-cuda, else threads."""
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    monkeypatch.setattr(cluster_kinds.importlib.util, "find_spec", lambda name: None)
    assert Workers("auto").cluster == "threads"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert Workers("auto").cluster == "threads"
    monkeypatch.setattr(
        cluster_kinds.importlib.util, "find_spec", lambda name: object()
    )
    assert Workers("auto").cluster == "cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert Workers("auto").cluster == "threads"
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://scheduler:8786")
    assert Workers("auto").cluster == "tcp://scheduler:8786"
    assert Workers().cluster == "threads"


# --- clusters that cannot be had here, and their stand-ins ------------------------


@pytest.mark.parametrize("kind", ["dask", "tcp"])
def test_local_clusters(two_processes: LocalCluster, kind: str) -> None:
    pool = (
        Workers("dask", count=1, memory_limit="512MiB")
        if kind == "dask"
        else Workers(two_processes.scheduler_address)
    )
    with pool:
        assert pool.in_order(squared, range(9)) == [k * k for k in range(9)]
        assert pool.count == (1 if kind == "dask" else 2)
        limits = {w["memory_limit"] for w in pool._offers().values()}
    assert limits == {(512 if kind == "dask" else 1024) << 20}
    assert pool.submitted == 9


def test_stand_in_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """LocalCluster for LocalCUDACluster: several tasks share the GPU, and threads."""
    asked: dict[str, Any] = {}

    def make(**options: Any) -> LocalCluster:
        asked.update(options)
        return local(**options | {"memory_limit": 0})

    module = ModuleType("dask_cuda")
    module.LocalCUDACluster = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    monkeypatch.setattr("dask.system.CPU_COUNT", 6)
    with pytest.raises(ValueError, match="finds no NVIDIA GPU"), Workers("cuda"):
        pass
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with Workers("cuda", memory_limit="8GiB") as pool:
        assert pool.count == 6
        assert pool.asking(GPU).count == cluster_kinds.TASKS_PER_GPU == 4
        assert pool.asking(GPU).in_order(squared, range(5)) == [0, 1, 4, 9, 16]
    assert (asked["n_workers"], asked["threads_per_worker"]) == (1, 6)
    assert asked["memory_limit"] == "8GiB"
    assert asked["resources"] == {GPU: 4, CPU_IO: 6}


def test_stand_in_for_a_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake `dask_gateway`: its own client (it holds the certificate) is used."""
    said: list[Any] = []

    class Cluster:
        def __init__(self) -> None:
            self.inner = local(n_workers=0, threads_per_worker=1)

        def scale(self, count: int) -> None:
            said.append(("scale", count))
            self.inner.scale(count)

        def get_client(self) -> Any:
            said.append("client")
            return self.inner.get_client()

        def close(self) -> None:
            said.append("closed")
            self.inner.close()

    class Gateway:
        def __init__(self, address: str | None) -> None:
            said.append(address)

        def new_cluster(self, *, shutdown_on_close: bool) -> Cluster:
            assert shutdown_on_close
            return Cluster()

    module = ModuleType("dask_gateway")
    module.Gateway = Gateway  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_gateway", module)
    for name, address in (
        ("gateway", None),
        ("gateway://hub.org/g", "https://hub.org/g"),
    ):
        said.clear()
        with Workers(name, count=2) as pool:
            assert pool.in_order(squared, [3, 4]) == [9, 16]
        assert said == [address, ("scale", 2), "client", "closed"]


def test_stand_in_for_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    class KubeCluster(LocalCluster):
        def __init__(self, *, n_workers: int | None) -> None:
            said.append(n_workers)
            super().__init__(
                n_workers=n_workers or 1,
                threads_per_worker=1,
                processes=False,
                dashboard_address=":0",
            )

        @classmethod
        def from_name(cls, name: str) -> "KubeCluster":
            said.append(name)
            return cls(n_workers=1)

    for name in ("dask_kubernetes", "dask_kubernetes.operator"):
        module = ModuleType(name)
        module.KubeCluster = KubeCluster  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    for name, count, expected in (
        ("kubernetes", 2, [2]),
        ("kubernetes://track-005", None, ["track-005", 1]),
    ):
        said.clear()
        with Workers(name, count=count) as pool:
            assert pool.in_order(squared, [3, 4]) == [9, 16]
        assert said == expected


# --- resources, threads, what is in flight ----------------------------------------


def test_tasks_go_where_their_resource_is(labelled: LocalCluster) -> None:
    with Workers(labelled.scheduler_address) as pool:
        assert (pool.count, pool.asking(GPU).count) == (2, 1)
        on_gpu = pool.asking(GPU).in_order(who, range(3))
        others = pool.in_order(who, range(4))
        free = pool.asking("none offers this").in_order(who, range(12))
    assert {name for name, *_ in on_gpu} == {"gpu"}
    assert {name for name, *_ in others} == {"cpu"}
    assert {name for name, *_ in free} == {"gpu", "cpu", "plain"}
    times = sorted(t[1:] for t in on_gpu)
    assert all(a[1] <= b[0] + 0.02 for a, b in pairwise(times))


def test_cores_are_shared_on_every_host(labelled: LocalCluster) -> None:
    """Three workers of two threads on this host; elsewhere the default holds."""
    from dask.system import CPU_COUNT

    with Workers(labelled.scheduler_address) as pool:
        found = set(pool.in_order(threads_of_a_task, range(6)))
    assert found == {max(1, CPU_COUNT // 6)}
    cluster_workers._here.clear()  # of workers in this process: only in tests
    with Workers("threads", count=2) as pool:
        assert pool.in_order(threads_of_a_task, [0]) == [77]


def test_few_tasks_are_in_flight(two_processes: LocalCluster) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for k in range(40):
            taken.append(k)
            yield k

    with Workers(two_processes.scheduler_address) as pool:
        ended = 0
        for _ in pool.run(squared, tasks()):
            ended += 1
            assert len(taken) - ended <= clusters.IN_FLIGHT * 2
    assert ended == pool.submitted == 40


def test_the_first_error_ends_the_rest(two_processes: LocalCluster) -> None:
    def fails(task: int) -> None:
        raise ValueError(f"task {task} is wrong")

    with Workers(two_processes.scheduler_address) as pool:
        with pytest.raises(ValueError, match="is wrong"):
            pool.in_order(fails, range(100))
        assert pool.submitted <= clusters.IN_FLIGHT * 2 + 1


@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_workers_that_die_are_told(kind: str) -> None:
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(ClusterError, match="run the step again"),
        Workers(kind, count=1) as pool,
    ):
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        pool.in_order(die, [0])


# --- the whole job ----------------------------------------------------------------


def test_two_processes_give_what_threads_give(
    two_processes: LocalCluster,
    product_folder: Path,
    plain_model: Path,
    tmp_path: Path,
) -> None:
    """One task for each block and step, each small, whatever the step."""
    items = find_products(product_folder)[0][:4]
    counts: dict[str, list[int]] = {}
    for name, address in (
        ("threads", "threads"),
        ("dask", two_processes.scheduler_address),
    ):
        pools = [Workers(address) for _ in range(3)]
        url = tmp_path / name
        ingest(items, url, chunk=32, shard=64, workers=pools[0])
        correct_cube(url, plain_model, precision="float32", workers=pools[1])
        invert_cube(url, workers=pools[2])
        counts[name] = [pool.submitted for pool in pools]
    here, there = (store.open_cube(tmp_path / n).load() for n in ("threads", "dask"))
    for name in ("corrected_phase", "displacement", "velocity"):
        difference = float(np.nanmax(abs(here[name] - there[name])))
        assert difference <= 1e-6
    pairs = here.sizes["pair"]
    blocks = -(-here.sizes["y"] // 64) * -(-here.sizes["x"] // 64)
    chunks = -(-here.sizes["y"] // 32) * -(-here.sizes["x"] // 32)
    ingested, corrected, inverted = counts["dask"]
    assert counts["threads"] == counts["dask"]
    assert ingested == pairs + 1  # and the static layers
    assert corrected == pairs * blocks
    assert inverted in (blocks, chunks)


def test_a_task_is_small(
    small_cube: Path, plain_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pickled for a block: no model, no pixels."""
    sizes: list[int] = []
    original = Workers._submit

    def submit(self: Workers, function: Any, task: Any) -> Any:
        sizes.append(len(pickle.dumps((function, task))))
        return original(self, function, task)

    monkeypatch.setattr(Workers, "_submit", submit)
    correct_cube(small_cube, plain_model, branch="small-tasks", precision="float32")
    assert sizes
    assert max(sizes) < 20_000


# --- batches ----------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_batches_do_not_matter(dilated_model: Path, batch: int) -> None:
    """The code of a GPU with the CPU for device; nothing where nothing was given."""
    from cube_denoise import device
    from cube_denoise.models import zoo

    model = zoo.load_model(dilated_model).fused()
    generator = np.random.default_rng(8)
    shapes = [(40, 30)] * 3 + [(30, 40)] * 2 + [(40, 30)] * 2
    arrays: list[Any] = [generator.normal(size=(4, *s)).astype("f4") for s in shapes]
    arrays[1:1] = [None]
    arrays.append(None)
    found = list(device.outputs(model, iter(arrays), device="cpu", batch=batch))
    for array, values in zip(arrays, found, strict=True):
        if array is None:
            assert values is None
            continue
        (alone,) = device.outputs(model, [array], device="cpu")
        assert values.shape == array.shape[1:]
        np.testing.assert_allclose(values, alone, rtol=0, atol=2e-6)


def test_groups_are_of_one_shape_and_bounded() -> None:
    from cube_denoise.device import _groups

    sizes = [2, 2, 2, 2, 2, 3, 0, 3, 3]
    arrays = [np.zeros((1, n, n)) if n else None for n in sizes]
    groups = [
        [0 if a is None else a.shape[1] for a in g]
        for g in _groups(arrays, lambda shape: 3 if shape[1] == 2 else 1)
    ]
    assert groups == [[2, 2, 2], [2, 2], [3], [0], [3], [3]]


@pytest.mark.parametrize(
    ("free", "need", "expected"),
    [(8 << 30, 1 << 30, 4), (1 << 30, 1 << 30, 1), (0, 1 << 30, 1), (100, 0, 50)],
)
def test_batches_fit_half_of_the_free_memory(
    free: int, need: int, expected: int
) -> None:
    from cube_denoise.device import batch_size

    assert batch_size(free, need) == expected


def test_reading_goes_on_while_others_compute() -> None:
    """In order; as many at once as there are readers; an error is not swallowed."""
    from cube_denoise.device import in_advance

    eight = threading.Barrier(8, timeout=30)

    def together(k: int) -> int:
        eight.wait()
        return squared(k)

    assert list(in_advance(together, range(16), 8)) == [k * k for k in range(16)]
    assert list(in_advance(squared, range(4), 0)) == [0, 1, 4, 9]
    with pytest.raises(ZeroDivisionError):
        list(in_advance(lambda k: 1 / k, [1, 0], 2))


def test_the_path_of_a_gpu_with_a_stand_in(
    stack: xr.Dataset,
    plain_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_cube: Callable[..., Path],
) -> None:
    """Batches, readers and turns as on a GPU; only copies and kernels are the CPU's."""
    from cube_denoise import device

    sizes: list[int] = []
    cpu = device._on_cpu

    def launch(model: Any, group: list[Any], *options: Any) -> Any:
        sizes.append(len(group))
        return cpu(model, group, *options)

    monkeypatch.setattr("cube_denoise.halo.Lattice.__init__", _small_tiles)
    pairs = stack.isel(pair=slice(2))
    expected = make_cube(pairs)
    correct_cube(expected, plain_model, precision="float32")
    url = make_cube(pairs)
    plain = device.outputs
    monkeypatch.setattr(device, "_on_gpu", launch)
    monkeypatch.setattr(device, "READERS", 3)
    monkeypatch.setattr(device, "CUDA", "cpu")  # so that this device is the GPU
    monkeypatch.setattr(device, "outputs", partial(plain, batch=4))
    correct_cube(url, plain_model, precision="float32")
    one, other = (store.open_cube(u)["corrected_phase"] for u in (expected, url))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert max(sizes) > 1


def _small_tiles(self: Any, shape: Any, tile: int, radius: int | None) -> None:
    """Lattice of 16 pixels, so that a block holds many tiles."""
    for name, value in (("shape", shape), ("tile", 16), ("radius", radius)):
        object.__setattr__(self, name, value)


# --- benchmarks -------------------------------------------------------------------


@pytest.mark.slow
def test_spilling_and_loss_are_seen() -> None:
    """What the benchmark below finds none of can be found."""
    import dask
    from distributed import Client

    from benchmarks.bounded_workers import Watch, memory_of_worker

    watch = Watch()
    with (
        dask.config.set({"distributed.worker.memory.target": 0.01}),
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            memory_limit="1GiB",
            dashboard_address=":0",
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.scheduler.add_plugin(watch)
        kept = [client.submit(np.ones, 10**6 + k) for k in range(4)]
        assert sum(f.result().size for f in kept) > 4e6
        (found,) = client.run(memory_of_worker).values()
        assert found["spilled"] > 8e6
        assert found["peak"] > 5e7
        assert (len(watch.tasks), watch.lost) == (4, 0)
    assert watch.lost == 1


@pytest.mark.slow
def test_ten_demos_on_two_small_workers(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import bounded_workers

    rows = bounded_workers.main(["--quick"])
    found = {(r.method.split(",")[0], r.metric): r.value for r in rows}
    assert found["correct", "blocks"] > 2
    for step in ("correct", "invert"):
        assert found[step, "tasks"] == found[step, "blocks"]
        for metric in ("spilled", "pauses", "workers lost"):
            assert found[step, metric] == 0
        assert found[step, "largest task"] < 20
        assert 0 < found[step, "peak of a worker"] < 1024
    assert "10.24 times" in capsys.readouterr().out


@pytest.mark.slow
def test_the_gpu_benchmark_says_where_it_ran(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    from benchmarks import gpu

    rows = gpu.main(["--quick"])
    assert all(np.isfinite(r.value) for r in rows)
    exact = {r.method: r.value for r in rows if r.metric == "largest difference"}
    if not torch.cuda.is_available():
        assert "NO GPU HERE" in capsys.readouterr().out
        assert exact["float32"] == 0
        assert exact["dask-float32"] < 1e-4
    rms = [r for r in rows if r.metric == "rms difference"]
    assert all(r.value < 0.1 for r in rms)
    shares = [r.value for r in rows if r.metric == "share of peak"]
    assert shares
    assert all(s > 0 for s in shares)
