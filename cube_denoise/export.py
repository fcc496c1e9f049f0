"""Maps of a cube as cloud-optimised GeoTIFF; `store.export_zarr` writes plain Zarr."""

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.windows import Window

from cube_denoise.blocks import spans, windows
from cube_denoise.conventions import TIME, X, Y

log = logging.getLogger(__name__)

DEFAULT = ("velocity", "velocity_std", "temporal_coherence")
"""What is written when nothing is asked for."""
BLOCK = 512
"""Pixels a side of a block of the files."""


def export_geotiff(
    cube: xr.Dataset,
    folder: str | Path,
    *,
    variables: Sequence[str] = DEFAULT,
    overwrite: bool = False,
) -> list[Path]:
    """Write maps of a cube as cloud-optimised GeoTIFF, one file per variable.

    Parameters
    ----------
    cube : xarray.Dataset
        As `store.open_cube` gives it; read window by window.
    folder : str or pathlib.Path
        Made if it is not there; the files are ``VARIABLE.tif``.
    variables : sequence of str
        Variables on (y, x), or on (time, y, x): one band per date. float32, NaN = no
        data, units and signs those of the cube.
    overwrite : bool
        Replace files that are there.

    Returns
    -------
    list of pathlib.Path
        The files, in the order of `variables`. Each appears when it is whole.

    Raises
    ------
    ValueError
        If a variable is not in the cube or not a map, the cube has no CRS, or a file
        is there already.
    """
    folder = Path(folder)
    if isinstance(variables, str):
        variables = (variables,)
    for name in variables:
        if name not in cube.data_vars:
            raise ValueError(
                f"{variables=}: the cube has no {name!r}, only "
                f"{', '.join(map(str, cube.data_vars))}"
            )
        if tuple(cube[name].dims) not in ((Y, X), (TIME, Y, X)):
            raise ValueError(
                f"{variables=}: {name!r} has dims {cube[name].dims} and must have "
                f"({Y}, {X}) or ({TIME}, {Y}, {X})"
            )
    grid = _grid(cube)
    targets = [folder / f"{name}.tif" for name in variables]
    taken = [str(p) for p in targets if p.exists()]
    if taken and not overwrite:
        raise ValueError(f"{', '.join(taken)} exists: give another folder or overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, target in zip(variables, targets, strict=True):
            _write(cube[name], grid, target, dict(cube.attrs))
            log.info("wrote %s", target)
    except RasterioError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{target} cannot be written: {reason}") from error
    return targets


def _grid(cube: xr.Dataset) -> GeoBox:
    import odc.geo.xr  # noqa: F401  (the .odc accessor)

    grid = cube.odc.geobox
    if grid is None or grid.crs is None:
        raise ValueError(
            "cube has no CRS: give it one, e.g. cube.odc.assign_crs('EPSG:32613')"
        )
    return grid


def _write(
    array: xr.DataArray, grid: GeoBox, target: Path, cube_attributes: dict[str, Any]
) -> None:
    """Fill a tiled file window by window, copy it as COG, put it in its place."""
    bands = array if TIME in array.dims else array.expand_dims(TIME)
    count, rows, columns = bands.shape
    units = str(array.attrs.get("units", ""))
    assert grid.crs is not None
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "nodata": np.nan,
        "count": count,
        "height": rows,
        "width": columns,
        "crs": grid.crs.to_wkt(),
        "transform": grid.affine,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "bigtiff": "if_safer",
    }
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".exporting-") as work:
        plain, whole = Path(work) / "plain.tif", Path(work) / "whole.tif"
        with rasterio.open(plain, "w", **profile) as raster:
            for window in windows(y=spans(rows, BLOCK), x=spans(columns, BLOCK)):
                y, x = window[Y], window[X]
                values = bands.isel(window).values.astype("float32")
                raster.write(
                    values,
                    window=Window(x.start, y.start, x.stop - x.start, y.stop - y.start),
                )
            raster.units = (units,) * count
            raster.update_tags(**_tags(array, cube_attributes))
            for band in range(count):
                raster.set_band_description(band + 1, _description(array, band))
        rasterio.shutil.copy(
            plain,
            whole,
            driver="COG",
            compress="deflate",
            predictor=3,
            blocksize=BLOCK,
            overview_resampling="average",
            bigtiff="if_safer",
        )
        os.replace(whole, target)  # noqa: PTH105


def _description(array: xr.DataArray, band: int) -> str:
    name = str(array.attrs.get("long_name", array.name))
    if TIME not in array.dims:
        return name
    return f"{name} at {str(array[TIME].values[band])[:19]}Z"


def _tags(array: xr.DataArray, cube_attributes: dict[str, Any]) -> dict[str, str]:
    """What the map is and how it was made, as text."""
    own = {k: v for k, v in array.attrs.items() if k != "grid_mapping"}
    names = ("track", "wavelength", "history")
    shared = {k: cube_attributes[k] for k in names if k in cube_attributes}
    return {k.upper(): str(v) for k, v in (shared | own).items()}
