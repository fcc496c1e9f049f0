"""Redrawn noise: the closed form for raw pairs, and what smoothing does not gain."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.conventions import displacement_to_phase, years_since
from cube_denoise.evaluate.held_out import uncorrected
from cube_denoise.evaluate.injection import Case, amplitude_map, centres, stack_times
from cube_denoise.evaluate.recovery import recover
from cube_denoise.evaluate.redrawn import DRAWS, amplitude_of, detrended, redrawn_stacks
from cube_denoise.invert import invert
from cube_denoise.simulate import simulate_scene

OPTIONS = {"reference": {"y": slice(0, 8), "x": slice(0, 8)}, "weights": "none"}
CASE = Case("bowl", 1000.0, 0.05)


@pytest.fixture(scope="module")
def stack() -> xr.Dataset:
    scene = simulate_scene(size=48, dates=9, rate=0.2, gaps=0.0, seed=4)
    return scene.cube.load()


def series(cube, variable="unwrapped_phase"):
    found = invert(cube, variable=variable, **OPTIONS)["displacement"]
    return found.values.astype("float64")


def straight(cube):
    """Replace every series by a straight line: smooth, and no better a rate."""
    times = stack_times(cube)
    rate = amplitude_of(series(cube), years_since(times, times[0]))
    years = [
        years_since(cube[n].values, times[0])
        for n in ("reference_time", "secondary_time")
    ]
    moved = (years[1] - years[0])[:, None, None] * rate
    phase = displacement_to_phase(moved, cube.attrs["wavelength"]).astype("float32")
    return cube.assign(corrected_phase=(("pair", "y", "x"), phase))


def test_motion_and_size_of_the_noise_stay(stack):
    times = stack_times(stack)
    years = years_since(times, times[0])
    before = series(stack)
    noise = detrended(before, years)
    motion = before - noise
    stacks = list(redrawn_stacks(stack, **OPTIONS))
    assert len(stacks) == 16
    changed = np.array([series(s) for s in stacks])
    # Series start at zero: compare what changes from date to date.
    drawn = np.diff(changed - motion, axis=1)
    for one in drawn[1:]:  # the first is the stack itself
        assert not np.allclose(one, np.diff(noise, axis=0), atol=1e-6)
    np.testing.assert_allclose(drawn.mean(0), 0, atol=2e-6)
    # Independent from date to date: variances of two neighbours add up.
    np.testing.assert_allclose(
        (drawn**2).mean(0), noise[1:] ** 2 + noise[:-1] ** 2, rtol=0.01, atol=1e-10
    )


def test_noise_of_raw_pairs_is_the_variance_of_a_regression(stack):
    (found,) = recover(stack, uncorrected, [CASE], **OPTIONS)
    times = stack_times(stack)
    years = years_since(times, times[0])
    noise = detrended(series(stack), years)
    shape = amplitude_map(stack, CASE) / CASE.amplitude
    (row,), (column,) = centres(stack, CASE)
    here = np.s_[max(row - 30, 0) : row + 31, max(column - 30, 0) : column + 31]
    s = shape[here] - shape[here].mean()
    amplitude = (noise[(slice(None), *here)] * s).sum((1, 2)) / (s**2).sum()
    h = years - years.mean()
    variance = times.size / (times.size - 2) * np.sum((h * amplitude) ** 2)
    assert found.noise[0] == pytest.approx(np.sqrt(variance) / np.sum(h**2), rel=1e-3)


def test_a_smooth_series_gains_nothing(stack):
    """What it makes of the pairs fits a line perfectly, and its rate is the same."""
    times = stack_times(stack)
    left = detrended(
        series(straight(stack), "corrected_phase"), years_since(times, times[0])
    )
    assert np.abs(left).max() < 1e-6
    (raw,), (smooth,) = (
        list(recover(stack, method, [CASE], **OPTIONS))
        for method in (uncorrected, straight)
    )
    assert smooth.slope[0] == pytest.approx(1, abs=1e-3)
    assert smooth.noise[0] == pytest.approx(raw.noise[0], rel=1e-3)


def test_many_dates_are_drawn_a_few_times_and_seeds_count(stack):
    scene = simulate_scene(size=16, dates=40, max_temporal_baseline=12, seed=1)
    cube = scene.cube.load()
    one, again, other = (
        list(redrawn_stacks(cube, seed=seed, **OPTIONS)) for seed in (1, 1, 2)
    )
    assert len(one) == DRAWS
    xr.testing.assert_identical(one[3], again[3])
    assert not one[3]["unwrapped_phase"].equals(other[3]["unwrapped_phase"])
