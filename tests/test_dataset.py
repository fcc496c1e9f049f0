"""Training samples: seeds, order and target."""

import numpy as np
import pytest

from cube_denoise.dataset import Signals, pair_batch, split_seed
from cube_denoise.normalise import five_numbers, scaling
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.pair import simulate_pair
from cube_denoise.simulate.recipes import sample
from cube_denoise.simulate.scene import simulate_scene
from cube_denoise.simulate.seeds import SCENE_SEED, SPLITS, STACK_SEED
from cube_denoise.simulate.transplant import transplant_pair

INPUTS = ("displacement", "log_scale", "elevation", "valid")
OPTIONS = {"seed": 1, "batch": 4, "patch": 24, "scene": 48, "crops": 2}


ALL_MOVE = Signals(pure_noise=0.0)


def draw(number=0, *, normalisation="robust", split="train", **options):
    return pair_batch(number, INPUTS, normalisation, split=split, **OPTIONS | options)


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_splits_never_share_seeds():
    """The generators' own states differ, for seeds of every length in use."""
    states = {
        (split, words): tuple(split_seed(split, *words).generate_state(4))
        for split in SPLITS
        for words in [
            *((a, b, c) for a in range(4) for b in range(12) for c in range(4)),
            *((a, b) for a in range(4) for b in range(60)),
        ]
    }
    used = {
        split: {state for (s, _), state in states.items() if s == split}
        for split in SPLITS
    }
    assert not used["train"] & used["validation"]
    assert not used["train"] & used["test"]
    assert not used["validation"] & used["test"]
    words = {*SPLITS.values(), SCENE_SEED, STACK_SEED}
    assert len(words) == len(SPLITS) + 2


def test_splits_give_other_samples():
    train, validation, test = (draw(split=s) for s in SPLITS)
    assert not np.array_equal(train.noise, validation.noise)
    assert not np.array_equal(train.noise, test.noise)


def test_batch_depends_on_its_number_alone():
    before = draw(2)
    assert not np.array_equal(draw(1).noise, before.noise)
    assert_same(draw(2), before)


def test_seed_changes_the_samples():
    assert not np.array_equal(draw().noise, draw(seed=2).noise)


def test_shapes():
    batch = draw()
    assert batch.inputs.shape == (4, 4, 24, 24)
    assert batch.noise.shape == batch.valid.shape == (4, 1, 24, 24)
    for array in batch:
        assert array.numpy().dtype == "float32" and np.isfinite(array.numpy()).all()
    assert set(np.unique(batch.valid)) <= {0.0, 1.0}


def orientations(array):
    for turns in range(4):
        turned = np.rot90(array, turns)
        yield turned
        yield turned[:, ::-1]


@pytest.mark.parametrize("normalisation", ["robust", "minmax"])
def test_target_is_noisy_minus_truth_in_units_of_the_scale(normalisation):
    """Input minus target is the truth, turned or mirrored as the patch was."""
    size, count = 32, 6
    options = {"batch": 1, "crops": 1, "patch": size, "scene": size}
    options |= {"normalisation": normalisation, "signals": ALL_MOVE}
    turned = set()
    for number in range(count):
        batch = draw(number, **options)
        seed = split_seed("train", 1, number, 0).spawn(1)[0]
        pair = simulate_pair((size, size), seed=seed, deforming=True)
        unit = scaling(normalisation, five_numbers(pair.noisy))
        inputs, noise, valid = (a.numpy()[0] for a in batch)
        estimate = (inputs[0] - noise[0]) * unit.scale + unit.offset
        errors = [np.abs(estimate - t).max() for t in orientations(pair.truth)]
        assert min(errors) < 1e-6
        best = int(np.argmin(errors))
        turned.add(best)
        # The other channels and the mask are turned alike.
        there = list(orientations(np.isfinite(pair.noisy)))[best]
        np.testing.assert_array_equal(valid[0] == 1, there)
        np.testing.assert_array_equal(inputs[3], valid[0])
        height = list(orientations(pair.elevation))[best] / 1000
        np.testing.assert_allclose(inputs[2], height, atol=1e-6)
        np.testing.assert_allclose(
            inputs[1], np.log10(unit.scale / 0.01), rtol=1e-5, atol=1e-6
        )
    assert len(turned) > 1


# --- strength of the deformation ------------------------------------------------------


def whole_scenes(count, size, **options):
    """Truth, m, and noise of whole scenes, one to a batch."""
    options = {"batch": 1, "crops": 1, "patch": size, "scene": size} | options
    for number in range(count):
        made = draw(number, **options)
        inputs, noise, _ = (a.numpy()[0].astype(float) for a in made)
        scale = 0.01 * 10 ** inputs[1, 0, 0]  # the constant channel of the scale
        yield (inputs[0] - noise[0]) * scale, noise[0]


def test_a_tenth_of_the_samples_is_pure_noise():
    """What the network sees is then the noise, but for the offset of the scaling."""
    quiet = [np.ptp(truth) < 1e-6 for truth, _ in whole_scenes(120, 16)]
    assert 4 <= sum(quiet) <= 22  # 12 expected, 99.8 % of all draws
    assert not any(np.ptp(t) < 1e-6 for t, _ in whole_scenes(40, 16, signals=ALL_MOVE))
    alone = Signals(pure_noise=1.0)
    assert all(np.ptp(t) < 1e-6 for t, _ in whole_scenes(10, 16, signals=alone))


def peaks(count, signals, start=0):
    """Peaks of the deformation; with the medians, which normalising took, put back."""
    found = []
    for number in range(start, start + count):
        seed = split_seed("train", 1, number, 0).spawn(1)[0]
        pair = simulate_pair((24, 24), seed=seed, deforming=True)
        options = {"batch": 1, "crops": 1, "patch": 24, "scene": 24}
        made = draw(number, signals=signals, **options)
        inputs, noise, _ = (a.numpy()[0].astype(float) for a in made)
        spread = np.ptp((inputs[0] - noise[0]) * 0.01 * 10 ** inputs[1, 0, 0])
        found.append(spread * np.abs(pair.truth).max() / np.ptp(pair.truth))
    return np.array(found)


def test_peaks_are_log_uniform_between_the_weakest_and_the_strongest():
    found = peaks(60, Signals(pure_noise=0.0, weakest=0.002, strongest=0.2))
    place = np.log(found / 0.002) / np.log(100)
    assert -1e-3 < place.min() < 0.15 and 0.85 < place.max() < 1.001
    # The mean of 60 uniform numbers: 0.5 within 4 standard errors.
    assert place.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * 60))


def test_signals_descend_from_easy_to_hard():
    signals = Signals(weakest=0.002, strongest=0.2, descent=100)
    lowest = [signals.lowest(k) for k in (0, 50, 100, 5_000)]
    np.testing.assert_allclose(lowest, [0.2, 0.02, 0.002, 0.002])
    assert Signals(descent=100).lowest(3) is None
    early = peaks(10, Signals(pure_noise=0.0, weakest=0.002, descent=100), start=40)
    assert early.min() > signals.lowest(49) * 0.999


def test_the_noise_does_not_follow_the_strength():
    """Noise in metres, less its median, of the same scene at two strengths."""
    weak, strong = (
        draw(
            signals=Signals(pure_noise=0.0, weakest=w, strongest=w),
            normalisation="minmax",
            batch=1,
            crops=1,
            patch=32,
            scene=32,
        )
        for w in (0.001, 0.1)
    )
    assert not np.allclose(weak.inputs[0, 0], strong.inputs[0, 0], atol=0.05)
    shapes = [b.noise[0, 0].numpy() for b in (weak, strong)]
    assert np.corrcoef(*(s.ravel() for s in shapes))[0, 1] > 0.9999


# --- recipes and real noise ---------------------------------------------------------


@pytest.fixture(scope="module")
def banks():
    stack = simulate_scene(size=64, dates=20, seed=6).cube
    return {s: NoiseBank.from_cube(stack, split=s) for s in SPLITS}


def of_scene(sample, made):
    """Whether the only crop of a batch is `sample`, normalised, in some orientation."""
    unit = scaling("robust", five_numbers(sample.noisy))
    inputs, noise, _ = (a.numpy()[0] for a in made)
    estimate = (inputs[0] - noise[0]) * unit.scale + unit.offset
    return min(np.abs(estimate - t).max() for t in orientations(sample.truth)) < 1e-5


def test_noise_of_a_bank_takes_the_place_of_simulated(banks):
    bank = banks["train"]
    options = {"batch": 1, "crops": 1, "patch": 48, "noise": bank, "signals": ALL_MOVE}
    for number in range(3):
        seed = split_seed("train", 1, number, 0).spawn(1)[0]
        expected = transplant_pair(bank, (48, 48), seed=seed, deforming=True)
        assert of_scene(expected, draw(number, **options))


def test_pairs_of_a_recipe(banks):
    options = {"batch": 2, "crops": 1, "patch": 48, "recipe": "dncnn-paper"}
    made = draw(3, **options)
    for k in range(2):
        index = 3 * 2 + k
        expected = sample("dncnn-paper", index, split="train", seed=1, shape=(48, 48))
        assert of_scene(expected, tuple(a[k : k + 1] for a in made))


def test_recipes_with_an_end_begin_anew():
    options = {"batch": 1, "crops": 1, "patch": 48, "recipe": "dncnn-paper"}
    made = draw(1_501, split="validation", **options)
    expected = sample("dncnn-paper", 1, split="validation", seed=1, shape=(48, 48))
    assert of_scene(expected, made)


def test_scenes_are_as_large_as_the_recipe_and_the_noise_allow(banks):
    options = {"batch": 1, "crops": 1, "patch": 300, "scene": None}
    made = draw(recipe="dncnn-paper", **options)
    assert made.noise.shape[-2:] == (300, 300)
    with pytest.raises(ValueError, match="patch=300 at most scene=256"):
        draw(**options)
    with pytest.raises(ValueError, match="patch=300 at most scene=64"):
        draw(noise=banks["train"], **options)


def test_noise_must_be_of_the_split(banks):
    for split in ("validation", "test"):
        with pytest.raises(ValueError, match="noise is of split train"):
            draw(split=split, noise=banks["train"])


def test_recipes_of_series_are_refused():
    for recipe in ("stack", "autoencoder-paper"):
        with pytest.raises(ValueError, match=f"recipe='{recipe}' makes series"):
            draw(recipe=recipe)
    with pytest.raises(ValueError, match="recipes are dncnn-paper"):
        draw(recipe="gan")


def test_bad_input():
    with pytest.raises(ValueError, match="split='exam'"):
        split_seed("exam", 0)
    with pytest.raises(ValueError, match="batch=3"):
        draw(batch=3)
    with pytest.raises(ValueError, match="patch=64"):
        draw(patch=64)
