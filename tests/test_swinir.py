"""SwinIR: size, windows and their shift, what it sees, the names of the release."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from cube_denoise.models.swinir import Layer, SwinIR, SwinIRConfig, receptive_radius

LIGHT = SwinIRConfig(channels=60, depths=(6,) * 4, heads=(6,) * 4)
TINY = SwinIRConfig(channels=48, depths=(4,) * 3, heads=(4,) * 3)
TWO = ("displacement", "elevation")


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def small(**options):
    torch.manual_seed(0)
    size = {"channels": 8, "depths": (2, 2), "heads": (2, 2), "window": 4}
    return SwinIR(SwinIRConfig(**size | options))


def randomised(model):
    """Weights as after training: none of them trivial."""
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.mark.parametrize(
    ("config", "millions"), [(SwinIRConfig(), 11.50), (LIGHT, 0.90), (TINY, 0.32)]
)
def test_sizes(config, millions):
    assert round(parameters(SwinIR(config)) / 1e6, 2) == millions


@pytest.mark.parametrize("size", [(3, 3), (8, 12), (13, 18)])
def test_any_size(size):
    model = randomised(small(inputs=TWO))
    x = torch.randn(2, 2, *size)
    beyond = [(0, 0), (0, 0), *((0, -n % 4) for n in size)]
    padded = torch.from_numpy(np.pad(x.numpy(), beyond, mode="reflect"))
    with torch.inference_mode():
        noise, whole = model(x), model(padded)
    assert noise.shape == (2, 1, *size)
    torch.testing.assert_close(noise, whole[..., : size[0], : size[1]])


def test_new_network_removes_nothing():
    with torch.inference_mode():
        assert not small().eval()(torch.randn(1, 1, 16, 16)).any()


def layer_of_pixels(layer, x):
    """What a layer does, pixel by pixel: cells are cut at the edges of the map."""
    window, attention = layer.window, layer.attn
    rows, columns, channels = x.shape
    heads = attention.heads
    size = channels // heads
    table = attention.relative_position_bias_table
    qkv = attention.qkv(layer.norm1(x)).reshape(rows, columns, 3, heads, size)
    pixels = list(itertools.product(range(rows), range(columns)))

    def cell(pixel):
        return tuple((p - layer.shift) // window for p in pixel)

    out = torch.empty_like(x)
    for one in pixels:
        near = [other for other in pixels if cell(other) == cell(one)]
        parts = []
        for head in range(heads):
            query = qkv[*one, 0, head]
            scores = []
            for other in near:
                dy, dx = (a - b + window - 1 for a, b in zip(one, other, strict=True))
                bias = table[dy * (2 * window - 1) + dx, head]
                scores.append(query @ qkv[*other, 1, head] / size**0.5 + bias)
            weights = torch.stack(scores).softmax(0)
            values = torch.stack([qkv[*other, 2, head] for other in near])
            parts.append(weights @ values)
        out[one] = x[one] + attention.proj(torch.cat(parts))
    return out + layer.mlp(layer.norm2(out))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(8, 12), (4, 8), (4, 4)])
def test_layer_attends_within_windows(size, shifted, grad):
    torch.manual_seed(1)
    config = SwinIRConfig(channels=4, depths=(2,), heads=(2,), window=4)
    layer = randomised(Layer(config, 2, shifted, 0.0)).double()
    x = torch.randn(2, *size, 4, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        found = layer(x)
    with torch.no_grad():
        expected = torch.stack([layer_of_pixels(layer, sample) for sample in x])
    torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize("grad", [True, False])
def test_shifted_windows_do_not_reach_around(grad):
    torch.manual_seed(2)
    config = SwinIRConfig(channels=4, depths=(2,), heads=(2,), window=4)
    layer = randomised(Layer(config, 2, True, 0.0))
    x = torch.randn(1, 12, 12, 4)
    moved = x.clone()
    moved[0, 0, 0, 0] += 1.0  # the corner, in the window of the last pixels once rolled
    with torch.set_grad_enabled(grad):
        change = (layer(moved) - layer(x)).abs().sum(-1)[0].detach().numpy()
    assert (change[:2, :2] > 0).all()
    change[:2, :2] = 0
    assert not change.any()


def test_radius_is_what_is_seen():
    """Along rows, for every position of a pixel in its window."""
    for config in (small().config, TINY):
        window, stated = config.window, receptive_radius(config)
        model = randomised(SwinIR(config)).double()
        middle = -(-stated // window) * window
        farthest = 0
        for position in range(window):
            shape = (1, 1, window, 2 * middle + window)
            x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
            model(x)[0, 0, 0, middle + position].backward()
            seen = np.flatnonzero(x.grad[0, 0].abs().sum(0).numpy())
            assert seen.min() > 0 and seen.max() < shape[-1] - 1
            farthest = max(farthest, *np.abs(seen - middle - position))
        assert stated == -(-farthest // window) * window
    assert SwinIR(TINY).receptive_radius == 56
    assert SwinIR(LIGHT).receptive_radius is None


def test_tile_with_its_halo_is_the_whole_map():
    """Where tiles begin on a window, as those of `halo.Lattice` do."""
    model = randomised(small()).double()
    radius = model.receptive_radius
    x = torch.randn(1, 1, 90, 93, dtype=torch.float64)
    with torch.inference_mode():
        whole = model(x)
        view = model(x[..., 32 - radius : 64 + radius, 64 - radius :])
    kept = view[..., radius : radius + 32, radius:]
    torch.testing.assert_close(kept, whole[..., 32:64, 64:])


def test_names_are_those_of_the_release():
    """A file of the authors loads: the same names, and tables that are dropped."""
    model = small(depths=(2,), heads=(2,))
    block = [
        *("norm1.weight", "norm1.bias", "attn.relative_position_bias_table"),
        *("attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias"),
        *("norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias"),
        *("mlp.fc2.weight", "mlp.fc2.bias"),
    ]
    ends = ("conv_first", "patch_embed.norm", "norm", "conv_after_body", "conv_last")
    modules = [*ends, "layers.0.conv"]
    names = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    groups = [f"layers.0.residual_group.blocks.{k}." for k in range(2)]
    names |= {group + name for group in groups for name in block}
    state = model.state_dict()
    assert set(state) == names
    theirs = {name: torch.randn_like(values) for name, values in state.items()}
    tables = {
        groups[0] + "attn.relative_position_index": torch.zeros(16, 16),
        groups[1] + "attn.relative_position_index": torch.zeros(16, 16),
        groups[1] + "attn_mask": torch.zeros(1024, 16, 16),
    }
    model.load_state_dict(theirs | tables, strict=True)
    assert all(torch.equal(model.state_dict()[name], theirs[name]) for name in names)
    with pytest.raises(RuntimeError, match="other_name"):
        model.load_state_dict(theirs | {"other_name": torch.zeros(1)})


def test_shapes_of_the_release():
    state = SwinIR().state_dict()
    group = "layers.5.residual_group.blocks.5."
    for name, shape in {
        group + "attn.relative_position_bias_table": (225, 6),
        group + "attn.qkv.weight": (540, 180),
        group + "mlp.fc1.weight": (360, 180),
        "conv_first.weight": (180, 1, 3, 3),
        "conv_last.weight": (1, 180, 3, 3),
    }.items():
        assert tuple(state[name].shape) == shape


def test_with_and_without_gradients_alike():
    model = randomised(small())
    x = torch.randn(2, 1, 20, 24)
    with torch.inference_mode():
        rows = model(x)
    assert rows.std() > 0.01
    torch.testing.assert_close(rows, model(x).detach(), rtol=1e-4, atol=1e-4)


def test_fused_equals_unfused():
    model = randomised(small(inputs=TWO))
    x = torch.randn(2, 2, 11, 14)
    with torch.inference_mode():
        expected = model(x)
        assert expected.std() > 0.01
        found = model.train().fused()(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_drop_path():
    """Leaves whole samples as they were, keeps the mean, and only in training."""
    model = small(drop_path=0.3)
    layers = [m for m in model.modules() if isinstance(m, Layer)]
    np.testing.assert_allclose([m.drop for m in layers], [0, 0.1, 0.2, 0.3], rtol=1e-6)
    layer = layers[-1].train()
    number, expected = 2000, [0, 1 / 0.7]
    kept = layer._kept(torch.empty(number)).ravel()
    assert kept.unique().tolist() == pytest.approx(expected)
    assert kept.mean() == pytest.approx(1, abs=5 * (0.3 / 0.7 / number) ** 0.5)
    # What remains of attention alone, over all windows of each sample.
    torch.nn.init.zeros_(layer.mlp.fc2.weight)
    x = torch.randn(60, 12, 8, 8)
    with torch.no_grad():
        added = layer(x) - x
        whole = layer.eval()(x) - x
    factor = ((added * whole).sum(-1) / (whole * whole).sum(-1)).numpy()
    for sample in factor:
        np.testing.assert_allclose(sample, sample[0, 0], rtol=1e-3, atol=1e-3)
    found = np.unique(factor[:, 0, 0].round(2))
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_training_lowers_the_loss():
    model = small(drop_path=0.0).train()
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-2, 2, 16)
    losses = []
    for _ in range(30):
        slopes = torch.randn(4, 2, generator=generator)
        signal = slopes[:, :1, None] * ramp[:, None] + slopes[:, 1:, None] * ramp
        noise = torch.randn(4, 1, 16, 16, generator=generator)
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
        SwinIRConfig(depths=(2, 2))
    with pytest.raises(ValueError, match="must divide channels=50"):
        SwinIRConfig(channels=50)
    with pytest.raises(ValueError, match="window=7 must be even"):
        SwinIRConfig(window=7)
    with pytest.raises(ValueError, match=r"drop_path=1.0 must be in \[0, 1\)"):
        SwinIRConfig(drop_path=1.0)
