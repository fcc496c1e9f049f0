"""Gap filling: data stay, holes get what surrounds them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cube_denoise.gaps import fill_gaps

Y, X = np.mgrid[:64, :48].astype("float64")
LINEAR = 0.5 * Y - 0.25 * X + 3


def with_gaps(values: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    holes = np.random.default_rng(seed).random(values.shape) < share
    return np.where(holes, np.nan, values)


def test_without_gaps_nothing_changes() -> None:
    np.testing.assert_array_equal(fill_gaps(LINEAR), LINEAR.astype("float32"))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("shape", [(64, 48), (37, 53), (1, 9), (7, 1)])
def test_data_stay_and_all_is_finite(shape: tuple[int, int], share: float) -> None:
    values = np.random.default_rng(1).normal(size=shape)
    holed = with_gaps(values, share)
    holed[0, 0] = values[0, 0]
    filled = fill_gaps(holed)
    kept = np.isfinite(holed)
    np.testing.assert_allclose(filled[kept], holed[kept], rtol=1e-6, atol=1e-7)
    assert np.isfinite(filled).all()
    assert filled.dtype == np.float32


@given(
    arrays(
        "float64",
        array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.one_of(st.floats(-100, 100), st.just(np.nan)),
    )
)
def test_filled_values_lie_between_the_data(values: np.ndarray) -> None:
    if not np.isfinite(values).any():
        return
    filled = fill_gaps(values)
    assert np.nanmin(values) - 1e-3 <= filled.min()
    assert filled.max() <= np.nanmax(values) + 1e-3


def test_a_constant_is_filled_exactly() -> None:
    filled = fill_gaps(with_gaps(np.full((33, 70), 4.5), 0.9))
    np.testing.assert_array_equal(filled, np.float32(4.5))


def test_one_valid_pixel_fills_all() -> None:
    values = np.full((5, 9), np.nan)
    values[3, 2] = -7
    np.testing.assert_array_equal(fill_gaps(values), np.float32(-7))


@pytest.mark.parametrize("side", [1, 2, 4, 8])
@pytest.mark.parametrize("corner", [(20, 16), (31, 21), (45, 30)])
def test_a_hole_in_a_slope_is_filled_to_a_fraction_of_its_size(
    corner: tuple[int, int], side: int
) -> None:
    hole = tuple(slice(c, c + side) for c in corner)
    values = LINEAR.copy()
    values[hole] = np.nan
    error = np.abs(fill_gaps(values) - LINEAR)[hole]
    # The slope rises by 0.75 per pixel of the diagonal; the mean would miss by more.
    assert error.max() < 0.75 * side * 0.25 + 0.05
    assert np.abs(LINEAR.mean() - LINEAR)[hole].max() > 3 * error.max()


def test_offset_and_scale_go_through() -> None:
    holed = with_gaps(np.random.default_rng(2).normal(size=(40, 40)), 0.4)
    expected = fill_gaps(holed) * 3 + 1000
    np.testing.assert_allclose(fill_gaps(3 * holed + 1000), expected, atol=1e-3)


def test_infinite_is_missing() -> None:
    values = np.array([[1.0, np.inf], [1.0, -np.inf]])
    np.testing.assert_array_equal(fill_gaps(values), np.float32(1))


def test_nothing_to_fill_from_is_refused() -> None:
    with pytest.raises(ValueError, match="no valid pixel"):
        fill_gaps(np.full((4, 4), np.nan))
