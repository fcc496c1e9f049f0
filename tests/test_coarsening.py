"""Coarse pixels hold what all their fine pixels hold, however often they are halved."""

import numpy as np
import pytest

from cube_denoise.coarsening import NO_DATE, halved, halved_fraction, weights_for


def blocks(values: np.ndarray, size: int, fill: float) -> np.ndarray:
    """Values of every `size` x `size` pixels on a last axis, filled beyond the edge."""
    rows, columns = (-(-n // size) * size for n in values.shape)
    padded = np.full((rows, columns), fill, values.dtype)
    padded[: values.shape[0], : values.shape[1]] = values
    parts = padded.reshape(rows // size, size, columns // size, size).swapaxes(1, 2)
    return parts.reshape(rows // size, columns // size, size * size)


@pytest.fixture
def values() -> np.ndarray:
    random = np.random.default_rng(3)
    found = random.normal(0, 1, (1, 37, 50)).astype("float32")
    found[random.random(found.shape) < 0.4] = np.nan
    found[:, :9, :9] = np.nan
    return found


@pytest.mark.parametrize("times", [1, 2, 3, 6])
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_every_valid_pixel_counts_the_same(values: np.ndarray, times: int) -> None:
    velocity, square, fraction = values, np.abs(values), np.isfinite(values)
    fraction = fraction.astype("float32")
    for _ in range(times):
        velocity = halved("velocity", velocity, fraction)
        square = halved("velocity_std", square, fraction)
        fraction = halved_fraction(fraction)
    fine = blocks(values[0].astype("float64"), 2**times, np.nan)
    np.testing.assert_allclose(velocity[0], np.nanmean(fine, -1), rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(
        square[0], np.sqrt(np.nanmean(fine**2, -1)), rtol=2e-5, atol=1e-7
    )
    np.testing.assert_array_equal(fraction[0], np.isfinite(fine).mean(-1))
    assert velocity.dtype == square.dtype == "float32"


def test_a_coarse_standard_deviation_is_never_too_small() -> None:
    """Whatever the correlation of the errors of the pixels."""
    random = np.random.default_rng(5)
    std = random.uniform(0.5, 3, (2, 2)).astype("float32")
    coarse = float(halved("velocity_std", std, np.ones((2, 2), "float32"))[0, 0])
    for _ in range(200):
        factor = random.normal(0, 1, (4, random.integers(1, 5)))
        factor /= np.linalg.norm(factor, axis=1)[:, None]
        covariance = (factor @ factor.T) * np.outer(std.ravel(), std.ravel())
        assert np.sqrt(covariance.mean()) <= coarse * (1 + 1e-6)


def test_counts_and_dates_are_extremes() -> None:
    count = np.array([[1, 0, 3], [0, 2, 0], [5, 0, 0]], "int16")
    assert halved("frame_count", count).tolist() == [[2, 3], [5, 0]]
    first = np.array([[7, NO_DATE, NO_DATE], [4, 9, NO_DATE]])
    assert halved("first_date", first).tolist() == [[4, NO_DATE]]
    assert halved("last_date", first).tolist() == [[9, NO_DATE]]
    condition = np.array([[np.nan, 2.0], [3.0, np.nan]], "float32")
    assert halved("condition_number", condition).tolist() == [[3.0]]
    assert np.isnan(halved("condition_number", np.full((2, 2), np.nan, "f4"))).all()


def test_weights_of_a_covariance_are_those_of_the_lesser_component() -> None:
    fraction = np.array([[[1.0, 0.5]], [[0.25, 1.0]]], "float32")
    terms = ("east_east", "east_up", "up_up")
    found = weights_for("velocity_covariance", fraction, ("east", "up"), terms)
    assert found is not None
    assert found[:, 0].tolist() == [[1.0, 0.5], [0.25, 0.5], [0.25, 1.0]]
    assert weights_for("velocity", fraction, ("east", "up"), terms) is fraction
    assert weights_for("los_up", fraction, ("los",), ()) is None
