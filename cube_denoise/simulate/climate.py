"""Climate by latitude, where no weather data are at hand."""

import numpy as np

from cube_denoise.simulate.atmosphere import Climate


def zonal_climate(latitude: float) -> Climate:
    r"""Mean, annual cycle and day-to-day spread of surface weather at a latitude.

    The annual mean temperature is that of North (1975), "Theory of energy-balance
    climate models", J. Atmos. Sci. 32, 2033-2043, two modes:

    .. math:: T = 15 - 28\, P_2(\sin\phi) \quad [^\circ C]

    The annual amplitude, 1 K and 0.3 K per degree of latitude (inland), and all else
    are round numbers of this project. It stands in for a climatology such as HGPT2,
    whose coefficients do not come with this package.

    Parameters
    ----------
    latitude : float
        Degrees, -90 to 90.

    Returns
    -------
    Climate

    Raises
    ------
    ValueError
        If `latitude` is not within -90 to 90.

    Examples
    --------
    >>> round(zonal_climate(45.0).temperature[0] - 273.15, 1)
    8.0
    """
    if not -90 <= latitude <= 90:
        raise ValueError(f"{latitude=} must be from -90 to 90 degrees")
    sine = np.sin(np.deg2rad(latitude))
    mean = 273.15 + 15 - 28 * (3 * sine**2 - 1) / 2
    return Climate(
        temperature=(float(mean), 1 + 0.3 * abs(latitude), 4.0),
        warmest_day=200.0 if latitude >= 0 else 15.0,
        latitude=latitude,
    )
