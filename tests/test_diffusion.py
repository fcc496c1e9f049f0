"""Samplers with an exact denoiser of Gaussian fields; the networks around them."""

import dataclasses
import functools
import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import t as student

import cube_denoise as cd
from cube_denoise.halo import Lattice, Tile
from cube_denoise.models import registry, zoo
from cube_denoise.models.bridge import BridgeConfig, BridgeDenoiser
from cube_denoise.models.coloured import Coloured, member_noise
from cube_denoise.models.diffusion import (
    SCHEDULE,
    DiffusionConfig,
    DiffusionDenoiser,
    Ensemble,
)
from cube_denoise.models.samplers import (
    NoiseSchedule,
    matched_start,
    noised_start,
    sample,
    weighted_mean,
)
from cube_denoise.models.stack_loss import SHARE
from cube_denoise.simulate import PairErrors, simulate_stack
from cube_denoise.simulate.pair import SimulatedPair
from cube_denoise.training import generative, pairs, recipe, run
from cube_denoise.training.generative import GenerativeTask

SHAPE = (32, 32)
SIGNAL = Coloured(white=0.002, slope=-11 / 3, outer_scale=24, padding=1)
CORRELATED = Coloured(white=0.02, padding=1)
WHITE = Coloured(white=1.0, padding=1)


@pytest.fixture(autouse=True)
def one_thread():
    """Small maps: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def source(seed):
    return torch.Generator().manual_seed(seed)


def filtered(x, gain):
    return torch.fft.irfft2(torch.fft.rfft2(x) * gain, s=x.shape[-2:])


def exact_denoiser(schedule, noise):
    """E[x_0 | x_t] of periodic Gaussian fields of the `SIGNAL` spectrum."""
    signal, noise = (s.density(SHAPE).float() for s in (SIGNAL, noise))

    def denoiser(x, step):
        kept = float(schedule.alpha_bar[step])
        gain = kept**0.5 * signal / (kept * signal + (1 - kept) * noise)
        return filtered(x, gain)

    return denoiser


def spectrum_error(fields, spectrum):
    """Mean over rings of |power found / power asked for - 1|."""
    found = torch.fft.rfft2(fields.double()).abs().square().mean((0, 1))
    found /= SHAPE[0] * SHAPE[1]
    fy = torch.fft.fftfreq(SHAPE[0])[:, None]
    fx = torch.fft.rfftfreq(SHAPE[1])
    ring = (torch.hypot(fy, fx) * SHAPE[0]).round().long()
    inside = (ring > 0) & (ring <= SHAPE[0] // 2)
    ratios = (found / spectrum.density(SHAPE))[inside]
    count = torch.bincount(ring[inside])[1:]
    return float(((torch.bincount(ring[inside], ratios)[1:] / count) - 1).abs().mean())


@pytest.mark.parametrize("spectrum", [CORRELATED, SIGNAL, WHITE])
def test_noise_has_the_spectrum_and_unit_variance(spectrum):
    fields = spectrum.fields(2000, SHAPE, generator=source(0))
    assert fields.shape == (2000, 1, *SHAPE)
    assert float(fields.var()) == pytest.approx(1, abs=0.02)
    assert spectrum_error(fields, spectrum) < 0.02
    full = torch.cat([spectrum.density(SHAPE), spectrum.density(SHAPE)[:, 1:-1]], 1)
    assert float(full.mean()) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(24, 24), (15, 40)])
def test_cut_noise_has_unit_variance_and_no_common_edge(shape):
    fields = Coloured().fields(4000, shape, generator=source(1))
    assert float(fields.var()) == pytest.approx(1, abs=0.03)
    across = (fields[..., 0, :] * fields[..., -1, :]).mean()
    next_to = (fields[..., 0, :] * fields[..., 1, :]).mean()
    assert next_to > 0.8 > 0.5 > across
    closed = dataclasses.replace(Coloured(), padding=1)
    wrapped = closed.fields(4000, shape, generator=source(1))
    assert (wrapped[..., 0, :] * wrapped[..., -1, :]).mean() > 0.7


def test_a_neighbourhood_looks_alike_on_maps_of_any_size():
    """The outer scale is in pixels: mean square differences do not grow with a map."""
    near = [
        float((f[..., 8:] - f[..., :-8]).square().mean())
        for f in (
            Coloured().fields(n, (side, side), generator=source(2))
            for side, n in ((64, 600), (192, 60))
        )
    ]
    assert near[0] == pytest.approx(near[1], rel=0.06)


def test_noise_parameters_are_checked():
    for options in ({"white": 0.0}, {"outer_scale": 0.0}, {"padding": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Coloured(**options)


def test_schedule_is_that_of_ddpm():
    schedule = NoiseSchedule()
    assert float(schedule.alpha_bar[0]) == pytest.approx(1 - 1e-4)
    # Ho et al. (2020): almost nothing of the signal is left.
    assert float(schedule.alpha_bar[-1]) == pytest.approx(4.04e-5, rel=0.01)
    for step in (0, 321, 999):
        assert schedule.matched_step(float(schedule.levels[step])) == step
    assert schedule.times(1000) == list(range(999, -1, -1))
    assert schedule.times(4) == [999, 561, 249, 61]
    assert schedule.times(1, start=17) == [17]
    for count in (1, 8, 50, 313, 999):
        times = schedule.times(count)
        assert len(times) == count and times[0] == 999 and times[-1] >= 0
        assert all(a > b for a, b in itertools.pairwise(times))
    with pytest.raises(ValueError, match="count=19"):
        schedule.times(19, start=17)
    with pytest.raises(ValueError, match="first=0"):
        NoiseSchedule(first=0.0)


def test_forward_process_keeps_variance():
    schedule = NoiseSchedule()
    clean, noise = (torch.randn(3, 1, 80, 80, generator=source(k)) for k in (3, 4))
    noisy = schedule.add_noise(clean, noise, torch.tensor([0, 400, 999]))
    assert torch.allclose(noisy.var((1, 2, 3)), torch.ones(3), atol=0.05)
    rest = noisy[1] - schedule.alpha_bar[400].sqrt() * clean[1]
    assert float(rest.std()) == pytest.approx(
        float((1 - schedule.alpha_bar[400]).sqrt()), rel=0.05
    )


SAMPLES = 160


def drawn(schedule, count, *, start, added):
    """Samples of the prior, from noise of one spectrum, adding noise of another."""
    generator = source(5)

    def unit(spectrum):
        return lambda: spectrum.fields(SAMPLES, SHAPE, generator=generator)

    return sample(
        exact_denoiser(schedule, start),
        unit(start)(),
        schedule=schedule,
        times=schedule.times(count),
        noise=unit(added) if added else None,
    )


def test_coloured_ancestral_sampling_keeps_the_spectrum():
    schedule = NoiseSchedule()
    fields = drawn(schedule, 1000, start=CORRELATED, added=CORRELATED)
    assert spectrum_error(fields, SIGNAL) < 0.03


def test_white_steps_in_coloured_sampling_break_the_spectrum():
    """The trap: a stock sampler adds white noise, whatever it started from."""
    schedule = NoiseSchedule(steps=300, first=4e-4, last=0.06)
    right = drawn(schedule, 300, start=CORRELATED, added=CORRELATED)
    wrong = drawn(schedule, 300, start=CORRELATED, added=WHITE)
    assert spectrum_error(right, SIGNAL) < 0.06
    assert spectrum_error(wrong, SIGNAL) > 0.5


@pytest.mark.parametrize(
    ("noise", "steps", "bound"),
    [(CORRELATED, 50, 0.07), (CORRELATED, 150, 0.03), (WHITE, 50, 0.09)],
)
def test_ddim_keeps_the_spectrum_with_enough_steps(noise, steps, bound):
    fields = drawn(NoiseSchedule(), steps, start=noise, added=None)
    assert spectrum_error(fields, SIGNAL) < bound


def test_ways_to_denoise_one_map():
    """Science 3.4: raw, matched start in its variants, and the poster's start."""
    step = 300
    level = float(SCHEDULE.levels[step])
    generator = source(6)
    truth = SIGNAL.fields(SAMPLES, SHAPE, generator=generator)
    noise = CORRELATED.fields(SAMPLES, SHAPE, generator=generator)
    noisy = truth + level * noise
    denoiser = exact_denoiser(SCHEDULE, CORRELATED)

    def unit():
        return CORRELATED.fields(SAMPLES, SHAPE, generator=generator)

    def error(start, count, noise=None, members=1):
        (x, first), found = start, 0
        for _ in range(members):
            times = SCHEDULE.times(count, start=first)
            found = found + sample(
                denoiser, x, schedule=SCHEDULE, times=times, noise=noise
            )
        return float((found / members - truth).square().mean().sqrt())

    matched = matched_start(noisy, level, SCHEDULE)
    assert matched[1] == step
    one_step = sample(denoiser, matched[0], schedule=SCHEDULE, times=[step])
    spectra = SIGNAL.density(SHAPE), level**2 * CORRELATED.density(SHAPE)
    gain = spectra[0] / (spectra[0] + spectra[1])
    wiener = filtered(noisy, gain.float())
    torch.testing.assert_close(one_step, wiener, rtol=0, atol=2e-5)

    left = spectra[0] * spectra[1] / (spectra[0] + spectra[1])
    left = torch.cat([left, left[:, 1:-1]], 1)
    best = float(left.mean().sqrt())
    assert error(matched, 1) == pytest.approx(best, rel=0.02)
    assert float((noisy - truth).square().mean().sqrt()) > 1.3 * best
    # A sample of the posterior errs twice as much in variance; a mean of n, 1 + 1/n.
    assert error(matched, 100, unit) == pytest.approx(2**0.5 * best, rel=0.05)
    assert error(matched, 100, unit, members=8) == pytest.approx(
        (1 + 1 / 8) ** 0.5 * best, rel=0.05
    )
    ddim = error(matched, 20)
    assert best < ddim < 1.25 * best
    # More noise on top of the noise destroys information, as late as it may start.
    for strength in (0.301, 0.55):
        start = noised_start(noisy, strength, SCHEDULE, unit)
        assert start[1] == round(strength * 1000) - 1
        assert error(start, 20) > 1.15 * ddim


SMALL = {"channels": (6, 8, 8), "dilations": (1, 2)}


def small(**options):
    """Networks as after training: no weight is 0."""
    torch.manual_seed(0)
    model = DiffusionDenoiser(DiffusionConfig(**SMALL | options)).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


MATCHED = {"conditional": False, "start": "matched", "members": 1}
WAYS = [
    {},
    {"sampler": "ancestral", "noise": "white", "members": 2},
    {"conditional": False, "start": "noised"},
    MATCHED,
    {"conditional": False, "start": "matched", "sampler": "ancestral"},
]


@pytest.mark.parametrize("options", WAYS)
def test_a_map_is_treated_alike_in_any_batch(options):
    model = small(**options, steps=3)
    x = torch.randn(3, 4, 21, 30, generator=source(7))
    with torch.inference_mode():
        together, again = model.ensemble(x), model.ensemble(x)
        alone = model.ensemble(x[1:2])
        noise = model(x)
    assert together.shape == (3, model.config.members, 21, 30)
    assert torch.equal(together, again)
    torch.testing.assert_close(alone[0], together[1], rtol=1e-4, atol=1e-4)
    expected = x[:, :1] - together.mean(1, keepdim=True)
    torch.testing.assert_close(noise, expected)


def test_members_differ_and_do_not_depend_on_their_number_but_on_the_seed():
    x = torch.randn(1, 4, 16, 16, generator=source(8))
    with torch.inference_mode():
        few = small(members=2, steps=2).ensemble(x)
        many = small(members=5, steps=2).ensemble(x)
        other = small(members=2, steps=2, seed=1).ensemble(x)
    torch.testing.assert_close(many[:, :2], few, rtol=1e-4, atol=1e-4)
    assert (few[:, 0] - few[:, 1]).std() > 0.01
    assert (few - other).std() > 0.01


def test_the_cut_of_a_cube_changes_nothing():
    """Tiles of a lattice, as `inference` runs them, in any window."""
    model = small(members=2, steps=2, sampler="ancestral")
    field = torch.randn(4, 40 + 64, 50 + 64, generator=source(14))

    def tile(view, clipped):
        rows, columns = (slice(s.start + 32, s.stop + 32) for s in view)
        with torch.inference_mode():
            return model(field[None, :, rows, columns])[0, 0].numpy()

    lattice = Lattice((40, 50), 32, None)
    whole = lattice.apply(tile, Tile(slice(0, 40), slice(0, 50)))
    part = lattice.apply(tile, Tile(slice(11, 29), slice(7, 41)))
    assert (whole[11:29, 7:41] == part).all()
    assert whole.std() > 0.01


def test_noise_of_members_is_the_same_for_every_map():
    like = torch.zeros(3, 1)
    draw = member_noise(Coloured(), (2, 8, 9), like, members=4, seed=0)
    first, second = draw(), draw()
    assert first.shape == (12, 2, 8, 9)
    for k in range(1, 3):
        assert torch.equal(first[4 * k : 4 * k + 4], first[:4])
    assert len({float(m[c, 0, 0]) for m in first[:4] for c in (0, 1)}) == 8
    assert not torch.equal(first, second)


def test_weighted_mean_is_the_best_of_two_observations():
    """Regression of the truth on both, the truth having no spectrum of its own."""
    generator = source(15)
    truth, one, other = 30 * torch.rand(3, 1, 1, 200, 200, generator=generator)
    one, other = (v.normal_(generator=generator) for v in (one, other))
    kept, level = 0.6, 0.7
    state = kept**0.5 * truth + (1 - kept) ** 0.5 * one
    mean, spread = weighted_mean(state, kept, truth + level * other, level)
    assert float((mean - truth).std()) == pytest.approx(float(spread), rel=0.01)
    assert spread**-2 == pytest.approx(level**-2 + kept / (1 - kept))
    alone, spread = weighted_mean(state, kept, truth, math.inf)
    torch.testing.assert_close((alone - truth) / spread, one, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("sampler", "steps", "share"),
    [("ancestral", 100, 0.97), ("ddim", 100, 0.985), ("ddim", 8, 0.82)],
)
def test_new_network_draws_noise_about_the_interferogram(sampler, steps, share):
    """It is exact for a truth of which nothing is known: all of `level` is left.

    Few steps leave less: at 8, standard deviations are 18 % too small.
    """
    options = {"level": 0.7, "sampler": sampler, "steps": steps, "members": 60}
    model = DiffusionDenoiser(DiffusionConfig(**SMALL | options, noise="white"))
    x = torch.randn(1, 4, 16, 16, generator=source(9))
    with torch.inference_mode():
        members = model.eval().ensemble(x) - x[:, :1]
    spread = float(members.square().mean().sqrt())
    assert spread == pytest.approx(0.7 * share, rel=0.03)
    assert float(members.mean(1).square().mean().sqrt()) < 1.5 * spread / 60**0.5


def test_new_prior_removes_nothing_in_one_step():
    model = DiffusionDenoiser(DiffusionConfig(**SMALL | MATCHED, steps=1)).eval()
    x = torch.randn(2, 4, 20, 20, generator=source(9))
    with torch.inference_mode():
        assert model(x).abs().max() < 1e-5


def test_unconditional_network_is_not_given_the_displacement():
    x = torch.randn(1, 4, 16, 16, generator=source(10))
    state = torch.randn(1, 1, 16, 16)
    for model, seen in ((small(), True), (small(**MATCHED), False)):
        found = []
        for moved in (x, x + torch.tensor([1.0, 0, 0, 0])[:, None, None]):
            found.append(model._estimate(state, moved, torch.tensor([500])))
        assert torch.equal(*found) != seen


def batch_of(count=4, side=24):
    generator = source(11)
    inputs = torch.randn(count, 4, side, side, generator=generator)
    noise = torch.randn(count, 1, side, side, generator=generator)
    valid = (torch.rand(count, 1, side, side, generator=generator) > 0.3).float()
    return inputs, noise, valid


@pytest.mark.parametrize("options", [{}, MATCHED | {"noise": "white"}])
def test_loss_of_a_network_that_says_zero(options):
    """What is left to estimate has unit variance at any step; gaps do not count."""
    inputs, noise, valid = batch_of(count=64)
    model = DiffusionDenoiser(DiffusionConfig(**SMALL | options))
    losses = []
    for wrong in (0.0, 50.0):
        truth = inputs[:, :1] - noise + wrong * (1 - valid)
        noisy = torch.cat([truth + noise, inputs[:, 1:]], 1)
        losses.append(model.loss(noisy, noise, valid, generator=source(12)).item())
    assert losses[0] == pytest.approx(1, abs=0.05)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_loss_is_random_by_the_generator_alone():
    model, batch = small(), batch_of()
    first, second, other = (
        model.loss(*batch, generator=source(seed)).item() for seed in (0, 0, 1)
    )
    assert first == second != other
    torch.manual_seed(0)
    assert model.loss(*batch).item() != other


def test_conditional_network_learns():
    """White noise on slow waves: samples come nearer to the truth than the data."""
    torch.manual_seed(0)
    model = DiffusionDenoiser(
        DiffusionConfig(channels=(16, 24), dilations=(1,), steps=4, members=4)
    )
    generator = source(13)
    smooth = Coloured(white=1e-4, slope=-4, outer_scale=32)

    def batch():
        truth = 2 * smooth.fields(16, (16, 16), generator=generator)
        noise = torch.randn(truth.shape, generator=generator)
        inputs = torch.cat([truth + noise, torch.zeros(16, 3, 16, 16)], 1)
        return inputs, noise, torch.ones_like(noise)

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(*batch(), generator=generator).backward()
        optimizer.step()
    inputs, noise, _ = batch()
    with torch.inference_mode():
        members = model.eval().ensemble(inputs)
    error = members - (inputs[:, :1] - noise)
    mean_error = float(error.mean(1).square().mean().sqrt())
    assert mean_error < 0.6
    assert mean_error < float(error.square().mean().sqrt())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "pink"}, "noise='pink' must be one of"),
        ({"start": "there"}, "start='there'"),
        ({"sampler": "euler"}, "sampler='euler'"),
        ({"conditional": False}, "start='noise' with conditional=False"),
        ({"start": "matched"}, "start='matched' with conditional=True"),
        (MATCHED | {"members": 4}, "members=4"),
        ({"members": 0}, "members=0"),
        ({"strength": 1.5}, "strength=1.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DiffusionConfig(**options)


def test_configuration_round_trip():
    config = DiffusionConfig(
        channels=(6, 8), members=3, start="noised", conditional=False
    )
    read = json.loads(json.dumps(dataclasses.asdict(config)))
    again = {k: tuple(v) if isinstance(v, list) else v for k, v in read.items()}
    assert DiffusionConfig(**again) == config
    model = small()
    copy = DiffusionDenoiser(model.config)
    copy.load_state_dict(model.state_dict())
    x = torch.randn(1, 4, 16, 16)
    with torch.inference_mode():
        assert torch.equal(copy.eval()(x), model(x))
        assert torch.equal(model.fused()(x), model(x))


# --- the standard deviation ---------------------------------------------------------


def test_stated_std_is_the_spread_of_the_members_times_the_factor():
    model = small(members=3, steps=2, std_factor=1.7)
    x = torch.randn(2, 4, 16, 18, generator=source(16))
    with torch.inference_mode():
        noise, std = model.stated(x)
        members = model.ensemble(x).numpy()
        torch.testing.assert_close(noise, model(x))
    assert std.shape == noise.shape == (2, 1, 16, 18)
    np.testing.assert_allclose(std[:, 0], 1.7 * members.std(1, ddof=1), rtol=1e-4)


def test_one_member_states_nothing():
    for model in (small(**MATCHED), small(members=1)):
        with pytest.raises(ValueError, match="members=1: a standard deviation needs"):
            model.stated(torch.zeros(1, 4, 16, 16))


class Draws(Ensemble):
    """Draws about the interferogram, which is a draw about the truth of spread 1.

    The truth is one more member where `spread` is 1.
    """

    def __init__(self, members, spread):
        super().__init__()
        self.config = DiffusionConfig(members=members)
        self.spread = spread

    def ensemble(self, x):
        draws = torch.randn((len(x), self.config.members, *x.shape[2:]))
        return x[:, :1] + self.spread * draws


def noisy_pair(split, number, *, quiet=False):
    """White noise and a gap on a truth of zero; or on itself, so without an error."""
    rng = np.random.default_rng([len(split), number])
    noisy = rng.normal(0, 0.01, (60, 60)).astype("float32")
    truth = noisy.copy() if quiet else np.zeros_like(noisy)
    noisy[:10] = np.nan
    snr = 0.0 if quiet else 10.0 ** (number % 4 - 1.5)
    return SimulatedPair(noisy, truth, np.zeros_like(noisy), np.ones_like(noisy), snr)


@pytest.mark.parametrize("members", [4, 60])
@pytest.mark.parametrize("narrow", [1, 3])
def test_factor_makes_68_percent_hold(monkeypatch, members, narrow):
    """Against Student's distribution: of the spread that few members tell."""
    monkeypatch.setattr(generative, "held_out_pair", noisy_pair)
    torch.manual_seed(0)
    model = Draws(members, 1 / narrow)
    made = GenerativeTask(batch=1, patch=1, crops=1).calibrated(model)
    assert model.config.std_factor == 1 and made is not model
    within = (1 + 1 / (members * narrow**2)) ** 0.5
    expected = narrow * within * student.ppf((1 + SHARE) / 2, members - 1)
    if members == 60:
        assert expected == pytest.approx(narrow, rel=0.02)
    assert made.config.std_factor == pytest.approx(expected, rel=0.03)
    found = generative.coverage(made, count=20)
    assert found == pytest.approx(dict.fromkeys(found, SHARE), abs=0.02)


def test_coverage_is_told_by_decade(monkeypatch):
    """A network that always says the interferogram, on pairs with and without noise."""

    def pair(split, number):
        return noisy_pair(split, number, quiet=number < 4)

    monkeypatch.setattr(generative, "held_out_pair", pair)
    torch.manual_seed(0)
    found = generative.coverage(Draws(200, 1.0), count=12)
    powers = ("below_0.1", "0.1_to_1", "1_to_10", "above_10")
    decades = [f"coverage_68_snr_{power}" for power in powers]
    assert found.pop("coverage_68") == pytest.approx((4 + 8 * 0.683) / 12, abs=0.01)
    assert found.pop("coverage_68_at_rest") == 1
    assert found == pytest.approx(dict.fromkeys(decades, 0.683), abs=0.02)


def test_pairs_of_the_factor_are_not_those_of_the_scores(monkeypatch):
    monkeypatch.setattr(generative, "SIDE", 16)
    first = generative.held_out_pair("validation", 0)
    again = generative.held_out_pair("validation", 0)
    other = generative.held_out_pair("test", 0)
    assert first.snr == other.snr == 0 and not first.truth.any()
    assert np.array_equal(first.noisy, again.noisy, equal_nan=True)
    assert not np.array_equal(first.elevation, other.elevation)
    assert all(generative.held_out_pair("test", k).snr > 0 for k in range(1, 5))


@pytest.mark.parametrize(
    "model", [small(**MATCHED), BridgeDenoiser(BridgeConfig(channels=(4, 6)))]
)
def test_networks_without_a_spread_have_no_factor_and_no_coverage(monkeypatch, model):
    task = GenerativeTask(batch=1, patch=1, crops=1)
    monkeypatch.setattr(pairs, "held_out_scores", lambda model: {"slope": 1.0})
    assert task.calibrated(model) is model
    assert task.scores(model) == {"slope": 1.0}
    assert "std_factor" not in str(task.card(model))


def test_training_fits_the_factor_and_tells_it(monkeypatch, tmp_path):
    monkeypatch.setattr(generative, "SIDE", 48)
    for module, name, count in (
        (generative, "calibrated", 5),
        (generative, "coverage", 5),
        (pairs, "held_out_scores", 4),
    ):
        few = functools.partial(getattr(module, name), count=count)
        monkeypatch.setattr(module, name, few)
    narrow = {"channels": (4, 6), "dilations": (1,), "steps": 2}
    variant = registry.Variant("DiffusionDenoiser", narrow)
    monkeypatch.setitem(zoo.VARIANTS, "diffusion", variant)
    task = GenerativeTask(batch=1, patch=32, crops=1)
    quick = recipe.Recipe(steps=1, evaluation_batches=1, task=task)
    monkeypatch.setitem(recipe.RECIPES, "diffusion", quick)
    folder = run.train("diffusion", tmp_path / "model", device="cpu")
    model = zoo.load_model(folder)
    factor = model.config.std_factor
    assert factor != 1
    plain = generative._with_factor(model, 1.0)
    assert generative.calibrated(plain).config.std_factor == factor
    held = generative.coverage(model)
    assert held.items() <= zoo.held_out_scores(folder).items()
    card = (folder / "README.md").read_text()
    assert f"`std_factor` of the configuration, {factor}, fitted to simulated" in card
    assert f"| coverage 68 | {held['coverage_68']} |" in card


@pytest.mark.slow
def test_the_shipped_factor_holds_68_percent():
    scores = zoo.held_out_scores("diffusion")
    assert 0.63 < scores["coverage_68"] < 0.73
    model = zoo.load_model("diffusion")
    few = generative.coverage(model, count=5)["coverage_68"]
    # Shares of single pairs spread by 0.2.
    assert few == pytest.approx(scores["coverage_68"], abs=0.25)


@pytest.fixture(scope="module")
def cube():
    """A pair, larger than a tile, with gaps."""
    errors = PairErrors(gaps=0.1)
    return simulate_stack(
        seed=2,
        shape=(260, 130),
        dates=2,
        max_temporal_baseline=12,
        pair_errors=errors,
    ).cube


def test_std_map_of_a_pair_does_not_depend_on_the_cut(cube):
    model = small(members=2, steps=2, channels=(4, 6))
    whole = cd.pair_std(cube, model, 0)
    assert whole.dims == ("y", "x") and whole.attrs["units"] == "m"
    raw = cube["unwrapped_phase"][0]
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(raw))
    assert float(whole.min()) > 0 and float(whole.std()) > 1e-4
    part = {"y": slice(201, 260), "x": slice(5, 101)}
    some = cd.pair_std(cube, model, 0, region=part)
    np.testing.assert_array_equal(some, whole[part["y"], part["x"]])
    assert some.x.equals(whole[part["y"], part["x"]].x)
    for wrong in (1, -1):
        with pytest.raises(ValueError, match=f"pair={wrong}: the cube has"):
            cd.pair_std(cube, model, wrong)


def test_std_map_is_in_metres(cube):
    """A new network's samples have a known spread, in units of the pair's scale."""
    options = {"noise": "white", "steps": 8, "members": 40, "std_factor": 2.0}
    torch.manual_seed(0)
    model = DiffusionDenoiser(DiffusionConfig(**SMALL | options)).eval()
    near = cube.isel(y=slice(0, 60), x=slice(0, 50))
    displacement = near["unwrapped_phase"].values * near.attrs["wavelength"] / 4 / np.pi
    first, third = np.nanpercentile(displacement, (25, 75))
    scale = (third - first) / 1.349
    found = float(cd.pair_std(near, model, 0).mean())
    assert found == pytest.approx(2 * 0.82 * scale, rel=0.03)


@pytest.mark.parametrize("model", ["bridge", "stack", small(**MATCHED)])
def test_std_map_needs_a_network_that_draws(cube, model):
    with pytest.raises(ValueError, match="draws no samples"):
        cd.pair_std(cube, model, 0)


def test_std_map_of_a_pair_that_is_not_corrected(cube):
    phase = cube["unwrapped_phase"].where(cube["x"] < cube["x"][50])
    with pytest.raises(ValueError, match="pair=0 is more than half missing"):
        cd.pair_std(cube.assign(unwrapped_phase=phase), small(channels=(4, 6)), 0)
