"""Regions, series and profiles of a published product, against the product itself."""

import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.geom
import pytest
import xarray as xr
from pyproj import Geod, Transformer
from shapely.geometry import Point, Polygon, mapping
from velocity_products import velocity_product

import cube_denoise as cd
from cube_denoise import store
from cube_denoise.product_folder import ProductError

CORNER, PIXEL, SHAPE = (500_000.0, 4_500_000.0), 100.0, (41, 59)
TO_DEGREES = Transformer.from_crs("EPSG:32635", "EPSG:4326", always_xy=True)
TO_METRES = Transformer.from_crs("EPSG:4326", "EPSG:32635", always_xy=True)


@pytest.fixture(scope="module")
def product() -> xr.Dataset:
    return velocity_product(SHAPE)


@pytest.fixture(scope="module")
def url(product: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    url = tmp_path_factory.mktemp("published") / "p"
    cd.publish(product, url, chunk=16, shard=16, cog=False)
    return url


def place(row: float, column: float) -> tuple[float, float]:
    """Longitude and latitude; (0, 0) is the corner of the first pixel."""
    x, y = CORNER[0] + PIXEL * column, CORNER[1] - PIXEL * row
    return TO_DEGREES.transform(x, y)


# --- regions ---


def test_a_box_is_the_pixels_that_it_touches(product: xr.Dataset, url: Path) -> None:
    west, south, east, north = 27.011, 40.632, 27.033, 40.645
    found = cd.open_velocity(url, bbox=(west, south, east, north))
    sides = np.linspace(0, 1, 200)
    lon = [*(west + sides * (east - west)), *[west] * 200, *[east] * 200]
    lat = [south] * 200 + [*(south + sides * (north - south))] * 2
    lon += [*(west + sides * (east - west))]
    lat += [north] * 200
    x, y = TO_METRES.transform(lon, lat)
    columns = (np.array(x) - CORNER[0]) / PIXEL
    rows = (CORNER[1] - np.array(y)) / PIXEL
    expected = product.isel(
        y=slice(int(rows.min()), int(np.ceil(rows.max()))),
        x=slice(int(columns.min()), int(np.ceil(columns.max()))),
    )
    xr.testing.assert_equal(
        found["velocity"].drop_vars("spatial_ref").compute(),
        expected["velocity"].drop_vars("spatial_ref"),
    )
    assert (
        found.odc.geobox
        == product.odc.geobox[
            int(rows.min()) : int(np.ceil(rows.max())),
            int(columns.min()) : int(np.ceil(columns.max())),
        ]
    )


def test_what_is_read_are_the_chunks_of_the_region(url: Path) -> None:
    found = cd.open_velocity(url, bbox=(27.011, 40.632, 27.033, 40.645))
    rows, columns = (found.chunksizes[d] for d in ("y", "x"))
    first = round((float(found.x[0]) - CORNER[0]) / PIXEL - 0.5)
    assert np.unique((first + np.cumsum(columns)[:-1]) % 16).tolist() == [0]
    assert max(*rows, *columns) <= 16
    assert not any(v.variable._in_memory for v in found.data_vars.values())


SHAPES = {
    "shapely": lambda p: p,
    "geojson": mapping,
    "feature": lambda p: {"type": "Feature", "geometry": mapping(p), "properties": {}},
    "collection": lambda p: {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "geometry": mapping(p), "properties": {}}],
    },
    "odc": lambda p: odc.geo.geom.Geometry(p, "EPSG:4326").to_crs("EPSG:32635"),
}


LARGE = [(4.2, 7.7), (30.1, 20.3), (33.3, 50.9), (6.6, 41.2)]
IN_ONE_SHARD = [(17.5, 20.2), (30.7, 24.1), (22.1, 31.4)]


@pytest.mark.parametrize(
    ("kind", "corners"),
    [*((kind, LARGE) for kind in SHAPES), ("shapely", IN_ONE_SHARD)],
)
def test_a_polygon_keeps_the_pixels_whose_centres_are_inside(
    product: xr.Dataset, url: Path, kind: str, corners: list[tuple[float, float]]
) -> None:
    corners = [place(*c) for c in corners]
    found = cd.open_velocity(url, geometry=SHAPES[kind](Polygon(corners))).compute()
    outline = Polygon([TO_METRES.transform(*c) for c in corners])
    x, y = np.meshgrid(product.x, product.y)
    inside = np.array(
        [outline.contains(Point(p)) for p in zip(x.ravel(), y.ravel(), strict=True)]
    )
    kept = product.where(xr.DataArray(inside.reshape(SHAPE), dims=("y", "x")))
    window = kept.sel(x=found.x, y=found.y)
    for name in ("velocity", "velocity_std", "velocity_covariance", "first_date"):
        np.testing.assert_array_equal(found[name], window[name])
    np.testing.assert_array_equal(found["frame_count"], window["frame_count"].fillna(0))
    assert np.isfinite(found["velocity"]).sum() == np.isfinite(kept["velocity"]).sum()
    assert found["frame_count"].dtype == "int16"
    assert found["first_date"].dtype == "datetime64[s]"


def test_a_region_of_a_coarse_level(url: Path) -> None:
    assert cd.open_velocity(url, level=-1).attrs["level"] == 2
    whole = cd.open_velocity(url, level=1)
    part = cd.open_velocity(url, level=1, bbox=(27.011, 40.632, 27.033, 40.645))
    same = whole.sel(x=part.x, y=part.y)
    np.testing.assert_array_equal(part["velocity"], same["velocity"])
    assert part.sizes["x"] < whole.sizes["x"]


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ({"bbox": (10, 40, 11, 41)}, "outside the product, which covers longitudes 27"),
        ({"bbox": (28, 40, 27, 41)}, "must be .west, south, east, north."),
        ({"bbox": (27, 40, 28)}, "must be .west, south, east, north."),
        ({"geometry": Polygon()}, "geometry is empty"),
        ({"geometry": {"type": "FeatureCollection", "features": []}}, "is empty"),
        ({"geometry": Point(27.02, 40.64)}, "Point has no area"),
        ({"geometry": "here"}, "geometry must be a polygon"),
        ({"geometry": {"type": "Ball"}}, "geometry must be a polygon"),
        ({"geometry": Point(10, 40).buffer(0.1)}, "geometry is outside the product"),
        ({"bbox": (27, 40, 28, 41), "geometry": Point(27, 40).buffer(1)}, "both given"),
        (
            {"geometry": {"type": "Polygon", "coordinates": [[[27, 40], [28, 41]]]}},
            "geometry must be a polygon",
        ),
        ({"level": 3}, "level=3 must be 0 to 2"),
        ({"level": 0.5}, "level=0.5 must be 0 to 2"),
        ({"version": "first"}, "version='first' must be one of"),
    ],
)
def test_regions_that_are_none(url: Path, region: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cd.open_velocity(url, **region)


def test_places_that_hold_no_product(small_cube: Path, tmp_path: Path) -> None:
    with pytest.raises(ProductError, match="there is no published product"):
        cd.open_velocity(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(ProductError, match="this is a cube: open it with open_cube"):
        cd.open_velocity(small_cube)
    (tmp_path / "collection.json").write_text("{}")
    with pytest.raises(ProductError, match="is of something else"):
        cd.open_velocity(tmp_path)
    (tmp_path / "collection.json").write_text("{")
    with pytest.raises(ValueError, match=r"collection\.json is not JSON"):
        cd.open_velocity(tmp_path)


# --- profiles ---


def plane() -> xr.Dataset:
    """A product whose velocity is linear in x and y, in m from the corner."""
    found = velocity_product(SHAPE, gaps=0.0)
    x, y = found.x - CORNER[0], CORNER[1] - found.y
    east, up = 1e-6 * x + 2e-6 * y, 3e-6 * y - 1e-6 * x
    velocity = xr.concat([east, up], "component").transpose("component", "y", "x")
    found["velocity"] = (found["velocity"].dims, velocity.values.astype("f4"))
    return found


def test_a_profile_of_a_plane_is_exact() -> None:
    found = plane()
    corners = [place(3, 5), place(30, 40), place(20, 55)]
    line = cd.profile(found, corners, spacing=70.0)
    x, y = TO_METRES.transform(line.lon.values, line.lat.values)
    x, y = x - CORNER[0], CORNER[1] - y
    expected = np.stack([1e-6 * x + 2e-6 * y, 3e-6 * y - 1e-6 * x])
    np.testing.assert_allclose(line["velocity"], expected, atol=1e-8)
    geod = Geod(ellps="WGS84")
    length = sum(geod.inv(*a, *b)[2] for a, b in pairwise(corners))
    assert float(line.distance[-1]) == pytest.approx(length)
    steps = geod.inv(line.lon[:-1], line.lat[:-1], line.lon[1:], line.lat[1:])[2]
    bend = geod.inv(*corners[0], *corners[1])[2]
    ends = line.distance.values
    straight = ~((ends[:-1] < bend) & (ends[1:] > bend))
    np.testing.assert_allclose(steps[straight][:-1], 70, rtol=1e-6)


def test_a_profile_of_the_nearest_pixels(product: xr.Dataset, url: Path) -> None:
    line = cd.profile(
        cd.open_velocity(url), [place(2, 3), place(35, 50)], method="nearest"
    )
    x, y = TO_METRES.transform(line.lon.values, line.lat.values)
    rows = ((CORNER[1] - np.array(y)) / PIXEL).astype(int)
    columns = ((np.array(x) - CORNER[0]) / PIXEL).astype(int)
    for name in ("velocity", "velocity_std"):
        np.testing.assert_array_equal(
            line[name], product[name].values[:, rows, columns]
        )
    assert line["velocity"].dims == ("component", "distance")


def test_a_profile_of_pixels_goes_to_their_edges(product: xr.Dataset) -> None:
    """Not to the centres of the outer ones; of a single row, too."""
    for part in (product, product.isel(y=slice(7, 8))):
        row = 7.2 if part.sizes["y"] == 1 else 0.2
        ends = [place(row, 0.1), place(row, SHAPE[1] - 0.1)]
        line = cd.profile(part, ends, method="nearest", spacing=50.0)
        known = float(np.isfinite(part["velocity"][:, 0]).mean())
        assert float(np.isfinite(line["velocity"]).mean()) == pytest.approx(
            known, abs=0.05
        )
        assert float(line["velocity"][0, 0]) == float(part["velocity"][0, 0, 0])
    with pytest.raises(ValueError, match=r"has 1 x 59: give method='nearest'"):
        cd.profile(part, ends)


def test_a_long_profile_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plane()
    corners = [place(1, 1), place(38, 57)]
    whole = cd.profile(found, corners)
    monkeypatch.setattr(sys.modules["cube_denoise.profile"], "PIECE", 5)
    xr.testing.assert_allclose(cd.profile(found, corners), whole, atol=1e-9)


def test_a_profile_beyond_the_product_has_no_data(url: Path) -> None:
    line = cd.profile(cd.open_velocity(url), [place(10, -30), place(10, 30)])
    outside = line.distance < 2900
    assert np.isnan(line["velocity"].where(outside, drop=True)).all()
    assert np.isfinite(line["velocity"].where(~outside, drop=True)).any()


@pytest.mark.parametrize(
    ("line", "options", "words"),
    [
        ([(27.0, 40.6)], {}, "two or more"),
        ("line", {}, "two or more"),
        ([(27.0, 91), (27.0, 40)], {}, "two or more"),
        ([(27.02, 40.64)] * 2, {}, "no length"),
        ([(10, 40), (11, 40)], {}, "line is outside the product"),
        (mapping(Point(27, 40).buffer(1)), {}, "must be a LineString, not 'Polygon'"),
        ([(27.01, 40.6), (27.02, 40.6)], {"spacing": 0}, "spacing=0 must be positive"),
        ([(27.01, 40.6), (27.02, 40.6)], {"spacing": 1e-6}, "points: at most"),
        ([(27.01, 40.6), (27.02, 40.6)], {"method": "cubic"}, "must be one of linear"),
    ],
)
def test_lines_that_are_none(
    product: xr.Dataset, line: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        cd.profile(product, line, **options)


# --- series ---


@pytest.fixture(scope="module")
def frame(stack: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube whose corrected phase is half the raw one, inverted."""
    url = tmp_path_factory.mktemp("frame") / "cube"
    cd.ingest_dataset(stack, url, chunk=32, shard=64)
    cd.correct_cube(url, "ramp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cd.invert_cube(url)
    return url


def test_series_are_those_of_the_cubes(frame: Path) -> None:
    snapshot, cube = store.newest(frame)
    product = cd.product_of_cube(cube, url=str(frame), snapshot=snapshot)
    row, column = 40, 55
    to_degrees = Transformer.from_crs(str(cube.odc.crs), "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(float(cube.x[column]), float(cube.y[row]))
    (series,) = cd.point_series(product, lon, lat, raw=True).values()
    pixel = cube.isel(y=row, x=column)
    for name in ("displacement", "displacement_std", "velocity", "los_east"):
        np.testing.assert_array_equal(series[name], pixel[name])
    assert series.attrs["phase_variable"] == "corrected_phase"
    assert series.attrs["track"] == cube.attrs["track"]
    told = cube["displacement"].attrs
    area = {d: told[f"reference_{n}"] for d, n in (("y", "rows"), ("x", "columns"))}
    raw = cd.invert(cube, variable="unwrapped_phase", reference=area)
    np.testing.assert_allclose(
        series["raw_displacement"], raw["displacement"][:, row, column], atol=1e-7
    )
    assert abs(series["raw_displacement"] - series["displacement"]).max() > 1e-4


def test_series_that_cannot_be(frame: Path, tmp_path: Path) -> None:
    snapshot, cube = store.newest(frame)
    product = cd.product_of_cube(cube, name="one", url=str(frame), snapshot=snapshot)
    (told,) = product.attrs["frames"]
    west, south, east, north = told["bbox"]
    lon, lat = (west + east) / 2, (south + north) / 2
    with pytest.raises(ValueError, match="outside the product"):
        cd.point_series(product, lon + 10, lat)
    with pytest.raises(ValueError, match=r"frames=\['two'\] are none of one"):
        cd.point_series(product, lon, lat, frames=["two"])
    lost = told | {"name": "two", "url": str(tmp_path / "lost")}
    both = product.assign_attrs(frames=[told, lost])
    with pytest.warns(UserWarning, match="left out two: .*no cube"):
        assert list(cd.point_series(both, lon, lat)) == ["one"]
    with pytest.raises(ValueError, match=r"no series at .*two: .*no cube"):
        cd.point_series(product.assign_attrs(frames=[lost]), lon, lat)
    beside = told | {"bbox": [west - 9, south, west - 8, north]}
    assert cd.point_series(product.assign_attrs(frames=[beside]), lon, lat) == {}
