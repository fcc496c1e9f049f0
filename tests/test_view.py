"""What `view` reads, says and refuses; without a browser (see test_view_page)."""

import socket
import sys
import warnings
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from command_line import call, done, mistake
from odc.geo.geobox import GeoBox
from view_process import ended, running

import cube_denoise as cd
from cube_denoise.store import CubeError
from cube_denoise.view.cube import CubeSource
from cube_denoise.view.opening import open_source
from cube_denoise.view.source import DISPLACEMENT, UNCERTAINTY, VELOCITY
from cube_denoise.view.window import (
    View,
    Window,
    aspect_of,
    extent,
    find_window,
    read,
    upright,
    whole,
)

HOLE = slice(20, 24)
"""Rows and columns without data."""
STEP, WEST, NORTH = 100.0, 500_000.0, 2_000_000.0


def grid_of(rows: int, columns: int, step: float = STEP) -> GeoBox:
    return GeoBox((rows, columns), Affine(step, 0, WEST, 0, -step, NORTH), "EPSG:32613")


def pyramid(rows: int, columns: int, levels: int) -> list[GeoBox]:
    return [
        grid_of(-(-rows // 2**k), -(-columns // 2**k), STEP * 2**k)
        for k in range(levels)
    ]


@pytest.fixture(scope="module")
def inverted(stack: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of `stack` with a hole, corrected by ramps and inverted."""
    url = tmp_path_factory.mktemp("view") / "cube"
    holed = stack.copy(deep=True)
    holed["unwrapped_phase"][:, HOLE, HOLE] = np.nan
    cd.ingest_dataset(holed, url, chunk=32, shard=64)
    cd.correct_cube(url, "ramp")
    cd.invert_cube(url, reference={"y": [40, 45], "x": [50, 55]})
    return url


# Windows


def test_the_coarsest_level_that_has_a_value_for_each_screen_pixel():
    grids = pyramid(4096, 4096, 4)
    for screen, level, factor in (
        (99.0, 0, 1),  # the pixels of the map are larger than those of the screen
        (100.0, 0, 1),
        (199.9, 0, 1),
        (200.0, 1, 1),
        (799.0, 2, 1),
        (800.0, 3, 1),
        (1600.0, 3, 2),  # no coarser level is stored
        (7000.0, 3, 8),
    ):
        columns, rows = 50, 40
        x, y = WEST + 10_000, NORTH - 50_000
        view = View(x, x + columns * screen, y, y + rows * screen, columns, rows)
        found = find_window(grids, view)
        assert (found.level, found.factor) == (level, factor), screen


def test_level_of_one_that_is_finer_along_one_axis():
    view = View(WEST, WEST + 100 * 400, NORTH - 100 * 150, NORTH, 100, 100)
    assert find_window(pyramid(512, 512, 4), view).level == 0


@pytest.mark.parametrize("seed", range(40))
def test_a_window_covers_the_view_and_hardly_more(seed):
    random = np.random.default_rng(seed)
    rows, columns = (int(n) for n in random.integers(20, 900, 2))
    grids = pyramid(rows, columns, 3)
    x = np.sort(random.uniform(WEST - 9e3, WEST + 1.2 * columns * STEP, 2))
    y = np.sort(random.uniform(NORTH - 1.2 * rows * STEP, NORTH + 9e3, 2))
    view = View(*x, *y, *(int(n) for n in random.integers(10, 300, 2)))
    found = find_window(grids, view)
    right, bottom = WEST + columns * STEP, NORTH - rows * STEP
    seen = (max(x[0], WEST), min(x[1], right), max(y[0], bottom), min(y[1], NORTH))
    if seen[0] >= seen[1] or seen[2] >= seen[3]:
        assert found is None
        return
    left, right, bottom, top = extent(grids[found.level], found)
    size = STEP * 2**found.level * found.factor
    assert seen[0] - size < left <= seen[0] and seen[1] <= right < seen[1] + size
    assert seen[2] - size < bottom <= seen[2] and seen[3] <= top < seen[3] + size
    height, width = view.pixel
    assert size <= min(height, width) or size == STEP
    assert 2 * size > min(height, width)


@pytest.mark.parametrize("factor", [1, 2, 4, 128])
@pytest.mark.parametrize("squares", [False, True])
def test_values_are_means_over_what_holds_data(factor, squares):
    random = np.random.default_rng(5)
    values = random.standard_normal((300, 210)).astype("float32")
    values = np.abs(values) if squares else values
    values[random.random(values.shape) < 0.4] = np.nan
    values[:8, :8] = np.nan
    array = xr.DataArray(values.T, dims=("x", "y"))  # in whatever order
    window = Window(0, slice(0, 300), slice(128, 210), factor)
    found = read(array, window, squares=squares)
    assert found.shape == window.shape and found.dtype == "float32"
    part = values[:, 128:210].astype("float64")
    cells = random.permutation(list(np.ndindex(found.shape)))
    for row, column in [
        (0, 0),
        (-1 % found.shape[0], -1 % found.shape[1]),
        *cells[:200],
    ]:
        cell = part[
            row * factor : (row + 1) * factor, column * factor : (column + 1) * factor
        ]
        cell = cell[np.isfinite(cell)]
        expected = np.nan
        if cell.size:
            expected = np.sqrt((cell**2).mean()) if squares else cell.mean()
        np.testing.assert_allclose(found[row, column], expected, rtol=1e-5, atol=1e-7)


def test_only_strips_are_read_at_once_and_only_of_the_window():
    asked = []

    class Watched(xr.backends.BackendArray):
        shape, dtype = (4096, 2048), np.dtype("float32")

        def __getitem__(self, key):
            rows, columns = key.tuple
            asked.append((rows, columns))
            sides = (
                len(range(*rows.indices(4096))),
                len(range(*columns.indices(2048))),
            )
            return np.ones(sides, "float32")

    lazy = xr.core.indexing.LazilyIndexedArray(Watched())
    array = xr.DataArray(xr.Variable(("y", "x"), lazy))
    read(array, Window(0, slice(1024, 3072), slice(512, 768), 4))
    assert [(r.start, r.stop) for r, _ in asked] == [
        (k, k + 256) for k in range(1024, 3072, 256)
    ]
    assert {(c.start, c.stop) for _, c in asked} == {(512, 768)}


def test_rows_and_columns_are_drawn_where_they_are():
    values = np.arange(6).reshape(2, 3)
    down = GeoBox((2, 3), Affine(1, 0, 0, 0, -1, 2), "EPSG:32613")
    up = GeoBox((2, 3), Affine(1, 0, 0, 0, 1, 0), "EPSG:32613")
    np.testing.assert_array_equal(upright(values, down), [[3, 4, 5], [0, 1, 2]])
    np.testing.assert_array_equal(upright(values, up), values)
    view = View(0.1, 0.9, 0.1, 0.9, 1, 1)  # the lower left pixel
    window = find_window([down], view)
    assert (window.rows, window.columns) == (slice(1, 2), slice(0, 1))
    assert extent(down, window) == (0, 1, 0, 1)
    window = find_window([up], view)
    assert (window.rows, window.columns) == (slice(0, 1), slice(0, 1))


def test_scales_of_the_axes_are_equal_on_the_ground():
    box = GeoBox((100, 100), Affine(0.01, 0, 29, 0, -0.01, 60.5), "EPSG:4326")
    view = whole(box, 640, 480).equalised(aspect_of(box))
    height, width = view.pixel
    assert height / width == pytest.approx(np.cos(np.deg2rad(60)), rel=1e-3)
    assert view.left < 29 and view.right > 30 and view.top > 60.5
    assert (view.left + view.right) / 2 == pytest.approx(29.5)
    assert aspect_of(grid_of(10, 10)) == 1


# Cubes


def test_maps_of_a_cube_are_what_it_holds(inverted):
    cube, source = cd.open_cube(inverted).load(), CubeSource(inverted)
    assert source.kinds == (VELOCITY, UNCERTAINTY, DISPLACEMENT)
    fine, coarse = (whole(source.grid, n, n, margin=0).equalised() for n in (96, 48))
    for kind, name in ((VELOCITY, "velocity"), (UNCERTAINTY, "velocity_std")):
        found = source.picture(kind, "los", fine)
        np.testing.assert_array_equal(
            found.values, cube[name].values[::-1] * np.float32(1000)
        )
        box = source.grid.boundingbox
        assert found.extent == (box.left, box.right, box.bottom, box.top)
        assert (found.level, found.size) == (0, source.grid.affine.a)
    for date in (2, 0, 4, -1):
        found = source.picture(DISPLACEMENT, "los", coarse, date=date)
        cells = cube["displacement"][date].values[::-1].reshape(48, 2, 48, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # cells without data
            expected = np.nanmean(cells.astype("float64"), (1, 3)) * 1000
        np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-5)
        assert found.level == 1
    outside = View(0, 1, 0, 1, 100, 100)
    assert source.picture(VELOCITY, "los", outside) is None


def test_reference_area_is_where_it_is(inverted):
    source = CubeSource(inverted)
    x, y = source.cube["x"].values, source.cube["y"].values
    step = abs(source.grid.affine.a)
    assert source.reference == (
        x[50] - step / 2,
        x[54] + step / 2,
        y[44] - step / 2,
        y[40] + step / 2,
    )


def a_pixel(cube: xr.Dataset) -> tuple[int, int]:
    """Some pixel that holds data at all dates."""
    full = np.isfinite(cube["displacement"]).all("time").values
    full &= np.isfinite(cube["displacement_std"]).all("time").values
    rows, columns = np.nonzero(full)
    return int(rows[len(rows) // 3]), int(columns[len(rows) // 3])


def test_series_of_a_point_is_that_of_its_pixel(inverted):
    cube, source = cd.open_cube(inverted).load(), CubeSource(inverted)
    row, column = a_pixel(cube)
    step = source.grid.affine.a
    x, y = cube["x"].values[column] + 0.4 * step, cube["y"].values[row] - 0.4 * step
    point = source.point(x, y)
    [one] = point.series
    pixel = cube.isel(y=row, x=column)
    np.testing.assert_allclose(one.values, pixel["displacement"] * 1000, rtol=1e-6)
    np.testing.assert_array_equal(one.times, cube["time"].values)
    assert one.label == "corrected"
    [band] = one.bands
    np.testing.assert_allclose(band.std, pixel["displacement_std"] * 1000, rtol=1e-6)
    assert one.rate == pytest.approx(float(pixel["velocity"]) * 1000)
    # The model is a line, so that this is the one that was fitted.
    days = (cube["time"].values - cube["time"].values[0]) / np.timedelta64(1, "D")
    slope, start = np.polyfit(days / 365.25, one.values, 1)
    np.testing.assert_allclose(one.line, start + slope * days / 365.25, atol=1e-2)
    assert point.facts["Pixel"] == f"row {row}, column {column}"
    assert f"{abs(one.rate):.1f} ± {one.rate_std:.1f}" in point.facts["Velocity"]
    outside = source.point(x - 1e6, y)
    assert not outside.series and outside.facts["Velocity"] == "outside the map"
    nothing = source.point(*(float(cube[n][HOLE][1]) for n in ("x", "y")))
    assert not nothing.series and nothing.facts["Velocity"] == "no data"


@pytest.mark.filterwarnings("ignore:1 pair:UserWarning")
def test_raw_series_is_that_of_an_inversion_of_the_raw_pairs(inverted):
    cube, source = cd.open_cube(inverted), CubeSource(inverted)
    raw = cd.invert(
        cube, variable="unwrapped_phase", reference={"y": [40, 45], "x": [50, 55]}
    ).compute()
    row, column = a_pixel(raw)
    found = source.raw(cube["x"].values[column], cube["y"].values[row])
    pixel = raw.isel(y=row, x=column)
    np.testing.assert_allclose(found.values, pixel["displacement"] * 1000, rtol=1e-5)
    np.testing.assert_array_equal(found.times, raw["time"].values)
    assert found.rate == pytest.approx(float(pixel["velocity"]) * 1000, rel=1e-5)
    corrected = cube["displacement"][:, row, column].values * 1000
    assert np.abs(found.values - corrected).max() > 1


def test_a_cube_that_was_not_corrected_has_one_series(inverted, make_cube):
    url = make_cube()
    cd.invert_cube(url)
    source = CubeSource(url)
    row, column = a_pixel(source.cube.load())
    x, y = (source.cube[n].values[k] for n, k in (("x", column), ("y", row)))
    assert [s.label for s in source.point(x, y).series] == ["displacement"]
    assert not source.has_raw and source.raw(x, y) is None


# The command


def test_mistakes_end_in_a_sentence(inverted, small_cube, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (tmp_path / "none", folder):
        said = mistake("view", place, "--no-browser")
        assert "neither a cube nor a published product" in said and str(place) in said
    said = mistake("view", small_cube)
    assert "no velocity" in said and "cube-denoise invert" in said
    said = mistake("view", inverted, "--branch", "no-such")
    assert "no-such" in said and "main" in said
    assert call("view", inverted, "--port", 70000).exit_code == 2


def test_a_port_in_use_is_told(inverted):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = mistake("view", inverted, "--no-browser", "--port", port)
    assert f"port={port}" in said and "in use" in said


def test_without_bokeh_it_says_what_to_install(inverted, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "bokeh"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("server", "page", "figures", "controls"):
        monkeypatch.delitem(sys.modules, f"cube_denoise.view.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "bokeh", None)
    said = mistake("view", inverted)
    assert "pip install 'cube-denoise[view]'" in said
    done("info", inverted)


@pytest.mark.slow
def test_ctrl_c_ends_it(inverted):
    page = running(inverted)
    assert page.address.startswith("http://127.0.0.1:")
    with urlopen(page.address) as answer:
        html = answer.read().decode()
    assert "static/js/bokeh" in html and "https://" not in html
    ended(page)


def test_a_source_tells_what_it_is(inverted, stack):
    source = open_source(inverted)
    assert isinstance(source, CubeSource) and source.title == "Track A005"
    first = str(stack["reference_time"].values.min())[:10]
    assert first in source.subtitle and source.since == f" since {first}"
    with pytest.raises(CubeError):
        open_source(inverted, branch="raw")
