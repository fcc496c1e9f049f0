"""Rasters whose pixels are those of a grid: read as they are, without warping."""

from typing import Any, Self

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from cube_denoise.file_parts import PartRaster

PLAIN = ([MaskFlags.all_valid], [MaskFlags.nodata])
"""What can say of a band that pixels are missing: nothing but a value."""
SHIFT = 1e-3
"""Pixels that a raster may lie off the grid and still count as on it."""


def place_on(grid: GeoBox, transform: Affine) -> tuple[int, int] | None:
    """Row and column of a raster where the first pixel of a grid is; None if off it.

    Parameters
    ----------
    grid : odc.geo.geobox.GeoBox
    transform : affine.Affine
        Of the raster, in the CRS of the grid.
    """
    first = ~transform * (grid.affine.c, grid.affine.f)
    rows, columns = grid.shape
    last = ~transform * (grid.affine * (columns, rows))
    drift = (last[0] - first[0] - columns, last[1] - first[1] - rows)
    if (
        any(abs(v - round(v)) >= SHIFT for v in first)
        or any(abs(v) >= 0.1 for v in drift)
        or any((transform.b, transform.d))
    ):
        return None
    return round(first[1]), round(first[0])


class SamePixels:
    """A raster as part of a larger or smaller grid; reads like a `WarpedVRT`.

    Values are, to the bit, those that warping to the nearest pixel gives.
    """

    def __init__(
        self,
        raster: rasterio.DatasetReader | PartRaster,
        row: int,
        column: int,
        nodata: float,
    ) -> None:
        self.raster, self.row, self.column = raster, row, column
        self.nodata = np.float32(nodata)

    @classmethod
    def of(
        cls,
        raster: rasterio.DatasetReader | PartRaster,
        grid: GeoBox,
        nodata: float | None,
        *,
        band: int = 1,
    ) -> Self | None:
        """The raster on a grid of its own CRS; None if it has to be warped.

        Parameters
        ----------
        raster : rasterio.DatasetReader or file_parts.PartRaster
            Open.
        grid : odc.geo.geobox.GeoBox
            Where it is to be read.
        nodata : float, optional
            Value that means no data; that of the file when not given.
        band : int
            That will be read.
        """
        place = place_on(grid, raster.transform)
        if (
            place is None
            or raster.dtypes[band - 1] != "float32"
            or raster.mask_flag_enums[band - 1] not in PLAIN
        ):
            return None
        told = raster.nodata if nodata is None else nodata
        return cls(raster, *place, np.nan if told is None else told)

    def read(self, band: int, *, window: Window) -> Any:
        """Values of a window of the grid, float32, NaN = no data."""
        top, left = self.row + window.row_off, self.column + window.col_off
        rows = slice(max(top, 0), min(top + window.height, self.raster.height))
        columns = slice(max(left, 0), min(left + window.width, self.raster.width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return np.full((window.height, window.width), np.nan, "float32")
        part = Window.from_slices(rows, columns)
        values = self.raster.read(band, window=part)
        if not np.isnan(self.nodata):
            values[_equal(values, self.nodata)] = np.nan
        if values.shape == (window.height, window.width):
            return values
        whole = np.full((window.height, window.width), np.nan, "float32")
        whole[
            rows.start - top : rows.stop - top,
            columns.start - left : columns.stop - left,
        ] = values
        return whole


def _equal(values: np.ndarray, nodata: np.float32) -> np.ndarray:
    """Equal but for the last bits of a float32, as GDAL has it."""
    epsilon = 2 * np.finfo("float32").eps
    with np.errstate(over="ignore", invalid="ignore"):
        near = np.abs(values - nodata) < epsilon * np.abs(values + nodata)
    return near | (values == nodata)
