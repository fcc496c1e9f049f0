"""Unwrapping errors of a cube: how its triplets close, before and after treatment."""

import warnings

import numpy as np
import xarray as xr

from cube_denoise.blocks import spans, windows
from cube_denoise.closure import close_phase, closure_cycles
from cube_denoise.conventions import PAIR, X, Y, pair_label
from cube_denoise.network import closure_triplets, triplet_closure
from cube_denoise.reference import (
    find_reference,
    phase_variable,
    read_window,
    reference_phase,
)
from cube_denoise.reference_area import Reference

TRIPLET = "triplet"
SAMPLE_WINDOWS, SAMPLE_SIDE = 16, 32
"""Windows, and pixels a side of each, that constants of loops are estimated from."""
NEAR = np.pi / 2
"""A loop decides cycles if its constant is within this of a multiple of 2 pi, rad."""


def loop_constants(
    cube: xr.Dataset, variable: str, constants: np.ndarray, triplets: np.ndarray
) -> np.ndarray:
    """Closure that every triplet has all over the scene, less whole cycles.

    What remains of a loop after the pairs were referenced (noise of the reference area,
    phase bias) is no unwrapping error, and moves the threshold of half a cycle. It is
    estimated as the median around the circular mean, which whole cycles do not reach,
    over at most 16 windows of 32 x 32 px, spread evenly; 0 where they hold no data.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
    variable : str
        Phase variable, rad.
    constants : numpy.ndarray, shape (pairs,)
        From `reference.reference_phase`, rad.
    triplets : numpy.ndarray of int, shape (triplets, 3)
        From `network.closure_triplets`.

    Returns
    -------
    numpy.ndarray of float64, shape (triplets,)
        rad, -pi to pi, of phases less `constants`; NaN where it is more than a quarter
        of a cycle: such a loop cannot tell whole cycles.

    Warns
    -----
    UserWarning
        If there are such loops.
    """
    return _decisive(
        cube, triplets, _all_constants(cube, variable, constants, triplets)
    )


def _all_constants(
    cube: xr.Dataset, variable: str, constants: np.ndarray, triplets: np.ndarray
) -> np.ndarray:
    """`loop_constants` of all loops, also those that decide nothing."""
    cuts = {d: spans(cube.sizes[d], SAMPLE_SIDE) for d in (Y, X)}
    every = windows(**cuts)
    chosen = np.linspace(0, len(every) - 1, min(SAMPLE_WINDOWS, len(every)))
    sample = np.concatenate(
        [
            read_window(cube, variable, every[k]).reshape(cube.sizes[PAIR], -1)
            for k in chosen.round().astype(int)
        ],
        axis=1,
    )
    sample = sample - constants[:, None]
    found = np.zeros(len(triplets))
    for t in range(len(triplets)):
        missed = triplet_closure(sample, triplets[t : t + 1])[0]
        turned = np.exp(1j * missed[np.isfinite(missed)])
        if turned.size:
            middle = np.angle(turned.mean())
            found[t] = middle + np.median(np.angle(turned * np.exp(-1j * middle)))
    return np.angle(np.exp(1j * found))


def _decisive(
    cube: xr.Dataset, triplets: np.ndarray, constants: np.ndarray
) -> np.ndarray:
    """`constants` with NaN for loops that cannot tell cycles, and a warning of them."""
    far = np.abs(constants) > NEAR
    if far.any():
        worst = int(np.argmax(np.where(far, np.abs(constants), 0)))
        warnings.warn(
            f"{far.sum()} of {far.size} triplets miss by a constant that is not near "
            "whole cycles and decide no unwrapping errors; most: "
            f"{constants[worst]:.2f} rad in "
            f"{', '.join(pair_label(cube, int(k)) for k in triplets[worst])}",
            stacklevel=3,
        )
    return np.where(far, np.nan, constants)


def closure_statistics(
    cube: xr.Dataset,
    *,
    variable: str | None = None,
    reference: Reference = None,
    unwrapping: str = "correct",
    block: int = 256,
) -> xr.Dataset:
    """How the triplets of a cube close, before and after their treatment.

    Reads the cube window by window; nothing is changed in it. A triplet is open at a
    pixel where its closure, less its `loop_constants`, is not 0 whole cycles.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        Unwrapped phase, rad, with ``reference_time`` and ``secondary_time``.
    variable : {"corrected_phase", "unwrapped_phase"}, optional
        As for `invert`.
    reference : mapping, ReferenceArea, str or path, optional
        Reference area, as for `invert`; None = `choose_reference`.
    unwrapping : {"correct", "mask", "none"}
        What is done to pairs that do not close, as in `closure.close_phase`.
    block : int
        Windows are cut at multiples of this many pixels; no effect on the numbers.

    Returns
    -------
    xarray.Dataset
        Along ``triplet``: ``triplet_pairs`` (triplet, side), positions of its pairs;
        ``loop_constant`` (rad), ``decides``; ``triplet_pixels`` with data;
        ``open_before``, ``open_after``, share of pixels with data where it is open;
        ``closure_rms_before``, ``closure_rms_after``, rad. Along ``pair``: ``pixels``
        with data; ``pair_open_before``, ``pair_open_after``, share of open among its
        triplets and their pixels; ``corrected``, ``masked``, share of its pixels. NaN
        = no data. Without a dimension: ``open_pixels_before``, ``open_pixels_after``,
        pixels with any open triplet.

    Raises
    ------
    ValueError
        If options or cube are not as above, or no three pairs make a loop.

    Warns
    -----
    UserWarning
        If a pair has no data in the reference area and is left out, or triplets decide
        nothing (`loop_constants`).
    """
    variable = phase_variable(cube, variable)
    early, late = cube["reference_time"].values, cube["secondary_time"].values
    triplets = closure_triplets(early, late)
    if not len(triplets):
        raise ValueError(
            f"none of the {len(early)} pairs close a triplet: unwrapping errors cannot "
            "be told; add pairs that span two others"
        )
    area = find_reference(cube, reference, variable=variable)
    constants = reference_phase(cube, variable, area)
    if np.isnan(constants).any():
        names = [pair_label(cube, int(k)) for k in np.flatnonzero(np.isnan(constants))]
        warnings.warn(
            f"{len(names)} pair(s) without data in the reference area are left out: "
            + ", ".join(names),
            stacklevel=2,
        )
    loops = _all_constants(cube, variable, constants, triplets)
    decisive = _decisive(cube, triplets, loops)

    before, after = _Tally(triplets, loops), _Tally(triplets, loops)
    shares = np.zeros((3, cube.sizes[PAIR]), "int64")
    cuts = {d: spans(cube.sizes[d], block) for d in (Y, X)}
    for window in windows(**cuts):
        phase = read_window(cube, variable, window)
        phase = phase.reshape(len(phase), -1)
        phase = phase - constants[:, None].astype(phase.dtype)
        closed = close_phase(
            phase, triplets, unwrapping=unwrapping, loop_constants=decisive
        )
        before.add(phase)
        after.add(closed.phase)
        valid = np.isfinite(phase)
        for k, there in enumerate((valid, closed.cycles != 0, closed.masked)):
            shares[k] += there.sum(1)
    return _dataset(cube, triplets, decisive, before, after, shares).assign_attrs(
        phase_variable=variable,
        unwrapping=unwrapping,
        **area.attributes(),
    )


class _Tally:
    """Sums over pixels of what triplets miss by."""

    def __init__(self, triplets: np.ndarray, constants: np.ndarray) -> None:
        self.triplets, self.constants = triplets, constants
        self.valid = np.zeros(len(triplets), "int64")
        self.open = self.valid.copy()
        self.square = np.zeros(len(triplets))
        self.open_pixels = 0

    def add(self, phase: np.ndarray) -> None:
        """Add a block of phase, shape (pairs, pixels)."""
        anywhere = np.zeros(phase.shape[1], bool)
        for t, constant in enumerate(self.constants):
            missed = triplet_closure(phase, self.triplets[t : t + 1])[0]
            missed = missed[there := np.isfinite(missed)] - constant
            opened = closure_cycles(missed) != 0
            self.valid[t] += missed.size
            self.open[t] += opened.sum()
            self.square[t] += np.square(missed, dtype="float64").sum()
            anywhere[there] |= opened
        self.open_pixels += int(anywhere.sum())

    def by_pair(self, pairs: int) -> np.ndarray:
        """Share of open among all triplets of every pair."""
        opened, valid = (
            np.bincount(self.triplets.ravel(), np.repeat(n, 3), pairs)
            for n in (self.open, self.valid)
        )
        return _ratio(opened, valid)


def _dataset(
    cube: xr.Dataset,
    triplets: np.ndarray,
    constants: np.ndarray,
    before: _Tally,
    after: _Tally,
    shares: np.ndarray,
) -> xr.Dataset:
    pixels, corrected, masked = shares
    rad, one = {"units": "rad"}, {"units": "1"}
    found = xr.Dataset(
        {
            "loop_constant": (TRIPLET, before.constants, rad),
            "decides": (TRIPLET, np.isfinite(constants)),
            "triplet_pixels": (TRIPLET, before.valid, one),
            "pixels": (PAIR, pixels, one),
            "corrected": (PAIR, _ratio(corrected, pixels), one),
            "masked": (PAIR, _ratio(masked, pixels), one),
        }
    )
    for when, tally in (("before", before), ("after", after)):
        rms = np.sqrt(_ratio(tally.square, tally.valid))
        found[f"open_{when}"] = TRIPLET, _ratio(tally.open, tally.valid), one
        found[f"closure_rms_{when}"] = TRIPLET, rms, rad
        found[f"pair_open_{when}"] = PAIR, tally.by_pair(pixels.size), one
        found[f"open_pixels_{when}"] = (), tally.open_pixels, one
    return found.assign_coords(
        triplet_pairs=((TRIPLET, "side"), triplets),
        reference_time=cube["reference_time"].variable,
        secondary_time=cube["secondary_time"].variable,
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part of the whole, NaN of nothing."""
    return part / np.where(whole > 0, whole, np.nan)
