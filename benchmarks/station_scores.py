"""What a method leaves at GNSS stations, beside the truth."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from benchmarks.atmosphere import RESAMPLES
from benchmarks.station_stacks import RADAR_DAYS, StationStack
from cube_denoise.conventions import TIME
from cube_denoise.evaluate.gnss import STATION
from cube_denoise.evaluate.scores import amplitude_slope, false_alarm
from cube_denoise.evaluate.station_misfit import StationMisfit, station_misfit
from cube_denoise.evaluate.stations import compare_with_stations


class AtStations(NamedTuple):
    """What one method leaves at the stations of one stack, the reference not counted.

    In mm.
    """

    misfit: StationMisfit
    """To GNSS."""
    by_station: dict[str, float]
    """Mean absolute difference to GNSS at each station."""
    error: float
    """Mean absolute difference to the true displacement."""
    slope: float
    """Of the estimated on the true displacement; NaN at rest."""
    alarm: float
    """99th percentile of the magnitude at rest; NaN where something moves."""


def at_stations(displacement: xr.DataArray, stack: StationStack) -> AtStations:
    """Compare an inverted stack with its stations, and with the truth there.

    Parameters
    ----------
    displacement : xarray.DataArray, dims (time, y, x)
        m, positive toward the satellite, as of `invert`.
    stack : StationStack
    """
    found, true = (
        _less_reference(d, stack)
        for d in (displacement, stack.scene.truth["displacement"])
    )
    insar, gnss, truth = (
        1e3 * a.transpose(STATION, TIME).values
        for a in (found["insar"], found["gnss"], true["insar"])
    )
    truth = np.where(np.isfinite(insar), truth, np.nan)
    truth -= np.nanmean(truth, 1, keepdims=True)
    each = {
        str(name): station_misfit(insar[k : k + 1], gnss[k : k + 1]).avg
        for k, name in enumerate(found[STATION].values)
        if np.isfinite(insar[k]).any()
    }
    moves = stack.amplitude > 0
    return AtStations(
        station_misfit(insar, gnss),
        each,
        station_misfit(insar, truth).avg,
        amplitude_slope(insar, truth) if moves else float("nan"),
        float("nan") if moves else false_alarm(insar),
    )


def _less_reference(displacement: xr.DataArray, stack: StationStack) -> xr.Dataset:
    """Radar and GNSS relative to the first station, at all others."""
    names = stack.stations[STATION].values
    compared = compare_with_stations(
        displacement, stack.stations, reference_station=names[0], window_days=RADAR_DAYS
    )
    return compared.sel({STATION: names[1:]})


def lowered(own: np.ndarray, raw: np.ndarray) -> tuple[float, float, float]:
    """Percent by which a mean over stacks is lowered, and its 95 % interval.

    Parameters
    ----------
    own, raw : numpy.ndarray, shape (stacks,)
        Of the method, and of the raw pairs of the same stacks.

    Returns
    -------
    value, low, high : float
        The interval is a bootstrap over stacks.
    """
    drawn = np.random.default_rng(0).integers(own.size, size=(RESAMPLES, own.size))
    values = 100 * (1 - own[drawn].mean(1) / raw[drawn].mean(1))
    low, high = np.quantile(values, (0.025, 0.975))
    return float(100 * (1 - own.mean() / raw.mean())), float(low), float(high)
