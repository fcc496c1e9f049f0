"""Local phase-elevation correction against slopes and deformation put in."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.conventions import displacement_to_phase
from cube_denoise.correct import CORRECTED, PASSED_THROUGH, correct, plan_correction
from cube_denoise.corrections import local_elevation
from cube_denoise.network import closure_triplets, pair_indices, triplet_closure
from cube_denoise.simulate import simulate_scene

SHAPE = (150, 170)
"""No multiple of the cells."""
AXES = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
ROWS, COLUMNS = AXES
HILLS = 400 * (
    np.sin(2 * np.pi * (COLUMNS + 0.3 * ROWS) / 31) + np.sin(2 * np.pi * ROWS / 37)
)
"""Relief of wavelengths that the smallest window nearly sees, m."""
DAYS = np.arange(20) * 12
YEARS = DAYS / 365.25
ACROSS = COLUMNS / SHAPE[1] * 2 - 1


def make_cube(dates, elevation=HILLS, *, reach=3):
    """Pairs of each date with its next `reach`; `dates` has shape (dates, y, x)."""
    times = np.datetime64("2020-01-01", "ns") + DAYS * np.timedelta64(1, "D")
    first, second = np.triu_indices(len(dates), 1)
    near = second - first <= reach
    first, second = first[near], second[near]
    phase = (dates[second] - dates[first]).astype("float32")
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase),
            "elevation": (("y", "x"), elevation.astype("float32")),
        },
        coords={
            "reference_time": ("pair", times[first]),
            "secondary_time": ("pair", times[second]),
        },
        attrs={"wavelength": 0.05546576},
    )


def corrected(cube, method="local-phase-elevation", **options):
    return correct(cube, method, **options)["corrected_phase"].values


def spread(phase):
    """Standard deviation of each pair, rad, averaged."""
    return float(np.nanstd(phase, (1, 2)).mean())


def random_dates(seed=0):
    """A factor for every date, shape (dates, 1, 1)."""
    return np.random.default_rng(seed).normal(size=(len(DAYS), 1, 1))


@pytest.mark.parametrize("guarded", [False, True])
def test_slope_that_varies_is_removed_where_one_slope_fails(guarded):
    cube = make_cube(random_dates() * 6 * ACROSS * HILLS / 1000)
    before = spread(cube["unwrapped_phase"])
    assert spread(corrected(cube, "phase-elevation")) > 0.9 * before
    assert spread(corrected(cube, guarded=guarded)) < 0.15 * before


@pytest.mark.parametrize("guarded", [False, True])
def test_deformation_that_ignores_the_terrain_is_kept(guarded):
    bowl = -60 * np.exp(-((ROWS - 70) ** 2 + (COLUMNS - 90) ** 2) / (2 * 15**2))
    delay = random_dates() * 4 * HILLS / 1000
    cube = make_cube(YEARS[:, None, None] * bowl + delay)
    after = rate(cube, corrected(cube, guarded=guarded))
    inside = bowl < -10
    assert np.polyfit(bowl[inside], after[inside], 1)[0] == pytest.approx(1, abs=0.06)


def rate(cube, phase):
    """Stacking rate, rad/yr."""
    first, second, _ = pair_indices(cube.reference_time, cube.secondary_time)
    span = YEARS[second] - YEARS[first]
    return np.tensordot(span, phase.astype("float64"), 1) / (span**2).sum()


def test_guard_keeps_the_subsidence_of_a_valley():
    """Deformation has the shape of the terrain: without the guard it is lost."""
    shape = np.exp(-((ROWS - 70) ** 2 + (COLUMNS - 90) ** 2) / (2 * 12**2))
    terrain = HILLS / 2 - 400 * shape
    delay = random_dates() * 4 * terrain / 1000
    cube = make_cube(YEARS[:, None, None] * -20 * shape + delay, terrain)
    inside = shape > 0.3
    slope = {}
    for guarded in (False, True):
        after = rate(cube, corrected(cube, guarded=guarded))
        slope[guarded] = np.polyfit(-20 * shape[inside], after[inside], 1)[0]
    assert slope[False] < 0.75
    assert slope[True] > slope[False] + 0.2
    assert slope[True] == pytest.approx(1, abs=0.15)


def test_flat_ground_is_left_alone():
    rng = np.random.default_rng(1)
    cube = make_cube(rng.normal(size=(4, *SHAPE)), np.full(SHAPE, 120.0))
    np.testing.assert_array_equal(corrected(cube), cube["unwrapped_phase"])


def test_the_less_relief_the_less_is_removed():
    """The slope falls with the square of the relief that is missing."""
    std = HILLS.std()
    for share in (0.5, 0.1):
        terrain = HILLS * share * 100 / std
        cube = make_cube(random_dates()[:3] * terrain, terrain)
        removed = spread(
            cube["unwrapped_phase"].values - corrected(cube, guarded=False)
        )
        expected = share**2 * spread(cube["unwrapped_phase"])
        assert removed == pytest.approx(expected, rel=0.15)


def test_longer_wavelengths_than_the_windows_stay():
    """A delay that follows a plain slope of the ground, beside one of the hills."""
    shape = (30, 900)
    columns = np.arange(900) * np.ones((30, 1))
    hills = 300 * np.sin(2 * np.pi * columns / 40)
    plain = 2 * columns
    cube = make_cube(random_dates()[:3] * (hills + plain) / 1000, hills + plain)
    cube = cube.isel(y=slice(0, shape[0]))
    first, second, _ = pair_indices(cube.reference_time, cube.secondary_time)
    factor = np.diff(random_dates()[:3, 0, 0])[0]
    assert (first[0], second[0]) == (0, 1)
    left = corrected(cube, guarded=False)[0][:, 150:750] / factor * 1000
    stays, goes = (
        np.polyfit(part[0, 150:750], left.mean(0), 1)[0] for part in (plain, hills)
    )
    assert stays == pytest.approx(1, abs=0.05)
    assert abs(goes) < 0.1


def test_slope_is_the_fit_in_the_smallest_window_with_relief(monkeypatch):
    """Brute force, before weights and smoothing."""
    monkeypatch.setattr(local_elevation, "ROUNDS", 0)
    monkeypatch.setattr(local_elevation, "_smooth", lambda cells: cells)
    rng = np.random.default_rng(2)
    terrain = HILLS * (COLUMNS / SHAPE[1]) ** 2  # relief grows to the right
    cube = make_cube(rng.normal(size=(2, *SHAPE)), terrain)
    phase = cube["unwrapped_phase"].values[0]
    phase[rng.random(SHAPE) < 0.3] = np.nan
    height = cube["elevation"].values.astype("float64") / 1000
    origin = 1000 * float(np.median(height))
    ones = np.ones((19, 22))
    found = local_elevation._slopes(cube, 0, origin=origin, relief=0.1, guard=ones)
    sides = set()
    for row, column in [(9, 6), (9, 9), (2, 12), (18, 21), (9, 18)]:
        for side in (3, 7, 13, 25):
            y, x = (
                slice(max(8 * (c - side // 2), 0), 8 * (c + side // 2 + 1))
                for c in (row, column)
            )
            valid = np.isfinite(phase[y, x])
            h, p = height[y, x][valid], phase[y, x][valid]
            if valid.sum() >= 200 and h.std() >= 0.1:
                break
        assert h.std() >= 0.1
        sides.add(side)
        expected = np.polyfit(h, p, 1)[0]
        assert found[row, column] == pytest.approx(expected, rel=1e-4)
    assert len(sides) > 2


def test_unwrapping_errors_count_less(monkeypatch):
    """A hill top two cycles off: nearer to the truth than by least squares."""
    delay = random_dates()[:2] * 4 * HILLS / 1000
    cube = make_cube(delay + 0.1 * np.random.default_rng(3).normal(size=(2, *SHAPE)))
    clean = corrected(cube, guarded=False)
    wrong = cube["unwrapped_phase"].values.copy()
    top = (HILLS > 500) & (np.abs(COLUMNS - 85) < 25)
    wrong[:, top] += 4 * np.pi
    cube["unwrapped_phase"] = ("pair", "y", "x"), wrong
    robust = corrected(cube, guarded=False)
    monkeypatch.setattr(local_elevation, "ROUNDS", 0)
    plain = corrected(cube, guarded=False)
    errors = [np.abs(r - clean)[:, ~top].mean() for r in (robust, plain)]
    assert errors[0] < 0.6 * errors[1]


def test_wider_than_a_read_window():
    """The seam at 1024 px is not seen."""
    columns = np.arange(1100) * np.ones((40, 1))
    hills = 300 * np.sin(2 * np.pi * columns / 40)
    cube = make_cube(random_dates()[:3] * hills / 100, hills)
    raw, left = cube["unwrapped_phase"].values, corrected(cube)
    assert np.abs(left).max() < 0.1 * np.abs(raw).max()
    jump = np.abs(np.diff(left[..., 1022:1026])).max()
    assert jump < 0.01 * np.abs(np.diff(raw)).max()


# --- real-like stacks --------------------------------------------------------------


@pytest.fixture(scope="module")
def scene():
    scene = simulate_scene(size=128, dates=10, gaps=0.15, seed=8)
    return scene._replace(cube=scene.cube.isel(x=slice(0, 115)))


@pytest.mark.parametrize("guarded", [False, True])
def test_blocks_and_regions_do_not_matter(scene, guarded):
    whole = corrected(scene.cube, guarded=guarded)
    np.testing.assert_array_equal(
        np.isnan(whole), np.isnan(scene.cube["unwrapped_phase"].values)
    )
    found = corrected(scene.cube, guarded=guarded, block=23)
    np.testing.assert_array_equal(found, whole)
    region = {"y": slice(11, 50), "x": slice(29, 115)}
    part = corrected(scene.cube, guarded=guarded, region=region, block=17)
    np.testing.assert_array_equal(part, whole[:, 11:50, 29:])


def test_error_of_a_simulated_stack_falls(scene):
    cube = scene.cube
    first, second, _ = pair_indices(cube.reference_time, cube.secondary_time)
    truth = displacement_to_phase(
        scene.truth["displacement"].values[:, :, :115].astype("float64"),
        cube.wavelength,
    )
    truth = truth[second] - truth[first]
    after = spread(corrected(cube) - truth)
    assert after < 0.97 * spread(cube["unwrapped_phase"].values - truth)


def test_closure_is_nearly_kept(scene):
    """What the docstring says: not quite."""
    cube = scene.cube
    raw, done = cube["unwrapped_phase"].values, corrected(cube)
    triplets = closure_triplets(cube.reference_time, cube.secondary_time)
    opened = triplet_closure(done.astype("float64") - raw, triplets)
    assert 0 < spread(opened) < 0.3 * spread(done - raw)


def test_unguarded_pairs_stand_alone(scene):
    """Corrected one by one, and the same in a stack of fewer."""
    job, _ = plan_correction(
        scene.cube, "local-phase-elevation", guarded=False, pairs=[3], block=64
    )
    assert {(w["pair"].start, w["pair"].stop) for w in job.windows} == {(3, 4)}
    whole = corrected(scene.cube, guarded=False)
    few = corrected(scene.cube.isel(pair=[3, 5]), guarded=False)
    np.testing.assert_array_equal(few, whole[[3, 5]])
    assert not np.array_equal(corrected(scene.cube)[3], whole[3], equal_nan=True)


def test_missing_values():
    cube = make_cube(random_dates()[:4] * HILLS / 1000)
    cube["unwrapped_phase"][2] = np.nan
    cube["elevation"][:, :17] = np.nan
    with pytest.warns(UserWarning) as caught:
        result = correct(cube, "local-phase-elevation")
    told = " ".join(str(w.message) for w in caught)
    assert "elevation is missing at 10.0%" in told and "1 pairs hold no data" in told
    status = np.full(cube.sizes["pair"], CORRECTED)
    status[2] = PASSED_THROUGH
    np.testing.assert_array_equal(result["correction_status"], status)
    lost = np.isnan(result["corrected_phase"].values)
    assert lost[2].all() and lost[:, :, :17].all()
    assert not np.delete(lost, 2, 0)[:, :, 17:].any()


def test_bad_input():
    cube = make_cube(random_dates()[:3] * HILLS)
    with pytest.raises(ValueError, match="relief=0 must be a positive"):
        corrected(cube, relief=0)
    with pytest.raises(ValueError, match="elevation"):
        corrected(cube.drop_vars("elevation"))
