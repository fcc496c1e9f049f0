"""Controls and text of the page, and where they are."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    CustomJSTickFormatter,
    Div,
    RadioButtonGroup,
    Select,
    Slider,
    Spinner,
)
from bokeh.plotting import figure

from cube_denoise.view.source import (
    DIRECTIONS,
    DISPLACEMENT,
    UNCERTAINTY,
    UNITS,
    Picture,
    Source,
)

ALL = "all, joined"
"""Of the frames of a product."""
HINT = "Click the map for the displacement of a point through time."
INK, PALE, WRONG = "#333333", "#6b6b6b", "#b2182b"
FONT = {"font-family": "Helvetica, Arial, sans-serif", "color": INK}
WIDTH = 560
"""Of the series, pixels."""


class Controls:
    """Controls of a page, with its map and its series laid out.

    Parameters
    ----------
    plot : bokeh.plotting.figure
        The map.
    frames : sequence of str
        Names of the frames that can be chosen.
    """

    def __init__(self, plot: figure, frames: Sequence[str]) -> None:
        self.plot = plot
        self.heading = Div(styles=FONT, sizing_mode="stretch_width")
        self.kind = RadioButtonGroup(labels=["-"], active=0, name="kind")
        self.component = RadioButtonGroup(labels=["-"], active=0, name="component")
        self.limit = Spinner(low=0.0, step=1.0, width=150, name="limit")
        self.reset = Button(label="Reset", width=80, name="reset")
        self.frame = Select(title="Frame", options=[ALL, *frames], value=ALL, width=180)
        self.frame.name, self.frame.visible = "frame", bool(frames)
        self.date = Slider(start=0, end=1, value=0, step=1, name="date", width=300)
        # Of one height, or the map would change its size with what is said.
        self.status = Div(name="status", sizing_mode="stretch_width", height=34)
        self.status.styles = FONT | {"font-size": "12px", "overflow": "hidden"}
        self.facts = Div(name="facts", styles=FONT, sizing_mode="stretch_width")
        self.right = column(self.facts, width=WIDTH, sizing_mode="stretch_height")
        self.right.name = "point"
        self.layout = self._lay_out()
        self._source: Source

    def _lay_out(self) -> column:
        controls = (
            *(self.frame, self.kind, self.component, self.date),
            *(self.limit, self.reset),
        )
        for control in controls:
            control.align = "end"
        tools = row(*controls, sizing_mode="stretch_width", spacing=14)
        left = column(self.plot, self.status, sizing_mode="stretch_both")
        body = row(left, self.right, sizing_mode="stretch_both", spacing=18)
        page = column(self.heading, tools, body, sizing_mode="stretch_both", spacing=6)
        page.styles = {"padding": "10px 16px", "box-sizing": "border-box"}
        return page

    def take(self, source: Source) -> None:
        """Offer what a cube or product has."""
        self._source = source
        self.heading.text = (
            f'<span style="font-size: 20px">{escape(source.title)}</span> '
            f'&ensp;<span style="font-size: 12px; color: {PALE}">'
            f"{escape(source.subtitle)}</span>"
        )
        self.kind.active = self.component.active = 0
        self.kind.labels = list(source.kinds)
        self.component.labels = [DIRECTIONS[c][0] for c in source.components]
        self.component.visible = len(source.components) > 1
        last = max(source.dates.size - 1, 0)
        self.date.format = CustomJSTickFormatter(
            args={"dates": [str(d)[:10] for d in source.dates]},
            code="return dates[Math.round(tick)]",
        )
        self.date.update(end=max(last, 1), value=last, disabled=last == 0)

    @property
    def kind_name(self) -> str:
        """Kind of the map that is chosen."""
        return self._source.kinds[self.kind.active or 0]

    @property
    def component_name(self) -> str:
        """Component that is chosen."""
        return self._source.components[self.component.active or 0]

    @property
    def chosen(self) -> tuple[str, str]:
        """Kind and component."""
        return self.kind_name, self.component_name

    def arrange(self) -> None:
        """Show the controls that go with the kind chosen."""
        self.date.visible = self.kind_name == DISPLACEMENT
        sign = "" if self.kind_name == UNCERTAINTY else "±"
        self.limit.title = f"Colours end at {sign} ({UNITS[self.kind_name]})"

    def show_limit(self, limit: float) -> None:
        """Show where the colours end; the step is a tenth of it, as one digit."""
        step = 10.0 ** np.floor(np.log10(limit / 2))
        self.limit.update(value=limit, step=step)

    def heading_of_map(self, date: int) -> str:
        """Title of the map."""
        kind, component = self.chosen
        name = DIRECTIONS[component][0]
        if kind == UNCERTAINTY:
            return f"Standard deviation, {name}"
        if kind == DISPLACEMENT:
            since = self._source.since
            return f"Displacement, {name}, {str(self._source.dates[date])[:10]}{since}"
        return f"{kind}, {name}"

    def show_series(self, plot: figure | None) -> None:
        """Put a series under the facts, or take it away."""
        self.right.children = [self.facts] if plot is None else [self.facts, plot]

    def tell(self, text: str, *, wrong: bool = False) -> None:
        """Say something under the map."""
        colour = WRONG if wrong else PALE
        self.status.text = f'<span style="color: {colour}">{escape(text)}</span>'


def describe(
    picture: Picture | None, source: Source, component: str, signed: bool
) -> str:
    """What the colours and the values of a picture are."""
    if picture is None:
        return "Nothing of the map is here: Reset shows it whole."
    text = "Grey: no data. "
    if signed:
        _, positive, negative = DIRECTIONS[component]
        text = f"Blue: {positive}; red: {negative}; grey: no data. "
    if source.reference is not None:
        text += "Square: reference area. "
    geographic = source.grid.crs is not None and source.grid.crs.geographic
    size = f"{picture.size:.4g}{'°' if geographic else ' m'}"
    if picture.level == 0:
        return text + f"Each value is a pixel, {size}."
    side = 2**picture.level
    how = "mean" if signed else "root mean square"
    return text + f"Each value is the {how} of {side} × {side} pixels, {size}."


def table(facts: Mapping[str, str]) -> str:
    """Facts as rows of HTML."""
    rows = "".join(
        f'<tr><td style="color: {PALE}; padding: 1px 14px 1px 0">{escape(name)}</td>'
        f"<td>{escape(text)}</td></tr>"
        for name, text in facts.items()
    )
    return f'<table style="border-spacing: 0; font-size: 13px">{rows}</table>'
