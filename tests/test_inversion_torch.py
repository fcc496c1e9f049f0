"""The solver on torch, on its CPU device, beside the compiled one and dense algebra."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_incremental import stack as long_stack
from test_inversion import (
    WAYS,
    incidence,
    linked_to,
    noisy_phase,
    random_pairs,
    weights_of,
)

from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.ingest import ingest_dataset
from cube_denoise.inversion import tensor_tiles
from cube_denoise.inversion.elimination import eliminate, in_order
from cube_denoise.inversion.kernel import arrays
from cube_denoise.inversion.solver import solve
from cube_denoise.inversion.tensors import Steps
from cube_denoise.invert import invert, plan_inversion
from cube_denoise.steps import inversion_options, invert_cube

torch = pytest.importorskip("torch")

HERE = "cpu:0"
"""Torch's CPU, where "cpu" is the compiled code."""
PIXELS = 70
FIELDS = ("phase", "temporal_coherence", "residual_rms", "pair_count", "gap_count")
SPREADS = ("phase_std", "rate_variance", "scatter")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_alike(found, expected, *, phase=2e-5, maps=1e-5, errors=1e-5):
    """Same numbers, NaN and counts, within tolerances."""
    np.testing.assert_allclose(found.phase, expected.phase, rtol=0, atol=phase)
    for name in FIELDS[1:3]:
        pair = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(*pair, rtol=0, atol=maps, err_msg=name)
    for name in FIELDS[3:]:
        pair = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(*pair, err_msg=name)
    # Where the pairs fit to rounding, the size of the residuals is rounding.
    fitted = np.nan_to_num(expected.residual_rms) < 1e-4
    for name in SPREADS:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other), err_msg=name)
        if not one.size:
            continue
        size = np.nanmax(np.abs(other), initial=0) if name == "scatter" else 0
        np.testing.assert_allclose(
            one[..., ~fitted],
            other[..., ~fitted],
            rtol=errors,
            atol=errors * size,
            err_msg=name,
        )


def network(seed, dates, gaps, pixels=PIXELS):
    """Random network with gaps; a date without pairs in some, a pixel without data."""
    rng = np.random.default_rng(seed)
    first, second = random_pairs(rng, dates)
    phase, coherence = noisy_phase(rng, first, second, dates, pixels, gaps)
    coherence[rng.random(coherence.shape) < 0.02] = np.nan
    lost = int(rng.integers(dates))
    phase[(first == lost) | (second == lost), 5:9] = np.nan
    phase[:, 3] = np.nan
    years = np.sort(rng.uniform(0, 4, dates))
    return rng, first, second, phase, coherence, years


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 25),
    st.sampled_from([0.0, 0.1, 0.6, 0.9]),
    st.sampled_from(WAYS),
    st.sampled_from(["none", "l1", "huber"]),
    st.sampled_from(["nan", "linear"]),
    st.booleans(),
    st.booleans(),
)
def test_equals_the_compiled_solver(
    seed, dates, missing, way, robust, gaps, errors, graded
):
    rng, first, second, phase, coherence, years = network(seed, dates, missing)
    origin = int(rng.choice([0, dates // 2, dates - 1]))
    constants = rng.normal(size=first.size)
    if rng.random() < 0.3:
        constants[rng.integers(first.size)] = np.nan
    options = {
        "coherence": coherence if graded or way in WAYS[1:3] else None,
        "constants": constants,
        "weights": np.nan_to_num(coherence) if way == "given" else way,
        "robust": robust,
        "gaps": gaps,
        "years": years,
        "errors": errors,
    }
    plan = eliminate(first, second, dates, origin)
    expected = solve(phase, plan, **options)
    found = solve(phase, plan, device=HERE, **options)
    assert_alike(found, expected)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 20),
    st.sampled_from([0.1, 0.6]),
    st.sampled_from(WAYS),
)
def test_equals_dense_least_squares_and_its_covariance(seed, dates, missing, way):
    rng, first, second, phase, coherence, years = network(seed, dates, missing, 12)
    origin = int(rng.integers(dates))
    coherence = np.nan_to_num(coherence)
    found = solve(
        phase,
        eliminate(first, second, dates, origin),
        coherence=coherence,
        weights=coherence if way == "given" else way,
        years=years,
        errors=True,
        device=HERE,
    )
    w = weights_of(way, coherence)
    precision = w if way == "given" else weights_of("variance", coherence)
    for p in range(12):
        there = np.isfinite(phase[:, p]) & (w[:, p] > 0)
        linked = linked_to(origin, first, second, dates, there)
        used = there & linked[first]
        assert found.pair_count[p] == used.sum()
        assert np.isnan(found.phase[~linked, p]).all()
        if not used.any():
            continue
        free = np.flatnonzero(linked & (np.arange(dates) != origin))
        A = incidence(first[used], second[used], dates)[:, free]
        W = w[used, p][:, None]
        normal = np.linalg.inv(A.T @ (W * A))
        x = normal @ A.T @ (W[:, 0] * phase[used, p])
        np.testing.assert_allclose(found.phase[free, p], x, atol=2e-5)
        residual = phase[used, p] - A @ x
        spare = used.sum() - free.size
        factor = (precision[used, p] * residual**2).sum() / max(spare, 1)
        if spare == 0 or factor < 1e-6:
            continue  # a float32 phase has no more to say
        gain = normal @ (A.T * W[:, 0])
        std = np.sqrt(np.diag(gain @ np.diag(factor / precision[used, p]) @ gain.T))
        np.testing.assert_allclose(found.phase_std[free, p], std, rtol=2e-3)


@pytest.mark.parametrize("robust", ["none", "huber"])
def test_how_pixels_are_split_does_not_matter(robust, monkeypatch):
    _, first, second, phase, coherence, years = network(4, 12, 0.4, 30)
    plan = eliminate(first, second, 12, 7)
    options = {"coherence": coherence, "weights": "variance", "robust": robust}
    options |= {"gaps": "linear", "years": years, "errors": True, "device": HERE}
    whole = solve(phase, plan, **options)
    for most in (2, 17):
        monkeypatch.setattr(tensor_tiles, "ON_CPU", most)
        assert_alike(solve(phase, plan, **options), whole, phase=1e-6)


def test_a_device_short_of_memory_takes_fewer_pixels(monkeypatch):
    _, first, second, phase, _, _ = network(5, 12, 0.2, 90)
    plan = eliminate(first, second, 12, 0)
    whole = solve(phase, plan, device=HERE)
    solved, tried = tensor_tiles._solve, []

    def short(room, steps, cut, *more):
        tried.append(cut.stop - cut.start)
        if tried[-1] > room:
            raise torch.cuda.OutOfMemoryError
        return solved(steps, cut, *more)

    monkeypatch.setattr(tensor_tiles, "_solve", partial(short, 20))
    assert_alike(solve(phase, plan, device=HERE), whole, phase=1e-6)
    assert tried[:4] == [90, 45, 23, 12]
    monkeypatch.setattr(tensor_tiles, "_solve", partial(short, 0))
    with pytest.raises(MemoryError, match="cannot hold one pixel"):
        solve(phase, plan, device=HERE)


def test_any_order_of_elimination_gives_the_same():
    rng, first, second, phase, coherence, years = network(6, 30, 0.3)
    options = {"coherence": coherence, "weights": "coherence", "years": years}
    options |= {"errors": True, "device": HERE}
    expected = solve(phase, eliminate(first, second, 30, 15), **options)
    order = rng.permutation(np.delete(np.arange(30), 15))
    plan = in_order(first, second, 30, order, 15)
    assert_alike(solve(phase, plan, **options), expected)


def test_steps_know_which_entry_joins_which():
    first, second = np.array(list(combinations(range(7), 2))).T
    plan = eliminate(first, second, 7, 2)
    steps = Steps(arrays(plan), torch.device("cpu"))
    pairs = np.concatenate([np.repeat(np.arange(6), np.diff(plan.entry_start))])
    named = [*zip(pairs.tolist(), plan.entry_other.tolist(), strict=True)]
    named += [(k, k) for k in range(6)]
    for step, table in zip(steps.all, steps.tables(), strict=True):
        near = step.others.tolist()
        assert near == plan.entry_other[step.own].tolist()
        assert near == list(range(step.position + 1, 6))
        assert step.alone == (not near)
        for i, a in enumerate(near):
            for j, b in enumerate(near):
                assert named[int(table[i, j])] == (min(a, b), max(a, b))


def test_without_quality_there_are_phases_alone():
    _, first, second, phase, _, years = network(7, 9, 0.6)
    plan = eliminate(first, second, 9, 0)
    options = {"quality": False, "errors": True, "years": years}
    found = solve(phase, plan, device=HERE, **options)
    expected = solve(phase, plan, **options)
    np.testing.assert_allclose(found.phase, expected.phase, rtol=0, atol=2e-5)
    for name in FIELDS[1:]:
        assert not getattr(found, name).any()


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_must_be_weights(bad):
    _, first, second, phase, coherence, _ = network(8, 6, 0.0)
    weights = np.nan_to_num(coherence)
    weights[1, 4] = bad
    with pytest.raises(ValueError, match="they must be 0 or more"):
        solve(phase, eliminate(first, second, 6, 0), weights=weights, device=HERE)


def test_a_device_that_is_not_there():
    phase = np.zeros((1, 3), "float32")
    plan = eliminate(np.array([0]), np.array([1]), 2, 0)
    with pytest.raises(ValueError, match="device='gpu': must be 'cpu' or 'cuda'"):
        solve(phase, plan, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda': this process sees no GPU"):
            solve(phase, plan, device="cuda")


@pytest.fixture
def gpu(monkeypatch):
    """Torch's CPU in the place of a GPU; which devices were asked for."""
    asked = []

    def stand_in(device):
        asked.append(device)
        return torch.device("cpu")

    monkeypatch.setattr(tensor_tiles, "checked_device", stand_in)
    return asked


AREA = {"y": slice(0, 8), "x": slice(0, 8)}


def test_inversions_on_a_gpu_equal_those_on_cores(gpu, stack):
    options = {"reference": AREA, "reference_date": "least-residual", "block": 48}
    expected = invert(stack, **options).compute()
    found = invert(stack, device="cuda", **options)
    assert not gpu  # nothing but the look for a date, which is no work for it
    found = found.compute()
    assert set(gpu) == {"cuda"}
    assert found.attrs == expected.attrs
    for name, values in expected.items():
        assert found[name].attrs == values.attrs, name
        np.testing.assert_allclose(
            found[name], values, rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_the_device_is_recorded_but_is_no_reason_to_invert_anew(gpu, tmp_path):
    url = tmp_path / "cube"
    ingest_dataset(long_stack(40), url, workers=Workers(count=1), chunk=8, shard=8)
    options = {"reference": {"y": slice(0, 2), "x": slice(0, 2)}}
    invert_cube(url, weights="none", **options)
    assert "inversion_state" in store.open_cube(url)
    report = invert_cube(url, device="cuda", **options)
    assert any("keeps no states" in note for note in report.notes)
    found = store.open_cube(url)
    assert set(gpu) == {"cuda"}
    assert "inversion_state" not in found
    assert store.history(url)[0]["metadata"]["details"]["device"] == "cuda"
    assert not invert_cube(url, **options).done
    expected = invert(found, **options)
    for name in ("displacement", "displacement_std", "velocity"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_devices_are_checked_before_anything_is_read(stack, tmp_path):
    for refused in (invert, plan_inversion):
        with pytest.raises(ValueError, match="device='gpu': must be 'cpu' or 'cuda'"):
            refused(stack, reference=AREA, device="gpu")
    with pytest.raises(ValueError, match="device='gpu'"):
        inversion_options(device="gpu")
    assert inversion_options(device="cuda") == inversion_options()
    if torch.cuda.is_available():
        return
    url = tmp_path / "cube"
    ingest_dataset(stack, url, workers=Workers(count=1))
    before = store.history(url)
    with pytest.raises(ValueError, match="this process sees no GPU"):
        invert_cube(url, device="cuda")
    assert store.history(url) == before
    with pytest.raises(ValueError, match="this process sees no GPU"):
        invert(stack, reference=AREA, device="cuda").compute()
