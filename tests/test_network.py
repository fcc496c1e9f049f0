"""Networks of pairs: dates, components, loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_denoise.network import (
    acquisition_times,
    closure_triplets,
    connected_subsets,
    incidence_matrix,
    pair_indices,
    triplet_closure,
)

DATES = np.datetime64("2020-01-01", "s") + 12 * 86400 * np.arange(12)


def dates_of(pairs):
    first, second = np.array(pairs).T
    return DATES[first], DATES[second]


def complete(count):
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


pair_lists = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(lambda p: p[0] < p[1]),
    min_size=1,
    max_size=30,
    unique=True,
)


def test_times_are_sorted_unique_seconds():
    times = acquisition_times(*dates_of([(3, 5), (0, 3), (0, 5)]))
    assert times.dtype == "datetime64[s]"
    np.testing.assert_array_equal(times, DATES[[0, 3, 5]])


@given(pair_lists)
def test_incidence_matrix_makes_differences(pairs):
    reference, secondary = dates_of(pairs)
    A, times = incidence_matrix(reference, secondary)
    seconds = (times - times[0]).astype(float)
    np.testing.assert_array_equal(A @ seconds, (secondary - reference).astype(float))
    np.testing.assert_array_equal(A.sum(1), 0)
    np.testing.assert_array_equal(np.abs(A).sum(1), 2)


def test_subsets_come_largest_first():
    subsets = connected_subsets(*dates_of([(0, 2), (1, 3), (3, 5), (6, 7)]))
    assert [s.tolist() for s in subsets] == [
        DATES[[1, 3, 5]].tolist(),
        DATES[[0, 2]].tolist(),
        DATES[[6, 7]].tolist(),
    ]


def test_complete_network_has_every_triplet_once():
    reference, secondary = dates_of(complete(7))
    triplets = closure_triplets(reference, secondary)
    assert triplets.shape == (35, 3)
    assert len({tuple(t) for t in triplets}) == 35
    np.testing.assert_array_equal(secondary[triplets[:, 0]], reference[triplets[:, 1]])
    np.testing.assert_array_equal(reference[triplets[:, 0]], reference[triplets[:, 2]])
    np.testing.assert_array_equal(secondary[triplets[:, 1]], secondary[triplets[:, 2]])


@given(pair_lists, st.integers(0, 2**32 - 1))
def test_differences_of_dates_close(pairs, seed):
    A, times = incidence_matrix(*dates_of(pairs))
    phase = A @ np.random.default_rng(seed).normal(size=(times.size, 4))
    closure = triplet_closure(phase, closure_triplets(*dates_of(pairs)))
    np.testing.assert_allclose(closure, 0, atol=1e-12)


def test_unwrapping_error_shows_in_its_loops_only():
    pairs = complete(4)
    phase = np.zeros((len(pairs), 1))
    phase[pairs.index((0, 2))] += 2 * np.pi
    triplets = closure_triplets(*dates_of(pairs))
    long_sides = [pairs[k] for k in triplets[:, 2]]
    short_sides = [pairs[k] for k in triplets[:, 0]]
    assert long_sides == [(0, 2), (0, 3), (0, 3), (1, 3)]
    assert short_sides == [(0, 1), (0, 1), (0, 2), (1, 2)]
    cycles = triplet_closure(phase, triplets)[:, 0] / (2 * np.pi)
    np.testing.assert_allclose(cycles, [-1, 0, 1, 0], atol=1e-12)


def test_no_triplets():
    triplets = closure_triplets(*dates_of([(0, 1), (1, 2)]))
    assert triplets.shape == (0, 3)
    assert triplet_closure(np.zeros((2, 5)), triplets).shape == (0, 5)


@pytest.mark.parametrize(
    ("reference", "secondary", "message"),
    [
        ([], [], "no pairs"),
        (DATES[:2], DATES[1:2], "one date of each"),
        (DATES[:1], DATES[:1], "before secondary"),
        (DATES[2:3], DATES[:1], "before secondary"),
        (DATES[[0, 0]], DATES[[1, 1]], "more than once"),
        (np.array(["NaT"], "datetime64[s]"), DATES[:1], "NaT"),
    ],
)
def test_bad_pairs_raise(reference, secondary, message):
    with pytest.raises(ValueError, match=message):
        pair_indices(reference, secondary)
