"""Reading pixels as they are gives what warping to the nearest pixel gives."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from cube_denoise.same_pixels import SamePixels

PLACE = Affine(80, 0, 500_000, 0, -80, 2_000_000)
SHAPE = (70, 50)


def raster(path, values, *, place=PLACE, nodata=None, **profile):
    options = {"driver": "GTiff", "count": 1, "dtype": "float32"} | profile
    with rasterio.open(
        path,
        "w",
        height=values.shape[0],
        width=values.shape[1],
        crs="EPSG:32613",
        transform=place,
        nodata=nodata,
        **options,
    ) as target:
        target.write(values.astype(options["dtype"]), 1)
    return path


def noise(nodata=None):
    random = np.random.default_rng(3)
    values = random.normal(0, 5, SHAPE).astype("float32")
    values[3:9, 4:20] = np.nan
    values[0, 0], values[0, 1] = np.inf, -np.inf
    if nodata is not None:
        near = np.nextafter(np.float32(nodata), np.float32(1))
        values[30, :3] = nodata, near, np.float32(nodata) * np.float32(1.001) + 1e-3
    return values


def warped(source, grid, window, nodata):
    with WarpedVRT(
        source,
        crs="EPSG:32613",
        transform=grid.affine,
        height=grid.shape[0],
        width=grid.shape[1],
        resampling=Resampling.nearest,
        nodata=np.nan,
        dtype="float32",
        tolerance=1e-4,
        xscale="1",
        yscale="1",
        **({} if nodata is None else {"src_nodata": nodata}),
    ) as virtual:
        return virtual.read(1, window=window)


def finite(values):
    """As the reader of pairs takes both."""
    return np.where(np.isfinite(values), values, np.nan)


@pytest.mark.parametrize("nodata", [None, 0.0, -9999.0, float("nan"), -3.4028235e38])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("down", "right"), [(0, 0), (5, 7), (-6, -11), (90, 0)])
def test_bits_are_those_of_warping(tmp_path, nodata, inside, down, right):
    """The no-data value is the file's, or told from outside."""
    number = None if nodata is None or np.isnan(nodata) else nodata
    path = raster(
        tmp_path / "a.tif",
        noise(number),
        nodata=nodata if inside else None,
        tiled=True,
        blockxsize=32,
        blockysize=32,
        compress="deflate",
    )
    told = None if inside else nodata
    shift = Affine.translation(right + 2e-4, down)
    grid = GeoBox((60, 64), PLACE * shift, "EPSG:32613")
    with rasterio.open(path) as source:
        same = SamePixels.of(source, grid, told)
        assert same is not None
        for window in (Window(0, 0, 64, 60), Window(32, 10, 32, 50)):
            found = finite(same.read(1, window=window))
            expected = finite(warped(source, grid, window, told))
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected)
        assert np.isfinite(found).any() == (down < 70)


def test_what_is_not_on_the_grid_is_warped(tmp_path):
    values = noise()
    path = raster(tmp_path / "a.tif", values)
    grid = GeoBox(SHAPE, PLACE, "EPSG:32613")

    def taken(path, place=PLACE):
        with rasterio.open(path) as source:
            return SamePixels.of(source, GeoBox(SHAPE, place, "EPSG:32613"), None)

    assert taken(path) is not None and grid.shape == SHAPE
    assert taken(path, PLACE * Affine.translation(0.3, 0)) is None
    assert taken(path, PLACE * Affine.scale(1.01)) is None
    assert taken(path, PLACE * Affine.scale(1, -1)) is None
    turned = raster(tmp_path / "b.tif", values, place=PLACE * Affine.rotation(1e-3))
    assert taken(turned) is None
    short = raster(tmp_path / "c.tif", np.nan_to_num(values, posinf=9), dtype="int16")
    assert taken(short) is None
    masked = raster(tmp_path / "d.tif", values)
    with rasterio.open(masked, "r+") as target:
        target.write_mask(np.tri(*SHAPE, dtype="uint8") * 255)
    assert taken(masked) is None
