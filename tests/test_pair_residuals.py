"""Residuals of pairs: against dense sums, and bad pairs against what was planted."""

import json

import numpy as np
import pytest
import xarray as xr
from command_line import done, mistake

from cube_denoise import store
from cube_denoise.conventions import displacement_to_phase
from cube_denoise.ingest import ingest_dataset
from cube_denoise.invert import invert
from cube_denoise.network import Network, incidence_matrix, pair_indices
from cube_denoise.pair_residuals import pair_residuals
from cube_denoise.pair_variances import network_spread, own_variances, stand_out
from cube_denoise.reference_pixels import checked_area
from cube_denoise.simulate.pair_errors import PairErrors
from cube_denoise.simulate.sensor import decorrelation_noise
from cube_denoise.simulate.stack import simulate_stack
from cube_denoise.steps import invert_cube

PATCHED, NOISY = 11, 24
REFERENCE = {"y": slice(50, 60), "x": slice(50, 60)}
DAYS = np.datetime64("2020-01-01", "D") + 12 * np.arange(40)


def inverted(cube, **options):
    return cube.assign(invert(cube, **options).compute().data_vars)


@pytest.fixture(scope="module")
def clean():
    """36 pairs of 14 dates with motion, weather, decorrelation and gaps."""
    errors = PairErrors(looks=40, unwrapping=0, gaps=0.05)
    scene = simulate_stack(
        seed=3,
        shape=(64, 64),
        dates=14,
        terrain=100.0,
        amplitude=0.02,
        pair_errors=errors,
    )
    return scene.cube.load()


@pytest.fixture(scope="module")
def damaged(clean):
    """A patch of a cycle on 5 % of one pair, and one with three times the noise."""
    phase = clean["unwrapped_phase"].copy()
    phase[PATCHED, 20:34, 20:34] += 2 * np.pi
    more = decorrelation_noise(
        clean["coherence"].values[NOISY], looks=40, generator=np.random.default_rng(0)
    )
    phase[NOISY] += (np.sqrt(8) * more).astype("f4")
    return clean.assign(unwrapped_phase=phase)


@pytest.mark.parametrize(
    "options",
    [
        {"weights": "none"},
        {"weights": "coherence"},
        {"weights": "variance"},
        {"robust": "l1"},
        {"robust": "huber"},
        {"unwrapping": "mask"},
        {"unwrapping": "correct"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_bad_pairs_top_the_list_however_it_was_inverted(clean, damaged, options):
    found = pair_residuals(inverted(damaged, reference=REFERENCE, **options))
    suspicion = found["suspicion"].values
    order = np.argsort(-suspicion)
    assert order[:2].tolist() == [PATCHED, NOISY]
    np.testing.assert_array_equal(np.flatnonzero(found["flagged"]), [PATCHED, NOISY])
    assert suspicion[PATCHED] > 5
    assert suspicion[NOISY] == pytest.approx(3, rel=0.1)
    # What the bad ones leave on their neighbours does not tell against them.
    assert suspicion[order[2]] < 1.3
    spared = pair_residuals(inverted(clean, reference=REFERENCE, **options))
    assert not spared["flagged"].any()
    for name in ("mean", "rms", "leverage", "suspicion"):
        assert np.isfinite(spared[name]).all()


def test_without_coherence_the_patch_still_stands_out(damaged):
    cube = damaged.drop_vars("coherence")
    found = pair_residuals(inverted(cube, reference=REFERENCE, weights="none"))
    assert found["suspicion"].values.argmax() == PATCHED
    assert found["flagged"][PATCHED]


def drawn(seed):
    """A clean stack: random network, weather, coherence, looks, gaps and options."""
    rng = np.random.default_rng([7, seed])
    dates, size = int(rng.integers(8, 25)), 40
    neighbours = int(rng.integers(2, 6))
    pairs = [
        (i, j)
        for i in range(dates)
        for j in range(i + 1, min(i + neighbours, dates - 1) + 1)
        if j == i + 1 or rng.random() < 0.9
    ]
    first, second = np.array(pairs).T
    ramp = np.linspace(-1, 1, size)
    weather = rng.normal(0, 2, (dates, 2))
    phase = weather[:, 0, None, None] * ramp + weather[:, 1, None, None] * ramp[:, None]
    phase = phase[second] - phase[first] + rng.normal(0, 20, (first.size, 1, 1))
    kept = np.exp(-12 * (second - first) / rng.uniform(40, 200))
    place = rng.normal(0, 0.12, (size, size))
    coherence = np.clip(0.95 * kept[:, None, None] + place, 0.05, 0.98)
    phase += decorrelation_noise(coherence, looks=rng.uniform(5, 60), generator=rng)
    phase[rng.random(phase.shape) < rng.uniform(0, 0.2)] = np.nan
    cube = xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase.astype("f4")),
            "coherence": (("pair", "y", "x"), coherence.astype("f4")),
        },
        coords={
            "reference_time": ("pair", DAYS[first].astype("datetime64[s]")),
            "secondary_time": ("pair", DAYS[second].astype("datetime64[s]")),
        },
        attrs={"wavelength": 0.0555},
    )
    weights = str(rng.choice(["none", "coherence", "variance"]))
    return inverted(
        cube, weights=weights, reference={"y": slice(0, 8), "x": slice(0, 8)}
    )


@pytest.mark.parametrize(
    ("first", "last"), [(0, 30), pytest.param(30, 200, marks=pytest.mark.slow)]
)
def test_false_alarms(first, last):
    """None of the 8,743 pairs of 200 clean stacks is flagged (largest 1.35)."""
    found = [pair_residuals(drawn(seed)) for seed in range(first, last)]
    assert not any(f["flagged"].any() for f in found)
    assert max(float(f["suspicion"].max()) for f in found) < 1.4


def test_numbers_equal_dense_sums(damaged):
    reference = {"x": float(damaged.x[52]), "y": float(damaged.y[55]), "radius": 450}
    cube = inverted(damaged, reference=reference)
    cube["displacement"][:, 3:9, 4] = np.nan
    found = pair_residuals(cube)
    phase = cube["unwrapped_phase"].values.astype("float64")
    area = checked_area(reference, cube)
    assert not area.mask.all()
    mean = np.nanmean(np.where(area.mask, phase[:, area.y, area.x], np.nan), (1, 2))
    A, _ = incidence_matrix(cube["reference_time"], cube["secondary_time"])
    dates = displacement_to_phase(
        cube["displacement"].values.astype("float64"), cube.attrs["wavelength"]
    )
    first, second = (A == -1).argmax(1), (A == 1).argmax(1)
    r = phase - mean[:, None, None] - (dates[second] - dates[first])
    there = np.isfinite(r)
    np.testing.assert_array_equal(found["pixels"], there.sum((1, 2)))
    axes = (1, 2)
    expected = {
        "mean": np.nanmean(r, axes),
        "rms": np.sqrt(np.nanmean(r**2, axes)),
        "beyond_half_pi": (np.abs(r) > np.pi / 2).sum(axes) / there.sum(axes),
        "beyond_pi": (np.abs(r) > np.pi).sum(axes) / there.sum(axes),
        "square_share": np.nansum(r**2, axes) / np.nansum(r**2),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=1e-6)
    assert found["beyond_pi"][PATCHED] > 0.01
    assert found["square_share"].sum() == pytest.approx(1)
    assert found.attrs["phase_variable"] == "unwrapped_phase"
    assert "reference_place" in found.attrs


def test_blocks_and_laziness_change_nothing(damaged):
    cube = inverted(damaged, reference=REFERENCE)
    given = cube.copy(deep=True)
    whole = pair_residuals(cube)
    parts = pair_residuals(cube.chunk({"y": 20, "pair": 7}), block=17)
    xr.testing.assert_allclose(parts, whole, rtol=1e-9)
    np.testing.assert_array_equal(parts["pixels"], whole["pixels"])
    xr.testing.assert_identical(cube, given)


def test_constants_of_pairs_and_units_of_weights_do_not_matter(damaged):
    constants = np.random.default_rng(1).normal(0, 50, (damaged.sizes["pair"], 1, 1))
    shifted = damaged.assign(unwrapped_phase=damaged["unwrapped_phase"] + constants)
    one, two = (
        pair_residuals(inverted(c, reference=REFERENCE)) for c in (damaged, shifted)
    )
    xr.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_what_was_inverted_is_judged(clean, damaged):
    """The variable that the inversion recorded, not the default."""
    cube = damaged.assign(corrected_phase=clean["unwrapped_phase"])
    raw = inverted(cube, variable="unwrapped_phase", reference=REFERENCE)
    corrected = inverted(cube, reference=REFERENCE)
    assert pair_residuals(raw)["flagged"].sum() == 2
    told = pair_residuals(corrected)
    assert not told["flagged"].any()
    assert told.attrs["phase_variable"] == "corrected_phase"


def test_noise_free_pairs_are_not_suspected(clean):
    history = np.random.default_rng(0).normal(0, 0.05, (14, 64, 64))
    x = displacement_to_phase(history, clean.attrs["wavelength"])
    first, second, _ = pair_indices(clean["reference_time"], clean["secondary_time"])
    phase = clean["unwrapped_phase"].copy(data=(x[second] - x[first]).astype("f4"))
    found = pair_residuals(
        inverted(clean.assign(unwrapped_phase=phase), reference=REFERENCE)
    )
    assert found["rms"].max() < 1e-4
    assert not found["flagged"].any()


@pytest.mark.filterwarnings("ignore:1 pair")
@pytest.mark.filterwarnings("ignore:the network is not connected")
def test_pairs_without_data_or_loop_have_no_suspicion(clean):
    first, second, times = pair_indices(
        clean["reference_time"], clean["secondary_time"]
    )
    phase = clean["unwrapped_phase"].copy()
    phase[4, REFERENCE["y"], REFERENCE["x"]] = np.nan
    last = np.flatnonzero(second == times.size - 1)
    kept = np.delete(np.arange(first.size), last[1:])
    cube = clean.assign(unwrapped_phase=phase).isel(pair=kept)
    found = pair_residuals(inverted(cube, reference=REFERENCE))
    assert found["pixels"][4] == 0 and np.isnan(found["mean"][4])
    lone = int(np.flatnonzero(kept == last[0])[0])
    assert found["leverage"][lone] == pytest.approx(1)
    assert found["rms"][lone] < 1e-5
    for k in (4, lone):
        assert np.isnan(found["suspicion"][k]) and not found["flagged"][k]
    assert np.isfinite(found["suspicion"]).sum() == kept.size - 2

    apart = clean.isel(pair=(second < 6) | (first > 6))
    found = pair_residuals(inverted(apart, reference=REFERENCE))
    of_second = found["reference_time"].values > times[6]
    linked = found["pixels"].values > 0
    assert linked[of_second].all() != linked[~of_second].all()
    np.testing.assert_array_equal(np.isfinite(found["suspicion"]), linked)


def of_pairs(pairs):
    first, second = np.array(pairs).T
    return Network(first, second, int(second.max()) + 1, 0)


def test_leverage_of_a_triangle_and_of_a_bridge():
    """Three pairs of three dates: 2 / 3 each; a pair that leads on: 1."""
    network = of_pairs([(0, 1), (1, 2), (0, 2), (2, 3)])
    ones = np.ones(4)
    leverage, _ = network_spread(network, [(ones > 0, ones)])
    np.testing.assert_allclose(leverage, [2 / 3, 2 / 3, 2 / 3, 1])
    # Where one pair of the triangle is missing the others lead on, too.
    without = np.array([True, True, False, True])
    leverage, spread = network_spread(network, [(ones > 0, ones), (without, ones)])
    np.testing.assert_allclose(leverage, [5 / 6, 5 / 6, 2 / 3, 1])
    np.testing.assert_allclose(spread[:3, :3], 1 / 18)


def test_squares_spread_as_simulated():
    """Mean squares of least-squares residuals of many draws, unequal variances."""
    rng = np.random.default_rng(2)
    network = of_pairs([(i, j) for i in range(7) for j in range(i + 1, min(i + 4, 7))])
    pairs = network.first.size
    predicted, factor = rng.uniform(0.3, 3, pairs), rng.uniform(0.2, 4, pairs)
    errors = rng.normal(size=(pairs, 200_000)) * np.sqrt(predicted * factor)[:, None]
    A = np.zeros((pairs, 7))
    A[np.arange(pairs), network.first], A[np.arange(pairs), network.second] = -1, 1
    x = np.linalg.lstsq(A[:, 1:], errors, rcond=None)[0]
    squares = ((errors - A[:, 1:] @ x) ** 2).mean(1)
    leverage, spread = network_spread(network, [(predicted > 0, predicted)])
    assert leverage.sum() == pytest.approx(6)
    alike = network_spread(network, [(predicted > 0, np.ones(pairs))])[1]
    np.testing.assert_allclose(alike.sum(1), 1 - leverage)
    np.testing.assert_allclose(spread @ factor, squares, rtol=0.02)
    # Undone: the variances that were drawn.
    np.testing.assert_allclose(own_variances(spread @ factor, spread), factor, 0.01)
    np.testing.assert_allclose(own_variances(squares, spread), factor, rtol=0.15)


def test_pairs_of_the_same_loop_share():
    network = of_pairs([(0, 1), (1, 2), (0, 2)])
    _, spread = network_spread(network, [(np.ones(3) > 0, np.ones(3))])
    np.testing.assert_allclose(own_variances(np.full(3, 2 / 3), spread), 2)


def test_standing_out():
    factor = np.array([1.0, 1.1, 0.9, 1.05, np.nan, 9, 0.95, 0])
    suspicion, flagged = stand_out(factor)
    assert np.median(suspicion[np.isfinite(factor)]) == 1
    np.testing.assert_array_equal(np.flatnonzero(flagged), [5])
    assert not stand_out(np.array([1, 1, 1, 1, 2.0]))[1].any()  # below LEAST
    assert not stand_out(np.full(3, np.nan))[1].any()


def test_what_is_not_inverted_is_refused(clean):
    with pytest.raises(ValueError, match="no displacement: invert it first"):
        pair_residuals(clean)
    cube = inverted(clean, reference=REFERENCE)
    bare = cube.assign(displacement=cube["displacement"].drop_attrs())
    with pytest.raises(ValueError, match="lacks the attribute"):
        pair_residuals(bare)
    with pytest.raises(ValueError, match="not of the pairs that the cube has now"):
        pair_residuals(cube.isel(pair=slice(5, None)))
    cube["displacement"].attrs["pair_state"] = "another"
    with pytest.raises(ValueError, match="not of the pairs that the cube has now"):
        pair_residuals(cube)
    gone = inverted(clean, reference=REFERENCE).drop_vars("unwrapped_phase")
    with pytest.raises(ValueError, match="unwrapped_phase"):
        pair_residuals(gone)


@pytest.mark.usefixtures("logging_as_it_was")
def test_command(damaged, tmp_path):
    url = tmp_path / "cube"
    ingest_dataset(damaged, url)
    assert "invert it first" in mistake("residuals", url)
    invert_cube(url, reference=REFERENCE)
    cube = store.open_cube(url)
    expected = pair_residuals(inverted(cube.load(), reference=REFERENCE))
    xr.testing.assert_allclose(
        pair_residuals(store.open_cube(url)), expected, rtol=1e-6
    )
    printed = done("residuals", url).stdout
    assert "2 of 36 pairs stand out: " in printed and printed.count("!") == 2
    told = json.loads(done("residuals", url, "--json").stdout)
    assert [r["pair"] for r in told if r["flagged"]] == [
        told[PATCHED]["pair"],
        told[NOISY]["pair"],
    ]
    assert told[PATCHED]["rms"] == pytest.approx(float(expected["rms"][PATCHED]))
    worst = json.loads(done("residuals", url, "--json", "--worst", 2).stdout)
    assert worst == [told[PATCHED], told[NOISY]]
    mistake("residuals", tmp_path / "nowhere")
