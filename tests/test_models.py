"""The networks: size, what they see, inference copy, files."""

import dataclasses
import hashlib
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from cube_denoise.models import zoo
from cube_denoise.models.dncnn import DnCNN, DnCNNConfig

DILATED = zoo.variant_config("dncnn-dilated")


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
    torch.manual_seed(1)
    model = zoo.create_model(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
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


# --- what is refused ----------------------------------------------------------------


@pytest.fixture
def kept(tmp_path):
    """Folder of a small network."""
    return save(small(), tmp_path / "model")


def rewrite(folder, *, arguments=None, **changes):
    """Change ``config.json``: None takes a key away."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for record, new in ((config["arguments"], arguments or {}), (config, changes)):
        record |= new
        for key in [k for k, value in new.items() if value is None]:
            del record[key]
    path.write_text(json.dumps(config))


def store(folder, tensors):
    """Other weights, with their own hash recorded: only the fit can be wrong."""
    data = safetensors.torch.save(tensors)
    (folder / "model.safetensors").write_bytes(data)
    rewrite(folder, sha256=hashlib.sha256(data).hexdigest())


def refused(folder, *, file, match):
    with pytest.raises(ValueError, match=match) as refusal:
        zoo.load_model(folder)
    assert str(folder / file) in str(refusal.value)


def test_weights_that_are_not_safetensors_are_refused(kept):
    """A pickle, a torn file, an empty one, even with their own hash recorded."""
    whole = (kept / "model.safetensors").read_bytes()
    pickled = io.BytesIO()
    torch.save(small().state_dict(), pickled)
    for data in (pickled.getvalue(), pickle.dumps({"a": 1}), whole[:-9], b""):
        (kept / "model.safetensors").write_bytes(data)
        rewrite(kept, sha256=hashlib.sha256(data).hexdigest())
        refused(kept, file="model.safetensors", match="is not a safetensors file")


def test_no_code_of_a_pickle_runs(kept, tmp_path):
    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    torch.save({"layers.0.weight": Harmful()}, kept / "model.safetensors")
    refused(kept, file="model.safetensors", match="is not a safetensors file")
    assert not (tmp_path / "harm").exists()


def test_weights_of_another_hash_are_refused(kept, tmp_path):
    """Weights of the same shape, or a record without a hash."""
    other = save(small(), tmp_path / "other")
    model = small()
    model.layers[0].weight.data.neg_()
    changed = save(model, tmp_path / "changed")
    assert zoo.model_hash(other) == zoo.model_hash(kept) != zoo.model_hash(changed)
    weights = (changed / "model.safetensors").read_bytes()
    (kept / "model.safetensors").write_bytes(weights)
    sentence = f"its SHA-256 is {zoo.model_hash(changed)}, recorded is "
    refused(kept, file="model.safetensors", match=sentence + zoo.model_hash(other))
    rewrite(kept, sha256=None)
    refused(kept, file="model.safetensors", match=sentence + "None")


def test_weights_that_do_not_fit_are_refused(kept):
    state = small().state_dict()
    last = "layers.0.bias"
    for tensors, cause in (
        ({k: v for k, v in state.items() if k != last}, f'Missing key.*"{last}"'),
        (state | {"stray": torch.zeros(1)}, 'Unexpected key.*"stray"'),
        (state | {last: torch.zeros(9)}, f"size mismatch for {last}"),
    ):
        store(kept, tensors)
        cause = f"(?s)does not fit its config.json.*{cause}"
        refused(kept, file="model.safetensors", match=cause)


def test_config_of_other_sizes_is_refused(kept):
    rewrite(kept, arguments={"channels": 9})
    refused(kept, file="model.safetensors", match="does not fit its config.json")


@pytest.mark.parametrize(
    "changes, cause",
    [
        ({"architecture": "Mystery"}, "architecture='Mystery': known architectures"),
        ({"architecture": None}, "architecture='None': known architectures are DnCNN"),
        ({"arguments": {"width": 3}}, "unknown: width; missing: none"),
        ({"arguments": {"depth": None, "channels": None}}, "missing: channels, depth"),
        ({"arguments": {"depth": "deep"}}, "DnCNN cannot be built of DnCNNConfig"),
        ({"arguments": {"dilations": []}}, "DnCNN cannot be built of DnCNNConfig"),
    ],
)
def test_config_that_describes_no_network_is_refused(kept, changes, cause):
    rewrite(kept, **changes)
    refused(kept, file="config.json", match=cause)


@pytest.mark.parametrize("text", ["{", "[1]", '{"architecture": "DnCNN"}'])
def test_config_that_is_no_record_is_refused(kept, text):
    (kept / "config.json").write_text(text)
    refused(kept, file="config.json", match="must be an object|is not a JSON object")


def test_unknown_names(tmp_path):
    with pytest.raises(ValueError, match="name='gan': known networks are dncnn"):
        zoo.create_model("gan")
    with pytest.raises(ValueError, match="neither a shipped model"):
        zoo.load_model(tmp_path / "nothing")


def test_classes_that_are_not_registered_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match="architecture='Linear'"):
        save(torch.nn.Linear(1, 1), tmp_path / "model")
    assert not list(tmp_path.iterdir())


# --- half precision -----------------------------------------------------------------


def test_half_precision_comes_back_as_float32(tmp_path):
    model = small(channels=32)
    whole = save(model, tmp_path / "whole")
    half = zoo.save_model(model, tmp_path / "half", training={}, card="", half=True)
    sizes = [(f / "model.safetensors").stat().st_size for f in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    for key, value in zoo.load_model(half).state_dict().items():
        expected = model.state_dict()[key]
        assert value.dtype == expected.dtype
        # Eleven bits; 2^-25 below the smallest normal number, 2^-14.
        torch.testing.assert_close(value, expected, rtol=2.0**-11, atol=2.0**-25)
    assert all(v.dtype == torch.float32 for v in model.parameters())


def test_weights_too_large_for_half_precision_are_refused(tmp_path):
    model = small()
    model.layers[0].bias.data[0] = 7e4
    with pytest.raises(
        ValueError, match=r"half=True: layers\.0\.bias has values beyond"
    ):
        zoo.save_model(model, tmp_path / "model", training={}, card="", half=True)
    assert not list(tmp_path.iterdir())


# --- what is registered -------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_configurations_of_architectures_are_hashable_and_jsonable(name):
    config, kind = zoo.classes(name)
    default = config()
    assert hash(default) == hash(config())
    assert kind(default).config == default
    arguments = json.loads(json.dumps(dataclasses.asdict(default)))
    assert config(**{k: zoo._frozen(v) for k, v in arguments.items()}) == default


def test_listing_names_costs_no_torch():
    script = (
        "import sys; from cube_denoise.models.registry import VARIANTS;"
        "print(*VARIANTS); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(zoo.VARIANTS)


def test_only_the_module_asked_for_is_imported():
    script = (
        "import sys; from cube_denoise.models import zoo; zoo.load_model('dncnn');"
        "print(*(m for m in sys.modules if m.startswith('cube_denoise.models.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name.rpartition(".")[2] for name in done.stdout.split()}
    assert loaded == {"zoo", "registry", "dncnn"}


@pytest.mark.parametrize("name", zoo.shipped_models())
def test_shipped_weights_load_and_are_trained(name):
    model = zoo.load_model(name)
    assert model.config == zoo.load_config(name)
    fitted = {
        key: getattr(model.config, key)
        for key in ("recovery", "std_factor", "trend_share")
        if hasattr(model.config, key)
    }
    assert model.config == dataclasses.replace(zoo.variant_config(name), **fitted)
    # Every network starts with a last layer of zeros.
    new = zoo.create_model(name).state_dict()
    zero = [key for key, value in new.items() if value.ndim > 1 and not value.any()]
    assert zero and all(model.state_dict()[key].any() for key in zero)
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())
