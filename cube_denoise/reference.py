"""Where a stack is taken to be at rest: the reference area and each pair's constant."""

import logging

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window, spans, windows
from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.reference_area import Reference, ReferenceArea, asked_reference
from cube_denoise.reference_pixels import checked_area

logger = logging.getLogger(__name__)

PHASES = ("corrected_phase", "unwrapped_phase")
"""Variables that can be inverted; the first that a cube has is the default."""

CELL = 8
"""Side of the lattice cells among which the reference area is chosen, px."""

READ_SIZE = 256
"""Side of the windows the reference area is looked for in, px (multiple of `CELL`)."""


def find_reference(
    cube: xr.Dataset, reference: Reference, *, variable: str | None = None
) -> ReferenceArea:
    """Pixels of a reference as `invert.invert` takes it, chosen if it is to be.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
    reference : mapping, ReferenceArea, str, path or None
        As for `invert.invert`; None and "auto" = `choose_reference`.
    variable : str, optional
        Phase variable, as for `invert`.

    Raises
    ------
    ValueError
        As `choose_reference` and `reference_pixels.checked_area`.
    """
    if asked_reference(reference) is None:
        return choose_reference(cube, variable=variable)
    return checked_area(reference, cube)


def choose_reference(cube: xr.Dataset, *, variable: str | None = None) -> ReferenceArea:
    """Choose the reference area: the quietest small cell with the fewest gaps.

    Of the 8 x 8 px cells of a lattice anchored at the first pixel, those that hold data
    (in at least half of their pixels) in the most pairs; of these, the one with the
    highest coherence, averaged over pairs and pixels, a missing pixel counting as 0.
    Without coherence in the cube it is the one with the least variance of the phase
    within the cell, averaged over the pairs that it holds. Of equals, it is the one
    with the most pixels that hold data, then the first row by row. Reads every pair
    once, 256 x 256 px at a time.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
    variable : str, optional
        Phase variable, as for `invert`.

    Returns
    -------
    ReferenceArea
    """
    variable = phase_variable(cube, variable)
    rows, columns = cube.sizes[Y], cube.sizes[X]
    height, width = min(CELL, rows), min(CELL, columns)
    shape = (rows // height, columns // width)
    pairs, quality, full = np.zeros(shape, int), np.zeros(shape), np.zeros(shape)
    by_coherence = "coherence" in cube
    for window in windows(
        y=spans(shape[0] * height, READ_SIZE), x=spans(shape[1] * width, READ_SIZE)
    ):
        phase = read_window(cube, variable, window)
        valid = np.isfinite(phase)
        cells = (-1, valid.shape[1] // height, height, valid.shape[2] // width, width)
        y, x = window[Y].start // height, window[X].start // width
        here = slice(y, y + cells[1]), slice(x, x + cells[3])
        share = valid.reshape(cells).mean((2, 4))
        held = share >= 0.5
        pairs[here], full[here] = held.sum(0), share.mean(0)
        if by_coherence:
            good = valid * np.nan_to_num(read_window(cube, "coherence", window))
            quality[here] = good.reshape(cells).mean((0, 2, 4), dtype="float64")
        else:
            scatter = _variance(phase.reshape(cells), valid.reshape(cells))
            total = np.where(held, scatter, 0.0).sum(0)
            quality[here] = -total / np.maximum(held.sum(0), 1)
    if not pairs.any():
        raise ValueError(
            f"no {CELL} x {CELL} px cell of {variable} is half filled in any pair: "
            "give reference="
        )
    best = np.lexsort([-k.ravel() for k in (full, quality, pairs)])[0]
    y, x = (int(k) for k in np.unravel_index(best, shape))
    area = ReferenceArea(
        slice(y * height, (y + 1) * height), slice(x * width, (x + 1) * width)
    )
    logger.info(
        "reference area: rows %d to %d, columns %d to %d, %s %.3f, data in %d of %d "
        "pairs",
        *(area.y.start, area.y.stop, area.x.start, area.x.stop),
        "mean coherence" if by_coherence else "variance of the phase (rad2)",
        *(abs(quality[y, x]), pairs[y, x], cube.sizes[PAIR]),
    )
    return area


def _variance(phase: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Of the pixels with data of every cell, rad2; axes 2 and 4 are those of a cell."""
    count = np.maximum(valid.sum((2, 4), keepdims=True), 1)
    known = np.where(valid, phase, 0.0).astype("float64")
    apart = np.where(valid, known - known.sum((2, 4), keepdims=True) / count, 0.0)
    variance: np.ndarray = (apart**2).sum((2, 4)) / count[:, :, 0, :, 0]
    return variance


def reference_phase(cube: xr.Dataset, variable: str, area: Reference) -> np.ndarray:
    """Mean phase of every pair over the reference area.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
    variable : str
        Phase variable, rad.
    area : ReferenceArea or what `reference_pixels.checked_area` makes one of

    Returns
    -------
    numpy.ndarray, float64, shape (pairs,)
        rad; NaN for pairs without data there.

    Raises
    ------
    ValueError
        If the area is not inside the cube or no pair has data there.
    """
    area = checked_area(area, cube)
    means = area_means(cube, variable, area)
    if not np.isfinite(means).any():
        raise ValueError(
            f"reference in rows {area.y.start} to {area.y.stop}, columns "
            f"{area.x.start} to {area.x.stop}: no pair of {variable} has data there; "
            "it must hold data"
        )
    return means


def area_means(cube: xr.Dataset, name: str, area: ReferenceArea) -> np.ndarray:
    """Mean of a variable over the pixels of an area that hold data.

    Parameters
    ----------
    cube : xarray.Dataset
    name : str
        Of a variable with the dims (..., y, x).
    area : ReferenceArea

    Returns
    -------
    numpy.ndarray, float64, shape (...)
        In its units; NaN where no pixel holds data.
    """
    shape = cube[name].transpose(..., Y, X).shape[:-2]
    total, count = np.zeros(shape), np.zeros(shape)
    for window in windows(
        y=spans(area.y.stop, READ_SIZE, start=area.y.start),
        x=spans(area.x.stop, READ_SIZE, start=area.x.start),
    ):
        values = read_window(cube, name, window)
        valid = np.isfinite(values)
        if area.mask is not None:
            rows, columns = (
                slice(part.start - whole.start, part.stop - whole.start)
                for part, whole in ((window[Y], area.y), (window[X], area.x))
            )
            valid &= area.mask[rows, columns]
        total += np.where(valid, values, 0).sum((-2, -1), dtype="float64")
        count += valid.sum((-2, -1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def read_window(cube: xr.Dataset, name: str, window: Window) -> np.ndarray:
    """One variable of the cube in one window, dims (..., y, x)."""
    part = cube[name].isel({Y: window[Y], X: window[X]}).compute()
    return np.asarray(part.transpose(..., Y, X).values)


def phase_variable(cube: xr.Dataset, variable: str | None) -> str:
    """Return the phase variable to use, if the cube is one that can be inverted."""
    if variable is None:
        variable = next((name for name in PHASES if name in cube), PHASES[-1])
    if variable not in PHASES or variable not in cube:
        raise ValueError(
            f"{variable=} must be one of {', '.join(PHASES)} and be in the cube, which "
            f"has {', '.join(map(str, cube.data_vars))}"
        )
    if set(cube[variable].dims) != {PAIR, Y, X}:
        raise ValueError(
            f"{variable} has dims {cube[variable].dims}: they must be {PAIR, Y, X}"
        )
    if 0 in cube[variable].shape:
        raise ValueError(f"{variable} has shape {cube[variable].shape}: it has no data")
    for name in ("reference_time", "secondary_time"):
        if name not in cube.variables or cube[name].dims != (PAIR,):
            raise ValueError(f"the cube must have {name} along the dimension {PAIR!r}")
    return variable
