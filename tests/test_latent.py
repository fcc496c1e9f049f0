"""Latent diffusion: what the autoencoder keeps, and diffusion in what it keeps."""

import dataclasses
import json

import pytest
import torch

from cube_denoise.models.coloured import Coloured
from cube_denoise.models.latent import (
    AutoencoderKL,
    AutoencoderKLConfig,
    LatentConfig,
    LatentDenoiser,
)

TINY = {"autoencoder": (8, 8, 8), "channels": (8, 12), "dilations": (1,)}


@pytest.fixture(autouse=True)
def one_thread():
    """Small maps: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def source(seed):
    return torch.Generator().manual_seed(seed)


def smooth(count, side=64, seed=0):
    """Deformation without detail, 1 normalised unit."""
    field = Coloured(white=1e-9, slope=-8, outer_scale=40)
    return field.fields(count, (side, side), generator=source(seed))


def small(**options):
    """Networks as after training: no weight is 0."""
    torch.manual_seed(0)
    model = LatentDenoiser(LatentConfig(**TINY | options)).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def test_latents_are_a_quarter_the_size():
    model = AutoencoderKL()
    mean, log_variance = model.encode(torch.randn(2, 1, 32, 48))
    assert mean.shape == log_variance.shape == (2, 4, 8, 12)
    assert model.decode(mean).shape == (2, 1, 32, 48)
    with pytest.raises(ValueError, match="multiples of 4"):
        model.encode(torch.randn(1, 1, 30, 32))


def test_a_new_autoencoder_is_an_interpolation_of_means():
    model = AutoencoderKL()
    x = torch.randn(2, 1, 32, 32, generator=source(1))
    with torch.inference_mode():
        mean, _ = model.encode(x)
        blocks = x.reshape(2, 1, 8, 4, 8, 4).mean((3, 5))
        torch.testing.assert_close(mean[:, :1], blocks)
        assert not mean[:, 1:].any()
        constant = model.decode(model.encode(torch.full((1, 1, 16, 16), 3.0))[0])
    torch.testing.assert_close(constant, torch.full((1, 1, 16, 16), 3.0))


def test_only_an_autoencoder_below_a_millimetre_is_taken():
    model = LatentDenoiser(LatentConfig(**TINY))
    new = AutoencoderKL(AutoencoderKLConfig(channels=TINY["autoencoder"]))
    truth = smooth(4)
    rms = model.adopt(new, truth, torch.full((4,), 0.01))
    with torch.inference_mode():
        error = new.decode(new.encode(truth)[0]) - truth
    assert rms == pytest.approx(0.01 * float(error.square().mean() ** 0.5))
    assert rms < 1e-3
    for key, value in new.state_dict().items():
        assert torch.equal(model.autoencoder.state_dict()[key], value)
    with pytest.raises(ValueError, match=r"errs by \d+\.\d+ mm rms"):
        model.adopt(new, torch.randn(4, 1, 64, 64), torch.full((4,), 0.01))


def test_taking_an_autoencoder_sets_the_unit_of_its_latents():
    model = LatentDenoiser(LatentConfig(**TINY))
    new = AutoencoderKL(AutoencoderKLConfig(channels=TINY["autoencoder"]))
    truth = 3 * smooth(4)
    model.adopt(new, truth, torch.full((4,), 0.001))
    latents, _ = model._conditions(torch.cat([truth, torch.zeros(4, 3, 64, 64)], 1))
    assert float(latents[:, 0].std()) == pytest.approx(1, rel=0.01)


def silent(**options):
    """An autoencoder as after training, a U-Net that says zero."""
    model = small(**options)
    for parameter in model.network.last.parameters():
        torch.nn.init.zeros_(parameter)
    return model


@pytest.mark.parametrize("shape", [(32, 32), (19, 30)])
def test_a_new_network_draws_noise_about_what_the_autoencoder_keeps(shape):
    model = silent(members=200, steps=8)
    for parameter in model.autoencoder.decoder.parameters():
        torch.nn.init.zeros_(parameter)  # so that decoding is linear
    model.unit.fill_(0.5)
    x = torch.randn(1, 4, *shape, generator=source(2))
    rows, columns = shape
    padded = torch.nn.functional.pad(x, [0, -columns % 4, 0, -rows % 4], mode="reflect")
    with torch.inference_mode():
        latents = model.autoencoder.encode(padded[:, :1])[0]
        kept = model.autoencoder.decode(latents)[..., :rows, :columns]
        members = model.ensemble(x)
    error = float((members.mean(1) - kept[:, 0]).square().mean().sqrt())
    spread = float(members.std(1).mean())
    assert error < 2 * spread / 200**0.5
    assert 0.25 < spread < 0.5  # 0.5, but that interpolation averages


def test_smallest_side():
    model = small()
    assert model.smallest_side == 5
    with torch.inference_mode():
        assert model(torch.randn(1, 4, 5, 5)).shape == (1, 1, 5, 5)
    with pytest.raises(RuntimeError, match=r"[Pp]adding"):
        model(torch.randn(1, 4, 4, 4))


def test_a_map_is_treated_alike_in_any_batch():
    model = small(steps=3, members=2)
    x = torch.randn(3, 4, 32, 24, generator=source(3))
    with torch.inference_mode():
        together = model.ensemble(x)
        assert torch.equal(together, model.ensemble(x))
        torch.testing.assert_close(
            together[1:2], model.ensemble(x[1:2]), rtol=1e-4, atol=1e-4
        )
        mean = together.mean(1, keepdim=True)
        torch.testing.assert_close(model.fused()(x), x[:, :1] - mean)
    assert together.shape == (3, 2, 32, 24)
    assert (together[:, 0] - together[:, 1]).std() > 0.01


def batch_of(count=4, side=16):
    truth, noise = smooth(count, side, 4), smooth(count, side, 5)
    rest = torch.zeros(count, 3, side, side)
    return torch.cat([truth + noise, rest], 1), noise, torch.ones_like(noise)


def test_loss_of_a_network_that_says_zero():
    """What noise of the diffusion and of the interferogram leave to estimate."""
    model = silent()
    inputs, noise, valid = batch_of(count=64)
    rest = torch.randn(inputs[:, :1].shape, generator=source(9))
    losses = [
        model.loss(inputs + change, noise + change, valid, generator=source(6)).item()
        for change in (0.0, rest)
    ]
    assert 0.3 < losses[0] < 1.2
    model = small()
    loss = model.loss(inputs, noise, valid, generator=source(6))
    again = model.loss(inputs, noise, valid, generator=source(6))
    assert loss.item() == again.item()
    loss.backward()
    assert all(p.grad is None for p in model.autoencoder.parameters())
    assert all(p.grad is not None for p in model.network.parameters())


def test_loss_of_the_autoencoder():
    """Absolute error where valid, and a small pull toward the unit normal."""
    model = AutoencoderKL(AutoencoderKLConfig(channels=(8, 8, 8)))
    inputs, noise, valid = batch_of()
    part = valid.clone()
    part[..., 8:, :] = 0
    losses = [
        model.loss(inputs, noise, v, generator=source(7)).item() for v in (valid, part)
    ]
    assert losses[0] != losses[1]
    mean, log_variance = model.encode(inputs[:, :1])
    assert torch.allclose(log_variance, torch.tensor(-8.0))
    divergence = 0.5 * 7.0003 * mean[0].numel()  # of means at 0
    assert 1e-6 * divergence < losses[0] < 0.2


def faults(count, side, generator):
    """Offsets of six units across straight lines, on smooth deformation."""
    along = torch.arange(side) - side / 2 + 0.5
    angle, place = torch.rand(2, count, 1, 1, generator=generator)
    angle, place = 2 * torch.pi * angle, (place - 0.5) * side / 2
    distance = along * angle.cos() + along[:, None] * angle.sin() - place
    field = Coloured(white=1e-9, slope=-8, outer_scale=40)
    rest = field.fields(count, (side, side), generator=generator)
    return 3 * torch.tanh(2 * distance)[:, None] + rest


@pytest.mark.slow
def test_training_brings_the_autoencoder_below_a_millimetre():
    """Sharp ruptures of 24 mm: a new one is refused, a trained one is taken."""
    torch.manual_seed(0)
    model = AutoencoderKL(AutoencoderKLConfig(channels=(16, 24, 32)))
    denoiser = LatentDenoiser(LatentConfig(autoencoder=(16, 24, 32)))
    generator = source(8)
    held, scale = faults(64, 32, generator), torch.full((64,), 0.004)
    with pytest.raises(ValueError, match=r"errs by [12]\."):
        denoiser.adopt(model, held, scale)
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 400)
        truth = faults(8, 32, generator)
        none = torch.zeros_like(truth)
        optimizer.zero_grad()
        model.loss(truth, none, torch.ones_like(none), generator=generator).backward()
        optimizer.step()
    assert denoiser.adopt(model, held, scale) < 1e-3


def test_configuration_round_trip():
    config = LatentConfig(**TINY, members=7)
    read = json.loads(json.dumps(dataclasses.asdict(config)))
    again = {k: tuple(v) if isinstance(v, list) else v for k, v in read.items()}
    assert LatentConfig(**again) == config
    model = small()
    model.unit.fill_(3.0)
    copy = LatentDenoiser(model.config)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.unit, model.unit)
