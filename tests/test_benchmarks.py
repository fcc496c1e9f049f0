"""Benchmarks: their rows, their suite and their table."""

import json

import numpy as np
import pytest

from benchmarks import atmosphere, memory
from benchmarks.report import Row, report, table

KEYS = {"case", "method", "metric", "value", "unit"}


def check_rows(path):
    rows = json.loads(path.read_text())
    assert rows
    for row in rows:
        assert set(row) >= KEYS
        assert all(isinstance(row[k], str) for k in KEYS - {"value"})
        assert isinstance(row["value"], float) and np.isfinite(row["value"])
    return rows


@pytest.fixture
def short(monkeypatch):
    """A suite of small scenes and few networks, for the tests."""
    monkeypatch.setattr(atmosphere, "SIZE", {True: 48, False: 64})
    known = atmosphere.methods

    def classical():
        return {k: m for k, m in known().items() if k in ("raw", "phase-elevation")}

    monkeypatch.setattr(atmosphere, "methods", classical)


def test_atmosphere_rows(short, tmp_path, capsys):
    rows = atmosphere.main(["--quick", "--out", str(tmp_path / "rows.json")])
    kept = check_rows(tmp_path / "rows.json")
    assert kept == [r.record for r in rows]
    decades = {r["case"] for r in kept if r["metric"] == "reduction"}
    assert decades == {"snr 0.01-0.1", "snr 0.1-1", "snr 1-10", "snr 10-100"}
    (alarm,) = (
        r for r in kept if r["metric"] == "false alarm" and r["method"] == "raw"
    )
    assert alarm["case"] == "pure noise" and alarm["unit"] == "mm"
    for row in kept:
        assert row["low"] <= row["value"] <= row["high"] and row["scenes"] == 3
        if row["method"] == "raw" and row["metric"] == "reduction":
            assert row["value"] == 0
    printed = capsys.readouterr().out
    assert "phase-elevation" in printed and "false alarm, mm" in printed


def test_suite_is_fixed_and_in_its_decades():
    for decade in atmosphere.DECADES:
        pairs = list(atmosphere.deforming_pairs(decade, count=3, size=32))
        again = list(atmosphere.deforming_pairs(decade, count=3, size=32))
        for one, other in zip(pairs, again, strict=True):
            np.testing.assert_array_equal(one.noisy, other.noisy)
            assert decade <= np.log10(one.snr) <= decade + 1
    for pair in atmosphere.quiet_pairs(count=2, size=32):
        assert not pair.truth.any()


def test_perfect_and_zero_methods_are_told_apart(short, monkeypatch):
    monkeypatch.setattr(
        atmosphere,
        "methods",
        lambda: {
            "perfect": lambda pair: pair.truth,
            "zero": lambda pair: np.zeros_like(pair.truth),
        },
    )
    value = {
        (r.case, r.method, r.metric): r.value for r in atmosphere.main(["--quick"])
    }
    for case in ("snr 0.01-0.1", "snr 10-100"):
        assert value[case, "perfect", "reduction"] == pytest.approx(100)
        assert value[case, "perfect", "slope"] == pytest.approx(1)
        assert value[case, "zero", "slope"] == 0
    # Zero wins by rms error where noise dominates, and loses where it does not.
    assert value["snr 0.01-0.1", "zero", "reduction"] > 60
    assert value["snr 10-100", "zero", "reduction"] < -200


def test_table_has_a_line_per_case_and_method():
    rows = [
        Row("a", "one", "error", 1.23456, "mm", 1.0, 2.0, 5),
        Row("a", "two", "error", 2.0, "mm"),
        Row("a", "one", "slope", 0.5, "1"),
    ]
    header, rule, first, second = table(rows).splitlines()
    assert header.split() == ["case", "method", "error,", "mm", "slope"]
    assert set(rule) == {"-", " "}
    assert first.split() == ["a", "one", "1.23", "(1", "to", "2)", "0.5"]
    assert second.split() == ["a", "two", "2"]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    report([Row("a", "b", "c", float("nan"), "1")], tmp_path / "new" / "rows.json")
    (row,) = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert row["value"] is None and set(row) == KEYS


@pytest.mark.slow
def test_memory_rows_and_limit(tmp_path):
    memory.main(["--quick", "--out", str(tmp_path / "rows.json")])
    ratios = [
        r["value"]
        for r in check_rows(tmp_path / "rows.json")
        if r["metric"] == "ratio of peaks"
    ]
    assert len(ratios) == 2 and max(ratios) <= memory.LIMIT


@pytest.mark.slow
def test_atmosphere_quick_run(tmp_path):
    """The command as users run it, with every shipped network."""
    atmosphere.main(["--quick", "--out", str(tmp_path / "rows.json")])
    found = {r["method"] for r in check_rows(tmp_path / "rows.json")}
    assert found == set(atmosphere.methods())


def test_memory_of_a_process_is_its_own(tmp_path):
    """Not that of the parent, which holds half a gigabyte here."""
    ballast = np.ones(64_000_000)
    assert memory.peak_memory("invert: imports", tmp_path) < 400
    assert ballast.nbytes > 5e8
