"""Adapting to a user's own stack: transplants, the gate, both of its ways."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from command_line import call

from cube_denoise.ingest import ingest_dataset
from cube_denoise.models import zoo
from cube_denoise.models.stack import StackConfig, StackNetwork
from cube_denoise.simulate import simulate_stack
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.stack import power
from cube_denoise.stack_samples import StackSampling, stack_batch
from cube_denoise.training import adapt as adapting
from cube_denoise.training.adapt import Judged, adapt, judge, verdict
from cube_denoise.training.stacks import StackTask
from cube_denoise.training.transplant import transplanted

FEW = StackSampling(sides=(32,), dates=(8, 8), volume=32 * 32 * 16, bank=3, hiding=0)
GOOD = Judged(0.5, 0.98, 4.0, 0.68)


class Believing(torch.nn.Module):
    """Takes all it is given for displacement."""

    def forward(self, series, visible, years, elevation, coherence):
        return series, torch.full_like(series, 1e9)


class Denying(torch.nn.Module):
    """Sees no displacement at all, and is sure of it."""

    def forward(self, series, visible, years, elevation, coherence):
        return 0 * series, 0 * series


@pytest.fixture
def small_batches(monkeypatch):
    whole = adapting.recipe
    monkeypatch.setattr(adapting, "BANK", 2)

    def recipe(banks, steps):
        made = whole(banks, steps)
        few = replace(made.task.sampling, volume=32 * 32 * 28)
        return replace(made, task=StackTask(sampling=few), learning_rate=3e-3)

    monkeypatch.setattr(adapting, "recipe", recipe)


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapt") / "cube"
    ingest_dataset(simulate_stack(seed=8, shape=(48, 48), dates=24, snr=0.1).cube, path)
    return str(path)


def saved(folder, *, spoiled):
    """A new network, which is a good filter already, or one with wrong weights."""
    torch.manual_seed(0)
    model = StackNetwork(StackConfig(channels=(8, 12), heads=2))
    with torch.no_grad():
        for head in (*model.heads, model.finest) if spoiled else ():
            head.layer.bias.normal_(0, 3)
    return zoo.save_model(model, folder, training={"scores": {}}, card="")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model") / "untrained", spoiled=False)


@pytest.fixture(scope="module")
def banks(cube):
    return adapting.noise_banks(cube)


def test_splits_of_dates_are_apart(banks):
    dates = [set(b.dates.ravel().tolist()) for b in banks.values()]
    assert not dates[0] & dates[1] and not (dates[0] | dates[1]) & dates[2]


@pytest.mark.parametrize("ratio", [None, 0.0, 0.5])
def test_a_transplant_is_truth_and_real_noise(banks, ratio):
    batch = stack_batch(0, FEW, split="train", seed=0)
    bank = banks["train"]
    made = transplanted(batch, bank, np.random.default_rng(1), ratio=ratio)
    for k in range(len(made.series)):
        there = made.visible[k].numpy()
        noise = np.where(there, (made.series - made.displacement)[k].numpy(), np.nan)
        assert noise.shape[0] == 8
        if not k:
            real = bank.draw_series(8, (32, 32), np.random.default_rng(1)).displacement
            np.testing.assert_allclose(noise[there], real[there], atol=1e-6)
        truth = made.displacement[k].numpy()
        if ratio is not None:
            assert power(truth) == pytest.approx(ratio * power(noise), rel=0.1)


def test_the_same_numbers_again(banks):
    batch = stack_batch(0, FEW, split="train", seed=0)
    one, other = (
        transplanted(batch, banks["train"], np.random.default_rng(1)) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_nothing_is_flattered(banks):
    kept, lost = (judge(m, banks["test"], count=2) for m in (Believing(), Denying()))
    assert kept.error == 1 and kept.coverage_68 == 1
    assert kept.slope == pytest.approx(1, abs=0.5)
    assert lost.slope == 0 and lost.false_alarm_mm == 0 and lost.coverage_68 < 0.01
    assert verdict(kept, lost)  # however small its false alarms


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (GOOD._replace(error=0.3), None),
        (GOOD._replace(error=0.3, slope=0.92), None),
        (GOOD._replace(error=0.495), "error on held-out dates"),
        (GOOD._replace(error=0.3, slope=0.7), "0.70 is kept"),
        (GOOD._replace(error=0.3, slope=1.3), "1.30 is kept"),
        (GOOD._replace(error=0.3, false_alarm_mm=5.0), "sees 5.00 mm"),
        (GOOD._replace(error=float("nan")), "error on held-out dates"),
    ],
)
def test_the_gate(after, reason):
    reasons = verdict(GOOD, after)
    assert reasons == () if reason is None else reason in " ".join(reasons)


def test_what_helps_is_accepted(cube, tmp_path, small_batches):
    spoiled = saved(tmp_path / "spoiled", spoiled=True)
    found = adapt(cube, tmp_path / "mine", model=spoiled, steps=40, threads=1)
    assert found.reasons == () and found.after.error < 0.5 * found.before.error
    record = json.loads((found.folder / "config.json").read_text())["training"]
    assert record["before"] == found.before._asdict()
    assert record["scores"] == found.after._asdict()
    assert "--steps 40" in (found.folder / "README.md").read_text()
    kept, bank = zoo.load_model(found.folder), adapting.noise_banks(cube)["test"]
    assert judge(kept, bank) == found.after


def test_what_does_not_help_is_refused(cube, untrained, tmp_path, small_batches):
    out = tmp_path / "mine"
    done = call("adapt", cube, out, "--model", untrained, "--steps", "1")
    assert done.exit_code == 1
    assert "refused" in done.stderr and "error on held-out dates" in done.stderr
    assert not list(tmp_path.iterdir())


def test_mistakes(cube, untrained, tmp_path):
    with pytest.raises(ValueError, match="model='dncnn' is a DnCNN"):
        adapt(cube, tmp_path / "mine", model="dncnn")
    short = tmp_path / "short"
    ingest_dataset(simulate_stack(seed=8, shape=(32, 32), dates=12).cube, short)
    with pytest.raises(ValueError, match="takes about 20 dates"):
        adapt(short, tmp_path / "mine", model=untrained)


def test_a_bank_of_pairs_has_no_series(cube):
    from cube_denoise import store

    bank = NoiseBank.from_cube(store.open_cube(cube))
    batch = stack_batch(0, FEW, split="train", seed=0)
    with pytest.raises(ValueError, match="a series needs a bank of 'residual'"):
        transplanted(batch, bank, np.random.default_rng(0))
