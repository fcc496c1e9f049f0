"""What the atmosphere adds: turbulence, stratified delay, ramps; and terrain.

Delays are metres of extra path along the line of sight on one date. A pair sees the
difference, later minus earlier; a larger delay looks like motion away.
"""

import numpy as np
import scipy.fft


def matern_spectrum(
    frequency: np.ndarray, *, std: float, length: float, smoothness: float
) -> np.ndarray:
    r"""Two-dimensional power spectral density of a Matérn field.

    .. math:: S(f) = s^2\, \frac{4 \pi \nu (2\nu)^\nu}{l^{2\nu}}
              \left(\frac{2\nu}{l^2} + 4 \pi^2 f^2\right)^{-(\nu+1)}

    Parameters
    ----------
    frequency : numpy.ndarray
        Radial frequency, cycles per m.
    std : float
        Standard deviation s of the field, in its own unit.
    length : float
        Correlation length l, m.
    smoothness : float
        nu; 1/2 is the covariance s^2 exp(-r/l), 1/3 gives the -8/3 slope of
        turbulence at large scales, 5/6 the -11/3 slope at small ones.

    Returns
    -------
    numpy.ndarray
        Squared unit of the field per (cycle/m)^2.
    """
    nu = smoothness
    constant = std**2 * 4 * np.pi * nu * (2 * nu) ** nu / length ** (2 * nu)
    return constant * (2 * nu / length**2 + (2 * np.pi * frequency) ** 2) ** -(nu + 1)


def gaussian_fields(
    count: int,
    shape: tuple[int, int],
    *,
    spacing: float,
    scales: list[tuple[float, float, float]],
    generator: np.random.Generator,
    anisotropy: float = 1.0,
    azimuth: float = 0.0,
) -> np.ndarray:
    """Independent stationary Gaussian fields with a sum of Matérn spectra.

    White noise is coloured on a grid twice as long in each direction, of which one
    quarter is kept: opposite edges are not correlated by wrap-around. Covariance and
    variance are as asked for lengths up to about a quarter of the area; for longer ones
    the field carries a large constant and its longest wavelengths are too weak (at a
    length of three times the area, differences across it by about 30 %).

    Parameters
    ----------
    count : int
        How many fields.
    shape : (int, int)
        Rows and columns.
    spacing : float
        Pixel spacing, m.
    scales : list of (std, length, smoothness)
        Matérn components; their variances add.
    generator : numpy.random.Generator
        Source of randomness.
    anisotropy : float
        Ratio of the longest to the shortest correlation length.
    azimuth : float
        Direction of the longest correlation, degrees from the column direction.

    Returns
    -------
    numpy.ndarray, float32, shape (count, rows, columns)
    """
    padded = tuple(scipy.fft.next_fast_len(2 * n) for n in shape)
    fy, fx = np.meshgrid(*(np.fft.fftfreq(n, spacing) for n in padded), indexing="ij")
    if anisotropy != 1.0:
        c, s = np.cos(np.deg2rad(azimuth)), np.sin(np.deg2rad(azimuth))
        stretch = np.sqrt(anisotropy)
        fx, fy = (c * fx + s * fy) * stretch, (-s * fx + c * fy) / stretch
    frequency = np.hypot(fx, fy)
    density = sum(
        matern_spectrum(frequency, std=std, length=length, smoothness=nu)
        for std, length, nu in scales
    )
    amplitude = (np.sqrt(density) / spacing).astype("float32")
    amplitude *= np.float32(np.sqrt(padded[0] * padded[1]))
    fields = np.empty((count, *shape), "float32")
    # The real and the imaginary part of one complex transform are two fields.
    for k in range(0, count, 2):
        white = generator.standard_normal((2, *padded), dtype="float32")
        field = scipy.fft.ifft2((white[0] + 1j * white[1]) * amplitude, workers=1)
        field = field[: shape[0], : shape[1]]
        fields[k] = field.real
        if k + 1 < count:
            fields[k + 1] = field.imag
    return fields


def self_affine_terrain(
    shape: tuple[int, int],
    *,
    spacing: float,
    relief: float,
    smoothness: float = 1.2,
    length: float = 15_000.0,
    generator: np.random.Generator,
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

    Returns
    -------
    numpy.ndarray, float32, shape (rows, columns)
        Height, m, from 0 to `relief`.
    """
    field = gaussian_fields(
        1,
        shape,
        spacing=spacing,
        scales=[(1.0, length, smoothness)],
        generator=generator,
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
