"""Processes, told so that anybody can judge whether they live: no lock, no server."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Process:
    """A process of some host."""

    host: str
    """First digits of the hash of the host name."""
    pid: int
    born: int
    """When it began, in the kernel's ticks; 0 where that is not told."""

    @classmethod
    def this(cls) -> Self:
        """The process that asks."""
        pid = os.getpid()
        return cls(host(), pid, born(pid))

    def is_gone(self) -> bool | None:
        """Whether it has ended; None if it is, or was, on another host."""
        if self.host != host():
            return None
        return not (is_running(self.pid) and born(self.pid) == self.born)


def host() -> str:
    """First digits of the hash of the host name."""
    return sha256(socket.gethostname().encode()).hexdigest()[:8]


def is_running(pid: int) -> bool:
    """Whether a process of this host runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _stat(pid)[:1] != ["Z"]  # killed, and not yet waited for


def born(pid: int) -> int:
    """When a process of this host began, in the kernel's ticks; 0 if that is untold."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else 0


def _stat(pid: int) -> list[str]:
    """Fields of Linux's ``/proc/PID/stat`` from the third on; elsewhere none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


@contextmanager
def turn_in(folder: Path) -> Iterator[None]:
    """Wait for one's turn to write in a folder that is there.

    The kernel lets the lock go when its holder dies.
    """
    try:
        import fcntl
    except ImportError:  # Windows: one writer at a time is up to the user
        yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
