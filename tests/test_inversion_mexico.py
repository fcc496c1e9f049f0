"""Our inversion of Mexico City, Sentinel-1 (real) against dense solutions in float64.

Two of them: weighted least squares on the dates that the pairs of a pixel link, and the
equations of MintPy's ``ifgram_inversion`` (science.md, 8.1), written down here:
velocities of intervals by LAPACK's minimum norm, cumulated. Where all dates of a pixel
are linked they are the same. Where not, they differ by design: with the minimum norm,
dates after the last linked one stay where that is, and between two linked ones the
motion goes with the square of the time; ours are NaN, or with ``gaps="linear"`` on the
line through the dates that are linked.
"""

from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.mexico_city import FOLDER, REFERENCE, mexico_cube
from cube_denoise import store
from cube_denoise.invert import invert
from cube_denoise.network import closure_triplets, pair_indices, triplet_closure
from cube_denoise.reference import choose_reference, reference_phase
from cube_denoise.unwrapping import loop_constants

WAVELENGTH = 0.05550415767769124
LOOKS = 8 / 1.94
SAMPLE = 400
"""Pixels compared one by one, beside all that lack data in some pair."""

pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason=f"needs the data folder {FOLDER}"
)


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mexico")
    url = mexico_cube(folder / "cube", catalog=folder / "catalog.json")
    return store.open_cube(url).load()


class Dense:
    """The stack as plain float64 arrays, one column a pixel."""

    def __init__(self, cube):
        early, late = cube["reference_time"].values, cube["secondary_time"].values
        self.first, self.second, self.times = pair_indices(early, late)
        phase = cube["unwrapped_phase"].values.astype("float64")
        area = phase[:, REFERENCE["y"], REFERENCE["x"]]
        phase -= np.nanmean(area, (1, 2), keepdims=True)
        self.shape = phase.shape[1:]
        self.phase = phase.reshape(len(phase), -1)
        coherence = cube["coherence"].values.astype("float64").reshape(len(phase), -1)
        self.coherence = np.nan_to_num(coherence).clip(0.05, 0.99)
        seconds = (self.times - self.times[0]).astype("float64")
        self.years = seconds / (365.25 * 86400)

    def weight(self, weights):
        """Ours; the variance up to a factor."""
        g = self.coherence
        return {"none": g**0, "coherence": g, "variance": g**2 / (1 - g**2)}[weights]

    def mintpy_weight(self, weights):
        """MintPy's no, coh and fim = 2 L g^2 / (1 - g^2)."""
        return self.weight(weights) * (2 * LOOKS if weights == "variance" else 1)

    def label(self, pixel):
        """Number of the subset that every date is in at a pixel."""
        there = np.isfinite(self.phase[:, pixel])
        links = np.ones(there.sum()), (self.first[there], self.second[there])
        graph = coo_array(links, shape=(self.times.size,) * 2)
        return connected_components(graph, directed=False)[1]

    def dates(self, pixel, weight):
        """Displacement (m) on dates linked to the first, by least squares."""
        label = self.label(pixel)
        linked = label == label[0]
        used = np.isfinite(self.phase[:, pixel]) & linked[self.first]
        A = np.zeros((self.first.size, self.times.size))
        A[np.arange(self.first.size), self.first] = -1
        A[np.arange(self.first.size), self.second] = 1
        free = np.flatnonzero(linked)[1:]
        x = np.where(linked, 0.0, np.nan)
        root = np.sqrt(weight[used, pixel])
        x[free] = scipy.linalg.lstsq(
            A[used][:, free] * root[:, None], self.phase[used, pixel] * root
        )[0]
        return -WAVELENGTH / (4 * np.pi) * x

    def mintpy(self, pixel, weight):
        """Displacement (m) on all dates by minimum-norm velocities of intervals."""
        used = np.isfinite(self.phase[:, pixel])
        step = np.diff(self.years)
        within = np.arange(step.size)
        inside = (self.first[:, None] <= within) & (within < self.second[:, None])
        B = np.where(inside, step, 0.0)[used]
        root = np.sqrt(weight[used, pixel])
        velocity = scipy.linalg.lstsq(
            B * root[:, None],
            self.phase[used, pixel] * root,
            cond=1e-5,
            lapack_driver="gelsd",
        )[0]
        phase = np.concatenate([[0], np.cumsum(velocity * step)])
        return -WAVELENGTH / (4 * np.pi) * phase

    def rate(self, displacement):
        there = np.isfinite(displacement)
        if there.sum() < 2:
            return np.nan
        return np.polyfit(self.years[there], displacement[there], 1)[0]


@pytest.fixture(scope="module")
def dense(cube):
    return Dense(cube)


@pytest.fixture(scope="module")
def pixels(dense):
    """A fixed sample: all pixels with gaps, and others at random."""
    missing = np.isnan(dense.phase).sum(0)
    gappy = np.flatnonzero((missing > 0) & (missing < len(dense.phase)))
    full = np.flatnonzero(missing == 0)
    assert gappy.size >= 15
    drawn = np.random.default_rng(5).choice(full, SAMPLE, replace=False)
    return np.concatenate([gappy, drawn])


@pytest.fixture(scope="module")
def solved(cube):
    """Flat displacement and velocity by weights and what becomes of gaps."""
    known = {}

    def of(weights, gaps="nan"):
        if (weights, gaps) not in known:
            result = invert(cube, weights=weights, gaps=gaps, reference=REFERENCE)
            d, v = result["displacement"].values, result["velocity"].values
            known[weights, gaps] = d.reshape(len(d), -1), v.ravel()
        return known[weights, gaps]

    return of


WEIGHTS = pytest.mark.parametrize("weights", ["none", "coherence", "variance"])


@WEIGHTS
def test_dates_equal_dense_weighted_least_squares(dense, pixels, solved, weights):
    displacement, velocity = solved(weights)
    weight = dense.weight(weights)
    for k in pixels:
        truth = dense.dates(k, weight)
        np.testing.assert_allclose(displacement[:, k], truth, rtol=0, atol=1e-5)
        np.testing.assert_allclose(velocity[k], dense.rate(truth), rtol=0, atol=1e-4)


@WEIGHTS
def test_velocity_equals_the_equations_of_mintpy(dense, pixels, solved, weights):
    displacement, velocity = solved(weights)
    weight = dense.mintpy_weight(weights)
    compared = 0
    for k in pixels:
        if dense.label(k).any():
            continue
        theirs = dense.mintpy(k, weight)
        np.testing.assert_allclose(displacement[:, k], theirs, rtol=0, atol=1e-5)
        assert abs(velocity[k] - dense.rate(theirs)) < 1e-4
        compared += 1
    assert compared >= 300


def test_unlinked_dates_differ_by_design(dense, pixels, solved):
    """Linked dates agree; what is made of the others is told in closed form."""
    nan, linear = (solved("coherence", gaps)[0] for gaps in ("nan", "linear"))
    weight = dense.mintpy_weight("coherence")
    step = np.diff(dense.years)
    compared = differing = 0
    for k in pixels:
        label = dense.label(k)
        linked = label == label[0]
        alone = np.bincount(label)[label] == 1
        if linked.all() or linked.sum() < 2 or not alone[~linked].all():
            continue
        theirs = dense.mintpy(k, weight)
        for ours in (nan, linear):
            np.testing.assert_allclose(ours[linked, k], theirs[linked], 0, atol=1e-5)
        assert np.isnan(nan[~linked, k]).all()
        line = np.polyfit(dense.years[linked], nan[linked, k].astype("float64"), 1)
        expected = np.polyval(line, dense.years[~linked])
        # The line goes through the mean of the linked dates, as theirs does.
        np.testing.assert_allclose(linear[~linked, k], expected, rtol=0, atol=1e-6)
        # Least norm: no motion after the last linked date, and between two the motion
        # goes with the square of the time.
        known = np.flatnonzero(linked)
        np.testing.assert_allclose(theirs[known[-1] :], theirs[known[-1]], atol=1e-8)
        for a, b in pairwise(known):
            part = np.cumsum(step[a:b] ** 2) / (step[a:b] ** 2).sum()
            between = theirs[a] + part * (theirs[b] - theirs[a])
            np.testing.assert_allclose(theirs[a + 1 : b + 1], between, atol=1e-7)
        compared += 1
        differing += np.abs(theirs - linear[:, k]).max() > 1e-4
    assert compared >= 10 and differing >= 10


@pytest.mark.parametrize("robust", ["l1", "huber"])
def test_robust_inversion_minimises_what_it_says(cube, dense, pixels, robust):
    """The sum of absolute residuals against linear programming; Huber in between."""
    result = invert(cube, robust=robust, reference=REFERENCE).compute()
    displacement = result["displacement"].values.reshape(dense.times.size, -1)
    squares = invert(cube, reference=REFERENCE)["displacement"].values
    squares = squares.reshape(displacement.shape)
    np.testing.assert_array_equal(np.isnan(displacement), np.isnan(squares))
    weight = dense.weight("coherence")
    A = np.zeros((dense.first.size, dense.times.size))
    A[np.arange(dense.first.size), dense.first] = -1
    A[np.arange(dense.first.size), dense.second] = 1
    full = [k for k in pixels if not np.isnan(dense.phase[:, k]).any()][:60]

    def misfit(series, k):
        residual = dense.phase[:, k] - A @ (series[:, k] * -4 * np.pi / WAVELENGTH)
        return weight[:, k] @ np.abs(residual)

    best = np.array([least_absolute(A, dense.phase[:, k], weight[:, k]) for k in full])
    found = np.array([misfit(displacement, k) for k in full])
    before = np.array([misfit(squares, k) for k in full])
    assert (best <= found * (1 + 1e-5)).all() and (best < before).all()
    if robust == "l1":
        # Residuals below 1e-3 rad count as if squared (`robust.SMALLEST`).
        np.testing.assert_allclose(found, best, rtol=5e-3, atol=1e-3)
    else:
        assert (found < before).mean() > 0.9


def least_absolute(A, phase, weight):
    """Least weighted sum of absolute residuals: x, then positive and negative parts."""
    pairs = phase.size
    result = scipy.optimize.linprog(
        np.concatenate([np.zeros(A.shape[1] - 1), weight, weight]),
        A_eq=np.hstack([A[:, 1:], np.eye(pairs), -np.eye(pairs)]),
        b_eq=phase,
        bounds=[(None, None)] * (A.shape[1] - 1) + [(0, None)] * (2 * pairs),
    )
    return result.fun


def test_correction_of_unwrapping_moves_no_pixel_that_closed(cube):
    area = choose_reference(cube)  # of which all triplets decide
    plain = invert(cube, reference=area).compute()
    corrected = invert(cube, unwrapping="correct", reference=area).compute()
    triplets = closure_triplets(cube["reference_time"], cube["secondary_time"])
    constants = reference_phase(cube, "unwrapped_phase", area)
    loops = loop_constants(cube, "unwrapped_phase", constants, triplets)
    assert np.isfinite(loops).all()
    phase = cube["unwrapped_phase"].values.reshape(constants.size, -1)
    missed = triplet_closure(phase - constants[:, None], triplets) - loops[:, None]
    closed = (np.abs(np.nan_to_num(missed)) < np.pi).all(0)
    assert 0.9 < closed.mean() < 1
    for name in ("displacement", "velocity", "pair_count"):
        one, two = (
            result[name].values.reshape(-1, closed.size)
            for result in (plain, corrected)
        )
        np.testing.assert_array_equal(one[:, closed], two[:, closed])
    moved = corrected["unwrapping_error_count"].values.ravel()
    np.testing.assert_array_equal(moved > 0, ~closed)
    there = np.isfinite(plain["residual_rms"].values.ravel()) & ~closed
    one, two = (r["residual_rms"].values.ravel()[there] for r in (plain, corrected))
    assert one.size >= 5 and (two < one).all()
