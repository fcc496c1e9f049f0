"""The demo on a tiny scene with a network that changes nothing."""

import json
import shutil

import numpy as np
import pytest

import cube_denoise as cd
from cube_denoise.demo import demo, results_table, scores
from cube_denoise.models import zoo


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "identity"
    return zoo.save_model(zoo.create_model("dncnn"), folder, training={}, card="")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "work"


@pytest.fixture(scope="module")
def results(folder, model):
    return demo(folder, model=model, size=64, dates=4, seed=1, workers=2)


def score(results, quantity, metric):
    (row,) = (
        r
        for r in results["scores"]
        if r["quantity"] == quantity and r["metric"] == metric
    )
    return row["raw"], row["corrected"]


def test_results_are_told_and_written(folder, results):
    assert json.loads((folder / "results.json").read_text()) == results
    assert results["pairs"] == 6 and not results["failed"]
    assert len(results["scores"]) == 6
    names = {p.name for p in (folder / "maps").iterdir()}
    assert {"velocity-comparison.png", "velocity.png", "network.png"} <= names
    assert results_table(results).row_count == 6


@pytest.mark.parametrize("quantity", ["pairs", "displacement", "velocity"])
def test_identity_changes_no_score(results, quantity):
    for metric in ("rms error", "amplitude slope"):
        raw, corrected = score(results, quantity, metric)
        assert np.isfinite(raw) and raw == pytest.approx(corrected, rel=1e-6)


def test_again_goes_on_and_says_the_same(folder, model, results, caplog):
    before = cd.open_cube(folder / "cube").attrs["history"]
    with caplog.at_level("INFO", "cube_denoise"):
        again = demo(folder, model=model, size=64, dates=4, seed=1, workers=2)
    assert again == results and "go on from there" in caplog.text
    assert cd.open_cube(folder / "cube").attrs["history"] == before


def test_other_settings_start_anew(folder, model, results, tmp_path, caplog):
    copy = shutil.copytree(folder, tmp_path / "work")
    other = demo(copy, model=model, size=64, dates=3, seed=2, workers=2)
    assert other["pairs"] == 3 and "start anew" in caplog.text
    assert cd.open_cube(copy / "cube").sizes["pair"] == 3


def test_nothing_of_others_is_removed(tmp_path, model):
    (tmp_path / "products").mkdir()
    with pytest.raises(ValueError, match="products that no demo made"):
        demo(tmp_path, model=model, size=64, dates=3)
    with pytest.raises(ValueError, match="neither a shipped model"):
        demo(tmp_path / "new", model="nothing")
    assert [p.name for p in tmp_path.iterdir()] == ["products"]


def test_truth_scores_perfectly():
    scene = cd.simulate_scene(size=64, dates=4, seed=4)
    from cube_denoise.conventions import displacement_to_phase

    times = scene.truth.time.values.astype("datetime64[s]")
    first, second = (
        np.searchsorted(times, scene.cube[f"{e}_time"].values.astype("datetime64[s]"))
        for e in ("reference", "secondary")
    )
    moved = scene.truth.displacement.values
    phase = displacement_to_phase(
        moved[second] - moved[first], scene.cube.attrs["wavelength"]
    )
    cube = scene.cube.assign(
        unwrapped_phase=(("pair", "y", "x"), phase),
        corrected_phase=(("pair", "y", "x"), phase / 2),
    )
    raw = cube.merge(cd.invert(cube, variable="unwrapped_phase").compute())
    half = cube.merge(cd.invert(cube).compute())
    for row in scores(raw, half, scene.truth):
        if row["metric"] == "rms error":
            assert row["raw"] < 1e-3 < row["corrected"]
        else:
            assert row["raw"] == pytest.approx(1, abs=1e-4)
            assert row["corrected"] == pytest.approx(0.5, abs=1e-4)
