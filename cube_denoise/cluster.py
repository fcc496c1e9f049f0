"""Who does the work: threads or processes of this machine, or a Dask scheduler."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from functools import partial
from typing import Any, Self


class Workers:
    """A pool that runs independent tasks; a context manager.

    Parameters
    ----------
    scheduler : str
        "threads", "processes", or the address of a Dask scheduler (``tcp://...``).
    count : int, optional
        Threads or processes; the number of cores when not given.

    Raises
    ------
    ValueError
        If `scheduler` is none of these or `count` is not positive.
    """

    def __init__(self, scheduler: str = "threads", *, count: int | None = None) -> None:
        self.count = (os.cpu_count() or 1) if count is None else count
        if self.count < 1:
            raise ValueError(f"workers={count} must be at least 1")
        if scheduler not in ("threads", "processes") and "://" not in scheduler:
            raise ValueError(
                f"{scheduler=} must be 'threads', 'processes' or the address of a "
                "Dask scheduler such as tcp://127.0.0.1:8786"
            )
        self.scheduler = scheduler
        self._executor: Executor | None = None
        self._client: Any = None

    def __enter__(self) -> Self:
        if self.scheduler == "threads":
            self._executor = ThreadPoolExecutor(self.count)
        elif self.scheduler == "processes":
            # A forked child would inherit locks of Icechunk's threads.
            spawn = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.count, mp_context=spawn)
        else:
            from distributed import Client

            self._client = Client(self.scheduler)
            self.count = max(sum(self._client.nthreads().values()), 1)
            self._executor = self._client.get_executor(pure=False)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        if self._client is not None:
            self._client.close()

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
        self, function: Callable[[Any], Any], tasks: Sequence[Any]
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (task, result) as tasks end; the first error ends the rest."""
        assert self._executor is not None, "use Workers in a with statement"
        pending = {self._executor.submit(function, task): task for task in tasks}
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
        finally:
            for future in pending:
                future.cancel()


def _second(function: Callable[[Any], Any], numbered: tuple[int, Any]) -> Any:
    return function(numbered[1])
