"""The benchmark of the simulator: every recipe has its rate."""

import json

import pytest

from benchmarks import simulator
from cube_denoise.simulate.recipes import RECIPES


def test_rows(tmp_path, capsys, monkeypatch):
    """Small samples; the rate is that of a clock of our own."""
    shapes = []

    def small(name, number, *, noise=None):
        shapes.append((name, noise and noise.kind))
        return number

    monkeypatch.setattr(simulator, "SECONDS", {True: 0.0, False: 0.0})
    monkeypatch.setattr(
        simulator, "sample", lambda *a, **o: small(a[0], 0, noise=o["noise"])
    )
    monkeypatch.setattr(simulator, "simulate_stack", lambda **options: None)
    rows = simulator.main(["--quick", "--out", str(tmp_path / "rows.json")])
    kept = json.loads((tmp_path / "rows.json").read_text())
    assert kept == [r.record for r in rows]
    assert all(r.value > 0 for r in rows)
    assert {name for name, _ in shapes} == set(RECIPES)
    assert ("poster-sources", "short-pairs") in shapes
    assert ("autoencoder-paper", "residual") in shapes
    assert "samples per second" in capsys.readouterr().out


def test_rate_counts_what_was_drawn(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(simulator.time, "perf_counter", lambda: now[0])

    def draw(number):
        now[0] += 0.25

    found, count = simulator.rate(draw, 5.0)
    assert count == 20 and found == pytest.approx(4.0)


@pytest.mark.slow
def test_quick_run(tmp_path):
    simulator.main(["--quick", "--out", str(tmp_path / "rows.json")])
    cases = {
        r["case"].split(",")[0]
        for r in json.loads((tmp_path / "rows.json").read_text())
    }
    assert set(RECIPES) <= cases
