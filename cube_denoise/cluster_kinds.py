"""Kinds of clusters: what they are called, and how each is begun."""

import importlib
import importlib.util
import logging
import os
from typing import Any

log = logging.getLogger(__name__)

KINDS = ("auto", "threads", "processes", "dask", "cuda", "gateway", "kubernetes")
"""Clusters by name; beside them the address of a Dask scheduler."""
GPU, CPU_IO = "GPU", "CPU_IO"
"""Resources that tasks ask for where workers offer them: networks, all else."""
TASKS_PER_GPU = 4
"""Network tasks at once in a worker of `LocalCUDACluster`: the GPU computes for one
while the others read and write."""


def resolved(cluster: str) -> str:
    """What "auto" means here; all else as it is: see `cluster.Workers`."""
    if cluster != "auto":
        return cluster
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address:
        return address
    if importlib.util.find_spec("dask_cuda") is not None and gpus():
        return "cuda"
    return "threads"


def started(kind: str, count: int | None, memory_limit: str | None) -> Any:
    """Start or find a cluster; an address is returned as it is."""
    kind, sign, place = kind.partition("://")
    if kind == "dask":
        return package("distributed", "cluster").LocalCluster(
            n_workers=count or cores(),
            threads_per_worker=1,
            memory_limit=memory_limit or "auto",
            dashboard_address=":0",
        )
    if kind == "cuda":
        module = package("dask_cuda", "cuda")
        number = count or gpus()
        if not number:
            raise ValueError(
                "cluster='cuda' finds no NVIDIA GPU on this machine: take 'dask' for "
                "processes, or 'threads'"
            )
        threads = max(1, cores() // number)
        return module.LocalCUDACluster(
            n_workers=number,
            threads_per_worker=threads,
            memory_limit=memory_limit or "auto",
            resources={GPU: min(TASKS_PER_GPU, threads), CPU_IO: threads},
            dashboard_address=":0",
        )
    if kind == "gateway":
        module = package("dask_gateway", "gateway")
        gateway = module.Gateway(f"https://{place}" if place else None)
        cluster = gateway.new_cluster(shutdown_on_close=True)
        cluster.scale(count)
        return cluster
    if kind == "kubernetes":
        operator = package("dask_kubernetes.operator", "kubernetes")
        if place:
            return operator.KubeCluster.from_name(place)
        return operator.KubeCluster(n_workers=count)
    return kind + sign + place


def package(name: str, extra: str) -> Any:
    """Import an optional package; a ValueError names the extra that brings it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"cluster needs the package {name.partition('.')[0]}, which cannot be "
            f"imported ({error}): pip install 'cube-denoise[{extra}]'"
        ) from None


def cores() -> int:
    """Cores that this process may use: affinity and control groups limit them."""
    from dask import system

    return int(system.CPU_COUNT)


def gpus() -> int:
    """NVIDIA GPUs that processes of this machine may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([v for v in visible.split(",") if v.strip() not in ("", "-1")])
    try:
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except Exception as error:  # no driver, no library: each has its own kind
        log.debug("no GPU: %s", error)
        return 0
