"""Training: it learns, resumes exactly, and leaves a complete model folder."""

import csv
import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_task import RECIPES as TEST_RECIPES
from toy_task import TINY, ToyTask

from cube_denoise.dataset import Batch, Signals, pair_batch
from cube_denoise.ingest import ingest_dataset
from cube_denoise.models import registry, zoo
from cube_denoise.models.dncnn import DnCNN, DnCNNConfig
from cube_denoise.simulate.pair import simulate_pair
from cube_denoise.simulate.scene import simulate_scene
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.training import fit, pairs, recipe, run
from cube_denoise.training.checkpoint import Checkpoint, CurvePoint
from cube_denoise.training.fit import Fit
from cube_denoise.training.generative import GenerativeTask
from cube_denoise.training.learner import Learner, rate_factor
from cube_denoise.training.loader import batches
from cube_denoise.training.pairs import PairTask, denoise
from cube_denoise.training.task import Setup

TINY_CONFIG = DnCNNConfig(**TINY.arguments)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quick_networks(monkeypatch):
    """Networks, recipes and scores that take seconds: "tiny" of pairs, and "toy"."""
    for name, settings in TEST_RECIPES.items():
        monkeypatch.setitem(zoo.VARIANTS, name, TINY)
        monkeypatch.setitem(recipe.RECIPES, name, settings)
    few = functools.partial(pairs.held_out_scores, count=4)
    monkeypatch.setattr(pairs, "held_out_scores", few)


def trained(name, folder, **options):
    return zoo.load_model(run.train(name, folder, device="cpu", **options))


def new_learner(name="toy", seed=0, **changes):
    torch.manual_seed(seed)
    settings = dataclasses.replace(TEST_RECIPES[name], **changes)
    return Learner(zoo.create_model(name), settings, seed=seed, device="cpu")


def assert_same_weights(one, other):
    for key, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key]), key


def curve_of(folder, seconds=False):
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [
        {k: float(v) for k, v in row.items() if seconds or k != "seconds"}
        for row in rows
    ]


# --- a step -------------------------------------------------------------------------


def pair_patches(**options):
    made = {"split": "train", "seed": 0, "batch": 4, "patch": 32, "scene": 96}
    return pair_batch(0, TINY_CONFIG.inputs, "robust", crops=2, **made | options)


def test_few_steps_lower_the_loss_on_a_fixed_problem():
    """One batch of real samples, seen again and again."""
    batch = pair_patches()
    learner = new_learner("tiny", learning_rate=1e-2, steps=50)
    task = learner.recipe.task
    losses = [float(learner.step(task, batch)) for _ in range(40)]
    # A new network predicts no noise: its loss is the power of the noise.
    valid = batch.valid.numpy()
    power = (batch.noise.numpy() ** 2 * valid).sum() / valid.sum()
    assert losses[0] == pytest.approx(power, rel=1e-5)
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    # The average follows, and its held-out loss is that of its own weights.
    assert learner.held_out_loss(task, [batch]) < 0.7 * losses[0]


def test_missing_pixels_do_not_count():
    batch = pair_patches()
    valid = batch.valid.clone()
    valid[..., :10] = 0
    losses = []
    for spoiled in (0.0, 1e3):
        noise = batch.noise.clone()
        noise[..., :10] += spoiled
        learner = new_learner("tiny")
        one = Batch(batch.inputs, noise, valid)
        losses.append(float(learner.step(learner.recipe.task, one)))
    assert losses[0] == losses[1]


def test_schedule_rises_evenly_and_falls_as_a_cosine():
    factors = np.array([rate_factor(k, steps=100, warm=10) for k in range(101)])
    np.testing.assert_allclose(factors[:11], np.arange(1, 12) / 11)
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0, abs=1e-12)
    assert (np.diff(factors[10:]) < 0).all()
    learner = new_learner(steps=10, warm_up=0.2, learning_rate=0.3)
    rates = []
    for k in range(10):
        rates.append(learner.learning_rate())
        learner.step(ToyTask(), ToyTask().draw(Setup(TINY_CONFIG, 0), "train", k))
    expected = [0.3 * rate_factor(k, steps=10, warm=2) for k in range(10)]
    np.testing.assert_allclose(rates, expected)


def test_gradients_are_clipped():
    batch = ToyTask().draw(Setup(TINY_CONFIG, 0), "train", 0)
    norms = []
    for clip in (1e9, 0.01):
        learner = new_learner(clip=clip)
        learner.step(ToyTask(), batch)
        squares = [float(p.grad.square().sum()) for p in learner.model.parameters()]
        norms.append(np.sqrt(sum(squares)))
    assert norms[0] > 0.02 and norms[1] == pytest.approx(0.01, rel=1e-3)


def test_average_is_that_of_weights_and_batchnorm_statistics():
    learner = new_learner(average=0.5)
    expected = {k: v.clone().double() for k, v in learner.average.state_dict().items()}
    for k in range(6):
        learner.step(ToyTask(), ToyTask().draw(Setup(TINY_CONFIG, 0), "train", k))
        # Short at first: after step 1 the decay is 2 / 11.
        decay = min(0.5, (k + 2) / (k + 11))
        for key, value in learner.model.state_dict().items():
            expected[key] = decay * expected[key] + (1 - decay) * value.double()
    found = learner.average.state_dict()
    counters = 0
    for key, value in expected.items():
        if "num_batches" in key:
            assert found[key] == 6
            counters += 1
        else:
            torch.testing.assert_close(found[key].double(), value)
    assert counters == 2 and not any(
        p.requires_grad for p in learner.average.parameters()
    )


def test_judging_changes_nothing():
    """Neither weights nor statistics, nor the random numbers of the next step."""
    setup = Setup(TINY_CONFIG, 0)
    held_out = [ToyTask().draw(setup, "validation", k) for k in range(2)]
    one, other = new_learner(), new_learner()
    for k in range(3):
        batch = ToyTask().draw(setup, "train", k)
        one.step(ToyTask(), batch)
        assert one.held_out_loss(ToyTask(), held_out) == one.held_out_loss(
            ToyTask(), held_out
        )
        torch.rand(5)
        other.step(ToyTask(), batch)
    assert_same_weights(one.model, other.model)


def test_networks_with_a_loss_of_their_own_learn(monkeypatch):
    """The bridge: its times are those of the step, whatever was drawn before."""
    small = {"channels": (4, 4), "dilations": (1,)}
    monkeypatch.setitem(
        zoo.VARIANTS, "bridge", registry.Variant("BridgeDenoiser", small)
    )
    inputs = zoo.variant_config("bridge").inputs
    batch = pair_batch(
        0, inputs, "robust", split="train", seed=0, batch=2, patch=32, scene=48, crops=1
    )
    task = GenerativeTask(batch=2, patch=32, crops=1)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        learner = Learner(
            zoo.create_model("bridge"),
            recipe.Recipe(task=task, steps=40, learning_rate=1e-2),
            seed=0,
            device="cpu",
        )
        before = learner.held_out_loss(task, [batch] * 4)
        losses.append([float(learner.step(task, batch)) for _ in range(25)])
        torch.manual_seed(5)
    assert losses[0] == losses[1] and losses[0][0] != losses[0][1]
    # The same times again: those of the batch's number.
    assert learner.held_out_loss(task, [batch] * 4) < 0.9 * before


# --- batches ------------------------------------------------------------------------


def test_worker_processes_draw_the_same_batches():
    task = PairTask(batch=2, patch=24, crops=2)
    setup = Setup(TINY_CONFIG, 3)
    keys = [("validation", 1), *(("train", k) for k in (4, 0, 5))]
    drawn = list(batches(task, setup, keys, workers=2, pinned=False))
    assert len(drawn) == len(keys)
    for batch, key in zip(drawn, keys, strict=True):
        for tensor, expected in zip(batch, task.draw(setup, *key), strict=True):
            assert torch.equal(tensor, expected)


def test_samples_are_of_the_right_split_in_order(tmp_path, monkeypatch):
    asked = []
    draw = ToyTask.draw

    def watched(self, setup, split, number):
        asked.append((split, number))
        return draw(self, setup, split, number)

    monkeypatch.setattr(ToyTask, "draw", watched)
    trained("toy", tmp_path / "model", steps=5)
    assert asked == [
        ("validation", 0),
        ("validation", 1),
        *(("train", k) for k in range(5)),
    ]


def test_held_out_batches_have_the_signals_of_the_end(monkeypatch):
    lowest = {}

    def watched(number, *_, split, signals, **__):
        lowest[split] = signals.lowest(number)

    monkeypatch.setattr(pairs, "pair_batch", watched)
    signals = Signals(weakest=0.002, strongest=0.2, descent=100)
    task = PairTask(batch=1, patch=24, crops=1, signals=signals)
    for split in ("train", "validation"):
        task.draw(Setup(TINY_CONFIG, 0), split, 0)
    assert lowest == {"train": 0.2, "validation": 0.002}


# --- interruptions ------------------------------------------------------------------


def start(out, seconds):
    """A training process; it writes a checkpoint after every step."""
    script = Path(__file__).with_name("toy_task.py")
    return subprocess.Popen([sys.executable, script, out, str(seconds)])


def test_killed_and_resumed_equals_undisturbed(tmp_path):
    """To the bit: weights, averages, curves; killed by SIGKILL between evaluations."""
    expected = trained("toy", tmp_path / "undisturbed")
    out, folder = tmp_path / "killed", tmp_path / ".killed-0.training"
    process = start(out, 0.1)
    try:
        deadline = time.monotonic() + 60
        while not (folder / "curves.csv").exists() or len(curve_of(folder)) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.15)
    finally:
        process.kill()
    process.wait()
    assert process.returncode == -9 and not out.exists()
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert 12 <= kept["learner"]["done"] < 30
    torch.manual_seed(999)  # what happens in between does not matter
    asked = []
    draw = ToyTask.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyTask, "draw", lambda *a: asked.append(a[2:]) or draw(*a))
        resumed = trained("toy", out)
    assert asked[2] == ("train", kept["learner"]["done"])
    assert_same_weights(resumed, expected)
    assert curve_of(out) == curve_of(tmp_path / "undisturbed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed", "undisturbed"]


def test_checkpoint_of_other_settings_is_not_taken_up(tmp_path, monkeypatch):
    expected = trained("toy", tmp_path / "expected", steps=4)

    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zoo, "save_model", stop)
        with pytest.raises(KeyboardInterrupt):
            trained("toy", tmp_path / "model", steps=5)
    assert len(list(tmp_path.iterdir())) == 2
    assert_same_weights(trained("toy", tmp_path / "model", steps=4), expected)


def test_interrupted_after_the_last_step_draws_nothing_again(tmp_path, monkeypatch):
    expected = trained("toy", tmp_path / "expected", steps=5)

    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zoo, "save_model", stop)
        with pytest.raises(KeyboardInterrupt):
            trained("toy", tmp_path / "model", steps=5)
    monkeypatch.setattr(ToyTask, "draw", stop)
    assert_same_weights(trained("toy", tmp_path / "model", steps=5), expected)


def test_card_tells_every_place_where_steps_were_taken(tmp_path, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "hardware", lambda self: "a GPU")
        patch.setattr(Fit, "_evaluate", stop)
        patch.setattr(fit, "CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            trained("toy", tmp_path / "model", steps=11)
    with monkeypatch.context() as patch:
        patch.setattr(zoo, "save_model", stop)
        with pytest.raises(KeyboardInterrupt):
            trained("toy", tmp_path / "model", steps=11)
    # What only writes the folder took no step.
    monkeypatch.setattr(Learner, "hardware", lambda self: "a desk")
    folder = tmp_path / "model"
    trained("toy", folder, steps=11)
    training = json.loads((folder / "config.json").read_text())["training"]
    first, second = training["hardware"].split(" and ")
    assert first == "a GPU" and "CPU" in second
    assert training["hardware"] in (folder / "README.md").read_text()


def test_half_written_checkpoint_is_never_seen(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "model", {"seed": 0})
    checkpoint.write({"done": 1}, [CurvePoint(1, 1.0, 1.0, 1.0, 1.0)])

    def torn(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", torn)
    with pytest.raises(OSError):
        checkpoint.write({"done": 2}, [])
    assert checkpoint.read() == {"done": 1}
    assert len(curve_of(checkpoint.folder)) == 1
    assert Checkpoint(tmp_path / "model", {"seed": 0, "steps": 2}).read() is None


# --- which weights are kept ---------------------------------------------------------


@pytest.mark.parametrize(
    "patience, last, best", [(None, 30, 8), (2, 16, 8), (3, 30, 8)]
)
def test_best_weights_are_kept_and_patience_ends_the_run(
    tmp_path, monkeypatch, patience, last, best
):
    """Evaluations at steps 4, 8, ... 28 and 30; the second is the best."""
    settings = dataclasses.replace(TEST_RECIPES["toy"], patience=patience)
    monkeypatch.setitem(recipe.RECIPES, "toy", settings)
    losses = [3.0, 1.0, 2.0, 1.5, 0.9 if patience == 3 else 4.0, 5.0, 6.0, 7.0]
    best = 20 if patience == 3 else best
    seen = {}

    def scripted(self, task, held_out):
        seen[self.done] = {k: v.clone() for k, v in self.average.state_dict().items()}
        return losses[len(seen) - 1]

    monkeypatch.setattr(Learner, "held_out_loss", scripted)
    model = trained("toy", tmp_path / "model")
    assert [r["step"] for r in curve_of(tmp_path / "model")] == list(seen)
    assert max(seen) == last
    card = (tmp_path / "model/README.md").read_text()
    assert f"{last} steps of 4 slopes" in card and f"at step {best}," in card
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["training"]["best_step"] == best
    for key, value in seen[best].items():
        stored = value.half().float() if value.is_floating_point() else value
        assert torch.equal(model.state_dict()[key], stored), key


def test_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(
        ToyTask,
        "loss",
        lambda s, model, batch: sum(p.sum() for p in model.parameters()) * float("nan"),
    )
    with pytest.raises(ValueError, match="toy: the loss is nan before step 4"):
        trained("toy", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_curves_tell_how_it_went(tmp_path):
    trained("toy", tmp_path / "model")
    rows = curve_of(tmp_path / "model", seconds=True)
    assert [r["step"] for r in rows] == [*range(4, 30, 4), 30]
    assert rows[-1]["learning_rate"] == pytest.approx(0, abs=1e-9)
    assert rows[-1]["held_out_loss"] < 0.8 * rows[0]["held_out_loss"]
    # The mean over a few steps: noisier than the fixed batches.
    assert rows[-1]["training_loss"] < rows[0]["training_loss"]
    assert np.all(np.diff([r["seconds"] for r in rows]) >= 0)


# --- the model folder ---------------------------------------------------------------


def test_seed_changes_the_weights(tmp_path):
    one, other = (trained("toy", tmp_path / str(s), steps=1, seed=s) for s in (0, 1))
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)


def test_folder_says_how_the_weights_were_made(tmp_path):
    folder = run.train("tiny", tmp_path / "model", seed=4, steps=2, device="cpu")
    training = json.loads((folder / "config.json").read_text())["training"]
    assert training["name"] == "tiny" and training["seed"] == 4
    assert training["steps"] == training["best_step"] == 2
    task = {"name": "PairTask", "batch": 2, "patch": 32, "crops": 2}
    assert task.items() <= training["task"].items()
    assert training["task"]["signals"]["pure_noise"] == 0.1
    assert training["torch"] == torch.__version__ and "CPU" in training["hardware"]
    assert training["minutes"] >= 0
    assert training["held_out_loss"] == pytest.approx(
        curve_of(folder)[-1]["held_out_loss"], rel=1e-4
    )
    scores = training["scores"]
    assert scores == pairs.held_out_scores(zoo.load_model(folder))
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
        "No real data was used",
        "## Limits",
        *(f"| {key.replace('_', ' ')} | {value} |" for key, value in scores.items()),
    ):
        assert fact in card, fact


def test_card_of_another_task_is_in_its_words(tmp_path):
    folder = run.train("toy", tmp_path / "model", steps=1, device="cpu")
    card = (folder / "README.md").read_text()
    bias = zoo.load_model(folder).layers[-1].bias.item()
    for fact in ("Straightens slopes.", "4 slopes: mean square", f"bias | {bias} |"):
        assert fact in card, fact
    assert "- Knows slopes alone." in card


def test_every_network_has_a_recipe():
    assert recipe.RECIPES.keys() == zoo.VARIANTS.keys()
    for settings in recipe.RECIPES.values():
        assert json.loads(json.dumps(settings.record()))


# --- what it is trained on ----------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [pytest.param("short-pairs", marks=pytest.mark.slow), "residual"]
)
def test_real_noise_trains_and_is_told(tmp_path, kind, monkeypatch):
    """Of the cube's training dates; held-out batches of its validation dates."""
    cube = tmp_path / "stack"
    ingest_dataset(simulate_scene(size=48, dates=20, seed=2).cube, cube)
    setups = []
    draw = PairTask.draw
    monkeypatch.setattr(PairTask, "draw", lambda *a: setups.append(a[1]) or draw(*a))
    options = {"steps": 2, "noise": cube, "noise_kind": kind}
    model = trained("tiny", tmp_path / "model", **options)
    plain = trained("tiny", tmp_path / "plain", steps=2)
    assert not torch.equal(model.layers[0].weight, plain.layers[0].weight)
    noise = setups[0].noise
    assert {(s, bank.split, bank.kind) for s, bank in noise.items()} == {
        (s, s, kind) for s in ("train", "validation")
    }
    assert not setups[-1].noise and setups[-1].recipe is None
    config = json.loads((tmp_path / "model/config.json").read_text())["training"]
    assert config["noise"] == str(cube) and config["noise_kind"] == kind
    card = (tmp_path / "model/README.md").read_text()
    assert f"--steps 2 --noise {cube} --noise-kind {kind}" in card
    assert "No real data was used" not in card


def test_too_few_validation_dates_are_told(tmp_path, caplog):
    """Seven dates leave two for validation: one pair is no bank."""
    cube = tmp_path / "stack"
    ingest_dataset(simulate_scene(size=48, dates=7, seed=2).cube, cube)
    with caplog.at_level("WARNING", logger="cube_denoise"):
        trained("tiny", tmp_path / "model", steps=1, noise=cube)
    assert "held-out batches have simulated noise" in caplog.text


def test_recipe_trains_and_is_told(tmp_path):
    model = trained("tiny", tmp_path / "model", steps=2, recipe="dncnn-paper")
    plain = trained("tiny", tmp_path / "plain", steps=2)
    assert not torch.equal(model.layers[0].weight, plain.layers[0].weight)
    card = (tmp_path / "model/README.md").read_text()
    assert "--steps 2 --recipe dncnn-paper" in card
    with pytest.raises(ValueError, match="recipe='stack' makes series"):
        trained("tiny", tmp_path / "other", recipe="stack")


def test_bad_input(tmp_path, monkeypatch):
    out = tmp_path / "model"
    with pytest.raises(ValueError, match=r"name='gan': known networks are dncnn, "):
        run.train("gan", out)
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        run.train("dncnn", out, steps=0)
    with pytest.raises(ValueError, match="workers=-1 must be 0 or more"):
        run.train("dncnn", out, workers=-1)
    with pytest.raises(ValueError, match="device='tpu': must be 'auto', 'cpu' or"):
        run.train("dncnn", out, device="tpu")
    monkeypatch.setattr(run, "device_here", lambda: "cpu")
    with pytest.raises(ValueError, match="device='cuda': this process sees no GPU"):
        run.train("dncnn", out, device="cuda")
    monkeypatch.delitem(recipe.RECIPES, "toy")
    with pytest.raises(ValueError, match="name='toy' has no recipe; those with one:"):
        run.train("toy", out)
    assert not list(tmp_path.iterdir())


# --- in memory ----------------------------------------------------------------------


def test_denoise_with_an_untrained_network_changes_nothing():
    pair = simulate_pair((64, 64), seed=split_seed("test", 8, 0))
    estimate = denoise(DnCNN(TINY_CONFIG).eval(), pair.noisy, pair.elevation)
    np.testing.assert_array_equal(estimate, pair.noisy)


def test_denoise_works_in_metres():
    """Three times the input is three times the output: robust scaling, no log_scale."""
    torch.manual_seed(0)
    model = DnCNN(DnCNNConfig(depth=4, channels=8, normalisation="robust"))
    torch.nn.init.normal_(model.layers[-1].weight, std=0.1)
    pair = simulate_pair((64, 64), seed=split_seed("test", 8, 0))
    once = denoise(model.eval(), pair.noisy, pair.elevation)
    threefold = denoise(model, pair.noisy * 3, pair.elevation)
    change = np.nanstd(once - pair.noisy)
    assert change > 1e-4
    np.testing.assert_allclose(threefold, 3 * once, atol=1e-3 * change)


# --- memory -------------------------------------------------------------------------

FAULTS = """
import resource, sys, torch
from cube_denoise.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        a, b = torch.ones(2**24), torch.ones(2**24)
        del a, b
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_kept_in_training_unless_the_user_set_it():
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}

    def faults(how, **more):
        command = [sys.executable, "-c", FAULTS, how]
        done = subprocess.run(
            command, env=plain | more, check=True, capture_output=True, text=True
        )
        return int(done.stdout)

    given_back = faults("not")
    assert given_back > 1000 and faults("kept") < given_back / 10
    assert faults("kept", MALLOC_TRIM_THRESHOLD_="131072") > given_back / 2
