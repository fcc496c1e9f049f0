"""What the ionosphere adds: a phase advance, stronger at long wavelengths."""

import numpy as np

from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.turbulence import gaussian_fields

_REFRACTION = 40.31e16
"""m Hz^2 of path per TECU of electrons."""


def tec_to_delay(tec: np.ndarray | float, *, frequency: float) -> np.ndarray:
    r"""Line-of-sight phase delay of a total electron content.

    .. math:: \delta = -\frac{40.31 \times 10^{16}\; TEC}{f^2}

    The ionosphere advances phase, so the delay is negative: more electrons on the later
    date look like motion toward the satellite. (It delays the envelope of the pulse by
    the same amount.) One TECU is 1.38 cm at 5.405 GHz and 25.5 cm at 1.257 GHz.

    Parameters
    ----------
    tec : numpy.ndarray or float
        Along the line of sight, TECU (10^16 electrons per m2).
    frequency : float
        Of the radar, Hz.

    Returns
    -------
    numpy.ndarray
        m of extra path, one way, as of the delays of the troposphere.

    Raises
    ------
    ValueError
        If `frequency` is not between 0.1 and 100 GHz.

    Examples
    --------
    >>> round(float(tec_to_delay(1.0, frequency=5.405e9)), 4)
    -0.0138
    """
    if not 1e8 <= frequency <= 1e11:
        raise ValueError(f"{frequency=} must be in Hz, from 1e8 to 1e11")
    return np.asarray(-_REFRACTION / frequency**2 * np.asarray(tec))


def ionospheric_delays(
    count: int,
    shape: tuple[int, int],
    *,
    spacing: float,
    frequency: float,
    tec_std: float,
    streak_fraction: float = 0.2,
    streak_length: float = 30_000.0,
    azimuth: float = 0.0,
    generator: np.random.Generator,
) -> np.ndarray:
    """Ionospheric line-of-sight delay of independent dates: a trend and streaks.

    The trend is a ramp of random direction plus a weaker quadratic. The streaks are a
    Matérn field (smoothness 5/6) four times as long along `azimuth` as across, as
    irregularities along the geomagnetic field are. The split is this project's choice.

    Parameters
    ----------
    count : int
        Number of dates.
    shape : (int, int)
        Rows and columns.
    spacing : float
        Pixel spacing, m.
    frequency : float
        Of the radar, Hz.
    tec_std : float
        Standard deviation of TEC, trend and streaks together, TECU.
    streak_fraction : float
        Part of the variance that is streaks, 0 to 1.
    streak_length : float
        Their correlation length, geometric mean of along and across, m; 10 to 100 km.
        Streaks longer than the area are partly a constant of the date.
    azimuth : float
        Direction of the streaks, degrees clockwise from north, for maps whose first row
        is the northernmost.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, float32, shape (count, rows, columns)
        m of extra path, negative where there are more electrons than on average.

    Raises
    ------
    ValueError
        If `tec_std` is negative, `streak_fraction` is not 0 to 1 or `frequency` is not
        in Hz.
    """
    if not tec_std >= 0:
        raise ValueError(f"{tec_std=} must not be negative")
    if not 0 <= streak_fraction <= 1:
        raise ValueError(f"{streak_fraction=} must be from 0 to 1")
    terms = _trend_terms(shape)
    # Independent coefficients: the variances of the terms add.
    scale = np.sqrt((1 - streak_fraction) / sum(float(t.var()) for t in terms))
    coefficients = scale * tec_std * generator.standard_normal((count, len(terms)))
    tec = np.tensordot(coefficients, terms, 1)
    tec += gaussian_fields(
        count,
        shape,
        spacing=spacing,
        spectra=[Matern(tec_std * streak_fraction**0.5, streak_length, 5 / 6)],
        generator=generator,
        anisotropy=4.0,
        direction=azimuth - 90,
    )
    return tec_to_delay(tec, frequency=frequency).astype("float32")


def _trend_terms(shape: tuple[int, int]) -> np.ndarray:
    """Terms of a ramp and, half as strong, of a quadratic; shape (5, rows, columns)."""
    half = max(max(shape) - 1, 1) / 2
    y, x = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) / half for n in shape), indexing="ij"
    )
    terms = np.stack([x, y, x * x / 2, y * y / 2, x * y / 2])
    return np.asarray(terms - terms.mean((1, 2), keepdims=True))
