"""The APS filter against the closed forms of its kernels."""

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cube_denoise.correct import CORRECTED, PASSED_THROUGH, correct
from cube_denoise.corrections.series import dates_of, stack_of
from cube_denoise.network import closure_triplets, triplet_closure
from cube_denoise.simulate import simulate_scene

SIZE, SPACING = 60, 100.0
WIDTH = 500.0
"""5 px; the kernel ends at 15."""
INSIDE = slice(15, 45)
"""Pixels that see whole kernels."""
DAYS = np.arange(41) * 12
SIGMA = 36.0
"""Default temporal width: three intervals of 12 days."""
MIDDLE = 20
PLANE = np.broadcast_to(np.linspace(-1, 1, SIZE), (SIZE, SIZE))
"""Smooth in space: unchanged by a Gaussian where its kernel is whole."""


def make_cube(dates, days=DAYS, *, reach=2, crs="EPSG:32613", corner=(5e5, 2e6)):
    """Pairs of each date with its next `reach`; `dates` has shape (dates, y, x)."""
    times = np.datetime64("2020-01-01", "ns") + days * np.timedelta64(1, "D")
    first, second = np.triu_indices(len(days), 1)
    near = second - first <= reach
    first, second = first[near], second[near]
    step = SPACING if crs == "EPSG:32613" else 0.001
    left, bottom = corner
    grid = GeoBox.from_bbox(
        (left, bottom, left + SIZE * step, bottom + SIZE * step),
        crs=crs,
        resolution=step,
    )
    phase = (dates[second] - dates[first]).astype("float32")
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase),
            # No constants: the medians of noise would be some.
            "phase_quantiles": (("pair", "quantile"), np.zeros((len(phase), 5))),
        },
        coords={
            **xr_coords(grid),
            "reference_time": ("pair", times[first]),
            "secondary_time": ("pair", times[second]),
        },
        attrs={"wavelength": 0.05546576},
    )


def corrected(cube, **options):
    options = {"spatial_width": WIDTH} | options
    found = correct(cube, "temporal-filter", **options)["corrected_phase"]
    return found.values


def series(cube, phase):
    """Dates of a phase, rad, less that of the first."""
    cube = cube.assign(unwrapped_phase=(("pair", "y", "x"), phase))
    stack = stack_of(cube)
    return dates_of(cube, {"y": slice(0, SIZE), "x": slice(0, SIZE)}, stack)


def lines(values, days, width):
    """Brute force: at every date the value of the line fitted around it."""
    found = []
    for day in days:
        near = np.abs(days - day) <= 4 * width
        weight = np.exp(-((days[near] - day) ** 2) / (2 * width**2))
        fit = np.polyfit(days[near] - day, values[near], 1, w=np.sqrt(weight))
        found.append(fit[1])
    return np.array(found)


def test_steady_motion_is_kept_exactly_at_irregular_dates_with_gaps():
    rng = np.random.default_rng(0)
    days = np.cumsum(rng.choice([6, 12, 24, 60], 20))
    cube = make_cube(days[:, None, None] * 0.1 * rng.normal(size=PLANE.shape), days)
    holes = rng.random(cube["unwrapped_phase"].shape) < 0.2
    cube["unwrapped_phase"] = cube["unwrapped_phase"].where(~holes)
    np.testing.assert_allclose(corrected(cube), cube["unwrapped_phase"], atol=1e-5)


def test_what_is_left_of_smooth_noise_is_the_line_around_each_date():
    rng = np.random.default_rng(1)
    days = np.cumsum(rng.choice([6, 12, 24], 25))
    noise = rng.normal(size=25)
    cube = make_cube(noise[:, None, None] * PLANE, days)
    left = series(cube, corrected(cube, temporal_width=30.0))[:, INSIDE, INSIDE]
    expected = lines(noise, days, 30.0)
    expected = (expected - expected[0])[:, None, None] * PLANE[INSIDE, INSIDE]
    np.testing.assert_allclose(left, expected, atol=1e-5)


def test_noise_of_a_date_is_reduced_by_the_factor_of_the_kernel():
    r"""Of variance 1 is left that of a Gaussian mean, 1 / (2 sqrt(pi) sigma)."""
    noise = (np.arange(41) == MIDDLE)[:, None, None] * PLANE
    cube = make_cube(noise)
    left = series(cube, corrected(cube))[:, 30, 40] / PLANE[30, 40]
    assert left.sum() == pytest.approx(1, abs=1e-3)
    variance = 1 / (2 * np.sqrt(np.pi) * SIGMA / 12)
    assert (left**2).sum() == pytest.approx(variance, rel=2e-3)


def test_spatially_white_noise_is_not_atmosphere():
    """Of it, the Gaussian sees 1 / (4 pi sigma^2) of the variance."""
    noise = np.random.default_rng(2).normal(size=(41, SIZE, SIZE))
    cube = make_cube(noise)
    raw = cube["unwrapped_phase"].values
    removed = series(cube, raw - corrected(cube))
    removed -= removed.mean(0)
    rough = 1 - 2 / (np.sqrt(2 * np.pi) * 3) + 1 / (2 * np.sqrt(np.pi) * 3)
    expected = rough / (4 * np.pi * (WIDTH / SPACING) ** 2)
    found = removed[10:31, INSIDE, INSIDE].var()
    assert found == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("period", [150.0, 365.25])
def test_a_cycle_loses_what_the_docstring_says(period):
    cycle = np.cos(2 * np.pi * (DAYS - DAYS[MIDDLE]) / period)
    cube = make_cube(cycle[:, None, None] * PLANE)
    left = series(cube, corrected(cube))[:, 30, 40] / PLANE[30, 40]
    inner = slice(13, 28)  # dates that see whole kernels
    kept = np.polyfit(cycle[inner], left[inner], 1)[0]
    assert kept == pytest.approx(np.exp(-2 * np.pi**2 * SIGMA**2 / period**2), abs=0.01)


@pytest.mark.parametrize(
    ("crs", "corner", "ratio"),
    [("EPSG:32613", (5e5, 2e6), 1.0), ("EPSG:4326", (10.0, 60.0), 0.501)],
)
def test_spatial_width_is_in_metres(crs, corner, ratio):
    """Also on a geographic grid, where pixels are narrow at 60 degrees."""
    dates = np.zeros((41, SIZE, SIZE))
    dates[MIDDLE, 30, 30] = 1
    cube = make_cube(dates, crs=crs, corner=corner)
    change = cube["unwrapped_phase"].values - corrected(cube, spatial_width=300.0)
    removed = series(cube, change)[MIDDLE]
    axis = np.arange(SIZE) - 30
    rows = np.sqrt((removed.sum(1) * axis**2).sum() / removed.sum())
    columns = np.sqrt((removed.sum(0) * axis**2).sum() / removed.sum())
    step = SPACING if ratio == 1 else 111.4  # m of a row
    assert rows * step == pytest.approx(300 * np.sqrt(0.973), rel=0.02)  # cut at 3
    assert columns == pytest.approx(rows / ratio, rel=0.02)


def test_gaps_are_bridged_by_the_neighbours():
    """A date is estimated where it has no data, for the pairs that have."""
    noise = (np.arange(41) == MIDDLE)[:, None, None] * np.ones_like(PLANE)
    cube = make_cube(noise)
    late = (
        cube["secondary_time"].values == np.unique(cube["secondary_time"])[MIDDLE - 1]
    )
    early = cube["reference_time"].values == np.unique(cube["reference_time"])[MIDDLE]
    phase = cube["unwrapped_phase"].values.copy()
    phase[(late | early), 28:33, 28:33] = np.nan
    cube["unwrapped_phase"] = ("pair", "y", "x"), phase
    found = corrected(cube)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(phase))
    whole = corrected(make_cube(noise))
    np.testing.assert_allclose(
        found[~np.isnan(phase)], whole[~np.isnan(phase)], atol=0.05
    )


@pytest.fixture(scope="module")
def scene():
    scene = simulate_scene(size=96, dates=12, gaps=0.2, seed=8)
    return scene.cube.isel(x=slice(0, 80))


def test_blocks_and_regions_do_not_matter(scene):
    whole = corrected(scene)
    assert np.isfinite(whole).mean() > 0.7
    np.testing.assert_array_equal(
        np.isnan(whole), np.isnan(scene["unwrapped_phase"].values)
    )
    np.testing.assert_array_equal(corrected(scene, block=23), whole)
    region = {"y": slice(11, 50), "x": slice(29, 75)}
    part = corrected(scene, region=region, block=17)
    np.testing.assert_array_equal(part, whole[:, 11:50, 29:75])


def test_closure_is_kept(scene):
    triplets = closure_triplets(scene.reference_time, scene.secondary_time)
    before, after = (
        triplet_closure(phase.astype("float64"), triplets)
        for phase in (scene["unwrapped_phase"].values, corrected(scene))
    )
    assert np.nanstd(after - before) > 0 and np.nanstd(before) > 0.1
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_default_width_is_recorded(scene):
    attributes = correct(scene, "temporal-filter")["corrected_phase"].attrs
    assert attributes["temporal_width_days"] == "36"


def test_pairs_apart_from_the_rest_are_passed_through():
    dates = np.random.default_rng(3).normal(size=(9, 1, 1)) * PLANE
    cube = make_cube(dates, np.arange(9) * 12, reach=1)
    cube = cube.isel(pair=[0, 1, 2, 3, 4, 6, 7])  # dates 0..5 and 6..8
    with pytest.warns(UserWarning, match="2 pairs .* not linked to the most dates"):
        result = correct(cube, "temporal-filter")
    status = [CORRECTED] * 5 + [PASSED_THROUGH] * 2
    np.testing.assert_array_equal(result["correction_status"], status)
    found = result["corrected_phase"].values
    np.testing.assert_array_equal(found[5:], cube["unwrapped_phase"][5:])
    assert np.abs(found[:5] - cube["unwrapped_phase"].values[:5]).max() > 0.1


def test_bad_input():
    cube = make_cube(np.zeros((41, SIZE, SIZE)))
    with pytest.raises(ValueError, match=r"spatial_width=0.0 must be a positive"):
        corrected(cube, spatial_width=0.0)
    with pytest.raises(ValueError, match=r"temporal_width=-3 must be a positive"):
        corrected(cube, temporal_width=-3)
    with pytest.raises(ValueError, match="link 2 dates: temporal-filter needs 3"):
        corrected(cube.isel(pair=[0]))
    with pytest.raises(ValueError, match="no regular grid"):
        corrected(cube.drop_vars(["spatial_ref", "y", "x"]))
