"""What the weather adds: stratified delay and ramps; and terrain.

Delays are metres of extra path along the line of sight on one date. A pair sees the
difference, later minus earlier; a larger delay looks like motion away.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cube_denoise.conventions import years_since
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
    states = []
    for _ in range(count):
        pressure = 1013 + 6 * variability * generator.standard_normal()
        temperature = 290 + 7 * variability * generator.standard_normal()
        humidity = 60 + 18 * variability * generator.standard_normal()
        states.append((pressure, temperature, humidity))
    return _delays_of_states(elevation, np.array(states), incidence=incidence)


def _delays_of_states(
    elevation: np.ndarray,
    states: np.ndarray,
    *,
    incidence: float,
    latitude: float = 37.0,
) -> np.ndarray:
    """Slant delay of columns of air over the lowest point, zero there.

    `states` has shape (count, 3): pressure (hPa), temperature (K) and relative humidity
    (percent, cut at 5 and 100). NaN elevation gives NaN.
    """
    low, high = float(np.nanmin(elevation)), float(np.nanmax(elevation))
    levels = np.linspace(0, max(high - low, 1.0), 33)
    delays = np.empty((len(states), *elevation.shape), "float32")
    for k, (pressure, temperature, humidity) in enumerate(states):
        column = zenith_delay(
            levels,
            pressure=pressure,
            temperature=temperature,
            relative_humidity=float(np.clip(humidity, 5, 100)),
            latitude=latitude,
        )
        column = (column - column[0]) / np.cos(np.deg2rad(incidence))
        delays[k] = np.interp(elevation - low, levels, column)
    return delays


@dataclass(frozen=True)
class Climate:
    """How surface weather varies over the year and from day to day.

    Each quantity is (mean, annual amplitude, standard deviation of the anomaly); the
    amplitude is positive if it is highest on `warmest_day`. The defaults are this
    project's, of a temperate climate: their total spread is that of
    `stratified_delay` with a variability of 1, about half of it seasonal.

    Parameters
    ----------
    pressure : (float, float, float)
        hPa.
    temperature : (float, float, float)
        K.
    relative_humidity : (float, float, float)
        Percent; cut at 5 and 100.
    warmest_day : float
        Day of the year, about 200 in the northern, 15 in the southern hemisphere.
    persistence : float
        Days after which anomalies have lost their memory but for 1/e; 0 for none.
    latitude : float
        Degrees.

    Raises
    ------
    ValueError
        If a standard deviation or the persistence is negative.
    """

    pressure: tuple[float, float, float] = (1013.0, -4.0, 5.3)
    temperature: tuple[float, float, float] = (290.0, 8.0, 4.0)
    relative_humidity: tuple[float, float, float] = (60.0, 0.0, 18.0)
    warmest_day: float = 200.0
    persistence: float = 3.0
    latitude: float = 37.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("pressure", "temperature", "relative_humidity"):
            if not getattr(self, name)[2] >= 0:
                raise ValueError(
                    f"{name}={getattr(self, name)}: the third, the standard deviation, "
                    "must not be negative"
                )
        if not self.persistence >= 0:
            raise ValueError(f"persistence={self.persistence} must not be negative")


def weather_states(
    times: Any, *, climate: Climate | None = None, generator: np.random.Generator
) -> np.ndarray:
    r"""Surface pressure, temperature and humidity on given dates.

    .. math:: w(t) = \bar w + A \cos\frac{2\pi (t - t_{max})}{1\,yr} + s\,x(t)

    with x a first-order autoregressive process,
    :math:`E[x(t)\,x(t')] = e^{-|t - t'|/\tau}`, independent for each quantity.

    Parameters
    ----------
    times : array_like of datetime64, shape (count,)
        Dates, in any order.
    climate : Climate, optional
        The defaults of the class when not given.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, shape (count, 3)
        hPa, K, percent (not cut).
    """
    how = climate or Climate()
    days = years_since(times, np.datetime64("2000-01-01", "s")) * 365.25
    order = np.argsort(days, kind="stable")
    draws = generator.standard_normal((len(days), 3))
    anomaly = np.empty_like(draws)
    for step, k in enumerate(order):
        memory = 0.0
        if step and how.persistence > 0:
            before = order[step - 1]
            memory = float(np.exp(-(days[k] - days[before]) / how.persistence))
        anomaly[k] = np.sqrt(1 - memory**2) * draws[k]
        if memory:
            anomaly[k] += memory * anomaly[before]
    cycle = np.cos(2 * np.pi * (days - how.warmest_day) / 365.25)
    mean, amplitude, std = np.transpose(
        [how.pressure, how.temperature, how.relative_humidity]
    )
    return np.asarray(mean + amplitude * cycle[:, None] + std * anomaly)


def seasonal_stratified_delay(
    elevation: np.ndarray,
    times: Any,
    *,
    incidence: float,
    climate: Climate | None = None,
    generator: np.random.Generator,
) -> np.ndarray:
    """Elevation-dependent line-of-sight delay of weather that follows the seasons.

    Dates of one season resemble each other, so that short pairs see less of it than
    pairs across seasons, and a series that samples the year unevenly gets a trend.

    Parameters
    ----------
    elevation : numpy.ndarray, shape (rows, columns)
        m; NaN = no data.
    times : array_like of datetime64, shape (count,)
        Acquisitions.
    incidence : float
        Degrees from the vertical.
    climate : Climate, optional
        Of the lowest point; the defaults of the class when not given.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, float32, shape (count, rows, columns)
        m of extra path, zero at the lowest point, NaN where the elevation is.
    """
    states = weather_states(times, climate=climate, generator=generator)
    latitude = (climate or Climate()).latitude
    return _delays_of_states(elevation, states, incidence=incidence, latitude=latitude)


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
