"""The benchmark of bulk runs: a continent from metadata, and a quick run of all."""

import json
import math

import pytest

from benchmarks import bulk


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    rows = bulk.continent(tmp_path_factory.mktemp("continent"), 2.0)
    return {(r.case, r.method, r.metric): r.value for r in rows}


def test_the_frame_is_what_is_said(tmp_path):
    grid, records = bulk.frame_of_continent(tmp_path)
    assert grid.resolution.x == bulk.PIXEL
    assert grid.shape == (250_000 / 80, 200_000 / 80)
    assert len({r.key for r in records}) == bulk.PAIRS
    days = {(r.secondary_time - r.reference_time).days for r in records}
    assert days == {12, 24, 36}


@pytest.mark.parametrize("method", ["raw pairs", "ramp"])
def test_a_continent_is_its_frames(planned, method):
    (whole,) = {case for case, _, _ in planned if case.startswith("continent")}
    count = int(whole.split()[1])
    covered = count * 250 * 200 * 0.85 / 2
    assert 5e6 <= covered < 5e6 + 250 * 200
    for metric in ("pairs", "tasks", "read", "stored", "worker-hours, dry run"):
        one = planned["one frame", method, metric]
        assert planned[whole, method, metric] == pytest.approx(count * one)
    hours = planned[whole, method, "worker-hours, dry run"]
    assert planned[whole, method, "worker-hours, by the factor"] == 2 * hours > 0
    days = planned["cost factors", method, "days on 100 workers"]
    assert days == pytest.approx(2 * hours / 100 / 24)
    shares = [v for (c, m, _), v in planned.items() if c[:5] == "share" and m == method]
    assert math.fsum(shares) == pytest.approx(1)


def test_bytes_of_a_frame(planned):
    """Phase and coherence of all pairs, three float32 series, maps, and states."""
    pixels, dates = 3125 * 2500, 136
    assert 3 * dates - 6 - 2 == bulk.PAIRS  # of 402, the last two are left out
    stack = 2 * 4 * bulk.PAIRS * pixels / 1e12
    written = planned["one frame", "raw pairs", "written"]
    assert stack + 4 * dates * pixels / 1e12 < written < 2.5 * stack
    more = planned["one frame", "ramp", "written"] - written
    assert more == pytest.approx(4 * bulk.PAIRS * pixels / 1e12, rel=0.01)
    # Five layers are read as they lie: two of each pair, three once.
    read = planned["one frame", "raw pairs", "read"]
    assert read > 4 * (2 * bulk.PAIRS + 3) * pixels / 1e12


@pytest.mark.slow
def test_quick_run(tmp_path):
    rows = bulk.main(["--quick", "--out", str(tmp_path / "rows.json")])
    kept = json.loads((tmp_path / "rows.json").read_text())
    assert kept == [r.record for r in rows]
    ratios = [r.value for r in rows if r.method == "ratio of peaks"]
    assert len(ratios) == 2 and max(ratios) < 1.1
    value = {(r.method, r.metric): r.value for r in rows}
    assert value["ramp", "measured over dry run"] > 0
    assert value["bulk, threads, 1 worker", "a frame"] > 0
