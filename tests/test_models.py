"""The networks: size, what they see, inference copy, files."""

import json

import numpy as np
import pytest
import torch

from cube_denoise.models import zoo
from cube_denoise.models.dncnn import DnCNN, DnCNNConfig

DILATED = zoo.VARIANTS["dncnn-dilated"]


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def small(**options):
    torch.manual_seed(0)
    return randomised(DnCNN(DnCNNConfig(**{"depth": 5, "channels": 8} | options)))


def randomised(model):
    """Weights and statistics as after training: none of them trivial."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.running_var, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
            ):
                torch.nn.init.uniform_(tensor, low, high)
    last = model.layers[-1]
    torch.nn.init.normal_(last.weight, std=0.05)
    torch.nn.init.normal_(last.bias, std=0.05)
    return model.eval()


def save(model, folder):
    return zoo.save_model(model, folder, training={"seed": 0}, card="# card\n")


def test_size_of_the_published_network():
    model = zoo.create_model("dncnn")
    assert parameters(model) == 667_073
    convolutions = [m for m in model.layers if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 20
    biased = [m.bias is not None for m in convolutions]
    assert biased == [True, *[False] * 18, True]
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.layers) == 18


def test_dilated_variant_adds_only_its_input_channels():
    extra = 9 * 64 * (len(DILATED.inputs) - 1)
    assert parameters(zoo.create_model("dncnn-dilated")) == 667_073 + extra


def seen_radius(model, size):
    """Chebyshev distance to the farthest input that moves the central output.

    All weights are made positive, so that no rectifier hides a path, and scaled to
    keep the numbers in range.
    """
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 1 / (9 * module.in_channels))
    channels = len(model.config.inputs)
    x = torch.ones(1, channels, size, size, dtype=torch.float64, requires_grad=True)
    middle = size // 2
    model(x)[0, 0, middle, middle].backward()
    rows, columns = np.nonzero(x.grad[0].abs().sum(0).numpy())
    return max(np.abs(rows - middle).max(), np.abs(columns - middle).max())


@pytest.mark.parametrize("depth", [3, 7, 20])
def test_receptive_radius_is_what_is_seen(depth):
    model = DnCNN(DnCNNConfig(depth=depth, channels=4))
    assert model.receptive_radius == depth
    assert seen_radius(model, 2 * depth + 9) == depth


def test_receptive_radius_of_the_dilated_network():
    model = DnCNN(
        DnCNNConfig(
            channels=2, inputs=("displacement",) * 2, dilations=DILATED.dilations
        )
    )
    assert model.receptive_radius == 102
    assert zoo.create_model("dncnn-dilated").receptive_radius == 102
    assert seen_radius(model, 221) == 102


def test_perturbation_beyond_the_radius_changes_nothing():
    torch.manual_seed(0)
    model = randomised(zoo.create_model("dncnn")).double()
    x = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    moved = x.clone()
    moved[0, 0, 10, 10] += 10.0
    with torch.inference_mode():
        change = (model(moved) - model(x))[0, 0].abs().numpy()
    rows, columns = np.nonzero(change)
    assert max(rows.max(), columns.max()) == 10 + model.receptive_radius


def test_new_network_removes_nothing():
    with torch.inference_mode():
        noise = zoo.create_model("dncnn").eval()(torch.randn(1, 1, 32, 32))
    assert not noise.any()


@pytest.mark.parametrize("options", [{}, {"dilations": (1, 2)}])
def test_fused_equals_unfused(options):
    model = small(**options)
    x = torch.randn(2, 1, 40, 40)
    with torch.inference_mode():
        expected, found = model(x), model.fused()(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.fused().layers)
    # The original is left as it was.
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("name", sorted(zoo.VARIANTS))
def test_folder_round_trip(tmp_path, name):
    model = randomised(zoo.create_model(name))
    folder = save(model, tmp_path / "kept")
    loaded = zoo.load_model(folder)
    assert loaded.config == model.config and not loaded.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert zoo.model_hash(folder) == zoo.model_hash(save(model, tmp_path / "again"))


def test_saving_replaces_the_older_folder_whole(tmp_path):
    save(small(), tmp_path / "one")
    (tmp_path / "one" / "stray").write_text("old")
    other = small(depth=4)
    save(other, tmp_path / "one")
    assert zoo.load_model(tmp_path / "one").config == other.config
    assert [p.name for p in tmp_path.iterdir()] == ["one"]
    assert not (tmp_path / "one" / "stray").exists()


def test_weights_that_are_not_safetensors_are_refused(tmp_path):
    model = small()
    folder = save(model, tmp_path / "pickled")
    torch.save(model.state_dict(), folder / "model.safetensors")
    with pytest.raises(ValueError, match="not a safetensors file"):
        zoo.load_model(folder)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    folder = save(small(), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["arguments"]["channels"] = 9
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not fit"):
        zoo.load_model(folder)
    config["architecture"] = "Mystery"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="architecture='Mystery'"):
        zoo.load_model(folder)


def test_unknown_names(tmp_path):
    with pytest.raises(ValueError, match="known architectures are dncnn"):
        zoo.create_model("unet")
    with pytest.raises(ValueError, match="neither a shipped model"):
        zoo.load_model(tmp_path / "nothing")


@pytest.mark.parametrize("name", zoo.shipped_models())
def test_shipped_weights_load_and_are_trained(name):
    model = zoo.load_model(name)
    assert model.config == zoo.VARIANTS[name]
    assert model.layers[-1].weight.abs().max() > 0
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())
