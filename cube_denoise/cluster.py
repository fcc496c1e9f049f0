"""Who does the work: threads or processes of this machine, or a Dask cluster."""

import copy
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import Any, Self

from cube_denoise.cluster_kinds import (
    CPU_IO,
    GPU,
    KINDS,
    cores,
    package,
    resolved,
    started,
)
from cube_denoise.cluster_workers import (
    end_with_client,
    share_cores,
    task_threads,
    tasks_by_host,
)

__all__ = ["CPU_IO", "GPU", "ClusterError", "Workers", "cores", "task_threads"]

log = logging.getLogger(__name__)

IN_FLIGHT = 4
"""Tasks submitted at once, for each that runs."""
LOOK_EVERY = 5.0
"""Seconds between looks at what the workers offer."""
GO_ON = "what is committed stays, run the step again"


class ClusterError(RuntimeError):
    """Workers or their scheduler cannot be had, or die."""


class Workers:
    """A pool that runs independent tasks; a context manager.

    It begins with the first ``with`` and ends with the last that is left; see `kept`.

    Parameters
    ----------
    cluster : str
        - "threads" or "processes" of this machine;
        - "dask": a `distributed.LocalCluster` of processes, ended with their memory
          kept within `memory_limit`;
        - "cuda": a `dask_cuda.LocalCUDACluster`, a worker for each GPU;
        - the address of a Dask scheduler, such as ``tcp://127.0.0.1:8786``;
        - "gateway": a new cluster of the Dask Gateway that Dask's configuration names,
          or of ``gateway://host/path`` (by https);
        - "kubernetes": a new `dask_kubernetes` KubeCluster, or ``kubernetes://name``,
          one that is there;
        - "auto": the scheduler of the environment variable DASK_SCHEDULER_ADDRESS (the
          operator of Dask sets it in the pod of a DaskJob), else "cuda" where there
          are GPUs and dask-cuda, else "threads".
    count : int, optional
        Threads, processes, GPUs or workers; as many as there are cores or GPUs when
        not given. A cluster that is there keeps its size.
    memory_limit : str, optional
        Of each worker of "dask" and "cuda", such as "4GiB"; a share of the machine's
        memory when not given.

    Raises
    ------
    ValueError
        If `cluster` is none of these, `count` is not positive or missing for a
        gateway, or `memory_limit` is given where this does not start the workers.
    ClusterError
        On entering, if no scheduler answers.
    """

    def __init__(
        self,
        cluster: str = "threads",
        *,
        count: int | None = None,
        memory_limit: str | None = None,
    ) -> None:
        if count is not None and count < 1:
            raise ValueError(f"workers={count} must be at least 1")
        if cluster not in KINDS and "://" not in cluster:
            raise ValueError(
                f"{cluster=} must be one of {', '.join(KINDS)} or the address of a "
                "Dask scheduler such as tcp://127.0.0.1:8786"
            )
        self.cluster = resolved(cluster)
        if memory_limit is not None and self.cluster not in ("dask", "cuda"):
            raise ValueError(
                f"{memory_limit=} goes with cluster='dask' or 'cuda', which start "
                f"workers of their own, not with {self.cluster!r}"
            )
        if self.cluster.partition("://")[0] == "gateway" and count is None:
            raise ValueError(f"cluster={cluster!r} needs a number of workers")
        self.memory_limit = memory_limit
        self.resource = CPU_IO
        self._asked = count
        self._executor: Any = None
        self._client: Any = None
        self._closing = ExitStack()
        self._seen: tuple[float, Mapping[str, Any]] = (-LOOK_EVERY, {})
        self._tally = {"tasks": 0}
        self._shares: dict[str, int] = {}
        self._users = 0

    def __enter__(self) -> Self:
        if self._executor is None:
            try:
                self._begin()
            except BaseException:
                self._end()
                raise
        self._users += 1
        return self

    def __exit__(self, *exception: object) -> None:
        self._users -= 1
        if not self._users:
            self._end()

    @contextmanager
    def kept(self) -> Iterator[Self]:
        """Keep the workers for several steps: begun by the first that needs them."""
        self._users += 1
        try:
            yield self
        finally:
            self.__exit__()

    def _begin(self) -> None:
        if self.cluster == "threads":
            self._executor = ThreadPoolExecutor(self.count)
        elif self.cluster == "processes":
            self._executor = ProcessPoolExecutor(
                self.count,
                # A forked child would inherit locks of Icechunk's threads.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=end_with_client,
            )
        else:
            try:
                self._connect()
            except OSError as error:
                raise ClusterError(
                    f"no Dask scheduler answers for cluster={self.cluster!r}: {error}"
                ) from None
            self._executor = self._client.get_executor(pure=False)

    def _connect(self) -> None:
        cluster = started(self.cluster, self._asked, self.memory_limit)
        if not isinstance(cluster, str):
            self._closing.callback(cluster.close)
        get_client = getattr(cluster, "get_client", None)
        if get_client is None:
            self._client = package("distributed", "cluster").Client(cluster)
        else:
            self._client = get_client()
        self._closing.callback(self._client.close)
        log.info("%d workers at %s", len(self._offers()), self.address)

    def _end(self) -> None:
        if self._client is None and self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        elif self._executor is not None and self._client.status == "running":
            self._closing.callback(self._executor.shutdown, wait=False)  # cancels
        try:
            self._closing.close()
        except Exception as error:  # each kind of cluster has its own
            log.warning("%s did not end well: %s", self.cluster, error)
        finally:
            self._executor = self._client = None
            self._seen = (-LOOK_EVERY, {})
            self._shares.clear()
        log.debug("%s: %d tasks in all", self.cluster, self.submitted)

    @property
    def count(self) -> int:
        """Tasks of this kind that run at once."""
        if self._client is None:
            return self._asked or cores()
        workers = self._offers().values()
        if self._limits():
            return int(sum(w["resources"].get(self.resource, 0) for w in workers))
        return max(sum(w["nthreads"] for w in workers), 1)

    @property
    def address(self) -> str:
        """Of the Dask scheduler: what other `Workers` of the same cluster are given."""
        assert self._client is not None, "no Dask cluster, or not begun"
        return str(self._client.scheduler.address)

    @property
    def submitted(self) -> int:
        """Tasks given to the workers so far: the size of all graphs together."""
        return self._tally["tasks"]

    def asking(self, resource: str) -> Self:
        """Return the same workers, for tasks that ask for another resource.

        Where no worker offers it, any worker may do the tasks.
        """
        view = copy.copy(self)
        view.resource = resource
        return view

    def in_order(
        self, function: Callable[[Any], Any], tasks: Sequence[Any]
    ) -> list[Any]:
        """Results in the order of the tasks; the first error ends the rest."""
        done: list[Any] = [None] * len(tasks)
        numbered = list(enumerate(tasks))
        for (k, _), result in self.run(partial(_second, function), numbered):
            done[k] = result
        return done

    def run(
        self, function: Callable[[Any], Any], tasks: Iterable[Any]
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (task, result) as tasks end; the first error ends the rest.

        Each task is a graph of its own, and few of them are in flight.

        Raises
        ------
        ClusterError
            If workers die of a task, or their scheduler dies.
        """
        pending: dict[Future[Any], Any] = {}
        source = iter(tasks)
        try:
            while True:
                room = max(IN_FLIGHT * self.count - len(pending), 0)
                for task in islice(source, room):
                    pending[self._submit(function, task)] = task
                if not pending:
                    return
                # Not for ever: workers may join meanwhile, and a scheduler may die.
                for future in wait(pending, LOOK_EVERY, FIRST_COMPLETED).done:
                    task = pending.pop(future)
                    yield task, self._result(future)
        finally:
            for future in pending:
                future.cancel()

    def _submit(self, function: Callable[[Any], Any], task: Any) -> Future[Any]:
        assert self._executor is not None, "use Workers in a with statement"
        self._tally["tasks"] += 1
        limits = self._limits()
        options = {"resources": limits} if limits else {}
        try:
            future: Future[Any] = self._executor.submit(function, task, **options)
        except BrokenProcessPool:
            raise _died("a worker process died") from None
        except Exception:
            if self._client is None or self._client.status == "running":
                raise
            raise self._lost() from None
        return future

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except CancelledError:  # Dask's word for a scheduler that is gone
            raise self._lost() from None
        except BrokenProcessPool:
            raise _died("a worker process died") from None
        except Exception as error:
            if type(error).__name__ != "KilledWorker":
                raise
            raise _died(" ".join(str(error).split())) from None

    def _lost(self) -> ClusterError:
        return ClusterError(
            f"the Dask scheduler of cluster={self.cluster!r} is gone or was begun "
            f"anew; {GO_ON} when it is there"
        )

    def _limits(self) -> dict[str, float]:
        """What a task asks of its worker."""
        if self._client is None:
            return {}
        offered = any(
            w["resources"].get(self.resource) for w in self._offers().values()
        )
        return {self.resource: 1} if offered else {}

    def _offers(self) -> Mapping[str, Any]:
        """Workers of the cluster, which may come and go."""
        looked, workers = self._seen
        if time.monotonic() - looked >= LOOK_EVERY:
            told = self._client.scheduler_info(n_workers=-1)
            if self._client.status != "running" or "workers" not in told:
                raise self._lost()
            workers = told["workers"]
            self._seen = (time.monotonic(), workers)
            self._share(tasks_by_host(workers))
        return workers

    def _share(self, tasks: dict[str, int]) -> None:
        """Tell all workers when some have come or gone."""
        if tasks == self._shares:
            return
        try:
            share_cores(self._client, tasks)
        except OSError as error:  # one has gone since: they are told at the next look
            log.debug("%s: %s", self.cluster, error)
            return
        self._shares.clear()
        self._shares.update(tasks)


def _second(function: Callable[[Any], Any], numbered: tuple[int, Any]) -> Any:
    return function(numbered[1])


def _died(reason: str) -> ClusterError:
    return ClusterError(
        f"{reason}; if it was for memory, take fewer workers, or ones with more; "
        f"{GO_ON}"
    )
