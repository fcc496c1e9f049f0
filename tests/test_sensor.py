"""Decorrelation, coherence and masks."""

import numpy as np
import pytest

from cube_denoise.simulate.sensor import (
    coherence_map,
    decorrelation_noise,
    gap_mask,
    temporal_decorrelation,
)


@pytest.mark.parametrize("coherence", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("looks", [10, 80])
def test_noise_has_the_cramer_rao_variance(coherence, looks):
    noise = decorrelation_noise(
        np.full((300, 300), coherence),
        looks=looks,
        generator=np.random.default_rng(0),
    )
    expected = np.sqrt((1 - coherence**2) / (2 * looks * coherence**2))
    assert noise.std() == pytest.approx(expected, rel=0.01)
    assert abs(noise.mean()) < 0.01 * expected * 3
    # White: neighbours are independent.
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.01


def test_noise_is_stronger_where_coherence_is_lower():
    coherence = np.where(np.arange(200) < 100, 0.9, 0.3) * np.ones((200, 1))
    noise = decorrelation_noise(coherence, looks=20, generator=np.random.default_rng(1))
    ratio = noise[:, 100:].std() / noise[:, :100].std()
    expected = np.sqrt((1 / 0.09 - 1) / (1 / 0.81 - 1))
    assert ratio == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_mask_hides_the_fraction_asked_for(fraction):
    valid = gap_mask(
        (120, 90), spacing=80.0, fraction=fraction, generator=np.random.default_rng(0)
    )
    assert valid.dtype == bool
    assert 1 - valid.mean() == pytest.approx(fraction, abs=2 / valid.size)


def test_mask_is_made_of_patches():
    valid = gap_mask(
        (200, 200), spacing=80.0, fraction=0.3, generator=np.random.default_rng(0)
    )
    # Independent pixels would differ from their neighbour in 42 % of all places.
    assert np.mean(valid[1:] != valid[:-1]) < 0.05


def test_coherence_stays_in_range_about_its_mean():
    maps = [
        coherence_map(
            (100, 100), spacing=80.0, mean=mean, generator=np.random.default_rng(4)
        )
        for mean in (0.5, 0.95)
    ]
    for one in maps:
        assert one.min() >= 0.05 and one.max() <= 0.98
    means = [
        coherence_map(
            (100, 100), spacing=80.0, mean=0.5, generator=np.random.default_rng(k)
        ).mean()
        for k in range(30)
    ]
    assert np.mean(means) == pytest.approx(0.5, abs=0.02)
    assert np.mean(maps[1]) > np.mean(maps[0]) + 0.2


def test_coherence_falls_with_time_to_its_floor():
    days = [0.0, 90.0, 1e6]
    found = [
        temporal_decorrelation(d, initial=0.8, final=0.2, time_constant=90.0)
        for d in days
    ]
    np.testing.assert_allclose(found, [0.8, 0.2 + 0.6 / np.e, 0.2])
    assert temporal_decorrelation(-12.0) == temporal_decorrelation(12.0)


def test_same_seed_same_noise():
    first, second, other = (
        decorrelation_noise(
            np.full((9, 9), 0.5), looks=5, generator=np.random.default_rng(seed)
        )
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
