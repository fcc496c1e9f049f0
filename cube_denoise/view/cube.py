"""A cube as the page asks of it."""

from dataclasses import fields
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from cube_denoise import store
from cube_denoise.blocks import BlockJob
from cube_denoise.conventions import CORRECTION_TIME, TIME, X, Y
from cube_denoise.grid import grid_of
from cube_denoise.inversion_window import Settings
from cube_denoise.invert import plan_inversion
from cube_denoise.reference_area import recorded_reference
from cube_denoise.view.source import (
    DISPLACEMENT,
    LINE_OF_SIGHT,
    MM,
    UNCERTAINTY,
    VELOCITY,
    Band,
    Picture,
    Point,
    Series,
    picture_of,
    pixel_at,
    place_facts,
    rate_text,
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
        self.has_raw = self.is_corrected and "unwrapped_phase" in self.cube
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
        names = [*VARIABLES.values(), "displacement_std", "correction_std"]
        there = [name for name in names if name in self.cube]
        pixel = self.cube[there].isel({Y: row, X: column}).compute()
        std = pixel.get("velocity_std", xr.DataArray(np.nan))
        rate, rate_std = float(pixel["velocity"]) * MM, float(std) * MM
        facts["Velocity"] = rate_text(rate, rate_std)
        if "displacement" not in pixel:
            return Point(facts)
        values = pixel["displacement"].values * MM
        known = np.isfinite(values)
        facts["Dates"] = f"{known.sum()} of {known.size}"
        if not known.any():
            return Point(facts)
        label = "corrected" if self.is_corrected else "displacement"
        bands = [
            Band(name, at.values[known] * MM) for name, at in _errors(pixel).items()
        ]
        times, values = self.dates[known], values[known]
        return Point(facts, [Series(label, times, values, rate, rate_std, bands)])

    @property
    def is_corrected(self) -> bool:
        """Whether the displacement is that of the corrected pairs."""
        told = self.cube["displacement"].attrs if DISPLACEMENT in self.kinds else {}
        return bool(told.get("phase_variable") == "corrected_phase")

    def raw(self, x: float, y: float) -> Series | None:
        """Invert the raw pairs of a pixel as the corrected ones were."""
        index = pixel_at(self.grid, x, y)
        if index is None or not self.has_raw:
            return None
        row, column = index
        window = {Y: slice(row, row + 1), X: slice(column, column + 1)}
        found = self._raw_plan.compute(self.cube, window)
        values = found["displacement"].ravel() * MM
        known = np.isfinite(values)
        if not known.any():
            return None
        return Series(
            "raw",
            np.asarray(self._raw_plan.coords[TIME], "datetime64[s]")[known],
            values[known],
            float(found["velocity"].item()) * MM,
            float(found["velocity_std"].item()) * MM,
        )

    @cached_property
    def _raw_plan(self) -> BlockJob:
        """Inversion of the raw pairs with what the displacement was made with."""
        told = self.cube["displacement"].attrs
        settings: dict[str, Any] = {f.name: told[f.name] for f in fields(Settings)}
        settings["reference_date"] = str(told["reference_time"])
        return plan_inversion(
            self.cube,
            reference=recorded_reference(told),
            variable="unwrapped_phase",
            **settings,
        )

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


def _errors(pixel: xr.Dataset) -> dict[str, xr.DataArray]:
    """Standard deviations of the displacement of a pixel, at its dates."""
    found = {}
    if "displacement_std" in pixel:
        found["± std from decorrelation"] = pixel["displacement_std"]
    if "correction_std" in pixel:
        own = pixel["correction_std"].rename({CORRECTION_TIME: TIME})
        found["± std left by the correction"] = own.reindex({TIME: pixel[TIME]})
    return found
