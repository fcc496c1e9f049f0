"""What the radar adds: geometry, decorrelation noise, masks, unwrapping errors."""

import heapq
from dataclasses import dataclass

import numpy as np

from cube_denoise.conventions import SENTINEL1_WAVELENGTH, SPEED_OF_LIGHT
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.turbulence import Padding, gaussian_fields


@dataclass(frozen=True)
class Sensor:
    """Wavelength and usual geometry of a right-looking radar."""

    wavelength: float
    """m"""
    ascending_heading: float
    """Degrees clockwise from north at middle latitudes, give or take 4 elsewhere."""
    descending_heading: float
    """Degrees clockwise from north."""
    incidence: tuple[float, float]
    """Smallest and largest angle from the vertical, degrees."""
    revisit_days: int
    """Of one satellite."""

    @property
    def frequency(self) -> float:
        """Hz."""
        return SPEED_OF_LIGHT / self.wavelength


SENSORS = {
    "sentinel-1": Sensor(SENTINEL1_WAVELENGTH, -12.0, -168.0, (29.0, 46.0), 12),
    "alos-2": Sensor(0.2384035, -10.0, -170.0, (28.0, 43.0), 14),
}
"""C band (interferometric wide swath) and L band (stripmap; the wavelength depends on
the mode, 0.2384 or 0.2424 m: real data tell theirs)."""


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


def unwrapping_errors(
    count: int,
    shape: tuple[int, int],
    *,
    spacing: float,
    probability: float = 0.02,
    area: tuple[float, float] = (0.01, 0.1),
    most_cycles: int = 1,
    length: float = 3_000.0,
    generator: np.random.Generator,
) -> np.ndarray:
    """Whole cycles by which unwrapping went wrong on one region in some pairs.

    The region grows from the highest point of a random field, always into the highest
    of its neighbours (four to a pixel), until it has its area: connected, and of
    irregular outline.

    Parameters
    ----------
    count : int
        Number of pairs; errors are of pairs, not of dates, and break closure.
    shape : (int, int)
        Rows and columns.
    spacing : float
        Pixel spacing, m.
    probability : float
        Of a pair to have an error, 0 to 1; 0.01 to 0.03 is usual.
    area : (float, float)
        Smallest and largest part of the area a region takes, 0 to 1; uniform between.
    most_cycles : int
        Cycles are uniform in +-1 .. +-most_cycles.
    length : float
        Correlation length of the field that shapes the regions, m.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray, int8, shape (count, rows, columns)
        Cycles to add: ``2 pi`` times it is the error of unwrapped phase, rad.

    Raises
    ------
    ValueError
        If `probability` or `area` is not within 0 to 1, or `most_cycles` below 1.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"{probability=} must be from 0 to 1")
    if not 0 <= area[0] <= area[1] <= 1:
        raise ValueError(f"{area=} must be (smallest, largest) within 0 to 1")
    if not 1 <= most_cycles <= 127:
        raise ValueError(f"{most_cycles=} must be from 1 to 127")
    cycles = np.zeros((count, *shape), "int8")
    for k in np.flatnonzero(generator.random(count) < probability):
        field = gaussian_fields(
            1,
            shape,
            spacing=spacing,
            spectra=[Matern(1.0, length, 2.0)],
            generator=generator,
        )[0]
        pixels = max(1, round(generator.uniform(*area) * field.size))
        size = int(generator.integers(1, most_cycles + 1))
        cycles[k][_grown_region(field, pixels)] = size * generator.choice([-1, 1])
    return cycles


def _grown_region(field: np.ndarray, pixels: int) -> np.ndarray:
    """Connected mask of so many pixels, from the highest by highest neighbours."""
    # A border of reached pixels keeps the growth inside.
    reached = np.ones((field.shape[0] + 2, field.shape[1] + 2), bool)
    reached[1:-1, 1:-1] = False
    width = reached.shape[1]
    level = np.pad(field, 1).ravel().tolist()
    known = bytearray(reached.tobytes())
    row, column = divmod(int(field.argmax()), field.shape[1])
    first = (row + 1) * width + column + 1
    known[first] = 1
    front, region = [(-level[first], first)], list[int]()
    while len(region) < pixels:
        _, at = heapq.heappop(front)
        region.append(at)
        for neighbour in (at - width, at - 1, at + 1, at + width):
            if not known[neighbour]:
                known[neighbour] = 1
                heapq.heappush(front, (-level[neighbour], neighbour))
    mask = np.zeros(reached.size, bool)
    mask[region] = True
    return mask.reshape(reached.shape)[1:-1, 1:-1]
