"""Names, units and signs that hold everywhere.

* An interferometric pair is (reference, secondary) = (earlier, later).
* ``unwrapped_phase`` is in radians, positive for range increase (motion away from
  the satellite, or more delay on the later date).
* ``displacement`` is in metres, positive toward the satellite.
* NaN means no data; zero is a value.
* A year has 365.25 days.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import xarray as xr

PAIR, TIME, Y, X = "pair", "time", "y", "x"
CORRECTION_TIME = "correction_time"
"""Dates of the pairs that were corrected; ``time`` are those that were inverted."""
TIMES = (TIME, CORRECTION_TIME)
PARAMETER = "parameter"
CHECKPOINT = "checkpoint"

SECONDS_PER_YEAR = 365.25 * 86400.0
SPEED_OF_LIGHT = 299_792_458.0
SENTINEL1_WAVELENGTH = 0.05546576
"""Radar wavelength of Sentinel-1, m."""

QUANTILE_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Levels of the five-number summary kept of every pair (`phase_quantiles`)."""


@dataclass(frozen=True)
class Variable:
    """One variable of the cube: what it is called, stored as and measured in."""

    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    comment: str = ""

    @property
    def attributes(self) -> dict[str, str]:
        """CF attributes, as stored on disk."""
        found = {"long_name": self.long_name, "units": self.units}
        return found | ({"comment": self.comment} if self.comment else {})


_AWAY = "positive = range increase (away from the satellite); later minus earlier date"
_TOWARD = "positive = toward the satellite, along the line of sight"
_UNIT_VECTOR = "unit vector from the ground to the satellite"

VARIABLES: dict[str, Variable] = {
    "unwrapped_phase": Variable(
        (PAIR, Y, X), "float32", "rad", "unwrapped interferometric phase", _AWAY
    ),
    "coherence": Variable(
        (PAIR, Y, X), "float32", "1", "interferometric coherence magnitude"
    ),
    "corrected_phase": Variable(
        (PAIR, Y, X),
        "float32",
        "rad",
        "unwrapped phase with the estimated atmosphere removed",
        _AWAY,
    ),
    "perpendicular_baseline": Variable(
        (PAIR,), "float32", "m", "perpendicular baseline, secondary minus reference"
    ),
    "phase_quantiles": Variable(
        (PAIR, "quantile"),
        "float32",
        "rad",
        "minimum, quartiles and maximum of the unwrapped phase of the pair",
        "what networks normalise with; of a fixed subsample where the pair is large",
    ),
    "valid_fraction": Variable(
        (PAIR,), "float32", "1", "fraction of pixels of the pair that hold data"
    ),
    "correction_status": Variable(
        (PAIR,),
        "uint8",
        "1",
        "what was done to the pair: 0 nothing yet, 1 corrected, "
        "2 passed through uncorrected because most of it is missing",
    ),
    "correction_std": Variable(
        (CORRECTION_TIME, Y, X),
        "float32",
        "m",
        "standard deviation of the displacement of the date after correction",
        "as the network that corrected states it; up to a constant per date and pixel",
    ),
    "correction_trend_share": Variable(
        (Y, X),
        "float32",
        "1",
        "part of the variance of correction_std that is of a trend in time",
        "as the network that corrected states it; raises velocity_std",
    ),
    "displacement": Variable(
        (TIME, Y, X), "float32", "m", "line-of-sight displacement", _TOWARD
    ),
    "displacement_std": Variable(
        (TIME, Y, X),
        "float32",
        "m",
        "standard deviation of displacement from decorrelation of the pairs",
        "relative to the reference date and pixel by pixel; without atmosphere and "
        "reference area; NaN where pairs are not redundant",
    ),
    "velocity": Variable(
        (Y, X), "float32", "m year-1", "line-of-sight velocity", _TOWARD
    ),
    "velocity_std": Variable(
        (Y, X), "float32", "m year-1", "standard deviation of velocity"
    ),
    "temporal_coherence": Variable(
        (Y, X), "float32", "1", "temporal coherence of the network inversion"
    ),
    "residual_rms": Variable(
        (Y, X), "float32", "rad", "root mean square of the pair residuals"
    ),
    "closure_rms": Variable(
        (Y, X),
        "float32",
        "rad",
        "root mean square closure of the triplets",
        "of the phases inverted, before unwrapping errors are treated",
    ),
    "unwrapping_error_count": Variable(
        (Y, X),
        "int32",
        "1",
        "number of pairs corrected by whole cycles or left out for their closure",
    ),
    "model_parameters": Variable(
        (PARAMETER, Y, X),
        "float32",
        "1",
        "parameters of the time model",
        "names and units are in the attributes names and parameter_units",
    ),
    "pair_count": Variable(
        (Y, X), "int32", "1", "number of pairs used in the inversion"
    ),
    "gap_count": Variable(
        (Y, X),
        "int32",
        "1",
        "number of dates that no chain of pairs links to the reference date",
        "-1 = pixel without data",
    ),
    "inversion_state": Variable(
        (CHECKPOINT, "state", Y, X),
        "float64",
        "1",
        "what an inversion needs to know of the pairs before a date",
        "of use to updates alone; see cube_denoise.inversion.continuation",
    ),
    "inversion_drift": Variable(
        (Y, X),
        "float32",
        "m",
        "most that displacement may differ from that of a full inversion, beside "
        "rounding: sum of the changes that updates did not write",
    ),
    "inverted_pairs": Variable(
        ("inverted", "record"),
        "float64",
        "1",
        "pairs of the last inversion",
        "dates (seconds since 1970), mark of the data, phase of the reference area",
    ),
    "elevation": Variable(
        (Y, X), "float32", "m", "height of the ground above the reference of the DEM"
    ),
    "los_east": Variable((Y, X), "float32", "1", "east component", _UNIT_VECTOR),
    "los_north": Variable((Y, X), "float32", "1", "north component", _UNIT_VECTOR),
    "los_up": Variable((Y, X), "float32", "1", "up component", _UNIT_VECTOR),
}

_Array = TypeVar("_Array", float, np.ndarray, xr.DataArray)


def phase_to_displacement(phase: _Array, wavelength: float) -> _Array:
    r"""Line-of-sight displacement of an unwrapped phase.

    .. math:: d = -\frac{\lambda}{4\pi}\,\varphi

    Parameters
    ----------
    phase : float or array
        rad, positive for range increase.
    wavelength : float
        Radar wavelength, m.

    Returns
    -------
    float or array
        m, positive toward the satellite.

    Examples
    --------
    >>> round(phase_to_displacement(2 * 3.141592653589793, 0.05546576), 6)
    -0.027733
    """
    return _in("m", phase * (-wavelength / (4 * np.pi)))


def displacement_to_phase(displacement: _Array, wavelength: float) -> _Array:
    """Unwrapped phase (rad) of a displacement (m): `phase_to_displacement` undone."""
    return _in("rad", displacement * (-4 * np.pi / wavelength))


def _in(units: str, values: _Array) -> _Array:
    """Values with the unit they are in now, not that of what they were made of."""
    if isinstance(values, xr.DataArray):
        return values.drop_attrs(deep=False).assign_attrs(units=units)
    return values


def los_unit_vector(incidence: Any, heading: float) -> tuple[Any, Any, Any]:
    """Unit vector from the ground to a right-looking satellite.

    Parameters
    ----------
    incidence : float or array
        Incidence angle from the vertical, degrees.
    heading : float
        Flight direction, degrees clockwise from north (about -12 for an ascending,
        -168 for a descending Sentinel-1 pass).

    Returns
    -------
    east, north, up : float or array
        Components; ``displacement = east * u_e + north * u_n + up * u_u``.

    Examples
    --------
    >>> east, north, up = los_unit_vector(39.0, -12.0)
    >>> bool(east < 0 and up > 0.7)
    True
    """
    inc, az = np.deg2rad(incidence), np.deg2rad(heading)
    return -np.sin(inc) * np.cos(az), np.sin(inc) * np.sin(az), np.cos(inc)


def pair_label(cube: xr.Dataset, k: int) -> str:
    """Name of pair `k` of a cube, its dates as ``20180106-20180130``."""
    dates = (cube[n].values[k] for n in ("reference_time", "secondary_time"))
    return "-".join(str(d.astype("datetime64[D]")).replace("-", "") for d in dates)


def years_since(times: Any, origin: Any) -> np.ndarray:
    """Times as years of 365.25 days after `origin`, float64."""
    delta = np.asarray(times, "datetime64[s]") - np.datetime64(origin, "s")
    return delta.astype("int64") / SECONDS_PER_YEAR
