"""Batches of a task in order, drawn ahead by worker processes."""

import signal
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch.utils.data import DataLoader, Dataset

from cube_denoise.training.task import Batch, Setup, Task

Key = tuple[str, int]
"""Split and number of a batch."""


class _Batches(Dataset[Batch]):
    """All batches of a run, by key; which process draws one changes nothing."""

    def __init__(self, task: Task, setup: Setup) -> None:
        self.task, self.setup = task, setup

    def __getitem__(self, key: Key) -> Batch:
        return self.task.draw(self.setup, *key)


def batches(
    task: Task, setup: Setup, keys: Sequence[Key], *, workers: int, pinned: bool
) -> Iterator[Batch]:
    """Batches of the keys, in their order.

    Parameters
    ----------
    task, setup
        What is drawn.
    keys : sequence of (str, int)
        Split and number of each batch.
    workers : int
        Processes; 0 to draw in this one. The batches are the same.
    pinned : bool
        In memory from which a GPU copies quickly.

    Yields
    ------
    Batch
    """
    loader = DataLoader(
        _Batches(task, setup),
        batch_size=None,
        sampler=cast("Sequence[int]", keys),
        num_workers=workers,
        # A forked child would inherit locks of the parent's threads.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_leave_interrupts_to_parent,
        pin_memory=pinned,
    )
    yield from loader


def _leave_interrupts_to_parent(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
