"""Similarity: closed cases, SSIM window by window, and what each score cannot see."""

import numpy as np
import pytest

from cube_denoise.evaluate import correlation, ssim, ssim_poster

RNG = np.random.default_rng(3)
Y, X = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 50), indexing="ij")
TRUTH = 0.05 * np.exp(-8 * (X**2 + Y**2)) + 0.01 * X
NOISY = TRUTH + RNG.normal(0, 0.01, TRUTH.shape)


def windowed_ssim(estimate, truth):
    """The same by the definition: one window after the other."""
    valid = np.isfinite(estimate) & np.isfinite(truth)
    low, span = truth[valid].min(), truth[valid].max() - truth[valid].min()
    e = estimate - estimate[valid].mean() + truth[valid].mean() - low
    t = truth - low
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    away = np.arange(-5, 6)
    bell = np.exp(-(away[:, None] ** 2 + away**2) / (2 * 1.5**2))
    values = []
    for y in range(5, truth.shape[0] - 5):
        for x in range(5, truth.shape[1] - 5):
            if not valid[y, x]:
                continue
            at = slice(y - 5, y + 6), slice(x - 5, x + 6)
            w = bell[valid[at]] / bell[valid[at]].sum()
            a, b = e[at][valid[at]], t[at][valid[at]]
            ma, mb = w @ a, w @ b
            va, vb = w @ (a - ma) ** 2, w @ (b - mb) ** 2
            cab = w @ ((a - ma) * (b - mb))
            values.append(
                (2 * ma * mb + c1)
                * (2 * cab + c2)
                / ((ma**2 + mb**2 + c1) * (va + vb + c2))
            )
    return np.mean(values)


def holed(values):
    values = values.copy()
    values[10:14, 20:29] = np.nan
    values[RNG.random(values.shape) < 0.1] = np.nan
    return values


def test_ssim_is_that_of_its_definition():
    assert ssim(NOISY, TRUTH) == pytest.approx(windowed_ssim(NOISY, TRUTH), abs=1e-12)
    assert 0.1 < ssim(NOISY, TRUTH) < 0.9


def test_ssim_with_missing_pixels_is_that_of_its_definition():
    a, b = holed(NOISY), holed(TRUTH)
    assert ssim(a, b) == pytest.approx(windowed_ssim(a, b), abs=1e-12)


def test_ssim_of_equal_maps_and_of_constants():
    assert ssim(TRUTH, TRUTH) == pytest.approx(1, abs=1e-12)
    assert ssim(holed(TRUTH) + 4, TRUTH) == pytest.approx(1, abs=1e-9)
    assert ssim(NOISY + 4, TRUTH - 3) == pytest.approx(ssim(NOISY, TRUTH), abs=1e-9)
    assert ssim(1e3 * NOISY, 1e3 * TRUTH) == pytest.approx(ssim(NOISY, TRUTH))


def test_ssim_of_a_flipped_texture_is_negative():
    texture = RNG.normal(size=(60, 60))
    assert ssim(-texture, texture) < -0.5
    assert abs(ssim(RNG.normal(size=(60, 60)), texture)) < 0.1


def test_ssim_falls_with_noise_and_with_blur():
    noise = RNG.normal(0, 0.01, TRUTH.shape)
    scores = [ssim(TRUTH + k * noise, TRUTH) for k in (0, 0.1, 0.3, 1, 3)]
    assert np.all(np.diff(scores) < -0.01)
    assert ssim(0.3 * TRUTH, TRUTH) < 0.9


def test_ssim_refuses_what_has_no_window():
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(TRUTH[:10], TRUTH[:10])
    with pytest.raises(ValueError, match=r"\(40, 50\)"):
        ssim(TRUTH[1:], TRUTH)
    assert np.isnan(ssim(NOISY, np.ones_like(TRUTH)))
    assert np.isnan(ssim(np.full_like(TRUTH, np.nan), TRUTH))


def test_poster_ssim_of_two_numbers_on_the_8_bit_scale():
    """Truth 0 and 1 becomes 0 and 255; estimate 0 and 0.5 becomes 0 and 127.5."""
    truth, estimate = np.array([[0.0, 1.0]]), np.array([[0.0, 0.5]])
    mean = 2 * 127.5 * 63.75 / (127.5**2 + 63.75**2)
    assert ssim_poster(estimate, truth) == pytest.approx(mean**2)  # spread likewise
    assert ssim_poster(estimate + 7, truth + 7) == pytest.approx(mean**2)
    assert ssim_poster(1e3 * estimate, 1e3 * truth) == pytest.approx(mean**2)


def test_poster_ssim_is_blind_to_the_pattern():
    """Why it is never shown alone: a shuffled and a mirrored truth are perfect."""
    shuffled = RNG.permutation(TRUTH.ravel()).reshape(TRUTH.shape)
    mirrored = 2 * TRUTH.mean() - TRUTH
    for wrong in (shuffled, mirrored):
        assert ssim_poster(wrong, TRUTH) == pytest.approx(1, abs=1e-12)
        assert ssim(wrong, TRUTH) < 0.5
        assert correlation(wrong, TRUTH) < 0.1


def test_poster_ssim_depends_on_the_constant():
    assert ssim_poster(TRUTH + 0.05, TRUTH) < 0.9


def test_poster_ssim_of_flat_and_missing_maps():
    assert ssim_poster(np.full_like(TRUTH, 0.02), TRUTH) == pytest.approx(0, abs=1e-12)
    assert np.isnan(ssim_poster(NOISY, np.ones_like(TRUTH)))
    assert np.isnan(ssim_poster(np.full_like(TRUTH, np.nan), TRUTH))
    part = X > 0
    assert ssim_poster(np.where(part, NOISY, np.nan), TRUTH) == pytest.approx(
        ssim_poster(NOISY[part], TRUTH[part])
    )


def test_correlation_of_known_maps():
    assert correlation(3 * TRUTH + 1, TRUTH) == pytest.approx(1)
    assert correlation(-TRUTH, TRUTH) == pytest.approx(-1)
    kept = np.isfinite(holed(TRUTH))
    assert correlation(NOISY[kept], TRUTH[kept]) == pytest.approx(
        np.corrcoef(NOISY[kept], TRUTH[kept])[0, 1]
    )
    lost = np.where(kept, NOISY, np.nan)
    assert correlation(lost, TRUTH) == pytest.approx(
        correlation(NOISY[kept], TRUTH[kept])
    )


def test_correlation_with_nothing_is_nan():
    assert np.isnan(correlation(np.zeros_like(TRUTH), TRUTH))
    assert np.isnan(correlation(TRUTH, np.full_like(TRUTH, 0.1)))
    assert np.isnan(correlation(TRUTH * np.nan, TRUTH))
