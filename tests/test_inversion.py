"""The solver of the inversion beside dense float64 least squares."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from cube_denoise.inversion.elimination import eliminate, in_order
from cube_denoise.inversion.kernel import HIGHEST, LOWEST
from cube_denoise.inversion.lanes import LANES
from cube_denoise.inversion.solver import solve

WAYS = ("none", "coherence", "variance", "given")


def random_pairs(rng, dates):
    """A few neighbours, some long pairs, perhaps in several subsets."""
    near = [(i, i + k) for i in range(dates) for k in (1, 2, 3) if i + k < dates]
    pairs = [p for p in near if rng.random() < 0.7]
    pairs += [p for p in combinations(range(dates), 2) if rng.random() < 0.05]
    return np.array(sorted({*pairs, (0, dates - 1)})).T


def noisy_phase(rng, first, second, dates, pixels, gaps):
    """Phase of a random walk with noise and gaps, rad, and its coherence."""
    x = rng.normal(size=(dates, pixels)).cumsum(0)
    phase = x[second] - x[first] + rng.normal(0, 0.5, (first.size, pixels))
    phase[rng.random(phase.shape) < gaps] = np.nan
    return phase.astype("float32"), rng.random(phase.shape).astype("float32")


def weights_of(way, coherence):
    g = np.clip(coherence.astype("float64"), LOWEST, HIGHEST)
    return {
        "none": np.ones_like(g),
        "coherence": g,
        "variance": g**2 / (1 - g**2),
        "given": coherence.astype("float64"),
    }[way]


def linked_to(origin, first, second, dates, there):
    """Dates that the pairs that are there link to the origin."""
    reached = np.arange(dates) == origin
    for _ in range(dates):
        for k in np.flatnonzero(there):
            if reached[first[k]] or reached[second[k]]:
                reached[[first[k], second[k]]] = True
    return reached


def incidence(first, second, dates):
    A = np.zeros((first.size, dates))
    A[np.arange(first.size), first] = -1
    A[np.arange(first.size), second] = 1
    return A


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 25),
    st.sampled_from([0.0, 0.1, 0.6]),
    st.sampled_from(WAYS),
)
def test_equals_dense_least_squares_and_its_covariance(seed, dates, gaps, way):
    rng = np.random.default_rng(seed)
    first, second = random_pairs(rng, dates)
    origin = int(rng.integers(dates))
    phase, coherence = noisy_phase(rng, first, second, dates, LANES + 3, gaps)
    constants = rng.normal(size=first.size)
    years = np.sort(rng.uniform(0, 4, dates))
    plan = eliminate(first, second, dates, origin)
    found = solve(
        phase,
        plan,
        coherence=coherence,
        constants=constants,
        weights=coherence if way == "given" else way,
        years=years,
        errors=True,
    )
    w = weights_of(way, coherence)
    inverse_variance = w if way == "given" else weights_of("variance", coherence)
    for p in (0, 1, LANES - 1, LANES, LANES + 2):
        there = np.isfinite(phase[:, p]) & (w[:, p] > 0)
        linked = linked_to(origin, first, second, dates, there)
        used = there & linked[first]
        assert found.pair_count[p] == used.sum()
        assert found.gap_count[p] in {(~linked).sum(), -1}
        assert (found.gap_count[p] == -1) == (not np.isfinite(phase[:, p]).any())
        free = np.flatnonzero(linked & (np.arange(dates) != origin))
        assert np.isnan(found.phase[~linked, p]).all()
        if not used.any():
            continue
        A = incidence(first[used], second[used], dates)[:, free]
        y, W = phase[used, p] - constants[used], w[used, p][:, None]
        normal = np.linalg.inv(A.T @ (W * A))
        x = normal @ A.T @ (W[:, 0] * y)
        residual = y - A @ x
        np.testing.assert_allclose(found.phase[free, p], x, atol=2e-5)
        assert found.phase[origin, p] == 0
        coherent = abs(np.exp(1j * residual).mean())
        np.testing.assert_allclose(found.temporal_coherence[p], coherent, atol=2e-5)
        rms = np.sqrt((residual**2).mean())
        np.testing.assert_allclose(found.residual_rms[p], rms, atol=2e-5)
        spare = used.sum() - free.size
        if spare == 0:
            assert np.isnan(found.phase_std[free, p]).all()
            continue
        precision = inverse_variance[used, p]
        factor = (precision * residual**2).sum() / spare
        if factor < 1e-6:
            continue  # a float32 phase has no more to say
        gain = normal @ (A.T * W[:, 0])
        covariance = gain @ np.diag(factor / precision) @ gain.T
        std = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(found.phase_std[free, p], std, rtol=2e-3)
        whole = np.zeros((dates, dates))
        whole[np.ix_(free, free)] = covariance
        whole, t = whole[np.ix_(linked, linked)], years[linked]
        if t.size > 2:
            line = np.stack([np.ones(t.size), t], 1)
            to_line = np.linalg.pinv(line)
            rate = to_line[1] @ whole @ to_line[1]
            np.testing.assert_allclose(found.rate_variance[p], rate, rtol=2e-3)
            scatter = np.trace(whole) - np.trace(line @ to_line @ whole)
            np.testing.assert_allclose(
                found.scatter[p], scatter, rtol=2e-3, atol=1e-6 * np.trace(whole)
            )


@pytest.mark.parametrize("origin", [0, 7, 29])
def test_any_order_of_elimination_gives_the_same(origin):
    rng = np.random.default_rng(3)
    first, second = random_pairs(rng, 30)
    phase, coherence = noisy_phase(rng, first, second, 30, 50, 0.3)
    plans = [eliminate(first, second, 30, origin)]
    for _ in range(3):
        order = rng.permutation(np.delete(np.arange(30), origin))
        plans.append(in_order(first, second, 30, order, origin))
    found = [
        solve(phase, plan, coherence=coherence, weights="variance") for plan in plans
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.phase, found[0].phase, atol=2e-5)
        np.testing.assert_array_equal(other.gap_count, found[0].gap_count)


def test_minimum_degree_is_taken_where_it_is_cheaper():
    near = [(i, i + k) for i in range(120) for k in (1, 2) if i + k < 120]
    annual = [(i, i + 30) for i in range(90)]
    banded = eliminate(*np.array(near).T, 120, 0)
    np.testing.assert_array_equal(banded.order, np.arange(1, 120))
    assert banded.bandwidth == 2
    first, second = np.array(near + annual).T
    in_time = in_order(first, second, 120, np.arange(1, 120), 0)
    assert in_time.bandwidth == 30
    assert eliminate(first, second, 120, 0).cost < in_time.cost / 1.1


def test_a_pixel_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(4)
    first, second = random_pairs(rng, 20)
    phase, coherence = noisy_phase(rng, first, second, 20, 3 * LANES, 0.3)
    plan, years = eliminate(first, second, 20, 0), np.arange(20) / 10
    for robust in ("none", "huber"):
        options = {"weights": "variance", "robust": robust, "gaps": "linear"}
        options |= {"years": years, "errors": True}
        whole = solve(phase, plan, coherence=coherence, **options)
        shared = solve(phase, plan, coherence=coherence, threads=3, **options)
        np.testing.assert_array_equal(shared.phase, whole.phase)
        for cut in (slice(5, 6), slice(60, 130)):
            part = solve(
                np.ascontiguousarray(phase[:, cut]),
                plan,
                coherence=np.ascontiguousarray(coherence[:, cut]),
                **options,
            )
            np.testing.assert_array_equal(part.phase, whole.phase[:, cut])
            np.testing.assert_array_equal(part.phase_std, whole.phase_std[:, cut])
            np.testing.assert_array_equal(part.rate_variance, whole.rate_variance[cut])


def loss_of(kind, residual, w, corner):
    size = np.abs(residual)
    if kind == "l1":
        return (w * size).sum()
    tail = corner * (2 * size - corner)
    return (w * np.where(size < corner, size**2, tail)).sum()


@pytest.mark.parametrize("kind", ["l1", "huber"])
def test_robust_losses_are_at_their_minimum(kind):
    rng = np.random.default_rng(5)
    dates = 8
    first, second = np.array(list(combinations(range(dates), 2))).T
    phase, coherence = noisy_phase(rng, first, second, dates, 5, 0.1)
    phase[3] += 2 * np.pi
    plan = eliminate(first, second, dates, 0)
    found = solve(
        phase, plan, coherence=coherence, weights="coherence", robust=kind
    ).phase
    square = solve(phase, plan, coherence=coherence, weights="coherence").phase
    A, w = incidence(first, second, dates)[:, 1:], weights_of("coherence", coherence)
    for p in range(5):
        there = np.isfinite(phase[:, p])
        y, weight = phase[there, p].astype(float), w[there, p]
        corner = 1.345 * 1.4826 * np.median(np.abs(y - A[there] @ square[1:, p]))

        def loss(x, y=y, weight=weight, there=there, corner=corner):
            return loss_of(kind, y - A[there] @ x, weight, corner)

        best = optimize.minimize(
            loss, found[1:, p], method="Powell", options={"xtol": 1e-8, "ftol": 1e-12}
        )
        assert loss(found[1:, p]) <= best.fun * (1 + 2e-3)
        assert loss(found[1:, p]) < 0.99 * loss(square[1:, p])


def test_robust_solutions_pass_over_an_unwrapping_error():
    rng = np.random.default_rng(6)
    dates = 10
    first, second = np.array(
        [(i, i + k) for i in range(dates) for k in (1, 2, 3, 4) if i + k < dates]
    ).T
    x = rng.normal(size=(dates, 40)).cumsum(0)
    x -= x[0]
    phase = x[second] - x[first] + rng.normal(0, 0.05, (first.size, 40))
    phase[11] += 2 * np.pi
    plan = eliminate(first, second, dates, 0)
    errors = {
        kind: np.abs(solve(phase.astype("float32"), plan, robust=kind).phase - x).max()
        for kind in ("none", "l1", "huber")
    }
    assert errors["none"] > 1
    assert errors["l1"] < 0.3
    assert errors["huber"] < 0.3


def test_bridged_gaps_are_the_limit_of_nsbas():
    rng = np.random.default_rng(7)
    dates, origin = 14, 2
    first, second = random_pairs(rng, dates)
    phase, coherence = noisy_phase(rng, first, second, dates, 200, 0.75)
    years = np.sort(rng.uniform(0, 3, dates))
    plan = eliminate(first, second, dates, origin)
    options = {"coherence": coherence, "weights": "coherence", "years": years}
    plain = solve(phase, plan, **options)
    found = solve(phase, plan, gaps="linear", **options)
    np.testing.assert_array_equal(found.gap_count, plain.gap_count)
    there = np.isfinite(plain.phase)
    np.testing.assert_array_equal(found.phase[there], plain.phase[there])
    A, w = incidence(first, second, dates), weights_of("coherence", coherence)
    tried = 0
    for p in np.flatnonzero((found.gap_count > 0) & np.isfinite(found.phase).all(0)):
        use = np.isfinite(phase[:, p])
        root, gamma = np.sqrt(w[use, p])[:, None], 1e-5
        # Unknowns: dates but the origin, rate, level.
        data = np.hstack(
            [np.delete(A[use], origin, 1) * root, np.zeros((use.sum(), 2))]
        )
        smooth = np.hstack([np.delete(np.eye(dates), origin, 1), -years[:, None]])
        smooth = gamma * np.hstack([smooth, -np.ones((dates, 1))])
        x = np.linalg.lstsq(
            np.vstack([data, smooth]),
            np.concatenate([phase[use, p] * root[:, 0], np.zeros(dates)]),
            rcond=1e-14,
        )[0][:-2]
        np.testing.assert_allclose(
            np.delete(found.phase[:, p], origin), x, atol=2e-3, rtol=2e-3
        )
        tried += 1
    assert tried > 20


def test_pixels_without_data():
    first, second = np.array([(0, 1), (1, 2), (0, 2)]).T
    phase = np.full((3, 2), np.nan, "float32")
    phase[:, 1] = 1, 1, 2
    found = solve(
        phase, eliminate(first, second, 3, 0), years=np.arange(3.0), errors=True
    )
    assert np.isnan(found.phase[:, 0]).all()
    assert found.gap_count.tolist() == [-1, 0]
    assert found.pair_count.tolist() == [0, 3]
    assert np.isnan(found.temporal_coherence[0])
    assert np.isnan(found.phase_std[:, 0]).all()
    np.testing.assert_allclose(found.phase[:, 1], [0, 1, 2], atol=1e-6)
