"""Stated standard deviations: honest ones pass, overconfident ones are exposed."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from cube_denoise.evaluate import coverage, gaussian_crps, reliability_curve

SHAPE = (400, 500)


@pytest.fixture(scope="module")
def maps():
    """Truth, an estimate with errors that vary over the map, and their true size."""
    rng = np.random.default_rng(5)
    truth = rng.normal(0, 0.05, SHAPE)
    std = np.exp(rng.uniform(np.log(1e-3), np.log(2e-2), SHAPE))
    return truth, truth + std * rng.normal(size=SHAPE), std


@pytest.mark.parametrize("level", [0.5, 0.68, 0.95])
def test_honest_intervals_cover_what_they_say(maps, level):
    truth, estimate, std = maps
    # 200,000 independent pixels: 0.1 % is one standard deviation of the fraction.
    assert coverage(estimate, std, truth, level=level) == pytest.approx(level, abs=5e-3)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_wrong_standard_deviations_are_exposed(maps, factor):
    truth, estimate, std = maps
    found = coverage(estimate, factor * std, truth, level=0.68)
    expected = 2 * norm.cdf(factor * norm.ppf(0.84)) - 1
    assert found == pytest.approx(expected, abs=5e-3)
    assert (found < 0.63) == (factor < 1)
    assert gaussian_crps(estimate, factor * std, truth) > gaussian_crps(
        estimate, std, truth
    )


def test_bias_lowers_the_coverage(maps):
    truth, estimate, std = maps
    assert coverage(estimate + 2 * std, std, truth, level=0.95) < 0.55


def test_reliability_curve_is_the_diagonal_if_honest(maps):
    truth, estimate, std = maps
    curve = reliability_curve(estimate, std, truth)
    assert curve.dims == ("level",)
    assert curve.level.values[[0, 9, -1]].tolist() == [0.05, 0.5, 0.99]
    np.testing.assert_allclose(curve, curve.level, atol=5e-3)
    below = reliability_curve(estimate, 0.6 * std, truth)
    assert np.all(below.values < curve.level.values)
    assert reliability_curve(estimate, std, truth, levels=(0.68,)).item() == coverage(
        estimate, std, truth, level=0.68
    )


def test_levels_that_are_none():
    one = np.ones(3)
    for level in (0, 1, 68):
        with pytest.raises(ValueError, match="between 0 and 1"):
            coverage(one, one, one, level=level)


@pytest.mark.parametrize(("mean", "std", "truth"), [(0.0, 1.0, 0.3), (2.0, 0.4, -1.0)])
def test_crps_is_the_integral_that_defines_it(mean, std, truth):
    """Integral of the square of the predicted minus the true distribution function."""
    predicted = norm(mean, std).cdf
    expected = quad(lambda v: predicted(v) ** 2, -20, truth)[0]
    expected += quad(lambda v: (1 - predicted(v)) ** 2, truth, 20)[0]
    found = gaussian_crps(np.array([mean]), np.array([std]), np.array([truth]))
    assert found == pytest.approx(expected, rel=1e-6)


def test_crps_without_spread_is_the_absolute_error():
    estimate, truth = np.array([1.0, -2.0, 0.5]), np.zeros(3)
    assert gaussian_crps(estimate, np.zeros(3), truth) == pytest.approx(3.5 / 3)
    assert gaussian_crps(estimate, np.full(3, 1e-9), truth) == pytest.approx(3.5 / 3)


def test_crps_has_the_unit_of_the_maps(maps):
    truth, estimate, std = maps
    millimetres = gaussian_crps(1e3 * estimate, 1e3 * std, 1e3 * truth)
    assert millimetres == pytest.approx(1e3 * gaussian_crps(estimate, std, truth))


def test_missing_pixels_are_left_out(maps):
    truth, estimate, std = maps
    part = truth > 0
    lost = np.where(part, estimate, np.nan), std, truth
    unsure = estimate, np.where(part, std, np.nan), truth
    kept = estimate[part], std[part], truth[part]
    for score in (coverage, gaussian_crps):
        assert score(*lost) == score(*unsure) == score(*kept)
        assert np.isnan(score(truth * np.nan, std, truth))


def test_bad_maps_are_refused(maps):
    truth, estimate, std = maps
    for score in (coverage, gaussian_crps, reliability_curve):
        with pytest.raises(ValueError, match="must be the same"):
            score(estimate[1:], std, truth)
        with pytest.raises(ValueError, match="none may be negative"):
            score(estimate, -std, truth)
