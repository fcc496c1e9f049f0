"""The report: every number in the file, every picture drawn, a lone page."""

import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from judged import CASES, METHODS, REFERENCE, judged, judged_scene, with_zero
from rich.console import Console

from cube_denoise.evaluate import (
    pictures,
)
from cube_denoise.evaluate.columns import SCORES
from cube_denoise.evaluate.findings import findings
from cube_denoise.evaluate.judge import evaluate_cube
from cube_denoise.evaluate.record import record_of
from cube_denoise.evaluate.recovery import by_kind, smallest_detectable
from cube_denoise.evaluate.report import write_report
from cube_denoise.evaluate.tables import (
    TELLING,
    cells,
    detectable_table,
    number,
    rich_table,
    score_tables,
    slope_table,
)


@pytest.fixture(scope="module")
def evaluation():
    return judged()


@pytest.fixture(scope="module")
def bare():
    """Raw and one that cannot be applied: no truth, stations or injection."""
    flat = judged_scene().cube.drop_vars("elevation")
    return evaluate_cube(flat, ["phase-elevation"], reference=REFERENCE)


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    page = write_report(evaluation, folder, title="Stack <1> & all")
    assert page == folder / "report.html"
    return folder


def strictly(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# --- report.json -------------------------------------------------------------------


def test_record_holds_every_number(evaluation, folder):
    record = strictly((folder / "report.json").read_text())
    assert [m["name"] for m in record["methods"]] == METHODS
    assert record["truth"] and record["seed"] == 0 and record["folds"] == 5
    assert record["reference"] == {"rows": [0, 8], "columns": [0, 8]}
    assert record["stack"]["pairs"] == evaluation.pairs
    assert {"cube-denoise", "numpy", "python"} <= set(record["versions"])
    for method, verdict in zip(record["methods"], evaluation.verdicts, strict=True):
        for name, value in verdict.scores.items():
            told = method["scores"][name]
            assert told == (pytest.approx(value) if np.isfinite(value) else None)
        for kind, group in zip(
            method["injected"], by_kind(verdict.recoveries).values(), strict=True
        ):
            least = 1e3 * smallest_detectable(group)
            finite = np.isfinite(least)
            assert [v is not None for v in kind["smallest_detectable"]] == list(finite)
            assert [f is True for f in kind["found"]] == list(finite)
            amplitudes = [1e3 * one.case.amplitude for one in group]
            assert [c["amplitude"] for c in kind["cases"]] == pytest.approx(amplitudes)
            for case, one in zip(kind["cases"], group, strict=True):
                np.testing.assert_allclose(np.array(case["slope"], float), one.slope)
        ratios = [d["ratio"] for d in method["held_out"]["dates"]]
        np.testing.assert_allclose(ratios, verdict.held_out.dates["ratio"])
        assert method["stations"]["names"] == ["AAAA", "BBBB", "CCCC", "DDDD"]
    columns = record["columns"]["without truth"]
    assert columns["closure"]["unit"] == "rad" and not columns["closure"]["ranks"]
    assert columns["held-out ratio"]["ranks"]
    assert strictly(record["methods"][1]["label"]["method_options"]) == {
        "surface": "plane"
    }


def test_what_is_not_finite_is_null_and_told(evaluation):
    record = record_of(with_zero(evaluation), title="x")
    assert strictly(json.dumps(record, allow_nan=False)) == record
    assert "null" in record["about"]
    kind = record["methods"][1]["injected"][0]
    assert set(kind["smallest_detectable"]) == {None}
    assert set(kind["found"]) <= {False, None} and False in kind["found"]


# --- report.html --------------------------------------------------------------------


class Reader(HTMLParser):
    """Tags, links and text; complains about tags that do not match."""

    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links, self.text, self.bold = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        self.links += [attrs[k] for k in ("src", "href", "srcset") if k in attrs]
        self.bold.append(attrs.get("class") == "best")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert not reader.open
    return reader


def test_page_needs_nothing_from_outside(folder):
    page = read(folder / "report.html")
    assert page.links and all(
        u.startswith("data:image/png;base64,") for u in page.links
    )
    assert not {"script", "link", "iframe"} & set(page.tags)
    text = (folder / "report.html").read_text()
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert "url(" not in text
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "report.json"]


def test_page_tells_all_groups_and_numbers(evaluation, folder):
    page = read(folder / "report.html")
    text = " ".join(page.text)
    assert "Stack <1> & all" in text
    for table in score_tables(evaluation):
        for _, row in table.rows:
            assert all(cell.text in text for cell in row)
    for told in ("Against GNSS", "Injected deformation", "surface", "seed 0"):
        assert told in text
    assert page.tags.count("img") == 2 + 2 + 3 + 1 + 2 * 3
    assert any(page.bold)


def test_page_without_truth_stations_and_injection(bare, tmp_path):
    write_report(bare, tmp_path)
    page = read(tmp_path / "report.html")
    text = " ".join(page.text)
    assert "Against" not in text and "Injected" not in text
    assert "not judged further" in text and "phase-elevation" in text
    assert page.tags.count("img") == 3
    record = strictly((tmp_path / "report.json").read_text())
    assert (
        record["methods"][1]["scores"] == {} and "injected" not in record["methods"][1]
    )


def test_report_is_replaced_whole_or_not_at_all(bare, tmp_path, monkeypatch):
    write_report(bare, tmp_path, title="first")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def broken(*_, **__):
        raise RuntimeError("no picture")

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "plot_structure", broken)
        with pytest.raises(RuntimeError, match="no picture"):
            write_report(bare, tmp_path, title="second")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    write_report(bare, tmp_path, title="third")
    assert "third" in (tmp_path / "report.html").read_text()


# --- tables and sentences -----------------------------------------------------------


def test_best_is_marked_but_not_where_zero_wins():
    low, one = (
        SCORES["without truth"]["held-out ratio"],
        SCORES["injected"]["step slope"],
    )
    assert [c.best for c in cells([0.5, 0.2, np.nan, np.inf], low)] == [0, 1, 0, 0]
    assert [c.best for c in cells([1.2, 0.9, 0.0], one)] == [0, 1, 0]
    assert [c.best for c in cells([1.0, 1.0001, 0.5], one)] == [1, 1, 0]
    assert not any(c.best for c in cells([0.5, np.nan], low))
    for name in ("closure", "residual", "temporal coherence", "structure 1 km"):
        score = SCORES["without truth"][name]
        assert not any(c.best for c in cells([0.5, 0.0, 1.0], score))


def test_numbers_as_text():
    assert number(np.nan, "mm") == "–" and number(np.inf, "mm") == "not found"
    assert number(-0.0001, "1") == "0.000" and number(12.345, "mm") == "12.3"
    assert number(1.234, "mm/yr") == "1.23" and number(-45.67, "%") == "-45.7"


def test_terminal_tables(evaluation):
    tables = score_tables(evaluation, chosen=TELLING)
    assert [t.title for t in tables] == list(SCORES)
    console = Console(width=100, record=True, file=io.StringIO())
    for table in tables:
        assert [label for label, _ in table.rows] == METHODS
        console.print(rich_table(table))
    text = console.export_text()
    assert "mm/yr" in text and "…" not in text
    raw = evaluation.verdicts[0].scores
    assert number(raw["steady detectable"], "mm/yr") in text
    truth = tables[0]
    reduction = [h.startswith("velocity reduction") for h in truth.columns].index(True)
    slope = [h.startswith("velocity slope") for h in truth.columns].index(True)
    assert truth.rows[0][1][reduction].text == "0.0"
    assert truth.rows[0][1][slope].text == number(raw["velocity slope"], "1")


def test_terminal_of_eighty_columns_shows_names_and_numbers(evaluation):
    raw, *others = evaluation.verdicts
    others[1] = replace(others[1], method="local-phase-elevation")
    long = replace(evaluation, verdicts=[raw, *others])
    console = Console(width=80, record=True, file=io.StringIO())
    for table in score_tables(long, chosen=TELLING):
        console.print(rich_table(table))
    text = console.export_text()
    assert "…" not in text and "local-phase-elevation" in text


def test_tables_of_what_was_injected(evaluation):
    slopes, least = slope_table(evaluation), detectable_table(evaluation)
    assert slopes.columns == METHODS[1:] and least.columns == METHODS
    assert len(slopes.rows) == len(CASES) and len(least.rows) == 5
    assert slopes.rows[0][0] == "steady, bowl, radius 0.3 km, 20 mm/yr"
    assert least.rows[0][0].startswith("steady, bowl, radius 0.3 km, 4 sources")
    median = np.nanmedian(evaluation.verdicts[2].recoveries[3].slope)
    assert slopes.rows[3][1][1].text == number(median, "1")


def test_findings_name_those_who_lose_motion(evaluation, bare):
    told = " ".join(findings(with_zero(evaluation)))
    assert "zero (not found)" in told
    raw = evaluation.verdicts[0].scores["steady detectable"]
    assert f"{number(raw, 'mm/yr')} mm/yr" in told
    assert "phase-elevation" in " ".join(findings(bare))
