"""A product across the date line is told, asked and shown as any other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from shapely.geometry import box, shape

import cube_denoise as cd
from cube_denoise.grid import degrees_bounds
from cube_denoise.point_series import _near

FIJI = {
    "metres": GeoBox((60, 80), Affine(1e3, 0, 8e5, 0, -1e3, 8.1e6), "EPSG:32760"),
    "degrees": GeoBox((60, 80), Affine(0.01, 0, 179.6, 0, -0.01, -17.1), "EPSG:4326"),
}


def product_on(grid: GeoBox) -> xr.Dataset:
    values = np.arange(grid.shape[0] * grid.shape[1], dtype="float32") / 1e6
    maps = {
        name: (("component", "y", "x"), values.reshape(1, *grid.shape) + offset)
        for name, offset in (("velocity", 0.0), ("velocity_std", 1e-3))
    }
    return xr.Dataset(maps, {"component": ["up"], **xr_coords(grid, dims=("y", "x"))})


@pytest.fixture(scope="module", params=FIJI)
def url(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Path:
    url: Path = tmp_path_factory.mktemp("fiji") / request.param
    cd.publish(product_on(FIJI[request.param]), url)
    return url


def test_bounds_and_outline(url: Path) -> None:
    (file,) = url.glob("*/item.json")
    item = json.loads(file.read_text())
    west, south, east, north = item["bbox"]
    assert 179 < west < 180 and -180 < east < -179 and south < north < -17
    outline = shape(item["geometry"])
    assert outline.is_valid and outline.within(box(-180, -90, 180, 90))
    sides = [
        outline.intersection(box(*b)) for b in ((0, -90, 180, 90), (-180, -90, 0, 90))
    ]
    across = (east - west) % 360
    assert sum(s.area for s in sides) == pytest.approx(
        across * (north - south), rel=0.05
    )
    assert all(s.area > 0 for s in sides)
    pystac.Item.from_dict(item)
    collection = json.loads((url / "collection.json").read_text())
    assert collection["extent"]["spatial"]["bbox"] == [item["bbox"]]


def test_regions(url: Path) -> None:
    whole = cd.open_velocity(url)
    across = cd.open_velocity(url, bbox=(179.9, -17.4, -179.9, -17.2))
    same = cd.open_velocity(url, bbox=(179.9, -17.4, 180.1, -17.2))
    xr.testing.assert_identical(across, same)
    east = cd.open_velocity(url, bbox=(-179.95, -17.4, -179.9, -17.2))
    assert 0 < east.sizes["x"] < across.sizes["x"] < whole.sizes["x"]
    assert float(east.x.max()) == float(across.x.max())
    for bbox in ((27, -17.4, 26, -17.2), (10, 10, 11, 11)):
        with pytest.raises(ValueError, match="bbox="):
            cd.open_velocity(url, bbox=bbox)


def test_profiles(url: Path) -> None:
    product = cd.open_velocity(url)
    line = cd.profile(product, [(179.9, -17.3), (-179.9, -17.3)])
    assert np.isfinite(line.velocity).all()
    assert float(line.distance[-1]) == pytest.approx(
        0.2 * 111_320 * np.cos(0.302), 1e-2
    )


def test_frames_are_asked_on_both_sides() -> None:
    for grid in FIJI.values():
        bounds = degrees_bounds(grid)
        for lon in (179.85, 179.99, 180.0, -180.0, -179.9, 180.1):
            assert _near(bounds, lon, -17.3), lon
        assert not _near(bounds, 178.0, -17.3) and not _near(bounds, -178.0, -17.3)
    assert _near((26.0, 40.0, 27.0, 41.0), 26.5, 40.5)
    assert not _near((26.0, 40.0, 27.0, 41.0), -153.5, 40.5)
    assert _near((-180, 60, 180, 90), 12.0, 80.0)


def test_bounds_around_a_pole() -> None:
    grid = GeoBox((80, 80), Affine(2e4, 0, -8e5, 0, -2e4, 8e5), "EPSG:3413")
    west, south, east, north = degrees_bounds(grid)
    assert (west, east, north) == (-180, 180, 90) and 75 < south < 85
