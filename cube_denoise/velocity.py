"""Velocity of a displacement series, and how far it is to be trusted."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from cube_denoise.conventions import TIME, VARIABLES
from cube_denoise.rate_error import (
    FEWEST,
    block_length,
    bootstrap_factor,
    inflation,
    rate_variance,
)
from cube_denoise.time_fit import SeriesFit, fit_series
from cube_denoise.time_models import Design, TimeModel, linear_design

UNCERTAINTIES = ("effective", "residual", "bootstrap")

STATEMENTS = {
    "effective": (
        "allows for errors correlated in time; on simulated series 68 % intervals held "
        "64 to 73 % of truths where the correlation time was up to a quarter of the "
        "span, 59 to 61 % beyond, 39 % under a cycle that the model lacks and the span "
        "does not complete; corrected series: benchmarks.coverage"
    ),
    "residual": (
        "takes the errors of the dates as independent; on simulated series with errors "
        "correlated over 30 days 68 % intervals held 32 to 40 % of truths"
    ),
    "bootstrap": (
        "block bootstrap over dates; on simulated series 68 % intervals held 56 to "
        "62 % of truths for independent errors, 40 to 50 % for errors correlated over "
        "30 days"
    ),
}
"""What a standard deviation says of itself, by `uncertainty`."""

COVERAGE = {
    "none": "71 to 73 %",
    "temporal-filter": "60 to 62 %, with an annual term 50 to 54 %",
    "common-scene": "72 to 74 %, with an annual term 55 to 59 %",
    "pca": "66 to 68 %",
    "stack": "87 to 94 %",
    "dncnn": "61 to 67 %, but 22 to 24 % inside sources, most of whose motion it takes",
}
"""Truths that 68 % intervals of an inversion held, by correction of the pairs."""


def coverage_statement(method: str) -> str:
    """How far the intervals of an inversion held, for its attributes.

    Of stacks at rest that were simulated, with `uncertainty` "effective"; printed by
    ``python -m benchmarks.coverage``. `method` is the correction of the pairs.
    """
    if method not in COVERAGE:
        return f"not known for pairs corrected by {method}: see benchmarks.coverage"
    return (
        f"on simulated stacks at rest 68 % intervals (effective) held "
        f"{COVERAGE[method]} of truths"
    )


class VelocityFit(NamedTuple):
    """What `fit_model` finds; float64."""

    velocity: np.ndarray
    """m/yr, sign of the displacement, shape (...); NaN where the dates that hold data
    do not determine the model."""
    velocity_std: np.ndarray
    """m/yr, shape (...); NaN also where the dates are no more than the parameters."""
    parameters: np.ndarray
    """Shape (parameters, ...), in the units of the design."""


def velocity(
    displacement: xr.DataArray,
    *,
    model: TimeModel | str = "linear",
    uncertainty: str = "effective",
) -> xr.Dataset:
    """Line-of-sight velocity, its standard deviation, and the other terms of a model.

    Each pixel is fitted over the dates at which it has data (`fit_model`).

    Parameters
    ----------
    displacement : xarray.DataArray, dims (time, ...)
        m, positive toward the satellite, NaN = no data; with a ``time`` coordinate that
        increases.
    model : TimeModel or str
        Terms of the series, as ``"linear+annual+step:2020-06-01"`` (`TimeModel.parse`).
    uncertainty : {"effective", "residual", "bootstrap"}
        How `velocity_std` is made; see `fit_model`.

    Returns
    -------
    xarray.Dataset, dims (...)
        ``velocity`` and ``velocity_std``, float32, m/yr, positive toward the satellite,
        and for a model of more than a straight line its parameters by name
        (`time_models.Design`); lazy if the input is. Both are relative to the reference
        area of the series, whose own motion they do not hold. The standard deviation
        knows nothing of the pairs: what decorrelation leaves in a series is like a
        random walk, of which residuals show little, and `invert` adds it.

    Raises
    ------
    ValueError
        If there is no ``time`` coordinate or it has fewer than two dates, an option is
        unknown, or the dates cannot determine the model.
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
    _check(uncertainty)
    model = TimeModel.parse(model) if isinstance(model, str) else model
    design = model.design(displacement[TIME].values)
    extra = () if len(design.names) == 2 else design.names
    names = ("velocity", "velocity_std", *extra)
    if displacement.chunks is not None:
        displacement = displacement.chunk({TIME: -1})
    fitted = xr.apply_ufunc(
        _fit_time_last,
        displacement,
        kwargs={"design": design, "uncertainty": uncertainty, "extra": bool(extra)},
        input_core_dims=[[TIME]],
        output_core_dims=[[]] * len(names),
        dask="parallelized",
        output_dtypes=["float32"] * len(names),
    )
    own = VARIABLES["displacement"].attributes
    told = {k: v for k, v in displacement.attrs.items() if k not in own}
    told["time_model"] = str(model)
    described = {n: VARIABLES[n].attributes for n in names[:2]}
    described["velocity_std"] |= {
        "uncertainty": uncertainty,
        "comment": STATEMENTS[uncertainty],
    }
    for name, unit in zip(design.names, design.units, strict=True):
        described[name] = {"long_name": name.replace("_", " "), "units": unit}
    return xr.Dataset(
        {
            name: array.assign_attrs(told | described[name])
            for name, array in zip(names, fitted, strict=True)
        }
    )


def fit_velocity(
    displacement: np.ndarray, years: np.ndarray, *, uncertainty: str = "effective"
) -> tuple[np.ndarray, np.ndarray]:
    r"""Least-squares line :math:`d = c + v t` through the finite dates of each pixel.

    Parameters
    ----------
    displacement : numpy.ndarray, shape (time, ...)
        m, NaN = no data.
    years : numpy.ndarray, shape (time,)
        Time in years, from any origin, increasing.
    uncertainty : {"effective", "residual", "bootstrap"}
        See `fit_model`.

    Returns
    -------
    velocity : numpy.ndarray, float64, shape (...)
        m/yr, sign of the displacement; NaN with fewer than 2 dates.
    velocity_std : numpy.ndarray, float64, shape (...)
        m/yr; NaN with fewer than 3 dates.

    Raises
    ------
    ValueError
        If `years` do not increase or are not as many as the dates.

    Examples
    --------
    >>> rate, _ = fit_velocity(np.array([0.0, np.nan, 0.02]), np.array([0.0, 0.5, 1.0]))
    >>> round(float(rate), 9)
    0.02
    """
    displacement, years = np.asarray(displacement), np.asarray(years, "float64")
    if years.shape != displacement.shape[:1]:
        raise ValueError(
            f"{years.shape=} must be the length of the first axis of displacement, "
            f"{displacement.shape}"
        )
    if not (np.diff(years) > 0).all():
        raise ValueError("years must increase from date to date")
    if years.size < 2:
        return (np.full(displacement.shape[1:], np.nan),) * 2
    fit = fit_model(displacement, linear_design(years), uncertainty=uncertainty)
    return fit.velocity, fit.velocity_std


def fit_model(
    displacement: np.ndarray,
    design: Design,
    *,
    uncertainty: str = "effective",
    weights: np.ndarray | None = None,
    propagated: np.ndarray | None = None,
    expected: np.ndarray | None = None,
) -> VelocityFit:
    r"""Least-squares fit of a time model to each pixel, and the error of its rate.

    .. math:: \sigma_v^2 = f \, \max\left(0, \frac{\sum e^2 - tr(P C)}{N - p}\right)
        g^T g + g^T C g

    with the residuals e of the N dates that hold data, p parameters, and the row g
    whose product with the series is the rate. C is the covariance of errors of which
    more is known: what decorrelation leaves in the series, propagated through the
    network, and what a correction states of its own (`correction_errors`). Who knows
    them gives the two products, otherwise C is left out. The factor f is

    ``"residual"``
        1: errors are independent from date to date (Fattahi and Amelung 2015, equation
        10, where C is left out as well).
    ``"effective"``
        From the autocorrelation of the residuals from date to date
        (`rate_error.Inflation`).
    ``"bootstrap"``
        From resampling residuals in blocks of consecutive dates (Kuensch 1989, circular
        as in Politis and Romano 1992; `rate_error.bootstrap_factor`).

    It includes the errors of the reference area as far as they show in the series,
    which is relative to it; the choice of the reference date has no part in a rate. It
    does not include motion of the reference area, unwrapping errors that do not show as
    residuals, errors that look like the model (a seasonal delay in less than a year, or
    without an annual term) and what a correction took off with the atmosphere, unless
    it states how much that may be.

    Parameters
    ----------
    displacement : numpy.ndarray, shape (dates, ...)
        m, positive toward the satellite, NaN = no data.
    design : time_models.Design
        Of these dates.
    uncertainty : {"effective", "residual", "bootstrap"}
        As above.
    weights : numpy.ndarray, shape (dates,) or (dates, ...), optional
        Inverse variances of the dates up to a factor; 0 or NaN = not used. Squares and
        products above are then weighted.
    propagated : numpy.ndarray, shape (...), optional
        :math:`g^T C g`, (m/yr)^2.
    expected : numpy.ndarray, shape (...), optional
        :math:`tr(P C)`, m^2, with `propagated`.

    Returns
    -------
    VelocityFit

    Raises
    ------
    ValueError
        If shapes do not match, a weight is negative, or an option is unknown.
    """
    _check(uncertainty)
    displacement = np.asarray(displacement)
    dates, shape = displacement.shape[0], displacement.shape[1:]
    if weights is not None and np.ndim(weights) > 1:
        weights = np.reshape(weights, (np.shape(weights)[0], -1))
    fit = fit_series(
        displacement.reshape(dates, -1),
        design,
        weights=weights,
        block_length=block_length(dates) if uncertainty == "bootstrap" else 0,
    )
    std = rate_std(
        fit,
        design,
        uncertainty=uncertainty,
        propagated=None if propagated is None else np.ravel(propagated),
        expected=None if expected is None else np.ravel(expected),
    )
    size = len(design.names)
    return VelocityFit(
        fit.rate.reshape(shape),
        std.reshape(shape),
        fit.parameters.reshape(size, *shape),
    )


def rate_std(
    fit: SeriesFit,
    design: Design,
    *,
    uncertainty: str = "effective",
    propagated: np.ndarray | None = None,
    expected: np.ndarray | None = None,
) -> np.ndarray:
    """Standard deviation of the rate of a fit, m/yr, shape (pixels,).

    The second half of `fit_model`, whose options these are.
    """
    size, factor = len(design.names), np.ones(())
    if uncertainty == "bootstrap":
        factor = bootstrap_factor(fit)
    elif uncertainty == "effective" and design.matrix.shape[0] >= size + FEWEST:
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = inflation(design)(fit.lagged / fit.square, fit.used)
    variance = rate_variance(
        fit, size, factor=factor, propagated=propagated, expected=expected
    )
    return np.sqrt(variance)


def _check(uncertainty: str) -> None:
    if uncertainty not in UNCERTAINTIES:
        raise ValueError(f"{uncertainty=} must be one of {', '.join(UNCERTAINTIES)}")


def _fit_time_last(
    displacement: np.ndarray, design: Design, uncertainty: str, extra: bool
) -> tuple[np.ndarray, ...]:
    """`fit_model` with the dates on the last axis, float32 results."""
    fit = fit_model(np.moveaxis(displacement, -1, 0), design, uncertainty=uncertainty)
    found = (fit.velocity, fit.velocity_std, *(fit.parameters if extra else ()))
    return tuple(a.astype("float32") for a in found)
