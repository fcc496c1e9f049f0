"""A published product as `view` shows it; without a browser (see test_view_page)."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from command_line import mistake
from velocity_products import velocity_product
from zarr.storage import LocalStore

import cube_denoise as cd
from cube_denoise.publish import publish
from cube_denoise.view.opening import open_source
from cube_denoise.view.product import ProductSource
from cube_denoise.view.source import UNCERTAINTY, VELOCITY
from cube_denoise.view.window import View, whole

SHAPE, PIXEL, CORNER = (600, 800), 100.0, (500_000.0, 4_500_000.0)


@pytest.fixture(scope="module")
def product() -> xr.Dataset:
    return velocity_product(SHAPE, pixel=PIXEL, corner=CORNER, seed=4)


@pytest.fixture(scope="module")
def published(product, tmp_path_factory) -> Path:
    url = tmp_path_factory.mktemp("view") / "product"
    publish(product, url, cog=False, chunk=64, shard=256)
    return url


@pytest.fixture
def chunks_read(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Bytes read of chunks, by variable and level."""
    found: Counter = Counter()
    get = LocalStore.get

    async def counting(self, key, *arguments, **options):
        got = await get(self, key, *arguments, **options)
        if got is not None and "/c/" in key:
            found[key.split("/c/")[0]] += len(got)
        return got

    monkeypatch.setattr(LocalStore, "get", counting)
    return found


def window_of(rows: slice, columns: slice, screen: tuple[int, int]) -> View:
    x, y = CORNER
    ends = (x + columns.start * PIXEL, x + columns.stop * PIXEL)
    sides = (y - rows.stop * PIXEL, y - rows.start * PIXEL)
    return View(*ends, *sides, columns=screen[1], rows=screen[0])


@pytest.mark.parametrize("component", ["east", "up"])
@pytest.mark.parametrize("kind", [VELOCITY, UNCERTAINTY])
def test_each_zoom_shows_means_of_the_pixels_with_data(
    product, published, kind, component
):
    source = ProductSource(published)
    name = {VELOCITY: "velocity", UNCERTAINTY: "velocity_std"}[kind]
    values = product[name].sel(component=component).values.astype("float64")
    for level in range(4):
        side = 2**level
        rows, columns = slice(0, 64 * side), slice(32 * side, 96 * side)
        found = source.picture(
            kind, component, window_of(rows, columns, (64, 64)), date=-1
        )
        assert (found.level, found.size) == (level, PIXEL * side)
        cells = values[rows, columns].reshape(64, side, 64, side)
        power = 2 if kind == UNCERTAINTY else 1
        count = np.isfinite(cells).sum((1, 3))
        total = np.nansum(cells**power, (1, 3)) / np.where(count, count, np.nan)
        expected = total ** (1 / power) * 1000
        shown = found.values[::-1]  # drawn from the bottom up
        np.testing.assert_array_equal(np.isnan(shown), count == 0)
        np.testing.assert_allclose(shown, expected, rtol=1e-3, atol=1e-3)


def test_a_window_reads_its_chunks_of_its_level(published, chunks_read):
    source = ProductSource(published)
    chunks_read.clear()
    source.picture(VELOCITY, "up", window_of(slice(64, 128), slice(128, 192), (64, 64)))
    small = dict(chunks_read)
    assert set(small) == {"velocity"}
    chunks_read.clear()
    source.picture(VELOCITY, "up", window_of(slice(0, 256), slice(0, 256), (256, 256)))
    assert chunks_read["velocity"] > 8 * small["velocity"]
    chunks_read.clear()
    source.picture(VELOCITY, "up", window_of(slice(0, 256), slice(0, 256), (64, 64)))
    assert set(chunks_read) == {"2/velocity"}
    assert chunks_read["2/velocity"] < 2 * small["velocity"]


def test_zoomed_out_beyond_the_coarsest_level(product, published):
    source = ProductSource(published)
    view = whole(source.grid, 20, 15, margin=0)
    found = source.picture(VELOCITY, "east", view)
    assert found.values.shape[0] <= 40 and found.level >= 4
    mean = float(product["velocity"].sel(component="east").mean()) * 1000
    assert np.nanmean(found.values) == pytest.approx(mean, abs=1)


def test_facts_of_a_point(product, published):
    source = open_source(published)
    assert isinstance(source, ProductSource)
    assert source.components == ("east", "up") and source.title == "Velocity of a test"
    known = np.isfinite(product["velocity"]).all("component").values
    row, column = (int(k[100]) for k in np.nonzero(known))
    x, y = CORNER[0] + (column + 0.3) * PIXEL, CORNER[1] - (row + 0.7) * PIXEL
    point = source.point(x, y)
    pixel = product.isel(y=row, x=column)
    for name in ("east", "up"):
        part = pixel.sel(component=name)
        rate, std = (float(part[n]) * 1000 for n in ("velocity", "velocity_std"))
        told = point.facts[name.capitalize()].replace("−", "-").split()
        assert float(told[0]) == pytest.approx(rate, abs=0.11)
        assert float(told[2]) == pytest.approx(std, abs=0.06)
        assert told[3] == "mm/yr"
    assert point.facts["Frames"] == str(int(pixel["frame_count"]))
    assert point.facts["Dates"].startswith(str(pixel["first_date"].values)[:10])
    assert "no data" not in point.facts["East"]
    # The frames of this product tell no cubes: that is said, not hidden.
    assert not point.series and source.frames == ()
    assert point.facts["Without cube"] == "frame-1, frame-2"
    outside = source.point(x - 1e6, y)
    assert outside.facts["Velocity"] == "outside the map"


def test_series_come_from_the_frames_in_the_state_joined(
    stack, make_cube, product, tmp_path
):
    cube_url = make_cube()
    cd.invert_cube(cube_url)
    snapshot, cube = cd.store.newest(cube_url)
    cube = cube.load()
    corner = (float(cube["x"][0]) - 3000, float(cube["y"][0]) + 4000)
    around = velocity_product(
        (200, 200), crs="EPSG:32613", gaps=0, pixel=100.0, corner=corner
    )
    told = {"url": str(cube_url), "snapshot": snapshot}
    around.attrs["frames"] = [
        {"name": "seen", **told},
        {"name": "gone", **told, "url": str(tmp_path / "gone")},
        {"name": "far", **told, "bbox": [0, 0, 1, 1]},
    ]
    publish(around, tmp_path / "product", cog=False)
    # What was joined stays what is shown: a later state of the cube is not.
    cd.invert_cube(cube_url, reference={"y": [60, 70], "x": [60, 70]})
    source = ProductSource(tmp_path / "product")
    full = np.isfinite(cube["displacement"]).all("time").values
    row, column = (int(k[len(k) // 2]) for k in np.nonzero(full))
    point = source.point(float(cube["x"][column]), float(cube["y"][row]))
    assert [s.label for s in point.series] == ["seen"]
    expected = cube["displacement"][:, row, column].values * 1000
    np.testing.assert_allclose(point.series[0].values, expected, rtol=1e-6)
    assert "no cube" in point.facts["Frame gone"]
    assert "Frame far" not in point.facts and "Frame seen" not in point.facts
    frame = source.frame("seen")
    assert frame.title == "Frame seen" and snapshot in frame.subtitle
    with pytest.raises(ValueError, match="no cube"):
        source.frame("gone")


def test_a_branch_of_a_product_is_refused(published):
    assert "no branches" in mistake("view", published, "--branch", "raw")
