"""Scores: what a do-nothing and an output-zero model get, and closed forms."""

import numpy as np
import pytest

from cube_denoise.dataset import split_seed
from cube_denoise.evaluate import (
    amplitude_slope,
    bias,
    correlation,
    detection_threshold,
    false_alarm,
    percentile_error,
    reduction,
    rms_error,
    seam_energy,
    snr,
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


@pytest.mark.parametrize("sign", [1, -1])
def test_bias_is_what_attenuation_takes_from_the_source(sign):
    """Uplift comes out too low and subsidence too high, whatever the constant."""
    truth = sign * TRUTH
    size = np.abs(TRUTH - np.median(TRUTH))
    inside = size > 0.1 * size.max()
    lost = 0.6 * (TRUTH[inside].mean() - TRUTH[~inside].mean())
    assert lost > 0.005
    assert bias(0.4 * truth + 3, truth - 2) == pytest.approx(-sign * lost)
    assert bias(truth + 3, truth) == pytest.approx(0, abs=1e-12)


def test_bias_of_an_offset_source_and_of_nothing():
    inside = np.zeros(TRUTH.shape, bool)
    inside[30:50, 40:60] = True
    truth, estimate = np.where(inside, 0.1, 0.0), np.where(inside, 0.08, 0.005)
    assert bias(estimate, truth) == pytest.approx(-0.025)
    holed = np.where(X > 0.9, np.nan, estimate)
    assert bias(holed, truth) == pytest.approx(-0.025)
    assert np.isnan(bias(estimate, np.zeros_like(truth)))
    assert np.isnan(bias(np.full_like(truth, np.nan), truth))


def test_percentile_error_of_normal_errors():
    error = RNG.normal(0, 2e-3, (500, 500))
    truth = np.zeros_like(error)
    # |error| of a normal variable is below 1.960 standard deviations in 95 %.
    assert percentile_error(truth + error + 1, truth) == pytest.approx(
        1.95996 * 2e-3, rel=0.01
    )
    assert percentile_error(error, truth, percentile=50) == pytest.approx(
        0.67449 * 2e-3, rel=0.01
    )
    assert np.isnan(percentile_error(truth * np.nan, truth))
    with pytest.raises(ValueError, match="percentile=950"):
        percentile_error(error, truth, percentile=950)


def test_reduction_of_known_errors():
    error = RNG.normal(0, 0.01, TRUTH.shape)
    raw = TRUTH + error
    assert reduction(raw, raw, TRUTH) == 0
    assert reduction(raw.copy() + 5, raw, TRUTH) == pytest.approx(0, abs=1e-12)
    assert reduction(TRUTH + error / 4, raw, TRUTH) == pytest.approx(0.75)
    assert reduction(TRUTH, raw, TRUTH) == 1
    assert reduction(TRUTH - 2 * error, raw, TRUTH) == pytest.approx(-1)
    assert np.isnan(reduction(raw, TRUTH, TRUTH))


def test_masking_the_worst_pixels_reduces_nothing():
    raw = TRUTH + RNG.normal(0, 0.01, TRUTH.shape) * np.where(X > 0, 10, 1)
    masked = np.where(X > 0, np.nan, raw)
    assert reduction(masked, raw, TRUTH) == 0
    assert rms_error(masked, TRUTH) < 0.2 * rms_error(raw, TRUTH)


def test_snr_is_a_ratio_of_powers_whatever_the_constants():
    t = np.linspace(0, 2 * np.pi, 200, endpoint=False)[None].repeat(20, 0)
    signal, noise = 3 * np.sin(t), 0.5 * np.sin(2 * t)
    # Power of a sine is half the square of its amplitude.
    assert snr(signal, signal + noise) == pytest.approx(36)
    assert snr(signal + 8, signal + noise - 5) == pytest.approx(36)
    assert snr(signal, signal) == np.inf
    assert snr(0 * signal, signal) == 0
    assert np.isnan(snr(0 * signal, 0 * signal))


def test_detection_threshold_of_known_curves():
    """Correlation r = a / sqrt(a^2 + s^2) of amplitude a in white noise s."""
    a = np.geomspace(0.1, 10, 41)
    r = a / np.sqrt(a**2 + 1)
    exact = 0.7 / np.sqrt(1 - 0.7**2)
    assert detection_threshold(a, r) == pytest.approx(exact, rel=1e-3)
    shuffled = RNG.permutation(a.size)
    assert detection_threshold(a[shuffled], r[shuffled]) == detection_threshold(a, r)
    # Linear in log amplitude: half way in correlation is the geometric mean.
    assert detection_threshold([2, 8], [0.6, 0.8]) == pytest.approx(4)


def test_detection_threshold_never_always_and_after_nothing():
    assert np.isnan(detection_threshold([1, 2, 4], [0.1, 0.3, 0.7]))
    assert np.isnan(detection_threshold([1, 2, 4], [np.nan] * 3))
    assert np.isnan(detection_threshold([], []))
    assert detection_threshold([1, 2, 4], [0.9, 0.95, 0.99]) == 1
    # Nothing came out at 1 and 2: there is nothing to interpolate from.
    assert detection_threshold([1, 2, 4], [np.nan, -np.inf, 0.9]) == 4
    with pytest.raises(ValueError, match="positive and finite"):
        detection_threshold([0, 1], [0.1, 0.9])
    with pytest.raises(ValueError, match="positive and finite"):
        detection_threshold([1, np.inf], [0.1, 0.9])
    with pytest.raises(ValueError, match="one length"):
        detection_threshold([1, 2], [0.1])


def test_an_output_zero_model_detects_nothing(pair):
    sizes = [0.01, 0.1, 1.0, 10.0]
    noise = pair.noisy - pair.truth
    found = [correlation(s * pair.truth + noise, pair.truth) for s in sizes]
    assert 0.01 < detection_threshold(sizes, found) < 10
    nothing = [correlation(np.zeros_like(noise), pair.truth) for _ in sizes]
    assert np.isnan(detection_threshold(sizes, nothing))


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
