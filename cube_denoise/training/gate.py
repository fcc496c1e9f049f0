"""Judge stack networks on held-out dates of a user's stack; accept or refuse."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from cube_denoise import evaluate
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.stack_samples import StackBatch, StackSampling, stack_batch
from cube_denoise.training.stacks import centred
from cube_denoise.training.transplant import transplanted

SIDES = (96, 64, 48, 32)
"""Pixels a side that samples may have."""
BANK = 16
"""Different stacks whose deformation is drawn from."""
PROBES = 3
"""Tells the random numbers of a transplant from those of the stack it is made to."""
RATIOS = (0.1, 0.3, 1.0, 3.0)
"""Of the powers of deformation and noise, that a network is judged by."""
CLEAR = 1.0
"""Ratio from which on the amplitude must be kept."""
GAIN = 0.98
"""The error must fall to this part of what it was, at least."""
SLOPES = (0.9, 1.1)
"""Slopes of the estimate on the truth that are good enough."""
LOST = 0.05
"""They may be so much worse than before even if they are not. The few dates that judge
make it hard to see weak motion: networks that kept 0.02 less there kept 0.1 more on
stacks of 40 dates."""
ALARMS = 1.1
"""False alarms may rise to this multiple of what they were, at most."""


class Judged(NamedTuple):
    """What a network makes of deformation under the noise of held-out dates."""

    error: float
    """Rms error over that of the noise; geometric mean over stacks and `RATIOS`."""
    slope: float
    """Of estimate on truth where the truth deforms; mean at `CLEAR` and above."""
    false_alarm_mm: float
    """99th percentile of the estimate where nothing moves; median."""
    coverage_68: float
    """Share of the errors within the standard deviation; mean."""


def judge(model: Any, bank: NoiseBank, *, seed: int = 0, count: int = 6) -> Judged:
    """Judge a network by simulated deformation under the noise of a bank.

    Parameters
    ----------
    model : torch.nn.Module
        Stack network in eval mode, on the CPU.
    bank : NoiseBank
        Of dates that it was not trained on.
    seed : int
        Of deformation and draws; the same for networks that are compared.
    count : int
        Batches for each ratio.

    Returns
    -------
    Judged
    """
    errors, slopes, alarms, held = [], [], [], []
    for ratio in (0.0, *RATIOS):
        for truth, noisy, seen, std in _probes(model, bank, ratio, seed, count):
            if not ratio:
                alarms.append(1e3 * evaluate.false_alarm(seen))
                continue
            errors.append(
                evaluate.rms_error(seen, truth) / evaluate.rms_error(noisy, truth)
            )
            if ratio >= CLEAR:
                slopes.append(evaluate.amplitude_slope(seen, truth))
            missed = np.abs(seen - truth)
            held.append((missed < std)[np.isfinite(missed)].mean())
    return Judged(
        round(float(np.exp(np.mean(np.log(errors)))), 4),
        round(float(np.mean(slopes)), 4),
        round(float(np.median(alarms)), 4),
        round(float(np.mean(held)), 4),
    )


def verdict(before: Judged, after: Judged, *, gain: float = GAIN) -> tuple[str, ...]:
    """Reasons to refuse new weights; none if there are none.

    Parameters
    ----------
    before, after : Judged
        Of the weights there were, and of the new ones.
    gain : float
        To this part of what it was the error must fall.
    """
    reasons = []
    if not after.error <= gain * before.error:
        reasons.append(
            f"the error on held-out dates is {after.error:.3f} of the noise, before it "
            f"was {before.error:.3f}"
        )
    away = max(SLOPES[0] - after.slope, after.slope - SLOPES[1])
    if away > 0 and abs(after.slope - 1) > abs(before.slope - 1) + LOST:
        reasons.append(
            f"of clear deformation {after.slope:.2f} is kept, before it was "
            f"{before.slope:.2f}"
        )
    if after.false_alarm_mm > ALARMS * before.false_alarm_mm:
        reasons.append(
            f"where nothing moves it sees {after.false_alarm_mm:.2f} mm, before it was "
            f"{before.false_alarm_mm:.2f} mm"
        )
    return tuple(reasons)


def _probes(
    model: Any, bank: NoiseBank, ratio: float, seed: int, count: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Truth, series, estimate and standard deviation of stacks, centred, m."""
    side = next((n for n in SIDES if n <= min(bank.shape)), min(bank.shape))
    dates = min(24, len(bank.fields))
    sampling = StackSampling(
        sides=(side,),
        dates=(dates, dates),
        volume=side * side * dates,
        bank=BANK,
        at_rest=0.0,
        hiding=0.0,
    )
    for number in range(count):
        batch = stack_batch(number, sampling, split="test", seed=seed)
        rng = np.random.default_rng(split_seed("test", seed, number, PROBES))
        batch = transplanted(batch, bank, rng, ratio=ratio)
        yield from _seen(model, batch)


def _seen(model: Any, batch: StackBatch) -> Iterator[tuple[np.ndarray, ...]]:
    with torch.inference_mode():
        estimate, std = model(*batch[:5])
    for k in range(len(batch.series)):
        there = batch.visible[k].numpy()
        truth, series, seen = (
            centred(np.where(there, a[k].float().numpy(), np.nan))
            for a in (batch.displacement, batch.series, estimate)
        )
        yield truth, series, seen, std[k].float().numpy()
