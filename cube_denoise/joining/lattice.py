"""Frames summed up on one lattice: means over squares of a few kilometres."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from odc.geo.crs import CRS
from pyproj import Transformer

from cube_denoise.conventions import X, Y
from cube_denoise.joining.frames import LOOK, MAPS, Frame, checked

METRES_PER_DEGREE = 111_320.0
"""Of latitude."""
POSTING, CELL = 2_000.0, 20_000.0
"""m: side of a square of the lattice, and of the cells that make one equation each."""
_STRIDE = 1 << 31


@dataclass(frozen=True)
class Lattice:
    """Squares of a map, anchored at its origin: the same whatever frames there are.

    A geographic map has squares of so many degrees of latitude and longitude.
    """

    crs: CRS
    posting: float = POSTING
    """Side of a square, m."""
    cell: float = CELL
    """Side of a cell, m; a whole number of squares."""

    def __post_init__(self) -> None:
        if not 0 < self.posting <= self.cell:
            raise ValueError(
                f"posting={self.posting} must be positive, at most cell={self.cell} m"
            )
        if self.per_cell * self.posting != self.cell:
            raise ValueError(
                f"cell={self.cell} must be a multiple of posting={self.posting}, m"
            )

    @property
    def per_cell(self) -> int:
        """Squares along a side of a cell."""
        return round(self.cell / self.posting)

    @property
    def step(self) -> float:
        """Side of a square in units of the map."""
        return self.posting / (METRES_PER_DEGREE if self.crs.geographic else 1.0)

    def keys(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Number of the square that holds each point of the map, int64."""
        column, row = (np.floor(v / self.step).astype("int64") for v in (x, y))
        return (row + _STRIDE // 2) * _STRIDE + column + _STRIDE // 2

    def place(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of squares."""
        return keys // _STRIDE - _STRIDE // 2, keys % _STRIDE - _STRIDE // 2

    def centres(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates x, y of the centres of squares."""
        row, column = self.place(keys)
        return (column + 0.5) * self.step, (row + 0.5) * self.step

    def cells(self, keys: np.ndarray) -> np.ndarray:
        """Number of the cell that holds each square, int64."""
        row, column = (v // self.per_cell for v in self.place(keys))
        return (row + _STRIDE // 2) * _STRIDE + column + _STRIDE // 2

    def around(self, key: int, squares: int) -> np.ndarray:
        """Numbers of the squares up to so many from one."""
        steps = np.arange(-squares, squares + 1)
        return (key + steps[:, None] * _STRIDE + steps).ravel()

    def degrees(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude of points of the map."""
        if self.crs.geographic:
            return x, y
        to = Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        return to.transform(x, y)

    def in_space(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Positions of points of the map, m, shape (n, 3).

        Their straight distances are those on the ground: of a geographic map those of
        a sphere's chords.
        """
        if not self.crs.geographic:
            return np.stack([x, y, np.zeros_like(x)], -1)
        radius = math.degrees(METRES_PER_DEGREE)
        lon, lat = np.radians(x), np.radians(y)
        around = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
        return radius * np.stack(around, -1)

    def of_degrees(
        self, longitude: np.ndarray, latitude: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points of the map, x and y, of longitudes and latitudes."""
        if self.crs.geographic:
            return longitude, latitude
        to = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)
        return to.transform(longitude, latitude)


@dataclass(frozen=True)
class Summary:
    """A frame on the lattice: means over the pixels of every square that hold data."""

    frame: Frame
    keys: np.ndarray
    """Squares, increasing, shape (squares,)."""
    count: np.ndarray
    """Pixels in each."""
    velocity: np.ndarray
    """m/yr."""
    variance: np.ndarray
    """Mean of the squared standard deviations, (m/yr)^2."""
    look: np.ndarray
    """Mean look vector, shape (squares, 3)."""

    @property
    def name(self) -> str:
        """Of the frame."""
        return self.frame.name


def summarise(frame: Frame, lattice: Lattice) -> Summary:
    """Look through a frame window by window and sum it up.

    Parameters
    ----------
    frame : Frame
    lattice : Lattice

    Returns
    -------
    Summary
        Does not depend on the windows but for rounding.

    Raises
    ------
    ValueError
        If the frame holds no data or what it says cannot be (`frames.checked`).
    """
    assert frame.grid.crs is not None
    to = None
    if frame.grid.crs != lattice.crs:
        to = Transformer.from_crs(frame.grid.crs, lattice.crs, always_xy=True)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for window in frame.windows():
        maps = checked(frame, frame.maps.read(window))
        rows, columns = np.nonzero(np.isfinite(maps["velocity"]))
        if not rows.size:
            continue
        x, y = frame.grid.affine * (
            columns + window[X].start + 0.5,
            rows + window[Y].start + 0.5,
        )
        if to is not None:
            x, y = to.transform(x, y)
        squares = lattice.keys(np.asarray(x), np.asarray(y))
        keys, inverse = np.unique(squares, return_inverse=True)
        values = {n: maps[n][rows, columns].astype("float64") for n in MAPS}
        columns_ = [
            np.ones(rows.size),
            values["velocity"],
            values["velocity_std"] ** 2,
            *(values[n] for n in LOOK),
        ]
        sums = [np.bincount(inverse, c, keys.size) for c in columns_]
        parts.append((keys, np.stack(sums, 1)))
    if not parts:
        raise ValueError(f"frame {frame.name!r} has no pixel with data")
    squares = np.concatenate([k for k, _ in parts])
    keys, inverse = np.unique(squares, return_inverse=True)
    stacked = np.concatenate([s for _, s in parts])
    total = np.stack([np.bincount(inverse, c, keys.size) for c in stacked.T], 1)
    count = total[:, 0]
    means = total[:, 1:] / count[:, None]
    return Summary(frame, keys, count, means[:, 0], means[:, 1], means[:, 2:])


@dataclass(frozen=True)
class Basis:
    """What an offset or a ramp of a frame is made of: 1, and x and y from its centre.

    x and y are in 100 km, so that a coefficient of a ramp is m/yr on 100 km.
    """

    lattice: Lattice
    centre: tuple[float, float]
    """x and y in units of the map."""
    order: int
    """0 = an offset, 1 = and a ramp."""

    @classmethod
    def of(cls, summary: Summary, lattice: Lattice, order: int) -> "Basis":
        """Of a frame: its centre is the mean of its squares."""
        x, y = lattice.centres(summary.keys)
        return cls(lattice, (float(x.mean()), float(y.mean())), order)

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return 1 + 2 * self.order

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Values at points of the map, shape (..., size)."""
        x, y = np.broadcast_arrays(x, y)
        if not self.order:
            return np.ones((*x.shape, 1))
        metres = np.array([1.0, 1.0])
        if self.lattice.crs.geographic:
            shrink = math.cos(math.radians(self.centre[1]))
            metres = METRES_PER_DEGREE * np.array([shrink, 1.0])
        east = (x - self.centre[0]) * metres[0] / 1e5
        north = (y - self.centre[1]) * metres[1] / 1e5
        return np.stack([np.ones(x.shape), east, north], -1)


def common(one: Summary, other: Summary) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the squares that two frames share, in each."""
    _, first, second = np.intersect1d(
        one.keys, other.keys, assume_unique=True, return_indices=True
    )
    return first, second


def meeting(summaries: Sequence[Summary], lattice: Lattice) -> list[tuple[int, int]]:
    """Pairs of frames, by position, that hold data in the same cell, in order."""
    cells = [np.unique(lattice.cells(s.keys)) for s in summaries]
    frame = np.repeat(np.arange(len(cells)), [c.size for c in cells])
    cell = np.concatenate(cells)
    order = np.lexsort((frame, cell))
    cuts = np.flatnonzero(np.diff(cell[order])) + 1
    groups = np.split(frame[order], cuts)
    return sorted({p for g in groups for p in combinations(g.tolist(), 2)})


def extent(summaries: Sequence[Summary], lattice: Lattice) -> tuple[float, ...]:
    """West, south, east, north of all frames in degrees."""
    keys = np.unique(np.concatenate([s.keys for s in summaries]))
    lon, lat = lattice.degrees(*lattice.centres(keys))
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())
