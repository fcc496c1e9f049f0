"""Scaling to what a network sees, and back."""

import numpy as np
import pytest

from cube_denoise import normalise
from cube_denoise.normalise import (
    SCALE_LIMITS,
    Scaling,
    five_numbers,
    network_inputs,
    sample_stride,
    scaling,
)


def test_five_numbers_of_a_known_distribution() -> None:
    values = np.random.default_rng(0).permutation(np.arange(101.0))
    np.testing.assert_array_equal(five_numbers(values), [0, 25, 50, 75, 100])


def test_five_numbers_skip_what_is_missing() -> None:
    values = np.array([[np.nan, 4.0, np.inf], [0.0, 2.0, np.nan]])
    np.testing.assert_array_equal(five_numbers(values), [0, 1, 2, 3, 4])


def test_five_numbers_of_nothing_are_nan() -> None:
    found = five_numbers(np.full((3, 3), np.nan))
    assert found.shape == (5,)
    assert np.isnan(found).all()


@pytest.mark.parametrize(
    "shape", [(1, 1), (512, 512), (1024, 1024), (1025, 1024), (5000, 7000), (3, 10**7)]
)
def test_stride_is_the_smallest_that_keeps_the_sample_small(
    shape: tuple[int, int],
) -> None:
    def samples(stride: int) -> int:
        return len(range(0, shape[0], stride)) * len(range(0, shape[1], stride))

    stride = sample_stride(shape)
    assert samples(stride) <= normalise.MAX_SAMPLES
    assert stride == 1 or samples(stride - 1) > normalise.MAX_SAMPLES


def test_minmax_maps_the_range_to_zero_and_one() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.05, 1000)
    found = scaling("minmax", five_numbers(values))
    normalised = (values - found.offset) / found.scale
    np.testing.assert_allclose([normalised.min(), normalised.max()], [0, 1], atol=1e-5)


def test_robust_makes_a_normal_distribution_standard() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.05, 200_000)
    values[:100] = 1e6  # outliers do not count
    found = scaling("robust", five_numbers(values))
    normalised = (values[100:] - found.offset) / found.scale
    assert abs(normalised.mean()) < 0.02
    assert abs(normalised.std() - 1) < 0.02


@pytest.mark.parametrize(
    ("spread", "expected"), [(0.0, SCALE_LIMITS[0]), (1e3, SCALE_LIMITS[1])]
)
def test_robust_scale_is_limited(spread: float, expected: float) -> None:
    found = scaling("robust", spread * np.linspace(-1, 1, 5))
    assert found.scale == pytest.approx(expected)


def test_a_flat_pair_has_a_usable_scale() -> None:
    assert scaling("minmax", np.full(5, 2.0)) == Scaling(2.0, 1.0)


@pytest.mark.parametrize("kind", ["minmax", "robust"])
def test_sign_flip_flips_the_normalised_map(kind: str) -> None:
    """Quantiles of a phase turn round when it becomes a displacement."""
    values = np.random.default_rng(3).gamma(2, size=999)
    one, other = (
        scaling(kind, q) for q in (-five_numbers(values), five_numbers(-values))
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kind='zscore'.*minmax.*robust"):
        scaling("zscore", np.arange(5.0))


def test_channels_hold_what_their_names_say_and_go_back() -> None:
    generator = np.random.default_rng(4)
    displacement = generator.normal(0.1, 0.03, (6, 7))
    elevation = generator.normal(0, 500, (6, 7))
    valid = generator.random((6, 7)) < 0.5
    found = network_inputs(
        ("valid", "displacement", "elevation", "log_scale"),
        displacement,
        scaling=Scaling(0.1, 0.02),
        valid=valid,
        elevation=elevation,
    )
    assert found.shape == (4, 6, 7)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], valid)
    np.testing.assert_allclose(found[1] * 0.02 + 0.1, displacement, atol=1e-7)
    np.testing.assert_allclose(found[2] * 1000, elevation, rtol=1e-6)
    np.testing.assert_allclose(10 ** found[3] * 0.01, 0.02, rtol=1e-6)


def test_missing_elevation_and_unknown_channels_are_refused() -> None:
    options = {"scaling": Scaling(0, 1), "valid": np.ones((2, 2), bool)}
    with pytest.raises(ValueError, match="elevation=None"):
        network_inputs(["elevation"], np.zeros((2, 2)), **options)
    with pytest.raises(ValueError, match="name='amplitude'"):
        network_inputs(["amplitude"], np.zeros((2, 2)), **options)


@pytest.mark.parametrize("kind", ["noise", "steps", "sorted", "comb", "constant"])
@pytest.mark.parametrize("size", [100, 40_000, 100_003, 1 << 18])
def test_five_numbers_are_those_of_numpy_to_the_bit(kind, size):
    """Also where a regular sample misleads (the comb) and where values repeat."""
    random = np.random.default_rng(7)
    values = random.normal(0, 3, size).astype("float32")
    if kind == "steps":
        values = np.round(values)
    elif kind == "sorted":
        values.sort()
    elif kind == "comb":
        values[:: max(size // 8192, 1)] += 100
    elif kind == "constant":
        values[:] = 1.25
    values[random.integers(0, size, 7)] = np.nan
    expected = np.nanquantile(values, (0, 0.25, 0.5, 0.75, 1)).astype("float32")
    np.testing.assert_array_equal(five_numbers(values), expected)
