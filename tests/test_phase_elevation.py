"""Phase-elevation regression against phases made from the elevation itself."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.classical import elevation_trend, phase_elevation_regression

RNG = np.random.default_rng(5)
SHAPE = (40, 30)
ELEVATION = 300 + 1200 * RNG.random(SHAPE)
ABOVE = (ELEVATION - np.median(ELEVATION)) / 1000
SLOPES, CONSTANTS = np.array([4.0, -7.0, 0.5]), np.array([2.0, -30.0, 0.0])
SIGNAL = np.sin(np.arange(30) / 3) * np.ones((40, 1))
LINEAR = CONSTANTS[:, None, None] + SLOPES[:, None, None] * ABOVE


def make_cube(phase, elevation=ELEVATION):
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase.astype("float32")),
            "elevation": (("y", "x"), elevation.astype("float32")),
        },
        coords={"y": -np.arange(SHAPE[0]) * 100.0, "x": np.arange(SHAPE[1]) * 100.0},
        attrs={"wavelength": 0.05546576},
    )


def corrected(phase, elevation=ELEVATION, **options):
    result = phase_elevation_regression(make_cube(phase, elevation), **options)
    return result["corrected_phase"]


def test_linear_dependence_is_removed_and_constant_kept():
    result = corrected(LINEAR)
    assert result.dims == ("pair", "y", "x") and result.dtype == "float32"
    assert result.attrs["units"] == "rad"
    expected = np.broadcast_to(CONSTANTS[:, None, None], LINEAR.shape)
    np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_degree_decides_what_is_left(degree):
    cubic = LINEAR + 6 * ABOVE**3
    left = corrected(cubic, degree=degree).values - CONSTANTS[:, None, None]
    if degree == 3:
        np.testing.assert_allclose(left, 0, atol=3e-5)
    else:
        assert left.std() > 0.1


def test_matches_least_squares_of_valid_pixels():
    phase = LINEAR + SIGNAL + RNG.normal(size=LINEAR.shape)
    phase[RNG.random(phase.shape) < 0.3] = np.nan
    result = corrected(phase).values
    for one, two in zip(phase, result, strict=True):
        valid = np.isfinite(one)
        slope = np.polyfit(ABOVE[valid], one[valid], 1)[0]
        np.testing.assert_allclose(two, one - slope * ABOVE, atol=2e-5)


def test_missing_values():
    phase = LINEAR + SIGNAL
    phase[0] = np.nan
    phase[1, :5] = np.nan
    elevation = ELEVATION.copy()
    elevation[:, 0] = np.nan
    result = corrected(phase, elevation).values
    np.testing.assert_array_equal(
        np.isnan(result), np.isnan(phase) | np.isnan(elevation)
    )


def test_flat_terrain_changes_nothing():
    phase = LINEAR + SIGNAL
    result = corrected(phase, np.full(SHAPE, 120.0))
    np.testing.assert_allclose(result, phase, atol=1e-5)


def test_second_time_changes_nothing():
    once = corrected(LINEAR + SIGNAL, degree=2)
    np.testing.assert_allclose(corrected(once.values, degree=2), once, atol=2e-5)


def test_closure_is_kept():
    dates = np.random.default_rng(1).normal(size=(3, *SHAPE)) + 3 * ABOVE**2
    first, second, whole = dates[1] - dates[0], dates[2] - dates[1], dates[2] - dates[0]
    result = corrected(np.stack([first, second, whole]), degree=3)
    np.testing.assert_allclose(result[0] + result[1] - result[2], 0, atol=2e-5)


def test_deformation_that_follows_the_terrain_is_lost():
    """What the docstring warns of: a summit that inflates is flattened."""
    y, x = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 30), indexing="ij")
    mountain = 1500 * np.exp(-4 * (x**2 + y**2))
    inflation = -5 * np.exp(-4 * (x**2 + y**2))
    result = corrected(inflation[None], mountain)
    assert result.values.std() < 1e-4 * inflation.std()


def test_lazy_cube_gives_a_lazy_result():
    phase = LINEAR + SIGNAL
    lazy = phase_elevation_regression(make_cube(phase).chunk(pair=1, y=16, x=16))
    assert lazy["corrected_phase"].chunks is not None
    np.testing.assert_allclose(lazy["corrected_phase"], corrected(phase), atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="elevation"):
        phase_elevation_regression(make_cube(LINEAR).drop_vars("elevation"))
    with pytest.raises(ValueError, match="degree=4 must be 1, 2 or 3"):
        corrected(LINEAR, degree=4)
    with pytest.raises(ValueError, match="same grid"):
        elevation_trend(LINEAR[0], ELEVATION[:-1])
