"""Train a stack network on a user's own stack: some dates must predict the others."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from cube_denoise.conventions import PAIR, X, Y, phase_to_displacement, years_since
from cube_denoise.corrections.series import dates_of, stack_of
from cube_denoise.progress import progress
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.training.learner import Learner
from cube_denoise.training.stacks import StackTask
from cube_denoise.training.task import Setup
from cube_denoise.training.transplant import COHERENCE

STEPS = 50
LEARNING_RATE = 1e-4
STRIDES = (2, 3)
"""One date in so many is given, or not."""
MOST = 48
"""Dates in a row that are used at once."""
SIDE = 64
"""Pixels a side, at most."""
NUMBERS = 7
"""Tells these random numbers from others of a step."""


class Halves(NamedTuple):
    """Dates that a network is given, and dates that it must predict."""

    series: torch.Tensor
    """m, (batch, time, y, x); 0 where it is not given."""
    visible: torch.Tensor
    """bool, (batch, time, y, x): the dates given."""
    years: torch.Tensor
    """(batch, time)"""
    elevation: torch.Tensor
    """m, (batch, y, x)"""
    coherence: torch.Tensor
    """(batch, y, x)"""
    target: torch.Tensor
    """The series of the other dates in the reference of those given, m."""
    asked: torch.Tensor
    """bool, (batch, time, y, x): the other dates."""


@dataclass(frozen=True)
class Noise2Noise:
    r"""Interleaved, date-disjoint sub-stacks as inputs and targets.

    The noise a of two dates is independent, so that for a date k that the network f is
    not given (Lehtinen et al. 2018)

    .. math:: \left\langle (f_k - d_k - a_k)^2 \right\rangle =
        \left\langle (f_k - d_k)^2 \right\rangle + \left\langle a_k^2 \right\rangle,

    and the least error against the noisy series is the least against the displacement
    d. What is given, a date in two or three or all but these, is apart in time from
    what is asked; that it is whole sub-stacks, not dates at random, keeps a network
    from learning single dates by heart.

    Parameters
    ----------
    fields : numpy.ndarray, shape (dates, rows, columns)
        Displacement of the dates, m, NaN = no data.
    years : numpy.ndarray, shape (dates,)
    bank : NoiseBank
        Of the same dates: elevation, coherence, and how much noise there is.
    """

    fields: np.ndarray
    years: np.ndarray
    bank: NoiseBank

    @classmethod
    def from_cube(cls, cube: xr.Dataset, bank: NoiseBank) -> "Noise2Noise":
        """Solve the pairs among the dates of a bank of the same cube."""
        early, late = cube["reference_time"].values, cube["secondary_time"].values
        inside = np.isin(early.astype("datetime64[s]"), bank.dates)
        inside &= np.isin(late.astype("datetime64[s]"), bank.dates)
        part = cube.isel({PAIR: np.flatnonzero(inside)}).transpose(..., Y, X)
        stack = stack_of(part)
        whole = {d: slice(0, part.sizes[d]) for d in (Y, X)}
        phase = dates_of(part, whole, stack).astype("float32")
        return cls(
            phase_to_displacement(phase, bank.wavelength),
            years_since(stack.times, stack.times[0]),
            bank,
        )

    def draw(self, seed: int, number: int) -> Halves:
        """Part of the area in part of the dates, turned, mirrored, of either sign."""
        rng = np.random.default_rng(split_seed("train", seed, number, NUMBERS))
        dates, rows, columns = self.fields.shape
        side = min(SIDE, rows, columns)
        y, x = (int(rng.integers(n - side + 1)) for n in (rows, columns))
        first = int(rng.integers(max(dates - MOST, 0) + 1))
        stride = int(rng.choice(STRIDES))
        given = np.arange(min(dates, MOST)) % stride == rng.integers(stride)
        if rng.integers(2):
            given = ~given
        here = slice(y, y + side), slice(x, x + side)
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        whole = self._halves(slice(first, first + MOST), here, given)
        sign = float(rng.choice([-1.0, 1.0]))
        whole = whole._replace(series=sign * whole.series, target=sign * whole.target)

        def oriented(part: torch.Tensor) -> torch.Tensor:
            if part.ndim == 2:
                return part
            part = torch.rot90(part, turns, (-2, -1))
            return part.flip(-1) if mirrored else part

        return Halves(*map(oriented, whole))

    def every_half(self) -> Iterator[Halves]:
        """Every second date of the whole stack, and the others."""
        dates, rows, columns = self.fields.shape
        top, left = (max(0, (n - 4 * SIDE) // 2) for n in (rows, columns))
        here = slice(top, top + 4 * SIDE), slice(left, left + 4 * SIDE)
        for odd in (0, 1):
            yield self._halves(slice(dates), here, np.arange(dates) % 2 == odd)

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        """Mean square misfit of the dates asked for, in units of the noise."""
        seen, _ = model(*batch[:5])
        misfit = (seen.float() - batch.target)[batch.asked]
        noise = float(np.nanmean(self.bank.fields**2))
        return (misfit**2).mean() / noise

    def blind_error(self, model: Any) -> float:
        """Rms misfit of the dates predicted, over the rms noise of `bank`."""
        with torch.inference_mode():
            losses = [float(self.loss(model, half)) for half in self.every_half()]
        return float(np.sqrt(np.mean(losses)))

    def _halves(
        self, dates: slice, here: tuple[slice, slice], given: np.ndarray
    ) -> Halves:
        series = self.fields[(dates, *here)]
        there = np.isfinite(series)
        visible, asked = there & given[:, None, None], there & ~given[:, None, None]
        series = np.where(there, series, 0.0)
        series -= series.sum((1, 2), keepdims=True) / np.maximum(
            there.sum((1, 2), keepdims=True), 1
        )
        count = visible.sum(0)
        origin = np.where(visible, series, 0).sum(0) / np.maximum(count, 1)
        height = self.bank.elevation[here]
        maps = (
            np.where(visible, series, 0),
            visible,
            self.years[dates],
            height - np.median(height),
            np.nan_to_num(self.bank.coherence[here], nan=COHERENCE),
            np.where(asked, series - origin, 0),
            asked & (2 * count >= given.sum()),
        )
        return Halves(
            *(
                torch.from_numpy(a[None] if a.dtype == bool else a[None].astype("f4"))
                for a in maps
            )
        )


def train_between(
    learner: Learner, task: StackTask, setup: Setup, own: Noise2Noise
) -> None:
    """Take the steps of a learner on sub-stacks and on transplants in turn.

    The transplants keep amplitudes and the standard deviation, about which the
    sub-stacks tell nothing.

    Parameters
    ----------
    learner : Learner
        Of an adapted network.
    task : StackTask
        Of the transplants.
    setup : Setup
        With their noise.
    own : Noise2Noise
        The user's own stack.
    """
    with progress("noise2noise", learner.recipe.steps, unit="steps") as advance:
        for number in range(learner.recipe.steps):
            if number % 2:
                # Further on than the transplants that it was adapted with.
                far = 10**6 + number
                learner.step(task, task.draw(setup, "train", far))
            else:
                learner.step(own, own.draw(setup.seed, number))  # type: ignore[arg-type]
            advance(1)
