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
from cube_denoise.training import gate, noise2noise
from cube_denoise.training.adapt import adapt
from cube_denoise.training.gate import Judged, judge, verdict
from cube_denoise.training.noise2noise import Noise2Noise
from cube_denoise.training.stacks import StackTask
from cube_denoise.training.transplant import seasons, transplanted

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
    monkeypatch.setattr(gate, "BANK", 2)

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
            same = np.random.default_rng(1)
            real = bank.draw_series(8, (32, 32), same, directed=True).displacement
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


def test_an_amplitude_that_was_lost_before_must_not_be_lost_further():
    before = GOOD._replace(slope=0.8)
    better = GOOD._replace(error=0.3)
    assert verdict(before, better._replace(slope=0.76)) == ()
    assert "0.74 is kept" in verdict(before, better._replace(slope=0.74))[0]
    assert verdict(before, better._replace(slope=1.19)) == ()


def test_what_helps_is_accepted(cube, tmp_path, small_batches):
    spoiled = saved(tmp_path / "spoiled", spoiled=True)
    found = adapt(cube, tmp_path / "mine", model=spoiled, steps=40, threads=1)
    assert found.reasons == () and found.after.error < 0.5 * found.before.error
    record = json.loads((found.folder / "config.json").read_text())["training"]
    assert record["before"] == found.before._asdict()
    assert record["scores"] == found.after._asdict()
    assert "--steps 40 --no-between" in (found.folder / "README.md").read_text()
    kept, bank = zoo.load_model(found.folder), adapting.noise_banks(cube)["test"]
    assert judge(kept, bank) == found.after


def test_what_does_not_help_is_refused(cube, untrained, tmp_path, small_batches):
    out = tmp_path / "mine"
    done = call("adapt", cube, out, "--model", untrained, "--steps", "1")
    assert done.exit_code == 1
    assert "refused" in done.stderr and "error on held-out dates" in done.stderr
    assert not list(tmp_path.iterdir())


class Knowing(torch.nn.Module):
    """Gives steady motion at a known rate in the reference of the dates it sees."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, series, visible, years, elevation, coherence):
        given = visible.any(3).any(2).float()
        mean = (given * years).sum(1, keepdim=True) / given.sum(1, keepdim=True)
        seen = (years - mean)[:, :, None, None] * self.rate
        return seen, torch.ones_like(seen)


@pytest.fixture(scope="module")
def steady(banks):
    """A stack of steady motion, its rate and its noise."""
    rng = np.random.default_rng(0)
    rate = rng.standard_normal((32, 32)).astype("float32")
    rate -= rate.mean()
    noise = rng.standard_normal((40, 32, 32)).astype("float32")
    noise -= noise.mean((1, 2), keepdims=True)
    years = np.arange(40) / 30
    bank = replace(banks["train"], fields=noise)
    return Noise2Noise(years[:, None, None] * rate + noise, years, bank), rate, noise


def test_halves_are_apart_and_in_one_reference(steady):
    own, rate, noise = steady
    for number in range(6):
        half = own.draw(0, number)
        given, asked = (a.any(3).any(2) for a in (half.visible, half.asked))
        assert not (given & asked).any() and (given | asked).all()
        assert not half.series[~half.visible].any()
    for half in own.every_half():
        given = half.visible.any(3).any(2)[0].numpy()
        assert given.sum() == 20
        time = own.years - own.years[given].mean()
        moved = rate * time[:, None, None] + noise - noise[given].mean(0)
        there = half.asked[0].numpy()
        np.testing.assert_allclose(half.target[0].numpy()[there], moved[there], 0, 1e-4)


def test_the_least_error_against_noise_is_the_least_error(steady):
    own, rate, _ = steady
    errors = [own.blind_error(Knowing(f * rate)) for f in (0.8, 1.0, 1.2)]
    # Of one date, and of the mean of the twenty that are given.
    assert errors[1] ** 2 == pytest.approx(1 + 1 / 20, rel=0.01)
    there = np.concatenate([h.years[h.asked.any(3).any(2)] for h in own.every_half()])
    for wrong in (errors[0], errors[2]):
        more = 0.04 * (rate**2).mean() * there.var()
        assert wrong**2 - errors[1] ** 2 == pytest.approx(more, rel=0.15)


@pytest.mark.parametrize("rate", [3e-3, pytest.param(0.0, marks=pytest.mark.slow)])
def test_a_stage_between_dates_has_its_gate(tmp_path, monkeypatch, small_batches, rate):
    cube = tmp_path / "cube"
    ingest_dataset(simulate_stack(seed=8, shape=(32, 32), dates=32, snr=0.1).cube, cube)
    spoiled = saved(tmp_path / "spoiled", spoiled=True)
    with pytest.raises(ValueError, match="takes about 60 dates"):
        adapt(cube, tmp_path / "mine", model=spoiled, between=True)
    monkeypatch.setattr(adapting, "LONG", 4)
    monkeypatch.setattr(noise2noise, "STEPS", 30)
    monkeypatch.setattr(noise2noise, "LEARNING_RATE", rate)
    found = adapt(cube, tmp_path / "mine", model=spoiled, steps=10, threads=1)
    record = json.loads((found.folder / "config.json").read_text())["training"]
    assert record["between"] is bool(rate)
    assert "--steps 10 --between" in (found.folder / "README.md").read_text()


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


def layered_fields(share, *, dates=40, side=24):
    """Fields of which elevation explains a share; their elevation, m, and times."""
    rng = np.random.default_rng(2)
    height = np.cumsum(np.cumsum(rng.standard_normal((side, side)), 0), 1)
    layer = np.exp((height - height.max()) / (2 * height.std()))
    layer = (layer - layer.mean()) / layer.std()
    rest = rng.standard_normal((dates, side, side))
    course = rng.standard_normal((dates, 1, 1))
    fields = np.sqrt(share) * course * layer + np.sqrt(1 - share) * rest
    fields -= fields.mean((1, 2), keepdims=True)
    return fields, 100 * height, np.arange(dates) / 30


def test_what_follows_elevation_gets_seasons_of_its_own_shape():
    fields, elevation, years = layered_fields(0.9)
    fields[:, :4, :4] = np.nan
    added = seasons(fields, elevation, years, np.random.default_rng(1))
    modes = np.linalg.svd(added.reshape(len(added), -1), full_matrices=False)
    assert modes[1][1] < 1e-6 * modes[1][0]
    shape = modes[2][0].reshape(elevation.shape)
    seen = np.isfinite(fields[0])
    closest = max(abs(np.corrcoef(shape[seen], f[seen])[0, 1]) for f in fields)
    assert closest > 0.999 and not shape[~seen].any()
    year = np.stack([np.cos(2 * np.pi * years), np.sin(2 * np.pi * years)], 1)
    left = modes[0][:, 0] - year @ np.linalg.lstsq(year, modes[0][:, 0])[0]
    assert np.abs(left).max() < 1e-6


@pytest.mark.parametrize("flat", [True, False])
def test_what_does_not_follow_elevation_gets_none(flat):
    fields, elevation, years = layered_fields(0.2)
    if flat:
        elevation = 0 * elevation
    assert not seasons(fields, elevation, years, np.random.default_rng(1)).any()


def test_a_transplant_with_seasons_has_more_power_at_the_year(banks):
    """Two years of dates, elevation that explains all: half of the stacks change."""
    fields, elevation, years = layered_fields(0.95, dates=40, side=32)
    bank = replace(
        banks["train"],
        fields=fields.astype("float32"),
        elevation=elevation,
        dates=np.zeros((40, 1), "datetime64[s]"),
        coherence=np.full(elevation.shape, 0.6, "float32"),
    )
    often = StackSampling(
        sides=(32,), dates=(40, 40), volume=32 * 32 * 40 * 8, bank=2, hiding=0, gappy=0
    )
    batch = stack_batch(0, often, split="train", seed=0)
    batch = batch._replace(years=torch.from_numpy(years).float().expand(8, -1))
    shares = []
    for seasonal in (False, True):
        rng = np.random.default_rng(1)
        made = transplanted(batch, bank, rng, ratio=0.0, seasonal=seasonal)
        wave = torch.exp(2j * np.pi * torch.from_numpy(years))[:, None, None]
        noise = made.series.double()
        at_the_year = 2 * (wave * noise).mean(1).abs().square().mean((1, 2))
        shares.append((at_the_year / noise.square().mean((1, 2, 3))).numpy())
    assert (shares[1] > shares[0] + 0.05).sum() >= 2 and shares[0].max() < 0.35
