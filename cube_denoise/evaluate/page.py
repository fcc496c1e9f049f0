"""Parts of one self-contained HTML page: text, tables, pictures in it."""

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape

from matplotlib.figure import Figure

from cube_denoise.evaluate.tables import Cell, Table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: white;
  max-width: 1040px; margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.6em; line-height: 1.25; margin-bottom: 0.2em; }
h2 { font-size: 1.25em; margin-top: 2.2em; border-bottom: 1px solid #bbb; }
p, ul, dl { max-width: 48em; }
.scroll { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; font-size: 0.85em;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.3em; }
th, td { padding: 0.25em 0.7em; text-align: right; vertical-align: bottom; }
th { font-weight: normal; color: #444; }
th[scope=row], th.text, td.text { text-align: left; color: inherit; }
td.text { vertical-align: top; overflow-wrap: anywhere; }
th[scope=row] { white-space: nowrap; }
thead { border-bottom: 1px solid #444; }
tbody tr:nth-child(even) { background: #f4f4f4; }
td.best { font-weight: 700; }
figure { margin: 1.5em 0; }
img { max-width: 100%; height: auto; }
figcaption, dl, footer { font-size: 0.85em; color: #444; }
dt { float: left; clear: left; margin-right: 0.5em; font-weight: 600; }
dd { margin: 0; }
footer { margin-top: 3em; border-top: 1px solid #bbb; padding-top: 0.5em; }
@media print {
  @page { size: A4; margin: 14mm; }
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; }
  figure, .scroll { break-inside: avoid; }
  img { max-height: 235mm; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: 0.2em 0.4em; }
  tbody tr:nth-child(even) { background: none; }
}
"""


def page(title: str, parts: Iterable[str], *, footer: str) -> str:
    """Whole page of parts; needs nothing from outside."""
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n<footer>{escape(footer)}</footer>\n"
        "</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """Heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def bullets(texts: Iterable[str]) -> str:
    """List of plain texts."""
    return (
        "<ul>"
        + "".join(f"<li>{escape(t).replace(' %', '&nbsp;%')}</li>" for t in texts)
        + "</ul>"
    )


def definitions(texts: Mapping[str, str]) -> str:
    """List of terms and what they are."""
    return (
        "<dl>"
        + "".join(f"<dt>{escape(t)}</dt><dd>{escape(d)}</dd>" for t, d in texts.items())
        + "</dl>"
    )


def picture(figure: Figure, caption: str) -> str:
    """A figure in the page itself, as PNG, with a caption."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    text = escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def number_table(table: Table) -> str:
    """Table of numbers, the best ones bold."""
    head = "".join(_head(column) for column in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>{"".join(map(_cell, cells))}</tr>'
        for label, cells in table.rows
    )
    return _scrolling(
        f"<caption>{escape(table.title)}</caption><thead><tr>"
        f'<th scope="row">{escape(table.corner)}</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody>"
    )


def text_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Table of plain text; the first of each row names it."""
    head = "".join(
        f'<th scope="col" class="text">{escape(column)}</th>' for column in columns
    )
    body = []
    for first, *rest in rows:
        others = "".join(f'<td class="text">{escape(text)}</td>' for text in rest)
        body.append(f'<tr><th scope="row">{escape(first)}</th>{others}</tr>')
    return _scrolling(f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>")


def _head(text: str) -> str:
    name, _, unit = escape(text).partition("\n")
    name = name.replace(" km", "&nbsp;km")
    return f'<th scope="col">{name}{"<br>" * bool(unit)}{unit}</th>'


def _cell(cell: Cell) -> str:
    return f"<td{' class=best' if cell.best else ''}>{escape(cell.text)}</td>"


def _scrolling(inside: str) -> str:
    return f'<div class="scroll"><table>{inside}</table></div>'
