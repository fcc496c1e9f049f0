"""Closed forms, values at the onset, monotony, means over whole years."""

import numpy as np
import pytest

from cube_denoise.simulate.time_functions import (
    exponential,
    linear,
    logarithmic,
    piecewise_linear,
    seasonal,
    sigmoid,
    step,
)

YEARS = np.linspace(-2, 6, 801)


def test_linear_is_time_since_the_origin():
    np.testing.assert_array_equal(linear([1, 2, 4], origin=1.5), [-0.5, 0.5, 2.5])


def test_step_has_happened_at_its_onset():
    just_before = np.nextafter(1.25, 0)
    found = step([-1, just_before, 1.25, 9], onset=1.25)
    np.testing.assert_array_equal(found, [0, 0, 1, 1])


def test_exponential_relaxes():
    found = exponential([0.9, 1.0, 1.5, 2.0, 60.0], onset=1.0, tau=0.5)
    expected = [0, 0, 1 - 1 / np.e, 1 - 1 / np.e**2, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_logarithmic_slows_down():
    e = np.e
    times = [0.0, 1.0, 1 + 0.1 * (e - 1), 1 + 0.1 * (e**3 - 1)]
    found = logarithmic(times, onset=1.0, tau=0.1)
    np.testing.assert_allclose(found, [0, 0, 1, 3], atol=1e-14)


@pytest.mark.parametrize("function", [exponential, logarithmic])
def test_relaxations_start_with_the_slope_one_over_tau(function):
    """Also where 1 - exp or log(1 + x) would lose all digits."""
    for short in (1e-3, 1e-12):
        found = function([short], onset=0.0, tau=0.25)
        np.testing.assert_allclose(found, short / 0.25, rtol=3e-3)


def test_sigmoid_is_odd_about_its_centre():
    away = np.array([0.0, 0.1, 0.4, 2.0])
    late = sigmoid(1 + away, centre=1.0, tau=0.2)
    early = sigmoid(1 - away, centre=1.0, tau=0.2)
    np.testing.assert_allclose(late + early, 1.0, rtol=1e-14)
    np.testing.assert_allclose(late[:3], [0.5, 1 / (1 + np.exp(-0.5)), 0.880797078])
    # As the docstring says: 76 % within 2 tau to either side.
    assert late[2] - early[2] == pytest.approx(0.76, abs=0.005)


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        found = sigmoid([-1e6, 1e6], centre=0.0, tau=1e-3)
    np.testing.assert_array_equal(found, [0, 1])


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (exponential, {"onset": 1.003, "tau": 0.3}),
        (logarithmic, {"onset": 1.003, "tau": 0.3}),
        (sigmoid, {"centre": 1.003, "tau": 0.3}),
    ],
)
def test_transients_rise_without_a_jump(function, options):
    found = function(YEARS, **options)
    steps = np.diff(found)
    assert (steps >= 0).all() and (found >= 0).all()
    assert (steps[YEARS[1:] > 1.1] > 0).all()
    # The largest slope of all three is at most 1 / tau.
    assert steps.max() <= (YEARS[1] - YEARS[0]) / 0.3


def test_seasonal_peaks_when_asked_with_amplitude_one():
    found = seasonal([0.2, 0.45, 0.7, 3.2], peak=0.2)
    np.testing.assert_allclose(found, [1, 0, -1, 1], atol=1e-14)


def test_semiannual_cycle_adds_two_peaks_a_year():
    extra = seasonal(YEARS, peak=0.2, semiannual=0.3, semiannual_peak=0.1)
    extra = extra - seasonal(YEARS, peak=0.2)
    np.testing.assert_allclose(extra[::50], extra[0], atol=1e-13)  # every half year
    assert YEARS[260] == pytest.approx(0.6)
    assert extra.argmax() % 50 == 260 % 50
    assert extra.max() == pytest.approx(0.3) and extra.min() == pytest.approx(-0.3)


@pytest.mark.parametrize("start", [0.0, 0.37])
def test_seasonal_has_no_mean_over_a_year(start):
    days = start + np.arange(360) / 360
    found = seasonal(days, peak=0.13, semiannual=0.5, semiannual_peak=0.4)
    assert abs(found.mean()) < 1e-14


def test_piecewise_linear_goes_through_its_knots_and_holds_outside():
    knots, values = [0.0, 1.0, 3.0], [0.0, 2.0, -2.0]
    found = piecewise_linear([-5, 0, 0.5, 1, 2, 3, 8], knots=knots, values=values)
    np.testing.assert_allclose(found, [0, 0, 1, 2, 0, -2, -2])


@pytest.mark.parametrize(
    "function",
    [
        linear,
        lambda t: step(t, onset=0.0),
        lambda t: exponential(t, onset=0.0, tau=1.0),
        lambda t: logarithmic(t, onset=0.0, tau=1.0),
        lambda t: sigmoid(t, centre=0.0, tau=1.0),
        seasonal,
        lambda t: piecewise_linear(t, knots=[0, 1], values=[0, 1]),
    ],
)
def test_any_shape_and_type_gives_float64(function):
    times = np.array([[0, 1, 2], [3, 4, 5]], "float32")
    before = times.copy()
    found = function(times)
    assert found.dtype == np.float64 and found.shape == times.shape
    np.testing.assert_array_equal(times, before)
    np.testing.assert_array_equal(function(times.astype(int)), found)
    assert function(2.0).shape == ()
    with pytest.raises(ValueError, match="finite"):
        function([0.0, np.nan])
    with pytest.raises(ValueError, match=r"datetime64.*years_since"):
        function(np.array(["2020-01-01"], "datetime64[D]"))


@pytest.mark.parametrize("tau", [0.0, -1.0, np.nan])
def test_time_scales_must_be_positive(tau):
    for function in (exponential, logarithmic):
        with pytest.raises(ValueError, match=r"tau=.* must be positive"):
            function([0.0], onset=0.0, tau=tau)
    with pytest.raises(ValueError, match=r"tau=.* must be positive"):
        sigmoid([0.0], centre=0.0, tau=tau)


@pytest.mark.parametrize("knots", [[0.0], [0.0, 2.0, 1.0], [0.0, 0.0], [0.0, np.nan]])
def test_knots_must_increase(knots):
    with pytest.raises(ValueError, match=r"knots=.*increasing"):
        piecewise_linear([0.0], knots=knots, values=[0.0] * len(knots))


@pytest.mark.parametrize("values", [[0.0], [0.0, np.nan], [[0.0, 1.0]]])
def test_every_knot_has_a_value(values):
    with pytest.raises(ValueError, match="2 finite numbers"):
        piecewise_linear([0.0], knots=[0.0, 1.0], values=values)
