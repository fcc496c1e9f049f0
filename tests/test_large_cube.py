"""Benchmark of the large cube: which networks see what, and what its rows say."""

import json

import pytest

from benchmarks import large_cube, memory
from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.models import zoo
from cube_denoise.steps import correct_cube

STACK, PAIR = "narrow untrained stack network", "narrow untrained network"


@pytest.fixture
def seen(monkeypatch):
    """What networks were given, on small cubes, in this process, at made-up peaks.

    That of a network of pairs is always the same; the other grows with the scene.
    """
    given = []

    def run(step, url, model):
        cube = store.open_cube(url)
        assert step == "correct" and "corrected_phase" not in cube
        correct_cube(url, model, workers=Workers(count=1))
        kind, side = zoo.what_it_sees(model), cube.sizes["y"]
        given.append((kind, side, cube.sizes["pair"]))
        return memory.Ran(2.0 * side if kind == "stack" else 100.0, 3.0, 4.0)

    small = memory.Sizes(size=32, chunk=32, shard=32, dates=5, longest=12, gaps=0.001)
    monkeypatch.setattr(large_cube, "run_step", run)
    monkeypatch.setitem(large_cube.SCENES, True, small)
    return given


@pytest.mark.slow
def test_rows_and_limit(seen, tmp_path, capsys):
    path = tmp_path / "rows.json"
    made = large_cube.main(["--quick", "--out", str(path)])
    assert json.loads(path.read_text()) == [r.record for r in made]
    assert seen == [
        ("stack", 32, 4),
        ("stack", 64, 4),
        ("pair", 32, 1),
        ("pair", 64, 1),
    ]
    value = {(r.case, r.method, r.metric): r.value for r in made}
    for side in (32, 64):
        assert value[f"{side} x {side} x 4", STACK, "pairs corrected"] == 4
        assert value[f"{side} x {side} x 1", PAIR, "pairs corrected"] == 1
    assert value["area x 4", STACK, "ratio of peaks"] == 2
    assert value["area x 4", PAIR, "ratio of peaks"] == 1
    # Of the phase of all four pairs, also where one was seen.
    share = 100e6 / (4 * 4 * 64 * 64)
    assert value["64 x 64 x 1", PAIR, "of the cube"] == pytest.approx(share)
    assert f"over the limit of 1.20: {STACK} 2.00." in capsys.readouterr().out


def test_all_pairs_are_for_networks_of_pairs_as_well(monkeypatch):
    made, run = [], []

    def make(url, sizes, side):
        made.append((side, sizes.dates))
        url.mkdir()

    def step(step, url, model):
        run.append((zoo.what_it_sees(model), url.name))
        return memory.Ran(1.0, 1.0, 1.0)

    monkeypatch.setattr(large_cube, "make_cube", make)
    monkeypatch.setattr(large_cube, "run_step", step)
    monkeypatch.setattr(large_cube, "corrected_pairs", lambda url: 3)
    rows = large_cube.main(["--quick", "--all-pairs"])
    assert made == [(384, 4), (768, 4)]  # once each
    assert [kind for kind, _ in run] == ["stack", "stack", "pair", "pair"]
    assert [url for _, url in run] == ["384-4", "768-4"] * 2
    cases = {r.case for r in rows if r.metric == "pairs corrected"}
    assert cases == {"384 x 384 x 3", "768 x 768 x 3"}


def test_an_interrupted_run_keeps_its_rows(monkeypatch, tmp_path):
    def step(step, url, model):
        if zoo.what_it_sees(model) == "pair":
            raise KeyboardInterrupt
        return memory.Ran(1.0, 1.0, 1.0)

    monkeypatch.setattr(large_cube, "make_cube", lambda url, sizes, side: url.mkdir())
    monkeypatch.setattr(large_cube, "run_step", step)
    monkeypatch.setattr(large_cube, "corrected_pairs", lambda url: 3)
    path = tmp_path / "rows.json"
    with pytest.raises(KeyboardInterrupt):
        large_cube.main(["--quick", "--out", str(path)])
    kept = json.loads(path.read_text())
    assert {r["method"] for r in kept} == {STACK}
    assert kept[-1]["metric"] == "ratio of peaks"


def test_networks_are_found_and_stacks_come_first(tmp_path):
    every = large_cube.networks(tmp_path, large_cube.options([]))
    assert set(every) == set(zoo.shipped_models())
    kinds = [zoo.what_it_sees(name) for name in every]
    assert kinds == sorted(kinds, reverse=True)
    only = large_cube.options(["--only", "dncnn", "stack"])
    assert list(large_cube.networks(tmp_path, only)) == ["stack", "dncnn"]
    with pytest.raises(SystemExit):
        large_cube.options(["--only", "nothing"])


def test_the_whole_cube_is_as_large_as_it_should_be():
    sizes = large_cube.SCENES[False]
    assert 2 * sizes.size == 2048 and sizes.dates - 1 == 60
    # On both cubes there is work for every thread.
    assert (sizes.size // sizes.shard) ** 2 >= memory.WORKERS


def test_two_dates_are_for_networks_of_pairs():
    found = set(memory.pair_networks())
    assert found and found < set(zoo.shipped_models())
    assert {zoo.what_it_sees(name) for name in found} == {"pair"}


@pytest.mark.slow
def test_quick_run(tmp_path):
    """The command as users run it, in processes of their own."""
    rows = large_cube.main(["--quick", "--out", str(tmp_path / "rows.json")])
    ratios = [r.value for r in rows if r.metric == "ratio of peaks"]
    assert len(ratios) == 2 and max(ratios) <= memory.LIMIT
