"""Progress of long work: a bar in a terminal, plain log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger(__name__)

LOG_EVERY = 10.0
"""Seconds between log lines."""

Advance = Callable[[float], None]
Listener = Callable[[str, float, float], None]
"""Is told what goes on, the amount of work done, and the whole."""

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Tell progress of work begun in here to `listener` alone; its errors end it."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def progress(
    title: str, total: float, *, unit: str, size: float = 0.0
) -> Iterator[Advance]:
    """Report work as it is done.

    Parameters
    ----------
    title : str
        What is going on.
    total : float
        Amount of work.
    unit : str
        What is counted ("pairs", "blocks").
    size : float
        Bytes of one unit, to tell how much data went through; 0 = not told.

    Yields
    ------
    callable
        Call it with the amount of work just done.
    """
    listener = _LISTENER.get()
    if listener is not None:
        yield from _told(listener, title, total)
    elif sys.stderr.isatty():
        yield from _bar(title, total, unit, size)
    else:
        yield from _lines(title, total, unit, size)


def _told(listener: Listener, title: str, total: float) -> Iterator[Advance]:
    done = 0.0

    def advance(amount: float) -> None:
        nonlocal done
        done += amount
        listener(title, done, total)

    listener(title, done, total)
    yield advance


def _bar(title: str, total: float, unit: str, size: float) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + ("{task.fields[data]}" if size else "")),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, data="")
        done = 0.0

        def advance(amount: float) -> None:
            nonlocal done
            done += amount
            bar.update(task, completed=done, data=f", {done * size / 1e6:.0f} MB")

        yield advance


def _lines(title: str, total: float, unit: str, size: float) -> Iterator[Advance]:
    begin = last = time.monotonic()
    done = 0.0

    def advance(amount: float) -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last >= LOG_EVERY or done >= total:
            left = (now - begin) / done * (total - done) if done else float("nan")
            data = f", {done * size / 1e6:.0f} MB" if size else ""
            log.info(
                "%s: %g of %g %s%s, %.0f s left", title, done, total, unit, data, left
            )
            last = now

    yield advance
