"""Decorrelation, coherence, masks, unwrapping errors and geometry."""

import numpy as np
import pytest
from scipy import ndimage

from cube_denoise.conventions import los_unit_vector
from cube_denoise.simulate.sensor import (
    SENSORS,
    coherence_map,
    decorrelation_noise,
    gap_mask,
    temporal_decorrelation,
    unwrapping_errors,
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


def errors(count, shape=(60, 80), *, seed=0, **options):
    return unwrapping_errors(
        count, shape, spacing=100.0, generator=np.random.default_rng(seed), **options
    )


def test_unwrapping_errors_are_one_connected_region():
    found = errors(200, probability=1.0)
    assert found.dtype == np.int8 and found.shape == (200, 60, 80)
    for cycles in found:
        assert ndimage.label(cycles != 0)[1] == 1
        assert len(np.unique(cycles[cycles != 0])) == 1
    assert set(np.unique(found)) == {-1, 0, 1}
    positive = (found > 0).any((1, 2)).mean()
    assert positive == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("area", [0.0, 0.05, 0.3, 1.0])
def test_unwrapping_errors_take_the_area_asked_for(area):
    found = errors(20, probability=1.0, area=(area, area))
    expected = max(1, round(area * 4800))
    np.testing.assert_array_equal((found != 0).sum((1, 2)), expected)


def test_areas_span_their_range():
    fraction = (errors(300, probability=1.0, area=(0.02, 0.2)) != 0).mean((1, 2))
    assert fraction.min() >= 0.0199 and fraction.max() <= 0.2001
    assert fraction.mean() == pytest.approx(0.11, abs=0.01)


def test_unwrapping_errors_hit_the_fraction_of_pairs_asked_for():
    hit = (errors(4000, (8, 8), probability=0.03) != 0).any((1, 2))
    assert hit.mean() == pytest.approx(0.03, abs=0.012)
    assert not errors(50, probability=0.0).any()


def test_several_cycles():
    found = errors(300, (10, 10), probability=1.0, most_cycles=3)
    per_pair = np.abs(found).max((1, 2))
    assert set(per_pair) == {1, 2, 3}


def test_regions_are_compact_but_irregular():
    """Longer outline than a disc of that area, far shorter than of scattered pixels."""
    found = errors(50, (120, 120), probability=1.0, area=(0.1, 0.1)) != 0
    outline = (found[:, 1:] != found[:, :-1]).sum((1, 2))
    outline = outline + (found[:, :, 1:] != found[:, :, :-1]).sum((1, 2))
    pixels = 0.1 * 120**2
    disc = 8 * np.sqrt(pixels / np.pi)  # in steps along rows and columns
    assert 1.05 * disc < outline.mean() < 0.5 * 4 * pixels


def test_unwrapping_errors_repeat_with_the_seed():
    np.testing.assert_array_equal(
        errors(9, probability=0.5), errors(9, probability=0.5)
    )
    assert (errors(9, probability=1.0) != errors(9, probability=1.0, seed=1)).any()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"probability": 2.0}, "probability=2.0"),
        ({"area": (0.2, 0.1)}, "area="),
        ({"most_cycles": 0}, "most_cycles=0"),
    ],
)
def test_bad_unwrapping_parameters_are_named(options, name):
    with pytest.raises(ValueError, match=name):
        errors(1, **options)


@pytest.mark.parametrize(
    ("name", "gigahertz", "centimetres"),
    [("sentinel-1", 5.405, 2.77), ("alos-2", 1.2575, 11.92)],
)
def test_sensors(name, gigahertz, centimetres):
    """Frequency, and line-of-sight motion of one fringe."""
    sensor = SENSORS[name]
    assert sensor.frequency == pytest.approx(gigahertz * 1e9, rel=1e-4)
    assert sensor.wavelength / 2 == pytest.approx(centimetres / 100, rel=2e-3)
    for heading, eastward in (
        (sensor.ascending_heading, -1),
        (sensor.descending_heading, 1),
    ):
        for incidence in sensor.incidence:
            east, north, up = los_unit_vector(incidence, heading)
            assert np.sign(east) == eastward and abs(north) < 0.15 and up > 0.65
