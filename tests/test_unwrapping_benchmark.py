"""The benchmark of unwrapping errors counts what is there."""

import json

import numpy as np
import pytest

from benchmarks import unwrapping
from benchmarks.mexico_city import FOLDER
from cube_denoise.network import closure_triplets


def known(dates=8):
    """Phases of zero of a network of three neighbours."""
    first, second = np.array(
        [(i, j) for i in range(dates) for j in range(i + 1, min(i + 4, dates))]
    ).T
    days = np.datetime64("2020-01-01") + 12 * np.arange(dates)
    triplets = closure_triplets(days[first], days[second])
    phase = np.zeros((first.size, 2, 3), "float32")
    return unwrapping.Pixels(phase, triplets, np.zeros(len(triplets)))


def test_score_of_known_errors():
    pixels = known()
    wrong = np.zeros(pixels.phase.shape, int)
    wrong[9, 0, 0] = 1  # fixed
    wrong[0, 1, 1] = 1  # first pair: in the same loops as no other
    count = unwrapping.score(pixels, wrong)
    assert count["all"] == pixels.phase.size and count["wrong"] == count["found"] == 2
    assert count["fixed"] + count["masked"] == 2 and count["fixed"] >= 1
    assert not count["false"] and not count["closed and moved"]


def test_score_tells_false_corrections_and_what_is_left():
    """Cycles of all pairs of a date are invisible; one missing looks like one wrong."""
    pixels = known()
    dates = [(i, j) for i in range(8) for j in range(i + 1, min(i + 4, 8))]
    of_date = np.array([(j == 4) - (i == 4) for i, j in dates])
    wrong = np.zeros(pixels.phase.shape, int)
    wrong[:, 0, 0] = of_date
    alone = dates.index((3, 4))
    wrong[:, 1, 2] = of_date
    wrong[alone, 1, 2] = 0
    count = unwrapping.score(pixels, wrong)
    per_date = np.count_nonzero(of_date)
    assert count["wrong"] == 2 * per_date - 1
    assert count["found"] == per_date - 1
    assert count["fixed"] == count["masked"] == 0
    assert count["changed"] == count["false"] == 1


@pytest.mark.slow
def test_quick_run(tmp_path):
    path = tmp_path / "rows.json"
    rows = unwrapping.main(["--quick", "--out", str(path)])
    assert json.loads(path.read_text()) == [r.record for r in rows]
    value = {(r.case, r.method, r.metric): r.value for r in rows}
    for neighbours in unwrapping.NEIGHBOURS:
        case = f"simulated, {neighbours} neighbours"
        assert value[case, "0% of pairs", "wrong"] == 0
        assert value[case, "5% of pairs", "left"] < 5
        assert value[case, "5% of pairs", "found"] > 95
    assert not any(v for k, v in value.items() if k[2] == "closed and moved")
    if not FOLDER.is_dir():
        pytest.skip("mexico-city-s1 is absent")
    case = "mexico-city-s1"
    share = value[case, "none", "open triplets"]
    assert share > 0 and value[case, "correct", "open triplets"] < share
