"""The benchmark of separations: its stacks and its rows."""

import contextlib
import io
import json

import numpy as np
import pytest

from benchmarks import separation
from benchmarks.separation_stacks import known_stack, station_stack


def test_stacks_are_their_sources():
    one, two = (known_stack(n, side=32, dates=12) for n in (1, 2))
    assert (len(one.maps), len(two.maps)) == (1, 2)
    moved = two.scene.truth["displacement"].values
    made = np.einsum("kyx,kt->tyx", two.maps, two.courses)
    np.testing.assert_allclose(moved, made, atol=1e-6)
    assert abs(np.corrcoef(*two.courses)[0, 1]) < 0.999
    again = known_stack(2, side=32, dates=12).scene.cube["unwrapped_phase"]
    assert np.array_equal(again, two.scene.cube["unwrapped_phase"], equal_nan=True)


def test_station_stacks_are_as_the_paper_has_them():
    known, (base, station) = station_stack(1, side=48, dates=20)
    cube, truth = known.scene
    days = (cube["secondary_time"] - cube["reference_time"]).dt.days.values
    assert set(days.tolist()) == {6, 12, 24}
    velocity = truth["velocity"].values
    assert abs(velocity[base]) < 0.05 * abs(velocity[station])
    assert velocity[station] < -0.03
    # As many as the paper has.
    assert sum(166 + 1 - n for n in (1, 2, 4)) == pytest.approx(500, abs=10)


def test_rows_say_what_each_method_does(monkeypatch, tmp_path):
    monkeypatch.setattr(separation, "METHODS", ("pca-clustering",))
    monkeypatch.setattr(separation, "CLASSICAL", ("ramp",))
    monkeypatch.setattr(separation, "STACKS", {True: 2})
    options = ["--quick", "--part", "sources", "--resume", str(tmp_path / "done")]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        rows = separation.main([*options, "--out", str(tmp_path / "rows.json")])
    value = {(r.method, r.metric): r.value for r in rows}
    assert value["raw", "velocity reduction"] == 0
    assert 0 <= value["pca-clustering", "source map r"] <= 1
    assert ("ramp", "velocity slope") in value and ("ramp", "time") in value
    assert "known sources" in printed.getvalue()
    assert len(json.loads((tmp_path / "rows.json").read_text())) == len(rows)
    # What is done is not done again.
    monkeypatch.setattr(separation, "scores", None)
    with contextlib.redirect_stdout(io.StringIO()):
        assert separation.main(options) == rows


def test_stations_see_what_the_weather_model_takes():
    with contextlib.redirect_stdout(io.StringIO()):
        rows = separation.main(["--quick", "--part", "stations"])
    value = {(r.method, r.metric): r.value for r in rows}
    methods = ("raw", "phase-elevation", "weather model", "vae-clustering")
    true = {value[m, "true"] for m in methods}
    assert len(true) == 1 and max(true) < -20
    for method in methods:
        difference = value[method, "velocity"] - value[method, "true"]
        assert value[method, "difference"] == pytest.approx(difference)
    # A smoothed truth, taken off every pair, must help a single point.
    off = {m: abs(value[m, "difference"]) for m in methods}
    assert off["weather model"] < off["raw"]
