"""The benchmark of the inversion: its stack, its judge, its measures, its rows."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from benchmarks import (
    inversion,
    inversion_networks,
    inversion_peers,
)
from benchmarks.inversion_ours import memory_pass, solve_ours
from benchmarks.inversion_peers import PeerError, Runner, environment
from benchmarks.inversion_side import Inputs
from benchmarks.inversion_stack import GAPS, neighbours, simulate
from benchmarks.inversion_store import reference_pixel, write_hdf5


@pytest.fixture(scope="module")
def small():
    return simulate(neighbours(12, 3), (20, 30)).with_gaps("irregular gaps")


@pytest.mark.slow
def test_rows_of_a_quick_run(tmp_path, capsys):
    rows = inversion.main(["--quick", "--out", str(tmp_path / "rows.json")])
    assert json.loads((tmp_path / "rows.json").read_text()) == [r.record for r in rows]
    printed = capsys.readouterr().out
    assert "Left out: the peers" in printed
    assert "not measured: gaps and weights, x MintPy, at least 700." in printed
    value = {(r.case, r.method.split(" (")[0], r.metric): r.value for r in rows}
    cores = len(inversion.os.sched_getaffinity(0))
    for case in (*inversion.SIZES[True].cases, inversion.STORE):
        side = "invert_cube" if case == inversion.STORE else "cube_denoise"
        for threads in {cores} if case == inversion.STORE else {1, cores}:
            name = f"{side}, {threads} thread{'s' * (threads > 1)}"
            assert value[case, name, "from dense"] < 1e-4
            assert 0.01 < value[case, name, "error"] < 0.6
            assert value[case, name, "rate"] > 0
            assert value[case, name, "extra memory"] >= 0
    table = "goals", "gaps and weights, x memory pass"
    assert value[*table, "is"] > 0 and value[*table, "limit"] == 6
    networks = inversion_networks.NETWORKS[True]
    count = len(list(inversion_networks.every(networks)))
    assert sum(r.metric == "a pair x bandwidth" for r in rows) == count


def test_the_stack_is_what_the_issue_says():
    stack = simulate(neighbours(60, 3), (300, 300))
    assert stack.phase.shape == (174, 90_000) and stack.phase.dtype == np.float32
    irregular = stack.with_gaps("irregular gaps")
    assert 22_500 < irregular.patterns < 24_500
    assert irregular.gappy == pytest.approx(1 / 3, abs=1e-4)
    assert 0.5 < irregular.linked().mean() < 1
    regular = stack.with_gaps("regular gaps")
    assert 85 <= regular.patterns <= 95
    assert regular.gappy == pytest.approx(1 / 3, abs=0.03)
    assert stack.with_gaps("no gaps").patterns == 1


def test_noise_goes_with_coherence():
    stack = simulate(neighbours(12, 3), (100, 100))
    noise = stack.phase - (stack.truth[stack.second] - stack.truth[stack.first])
    for low, high in ((0.3, 0.35), (0.8, 0.85)):
        inside = (low < stack.coherence) & (stack.coherence < high)
        coherence = stack.coherence[inside].mean()
        expected = np.sqrt((1 - coherence**2) / (2 * 10 * coherence**2))
        assert noise[inside].std() == pytest.approx(expected, rel=0.03)


def test_the_year_closes_pairs():
    pairs = neighbours(60, 2, annual=True)
    assert len(pairs) == 59 + 58 + 30
    assert set(np.diff(pairs, axis=1).ravel()) == {1, 2, 30}


@pytest.mark.parametrize("weighted", [False, True])
def test_ours_is_dense_least_squares(small, weighted):
    pixels = np.flatnonzero(small.linked())
    found = solve_ours(
        small.phase,
        small.coherence if weighted else None,
        small.first,
        small.second,
        threads=2,
    )
    exact = small.exact(pixels, weighted=weighted)
    np.testing.assert_allclose(found[:, pixels], exact, atol=1e-4)
    assert np.isnan(found[:, ~small.linked()]).any()


def test_the_memory_pass_reads_all_pairs(small):
    phase = np.nan_to_num(small.phase)
    for threads in (1, 3):
        for weights in (None, small.coherence):
            series = memory_pass(phase, weights, small.dates, threads)
            expected = (phase if weights is None else phase * weights).sum(0)
            assert series.shape == small.truth.shape
            np.testing.assert_allclose(series, np.tile(expected, (12, 1)), atol=1e-3)


def test_the_judge_sees_what_is_wrong(small):
    judge = inversion.Judge(small, weighted=True)
    pixels = np.arange(small.phase.shape[1])
    exact = small.exact(pixels, weighted=True)
    good = judge.of(exact)
    assert good["from dense"] < 1e-12 and 0 < good["error"] < 0.6
    assert judge.of(exact + 7)["error"] == pytest.approx(good["error"])
    wrong = exact + 0.1 * (np.arange(12) > 5)[:, None]
    assert judge.of(wrong)["from dense"] == pytest.approx(0.1 / np.sqrt(2))
    other = judge.of(small.exact(pixels, weighted=False))
    assert other["from dense"] > 1e-3 and other["error"] > good["error"]
    assert judge.of(small.truth)["error"] == 0
    lost = exact.copy()
    lost[3, judge.pixels[5]] = np.nan
    assert np.isnan(judge.of(lost)["error"])
    assert judge.of(exact[:, :90])["from dense"] < 1e-12  # a part of the pixels


SOLVED_ONCE = """
import json
import numpy as np
from benchmarks.inversion_side import Side
from benchmarks.inversion_worker import once

def solve():
    for _ in range(2):
        np.ones(8_000_000)
    return np.ones(1_000_000)

side = Side(solve=solve, series=np.asarray, version="1", own_memory=8_000_000)
found, cost = once(side)
print(json.dumps([found.size, cost]))
"""


def test_extra_memory_is_what_a_solve_takes():
    """In a process of its own: other tests tell this one to keep freed memory."""
    done = subprocess.run(
        [sys.executable, "-c", SOLVED_ONCE],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    size, cost = json.loads(done.stdout)
    assert size == 1_000_000
    assert cost["extra"] == pytest.approx(56e6, abs=4e6)  # 64 at a time, then 8
    assert cost["processor"] > 0 and cost["seconds"] > 0


def test_a_side_that_fails_says_why(small, tmp_path):
    small.save(tmp_path)
    if find_spec("insar_rs") is None:
        with pytest.raises(PeerError, match=r"insar-rs failed: .*No module.*insar_rs"):
            Runner.start("insar-rs", tmp_path, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inversion_peers, "PATIENCE", 0.01)
        with pytest.raises(PeerError, match=r"no answer within 0.01 s"):
            Runner.start("memory pass", tmp_path, 1)
    with pytest.raises(PeerError, match="FileNotFoundError"):
        (tmp_path / "empty").mkdir()
        Runner.start("cube_denoise", tmp_path / "empty", 1)


@pytest.mark.slow
def test_a_peer_that_does_not_install_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(inversion_peers.PEERS, "MintPy", "./no-such-folder")
    with pytest.raises(PeerError, match=r"MintPy does not install: .*no-such"):
        environment("MintPy")
    assert not list(tmp_path.rglob("complete"))


def test_one_thread_is_one_core(small, tmp_path):
    small.save(tmp_path)
    loaded = Inputs.load(tmp_path, weighted=False)
    np.testing.assert_array_equal(loaded.phase, small.phase)
    assert loaded.weights is None and loaded.width == 30
    runner = Runner.start("memory pass", tmp_path, 1)
    assert len(inversion.os.sched_getaffinity(runner.process.pid)) == 1
    runner.run()
    assert runner.series().shape == small.truth.shape
    runner.stop()
    assert runner.process.returncode == 0


def test_a_peer_is_judged_by_its_better_rate(tmp_path):
    size = inversion.Size(
        GAPS, dates=4, pixels=8, rounds=1, few=1, peers=False, store=(4, 4)
    )
    bench = inversion.Bench(tmp_path, size)
    bench.cores = 2

    def runner(*seconds, pixels=64):
        runs = [{"seconds": s} for s in seconds]
        return SimpleNamespace(runs=runs, pixels=pixels)

    bench.runs = {
        ("no gaps", "cube_denoise", 2): runner(0.1, 0.2, 0.9),
        ("no gaps", "dolphin", 1): runner(0.5, pixels=32),  # of half the pixels
        ("no gaps", "dolphin", 2): runner(3.0),
    }
    assert bench.lead("no gaps", "dolphin") == pytest.approx(5)
    assert bench.ratio("no gaps", "dolphin", 2) == pytest.approx(15)
    assert np.isnan(bench.lead("no gaps", "insar-rs"))


def test_verdicts():
    goal = inversion.Goal
    assert goal("a", 7.5, 7).line == "reached: a 7.5, at least 7."
    assert goal("a", 6.5, 7).line == "MISSED: a 6.5, at least 7."
    assert goal("a", 6.5, 7, "MB", most=True).line == "reached: a 6.5 MB, at most 7 MB."
    assert goal("a", 7.5, 7, most=True).line.startswith("MISSED")
    assert goal("a", float("nan"), 7).line == "not measured: a, at least 7."


def test_exponent_of_the_cost():
    sizes = [300.0, 1000.0, 40_000.0]
    exponent, spread = inversion_networks.fit([(s, 2 * s**1.5) for s in sizes])
    assert exponent == pytest.approx(1.5)
    assert spread == pytest.approx((40_000 / 300) ** 0.5)


def test_the_file_for_mintpy(small, tmp_path):
    write_hdf5(small, tmp_path / "stack.h5")
    row, column = reference_pixel(small)
    assert np.isfinite(small.phase[:, row * 30 + column]).all()
    with h5py.File(tmp_path / "stack.h5") as file:
        phase = file["unwrapPhase"][:]
        np.testing.assert_array_equal(phase.reshape(small.phase.shape), small.phase)
        assert file["date"][0].tolist() == [b"20200101", b"20200113"]
        assert file["dropIfgram"][:].all()
        assert (file.attrs["LENGTH"], file.attrs["WIDTH"]) == ("20", "30")
        assert file.attrs["REF_Y"] == str(row)
