"""What all classical corrections have in common: the cut, gaps, resuming, bad input."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.correct import CORRECTED, PASSED_THROUGH, correct
from cube_denoise.corrections import CLASSICAL, find_correction
from cube_denoise.ingest import ingest_dataset
from cube_denoise.simulate import Scene, simulate_scene
from cube_denoise.steps import correct_cube

NAMES = sorted(set(CLASSICAL) - {"weather"})
"""``weather`` needs files; it has tests of its own for all of this."""
WHOLE = [n for n in NAMES if n != "wiener" and find_correction(n).whole_stack]
SINGLE = [n for n in NAMES if n != "wiener" and n not in WHOLE]
REGION = {"y": slice(21, 75), "x": slice(30, 96)}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Gaps everywhere, one pair without data."""
    made = simulate_scene(size=96, dates=9, max_temporal_baseline=24, gaps=0.1, seed=6)
    made.cube["unwrapped_phase"][4] = np.nan
    return made


@pytest.fixture(scope="module")
def stack(scene: Scene) -> xr.Dataset:
    """All pairs hold data: ingest leaves out those without."""
    return scene.cube.isel(pair=[k for k in range(scene.cube.sizes["pair"]) if k != 4])


def quick(names: list[str], *few: str) -> list:
    """Names, all but a few for the slow tests."""
    assert set(few) <= set(names)
    slow = pytest.mark.slow
    return [n if n in few else pytest.param(n, marks=slow) for n in names]


def options_of(name: str, scene: Scene) -> dict:
    return {"truth": scene.truth} if name == "wiener" else {}


@pytest.mark.parametrize("name", NAMES)
def test_the_cut_does_not_matter(scene: Scene, name: str) -> None:
    options = options_of(name, scene)
    whole = correct(scene.cube, name, **options)["corrected_phase"].values
    assert np.nanstd(whole - scene.cube["unwrapped_phase"].values) > 0.01
    cut = correct(scene.cube, name, block=37, **options)["corrected_phase"].values
    np.testing.assert_array_equal(cut, whole)
    part = correct(scene.cube, name, region=REGION, block=50, **options)
    expected = whole[:, REGION["y"], REGION["x"]]
    np.testing.assert_array_equal(part["corrected_phase"].values, expected)


@pytest.mark.parametrize("name", NAMES)
def test_gaps_stay_and_nothing_else_is_lost(scene: Scene, name: str) -> None:
    before = scene.cube.copy(deep=True)
    found = correct(scene.cube, name, **options_of(name, scene)).compute()
    phase = found["corrected_phase"]
    np.testing.assert_array_equal(
        np.isnan(phase), np.isnan(scene.cube["unwrapped_phase"])
    )
    assert phase.dtype == "float32" and phase.attrs["units"] == "rad"
    assert phase.attrs["method"] == name
    expected = np.full(scene.cube.sizes["pair"], CORRECTED)
    expected[4] = PASSED_THROUGH
    np.testing.assert_array_equal(found["correction_status"], expected)
    xr.testing.assert_identical(scene.cube, before)


def fit_for(name: str, cube: xr.Dataset) -> xr.Dataset:
    """The cube; for ``ica``, with maps that every one of its runs tells apart.

    Of turbulence alone, which is nearly Gaussian, some runs of FastICA wander: there
    the last digit of the phase decides whether, and where, they converge.
    """
    if name != "ica":
        return cube
    y, x = np.mgrid[: cube.sizes["y"], : cube.sizes["x"]]
    maps = np.stack(
        [
            np.exp(-((y - 24) ** 2 + (x - 27) ** 2) / 90),
            np.sign(np.sin(x / 3.1) * np.sin(y / 2.3)),
            np.sign(np.sin(2 * np.pi * x / 20)),
        ]
    )
    maps -= maps.mean((1, 2), keepdims=True)
    maps /= maps.std((1, 2), keepdims=True)
    times = [cube[n].values for n in ("reference_time", "secondary_time")]
    dates = np.unique(times)
    courses = np.random.default_rng(1).normal(0, 5, (dates.size, 3))
    early, late = (courses[np.searchsorted(dates, t)] for t in times)
    change = np.tensordot(late - early, maps, 1).astype("float32")
    return cube.assign(unwrapped_phase=cube["unwrapped_phase"] + change)


@pytest.mark.parametrize("name", NAMES)
def test_the_constant_of_a_pair_changes_nothing_else(scene: Scene, name: str) -> None:
    """Interferograms are known up to a constant."""
    options = options_of(name, scene)
    cube = fit_for(name, scene.cube)
    constants = np.random.default_rng(0).normal(0, 20, cube.sizes["pair"])
    moved = cube.assign(
        unwrapped_phase=cube["unwrapped_phase"]
        + constants[:, None, None].astype("float32")
    )
    one, other = (
        correct(c, name, **options)["corrected_phase"].values for c in (cube, moved)
    )
    assert np.nanstd(one - cube["unwrapped_phase"].values) > 0.01
    change = np.delete(other - one, 4, axis=0)
    apart = change - np.nanmedian(change, (1, 2), keepdims=True)
    assert np.nanmax(np.abs(apart)) < 2e-3


@pytest.mark.parametrize("name", quick(WHOLE, "ica", "temporal-filter"))
def test_new_pairs_make_a_stack_method_start_over(
    stack: xr.Dataset, name: str, tmp_path: Path
) -> None:
    stack = fit_for(name, stack)
    later = stack["secondary_time"].values > stack["secondary_time"].values[8]
    twice = tmp_path / "twice"
    ingest_dataset(stack.isel(pair=~later), twice, chunk=32, shard=64)
    correct_cube(twice, name, workers=Workers(count=2))
    ingest_dataset(stack, twice)
    report = correct_cube(twice, name, workers=Workers(count=1))
    assert report.done == stack.sizes["pair"]
    one = correct(stack, name)["corrected_phase"]
    other = store.open_cube(twice)["corrected_phase"]
    order = [
        list(zip(c["reference_time"].values, c["secondary_time"].values, strict=True))
        for c in (one, other)
    ]
    place = [order[1].index(pair) for pair in order[0]]
    np.testing.assert_allclose(other.values[place], one.values, atol=2e-4)
    again = correct_cube(twice, name)
    assert again.done == 0 and "all pairs are corrected" in again.notes[0]


@pytest.mark.parametrize("name", quick(SINGLE, "phase-elevation"))
def test_only_new_pairs_are_corrected_where_that_is_enough(
    stack: xr.Dataset, name: str, tmp_path: Path
) -> None:
    url = tmp_path / "cube"
    ingest_dataset(stack.isel(pair=slice(0, 6)), url, chunk=32, shard=64)
    assert correct_cube(url, name).done == 6
    ingest_dataset(stack, url)
    assert correct_cube(url, name).done == stack.sizes["pair"] - 6
    known = store.open_cube(url)
    whole = correct(known, name)["corrected_phase"].values
    np.testing.assert_array_equal(known["corrected_phase"].values, whole)


@pytest.mark.parametrize("name", ["pca", pytest.param("ramp", marks=pytest.mark.slow)])
def test_processes_give_what_threads_give(
    stack: xr.Dataset, name: str, tmp_path: Path
) -> None:
    url = tmp_path / "cube"
    ingest_dataset(stack, url, chunk=32, shard=64)
    found = []
    for scheduler in ("threads", "processes"):
        correct_cube(url, name, branch=scheduler, workers=Workers(scheduler, count=2))
        cube = store.open_cube(url, branch=scheduler)
        found.append(cube["corrected_phase"].values)
    np.testing.assert_array_equal(*found)


def test_other_options_start_over(stack: xr.Dataset, tmp_path: Path) -> None:
    url = tmp_path / "cube"
    ingest_dataset(stack, url, chunk=32, shard=64)
    correct_cube(url, "ramp")
    assert correct_cube(url, "ramp").done == 0
    report = correct_cube(url, "ramp", surface="quadratic")
    assert report.done == stack.sizes["pair"]
    known = store.open_cube(url)["corrected_phase"].attrs
    assert "quadratic" in known["method_options"]


@pytest.mark.parametrize(
    ("change", "method", "options", "message"),
    [
        (lambda c: c, "ramps", {}, "method='ramps' is not a classical correction"),
        (lambda c: c, "ramp", {"degree": 2}, "'ramp' has the options surface"),
        (lambda c: c, "ramp", {"surface": "cubic"}, "surface='cubic' must be one of"),
        (lambda c: c, "phase-elevation", {"degree": 4}, "degree=4 must be 1, 2 or 3"),
        (
            lambda c: c.drop_vars("elevation"),
            "phase-elevation",
            {},
            "must have 'elevation' for phase-elevation",
        ),
        (
            lambda c: c.assign(elevation=c["elevation"].shift(x=3) * np.nan),
            "phase-elevation",
            {},
            "elevation has no data on the grid",
        ),
        (
            lambda c: c.assign(
                unwrapped_phase=c["unwrapped_phase"].assign_attrs(units="mm")
            ),
            "ramp",
            {},
            "unwrapped_phase is in 'mm': it must be in rad",
        ),
        (lambda c: c.isel(pair=slice(0, 0)), "ramp", {}, "cube has no pairs"),
    ],
)
def test_bad_input(scene: Scene, change, method, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        correct(change(scene.cube), method, **options)


def test_a_dem_on_another_grid_is_found_out(scene: Scene) -> None:
    """Assigning aligns it: what does not meet a pixel becomes NaN."""
    dem = scene.cube["elevation"]
    moved = dem.assign_coords(x=dem["x"] + 0.5 * float(dem["x"][1] - dem["x"][0]))
    cube = scene.cube.drop_vars("elevation").assign(elevation=moved)
    for name in ("phase-elevation", "local-phase-elevation"):
        with pytest.raises(ValueError, match="no data on the grid of the cube"):
            correct(cube, name)


def test_pairs_without_data_are_named(scene: Scene) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        correct(scene.cube, "ramp")
    (said,) = [str(w.message) for w in caught if "passed through" in str(w.message)]
    assert said.startswith("1 pairs hold no data and are passed through uncorrected: ")
