"""Weather-model delays: what a known delay put into a cube is taken out again."""

import json
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import odc.geo.xr  # noqa: F401 (registers the accessor)
import pytest
import rasterio.warp
import xarray as xr
from affine import Affine
from delay_layouts import (
    DATES,
    KINDS,
    WRITERS,
    dataset,
    plane,
    planes,
    write_netcdf,
    write_ztd,
)
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from scipy.interpolate import LinearNDInterpolator, RegularGridInterpolator

from cube_denoise.correct import correct
from cube_denoise.corrections.correction import in_turn
from cube_denoise.corrections.weather import Weather
from cube_denoise.ingest import ingest_dataset
from cube_denoise.steps import correct_cube

WAVELENGTH = 0.0556
PAIRS = ((0, 1), (1, 2), (0, 2))
GRIDS = {
    "utm": GeoBox.from_bbox(
        (715_000, 3_015_000, 765_000, 3_060_000), "EPSG:32645", resolution=1000
    ),
    "lonlat": GeoBox.from_bbox(
        (89.15, 27.2, 89.75, 27.65), "EPSG:4326", resolution=0.013
    ),
}
KYUSHU = Path(__file__).parents[2] / "shared/data/kyushu-era5"


def place(grid):
    """Longitude and latitude of the pixel centres."""
    columns, rows = np.meshgrid(np.arange(grid.shape[1]), np.arange(grid.shape[0]))
    x, y = grid.affine @ (columns + 0.5, rows + 0.5)
    lon, lat = rasterio.warp.transform(str(grid.crs), "EPSG:4326", x.ravel(), y.ravel())
    return np.reshape(lon, x.shape), np.reshape(lat, x.shape)


def cube_of(delay, grid, kind="zenith"):
    """Cube whose phase is made of delays, m, (dates, y, x), and of nothing else."""
    up = np.linspace(0.69, 0.88, grid.shape[1]) * np.ones(grid.shape)
    slant = delay / up if kind == "zenith" else delay
    phase = [4 * np.pi / WAVELENGTH * (slant[j] - slant[i]) for i, j in PAIRS]
    days = np.array([f"{d[:4]}-{d[4:6]}-{d[6:]}T05:30" for d in DATES], "datetime64[s]")
    first, second = np.array(PAIRS).T
    attributes = {"units": "rad"}
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), np.array(phase, "f4"), attributes),
            "los_up": (("y", "x"), up),
        },
        {
            **xr_coords(grid, dims=("y", "x")),
            "reference_time": ("pair", days[first]),
            "secondary_time": ("pair", days[second]),
        },
        {"wavelength": WAVELENGTH, "track": "A005"},
    )


def flat_cube(grid="utm", kind="zenith"):
    lon, lat = place(GRIDS[grid])
    delay = np.stack([plane(k, lon, lat) for k in range(len(DATES))])
    return cube_of(delay, GRIDS[grid], kind)


def rough(seed=0):
    """Delays on the grid of the files without any smoothness, m."""
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, planes().shape)
    return (planes() + noise).astype("float32")


def corrected(cube, path, **options):
    """Values; blocks smaller than the scene."""
    result = correct(cube, "weather", block=26, delays=path, **options)
    return result["corrected_phase"].values


# --- truth ------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("layout", WRITERS)
def test_known_delay_is_taken_out(layout, grid, tmp_path):
    cube = flat_cube(grid, KINDS[layout])
    assert float(cube["unwrapped_phase"].std("x").min()) > 0.05
    path = WRITERS[layout](tmp_path / "d", planes())
    # 2e-7 m, the rounding of float32 delays of 2 m, is 5e-5 rad.
    assert np.abs(corrected(cube, path)).max() < 3e-4


def test_rough_delays_are_interpolated_bilinearly(tmp_path):
    """Against SciPy's interpolator, at coordinates of GDAL."""
    values, cube = rough(), flat_cube()
    path = write_netcdf(tmp_path / "d", values)
    with xr.open_dataset(path) as data:
        lat, lon = data["lat"].values, data["lon"].values
    points = place(GRIDS["utm"])[::-1]
    at = [
        RegularGridInterpolator((lat, lon), layer[::-1].astype(float))(points)
        for layer in values
    ]
    expected = (
        cube["unwrapped_phase"] - cube_of(np.stack(at), GRIDS["utm"])["unwrapped_phase"]
    )
    np.testing.assert_allclose(corrected(cube, path), expected, atol=5e-4)


def test_a_longer_path_later_is_positive_phase(tmp_path):
    """1 cm more at the zenith, at 60 degrees, is 2 cm away from the satellite."""
    values = np.stack([planes()[0] + d for d in (0, 0.01, 0)])
    cube = flat_cube()
    cube["unwrapped_phase"][:] = 0
    found = corrected(cube, write_ztd(tmp_path / "d", values), incidence=60.0)
    step = 4 * np.pi / WAVELENGTH * 0.02
    expected = np.array([-step, step, 0])[:, None, None]
    np.testing.assert_allclose(found, expected * np.ones(found.shape), atol=2e-4)


def test_only_differences_between_dates_matter(tmp_path):
    cube, values = flat_cube(), rough(1)
    path = write_netcdf(tmp_path / "a", values)
    differences = values.astype(float) - values[2:]
    other = write_netcdf(tmp_path / "b", differences)
    np.testing.assert_allclose(corrected(cube, path), corrected(cube, other), atol=3e-4)


def test_longitudes_to_360(tmp_path):
    """A scene in the west, delays from 0 to 360 degrees."""
    cube, data = flat_cube("lonlat"), dataset(rough())
    expected = corrected(cube, write_netcdf(tmp_path / "d", rough()))
    cube["x"], data["lon"] = cube["x"] - 180, data["lon"] + 180
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    np.testing.assert_allclose(corrected(cube, tmp_path / "a.nc"), expected, atol=1e-4)


# --- cutting ----------------------------------------------------------------------


@pytest.mark.parametrize("layout", WRITERS)
def test_blocks_and_regions_do_not_matter(layout, tmp_path):
    cube = flat_cube()
    values = rough(2)
    values[1, 20:30, 30:40] = np.nan if layout in ("netcdf", "mintpy") else 0
    path = WRITERS[layout](tmp_path / "d", values)
    with pytest.warns(UserWarning, match="no data at 0.8% of its pixels"):
        whole = correct(cube, "weather", delays=path)["corrected_phase"].values
        pieces = corrected(cube, path)
        region = {"y": slice(3, 40), "x": slice(11, 48)}
        part = correct(cube, "weather", region=region, block=20, delays=path)
    assert np.isnan(whole).any() and not np.isnan(whole).all()
    np.testing.assert_array_equal(pieces, whole)
    found = part["corrected_phase"].values
    np.testing.assert_array_equal(found, whole[:, 3:40, 11:48])


def test_what_is_sent_to_workers_is_small(tmp_path):
    cube = flat_cube()
    path = write_ztd(tmp_path / "d", rough())
    apply = Weather(delays=path).plan(cube, range(3), in_turn).apply
    sent = pickle.dumps(apply)
    assert len(sent) < 10_000
    window = {"pair": slice(1, 2), "y": slice(5, 9), "x": slice(0, 7)}
    np.testing.assert_array_equal(
        pickle.loads(sent)(cube, window), corrected(cube, path)[1:2, 5:9, 0:7]
    )


# --- gaps and edges ---------------------------------------------------------------


def test_gaps_stay_gaps_and_no_others_arise(tmp_path):
    cube, values = flat_cube("lonlat"), planes()
    cube["unwrapped_phase"][0, 4, 5] = np.nan
    values[2, 25, 30] = 0
    with pytest.warns(UserWarning, match="no data at"):
        found = corrected(cube, write_ztd(tmp_path / "d", values))
    assert np.argwhere(np.isnan(found[0])).tolist() == [[4, 5]]
    lon, lat = place(GRIDS["lonlat"])
    near = (abs(lon - 89.405) < 0.01) & (abs(lat - 27.445) < 0.01)
    assert near.any()
    for k in (1, 2):
        np.testing.assert_array_equal(np.isnan(found[k]), near)
    assert np.nanmax(np.abs(found)) < 3e-4


@pytest.mark.parametrize(("cut", "fits"), [(0.004, True), (0.006, False)])
@pytest.mark.parametrize("side", range(4))
def test_half_a_pixel_beyond_the_outer_centres_is_covered(side, cut, fits, tmp_path):
    """Centres of the cube's pixels are up to `cut` degrees beyond the delays' own."""
    beyond = [89.105 - cut, 27.105 - cut, 89.795 + cut, 27.695 + cut][side]
    box = [89.405, 27.405, 89.504, 27.504]
    size = 0.099 if side < 2 else -0.099
    box[side], box[(side + 2) % 4] = beyond, beyond + size
    west, south, east, north = np.add(box, [-0.0005, -0.0005, 0.0005, 0.0005])
    grid = GeoBox((100, 100), Affine(0.001, 0, west, 0, -0.001, north), "EPSG:4326")
    cube = cube_of(np.zeros((3, *grid.shape)), grid)
    path = write_ztd(tmp_path / "d", planes())
    if fits:
        assert np.isfinite(corrected(cube, path)).all()
        return
    with pytest.raises(ValueError, match=r"does not cover [12]00 pixels") as caught:
        correct(cube, "weather", delays=path)
    reach = ", ".join(f"{v:.6g}" for v in (west, south, east, north))
    message = str(caught.value)
    assert f"reaches 89.1, 27.1, 89.8, 27.7 and the cube {reach} (west" in message


def test_pixels_without_data_need_no_delays(tmp_path):
    cube = flat_cube().isel(x=slice(0, 40))
    wide = cube.pad(x=(90, 0))
    wide["x"] = float(cube["x"][0]) + 1000.0 * np.arange(-90, 40)
    wide = wide.odc.assign_crs("EPSG:32645")
    found = corrected(wide, write_ztd(tmp_path / "d", planes()))
    assert np.isnan(found[:, :, :90]).all()
    assert np.abs(found[:, :, 90:]).max() < 3e-4
    wide["unwrapped_phase"][2, 7, 80] = 0.0
    with pytest.raises(ValueError, match="does not cover 1 pixels"):
        correct(wide, "weather", delays=tmp_path / "d")


# --- what is refused --------------------------------------------------------------


def test_dates_without_delays_are_named(tmp_path):
    folder = write_ztd(tmp_path / "d", planes())
    for day in DATES[1:]:
        (folder / f"{day}.ztd").unlink()
    with pytest.raises(
        ValueError, match=r"no delays of 2 of the 3 dates .*: 2020-01-17, 2020-02-10"
    ):
        correct(flat_cube(), "weather", delays=folder)


def test_incidence_is_needed_once(tmp_path):
    folder = write_ztd(tmp_path / "d", planes())
    bare = flat_cube().drop_vars("los_up")
    with pytest.raises(ValueError, match=r"no 'los_up' .* give incidence=DEGREES"):
        correct(bare, "weather", delays=folder)
    with pytest.raises(ValueError, match=r"incidence=90 must be 0 to 90"):
        correct(bare, "weather", delays=folder, incidence=90)
    with pytest.raises(ValueError, match=r"incidence=30\.0 is of no use"):
        correct(
            bare, "weather", delays=folder, incidence=30.0, delay_type="line of sight"
        )
    slant = WRITERS["mintpy"](tmp_path / "m", planes())
    found = corrected(flat_cube(kind="line of sight").drop_vars("los_up"), slant)
    assert np.abs(found).max() < 3e-4


def test_cube_without_place_and_unlikely_delays(tmp_path):
    folder = write_ztd(tmp_path / "d", planes())
    nowhere = flat_cube().drop_vars(["spatial_ref", "y", "x"])
    with pytest.raises(ValueError, match="cube has no CRS"):
        correct(nowhere, "weather", delays=folder)
    write_ztd(folder, 1000 * planes())
    with pytest.raises(ValueError, match="check unit and sign"):
        correct(flat_cube(), "weather", delays=folder)
    with pytest.raises(ValueError, match=r"missing .* argument: 'delays'"):
        correct(flat_cube(), "weather")


# --- which delays they were -------------------------------------------------------


def test_same_delays_are_not_taken_out_again_and_others_are(tmp_path):
    ingest_dataset(flat_cube(), tmp_path / "cube", chunk=32, shard=64)

    def done(path, **options):
        report = correct_cube(tmp_path / "cube", "weather", delays=path, **options)
        return report.done

    folder = write_ztd(tmp_path / "d", planes())
    assert done(folder) == 3
    assert done(folder) == 0
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert done(moved) == 0
    # One more date, of no pair, changes nothing.
    for end in ("ztd", "ztd.rsc"):
        shutil.copy(moved / f"20200105.{end}", moved / f"20200306.{end}")
    assert done(moved) == 0
    assert done(moved, incidence=30.0) == 3
    assert done(moved) == 3
    write_ztd(moved, rough())
    assert done(moved) == 3
    (moved / "20200105.ztd").unlink()
    with pytest.raises(ValueError, match="no delays of 1 of the 3 dates"):
        done(moved)


def test_attributes_say_which_delays(tmp_path):
    folder = write_ztd(tmp_path / "d", planes())
    found = correct(flat_cube(), "weather", delays=str(folder))["corrected_phase"].attrs
    assert found["method"] == "weather" and found["delays"] == str(folder)
    assert sorted(json.loads(found["delays_sha256"])) == list(DATES)


# --- ERA5 -------------------------------------------------------------------------


def test_era5_of_pyaps(tmp_path, monkeypatch):
    """Delays of PyAPS3 on a grid, in MintPy's layout, against PyAPS3 at the pixels."""
    pyaps3 = pytest.importorskip("pyaps3", reason="PyAPS3 (GPL) is not installed")
    if not KYUSHU.exists():
        pytest.skip(f"needs the data folder {KYUSHU}")
    monkeypatch.chdir(tmp_path)  # PyAPS3 writes where it runs
    terrain = LinearNDInterpolator(
        np.stack([np.fromfile(KYUSHU / f"{n}.rdr", "<f8") for n in ("lon", "lat")], -1),
        np.fromfile(KYUSHU / "hgt.rdr", "<f8"),
    )
    days = ("20101017", "20110117")

    def slant(lon, lat):
        """Delay along a line of sight of 38 degrees, m, of both dates."""
        place = {"dem": terrain(lon, lat), "lat": lat, "lon": lon}
        place["inc"] = np.full(lon.shape, 38.0)
        names = (KYUSHU / f"ERA5_N30_N40_E120_E140_{d}_14.grb" for d in days)
        models = (pyaps3.PyAPS(str(n), grib="ERA5", **place) for n in names)
        return np.stack([m.getdelay(np.zeros(lon.shape)) for m in models])

    columns, rows = np.meshgrid(np.arange(300), np.arange(300))
    delays = slant(130.45 + 0.002 * columns, 32.3 - 0.002 * rows)
    with h5py.File("ERA5.h5", "w") as file:
        file["date"] = np.array(days, "S8")
        file["timeseries"] = -delays.astype("float32")
        file.attrs.update(
            {"X_FIRST": "130.449", "Y_FIRST": "32.301", "X_STEP": "0.002"}
            | {"Y_STEP": "-0.002", "UNIT": "m", "X_UNIT": "degrees"}
        )
    box = (642_000, 3_520_000, 684_000, 3_560_000)
    grid = GeoBox.from_bbox(box, "EPSG:32652", resolution=300)
    truth = np.diff(slant(*place(grid)), axis=0)
    times = [np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}", "s") for d in days]
    phase = (4 * np.pi / WAVELENGTH * truth).astype("f4")
    cube = xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), phase)},
        {
            **xr_coords(grid, dims=("y", "x")),
            "reference_time": ("pair", times[:1]),
            "secondary_time": ("pair", times[1:]),
        },
        {"wavelength": WAVELENGTH},
    )
    left = corrected(cube, "ERA5.h5") * WAVELENGTH / (4 * np.pi)
    assert truth.mean() < -0.02  # the winter is drier
    assert left.std() < 0.1 * truth.std() and np.abs(left).max() < 1e-3
