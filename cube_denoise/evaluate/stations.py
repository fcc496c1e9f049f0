"""Radar maps at GNSS stations: project, sample, put side by side."""

import warnings
from typing import TypeVar

import numpy as np
import xarray as xr

from cube_denoise.conventions import PAIR, TIME, X, Y
from cube_denoise.evaluate.gnss import SERIES, STATION

_Maps = TypeVar("_Maps", xr.Dataset, xr.DataArray)


def project_on_line_of_sight(
    stations: xr.Dataset,
    los_east: float | np.ndarray | xr.DataArray,
    los_north: float | np.ndarray | xr.DataArray,
    los_up: float | np.ndarray | xr.DataArray,
) -> xr.Dataset:
    r"""Displacement of stations along the line of sight, as a radar would see it.

    .. math:: d = l_e u_e + l_n u_n + l_u u_u, \quad
        \sigma^2 = l_e^2 \sigma_e^2 + l_n^2 \sigma_n^2 + l_u^2 \sigma_u^2

    Correlations between the components, small in daily solutions, are left out of the
    standard deviation.

    Parameters
    ----------
    stations : xarray.Dataset, dims (station, time)
        The layout of `gnss`, m.
    los_east, los_north, los_up : float, array or xarray.DataArray, dims (station,)
        Unit vector from the ground to the satellite (`conventions`), the same
        everywhere or at each station, as `sample_at_stations` gives them: of
        DataArrays only the stations that both have are kept.

    Returns
    -------
    xarray.Dataset, dims (station, time)
        `stations` with ``los`` and ``los_std``, m, positive toward the satellite; NaN
        where a component has no data.

    Raises
    ------
    ValueError
        If the vectors are not unit vectors, have another number of stations or none in
        common, or a component of `stations` is missing or not in metres.
    """
    for name in SERIES:
        unit = stations[name].attrs.get("units", "m") if name in stations else None
        if unit != "m":
            raise ValueError(
                f"stations must have {name} in m, found "
                f"{'no such variable' if unit is None else f'the unit {unit!r}'}"
            )
    count = stations.sizes[STATION]
    east, north, up = (
        _at_stations(part, count) for part in (los_east, los_north, los_up)
    )
    length = np.sqrt((east**2 + north**2 + up**2).values)
    if not np.allclose(length, 1, atol=0.01):
        raise ValueError(
            f"the line of sight has lengths {np.round(length, 3).tolist()}: "
            "los_east, los_north, los_up must be a unit vector at every station"
        )
    los = east * stations["east"] + north * stations["north"] + up * stations["up"]
    variance = (east * stations["east_std"]) ** 2 + (
        (north * stations["north_std"]) ** 2 + (up * stations["up_std"]) ** 2
    )
    if not los.sizes[STATION]:
        raise ValueError(
            "the line of sight and the stations "
            f"{', '.join(stations[STATION].values)} have none in common"
        )
    told = {"units": "m", "comment": "positive = toward the satellite"}
    projected = {
        "los": los.transpose(STATION, TIME).assign_attrs(told),
        "los_std": (variance**0.5).transpose(STATION, TIME).assign_attrs(units="m"),
    }
    return stations.sel({STATION: los[STATION]}).assign(projected)


def _at_stations(part: float | np.ndarray | xr.DataArray, count: int) -> xr.DataArray:
    """One component of the line of sight, dims () or (station,), float64."""
    if not isinstance(part, xr.DataArray):
        part = np.asarray(part)
        if part.shape not in ((), (count,)):
            raise ValueError(
                f"a line-of-sight component has shape {part.shape}: it must be one "
                f"number or {count}, one a station"
            )
        part = xr.DataArray(part, dims=[STATION][: part.ndim])
    return part.astype("float64").reset_coords(drop=True)


def sample_at_stations(maps: _Maps, stations: xr.Dataset, *, window: int = 5) -> _Maps:
    """Values of maps at stations: the median of the valid pixels around each.

    Parameters
    ----------
    maps : xarray.Dataset or xarray.DataArray, dims (..., y, x)
        A cube, some of its variables or a map, with x, y and a CRS that odc-geo finds.
        Variables of a Dataset without y and x are left out.
    stations : xarray.Dataset
        With ``longitude`` and ``latitude`` (station), degrees.
    window : int
        Side of the square of pixels around the pixel of a station, odd; cut at the
        edge of the grid. 3 to 5 is customary.

    Returns
    -------
    xarray.Dataset or xarray.DataArray, dims (station, ...)
        Like `maps`; only the stations inside the grid, NaN where no pixel of the window
        is valid.

    Raises
    ------
    ValueError
        If `window` is not odd and positive, there is no CRS, a station has no position,
        none is inside the grid, or no window holds any data.

    Warns
    -----
    UserWarning
        Names the stations outside the grid, which are left out.
    """
    return _sample(maps, stations, window)


def _sample(maps: _Maps, stations: xr.Dataset, window: int) -> _Maps:
    """`sample_at_stations`; the warning names the caller of the function that calls."""
    if window < 1 or window % 2 == 0:
        raise ValueError(f"{window=} must be an odd number of pixels")
    if isinstance(maps, xr.Dataset):
        maps = maps[[n for n in maps.data_vars if {Y, X} <= set(maps[n].dims)]]
    row, column = _pixels_of(maps, stations)
    inside = (row >= 0) & (row < maps.sizes[Y])
    inside &= (column >= 0) & (column < maps.sizes[X])
    names = stations[STATION].values
    if not inside.any():
        raise ValueError(f"none of the stations {', '.join(names)} is inside the grid")
    if not inside.all():
        warnings.warn(
            f"stations outside the grid are left out: {', '.join(names[~inside])}",
            stacklevel=3,
        )
    half = window // 2
    medians = []
    for r, c in zip(row[inside].astype(int), column[inside].astype(int), strict=True):
        near = {
            Y: slice(max(r - half, 0), r + half + 1),
            X: slice(max(c - half, 0), c + half + 1),
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
            medians.append(maps.isel(near).compute().median((Y, X), keep_attrs=True))
    place = stations[["longitude", "latitude"]].isel({STATION: inside})
    sampled = xr.concat(
        medians, dim=place[STATION], coords="minimal", compat="override"
    ).assign_coords(place.coords)
    arrays = (
        sampled.data_vars.values() if isinstance(sampled, xr.Dataset) else [sampled]
    )
    if not any(np.isfinite(array).any() for array in arrays):
        raise ValueError(
            f"no pixel within {window} x {window} px of the stations "
            f"{', '.join(names[inside])} holds data"
        )
    return sampled


def _pixels_of(
    maps: xr.Dataset | xr.DataArray, stations: xr.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the pixel that holds each station, float, may lie outside."""
    import odc.geo.xr  # noqa: F401  (the .odc accessor)
    from pyproj import Transformer

    grid = maps.odc.geobox if {Y, X} <= set(maps.dims) else None
    if grid is None or grid.crs is None:
        raise ValueError("maps must have y, x and a CRS, e.g. maps.odc.assign_crs")
    if not stations.sizes.get(STATION, 0):
        raise ValueError("stations holds no station")
    longitude, latitude = (stations[n].values for n in ("longitude", "latitude"))
    placed = np.isfinite(longitude) & np.isfinite(latitude)
    if not placed.all():
        lost = ", ".join(stations[STATION].values[~placed])
        raise ValueError(f"the stations {lost} have no longitude and latitude")
    transformer = Transformer.from_crs("EPSG:4326", str(grid.crs), always_xy=True)
    x, y = transformer.transform(longitude, latitude)
    if grid.crs.geographic:
        bounds = grid.boundingbox
        x = x - 360 * np.round((x - (bounds.left + bounds.right) / 2) / 360)
    column, row = grid.wld2pix(x, y)
    return np.floor(row), np.floor(column)


def compare_with_stations(
    displacement: xr.DataArray,
    stations: xr.Dataset,
    *,
    reference_station: str | None = None,
    window_days: float = 3.0,
    window: int = 5,
) -> xr.Dataset:
    """Displacement of a radar and of GNSS stations, side by side.

    GNSS is averaged over the solutions within `window_days` of each acquisition. Of a
    series both are known up to a constant: its mean over the dates at which both have
    data is removed at each station.

    Parameters
    ----------
    displacement : xarray.DataArray, dims (time, y, x) or (pair, y, x)
        m, positive toward the satellite, NaN = no data; pairs with the coordinates
        ``reference_time`` and ``secondary_time``, later minus earlier. The unit in its
        attributes must be m; without one it is taken to be.
    stations : xarray.Dataset, dims (station, time)
        With ``los`` and ``los_std``, m (`project_on_line_of_sight`).
    reference_station : str, optional
        Station whose displacement is subtracted from all, at each date or pair. Without
        one the constant of each pair remains: only the scores with the mean over
        stations removed have a meaning then, unless the pairs share a reference area at
        rest.
    window_days : float
        Half width of the average in time, days.
    window : int
        As in `sample_at_stations`.

    Returns
    -------
    xarray.Dataset, dims (station, time) or (station, pair)
        ``insar``, ``gnss`` and ``gnss_std`` (of the average, as if the errors of its
        days were independent), m; NaN where either has no data.

    Raises
    ------
    ValueError
        If something of the above is missing, units are not m, the reference station is
        not among the stations inside the grid, or there is no date and station at which
        both have data.

    Warns
    -----
    UserWarning
        Names the stations outside the grid, which are left out.
    """
    kind = next((d for d in (TIME, PAIR) if d in displacement.dims), None)
    if kind is None or set(displacement.dims) != {kind, Y, X}:
        raise ValueError(
            f"displacement has dims {displacement.dims}: they must be (time, y, x) or "
            "(pair, y, x)"
        )
    unit = displacement.attrs.get("units", "m")
    if unit != "m":
        raise ValueError(
            f"displacement has the unit {unit!r}: it must be m, positive toward the "
            "satellite (conventions.phase_to_displacement, then units m)"
        )
    times = ("reference_time", "secondary_time") if kind == PAIR else (TIME,)
    if missing := [n for n in times if n not in displacement.coords]:
        raise ValueError(f"displacement has no coordinate {' and '.join(missing)}")
    if absent := [n for n in ("los", "los_std") if n not in stations]:
        raise ValueError(
            f"stations has no {' and '.join(absent)}: project_on_line_of_sight first"
        )
    sampled = _sample(displacement, stations, window).drop_attrs(deep=False)
    insar = sampled.astype("float64").transpose(STATION, kind)
    if reference_station not in (None, *insar[STATION].values):
        raise ValueError(
            f"{reference_station=} must be one of the stations inside the grid, "
            f"{', '.join(insar[STATION].values)}"
        )
    stations = stations.sel({STATION: insar[STATION]})
    mean, spread = _average(stations, insar[times[-1]].values, window_days)
    if kind == PAIR:
        before, more = _average(stations, insar[times[0]].values, window_days)
        mean, spread = mean - before, spread + more
    if not np.isfinite(mean).any():
        raise ValueError(
            f"no GNSS solution is within {window_days=} of the acquisitions: stations "
            f"{_span(stations[TIME].values)}, radar "
            f"{_span(np.concatenate([insar[n].values for n in times]))}"
        )
    gnss, variance = insar.copy(data=mean), insar.copy(data=spread)
    if reference_station is not None:
        at = {STATION: reference_station}
        insar, gnss = (a - a.sel(at, drop=True) for a in (insar, gnss))
        others = variance[STATION] != reference_station
        variance = (variance + variance.sel(at, drop=True)).where(others, 0.0)
    both = insar.notnull() & gnss.notnull()
    if kind == TIME:
        both &= both.sum(TIME) > 1  # a date alone is nothing but its constant
    if not both.any():
        raise ValueError(
            "radar and GNSS have data together at no station and "
            f"{'pair' if kind == PAIR else 'two dates'}"
        )
    insar, gnss = insar.where(both), gnss.where(both)
    if kind == TIME:
        insar, gnss = insar - insar.mean(TIME), gnss - gnss.mean(TIME)
    found = {"insar": insar, "gnss": gnss, "gnss_std": (variance**0.5).where(both)}
    return xr.Dataset(
        {name: array.assign_attrs(units="m") for name, array in found.items()},
        attrs={"reference_station": reference_station or "none"},
    )


def _average(
    stations: xr.Dataset, moments: np.ndarray, window_days: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of ``los`` around moments and its variance, shape (station, moment)."""
    time = stations[TIME].values.astype("datetime64[ns]")
    apart = np.abs(time - moments.astype("datetime64[ns]")[:, None])
    near = (apart <= np.timedelta64(round(window_days * 86400e9), "ns")).astype(float)
    los = stations["los"].transpose(STATION, TIME).values
    std = stations["los_std"].transpose(STATION, TIME).values
    valid = np.isfinite(los)
    count = valid.astype(float) @ near.T
    count[count == 0] = np.nan
    unknown = (valid & ~np.isfinite(std)).astype(float) @ near.T > 0
    spread = np.where(valid, np.nan_to_num(std), 0) ** 2 @ near.T / count**2
    mean = np.where(valid, los, 0) @ near.T / count
    return mean, np.where(unknown, np.nan, spread)


def _span(times: np.ndarray) -> str:
    days = times.astype("datetime64[D]")
    return f"{days.min()} to {days.max()}"
