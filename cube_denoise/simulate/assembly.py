"""From simulated dates to a cube of pairs, and to the truth that goes with it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cube_denoise.conventions import (
    PAIR,
    TIME,
    VARIABLES,
    X,
    Y,
    displacement_to_phase,
)

TRUTH_ATTRIBUTES = {
    "delay": {"units": "m", "long_name": "line-of-sight delay of the atmosphere"},
    "source_mask": {
        "long_name": "where the largest displacement exceeds a tenth of its peak"
    },
}


class Scene(NamedTuple):
    """A simulated stack and what it was made of."""

    cube: xr.Dataset
    """As ingested: ``unwrapped_phase``, ``coherence`` (pair, y, x), ``elevation``,
    line-of-sight vector (y, x)."""
    truth: xr.Dataset
    """``displacement`` (time, y, x), m; ``velocity`` (y, x), m/yr; ``delay`` (time, y,
    x), m of extra path, ramps included; of `simulate_stack` also ``source_mask``."""


class PairedDates(NamedTuple):
    """Dates of a stack and the pairs made of them."""

    times: np.ndarray
    """datetime64[s], shape (dates,)."""
    first: np.ndarray
    """Index of the earlier date of each pair, shape (pairs,)."""
    second: np.ndarray
    """Index of the later date of each pair, shape (pairs,)."""


def short_pairs(times: np.ndarray, max_days: float) -> PairedDates:
    """All pairs of at most `max_days`.

    Parameters
    ----------
    times : numpy.ndarray of datetime64[s], shape (dates,)
        Increasing.
    max_days : float
        Longest pair, days.

    Returns
    -------
    PairedDates
        Pairs in order of the earlier, then of the later date.
    """
    days = (times - times[0]) / np.timedelta64(86400, "s")
    apart = days[None, :] - days[:, None]
    return PairedDates(times, *np.nonzero((apart > 0) & (apart <= max_days)))


def apparent_phase(
    displacement: np.ndarray, delay: np.ndarray, i: int, j: int, wavelength: float
) -> np.ndarray:
    """Noise-free phase of the pair of dates i and j (earlier, later).

    Parameters
    ----------
    displacement : numpy.ndarray, shape (dates, rows, columns)
        m, positive toward the satellite.
    delay : numpy.ndarray, shape (dates, rows, columns)
        m of extra path along the line of sight.
    i, j : int
        Dates.
    wavelength : float
        m.

    Returns
    -------
    numpy.ndarray, shape (rows, columns)
        rad, positive for range increase: more delay looks like motion away.
    """
    apparent = displacement[j] - displacement[i] - (delay[j] - delay[i])
    return displacement_to_phase(apparent, wavelength)


def assemble(
    *,
    grid: GeoBox,
    dates: PairedDates,
    orbit: np.ndarray,
    layers: Mapping[str, np.ndarray],
    line_of_sight: tuple[float, float, float],
    attributes: Mapping[str, Any],
    truth: Mapping[str, np.ndarray],
    truth_attributes: Mapping[str, Any],
) -> Scene:
    """Give arrays the names, coordinates and attributes of a cube and of its truth.

    Parameters
    ----------
    grid : odc.geo.geobox.GeoBox
        Of the maps.
    dates : PairedDates
        Dates and pairs.
    orbit : numpy.ndarray, shape (dates,)
        Distance of each pass from the mean orbit, m.
    layers : mapping of str to numpy.ndarray
        ``unwrapped_phase``, ``coherence`` (pair, y, x), ``elevation`` (y, x).
    line_of_sight : (float, float, float)
        Unit vector toward the satellite.
    attributes : mapping
        Of the cube: ``wavelength`` (m), ``heading`` (degrees), ``track``.
    truth : mapping of str to numpy.ndarray
        ``displacement``, ``delay`` (time, y, x), ``velocity`` (y, x), others (y, x).
    truth_attributes : mapping
        Of the truth: ``seed`` and what else it was drawn with.

    Returns
    -------
    Scene
    """
    times, first, second = dates
    shape = (grid.shape[0], grid.shape[1])
    maps = dict(layers) | {
        f"los_{name}": np.full(shape, component, "float32")
        for name, component in zip(("east", "north", "up"), line_of_sight, strict=True)
    }
    coords = xr_coords(grid)
    pair_coords = {
        "reference_time": (PAIR, times[first].astype("datetime64[ns]")),
        "secondary_time": (PAIR, times[second].astype("datetime64[ns]")),
        "perpendicular_baseline": (PAIR, (orbit[second] - orbit[first]).astype("f4")),
    }
    cube = xr.Dataset(
        {n: (VARIABLES[n].dims, v, VARIABLES[n].attributes) for n, v in maps.items()},
        coords=coords | pair_coords,
        attrs={"crs": str(grid.crs), **attributes},
    )
    known = {n: v.attributes for n, v in VARIABLES.items()} | TRUTH_ATTRIBUTES
    truths = xr.Dataset(
        {
            n: ((TIME, Y, X) if v.ndim == 3 else (Y, X), v, known.get(n, {}))
            for n, v in truth.items()
        },
        coords=coords | {TIME: times},
        attrs={**truth_attributes, "wavelength": attributes["wavelength"]},
    )
    return Scene(cube, truths)
