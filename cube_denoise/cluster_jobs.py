"""Independent jobs on workers: one that fails, or kills its worker, ends no other.

`Workers.run` is for tasks of one step, where the first error ends the rest.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

from cube_denoise.cluster import ClusterError, Workers

SPARE = 2
"""Jobs that wait at a Dask cluster, so that no worker waits for the client."""
MOST_DEATHS = 20
"""So many deaths of workers without a job that ends are a fault of the cluster."""


class Ended(NamedTuple):
    """A job that is over."""

    job: Any
    result: Any = None
    error: Exception | None = None
    """Why there is no result."""
    died: bool = False
    """Whether its worker died."""


class Jobs:
    """Jobs under way on workers; a context manager.

    With "processes", each job has one of its own at a time, so that one that dies takes
    no other with it.

    Parameters
    ----------
    workers : cluster.Workers
        Not started.
    function : callable
        Does one job. It is pickled, but for threads.
    at_once : int, optional
        Most jobs under way; one for each worker if not given.
    """

    def __init__(
        self,
        workers: Workers,
        function: Callable[[Any], Any],
        *,
        at_once: int | None = None,
    ) -> None:
        self._workers, self._function, self._at_once = workers, function, at_once
        self._lanes: list[Workers] = []
        self._pending: dict[Future[Any], tuple[Workers, Any]] = {}
        self._closing = ExitStack()
        self._deaths = 0

    def __enter__(self) -> Self:
        count = 1
        if self._workers.cluster == "processes":
            count = min(self._workers.count, self._at_once or self._workers.count)
        for _ in range(count):
            lane = self._workers
            if lane.cluster == "processes":
                lane = Workers("processes", count=1)
            self._closing.enter_context(lane)
            self._lanes.append(lane)
        return self

    def __exit__(self, *exception: object) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()
        self._lanes.clear()
        self._closing.close()

    def __len__(self) -> int:
        """Jobs under way, those that wait for a worker included."""
        return len(self._pending)

    def has_room(self) -> bool:
        """Whether another job may be begun."""
        if self._workers.cluster == "processes":
            return len(self._pending) < len(self._lanes)
        most = self._workers.count
        if self._workers.cluster != "threads":
            most += SPARE
        return len(self._pending) < min(most, self._at_once or most)

    def begin(self, job: Any) -> None:
        """Begin a job; there must be room.

        Raises
        ------
        ClusterError
            If no worker can be had.
        """
        busy = {id(lane) for lane, _ in self._pending.values()}
        if self._workers.cluster == "processes":
            lane = next(lane for lane in self._lanes if id(lane) not in busy)
        else:
            (lane,) = self._lanes
        try:
            future = lane._submit(self._function, job)
        except ClusterError:
            if lane.cluster != "processes":
                raise
            self._died(lane)  # between two jobs
            future = lane._submit(self._function, job)
        self._pending[future] = lane, job

    def ended(self, timeout: float) -> Iterator[Ended]:
        """Yield jobs that are over; waits for the first.

        Raises
        ------
        ClusterError
            If the scheduler is gone, or workers die all the time.
        """
        if not self._pending:
            return
        for future in wait(self._pending, timeout, FIRST_COMPLETED).done:
            lane, job = self._pending.pop(future)
            try:
                result = lane._result(future)
            except ClusterError as error:
                if lane.cluster != "processes" and not _is_of_worker(future):
                    raise
                self._died(lane)
                yield Ended(job, error=error, died=True)
            except Exception as error:
                self._deaths = 0
                yield Ended(job, error=error)
            else:
                self._deaths = 0
                yield Ended(job, result)

    def _died(self, lane: Workers) -> None:
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise ClusterError(
                f"{self._deaths} workers of cluster={self._workers.cluster!r} died one "
                "after the other and no job ended: see why, then run it again"
            )
        if lane.cluster == "processes":
            lane.__exit__()
            lane.__enter__()


def _is_of_worker(future: Future[Any]) -> bool:
    """Whether a Dask worker died of a job, rather than the scheduler."""
    if future.cancelled():
        return False
    return type(future.exception()).__name__ == "KilledWorker"
