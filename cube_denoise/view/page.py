"""The page: what is on it, and what happens when it is used."""

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from bokeh.document import Document
from bokeh.events import RangesUpdate, Tap
from bokeh.model import Model
from bokeh.models import Span

from cube_denoise.view.controls import ALL, HINT, Controls, describe, table
from cube_denoise.view.figures import MapFigure, mark_date, series_figure
from cube_denoise.view.source import (
    DISPLACEMENT,
    UNCERTAINTY,
    UNITS,
    Picture,
    Point,
    Series,
    Source,
)
from cube_denoise.view.window import View

log = logging.getLogger(__name__)

T = TypeVar("T")

WAIT = 80
"""Milliseconds in which further moves of the map are taken up at once."""
SHOWN = 98
"""Percentile of the magnitude at which the colours end."""


class Asked(NamedTuple):
    """What the map is to show."""

    source: Source
    kind: str
    component: str
    date: int
    view: View


class Page:
    """One page in one browser.

    Parameters
    ----------
    document : bokeh.document.Document
        Gets the page.
    source : Source
        What is shown; pages may share it.
    executor : concurrent.futures.Executor
        Where data is read, so that the page stays quick.
    """

    def __init__(self, document: Document, source: Source, executor: Executor) -> None:
        self.document, self.executor = document, executor
        self.home = self.source = source
        self.map = MapFigure()
        self.controls = controls = Controls(self.map.plot, source.frames)
        self.limits: dict[tuple[str, str, str], float] = {}
        self.place: tuple[float, float] | None = None
        self.point = Point({})
        self.mark: Span | None = None
        self.drawn: Asked | None = None
        self._waiting = self._reading = self._closed = False
        shown = self.map.plot
        for model, name, answer in (
            (controls.kind, "active", self._kind_set),
            (controls.component, "active", self._kind_set),
            (controls.date, "value_throttled", self._date_set),
            (controls.limit, "value", self._limit_set),
            (controls.frame, "value", self._frame_set),
            (shown, "inner_width", self.refresh),
            (shown, "inner_height", self.refresh),
        ):
            _on_change(model, name, answer)
        controls.reset.on_click(self._start_again)
        shown.on_event(RangesUpdate, lambda _: self.refresh())
        shown.on_event(Tap, lambda event: self.click(event.x, event.y))
        document.add_root(controls.layout)
        document.title = f"{source.title}: cube-denoise"
        document.on_session_destroyed(self._close)
        self._take(source)

    # What is shown

    def _take(self, source: Source) -> None:
        """Show a cube or product from the beginning."""
        self.source = source
        self._shown = self.controls.frame.value
        self.controls.take(source)
        self.map.start(source.grid, source.reference)
        self._forget_point()
        self._kind_set()

    def _frame_set(self) -> None:
        name = self.controls.frame.value
        if name == self._shown:
            self.controls.tell("")
            return
        if name == ALL:
            self._take(self.home)
            return
        self.controls.tell("opening the frame ...")
        self._background(
            partial(self.home.frame, name),
            partial(self._take_frame, name),
            failed=partial(self._frame_failed, name),
        )

    def _take_frame(self, name: str, source: Source) -> None:
        if name == self.controls.frame.value:  # else another was chosen meanwhile
            self._take(source)

    def _frame_failed(self, name: str) -> None:
        if name == self.controls.frame.value:
            self.controls.frame.value = self._shown

    def _start_again(self) -> None:
        self.limits.clear()
        self.drawn = None
        self.map.whole()
        self._forget_point()
        self.refresh()

    def _kind_set(self) -> None:
        self.controls.arrange()
        self._mark_date()
        self.refresh()

    def _date_set(self) -> None:
        self._mark_date()
        self.refresh()

    # The map

    def refresh(self) -> None:
        """Read what the map needs now, unless that is about to happen."""
        if not self._waiting:
            self._waiting = True
            self.document.add_timeout_callback(self._read, WAIT)

    def _asked(self) -> Asked | None:
        view = self.map.view()
        if view is None:  # the page has not told its size yet
            return None
        shown = self.controls
        date = shown.date.value if shown.kind_name == DISPLACEMENT else -1
        return Asked(self.source, shown.kind_name, shown.component_name, date, view)

    def _read(self) -> None:
        self._waiting = False
        asked = self._asked()
        if self._reading or asked is None or asked == self.drawn:
            return
        self._reading = True
        self.controls.tell("reading ...")
        source, kind, component, date, view = asked
        work = partial(source.picture, kind, component, view, date=date)
        self._background(work, partial(self._draw, asked), always=self._read_is_over)

    def _read_is_over(self) -> None:
        self._reading = False

    def _draw(self, asked: Asked, picture: Picture | None) -> None:
        self.drawn = asked
        if asked != self._asked():
            self.refresh()
        if asked[:3] != (self.source, *self.controls.chosen):
            return
        signed = asked.kind != UNCERTAINTY
        key = (asked.source.subtitle, asked.kind, asked.component)
        if key not in self.limits and picture is not None:
            self.limits[key] = usual_limit(picture.values)
        limit = self.limits.get(key, 1.0)
        self.map.draw(
            picture,
            quantity=asked.kind.lower(),
            units=UNITS[asked.kind],
            signed=signed,
        )
        self.map.colours(limit, signed=signed)
        self.controls.show_limit(limit)
        self.map.plot.title.text = self.controls.heading_of_map(asked.date)
        self.controls.tell(describe(picture, asked.source, asked.component, signed))

    def _limit_set(self) -> None:
        limit, asked = self.controls.limit.value, self.drawn
        if asked is not None and limit:
            key = (asked.source.subtitle, asked.kind, asked.component)
            self.limits[key] = float(limit)
            self.map.colours(float(limit), signed=asked.kind != UNCERTAINTY)

    # The point

    def click(self, x: float, y: float) -> None:
        """Tell what is known of a place, map coordinates."""
        self.place = x, y
        self.map.point_at(x, y)
        self.controls.facts.text = "reading ..."
        self._background(
            partial(self.source.point, x, y),
            partial(self._show_point, (x, y)),
            failed=partial(self._point_failed, (x, y)),
        )

    def _point_failed(self, place: tuple[float, float]) -> None:
        if place == self.place:
            self.point = Point({"Point": "could not be read"})
            self._show_facts({})
            self._draw_series()

    def _show_point(self, place: tuple[float, float], point: Point) -> None:
        if place != self.place:
            return
        self.point = point
        if point.series and self.source.has_raw:
            self._show_facts({"Raw pairs": "being inverted ..."})
            work = partial(self.source.raw, *place)
            self._background(
                work,
                partial(self._show_raw, place),
                failed=partial(self._raw_failed, place),
            )
        else:
            self._show_facts({})
        self._draw_series()

    def _show_raw(self, place: tuple[float, float], raw: Series | None) -> None:
        if place != self.place:
            return
        if raw is not None:
            self.point = Point(self.point.facts, [*self.point.series, raw])
        self._show_facts({} if raw is not None else {"Raw pairs": "no data"})
        self._draw_series()

    def _raw_failed(self, place: tuple[float, float]) -> None:
        if place == self.place:
            self._show_facts({"Raw pairs": "could not be inverted"})

    def _show_facts(self, more: dict[str, str]) -> None:
        self.controls.facts.text = table({**self.point.facts, **more})

    def _draw_series(self) -> None:
        plot, self.mark = None, None
        if self.point.series:
            plot, self.mark = series_figure(self.point.series)
        self.controls.show_series(plot)
        self._mark_date()

    def _mark_date(self) -> None:
        if self.mark is not None:
            shown = self.controls
            is_dated = shown.kind_name == DISPLACEMENT
            date = self.source.dates[shown.date.value] if is_dated else None
            mark_date(self.mark, date)

    def _forget_point(self) -> None:
        self.place, self.point = None, Point({})
        self.map.no_point()
        self.controls.facts.text = HINT
        self._draw_series()

    # Work beside the page

    def _background(
        self,
        work: Callable[[], T],
        done: Callable[[T], None],
        *,
        always: Callable[[], None] = lambda: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Do `work` in a thread, then `done` with its answer, or `failed`, here."""

        def finish(future: "Future[T]") -> None:
            always()
            try:
                answer = future.result()
            except Exception as error:
                expected = isinstance(error, (ValueError, OSError))
                log.warning("%s", error, exc_info=None if expected else error)
                failed()
                self.controls.tell(f"{type(error).__name__}: {error}", wrong=True)
                return
            done(answer)

        def answered(future: "Future[T]") -> None:
            if not self._closed:
                self.document.add_next_tick_callback(partial(finish, future))

        self.executor.submit(work).add_done_callback(answered)

    def _close(self, _: Any) -> None:
        self._closed = True


def _on_change(model: Model, name: str, answer: Callable[[], None]) -> None:
    def changed(attr: str, old: Any, new: Any) -> None:
        answer()

    model.on_change(name, changed)


def usual_limit(values: np.ndarray) -> float:
    """Where colours end: a high percentile of the magnitude, two digits of it."""
    magnitude = np.abs(values[np.isfinite(values)])
    limit = float(np.percentile(magnitude, SHOWN)) if magnitude.size else 0.0
    return float(f"{limit:.2g}") or 1.0
