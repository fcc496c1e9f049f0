"""GNSS: files read, stations projected and sampled, compared with a radar."""

import csv
from pathlib import Path

import numpy as np
import pytest
import rioxarray
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer

from cube_denoise.conventions import (
    los_unit_vector,
    phase_to_displacement,
    years_since,
)
from cube_denoise.evaluate import (
    compare_with_stations,
    project_on_line_of_sight,
    read_stations_csv,
    read_tenv3,
    sample_at_stations,
    station_misfit,
)
from cube_denoise.velocity import fit_velocity

MEXICO = Path(__file__).parents[2] / "shared/data/mexico-city-s1"
MXTM = MEXICO / "gnss/MXTM.NA.tenv3"
needs_data = pytest.mark.skipif(not MXTM.exists(), reason=f"needs {MXTM}")

HEADER = (
    "site YYMMMDD yyyy.yyyy __MJD week d reflon _e0(m) __east(m) ____n0(m) _north(m) "
    "u0(m) ____up(m) _ant(m) sig_e(m) sig_n(m) sig_u(m) __corr_en __corr_eu __corr_nu"
)
PLACE = " _latitude(deg) _longitude(deg) __height(m)"
LOS = los_unit_vector(39.7, -12.27)
GRID = GeoBox.from_bbox(
    (500000, 2100000, 510000, 2106000), "EPSG:32614", resolution=100
)


def tenv3(path, name, rows, *, header=HEADER + PLACE, place=" 19.5 -260.0 2226.0"):
    """`rows` of MJD, e0, east, n0, north, u0, up."""
    lines = [header] + [
        f"{name} 18JAN06 2018.0137 {mjd} 1982 6 -99.0 {e0} {e} {n0} {n} {u0} {u} "
        f"0.0 0.001 0.002 0.003 0.0 0.0 0.0{place}"
        for mjd, e0, e, n0, n, u0, u in rows
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def lonlat(x, y):
    return Transformer.from_crs(GRID.crs, 4326, always_xy=True).transform(x, y)


def network(points, times, values, *, std=1e-3):
    """Stations at grid coordinates, the same displacement (time,) scaled, up only."""
    names = [f"ST{k:02d}" for k in range(len(points))]
    place = np.array([lonlat(*p) for p in points])
    up = np.asarray(values, float)
    series = {n: (("station", "time"), np.zeros(up.shape)) for n in ("east", "north")}
    sigma = {
        f"{n}_std": (("station", "time"), np.full(up.shape, std))
        for n in ("east", "north", "up")
    }
    return xr.Dataset(
        series | {"up": (("station", "time"), up)} | sigma,
        {
            "station": names,
            "time": times,
            "longitude": ("station", place[:, 0]),
            "latitude": ("station", place[:, 1]),
        },
    )


def on_grid(values, dims, **coords):
    return xr.DataArray(values, xr_coords(GRID) | coords, (*dims, "y", "x"))


@needs_data
def test_mxtm_goes_down_284_mm_a_year():
    stations = read_tenv3(MXTM)
    assert stations.station.values.tolist() == ["MXTM"]
    assert stations.up.dims == ("station", "time")
    assert stations.sizes == {"station": 1, "time": 548}
    assert stations.longitude.item() == pytest.approx(-98.9785, abs=1e-4)
    assert stations.latitude.item() == pytest.approx(19.4844, abs=1e-4)
    assert stations.time.values[[0, -1]].astype("datetime64[D]").tolist() == [
        np.datetime64(d).item() for d in ("2017-06-15", "2019-05-04")
    ]
    years = years_since(stations.time.values, stations.time.values[0])
    rate, error = fit_velocity(stations.up.values[0], years)
    assert rate == pytest.approx(-0.284, abs=0.003)
    assert error < 0.002
    assert stations.up_std.median().item() == pytest.approx(0.0033, abs=5e-4)


def test_tenv3_adds_whole_metres(tmp_path):
    """A position that passes a whole metre moves on, it does not jump back."""
    rows = [
        (58124, 2256, 0.990, 2155291, 0.010, 2226, 0.001),
        (58125, 2257, 0.010, 2155290, 0.980, 2225, 0.995),
    ]
    stations = read_tenv3(tenv3(tmp_path / "A.tenv3", "A", rows))
    assert stations.east.values[0] == pytest.approx([0, 0.02], abs=1e-9)
    assert stations.north.values[0] == pytest.approx([0, -0.03], abs=1e-9)
    assert stations.up.values[0] == pytest.approx([0, -0.006], abs=1e-9)
    assert [stations[f"{n}_std"].values[0, 0] for n in ("east", "north", "up")] == [
        *(0.001, 0.002, 0.003)
    ]
    assert str(stations.time.values[0])[:16] == "2018-01-06T12:00"
    assert stations.longitude.item() == pytest.approx(100)  # -260 degrees
    assert {stations[n].attrs["units"] for n in stations.data_vars} == {"m"}


def test_several_tenv3_files_share_the_union_of_days(tmp_path):
    one = tenv3(tmp_path / "1", "AAAA", [(58124, 1, 0.1, 1, 0, 1, 0)])
    rows = [(58124 + k, 1, 0.1 * k, 1, 0, 1, 0) for k in (2, 1)]
    two = tenv3(tmp_path / "2", "BBBB", rows)
    stations = read_tenv3([one, str(two)])
    assert stations.station.values.tolist() == ["AAAA", "BBBB"]
    np.testing.assert_array_equal(stations.east.notnull(), [[1, 0, 0], [0, 1, 1]])
    # The first solution is the earliest, not that of the first line.
    assert stations.east.values[1, 1:] == pytest.approx([0, 0.1])


def test_older_tenv3_files_have_no_position(tmp_path):
    rows = [(58124, 1, 0, 1, 0, 1, 0)]
    path = tenv3(tmp_path / "A", "A", rows, header=HEADER, place="")
    stations = read_tenv3(path)
    assert np.isnan(stations.longitude.item())
    with pytest.raises(ValueError, match="stations A have no longitude"):
        sample_at_stations(on_grid(np.ones(GRID.shape), ()), stations)


def test_what_is_not_tenv3_is_refused(tmp_path):
    row = (58124, 1, 0, 1, 0, 1, 0)
    good = tenv3(tmp_path / "good", "A", [row])
    (tmp_path / "text").write_text("station,time\nA,2018\n")
    (tmp_path / "empty").write_text("")
    for name in ("text", "empty"):
        with pytest.raises(ValueError, match=f"{name} is not a tenv3 file"):
            read_tenv3(tmp_path / name)
    in_mm = good.read_text().replace("(m)", "(mm)")
    (tmp_path / "mm").write_text(in_mm)
    with pytest.raises(ValueError, match=r"columns .*east\(m\)"):
        read_tenv3(tmp_path / "mm")
    with pytest.raises(ValueError, match="second file of station A"):
        read_tenv3([good, good])
    with pytest.raises(ValueError, match="A has a time more than once"):
        read_tenv3(tenv3(tmp_path / "twice", "A", [row, row]))
    with pytest.raises(ValueError, match="one station, it holds none"):
        read_tenv3(tenv3(tmp_path / "bare", "A", []))
    with pytest.raises(ValueError, match="there is no station"):
        read_tenv3([])
    (tmp_path / "cut").write_text(good.read_text().rsplit(" ", 2)[0])
    with pytest.raises(ValueError, match="line 2: 21 columns, the header 23"):
        read_tenv3(tmp_path / "cut")
    broken = good.read_text().replace("58124", "58x24")
    (tmp_path / "broken").write_text(broken)
    with pytest.raises(ValueError, match="line 2, MJD: '58x24' is not a number"):
        read_tenv3(tmp_path / "broken")


CSV = """station,longitude,latitude,time,east,north,up,up_std,quality
ROCK,-99.15,19.41,2018-01-06T12:00Z,0.001,0.002,-0.003,0.004,good
BOWL,260.9,19.42,2018-01-06,0.0,,-0.02,,poor
ROCK,-99.15,19.41,2018-01-18T12:00,0.002,0.003,-0.004,0.004,good
"""


def test_csv_is_read_into_the_same_layout(tmp_path):
    path = tmp_path / "stations.csv"
    path.write_text(CSV)
    stations = read_stations_csv(path)
    assert stations.station.values.tolist() == ["ROCK", "BOWL"]
    assert stations.longitude.values == pytest.approx([-99.15, -99.1])
    assert stations.sel(station="ROCK").up.values[1:] == pytest.approx([-0.003, -0.004])
    assert np.isnan(stations.sel(station="ROCK").up.values[0])
    assert stations.sel(station="BOWL").up.values[0] == pytest.approx(-0.02)
    assert np.isnan(stations.sel(station="BOWL").north.values).all()
    assert np.isnan(stations.east_std.values).all()
    assert stations.sel(station="ROCK").up_std.values[1] == 0.004
    assert stations.time.dtype == "datetime64[ns]"
    assert {stations[n].attrs["units"] for n in stations.data_vars} == {"m"}


@needs_data
def test_csv_of_a_tenv3_station_is_the_station(tmp_path):
    first = read_tenv3(MXTM)
    path = tmp_path / "mxtm.csv"
    names = list(first.data_vars)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["station", "longitude", "latitude", "time", *names])
        for k, time in enumerate(first.time.values):
            place = [repr(first[n].item()) for n in ("longitude", "latitude")]
            values = [repr(float(first[n].values[0, k])) for n in names]
            writer.writerow(["MXTM", *place, time, *values])
    xr.testing.assert_equal(read_stations_csv(path), first)


@pytest.mark.parametrize("name", ["east_mm", "up(mm)", "north [cm]", "up_std_mm"])
def test_csv_in_another_unit_is_refused(tmp_path, name):
    old = next(c for c in ("up_std", "east", "north", "up") if name.startswith(c))
    path = tmp_path / "stations.csv"
    path.write_text(CSV.replace(f",{old},", f",{name},"))
    with pytest.raises(ValueError, match="must be in metres") as caught:
        read_stations_csv(path)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",up,", ",vertical,", "has no columns up; it has station"),
        ("-0.02", "-0.02 m", "line 3, up: '-0.02 m' is not a number"),
        ("2018-01-18T12:00", "18/01/2018", "line 4: time '18/01/2018' is not ISO"),
        ("2018-01-18T12:00", "", "line 4: time '' is not ISO"),
        ("2018-01-18T12:00", "2018-01-06T12:00", "ROCK has a time more than once"),
        ("ROCK,-99.15,19.41,2018-01-18", "ROCK,-99,19.41,2018-01-18", "'ROCK' must"),
        (",0.004,good\nB", ",0.004\nB", "line 2: it must have 9 cells"),
        ("BOWL", "", "station '' must have a name"),
    ],
)
def test_bad_csv_is_refused(tmp_path, old, new, message):
    path = tmp_path / "stations.csv"
    path.write_text(CSV.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_stations_csv(path)


def test_csv_without_a_station(tmp_path):
    path = tmp_path / "stations.csv"
    path.write_text(CSV.splitlines()[0])
    with pytest.raises(ValueError, match="there is no station"):
        read_stations_csv(path)
    path.write_text("")
    with pytest.raises(ValueError, match="has no columns station"):
        read_stations_csv(path)


TIMES = np.datetime64("2018-01-01T12", "ns") + np.arange(120) * np.timedelta64(1, "D")


def test_projection_of_motion_up_and_along_the_line_of_sight():
    stations = network([(501000, 2101000)] * 2, TIMES, np.full((2, 120), -0.1))
    down = project_on_line_of_sight(stations, *LOS)
    # Subsidence is motion away from the satellite: negative.
    assert down.los.values == pytest.approx(-0.1 * np.cos(np.deg2rad(39.7)))
    assert down.los_std.values == pytest.approx(1e-3)  # equal components, unit vector
    assert "los" not in stations
    for name, part in zip(("east", "north", "up"), LOS, strict=True):
        stations[name][:] = 0.03 * part
    along = project_on_line_of_sight(stations, *LOS)
    assert along.los.values == pytest.approx(0.03)
    stations["north"][0, 5] = np.nan
    assert np.isnan(project_on_line_of_sight(stations, *LOS).los.values).sum() == 1


def test_projection_station_by_station():
    stations = network([(501000, 2101000)] * 2, TIMES, np.ones((2, 120)))
    each = [np.array([a, b]) for a, b in zip(LOS, (0.0, 0.0, 1.0), strict=True)]
    found = project_on_line_of_sight(stations, *each)
    assert found.los.values[:, 0] == pytest.approx([LOS[2], 1.0])
    # As sampled from a cube that has only the second station.
    second = [xr.DataArray(v, {"station": stations.station}, ["station"]) for v in each]
    found = project_on_line_of_sight(stations, *(v[1:] for v in second))
    assert found.station.values.tolist() == ["ST01"]
    assert found.los.values == pytest.approx(1.0)


def test_projection_refuses_what_is_no_line_of_sight():
    stations = network([(501000, 2101000)], TIMES, np.ones((1, 120)))
    with pytest.raises(ValueError, match=r"lengths 41\.4.* unit vector"):
        project_on_line_of_sight(stations, -12.0, 0.0, 39.7)  # angles
    with pytest.raises(ValueError, match=r"shape \(3,\): it must be one number or 1"):
        project_on_line_of_sight(stations, *(np.full(3, v) for v in LOS))
    other = [xr.DataArray([v], {"station": ["ELSE"]}, ["station"]) for v in LOS]
    with pytest.raises(ValueError, match="have none in common"):
        project_on_line_of_sight(stations, *other)
    stations["up"].attrs["units"] = "mm"
    with pytest.raises(ValueError, match="up in m, found the unit 'mm'"):
        project_on_line_of_sight(stations, *LOS)
    with pytest.raises(ValueError, match="up in m, found no such variable"):
        project_on_line_of_sight(stations.drop_vars("up"), *LOS)


def index_map():
    """A map whose value is 1000 row + column."""
    rows, columns = GRID.shape
    return on_grid(1000.0 * np.arange(rows)[:, None] + np.arange(columns), ())


def test_stations_are_sampled_at_their_pixel():
    """Column 20 of 100 m pixels from 500 km, row 30 down from 2106 km."""
    stations = network([(502050, 2102950), (502001, 2102999)], TIMES, np.ones((2, 120)))
    for window in (1, 3, 5):
        found = sample_at_stations(index_map(), stations, window=window)
        assert found.dims == ("station",)
        assert found.values.tolist() == [30020.0, 30020.0]
    np.testing.assert_array_equal(found.longitude, stations.longitude)


def test_sampling_is_the_median_of_the_valid_pixels():
    stations = network([(502050, 2102950)], TIMES, np.ones((1, 120)))
    values = on_grid(np.full(GRID.shape, np.nan), ())
    values[29:32, 19:22] = [[1, 2, np.nan], [np.nan, np.nan, 9], [4, np.nan, 1e6]]
    assert sample_at_stations(values, stations, window=3).item() == 4
    assert sample_at_stations(values, stations, window=5).item() == 4
    with pytest.raises(
        ValueError, match="no pixel within 1 x 1 px of the stations ST00"
    ):
        sample_at_stations(values, stations, window=1)
    # At a corner the window is cut, not moved.
    corner = network([(500050, 2105950)], TIMES, np.ones((1, 120)))
    assert sample_at_stations(index_map(), corner, window=3).item() == 500.5


def test_sampling_a_dataset_a_part_of_the_grid_and_dask():
    stations = network([(502050, 2102950), (507050, 2104950)], TIMES, np.ones((2, 120)))
    stack = index_map() + xr.DataArray([0.0, 0.5], dims="pair")
    cube = xr.Dataset({"phase": stack, "baseline": ("pair", [1.0, 2.0])})
    found = sample_at_stations(cube, stations)
    assert list(found.data_vars) == ["phase"]
    assert found.phase.dims == ("station", "pair")
    expected = [[30020.0, 30020.5], [10070.0, 10070.5]]
    assert found.phase.values.tolist() == expected
    part = cube.isel(y=slice(5, 40), x=slice(10, 90))
    assert sample_at_stations(part, stations).phase.values.tolist() == expected
    lazy = cube.chunk({"y": 7, "x": 7, "pair": 1})
    xr.testing.assert_equal(sample_at_stations(lazy, stations), found)


def test_stations_outside_the_grid():
    inside, outside = (502050, 2102950), (499990, 2102950)
    stations = network([outside, inside], TIMES, np.ones((2, 120)))
    with pytest.warns(UserWarning, match="left out: ST00") as caught:
        found = sample_at_stations(index_map(), stations)
    assert [w.filename for w in caught if w.category is UserWarning] == [__file__]
    assert found.station.values.tolist() == ["ST01"]
    assert found.item() == 30020
    with pytest.raises(
        ValueError, match="none of the stations ST00 is inside the grid"
    ):
        sample_at_stations(index_map(), stations.isel(station=[0]))
    with pytest.raises(ValueError, match="holds no station"):
        sample_at_stations(index_map(), stations.isel(station=[]))


def test_sampling_across_the_date_line():
    grid = GeoBox.from_bbox((179, -19, 181, -17), "EPSG:4326", resolution=0.1)
    values = xr.DataArray(
        np.arange(400.0).reshape(20, 20), xr_coords(grid), grid.dimensions
    )
    values = values.rename(latitude="y", longitude="x")
    stations = network([(502050, 2102950)], TIMES, np.ones((1, 120)))
    stations["longitude"][:], stations["latitude"][:] = -179.45, -17.55
    assert sample_at_stations(values, stations, window=1).item() == 5 * 20 + 15


def test_sampling_options_that_are_none():
    stations = network([(502050, 2102950)], TIMES, np.ones((1, 120)))
    for window in (0, 4):
        with pytest.raises(ValueError, match=f"window={window} must be an odd"):
            sample_at_stations(index_map(), stations, window=window)
    with pytest.raises(ValueError, match="must have y, x and a CRS"):
        sample_at_stations(xr.DataArray(np.ones((9, 9)), dims=("y", "x")), stations)


@pytest.fixture(scope="module")
def scene():
    """A field that sinks in place, eleven dates of it, pairs, and stations on it."""
    rng = np.random.default_rng(4)
    points = [(500550 + 900 * k, 2101050 + 400 * k) for k in range(10)]
    rates = np.append(rng.uniform(-0.3, -0.05, 9), 0.0)
    years = years_since(TIMES, TIMES[0])
    stations = network(points, TIMES, rates[:, None] * years)
    stations = project_on_line_of_sight(stations, *LOS)
    x, y = (GRID.coordinates[n].values for n in ("x", "y"))
    near = [(x[None] - px) ** 2 + (y[:, None] - py) ** 2 for px, py in points]
    rate = rates[np.argmin(near, axis=0)] * LOS[2]
    # Twelve hours after noon: the days around weigh alike.
    dates = TIMES[10:111:10] + np.timedelta64(12, "h")
    series = rate * years_since(dates, dates[0])[:, None, None]
    displacement = on_grid(series, ("time",), time=dates).assign_attrs(units="m")
    first, second = np.array([(i, i + j) for j in (1, 2) for i in range(9)]).T
    pairs = on_grid(series[second] - series[first], ("pair",)).assign_coords(
        reference_time=("pair", dates[first]), secondary_time=("pair", dates[second])
    )
    return stations, displacement, pairs


def test_a_perfect_radar_agrees_with_perfect_stations(scene):
    stations, displacement, pairs = scene
    for radar, kind in ((displacement, "time"), (pairs, "pair")):
        found = compare_with_stations(radar, stations)
        assert found.insar.dims == found.gnss.dims == ("station", kind)
        np.testing.assert_allclose(found.insar, found.gnss, atol=1e-9)
        assert np.ptp(found.gnss.values) > 0.01
        assert station_misfit(found.insar, found.gnss).correlation > 0.999
    assert set(found.coords) >= {"reference_time", "secondary_time", "longitude"}


def test_the_sign_and_size_of_a_pair(scene):
    stations, _, pairs = scene
    found = compare_with_stations(pairs, stations)
    rate = stations.los[:, -1] / years_since(TIMES[-1:], TIMES[0])[0]
    np.testing.assert_allclose(found.gnss[:, 0], rate * 10 / 365.25, atol=1e-9)
    assert found.gnss[0, 0] < 0


def test_a_reference_station_takes_the_constant_of_a_pair(scene):
    stations, displacement, pairs = scene
    rng = np.random.default_rng(6)
    offsets = xr.DataArray(rng.normal(0, 0.05, pairs.sizes["pair"]), dims="pair")
    plain = compare_with_stations(pairs + offsets, stations)
    tied = compare_with_stations(pairs + offsets, stations, reference_station="ST04")
    np.testing.assert_allclose(tied.insar, tied.gnss, atol=1e-9)
    assert not tied.insar.sel(station="ST04").any()
    assert not tied.gnss_std.sel(station="ST04").any()
    loose, fast = (station_misfit(c.insar, c.gnss) for c in (plain, tied))
    assert loose.avg > 0.02
    assert loose.avg_demeaned < 1e-9
    assert fast.avg < 1e-9
    # In a series likewise, where each date has its own constant.
    noise = xr.DataArray(rng.normal(0, 0.05, displacement.sizes["time"]), dims="time")
    tied = compare_with_stations(
        displacement + noise, stations, reference_station="ST09"
    )
    np.testing.assert_allclose(tied.insar, tied.gnss, atol=1e-9)
    assert tied.attrs["reference_station"] == "ST09"


def test_gnss_is_averaged_over_the_days_around(scene):
    """Six noons lie within three days of a midnight; a pair has two such averages."""
    stations, displacement, pairs = scene
    found = compare_with_stations(pairs, stations)
    np.testing.assert_allclose(found.gnss_std, 1e-3 / np.sqrt(6) * np.sqrt(2))
    tied = compare_with_stations(pairs, stations, reference_station="ST00")
    np.testing.assert_allclose(tied.gnss_std[1:], 1e-3 / np.sqrt(6) * 2)
    one = compare_with_stations(displacement, stations, window_days=0.5)
    np.testing.assert_allclose(one.gnss_std, 1e-3 / np.sqrt(2))
    noisy = stations.copy(deep=True)
    noisy["los"] = stations.los + np.random.default_rng(7).normal(0, 1e-3, (10, 120))
    scatter = [
        station_misfit(c.insar, c.gnss).rms
        for c in (
            compare_with_stations(pairs, noisy, window_days=d) for d in (0.5, 3, 4.5)
        )
    ]
    # By the square root of the days: 2, 6, 10 (nine and a half would share some).
    assert scatter[0] / scatter[1] == pytest.approx(np.sqrt(3), rel=0.15)
    assert scatter[1] > scatter[2]


def test_gaps_of_either_side_are_left_out(scene):
    stations, displacement, pairs = scene
    holed = stations.copy(deep=True)
    holed["los"][2, 36:45] = np.nan  # around the fourth date, 2018-02-10
    found = compare_with_stations(displacement, holed)
    assert np.isnan(found.gnss.values).sum() == np.isnan(found.insar.values).sum() == 1
    np.testing.assert_allclose(found.insar, found.gnss, atol=1e-9)
    assert found.insar.isel(station=2).mean().item() == pytest.approx(0, abs=1e-12)
    lost = pairs.copy()
    lost[3] = np.nan
    found = compare_with_stations(lost, holed, reference_station="ST02")
    touched = (pairs.reference_time == displacement.time[3]) | (
        pairs.secondary_time == displacement.time[3]
    )
    touched[3] = True
    np.testing.assert_array_equal(
        np.isnan(found.gnss.values), np.tile(touched, (10, 1))
    )


def test_comparisons_that_cannot_be(scene):
    stations, displacement, pairs = scene
    late = stations.assign_coords(time=TIMES + np.timedelta64(1000, "D"))
    with pytest.raises(ValueError, match=r"2020-09-27 to .* radar 2018-01-12 to"):
        compare_with_stations(pairs, late)
    with pytest.raises(ValueError, match="holds data"):
        compare_with_stations(pairs * np.nan, stations)
    empty = stations.assign(los=stations.los * np.nan)
    with pytest.raises(ValueError, match="no GNSS solution"):
        compare_with_stations(displacement, empty)
    with pytest.raises(ValueError, match="together at no station and two dates"):
        compare_with_stations(displacement[:1], stations)
    with pytest.raises(ValueError, match="no los and los_std: project"):
        compare_with_stations(pairs, stations.drop_vars(["los", "los_std"]))
    with pytest.raises(ValueError, match="reference_station='SELL' must be one of"):
        compare_with_stations(pairs, stations, reference_station="SELL")
    with pytest.raises(ValueError, match="unit 'rad'"):
        compare_with_stations(pairs.assign_attrs(units="rad"), stations)
    with pytest.raises(ValueError, match="no coordinate secondary_time"):
        compare_with_stations(pairs.drop_vars("secondary_time"), stations)
    with pytest.raises(ValueError, match=r"dims \('y', 'x'\)"):
        compare_with_stations(displacement[0], stations)


def test_a_station_outside_is_named_to_the_caller(scene):
    stations, displacement, _ = scene
    moved = stations.copy(deep=True)
    moved["longitude"][3] += 5
    with pytest.warns(UserWarning, match="left out: ST03") as caught:
        found = compare_with_stations(displacement, moved)
    assert [w.filename for w in caught if w.category is UserWarning] == [__file__]
    assert found.sizes["station"] == 9


@needs_data
def test_mexico_city_pair_at_mxtm():
    """In 24 days 0.284 m/yr down is 14 mm along the line of sight.

    One pair cannot confirm that: it is referenced to firm ground 21 km away.
    """
    raster = rioxarray.open_rasterio(MEXICO / "wide/20180106-20180130_ifg.tif")[0]
    phase = raster.where((raster != 0) & raster.notnull()).drop_vars("band")
    firm = phase.sel(x=slice(-99.175, -99.155), y=slice(19.39, 19.375))
    assert firm.notnull().sum() > 30
    displacement = phase_to_displacement(phase - firm.median(), 0.05550415767769124)
    pair = (
        displacement.drop_attrs(deep=False)
        .expand_dims("pair")
        .assign_coords(
            reference_time=("pair", [np.datetime64("2018-01-06T00:40", "ns")]),
            secondary_time=("pair", [np.datetime64("2018-01-30T00:40", "ns")]),
        )
    )
    stations = project_on_line_of_sight(read_tenv3(MXTM), *LOS)
    found = compare_with_stations(pair, stations)
    assert found.gnss.item() == pytest.approx(-0.0145, abs=0.003)
    assert abs(found.insar.item() - found.gnss.item()) < 0.03  # 20 mm: atmosphere
    crop = rioxarray.open_rasterio(
        MEXICO / "unw/cropA_20180106-20180130_VV_8rlks_eqa_unw.tif"
    )[0]
    with pytest.raises(ValueError, match="none of the stations MXTM is inside"):
        sample_at_stations(crop, stations)
