"""Phase of the dates of a stack: what corrections that think in dates start from."""

from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window, spans
from cube_denoise.conventions import PAIR, X, Y, years_since
from cube_denoise.corrections.correction import Run, in_turn
from cube_denoise.network import Network, connected_subsets, pair_indices
from cube_denoise.normalise import sample_stride
from cube_denoise.reference import read_window

MEMORY = 1 << 26
"""Temporary memory of what works on dates, bytes, beside inputs and outputs."""
STRIP = 128
"""Rows read at a time, counted from the first row of the cube."""


@dataclass(frozen=True)
class Stack:
    """The dates of a cube, how its pairs link them, and the constants of the pairs."""

    network: Network
    """Its origin is the first date of the largest connected subset."""
    times: np.ndarray
    """Dates, sorted, datetime64[s], shape (dates,)."""
    constants: np.ndarray
    """Constant taken off each pair, rad, shape (pairs,); NaN = the pair is not used."""

    @property
    def unused(self) -> frozenset[int]:
        """Positions of the pairs without data or apart from the largest subset."""
        return frozenset(np.flatnonzero(np.isnan(self.constants)).tolist())


def stack_of(cube: xr.Dataset, run: Run = in_turn) -> Stack:
    """Look at the pairs of a cube: their network and their constants.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        With ``unwrapped_phase``, rad, ``reference_time`` and ``secondary_time``.
    run : callable
        See `correction.Run`.

    Returns
    -------
    Stack
        Without the pairs apart from the largest connected subset.

    Raises
    ------
    ValueError
        If no pair holds data, or the dates are not those of a network
        (`network.pair_indices`).
    """
    early, late = cube["reference_time"].values, cube["secondary_time"].values
    first, second, times = pair_indices(early, late)
    constants = pair_constants(cube, run)
    known = np.isfinite(constants)
    subset = connected_subsets(early[known], late[known])[0]
    constants[~np.isin(times[first], subset)] = np.nan
    origin = int(np.searchsorted(times, subset[0]))
    return Stack(Network(first, second, times.size, origin), times, constants)


def pair_constants(cube: xr.Dataset, run: Run = in_turn) -> np.ndarray:
    """Median of every pair over the scene, rad, float64, shape (pairs,).

    From ``phase_quantiles`` where the cube has it, else from every n-th pixel; NaN for
    a pair without data. Every unwrapped pair has a constant of its own, which no date
    can explain.

    Raises
    ------
    ValueError
        If no pair holds data.
    """
    if "phase_quantiles" in cube:
        constants = cube["phase_quantiles"].values[:, 2].astype("float64")
    else:
        pairs = range(cube.sizes[PAIR])
        constants = np.array(run(partial(_median, cube), pairs))
    if not np.isfinite(constants).any():
        raise ValueError("no pair of unwrapped_phase holds data")
    return constants


def dates_of(cube: xr.Dataset, window: Window, stack: Stack) -> np.ndarray:
    r"""Phase of the dates in a window, each pixel by itself.

    Unweighted least squares over the pairs m = (i, j) that hold data at a pixel,

    .. math:: \min_x \sum_m (x_{j_m} - x_{i_m} - (\varphi_m - c_m))^2,
        \qquad x_\mathrm{origin} = 0,

    with the constants c of `pair_constants` (Berardino et al. 2002).

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
    window : mapping
        Slices of "y" and "x"; the pairs are always all.
    stack : Stack
        Of this cube.

    Returns
    -------
    numpy.ndarray, float64, shape (dates, rows, columns)
        rad; 0 at the origin, NaN at dates that no chain of pairs links to it at that
        pixel, so everywhere where no pair has data. Bit-equal for a pixel whatever the
        window.
    """
    from cube_denoise.inversion.solver import solve

    rows, columns = (window[d].stop - window[d].start for d in (Y, X))
    dates = np.empty((stack.network.size, rows, columns))
    for part in spans(window[Y].stop, STRIP, start=window[Y].start):
        phase = read_window(cube, "unwrapped_phase", {Y: part, X: window[X]})
        here = slice(part.start - window[Y].start, part.stop - window[Y].start)
        found = solve(
            np.ascontiguousarray(phase.reshape(phase.shape[0], -1), "float32"),
            stack.network.plan,
            constants=stack.constants,
        )
        dates[:, here] = found.phase.reshape(stack.network.size, -1, columns)
    return dates


@dataclass(frozen=True)
class Projection:
    """Takes out of something known of the pairs what no dates explain."""

    network: Network
    years: np.ndarray
    """Of the dates, since the first."""

    @classmethod
    def of(cls, cube: xr.Dataset) -> Self:
        """On the dates of a cube; it need not be connected."""
        early, late = cube["reference_time"].values, cube["secondary_time"].values
        first, second, times = pair_indices(early, late)
        network = Network(first, second, times.size, 0)
        return cls(network, years_since(times, times[0]))

    def project(self, values: np.ndarray) -> None:
        r"""Replace :math:`r_{ij}` by :math:`a_j - a_i`, in place, each pixel by itself.

        Unweighted least squares, :math:`\min_a \sum_{ij} (a_j - a_i - r_{ij})^2`, over
        the pairs that are known at a pixel, linked with each other or not.

        Parameters
        ----------
        values : numpy.ndarray, float32, shape (pairs, rows, columns), C-contiguous
            Any unit; NaN = not known, and stays so.
        """
        from cube_denoise.inversion.solver import solve

        pairs, rows, columns = values.shape
        for part in spans(rows, STRIP):
            strip = np.ascontiguousarray(values[:, part].reshape(pairs, -1))
            # Bridged: subsets apart from the origin have dates as well.
            found = solve(
                strip, self.network.plan, gaps="linear", years=self.years, quality=False
            ).phase
            where = zip(self.network.first, self.network.second, strict=True)
            for k, (i, j) in enumerate(where):
                known = np.isfinite(strip[k])
                strip[k] = np.where(known, found[j] - found[i], np.nan)
            values[:, part] = strip.reshape(pairs, -1, columns)


def _median(cube: xr.Dataset, pair: int) -> float:
    """Median of one pair, rad, from every n-th pixel of a large one; NaN if empty."""
    stride = sample_stride((cube.sizes[Y], cube.sizes[X]))
    some = {PAIR: pair, Y: slice(None, None, stride), X: slice(None, None, stride)}
    sample = cube["unwrapped_phase"].isel(some).values
    finite = sample[np.isfinite(sample)].astype("float64")
    return float(np.median(finite)) if finite.size else np.nan
