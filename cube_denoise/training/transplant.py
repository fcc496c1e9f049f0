"""Noise transplant: simulated deformation under the noise of a user's own stack."""

import numpy as np
import torch

from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.stack import power
from cube_denoise.stack_samples import StackBatch

COHERENCE = 0.7
"""Where a stack has no coherence."""


def transplanted(
    batch: StackBatch,
    bank: NoiseBank,
    generator: np.random.Generator,
    *,
    ratio: float | None = None,
) -> StackBatch:
    """Put the noise of a bank in the place of that of simulated stacks.

    The deformation keeps its ratio of powers to the noise (`simulate.stack.power`), or
    gets another. Times, hidden dates and gaps stay, gaps of the bank are added;
    elevation and coherence are those of the noise. Where the bank has fewer dates or
    pixels, dates and pixels are left out. Fields are turned by 180 degrees at most:
    with quarter turns what tells waves and streaks from motion would be lost.

    Parameters
    ----------
    batch : StackBatch
    bank : NoiseBank
        Of residual fields.
    generator : numpy.random.Generator
        Draws fields, their order and signs, crops and half turns.
    ratio : float, optional
        Of the powers of deformation and noise; 0 for stacks at rest.

    Returns
    -------
    StackBatch
    """
    dates = min(batch.series.shape[1], len(bank.fields))
    side = min(batch.series.shape[2], *bank.shape)
    stacks = []
    for k in range(len(batch.series)):
        # Hidden dates are left out first: of few dates too few might be seen.
        hidden = ~batch.visible[k].numpy().any((1, 2))
        kept = np.sort(np.argsort(hidden, kind="stable")[:dates])
        truth, series, visible = (
            array[k].numpy()[kept, :side, :side]
            for array in (batch.displacement, batch.series, batch.visible)
        )
        drawn = bank.draw_series(dates, (side, side), generator, directed=True)
        noise = drawn.displacement
        simulated = np.where(visible, truth - series, np.nan)
        wanted = power(noise) / max(power(simulated), 1e-16)
        if ratio is not None:
            wanted = ratio * power(noise) / max(power(truth), 1e-16)
        truth = truth * np.float32(np.sqrt(wanted))
        visible = visible & np.isfinite(noise)
        stacks.append(
            (
                np.where(visible, truth + noise, 0).astype("float32"),
                visible,
                batch.years[k].numpy()[kept],
                drawn.elevation.astype("float32"),
                np.nan_to_num(drawn.coherence, nan=COHERENCE).astype("float32"),
                truth.astype("float32"),
            )
        )
    fields = (torch.from_numpy(np.stack(a)) for a in zip(*stacks, strict=True))
    return StackBatch(*fields)
