"""All pixels of a block by torch: what `tiles` is to the compiled code."""

import threading
from typing import Any

import numpy as np
import torch

from cube_denoise.device import CUDA, MEMORY_SHARE, free_memory
from cube_denoise.inversion.robust import LOSSES
from cube_denoise.inversion.tensor_spread import pair_variance, propagate
from cube_denoise.inversion.tensors import (
    Steps,
    backward,
    bridge,
    forward,
    residuals,
    reweigh,
    stage,
    subsets,
)

ON_CPU = 1 << 12
"""Pixels at once where the device is a CPU."""

_gpu = threading.Lock()
"""Threads take turns: each may take the same share of the memory."""


def checked_device(device: str) -> torch.device:
    """Device of that name.

    Raises
    ------
    ValueError
        If torch has no such device, or this process does not see it.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"{device=}: must be 'cpu' or 'cuda'") from None
    if found.type == CUDA and not torch.cuda.is_available():
        raise ValueError(f"{device=}: this process sees no GPU")
    return found


def solve_tiles(
    phase: np.ndarray,
    worth: np.ndarray,
    constants: np.ndarray,
    way: int,
    loss: int,
    gaps: int,
    plan: tuple[np.ndarray, ...],
    rows: int,
    order: np.ndarray,
    origin: int,
    years: np.ndarray,
    quality: bool,
    errors: bool,
    basis: np.ndarray,
    series: np.ndarray,
    maps: np.ndarray,
    deviations: np.ndarray,
    products: np.ndarray,
    begin: int,
    end: int,
    *,
    device: str,
    most: int | None = None,
) -> int:
    """`tiles.solve_tiles` on a device of torch, at most `most` pixels at a time.

    Without `most`, as many as a share of the free memory of the device holds.

    Raises
    ------
    ValueError
        If there is no such device.
    MemoryError
        If it cannot hold one pixel.
    """
    place = checked_device(device)
    at, wrong = begin, 0
    with _gpu, torch.inference_mode():
        steps = Steps(plan, place)
        if most is None:
            most = ON_CPU
            if place.type == CUDA:
                robust = loss != LOSSES["none"]
                columns = basis.shape[1] if errors else 0
                need = _memory(steps, phase.shape[0], rows, columns, robust=robust)
                most = max(1, int(MEMORY_SHARE * free_memory() / need))
        while at < end:
            cut = slice(at, min(at + most, end))
            try:
                wrong += _solve(
                    *(steps, cut, phase, worth, constants, way, loss, gaps, order),
                    *(origin, years, quality, errors, basis),
                    *(series, maps, deviations, products),
                )
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                if most == 1:
                    raise MemoryError(
                        f"device={device!r} cannot hold one pixel of the network"
                    ) from None
                most = -(-min(most, cut.stop - cut.start) // 2)
                continue
            at = cut.stop
    return wrong


def _memory(steps: Steps, pairs: int, rows: int, columns: int, *, robust: bool) -> int:
    """Bytes that a pixel takes, about; `columns` of the fit, 0 = without errors."""
    numbers = 7 * pairs + rows + 2 * steps.widest**2
    if robust:
        numbers += 2 * pairs + rows
    if columns:
        numbers += 6 * (steps.entries + steps.count) + 2 * steps.widest**2
        numbers += columns * (2 * steps.count + pairs)
    return 8 * numbers


def _solve(
    steps: Steps,
    cut: slice,
    phase: np.ndarray,
    worth: np.ndarray,
    constants: np.ndarray,
    way: int,
    loss: int,
    gaps: int,
    order: np.ndarray,
    origin: int,
    years: np.ndarray,
    quality: bool,
    errors: bool,
    basis: np.ndarray,
    series: np.ndarray,
    maps: np.ndarray,
    deviations: np.ndarray,
    products: np.ndarray,
) -> int:
    """Solve the pixels of a cut; how many given weights are not as they must be."""
    count = steps.count

    def on(values: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(steps.device)

    measured, graded, taken_off = on(phase[:, cut]), on(worth[:, cut]), on(constants)
    y, w, wrong = stage(measured, graded, taken_off, way)
    state = forward(steps, y, w)
    backward(steps, state)
    final = w
    if loss != LOSSES["none"]:
        x = steps.potentials(state)
        final = reweigh(steps, y, w, x, huber=loss == LOSSES["huber"])
        state = forward(steps, y, final)
        backward(steps, state)
    x = steps.potentials(state)
    linked = torch.ones((count + 1, x.shape[1]), dtype=torch.bool, device=x.device)
    solved = x[:-1].float()
    if bool((state[-count:] == 0).any()):
        label = subsets(steps, state)
        linked = label == count
        if gaps:
            some = (~linked).any(0).nonzero()[:, 0]
            times = on(np.append(years[order], years[origin]))[:, None]
            given = torch.cat([solved, torch.zeros_like(solved[:1])]).double()
            moved = bridge(label[:, some], times, given[:, some])
            solved[:, some] = moved[:-1].float()
        else:
            solved = torch.where(linked[:-1], solved, torch.nan)
        w = w * linked[steps.early]
    series[order, cut] = solved.cpu().numpy()
    if not quality:
        return wrong

    residual = residuals(steps, x, y)
    used = w > 0
    number, missing = used.sum(0), (~linked[:-1]).sum(0)
    some = torch.where(number > 0, number.double(), torch.nan)

    def total(values: torch.Tensor) -> torch.Tensor:
        return torch.where(used, values, 0.0).sum(0, dtype=torch.float64)

    coherent = torch.hypot(total(residual.cos()), total(residual.sin())) / some
    rms = (total(residual * residual) / some).sqrt()
    empty = (measured.isnan() | taken_off.isnan()[:, None]).all(0)
    gap_count = torch.where(empty, -1, missing)
    maps[:, cut] = torch.stack([coherent, rms, number, gap_count]).cpu().numpy()
    series[origin, cut] = torch.where(empty, torch.nan, 0.0).cpu().numpy()
    if errors:
        variance = pair_variance(graded if graded.shape[0] else None, way, w)
        redundancy = number - (count - missing)
        chi2 = total(residual * residual / variance)
        scale = torch.where(redundancy > 0, chi2 / redundancy, torch.nan)
        found, made = propagate(
            steps, final, variance, state, linked[:-1], on(basis[order])
        )
        std = torch.where(linked[:-1], (scale * found).sqrt(), torch.nan)
        deviations[order, cut] = std.float().cpu().numpy()
        deviations[origin, cut] = (scale * 0.0).cpu().numpy()
        products[:, cut] = (scale * made).cpu().numpy()
    return wrong
