"""A cube as the page asks of it."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from cube_denoise import store
from cube_denoise.blocks import BlockJob
from cube_denoise.conventions import TIME, X, Y
from cube_denoise.grid import grid_of
from cube_denoise.pixel_series import (
    is_corrected,
    pixel_series,
    raw_inversion,
    raw_series,
)
from cube_denoise.view.source import (
    DISPLACEMENT,
    LINE_OF_SIGHT,
    MM,
    UNCERTAINTY,
    VELOCITY,
    Picture,
    Point,
    Series,
    picture_of,
    pixel_at,
    place_facts,
    rate_text,
    series_of,
)
from cube_denoise.view.window import View, Window, extent, find_window, read

VARIABLES = {
    VELOCITY: "velocity",
    UNCERTAINTY: "velocity_std",
    DISPLACEMENT: "displacement",
}
KEPT_BYTES = 64 << 20
"""Of the displacement that is kept for the next date."""


class CubeSource:
    """A cube: maps of its velocity and of its dates, series of its pixels.

    Parameters
    ----------
    url : str or pathlib.Path
        The cube.
    branch : str
        Branch to read.
    snapshot : str, optional
        Id of an older state to read instead of the branch's newest.
    title : str, optional
        Else the track.

    Raises
    ------
    ValueError
        If there is no such cube, branch or snapshot, or it is not inverted yet.
    """

    frames: tuple[str, ...] = ()
    components: tuple[str, ...] = (LINE_OF_SIGHT,)
    since = ""

    def __init__(
        self,
        url: str | Path,
        *,
        branch: str = "main",
        snapshot: str | None = None,
        title: str | None = None,
    ) -> None:
        self.cube = store.open_cube(url, branch=branch, snapshot=snapshot)
        if "velocity" not in self.cube:
            raise ValueError(
                f"{str(url)!r} has no velocity to show on branch {branch!r}: run "
                "`cube-denoise invert` first"
            )
        self.grid = grid_of(self.cube.attrs)
        self.kinds = tuple(k for k, name in VARIABLES.items() if name in self.cube)
        shown = DISPLACEMENT in self.kinds
        times = self.cube[TIME].values if shown else np.empty(0, "datetime64[s]")
        self.dates = times.astype("datetime64[s]")
        track = self.cube.attrs.get("track")
        self.title = title or (f"Track {track}" if track else Path(str(url)).name)
        where = f"snapshot {snapshot}" if snapshot else f"branch {branch}"
        self.subtitle = f"{url}, {where}"
        if shown:
            first, last = (str(t)[:10] for t in (self.dates[0], self.dates[-1]))
            self.subtitle += f", {self.dates.size} dates from {first} to {last}"
            zero = str(self.cube["displacement"].attrs.get("reference_time", ""))[:10]
            self.since = f" since {zero}" if zero else ""
        self.reference = _reference(self.cube, self.grid)
        self.has_raw = is_corrected(self.cube)
        self._kept: tuple[Window, range, np.ndarray] | None = None
        self._lock = Lock()

    def picture(
        self, kind: str, component: str, view: View, *, date: int = -1
    ) -> Picture | None:
        """Map of a kind, for a view; None where the view shows nothing of it."""
        window = find_window([self.grid], view)
        if window is None:
            return None
        if kind == DISPLACEMENT:
            values = self._displacement(window, range(self.dates.size)[date])
        else:
            array = self.cube[VARIABLES[kind]]
            values = read(array, window, squares=kind == UNCERTAINTY)
        return picture_of(values, self.grid, window)

    def _displacement(self, window: Window, date: int) -> np.ndarray:
        """Displacement at a date; its neighbours are in the same chunks, and kept."""
        with self._lock:
            kept = self._kept
            if kept is None or kept[0] != window or date not in kept[1]:
                size = store.SERIES_DATES
                while size > 1 and 4 * size * np.prod(window.shape) > KEPT_BYTES:
                    size //= 2
                start = date // size * size
                dates = range(start, min(start + size, self.dates.size))
                part = self.cube["displacement"][dates.start : dates.stop]
                self._kept = kept = window, dates, read(part, window)
            _, dates, values = kept
            found: np.ndarray = values[date - dates.start]
            return found

    def point(self, x: float, y: float) -> Point:
        """Facts and series of the pixel that a place (map coordinates) falls in."""
        facts = place_facts(self.grid, x, y)
        index = pixel_at(self.grid, x, y)
        if index is None:
            return Point(facts | {"Velocity": "outside the map"})
        row, column = index
        facts["Pixel"] = f"row {row}, column {column}"
        there = [n for n in ("velocity", "velocity_std") if n in self.cube]
        rates = self.cube[there].isel({Y: row, X: column}).compute()
        facts["Velocity"] = rate_text(*(float(rates[n]) * MM for n in there))
        if not self.dates.size:
            return Point(facts)
        pixel = pixel_series(self.cube, row, column)
        label = "corrected" if self.has_raw else "displacement"
        found = None if pixel is None else series_of(pixel, label)
        known = 0 if found is None else found.times.size
        facts["Dates"] = f"{known} of {self.dates.size}"
        return Point(facts, [] if found is None else [found])

    def raw(self, x: float, y: float) -> Series | None:
        """Invert the raw pairs of a pixel as the corrected ones were."""
        index = pixel_at(self.grid, x, y)
        if index is None or not self.has_raw:
            return None
        row, column = index
        found = series_of(raw_series(self.cube, self._inversion, row, column), "raw")
        # Its dates scatter by the atmosphere: a band of decorrelation says little.
        return None if found is None else replace(found, bands=())

    @cached_property
    def _inversion(self) -> BlockJob:
        return raw_inversion(self.cube)

    def frame(self, name: str) -> "CubeSource":
        """Raise: a cube is one frame."""
        raise ValueError(f"frame={name!r}: a cube has no frames")


def _reference(
    cube: xr.Dataset, grid: GeoBox
) -> tuple[float, float, float, float] | None:
    """Left, right, bottom, top of the reference area, if it is known."""
    told = cube["velocity"].attrs
    if "reference_rows" not in told:
        return None
    rows, columns = (slice(*told[f"reference_{n}"]) for n in ("rows", "columns"))
    return extent(grid, Window(0, rows, columns, 1))
