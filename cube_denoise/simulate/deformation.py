"""Surface displacement of dislocations and point sources in an elastic half-space.

Coordinates are local east and north in metres on the ground, depths are positive
down, displacements are metres (east, north, up).
"""

from typing import NamedTuple

import numpy as np

POISSON_RATIO = 0.25

NEARLY_VERTICAL = 0.1
"""Degrees from vertical within which the general formulas lose their digits."""


class Displacement(NamedTuple):
    """Surface displacement, m; each component has the shape of the coordinates."""

    east: np.ndarray
    north: np.ndarray
    up: np.ndarray

    def along(self, line_of_sight: tuple[float, float, float]) -> np.ndarray:
        """Project on the unit vector (east, north, up) toward the satellite, m."""
        e, n, u = line_of_sight
        return self.east * e + self.north * n + self.up * u


def okada(
    east: np.ndarray,
    north: np.ndarray,
    *,
    depth: float,
    strike: float,
    dip: float,
    length: float,
    width: float,
    slip: float = 0.0,
    rake: float = 0.0,
    opening: float = 0.0,
    centre: tuple[float, float] = (0.0, 0.0),
    poisson_ratio: float = POISSON_RATIO,
) -> Displacement:
    r"""Rectangular dislocation: fault, dike or rectangular sill (Okada, 1985).

    Chinnery's sum of equations 25 to 30 of Okada (1985), "Surface deformation due to
    shear and tensile faults in a half-space", BSSA 75, 1135-1154, in a frame with x
    along strike and the origin above the lower edge.

    Parameters
    ----------
    east, north : numpy.ndarray
        Points on the surface, m, any common shape.
    depth : float
        Depth of the centre of the rectangle, m.
    strike, dip : float
        Degrees; strike clockwise from north, the plane dips to its right.
    length, width : float
        Along strike and along dip, m.
    slip : float
        Shear dislocation, m.
    rake : float
        Direction of slip, degrees: 0 left-lateral, 90 thrust, -90 normal.
    opening : float
        Tensile dislocation, m.
    centre : (float, float)
        East and north of the rectangle's centre, m.
    poisson_ratio : float
        Of the half-space.

    Returns
    -------
    Displacement
        m.

    Raises
    ------
    ValueError
        If a side is not positive or the upper edge would be above the surface.
    """
    if not (length > 0 and width > 0):
        raise ValueError(f"{length=} and {width=} must be positive (metres)")
    if 0 < abs(dip - 90) < 0.99 * NEARLY_VERTICAL:
        # Terms of 1 / cos(dip)^3 cancel there: interpolate over the dip instead.
        s = (dip - 90) / NEARLY_VERTICAL
        weights = {-1: s * (s - 1) / 2, 0: (1 - s) * (1 + s), 1: s * (s + 1) / 2}
        parts = [
            okada(
                east,
                north,
                depth=depth,
                strike=strike,
                dip=90 + side * NEARLY_VERTICAL,
                length=length,
                width=width,
                slip=slip,
                rake=rake,
                opening=opening,
                centre=centre,
                poisson_ratio=poisson_ratio,
            )
            for side in weights
        ]
        return Displacement(
            *np.tensordot(np.array(list(weights.values())), np.array(parts), 1)
        )
    sin_dip, cos_dip = sin_cos_degrees(dip)
    sin_strike, cos_strike = sin_cos_degrees(strike)
    top = depth - width / 2 * sin_dip
    if top < -1e-9:
        raise ValueError(
            f"{depth=} with {width=} and {dip=} puts the upper edge {-top:.3g} m above "
            "the surface; it must be at or below it"
        )
    e = np.asarray(east, float) - centre[0] + cos_strike * cos_dip * width / 2
    n = np.asarray(north, float) - centre[1] - sin_strike * cos_dip * width / 2
    x = cos_strike * n + sin_strike * e + length / 2
    y = sin_strike * n - cos_strike * e + width * cos_dip
    lower = depth + width / 2 * sin_dip
    p = y * cos_dip + lower * sin_dip
    q = y * sin_dip - lower * cos_dip
    slips = (
        slip * sin_cos_degrees(rake)[1],
        slip * sin_cos_degrees(rake)[0],
        opening,
    )
    k = 1 - 2 * poisson_ratio
    total = np.zeros((3, *np.shape(p)))
    for sign, xi, eta in (
        (1, x, p),
        (-1, x, p - width),
        (-1, x - length, p),
        (1, x - length, p - width),
    ):
        total += sign * _okada_corner(xi, eta, q, sin_dip, cos_dip, k, slips)
    ux, uy, uz = total / (2 * np.pi)
    return Displacement(
        sin_strike * ux - cos_strike * uy, cos_strike * ux + sin_strike * uy, uz
    )


def sin_cos_degrees(angle: float) -> tuple[float, float]:
    """Sine and cosine, exact at multiples of 90 degrees."""
    quarter, rest = divmod(angle, 90.0)
    if rest == 0:
        return ((0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0))[int(quarter) % 4]
    return float(np.sin(np.deg2rad(angle))), float(np.cos(np.deg2rad(angle)))


def _okada_corner(
    xi: np.ndarray,
    eta: np.ndarray,
    q: np.ndarray,
    sin_dip: float,
    cos_dip: float,
    k: float,
    slips: tuple[float, float, float],
) -> np.ndarray:
    """One corner of Chinnery's sum, times 2 pi; shape (3, ...)."""
    strike_slip, dip_slip, tensile = slips
    R = np.sqrt(xi**2 + eta**2 + q**2)
    X = np.sqrt(xi**2 + q**2)
    y_tilde = eta * cos_dip + q * sin_dip
    d_tilde = eta * sin_dip - q * cos_dip
    with np.errstate(divide="ignore", invalid="ignore"):
        theta = np.where(q == 0, 0.0, np.arctan(xi * eta / (q * R)))
        # Above the line through the edge R + eta vanishes: the terms drop out.
        singular = np.abs(R + eta) < 1e-9 * np.maximum(R, 1.0)
        inv_R_eta = np.where(singular, 0.0, 1 / np.where(singular, 1, R + eta))
        log_R_eta = np.where(
            singular,
            -np.log(np.where(singular, R - eta, 1)),
            np.log(np.where(singular, 1, R + eta)),
        )
        singular_xi = np.abs(R + xi) < 1e-9 * np.maximum(R, 1.0)
        inv_R_xi = np.where(singular_xi, 0.0, 1 / np.where(singular_xi, 1, R + xi))
        R_d = R + d_tilde
        if abs(cos_dip) > 1e-9:
            I5 = np.where(
                xi == 0,
                0.0,
                2
                * k
                / cos_dip
                * np.arctan(
                    (eta * (X + q * cos_dip) + X * (R + X) * sin_dip)
                    / (xi * (R + X) * cos_dip)
                ),
            )
            I4 = k / cos_dip * (np.log(R_d) - sin_dip * log_R_eta)
            I3 = k * (y_tilde / (cos_dip * R_d) - log_R_eta) + sin_dip / cos_dip * I4
            I1 = -k * xi / (cos_dip * R_d) - sin_dip / cos_dip * I5
        else:
            I5 = -k * xi * sin_dip / R_d
            I4 = -k * q / R_d
            I3 = k / 2 * (eta / R_d + y_tilde * q / R_d**2 - log_R_eta)
            I1 = -k / 2 * xi * q / R_d**2
        I2 = -k * log_R_eta - I3
    u = np.zeros((3, *np.shape(R)))
    if strike_slip:
        u -= strike_slip * np.stack(
            [
                xi * q * inv_R_eta / R + theta + I1 * sin_dip,
                y_tilde * q * inv_R_eta / R + q * cos_dip * inv_R_eta + I2 * sin_dip,
                d_tilde * q * inv_R_eta / R + q * sin_dip * inv_R_eta + I4 * sin_dip,
            ]
        )
    if dip_slip:
        u -= dip_slip * np.stack(
            [
                q / R - I3 * sin_dip * cos_dip,
                y_tilde * q * inv_R_xi / R + cos_dip * theta - I1 * sin_dip * cos_dip,
                d_tilde * q * inv_R_xi / R + sin_dip * theta - I5 * sin_dip * cos_dip,
            ]
        )
    if tensile:
        bracket = xi * q * inv_R_eta / R - theta
        u += tensile * np.stack(
            [
                q**2 * inv_R_eta / R - I3 * sin_dip**2,
                -d_tilde * q * inv_R_xi / R - sin_dip * bracket - I1 * sin_dip**2,
                y_tilde * q * inv_R_xi / R + cos_dip * bracket - I5 * sin_dip**2,
            ]
        )
    return u


def mogi(
    east: np.ndarray,
    north: np.ndarray,
    *,
    depth: float,
    volume_change: float,
    centre: tuple[float, float] = (0.0, 0.0),
    poisson_ratio: float = POISSON_RATIO,
) -> Displacement:
    r"""Point source of volume change (Mogi, 1958).

    .. math:: u = \frac{(1-\nu)\,\Delta V}{\pi}\,\frac{(x, y, d)}{R^3}

    Parameters
    ----------
    east, north : numpy.ndarray
        Points on the surface, m, any common shape.
    depth : float
        m, must be positive.
    volume_change : float
        m3, positive for inflation.
    centre : (float, float)
        East and north of the source, m.
    poisson_ratio : float
        Of the half-space.

    Returns
    -------
    Displacement
        m.

    Raises
    ------
    ValueError
        If `depth` is not positive.
    """
    if not depth > 0:
        raise ValueError(f"{depth=} must be positive (metres below the surface)")
    e, n = np.asarray(east, float) - centre[0], np.asarray(north, float) - centre[1]
    strength = (1 - poisson_ratio) * volume_change / np.pi
    scale = strength / (e**2 + n**2 + depth**2) ** 1.5
    return Displacement(e * scale, n * scale, depth * scale)
