"""Small-baseline inversion: pairs -> displacement series, velocity and quality."""

import warnings
from collections.abc import Mapping
from functools import partial

import numpy as np
import xarray as xr

from cube_denoise.blocks import BlockJob, Window, lazy, spans, windows
from cube_denoise.conventions import (
    TIME,
    VARIABLES,
    X,
    Y,
    phase_to_displacement,
    years_since,
)
from cube_denoise.network import Network, connected_subsets, pair_indices
from cube_denoise.reference import (
    ReferenceArea,
    checked_area,
    choose_reference,
    phase_variable,
    read_window,
    reference_phase,
)
from cube_denoise.velocity import fit_velocity

MAPS = (
    *("velocity", "velocity_std", "temporal_coherence", "residual_rms"),
    *("pair_count", "gap_count"),
)
WEIGHTS = ("none", "coherence", "variance")

COHERENCE_LIMITS = (0.05, 0.99)
"""Coherence is clipped to this range before it becomes a weight."""

MEMORY = 1 << 26
"""Temporary memory of an inversion, bytes, beside inputs and outputs of the window."""


def invert(
    cube: xr.Dataset,
    *,
    weights: str = "coherence",
    reference: Mapping[str, slice] | ReferenceArea | None = None,
    variable: str | None = None,
    block: int = 256,
) -> xr.Dataset:
    r"""Invert a network of pairs for displacement and velocity, lazily.

    Each pixel by itself minimises (Berardino et al. 2002, with weights)

    .. math:: \sum_m w_m (x_{j_m} - x_{i_m} - \varphi_m)^2, \qquad x_0 = 0

    over the phases x of the dates, for the pairs m = (i, j) that have data there; then
    ``displacement = -wavelength / (4 pi) * x``. Before that the mean over the reference
    area is taken off each pair. The time series has no smoothness or velocity
    constraint: a date that a pixel's pairs do not link to the reference date is NaN.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        Phase (rad, positive away from the satellite, later minus earlier date), with
        ``reference_time`` and ``secondary_time`` on ``pair``, the attribute
        ``wavelength`` (m) and, for weights, ``coherence``. NaN = no data.
    weights : {"coherence", "variance", "none"}
        w = coherence; w = coherence^2 / (1 - coherence^2), the inverse of the
        Cramer-Rao bound of the phase variance up to a factor; or w = 1. Coherence is
        clipped to 0.05..0.99 first; where the phase has data and the coherence has
        none, it counts as 0.05.
    reference : ReferenceArea or mapping with slices "y" and "x", optional
        Reference area, pixel indices; None = `choose_reference`, which reads the cube
        once.
    variable : {"corrected_phase", "unwrapped_phase"}, optional
        What to invert; None = the first of them that the cube has.
    block : int
        Windows are cut at multiples of this many pixels; no effect on the numbers.

    Returns
    -------
    xarray.Dataset
        Dask arrays. ``displacement`` (time, y, x), m, positive toward the satellite, 0
        at the reference date: the first date of the largest connected subset, named in
        the attribute ``reference_time``. On (y, x): ``velocity`` and ``velocity_std``
        (m/yr, see `velocity.fit_velocity` for what the latter leaves out),
        ``temporal_coherence`` |mean exp(j r)| and ``residual_rms`` (rad, unweighted) of
        the residuals r of the pairs used, ``pair_count`` (pairs used) and ``gap_count``
        (dates not linked to the reference date; -1 where no pair has data).

    Raises
    ------
    ValueError
        If options or cube are not as above.

    Warns
    -----
    UserWarning
        If the network is not connected, or a pair has no data in the reference area
        and is left out.
    """
    job = _plan(cube, weights, reference, variable, block)
    return lazy(job, cube)


def plan_inversion(
    cube: xr.Dataset,
    *,
    weights: str = "coherence",
    reference: Mapping[str, slice] | ReferenceArea | None = None,
    variable: str | None = None,
    block: int = 256,
) -> BlockJob:
    """`invert` as a plan of independent windows over (y, x); same options and errors.

    Reads the reference area now (the whole cube if it is to be chosen), the rest when
    the windows are computed.
    """
    return _plan(cube, weights, reference, variable, block)


def _plan(
    cube: xr.Dataset,
    weights: str,
    reference: Mapping[str, slice] | ReferenceArea | None,
    variable: str | None,
    block: int,
) -> BlockJob:
    """`plan_inversion`; warnings name the caller of the function that called this."""
    variable = check_inversion(cube, weights, variable)
    early, late = cube["reference_time"].values, cube["secondary_time"].values
    first, second, times = pair_indices(early, late)

    if reference is None:
        reference = choose_reference(cube, variable=variable)
    area = checked_area(reference, cube)
    constants = reference_phase(cube, variable, area)
    used = np.isfinite(constants)
    if not used.all():
        names = [f"{times[first[k]]}/{times[second[k]]}" for k in np.flatnonzero(~used)]
        warnings.warn(
            f"{len(names)} pair(s) without data in the reference area are left out: "
            + ", ".join(names),
            stacklevel=3,
        )
    subsets = connected_subsets(early[used], late[used])
    missing = np.setdiff1d(times, subsets[0])
    if missing.size:
        warnings.warn(
            f"the network is not connected: {missing.size} of {times.size} dates have "
            f"no chain of pairs to the reference date {subsets[0][0]} and get no "
            f"displacement: {', '.join(map(str, missing))}",
            stacklevel=3,
        )
    origin = int(np.searchsorted(times, subsets[0][0]))
    attributes = {
        "phase_variable": variable,
        "weights": weights,
        "reference_rows": [area.y.start, area.y.stop],
        "reference_columns": [area.x.start, area.x.stop],
        "reference_time": str(times[origin]),
    }
    return BlockJob(
        outputs=("displacement", *MAPS),
        compute=partial(
            _invert_window,
            variable=variable,
            weights=weights,
            constants=constants,
            network=Network(first, second, times.size, origin),
            years=years_since(times, times[0]),
            wavelength=float(cube.attrs["wavelength"]),
        ),
        windows=windows(**inversion_cuts(cube, block)),
        sizes={TIME: times.size, Y: cube.sizes[Y], X: cube.sizes[X]},
        coords={TIME: times},
        attributes=dict.fromkeys(("displacement", *MAPS), attributes),
    )


def check_inversion(cube: xr.Dataset, weights: str, variable: str | None) -> str:
    """Name of the variable to invert; errors as for `invert` but of the data."""
    variable = phase_variable(cube, variable)
    if weights not in WEIGHTS:
        raise ValueError(f"{weights=} must be one of {', '.join(WEIGHTS)}")
    if weights != "none" and "coherence" not in cube:
        raise ValueError(f"{weights=} needs the variable coherence: add it or use none")
    wavelength = cube.attrs.get("wavelength")
    if wavelength is None or not wavelength > 0:
        raise ValueError(
            f"{wavelength=}: cube.attrs must give the wavelength in metres"
        )
    return variable


def inversion_cuts(cube: xr.Dataset, block: int) -> dict[str, list[slice]]:
    """Cuts along y and x whose combinations are the windows of `plan_inversion`."""
    return {d: spans(cube.sizes[d], block) for d in (Y, X)}


def temporary_memory(network: Network, pairs: int, pixels: int) -> int:
    """Bytes that inverting `pixels` takes beside inputs and outputs of the window."""
    return min(pixels, _at_once(network, pairs)) * _per_pixel(network, pairs)


def _per_pixel(network: Network, pairs: int) -> int:
    return 8 * (6 * pairs + (network.elimination_order()[1] + 6) * network.size)


def _at_once(network: Network, pairs: int) -> int:
    """Pixels that `MEMORY` holds."""
    return max(1, MEMORY // _per_pixel(network, pairs))


def _invert_window(
    cube: xr.Dataset,
    window: Window,
    *,
    variable: str,
    weights: str,
    constants: np.ndarray,
    network: Network,
    years: np.ndarray,
    wavelength: float,
) -> dict[str, np.ndarray]:
    """Compute the outputs of one window, as many pixels at a time as `MEMORY` holds."""
    phase = read_window(cube, variable, window)
    pairs, rows, columns = phase.shape
    pixels = rows * columns
    phase = phase.reshape(pairs, pixels)
    coherence = None
    if weights != "none":
        coherence = read_window(cube, "coherence", window).reshape(pairs, pixels)
    found = {name: np.empty(pixels, VARIABLES[name].dtype) for name in MAPS}
    found["displacement"] = np.empty((years.size, pixels), "float32")
    for part in spans(pixels, _at_once(network, pairs)):
        values = phase[:, part] - constants[:, None]
        valid = np.isfinite(values)
        values[~valid] = 0
        weight = valid.astype("float64")
        if coherence is not None:
            weight *= _weight(weights, coherence[:, part])
        linked = network.linked(valid) & valid.any(0)
        dates = network.solve(values, weight, linked)
        displacement = phase_to_displacement(dates, wavelength)
        used = valid & linked[network.first]
        gaps = (~linked).sum(0)
        maps = (
            *fit_velocity(displacement, years),
            *_fit_quality(values - network.pair_phase(dates), used),
            used.sum(0),
            np.where(gaps == years.size, -1, gaps),
        )
        found["displacement"][:, part] = displacement
        for name, array in zip(MAPS, maps, strict=True):
            found[name][part] = array
    return {
        name: array.reshape(*array.shape[:-1], rows, columns)
        for name, array in found.items()
    }


def _weight(weights: str, coherence: np.ndarray) -> np.ndarray:
    """Weight of every pair and pixel, float64, from its coherence."""
    low, high = COHERENCE_LIMITS
    # fmax takes the number where the other is NaN.
    clipped = np.fmin(np.fmax(coherence.astype("float64"), low), high)
    if weights == "coherence":
        return clipped
    return clipped**2 / (1 - clipped**2)


def _fit_quality(
    residual: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Temporal coherence and RMS (rad) of the residuals used, shape (pairs, pixels)."""
    count = np.where(used.any(0), used.sum(0), np.nan)
    residual = np.where(used, residual, 0)
    cosine, sine, square = (np.zeros(residual.shape[1]) for _ in range(3))
    for values, there in zip(residual, used, strict=True):
        wrapped = (values - 2 * np.pi * np.rint(values / (2 * np.pi))).astype("float32")
        cosine += np.cos(wrapped) * there
        sine += np.sin(wrapped)
        square += values**2
    return np.hypot(cosine, sine) / count, np.sqrt(square / count)
