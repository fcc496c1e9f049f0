import numpy as np
import pytest
import rasterio
import xarray as xr

from cube_denoise.catalog import search, write_catalog
from cube_denoise.conventions import SENTINEL1_WAVELENGTH, los_unit_vector
from cube_denoise.products import find_products, read_hyp3
from cube_denoise.simulate.hyp3 import write_hyp3_products


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    rows, columns = 30, 40
    phase = rng.normal(0, 3, (3, rows, columns))
    phase[:, :2] = np.nan
    phase[0, 5, 5] = 0.0
    grid = np.ones((rows, columns))
    east, north, up = los_unit_vector(39.0, -12.5)
    times = np.array(["2020-01-01", "2020-01-13", "2020-02-06"], "datetime64[s]")
    times = times + np.timedelta64(47_530, "s")
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase),
            "coherence": (("pair", "y", "x"), rng.uniform(0.1, 1, phase.shape)),
            "elevation": (("y", "x"), rng.uniform(0, 900, grid.shape)),
            "los_east": (("y", "x"), east * grid),
            "los_north": (("y", "x"), north * grid),
            "los_up": (("y", "x"), up * grid),
        },
        coords={
            "reference_time": ("pair", times[[0, 0, 1]]),
            "secondary_time": ("pair", times[[1, 2, 2]]),
            "perpendicular_baseline": ("pair", [12.25, -80.0, 3.0]),
            "x": 400_040.0 + 80 * np.arange(columns),
            "y": 4_100_040.0 - 80 * np.arange(rows),
        },
        attrs={
            "crs": "EPSG:32613",
            "wavelength": SENTINEL1_WAVELENGTH,
            "heading": -12.5,
            "track": "A049",
        },
    )


def read(asset):
    with rasterio.open(asset.href) as source:
        data = source.read(1)
        assert source.profile["tiled"]
        assert source.profile["compress"] == "deflate"
    return np.where(data == asset.nodata, np.nan, data)


def test_what_goes_in_comes_out(scene, tmp_path):
    folders = write_hyp3_products(scene, tmp_path)
    assert len({f.name for f in folders}) == 3
    for index, folder in enumerate(folders):
        pair = scene.isel(pair=index)
        found = read_hyp3(folder)
        for name in ("reference_time", "secondary_time"):
            moment = getattr(found, name).replace(tzinfo=None)
            assert np.datetime64(moment) == pair[name].values
        assert found.perpendicular_baseline == pair["perpendicular_baseline"]
        assert found.track == "A049"
        assert found.heading == -12.5
        assert found.incidence_angle == pytest.approx(39.0)
        assert found.wavelength == SENTINEL1_WAVELENGTH
        assert found.crs == "EPSG:32613"
        assert found.transform == (80.0, 0.0, 400_000.0, 0.0, -80.0, 4_100_080.0)
        assert found.phase_sign == 1
        phase = read(found.assets["unwrapped_phase"])
        np.testing.assert_allclose(
            phase, pair["unwrapped_phase"], rtol=1e-6, atol=1e-30
        )
        np.testing.assert_allclose(
            read(found.assets["coherence"]), pair["coherence"], rtol=1e-6
        )
        theta = read(found.assets["look_elevation"])
        phi = read(found.assets["look_orientation"])
        np.testing.assert_allclose(
            np.cos(theta) * np.cos(phi), scene["los_east"], rtol=1e-6
        )
        np.testing.assert_allclose(
            np.cos(theta) * np.sin(phi), scene["los_north"], rtol=1e-5
        )
        np.testing.assert_allclose(np.sin(theta), scene["los_up"], rtol=1e-6)


@pytest.mark.parametrize("track", ["A001", "D175", "D088"])
def test_every_track_survives(scene, tmp_path, track):
    folder, *_ = write_hyp3_products(scene.assign_attrs(track=track), tmp_path)
    assert read_hyp3(folder).track == track


def test_south_up_scene_gives_the_same_rasters(scene, tmp_path):
    one = read_hyp3(write_hyp3_products(scene, tmp_path / "a")[0])
    flipped = scene.isel(y=slice(None, None, -1))
    other = read_hyp3(write_hyp3_products(flipped, tmp_path / "b")[0])
    assert one.transform == other.transform
    np.testing.assert_array_equal(
        read(one.assets["unwrapped_phase"]), read(other.assets["unwrapped_phase"])
    )


def test_products_to_catalog_to_search(scene, tmp_path):
    write_hyp3_products(scene, tmp_path / "products")
    written, unreadable = find_products(tmp_path / "products")
    assert not unreadable
    catalog = write_catalog(written, tmp_path)
    assert search(catalog, orbit="A049") == written
    assert search(catalog, orbit="D049") == []
    west, south, east, north = -106.12, 37.0, -106.07, 37.06
    assert len(search(catalog, bbox=(west, south, east, north))) == 3


def test_bad_scenes_are_refused(scene, tmp_path):
    with pytest.raises(ValueError, match=r"wavelength=0.2.*Sentinel-1"):
        write_hyp3_products(scene.assign_attrs(wavelength=0.2), tmp_path)
    with pytest.raises(ValueError, match="relative orbit of 1 to 175"):
        write_hyp3_products(scene.assign_attrs(track="A300"), tmp_path)
    late = scene["reference_time"] + np.timedelta64(500, "ms")
    with pytest.raises(ValueError, match=r"reference_time=.* must be a whole second"):
        write_hyp3_products(scene.assign_coords(reference_time=late), tmp_path)
