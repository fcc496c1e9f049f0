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
    judge,
    sample_dates,
)
from cube_denoise.corrections.correction import Correction, Plan, Run, read
from cube_denoise.corrections.series import STRIP, Stack, dates_of, stack_of

log = logging.getLogger(__name__)

RANK_TOLERANCE = 1e-6
"""Singular values below this share of the largest count as zero."""


@dataclass(frozen=True, kw_only=True)
class Separation(Correction):
    r"""Base of corrections that split the phase of the dates into components.

    A component, a map times a time course, stays in the signal as deformation if its
    course grows with time (Spearman's rank correlation, permutation p < 0.05), or if
    it is not stable enough to be named; all others go. At every pixel the phase x of
    the dates is fitted with the courses T of all components, a steady rate and a
    constant,

    .. math:: x = T_\mathrm{gone}\, a + T_\mathrm{kept}\, b + v t + c,

    by least squares over the dates that are there, and :math:`T_\mathrm{gone}\, a`,
    differenced into pairs, is subtracted. Closure is kept. Steady motion alone is
    returned as it was, whichever components go. Dates are taken less their medians.
    At a pixel whose dates cannot tell the terms apart, nothing is removed.

    **Blind spots.** Seasonal and transient deformation does not grow with time and goes
    with the atmosphere, and so does a step near either end of the stack; a step near
    the middle ranks as growth and stays. A delay that grows with time (a drift, or
    seasonal delay seen for half a year) stays. Rule and guard are ours; see the
    subclasses for whose the components are.
    """

    whole_stack: ClassVar[bool] = True
    passes: ClassVar[str] = "hold no data or are not linked to the others"
    keep: Sequence[int] = ()
    remove: Sequence[int] = ()

    def __post_init__(self) -> None:
        both = set(self.keep) & set(self.remove)
        if both:
            raise ValueError(
                f"keep={list(self.keep)} and remove={list(self.remove)} share "
                f"{sorted(both)}: a component can only stay or go"
            )

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
                stacklevel=2,
            )
        kept = found.courses[:, ~goes]
        if not any(v["p"] < SIGNIFICANT for v in verdicts if v["verdict"] == "removed"):
            kept = np.column_stack([kept, sample.years])
        apply = partial(
            _apply,
            stack=stack,
            sample_dates=sample.dates,
            medians=sample.medians,
            gone=found.courses[:, goes],
            kept=kept,
        )
        return Plan(apply, stack.unused, {"verdicts": json.dumps(verdicts)})


def _apply(
    cube: xr.Dataset,
    window: Window,
    *,
    stack: Stack,
    sample_dates: np.ndarray,
    medians: np.ndarray,
    gone: np.ndarray,
    kept: np.ndarray,
) -> np.ndarray:
    """Corrected phase of all pairs; courses have shape (dates, components)."""
    rows, columns = (window[d].stop - window[d].start for d in (Y, X))
    corrected = np.empty((cube.sizes[PAIR], rows, columns), "float32")
    for part in spans(window[Y].stop, STRIP, start=window[Y].start):
        here = {**window, Y: part}
        dates = dates_of(cube, here, stack) - medians[:, None, None]
        shape = dates.shape
        removed = np.zeros((shape[0], shape[1] * shape[2]))
        removed[sample_dates] = unwanted(
            dates.reshape(shape[0], -1)[sample_dates], gone, kept
        )
        pairs = stack.network.pair_phase(removed).reshape(-1, *shape[1:])
        strip = slice(part.start - window[Y].start, part.stop - window[Y].start)
        corrected[:, strip] = read(cube, "unwrapped_phase", here) - pairs
    return corrected


def unwanted(phase: np.ndarray, gone: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Part of the phase of the dates that the components that go explain.

    Parameters
    ----------
    phase : numpy.ndarray, shape (dates, pixels)
        rad, NaN = no data; any constant.
    gone, kept : numpy.ndarray, shape (dates, components)
        Courses of the components that go, and of all else that is fitted.

    Returns
    -------
    numpy.ndarray, shape (dates, pixels)
        rad, finite; 0 at pixels whose dates cannot tell the courses apart. A pixel is
        computed the same way whatever comes with it.
    """
    removed = np.zeros(phase.shape)
    if gone.shape[1] == 0:
        return removed
    design = np.column_stack([gone, kept])
    design = design / np.linalg.norm(design - design.mean(0), axis=0)
    whole = np.linalg.matrix_rank(design - design.mean(0), rtol=RANK_TOLERANCE)
    there = np.isfinite(phase)
    bits = np.packbits(there, axis=0)
    patterns, label = np.unique(bits, axis=1, return_inverse=True)
    for k, pattern in enumerate(patterns.T):
        dates = np.unpackbits(pattern, count=phase.shape[0]).view(bool)
        used = design[dates] - design[dates].mean(0) if dates.any() else design[:0]
        # One degree of freedom is the constant, one is left to judge by.
        if len(used) < whole + 2:
            continue
        if np.linalg.matrix_rank(used, rtol=RANK_TOLERANCE) < whole:
            continue
        fit = np.linalg.pinv(used, rcond=RANK_TOLERANCE)[: gone.shape[1]]
        pixels = label == k
        # Sparse: unlike BLAS, its sums do not depend on how many pixels there are.
        loads = sparse.csr_array(fit) @ phase[np.ix_(dates, pixels)]
        removed[:, pixels] = sparse.csr_array(design[:, : gone.shape[1]]) @ loads
    return removed
