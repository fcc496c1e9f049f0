"""Delays: statistics against theory over many draws, and published columns."""

from itertools import pairwise

import numpy as np
import pytest

from cube_denoise.simulate.atmosphere import (
    bilinear_ramp,
    gaussian_fields,
    matern_spectrum,
    self_affine_terrain,
    stratified_delay,
    zenith_delay,
)

SPACING, SIZE = 100.0, 96


def draw(count, *scales, seed=0, shape=(SIZE, SIZE), **options):
    return gaussian_fields(
        count,
        shape,
        spacing=SPACING,
        scales=list(scales),
        generator=np.random.default_rng(seed),
        **options,
    )


def lagged(fields, lag, axis):
    """Covariance at a lag of so many pixels; the mean is known to be zero."""
    n = fields.shape[axis]
    early = np.take(fields, range(n - lag), axis)
    late = np.take(fields, range(lag, n), axis)
    return float(np.mean(early * late, dtype="float64"))


@pytest.mark.parametrize("std", [1.0, 0.01])
def test_covariance_is_exponential(std):
    """nu = 1/2: s^2 exp(-r/l), within 0.03 s^2 over 300 draws.

    Of the bound 0.02 is the variance of wavelengths below two pixels (l = 15 pixels).
    """
    length = 1500.0
    fields = draw(300, (std, length, 0.5))
    for lag in (0, 7, 15, 30):
        expected = np.exp(-lag * SPACING / length)
        for axis in (1, 2):
            assert lagged(fields, lag, axis) / std**2 == pytest.approx(
                expected, abs=0.03
            )


@pytest.mark.parametrize("nu", [1 / 3, 1 / 2, 5 / 6])
def test_spectrum_is_the_one_asked_for(nu):
    """Windowed periodograms of 100 draws, within 12 % in rings of frequency."""
    length = 800.0
    fields = draw(100, (1.0, length, nu))
    window = np.outer(*[np.hanning(SIZE)] * 2)
    power = np.mean(np.abs(np.fft.fft2(fields * window)) ** 2, 0)
    power *= SPACING**2 / np.sum(window**2)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIZE, SPACING)] * 2))
    theory = matern_spectrum(frequency, std=1.0, length=length, smoothness=nu)
    edges = np.geomspace(5 / (SIZE * SPACING), 0.4 / SPACING, 6)
    for low, high in pairwise(edges):
        ring = (frequency >= low) & (frequency < high)
        assert power[ring].mean() == pytest.approx(theory[ring].mean(), rel=0.12)


@pytest.mark.parametrize("nu", [1 / 3, 1 / 2, 5 / 6])
def test_spectrum_integrates_to_the_variance(nu):
    frequency = np.geomspace(1e-9, 1e3, 200_000)
    density = matern_spectrum(frequency, std=0.3, length=2e3, smoothness=nu)
    total = np.trapezoid(2 * np.pi * frequency * density, frequency)
    assert total == pytest.approx(0.09, rel=2e-3)


def test_opposite_edges_do_not_meet():
    """A field made on a grid as large as the scene would join across its edges."""
    fields = draw(400, (1.0, 1500.0, 0.5))
    n = SIZE - 1
    assert abs(lagged(fields, n, 1)) < 0.05  # exp(-6.3) = 0.002
    assert abs(lagged(fields, n, 2)) < 0.05
    # Neighbours of the same scene do: the bound above can fail.
    assert lagged(fields, 1, 2) > 0.9


def test_variances_of_scales_add():
    fields = draw(200, (3.0, 600.0, 0.5), (4.0, 900.0, 0.5))
    assert fields.std() == pytest.approx(5.0, rel=0.03)


def test_two_fields_of_one_transform_are_independent():
    fields = draw(400, (1.0, 600.0, 0.5))
    assert abs(np.mean(fields[::2] * fields[1::2])) < 0.01


def test_anisotropy_stretches_along_its_azimuth():
    """Ratio 4: lengths are doubled along columns and halved across them."""
    options = {"anisotropy": 4.0, "azimuth": 0.0}
    fields = draw(300, (1.0, 800.0, 0.5), **options)
    assert lagged(fields, 16, 2) == pytest.approx(np.exp(-1), abs=0.05)
    assert lagged(fields, 4, 1) == pytest.approx(np.exp(-1), abs=0.05)
    turned = draw(300, (1.0, 800.0, 0.5), anisotropy=4.0, azimuth=90.0)
    assert lagged(turned, 16, 1) == pytest.approx(np.exp(-1), abs=0.05)


def test_fields_repeat_with_the_seed():
    one, same, other = (draw(3, (1.0, 900.0, 0.5), seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.dtype == "float32" and one.shape == (3, SIZE, SIZE)


def test_fields_of_odd_shape():
    assert draw(1, (1.0, 900.0, 0.5), shape=(37, 50)).shape == (1, 37, 50)


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
