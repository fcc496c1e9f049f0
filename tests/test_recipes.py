"""Recipes: fixed by their seeds, apart by split, and what they say they are."""

from itertools import combinations, islice

import numpy as np
import pytest

from cube_denoise.conventions import displacement_to_phase
from cube_denoise.dataset import pair_batch
from cube_denoise.simulate import recipes
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.pair import SimulatedPair
from cube_denoise.simulate.recipes import (
    RECIPES,
    SimulatedSeries,
    autoencoder_paper,
    dncnn_paper,
    poster_sources,
    sample,
    sample_seed,
    samples,
    samples_dataset,
)
from cube_denoise.simulate.scene import simulate_scene
from cube_denoise.simulate.seeds import SPLITS, split_seed
from cube_denoise.simulate.transplant import crop_coordinates

SCENE = simulate_scene(size=96, dates=30, gaps=0.02, seed=4)
SMALL = {
    "dncnn-paper": (40, 48),
    "poster-sources": (80, 72),
    "autoencoder-paper": (32, 40),
    "stack": (16, 20),
}


@pytest.fixture(scope="module")
def banks():
    return {
        (kind, split): NoiseBank.from_cube(SCENE.cube, kind=kind, split=split)
        for kind in ("short-pairs", "residual")
        for split in SPLITS
    }


def drawn(name, index, banks, *, split="train", **options):
    if RECIPES[name].needs_noise:
        options.setdefault("noise", banks["short-pairs", split])
    return sample(name, index, split=split, shape=SMALL[name], **options)


def arrays(record):
    """Everything a sample holds."""
    if isinstance(record, (SimulatedPair, SimulatedSeries)):
        return [np.asarray(part) for part in record]
    return [v.values for part in record for v in part.data_vars.values()]


def equal(one, other):
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(arrays(one), arrays(other), strict=True)
    )


# --- seeds and splits ------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_samples_are_fixed_by_split_seed_and_index(name, banks):
    one = drawn(name, 3, banks)
    assert isinstance(one, RECIPES[name].record)
    assert equal(one, drawn(name, 3, banks))
    for other in (
        drawn(name, 4, banks),
        drawn(name, 3, banks, seed=1),
        drawn(name, 3, banks, split="validation"),
    ):
        assert not equal(one, other)
    noise = banks["short-pairs", "train"] if RECIPES[name].needs_noise else None
    made = samples(name, split="train", start=3, shape=SMALL[name], noise=noise)
    assert equal(next(made), one)
    assert equal(next(made), drawn(name, 4, banks))


def test_splits_never_share_seeds():
    """Nor does one recipe share them with another, or with pairs and benchmarks."""
    states = {
        (name, split, seed, index): tuple(
            sample_seed(name, split=split, seed=seed, index=index).generate_state(4)
        )
        for name in RECIPES
        for split in SPLITS
        for seed in range(3)
        for index in range(60)
    }
    assert len(set(states.values())) == len(states)
    suites = {
        tuple(split_seed("test", *words).generate_state(4))
        for words in [(100, d, k) for d in range(6) for k in range(60)]
        + [(a, k) for a in range(2) for k in range(60)]
    }
    assert not suites & set(states.values())


@pytest.mark.parametrize("split", ["train", "validation"])
def test_training_never_draws_seeds_of_the_tests(split, banks, monkeypatch):
    """Whatever the recipe: every generator descends from the split's first word."""
    roots = set()
    make = np.random.default_rng

    def watched(seed=None):
        assert isinstance(seed, np.random.SeedSequence)
        roots.add(seed.entropy[0])
        return make(seed)

    monkeypatch.setattr(np.random, "default_rng", watched)
    for name in RECIPES:
        drawn(name, 0, banks, split=split)
    bank = banks["short-pairs", split]
    for options in (
        {},
        {"noise": bank},
        {"recipe": "dncnn-paper"},
        {"recipe": "poster-sources", "noise": bank},
    ):
        size = {"batch": 1, "crops": 1, "patch": 16, "scene": 64}
        pair_batch(0, ["valid"], "robust", split=split, seed=0, **size, **options)
    assert roots == {SPLITS[split]}


def test_noise_of_another_split_is_refused(banks):
    for split, other in combinations(SPLITS, 2):
        with pytest.raises(ValueError, match=f"noise is of split {other}"):
            drawn(
                "poster-sources",
                0,
                banks,
                split=split,
                noise=banks["short-pairs", other],
            )


def test_noise_of_another_kind_is_refused(banks):
    with pytest.raises(ValueError, match="poster-sources puts deformation on real"):
        sample("poster-sources", 0, split="train")
    with pytest.raises(ValueError, match="takes noise of kind short-pairs, not resid"):
        drawn("poster-sources", 0, banks, noise=banks["residual", "train"])
    with pytest.raises(ValueError, match="takes noise of kind residual, not short"):
        drawn("stack", 0, banks, noise=banks["short-pairs", "train"])


@pytest.mark.parametrize("name", ["dncnn-paper", "autoencoder-paper"])
def test_real_noise_replaces_simulated(name, banks):
    kind = RECIPES[name].noise_kinds[0]
    one, same = (drawn(name, 2, banks, noise=banks[kind, "train"]) for _ in range(2))
    assert equal(one, same)
    assert not equal(one, drawn(name, 2, banks))
    # The deformation does not follow the noise.
    plain = drawn(name, 2, banks)
    peaks = [np.abs(r.truth).max() for r in (one, plain)]
    assert (peaks[0] > 0) == (peaks[1] > 0)


def test_bad_input(banks):
    with pytest.raises(ValueError, match="name='swinir-paper'"):
        sample("swinir-paper", 0, split="train")
    with pytest.raises(ValueError, match="split='exam'"):
        next(samples("stack", split="exam"))
    for index in (-1, 1500):
        with pytest.raises(ValueError, match=f"index={index}: the validation split"):
            sample("dncnn-paper", index, split="validation")
    with pytest.raises(ValueError, match="samples is empty"):
        samples_dataset([])


# --- dncnn-paper -----------------------------------------------------------------


def test_paper_splits_have_their_sizes_and_regions():
    assert RECIPES["dncnn-paper"].sizes == {
        "train": 30_000,
        "validation": 1_500,
        "test": 7_000,
    }
    for one, other in combinations(dncnn_paper.REGIONS.values(), 2):
        apart = (
            one.east <= other.west
            or other.east <= one.west
            or one.north <= other.south
            or other.north <= one.south
        )
        assert apart
    made = samples("dncnn-paper", split="test", start=6_998, shape=(16, 16))
    assert len(list(made)) == 2


@pytest.mark.parametrize("split", SPLITS)
def test_paper_samples_are_of_their_region(split, banks, monkeypatch):
    found = []
    climate = dncnn_paper.zonal_climate

    def watched(latitude):
        found.append(latitude)
        return climate(latitude)

    monkeypatch.setattr(dncnn_paper, "zonal_climate", watched)
    for k in range(12):
        drawn("dncnn-paper", k, banks, split=split)
    region = dncnn_paper.REGIONS[split]
    assert region.south <= min(found) < max(found) <= region.north


def paper_pairs(count, banks, **options):
    return [drawn("dncnn-paper", k, banks, **options) for k in range(count)]


def test_paper_pairs_are_reference_plus_weighted_noise(banks, monkeypatch):
    unweighted = []
    noise = dncnn_paper._noise

    def watched(*args):
        made = noise(*args)
        unweighted.append(made)
        return made

    monkeypatch.setattr(dncnn_paper, "_noise", watched)
    pairs = paper_pairs(40, banks)
    weights = []
    for pair, made in zip(pairs, unweighted, strict=True):
        e, rest = made.displacement, pair.noisy - pair.truth
        w = float((rest * e).sum() / (e * e).sum())
        np.testing.assert_allclose(
            rest, w * e, atol=1e-6 + 1e-6 * np.abs(pair.truth).max()
        )
        weights.append(w)
        # 5.5 arcsec along a meridian and, shorter, along a parallel.
        assert made.spacing[0] == pytest.approx(169.9, abs=0.1)
        assert 0.78 < made.spacing[1] / made.spacing[0] < 0.9
    assert 0.6 <= min(weights) < 0.7 and 1.1 < max(weights) <= 1.2


def test_paper_ratios_span_their_decades(banks):
    pairs = paper_pairs(120, banks)
    quiet = np.array([p.snr == 0 for p in pairs])
    assert 0.03 < quiet.mean() < 0.16
    for pair in pairs:
        rest = pair.noisy.astype("float64") - pair.truth
        assert pair.truth.var() / rest.var() == pytest.approx(pair.snr, rel=1e-2)
        assert bool(pair.truth.any()) == (pair.snr > 0)
    decades = np.log10([p.snr for p in pairs if p.snr > 0])
    counts, _ = np.histogram(decades, [-2, -1, 0, 1])
    assert counts.sum() == len(decades) and counts.min() > 22


def test_paper_size():
    pair = sample("dncnn-paper", 0, split="train")
    assert pair.noisy.shape == pair.truth.shape == (300, 300)
    assert np.isfinite(pair.noisy).all() and (pair.coherence == 1).all()


# --- poster-sources --------------------------------------------------------------


def test_poster_pairs_are_twenty_rad_on_real_noise(banks):
    bank = banks["short-pairs", "train"]
    for k in range(12):
        pair = drawn("poster-sources", k, banks)
        phase = displacement_to_phase(pair.truth.astype("float64"), bank.wavelength)
        assert np.ptp(phase) == pytest.approx(20, rel=1e-4)
        rest = pair.noisy - pair.truth
        # Some field of the bank has the same values, whatever its orientation.
        spread = np.nanstd(rest)
        assert 0 < spread < 2 * np.nanmax([np.nanstd(f) for f in bank.fields])
        there = np.isfinite(rest)
        assert pair.truth[there].var() / rest[there].var() == pytest.approx(
            pair.snr, rel=1e-3
        )


@pytest.mark.parametrize("name", poster_sources.MODELS)
def test_poster_models_have_their_phase(name):
    """Before it is scaled to 20 rad; and each is drawn with parameters of its own."""
    model, low, high = poster_sources.MODELS[name]
    east, north = crop_coordinates((120, 120), (100.0, 100.0))
    rng = np.random.default_rng(0)
    found = []
    for _ in range(30):
        moved = model(east, north, (6e3, 6e3), rng)
        range_ = np.ptp(displacement_to_phase(moved.up, 0.0555))
        found.append(range_)
    assert sum(low <= r <= high for r in found) >= 2
    assert len(set(found)) == 30
    shape, spacing = (120, 120), (100.0, 100.0)
    options = {"spacing": spacing, "wavelength": 0.0555}
    one = poster_sources.draw_model(name, shape, generator=rng, **options)
    assert np.ptp(displacement_to_phase(one, 0.0555)) == pytest.approx(20, rel=1e-6)


def test_poster_models_need_room():
    with pytest.raises(ValueError, match="none changes by 12 to 80 rad"):
        poster_sources.draw_model(
            "earthquake",
            (4, 4),
            spacing=(10.0, 10.0),
            wavelength=0.0555,
            generator=np.random.default_rng(0),
        )


def test_all_five_models_are_drawn(banks, monkeypatch):
    found = set()
    draw = poster_sources.draw_model

    def watched(name, *args, **options):
        found.add(name)
        return draw(name, *args, **options)

    monkeypatch.setattr(poster_sources, "draw_model", watched)
    for k in range(30):
        drawn("poster-sources", k, banks)
    assert found == set(poster_sources.MODELS) and len(found) == 5


# --- autoencoder-paper -----------------------------------------------------------


@pytest.fixture(scope="module")
def series():
    return list(islice(samples("autoencoder-paper", split="train", shape=(32, 40)), 50))


def test_series_truth_is_one_fault_with_one_history(series):
    quiet = np.mean([not one.truth.any() for one in series])
    assert 0 < quiet < 0.25  # one in ten
    for one in series:
        assert one.noisy.shape == one.truth.shape == (9, 32, 40)
        assert not one.truth[0].any()
        np.testing.assert_array_equal(one.cumulated, one.truth[-1])
        if not one.truth.any():
            assert one.snr == 0
            continue
        strength = np.linalg.svd(one.truth.reshape(9, -1), compute_uv=False)
        assert strength[1] < 1e-5 * strength[0]
        history = one.truth.reshape(9, -1) @ one.truth.reshape(9, -1)[-1]
        assert np.ptp(one.truth, 0).max() >= 0.0009
        # Rises from 0, but for the frame whose time is off by up to half a step.
        assert (np.diff(history) < -1e-9 * abs(history).max()).sum() <= 1


def test_series_hold_more_than_the_target(series):
    """Noise within 10 cm but for offsets and nuisance; glitches differ by frame."""
    rest = np.array([one.noisy - one.truth for one in series])
    peaks = [np.abs(one.truth).max() for one in series if one.truth.any()]
    assert 0.003 < np.median(peaks) < 0.05  # small, as a rule
    assert np.isfinite(rest).all()
    assert 0.02 < np.median(np.abs(rest)) < 0.2
    ratios = [one.snr for one in series if one.snr > 0]
    assert np.log10(max(ratios) / min(ratios)) > 2
    np.testing.assert_allclose(series[0].years, np.arange(9) * 12 / 365.25)
    assert len({float(np.ptp(one.elevation)) for one in series}) <= 3


def test_stratified_part_follows_the_elevation():
    """Linear plus quadratic: without turbulence nothing else varies in a frame."""
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(20):
        terrain, delays = autoencoder_paper._delays((32, 32), rng)
        h = terrain.ravel() / 1000
        assert h.min() == pytest.approx(-1) and h.max() == pytest.approx(1)
        A = np.stack([np.ones_like(h), h, h**2], 1)
        frames = delays.reshape(9, -1).T
        left = frames - A @ np.linalg.lstsq(A, frames, rcond=None)[0]
        shares.append(left.var() / (frames - frames.mean(0)).var())
        spread = np.ptp(delays - delays.mean((1, 2), keepdims=True), (1, 2))
        assert spread.max() <= 0.2
    # Both kinds occur: nearly all elevation, and nearly all turbulence.
    assert min(shares) < 0.1 and max(shares) > 0.4


def test_filters_keep_the_power_of_white_noise():
    r"""Parseval: 2 pi f S df = sum of w^2 2 pi r exp(-2 r / lambda) dr."""
    lengths, weights = np.array([4.0, 30.0]), np.array([0.3, 0.05])
    spectrum = autoencoder_paper.ExponentialFilters(lengths, weights)
    f = np.geomspace(1e-6, 10, 200_000)
    got = np.trapezoid(2 * np.pi * f * spectrum.density(f), f)
    assert got == pytest.approx((weights**2 * np.pi * lengths**2 / 2).sum(), rel=1e-4)


# --- stack -----------------------------------------------------------------------


def test_stacks_are_at_rest_now_and_then(banks):
    peaks = [drawn("stack", k, banks).truth.attrs["amplitude"] for k in range(25)]
    at_rest = np.array(peaks) == 0
    assert 1 <= at_rest.sum() <= 7
    moving = np.array(peaks)[~at_rest]
    assert moving.min() >= 0.00199 and moving.max() <= 0.2001


# --- data sets -------------------------------------------------------------------


def test_dataset_of_samples(banks):
    pairs = paper_pairs(3, banks)
    found = samples_dataset(pairs)
    assert found.noisy.dims == ("sample", "y", "x") and found.noisy.units == "m"
    for k, pair in enumerate(pairs):
        for name in ("noisy", "truth", "elevation", "coherence", "snr"):
            np.testing.assert_array_equal(found[name][k], getattr(pair, name))
    of_series = samples_dataset(
        [drawn("autoencoder-paper", k, banks) for k in range(2)]
    )
    assert of_series.truth.dims == ("sample", "time", "y", "x")
    assert of_series.sizes["time"] == 9 and "coherence" not in of_series
    assert of_series.years[-1] == pytest.approx(96 / 365.25)


def test_every_recipe_is_told_in_the_documentation():
    for name in RECIPES:
        assert f"``{name}``" in recipes.__doc__
