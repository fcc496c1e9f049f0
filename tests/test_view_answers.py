"""What the page does with answers that come late, in another order, or not at all."""

from concurrent.futures import Executor, Future

import numpy as np
import pytest
from odc.geo.geobox import GeoBox

pytest.importorskip("bokeh")
from affine import Affine
from bokeh.document import Document

from cube_denoise.view.controls import ALL
from cube_denoise.view.page import Page
from cube_denoise.view.source import VELOCITY, Point, Series

GRID = GeoBox((4, 5), Affine(100, 0, 5e5, 0, -100, 4.5e6), "EPSG:32635")


class Here(Document):
    """A document whose callbacks are called at once."""

    def add_next_tick_callback(self, callback):
        return callback()

    def add_timeout_callback(self, callback, timeout_milliseconds):
        return None


class Later(Executor):
    """Work waits until it is done by hand, in any order."""

    def __init__(self):
        self.waiting = []

    def submit(self, work, /, *args, **kwargs):
        future = Future()
        self.waiting.append((work, future))
        return future

    def finish(self, number=0):
        work, future = self.waiting.pop(number)
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)


class Fake:
    """A product of frames, some of which are gone."""

    grid, kinds, components, since = GRID, (VELOCITY,), ("los",), ""
    dates, reference, subtitle = np.empty(0), None, ""

    def __init__(self, title="product", frames=("a", "b", "gone"), *, has_raw=False):
        self.title, self.frames, self.has_raw = title, frames, has_raw

    def picture(self, kind, component, view, *, date=-1):
        return None

    def point(self, x, y):
        if x < 0:
            raise ValueError("bucket does not answer")
        times = np.array(["2020-01-01", "2020-01-13"], "datetime64[s]")
        one = Series("corrected", times, np.array([0.0, 1.0]), 1.0, 0.1)
        return Point({"Velocity": "1"}, [one])

    def raw(self, x, y):
        raise ValueError("bucket does not answer")

    def frame(self, name):
        if name == "gone":
            raise ValueError("no such cube")
        return Fake(name, ())


def page(source):
    later = Later()
    return Page(Here(), source, later), later


def test_the_frame_chosen_last_is_shown():
    shown, later = page(Fake())
    select = shown.controls.frame
    select.value = "a"
    select.value = "b"
    later.finish(1)
    later.finish(0)
    assert shown.source.title == select.value == "b"
    select.value = "a"
    select.value = ALL
    later.finish()
    assert shown.source.title == "product" and select.value == ALL


def test_a_frame_that_cannot_be_opened_is_not_chosen():
    shown, later = page(Fake())
    shown.controls.frame.value = "gone"
    later.finish()
    assert shown.controls.frame.value == ALL and shown.source.title == "product"
    assert "no such cube" in shown.controls.status.text


def test_points_that_cannot_be_read_do_not_stay_in_reading():
    shown, later = page(Fake(has_raw=True))
    shown.click(-1.0, 0.0)
    assert "reading" in shown.controls.facts.text
    later.finish()
    assert "could not be read" in shown.controls.facts.text
    assert "does not answer" in shown.controls.status.text
    shown.click(1.0, 0.0)
    later.finish()
    assert "being inverted" in shown.controls.facts.text
    later.finish()
    assert "could not be inverted" in shown.controls.facts.text
