"""Phase-elevation regression against phases made from the elevation itself."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.correct import CORRECTED, PASSED_THROUGH, correct

RNG = np.random.default_rng(5)
SHAPE = (40, 30)
ELEVATION = 300 + 1200 * RNG.random(SHAPE)
ABOVE = (ELEVATION - np.median(ELEVATION)) / 1000
SLOPES, CONSTANTS = np.array([4.0, -7.0, 0.5]), np.array([2.0, -30.0, 0.0])
SIGNAL = np.sin(np.arange(30) / 3) * np.ones((40, 1))
LINEAR = CONSTANTS[:, None, None] + SLOPES[:, None, None] * ABOVE


def make_cube(phase, elevation=ELEVATION):
    days = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(12, "D")
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase.astype("float32")),
            "elevation": (("y", "x"), elevation.astype("float32")),
        },
        coords={
            "reference_time": ("pair", days[[0, 1, 0]][: len(phase)]),
            "secondary_time": ("pair", days[[1, 2, 2]][: len(phase)]),
        },
        attrs={"wavelength": 0.05546576},
    )


def corrected(phase, elevation=ELEVATION, **options):
    result = correct(make_cube(phase, elevation), "phase-elevation", **options)
    return result["corrected_phase"].compute()


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


@pytest.mark.filterwarnings("ignore:elevation is missing")
def test_missing_values():
    phase = LINEAR + SIGNAL
    phase[1, :5] = np.nan
    elevation = ELEVATION.copy()
    elevation[:, 0] = np.nan
    result = corrected(phase, elevation).values
    np.testing.assert_array_equal(
        np.isnan(result), np.isnan(phase) | np.isnan(elevation)
    )


def test_missing_elevation_is_told():
    elevation = ELEVATION.copy()
    elevation[:, :3] = np.nan
    with pytest.warns(UserWarning, match="elevation is missing at 10.0% of the pixels"):
        corrected(LINEAR, elevation)


def test_pair_without_data_is_passed_through():
    phase = LINEAR + SIGNAL
    phase[1] = np.nan
    with pytest.warns(UserWarning, match="1 pairs hold no data.*20200113-20200125"):
        result = correct(make_cube(phase), "phase-elevation")
    status = [CORRECTED, PASSED_THROUGH, CORRECTED]
    np.testing.assert_array_equal(result["correction_status"], status)
    assert np.isnan(result["corrected_phase"][1]).all()
    alone = corrected((LINEAR + SIGNAL)[[0]])
    np.testing.assert_array_equal(result["corrected_phase"][0], alone[0])


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


def test_blocks_and_regions_do_not_matter():
    cube = make_cube(LINEAR + SIGNAL)
    whole = correct(cube, "phase-elevation")["corrected_phase"]
    assert whole.chunks is not None
    small = correct(cube.chunk(pair=1, y=16, x=16), "phase-elevation", block=7)
    np.testing.assert_array_equal(small["corrected_phase"], whole)
    region = {"y": slice(11, 29), "x": slice(3, 26)}
    part = correct(cube, "phase-elevation", region=region)["corrected_phase"]
    np.testing.assert_array_equal(part, whole.isel(region))


def test_bad_input():
    with pytest.raises(ValueError, match="elevation"):
        correct(make_cube(LINEAR).drop_vars("elevation"), "phase-elevation")
    with pytest.raises(ValueError, match="degree=4 must be 1, 2 or 3"):
        corrected(LINEAR, degree=4)
    with pytest.raises(ValueError, match="elevation has no data on the grid"):
        corrected(LINEAR, np.full(SHAPE, np.nan))
