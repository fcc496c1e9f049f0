"""Delays of weather, ramps and terrain: published columns, and statistics of draws."""

import numpy as np
import pytest

from cube_denoise.simulate.atmosphere import (
    Climate,
    bilinear_ramp,
    seasonal_stratified_delay,
    self_affine_terrain,
    stratified_delay,
    weather_states,
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


def wexler(temperature):
    """Saturation vapour pressure over water, hPa (Wexler, 1976, as refitted 1990)."""
    powers = temperature ** np.arange(-1.0, 4.0)
    terms = powers @ [
        -5.8002206e3,
        1.3914993,
        -4.8640239e-2,
        4.1764768e-5,
        -1.4452093e-8,
    ]
    return np.exp(terms + 6.5459673 * np.log(temperature)) / 100


@pytest.mark.parametrize("temperature", [273.2, 283.0, 303.0])
def test_vapour_pressure_is_close_to_wexler(temperature):
    """Magnus over Wexler is 0.9996 at 283 K and within 0.1 % from 0 to 30 C."""
    dry, wet = (
        zenith_delay(
            np.zeros(1), pressure=1000.0, temperature=temperature, relative_humidity=rh
        )[0]
        for rh in (0.0, 100.0)
    )
    magnus = (wet - dry) / (0.002277 * (1255 / temperature + 0.05))
    ratio = magnus / wexler(temperature)
    assert ratio == pytest.approx(0.9996 if temperature == 283.0 else 1, abs=1e-3)
    if temperature == 283.0:
        assert ratio == pytest.approx(0.9996, abs=1e-4)


def days(count, step=1.0, start="2018-01-01"):
    return np.datetime64(start, "s") + (np.arange(count) * step * 86400).astype("m8[s]")


def seasonal(times, *, elevation=None, seed=0, climate=None):
    elevation = np.arange(5)[None] * 1000.0 if elevation is None else elevation
    return seasonal_stratified_delay(
        elevation,
        times,
        incidence=39.0,
        climate=climate,
        generator=np.random.default_rng(seed),
    )


def test_seasonal_delay_of_far_dates_has_the_spread_of_the_seasons():
    """Differences of dates of any season: 4.1, 7.1, 9.2, 10.7 cm at 1 to 4 km."""
    delays = seasonal(days(8000, 100.3))
    pairs = delays - delays[np.random.default_rng(1).permutation(8000)]
    np.testing.assert_allclose(
        100 * pairs.std(0)[0, 1:], [4.1, 7.1, 9.2, 10.7], rtol=0.1
    )


def test_stratification_follows_the_year():
    """Warm air holds more vapour below: the delay above the valley is least in July."""
    times = days(4000, 12.0)
    delay = seasonal(times)[:, 0, 2]
    phase = 2 * np.pi * (times - np.datetime64("2018-01-01")).astype(float)
    phase /= 365.25 * 86400
    design = np.stack([np.ones(len(phase)), np.cos(phase), np.sin(phase)], 1)
    found = np.linalg.lstsq(design, delay, rcond=None)[0]
    amplitude = np.hypot(*found[1:])
    assert 0.03 < amplitude < 0.07
    peak = np.arctan2(-found[2], -found[1]) * 365.25 / (2 * np.pi) % 365.25
    assert peak == pytest.approx(200, abs=5)


def test_short_pairs_see_less_than_pairs_across_seasons():
    delay = seasonal(days(6000, 6.0))[:, 0, 2]
    short, long = (np.std(delay[n:] - delay[:-n]) for n in (2, 30))
    assert short < 0.75 * long


@pytest.mark.parametrize("persistence", [0.0, 4.0, 20.0])
def test_anomalies_lose_their_memory(persistence):
    climate = Climate(
        pressure=(1000.0, 0.0, 5.0),
        temperature=(290.0, 0.0, 4.0),
        relative_humidity=(60.0, 0.0, 10.0),
        persistence=persistence,
    )
    states = weather_states(
        days(20_000), climate=climate, generator=np.random.default_rng(1)
    )
    np.testing.assert_allclose(states.mean(0), [1000, 290, 60], rtol=0.02)
    np.testing.assert_allclose(states.std(0), [5, 4, 10], rtol=0.08)
    for lag in (1, 5):
        expected = np.exp(-lag / persistence) if persistence else 0
        for one in states.T:
            found = np.corrcoef(one[lag:], one[:-lag])[0, 1]
            assert found == pytest.approx(expected, abs=0.06)
    assert abs(np.corrcoef(states[:, 0], states[:, 1])[0, 1]) < 0.12


def test_dates_in_any_order_keep_their_neighbours():
    times = days(3000)[np.random.default_rng(0).permutation(3000)]
    states = weather_states(
        times,
        climate=Climate(temperature=(290.0, 0.0, 4.0), persistence=10.0),
        generator=np.random.default_rng(1),
    )
    in_order = states[np.argsort(times), 1]
    found = np.corrcoef(in_order[1:], in_order[:-1])[0, 1]
    assert found == pytest.approx(np.exp(-0.1), abs=0.03)


def test_seasonal_delay_without_elevation_is_no_data_there():
    elevation = np.array([[100.0, np.nan, 900.0]])
    found = seasonal(days(3, 12.0), elevation=elevation)
    assert found.dtype == "float32" and found.shape == (3, 1, 3)
    assert np.isnan(found[:, 0, 1]).all() and (found[:, 0, 0] == 0).all()
    assert (found[:, 0, 2] < 0).all()
    np.testing.assert_array_equal(found, seasonal(days(3, 12.0), elevation=elevation))


def test_climate_refuses_negative_spread():
    with pytest.raises(ValueError, match="temperature="):
        Climate(temperature=(290.0, 5.0, -1.0))
    with pytest.raises(ValueError, match="persistence="):
        Climate(persistence=-1.0)


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
