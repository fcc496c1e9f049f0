"""Training: it learns, resumes exactly, and leaves a complete model folder."""

import functools
import json

import numpy as np
import pytest
import torch

from cube_denoise import dataset, train
from cube_denoise.dataset import pair_batches, split_seed
from cube_denoise.ingest import ingest_dataset
from cube_denoise.models import zoo
from cube_denoise.models.dncnn import DnCNN, DnCNNConfig
from cube_denoise.simulate.pair import simulate_pair
from cube_denoise.simulate.scene import simulate_scene

TINY = DnCNNConfig(depth=4, channels=8, inputs=("displacement", "log_scale"))
STEPS = 8


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(monkeypatch):
    """An architecture and a recipe that train in seconds."""
    monkeypatch.setitem(zoo.VARIANTS, "tiny", TINY)
    recipe = train.Recipe(steps=STEPS, batch=2, patch=32, crops=2, learning_rate=3e-3)
    monkeypatch.setitem(train.RECIPES, "tiny", recipe)
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 3)
    few = functools.partial(train.held_out_scores, count=4)
    monkeypatch.setattr(train, "held_out_scores", few)
    return "tiny"


def run(folder, **options):
    return zoo.load_model(train.train("tiny", folder, device="cpu", **options))


def assert_same_weights(one, other):
    for key, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key]), key


def test_few_steps_lower_the_loss_on_a_fixed_problem():
    """One batch of real samples, seen again and again."""
    torch.manual_seed(0)
    batch = next(
        pair_batches(
            TINY.inputs,
            "robust",
            split="train",
            seed=0,
            batch=4,
            patch=32,
            scene=96,
            crops=2,
        )
    )
    model = DnCNN(TINY)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = [train._step(model, optimizer, batch, "cpu") for _ in range(40)]
    # A new network predicts no noise: its loss is the power of the noise.
    valid = batch.valid.numpy()
    power = (batch.noise.numpy() ** 2 * valid).sum() / valid.sum()
    assert losses[0] == pytest.approx(power, rel=1e-5)
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_missing_pixels_do_not_count():
    batch = next(
        pair_batches(
            TINY.inputs, "robust", split="train", seed=0, batch=2, patch=32, crops=2
        )
    )
    losses = []
    for spoiled in (0.0, 1e3):
        valid = batch.valid.clone()
        valid[..., :10] = 0
        noise = batch.noise.clone()
        noise[..., :10] += spoiled
        torch.manual_seed(0)
        model = DnCNN(TINY)
        optimizer = torch.optim.Adam(model.parameters())
        one = batch._replace(noise=noise, valid=valid)
        losses.append(train._step(model, optimizer, one, "cpu"))
    assert losses[0] == losses[1]


def test_interrupted_and_resumed_equals_undisturbed(tiny, tmp_path, monkeypatch):
    undisturbed = run(tmp_path / "undisturbed")

    step, calls = train._step, []

    def stumble(*args):
        calls.append(None)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(train, "_step", stumble)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed")
    assert len(calls) == 6 and not (tmp_path / "resumed").exists()
    torch.manual_seed(999)  # what happens in between does not matter
    resumed = run(tmp_path / "resumed")
    # Five steps were done; the checkpoint was of the third.
    assert len(calls) == 6 + STEPS - 3
    assert_same_weights(resumed, undisturbed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["resumed", "undisturbed"]


def test_checkpoint_of_other_settings_is_not_taken_up(tiny, tmp_path, monkeypatch):
    expected = run(tmp_path / "expected", steps=4)

    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train.zoo, "save_model", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "model", steps=5)
    assert len(list(tmp_path.iterdir())) == 2
    assert_same_weights(run(tmp_path / "model", steps=4), expected)


def test_seed_changes_the_weights(tiny, tmp_path):
    one, other = (run(tmp_path / str(s), steps=1, seed=s) for s in (0, 1))
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)


def test_folder_says_how_the_weights_were_made(tiny, tmp_path):
    folder = train.train(tiny, tmp_path / "model", seed=4, steps=2, device="cpu")
    config = json.loads((folder / "config.json").read_text())
    training = config["training"]
    assert training["name"] == tiny and training["seed"] == 4
    assert training["steps"] == 2 and training["batch"] == 2
    assert training["torch"] == torch.__version__ and "CPU" in training["hardware"]
    assert training["minutes"] >= 0
    scores = training["scores"]
    assert scores == train.held_out_scores(zoo.load_model(folder))
    assert set(scores) == {
        "rms_error_raw_mm",
        "rms_error_corrected_mm",
        "rms_error_reduction",
        "amplitude_slope",
        "false_alarm_raw_mm",
        "false_alarm_corrected_mm",
    }
    card = (folder / "README.md").read_text()
    parameters = sum(p.numel() for p in zoo.load_model(folder).parameters())
    for fact in (
        "license: bsd-3-clause",
        f"{parameters:,} parameters",
        "receptive radius 4 pixels",
        "cube-denoise train tiny tiny --seed 4 --steps 2",
        "Seed 4",
        training["hardware"],
        torch.__version__,
        "## Limits",
        *(f"| {key.replace('_', ' ')} | {value} |" for key, value in scores.items()),
    ):
        assert fact in card, fact


def test_denoise_with_an_untrained_network_changes_nothing():
    pair = simulate_pair((64, 64), seed=split_seed("test", 8, 0))
    estimate = train.denoise(DnCNN(TINY).eval(), pair.noisy, pair.elevation)
    np.testing.assert_array_equal(estimate, pair.noisy)


def test_denoise_works_in_metres():
    """Ten times the input is ten times the output: robust scaling, no log_scale."""
    torch.manual_seed(0)
    model = DnCNN(DnCNNConfig(depth=4, channels=8, normalisation="robust"))
    torch.nn.init.normal_(model.layers[-1].weight, std=0.1)
    pair = simulate_pair((64, 64), seed=split_seed("test", 8, 0))
    once = train.denoise(model.eval(), pair.noisy, pair.elevation)
    tenfold = train.denoise(model, pair.noisy * 3, pair.elevation)
    change = np.nanstd(once - pair.noisy)
    assert change > 1e-4
    np.testing.assert_allclose(tenfold, 3 * once, atol=1e-3 * change)


@pytest.mark.parametrize("kind", ["short-pairs", "residual"])
def test_real_noise_trains_and_is_told(tiny, tmp_path, kind, monkeypatch):
    """Of the cube's training dates alone; scenes as large as it is."""
    cube = tmp_path / "stack"
    ingest_dataset(simulate_scene(size=48, dates=14, seed=2).cube, cube)
    asked = []
    batches = dataset.pair_batches

    def watched(*args, **options):
        asked.append(options)
        return batches(*args, **options)

    monkeypatch.setattr(dataset, "pair_batches", watched)
    options = {"steps": 2, "noise": cube, "noise_kind": kind}
    model = run(tmp_path / "model", **options)
    assert_same_weights(model, run(tmp_path / "again", **options))
    plain = run(tmp_path / "plain", steps=2)
    assert not torch.equal(model.layers[0].weight, plain.layers[0].weight)
    bank, scene = asked[0]["noise"], asked[0]["scene"]
    assert bank.split == "train" and bank.kind == kind and scene == 48
    assert "noise" not in asked[-1] and "recipe" not in asked[-1]
    config = json.loads((tmp_path / "model/config.json").read_text())["training"]
    assert config["noise"] == str(cube) and config["noise_kind"] == kind
    card = (tmp_path / "model/README.md").read_text()
    assert f"--steps 2 --noise {cube} --noise-kind {kind}" in card
    assert "No real data was used" not in card
    assert "No real data was used" in (tmp_path / "plain/README.md").read_text()


def test_recipe_trains_and_is_told(tiny, tmp_path):
    model = run(tmp_path / "model", steps=2, recipe="dncnn-paper")
    plain = run(tmp_path / "plain", steps=2)
    assert not torch.equal(model.layers[0].weight, plain.layers[0].weight)
    assert (
        "--steps 2 --recipe dncnn-paper" in (tmp_path / "model/README.md").read_text()
    )
    with pytest.raises(ValueError, match="recipe='stack' makes series"):
        run(tmp_path / "other", recipe="stack")


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="name='unet'"):
        train.train("unet", tmp_path / "model")
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        train.train("dncnn", tmp_path / "model", steps=0)
    assert not list(tmp_path.iterdir())
