"""Delays of weather, ramps and terrain: published columns, and statistics of draws."""

import numpy as np
import pytest

from cube_denoise.simulate.atmosphere import (
    bilinear_ramp,
    self_affine_terrain,
    stratified_delay,
    zenith_delay,
)


def test_zenith_delays_of_standard_columns():
    """Numbers of the project's science reference, section 12."""
    height = np.array([0.0, 1000.0])
    state = {"pressure": 1013.25, "temperature": 288.15, "latitude": 37.0}
    dry = zenith_delay(height, relative_humidity=0.0, **state)
    wet = zenith_delay(height, relative_humidity=60.0, **state) - dry
    np.testing.assert_allclose(dry, [2.3086, 2.0380], atol=6e-5)
    np.testing.assert_allclose(wet, [0.1026, 0.0689], atol=6e-5)


def test_zenith_delay_of_the_hgpt2_example():
    """Mateus et al. (2021): ZHD 2.324 m, ZWD 0.117 m at the height of the values."""
    delay = zenith_delay(
        np.zeros(1),
        pressure=1020.262,
        temperature=286.589,
        relative_humidity=74.908,
        latitude=38.5519,
    )
    assert delay[0] == pytest.approx(2.324 + 0.117, abs=1e-3)


def test_stratified_delay_has_the_spread_of_the_seasons():
    elevation = np.arange(5)[None] * 1000.0
    delays = stratified_delay(
        elevation,
        incidence=39.0,
        variability=1.0,
        generator=np.random.default_rng(0),
        count=4000,
    )
    pairs = delays[1::2] - delays[::2]
    spread = 100 * pairs.std(0)[0]
    assert spread[0] == 0
    np.testing.assert_allclose(spread[1:], [4.1, 7.1, 9.2, 10.7], rtol=0.2)


def test_stratified_delay_depends_on_elevation_alone():
    rng = np.random.default_rng(3)
    elevation = rng.uniform(200, 2200, (20, 20))
    elevation[0, :2] = elevation[5, 5]
    (delay,) = stratified_delay(
        elevation, incidence=30.0, variability=0.5, generator=rng
    )
    assert delay[elevation == elevation.min()] == 0
    assert delay[0, 0] == delay[0, 1] == delay[5, 5]
    order = np.argsort(elevation, axis=None)
    # Less air above higher ground: the delay falls all the way up.
    assert (np.diff(delay.ravel()[order]) <= 0).all() and delay.min() < -0.1


def test_slant_delay_grows_with_incidence():
    elevation = np.array([[0.0, 1500.0]])
    at_nadir, slanted = (
        stratified_delay(
            elevation,
            incidence=incidence,
            variability=0.5,
            generator=np.random.default_rng(0),
        )
        for incidence in (0.0, 60.0)
    )
    np.testing.assert_allclose(slanted, 2 * at_nadir, rtol=1e-6)


def test_ramp_is_bilinear_and_bounded():
    ramps = [
        bilinear_ramp((31, 41), amplitude=0.02, generator=np.random.default_rng(seed))
        for seed in range(300)
    ]
    for ramp in ramps[:5]:
        np.testing.assert_allclose(np.diff(ramp, 2, axis=0), 0, atol=1e-8)
        np.testing.assert_allclose(np.diff(ramp, 2, axis=1), 0, atol=1e-8)
        assert abs(ramp[15, 20]) < 1e-9
        # c1 and c2 at the edge centres, c3 in the corners.
        c1, c2 = ramp[15, -1], ramp[-1, 20]
        assert max(abs(c1), abs(c2)) <= 0.02
        assert abs(ramp[-1, -1] - c1 - c2) <= 0.01 + 1e-8
    slopes = np.array([r[15, -1] for r in ramps])
    assert slopes.std() == pytest.approx(0.02 / np.sqrt(3), rel=0.1)


def test_terrain_has_the_relief_asked_for():
    options = {"spacing": 90.0, "relief": 1400.0}
    one, same, other = (
        self_affine_terrain((64, 80), generator=np.random.default_rng(seed), **options)
        for seed in (0, 0, 1)
    )
    assert one.shape == (64, 80)
    assert one.min() == 0 and one.max() == pytest.approx(1400, rel=1e-6)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
