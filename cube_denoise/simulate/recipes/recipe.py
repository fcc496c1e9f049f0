"""What a recipe is, and the record of a series of dates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import xarray as xr

from cube_denoise.conventions import TIME, X, Y
from cube_denoise.simulate.assembly import Scene
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.pair import SimulatedPair


class SimulatedSeries(NamedTuple):
    """Displacement maps of some dates; all maps have shape (rows, columns)."""

    noisy: np.ndarray
    """m, positive toward the satellite, NaN = no data, shape (dates, rows, columns)."""
    truth: np.ndarray
    """m, the deformation to be found, the same shape, zero on the first date."""
    elevation: np.ndarray
    """m, relative to its median."""
    years: np.ndarray
    """Time since the first date, shape (dates,)."""
    snr: float
    """Power of the truth over power of the rest, both less their means over time and
    over the map (`stack.power`)."""

    @property
    def cumulated(self) -> np.ndarray:
        """Deformation from the first to the last date, m, shape (rows, columns)."""
        return np.asarray(self.truth[-1] - self.truth[0])


Sample = SimulatedPair | SimulatedSeries | Scene


class Draw(Protocol):
    """How a recipe makes one sample."""

    def __call__(
        self,
        seed: np.random.SeedSequence,
        *,
        split: str,
        shape: tuple[int, int],
        noise: NoiseBank | None,
    ) -> Sample:
        """Draw the sample of a seed, from what belongs to the split."""


@dataclass(frozen=True)
class Recipe:
    """A named kind of training sample."""

    name: str
    """Of the recipe."""
    record: type
    """Of its samples: `SimulatedPair`, `SimulatedSeries` or `Scene`."""
    shape: tuple[int, int]
    """Rows and columns."""
    draw: Draw
    """Makes one sample."""
    sizes: Mapping[str, int] | None = None
    """Samples in each split; None for no end."""
    noise_kinds: tuple[str, ...] = ()
    """Kinds of `NoiseBank` it takes."""
    needs_noise: bool = False
    """Whether it makes nothing without one."""


def samples_dataset(
    samples: Sequence[SimulatedPair] | Sequence[SimulatedSeries],
) -> xr.Dataset:
    """Put samples of one recipe into one data set, along the dimension ``sample``.

    Parameters
    ----------
    samples : sequence of SimulatedPair or of SimulatedSeries
        Of one shape.

    Returns
    -------
    xarray.Dataset
        ``noisy``, ``truth``, ``elevation`` (m) and ``coherence`` (pairs alone) of
        (sample, y, x), those of series (sample, time, y, x); ``snr`` (sample).

    Raises
    ------
    ValueError
        If there is no sample.
    """
    if not samples:
        raise ValueError("samples is empty: give one or more")
    maps = ("sample", Y, X)
    moving = ("sample", TIME, Y, X) if samples[0].noisy.ndim == 3 else maps
    layers = {
        "noisy": (moving, "m", "deformation plus noise, positive toward the satellite"),
        "truth": (moving, "m", "deformation, positive toward the satellite"),
        "elevation": (maps, "m", "height above the median of the sample"),
        "coherence": (maps, "1", "interferometric coherence magnitude"),
        "snr": (("sample",), "1", "power of the truth over power of the noise"),
    }
    found = xr.Dataset()
    for name, (dims, units, long_name) in layers.items():
        if hasattr(samples[0], name):
            values = np.stack([getattr(one, name) for one in samples])
            attributes = {"units": units, "long_name": long_name}
            found[name] = (dims, values, attributes)
    if isinstance(samples[0], SimulatedSeries):
        found = found.assign_coords(years=(TIME, samples[0].years))
    return found
