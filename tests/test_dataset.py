"""Training samples: seeds, order and target."""

from itertools import islice

import numpy as np
import pytest

from cube_denoise.dataset import pair_batches, split_seed
from cube_denoise.normalise import five_numbers, scaling
from cube_denoise.simulate.pair import simulate_pair
from cube_denoise.simulate.seeds import SCENE_SEED, SPLITS, STACK_SEED

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


def test_bad_input():
    with pytest.raises(ValueError, match="split='exam'"):
        split_seed("exam", 0)
    with pytest.raises(ValueError, match="batch=3"):
        batches(1, batch=3)
    with pytest.raises(ValueError, match="patch=64"):
        batches(1, patch=64)
