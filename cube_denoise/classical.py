"""Corrections without a network: baselines to beat."""

import numpy as np
import xarray as xr

from cube_denoise.conventions import PAIR, VARIABLES, X, Y


def phase_elevation_regression(cube: xr.Dataset, *, degree: int = 1) -> xr.Dataset:
    r"""Remove from every pair what a polynomial in elevation explains of it.

    One least-squares fit per pair over all its valid pixels,

    .. math:: \varphi = c + \sum_{k=1}^{n} a_k (h - h_0)^k,

    of which the sum is subtracted and the constant c kept; :math:`h_0` is the median
    elevation of the scene, the same for all pairs, so that pairs with the same valid
    pixels that close still close.

    Whatever correlates with elevation goes: the stratified troposphere, but also
    deformation that happens to (the inflation of a volcano under its summit, a
    subsiding valley floor) and part of any turbulence or ramp that does. Delay that
    changes with elevation differently across the scene stays.

    Parameters
    ----------
    cube : xarray.Dataset
        ``unwrapped_phase`` (pair, y, x), rad, positive away from the satellite, and
        ``elevation`` (y, x), m; NaN = no data in both.
    degree : int
        Degree n of the polynomial, 1 to 3.

    Returns
    -------
    xarray.Dataset
        ``corrected_phase`` (pair, y, x), rad, float32; NaN where the phase or the
        elevation is. Lazy if the cube holds Dask arrays; else whole, in memory.

    Raises
    ------
    ValueError
        If a variable is missing or `degree` is out of range.
    """
    for name in ("unwrapped_phase", "elevation"):
        if name not in cube:
            raise ValueError(
                f"cube has the variables {sorted(map(str, cube.data_vars))} and must "
                f"have {name!r}"
            )
    _check_degree(degree)
    corrected = xr.apply_ufunc(
        _remove_trend,
        cube["unwrapped_phase"],
        cube["elevation"],
        kwargs={"degree": degree},
        input_core_dims=[[Y, X], [Y, X]],
        output_core_dims=[[Y, X]],
        vectorize=True,
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=["float32"],
        keep_attrs=False,
    )
    attributes = VARIABLES["corrected_phase"].attributes | {
        "model": f"phase-elevation regression, degree {degree}"
    }
    return (
        corrected.transpose(PAIR, Y, X)
        .assign_attrs(attributes)
        .to_dataset(name="corrected_phase")
    )


def elevation_trend(
    values: np.ndarray, elevation: np.ndarray, *, degree: int = 1
) -> np.ndarray:
    """Part of a map that a polynomial in elevation explains, without its constant.

    Parameters
    ----------
    values : numpy.ndarray, shape (rows, columns)
        Phase or displacement, any unit, NaN = no data.
    elevation : numpy.ndarray, shape (rows, columns)
        m, NaN = no data.
    degree : int
        Degree of the polynomial, 1 to 3.

    Returns
    -------
    numpy.ndarray, float64, shape (rows, columns)
        Unit of `values`; zero at the median elevation of the scene, and everywhere if
        the terrain is flat or no pixel is valid; NaN where the elevation is.

    Raises
    ------
    ValueError
        If `degree` is out of range or the shapes differ.
    """
    _check_degree(degree)
    if values.shape != elevation.shape:
        raise ValueError(
            f"values has shape {values.shape} and elevation {elevation.shape}: they "
            "must be on the same grid"
        )
    known = np.isfinite(elevation)
    valid = known & np.isfinite(values)
    if not valid.any():
        return np.where(known, 0.0, np.nan)
    height = elevation - np.median(elevation[known].astype("float64"))
    # Of order one, so that the powers are comparable.
    height /= max(float(np.abs(height[known]).max()), 1e-9)
    A = np.stack([height[valid] ** k for k in range(degree + 1)])
    # Minimum norm: flat terrain, or fewer pixels than terms, is no error.
    coefficients = np.linalg.lstsq(A @ A.T, A @ values[valid].astype("float64"))[0]
    return np.asarray(
        sum(a * height ** (k + 1) for k, a in enumerate(coefficients[1:]))
    )


def _remove_trend(
    values: np.ndarray, elevation: np.ndarray, *, degree: int
) -> np.ndarray:
    trend = elevation_trend(values, elevation, degree=degree)
    return (values - trend).astype("float32")


def _check_degree(degree: int) -> None:
    if degree not in (1, 2, 3):
        raise ValueError(f"{degree=} must be 1, 2 or 3")
