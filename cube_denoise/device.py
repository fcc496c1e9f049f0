"""Run a network over arrays in batches, on the GPU of this process or on its cores."""

import ctypes
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch

CPU, CUDA = "cpu", "cuda"
MEMORY_SHARE = 0.5
"""Of the free memory of a GPU that a batch may take."""
READERS = 4
"""Threads that prepare arrays for a GPU while it computes."""

MALLOPT = ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 64 << 20))
"""Options of glibc's ``mallopt``: size in bytes from which memory comes from the system
and goes back to it (M_MMAP_THRESHOLD), free memory at the top that is kept
(M_TRIM_THRESHOLD), and how much more is asked for (M_TOP_PAD)."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_gpu = threading.Lock()
"""Threads take turns to launch: one batch at a time needs memory for its layers."""
_needs: dict[tuple[Any, ...], int] = {}
"""Bytes that a GPU needs for one array: by network, shape and precision."""


def device_here() -> str:
    """Where networks run in this process: "cuda" if it sees a GPU, else "cpu"."""
    return CUDA if torch.cuda.is_available() else CPU


def device_of(model: torch.nn.Module) -> str:
    """Where a network lies."""
    parameter = next(model.parameters(), None)
    return CPU if parameter is None else str(parameter.device.type)


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep memory that torch frees on the CPU: for training.

    By default glibc gives large arrays back at once and the system clears the pages of
    the next ones: up to half of the time of a small network. Inference leaves it so,
    whose memory is bounded. Without glibc, or where the user has set it (``MALLOC_...``
    in the environment), nothing is done.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in MALLOPT:
            mallopt(option, value)


def rougher(device: str) -> tuple[str, ...]:
    """Precisions that are faster than float32 on a device of this process."""
    if device == CUDA:
        low = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "tf32") if low else ("tf32",)
    return ("bfloat16",) if torch.cpu._is_avx512_bf16_supported() else ()


def outputs(
    model: Any,
    arrays: Iterable[np.ndarray | None],
    *,
    device: str,
    precision: str = "float32",
    threads: int = 1,
    batch: int | None = None,
    goes_on: Sequence[tuple[bool, ...]] | None = None,
) -> Iterator[np.ndarray | None]:
    """Outputs of a network for many arrays, in their order.

    Arrays of one shape that follow each other go through together. On a GPU they are
    copied from and to pinned memory while it computes, and a batch takes at most
    `MEMORY_SHARE` of the memory that is free.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode, on `device`: (batch, channels, y, x) to (batch, 1, y, x).
    arrays : iterable of numpy.ndarray, shape (channels, y, x), float32
        None is handed through.
    device : {"cpu", "cuda"}
        Where the model lies.
    precision : {"float32", "tf32", "bfloat16"}
        "tf32" is float32 on a CPU.
    threads : int
        Of torch, on a CPU.
    batch : int, optional
        Most arrays that go through together; by memory on a GPU, 1 on a CPU, when not
        given.
    goes_on : sequence of tuple of bool, optional
        For each array, where the map goes on beyond it: the second argument of a
        network that takes one (`DnCNN.forward`).

    Yields
    ------
    numpy.ndarray, shape (y, x), float32

    Raises
    ------
    MemoryError
        If a GPU cannot hold a single array.
    """
    launch = _on_gpu if device == CUDA else _on_cpu
    ahead: list[Callable[[], Iterable[np.ndarray | None]]] = []

    def most(shape: tuple[int, ...]) -> int:
        if device == CPU:
            return batch or 1
        need = _needs.get((id(model), shape, precision))
        fits = 1 if need is None else batch_size(free_memory(), need)
        return min(fits, batch or fits)

    count = 0
    for group in _groups(arrays, most, goes_on):
        more = () if goes_on is None else (goes_on[count],)
        count += len(group)
        ahead.append(launch(model, group, precision, threads, *more))
        if len(ahead) > (device == CUDA):
            yield from ahead.pop(0)()
    for collect in ahead:
        yield from collect()


def outputs_of(
    model: Any,
    arrays: Sequence[np.ndarray],
    *,
    device: str,
    precision: str = "float32",
    threads: int = 1,
) -> list[np.ndarray]:
    """Outputs for one map of a network that takes several arrays; it may give several.

    Parameters
    ----------
    model : torch.nn.Module or a method of one
        In eval mode, on `device`; its inputs and outputs begin with a batch axis.
    arrays : sequence of numpy.ndarray
        Without that axis.
    device, precision, threads
        As for `outputs`.
    """
    if device == CPU:
        torch.set_num_threads(threads)
    given = [torch.from_numpy(np.ascontiguousarray(a))[None].to(device) for a in arrays]
    with (
        _gpu if device == CUDA else nullcontext(),
        _computing(getattr(model, "__self__", model), device, precision),
    ):
        found = model(*given)
        several = (found,) if isinstance(found, torch.Tensor) else found
        return [out[0].float().cpu().numpy() for out in several]


def batch_size(free: int, need: int) -> int:
    """Arrays of `need` bytes each that may go through a GPU of `free` bytes at once."""
    return max(1, int(MEMORY_SHARE * free) // max(need, 1))


def in_advance(
    function: Callable[[Item], Result], items: Iterable[Item], readers: int
) -> Iterator[Result]:
    """`map` that works ahead in other threads; in this one with 0 readers."""
    if readers == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(readers) as pool:
        queue: deque[Future[Result]] = deque()
        try:
            for item in items:
                queue.append(pool.submit(function, item))
                if len(queue) > 2 * readers:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            for future in queue:
                future.cancel()


def _groups(
    arrays: Iterable[np.ndarray | None],
    most: Callable[[tuple[int, ...]], int],
    goes_on: Sequence[tuple[bool, ...]] | None = None,
) -> Iterator[list[np.ndarray | None]]:
    """Cut into runs of one shape and sides and of at most ``most(shape)``."""
    group: list[Any] = []
    for k, array in enumerate(arrays):
        if group and (
            array is None
            or group[0] is None
            or array.shape != group[0].shape
            or (goes_on is not None and goes_on[k] != goes_on[k - 1])
            or len(group) >= most(array.shape)
        ):
            yield group
            group = []
        group.append(array)
    if group:
        yield group


def _on_cpu(
    model: Any, group: list[Any], precision: str, threads: int, *more: tuple[bool, ...]
) -> Callable[[], Iterable[np.ndarray | None]]:
    if group[0] is None:
        return lambda: group
    torch.set_num_threads(threads)
    x = torch.from_numpy(np.stack(group))
    x = x.contiguous(memory_format=torch.channels_last)
    with _computing(model, CPU, precision):
        values = np.asarray(model(x, *more)[:, 0].float())
    return lambda: values


def _on_gpu(
    model: Any, group: list[Any], precision: str, threads: int, *more: tuple[bool, ...]
) -> Callable[[], Iterable[np.ndarray | None]]:
    """Start copies and computation; what is returned waits for their end."""
    if group[0] is None:
        return lambda: group
    pinned = torch.empty((len(group), *group[0].shape), pin_memory=True)
    np.stack(group, out=pinned.numpy())
    key = (id(model), group[0].shape, precision)
    try:
        with _gpu, _computing(model, CUDA, precision):
            before = torch.cuda.memory_allocated()
            if key not in _needs:
                torch.cuda.reset_peak_memory_stats()
            x = pinned.to(CUDA, non_blocking=True)
            x = x.contiguous(memory_format=torch.channels_last)
            y = model(x, *more)[:, 0].float()
            if key not in _needs:
                peak = torch.cuda.max_memory_allocated() - before
                _needs[key] = -(-peak // len(group))
            values = torch.empty(y.shape, pin_memory=True)
            values.copy_(y, non_blocking=True)
            done = torch.cuda.Event(blocking=True)
            done.record()
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        if len(group) == 1:
            raise MemoryError(
                f"the GPU cannot hold one tile of {group[0].shape} for this network"
            ) from None
        halves = group[: len(group) // 2], group[len(group) // 2 :]
        parts = [_on_gpu(model, half, precision, threads, *more) for half in halves]
        return lambda: (value for part in parts for value in part())

    def collect() -> Iterable[np.ndarray]:
        done.synchronize()
        return values.numpy()

    return collect


def free_memory() -> int:
    """Bytes of the GPU that are free, those that torch keeps for later included."""
    free, _ = torch.cuda.mem_get_info()
    return int(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())


@contextmanager
def _computing(model: Any, device: str, precision: str) -> Iterator[None]:
    """Set inference, and the precision of products; TF32 is a switch of the process."""
    weights = next(model.parameters(), None)
    held = weights is not None and weights.dtype == torch.bfloat16
    # Autocast would pad in float32 even where nothing is left to convert.
    low = precision == "bfloat16" and not held
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=low):
        if device == CPU:
            yield
            return
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = precision != "float32"
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before
