"""Noise transplant: simulated deformation under the noise of a user's own stack."""

import numpy as np
import torch

from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.stack import power
from cube_denoise.stack_samples import StackBatch

COHERENCE = 0.7
"""Where a stack has no coherence."""
SEASONAL = 0.5
"""Part of the stacks with seasons, where noise follows elevation."""
FOLLOWS = 0.5
"""Part of the power of a field that functions of elevation must explain, for its shape
to come with the seasons."""
STRONGEST = 1.5
"""Amplitude of the seasons, over the rms noise; at most, evenly drawn from 0 on."""


def transplanted(
    batch: StackBatch,
    bank: NoiseBank,
    generator: np.random.Generator,
    *,
    ratio: float | None = None,
    seasonal: bool = False,
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
    seasonal : bool
        Where noise follows elevation let it follow the seasons, too, in some of the
        stacks (`seasons`): an order drawn anew takes that from it.

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
        if seasonal and generator.random() < SEASONAL:
            years = batch.years[k].numpy()[kept]
            noise = noise + seasons(noise, drawn.elevation, years, generator)
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


def seasons(
    fields: np.ndarray,
    elevation: np.ndarray,
    years: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """One of the fields that follow elevation, coming and going with the year.

    A field follows elevation if terms up to its third power, and its product with
    position, explain `FOLLOWS` of the power that a plane leaves.

    Parameters
    ----------
    fields : numpy.ndarray, shape (dates, rows, columns)
        NaN = no data; means removed.
    elevation : numpy.ndarray, shape (rows, columns)
        m
    years : numpy.ndarray, shape (dates,)
    generator : numpy.random.Generator
        Draws the field, the phase and the amplitude.

    Returns
    -------
    numpy.ndarray, shape of `fields`
        In their unit; zero if none follows elevation.
    """
    following = np.flatnonzero(_following(fields, elevation) > FOLLOWS)
    if not following.size:
        return np.zeros_like(fields)
    shape = fields[generator.choice(following)]
    course = np.cos(2 * np.pi * (years - generator.random()))
    course *= generator.uniform(0, STRONGEST) * _strength(fields).mean()
    unit = np.nan_to_num(shape / _strength(shape[None])[0])
    return (course[:, None, None] * unit).astype(fields.dtype)


def _strength(fields: np.ndarray) -> np.ndarray:
    power = np.nanmean(fields**2, (1, 2), keepdims=True)
    return np.maximum(np.sqrt(power), np.float32(1e-9))


def _following(fields: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Part of the power of each field that elevation explains beside a plane."""
    y, x = np.mgrid[-1 : 1 : elevation.shape[0] * 1j, -1 : 1 : elevation.shape[1] * 1j]
    h = (elevation - elevation.mean()) / max(float(elevation.std()), 1.0)
    terms = np.stack([np.ones_like(h), y, x, h, h**2, h**3, h * y, h * x], -1)
    basis = np.linalg.qr(terms.reshape(-1, terms.shape[-1]))[0]
    flat = np.nan_to_num(fields).reshape(len(fields), -1)
    parts = (flat @ basis) ** 2
    left = (flat**2).sum(1) - parts[:, :3].sum(1)
    return np.asarray(parts[:, 3:].sum(1) / np.maximum(left, 1e-20))
