"""Ionospheric delay: published numbers, sign, spread and direction."""

import numpy as np
import pytest

from cube_denoise.conventions import SPEED_OF_LIGHT, phase_to_displacement
from cube_denoise.simulate.ionosphere import ionospheric_delays, tec_to_delay

L_BAND = 1.257e9


def draw(count, shape=(64, 64), *, seed=0, **options):
    return ionospheric_delays(
        count,
        shape,
        **{"spacing": 500.0, "frequency": L_BAND, "tec_std": 0.5} | options,
        generator=np.random.default_rng(seed),
    )


@pytest.mark.parametrize(
    ("frequency", "expected"), [(5.405e9, 0.0138), (1.257e9, 0.255)]
)
def test_one_tecu(frequency, expected):
    """Numbers of the project's science reference, section 7.5."""
    found = tec_to_delay(1.0, frequency=frequency)
    assert -found == pytest.approx(expected, rel=3e-3)


def test_more_electrons_look_like_motion_toward_the_satellite():
    """Later minus earlier delay, as phase (positive = away), then as displacement."""
    wavelength = SPEED_OF_LIGHT / L_BAND
    earlier, later = tec_to_delay(np.array([5.0, 9.0]), frequency=L_BAND)
    phase = 4 * np.pi / wavelength * (later - earlier)
    displacement = phase_to_displacement(phase, wavelength)
    assert phase < 0
    assert displacement == pytest.approx(4 * 0.255, rel=3e-3)


def test_delays_of_two_bands_are_as_the_squares_of_wavelength():
    low, high = (draw(3, frequency=f) for f in (1.2e9, 5.4e9))
    np.testing.assert_allclose(low, high * 4.5**2, rtol=1e-5)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(64, 64), (32, 96)])
def test_spread_is_the_one_asked_for(fraction, shape):
    """Root mean square over 1,500 dates, within 5 %; streaks short against the area."""
    delays = draw(
        1500, shape, spacing=2000.0, streak_fraction=fraction, streak_length=10_000.0
    )
    tec = delays / tec_to_delay(1.0, frequency=L_BAND)
    assert np.sqrt(np.mean(tec**2)) == pytest.approx(0.5, rel=0.05)


def test_trend_is_quadratic_and_mostly_a_ramp():
    delays = draw(400, streak_fraction=0.0).astype(float)
    scale = np.abs(delays).max()
    np.testing.assert_allclose(np.diff(delays, 3, axis=1) / scale, 0, atol=1e-6)
    np.testing.assert_allclose(np.diff(delays, 3, axis=2) / scale, 0, atol=1e-6)
    y, x = np.meshgrid(*[np.linspace(-1, 1, 64)] * 2, indexing="ij")
    design = np.stack([np.ones_like(x), x, y], -1).reshape(-1, 3)
    flat = delays.reshape(400, -1).T
    residual = flat - design @ np.linalg.lstsq(design, flat, rcond=None)[0]
    # Variances on [-1, 1]: x 1/3, x^2 4/45, x y 1/9; the last two are halved.
    curved = (2 * 4 / 45 + 1 / 9) / 4
    expected = curved / (2 / 3 + curved)
    assert residual.var() / flat.var() == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize(
    ("azimuth", "step"),
    [(0.0, (6, 0)), (45.0, (-6, 6)), (90.0, (0, 6)), (135.0, (6, 6))],
)
def test_streaks_lie_along_their_azimuth(azimuth, step):
    """Degrees clockwise from north; rows go south, columns east."""
    delays = draw(200, streak_fraction=1.0, streak_length=10_000.0, azimuth=azimuth)
    down, right = step

    def difference(down, right):
        moved = np.roll(delays, (-down, -right), (1, 2))[:, 8:-8, 8:-8]
        return np.mean((moved - delays[:, 8:-8, 8:-8]) ** 2)

    assert difference(down, right) < 0.25 * difference(-right, down)


def test_dates_are_independent_and_repeat_with_the_seed():
    delays = draw(1000, (16, 16))
    at_corner = delays[:, 0, 0]
    assert abs(np.corrcoef(at_corner[1:], at_corner[:-1])[0, 1]) < 0.12
    np.testing.assert_array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(3, seed=1))
    assert delays.dtype == "float32" and delays.shape == (1000, 16, 16)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"frequency": 1.257}, "frequency=1.257"),
        ({"tec_std": -1.0}, "tec_std=-1.0"),
        ({"streak_fraction": 1.5}, "streak_fraction=1.5"),
    ],
)
def test_bad_parameters_are_named(options, name):
    with pytest.raises(ValueError, match=name):
        draw(1, **options)
