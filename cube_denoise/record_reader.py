"""Rasters of one interferogram, read as windows of a cube's grid."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from cube_denoise import file_parts, hdf5_access, store
from cube_denoise.conventions import X, Y
from cube_denoise.file_parts import Part
from cube_denoise.interferogram import MASKS, Asset, Interferogram
from cube_denoise.places import PlaceError, without_secrets
from cube_denoise.raster_access import opened, refusal
from cube_denoise.same_pixels import SamePixels

UNREADABLE = (RasterioError, CPLE_BaseError, ProjError, OSError)
"""What rasterio raises for a raster that is not as it should be."""
COORDINATE_TOLERANCE = 1e-4
"""Largest error of a coordinate in warping, pixels of the raster."""


class RecordReader:
    """Open rasters of one item; entered, it gives `read`."""

    def __init__(
        self, record: Interferogram, roles: Sequence[str], grid: GeoBox
    ) -> None:
        self.record, self.roles, self.grid = record, roles, grid
        self.stack = ExitStack()
        self.open: dict[str, WarpedVRT | SamePixels] = {}
        self.files: dict[str, Any] = {}

    def __enter__(self) -> Any:
        try:
            for role in self.roles:
                if role in self.record.assets:
                    self.open[role] = self._warped(self.record.assets[role])
        except UNREADABLE as error:
            self.stack.close()
            raise store.SkipTask(_one_line(error)) from error
        except BaseException:
            self.stack.close()
            raise
        return self.read

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def _warped(self, asset: Asset) -> WarpedVRT | SamePixels:
        if asset.part is not None:
            return self._part(asset, asset.part)
        raster = self.stack.enter_context(opened(asset.href))
        if raster.crs is None:
            raise store.SkipTask(f"{without_secrets(asset.href)} has no CRS")
        own = GeoBox((raster.height, raster.width), raster.transform, raster.crs)
        # Pixels that coincide are copied, others are interpolated between valid ones.
        offset = [
            (a - b) / step
            for a, b, step in (
                (own.affine.c, self.grid.affine.c, own.affine.a),
                (own.affine.f, self.grid.affine.f, own.affine.e),
            )
        ]
        aligned = (
            own.crs == self.grid.crs
            and np.allclose(
                [own.affine.a, own.affine.e], [self.grid.affine.a, self.grid.affine.e]
            )
            and all(abs(o - round(o)) < 1e-3 for o in offset)
        )
        band = asset.band
        if band > raster.count:
            shown = without_secrets(asset.href)
            raise store.SkipTask(f"{shown} has no band {band}")
        same = SamePixels.of(raster, self.grid, asset.nodata, band=band)
        if aligned and same:
            return same
        nearest = aligned or asset.role in MASKS
        assert self.grid.crs is not None
        options: dict[str, Any] = {
            "crs": self.grid.crs.to_wkt(),
            "transform": self.grid.affine,
            "height": self.grid.shape[0],
            "width": self.grid.shape[1],
            "resampling": Resampling.nearest if nearest else Resampling.bilinear,
            "nodata": np.nan,
            "dtype": "float32",
            # Left to itself GDAL chooses both anew for every block that is read: how
            # it approximates coordinates (to 1/8 pixel) and how wide it averages.
            "tolerance": COORDINATE_TOLERANCE,
            "xscale": _shrinkage(own, self.grid)[0],
            "yscale": _shrinkage(own, self.grid)[1],
        }
        if asset.nodata is not None:
            options["src_nodata"] = asset.nodata
        return self.stack.enter_context(WarpedVRT(raster, **options))

    def _part(self, asset: Asset, part: Part) -> SamePixels:
        record = self.record
        place = record.shape, Affine(*record.transform)
        raster = file_parts.image(self._file(asset.href, part), part, *place)
        same = GeoBox(*place, record.crs).crs == self.grid.crs
        found = SamePixels.of(raster, self.grid, asset.nodata) if same else None
        if found is None:
            raise store.SkipTask(f"{asset.href} is read on its own pixels alone")
        return found

    def _file(self, href: str, part: Part) -> Any:
        """Open file of a part: once, with all its parts; or the path of a flat one."""
        if part.dataset is None:
            return href
        if href not in self.files:
            opening = hdf5_access.opened(href)
            self.files[href] = self.stack.enter_context(opening)
        return self.files[href]

    def read(self, role: str, window: Mapping[str, slice]) -> np.ndarray:
        """Values on a window of the grid, float32, NaN = no data."""
        y, x = window[Y], window[X]
        if role not in self.open:
            return np.full((y.stop - y.start, x.stop - x.start), np.nan, "float32")
        where = RasterWindow(x.start, y.start, x.stop - x.start, y.stop - y.start)
        try:
            values = self.open[role].read(self.record.assets[role].band, window=where)
        except UNREADABLE as error:
            href = self.record.assets[role].href
            if reason := refusal(href, str(error)):
                raise PlaceError(reason) from None
            raise store.SkipTask(
                f"{without_secrets(href)}: {_one_line(error)}"
            ) from error
        values = values.astype("float32", copy=False)
        np.copyto(values, np.nan, where=~np.isfinite(values))
        asset = self.record.assets[role]
        if (asset.scale, asset.offset) != (1.0, 0.0):
            values = values * np.float32(asset.scale) + np.float32(asset.offset)
        return values


def _shrinkage(own: GeoBox, grid: GeoBox) -> tuple[str, str]:
    """Pixels of the grid per pixel of a raster, along x and y, at most 1."""
    assert grid.crs is not None
    near = own if own.crs == grid.crs else own.to_crs(grid.crs)
    scales = (
        near.resolution.x / grid.resolution.x,
        near.resolution.y / grid.resolution.y,
    )
    x, y = (f"{min(abs(s), 1.0):.6f}" for s in scales)
    return x, y


def _one_line(error: Exception) -> str:
    return without_secrets(" ".join(str(error).split()))[:300]
