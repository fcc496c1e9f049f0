"""The pairs of a stack at fewer pixels, without gaps: what is split into components."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from cube_denoise.blocks import spans
from cube_denoise.conventions import PAIR, X, Y, years_since
from cube_denoise.corrections.correction import READ_SIZE, Run, in_turn
from cube_denoise.grid import pixel_spacing
from cube_denoise.network import Network, pair_indices

FEWEST_PAIRS, FEWEST_DATES = 20, 8
"""With fewer, neither a network nor a test has anything to go by."""
FEWEST_PIXELS = 100
"""Pixels of the coarse maps."""
KNOWN_PART = 0.5
"""Of the pixels of a cell that must hold data for the cell to."""


@dataclass(frozen=True)
class CoarseStack:
    """Pairs at fewer pixels; gaps are filled with what the other pairs say."""

    phase: np.ndarray
    """rad, float32, shape (pairs, rows, columns): of median zero over the known cells,
    0 in the others."""
    known: np.ndarray
    """Cells whose dates the pairs link, bool, shape (rows, columns)."""
    pairs: np.ndarray
    """Positions of the pairs in the cube, shape (pairs,)."""
    first: np.ndarray
    """Index of the earlier date of each pair, shape (pairs,)."""
    second: np.ndarray
    """Index of the later date, shape (pairs,)."""
    years: np.ndarray
    """Of the dates since the first, shape (dates,)."""
    looks: int
    """Pixels a side that a cell has."""
    spacing: tuple[float, float] | None
    """Of the cells, m, along y and x; None where the cube has no grid."""
    elevation: np.ndarray | None
    """m, shape (rows, columns), NaN = not known; None if the cube has none."""

    @property
    def to_dates(self) -> np.ndarray:
        """Least-squares inverse of the differencing, shape (dates, pairs).

        Of minimum norm: dates of each connected subset have mean zero.
        """
        return np.linalg.pinv(self.differences, rcond=1e-10)

    @property
    def differences(self) -> np.ndarray:
        """Later less earlier date, shape (pairs, dates)."""
        A = np.zeros((self.first.size, self.years.size))
        rows = np.arange(self.first.size)
        A[rows, self.first], A[rows, self.second] = -1, 1
        return A


def read_coarse(
    cube: xr.Dataset, *, looks: int | None = None, side: int, run: Run = in_turn
) -> CoarseStack:
    """Average the pairs over cells and fill their gaps.

    A cell is the mean of its pixels that hold data, where at least half of them do. A
    gap of a pair is filled with the difference of its dates, as the other pairs have
    them (least squares, each cell by itself; dates that its pairs do not link are
    bridged by its rate). Cells at the last rows and columns may be smaller.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        With ``unwrapped_phase``, rad.
    looks : int, optional
        Pixels a side of a cell; by default as few as leave `side` cells or fewer.
    side : int
        See `looks`.
    run : callable
        See `corrections.correction.Run`; a task is a pair.

    Returns
    -------
    CoarseStack
        Without the pairs that hold no data.

    Raises
    ------
    ValueError
        If there are too few pairs, dates or cells.
    """
    longer = max(cube.sizes[Y], cube.sizes[X])
    looks = looks or -(-longer // side)
    maps = np.stack(
        run(partial(_coarse_pair, cube, looks=looks), range(cube.sizes[PAIR]))
    )
    pairs = np.flatnonzero(np.isfinite(maps).any((1, 2)))
    early, late = cube["reference_time"].values, cube["secondary_time"].values
    first, second, times = pair_indices(early[pairs], late[pairs])
    _check_enough(pairs, times)
    years = years_since(times, times[0])
    filled, known = _fill(maps[pairs], Network(first, second, times.size, 0), years)
    if known.sum() < FEWEST_PIXELS:
        raise ValueError(
            f"{known.sum()} cells of {looks} x {looks} pixels hold data: a separation "
            f"needs {FEWEST_PIXELS} or more; take fewer looks or a larger scene"
        )
    filled -= np.median(filled[:, known], axis=1)[:, None, None]
    filled[:, ~known] = 0
    elevation = None
    if "elevation" in cube:
        elevation = _cells(cube["elevation"].transpose(Y, X).values, looks)
    try:
        spacing = pixel_spacing(cube)
    except ValueError:
        spacing = None
    return CoarseStack(
        phase=filled,
        known=known,
        pairs=pairs,
        first=first,
        second=second,
        years=years,
        looks=looks,
        spacing=None if spacing is None else (spacing[0] * looks, spacing[1] * looks),
        elevation=elevation,
    )


def _check_enough(pairs: Sequence[int] | np.ndarray, times: np.ndarray) -> None:
    if len(pairs) < FEWEST_PAIRS or times.size < FEWEST_DATES:
        raise ValueError(
            f"the cube has {len(pairs)} pairs with data of {times.size} dates: a "
            f"separation needs {FEWEST_PAIRS} pairs or more of {FEWEST_DATES} dates or "
            "more"
        )


def _coarse_pair(cube: xr.Dataset, pair: int, *, looks: int) -> np.ndarray:
    """Cells of one pair, rad, float32; cells do not depend on how the cube is cut."""
    part = max(1, READ_SIZE // looks) * looks
    phase = cube["unwrapped_phase"].isel({PAIR: pair}).transpose(Y, X)
    return np.block(
        [
            [_cells(phase[rows, columns].values, looks) for columns in across]
            for rows in spans(cube.sizes[Y], part)
            for across in [spans(cube.sizes[X], part)]
        ]
    ).astype("float32")


def _cells(values: np.ndarray, looks: int) -> np.ndarray:
    """Means of cells of ``looks`` pixels a side, float64; NaN where half is missing."""
    rows, columns = (-(-n // looks) * looks for n in values.shape)
    padded = np.full((rows, columns), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    inside = np.zeros((rows, columns))
    inside[: values.shape[0], : values.shape[1]] = 1
    blocks = (rows // looks, looks, columns // looks, looks)
    there = np.isfinite(padded)
    total = np.where(there, padded, 0).reshape(blocks).sum((1, 3))
    count = there.reshape(blocks).sum((1, 3))
    enough = count >= KNOWN_PART * inside.reshape(blocks).sum((1, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(enough & (count > 0), total / count, np.nan))


def _fill(
    maps: np.ndarray, network: Network, years: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs without gaps, float32, and the cells that have data in any."""
    from cube_denoise.inversion.solver import solve

    pairs, rows, columns = maps.shape
    constants = np.array([np.median(m[np.isfinite(m)]) for m in maps])
    flat = (maps - constants[:, None, None]).reshape(pairs, -1).astype("float32")
    dates = solve(
        np.ascontiguousarray(flat),
        network.plan,
        gaps="linear",
        years=years,
        quality=False,
    ).phase
    whole = np.where(
        np.isfinite(flat), flat, dates[network.second] - dates[network.first]
    )
    known = np.isfinite(whole).all(0)
    shape = (pairs, rows, columns)
    return whole.astype("float32").reshape(shape), known.reshape(rows, columns)
