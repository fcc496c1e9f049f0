"""A simulated stack is what its truth says, plus decorrelation noise."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.conventions import VARIABLES
from cube_denoise.simulate import scene
from cube_denoise.simulate.scene import simulate_scene

OPTIONS = {"size": 64, "dates": 6, "max_temporal_baseline": 36, "gaps": 0.0}
CUBE, TRUTH = simulate_scene(seed=3, **OPTIONS)
TO_PHASE = 4 * np.pi / CUBE.attrs["wavelength"]


def indices(cube, truth):
    """Positions of the earlier and the later date of every pair."""
    return [
        np.searchsorted(truth["time"].values, cube[n].values)
        for n in ("reference_time", "secondary_time")
    ]


def rebuilt():
    """Noise-free phase (rad) of every pair, from dates: delay and motion away."""
    away = TO_PHASE * (TRUTH["delay"] - TRUTH["displacement"]).values.astype("float64")
    first, second = indices(CUBE, TRUTH)
    return away[second] - away[first]


def noise():
    """What the pairs hold beside that, less each pair's own constant; rad."""
    left = CUBE["unwrapped_phase"].values - rebuilt()
    return left - left.mean((1, 2), keepdims=True)


def expected_std():
    g = np.clip(CUBE["coherence"].values, 0.05, 0.99)
    return np.sqrt((1 - g**2) / (2 * 40 * g**2))


def triplets():
    """Positions of the pairs (1, 2), (2, 3), (1, 3) of every closed triplet."""
    first, second = indices(CUBE, TRUTH)
    where = {(i, j): k for k, (i, j) in enumerate(zip(first, second, strict=True))}
    return [
        (where[i, j], where[j, k], where[i, k])
        for i, j in where
        for k in range(OPTIONS["dates"])
        if (j, k) in where and (i, k) in where
    ]


def test_pairs_are_dates_differenced_plus_decorrelation():
    standardised = noise() / expected_std()
    assert standardised.std() == pytest.approx(1.0, rel=0.01)
    per_pair = standardised.std((1, 2))
    np.testing.assert_allclose(per_pair, 1.0, rtol=0.05)
    rows = standardised.reshape(-1, 64)
    assert abs(np.corrcoef(rows[:, 1:].ravel(), rows[:, :-1].ravel())[0, 1]) < 0.02


def test_closure_without_decorrelation_is_a_constant(monkeypatch):
    """Each pair has its own constant; beside it float32 rounding is left."""
    monkeypatch.setattr(
        scene, "decorrelation_noise", lambda g, **options: np.zeros_like(g)
    )
    phase = simulate_scene(seed=3, **OPTIONS).cube["unwrapped_phase"].values
    assert len(triplets()) == 10
    for a, b, c in triplets():
        closure = phase[a] + phase[b] - phase[c]
        assert np.ptp(closure) < 1e-5 and np.ptp(phase[c]) > 1


def test_closure_of_pairs_is_decorrelation_and_a_constant():
    phase, std = CUBE["unwrapped_phase"].values, expected_std()
    for a, b, c in triplets():
        closure = phase[a] + phase[b] - phase[c]
        closure = closure - closure.mean()
        level = np.sqrt(np.mean(std[a] ** 2 + std[b] ** 2 + std[c] ** 2))
        assert closure.std() == pytest.approx(level, rel=0.05)
        # The pairs themselves hold far more than that.
        assert phase[c].std() > 3 * level


def test_more_delay_on_the_later_date_is_positive_phase():
    first, second = indices(CUBE, TRUTH)
    delay, moved = TRUTH["delay"].values, TRUTH["displacement"].values
    for k in range(CUBE.sizes["pair"]):
        A = np.stack(
            [
                (delay[second[k]] - delay[first[k]]).ravel(),
                (moved[second[k]] - moved[first[k]]).ravel(),
                np.ones(64 * 64),
            ],
            1,
        )
        phase = CUBE["unwrapped_phase"].values[k].ravel()
        of_delay, of_motion, _ = np.linalg.lstsq(A, phase)[0]
        assert of_delay == pytest.approx(TO_PHASE, rel=0.1)
        assert of_motion == pytest.approx(-TO_PHASE, rel=0.3)


def test_pairs_are_earlier_then_later_and_short():
    days = (CUBE["secondary_time"] - CUBE["reference_time"]) / np.timedelta64(1, "D")
    assert days.min() == 12 and days.max() == 36
    # 6 dates every 12 days: 5 + 4 + 3 pairs of at most three intervals.
    assert CUBE.sizes["pair"] == 12


def test_displacement_is_linear_with_the_largest_rate_asked_for():
    years = (TRUTH["time"] - TRUTH["time"][0]) / np.timedelta64(1, "s")
    years = years / (365.25 * 86400)
    expected = TRUTH["velocity"] * years
    np.testing.assert_allclose(
        TRUTH["displacement"], expected.transpose("time", "y", "x"), atol=1e-6
    )
    fast = simulate_scene(seed=3, rate=0.2, **OPTIONS).truth["velocity"]
    assert float(abs(fast).max()) == pytest.approx(0.2, rel=1e-5)
    np.testing.assert_allclose(fast, 4 * TRUTH["velocity"], rtol=1e-5)


def test_perpendicular_baselines_close():
    baseline = CUBE["perpendicular_baseline"].values
    for a, b, c in triplets():
        assert baseline[a] + baseline[b] == pytest.approx(baseline[c], abs=1e-3)


def test_same_seed_same_scene():
    again = simulate_scene(seed=3, **OPTIONS)
    xr.testing.assert_identical(again.cube, CUBE)
    xr.testing.assert_identical(again.truth, TRUTH)
    other = simulate_scene(seed=4, **OPTIONS)
    assert not np.allclose(other.truth["delay"], TRUTH["delay"])
    assert not np.allclose(other.cube["elevation"], CUBE["elevation"])


def test_gaps_take_the_fraction_asked_for():
    cube = simulate_scene(seed=3, **OPTIONS | {"gaps": 0.2}).cube
    missing = np.isnan(cube["unwrapped_phase"])
    np.testing.assert_allclose(missing.mean(("y", "x")), 0.2, atol=1e-3)
    np.testing.assert_array_equal(missing, np.isnan(cube["coherence"]))
    assert not np.array_equal(missing[0], missing[1])


def test_layers_follow_the_data_model():
    for name, variable in CUBE.data_vars.items():
        assert variable.dims == VARIABLES[name].dims
        assert variable.dtype == VARIABLES[name].dtype
        assert variable.attrs["units"] == VARIABLES[name].units
    squared = sum(CUBE[f"los_{n}"] ** 2 for n in ("east", "north", "up"))
    np.testing.assert_allclose(squared, 1, rtol=1e-6)
    # North is up: rows run from north to south.
    assert CUBE["y"][0] > CUBE["y"][-1] and CUBE["x"][0] < CUBE["x"][-1]


def test_bad_input():
    with pytest.raises(ValueError, match="dates=1 must be at least 2"):
        simulate_scene(size=16, dates=1)
    with pytest.raises(ValueError, match="max_temporal_baseline=6"):
        simulate_scene(size=16, max_temporal_baseline=6)
