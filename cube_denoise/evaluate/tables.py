"""Tables of an evaluation, for the terminal and for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cube_denoise.evaluate.columns import SCORES, Score
from cube_denoise.evaluate.injection import AMPLITUDE_UNITS
from cube_denoise.evaluate.recovery import by_kind, smallest_detectable

if TYPE_CHECKING:
    import rich.table

    from cube_denoise.evaluate.judge import Evaluation

MM = 1e3
TELLING = {
    "against the truth": ("velocity slope", "velocity rms error", "velocity reduction"),
    "without truth": ("held-out ratio", "slope on raw velocity", "closure", "residual"),
    "against GNSS": ("avg", "avg, mean removed", "GNSS correlation"),
    "injected": ("steady slope", "steady detectable", "step slope", "step detectable"),
}
"""What the terminal shows of each group."""
NO_VALUE, NOT_FOUND = "–", "not found"


class Cell(NamedTuple):
    """A number, as text."""

    text: str
    best: bool = False
    """Whether no other of its kind is better."""


@dataclass(frozen=True)
class Table:
    """Rows of numbers."""

    title: str
    corner: str
    """What the rows are."""
    columns: Sequence[str]
    """Headings; a unit is on its own line."""
    rows: Sequence[tuple[str, Sequence[Cell]]]


def score_tables(
    evaluation: "Evaluation", *, chosen: Mapping[str, Sequence[str]] | None = None
) -> list[Table]:
    """One table of scores a group: a row for every method, raw first.

    Parameters
    ----------
    evaluation : Evaluation
    chosen : mapping of str to sequence of str, optional
        Scores by group, such as `TELLING`; all by default.

    Returns
    -------
    list of Table
        Without groups and columns that have no value. The best of a column is marked,
        but not where outputting zero would be best (`Score.ranks`).
    """
    found = []
    for group, scores in SCORES.items():
        names = scores if chosen is None else chosen[group]
        columns = {}
        for name in names:
            values = [v.scores.get(name, np.nan) for v in evaluation.verdicts]
            if not np.isnan(values).all():
                columns[name] = cells(values, scores[name])
        if columns:
            methods = [v.method for v in evaluation.verdicts]
            rows = list(zip(methods, zip(*columns.values(), strict=True), strict=True))
            heads = [_heading(name, scores[name].unit) for name in columns]
            found.append(Table(group, "method", heads, rows))
    return found


def slope_table(evaluation: "Evaluation") -> Table:
    """Median slope over the sources of every injected case, a column for every method.

    Raw is left out: it gives back all.
    """
    judged = [v for v in evaluation.verdicts if v.recoveries and v.method != "raw"]
    score = SCORES["injected"]["steady slope"]
    rows = []
    for k, one in enumerate(judged[0].recoveries if judged else ()):
        values = [_median(v.recoveries[k].slope) for v in judged]
        case = one.case
        unit = AMPLITUDE_UNITS[case.history]
        label = (
            f"{_kind(case.history, case.shape, case.radius)}, {MM * case.amplitude:g}"
        )
        rows.append((f"{label} {unit}", cells(values, score)))
    return Table(
        "slope: median over sources", "injected", [v.method for v in judged], rows
    )


def detectable_table(evaluation: "Evaluation") -> Table:
    """Median over sources of the smallest signal found, a column for every method."""
    judged = [v for v in evaluation.verdicts if v.recoveries]
    groups = [by_kind(v.recoveries) for v in judged]
    rows = []
    for kind, first in groups[0].items():
        score = SCORES["injected"][f"{kind.history} detectable"]
        values = [MM * _median(smallest_detectable(g[kind])) for g in groups]
        sources = int(np.isfinite(first[0].noise).sum())
        label = f"{_kind(*kind)}, {sources} source{'s' * (sources != 1)}"
        rows.append((f"{label} ({score.unit})", cells(values, score)))
    return Table(
        "smallest found: median over sources",
        "injected",
        [v.method for v in judged],
        rows,
    )


def cells(values: Sequence[float], score: Score) -> list[Cell]:
    """Values of one score as text, the best of two and more marked."""
    texts = [number(value, score.unit) for value in values]
    known = {t: v for t, v in zip(texts, values, strict=True) if np.isfinite(v)}
    if not score.ranks or np.isfinite(values).sum() < 2:
        return [Cell(text) for text in texts]
    order = {"low": lambda v: v, "high": lambda v: -v, "one": lambda v: abs(v - 1)}
    best = min(known, key=lambda text: order[score.best](known[text]))
    return [Cell(text, text == best) for text in texts]


def number(value: float, unit: str) -> str:
    """Text of a score as precise as it deserves."""
    if np.isnan(value):
        return NO_VALUE
    if np.isinf(value):
        return NOT_FOUND
    if unit in ("1", "rad"):
        digits = 3
    elif unit == "%":
        digits = 1
    else:
        digits = 2 if abs(value) < 9.995 else 1
    return f"{round(value, digits) + 0.0:.{digits}f}"


def rich_table(table: Table) -> "rich.table.Table":
    """Table for rich to print."""
    import rich.table
    from rich.box import SIMPLE_HEAD
    from rich.text import Text

    made = rich.table.Table(
        title=table.title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    made.add_column(table.corner, no_wrap=True)
    for heading in table.columns:
        made.add_column(Text(heading), justify="right")
    for label, row in table.rows:
        made.add_row(
            Text(label), *(Text(c.text, style="bold" if c.best else "") for c in row)
        )
    return made


def _heading(name: str, unit: str) -> str:
    return name if unit == "1" else f"{name}\n{unit}"


def _kind(history: str, shape: str, radius: float) -> str:
    return f"{history}, {shape}, radius {radius / 1e3:.2g} km"


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")
