"""Maps of a cube as cloud-optimised GeoTIFF; `store.export_zarr` writes plain Zarr."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.windows import Window

from cube_denoise import places
from cube_denoise.blocks import spans, windows
from cube_denoise.conventions import TIME, TIMES, X, Y

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
    grid = _grid(cube)
    names = [f"{name}.tif" for name in variables]
    target = _Folder(folder)
    taken = [str(target.place(n)) for n in names if n in target.present()]
    if taken and not overwrite:
        raise ValueError(f"{', '.join(taken)} exists: give another folder or overwrite")
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


class _Folder:
    """A local folder, or a prefix in a bucket, that gets whole files."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self.local = places.local_path(url)
        if self.local is None:
            places.check(url)

    def place(self, name: str) -> Path | str:
        if self.local is not None:
            return Path(self.url.removeprefix("file://")) / name
        address, mark, options = self.url.partition("?")
        return f"{address.rstrip('/')}/{name}{mark}{options}"

    def present(self) -> set[str]:
        """Names of the files that are there."""
        import obstore

        if self.local is not None:
            return {p.name for p in self.local.glob("*")}
        found = obstore.list_with_delimiter(places.object_store(self.url))
        return {entry["path"] for entry in found["objects"]}

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give a path to write to; the file is in its place when that has ended well.

        On disk the path is beside the place, so that renaming is enough.
        """
        import obstore

        if self.local is not None:
            self.local.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.local, prefix=".exporting-") as work:
            yield Path(work) / name
            if self.local is not None:
                (Path(work) / name).replace(self.local / name)
                return
            try:
                obstore.put(places.object_store(self.url), name, Path(work) / name)
            except obstore.exceptions.BaseError as error:
                raise places.unreachable(self.url, error) from None


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
        overview_resampling="average",
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
