"""Options, table and file that all benchmarks share."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One number: what was measured, on what, by which method."""

    case: str
    """What it was measured on."""
    method: str
    """What was measured."""
    metric: str
    """Which number."""
    value: float
    """The number; the median where there are `low` and `high`."""
    unit: str
    """Unit of the numbers; "1" for ratios."""
    low: float | None = None
    """Lower end of the interval that the benchmark's notes state."""
    high: float | None = None
    """Upper end of that interval."""
    scenes: int | None = None
    """Number of scenes."""

    @property
    def record(self) -> dict[str, Any]:
        """The row as JSON knows it: null for what is not finite, nothing for None."""
        return {
            key: None if isinstance(v, float) and not math.isfinite(v) else v
            for key, v in asdict(self).items()
            if v is not None
        }

    @property
    def cell(self) -> str:
        """Number and range as text."""
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def options(
    description: str | None, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse ``--quick`` and ``--out FILE.json``."""
    return parser(description).parse_args(arguments)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Parser of `options`, for benchmarks that have more of them."""
    shared = argparse.ArgumentParser(description=description)
    shared.add_argument("--quick", action="store_true", help="end within a minute")
    shared.add_argument("--out", type=Path, metavar="FILE.json", help="write the rows")
    return shared


def table(rows: Sequence[Row]) -> str:
    """Text table: a line per case and method, a column per metric."""
    metrics = list(dict.fromkeys((r.metric, r.unit) for r in rows))
    lines = [
        [
            "case",
            "method",
            *(f"{m}" + (f", {u}" if u != "1" else "") for m, u in metrics),
        ]
    ]
    for case, method in dict.fromkeys((r.case, r.method) for r in rows):
        cells = {
            (r.metric, r.unit): r.cell
            for r in rows
            if (r.case, r.method) == (case, method)
        }
        lines.append([case, method, *(cells.get(m, "") for m in metrics)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * w for w in widths])
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def report(rows: Sequence[Row], out: Path | None, *, notes: str = "") -> None:
    """Print the rows as tables and write them to `out`.

    Cases of the same metrics share a table.
    """
    metrics: dict[str, tuple[str, ...]] = {}
    for row in rows:
        known = metrics.get(row.case, ())
        metrics[row.case] = known if row.metric in known else (*known, row.metric)
    for group in dict.fromkeys(metrics.values()):
        print(table([r for r in rows if metrics[r.case] == group]), end="\n\n")
    if notes:
        print(notes)
    if out is not None:
        write(rows, out)


def write(rows: Sequence[Row], out: Path) -> None:
    """Write the rows to `out` as a list of objects."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([r.record for r in rows], indent=1) + "\n")
