"""Surface displacement in closed form: a locked fault, bowls and landslides.

Coordinates, units and signs as in `cube_denoise.simulate.deformation`.
"""

import numpy as np

from cube_denoise.simulate.deformation import Displacement, sin_cos_degrees


def interseismic(
    east: np.ndarray,
    north: np.ndarray,
    *,
    slip: float,
    locking_depth: float,
    strike: float,
    centre: tuple[float, float] = (0.0, 0.0),
) -> Displacement:
    r"""Strain around an infinite vertical strike-slip fault locked near the surface.

    .. math:: u_\parallel = \frac{s}{\pi} \arctan\frac{x}{D}

    along strike, with :math:`x` the distance to the right of the trace: a screw
    dislocation that slips below :math:`D` (Savage and Burford, 1973, "Geodetic
    determination of relative plate motion in central California", JGR 78, 832-845).

    Parameters
    ----------
    east, north : numpy.ndarray
        Points on the surface, m, any common shape.
    slip : float
        Offset of one far side against the other, m; positive left-lateral (as `okada`
        with a rake of 0), negative right-lateral. With a rate in m/yr the result is in
        m/yr.
    locking_depth : float
        m; 0 for a fault that creeps up to the surface.
    strike : float
        Degrees clockwise from north.
    centre : (float, float)
        East and north of any point of the trace, m.

    Returns
    -------
    Displacement
        m; the vertical component is zero, and so is the mean of the two far sides.

    Raises
    ------
    ValueError
        If `locking_depth` is negative.
    """
    if not locking_depth >= 0:
        raise ValueError(f"{locking_depth=} must be zero or more (metres down)")
    sin_strike, cos_strike = sin_cos_degrees(strike)
    right = _along_across(east, north, strike, centre)[1]
    along = slip / np.pi * np.arctan2(right, locking_depth)
    return Displacement(along * sin_strike, along * cos_strike, np.zeros_like(along))


def subsidence_bowl(
    east: np.ndarray,
    north: np.ndarray,
    *,
    subsidence: float,
    sigma: tuple[float, float],
    azimuth: float = 0.0,
    centre: tuple[float, float] = (0.0, 0.0),
) -> Displacement:
    """Vertical anisotropic Gaussian bowl, as over pumped aquifers.

    Parameters
    ----------
    east, north : numpy.ndarray
        Points on the surface, m, any common shape.
    subsidence : float
        Downward displacement at the centre, m (negative for uplift).
    sigma : (float, float)
        Standard deviations along and across `azimuth`, m.
    azimuth : float
        Degrees clockwise from north.
    centre : (float, float)
        East and north of the centre, m.

    Returns
    -------
    Displacement
        m; the horizontal components are zero.

    Raises
    ------
    ValueError
        If a standard deviation is not positive.
    """
    if not min(sigma) > 0:
        raise ValueError(f"{sigma=} must be positive (metres)")
    along, across = _along_across(east, north, azimuth, centre)
    up = -subsidence * np.exp(
        -0.5 * ((along / sigma[0]) ** 2 + (across / sigma[1]) ** 2)
    )
    return Displacement(np.zeros_like(up), np.zeros_like(up), up)


def landslide_patch(
    east: np.ndarray,
    north: np.ndarray,
    *,
    slip: float,
    azimuth: float,
    dip: float,
    semi_axes: tuple[float, float],
    order: float = 4.0,
    centre: tuple[float, float] = (0.0, 0.0),
) -> Displacement:
    r"""Elliptical patch that slides down a planar slope, with a soft edge.

    .. math:: s(r) = s_0\, 2^{-r^{2p}}, \qquad r^2 = (x/a)^2 + (y/b)^2

    a super-Gaussian of order :math:`p`, :math:`x` down the slope and :math:`y` across,
    all points moving in one direction (a shape of convenience, not a mechanical model).

    Parameters
    ----------
    east, north : numpy.ndarray
        Points on the surface, m, any common shape.
    slip : float
        Displacement at the centre, m along the slope, positive downslope.
    azimuth : float
        Direction downslope, degrees clockwise from north.
    dip : float
        Slope, degrees below the horizontal, 0 to 90.
    semi_axes : (float, float)
        Horizontal half lengths along and across `azimuth`, m, where the displacement
        is half of `slip`.
    order : float
        1 for a Gaussian; the larger, the sharper the edge.
    centre : (float, float)
        East and north of the centre, m.

    Returns
    -------
    Displacement
        m.

    Raises
    ------
    ValueError
        If `dip` is outside 0 to 90 degrees, or `order` or a half length is not
        positive.
    """
    if not 0 <= dip <= 90:
        raise ValueError(f"{dip=} must be 0 to 90 (degrees below the horizontal)")
    if not min(semi_axes) > 0:
        raise ValueError(f"{semi_axes=} must be positive (metres)")
    if not order > 0:
        raise ValueError(f"{order=} must be positive")
    along, across = _along_across(east, north, azimuth, centre)
    r2 = (along / semi_axes[0]) ** 2 + (across / semi_axes[1]) ** 2
    with np.errstate(over="ignore"):
        moved = slip * np.exp2(-(r2**order))
    sin_azimuth, cos_azimuth = sin_cos_degrees(azimuth)
    sin_dip, cos_dip = sin_cos_degrees(dip)
    level = moved * cos_dip
    return Displacement(level * sin_azimuth, level * cos_azimuth, -moved * sin_dip)


def _along_across(
    east: np.ndarray,
    north: np.ndarray,
    azimuth: float,
    centre: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Distances along an azimuth and to the right of it, m."""
    sin_az, cos_az = sin_cos_degrees(azimuth)
    e, n = np.asarray(east, float) - centre[0], np.asarray(north, float) - centre[1]
    return e * sin_az + n * cos_az, e * cos_az - n * sin_az
