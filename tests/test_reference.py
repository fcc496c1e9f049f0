"""Reference areas against pixel centres in or out; reference dates as pure shifts."""

import json
from datetime import date

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from command_line import done, mistake
from matplotlib.path import Path as Outline
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Geod, Transformer

from cube_denoise.conventions import displacement_to_phase
from cube_denoise.invert import invert
from cube_denoise.job import read_job
from cube_denoise.reference import READ_SIZE, reference_phase
from cube_denoise.reference_area import (
    ReferenceArea,
    asked_reference,
    recorded_reference,
)
from cube_denoise.reference_date import CELLS, SIDE, asked_date
from cube_denoise.reference_pixels import checked_area
from cube_denoise.steps import invert_cube
from cube_denoise.store import open_cube

pytestmark = pytest.mark.usefixtures("logging_as_it_was")

WAVELENGTH = 0.05546576
UTM = "EPSG:32613"
LEFT, TOP, STEP = 500_000.0, 2_010_000.0, 50.0
TIMES = np.datetime64("2020-01-01T05:00:00", "s") + 12 * 86400 * np.arange(10)
YEARS = 12 / 365.25 * np.arange(10)
PAIRS = [(i, i + k) for i in range(10) for k in (1, 2, 3) if i + k < 10]
LON_LAT = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)


def cube_of(phase, *, pairs=PAIRS, crs=UTM, corner=(LEFT, TOP), step=STEP):
    """Pairs (pair, y, x) on a grid, coherence 0.7."""
    first, second = np.array(pairs).T
    grid = GeoBox(phase.shape[1:], Affine(step, 0, corner[0], 0, -step, corner[1]), crs)
    dims = ("pair", "y", "x")
    return xr.Dataset(
        {
            "unwrapped_phase": (dims, phase.astype("float32")),
            "coherence": (dims, np.full(phase.shape, 0.7, "float32")),
        },
        coords={
            "reference_time": ("pair", TIMES[first]),
            "secondary_time": ("pair", TIMES[second]),
            **xr_coords(grid, dims=("y", "x")),
        },
        attrs={"wavelength": WAVELENGTH},
    )


def noise(shape=(30, 40), seed=0):
    return np.random.default_rng(seed).normal(scale=3, size=(len(PAIRS), *shape))


def pixels_of(area, shape):
    """Pixels of an area as a mask of the whole grid."""
    found = np.zeros(shape, bool)
    found[area.y, area.x] = True if area.mask is None else area.mask
    return found


def inside(outline, cube, holes=()):
    """Pixels whose centres are in an outline given in the cube's CRS."""
    centres = np.stack(np.meshgrid(cube.x, cube.y), -1).reshape(-1, 2)
    there = Outline(outline).contains_points(centres)
    for hole in holes:
        there &= ~Outline(hole).contains_points(centres)
    return there.reshape(cube.sizes["y"], cube.sizes["x"])


def ring(x, y, radius, corners=7):
    turn = 0.3 + 2 * np.pi * np.arange(corners + 1) / corners
    ends = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1)
    ends[-1] = ends[0]
    return ends.tolist()


def named(crs):
    return {"crs": {"type": "name", "properties": {"name": crs}}}


def polygon(*rings, crs=UTM):
    return {"type": "Polygon", "coordinates": list(rings)} | named(crs)


def degrees(outline):
    return [list(LON_LAT.transform(x, y)) for x, y in outline]


HOME = ring(LEFT + 900, TOP - 800, 430)


def test_ways_to_write_pixels_are_one():
    cube = cube_of(noise())
    want = ReferenceArea(slice(2, 6), slice(0, 40))
    for given in (
        {"y": slice(2, 6), "x": slice(None)},
        {"y": [2, 6], "x": [0, 40]},
        {"x": (0, 40), "y": (2, 6)},
        want,
    ):
        assert checked_area(given, cube) == want
    assert want != ReferenceArea(slice(2, 6), slice(0, 39))


@pytest.mark.parametrize("at", [(910.0, 790.0), (12.0, 3.0), (1999.0, 1499.0)])
@pytest.mark.parametrize("window", [1, 5, 9])
def test_a_point_takes_the_square_around_its_pixel(at, window):
    cube = cube_of(noise())
    x, y = LEFT + at[0], TOP - at[1]
    column, row = (
        int(np.abs(cube[d].values - v).argmin()) for d, v in (("x", x), ("y", y))
    )
    want = np.zeros((30, 40), bool)
    half = window // 2
    for k, n in np.ndindex(want.shape):
        want[k, n] = abs(k - row) <= half and abs(n - column) <= half
    lon, lat = LON_LAT.transform(x, y)
    for place in ({"x": x, "y": y}, {"lon": lon, "lat": lat}):
        area = checked_area(place | {"window": window}, cube)
        np.testing.assert_array_equal(pixels_of(area, want.shape), want)
        if window == 5:
            assert checked_area(place, cube) == area


def test_a_radius_takes_the_pixels_that_are_that_near():
    cube = cube_of(noise())
    x, y = LEFT + 430.0, TOP - 1390.0  # the circle is cut at the lower edge
    area = checked_area({"x": x, "y": y, "radius": 260}, cube)
    far = np.hypot(cube.x - x, cube.y - y).transpose("y", "x")
    np.testing.assert_array_equal(pixels_of(area, (30, 40)), far <= 260)


def test_a_radius_is_metres_on_a_geographic_grid():
    cube = cube_of(noise(), crs="EPSG:4326", corner=(-99.2, 55.0), step=0.001)
    lon, lat = -99.1803, 54.9852
    centres = np.meshgrid(cube.x, cube.y)
    shape = (30, 40)
    far = Geod(ellps="WGS84").inv(np.full(shape, lon), np.full(shape, lat), *centres)[2]
    area = checked_area({"lon": lon, "lat": lat, "radius": 500}, cube)
    np.testing.assert_array_equal(pixels_of(area, shape), far <= 500)
    assert checked_area({"lon": lon + 360, "lat": lat}, cube) == checked_area(
        {"x": lon, "y": lat}, cube
    )


def test_a_polygon_takes_the_pixels_whose_centres_are_in_it(tmp_path):
    cube = cube_of(noise())
    want = inside(HOME, cube)
    assert 100 < want.sum() < 400
    path = tmp_path / "rest.geojson"
    in_degrees = {"type": "Polygon", "coordinates": [degrees(HOME)]}
    feature = {"type": "Feature", "properties": {}, "geometry": in_degrees}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    for given in (polygon(HOME), in_degrees, feature, path, str(path)):
        area = checked_area(given, cube)
        np.testing.assert_array_equal(pixels_of(area, want.shape), want)


def test_polygons_may_have_holes_overlap_and_reach_out():
    cube = cube_of(noise())
    hole = ring(LEFT + 900, TOP - 800, 150)
    other = ring(LEFT + 1100, TOP - 900, 300)
    beyond = ring(LEFT + 2000, TOP, 400)
    several = {
        "type": "MultiPolygon",
        "coordinates": [[HOME, hole], [other], [beyond]],
    } | named(UTM)
    want = inside(HOME, cube, [hole]) | inside(other, cube) | inside(beyond, cube)
    area = checked_area(several, cube)
    np.testing.assert_array_equal(pixels_of(area, want.shape), want)
    assert not pixels_of(checked_area(polygon(HOME, hole), cube), want.shape)[16, 18]


@pytest.mark.parametrize(
    "given",
    [
        {"y": [2, 6], "x": [3, 8]},
        {"x": LEFT + 900, "y": TOP - 800},
        {"x": LEFT + 900, "y": TOP - 800, "radius": 200},
        polygon(HOME),
        {"type": "Polygon", "coordinates": [degrees(HOME)]},
    ],
)
def test_mean_phase_of_the_pixels_is_taken_off_and_they_are_recorded(given):
    cube = cube_of(noise())
    area = checked_area(given, cube)
    there = pixels_of(area, (30, 40))
    phase = cube.unwrapped_phase
    level = phase.values[:, there].mean(1, dtype="float64")
    same = cube.assign(unwrapped_phase=phase - xr.DataArray(level, dims="pair"))
    free = invert(cube, reference=given).compute()
    np.testing.assert_allclose(free.displacement.values[:, there].mean(1), 0, atol=1e-8)
    np.testing.assert_allclose(
        free.displacement, invert(same, reference=given).displacement, atol=1e-7
    )
    told = free.velocity.attrs
    assert told["reference_rows"] == [area.y.start, area.y.stop]
    again = recorded_reference(json.loads(json.dumps(told)))
    assert checked_area(again, cube) == area
    assert asked_reference(again) == asked_reference(given) == asked_reference(area)


def test_reference_phase_of_a_mask_in_several_windows():
    rng = np.random.default_rng(1)
    phase = rng.normal(size=(2, READ_SIZE + 40, 60))
    phase[rng.random(phase.shape) < 0.4] = np.nan
    cube = cube_of(phase, pairs=PAIRS[:2])
    mask = rng.random((READ_SIZE + 10, 50)) < 0.5
    area = ReferenceArea(slice(20, READ_SIZE + 30), slice(5, 55), mask)
    want = [np.nanmean(p[20 : READ_SIZE + 30, 5:55][mask]) for p in phase]
    found = reference_phase(cube, "unwrapped_phase", area)
    np.testing.assert_allclose(found, want, atol=1e-7)


CROSSED = [[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lon": -105, "lat": 18, "y": [0, 5], "x": [0, 5]}, "pixels and point"),
        ({"lon": -105, "lat": 18} | polygon(HOME), "point and polygon"),
        ({"y": [0, 5], "x": [0, 5]} | polygon(HOME), "pixels and polygon"),
        ({"lon": -105, "lat": 18, "window": 5, "radius": 9}, "window and radius"),
        ({"lon": -105}, "numbers for lon and lat"),
        ({"lon": "west", "lat": 18}, "numbers for lon and lat"),
        ({"lon": np.nan, "lat": 18}, "numbers for lon and lat"),
        ({"lon": -105, "lat": 18, "size": 5}, "may give window"),
        ({"lon": -105, "lat": 18, "window": 4}, "window=4 must be an odd"),
        ({"lon": -105, "lat": 18, "radius": -4}, "radius=-4 must be metres"),
        ({"lon": -105, "lat": 17}, "outside the cube, which reaches from -105, 18.1"),
        ({"x": LEFT - 1, "y": TOP - 9}, "outside the cube, which reaches from 500000"),
        ({"x": LEFT + 50, "y": TOP - 50, "radius": 9}, "no pixel centre is that near"),
        ({"y": [0, 5]}, "must have the slices 'y' and 'x'"),
        ({"y": [5, 5], "x": [0, 5]}, r"within 0\.\.30"),
        ({"y": [0, 5, 2], "x": [0, 5]}, "pixel limits"),
        ({"y": slice(0, 5, 2), "x": [0, 5]}, "pixel limits"),
        ({"rows": 3}, 'must be "auto" or give pixels'),
        (7, 'must be "auto" or give pixels'),
        ("nowhere.geojson", "nowhere.geojson"),
        (polygon(ring(LEFT - 900, TOP, 300)), "outside the cube"),
        (polygon(ring(LEFT + 50, TOP - 50, 9)), "no pixel centre"),
        (polygon(CROSSED), "invalid polygon"),
        (polygon(HOME[:3]), "invalid polygon"),
        (polygon([["a", 0], *HOME]), "invalid polygon"),
        (polygon(), "invalid polygon"),
        ({"type": "FeatureCollection", "features": []}, "no polygon"),
        ({"type": "Point", "coordinates": [-105, 18]}, "has a Point"),
        ({"type": "Polygon", "coordinates": [HOME]}, "longitudes and latitudes"),
        (polygon(HOME, crs="EPSG:1"), "EPSG:32614"),
    ],
)
def test_references_that_are_none(given, message):
    with pytest.raises(ValueError, match=message):
        invert(cube_of(noise()), reference=given)


def test_a_reference_needs_data_and_a_place_needs_a_grid():
    phase = noise()
    phase[:, pixels_of(checked_area(polygon(HOME), cube_of(phase)), (30, 40))] = np.nan
    with pytest.raises(ValueError, match="no pair of unwrapped_phase has data there"):
        invert(cube_of(phase), reference=polygon(HOME))
    bare = cube_of(noise()).drop_vars(["y", "x", "spatial_ref"])
    with pytest.raises(ValueError, match="give pixel limits"):
        invert(bare, reference={"lon": -105, "lat": 18})


def quiet_but_at(loud, *, shape=(40, 50), quiet=6, seed=3):
    """Motion, atmosphere of every date, less at date `quiet`, more at `loud`."""
    rng = np.random.default_rng(seed)
    rate = rng.normal(scale=0.05, size=shape)
    scale = np.where(np.arange(10) == quiet, 5e-4, 3e-3)
    scale[loud] = 0.01
    series = (
        rate * YEARS[:, None, None]
        + rng.normal(size=(10, *shape)) * scale[:, None, None]
    )
    x = displacement_to_phase(series, WAVELENGTH)
    first, second = np.array(PAIRS).T
    return cube_of(x[second] - x[first])


AREA = {"y": slice(2, 6), "x": slice(3, 8)}


@pytest.mark.parametrize("k", [0, 4, 9])
def test_another_date_shifts_the_series_alone(k):
    cube = cube_of(noise())
    first = invert(cube, reference=AREA).compute()
    text = str(TIMES[k])[:10]
    moved = invert(cube, reference=AREA, reference_date=text).compute()
    assert moved.displacement.attrs["reference_time"] == str(TIMES[k])
    np.testing.assert_allclose(
        moved.displacement, first.displacement - first.displacement[k], atol=1e-8
    )
    np.testing.assert_array_equal(moved.displacement[k], 0)
    np.testing.assert_array_equal(moved.displacement_std[k], 0)
    # From one date to another it is as uncertain as back.
    np.testing.assert_allclose(
        moved.displacement_std[0], first.displacement_std[k], rtol=1e-4
    )
    for name in set(first.data_vars) - {"displacement", "displacement_std"}:
        np.testing.assert_allclose(moved[name], first[name], rtol=1e-4, atol=1e-6)


def test_pixels_without_that_date_have_no_series():
    phase = noise()
    touches = np.array([4 in pair for pair in PAIRS])
    phase[touches, 20:, 20:] = np.nan
    found = invert(cube_of(phase), reference=AREA, reference_date=TIMES[4]).compute()
    lost = found.isel(y=slice(20, None), x=slice(20, None))
    assert (lost.gap_count == 9).all() and (lost.pair_count == 0).all()
    assert np.isnan(lost.displacement.isel(time=[0, 1, 2, 3, 5, 6, 7, 8, 9])).all()
    assert np.isnan(lost.velocity).all()
    rest = found.isel(y=slice(20), x=slice(20))
    assert (rest.gap_count == 0).all() and np.isfinite(rest.displacement).all()


def test_the_quietest_date_is_found_whatever_the_blocks():
    cube = quiet_but_at(0)
    options = {"reference": AREA, "reference_date": "least-residual"}
    found = invert(cube, **options).compute()
    assert found.velocity.attrs["reference_time"] == str(TIMES[6])
    assert found.velocity.attrs["reference_date"] == "least-residual"
    np.testing.assert_array_equal(found.displacement[6], 0)
    other = invert(cube, block=16, **options).compute()
    xr.testing.assert_identical(found, other)
    loud = invert(quiet_but_at(6, quiet=2), **options)
    assert loud.velocity.attrs["reference_time"] == str(TIMES[2])


def test_a_date_that_many_pixels_lack_does_not_compete():
    cube = quiet_but_at(0)
    touches = np.array([6 in pair for pair in PAIRS])
    gone = touches[:, None, None] & (np.arange(50) >= 30)
    cube = cube.assign(unwrapped_phase=cube.unwrapped_phase.where(~gone))
    found = invert(cube, reference=AREA, reference_date="least-residual")
    assert found.velocity.attrs["reference_time"] != str(TIMES[6])


def test_large_scenes_are_sampled():
    """What lies between the windows does not count."""
    side = CELLS * SIDE * 2
    phase = np.full((len(PAIRS), side, 20), np.nan)
    small = quiet_but_at(0, shape=(SIDE, 20)).unwrapped_phase.values
    for k in range(CELLS):
        middle = side * (2 * k + 1) // (2 * CELLS)
        phase[:, middle - SIDE // 2 : middle + SIDE // 2] = small
    area = {"y": slice(8, 16), "x": slice(0, 5)}
    options = {"reference": area, "reference_date": "least-residual"}
    found = invert(cube_of(phase), **options)
    assert found.velocity.attrs["reference_time"] == str(TIMES[6])
    phase = np.where(np.isfinite(phase), np.nan, noise((side, 20)))
    with pytest.raises(ValueError, match="no pixel of the 6 windows"):
        invert(cube_of(phase), **options | {"reference": {"y": [0, 8], "x": [0, 5]}})


def test_dates_may_be_written_in_many_ways():
    for given in ("2020-02-18", "20200218", 20200218, date(2020, 2, 18)):
        assert asked_date(given) == "2020-02-18"
    assert asked_date(TIMES[4]) == str(TIMES[4])
    assert asked_date("first") == "first"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("last", "must be 'first', 'least-residual' or a date"),
        ("2020", "must be 'first'"),
        ("NaT", "must be 'first'"),
        (3.5, "must be 'first'"),
        (None, "must be 'first'"),
        ("2020-02-19", "nearest is 2020-02-18T05:00:00"),
        ("2020-02-18T06:00", "nearest is 2020-02-18T05:00:00"),
    ],
)
def test_dates_that_are_none(given, message):
    with pytest.raises(ValueError, match=message):
        invert(cube_of(noise()), reference=AREA, reference_date=given)


def test_two_passes_on_a_day_need_the_time():
    cube = cube_of(noise())
    near = cube.reference_time.where(
        cube.reference_time != TIMES[1], TIMES[0] + np.timedelta64(3600, "s")
    )
    late = cube.secondary_time.where(
        cube.secondary_time != TIMES[1], TIMES[0] + np.timedelta64(3600, "s")
    )
    cube = cube.assign_coords(reference_time=near, secondary_time=late)
    with pytest.raises(ValueError, match="give the time as well"):
        invert(cube, reference=AREA, reference_date="2020-01-01")
    found = invert(cube, reference=AREA, reference_date="2020-01-01T06")
    assert found.velocity.attrs["reference_time"] == "2020-01-01T06:00:00"


def test_a_date_of_a_smaller_subset_is_taken_with_a_warning():
    chosen = [PAIRS.index(p) for p in ((0, 1), (1, 2), (2, 3), (5, 6))]
    cube = cube_of(noise()).isel(pair=chosen)
    with pytest.warns(UserWarning, match="4 of 6 dates have no chain"):
        found = invert(cube, reference=AREA, reference_date=TIMES[5]).compute()
    assert (np.isfinite(found.displacement).all(("y", "x"))).values.sum() == 2


def test_a_date_whose_pairs_are_all_left_out():
    phase = noise()
    phase[np.array([9 in p for p in PAIRS]), 2:6, 3:8] = np.nan
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match="only pairs without data in the reference"),
    ):
        invert(cube_of(phase), reference=AREA, reference_date=TIMES[9])


def test_a_cube_records_its_reference_and_keeps_to_it(make_cube, tmp_path):
    url = make_cube()
    cube = open_cube(url)
    x, y = (float(cube[d].mean()) for d in ("x", "y"))
    outline = ring(x, y, 15 * float(cube.x[1] - cube.x[0]))
    path = tmp_path / "rest.geojson"
    path.write_text(json.dumps(polygon(outline, crs=cube.attrs["proj:code"])))
    assert invert_cube(url, reference=path).done
    known = open_cube(url).velocity.attrs
    area = checked_area(recorded_reference(known), cube)
    np.testing.assert_array_equal(pixels_of(area, (96, 96)), inside(outline, cube))
    for same in (path, json.loads(path.read_text()), recorded_reference(known)):
        assert not invert_cube(url, reference=same).done
    outline = ring(x, y, 12 * float(cube.x[1] - cube.x[0]))
    path.write_text(json.dumps(polygon(outline, crs=cube.attrs["proj:code"])))
    assert invert_cube(url, reference=path).done
    assert invert_cube(url, reference="auto").done
    assert not invert_cube(url).done
    last = str(cube.secondary_time.values.max())[:10]
    assert invert_cube(url, reference_date=last).done
    made = open_cube(url)
    assert made.velocity.attrs["reference_time"].startswith(last)
    assert float(abs(made.displacement[-1]).max()) == 0


def test_command_line(make_cube, tmp_path):
    url = make_cube()
    cube = open_cube(url)
    x, y = (float(cube[d].mean()) for d in ("x", "y"))
    to_degrees = Transformer.from_crs(
        cube.attrs["proj:code"], "EPSG:4326", always_xy=True
    )
    lon, lat = to_degrees.transform(x, y)
    point = ("--reference-point", f"{lon},{lat}")
    assert '"steps"' in done("invert", url, *point, "--dry-run", "--json").output
    done("invert", url, *point, "--reference-date", "least-residual")
    told = open_cube(url).velocity.attrs
    assert checked_area(recorded_reference(told), cube) == checked_area(
        {"x": x, "y": y}, cube
    )
    path = tmp_path / "rest.geojson"
    outline = [to_degrees.transform(*corner) for corner in ring(x, y, 900)]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [outline]}))
    shape = ("--reference-polygon", path)
    rows = ("--reference-rows", "1:5", "--reference-columns", "1:5")
    done("invert", url, *shape)
    for first, second in ((rows, point), (point, shape), (rows, shape)):
        said = mistake("invert", url, *first, *second)
        assert first[0] in said and second[0] in said
    for bad, what in (
        (("--reference-point", "1"), "2 numbers"),
        (("--reference-point", "1,2"), "outside the cube"),
        (("--reference-polygon", tmp_path / "none"), "GeoJSON file"),
        (("--reference-date", "1999-01-01"), "not one of the"),
        (("--reference-date", "soon"), "must be 'first'"),
    ):
        for more in ((), ("--dry-run",)):
            assert what in mistake("invert", url, *bad, *more)


def test_job_files_name_polygons_relative_to_themselves(tmp_path):
    job = tmp_path / "job.yaml"
    head = "source: a\ncube: b\ninvert: {reference: "
    job.write_text(head + "rest.geojson}")
    assert read_job(job)["invert"]["reference"] == str(tmp_path / "rest.geojson")
    job.write_text(head + "auto, reference_date: 2020-02-18}")
    asked = read_job(job)["invert"]
    assert asked["reference"] == "auto"
    assert asked_date(asked["reference_date"]) == "2020-02-18"
