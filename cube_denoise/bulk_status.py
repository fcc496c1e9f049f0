"""How the frames of a plan stand, and what it would cost to do them."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from cube_denoise.archive import READERS
from cube_denoise.bulk_plan import Plan
from cube_denoise.dry_run import DryRun, plan_job
from cube_denoise.estimate import Rates
from cube_denoise.frame_status import FrameStatus, object_name, read_status
from cube_denoise.json_objects import JsonObjects
from cube_denoise.update import withdrawal_limit

STATES = ("done", "running", "failed", "waiting")


@dataclass
class BulkStatus:
    """How the frames of a plan stand."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    """Frames by state."""
    running: list[FrameStatus] = field(default_factory=list)
    failed: list[FrameStatus] = field(default_factory=list)
    seconds_done: float = 0.0
    """What the frames that are done took, together."""
    unread: int = 0
    """Pairs that could not be read, of frames that are done."""

    @property
    def seconds_left(self) -> float | None:
        """Time left at the pace of the frames that are done; None if none runs."""
        if not self.counts["done"] or not self.running:
            return None
        each = self.seconds_done / self.counts["done"]
        return each * (self.counts["waiting"] / len(self.running) + 0.5)

    def told(self) -> dict[str, Any]:
        """As one JSON-able mapping."""
        return asdict(self) | {"seconds_left": self.seconds_left}


def bulk_status(plan: Plan) -> BulkStatus:
    """Look how the frames of a plan stand; nothing is changed.

    A frame that was done for something else than what the plan asks now is waiting, as
    is one whose worker is gone. That of another host shows its last sign of life.

    Parameters
    ----------
    plan : bulk_plan.Plan
        From `bulk_plan.read_plan`.

    Returns
    -------
    BulkStatus

    Raises
    ------
    PlaceError
        If the archive cannot be reached.
    """
    found, objects = BulkStatus(), JsonObjects(plan.archive)
    there = set(objects.names(object_name("x").rpartition("/")[0]))
    known = (f for f in plan.frames() if object_name(f.name) in there)
    found.counts["waiting"] = plan.count
    tally: Counter[str] = Counter()
    with ThreadPoolExecutor(READERS) as pool:
        while frames := [*islice(known, 16 * READERS)]:
            names = [f.name for f in frames]
            for frame, status in zip(
                frames, pool.map(partial(read_status, objects), names), strict=True
            ):
                state = status.state
                if state == "done" and status.job == frame.fingerprint:
                    found.seconds_done += status.seconds
                    found.unread += status.unread
                elif state == "running" and not status.is_dead():
                    found.running.append(status)
                elif state == "failed":
                    found.failed.append(status)
                else:
                    state = "waiting"
                tally[state] += 1
    for state in ("done", "running", "failed"):
        found.counts[state] = tally[state]
        found.counts["waiting"] -= tally[state]
    return found


def plan_frames(
    plan: Plan, *, updating: bool = False
) -> Iterator[tuple[str, DryRun | str]]:
    """Plan every frame as `dry_run.plan_job` does; frames that are done cost little.

    Parameters
    ----------
    plan : bulk_plan.Plan
        From `bulk_plan.read_plan`. The sources of all frames are searched.
    updating : bool
        As for `bulk.run_plan`.

    Yields
    ------
    name : str
        Of the frame.
    planned : dry_run.DryRun or str
        What it would do; or why that cannot be.
    """
    rates, allow = Rates(), withdrawal_limit(False)
    for frame in plan.frames():
        job = {**frame.job, "cluster": "threads", "workers": 1}
        job.pop("memory_limit", None)
        try:
            yield (
                frame.name,
                plan_job(job, updating=updating, allow=allow, rates=rates),
            )
        except (ValueError, OSError) as error:
            yield frame.name, " ".join(str(error).split())
