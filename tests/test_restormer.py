"""Restormer: size, channel attention, the halving of resolution, what it may be fed."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cube_denoise.models.restormer import (
    BiasFreeNorm,
    GatedFeedForward,
    Restormer,
    RestormerConfig,
    TransposedAttention,
)

TWO = ("displacement", "elevation")


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def small(**options):
    torch.manual_seed(0)
    size = {"channels": 8, "blocks": (1, 1, 1, 1), "refinement": 1}
    return Restormer(RestormerConfig(**size | options))


def randomised(model):
    """Weights as after training: none of them trivial."""
    torch.nn.init.normal_(model.output.weight, std=0.1)
    for module in model.modules():
        if isinstance(module, BiasFreeNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, TransposedAttention):
            torch.nn.init.uniform_(module.temperature, 0.5, 3.0)
    return model.eval()


@pytest.mark.parametrize(
    ("channels", "blocks", "refinement", "millions"),
    [
        (48, (4, 6, 6, 8), 4, 26.11),
        (32, (2, 3, 3, 4), 2, 6.71),
        (24, (2, 2, 3, 4), 2, 3.75),
        (16, (1, 2, 2, 3), 1, 1.35),
    ],
)
def test_sizes(channels, blocks, refinement, millions):
    config = RestormerConfig(channels=channels, blocks=blocks, refinement=refinement)
    assert round(parameters(Restormer(config)) / 1e6, 2) == millions
    if channels == 48:
        assert config == RestormerConfig()


def test_more_inputs_only_widen_the_embedding():
    assert parameters(small(inputs=TWO)) - parameters(small()) == 9 * 8


@pytest.mark.parametrize("size", [(5, 5), (16, 24), (37, 51)])
def test_any_size(size):
    model = randomised(small(inputs=TWO))
    x = torch.randn(2, 2, *size)
    beyond = [(0, 0), (0, 0), *((0, -n % 8) for n in size)]
    padded = torch.from_numpy(np.pad(x.numpy(), beyond, mode="reflect"))
    with torch.inference_mode():
        noise, whole = model(x), model(padded)
    assert noise.shape == (2, 1, *size)
    torch.testing.assert_close(noise, whole[..., : size[0], : size[1]])


def test_new_network_removes_nothing():
    with torch.inference_mode():
        assert not small().eval()(torch.randn(1, 1, 16, 16)).any()


def test_attention_is_the_formula():
    """Sums over pixels, channel by channel, of a map with two heads."""
    torch.manual_seed(1)
    channels, heads, rows, columns = 6, 2, 3, 4
    attention = TransposedAttention(channels, heads).double()
    torch.nn.init.uniform_(attention.temperature, 0.5, 3.0)
    x = torch.randn(1, channels, rows, columns, dtype=torch.float64)
    with torch.no_grad():
        found = attention(x)[0].numpy()
        every = attention.depthwise(attention.qkv(x))[0].numpy()
        temperature = attention.temperature.numpy().ravel()
        mixing = attention.project.weight[:, :, 0, 0].numpy()
    query, key, value = np.split(every, 3)
    attended = np.zeros_like(value)
    size = channels // heads
    for head in range(heads):
        for i in range(head * size, (head + 1) * size):
            weights = []
            for j in range(head * size, (head + 1) * size):
                lengths = np.sqrt((query[i] ** 2).sum() * (key[j] ** 2).sum())
                cosine = (query[i] * key[j]).sum() / lengths
                weights.append(np.exp(temperature[head] * cosine))
            for j, weight in enumerate(weights):
                attended[i] += weight / sum(weights) * value[head * size + j]
    expected = np.einsum("oi,iyx->oyx", mixing, attended)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_norm_keeps_the_mean():
    torch.manual_seed(2)
    norm = BiasFreeNorm(5).double()
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64) + 4.0
    with torch.no_grad():
        found, weight = norm(x).numpy(), norm.weight.numpy()
    deviation = np.sqrt(x.numpy().var(1, keepdims=True) + 1e-5)
    expected = x.numpy() / deviation * weight[:, None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.mean() > 1


def test_feed_forward_gates_one_half_with_the_other():
    torch.manual_seed(3)
    part = GatedFeedForward(4, 2.66).double()
    assert part.project.in_channels == 10  # int(4 * 2.66)
    x = torch.randn(1, 4, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        wide = torch.einsum("oi,biyx->boyx", part.expand.weight[..., 0, 0], x)
        padded = functional.pad(wide, (1, 1, 1, 1))
        filtered = torch.zeros_like(wide)
        for dy in range(3):
            for dx in range(3):
                tap = part.depthwise.weight[:, 0, dy, dx][:, None, None]
                filtered += tap * padded[:, :, dy : dy + 6, dx : dx + 5]
        gate, value = filtered[:, :10], filtered[:, 10:]
        gated = gate * 0.5 * (1 + torch.erf(gate / 2**0.5)) * value
        mixing = part.project.weight[..., 0, 0]
        expected = torch.einsum("oi,biyx->boyx", mixing, gated)
        torch.testing.assert_close(part(x), expected)


def test_every_pixel_is_kept_where_resolution_halves():
    model = small()
    halve, double = model.down[0][1], model.up[0][1]
    x = torch.arange(2 * 6 * 4.0).reshape(1, 2, 6, 4)
    halved = halve(x)
    for channel in range(2):
        for dy in range(2):
            for dx in range(2):
                part = halved[:, 4 * channel + 2 * dy + dx]
                assert torch.equal(part, x[:, channel, dy::2, dx::2])
    assert torch.equal(double(halved), x)
    y = torch.randn(1, 8, 16, 16)
    assert model.down[0](y).shape == (1, 16, 8, 8)
    assert model.up[0](model.down[0](y)).shape == (1, 8, 16, 16)


def test_every_pixel_sees_the_whole_map():
    model = randomised(small()).double()
    x = torch.randn(1, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    model(x)[0, 0, 5, 5].backward()
    assert model.receptive_radius is None
    assert (x.grad != 0).all()


def test_fused_equals_unfused():
    model = randomised(small(inputs=TWO))
    x = torch.randn(2, 2, 19, 26)
    with torch.inference_mode():
        expected = model(x)
        fused = model.fused()
        assert expected.std() > 0.01
        torch.testing.assert_close(fused(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(x), expected)
    assert not fused.training
    assert parameters(fused) < parameters(model)


def test_training_lowers_the_loss():
    model = small().train()
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-2, 2, 24)
    losses = []
    for _ in range(30):
        slopes = torch.randn(4, 2, generator=generator)
        signal = slopes[:, :1, None] * ramp[:, None] + slopes[:, 1:, None] * ramp
        noise = torch.randn(4, 1, 24, 24, generator=generator)
        loss = functional.mse_loss(model(signal[:, None] + noise), noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1, abs=0.1)  # nothing removed
    assert np.mean(losses[-5:]) < 0.5
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_bfloat16():
    model = randomised(small())
    x = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x)
    assert torch.linalg.norm(rough.float() - exact) < 0.03 * torch.linalg.norm(exact)


def test_configurations_that_cannot_be():
    with pytest.raises(ValueError, match="one number each"):
        RestormerConfig(blocks=(1, 2))
    with pytest.raises(ValueError, match="3 do not divide the 16 channels of level 2"):
        RestormerConfig(channels=8, heads=(1, 3, 4, 8))
