"""The benchmark of coverage: its inversion, its scores and its rows."""

import json

import numpy as np
import pytest

from benchmarks import coverage
from cube_denoise.network import incidence_matrix


def test_honest_and_halved_intervals_are_told_apart():
    rng = np.random.default_rng(0)
    error = 0.01 * rng.normal(size=40_000)
    std = {"honest": np.full(error.size, 0.01), "half": np.full(error.size, 0.005)}
    rows = list(coverage.scores("noise", [coverage.Estimate(error, std)]))
    found = {(r.method, r.metric): r.value for r in rows}
    assert found["honest", "68 % holds"] == pytest.approx(68, abs=1)
    assert found["honest", "95 % holds"] == pytest.approx(95, abs=0.5)
    assert found["half", "68 % holds"] == pytest.approx(38.1, abs=1)
    assert found["half", "std / rms error"] == pytest.approx(0.5, abs=0.01)


def test_inversion_is_weighted_and_its_covariance_that_of_draws():
    """Against numpy's least squares, and the scatter of noise of known variance."""
    rng = np.random.default_rng(1)
    times = coverage.regular_dates(8)
    i, j = np.nonzero(np.triu(np.ones((8, 8)), 1) - np.triu(np.ones((8, 8)), 4))
    incidence, _ = incidence_matrix(times[i], times[j])
    coherence = rng.uniform(0.2, 0.9, (i.size, 1))
    sigma = 1e-3 * np.sqrt(1 - coherence**2) / coherence
    noise = sigma * rng.normal(size=(i.size, 40_000))
    found = coverage.Inverter(coherence, incidence)(noise)
    root = np.sqrt(coherence)
    expected = np.linalg.lstsq(root * incidence[:, 1:], root * noise[:, :5])[0]
    np.testing.assert_allclose(found.displacement[1:, :5], expected, atol=1e-12)
    assert found.scale.mean() == pytest.approx(1e-6, rel=0.01)
    drawn = np.cov(found.displacement)
    np.testing.assert_allclose(
        1e-6 * found.covariance[0], drawn, atol=0.03 * drawn.max()
    )


def test_rows(tmp_path, monkeypatch, capsys):
    """All rows of a short run; the methods that need no time only."""
    for name, value in (("PIXELS", 300), ("SCENES", 1), ("SIZE", 12)):
        monkeypatch.setattr(coverage, name, {True: value})
    monkeypatch.setattr(coverage, "STACK_DATES", {True: 20})
    monkeypatch.setattr(coverage, "METHODS", ("raw", "common-scene"))
    rows = coverage.main(["--quick", "--out", str(tmp_path / "rows.json")])
    assert json.loads((tmp_path / "rows.json").read_text()) == [r.record for r in rows]
    assert "68 % holds" in capsys.readouterr().out
    value = {(r.case, r.method, r.metric): r.value for r in rows}
    assert np.isfinite(list(value.values())).all()
    noisy = "low coherence, atmosphere 0 mm, linear"
    assert value[noisy, "residual", "68 % holds"] < 40
    assert value[noisy, coverage.NETWORK, "68 % holds"] > 58
    memory = "correlation time 30 d, 60 dates, linear"
    assert value[memory, "residual", "68 % holds"] < 45
    assert value[memory, "effective", "68 % holds"] > 60
    for method in coverage.METHODS:
        assert 0 < value[f"kept by {method}", "linear", "slope"] < 2
