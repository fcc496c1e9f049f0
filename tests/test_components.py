"""Component separation: hand-made stacks whose components are known exactly."""

import itertools
import json
import pickle

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from benchmarks.mexico_city import FOLDER, effects, mexico_cube
from cube_denoise import store
from cube_denoise.conventions import displacement_to_phase
from cube_denoise.correct import PASSED_THROUGH, correct
from cube_denoise.corrections import components, find_correction
from cube_denoise.corrections.components import growth, sample_dates
from cube_denoise.corrections.correction import in_turn
from cube_denoise.corrections.separation import NUGGET, Unwanted
from cube_denoise.corrections.series import stack_of
from cube_denoise.network import closure_triplets, triplet_closure
from cube_denoise.simulate import simulate_scene

DATES, SHAPE = 16, (50, 60)
YEARS = np.arange(DATES) * 12 / 365.25
STEADY = YEARS / YEARS[-1]


def flat(course):
    """A course without mean and trend, of unit variance."""
    design = np.column_stack([np.ones(DATES), YEARS])
    course = course - design @ np.linalg.lstsq(design, course)[0]
    return course / course.std()


def two_random_courses(seed=0):
    rng = np.random.default_rng(seed)
    one, two = flat(rng.normal(size=DATES)), flat(rng.normal(size=DATES))
    return np.stack([one, flat(two - one * (one @ two) / (one @ one))])


def three_maps():
    """Maps on disjoint thirds of the scene, zero elsewhere in the median."""
    y, x = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij")
    centres = ((12, 12), (12, 45), (38, 30))
    bowls = [np.exp(-((y - r) ** 2 + (x - c) ** 2) / 32) for r, c in centres]
    waves = [b * np.cos(x - c) for b, (_, c) in zip(bowls, centres, strict=True)]
    # Without mean, so without correlation.
    return np.stack(
        [
            bowls[0],
            *(
                w - b * w.sum() / b.sum()
                for b, w in zip(bowls[1:], waves[1:], strict=True)
            ),
        ]
    )


def cube_of(dates, *, reach=3, constants=3.0, seed=5, **extra):
    """Cube of all pairs up to `reach` dates apart, each with a constant of its own."""
    count = len(dates)
    pairs = [
        (i, j) for i in range(count) for j in range(i + 1, min(i + 1 + reach, count))
    ]
    first, second = np.array(pairs).T
    phase = dates[second] - dates[first]
    rng = np.random.default_rng(seed)
    phase = phase + constants * rng.normal(size=(len(pairs), 1, 1))
    times = np.datetime64("2023-01-05", "ns") + np.arange(count) * np.timedelta64(
        12, "D"
    )
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase.astype("float32")),
            **{n: (("y", "x"), v.astype("float32")) for n, v in extra.items()},
        },
        coords={
            "reference_time": ("pair", times[first]),
            "secondary_time": ("pair", times[second]),
        },
        attrs={"wavelength": 0.05546576},
    )


def pairs_of(cube, dates):
    return cube_of(dates, constants=0.0)["unwrapped_phase"].values.astype("float64")


def centred(phase):
    return phase - np.nanmean(phase, (1, 2), keepdims=True)


def verdicts_of(corrected):
    return json.loads(corrected.attrs["verdicts"])


RANDOM = np.tensordot(
    two_random_courses(), three_maps()[1:] * [[[6.0]], [[3.0]]], (0, 0)
)
GROWING = np.multiply.outer(STEADY, 12 * three_maps()[0])


def test_rank_three_stack_is_taken_apart():
    cube = cube_of(GROWING + RANDOM)
    corrected = correct(cube, "pca", components=3)["corrected_phase"].compute()
    verdicts = verdicts_of(corrected)
    assert sorted(v["verdict"] for v in verdicts) == ["kept", "removed", "removed"]
    assert [v["component"] for v in verdicts] == [1, 2, 3]
    assert sum(v["variance"] for v in verdicts) == pytest.approx(1, abs=1e-3)
    left, truth = (
        centred(corrected.values.astype("f8")),
        centred(pairs_of(cube, GROWING)),
    )
    assert np.vdot(left, truth) / np.vdot(truth, truth) == pytest.approx(1, abs=2e-3)
    before = np.sqrt((centred(pairs_of(cube, RANDOM)) ** 2).mean())
    assert np.sqrt(((left - truth) ** 2).mean()) < 0.02 * before


def estimator(sample, count, drift=None):
    """`Unwanted` of the leading principal components."""
    u, size, v = np.linalg.svd(sample.phase, full_matrices=False)
    pixels = sample.phase.shape[1]
    maps = np.sqrt(pixels) * v[:count]
    if drift is None:
        drift = np.stack([np.ones(DATES), YEARS], axis=1)
    return Unwanted(
        u[:, :count] * size[:count] / np.sqrt(pixels),
        maps @ sample.phase.T / pixels,
        sample.phase @ sample.phase.T / pixels,
        drift,
    )


def rough_stack(rate=0.0):
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(DATES, *SHAPE)).cumsum(1).cumsum(2) / 30
    cube = cube_of(noise + np.multiply.outer(STEADY, rate * three_maps()[0]))
    return sample_dates(cube, stack_of(cube), in_turn)


def test_steady_motion_is_untouched_whatever_else_is_removed():
    """Motion too slow to be a component of its own, below the components of noise."""
    sample = rough_stack()
    unwanted = estimator(sample, 8)
    steady = np.multiply.outer(YEARS, np.linspace(-1, 1, sample.phase.shape[1])) + 3
    np.testing.assert_allclose(unwanted.of(steady), 0, atol=1e-8)
    left = sample.phase - unwanted.of(sample.phase)
    moved = sample.phase + steady - unwanted.of(sample.phase + steady)
    np.testing.assert_allclose(moved - left, steady, atol=1e-8)
    assert left.std() < 0.8 * sample.phase.std()


def test_without_a_rate_it_is_the_projection_on_the_components():
    sample = rough_stack()
    unwanted = estimator(sample, 3, drift=np.ones((DATES, 1)))
    expected = (
        unwanted.courses
        @ unwanted.shared
        @ np.linalg.pinv(unwanted.covariance, rcond=1e-10)
        @ sample.phase
    )
    found = unwanted.of(sample.phase)
    assert np.abs(found - expected).max() < 1e-3 * expected.std()


def test_it_is_the_best_unbiased_linear_estimate():
    """Weights minimise the expected error under unbiasedness: the KKT system."""
    sample = rough_stack()
    unwanted = estimator(sample, 2)
    there = np.ones(DATES, bool)
    there[[2, 7, 8]] = False
    C = unwanted.covariance + NUGGET * np.trace(unwanted.covariance) / DATES * np.eye(
        DATES
    )
    C, F = C[np.ix_(there, there)], unwanted.drift[there]
    system = np.block([[C, F], [F.T, np.zeros((2, 2))]])
    right = np.concatenate([unwanted.shared[:, there].T, np.zeros((2, 2))])
    expected = np.linalg.solve(system, right)[: there.sum()].T
    np.testing.assert_allclose(unwanted.weights(there), expected, rtol=1e-6, atol=1e-9)


def test_every_pixel_by_itself():
    sample = rough_stack()
    unwanted = estimator(sample, 2)
    rng = np.random.default_rng(1)
    phase = sample.phase[:, :300].copy()
    phase[rng.random(phase.shape) < 0.15] = np.nan
    phase[3:, 0] = np.nan
    phase[:, 1] = np.nan
    found = unwanted.of(phase)
    assert (found[:, :2] == 0).all()
    for k in range(2, 300):
        there = np.isfinite(phase[:, k])
        expected = unwanted.courses @ (unwanted.weights(there) @ phase[there, k])
        np.testing.assert_allclose(found[:, k], expected, atol=1e-9)
    for part in (slice(0, 1), slice(7, 8), slice(11, 300)):
        np.testing.assert_array_equal(unwanted.of(phase[:, part]), found[:, part])


def test_growth_is_the_rank_correlation_and_its_permutation_p():
    years = np.array([0.0, 0.1, 0.5, 0.6, 2.0])
    course = np.array([1.0, 3.0, 2.0, 7.0, 5.0])
    rho, p = growth(course, years)
    assert rho == pytest.approx(stats.spearmanr(course, years)[0])
    every = [stats.spearmanr(o, years)[0] for o in itertools.permutations(course)]
    exact = np.mean(np.abs(every) >= abs(rho) - 1e-9)
    assert p == pytest.approx(exact, abs=0.02)
    assert growth(-course, years) == (-rho, p)
    assert growth(years, years)[1] < 0.05 < growth(years[:4], years[:4])[1]
    assert growth(np.ones(5), years) == (0.0, 1.0)


def test_growth_finds_as_many_trends_in_noise_as_its_p_says():
    rng = np.random.default_rng(8)
    p = [growth(c, YEARS)[1] for c in rng.normal(size=(200, DATES))]
    assert 0.01 < np.mean(np.array(p) < 0.05) < 0.1


@pytest.mark.filterwarnings("ignore:pca found 1 components and none:UserWarning")
@pytest.mark.parametrize(
    ("course", "verdict"),
    [
        (STEADY, "kept"),
        (1 - np.exp(-4 * STEADY), "kept"),
        ((np.arange(DATES) >= DATES // 2).astype(float), "kept"),
        ((np.arange(DATES) >= DATES - 1).astype(float), "removed"),
        (np.sin(4 * np.pi * STEADY), "removed"),
    ],
    ids=["steady", "relaxing", "step", "late step", "seasonal"],
)
def test_what_the_rule_sees_of_deformation(course, verdict):
    dates = np.multiply.outer(course, 12 * three_maps()[0]) + RANDOM / 3
    corrected = correct(cube_of(dates), "pca", components=1)["corrected_phase"]
    assert [v["verdict"] for v in verdicts_of(corrected)] == [verdict]


def test_the_user_overrules():
    cube = cube_of(GROWING + RANDOM)

    def left(**options):
        corrected = correct(cube, "pca", components=3, **options)["corrected_phase"]
        return centred(corrected.values.astype("f8")), verdicts_of(corrected)

    growing, verdicts = left()
    steady = 1 + [v["verdict"] for v in verdicts].index("kept")
    nothing, verdicts = left(remove=[steady])
    assert all(v["verdict"] == "removed" for v in verdicts)
    assert verdicts[steady - 1]["reason"] == "asked for"
    assert nothing.std() < 0.01 * growing.std()
    others = [v["component"] for v in verdicts if v["component"] != steady]
    with pytest.warns(UserWarning, match="none of them goes"):
        everything, _ = left(keep=others)
    np.testing.assert_array_equal(
        everything, centred(cube["unwrapped_phase"].values.astype("f8"))
    )
    with pytest.raises(ValueError, match=r"\[7\]: there are 3"):
        left(remove=[7])
    with pytest.raises(ValueError, match=r"share \[2\]"):
        find_correction("pca", keep=[1, 2], remove=[2])


def test_share_of_the_variance_sets_the_number():
    cube = cube_of(GROWING + RANDOM)
    shares = [
        v["variance"] for v in verdicts_of(correct(cube, "pca")["corrected_phase"])
    ]
    for count in (1, 2):
        share = sum(shares[:count]) - 0.01
        found = verdicts_of(
            correct(cube, "pca", components=share, remove=[1])["corrected_phase"]
        )
        assert len(found) == count
    for wrong in (0, -1, 1.5, 0.0):
        with pytest.raises(ValueError, match="components="):
            find_correction("pca", components=wrong)


def test_elevation_is_reported():
    elevation = three_maps()[1] * 1000
    corrected = correct(cube_of(GROWING + RANDOM, elevation=elevation), "pca")
    found = verdicts_of(corrected["corrected_phase"])
    assert max(abs(v["elevation"]) for v in found) > 0.8
    assert (
        verdicts_of(correct(cube_of(RANDOM), "pca")["corrected_phase"])[0]["elevation"]
        is None
    )


@pytest.fixture(scope="module")
def scene():
    return simulate_scene(size=96, dates=12, rate=0.2, gaps=0.15, seed=4)


def true_pairs(scene):
    phase = displacement_to_phase(
        scene.truth["displacement"].values.astype("f8"), scene.cube.attrs["wavelength"]
    )
    times = scene.truth["time"].values.astype("datetime64[s]")
    ends = (
        np.searchsorted(times, scene.cube[n].values.astype("datetime64[s]"))
        for n in ("reference_time", "secondary_time")
    )
    first, second = ends
    return phase[second] - phase[first]


@pytest.mark.parametrize("method", ["pca", "ica"])
def test_simulated_scene(scene, method):
    """Less noise, the motion kept, closure kept, gaps as they were."""
    corrected = correct(scene.cube, method)["corrected_phase"].values.astype("f8")
    raw = scene.cube["unwrapped_phase"].values.astype("f8")
    np.testing.assert_array_equal(np.isnan(corrected), np.isnan(raw))
    truth = np.where(np.isnan(raw), np.nan, true_pairs(scene))
    errors = [
        np.sqrt(np.nanmean((centred(p) - centred(truth)) ** 2))
        for p in (raw, corrected)
    ]
    assert errors[1] < 0.85 * errors[0]
    slopes = [
        np.nansum(centred(p) * centred(truth)) / np.nansum(centred(truth) ** 2)
        for p in (raw, corrected)
    ]
    assert slopes[1] == pytest.approx(slopes[0], abs=0.08)
    loops = closure_triplets(
        scene.cube["reference_time"].values, scene.cube["secondary_time"].values
    )
    np.testing.assert_allclose(
        triplet_closure(corrected, loops), triplet_closure(raw, loops), atol=5e-5
    )


@pytest.mark.parametrize("method", ["pca", "ica"])
def test_cut_does_not_matter(scene, method):
    whole = correct(scene.cube, method)["corrected_phase"].values
    cut = correct(scene.cube, method, block=37)["corrected_phase"].values
    np.testing.assert_array_equal(cut, whole)
    region = {"y": slice(11, 60), "x": slice(50, 51)}
    part = correct(scene.cube, method, region=region)["corrected_phase"].values
    np.testing.assert_array_equal(part, whole[:, 11:60, 50:51])


def test_pair_order_does_not_matter(scene):
    order = np.random.default_rng(2).permutation(scene.cube.sizes["pair"])
    whole = correct(scene.cube, "pca")["corrected_phase"].values
    mixed = correct(scene.cube.isel(pair=order), "pca")["corrected_phase"].values
    np.testing.assert_allclose(mixed, whole[order], atol=1e-4)


def test_large_scenes_are_sampled(scene, monkeypatch):
    monkeypatch.setattr(components, "SAMPLE", 1100)
    stack = stack_of(scene.cube)
    sample = sample_dates(scene.cube, stack, in_turn)
    assert sample.phase.shape[1] <= 1024  # every third of 96 a side
    thin = scene.cube.isel(y=slice(None, None, 3), x=slice(None, None, 3))
    alone = sample_dates(thin, stack, in_turn)
    np.testing.assert_array_equal(sample.phase, alone.phase)
    np.testing.assert_array_equal(sample.elevation, alone.elevation)
    np.testing.assert_allclose(sample.phase.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(sample.phase.mean(1), 0, atol=1e-9)


def test_pairs_without_data_and_apart_are_passed_through():
    dates = GROWING + RANDOM
    cube = cube_of(dates)
    empty = cube["unwrapped_phase"].values.copy()
    empty[4] = np.nan
    alone = cube.isel(pair=[0]).assign_coords(
        reference_time=("pair", np.array(["2024-06-01"], "datetime64[ns]")),
        secondary_time=("pair", np.array(["2024-06-13"], "datetime64[ns]")),
    )
    cube = cube.assign(unwrapped_phase=(("pair", "y", "x"), empty))
    both = xr.concat([cube, alone], "pair").assign_attrs(cube.attrs)
    with pytest.warns(UserWarning, match="2 pairs hold no data or are not linked"):
        corrected = correct(both, "pca", components=3).compute()
    status = corrected["correction_status"].values
    assert np.flatnonzero(status == PASSED_THROUGH).tolist() == [4, len(status) - 1]
    left = corrected["corrected_phase"].values
    np.testing.assert_array_equal(left[-1], both["unwrapped_phase"].values[-1])
    assert np.isnan(left[4]).all()
    done = np.flatnonzero(status != PASSED_THROUGH)
    truth = centred(pairs_of(cube, GROWING))[done]
    assert np.abs(centred(left[done]) - truth).max() < 0.05 * truth.max()


@pytest.mark.parametrize("method", ["pca", "ica"])
def test_what_is_too_little(method):
    with pytest.raises(ValueError, match="link 4 dates: components need 5 or more"):
        correct(cube_of(GROWING[:4] + RANDOM[:4]), method)
    phase = cube_of(GROWING + RANDOM)
    thin = phase["unwrapped_phase"].values.copy()
    thin[:, 2:] = np.nan
    with pytest.raises(ValueError, match="120 of 120 sampled pixels have all 16"):
        correct(phase.assign(unwrapped_phase=(("pair", "y", "x"), thin)), method)
    assert correct(cube_of((GROWING + RANDOM)[:5]), method)["corrected_phase"].size


def test_work_can_be_sent_to_other_processes(scene):
    plan = find_correction("pca").plan(
        scene.cube, range(scene.cube.sizes["pair"]), in_turn
    )
    window = {"pair": slice(0, scene.cube.sizes["pair"])}
    window |= {"y": slice(3, 9), "x": slice(5, 6)}
    again = pickle.loads(pickle.dumps(plan.apply))
    np.testing.assert_array_equal(
        again(scene.cube, window), plan.apply(scene.cube, window)
    )


@pytest.mark.skipif(not FOLDER.exists(), reason=f"needs the data folder {FOLDER}")
@pytest.mark.parametrize("method", ["pca", "ica"])
def test_mexico_city_keeps_its_bowl(method, tmp_path):
    cube = store.open_cube(mexico_cube(tmp_path / "cube", catalog=tmp_path / "c.json"))
    corrected = correct(cube, method)["corrected_phase"].compute()
    leading = verdicts_of(corrected)[0]
    assert (leading["verdict"], leading["reason"]) == ("kept", "grows with time")
    rows = {
        n: {r.metric: r.value for r in effects(cube.assign(corrected_phase=c), n)}
        for n, c in (("raw", cube["unwrapped_phase"]), (method, corrected))
    }
    assert rows[method]["slope in the bowl"] == pytest.approx(1, abs=0.01)
    assert rows[method]["closure"] == pytest.approx(rows["raw"]["closure"], rel=1e-5)
    assert 1 < rows[method]["change"] < 10  # mm
