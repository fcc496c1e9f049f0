"""Atmosphere of a date from the pairs that share it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window, spans
from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.corrections.correction import Correction, Plan, Run
from cube_denoise.corrections.series import MEMORY, STRIP, pair_constants
from cube_denoise.network import pair_indices
from cube_denoise.reference import read_window

SAMPLES = 1 << 14
"""The noise of the dates is judged on a regular sample of at most this many pixels."""


class Spokes(NamedTuple):
    """The pairs that share one date."""

    pairs: np.ndarray
    """Positions in the cube, shape (spokes,)."""
    sign: np.ndarray
    """-1 where the date is the later of the pair, +1 where it is the earlier."""
    years: np.ndarray
    """Span of the pair with this sign: when the other date is, seen from this one."""


@dataclass(frozen=True, kw_only=True)
class CommonSceneStacking(Correction):
    r"""Remove from every date what all pairs that share it have in common.

    Seen from date k, a pair shows the phase of its other date,
    :math:`y = x_j - x_k = \varphi_{kj}` for later ones and
    :math:`y = x_i - x_k = -\varphi_{ik}` for earlier ones, at the time
    :math:`\tau` from k. With steady motion :math:`y = -a_k + v \tau + \ldots`, so minus
    the intercept of a straight line through them is an estimate of :math:`a_k`. With
    one pair on each side it is

    .. math:: a_k = \frac{\varphi_{ik}\,\tau_{kj} - \varphi_{kj}\,\tau_{ik}}
                         {\tau_{ik} + \tau_{kj}},

    with symmetric spans the common-scene stacking of Tymofyeyeva and Fialko (2015),
    :math:`a_k = \langle \varphi_{k-m,k} - \varphi_{k,k+m} \rangle_m / 2`. The line
    makes it hold for spans of any lengths and for gaps: each pixel takes the pairs that
    it has. The dates are treated in the order of their noise (rms of a first estimate),
    largest first, each with pairs already rid of the dates before.

    Steady motion is kept exactly, and so is closure, since differences of dates are
    subtracted. The rest is not free: a fraction of the noise of the neighbours goes
    into :math:`a_k` (for n pairs a side of equal spans, variance 1 / 2n of one date),
    the first and the last date cannot be estimated and keep their noise, and motion
    that is not steady is smoothed: a step between two dates is spread over the dates
    around it, though what moved from the first to the last date is kept. A pixel
    without pairs on both sides of a date keeps the noise of that date. The series
    becomes quieter, a rate fitted to it not better: the ends weigh most in it.
    """

    name: ClassVar[str] = "common-scene"
    whole_stack: ClassVar[bool] = True

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`."""
        constants = pair_constants(cube, run)
        used = np.isfinite(constants)
        spokes = _spokes(cube, used)
        if not spokes:
            raise ValueError(
                "no date of the cube has pairs on both sides, before and after: "
                "common-scene needs them"
            )
        sample = np.stack(run(partial(_sample, cube), range(cube.sizes[PAIR])))
        sample -= constants[:, None]
        order = sorted(spokes, key=lambda k: -_noise(sample, spokes[k]))
        apply = partial(
            _apply, constants=constants, spokes=tuple(spokes[k] for k in order)
        )
        return Plan(apply, frozenset(np.flatnonzero(~used).tolist()))


def _spokes(cube: xr.Dataset, used: np.ndarray) -> dict[int, Spokes]:
    """Pairs of every date that has used pairs on both sides."""
    early, late = cube["reference_time"].values, cube["secondary_time"].values
    first, second, times = pair_indices(early, late)
    years = (times - times[0]).astype("float64") / (365.25 * 86400)
    span = years[second] - years[first]
    found = {}
    for k in range(times.size):
        before = np.flatnonzero((second == k) & used)
        after = np.flatnonzero((first == k) & used)
        if before.size and after.size:
            both = np.concatenate([before, after])
            sign = np.repeat([-1.0, 1.0], [before.size, after.size])
            found[k] = Spokes(both, sign, sign * span[both])
    return found


def _sample(cube: xr.Dataset, pair: int) -> np.ndarray:
    """Phase of one pair at a regular sample of the pixels, rad, float64."""
    stride = int(np.ceil(np.sqrt(cube.sizes[Y] * cube.sizes[X] / SAMPLES)))
    some = {PAIR: pair, Y: slice(None, None, stride), X: slice(None, None, stride)}
    return np.asarray(cube["unwrapped_phase"].isel(some).values, "float64").ravel()


def _noise(sample: np.ndarray, spokes: Spokes) -> float:
    """Root mean square of the atmosphere of a date, rad; 0 where nothing is known."""
    found = _estimate(sample, spokes)
    finite = found[np.isfinite(found)]
    return float(finite.std()) if finite.size else 0.0


def _estimate(phase: np.ndarray, spokes: Spokes) -> np.ndarray:
    """Atmosphere of a date, rad, shape (pixels,); NaN without pairs on both sides.

    `phase` has the shape (pairs, pixels).
    """
    pixels = phase.shape[1]
    count, t, tt, y, ty = (np.zeros(pixels) for _ in range(5))
    sides = np.zeros((2, pixels), bool)
    for pair, sign, years in zip(*spokes, strict=True):
        valid = np.isfinite(phase[pair])
        seen = np.where(valid, sign * phase[pair], 0)
        sides[int(sign > 0)] |= valid
        count += valid
        t += years * valid
        tt += years**2 * valid
        y += seen
        ty += years * seen
    both = sides.all(0)
    # Minus the intercept; times on both sides of 0 are spread, so it is well posed.
    spread = np.where(both, count * tt - t**2, np.nan)
    return (t * ty - tt * y) / spread


def _apply(
    cube: xr.Dataset,
    window: Window,
    *,
    constants: np.ndarray,
    spokes: tuple[Spokes, ...],
) -> np.ndarray:
    rows, columns = (window[d].stop - window[d].start for d in (Y, X))
    corrected = np.empty((constants.size, rows, columns), "float32")
    for strip in spans(window[Y].stop, STRIP, start=window[Y].start):
        raw = read_window(cube, "unwrapped_phase", {Y: strip, X: window[X]})
        flat = raw.reshape(constants.size, -1)
        done = np.empty(flat.shape, "float32")
        for part in spans(flat.shape[1], max(1, MEMORY // (16 * constants.size))):
            phase = flat[:, part] - constants[:, None]
            for date in spokes:
                atmosphere = np.nan_to_num(_estimate(phase, date))
                phase[date.pairs] += date.sign[:, None] * atmosphere
            done[:, part] = phase + constants[:, None]
        here = slice(strip.start - window[Y].start, strip.stop - window[Y].start)
        corrected[:, here] = done.reshape(raw.shape)
    return corrected
