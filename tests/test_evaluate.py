"""Scores: what a do-nothing and an output-zero model get, and closed forms."""

import numpy as np
import pytest

from cube_denoise.dataset import split_seed
from cube_denoise.evaluate import (
    amplitude_slope,
    false_alarm,
    rms_error,
    seam_energy,
)
from cube_denoise.simulate.pair import simulate_pair

RNG = np.random.default_rng(0)
Y, X = np.meshgrid(np.linspace(-1, 1, 80), np.linspace(-1, 1, 90), indexing="ij")
TRUTH = 0.05 * np.exp(-8 * (X**2 + Y**2))


@pytest.fixture(scope="module")
def pair():
    return simulate_pair(
        (96, 96), seed=split_seed("test", 9, 1), snr=5.0, deforming=True
    )


def test_do_nothing_reduces_nothing_and_keeps_the_amplitude(pair):
    raw = rms_error(pair.noisy, pair.truth)
    assert 1 - rms_error(pair.noisy.copy(), pair.truth) / raw == 0
    # Slope 1 but for noise that happens to correlate with the source.
    quiet = pair.truth + 1e-3 * (pair.noisy - pair.truth)
    assert amplitude_slope(quiet, pair.truth) == pytest.approx(1, abs=2e-3)
    assert amplitude_slope(TRUTH, TRUTH) == pytest.approx(1, abs=1e-12)


def test_output_zero_is_exposed_by_its_slope(pair):
    nothing = np.zeros_like(pair.truth)
    assert amplitude_slope(nothing, pair.truth) == 0
    assert false_alarm(nothing) == 0
    # Where noise dominates it wins by rms error, which is why that is not enough.
    noisy = 0.1 * pair.truth + (pair.noisy - pair.truth)
    assert rms_error(nothing, 0.1 * pair.truth) < rms_error(noisy, 0.1 * pair.truth)


@pytest.mark.parametrize("gain", [0.3, 1.0, 1.7])
def test_slope_is_the_gain_whatever_the_constant(gain):
    assert amplitude_slope(gain * TRUTH + 4, TRUTH) == pytest.approx(gain)
    assert amplitude_slope(gain * TRUTH, TRUTH - 2) == pytest.approx(gain)


def test_slope_looks_at_the_source_only():
    """A trend far from the source does not count."""
    far = np.abs(TRUTH - np.median(TRUTH)) < 0.05 * TRUTH.max()
    assert far.sum() > 1000
    assert amplitude_slope(TRUTH + 5 * far, TRUTH) == pytest.approx(1)


def test_slope_of_flat_truth_is_nan():
    assert np.isnan(amplitude_slope(TRUTH, np.full_like(TRUTH, 3.0)))
    assert np.isnan(amplitude_slope(np.full_like(TRUTH, np.nan), TRUTH))


def test_rms_error_of_known_error():
    error = RNG.normal(0, 0.01, TRUTH.shape)
    expected = (error - error.mean()).std()
    assert rms_error(TRUTH + error, TRUTH) == pytest.approx(expected)
    assert rms_error(TRUTH + error + 7, TRUTH - 3) == pytest.approx(expected)


def test_rms_error_leaves_missing_pixels_out():
    estimate = TRUTH + RNG.normal(0, 0.01, TRUTH.shape)
    part = np.where(X > 0, estimate, np.nan)
    right = X > 0
    assert rms_error(part, TRUTH) == pytest.approx(
        rms_error(estimate[right], TRUTH[right])
    )
    assert np.isnan(rms_error(np.full_like(TRUTH, np.nan), TRUTH))


def test_false_alarm_is_the_99th_percentile_of_the_magnitude():
    noise = RNG.normal(0, 1, (400, 400))
    assert false_alarm(noise + 5) == pytest.approx(2.576, rel=0.01)
    noise[0, :50] = np.nan
    assert false_alarm(noise) == pytest.approx(2.576, rel=0.01)


@pytest.mark.parametrize("spacing", [16, 32])
def test_seams_are_seen(spacing):
    field = np.cumsum(np.cumsum(RNG.normal(size=(256, 256)), 0), 1) * 1e-2
    field = RNG.normal(size=(256, 256)) + field / field.std()
    clean = seam_energy(field, spacing)
    assert clean == pytest.approx(1, abs=0.05)
    block = np.arange(256) // spacing
    steps = 3.0 * ((block[:, None] + block) % 2)
    # Each line adds 9 to a mean square step of about 2.
    stepped = seam_energy(field + steps, spacing)
    assert stepped == pytest.approx(1 + 9 / 2, rel=0.15)
    # Steps that are not on the lines asked about do not raise the score.
    assert seam_energy(field + np.roll(steps, 5, (0, 1)), spacing) < 1.05


def test_seams_of_a_field_with_gaps_and_without_lines():
    field = RNG.normal(size=(64, 64))
    field[10:20, 10:20] = np.nan
    assert seam_energy(field, 16) == pytest.approx(1, abs=0.15)
    assert np.isnan(seam_energy(field, 100))
