"""Run or update many frames of an archive as independent jobs on workers.

Each frame is one job of one worker, which claims it (`frame_status`). The client keeps
only the frames under way: the plan is read as they end.
"""

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cube_denoise import archive, pipeline, places, store
from cube_denoise.bulk_plan import Frame, Plan
from cube_denoise.changes import compare
from cube_denoise.cluster import Workers, cores, task_threads
from cube_denoise.cluster_jobs import Ended, Jobs
from cube_denoise.conventions import X, Y
from cube_denoise.corrections import find_correction
from cube_denoise.frame_status import BEAT, LEASE, Claim, FrameStatus, State, claim
from cube_denoise.grid import regular_grid
from cube_denoise.json_objects import ObjectChangedError
from cube_denoise.progress import Advance, progress, told_to
from cube_denoise.update import update

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0
"""Seconds between looks at jobs under way."""
LIST_EVERY = 30.0
"""Seconds between changes of the archive's collection."""

_INTERRUPTED = threading.Event()
"""Ends jobs in threads of this process."""


class FrameTask(NamedTuple):
    """What a worker is given."""

    archive: str
    name: str
    job: Mapping[str, Any]
    fingerprint: str
    updating: bool
    threads: int
    """Of the job, where the cluster does not tell."""
    silent: str | None = None
    """See `frame_status.claim`."""


class Outcome(NamedTuple):
    """What became of a frame."""

    state: State
    reason: str = ""
    mark: str = ""
    """Of the claim of another, while it is running."""
    fresh: bool = False
    """Whether this run has done it."""
    pairs: int = 0
    unread: int = 0
    seconds: float = 0.0
    changed: bool = True
    """Whether its cube was changed."""


@dataclass
class BulkReport:
    """What a bulk run did."""

    frames: int
    """In the plan."""
    done: int = 0
    """By this run."""
    unchanged: int = 0
    """Of those: with nothing new."""
    already: int = 0
    """Done before, or by another run meanwhile."""
    failed: dict[str, str] = field(default_factory=dict)
    """Frame -> why."""
    unread: int = 0
    """Pairs that could not be read, of frames that are done."""
    deaths: int = 0
    """Workers that died."""


def run_plan(plan: Plan, *, updating: bool = False) -> BulkReport:
    """Run all frames of a plan that are not done, each as `pipeline.run` does.

    A frame that fails stops no other. What a dead worker leaves is taken up by another
    from its last commit; frames that another run works on are left to it. Run again to
    go on after an interruption, or to try again what failed.

    Parameters
    ----------
    plan : bulk_plan.Plan
        From `bulk_plan.read_plan`.
    updating : bool
        Whether frames that are done are brought up to date (`update.update`).

    Returns
    -------
    BulkReport

    Raises
    ------
    ValueError
        If the place of the archive holds something else.
    ClusterError
        If the scheduler is gone, or workers die all the time.
    """
    archive.make(plan.archive)
    pool = frame_workers(plan)
    if pool.cluster in ("processes", "dask"):
        from cube_denoise.warm import compile_inversion

        compile_inversion()  # else all of them compile the same, at once
    _INTERRUPTED.clear()
    # Processes of the search for the cheapest are not those of the jobs.
    keeping = nullcontext() if pool.cluster == "processes" else pool.kept()
    with (
        keeping,
        Jobs(pool, carry_out, at_once=plan.at_once) as jobs,
        progress("bulk", plan.count, unit="frames") as advance,
    ):
        try:
            run = _Run(plan, pool, updating)
            run.go_on(jobs, advance)
        except BaseException:
            _INTERRUPTED.set()
            raise
    return run.report


def frame_workers(plan: Plan) -> Workers:
    """Workers that a plan asks for, not started: processes where a step takes threads.

    A process that dies, or grows, takes one frame with it.
    """
    asked = plan.shared.get("cluster") or "auto"
    sizes = {
        "count": plan.shared.get("workers"),
        "memory_limit": plan.shared.get("memory_limit"),
    }
    pool = Workers(asked, **sizes)
    if asked == "auto" and pool.cluster == "threads":
        pool = Workers("processes", **sizes)
    correct = plan.shared.get("correct")
    return pool.asking(find_correction(**correct).resource) if correct else pool


class _Run:
    """A bulk run under way."""

    def __init__(self, plan: Plan, pool: Workers, updating: bool) -> None:
        self.plan, self.updating = plan, updating
        self.report = BulkReport(plan.count)
        local = pool.cluster in ("threads", "processes")
        self._threads = max(1, cores() // pool.count) if local else 1
        self._turns = iter(turns(plan, pool))
        self._later: list[tuple[float, FrameTask]] = []
        """Frames to be tried again, and when; no more than there are workers."""
        self._marks: dict[str, tuple[str, float]] = {}
        """Of frames that others are at: their mark, and since when it is that."""
        self._unlisted: set[str] = set()
        self._listed = time.monotonic()

    def go_on(self, jobs: Jobs, advance: Advance) -> None:
        """Begin and end jobs until there are none."""
        while True:
            while jobs.has_room() and (task := self._next()) is not None:
                jobs.begin(task)
            if not len(jobs):
                if not self._later:
                    break
                wait = min(at for at, _ in self._later) - time.monotonic()
                time.sleep(max(0.0, min(wait, LOOK_EVERY)))
            for ended in jobs.ended(LOOK_EVERY):
                if self._take(ended):
                    advance(1)
            if time.monotonic() - self._listed > LIST_EVERY:
                self._list()
        self._list()

    def _next(self) -> FrameTask | None:
        now = time.monotonic()
        for due in self._later:
            if due[0] <= now:
                self._later.remove(due)
                return due[1]
        position = next(self._turns, None)
        if position is None:
            return None
        frame = self.plan.frame(position)
        return FrameTask(
            self.plan.archive,
            frame.name,
            frame.job,
            frame.fingerprint,
            self.updating,
            self._threads,
        )

    def _take(self, ended: Ended) -> bool:
        """Note what became of a job; whether its frame is over."""
        task: FrameTask = ended.job
        if ended.died:
            self.report.deaths += 1
            log.warning("frame %s: its worker died, another takes it up", task.name)
            self._later.append((time.monotonic(), task))
            return False
        if ended.error is not None:
            outcome = Outcome("failed", sentence(ended.error))
        else:
            outcome = ended.result
        if outcome.state == "running":
            log.info("frame %s: another worker is at it", task.name)
            self._ask_again(task, outcome.mark)
            return False
        self._marks.pop(task.name, None)
        if outcome.state == "failed":
            self.report.failed[task.name] = outcome.reason
            log.warning("frame %s failed: %s", task.name, outcome.reason)
            return True
        if outcome.fresh:
            self.report.done += 1
            self.report.unchanged += not outcome.changed
            self.report.unread += outcome.unread
            self._unlisted.add(task.name)
            log.info(
                "frame %s: %d pairs, %d not read, %.0f s",
                *(task.name, outcome.pairs, outcome.unread, outcome.seconds),
            )
        else:
            self.report.already += 1
        return True

    def _ask_again(self, task: FrameTask, mark: str) -> None:
        """Look again soon at a frame of others: they may end, or be silent."""
        now = time.monotonic()
        known, since = self._marks.get(task.name, (mark, now))
        since = since if known == mark else now
        self._marks[task.name] = mark, since
        silent = mark if now - since >= LEASE else None
        self._later.append((now + BEAT, task._replace(silent=silent)))

    def _list(self) -> None:
        archive.list_items(self.plan.archive, changed=self._unlisted)
        self._unlisted.clear()
        self._listed = time.monotonic()


def carry_out(task: FrameTask) -> Outcome:
    """Do one frame, in a worker."""
    got = claim(
        *(task.archive, task.name),
        job=task.fingerprint,
        again=task.updating,
        silent=task.silent,
    )
    if isinstance(got, FrameStatus):
        return Outcome(got.state, got.reason, got.mark)

    def hear(title: str, done: float, total: float) -> None:
        if _INTERRUPTED.is_set():
            raise KeyboardInterrupt
        got.listen(title, done, total)

    try:
        with got.kept(), told_to(hear):
            found, changed = _do(task)
    except Exception as error:
        return _over(got, "failed", reason=sentence(error))
    except BaseException:
        _over(got, "waiting")
        raise
    return _over(got, "done", **found)._replace(changed=changed)


def _do(task: FrameTask) -> tuple[dict[str, Any], bool]:
    """Run the job and write the item; what the state tells of it, and if it changed."""
    threads = task_threads(task.threads)
    job = {k: v for k, v in task.job.items() if k != "memory_limit"}
    job |= {"cluster": "threads", "workers": threads}
    report = update(job) if task.updating else pipeline.run(job)
    snapshot = archive.write_item(
        task.archive, task.name, job["cube"], branch=job.get("branch") or "main"
    )
    ingested = report.ingest
    told = {
        "snapshot": snapshot,
        "pairs": ingested.present + ingested.added,
        "unread": len(ingested.failed),
    }
    return told, bool(report.record)


def _over(got: Claim, state: State, **told: Any) -> Outcome:
    try:
        now = got.end(state, **told)
    except ObjectChangedError:
        return Outcome("running", mark="taken over")
    return Outcome(
        *(state, now.reason, now.mark, True, now.pairs, now.unread, now.seconds)
    )


def turns(plan: Plan, pool: Workers) -> Iterable[int]:
    """Positions of the frames of a plan in the order in which they are begun."""
    there = plan.entries.positions()
    if plan.order == "cheapest":
        with pool:
            costs = [
                (cost, position)
                for (position, _), cost in pool.run(frame_cost, _numbered(plan))
            ]
        return [position for _, position in sorted(costs)]
    if plan.order == "plan" or not plan.prioritised:
        return there
    return [p for _, p in sorted((-plan.frame(p).priority, p) for p in there)]


def _numbered(plan: Plan) -> Iterator[tuple[int, Frame]]:
    for position in plan.entries.positions():
        yield position, plan.frame(position)


def frame_cost(numbered: tuple[int, Frame]) -> float:
    """Values of phase that a frame has to read; infinite if that cannot be told."""
    job = numbered[1].job
    try:
        records = pipeline.find(job)
        if store.exists(job["cube"]):
            branch = job.get("branch") or "main"
            _, cube = store.newest(job["cube"], branch=branch)
            rows, columns = cube.sizes[Y], cube.sizes[X]
            return len(compare(cube.attrs["items"], records).new) * rows * columns
        grid = pipeline.new_grid(job, records)
        if grid is None:
            grid = regular_grid((r.crs, r.shape, r.transform) for r in records)
        return len(records) * math.prod(grid.shape)
    except Exception as error:  # told when its turn comes
        log.debug("cost of frame %s: %s", numbered[1].name, error)
        return math.inf


def sentence(error: Exception) -> str:
    """What an error says, in one line without secrets."""
    text = places.without_secrets(" ".join(str(error).split()))
    if isinstance(error, ValueError | OSError | store.CubeChangedError) and text:
        return text
    return f"{type(error).__name__}: {text}"
