"""OPERA's displacement in: sign, moving reference, masks, look; the real GeoTIFFs."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import s3_server
import xarray as xr
from agency_products import COLUMNS, ROWS, WAVELENGTH, write_opera, write_static
from command_line import call, done, mistake
from web_site import serving

import cube_denoise as cd
from cube_denoise.catalog import from_item, to_item
from cube_denoise.conventions import los_unit_vector
from cube_denoise.opera import read_opera

PERMIAN = Path(__file__).parents[2] / "shared/data/permian-opera-disp"
needs_permian = pytest.mark.skipif(
    not PERMIAN.is_dir(), reason=f"real data not found: {PERMIAN}"
)
DATES = ("20220111", "20220123", "20220204", "20220216", "20220228")
FILES = ((0, 1), (0, 2), (2, 3), (2, 4))
"""The reference moves on to the third date."""


def series() -> np.ndarray:
    """Displacement of the dates since the first, m, positive toward the satellite."""
    random = np.random.default_rng(3)
    values = random.normal(0, 0.03, (len(DATES), ROWS, COLUMNS)).astype("float32")
    return values - values[0]


def masks() -> np.ndarray:
    """A pixel without data, of each file."""
    good = np.ones((len(FILES), ROWS, COLUMNS), bool)
    for k in range(len(FILES)):
        good[k, k, 2 * k] = False
    return good


def write_all(folder: Path) -> None:
    values, good = series(), masks()
    for k, (a, b) in enumerate(FILES):
        # By turns in the mask and in the labels: either must do.
        which = "mask" if k % 2 else "labels"
        write_opera(
            folder, DATES[a], DATES[b], values[b] - values[a], **{which: good[k]}
        )


def cube_of(place: Path | str, folder: Path, *options: object) -> xr.Dataset:
    done("index", place, "-o", folder / "catalog.json", *options)
    done("search", folder / "catalog.json", "-o", folder / "items.json")
    shapes = ("--chunk", 128, "--shard", 512)
    done("ingest", folder / "items.json", folder / "cube", *shapes)
    return cd.open_cube(folder / "cube").load()


def test_displacement_toward_is_a_shorter_range(tmp_path: Path) -> None:
    write_all(tmp_path / "in")
    look, height = write_static(tmp_path / "in")
    cube = cube_of(tmp_path / "in", tmp_path)
    values, good = series(), masks()
    for k, (a, b) in enumerate(FILES):
        grown = 2 * (values[a] - values[b])  # there and back, m: less range if toward
        expected = np.where(good[k], 2 * np.pi * grown / WAVELENGTH, np.nan)
        np.testing.assert_allclose(cube.unwrapped_phase[k], expected, rtol=2e-5)
        assert str(cube.reference_time.values[k])[:10].replace("-", "") == DATES[a]
        assert str(cube.secondary_time.values[k])[:10].replace("-", "") == DATES[b]
    assert str(cube.secondary_time.values[0])[11:19] == "00:26:57"
    np.testing.assert_array_equal(cube.perpendicular_baseline, 25)
    assert cube.attrs["track"] == "A064" and cube.odc.crs.epsg == 32611
    for layer, name in zip(look, ("los_east", "los_north", "los_up"), strict=True):
        np.testing.assert_allclose(cube[name], layer, rtol=1e-6)
    np.testing.assert_allclose(cube.elevation, height)


def test_inversion_accumulates_where_the_reference_moves(tmp_path: Path) -> None:
    """And a date that is masked costs no other but those whose reference it is."""
    write_all(tmp_path / "in")
    write_static(tmp_path / "in")
    cube_of(tmp_path / "in", tmp_path)
    done("invert", tmp_path / "cube")
    got = cd.open_cube(tmp_path / "cube").displacement.load()
    values, good = series(), masks()
    whole = good.all(0)
    difference = (got - got[0]).values[:, whole] - values[:, whole]
    assert np.abs(difference - difference[:, :1]).max() < 2e-6  # up to the reference
    assert np.isnan(got[1, 0, 0]) and np.isfinite(got[2:, 0, 0]).all()
    assert np.isfinite(got[1, 1, 2]) and np.isnan(got[2, 1, 2])


def test_the_look_is_given_where_no_layer_tells_it(tmp_path: Path) -> None:
    write_all(tmp_path / "in")
    told = mistake("index", tmp_path / "in", "-o", tmp_path / "catalog.json")
    assert "no readable product" in told
    result = call("index", tmp_path / "in", "-o", tmp_path / "catalog.json")
    assert "static layer of its frame" in result.output.replace("\n", " ")
    write_static(tmp_path / "in", frame=9999)  # of another frame
    with pytest.raises(ValueError, match="does not tell its look direction"):
        read_opera(next((tmp_path / "in").glob("OPERA*.nc")))
    options = ("--incidence", 38.0, "--heading", -13.0)
    cube = cube_of(tmp_path / "in", tmp_path, *options)
    there = [float(cube[n].mean()) for n in ("los_east", "los_north", "los_up")]
    np.testing.assert_allclose(there, los_unit_vector(38.0, -13.0), rtol=1e-6)
    (tmp_path / "none").mkdir()
    assert "for DISP-S1 products" in mistake("index", tmp_path / "none", *options)


def test_static_layers_of_a_server_and_a_bucket(
    s3_of_all: s3_server.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Given by their addresses, or found beside products in a bucket."""
    s3_of_all.use(monkeypatch)
    products, layers = tmp_path / "in", tmp_path / "layers"
    write_all(products)
    write_static(layers, frame=9999)  # of another frame
    look, height = write_static(layers)
    bucket = f"s3://{s3_server.BUCKET}/disp"
    for path in (*products.iterdir(), *layers.iterdir()):
        place = f"{bucket}/static" if path.suffix == ".tif" else bucket
        s3_server.put(place, path.name, path)
    with serving(layers, lambda request: None) as site:
        addresses = [site.url(path.name) for path in sorted(layers.iterdir())]
        options = [word for a in reversed(addresses) for word in ("--static", a)]
        cubes = [
            cube_of(products, tmp_path / "server", *options),
            cube_of(bucket, tmp_path / "bucket"),
        ]
        record = read_opera(next(products.glob("*.nc")), static=addresses)
        assert record.assets["los_up"].href in addresses
    for cube in cubes:
        for layer, name in zip(look, ("los_east", "los_north", "los_up"), strict=True):
            np.testing.assert_allclose(cube[name], layer, rtol=1e-6)
        np.testing.assert_allclose(cube.elevation, height)
    xr.testing.assert_equal(cubes[0].unwrapped_phase, cubes[1].unwrapped_phase)
    lost = f"{bucket}/static/OPERA_L3_DISP-S1-STATIC_F08882_x_line_of_sight_enu.tif"
    with pytest.raises(ValueError, match=r"line_of_sight_enu.tif cannot be read"):
        read_opera(next(products.glob("*.nc")), static=[lost])
    with pytest.raises(ValueError, match="does not tell its look direction"):
        read_opera(next(products.glob("*.nc")), static=addresses[2:])
    assert "static=" in mistake("index", layers, "--static", addresses[0])


def test_records_survive_as_stac(tmp_path: Path) -> None:
    write_all(tmp_path)
    write_static(tmp_path)
    for path in tmp_path.glob("*.nc"):
        record = read_opera(path)
        assert record.assets["los_up"].band == 3
        assert from_item(to_item(record)) == record


def test_a_flipped_look_vector_is_refused(tmp_path: Path) -> None:
    path = write_opera(tmp_path, *DATES[:2], series()[1])
    with pytest.raises(ValueError, match=r"heading=-168.0 is the flight south"):
        read_opera(path, incidence_angle=38.0, heading=-168.0)
    write_static(tmp_path)
    with h5py.File(path, "a") as file:
        del file["identification/orbit_pass_direction"]
        file["identification/orbit_pass_direction"] = np.bytes_("Descending")
    with pytest.raises(ValueError, match=r"in the east and above.* may be flipped"):
        read_opera(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("identification", "lacks /identification/radar_wavelength"),
        ("displacement", "lacks displacement"),
        ("identification/track_number", "give the track"),
    ],
)
def test_a_missing_group_is_told(name: str, told: str, tmp_path: Path) -> None:
    path = write_opera(tmp_path, *DATES[:2], series()[1])
    write_static(tmp_path)
    with h5py.File(path, "a") as file:
        del file[name]
    with pytest.raises(ValueError, match=told):
        read_opera(path)


@pytest.mark.parametrize("told", ["", "nonsense"])
def test_a_bad_crs_is_told(told: str, tmp_path: Path) -> None:
    path = write_opera(tmp_path, *DATES[:2], series()[1])
    with h5py.File(path, "a") as file:
        file["spatial_ref"].attrs["crs_wkt"] = told
    write_static(tmp_path)
    with pytest.raises(ValueError, match=f"is '{told}': must be a CRS"):
        read_opera(path)


@pytest.mark.parametrize("angle", [0.66, 128.0, -38.0])
def test_incidence_is_in_degrees_from_the_vertical(angle: float, tmp_path) -> None:
    path = write_opera(tmp_path, *DATES[:2], series()[1])
    with pytest.raises(ValueError, match="must be in degrees from the vertical"):
        read_opera(path, incidence_angle=angle, heading=-13.0)


def test_mixed_units_and_a_file_cut_short(tmp_path: Path) -> None:
    write_static(tmp_path)
    one, other = (write_opera(tmp_path, *DATES[k : k + 2], series()[1]) for k in (0, 1))
    with h5py.File(one, "a") as file:
        file["displacement"].attrs["units"] = "radians"
    other.write_bytes(other.read_bytes()[:-4000])
    with pytest.raises(ValueError, match="displacement in 'radians': must be in 'm'"):
        read_opera(one)
    with pytest.raises(ValueError, match="it may be cut short"):
        read_opera(other)


@needs_permian
def test_permian(tmp_path: Path) -> None:
    """Against the rasters themselves; the track, not told, is made up."""
    told = mistake("index", PERMIAN, "-o", tmp_path / "catalog.json")
    assert "no readable product" in told
    options = ("--track", "D078", "--incidence", 39.0, "--heading", -168.0)
    with pytest.warns(UserWarning, match="taken to be that of Sentinel-1"):
        cube = cube_of(PERMIAN, tmp_path, *options)
    files = sorted(PERMIAN.glob("displacement_*.tif"))
    assert cube.sizes["pair"] == len(files) == 8
    for k, file in enumerate(files):
        labels = PERMIAN / file.name.replace(
            "displacement", "connected_component_labels"
        )
        with rasterio.open(file) as source, rasterio.open(labels) as parts:
            values, good = source.read(1), parts.read(1) > 0
            corner = source.transform
        assert 0 < (~good).mean() < 0.1
        expected = np.where(good, -4 * np.pi * values / 0.05546576, np.nan)
        np.testing.assert_allclose(cube.unwrapped_phase[k], expected, rtol=1e-5)
        dates = file.stem.split("_")[1:]
        for name, date in zip(("reference", "secondary"), dates, strict=True):
            assert str(cube[f"{name}_time"].values[k])[:10].replace("-", "") == date
    assert cube.odc.geobox.affine.almost_equals(corner)
    assert cube.odc.crs.epsg == 32613
