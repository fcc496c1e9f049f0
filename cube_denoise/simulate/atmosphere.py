"""What the atmosphere adds: turbulence, stratified delay, ramps; and terrain.

Delays are metres of extra path along the line of sight on one date. A pair sees the
difference, later minus earlier; a larger delay looks like motion away.
"""

import numpy as np

from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.turbulence import Padding, gaussian_fields


def self_affine_terrain(
    shape: tuple[int, int],
    *,
    spacing: float,
    relief: float,
    smoothness: float = 1.2,
    length: float = 15_000.0,
    generator: np.random.Generator,
    padding: Padding = "exact",
) -> np.ndarray:
    """Random self-affine terrain with ridges.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    spacing : float
        Pixel spacing, m.
    relief : float
        Difference between the highest and the lowest point, m.
    smoothness, length : float
        Of the Matérn field that is exponentiated; `length` in m.
    generator : numpy.random.Generator
        Source of randomness.
    padding : {"exact", "double"}
        Of `gaussian_fields`.

    Returns
    -------
    numpy.ndarray, float32, shape (rows, columns)
        Height, m, from 0 to `relief`.
    """
    field = gaussian_fields(
        1,
        shape,
        spacing=spacing,
        spectra=[Matern(1.0, length, smoothness)],
        generator=generator,
        padding=padding,
    )[0]
    height = np.exp(0.7 * field)
    height -= height.min()
    return (relief / max(float(height.max()), 1e-6) * height).astype("float32")


def zenith_delay(
    height: np.ndarray,
    *,
    pressure: float,
    temperature: float,
    relative_humidity: float,
    latitude: float = 37.0,
) -> np.ndarray:
    """Zenith total delay of a standard column over ground at `height`.

    Saastamoinen hydrostatic and wet delay, with pressure and temperature reduced to
    the height by a linear lapse rate (the reduction of HGPT2, Mateus et al., 2021)
    and Magnus' saturation vapour pressure.

    Parameters
    ----------
    height : numpy.ndarray
        m above the level of the surface values.
    pressure : float
        At height 0, hPa.
    temperature : float
        At height 0, K.
    relative_humidity : float
        Percent, the same at all heights.
    latitude : float
        Degrees.

    Returns
    -------
    numpy.ndarray
        m, hydrostatic plus wet.
    """
    celsius = temperature - 273.15
    lapse = (10.3 + 0.03182 * celsius - 0.00436 * pressure) / 1000
    p = pressure * (1 - lapse * height / temperature) ** 5.6004
    t = temperature - lapse * height
    saturation = 6.1121 * np.exp(17.502 * (t - 273.15) / (t - 273.15 + 240.97))
    vapour = relative_humidity / 100 * saturation
    gravity = 1 - 0.0026 * np.cos(2 * np.deg2rad(latitude)) - 2.8e-7 * height
    return 0.0022768 * p / gravity + 0.002277 * (1255 / t + 0.05) * vapour


def stratified_delay(
    elevation: np.ndarray,
    *,
    incidence: float,
    variability: float,
    generator: np.random.Generator,
    count: int = 1,
) -> np.ndarray:
    """Elevation-dependent line-of-sight delay of random weather states.

    Surface pressure, temperature and humidity are drawn about (1013 hPa, 290 K,
    60 %) with standard deviations (6 hPa, 7 K, 18 %) times `variability`.

    Parameters
    ----------
    elevation : numpy.ndarray
        m, shape (rows, columns).
    incidence : float
        Degrees from the vertical.
    variability : float
        1 for dates of any season, 0.3 to 0.6 for dates days or weeks apart.
    generator : numpy.random.Generator
        Source of randomness.
    count : int
        Number of dates.

    Returns
    -------
    numpy.ndarray, float32, shape (count, rows, columns)
        m, zero at the lowest point.
    """
    low, high = float(elevation.min()), float(elevation.max())
    levels = np.linspace(0, max(high - low, 1.0), 33)
    delays = np.empty((count, *elevation.shape), "float32")
    for k in range(count):
        column = zenith_delay(
            levels,
            pressure=1013 + 6 * variability * generator.standard_normal(),
            temperature=290 + 7 * variability * generator.standard_normal(),
            relative_humidity=float(
                np.clip(60 + 18 * variability * generator.standard_normal(), 5, 100)
            ),
        )
        column = (column - column[0]) / np.cos(np.deg2rad(incidence))
        delays[k] = np.interp(elevation - low, levels, column)
    return delays


def bilinear_ramp(
    shape: tuple[int, int], *, amplitude: float, generator: np.random.Generator
) -> np.ndarray:
    """Ramp ``c1 x + c2 y + c3 x y`` with x, y in [-1, 1].

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    amplitude : float
        c1, c2 are uniform in +-amplitude, c3 in half of it; m.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, float32, shape (rows, columns)
        m.
    """
    c1, c2, c3 = generator.uniform(-1, 1, 3) * amplitude * np.array([1, 1, 0.5])
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (c1 * x + c2 * y + c3 * x * y).astype("float32")
