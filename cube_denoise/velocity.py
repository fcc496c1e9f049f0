"""Velocity of a displacement series: a straight line through time."""

import numpy as np
import xarray as xr

from cube_denoise.conventions import TIME, VARIABLES, years_since


def velocity(displacement: xr.DataArray) -> xr.Dataset:
    """Line-of-sight velocity and its formal standard deviation.

    Each pixel is fitted over the dates at which it has data (`fit_velocity`).

    Parameters
    ----------
    displacement : xarray.DataArray, dims (time, ...)
        m, positive toward the satellite, NaN = no data; with a ``time`` coordinate. A
        Dask array must have its dates in one chunk.

    Returns
    -------
    xarray.Dataset, dims (...)
        ``velocity`` and ``velocity_std``, float32, m/yr, positive toward the satellite;
        lazy if the input is. What the standard deviation leaves out is stated in
        `fit_velocity`.

    Raises
    ------
    ValueError
        If there is no ``time`` coordinate or it has fewer than two dates.
    """
    if TIME not in displacement.dims or TIME not in displacement.coords:
        raise ValueError(
            f"displacement has dims {displacement.dims} and coordinates "
            f"{list(displacement.coords)}: it needs both of {TIME!r}"
        )
    if displacement.sizes[TIME] < 2:
        raise ValueError(
            f"displacement has {displacement.sizes[TIME]} date(s): a velocity needs two"
        )
    times = displacement[TIME].values
    names = ("velocity", "velocity_std")
    fitted = xr.apply_ufunc(
        _fit_time_last,
        displacement,
        kwargs={"years": years_since(times, times.min())},
        input_core_dims=[[TIME]],
        output_core_dims=[[], []],
        dask="parallelized",
        output_dtypes=["float32", "float32"],
    )
    own = VARIABLES["displacement"].attributes
    origin = {k: v for k, v in displacement.attrs.items() if k not in own}
    return xr.Dataset(
        {
            name: array.assign_attrs(origin | VARIABLES[name].attributes)
            for name, array in zip(names, fitted, strict=True)
        }
    )


def fit_velocity(
    displacement: np.ndarray, years: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Least-squares line :math:`d = c + v t` through the finite dates of each pixel.

    .. math:: \sigma_v^2 = \frac{\sum_i e_i^2}{(N - 2) \sum_i (t_i - \bar t)^2}

    with residuals :math:`e_i` of the N dates that hold data (Fattahi and Amelung 2015,
    equation 10). This formula takes the errors of the dates as independent, equal and
    free of bias. It does not include errors correlated in time (what decorrelation
    leaves in neighbouring dates through the network, seasonal delay, unwrapping errors)
    nor errors of the reference area, and it counts seasonal motion as noise: with such
    errors it is usually too small.

    Parameters
    ----------
    displacement : numpy.ndarray, shape (time, ...)
        m, NaN = no data.
    years : numpy.ndarray, shape (time,)
        Time in years, from any origin.

    Returns
    -------
    velocity : numpy.ndarray, float64, shape (...)
        m/yr, sign of the displacement; NaN with fewer than 2 dates.
    velocity_std : numpy.ndarray, float64, shape (...)
        m/yr; NaN with fewer than 3 dates.

    Examples
    --------
    >>> rate, _ = fit_velocity(np.array([0.0, np.nan, 0.02]), np.array([0.0, 0.5, 1.0]))
    >>> float(rate)
    0.02
    """
    displacement, years = np.asarray(displacement), np.asarray(years, "float64")
    if years.shape != displacement.shape[:1]:
        raise ValueError(
            f"{years.shape=} must be the length of the first axis of displacement, "
            f"{displacement.shape}"
        )
    # Sums run date by date: a pixel's result does not depend on its neighbours.
    shape = displacement.shape[1:]
    count, sum_t, sum_d = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for d, t in zip(displacement, years, strict=True):
        there = np.isfinite(d)
        count += there
        sum_t += t * there
        sum_d += np.where(there, d, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_t, mean_d = sum_t / count, sum_d / count
        spread, product = np.zeros(shape), np.zeros(shape)
        for d, t in zip(displacement, years, strict=True):
            there = np.isfinite(d)
            from_mean = np.where(there, t - mean_t, 0.0)
            spread += from_mean**2
            product += from_mean * np.where(there, d, 0.0)
        rate = product / np.where(count >= 2, spread, np.nan)
        misfit = np.zeros(shape)
        for d, t in zip(displacement, years, strict=True):
            error = d - mean_d - rate * (t - mean_t)
            misfit += np.where(np.isfinite(d), error**2, 0.0)
        std = np.sqrt(misfit / (np.where(count >= 3, count - 2, np.nan) * spread))
    return rate, std


def _fit_time_last(
    displacement: np.ndarray, years: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`fit_velocity` with the dates on the last axis, float32 results."""
    rate, std = fit_velocity(np.moveaxis(displacement, -1, 0), years)
    return rate.astype("float32"), std.astype("float32")
