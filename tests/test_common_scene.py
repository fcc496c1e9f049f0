"""Common-scene stacking against dates that are known."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.conventions import displacement_to_phase
from cube_denoise.correct import CORRECTED, PASSED_THROUGH, correct
from cube_denoise.corrections.common_scene import _estimate, _spokes
from cube_denoise.corrections.series import dates_of, stack_of
from cube_denoise.invert import invert
from cube_denoise.network import closure_triplets, pair_indices, triplet_closure
from cube_denoise.simulate import simulate_scene

SHAPE = (24, 20)
UNEVEN = np.array([0, 12, 18, 42, 48, 60, 84, 90, 120])
"""Days."""
EVEN = np.arange(9) * 12


def make_cube(dates, days=EVEN, *, reach=3):
    """Pairs of each date with its next `reach`; `dates` has shape (dates, y, x)."""
    times = np.datetime64("2020-01-01", "ns") + days * np.timedelta64(1, "D")
    first, second = np.triu_indices(len(days), 1)
    near = second - first <= reach
    first, second = first[near], second[near]
    return xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), dates[second] - dates[first])},
        coords={
            "reference_time": ("pair", times[first]),
            "secondary_time": ("pair", times[second]),
        },
        attrs={"wavelength": 0.05546576},
    )


def corrected(cube, **options):
    found = correct(cube, "common-scene", **options)["corrected_phase"]
    return found.values.astype("float64")


def consecutive(cube, phase):
    first, second, _ = pair_indices(cube.reference_time, cube.secondary_time)
    return phase[second - first == 1]


def white(count, seed=0):
    """White noise of median exactly 0 and the same size at all dates."""
    half = np.random.default_rng(seed).normal(size=(count, SHAPE[0], SHAPE[1] // 2))
    half /= half.std((1, 2), keepdims=True)
    return np.concatenate([half, -half], 2)


RATE = 0.3 * white(1)[0]
"""rad per day"""


@pytest.mark.parametrize("reach", [2, 3, 8])
def test_steady_motion_is_kept_exactly(reach):
    """Whatever the spans and the constants of the pairs."""
    cube = make_cube(UNEVEN[:, None, None] * RATE, UNEVEN, reach=reach)
    constant = np.random.default_rng(1).normal(0, 9, cube.sizes["pair"])
    cube["unwrapped_phase"] = cube["unwrapped_phase"] + xr.DataArray(
        constant, dims="pair"
    )
    np.testing.assert_allclose(corrected(cube), cube["unwrapped_phase"], atol=1e-5)


def test_steady_motion_is_kept_with_gaps():
    cube = make_cube(UNEVEN[:, None, None] * RATE, UNEVEN)
    holes = np.random.default_rng(2).random(cube["unwrapped_phase"].shape) < 0.3
    cube["unwrapped_phase"] = cube["unwrapped_phase"].where(~holes)
    # The medians of what the gaps leave would differ a little.
    cube["phase_quantiles"] = ("pair", "quantile"), np.zeros((len(holes), 5))
    np.testing.assert_allclose(corrected(cube), cube["unwrapped_phase"], atol=1e-5)


def estimate(cube, date):
    spokes = _spokes(cube, np.ones(cube.sizes["pair"], bool))[date]
    phase = cube["unwrapped_phase"].values
    return _estimate(phase.reshape(len(phase), -1), spokes).reshape(SHAPE)


def test_symmetric_pairs_give_the_published_mean():
    """Tymofyeyeva and Fialko (2015): half the mean difference of the two sides."""
    x = white(9)
    expected = np.mean(
        [((x[4] - x[4 - m]) - (x[4 + m] - x[4])) / 2 for m in (1, 2)], axis=0
    )
    found = estimate(make_cube(x, EVEN, reach=2), 4)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_one_pair_a_side_weighs_with_the_spans():
    x = white(9)
    before, after = x[4] - x[3], x[5] - x[4]
    expected = (before * 12 - after * 6) / (6 + 12)
    found = estimate(make_cube(x, UNEVEN, reach=1), 4)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_noise_of_the_neighbours_leaks_as_stated(reach):
    x = white(9)
    leak = estimate(make_cube(x, reach=reach), 4) - x[4]
    assert leak.var() == pytest.approx(1 / (2 * reach), rel=0.15)


def test_a_noisy_date_is_found_and_removed():
    """It is the first in the order, and nothing is left for the others."""
    quiet = EVEN[:, None, None] * RATE
    noisy = quiet.copy()
    noisy[4] += 10 * white(1, seed=3)[0]
    expected = make_cube(quiet)["unwrapped_phase"]
    np.testing.assert_allclose(corrected(make_cube(noisy)), expected, atol=1e-4)


def test_the_ends_keep_their_noise():
    x = np.zeros((9, *SHAPE))
    x[0], x[8] = white(2)
    left = corrected(make_cube(x, reach=1)).sum(0)  # from the first to the last date
    np.testing.assert_allclose(left, x[8] - x[0], atol=1e-5)


def test_a_step_is_spread_but_kept_from_end_to_end():
    """What the docstring warns of: an earthquake between the dates 3 and 4."""
    step = white(1, seed=5)[0]
    cube = make_cube((np.arange(9) > 3)[:, None, None] * step)
    left = consecutive(cube, corrected(cube)) / step
    np.testing.assert_allclose(left.sum(0), 1, atol=1e-4)
    share = np.median(left, (1, 2))
    assert share[3] < 0.5  # where it happened
    assert share[2] > 0.05 and share[4] > 0.05  # where it did not


def test_closure_is_kept():
    rng = np.random.default_rng(4)
    cube = make_cube(white(9), UNEVEN)
    phase = cube["unwrapped_phase"]
    phase = phase + rng.normal(0, 0.3, phase.shape)  # pairs that do not close
    cube["unwrapped_phase"] = phase.where(rng.random(phase.shape) > 0.2)
    triplets = closure_triplets(cube.reference_time, cube.secondary_time)
    before = triplet_closure(cube["unwrapped_phase"].values, triplets)
    after = triplet_closure(corrected(cube), triplets)
    assert np.nanstd(before) > 0.4
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.fixture(scope="module")
def scene():
    return simulate_scene(size=64, dates=24, gaps=0.1, seed=8)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_series_is_quieter_but_the_rate_no_better(scene):
    """On a simulated stack: noise of dates, then of the rate."""
    cube = scene.cube
    after = cube.assign(unwrapped_phase=(cube.unwrapped_phase.dims, corrected(cube)))
    truth = displacement_to_phase(
        scene.truth["displacement"].values.astype("float64"), cube.wavelength
    )
    whole = {"y": slice(0, 64), "x": slice(0, 64)}

    def noise(stack):
        error = dates_of(stack, whole, stack_of(stack)) - truth
        error -= np.nanmean(error[3:-3], 0)
        error -= np.nanmean(error, (1, 2), keepdims=True)
        return np.nanstd(error, (1, 2))

    def rate_error(stack):
        options = {"variable": "unwrapped_phase", "weights": "none"}
        error = invert(stack, **options)["velocity"] - scene.truth["velocity"]
        return float(error.std())

    inner = slice(3, -3)
    assert noise(after)[inner].mean() < 0.6 * noise(cube)[inner].mean()
    assert 0.85 < rate_error(after) / rate_error(cube) < 2


def test_blocks_and_regions_do_not_matter(scene):
    cube = scene.cube
    whole = corrected(cube)
    np.testing.assert_array_equal(
        np.isnan(whole), np.isnan(cube["unwrapped_phase"].values)
    )
    np.testing.assert_array_equal(corrected(cube, block=23), whole)
    region = {"y": slice(11, 50), "x": slice(29, 64)}
    part = corrected(cube, region=region, block=17)
    np.testing.assert_array_equal(part, whole[:, 11:50, 29:])


def test_a_pixel_without_pairs_on_both_sides_keeps_its_noise():
    x = np.zeros((9, *SHAPE))
    x[4] = white(1)[0]
    cube = make_cube(x)
    first, second, _ = pair_indices(cube.reference_time, cube.secondary_time)
    phase = cube["unwrapped_phase"].values.copy()
    phase[second == 4, :3] = np.nan
    cube["unwrapped_phase"] = ("pair", "y", "x"), phase
    cube["phase_quantiles"] = ("pair", "quantile"), np.zeros((len(phase), 5))
    left = corrected(cube)[first == 4]
    np.testing.assert_allclose(left[:, 3:], 0, atol=1e-5)
    assert left[:, :3].std() > 0.5


def test_pair_without_data_is_passed_through():
    cube = make_cube(white(9))
    cube["unwrapped_phase"][5] = np.nan
    with pytest.warns(UserWarning, match="1 pairs hold no data"):
        result = correct(cube, "common-scene")
    status = np.full(cube.sizes["pair"], CORRECTED)
    status[5] = PASSED_THROUGH
    np.testing.assert_array_equal(result["correction_status"], status)
    found = np.isfinite(result["corrected_phase"].values)
    assert not found[5].any() and found[np.arange(len(found)) != 5].all()


def test_bad_input():
    with pytest.raises(ValueError, match="no date of the cube has pairs on both sides"):
        corrected(make_cube(white(2), EVEN[:2]))
    with pytest.raises(ValueError, match="no pair of unwrapped_phase holds data"):
        corrected(make_cube(np.nan * white(9)))
    with pytest.raises(ValueError, match="rounds"):
        corrected(make_cube(white(9)), rounds=2)
