"""What a page can ask of that which it shows, and the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import xarray as xr
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from cube_denoise.conventions import TIME, years_since
from cube_denoise.view.window import View, Window, extent, upright

VELOCITY, UNCERTAINTY, DISPLACEMENT = "Velocity", "Uncertainty", "Displacement"
"""Kinds of maps."""
UNITS = {VELOCITY: "mm/yr", UNCERTAINTY: "mm/yr", DISPLACEMENT: "mm"}
LINE_OF_SIGHT = "los"
DIRECTIONS = {
    LINE_OF_SIGHT: ("line of sight", "toward the satellite", "away from it"),
    "east": ("east", "eastward", "westward"),
    "north": ("north", "northward", "southward"),
    "up": ("up", "upward", "downward"),
}
"""Components: their name, where the positive is (blue), where the negative (red)."""
MM = 1e3
ERRORS = {
    "displacement_std": "from decorrelation",
    "correction_std": "left by the correction",
}
"""Standard deviations of the displacement: what they are of."""
DEGREES = CRS("EPSG:4326")


class Picture(NamedTuple):
    """Values of a map for one view."""

    values: np.ndarray
    """float32, mm or mm/yr, rows from the bottom up; NaN = no data."""
    extent: tuple[float, float, float, float]
    """Left, right, bottom, top; map coordinates."""
    level: int
    """How often pixels were halved: a value is that of 2^level of them a side."""
    size: float
    """Side of a value, map units."""


class Band(NamedTuple):
    """How far a series is to be trusted."""

    label: str
    std: np.ndarray
    """mm, one for each date of the series; NaN = not known."""


@dataclass(frozen=True)
class Series:
    """Displacement of a point through time."""

    label: str
    times: np.ndarray
    """datetime64[s]."""
    values: np.ndarray
    """mm, positive toward the satellite; finite."""
    rate: float
    """mm/yr; NaN = not known."""
    rate_std: float
    bands: Sequence[Band] = ()

    @property
    def line(self) -> np.ndarray:
        """The velocity as a line through the mean of the series, mm at its dates."""
        years = years_since(self.times, self.times[0])
        line: np.ndarray = self.rate * (years - years.mean()) + self.values.mean()
        return line


@dataclass(frozen=True)
class Point:
    """What is known of a point."""

    facts: Mapping[str, str]
    """Heading -> text."""
    series: Sequence[Series] = field(default=())


class Source(Protocol):
    """A cube or a product, as the page asks of it; any thread may."""

    title: str
    subtitle: str
    grid: GeoBox
    """Of the finest level."""
    kinds: tuple[str, ...]
    """Of `VELOCITY`, `UNCERTAINTY`, `DISPLACEMENT`."""
    components: tuple[str, ...]
    """Of `DIRECTIONS`."""
    dates: np.ndarray
    """Of the displacement, datetime64[s]; empty where there is none."""
    since: str
    """Text that names the date at which the displacement is 0."""
    has_raw: bool
    """Whether `raw` has an answer."""
    reference: tuple[float, float, float, float] | None
    """Left, right, bottom, top of the reference area, if there is one."""
    frames: tuple[str, ...]
    """Names of the frames of a product that are cubes."""

    def picture(
        self, kind: str, component: str, view: View, *, date: int = -1
    ) -> Picture | None:
        """Map of a kind, for a view; None where the view shows nothing of it."""

    def point(self, x: float, y: float) -> Point:
        """Facts and series at a place, map coordinates."""

    def raw(self, x: float, y: float) -> Series | None:
        """Series without correction, where that at hand is corrected; may take long."""

    def frame(self, name: str) -> "Source":
        """One of the frames."""


def series_of(pixel: xr.Dataset, label: str) -> Series | None:
    """Series of a pixel (see `pixel_series`) over the dates with data, if there are."""
    values = pixel["displacement"].values * MM
    known = np.isfinite(values)
    if not known.any():
        return None
    bands = [
        Band(f"± std {what}", pixel[name].values[known] * MM)
        for name, what in ERRORS.items()
        if name in pixel and np.isfinite(pixel[name]).any()
    ]
    rate, rate_std = (float(pixel[n]) * MM for n in ("velocity", "velocity_std"))
    times = pixel[TIME].values.astype("datetime64[s]")
    return Series(label, times[known], values[known], rate, rate_std, bands)


def picture_of(values: np.ndarray, grid: GeoBox, window: Window) -> Picture:
    """Picture of values (m or m/yr) that were read of a window of a level."""
    return Picture(
        upright(values, grid) * np.float32(MM),
        extent(grid, window),
        window.level + window.factor.bit_length() - 1,
        abs(grid.affine.a) * window.factor,
    )


def pixel_at(grid: GeoBox, x: float, y: float) -> tuple[int, int] | None:
    """Row and column of the pixel that a place falls in, if one does."""
    column, row = (int(np.floor(k)) for k in ~grid.affine * (x, y))
    inside = 0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]
    return (row, column) if inside else None


def place_facts(grid: GeoBox, x: float, y: float) -> dict[str, str]:
    """Where a place is: degrees, map coordinates."""
    lon, lat = lonlat(grid, x, y)
    sides = f"{abs(lat):.5f}° {'NS'[lat < 0]}, {abs(lon):.5f}° {'EW'[lon < 0]}"
    facts = {"Place": sides}
    if grid.crs is not None and not grid.crs.geographic:
        name = f", EPSG:{grid.crs.epsg}" if grid.crs.epsg else ""
        facts["Map"] = f"x {x:.0f}, y {y:.0f}{name}"
    return facts


def lonlat(grid: GeoBox, x: float, y: float) -> tuple[float, float]:
    """Longitude and latitude (degrees) of a place in map coordinates."""
    if grid.crs is None:
        raise ValueError("a map without CRS has no longitudes and latitudes")
    lon, lat = grid.crs.transformer_to_crs(DEGREES)(x, y)
    return float(lon), float(lat)


def rate_text(rate: float, std: float) -> str:
    """A rate with its standard deviation, mm/yr."""
    if not np.isfinite(rate):
        return "no data"
    spread = f" ± {std:.1f}" if np.isfinite(std) else ""
    return f"{rate:+.1f}{spread} mm/yr".replace("-", "−")
