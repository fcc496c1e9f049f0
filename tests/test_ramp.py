"""Ramps against surfaces put into the pairs."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.correct import CORRECTED, PASSED_THROUGH, correct
from cube_denoise.corrections.ramp import TERMS

SHAPE = (40, 30)
Y, X = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
CONSTANTS = np.array([2.0, -30.0, 0.0])[:, None, None]
PLANE = CONSTANTS + np.array([3.0, -8.0, 0.5])[:, None, None] * (2 * X - Y)
BILINEAR = PLANE + 5 * X * Y
QUADRATIC = BILINEAR - 4 * X**2 + 7 * Y**2
SURFACES = {"plane": PLANE, "bilinear": BILINEAR, "quadratic": QUADRATIC}


def make_cube(phase):
    days = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(12, "D")
    return xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), phase.astype("float32"))},
        coords={
            "reference_time": ("pair", days[[0, 1, 0]]),
            "secondary_time": ("pair", days[[1, 2, 2]]),
        },
        attrs={"wavelength": 0.05546576},
    )


def corrected(phase, surface="plane"):
    result = correct(make_cube(phase), "ramp", surface=surface)["corrected_phase"]
    return result.values.astype("float64")


def noisy(seed=0):
    """Surfaces, a signal that is none, noise and gaps that differ from pair to pair."""
    rng = np.random.default_rng(seed)
    phase = QUADRATIC + np.sin(9 * X) + rng.normal(size=(3, *SHAPE))
    phase[rng.random(phase.shape) < 0.3] = np.nan
    return phase


@pytest.mark.parametrize("surface", TERMS)
@pytest.mark.parametrize("there", TERMS)
def test_surface_is_removed_and_constant_kept(surface, there):
    left = corrected(SURFACES[there], surface) - CONSTANTS
    kinds = list(TERMS)
    if kinds.index(surface) >= kinds.index(there):
        np.testing.assert_allclose(left, 0, atol=2e-5)
    else:
        assert left.std() > 1  # a surface of lower order does not explain it


def test_matches_least_squares_of_valid_pixels():
    phase = noisy().astype("float32")
    result = corrected(phase, "quadratic")
    A = np.stack([np.ones(SHAPE), X, Y, X * Y, X**2, Y**2], -1)
    for one, two in zip(phase, result, strict=True):
        valid = np.isfinite(one)
        fit = np.linalg.lstsq(A[valid], one[valid].astype(float), rcond=None)[0]
        np.testing.assert_allclose(two, one - A[..., 1:] @ fit[1:], atol=2e-5)


def test_a_ramp_more_changes_nothing():
    phase = noisy()
    tilted = phase + 6 - 11 * X + 4 * Y
    difference = corrected(tilted) - corrected(phase)
    np.testing.assert_allclose(difference[np.isfinite(phase)], 6, atol=5e-5)


def test_second_time_changes_nothing():
    once = corrected(noisy(), "bilinear")
    np.testing.assert_allclose(corrected(once, "bilinear"), once, atol=2e-5)


def test_sign_and_order_of_pairs():
    phase = noisy()
    expected = corrected(phase)
    np.testing.assert_allclose(corrected(-phase), -expected, atol=1e-6)
    cube = make_cube(phase).isel(pair=[2, 0, 1])
    result = correct(cube, "ramp")["corrected_phase"]
    np.testing.assert_array_equal(result, expected[[2, 0, 1]])


def test_closure_is_kept_where_gaps_are_alike():
    rng = np.random.default_rng(1)
    dates = rng.normal(size=(3, *SHAPE)) + 3 * Y**2
    dates[:, rng.random(SHAPE) < 0.2] = np.nan
    pairs = np.stack([dates[1] - dates[0], dates[2] - dates[1], dates[2] - dates[0]])
    result = corrected(pairs, "quadratic")
    loop = result[0] + result[1] - result[2]
    np.testing.assert_allclose(loop[np.isfinite(loop)], 0, atol=2e-5)


def test_blocks_and_regions_do_not_matter():
    cube = make_cube(noisy())
    whole = correct(cube, "ramp")["corrected_phase"].values
    small = correct(cube, "ramp", block=7)["corrected_phase"]
    np.testing.assert_array_equal(small, whole)
    region = {"y": slice(11, 29), "x": slice(3, 26)}
    part = correct(cube, "ramp", region=region)["corrected_phase"]
    np.testing.assert_array_equal(part, whole[:, 11:29, 3:26])


def test_pair_without_data_is_passed_through():
    phase = noisy()
    phase[1] = np.nan
    with pytest.warns(UserWarning, match="1 pairs hold no data.*20200113-20200125"):
        result = correct(make_cube(phase), "ramp")
    status = [CORRECTED, PASSED_THROUGH, CORRECTED]
    np.testing.assert_array_equal(result["correction_status"], status)
    found = result["corrected_phase"].values
    np.testing.assert_array_equal(np.isnan(found), np.isnan(phase))
    assert np.nanstd(found[0]) < np.nanstd(phase[0])


def test_too_few_pixels_for_the_surface():
    """Fewer pixels than terms: the fit of minimum norm goes through them."""
    phase = np.full((3, *SHAPE), np.nan)
    phase[:, 4, 5], phase[:, 30, 20] = 1.0, 4.0
    result = corrected(phase, "quadratic")
    assert np.isfinite(result).sum() == 6
    np.testing.assert_allclose(result[:, 4, 5], result[:, 30, 20], atol=1e-5)


def test_deformation_wider_than_the_scene_is_lost():
    """What the docstring warns of."""
    tilt = np.broadcast_to(5 * X, (3, *SHAPE))
    assert np.abs(corrected(tilt)).max() < 1e-5


def test_bad_input():
    with pytest.raises(ValueError, match="surface='cubic' must be one of plane"):
        corrected(PLANE, "cubic")
