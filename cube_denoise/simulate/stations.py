"""GNSS stations on a simulated stack, whose motion agrees with its line of sight."""

from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  registers the accessor
import scipy.fft
import xarray as xr
from pyproj import Transformer

from cube_denoise.conventions import TIME, X, Y, years_since

_LOS = ("los_east", "los_north", "los_up")


def simulate_stations(
    displacement: xr.DataArray,
    line_of_sight: xr.Dataset,
    *,
    count: int,
    times: Any = None,
    horizontal_std: float = 0.002,
    vertical_std: float = 0.006,
    across_rate: float = 0.01,
    generator: np.random.Generator,
) -> xr.Dataset:
    r"""Series of GNSS stations at random pixels of a stack with known truth.

    .. math:: u(t) = d(t)\, l + v\,(t - t_0)\, m + \varepsilon(t),
              \quad m \perp l

    so that without noise the projection on the line of sight l is exactly the true
    displacement d, while east, north and up are not known from it: each station also
    moves at a random rate v in a random direction m that the radar does not see. Half
    of the variance of the noise is white, half is flicker noise (power ~ 1/f from the
    daily to twice the span), independent for components and stations.

    Parameters
    ----------
    displacement : xarray.DataArray, dims (time, y, x)
        True line-of-sight displacement, m, positive toward the satellite, NaN = no
        data; with a CRS that odc-geo finds.
    line_of_sight : xarray.Dataset
        ``los_east``, ``los_north``, ``los_up`` (y, x), unit vector from the ground to
        the satellite, on the same grid, such as the simulated cube.
    count : int
        Number of stations, at the centres of as many pixels that have data on all
        dates.
    times : array_like of datetime64, optional
        When the stations report, rising, such as every day; truth is linear between its
        dates. The dates of `displacement` when not given.
    horizontal_std, vertical_std : float
        Standard deviation of the noise of east and north, and of up, m.
    across_rate : float
        Standard deviation of v, m/yr.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    xarray.Dataset, dims (station, time)
        ``east``, ``north``, ``up`` and ``east_std``, ``north_std``, ``up_std``, m;
        ``longitude`` and ``latitude`` of ``station``, degrees.

    Raises
    ------
    ValueError
        If the grids differ, there is no CRS, too few pixels have data, the times are
        outside those of the displacement or do not rise, or a standard deviation is
        negative.
    """
    for name, value in (
        ("horizontal_std", horizontal_std),
        ("vertical_std", vertical_std),
        ("across_rate", across_rate),
    ):
        if not value >= 0:
            raise ValueError(f"{name}={value} must not be negative")
    displacement = displacement.transpose(TIME, Y, X)
    if displacement.odc.crs is None:
        raise ValueError(
            "displacement has no CRS: give it one, e.g. odc.assign_crs('EPSG:32613')"
        )
    when = _checked_times(times, displacement[TIME].values)
    vector = xr.concat([line_of_sight[n] for n in _LOS], "component")
    vector = vector.transpose("component", Y, X)
    if vector.shape[1:] != displacement.shape[1:] or not all(
        np.array_equal(vector[n], displacement[n]) for n in (Y, X)
    ):
        raise ValueError(
            f"line_of_sight of shape {vector.shape[1:]} must be on the grid of "
            f"displacement, {displacement.shape[1:]}"
        )
    valid = displacement.notnull().all(TIME).values
    valid &= vector.notnull().all("component").values
    if not 1 <= count <= valid.sum():
        raise ValueError(
            f"{count=} must be from 1 to {valid.sum()}, the pixels with data on all "
            "dates"
        )
    chosen = generator.choice(np.flatnonzero(valid), count, replace=False)
    row, column = (
        xr.DataArray(k, dims="station") for k in np.divmod(chosen, valid.shape[1])
    )
    los = vector.isel({Y: row, X: column}).transpose("station", "component").values
    truth = displacement.isel({Y: row, X: column}).transpose("station", TIME).values

    dates = displacement[TIME].values
    days, known = (365.25 * years_since(t, dates[0]) for t in (when, dates))
    along = np.stack([np.interp(days, known, one) for one in truth])
    across = np.cross(los, generator.standard_normal((count, 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    rate = generator.normal(0, across_rate, count) / 365.25
    motion = along[:, None] * los[:, :, None]
    motion += (rate[:, None] * across)[:, :, None] * days
    stds = {"east": horizontal_std, "north": horizontal_std, "up": vertical_std}
    noise = _unit_noise(days, (count, 3), generator)
    motion += np.array(list(stds.values()))[:, None] * noise
    to_degrees = Transformer.from_crs(
        displacement.odc.crs.proj, "EPSG:4326", always_xy=True
    )
    longitude, latitude = to_degrees.transform(
        displacement[X].values[column], displacement[Y].values[row]
    )
    dims, metres = ("station", TIME), {"units": "m"}
    return xr.Dataset(
        {n: (dims, motion[:, k], metres) for k, n in enumerate(stds)}
        | {
            f"{n}_std": (dims, np.full((count, len(when)), std), metres)
            for n, std in stds.items()
        },
        coords={
            "station": [f"S{k:03d}" for k in range(1, count + 1)],
            TIME: when.astype("datetime64[ns]"),
            "longitude": ("station", longitude, {"units": "degrees_east"}),
            "latitude": ("station", latitude, {"units": "degrees_north"}),
        },
    )


def _checked_times(times: Any, dates: np.ndarray) -> np.ndarray:
    """When stations report: `dates` if not given."""
    when = dates if times is None else np.asarray(times, "datetime64[ns]")
    if not (np.diff(when) > np.timedelta64(0)).all():
        raise ValueError(f"times={when} must rise")
    if not len(when) or when[0] < dates[0] or when[-1] > dates[-1]:
        raise ValueError(
            f"times={when} must lie within those of displacement, {dates[0]} to "
            f"{dates[-1]}"
        )
    return when


def _unit_noise(
    days: np.ndarray, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    """White plus flicker noise of unit variance, shape (*shape, times).

    Flicker noise is made for every day of a record twice as long.
    """
    index = np.round(days - days[0]).astype(int)
    length = scipy.fft.next_fast_len(2 * (int(index[-1]) + 1), real=True)
    frequency = np.abs(scipy.fft.fftfreq(length))
    power = np.zeros(length)
    power[1:] = 1 / frequency[1:]
    power /= power.mean()
    white = scipy.fft.fft(generator.standard_normal((*shape, length)))
    flicker = scipy.fft.ifft(white * np.sqrt(power)).real[..., index]
    return np.asarray(
        np.sqrt(0.5) * (flicker + generator.standard_normal((*shape, len(days))))
    )
