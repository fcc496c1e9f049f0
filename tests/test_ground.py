"""What joining takes for the motion of the ground: stations that are near each other,
on a line, beyond the date line, far from the frames."""

import logging

import numpy as np
import pytest
import xarray as xr

from cube_denoise.joining.ground import Stations, layout
from cube_denoise.joining.ground_files import read_ground


def stations(lon, lat, east, std=5e-4):
    lon, lat, east = (np.asarray(v, float) for v in (lon, lat, east))
    values = np.stack([east, 0 * east, 0 * east], -1)
    return Stations(layout(lon, lat, values, np.full_like(values, std)))


def random_places(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(28, 32, count), rng.uniform(38, 42, count)


def test_stations_of_one_place_are_one():
    """Two receivers that differ by their errors make no gradient of 1 mm/yr in 50 m."""
    lon, lat = random_places(20)
    alone = stations(lon, lat, np.zeros(20))
    for beside in (0.0, 5e-4):
        doubled = stations(
            [*lon, lon[0] + beside], [*lat, lat[0]], [1e-3, *np.zeros(19), -1e-3]
        )
        points = doubled.points((27, 37, 33, 43))
        assert points.sizes["station"] == 20
        np.testing.assert_allclose(points["east"], 0, atol=1e-15)
        np.testing.assert_allclose(points["east_std"][0], 5e-4 / np.sqrt(2))
        grid = np.meshgrid(np.linspace(27, 33, 30), np.linspace(37, 43, 30))
        np.testing.assert_allclose(doubled.at(*grid)[0], 0, atol=1e-12)
        assert np.median(doubled.at(*grid)[1] / alone.at(*grid)[1]) < 1.05


@pytest.mark.parametrize(
    ("lon", "lat"), [([30, 31, 32], [40, 40, 40]), ([30, 30, 31], [40, 40.001, 41])]
)
def test_places_that_span_no_area_are_refused(lon, lat, tmp_path):
    with pytest.raises(ValueError, match=r"three or more .* not all on one line"):
        stations(lon, lat, [0, 0, 0])
    file = tmp_path / "stations.csv"
    rows = "".join(f"S,{a},{b},1,1\n" for a, b in zip(lon, lat, strict=True))
    file.write_text("station,longitude,latitude,east,north\n" + rows)
    with pytest.raises(ValueError, match=r"gnss='.*stations.csv': GNSS stations are"):
        read_ground(file, unit="mm/yr")


def test_the_date_line_is_no_edge():
    lon, lat = random_places(60)
    east = 1e-3 * np.sin(lon) + 1e-4 * lat
    at = np.array([29.9, 30.1]), np.array([40.0, 40.0])
    here = stations(lon, lat, east)
    for turn in (150.0, -210.0):
        there = stations((lon + turn + 180) % 360 - 180, lat, east)
        place = (at[0] + turn + 180) % 360 - 180
        for one, other in zip(there.at(place, at[1]), here.at(*at), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-9)


def test_stations_elsewhere_do_not_matter():
    """A table of the world: volcanoes elsewhere make north here no less sure."""
    lon, lat = random_places(80)
    east = 1e-4 * lon
    far = random_places(300, seed=1)
    rng = np.random.default_rng(2)
    world = stations(
        [*lon, *(far[0] - 120)],
        [*lat, *(far[1] - 60)],
        [*east, *rng.normal(0, 0.05, 300)],
    )
    near = world.near((29, 39, 31, 41))
    assert near.velocities.sizes["station"] == 80
    at = np.array([30.0]), np.array([40.0])
    for one, other in zip(near.at(*at), stations(lon, lat, east).at(*at), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)
    assert (near.at(*at)[1][0, 0] < 1e-3) and (world.at(*at)[1][0, 0] > 0.01)
    # Where none is within reach, the next ones count.
    beyond = stations(lon, lat, east).near((60, 39, 61, 40))
    assert beyond.velocities.sizes["station"] == 50


def test_longitudes_to_360_and_stations_without_north(tmp_path, caplog):
    file = tmp_path / "stations.csv"
    head = "station,longitude,latitude,east,north\n"
    file.write_text(head + "A,262,20,1,2\nB,263,20,1,2\nC,262,21,1,2\nD,263,21,1,\n")
    with caplog.at_level(logging.WARNING, logger="cube_denoise"):
        found = read_ground(file, unit="mm/yr")
    assert "1 of 4 GNSS stations" in caplog.text
    assert found.points((-99, 19, -96, 22)).sizes["station"] == 3
    for name in ("east", "north"):
        field = xr.DataArray(
            np.full((3, 4), 2.0),
            {"lat": [19.0, 20, 21], "lon": [261.0, 262, 263, 264]},
            ("lat", "lon"),
            attrs={"units": "mm/yr"},
        )
        field.to_dataset(name="z").to_netcdf(tmp_path / f"{name}.nc")
    told = f"east={tmp_path}/east.nc,north={tmp_path}/north.nc"
    values, _ = read_ground(told).at(np.array([-98.0]), np.array([20.0]))
    np.testing.assert_allclose(values, [[2e-3, 2e-3, 0]])
