"""What the radar adds: decorrelation noise and masks."""

import numpy as np

from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.turbulence import Padding, gaussian_fields


def coherence_map(
    shape: tuple[int, int],
    *,
    spacing: float,
    mean: float,
    spread: float = 0.15,
    length: float = 3_000.0,
    generator: np.random.Generator,
    padding: Padding = "exact",
) -> np.ndarray:
    """Random coherence magnitude, float32, shape (rows, columns), 0.05 to 0.98."""
    field = gaussian_fields(
        1,
        shape,
        spacing=spacing,
        spectra=[Matern(spread, length, 0.5)],
        generator=generator,
        padding=padding,
    )[0]
    return np.clip(mean + field, 0.05, 0.98).astype("float32")


def temporal_decorrelation(
    days: float,
    *,
    initial: float = 0.9,
    final: float = 0.3,
    time_constant: float = 90.0,
) -> float:
    """Mean coherence of a pair: ``(g0 - ginf) exp(-dt/tau) + ginf``, times in days.

    Examples
    --------
    >>> round(temporal_decorrelation(0), 6)
    0.9
    """
    return float((initial - final) * np.exp(-abs(days) / time_constant) + final)


def decorrelation_noise(
    coherence: np.ndarray, *, looks: float, generator: np.random.Generator
) -> np.ndarray:
    r"""White phase noise with the Cramér-Rao variance of multilooked phase.

    .. math:: \sigma^2 = \frac{1-\gamma^2}{2 L \gamma^2}

    Parameters
    ----------
    coherence : numpy.ndarray
        Magnitude gamma, 0..1.
    looks : float
        Independent looks L.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, float32
        rad, the shape of `coherence`. The bound is optimistic below gamma 0.3.
    """
    g = np.clip(coherence, 0.05, 0.99)
    std = np.sqrt((1 - g**2) / (2 * looks * g**2))
    noise = std * generator.standard_normal(coherence.shape, dtype="float32")
    return noise.astype("float32")


def gap_mask(
    shape: tuple[int, int],
    *,
    spacing: float,
    fraction: float,
    length: float = 2_000.0,
    generator: np.random.Generator,
    padding: Padding = "exact",
) -> np.ndarray:
    """Mask of coherent patches: True where there are data.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    spacing : float
        Pixel spacing, m.
    fraction : float
        Part of the area without data, 0..1.
    length : float
        Size of the gaps, m.
    generator : numpy.random.Generator
        Source of randomness.
    padding : {"exact", "double"}
        Of `gaussian_fields`.

    Returns
    -------
    numpy.ndarray of bool
    """
    if fraction <= 0:
        return np.ones(shape, bool)
    field = gaussian_fields(
        1,
        shape,
        spacing=spacing,
        spectra=[Matern(1.0, length, 1.0)],
        generator=generator,
        padding=padding,
    )[0]
    return np.asarray(field > np.quantile(field, fraction))
