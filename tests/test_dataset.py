"""Training samples: seeds, order and target."""

from itertools import islice

import numpy as np
import pytest

from cube_denoise.dataset import pair_batches, split_seed
from cube_denoise.normalise import five_numbers, scaling
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.pair import simulate_pair
from cube_denoise.simulate.recipes import sample
from cube_denoise.simulate.scene import simulate_scene
from cube_denoise.simulate.seeds import SCENE_SEED, SPLITS, STACK_SEED
from cube_denoise.simulate.transplant import transplant_pair

INPUTS = ("displacement", "log_scale", "elevation", "valid")
OPTIONS = {"seed": 1, "batch": 4, "patch": 24, "scene": 48, "crops": 2}


def batches(count, *, inputs=INPUTS, normalisation="robust", split="train", **options):
    made = pair_batches(inputs, normalisation, split=split, **OPTIONS | options)
    return list(islice(made, count))


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
    train, validation, test = (batches(1, split=s)[0] for s in SPLITS)
    assert not np.array_equal(train.noise, validation.noise)
    assert not np.array_equal(train.noise, test.noise)


def test_batch_depends_on_its_number_alone():
    whole = batches(4)
    assert_same(whole[2], batches(1, start=2)[0])
    assert_same(whole[3], batches(2, start=2)[1])
    assert not np.array_equal(whole[0].noise, whole[1].noise)


def test_seed_changes_the_samples():
    assert not np.array_equal(batches(1)[0].noise, batches(1, seed=2)[0].noise)


def test_shapes():
    (batch,) = batches(1)
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
    made = batches(
        count, normalisation=normalisation, batch=1, crops=1, patch=size, scene=size
    )
    turned = set()
    for number, batch in enumerate(made):
        draw, _ = split_seed("train", 1, number, 0).spawn(2)
        pair = simulate_pair((size, size), seed=draw)
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
    options = {"batch": 1, "crops": 1, "patch": 48, "noise": banks["train"]}
    whole = batches(3, **options)
    for number, made in enumerate(whole):
        draw, _ = split_seed("train", 1, number, 0).spawn(2)
        assert of_scene(transplant_pair(banks["train"], (48, 48), seed=draw), made)
    assert_same(whole[2], batches(1, start=2, **options)[0])


def test_pairs_of_a_recipe(banks):
    options = {"batch": 2, "crops": 1, "patch": 48, "recipe": "dncnn-paper"}
    (made,) = batches(1, start=3, **options)
    for k in range(2):
        index = 3 * 2 + k
        expected = sample("dncnn-paper", index, split="train", seed=1, shape=(48, 48))
        assert of_scene(expected, tuple(a[k : k + 1] for a in made))


def test_recipes_with_an_end_begin_anew():
    options = {"batch": 1, "crops": 1, "patch": 48, "recipe": "dncnn-paper"}
    (made,) = batches(1, start=1_501, split="validation", **options)
    expected = sample("dncnn-paper", 1, split="validation", seed=1, shape=(48, 48))
    assert of_scene(expected, made)


def test_scenes_are_as_large_as_the_recipe(banks):
    options = {"batch": 1, "crops": 1, "patch": 300, "scene": None}
    (made,) = batches(1, recipe="dncnn-paper", **options)
    assert made.noise.shape[-2:] == (300, 300)
    with pytest.raises(ValueError, match="patch=300 at most scene=256"):
        batches(1, **options)


def test_noise_must_be_of_the_split(banks):
    for split in ("validation", "test"):
        with pytest.raises(ValueError, match="noise is of split train"):
            batches(1, split=split, noise=banks["train"])


def test_recipes_of_series_are_refused():
    for recipe in ("stack", "autoencoder-paper"):
        with pytest.raises(ValueError, match=f"recipe='{recipe}' makes series"):
            batches(1, recipe=recipe)
    with pytest.raises(ValueError, match="recipes are dncnn-paper"):
        batches(1, recipe="gan")


def test_bad_input():
    with pytest.raises(ValueError, match="split='exam'"):
        split_seed("exam", 0)
    with pytest.raises(ValueError, match="batch=3"):
        batches(1, batch=3)
    with pytest.raises(ValueError, match="patch=64"):
        batches(1, patch=64)
