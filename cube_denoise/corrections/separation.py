"""Corrections that split the dates of a stack into components and remove some."""

import json
import logging
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy import sparse

from cube_denoise.blocks import Window, spans
from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.corrections.components import (
    SIGNIFICANT,
    Sample,
    Separated,
    check_overruled,
    judge,
    sample_dates,
)
from cube_denoise.corrections.correction import Correction, Plan, Run, read
from cube_denoise.corrections.series import STRIP, Stack, dates_of, stack_of

log = logging.getLogger(__name__)

NUGGET = 1e-6
"""Share of the mean variance that is added to that of every date: C has an inverse."""
FEWEST_FITTED = 3
"""Pixels with this many dates or fewer are not fitted."""


@dataclass(frozen=True, kw_only=True)
class Separation(Correction):
    r"""Base of corrections that split the phase of the dates into components.

    A component, a map s times a time course T, stays in the signal as deformation if
    its course grows with time (Spearman's rank correlation, permutation p < 0.05), or
    if it is not stable enough to be named; all others go. At every pixel their maps are
    estimated from the phase x of the dates that are there, by linear regression that a
    constant and a steady rate F = [1, t] cannot enter (universal kriging; without F it
    is the projection on the components),

    .. math:: \hat s = C_{sx} \left(C^{-1} - C^{-1} F (F^T C^{-1} F)^{-1} F^T C^{-1}
              \right) x

    with the covariances C of the dates and C_sx of maps and dates over the sample, and
    :math:`T \hat s`, differenced into pairs, is subtracted. Closure is kept. Steady
    motion alone is returned as it was, whichever components the rule lets go; only
    where `remove` names one that grows with time, F is the constant. Dates are taken
    less their medians. Pixels with three dates or fewer stay as they are.

    **Blind spots.** Seasonal and transient deformation does not grow with time and goes
    with the atmosphere, and so does a step near either end of the stack; a step near
    the middle ranks as growth and stays. A delay that grows with time (a drift, or
    seasonal delay seen for half a year) stays. The rule and the
    regression are ours; see the subclasses for whose the components are.
    """

    whole_stack: ClassVar[bool] = True
    passes: ClassVar[str] = "hold no data or are not linked to the others"
    keep: Sequence[int] = ()
    remove: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_overruled(self.keep, self.remove)

    @property
    def least_stability(self) -> float:
        """Components with a lower stability index stay."""
        return 0.0

    @abstractmethod
    def separate(self, sample: Sample) -> Separated:
        """Find at most ``len(sample.years) - 3`` components, the leading one first."""

    def caution(self) -> list[str]:
        """What the rule cannot see."""
        return [
            "only what grows with time is kept as deformation: seasonal and transient "
            "motion may be removed with the atmosphere (the verdicts are in the "
            "attributes of corrected_phase; keep and remove overrule them)"
        ]

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`."""
        stack = stack_of(cube, run)
        sample = sample_dates(cube, stack, run)
        found = self.separate(sample)
        verdicts = judge(
            sample,
            found,
            least_stability=self.least_stability,
            keep=self.keep,
            remove=self.remove,
        )
        for verdict in verdicts:
            log.info("%s: component %s", self.name, json.dumps(verdict))
        goes = np.array([v["verdict"] == "removed" for v in verdicts], bool)
        if not goes.any():
            warnings.warn(
                f"{self.name} found {goes.size} components and none of them goes: the "
                "phase stays as it is",
                stacklevel=4,
            )
        drift = np.stack([np.ones(sample.years.size), sample.years], axis=1)
        if any(v["p"] < SIGNIFICANT for v in verdicts if v["verdict"] == "removed"):
            drift = drift[:, :1]
        pixels = sample.phase.shape[1]
        unwanted = Unwanted(
            courses=found.courses[:, goes],
            shared=found.maps[goes] @ sample.phase.T / pixels,
            covariance=sample.phase @ sample.phase.T / pixels,
            drift=drift,
        )
        apply = partial(
            _apply, stack=stack, sample=sample.dates, medians=sample.medians
        )
        apply = partial(apply, unwanted=unwanted)
        return Plan(apply, stack.unused, {"verdicts": json.dumps(verdicts)})


@dataclass(frozen=True)
class Unwanted:
    """What the components that go explain of the phase of the dates."""

    courses: np.ndarray
    """rad, shape (dates, components)."""
    shared: np.ndarray
    """Covariance of maps and dates, shape (components, dates)."""
    covariance: np.ndarray
    """Of the dates, shape (dates, dates)."""
    drift: np.ndarray
    """What must not enter: a constant first, shape (dates, terms)."""

    def weights(self, there: np.ndarray) -> np.ndarray:
        """Weights of the dates that are there, shape (components, those dates)."""
        nugget = NUGGET * np.trace(self.covariance) / len(self.covariance)
        C = self.covariance[np.ix_(there, there)] + nugget * np.eye(int(there.sum()))
        F = self.drift[there]
        from_dates = np.linalg.solve(C, self.shared[:, there].T).T
        from_drift = np.linalg.solve(C, F).T
        remainder = np.linalg.solve(F.T @ from_drift.T, from_drift)
        return np.asarray(from_dates - (from_dates @ F) @ remainder)

    def of(self, phase: np.ndarray) -> np.ndarray:
        """Apply to pixels, each by itself.

        Parameters
        ----------
        phase : numpy.ndarray, shape (dates, pixels)
            rad, NaN = no data.

        Returns
        -------
        numpy.ndarray, shape (dates, pixels)
            rad, finite; bit-equal for a pixel whatever comes with it.
        """
        removed = np.zeros(phase.shape)
        bits = np.packbits(np.isfinite(phase), axis=0)
        patterns, label = np.unique(bits, axis=1, return_inverse=True)
        # Sparse: unlike BLAS, its sums do not depend on how many pixels there are.
        courses = sparse.csr_array(self.courses)
        for k, pattern in enumerate(patterns.T):
            there = np.unpackbits(pattern, count=phase.shape[0]).view(bool)
            if there.sum() <= FEWEST_FITTED or self.courses.shape[1] == 0:
                continue
            pixels = label == k
            maps = sparse.csr_array(self.weights(there)) @ phase[np.ix_(there, pixels)]
            removed[:, pixels] = courses @ maps
        return removed


def _apply(
    cube: xr.Dataset,
    window: Window,
    *,
    stack: Stack,
    sample: np.ndarray,
    medians: np.ndarray,
    unwanted: Unwanted,
) -> np.ndarray:
    """Corrected phase of all pairs; `sample` are the dates that have components."""
    rows, columns = (window[d].stop - window[d].start for d in (Y, X))
    corrected = np.empty((cube.sizes[PAIR], rows, columns), "float32")
    for part in spans(window[Y].stop, STRIP, start=window[Y].start):
        here = {**window, Y: part}
        dates = dates_of(cube, here, stack) - medians[:, None, None]
        shape = dates.shape
        removed = np.zeros((shape[0], shape[1] * shape[2]))
        removed[sample] = unwanted.of(dates.reshape(shape[0], -1)[sample])
        pairs = stack.network.pair_phase(removed).reshape(-1, *shape[1:])
        strip = slice(part.start - window[Y].start, part.stop - window[Y].start)
        corrected[:, strip] = read(cube, "unwrapped_phase", here) - pairs
    return corrected
