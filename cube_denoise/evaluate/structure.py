"""How much a field varies over a distance: structure functions of maps and pairs."""

from collections.abc import Sequence

import numpy as np
import scipy.fft
import xarray as xr

from cube_denoise.conventions import PAIR, X, Y, phase_to_displacement
from cube_denoise.grid import pixel_spacing
from cube_denoise.reference import phase_variable

DISTANCES_KM = (1.0, 5.0, 10.0, 20.0, 50.0)
"""Distances at which structure functions are given by default, km."""

WIDTH = 0.1
"""Lags within this fraction of a distance count for it (and within half a pixel)."""

MIN_OVERLAP = 0.25
"""A distance is too large for a scene of which less than this overlaps itself."""


def structure_function(
    field: np.ndarray,
    *,
    spacing: float | tuple[float, float],
    distances_km: Sequence[float] = DISTANCES_KM,
) -> np.ndarray:
    r"""Root of the isotropic structure function of a map with gaps.

    .. math:: D(r) = \langle (e(x + h) - e(x))^2 \rangle, \qquad |h| \approx r

    over all pairs of valid pixels whose distance is within 10 % of r or half a pixel,
    whichever is wider. Exact, by fast Fourier transforms of field and mask. For a
    stationary field of variance s^2 and correlation rho, D = 2 s^2 (1 - rho).

    A constant added to the field does not matter. Deformation counts like atmosphere:
    take residuals or quiet areas to speak of the latter. The figure is won by
    outputting zero: never rank corrections by it alone.

    Parameters
    ----------
    field : numpy.ndarray, shape (rows, columns)
        Any unit, NaN = no data.
    spacing : float or (float, float)
        Pixel spacing, m; of rows and of columns if they differ.
    distances_km : sequence of float
        Distances r, km, positive.

    Returns
    -------
    numpy.ndarray, float64, shape (distances,)
        sqrt(D), unit of `field`. NaN where the scene is too small (shifted by r it
        covers less than a quarter of itself, averaged over directions; the scene being
        the smallest rectangle that holds the valid pixels), where r is less than half a
        pixel, or where no two valid pixels are that far apart.

    Raises
    ------
    ValueError
        If `field` has not two dimensions, or a spacing or distance is not positive.
    """
    square, count = _sums(field, _spacings(spacing), _checked(distances_km))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(square / count)


def pair_structure(
    cube: xr.Dataset,
    variable: str | None = None,
    *,
    distances_km: Sequence[float] = DISTANCES_KM,
) -> xr.DataArray:
    """Root of the structure function of the pairs of a cube, averaged over pairs.

    D is averaged over pairs with equal weight, then its root taken. One pair is held in
    memory at a time. See `structure_function` for what the figure cannot tell.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        Phase, rad, with the attribute ``wavelength`` (m) and a georeferenced regular
        grid; that of a geographic grid is measured at its centre.
    variable : {"corrected_phase", "unwrapped_phase"}, optional
        None = the first of them that the cube has.
    distances_km : sequence of float
        km.

    Returns
    -------
    xarray.DataArray, dims (distance,)
        mm of displacement along the line of sight; coordinate ``distance``, km. NaN
        where `structure_function` is so for every pair.

    Raises
    ------
    ValueError
        If the cube is not as above.
    """
    variable = phase_variable(cube, variable)
    distances = _checked(distances_km)
    spacing = pixel_spacing(cube)
    scale = 1e3 * phase_to_displacement(1.0, checked_wavelength(cube))
    total, pairs = np.zeros(distances.size), np.zeros(distances.size)
    for k in range(cube.sizes[PAIR]):
        phase = cube[variable].isel({PAIR: k}).transpose(Y, X).values
        square, count = _sums(phase.astype("float64") * scale, spacing, distances)
        known = count > 0
        total[known] += square[known] / count[known]
        pairs += known
    root = np.sqrt(
        np.divide(total, pairs, out=np.full_like(total, np.nan), where=pairs > 0)
    )
    return xr.DataArray(
        root,
        dims=("distance",),
        coords={"distance": ("distance", distances, {"units": "km"})},
        name="structure",
        attrs={"units": "mm", "long_name": "root of the structure function"},
    )


def checked_wavelength(cube: xr.Dataset) -> float:
    """Wavelength of a cube, m; ValueError if it has none."""
    wavelength = cube.attrs.get("wavelength")
    if wavelength is None or not wavelength > 0:
        raise ValueError(
            f"{wavelength=}: cube.attrs must give the wavelength in metres"
        )
    return float(wavelength)


def _sums(
    field: np.ndarray, spacing: tuple[float, float], distances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of squared differences and their count, shapes (distances,); 0 if unusable.

    With the mask m the sum over pixels of m(x) m(x+h) (e(x+h) - e(x))^2 is
    corr(m, m e^2) + corr(m e^2, m) - 2 corr(m e, m e) at the lag h.
    """
    field = np.asarray(field, "float64")
    if field.ndim != 2:
        raise ValueError(
            f"field has shape {field.shape}: it must have rows and columns"
        )
    zero = np.zeros(distances.size)
    valid = np.isfinite(field)
    if not valid.any():
        return zero, zero.copy()
    rows, columns = (np.flatnonzero(valid.any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mask = valid[box].astype("float64")
    # Rounding is relative to the size of the field: take the constant off first.
    e = np.where(valid[box], field[box] - field[valid].mean(), 0.0)
    height, width = mask.shape
    padded = tuple(scipy.fft.next_fast_len(2 * n - 1, real=True) for n in mask.shape)
    m, e1, e2 = (scipy.fft.rfft2(a, padded) for a in (mask, e, e**2))
    cross = m.conj() * e2
    square = scipy.fft.irfft2(cross + cross.conj() - 2 * np.abs(e1) ** 2, padded)
    count = scipy.fft.irfft2(np.abs(m) ** 2, padded)

    y = np.fft.fftfreq(padded[0], 1 / padded[0])[:, None]
    x = np.fft.fftfreq(padded[1], 1 / padded[1])[None]
    lag = np.hypot(y * spacing[0], x * spacing[1])
    fits = (np.abs(y) < height) & (np.abs(x) < width)
    overlap = np.where(fits, (1 - np.abs(y) / height) * (1 - np.abs(x) / width), 0.0)
    found, number = zero, zero.copy()
    for k, r in enumerate(1e3 * distances):
        half = max(WIDTH * r, max(spacing) / 2)
        ring = (np.abs(lag - r) <= half) & (lag > 0)
        used = ring & fits
        # Lags outside the scene do not all exist in the padded plane: count them by
        # the area of the ring.
        area = np.pi * ((r + half) ** 2 - max(r - half, 0.0) ** 2)
        everywhere = max(area / (spacing[0] * spacing[1]), ring.sum())
        if not used.any() or overlap[used].sum() < MIN_OVERLAP * everywhere:
            continue
        pixels = np.rint(count[used]).sum()
        if pixels > 0:
            found[k], number[k] = max(square[used].sum(), 0.0), pixels
    return found, number


def _spacings(spacing: float | tuple[float, float]) -> tuple[float, float]:
    both = np.broadcast_to(np.asarray(spacing, "float64"), 2)
    if not (both > 0).all():
        raise ValueError(f"{spacing=} must be positive, m")
    return float(both[0]), float(both[1])


def _checked(distances_km: Sequence[float]) -> np.ndarray:
    distances = np.atleast_1d(np.asarray(distances_km, "float64"))
    if distances.ndim != 1 or not (distances > 0).all():
        raise ValueError(f"{distances_km=} must be positive, km")
    return distances
