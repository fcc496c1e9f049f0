"""Exports hold what the cube holds, readable by others, whole or not at all."""

import subprocess
import sys

import numpy as np
import pytest
import rasterio
import xarray as xr

import cube_denoise as cd
from cube_denoise import store


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    url = tmp_path_factory.mktemp("export") / "cube"
    scene = cd.simulate_scene(size=150, dates=4, seed=3)
    cd.ingest_dataset(scene.cube, url, chunk=64, shard=128)
    cd.invert_cube(url)
    return url


@pytest.fixture(scope="module")
def cube(url):
    return cd.open_cube(url, chunks={})


def test_zarr_is_read_by_xarray_alone(url, cube, tmp_path):
    cd.export_zarr(cube, tmp_path / "plain.zarr")
    code = (
        "import sys, xarray\n"
        "cube = xarray.open_zarr(sys.argv[1])\n"
        "assert not {'cube_denoise', 'icechunk'} & set(sys.modules)\n"
        "print(cube.velocity.attrs['grid_mapping'], cube.velocity.attrs['units'])\n"
        "print(cube.spatial_ref.attrs['crs_wkt'][:6], cube.attrs['items'][0]['key'])\n"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "plain.zarr")]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == [
        "spatial_ref m year-1",
        "PROJCR ['2023-01-05', '2023-01-17', 'A005']",
    ]


def test_zarr_round_trip(cube, tmp_path):
    cd.export_zarr(cube, tmp_path / "plain.zarr")
    again = xr.open_zarr(tmp_path / "plain.zarr", decode_coords="all")
    xr.testing.assert_identical(again.compute(), cube.compute())
    assert again.odc.geobox == cube.odc.geobox
    assert again.velocity.attrs["reference_rows"] == list(
        cube.velocity.attrs["reference_rows"]
    )
    assert [p.name for p in tmp_path.iterdir()] == ["plain.zarr"]


def test_zarr_asks_before_it_replaces(cube, url, tmp_path):
    target = tmp_path / "plain.zarr"
    cd.export_zarr(cube[["velocity"]], target)
    with pytest.raises(ValueError, match="exists"):
        cd.export_zarr(cube, target)
    cd.export_zarr(cube[["velocity_std"]], target, overwrite=True)
    assert set(xr.open_zarr(target).data_vars) == {"velocity_std"}
    with pytest.raises(ValueError, match="not a Zarr store"):
        cd.export_zarr(cube, url, overwrite=True)


def test_zarr_is_whole_or_not_there(cube, tmp_path):
    target = tmp_path / "plain.zarr"
    cd.export_zarr(cube[["velocity"]], target)

    def broken(*_, **__):
        raise OSError("disk full")

    bad = cube[["velocity_std"]]
    blocks = bad.velocity_std.data.map_blocks(broken, dtype="f4", meta=np.empty((0, 0)))
    bad["velocity_std"] = (("y", "x"), blocks)
    with pytest.raises(OSError, match="disk full"):
        cd.export_zarr(bad, target, overwrite=True)
    assert set(xr.open_zarr(target).data_vars) == {"velocity"}
    assert [p.name for p in tmp_path.iterdir()] == ["plain.zarr"]


def test_geotiff_round_trip(url, tmp_path):
    cube = cd.open_cube(url)
    paths = cd.export_geotiff(cube, tmp_path / "new")
    assert [p.name for p in paths] == [
        "velocity.tif",
        "velocity_std.tif",
        "temporal_coherence.tif",
    ]
    for path in paths:
        with rasterio.open(path) as raster:
            np.testing.assert_array_equal(raster.read(1), cube[path.stem].values)
            assert raster.crs.to_epsg() == 32613 and np.isnan(raster.nodata)
            assert raster.transform == cube.odc.geobox.affine
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert raster.units == (cube[path.stem].attrs["units"],)
            assert raster.descriptions == (cube[path.stem].attrs["long_name"],)
            assert raster.tags()["TRACK"] == "A005"
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(
        p.name for p in paths
    )


def test_geotiff_of_a_series_has_a_band_per_date(url, tmp_path):
    cube = cd.open_cube(url)
    (path,) = cd.export_geotiff(cube, tmp_path, variables=["displacement"])
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(), cube.displacement.values)
        assert raster.descriptions[1].endswith("2023-01-17T00:40:20Z")


def test_geotiff_larger_than_a_block_has_overviews(tmp_path):
    scene = cd.simulate_scene(size=600, dates=2, seed=0)
    truth = scene.truth.assign_attrs(scene.cube.attrs)
    (path,) = cd.export_geotiff(truth, tmp_path, variables=["velocity"])
    with rasterio.open(path) as raster:
        assert raster.overviews(1) and raster.block_shapes == [(512, 512)]
        np.testing.assert_array_equal(raster.read(1), truth.velocity.values)


def test_overviews_of_standard_deviations_are_root_mean_squares(tmp_path):
    scene = cd.simulate_scene(size=600, dates=2, seed=0)
    maps = scene.truth[["velocity"]].assign_attrs(scene.cube.attrs)
    maps["velocity_std"] = abs(maps.velocity)
    paths = cd.export_geotiff(maps, tmp_path, variables=["velocity", "velocity_std"])
    fine = maps.velocity.values.astype("float64").reshape(300, 2, 300, 2)
    for path, expected in zip(
        paths, (fine.mean((1, 3)), (fine**2).mean((1, 3)) ** 0.5), strict=True
    ):
        with rasterio.open(path, overview_level=0) as raster:
            np.testing.assert_allclose(raster.read(1), expected, rtol=1e-4, atol=1e-7)


def test_geotiff_refusals(url, tmp_path):
    cube = cd.open_cube(url)
    with pytest.raises(ValueError, match="no 'speed'"):
        cd.export_geotiff(cube, tmp_path, variables=["speed"])
    with pytest.raises(ValueError, match="has dims"):
        cd.export_geotiff(cube, tmp_path, variables=["unwrapped_phase"])
    bare = xr.Dataset({"velocity": (("y", "x"), np.zeros((4, 4), "f4"))})
    with pytest.raises(ValueError, match="no CRS"):
        cd.export_geotiff(bare, tmp_path, variables=["velocity"])
    assert not list(tmp_path.iterdir())
    (path,) = cd.export_geotiff(cube, tmp_path, variables=["velocity"])
    with pytest.raises(ValueError, match="exist"):
        cd.export_geotiff(cube, tmp_path)
    before = path.read_bytes()
    cd.export_geotiff(cube, tmp_path, variables="velocity", overwrite=True)
    assert path.read_bytes() == before


def test_a_branch_that_is_not_there(url):
    with pytest.raises(store.CubeError, match="branches main"):
        cd.open_cube(url, branch="other")
