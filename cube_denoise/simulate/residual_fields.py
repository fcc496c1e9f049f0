"""What a stack holds on each date beside steady motion: its noise, date by date."""

import warnings

import numpy as np
import xarray as xr

from cube_denoise.blocks import spans
from cube_denoise.conventions import PAIR, X, Y, phase_to_displacement, years_since
from cube_denoise.network import Network, connected_subsets, pair_indices

PIXELS = 1 << 14
"""Pixels solved at once."""

LEAST_FREEDOM = 0.1
"""Dates of which the fit leaves less than this part of the variance are not used."""


def residual_fields(
    cube: xr.Dataset, *, seasonal: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    r"""Solve the pairs for dates and take steady motion out of every pixel.

    The pairs, less their medians, are solved for dates by least squares
    (`network.Network.solve`), and :math:`c + v t` (with `seasonal` also an annual sine
    and cosine) is fitted to each pixel and taken out. The intercept takes the noise of
    the reference date with it. A fit leaves the part :math:`1 - h_k` of the variance of
    date k, with :math:`h_k` its leverage: residuals are divided by the square root of
    that, so that their variance is that of the dates. Last, the mean of each date goes.

    What moves unsteadily stays in, and is taken for noise by whoever uses these fields.

    Parameters
    ----------
    cube : xarray.Dataset
        ``unwrapped_phase`` (pair, y, x), rad, positive away, NaN = no data; coordinates
        ``reference_time`` and ``secondary_time``; attribute ``wavelength``, m.
    seasonal : bool
        Take an annual cycle out as well.

    Returns
    -------
    fields : numpy.ndarray, float32, shape (dates, rows, columns)
        m, positive toward the satellite, NaN = no data.
    times : numpy.ndarray of datetime64[s], shape (dates,)

    Raises
    ------
    ValueError
        If fewer dates are linked by pairs than the fit needs, or `seasonal` is asked of
        less than a year.

    Warns
    -----
    UserWarning
        If the network is not connected: its largest part is used.
    """
    cube = cube.transpose(PAIR, Y, X, ...)
    early, late = cube["reference_time"].values, cube["secondary_time"].values
    subsets = connected_subsets(early, late)
    if len(subsets) > 1:
        warnings.warn(
            f"the pairs fall apart into {len(subsets)} networks: the "
            f"{subsets[0].size} dates of the largest are used",
            stacklevel=3,
        )
        used = np.flatnonzero(np.isin(early.astype("datetime64[s]"), subsets[0]))
        cube = cube.isel({PAIR: used})
        early, late = early[used], late[used]
    first, second, times = pair_indices(early, late)
    years = years_since(times, times[0])
    design = [np.ones_like(years), years]
    if seasonal:
        if years[-1] < 1:
            raise ValueError(
                f"{seasonal=} needs a year of dates or more; there are "
                f"{365.25 * years[-1]:.0f} days"
            )
        design += [np.cos(2 * np.pi * years), np.sin(2 * np.pi * years)]
    G = np.stack(design, 1)
    if times.size < G.shape[1] + 2:
        raise ValueError(
            f"the pairs link {times.size} dates: residuals of a fit with {G.shape[1]} "
            f"parameters need {G.shape[1] + 2} or more"
        )
    phase = cube["unwrapped_phase"]
    constants = np.array(
        [_median(phase.isel({PAIR: k}).values) for k in range(first.size)]
    )
    network = Network(first, second, times.size, origin=0)
    rows, columns = cube.sizes[Y], cube.sizes[X]
    fields = np.empty((times.size, rows, columns), "float32")
    for strip in spans(rows, max(1, PIXELS // columns)):
        values = phase.isel({Y: strip}).values.reshape(first.size, -1)
        dates = _dates(network, values - constants[:, None])
        moved = phase_to_displacement(dates, float(cube.attrs["wavelength"]))
        residual = _residual(moved, G).reshape(times.size, -1, columns)
        fields[:, strip] = residual
    for field in fields:
        there = np.isfinite(field)
        if there.any():
            field -= field[there].mean(dtype="float64")
    return fields, times


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0


def _dates(network: Network, phase: np.ndarray) -> np.ndarray:
    """Phase of the dates, rad, shape (dates, pixels); NaN = not linked."""
    from cube_denoise.inversion.solver import solve

    return solve(np.ascontiguousarray(phase, "float32"), network.plan).phase


def _residual(series: np.ndarray, G: np.ndarray) -> np.ndarray:
    """Studentised residuals of the fit ``G @ m`` to the finite dates of each pixel."""
    there = np.isfinite(series)
    enough = there.sum(0) >= G.shape[1] + 2
    used = (there & enough).astype("float64")
    filled = np.where(used > 0, series, 0.0)
    normal = np.einsum("kp,ki,kj->pij", used, G, G)
    normal[~enough] = np.eye(G.shape[1])
    inverse = np.linalg.inv(normal)
    m = np.einsum("pij,kj,kp->pi", inverse, G, filled)
    freedom = 1 - np.einsum("ki,pij,kj->kp", G, inverse, G)
    known = (used > 0) & (freedom > LEAST_FREEDOM)
    residual = (filled - G @ m.T) / np.sqrt(np.where(known, freedom, 1.0))
    return np.where(known, residual, np.nan)
