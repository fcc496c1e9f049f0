"""The page of `view` in a real browser: headless Chromium.

Debian: ``apt-get install chromium-headless-shell``; elsewhere any Chromium or Chrome.
"""

import asyncio
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from urllib.parse import urlsplit

import numpy as np
import pytest
import xarray as xr
from matplotlib.image import imread
from velocity_products import velocity_product

import cube_denoise as cd
from cube_denoise.publish import publish
from cube_denoise.reference_area import recorded_reference
from cube_denoise.view.cube import CubeSource
from cube_denoise.view.opening import open_source
from cube_denoise.view.server import make_server
from cube_denoise.view.source import Source

NAMES = (
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "google-chrome-stable"),
)
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, NAMES)), ""
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM,
    reason="no Chromium: apt-get install chromium-headless-shell, or set CHROMIUM to "
    "the path of one",
)
PATIENCE = 40_000
"""Milliseconds to wait for what the page should show."""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def cube_url(stack: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    url = tmp_path_factory.mktemp("page") / "cube"
    cd.ingest_dataset(stack, url, chunk=32, shard=64)
    cd.correct_cube(url, "ramp")
    cd.invert_cube(url)
    return url


@contextmanager
def served(source: Source) -> Iterator[str]:
    """Serve a page from a thread; its address."""
    ready: Queue = Queue()

    def run() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        server, address = make_server(source)
        server.start()
        ready.put((server, address))
        server.io_loop.start()
        server.stop()
        server.io_loop.close(all_fds=True)

    thread = Thread(target=run)
    thread.start()
    server, address = ready.get(timeout=60)
    try:
        yield address
    finally:
        server.io_loop.add_callback(server.io_loop.stop)
        thread.join()


class Shown:
    """A page in the browser, and what it asked of the network."""

    def __init__(self, browser, address: str) -> None:
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page = browser.new_page(viewport={"width": 1100, "height": 640})
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("websocket", lambda w: self.asked.append(w.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.settled()

    def value(self, code: str):
        """Value of JavaScript; in it `the(name)` is a model of Bokeh."""
        return self.page.evaluate(f"() => {{{MODELS} return {code}}}")

    def until(self, code: str) -> None:
        self.page.wait_for_function(f"() => {{{MODELS} return {code}}}")

    def settled(self, text: str = "Each value") -> str:
        """Wait until the map is drawn; what it says of itself, with `text` in it."""
        self.until(f"the('status')?.text.includes({text!r})")
        return self.value("the('status').text")

    def image(self) -> np.ndarray:
        """Values of the map, row 0 at the bottom."""
        shape, values = self.value(
            "(([i]) => [i.shape, Array.from(i)])(the('image').data.image)"
        )
        return np.array(values, "float64").reshape(shape)

    def series(self, name: str) -> np.ndarray:
        """Values of a series, once it is drawn."""
        self.until(f"the({name!r}) != null")
        return np.array(self.value(f"Array.from(the({name!r}).data.value)"), "float64")

    def clicked(self) -> tuple[float, float]:
        """Map coordinates of the mark."""
        x, y = self.value("(({x, y}) => [x[0], y[0]])(the('mark').data)")
        return x, y

    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the frame of the map on the screen."""
        left, top, width, height = self.value(
            "((view, at) => [at.left + view.frame.bbox.left, "
            "at.top + view.frame.bbox.top, view.frame.bbox.width, "
            "view.frame.bbox.height])(...((view) => [view, "
            "view.canvas_view.el.getBoundingClientRect()])"
            "(Bokeh.index.find_one(the('map'))))"
        )
        return left, top, width, height

    def at(self, across: float, down: float) -> tuple[float, float]:
        """Screen coordinates of a place in the map, as shares of its sides."""
        left, top, width, height = self.frame()
        return left + across * width, top + down * height

    def zoom(self, across: float, down: float, notches: int) -> None:
        """Turn the wheel over a place of the map."""
        self.page.mouse.move(*self.at(across, down))
        before = self.value("the('map').x_range.end - the('map').x_range.start")
        for _ in range(abs(notches)):
            self.page.mouse.wheel(0, -240 if notches > 0 else 240)
        self.until(f"the('map').x_range.end - the('map').x_range.start != {before}")

    def colours(self) -> np.ndarray:
        """Pixels of the map on the screen, 0 to 255, shape (rows, columns, 3)."""
        left, top, width, height = self.frame()
        clip = {"x": left, "y": top, "width": width, "height": height}
        self.page.mouse.move(1, 1)  # away: what hovers is no part of the map
        picture = self.page.screenshot(clip=clip)
        return np.asarray(imread(io.BytesIO(picture), "png"))[..., :3] * 255

    def press(self, text: str) -> None:
        self.page.get_by_text(text, exact=True).click()

    def close(self, address: str) -> None:
        """Close it: nothing went wrong in it, and nothing was asked of others."""
        picture = os.environ.get("VIEW_PICTURES")
        if picture:
            self.page.screenshot(path=Path(picture) / f"{id(self)}.png")
        self.page.close()
        assert not self.errors
        place = urlsplit(address).netloc
        asked = {urlsplit(url).netloc for url in self.asked if "://" in url}
        assert asked == {place} and place.startswith("127.0.0.1:")
        assert any(url.startswith("ws://") for url in self.asked)


MODELS = """
const models = () => globalThis.Bokeh?.documents[0]?._all_models.values() ?? [];
const the = (name) => [...models()].filter((m) => m.name == name).at(-1) ?? null;
"""
"""The newest model of a name: Bokeh keeps those that were replaced for a while."""
SCALES = """
((m) => m.inner_width / (m.x_range.end - m.x_range.start)
  / m.inner_height * (m.y_range.end - m.y_range.start))(the('map'))"""
"""Scale of x over that of y."""


def test_a_cube_is_seen_and_asked(browser, cube_url):
    cube = cd.open_cube(cube_url).load()
    with served(CubeSource(cube_url)) as address:
        shown = Shown(browser, address)
        _cube(shown, cube)
        shown.close(address)


def _cube(shown: "Shown", cube: xr.Dataset) -> None:
    velocity = cube["velocity"].values[::-1] * 1000
    np.testing.assert_allclose(shown.image(), velocity, rtol=1e-6)
    limit = np.nanpercentile(np.abs(velocity), 98)
    assert shown.value("the('limit').value") == pytest.approx(limit, rel=0.05)
    assert len(np.unique(shown.colours().reshape(-1, 3), axis=0)) > 100
    shown.until(f"Math.abs(Math.log({SCALES})) < 0.02")  # of the axes: equal

    shown.page.mouse.click(*shown.at(0.42, 0.55))
    corrected = shown.series("corrected")
    row, column = pixel(cube, *shown.clicked())
    here = cube.isel(y=row, x=column)
    known = np.isfinite(here["displacement"].values)
    expected = here["displacement"].values[known] * 1000
    np.testing.assert_allclose(corrected, expected, rtol=1e-5)
    band = shown.value(
        "((d) => [Array.from(d.low), Array.from(d.high)])"
        "(the('corrected: ± std from decorrelation').data)"
    )
    std = here["displacement_std"].values[known] * 1000
    there = np.isfinite(std)
    np.testing.assert_allclose(band[0], (expected - std)[there], atol=1e-3)
    np.testing.assert_allclose(band[1], (expected + std)[there], atol=1e-3)
    facts = shown.page.get_by_text("mm/yr").first
    assert f"{abs(float(here['velocity']) * 1000):.1f}" in shown.value(
        "the('facts').text"
    )
    assert facts.is_visible()
    raw = cd.invert(
        cube,
        variable="unwrapped_phase",
        reference=recorded_reference(cube["velocity"].attrs),
    )["displacement"][:, row, column].values
    np.testing.assert_allclose(
        shown.series("raw"), raw[np.isfinite(raw)] * 1000, rtol=1e-4, atol=1e-4
    )

    shown.press("Displacement")
    shown.settled()
    last = cube["displacement"].values[-1][::-1] * 1000
    shown.until("the('map').title.text.startsWith('Displacement')")
    np.testing.assert_allclose(shown.image(), last, rtol=1e-6)
    title = shown.value("the('map').title.text")
    assert str(cube["time"].values[-1])[:10] in title
    handle = shown.page.locator(".noUi-handle")
    for _ in range(2):
        handle.press("ArrowLeft")
    day = str(cube["time"].values[-3])[:10]
    shown.until(f"the('map').title.text.includes({day!r})")
    before = cube["displacement"].values[-3][::-1] * 1000
    np.testing.assert_allclose(shown.image(), before, rtol=1e-6)

    shown.press("Uncertainty")
    shown.until("the('map').title.text.startsWith('Standard')")
    std_map = cube["velocity_std"].values[::-1] * 1000
    np.testing.assert_allclose(shown.image(), std_map, rtol=1e-6)

    shown.press("Reset")
    shown.until("the('mark').data.x.length == 0 && the('point').children.length == 1")


@pytest.mark.slow
def test_a_product_is_seen_at_any_zoom(browser, cube_url, tmp_path):
    snapshot, cube = cd.store.newest(cube_url)
    cube = cube.load()
    # East goes from -20 in the west to 20 mm/yr; up likewise from south to north.
    count, size = 900, 32.0
    middle = (float(cube["x"].mean()), float(cube["y"].mean()))
    corner = (middle[0] - count / 2 * size, middle[1] + count / 2 * size)
    product = velocity_product(
        (count, count), crs="EPSG:32613", pixel=size, corner=corner, gaps=0
    )
    slope = np.linspace(-0.02, 0.02, count, dtype="float32")
    product["velocity"].values[0] = slope
    product["velocity"].values[1] = -slope[:, None]
    told = {"name": "A005_1", "url": str(cube_url), "snapshot": snapshot}
    product.attrs["frames"] = [told]
    publish(product, tmp_path / "product", cog=False, chunk=128, shard=512)
    with served(open_source(tmp_path / "product")) as address:
        shown = Shown(browser, address)
        _product(shown, cube, slope, corner, size)
        shown.close(address)


def _product(
    shown: Shown,
    cube: xr.Dataset,
    slope: np.ndarray,
    corner: tuple[float, float],
    size: float,
) -> None:
    count = slope.size
    coarse = shown.image()
    assert max(coarse.shape) == count / 2 and "2 × 2 pixels" in shown.settled()
    halves = 1000 * slope.reshape(-1, 2).mean(1)
    np.testing.assert_allclose(coarse, np.tile(halves, (count // 2, 1)), atol=0.01)
    seen = shown.colours()
    wide = seen.shape[1]
    west, east = seen[:, : wide // 4], seen[:, -wide // 4 :]
    middle_rows = slice(seen.shape[0] // 4, -seen.shape[0] // 4)
    red, _, blue = (west[middle_rows, 40:].mean((0, 1))[k] for k in range(3))
    assert red > blue + 60
    red, _, blue = (east[middle_rows, :-40].mean((0, 1))[k] for k in range(3))
    assert blue > red + 60

    shown.zoom(0.5, 0.5, 3)
    shown.settled("Each value is a pixel")
    fine = shown.image()
    x = shown.value("((d) => [d.left[0], d.width[0]])(the('image').data)")
    first = round((x[0] - corner[0]) / size)
    columns = slice(first, first + fine.shape[1])
    assert x[1] == pytest.approx(size * fine.shape[1]) and fine.shape[1] < count / 2
    np.testing.assert_allclose(fine[0], 1000 * slope[columns], atol=0.01)

    shown.page.mouse.click(*shown.at(0.52, 0.47))
    series = shown.series("A005_1")
    row, column = pixel(cube, *shown.clicked())
    values = cube["displacement"][:, row, column].values * 1000
    np.testing.assert_allclose(series, values[np.isfinite(values)], rtol=1e-5)

    shown.press("up")
    shown.until("the('map').title.text == 'Velocity, up'")
    up = shown.image()
    assert up[-1].mean() > 0 > up[0].mean()  # the north rises

    shown.page.locator("select").select_option("A005_1")
    shown.until("the('map').title.text == 'Velocity, line of sight'")
    velocity = cube["velocity"].values[::-1] * 1000
    np.testing.assert_allclose(shown.image(), velocity, rtol=1e-6)


def pixel(cube: xr.Dataset, x: float, y: float) -> tuple[int, int]:
    """Row and column of the nearest pixel centre."""
    row = int(np.abs(cube["y"].values - y).argmin())
    return row, int(np.abs(cube["x"].values - x).argmin())
