"""Benchmarks: their rows, their suite and their table."""

import contextlib
import io
import json
from functools import partial

import numpy as np
import pytest
import xarray as xr

from benchmarks import atmosphere, memory, mexico_city, suite
from benchmarks.report import Row, report, table
from cube_denoise.conventions import displacement_to_phase
from cube_denoise.corrections import CLASSICAL
from cube_denoise.evaluate.held_out import uncorrected
from cube_denoise.models import zoo
from cube_denoise.simulate.seeds import SPLITS

METHODS = atmosphere.methods

KEYS = {"case", "method", "metric", "value", "unit"}


def check_rows(path):
    rows = json.loads(path.read_text())
    assert rows
    for row in rows:
        assert set(row) >= KEYS
        assert all(isinstance(row[k], str) for k in KEYS - {"value"})
        assert isinstance(row["value"], float) and np.isfinite(row["value"])
    return rows


@pytest.fixture(scope="module")
def short():
    """A suite of small scenes, and methods whose scores are known."""

    def known(cube, truth, only=()):
        found = {"raw": uncorrected, "zero": partial(scaled, factor=0.0)}
        if truth is not None:
            found["perfect"] = partial(perfect, truth=truth)
        return found

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SIZE", 40), ("DATES", 6), ("SCENES", 1)):
            patch.setattr(suite, name, {**getattr(suite, name), True: value})
        patch.setattr(atmosphere, "methods", known)
        yield


def scaled(cube, *, factor):
    return cube.assign(corrected_phase=factor * cube["unwrapped_phase"])


def perfect(cube, *, truth):
    moved = truth["displacement"].transpose("time", "y", "x")
    early, late = (
        moved.sel(time=cube[n].values).values
        for n in ("reference_time", "secondary_time")
    )
    phase = displacement_to_phase(late - early, cube.attrs["wavelength"])
    return cube.assign(corrected_phase=(("pair", "y", "x"), phase.astype("f4")))


@pytest.fixture(scope="module")
def rows(short, tmp_path_factory):
    """Rows of a short run, as written; and what was printed."""
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        made = atmosphere.main(["--quick", "--out", str(path)])
    kept = json.loads(path.read_text())
    assert kept == [r.record for r in made]
    return kept, printed.getvalue()


def test_atmosphere_tells_perfect_zero_and_nothing_apart(rows):
    kept, printed = rows
    value = {(r["case"], r["method"], r["metric"]): r["value"] for r in kept}
    decades = [suite.case_name(d) for d in suite.DECADES]
    assert decades == ["snr 0.01-0.1", "snr 0.1-1", "snr 1-10", "snr 10-100"]
    for case in decades:
        assert value[case, "raw", "velocity reduction"] == 0
        assert value[case, "raw", "pair reduction"] == 0
        assert value[case, "perfect", "velocity reduction"] > 99
        assert value[case, "perfect", "velocity slope"] == pytest.approx(1, abs=1e-3)
        assert value[case, "zero", "velocity slope"] == pytest.approx(0, abs=1e-6)
        assert f"  {case}: perfect" in printed
    # Zero wins by rms error where noise dominates, and loses where it does not.
    assert value["snr 0.01-0.1", "zero", "pair reduction"] > 60
    assert value["snr 10-100", "zero", "pair reduction"] < -200
    assert value["pure noise", "zero", "velocity false alarm"] == 0
    assert value["pure noise", "raw", "velocity false alarm"] > 1
    assert value["all snr", "zero", "peak where r > 0.7"] is None
    for row in kept:
        if "low" in row and row["value"] is not None:
            assert row["low"] <= row["value"] <= row["high"]
    assert "flat terrain" in printed and "steep terrain" in printed


@pytest.mark.skipif(not mexico_city.FOLDER.is_dir(), reason="mexico-city-s1 is absent")
def test_atmosphere_injects_into_real_pairs(rows):
    kept, _ = rows
    case = "mexico-city-s1, injected"
    value = {(r["method"], r["metric"]): r["value"] for r in kept if r["case"] == case}
    for history in ("steady", "step"):
        assert value["raw", f"{history} slope"] == pytest.approx(1, abs=1e-3)
        assert value["zero", f"{history} slope"] == pytest.approx(0, abs=1e-6)
        assert value["raw", f"{history} detectable"] > 0
        assert value["zero", f"{history} detectable"] is None


def test_suite_is_fixed_and_in_its_decades(short):
    stacks = list(suite.stacks(quick=True))
    assert len(stacks) == 2 * (len(suite.DECADES) + 1)
    again = {(s.case, s.terrain): s.scene for s in suite.stacks(quick=True)}
    for case, terrain, scene in stacks:
        xr.testing.assert_identical(scene.cube, again[case, terrain].cube)
        if case == "pure noise":
            assert not scene.truth["displacement"].any()
            continue
        low, high = map(float, case.removeprefix("snr ").split("-"))
        assert low * 0.99 <= scene.truth.attrs["snr_pairs"] <= high * 1.01
        relief = float(np.ptp(scene.cube["elevation"].values))
        assert relief == pytest.approx(suite.TERRAINS[terrain], rel=0.01)


def test_the_whole_suite_holds_a_thousand_pairs():
    pairs = 2 * suite.DATES[False] - 3  # of neighbours and of next neighbours
    stacks = suite.SCENES[False] * len(suite.TERRAINS) * (len(suite.DECADES) + 1)
    assert stacks * pairs >= 1000


def test_training_never_draws_a_seed_of_the_suite():
    """Splits differ in the first word, and the streams differ with it."""
    mine = [
        suite.seed_of(decade, terrain, number)
        for decade in (*suite.DECADES, None)
        for terrain in suite.TERRAINS
        for number in range(suite.SCENES[False])
    ]
    assert len({tuple(s.generate_state(4)) for s in mine}) == len(mine)
    for seed in mine:
        assert seed.entropy[0] == SPLITS["test"]
    assert SPLITS["test"] not in {SPLITS["train"], SPLITS["validation"]}
    # What the cards of the shipped networks score on is apart from the suite as well.
    assert {seed.entropy[1] for seed in mine}.isdisjoint({0, 1})


def test_methods_that_register_appear(monkeypatch):
    monkeypatch.setattr(atmosphere, "methods", METHODS)
    scene = next(suite.stacks(quick=True)).scene
    before = atmosphere.methods(scene.cube, scene.truth)
    assert next(iter(before)) == "raw" and "wiener" in before
    assert {"ramp", "pca", "ica", "common-scene", "temporal-filter"} <= set(before)
    assert set(zoo.shipped_models()) <= set(before)
    assert "wiener" not in atmosphere.methods(scene.cube, None)
    assert list(atmosphere.methods(scene.cube, scene.truth, ["ramp"])) == [
        "raw",
        "ramp",
    ]
    monkeypatch.setitem(CLASSICAL, "flatten", CLASSICAL["ramp"])
    assert "flatten" in atmosphere.methods(scene.cube, None)


def test_interval_of_a_median():
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(200):
        middle, low, high = atmosphere.interval(rng.normal(3.0, 1.0, 15).tolist())
        assert low <= middle <= high
        inside.append(low <= 3.0 <= high)
    assert 0.88 <= np.mean(inside) <= 0.99
    assert np.isnan(atmosphere.interval([np.nan])).all()


def test_best_method_and_what_it_does_not_beat():
    def of(errors):
        return [{"velocity rms error": e} for e in errors]

    rng = np.random.default_rng(2)
    base = rng.uniform(5, 10, 20)
    found = {
        "raw": of(base),
        "good": of(0.5 * base),
        "similar": of(0.5 * base * rng.uniform(0.9, 1.12, 20)),
        "wiener": of(0.1 * base),
    }
    said = atmosphere.best(found)
    assert said.startswith(("good", "similar"))
    assert "raw" not in said and "wiener" not in said


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
def test_atmosphere_quick_run(tmp_path, monkeypatch):
    """The command as users run it, with every shipped network."""
    monkeypatch.setattr(atmosphere, "methods", METHODS)
    rows = atmosphere.main(["--quick", "--out", str(tmp_path / "rows.json")])
    assert set(zoo.shipped_models()) | {"raw", "wiener"} <= {r.method for r in rows}


def test_memory_of_a_process_is_its_own(tmp_path):
    """The same whether the parent holds half a gigabyte or not."""
    alone = memory.peak_memory("invert: imports", tmp_path)
    ballast = np.ones(64_000_000)
    beside = memory.peak_memory("invert: imports", tmp_path)
    assert 0 < beside < alone + 0.2e-6 * ballast.nbytes
