"""Maps of a cube as cloud-optimised GeoTIFF.

`store.export_zarr` writes plain Zarr, `mintpy_export` the files of MintPy.
"""

import logging
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
from cube_denoise.conventions import TIME, TIMES, X, Y
from cube_denoise.export_folder import ExportFolder
from cube_denoise.grid import geobox_of

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
) -> list[Path | str]:
    """Write maps of a cube as cloud-optimised GeoTIFF, one file per variable.

    Parameters
    ----------
    cube : xarray.Dataset
        As `store.open_cube` gives it; read window by window.
    folder : str or pathlib.Path
        Local path, made if it is not there, or ``s3://``, ``gs://``, ``az://``
        (`places.bucket`); the files are ``VARIABLE.tif``.
    variables : sequence of str
        Variables on (y, x), or on (time, y, x) or (correction_time, y, x): one band per
        date. float32, NaN = no data, units and signs those of the cube.
    overwrite : bool
        Replace files that are there.

    Returns
    -------
    list of pathlib.Path, or of str in a bucket
        The files, in the order of `variables`. Each appears when it is whole.

    Raises
    ------
    ValueError
        If a variable is not in the cube or not a map, the cube has no CRS, a file is
        there already, or the place cannot be reached.
    """
    if isinstance(variables, str):
        variables = (variables,)
    for name in variables:
        if name not in cube.data_vars:
            raise ValueError(
                f"{variables=}: the cube has no {name!r}, only "
                f"{', '.join(map(str, cube.data_vars))}"
            )
        if tuple(cube[name].dims) not in ((Y, X), *((d, Y, X) for d in TIMES)):
            raise ValueError(
                f"{variables=}: {name!r} has dims {cube[name].dims} and must have "
                f"({Y}, {X}) or ({TIME}, {Y}, {X})"
            )
    grid = geobox_of(cube)
    names = [f"{name}.tif" for name in variables]
    target = ExportFolder(folder)
    target.check(names, overwrite=overwrite)
    try:
        for name, file in zip(variables, names, strict=True):
            with target.writing(file) as path:
                dates = {d: TIME for d in TIMES if d in cube[name].dims}
                _write(cube[name].rename(dates), grid, path, dict(cube.attrs))
            log.info("wrote %s", target.place(file))
    except RasterioError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{target.place(file)} cannot be written: {reason}") from error
    return [target.place(file) for file in names]


def _write(
    array: xr.DataArray, grid: GeoBox, target: Path, cube_attributes: dict[str, Any]
) -> None:
    """Fill a tiled file window by window, beside the target, and copy it as COG."""
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
    plain = target.with_suffix(".plain.tif")
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
        target,
        driver="COG",
        compress="deflate",
        predictor=3,
        blocksize=BLOCK,
        # Whatever the correlation of errors, that of a mean is no larger.
        overview_resampling="rms" if "_std" in str(array.name) else "average",
        bigtiff="if_safer",
    )


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
