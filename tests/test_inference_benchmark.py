"""The benchmark of inference: what its numbers mean; its goals can be missed."""

import json

import pytest

from benchmarks import inference, inference_sides
from benchmarks.report import Row


def test_rows_and_what_they_mean(tmp_path, capsys):
    out = tmp_path / "rows.json"
    rows = inference.main(["--quick", "--out", str(out)])
    assert json.loads(out.read_text()) == [r.record for r in rows]
    printed = capsys.readouterr().out
    value = {(r.case, r.method, r.metric): r.value for r in rows}
    peak = {p: value["matrix product", "1 thread", p] for p in ("float32", "bfloat16")}
    faster = peak["bfloat16"] > peak["float32"]
    assert "times the plain loop" in printed or not faster
    assert "overhead" in printed
    agree = [r for r in rows if r.case == "difference to the module"]
    assert {r.method for r in agree} == set(inference.NARROW)
    for row in agree:
        assert row.value < (1e-5 if row.metric == "float32" else 0.2)
    speeds = {(r.case, r.method) for r in rows if r.metric == "to plain loop"}
    assert len({case for case, _ in speeds}) == len(inference.NARROW)
    for case, method in speeds:
        threads, precision = method.split(", ")
        found = {m: v for (c, how, m), v in value.items() if (c, how) == (case, method)}
        assert all(v > 0 for v in found.values())
        assert found["to plain loop"] == pytest.approx(
            found["rate"] / found["plain loop"]
        )
        peak = value["matrix product", threads, precision]
        assert found["share of peak"] == pytest.approx(
            found["rate"] * found["work"] * 1e3 / peak
        )
        assert ("to one go" in found) == case.startswith("dncnn")


def test_work_of_a_network_is_that_of_its_convolutions():
    model = inference_sides.made("DnCNN", {"depth": 4, "channels": 8})
    task = inference_sides.Task(model, None, None, "float32")
    assert inference.work_of(task) == 2 * 9 * (8 + 2 * 8 * 8 + 8)


def test_tiles_are_those_of_the_package():
    import numpy as np
    import xarray as xr

    cube = xr.Dataset({"unwrapped_phase": (("y", "x"), np.zeros((300, 500)))})
    model = inference_sides.made("DnCNN", {"depth": 4, "channels": 8})
    task = inference_sides.Task(model, None, cube, "float32")
    assert task.tiles(halo=False) == [(256, 256), (256, 244), (44, 256), (44, 244)]
    assert task.tiles(halo=True) == [(260, 260), (260, 248), (48, 260), (48, 248)]
    assert task.pixels == 300 * 500


@pytest.mark.parametrize(
    ("metric", "value", "verdict"),
    [
        ("to plain loop", 4.1, "reached"),
        ("to plain loop", 3.9, "MISSED"),
        ("to one go", 1.05, "reached"),
        ("to one go", 1.2, "MISSED"),
    ],
)
def test_goals_can_be_missed(metric, value, verdict):
    rows = [
        Row("dncnn, 8 x 8", "1 thread, bfloat16", metric, value, "1"),
        Row("UNet, 8 x 8", "1 thread, bfloat16", metric, value, "1"),
        Row("dncnn, 8 x 8", "GPU, bfloat16", metric, value, "1"),
    ]
    (said,) = inference.goals(rows, True)
    assert said.endswith(f"{verdict}.")
    assert len(inference.goals(rows, False)) == (metric == "to one go")
