"""Single simulated pairs: the ratio asked for, pure noise, repeatability."""

import numpy as np
import pytest

from cube_denoise.simulate.pair import simulate_pair

SHAPE = (64, 80)
PEAK = 0.3
"""Largest deformation that the simulator draws, m."""


def measured_snr(pair):
    """From the maps alone, where there are data."""
    valid = np.isfinite(pair.noisy)
    noise = (pair.noisy - pair.truth)[valid]
    return pair.truth[valid].var() / noise.var()


def full_pairs(snr, count):
    """Pairs without gaps and not held back by the largest deformation."""
    found, seed = [], 0
    while len(found) < count and seed < 400:
        pair = simulate_pair(SHAPE, seed=seed, snr=snr, deforming=True)
        seed += 1
        if np.isfinite(pair.noisy).all() and np.abs(pair.truth).max() < 0.999 * PEAK:
            found.append(pair)
    assert len(found) == count
    return found


@pytest.mark.parametrize("snr", [0.02, 1.0, 20.0])
def test_snr_got_is_the_snr_asked_for(snr):
    for pair in full_pairs(snr, 4):
        assert pair.snr == pytest.approx(snr, rel=1e-5)
        assert measured_snr(pair) == pytest.approx(snr, rel=1e-3)


def test_deformation_stays_below_its_limit_and_snr_says_so():
    limited = 0
    for seed in range(30):
        pair = simulate_pair(SHAPE, seed=seed, snr=1000.0, deforming=True)
        assert np.abs(pair.truth).max() <= PEAK * (1 + 1e-6)
        assert pair.snr <= 1000.0 * (1 + 1e-5)
        limited += pair.snr < 999
    assert limited > 15


def test_snr_scales_the_deformation_alone():
    one, four = (
        simulate_pair(SHAPE, seed=7, snr=snr, deforming=True) for snr in (0.01, 0.04)
    )
    np.testing.assert_allclose(four.truth, 2 * one.truth, rtol=1e-5)
    np.testing.assert_allclose(
        four.noisy - four.truth, one.noisy - one.truth, atol=1e-7
    )


def test_without_deformation_all_is_noise():
    pair = simulate_pair(SHAPE, seed=7, deforming=False)
    assert not pair.truth.any() and pair.snr == 0
    valid = np.isfinite(pair.noisy)
    deforming = simulate_pair(SHAPE, seed=7, deforming=True)
    np.testing.assert_allclose(
        pair.noisy[valid], (deforming.noisy - deforming.truth)[valid], atol=1e-6
    )
    assert pair.noisy[valid].std() > 1e-3


def test_noise_has_zero_mean():
    for pair in full_pairs(1.0, 3):
        assert abs(float(np.mean(pair.noisy - pair.truth))) < 1e-6


def test_drawn_pairs_span_their_ranges():
    pairs = [simulate_pair((32, 32), seed=k) for k in range(200)]
    quiet = np.mean([p.snr == 0 for p in pairs])
    assert 0.04 < quiet < 0.18  # one in ten
    ratios = np.log10([p.snr for p in pairs if p.snr > 0])
    assert ratios.min() < -1.5 and ratios.max() > 1.0 and ratios.max() <= 1.5
    missing = np.array([np.isnan(p.noisy).mean() for p in pairs])
    assert 0.35 < np.mean(missing > 0) < 0.6 and missing.max() < 0.36
    for pair in pairs[:20]:
        assert np.isfinite(pair.truth).all() and np.isfinite(pair.elevation).all()
        assert np.median(pair.elevation) == pytest.approx(0, abs=1e-3)
        assert pair.coherence.min() >= 0 and pair.coherence.max() <= 1


def test_same_seed_same_pair():
    one, same, other = (simulate_pair(SHAPE, seed=s) for s in (5, 5, 6))
    for name in ("noisy", "truth", "elevation", "coherence"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert one.snr == same.snr
    assert not np.array_equal(one.elevation, other.elevation)
