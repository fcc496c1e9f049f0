"""The benchmark of long stacks: its scores, its seeds, its rows."""

import contextlib
import io
import json

import numpy as np
import pytest
import xarray as xr

from benchmarks import long_stacks, suite
from benchmarks.long_targets import Judged, deformation_rows, mean_interval, rest_rows
from cube_denoise.reference_area import ReferenceArea
from cube_denoise.simulate.seeds import SPLITS

RNG = np.random.default_rng(0)
TIMES = np.datetime64("2020-01-01", "s") + np.arange(5) * np.timedelta64(12, "D")
AREA = ReferenceArea(slice(0, 2), slice(0, 2))


def series(displacement: np.ndarray, **rates: np.ndarray) -> xr.Dataset:
    maps = {name: (("y", "x"), values) for name, values in rates.items()}
    return xr.Dataset(
        {"displacement": (("time", "y", "x"), displacement), **maps},
        coords={"time": TIMES[: len(displacement)]},
    )


def bowl(count: int = 5, side: int = 12) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    shape = np.exp(-((y - 6) ** 2 + (x - 6) ** 2) / 8)
    return 0.05 * np.linspace(0, 1, count)[:, None, None] * shape


def scores(estimate: np.ndarray, true: np.ndarray, **more) -> dict[str, float]:
    rate = np.zeros(true.shape[1:])
    found = series(estimate, velocity=rate, velocity_std=rate + 1)
    return long_stacks.displacement_scores(
        found, series(true, velocity=rate), AREA, **more
    )


def test_references_do_not_count_and_scale_does():
    true = bowl()
    offset = RNG.normal(size=(5, 1, 1)) + RNG.normal(size=(1, 12, 12))
    assert scores(true + offset, true)["displacement rms error"] < 1e-9
    half = scores(0.5 * true + offset, true)
    assert half["slope"] == pytest.approx(0.5)
    assert half["correlation"] == pytest.approx(1)
    centred = true - true.mean((1, 2), keepdims=True)
    centred -= centred.mean(0)
    expected = 1e3 * 0.5 * np.sqrt(np.mean(centred**2))
    assert half["displacement rms error"] == pytest.approx(expected)


def test_gaps_are_left_out_of_estimate_and_truth_alike():
    true = bowl()
    estimate = true.copy()
    estimate[2, :5, 3:9] = np.nan
    found = scores(estimate, true)
    assert found["displacement rms error"] < 1e-9
    assert found["slope"] == pytest.approx(1)


def test_coverage_is_the_share_within_one_standard_deviation():
    noise = 0.01 * RNG.normal(size=(5, 60, 60))
    std = xr.DataArray(np.full(noise.shape, 0.01), dims=("correction_time", "y", "x"))
    key = "displacement 68 % covers"
    true = bowl(side=60)
    # Centring takes a fifth of the variance off five dates.
    std = std * np.sqrt(4 / 5)
    assert scores(true + noise, true, std=std)[key] == pytest.approx(68.3, abs=1)
    assert scores(true + noise, true, std=2 * std)[key] == pytest.approx(95.4, abs=1)
    assert key not in scores(true, true)


def test_at_rest_the_99th_percentile_is_the_score():
    noise = RNG.normal(size=(5, 60, 60))
    found = scores(1e-3 * noise, np.zeros(noise.shape))
    assert found["false alarm"] == pytest.approx(2.576 * np.sqrt(4 / 5), rel=0.03)
    assert "slope" not in found


def test_seeds_are_those_of_no_other_split_or_suite():
    mine = {
        tuple(long_stacks.seed_of(d, k).entropy)
        for d in (*suite.DECADES, None)
        for k in range(long_stacks.STACKS[False])
    }
    assert len(mine) == 5 * long_stacks.STACKS[False]
    others = {
        tuple(suite.seed_of(d, t, k).entropy)
        for d in (*suite.DECADES, None)
        for t in suite.TERRAINS
        for k in range(suite.SCENES[False])
    }
    assert not mine & others
    # The first word is the split, which training and calibration draw otherwise; the
    # scores of model cards use the words 2 and 3 of this one.
    assert {e[0] for e in mine} == {SPLITS["test"]}
    assert {e[1] for e in mine}.isdisjoint({2, 3})


def test_stacks_are_fixed_and_as_asked():
    scene = long_stacks.scene_of(-1, 0, quick=True)
    xr.testing.assert_identical(
        scene.cube, long_stacks.scene_of(-1, 0, quick=True).cube
    )
    assert 0.1 <= scene.truth.attrs["snr"] <= 1
    assert 8 <= scene.truth.sizes["time"] <= 10
    still = long_stacks.scene_of(None, 0, quick=True)
    assert not still.truth["displacement"].any()


def known(error: float, **more: float) -> dict[str, float]:
    return {
        "displacement rms error": error,
        "velocity rms error": error,
        "velocity 68 % covers": 50.0,
        **more,
    }


def test_gains_are_paired_and_thresholds_found():
    # Errors in proportion: the gain is exact whatever the spread over stacks.
    stacks = []
    for k in range(16):
        size, peak = 1 + RNG.random(), 0.001 * 2.0**k / 2.0**4
        r = 0.9 if peak > 0.01 else 0.1
        scored = {
            name: known(size * e, slope=s, correlation=r)
            for name, e, s in (
                ("raw", 4.0, 1.0),
                ("pca", 2.0, 0.9),
                ("unet", 3.0, 0.5),
                ("stack", 1.0, 0.8 + 0.2 * (peak > 0.02)),
            )
        }
        stacks.append(Judged("snr 0.1-1", peak, scored))
    kinds = {"raw": "classical", "pca": "classical", "unet": "pair", "stack": "stack"}
    rows = {(r.case, r.method, r.metric): r for r in deformation_rows(stacks, kinds)}
    case = "snr 0.1-1"
    assert rows[case, "stack", "off best classical"].value == pytest.approx(50)
    assert rows[case, "stack", "off best of pairs"].value == pytest.approx(200 / 3)
    assert rows[case, "pca", "off best classical"].value == 0
    assert rows[case, "unet", "off raw"].low == pytest.approx(25)
    level = rows["detection", "stack", "peak where r > 0.7"].value
    assert 4 < level < 20
    slope = rows["detection", "stack", "slope above 2 thresholds"]
    assert slope.value == pytest.approx(1)
    still = [
        Judged("pure noise", 0.0, {"stack": {"false alarm": float(k)}})
        for k in (1, 2, 3)
    ]
    (row,) = rest_rows(still)
    assert (row.value, row.scenes, row.unit) == (2, 3, "mm")


def test_mean_interval_holds_the_mean():
    value, low, high = mean_interval([1.0, 2.0, np.nan, 6.0])
    assert value == 3
    assert low < 3 < high
    assert np.isnan(mean_interval([np.nan])[0])


def test_quick_run_prints_and_writes_rows(tmp_path):
    path = tmp_path / "rows.json"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        made = long_stacks.main(
            ["--quick", "--only", "pca", "common-scene", "--out", str(path)]
        )
    assert json.loads(path.read_text()) == [r.record for r in made]
    value = {(r.case, r.method, r.metric): r.value for r in made}
    for decade in suite.DECADES:
        case = suite.case_name(decade)
        assert value[case, "raw", "off raw"] == 0
        assert value[case, "pca", "displacement rms error"] > 0
    assert value["pure noise", "raw", "false alarm"] > 1
    assert "all deforming" in printed.getvalue()
