"""A published product as the page asks of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from cube_denoise import store
from cube_denoise.conventions import X, Y
from cube_denoise.export_folder import ExportFolder
from cube_denoise.grid import grid_of
from cube_denoise.point_series import point_series
from cube_denoise.product import open_velocity
from cube_denoise.product_folder import ProductFolder
from cube_denoise.product_stac import STORE
from cube_denoise.view.cube import CubeSource
from cube_denoise.view.source import (
    DIRECTIONS,
    MM,
    UNCERTAINTY,
    VELOCITY,
    Picture,
    Point,
    Series,
    lonlat,
    picture_of,
    pixel_at,
    place_facts,
    rate_text,
    series_of,
)
from cube_denoise.view.window import View, find_window, read

VARIABLES = {VELOCITY: "velocity", UNCERTAINTY: "velocity_std"}


class ProductSource:
    """A published product: maps of any zoom, series of points from its frames.

    Parameters
    ----------
    url : str or pathlib.Path
        The product.

    Raises
    ------
    ValueError
        If there is no product.
    """

    kinds = tuple(VARIABLES)
    dates = np.empty(0, "datetime64[s]")
    since = ""
    reference: tuple[float, float, float, float] | None = None
    has_raw = False

    def __init__(self, url: str | Path) -> None:
        self._product = product = open_velocity(url)
        told = product.attrs
        folder = ExportFolder(ProductFolder(url).place(told["version"]))
        # Not as Dask arrays, since their tasks read whole shards.
        where, count = str(folder.place(STORE)), int(told["levels"])
        self.levels = [store.open_level(where, level=k) for k in range(count)]
        self.grids = [grid_of(level.attrs) for level in self.levels]
        self.grid = self.grids[0]
        there = [str(c) for c in product["component"].values]
        self.components = tuple(c for c in DIRECTIONS if c in there)
        frames = {str(f["name"]): f for f in told.get("frames", ())}
        self._cubes = {n: f for n, f in frames.items() if f.get("snapshot")}
        self._others = [n for n in frames if n not in self._cubes]
        self.frames = tuple(self._cubes)
        title = str(told.get("title") or "velocity product")
        self.title = title[:1].upper() + title[1:]
        self.subtitle = f"{url}, version {told['version']}, {len(frames)} frames"

    def picture(
        self, kind: str, component: str, view: View, *, date: int = -1
    ) -> Picture | None:
        """Map of a kind and component; None where the view shows nothing of it."""
        window = find_window(self.grids, view)
        if window is None:
            return None
        array = self.levels[window.level][VARIABLES[kind]].sel(component=component)
        values = read(array, window, squares=kind == UNCERTAINTY)
        return picture_of(values, self.grids[window.level], window)

    def point(self, x: float, y: float) -> Point:
        """Velocity of the pixel at a place, and the series of the frames there."""
        facts = place_facts(self.grid, x, y)
        index = pixel_at(self.grid, x, y)
        if index is None:
            return Point(facts | {"Velocity": "outside the map"})
        facts["Pixel"] = f"row {index[0]}, column {index[1]}"
        names = ["velocity", "velocity_std", "frame_count", "first_date", "last_date"]
        product = self.levels[0]
        there = [name for name in names if name in product]
        pixel = product[there].isel({Y: index[0], X: index[1]}).compute()
        for component in self.components:
            rate, std = (
                float(pixel[name].sel(component=component)) * MM for name in names[:2]
            )
            name = DIRECTIONS[component][0]
            facts[name.capitalize()] = rate_text(rate, std)
        facts |= _period(pixel)
        if not np.isfinite(pixel["velocity"]).any():
            return Point(facts)
        series = []
        for name, found in self._series(x, y):
            if isinstance(found, str):
                facts[f"Frame {name}"] = found
            else:
                series.append(found)
        if self._others:
            facts["Without cube"] = ", ".join(self._others)
        return Point(facts, series)

    def raw(self, x: float, y: float) -> Series | None:
        """None: the frames, one by one, show it."""
        return None

    def frame(self, name: str) -> CubeSource:
        """Cube of one of `frames`, in the state that was joined."""
        told = self._cubes[name]
        url, snapshot = told["url"], told["snapshot"]
        return CubeSource(url, snapshot=snapshot, title=f"Frame {name}")

    def _series(self, x: float, y: float) -> Iterator[tuple[str, Series | str]]:
        """Series of every frame that holds data at a place, or what prevents it."""
        lon, lat = lonlat(self.grid, x, y)
        for name in self.frames:
            try:
                found = point_series(self._product, lon, lat, frames=[name])
            except ValueError as error:
                yield name, str(error).rpartition(f"{name}: ")[2]
                continue
            for pixel in found.values():
                one = series_of(pixel, name)
                if one is not None:
                    yield name, one


def _period(pixel: xr.Dataset) -> dict[str, str]:
    """How many frames are in a pixel, and over which dates."""
    facts = {}
    if "frame_count" in pixel:
        facts["Frames"] = str(int(pixel["frame_count"]))
    if "first_date" in pixel and "last_date" in pixel:
        ends = [pixel[n].values for n in ("first_date", "last_date")]
        if not np.isnat(ends).any():
            facts["Dates"] = " to ".join(str(e)[:10] for e in ends)
    return facts
