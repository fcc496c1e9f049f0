"""The InDI bridge: closed forms for Gaussian fields, and the network around it."""

import dataclasses
import json
import math

import pytest
import torch

from cube_denoise.models.bridge import BridgeConfig, BridgeDenoiser, cross
from cube_denoise.models.coloured import Coloured

SHAPE = (32, 32)
SIGNAL = Coloured(white=0.002, slope=-11 / 3, outer_scale=24, padding=1)
NOISE = Coloured(white=0.1, padding=1)
SMALL = {"channels": (6, 8, 8), "dilations": (1, 2)}


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


def exact(x, t):
    """E[x | x_t] where x_t = x + t n, both Gaussian and periodic."""
    signal, noise = SIGNAL.density(SHAPE), NOISE.density(SHAPE)
    return filtered(x, signal / (signal + t**2 * noise))


def fields():
    truth = SIGNAL.fields(80, SHAPE, generator=source(0)).double()
    return truth, truth + NOISE.fields(80, SHAPE, generator=source(1)).double()


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_crossing_equals_its_closed_form(steps):
    """Frequency by frequency, a product of one gain per step."""
    signal, noise = SIGNAL.density(SHAPE), NOISE.density(SHAPE)
    gain = torch.ones_like(signal)
    for k in range(steps):
        t, d = 1 - k / steps, 1 / steps
        gain *= 1 - d / t * (t**2 * noise) / (signal + t**2 * noise)
    _, noisy = fields()
    torch.testing.assert_close(cross(exact, noisy, steps=steps), filtered(noisy, gain))


def test_one_step_is_the_wiener_filter():
    signal, noise = SIGNAL.density(SHAPE), NOISE.density(SHAPE)
    truth, noisy = fields()
    found = cross(exact, noisy, steps=1)
    torch.testing.assert_close(found, filtered(noisy, signal / (signal + noise)))
    left = signal * noise / (signal + noise)
    left = torch.cat([left, left[:, 1:-1]], 1)
    error = float((found - truth).square().mean().sqrt())
    assert error == pytest.approx(math.sqrt(left.mean()), rel=0.03)


def test_many_steps_give_the_spectrum_of_the_truth_and_a_larger_error():
    """d ln x / dt = t n / (s + t^2 n): in the limit the gain is sqrt(s / (s + n))."""
    signal, noise = SIGNAL.density(SHAPE), NOISE.density(SHAPE)
    truth, noisy = fields()
    found = cross(exact, noisy, steps=120)
    limit = filtered(noisy, (signal / (signal + noise)).sqrt())
    assert float((found - limit).std() / limit.std()) < 0.02
    assert float(found.var()) == pytest.approx(float(truth.var()), rel=0.03)
    once = cross(exact, noisy, steps=1)
    assert float(once.var()) < 0.9 * float(truth.var())
    errors = [
        float((cross(exact, noisy, steps=n) - truth).square().mean())
        for n in (1, 4, 120)
    ]
    assert errors == sorted(errors)


def test_steps_are_checked():
    with pytest.raises(ValueError, match="steps=0"):
        cross(exact, torch.zeros(1, 1, *SHAPE), steps=0)
    with pytest.raises(ValueError, match="steps=0"):
        BridgeDenoiser(BridgeConfig(steps=0))


def small(**options):
    """Networks as after training: no weight is 0."""
    torch.manual_seed(0)
    model = BridgeDenoiser(BridgeConfig(**SMALL | options)).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def test_one_step_of_the_network_is_regression():
    model = small(steps=1)
    x = torch.randn(2, 4, 20, 27, generator=source(2))
    with torch.inference_mode():
        expected = model.network(x, torch.ones(2))
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_network_steps_are_small_parts_of_what_it_estimates():
    """x_{t-d} = x_t - d times the output, so constant outputs add up to themselves."""
    model = small(steps=3)
    x = torch.randn(1, 4, 16, 16, generator=source(3))
    with torch.inference_mode():
        state, total = x[:, :1], 0
        for t in (1.0, 2 / 3, 1 / 3):
            out = model.network(torch.cat([state, x[:, 1:]], 1), torch.tensor([t]))
            state, total = state - out / 3, total + out / 3
        torch.testing.assert_close(model(x), total, rtol=1e-4, atol=1e-5)


def test_a_map_is_treated_alike_in_any_batch():
    model = small()
    x = torch.randn(3, 4, 21, 30, generator=source(4))
    with torch.inference_mode():
        together = model(x)
        assert torch.equal(together, model(x))
        torch.testing.assert_close(together[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)
        assert torch.equal(model.fused()(x), together)


def test_new_network_removes_nothing():
    model = BridgeDenoiser(BridgeConfig(**SMALL))
    with torch.inference_mode():
        assert model(torch.randn(1, 4, 16, 16)).abs().max() < 1e-6


def batch_of(count=64, side=8):
    generator = source(5)
    inputs = torch.randn(count, 4, side, side, generator=generator)
    noise = torch.randn(count, 1, side, side, generator=generator)
    valid = (torch.rand(count, 1, side, side, generator=generator) > 0.3).float()
    return inputs, noise, valid


def test_loss_of_a_network_that_says_zero():
    """F(x_t) = x_t then errs by t n; t is 1 in half of the cases, else uniform."""
    model = BridgeDenoiser(BridgeConfig(**SMALL))
    losses = [
        model.loss(*batch_of(), generator=source(seed)).item() for seed in range(40)
    ]
    assert sum(losses) / 40 == pytest.approx(0.5 + 0.5 / 3, rel=0.05)
    assert losses[0] == model.loss(*batch_of(), generator=source(0)).item()
    assert losses[0] != losses[1]


def test_loss_counts_valid_pixels():
    model = BridgeDenoiser(BridgeConfig(**SMALL))
    inputs, noise, valid = batch_of()
    wrong = torch.where(valid > 0, noise, 1e3)
    losses = {
        model.loss(inputs, n, valid, generator=source(6)).item() for n in (noise, wrong)
    }
    assert len(losses) == 1


def test_it_learns_to_cross():
    torch.manual_seed(0)
    model = BridgeDenoiser(BridgeConfig(channels=(12, 16), dilations=(1,)))
    generator = source(7)
    smooth = Coloured(white=1e-4, slope=-4, outer_scale=32)

    def batch():
        truth = 2 * smooth.fields(16, (16, 16), generator=generator)
        # Not Gaussian, and correlated with nothing else: blinking squares.
        noise = torch.rand(16, 1, 8, 8, generator=generator).lt(0.2).float() * 2
        noise = noise.repeat_interleave(2, 2).repeat_interleave(2, 3)
        inputs = torch.cat([truth + noise, torch.zeros(16, 3, 16, 16)], 1)
        return inputs, noise, torch.ones_like(noise)

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        model.loss(*batch(), generator=generator).backward()
        optimizer.step()
    inputs, noise, _ = batch()
    with torch.inference_mode():
        error = (model.eval()(inputs) - noise).square().mean()
    assert float(error) < 0.5 * float(noise.square().mean())


def test_configuration_round_trip():
    config = BridgeConfig(channels=(6, 8), steps=7)
    read = json.loads(json.dumps(dataclasses.asdict(config)))
    again = {k: tuple(v) if isinstance(v, list) else v for k, v in read.items()}
    assert BridgeConfig(**again) == config
