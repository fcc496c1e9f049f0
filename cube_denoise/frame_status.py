"""What became of each frame of an archive: a small object, claimed by who works on it.

A claim is taken over when its process is gone. That of another host cannot be asked:
there a claim is dead that has given no sign while somebody watched it for `LEASE`
seconds, by his own clock alone.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self
from uuid import uuid4

from cube_denoise import places, store
from cube_denoise.json_objects import Found, JsonObjects, ObjectChangedError
from cube_denoise.processes import Process

log = logging.getLogger(__name__)

FOLDER = "status"
BEAT, LEASE = 15.0, 90.0
"""Seconds between signs of life, and without one until a claim is dead."""
MOST_DEATHS = 5
"""So many workers may die of a frame before it fails."""
State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class FrameStatus:
    """State of one frame, as it is stored."""

    frame: str
    state: State = "waiting"
    job: str = ""
    """Fingerprint of what was asked."""
    worker: Process | None = None
    """Who works, or worked last."""
    claim: str = ""
    """Of that: no two are alike."""
    beat: int = 0
    """Sign of life: another number each time."""
    since: str = ""
    """When that began, UTC."""
    seen: str = ""
    """When the last sign was given, UTC."""
    doing: str = ""
    """What is being done, and how much of it."""
    attempts: int = 0
    """How often it was begun."""
    deaths: int = 0
    """How often its worker died since it was last done."""
    reason: str = ""
    """Why it failed."""
    seconds: float = 0.0
    """What the last attempt took."""
    pairs: int = 0
    """Pairs in the cube."""
    unread: int = 0
    """Pairs that could not be read."""
    snapshot: str = ""
    """State of the cube that was published last."""

    @property
    def mark(self) -> str:
        """What changes with every sign of life."""
        return f"{self.claim} {self.beat}"

    def is_dead(self, silent: str | None = None) -> bool:
        """Whether it was begun and its worker is gone.

        Parameters
        ----------
        silent : str, optional
            A `mark` that has been seen for `LEASE` seconds.
        """
        if self.state != "running":
            return False
        return self.worker is None or bool(self.worker.is_gone()) or self.mark == silent

    @classmethod
    def told(cls, data: dict[str, Any]) -> Self:
        """Read what `asdict` gave; later versions may tell more."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in data.items() if k in known}
        if values.get("worker"):
            values["worker"] = Process(**values["worker"])
        return cls(**values)


class Claim:
    """The right to work on a frame; get one from `claim`."""

    def __init__(self, objects: JsonObjects, found: Found, status: FrameStatus) -> None:
        self._objects, self._found, self.status = objects, found, status
        self.lost = False
        """Whether another has taken it over."""
        self._doing = ""
        self._turn, self._over = threading.Lock(), threading.Event()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Give signs of life meanwhile."""
        name = f"beat {self.status.frame}"
        thread = threading.Thread(target=self._beat, name=name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _beat(self) -> None:
        while not self._over.wait(BEAT) and not self.lost:
            try:
                self._tell(beat=self.status.beat + 1, doing=self._doing)
            except ObjectChangedError:
                log.warning("frame %s: taken over by another", self.status.frame)
            except (places.PlaceError, OSError) as error:
                log.warning("frame %s: no sign given: %s", self.status.frame, error)

    def listen(self, title: str, done: float, total: float) -> None:
        """Hear of progress; told with the next sign of life.

        Raises
        ------
        ObjectChangedError
            If the frame was taken over: this ends the work.
        """
        share = f" {done / total:.0%}" if total else ""
        self._doing = f"{title}{share}"
        if self.lost:
            raise ObjectChangedError(f"frame {self.status.frame} was taken over")

    def end(self, state: State, **told: Any) -> FrameStatus:
        """Say how it ended.

        Raises
        ------
        ObjectChangedError
            If another has taken it over.
        """
        began = datetime.fromisoformat(self.status.since)
        seconds = round((datetime.now(UTC) - began).total_seconds(), 2)
        deaths = 0 if state == "done" else self.status.deaths
        self._tell(state=state, seconds=seconds, deaths=deaths, doing="", **told)
        return self.status

    def _tell(self, **told: Any) -> None:
        with self._turn:
            status = replace(self.status, seen=_now(), **told)
            try:
                self._found = _replace(self._objects, status, self._found)
            except ObjectChangedError:
                self.lost = True
                raise
            self.status = status


def claim(
    url: str,
    frame: str,
    *,
    job: str,
    again: bool = False,
    silent: str | None = None,
) -> Claim | FrameStatus:
    """Claim a frame, or tell why that cannot be.

    Parameters
    ----------
    url : str
        The archive.
    frame : str
        Name of the frame.
    job : str
        Fingerprint of what is asked.
    again : bool
        Whether a frame is done again for which the same was done already.
    silent : str, optional
        See `FrameStatus.is_dead`.

    Returns
    -------
    Claim or FrameStatus
        The state where the frame is done, another works on it, or too many workers
        died of it: that is told as failed from then on.
    """
    objects, name = JsonObjects(url), object_name(frame)
    while True:
        found = objects.read(name)
        known = FrameStatus.told(found.data) if found else FrameStatus(frame)
        if known.state == "done" and known.job == job and not again:
            return known
        dead = known.is_dead(silent)
        if known.state == "running" and not dead:
            return known
        deaths = known.deaths + dead if known.state != "failed" else 0
        status = replace(
            known,
            state="running",
            job=job,
            worker=Process.this(),
            claim=uuid4().hex,
            beat=0,
            since=_now(),
            seen=_now(),
            doing="",
            attempts=known.attempts + 1,
            deaths=deaths,
            reason="",
        )
        if deaths > MOST_DEATHS:
            reason = (
                f"its worker died {deaths} times; if it was for memory, take workers "
                "with more, or smaller frames"
            )
            status = replace(known, state="failed", deaths=deaths, reason=reason)
        try:
            now = _replace(objects, status, found)
        except ObjectChangedError:
            continue
        if status.state == "failed":
            return status
        if dead and known.worker not in (None, Process.this()):
            store.presume_gone(known.worker)
        return Claim(objects, now, status)


def read_status(objects: JsonObjects, frame: str) -> FrameStatus:
    """State of a frame; waiting where nothing is told of it."""
    found = objects.read(object_name(frame))
    return FrameStatus.told(found.data) if found else FrameStatus(frame)


def object_name(frame: str) -> str:
    """Where the state of a frame is, in the archive."""
    return f"{FOLDER}/{frame}.json"


def _replace(objects: JsonObjects, status: FrameStatus, before: Found | None) -> Found:
    name, data = object_name(status.frame), asdict(status)
    try:
        return objects.replace(name, data, before=before)
    except ObjectChangedError:
        now = objects.read(name)
        if now is not None and now.data == data:  # ours, sent twice
            return now
        raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
