"""The map and the series, as Bokeh draws them.

Blue is motion toward the satellite (or east, north, up), red the other way, white none;
grey is no data.
"""

from collections.abc import Sequence

import numpy as np
from bokeh.core.property.descriptors import UnsetValueError
from bokeh.models import (
    BasicTickFormatter,
    BoxZoomTool,
    ColorBar,
    ColumnDataSource,
    HoverTool,
    Legend,
    LinearColorMapper,
    PanTool,
    Range1d,
    SaveTool,
    Span,
    Title,
    WheelZoomTool,
)
from bokeh.palettes import RdBu, Viridis256, interp_palette
from bokeh.plotting import figure
from odc.geo.geobox import GeoBox

from cube_denoise.view.source import Picture, Series, rate_text
from cube_denoise.view.window import View, aspect_of, whole

SIGNED = tuple(interp_palette(RdBu[11][::-1], 256))  # Bokeh's begins with blue.
PLAIN = tuple(Viridis256)
NO_DATA, GRID, INK = "#d9d9d9", "#ececec", "#333333"
COLOURS = ("#2166ac", "#1b9e77", "#7570b3", "#e6ab02", "#66a61e", "#a6761d")
RAW = "#b2622e"
UNEQUAL = 0.01
"""Share by which the scales of the axes may differ before they are made equal."""


class MapFigure:
    """A map in its coordinates, of equal scale along both axes."""

    def __init__(self) -> None:
        self.image = ColumnDataSource(_image(None), name="image")
        self.mark = ColumnDataSource({"x": [], "y": []}, name="mark")
        self.area = ColumnDataSource(_area(None))
        self.mapper = LinearColorMapper(SIGNED, low=-1, high=1, nan_color="#00000000")
        self.hover = HoverTool(point_policy="follow_mouse", attachment="right")
        zoom = WheelZoomTool(zoom_on_axis=False)
        self.plot = figure(
            name="map",
            tools=[PanTool(), zoom, BoxZoomTool(match_aspect=True), SaveTool()],
            active_scroll=zoom,
            x_range=Range1d(0, 1),
            y_range=Range1d(0, 1),
            toolbar_location="above",
            sizing_mode="stretch_both",
            min_width=320,
            min_height=320,
        )
        self.plot.add_tools(self.hover)
        renderer = self.plot.image(
            *("image", "left", "bottom", "width", "height"),
            source=self.image,
            color_mapper=self.mapper,
        )
        self.hover.renderers = [renderer]
        self.plot.quad(
            *("left", "right", "top", "bottom"),
            source=self.area,
            fill_color=None,
            line_color=INK,
        )
        for size, colour, width in ((15, "white", 5), (15, INK, 2)):
            self.plot.scatter(
                *("x", "y"),
                source=self.mark,
                size=size,
                fill_color=None,
                line_color=colour,
                line_width=width,
            )
        self.bar = ColorBar(
            color_mapper=self.mapper,
            width=12,
            padding=6,
            bar_line_color=None,
            background_fill_color=None,
        )
        self.unit = Title(
            align="center", text_font_style="normal", text_color=INK, standoff=4
        )
        self.plot.add_layout(self.bar, "right")
        self.plot.add_layout(self.unit, "right")
        _calm(self.plot)
        self.plot.background_fill_color = NO_DATA
        self.plot.grid.visible = False
        self._aspect, self._degrees, self._moved = 1.0, False, False
        self._grid: GeoBox | None = None
        self._seen: View | None = None

    def start(
        self, grid: GeoBox, reference: tuple[float, float, float, float] | None
    ) -> None:
        """Take up a map; it is seen whole once the size of the page is known."""
        self._grid, self._aspect = grid, aspect_of(grid)
        self._degrees = bool(grid.crs is not None and grid.crs.geographic)
        names = ("x (m)", "y (m)")
        if self._degrees:
            names = ("longitude (°)", "latitude (°)")
        for axis, name in zip((self.plot.xaxis, self.plot.yaxis), names, strict=True):
            axis.axis_label = name
            axis.formatter = BasicTickFormatter(use_scientific=False)
        self.area.data = _area(reference)
        self.whole()

    def whole(self) -> None:
        """Show the whole map."""
        self._seen, self._moved = None, False

    def view(self) -> View | None:
        """What is seen, of equal scales; None before the page tells its size."""
        try:
            columns, rows = self.plot.inner_width, self.plot.inner_height
        except UnsetValueError:
            return None
        if self._grid is None or not columns or not rows:
            return None
        x, y = self.plot.x_range, self.plot.y_range
        now = View(x.start, x.end, y.start, y.end, columns, rows)
        seen = self._seen
        if seen is None:
            seen = whole(self._grid, columns, rows).equalised(self._aspect)
        elif now.bounds != seen.bounds:  # somebody moved the map
            self._moved, seen = True, now
            height, width = seen.pixel
            if abs(height * self._aspect / width - 1) > UNEQUAL:
                seen = seen.equalised(self._aspect)
        elif now != seen:  # the page, or what is beside the map, has another size
            seen = seen.resized(columns, rows)
            if not self._moved and not seen.holds(self._grid.boundingbox):
                seen = whole(self._grid, columns, rows).equalised(self._aspect)
        self._seen = seen
        if seen.bounds != now.bounds:
            x.start, x.end, y.start, y.end = seen.bounds
        return seen

    def draw(
        self, picture: Picture | None, *, quantity: str, units: str, signed: bool
    ) -> None:
        """Draw a picture, or nothing."""
        self.mapper.palette = SIGNED if signed else PLAIN
        self.unit.text = f"{quantity} ({units})"
        digits = "0.0000" if self._degrees else "0"
        self.hover.tooltips = (
            f"@image{{0.0}} {units}<br>x $x{{{digits}}}, y $y{{{digits}}}"
        )
        self.image.data = _image(picture)

    def colours(self, limit: float, *, signed: bool) -> None:
        """Let the colours end at a limit."""
        self.mapper.low, self.mapper.high = (-limit if signed else 0.0), limit

    def point_at(self, x: float, y: float) -> None:
        """Mark a place."""
        self.mark.data = {"x": [x], "y": [y]}

    def no_point(self) -> None:
        """Take the mark away."""
        self.mark.data = {"x": [], "y": []}


def series_figure(series: Sequence[Series]) -> tuple[figure, Span]:
    """Draw series with their bands and the lines of their velocities.

    Parameters
    ----------
    series : sequence of Series
        The one called "raw" is drawn hollow.

    Returns
    -------
    bokeh.plotting.figure
    bokeh.models.Span
        Marks a date of it, once `mark_date` tells which.
    """
    plot = figure(
        name="series",
        tools="pan,wheel_zoom,box_zoom,reset,save",
        x_axis_type="datetime",
        y_axis_label="mm toward the satellite",
        sizing_mode="stretch_both",
        min_width=320,
        min_height=260,
    )
    legend = Legend(
        orientation="horizontal",
        ncols=2,
        click_policy="hide",
        label_text_font_size="11px",
        label_text_color=INK,
        border_line_color=None,
        spacing=8,
        padding=2,
    )
    plot.add_layout(legend, "above")
    plot.add_layout(Span(location=0, dimension="width", line_color="#bbbbbb"))
    date = Span(dimension="height", line_color="#999999", line_dash="dotted")
    plot.add_layout(date)
    shades = iter(COLOURS * (1 + len(series) // len(COLOURS)))
    several = sum(bool(one.bands) for one in series) > 1
    for one in series:
        colour = RAW if one.label == "raw" else next(shades)
        _one_series(plot, one, colour, several=several)
    _calm(plot)
    return plot, date


def mark_date(line: Span, date: np.datetime64 | None) -> None:
    """Move the mark of a series to a date, or hide it."""
    line.visible = date is not None
    if date is not None:
        line.location = int(date.astype("datetime64[ms]").astype("int64"))


def _one_series(plot: figure, one: Series, colour: str, *, several: bool) -> None:
    times = one.times.astype("datetime64[ms]")
    raw = one.label == "raw"
    for number, band in enumerate(one.bands):
        known = np.isfinite(band.std)
        if not known.any():
            continue
        data = {
            "time": times[known],
            "low": (one.values - band.std)[known],
            "high": (one.values + band.std)[known],
        }
        plot.varea(
            *("time", "low", "high"),
            source=ColumnDataSource(data, name=f"{one.label}: {band.label}"),
            fill_color=colour,
            fill_alpha=0.28 if number == 0 else 0.12,
            legend_label=f"{one.label}: {band.label}" if several else band.label,
        )
    name = f"{one.label}: {rate_text(one.rate, one.rate_std)}"
    if np.isfinite(one.rate):
        plot.line(
            times,
            one.line,
            color=colour,
            line_width=1.5,
            line_dash="dashed" if raw else "solid",
            legend_label=name,
        )
    dots = plot.scatter(
        *("time", "value"),
        source=ColumnDataSource({"time": times, "value": one.values}, name=one.label),
        size=6,
        color=colour,
        fill_color="white" if raw else colour,
        legend_label=name,
    )
    plot.add_tools(
        HoverTool(
            renderers=[dots],
            tooltips=[(one.label, "@value{0.0} mm"), ("", "@time{%F}")],
            formatters={"@time": "datetime"},
        )
    )


def _calm(plot: figure) -> None:
    """Leave out what draws the eye from the data, and links to other machines."""
    plot.toolbar.logo = None
    plot.toolbar.autohide = False
    plot.outline_line_color = "#bbbbbb"
    plot.grid.grid_line_color = GRID
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_color = plot.axis.major_label_text_color = INK
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = "#999999"
    plot.axis.minor_tick_line_color = None


def _image(picture: Picture | None) -> dict[str, list]:
    if picture is None:
        return {n: [] for n in ("image", "left", "bottom", "width", "height")}
    left, right, bottom, top = picture.extent
    return {
        "image": [picture.values],
        "left": [left],
        "bottom": [bottom],
        "width": [right - left],
        "height": [top - bottom],
    }


def _area(area: tuple[float, float, float, float] | None) -> dict[str, list[float]]:
    names = ("left", "right", "bottom", "top")
    return {n: [] if area is None else [area[k]] for k, n in enumerate(names)}
