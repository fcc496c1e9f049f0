"""Dates of a window against one least-squares solution a pixel."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.corrections import series
from cube_denoise.corrections.series import dates_of, pair_constants, stack_of
from cube_denoise.network import incidence_matrix

SHAPE = (20, 30)
WHOLE = {"y": slice(0, 20), "x": slice(0, 30)}


@pytest.fixture
def cube():
    """Noisy pairs of 7 dates with constants and many gaps."""
    rng = np.random.default_rng(0)
    times = np.datetime64("2020-01-01", "ns") + np.arange(7) * np.timedelta64(12, "D")
    first, second = np.triu_indices(7, 1)
    near = second - first <= 2
    first, second = first[near], second[near]
    dates = rng.normal(size=(7, *SHAPE))
    phase = dates[second] - dates[first] + rng.normal(0, 0.3, (len(first), *SHAPE))
    phase += rng.normal(0, 20, (len(first), 1, 1))
    phase[rng.random(phase.shape) < 0.4] = np.nan
    return xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), phase.astype("float32"))},
        coords={
            "reference_time": ("pair", times[first]),
            "secondary_time": ("pair", times[second]),
        },
    )


def test_equals_least_squares_of_linked_dates(cube):
    """Minimum norm per pixel: a date is linked if its row of the solution is fixed."""
    phase = cube["unwrapped_phase"].values.astype("float64")
    phase -= np.nanmedian(phase, (1, 2), keepdims=True)
    A = incidence_matrix(cube["reference_time"], cube["secondary_time"])[0][:, 1:]
    found = dates_of(cube, WHOLE, stack_of(cube))
    assert found.dtype == "float64"
    gaps = 0
    for y, x in np.ndindex(SHAPE):
        used = np.isfinite(phase[:, y, x])
        inverse = np.linalg.pinv(A[used])
        known = np.isclose(np.diag(inverse @ A[used]), 1)
        expected = np.where(known, inverse @ phase[used, y, x], np.nan)
        np.testing.assert_allclose(found[1:, y, x], expected, atol=1e-6)
        gaps += (~known).sum()
    assert gaps > 50
    np.testing.assert_array_equal(found[0][np.isfinite(found[1:]).any(0)], 0)


def test_window_does_not_matter(cube, monkeypatch):
    stack = stack_of(cube)
    whole = dates_of(cube, WHOLE, stack)
    monkeypatch.setattr(series, "MEMORY", 40_000)
    monkeypatch.setattr(series, "STRIP", 8)
    window = {"y": slice(3, 18), "x": slice(11, 30)}
    np.testing.assert_array_equal(dates_of(cube, window, stack), whole[:, 3:18, 11:])


def test_constants_are_the_medians_the_cube_keeps(cube):
    expected = np.nanmedian(cube["unwrapped_phase"].values, (1, 2))
    np.testing.assert_allclose(pair_constants(cube), expected, rtol=1e-6)
    known = np.arange(len(expected) * 5.0).reshape(-1, 5)
    stored = cube.assign(phase_quantiles=(("pair", "quantile"), known))
    np.testing.assert_array_equal(pair_constants(stored), known[:, 2])


def test_pairs_apart_and_empty_are_not_used(cube):
    """Dates 0 and 1 stand alone; the origin is the first of the others."""
    first = cube["reference_time"] < cube["reference_time"].values[4]
    apart = cube.isel(pair=np.r_[0, np.flatnonzero(~first)])
    apart["unwrapped_phase"][-1] = np.nan
    stack = stack_of(apart)
    assert stack.unused == {0, apart.sizes["pair"] - 1}
    assert stack.network.origin == 2
    found = dates_of(apart, WHOLE, stack)
    assert np.isnan(found[:2]).all() and np.isfinite(found[3]).any()
    with pytest.raises(ValueError, match="no pair of unwrapped_phase holds data"):
        stack_of(cube * np.nan)
