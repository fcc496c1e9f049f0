"""Unwrapping errors: found, corrected where closure decides it, masked where not."""

import itertools
import json

import numpy as np
import pytest
import xarray as xr
from command_line import done, mistake
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp

from benchmarks.mexico_city import FOLDER, mexico_cube
from cube_denoise import store
from cube_denoise.closure import (
    close_phase,
    closure_cycles,
    closure_rms,
    unwrapping_cycles,
)
from cube_denoise.network import closure_triplets, triplet_closure
from cube_denoise.reference import choose_reference, reference_phase
from cube_denoise.simulate.pair_errors import PairErrors
from cube_denoise.simulate.stack import simulate_stack
from cube_denoise.unwrapping import closure_statistics, loop_constants

CYCLE = 2 * np.pi


def network(dates, neighbours):
    """First and second date of every pair, and the triplets."""
    pairs = [
        (i, j)
        for i in range(dates)
        for j in range(i + 1, min(i + neighbours, dates - 1) + 1)
    ]
    return of_pairs(pairs)


def of_pairs(pairs):
    first, second = np.array(pairs).T
    days = np.datetime64("2020-01-01", "D") + 12 * np.arange(second.max() + 1)
    return first, second, closure_triplets(days[first], days[second])


def consistent(first, second, pixels, seed=0, dtype="float32"):
    """Phases that close."""
    dates = np.random.default_rng(seed).normal(0, 5, (second.max() + 1, pixels))
    return (dates[second] - dates[first]).astype(dtype)


def planted(pairs, pixels, rate, seed):
    rng = np.random.default_rng(seed)
    return (rng.random((pairs, pixels)) < rate) * rng.choice([-1, 1], (pairs, pixels))


def opened(phase, triplets):
    return np.nan_to_num(closure_cycles(triplet_closure(phase, triplets))) != 0


def least_corrections(misclosure, loops, most):
    """All integers of least sum of magnitudes that close the loops, by enumeration."""
    pairs = loops.shape[1]
    units = np.concatenate([np.eye(pairs, dtype=int), -np.eye(pairs, dtype=int)])
    for cost in range(most + 1):
        chosen = itertools.combinations_with_replacement(range(2 * pairs), cost)
        tried = np.array([units[list(c)].sum(0) for c in chosen])
        tried = tried[np.abs(tried).sum(1) == cost]
        good = tried[(tried @ loops.T == -misclosure).all(1)]
        if len(good):
            return np.unique(good, axis=0)
    return None


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_equals_enumeration_of_all_corrections(seed):
    """On random networks with gaps and up to four errors."""
    rng = np.random.default_rng(seed)
    every = list(itertools.combinations(range(6), 2))
    kept = sorted(rng.choice(len(every), rng.integers(6, 12), replace=False))
    first, second, triplets = of_pairs([every[k] for k in kept])
    phase = consistent(first, second, 1, seed)
    phase[rng.random(first.size) < 0.1] = np.nan
    wrong = np.zeros(first.size, int)
    for k in rng.integers(0, first.size, rng.integers(1, 5)):
        wrong[k] += rng.choice([-1, 1])
    phase += (CYCLE * wrong[:, None]).astype("f4")
    cycles, undecided = unwrapping_cycles(phase, triplets)

    valid = np.isfinite(phase[triplets, 0]).all(1)
    loops = np.zeros((valid.sum(), first.size), int)
    for row, sides in zip(loops, triplets[valid], strict=True):
        row[sides] = 1, 1, -1
    found = least_corrections(loops @ wrong, loops, most=4)
    differ = (found != found[0]).any(0)
    np.testing.assert_array_equal(undecided[:, 0], differ)
    np.testing.assert_array_equal(cycles[:, 0], np.where(differ, 0, found[0]))


@pytest.mark.parametrize("neighbours", [2, 3, 4])
def test_no_correction_is_cheaper(neighbours):
    """Many errors in a long network, against integer programming (HiGHS)."""
    first, second, triplets = network(25, neighbours)
    loops = np.zeros((len(triplets), first.size))
    for row, sides in zip(loops, triplets, strict=True):
        row[sides] = 1, 1, -1
    wrong = planted(first.size, 12, 0.08, neighbours)
    phase = consistent(first, second, 12) + (CYCLE * wrong).astype("f4")
    cycles, undecided = unwrapping_cycles(phase, triplets)
    decided = 0
    for k in range(12):
        target = -loops @ wrong[:, k]
        best = milp(
            np.ones(2 * first.size),
            constraints=LinearConstraint(np.hstack([loops, -loops]), target, target),
            integrality=1,
        )
        cost = np.abs(cycles[:, k]).sum()
        if undecided[:, k].any():
            assert cost < best.fun
        else:
            decided += 1
            assert cost == round(best.fun)
            np.testing.assert_array_equal(loops @ cycles[:, k], target)
    assert decided >= 2


def test_errors_near_each_other_are_searched_together():
    """Two long pairs look like two short ones between them, through a closed loop."""
    first, second, triplets = network(10, 2)
    at = {pair: k for k, pair in enumerate(zip(first, second, strict=True))}
    wrong = np.zeros((first.size, 2), int)
    wrong[at[1, 3]], wrong[at[3, 5], 0], wrong[at[3, 5], 1] = -1, 1, -1
    phase = consistent(first, second, 2) + (CYCLE * wrong).astype("f4")
    assert not opened(phase, triplets)[2].any()
    cycles, undecided = unwrapping_cycles(phase, triplets)
    either = {at[1, 3], at[3, 5], at[2, 3], at[3, 4]}
    assert set(np.flatnonzero(undecided[:, 0])) == either and not cycles[:, 0].any()
    np.testing.assert_array_equal(cycles[:, 1], -wrong[:, 1])


def test_many_errors_far_apart_are_all_corrected():
    """Fifteen errors in one pixel, each of which is decided alone."""
    first, second, triplets = network(120, 3)
    phase = consistent(first, second, 1)
    wrong = np.zeros((first.size, 1), int)
    wrong[20:-20:32] = 1
    wrong[40:-20:64] = -2
    cycles, undecided = unwrapping_cycles(
        phase + (CYCLE * wrong).astype("f4"), triplets
    )
    assert np.count_nonzero(wrong) == 15
    np.testing.assert_array_equal(cycles, -wrong)
    assert not undecided.any()


def test_single_errors_are_recovered_where_their_loops_tell_them():
    """Every pair of a network of three neighbours, one error a pixel."""
    first, second, triplets = network(12, 3)
    pairs = first.size
    wrong = np.eye(pairs, dtype=int)
    phase = consistent(first, second, pairs) + (CYCLE * wrong).astype("f4")
    cycles, undecided = unwrapping_cycles(phase, triplets)
    # A pair and others of its loops are told apart unless they lie in the same loops.
    member = np.zeros((pairs, len(triplets)), int)
    for t, sides in enumerate(triplets):
        member[sides, t] = 1
    alone = np.array([(member == row).all(1).sum() == 1 for row in member])
    assert alone.sum() > 0 and not undecided[:, alone].any()
    np.testing.assert_array_equal(cycles[:, alone], -wrong[:, alone])
    for k in np.flatnonzero(~alone):
        assert undecided[k, k] and not cycles[:, k].any()
        assert undecided[:, k].sum() == (member == member[k]).all(1).sum()


def test_what_closure_cannot_decide_is_masked_and_the_rest_corrected():
    """The first date has two pairs in one loop; an error far from it is decided."""
    first, second, triplets = network(10, 2)
    at = {pair: k for k, pair in enumerate(zip(first, second, strict=True))}
    wrong = np.zeros((first.size, 1), int)
    wrong[at[0, 1]], wrong[at[5, 7]] = 1, -1
    clean = consistent(first, second, 1)
    result = close_phase(clean + (CYCLE * wrong).astype("f4"), triplets)
    assert set(np.flatnonzero(result.masked)) == {at[0, 1], at[0, 2]}
    assert np.flatnonzero(result.cycles) == at[5, 7]
    np.testing.assert_allclose(
        result.phase[~result.masked], clean[~result.masked], atol=1e-5
    )
    both = close_phase(
        clean + (CYCLE * wrong).astype("f4"), triplets, unwrapping="mask"
    )
    assert set(np.flatnonzero(both.masked)) == {at[0, 1], at[0, 2], at[5, 7]}
    assert not both.cycles.any() and np.isnan(both.phase[both.masked]).all()
    nothing = close_phase(clean, triplets, unwrapping="none")
    assert nothing.phase is clean and not nothing.masked.any()


def test_whole_cycles_of_a_date_are_invisible():
    first, second, triplets = network(10, 3)
    dates = np.zeros((10, 1), "f4")
    dates[4] = CYCLE
    phase = consistent(first, second, 1) + dates[second] - dates[first]
    cycles, undecided = unwrapping_cycles(phase, triplets)
    assert not cycles.any() and not undecided.any()


@given(seed=st.integers(0, 10**6), rate=st.sampled_from([0.01, 0.05, 0.2, 0.5]))
@settings(max_examples=15, deadline=None)
def test_invariances(seed, rate):
    """Closed pixels and lone pairs stay; all closes after; blocks do not matter."""
    rng = np.random.default_rng(seed)
    first, second, _ = network(12, int(rng.integers(2, 5)))
    kept = rng.random(first.size) < 0.85
    first, second, triplets = of_pairs(np.stack([first, second], 1)[kept])
    phase = consistent(first, second, 30, seed, rng.choice(["float32", "float64"]))
    phase += rng.normal(0, 0.2, phase.shape).astype(phase.dtype)
    phase += (CYCLE * planted(*phase.shape, rate, seed)).astype(phase.dtype)
    phase[rng.random(phase.shape) < 0.1] = np.nan
    given = phase.copy()
    cycles, undecided = unwrapping_cycles(phase, triplets)
    result = close_phase(phase, triplets)
    np.testing.assert_array_equal(phase, given)
    assert not (cycles[undecided]).any()
    assert not cycles[np.isnan(phase)].any() and not undecided[np.isnan(phase)].any()

    untouched = ~opened(phase, triplets).any(0)
    np.testing.assert_array_equal(result.phase[:, untouched], phase[:, untouched])
    lone = np.setdiff1d(np.arange(first.size), triplets)
    np.testing.assert_array_equal(result.phase[lone], phase[lone])
    assert not opened(result.phase, triplets).any()

    order = rng.permutation(30)
    for part in np.array_split(order, [1, 12]):
        again = unwrapping_cycles(np.ascontiguousarray(phase[:, part]), triplets)
        np.testing.assert_array_equal(again[0], cycles[:, part])
        np.testing.assert_array_equal(again[1], undecided[:, part])


def test_too_many_errors_are_masked():
    first, second, triplets = network(60, 4)
    phase = consistent(first, second, 3)
    phase += (CYCLE * planted(*phase.shape, 0.6, 5)).astype("f4")
    result = close_phase(phase, triplets)
    assert opened(phase, triplets).mean() > 0.5
    assert result.masked.any() and not opened(result.phase, triplets).any()


def test_half_cycles_are_masked():
    """A loop that misses by 0.6 of a cycle is no unwrapping error to correct."""
    first, second, triplets = network(8, 3)
    phase = consistent(first, second, 2)
    k = 10
    phase[k] += np.array([0.6, 0.9], "f4") * np.float32(CYCLE)
    cycles, undecided = unwrapping_cycles(phase, triplets)
    assert undecided[k, 0] and not cycles[:, 0].any()
    assert cycles[k, 1] == -1 and not undecided[:, 1].any()
    cycles, undecided = unwrapping_cycles(phase, triplets, tolerance=np.pi)
    np.testing.assert_array_equal(cycles[k], [-1, -1])


def test_constants_of_loops():
    """Phases that are not referenced close less their constants; NaN leaves out."""
    first, second, triplets = network(8, 3)
    rng = np.random.default_rng(3)
    constants = rng.normal(0, 20, first.size).astype("f4")
    wrong = planted(first.size, 50, 0.03, 1)
    clean = consistent(first, second, 50)
    phase = (clean + CYCLE * wrong).astype("f4")
    expected = unwrapping_cycles(phase, triplets)
    loops = triplet_closure(constants[:, None], triplets)[:, 0]
    found = unwrapping_cycles(
        phase + constants[:, None], triplets, loop_constants=loops
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    cycles, undecided = unwrapping_cycles(
        phase, triplets, loop_constants=np.full(len(triplets), np.nan)
    )
    assert not cycles.any() and not undecided.any()


def test_closure_maps():
    closure = np.linspace(-20, 20, 401)
    wrapped = np.angle(np.exp(1j * closure))
    expected = np.round((closure - wrapped) / CYCLE)
    np.testing.assert_array_equal(closure_cycles(closure), expected)
    triplets = of_pairs([(0, 1), (1, 2), (0, 2), (2, 3)])[2]
    phase = np.zeros((4, 3))
    phase[0], phase[1, 2] = [0.5, -2.0, 1.0], np.nan
    rms = closure_rms(phase, triplets)
    np.testing.assert_allclose(rms, [0.5, 2.0, np.nan], rtol=1e-6)
    np.testing.assert_allclose(
        closure_rms(phase, triplets, loop_constants=np.array([0.5])), [0, 2.5, np.nan]
    )


@pytest.mark.parametrize(
    "change, said",
    [
        ({"phase": np.zeros(3)}, "phase has shape"),
        ({"phase": np.zeros((3, 2), int)}, "dtype int64"),
        ({"triplets": np.array([[0, 1, 3]])}, "indices 0 to 3"),
        ({"triplets": np.array([0, 1, 2])}, "triplets has shape"),
        ({"loop_constants": np.zeros(2)}, "loop_constants has shape"),
        ({"tolerance": 4.0}, "tolerance=4.0"),
    ],
)
def test_bad_arrays(change, said):
    good = {"phase": np.zeros((3, 2)), "triplets": np.array([[0, 1, 2]])}
    options = good | change
    with pytest.raises(ValueError, match=said):
        unwrapping_cycles(options.pop("phase"), options.pop("triplets"), **options)
    with pytest.raises(ValueError, match="unwrapping='fix'"):
        close_phase(good["phase"], good["triplets"], unwrapping="fix")


@pytest.fixture(scope="module")
def stack():
    """A cube that closes but for noise, and the cycles that are added to another."""
    cube = simulate_stack(
        seed=4,
        shape=(48, 40),
        dates=9,
        max_temporal_baseline=36,
        pair_errors=PairErrors(looks=400, unwrapping=0.0, gaps=0.03),
    ).cube
    shape = cube["unwrapped_phase"].shape
    wrong = np.zeros(shape, "int8")
    wrong[7, 30:, :12], wrong[12, 5:15, 20:], wrong[3, 40:, 30:] = 1, -1, 1
    rng = np.random.default_rng(0)
    offset = rng.uniform(-30, 30, shape[0])[:, None, None]
    phase = cube["unwrapped_phase"]
    damaged = cube.assign(unwrapped_phase=(phase + offset + CYCLE * wrong).astype("f4"))
    return cube, damaged, wrong


def test_statistics_count_what_was_planted(stack):
    cube, damaged, wrong = stack
    found = closure_statistics(damaged)
    there = np.isfinite(cube["unwrapped_phase"].values)
    area = choose_reference(damaged)
    assert not wrong[:, area.y, area.x].any()
    triplets = found["triplet_pairs"].values
    misclosure = np.where(
        there[triplets].all(1), triplet_closure(wrong.astype("f4"), triplets), np.nan
    )
    expected = np.nanmean(misclosure != 0, (1, 2), where=np.isfinite(misclosure))
    np.testing.assert_allclose(found["open_before"], expected)
    assert found["open_before"].max() > 0.05 and not found["open_after"].any()
    assert not found["pair_open_after"].any()
    assert found["closure_rms_before"].max() > 1
    assert found["closure_rms_after"].max() < 0.6
    assert found["open_pixels_before"] == (np.nan_to_num(misclosure) != 0).any(0).sum()
    assert found["open_pixels_after"] == 0
    share = ((wrong != 0) & there).sum((1, 2)) / there.sum((1, 2))
    np.testing.assert_allclose(found["corrected"] + found["masked"], share, atol=5e-3)
    assert found["corrected"].sum() > 0.9 * share.sum()
    assert found["decides"].all() and found.attrs["unwrapping"] == "correct"


def test_statistics_do_not_depend_on_blocks_and_change_nothing(stack):
    _, damaged, _ = stack
    given = damaged.copy(deep=True)
    whole = closure_statistics(damaged, unwrapping="mask")
    parts = closure_statistics(damaged.chunk({"y": 17}), unwrapping="mask", block=13)
    xr.testing.assert_allclose(whole, parts, rtol=1e-12)
    xr.testing.assert_identical(damaged, given)
    assert not whole["corrected"].any() and whole["masked"].sum() > 0
    nothing = closure_statistics(damaged, unwrapping="none")
    np.testing.assert_array_equal(nothing["open_before"], nothing["open_after"])
    assert nothing["open_pixels_after"] == whole["open_pixels_before"]


def test_constants_of_loops_are_those_of_the_scene(stack):
    """Whole cycles in 30 % of the pixels do not move them, and far ones are told."""
    cube, _, _ = stack
    times = (cube[n].values for n in ("reference_time", "secondary_time"))
    triplets = closure_triplets(*times)
    phase = cube["unwrapped_phase"].copy()
    phase[5, :14] += CYCLE
    bias = np.zeros(cube.sizes["pair"])
    bias[5] = 0.8
    biased = cube.assign(unwrapped_phase=phase + xr.DataArray(bias, dims="pair"))
    none = np.zeros(cube.sizes["pair"])
    found = loop_constants(biased, "unwrapped_phase", none, triplets)
    expected = triplet_closure(bias[:, None], triplets)[:, 0]
    assert np.abs(found - expected).max() < 0.05
    # Taken off with the constants of the pairs, nothing is left.
    found = loop_constants(biased, "unwrapped_phase", bias + CYCLE, triplets)
    assert np.abs(found).max() < 0.05
    bias[5] = 2.5
    far = cube.assign(
        unwrapped_phase=cube["unwrapped_phase"] + xr.DataArray(bias, dims="pair")
    )
    with pytest.warns(UserWarning, match="decide no unwrapping errors; most: -?2.5"):
        found = loop_constants(far, "unwrapped_phase", none, triplets)
    np.testing.assert_array_equal(np.isnan(found), (triplets == 5).any(1))


def test_a_pair_without_reference_is_left_out(stack):
    _, damaged, _ = stack
    area = choose_reference(damaged)
    phase = damaged["unwrapped_phase"].copy()
    phase[4, area.y, area.x] = np.nan
    with pytest.warns(UserWarning, match=r"1 pair\(s\) without data"):
        found = closure_statistics(
            damaged.assign(unwrapped_phase=phase), reference=area
        )
    assert found["pixels"][4] == 0 and np.isnan(found["corrected"][4])
    assert np.isnan(
        found["open_before"][(found["triplet_pairs"] == 4).any("side")]
    ).all()


def test_statistics_need_triplets(stack):
    cube, _, _ = stack
    days = (cube["secondary_time"] - cube["reference_time"]).values
    with pytest.raises(ValueError, match="close a triplet"):
        closure_statistics(cube.isel(pair=days == days.min()))
    with pytest.raises(ValueError, match="unwrapping='fix'"):
        closure_statistics(cube, unwrapping="fix")


@pytest.fixture(scope="module")
def mexico(tmp_path_factory):
    if not FOLDER.exists():
        pytest.skip(f"needs the data folder {FOLDER}")
    folder = tmp_path_factory.mktemp("mexico")
    return mexico_cube(folder / "cube", catalog=folder / "catalog.json")


def test_mexico_city_closes_and_what_closed_is_not_moved(mexico):
    cube = store.open_cube(mexico).load()
    found = closure_statistics(cube)
    before, after = (
        float((found[n] * found["triplet_pixels"]).sum())
        for n in ("open_before", "open_after")
    )
    assert before > 0 and after == 0
    constants = reference_phase(cube, "unwrapped_phase", choose_reference(cube))
    phase = cube["unwrapped_phase"].values.reshape(cube.sizes["pair"], -1)
    phase = (phase - constants[:, None]).astype("f4")
    triplets = found["triplet_pairs"].values
    loops = found["loop_constant"].values
    closed = ~(
        np.nan_to_num(
            closure_cycles(triplet_closure(phase, triplets) - loops[:, None])
        ).any(0)
    )
    result = close_phase(phase, triplets, loop_constants=loops)
    assert 0.9 < closed.mean() < 1
    np.testing.assert_array_equal(result.phase[:, closed], phase[:, closed])


@pytest.mark.usefixtures("logging_as_it_was")
def test_command(mexico):
    printed = done("closures", mexico).stdout
    assert "20180106-20180130" in printed and "masked %" in printed
    assert "0 after correct; 0 of 24 triplets decide nothing" in printed
    told = json.loads(done("closures", mexico, "--json", "--unwrapping", "mask").stdout)
    assert len(told) == 30 and told[4]["triplets"] == 0
    assert told[4]["open_before"] is None and told[0]["corrected"] == 0
    assert max(r["masked"] for r in told) > 0
    said = mistake("closures", mexico, "--variable", "corrected_phase")
    assert "variable='corrected_phase'" in said
    mistake("closures", mexico.parent / "nowhere")
