"""Straight lines through displacement series."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cube_denoise.velocity import fit_velocity, velocity

TIMES = np.datetime64("2020-01-01", "s") + 12 * 86400 * np.arange(30)
YEARS = 12 / 365.25 * np.arange(30)


def closed_form(d, t):
    """Rate and formal standard deviation of one pixel by the textbook."""
    there = np.isfinite(d)
    d, t = d[there], t[there]
    if d.size < 2:
        return np.nan, np.nan
    G = np.stack([np.ones_like(t), t], 1)
    m = np.linalg.lstsq(G, d, rcond=None)[0]
    if d.size < 3:
        return m[1], np.nan
    e = d - G @ m
    covariance = e @ e / (d.size - 2) * np.linalg.inv(G.T @ G)
    return m[1], np.sqrt(covariance[1, 1])


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_equals_closed_form_over_finite_dates(count, gaps, seed):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.choice(200, count, replace=False)) / 100 + 2020.0
    d = rng.normal(size=(count, 3, 5))
    d[rng.random(d.shape) < gaps] = np.nan
    rate, std = fit_velocity(d, t)
    for y, x in np.ndindex(3, 5):
        v, s = closed_form(d[:, y, x], t)
        np.testing.assert_allclose(rate[y, x], v, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(std[y, x], s, rtol=1e-6, atol=1e-5)


def test_line_is_recovered_with_its_sign():
    d = 0.3 - 0.025 * YEARS[:, None] * np.ones(4)
    rate, std = fit_velocity(d, YEARS)
    np.testing.assert_allclose(rate, -0.025, atol=1e-14)
    np.testing.assert_allclose(std, 0, atol=1e-14)


def test_standard_deviation_covers_independent_noise():
    rng = np.random.default_rng(0)
    rate, std = fit_velocity(rng.normal(scale=0.01, size=(30, 20_000)), YEARS)
    truth = 0.01 / np.sqrt(((YEARS - YEARS.mean()) ** 2).sum())
    assert rate.std() == pytest.approx(truth, rel=0.02)
    assert np.sqrt((std**2).mean()) == pytest.approx(truth, rel=0.02)


def test_few_dates_are_nan():
    d = np.full((5, 3), np.nan)
    d[0] = 0
    d[3, 1:] = 1
    d[4, 2] = 2
    rate, std = fit_velocity(d, np.arange(5.0))
    np.testing.assert_array_equal(np.isfinite(rate), [False, True, True])
    np.testing.assert_array_equal(np.isfinite(std), [False, False, True])


def test_pixels_do_not_depend_on_their_neighbours():
    d = np.random.default_rng(0).normal(size=(30, 7, 11)).astype("float32")
    whole = np.stack(fit_velocity(d, YEARS))
    for part in (np.s_[:, 3:4, 5:6], np.s_[:, :, :3], np.s_[:, 2:, 4]):
        np.testing.assert_array_equal(fit_velocity(d[part], YEARS), whole[part])


def series(values, **chunks):
    array = xr.DataArray(
        values,
        dims=("time", "y", "x"),
        coords={"time": TIMES},
        attrs={"units": "m", "weights": "none"},
        name="displacement",
    )
    return array.chunk(chunks) if chunks else array


def test_dataset_lazy_or_not():
    d = np.random.default_rng(0).normal(size=(30, 6, 8)).astype("float32")
    d[3, 2] = np.nan
    eager, lazy = velocity(series(d)), velocity(series(d, y=4, x=3))
    assert lazy.velocity.chunks is not None
    xr.testing.assert_identical(lazy.compute(), eager)
    assert eager.velocity.dims == ("y", "x") and eager.velocity.dtype == "float32"
    assert eager.velocity.attrs["units"] == "m year-1"
    assert eager.velocity.attrs["weights"] == "none"
    np.testing.assert_allclose(eager.velocity, fit_velocity(d, YEARS)[0], rtol=1e-5)


def test_bad_input_raises():
    d = series(np.zeros((30, 2, 2)))
    with pytest.raises(ValueError, match="needs both of 'time'"):
        velocity(d.isel(time=0))
    with pytest.raises(ValueError, match="needs both of 'time'"):
        velocity(d.drop_vars("time"))
    with pytest.raises(ValueError, match="needs two"):
        velocity(d.isel(time=[0]))
    with pytest.raises(ValueError, match="length of the first axis"):
        fit_velocity(np.zeros((3, 2)), np.zeros(4))
