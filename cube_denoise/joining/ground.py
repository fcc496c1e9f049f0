"""How the ground moves by others than radar: stations, fields, a plate.

Layout of velocities of points: an `xarray.Dataset` with ``east``, ``north``, ``up`` and
``east_std``, ``north_std``, ``up_std`` of dim ``station``, m/yr, and ``longitude`` and
``latitude``, degrees. Without a vertical velocity, up is 0 with `UP_STD`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import xarray as xr
from scipy.interpolate import RBFInterpolator
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cube_denoise.evaluate.gnss import COMPONENTS, STATION

UP_STD = 3e-3
"""m/yr: of a vertical velocity that nobody measured."""
SPACING = 50.0
"""km between points that are taken from a field or a plate: closer ones tell little
more, since what errs in one errs in the next."""
FOLDS = 10
"""Parts of the stations that are left out in turn to see how well the others tell them.
"""
MANY = 500
"""Stations above which the spline at a place is of the `NEIGHBOURS` next to it."""
NEIGHBOURS = 50
TOGETHER = 1.0
"""km: stations closer than that are one."""
REACH = 300.0
"""km around frames from which stations are taken; see `Stations.near`."""
KILOMETRES_PER_DEGREE = 111.32
"""Of latitude."""
LEAST_STD = 1e-5
"""m/yr, of a station, where stations are weighed against each other."""
EARTH_RADIUS = 6_371_000.0
"""m"""


class Ground(Protocol):
    """Velocities of the ground."""

    def at(
        self, longitude: np.ndarray, latitude: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """East, north, up and their standard deviations, m/yr, shapes (..., 3)."""
        ...

    def points(self, bounds: tuple[float, ...]) -> xr.Dataset:
        """Points to tie frames to, within west, south, east, north in degrees."""
        ...

    def near(self, bounds: tuple[float, ...]) -> "Ground":
        """What of it matters within west, south, east, north in degrees."""
        ...

    @property
    def told(self) -> str:
        """What velocities that are tied to it are relative to."""
        ...


@dataclass(frozen=True)
class Stations:
    """GNSS stations; between them a thin-plate spline of the horizontal components.

    Stations within `TOGETHER` of each other are taken as one with the weighted mean of
    their velocities, so that no gradient is made of their errors.

    Raises
    ------
    ValueError
        If fewer than three are left, or all are on a line.
    """

    velocities: xr.Dataset
    """The layout of this module."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "velocities", self._merged())
        places = self._places - self._places.mean(0)
        number = len(places)
        if number < 3 or np.linalg.matrix_rank(places, tol=TOGETHER) < 2:
            line = " on one line" if number > 2 else ""
            raise ValueError(
                f"GNSS stations are at {number} places{line}: give three or more that "
                f"are {TOGETHER:g} km apart, not all on one line"
            )

    def points(self, bounds: tuple[float, ...]) -> xr.Dataset:
        """See `Ground`."""
        return _within(self.velocities, bounds)

    def near(self, bounds: tuple[float, ...]) -> "Stations":
        """Stations within `REACH`, and no fewer than the `NEIGHBOURS` next.

        What stations elsewhere do, and how well they tell each other, is of no matter.
        """
        west, south, east, north = bounds
        lon, lat = (self.velocities[n].values for n in ("longitude", "latitude"))
        shrink = math.cos(math.radians((south + north) / 2))
        beside = _turned(lon - (west + east) / 2)
        away = np.maximum(np.abs(beside) - (east - west) / 2, 0) * shrink
        beyond = np.maximum(np.maximum(south - lat, lat - north), 0)
        distance = KILOMETRES_PER_DEGREE * np.hypot(away, beyond)
        least = np.sort(distance)[min(NEIGHBOURS, distance.size) - 1]
        kept = distance <= max(REACH, least)
        return Stations(self.velocities.isel({STATION: kept}))

    def at(
        self, longitude: np.ndarray, latitude: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Ground`: up is 0 with `UP_STD`.

        The variance is the mean one of the stations and what the spline misses of
        stations that it is not given, this times the square of the distance to the
        nearest station over the usual one where that is farther.
        """
        shape = np.shape(longitude)
        where = self._kilometres(np.ravel(longitude), np.ravel(latitude))
        values = np.zeros((len(where), 3))
        values[:, :2] = self._spline(where)
        near = self._tree.query(where)[0] / self._usual
        variance = (
            self._variance[None]
            + self._missed[None] * np.maximum(1, near[:, None]) ** 2
        )
        std = np.full((len(where), 3), UP_STD)
        std[:, :2] = np.sqrt(variance)
        return values.reshape(*shape, 3), std.reshape(*shape, 3)

    @property
    def told(self) -> str:
        """See `Ground`."""
        count = self.velocities.sizes[STATION]
        return f"velocities of {count} GNSS stations, in their reference frame"

    def _merged(self) -> xr.Dataset:
        """Stations, those within `TOGETHER` as one."""
        found = self.velocities
        near = cKDTree(self._kilometres(*_degrees(found))).query_pairs(TOGETHER)
        if not near:
            return found
        a, b = np.array(sorted(near)).T
        count = found.sizes[STATION]
        graph = coo_array((np.ones(a.size), (a, b)), shape=(count, count))
        _, label = connected_components(graph, directed=False)
        _, first = np.unique(label, return_index=True)
        merged = found.isel({STATION: np.sort(first)}).copy(deep=True)
        for k, leader in enumerate(np.sort(first)):
            mine = label == label[leader]
            for name in COMPONENTS:
                std = np.maximum(found[f"{name}_std"].values[mine], LEAST_STD)
                weights = std**-2
                mean = np.average(found[name].values[mine], weights=weights)
                merged[name].values[k] = mean
                merged[f"{name}_std"].values[k] = weights.sum() ** -0.5
        return merged

    @cached_property
    def _places(self) -> np.ndarray:
        return self._kilometres(*_degrees(self.velocities))

    @cached_property
    def _horizontal(self) -> np.ndarray:
        return np.stack([self.velocities[n].values for n in COMPONENTS[:2]], 1)

    @cached_property
    def _variance(self) -> np.ndarray:
        stds = [self.velocities[f"{n}_std"].values for n in COMPONENTS[:2]]
        return np.array([np.mean(s**2) for s in stds])

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._places)

    @cached_property
    def _usual(self) -> float:
        """Median distance from a station to the next, km."""
        distance, _ = self._tree.query(self._places, k=2)
        return float(np.median(distance[:, 1])) or 1.0

    @cached_property
    def _spline(self) -> RBFInterpolator:
        return self._fit(np.ones(len(self._places), bool))

    def _fit(self, used: np.ndarray) -> RBFInterpolator:
        return RBFInterpolator(
            self._places[used],
            self._horizontal[used],
            kernel="thin_plate_spline",
            neighbors=NEIGHBOURS if used.sum() > MANY else None,
        )

    @cached_property
    def _missed(self) -> np.ndarray:
        """Mean square of what the spline misses at stations left out, (m/yr)^2."""
        number = np.arange(len(self._places))
        squares = []
        for fold in range(min(FOLDS, number.size)):
            out = number % FOLDS == fold
            if (~out).sum() >= 3:
                told = self._fit(~out)(self._places[out])
                squares.append((told - self._horizontal[out]) ** 2)
        return np.concatenate(squares).mean(0) if squares else np.zeros(2)

    def _kilometres(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """East and north on a map about the middle of the stations."""
        longitudes, latitudes = _degrees(self.velocities)
        shrink = math.cos(math.radians(float(np.mean(latitudes))))
        around = np.exp(1j * np.radians(longitudes)).mean()
        middle = math.degrees(math.atan2(around.imag, around.real))
        return (
            np.stack([_turned(lon - middle) * shrink, lat], -1) * KILOMETRES_PER_DEGREE
        )


def _degrees(points: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    return points["longitude"].values, points["latitude"].values


def _turned(longitude: np.ndarray) -> np.ndarray:
    """Longitudes between -180 and 180 degrees."""
    return (longitude + 180.0) % 360.0 - 180.0


@dataclass(frozen=True)
class Field:
    """Horizontal velocities on a grid of longitudes and latitudes, interpolated."""

    maps: xr.Dataset
    """``east`` and ``north`` of dims (latitude, longitude), m/yr; increasing."""
    std: float
    """m/yr, of either component."""

    def points(self, bounds: tuple[float, ...]) -> xr.Dataset:
        """See `Ground`: one point every `SPACING`, or one in the middle."""
        return _within(_grid_points(self, _overlap(bounds, self._bounds)), bounds)

    def near(self, bounds: tuple[float, ...]) -> "Field":
        """See `Ground`: all of it."""
        return self

    @property
    def told(self) -> str:
        """See `Ground`."""
        return "a grid of GNSS velocities, in its reference frame"

    @property
    def _bounds(self) -> tuple[float, ...]:
        lon, lat = self.maps["longitude"].values, self.maps["latitude"].values
        return float(lon[0]), float(lat[0]), float(lon[-1]), float(lat[-1])

    def at(
        self, longitude: np.ndarray, latitude: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Ground`: NaN outside the field."""
        where = {
            "longitude": xr.DataArray(np.asarray(longitude)),
            "latitude": xr.DataArray(np.asarray(latitude)),
        }
        told = self.maps.interp(where)
        east, north = told["east"].values, told["north"].values
        values = np.stack([east, north, np.zeros_like(east)], -1)
        std = np.broadcast_to([self.std, self.std, UP_STD], values.shape)
        return values, np.where(np.isfinite(values), std, np.nan)


@dataclass(frozen=True)
class Plate:
    """A rigid plate: it turns about a pole, and the ground with it."""

    latitude: float
    """Of the pole, degrees."""
    longitude: float
    rate: float
    """Degrees in a million years, positive counter-clockwise seen from above."""
    std: float
    """m/yr, of what the ground moves beside."""

    def points(self, bounds: tuple[float, ...]) -> xr.Dataset:
        """See `Ground`: one point every `SPACING`, or one in the middle."""
        return _grid_points(self, bounds)

    def near(self, bounds: tuple[float, ...]) -> "Plate":
        """See `Ground`: all of it."""
        return self

    @property
    def told(self) -> str:
        """See `Ground`."""
        return (
            f"a plate that turns by {self.rate:g} degrees in a million years about "
            f"latitude {self.latitude:g}, longitude {self.longitude:g}"
        )

    def at(
        self, longitude: np.ndarray, latitude: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Ground`: the cross product of pole and place, on a sphere."""
        lon, lat = np.radians(longitude), np.radians(latitude)
        pole_lon, pole_lat = math.radians(self.longitude), math.radians(self.latitude)
        speed = math.radians(self.rate) / 1e6 * EARTH_RADIUS
        apart = lon - pole_lon
        east = np.sin(pole_lat) * np.cos(lat) - np.cos(pole_lat) * np.sin(lat) * np.cos(
            apart
        )
        north = np.cos(pole_lat) * np.sin(apart)
        values = speed * np.stack([east, north, np.zeros_like(east)], -1)
        return values, np.broadcast_to([self.std, self.std, UP_STD], values.shape)


def _grid_points(ground: Ground, bounds: tuple[float, ...]) -> xr.Dataset:
    """Points every `SPACING` on a lattice anchored at 0, with the ground's velocity.

    The middle where bounds hold none.
    """
    west, south, east, north = bounds
    dy = SPACING / KILOMETRES_PER_DEGREE
    dx = dy / math.cos(math.radians((south + north) / 2))
    lon = np.arange(math.ceil(west / dx), math.floor(east / dx) + 1) * dx
    lat = np.arange(math.ceil(south / dy), math.floor(north / dy) + 1) * dy
    lon, lat = (v.ravel() for v in np.meshgrid(lon, lat))
    if not lon.size:
        lon, lat = np.array([(west + east) / 2]), np.array([(south + north) / 2])
    return layout(lon, lat, *ground.at(lon, lat))


def layout(
    lon: np.ndarray, lat: np.ndarray, values: np.ndarray, std: np.ndarray
) -> xr.Dataset:
    """The layout of this module; points without a value are left out."""
    there = np.isfinite(values).all(-1) & np.isfinite(std).all(-1)
    columns = {n: values[there, k] for k, n in enumerate(COMPONENTS)}
    columns |= {f"{n}_std": std[there, k] for k, n in enumerate(COMPONENTS)}
    found = xr.Dataset(
        {n: (STATION, v, {"units": "m year-1"}) for n, v in columns.items()},
        {"longitude": (STATION, lon[there]), "latitude": (STATION, lat[there])},
    )
    return found


def _within(points: xr.Dataset, bounds: tuple[float, ...]) -> xr.Dataset:
    west, south, east, north = bounds
    lon, lat = points["longitude"].values, points["latitude"].values
    inside = (west <= lon) & (lon <= east) & (south <= lat) & (lat <= north)
    return points.isel({STATION: inside})


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    low = [max(a, b) for a, b in zip(one[:2], other[:2], strict=True)]
    high = [min(a, b) for a, b in zip(one[2:], other[2:], strict=True)]
    return (*low, *high)
