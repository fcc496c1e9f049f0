"""Every architecture that sees a pair corrects it the same however the work is cut."""

import dataclasses

import numpy as np
import pytest
import torch

import cube_denoise as cd
from cube_denoise.models import zoo
from cube_denoise.models.registry import ARCHITECTURES, VARIANTS, Variant
from cube_denoise.simulate import PairErrors, simulate_stack

INPUTS = ("displacement", "log_scale", "elevation", "valid")
NARROW = {
    "DnCNN": {"depth": 4, "channels": 4},
    "UNet": {"channels": (4, 6, 8)},
    "Restormer": {
        "channels": 4,
        "blocks": (1, 1),
        "heads": (1, 2),
        "refinement": 1,
        "inputs": INPUTS,
    },
    "SwinIR": {"channels": 8, "depths": (2,), "heads": (2,), "inputs": INPUTS},
    "DiffusionDenoiser": {"channels": (4, 6), "steps": 2, "members": 2},
    "BridgeDenoiser": {"channels": (4, 6), "steps": 2},
}
"""Small enough for a test."""


@pytest.fixture(scope="module")
def cube():
    """A pair, larger than a tile, with gaps."""
    errors = PairErrors(gaps=0.1)
    return simulate_stack(
        seed=2,
        shape=(260, 264),
        dates=2,
        max_temporal_baseline=12,
        pair_errors=errors,
    ).cube


def network(name: str):
    """Random weights everywhere: a network that is new removes nothing."""
    torch.manual_seed(0)
    config, kind = zoo.classes(name)
    model = kind(config(**NARROW[name]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def test_every_architecture_of_pairs_is_here():
    shipped = {VARIANTS[name].architecture for name in VARIANTS}
    pairs = {a for a in shipped if ARCHITECTURES[a].sees == "pair"}
    assert pairs == set(NARROW)


@pytest.mark.parametrize(
    "name",
    [
        # The bridge has its network.
        pytest.param(name, marks=pytest.mark.slow)
        if name == "DiffusionDenoiser"
        else name
        for name in sorted(NARROW)
    ],
)
def test_windows_change_nothing(cube, name):
    model = network(name)
    options = {"precision": "float32"}
    whole = cd.correct(cube, model, block=512, **options)["corrected_phase"].values
    cut = cd.correct(cube, model, block=190, **options)["corrected_phase"].values
    np.testing.assert_array_equal(whole, cut)
    part = {"y": slice(201, 260), "x": slice(5, 131)}
    some = cd.correct(cube, model, region=part, block=128, **options)
    np.testing.assert_array_equal(
        some["corrected_phase"].values, whole[:, part["y"], part["x"]]
    )
    raw = cube["unwrapped_phase"].values
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(raw))
    assert np.nanstd(whole - raw) > 1e-3


@pytest.mark.parametrize("name", sorted(NARROW))
def test_a_saved_network_is_the_same(tmp_path, name):
    model = network(name)
    folder = zoo.save_model(model, tmp_path / "model", training={}, card="")
    again = zoo.load_model(folder)
    assert dataclasses.asdict(again.config) == dataclasses.asdict(model.config)
    x = torch.randn(1, len(model.config.inputs), 40, 48)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), model(x))
        torch.testing.assert_close(model.fused()(x), model(x), rtol=1e-4, atol=1e-4)


def test_variants_are_built_of_their_arguments():
    for name, variant in VARIANTS.items():
        assert isinstance(variant, Variant)
        model = zoo.create_model(name)
        assert type(model).__name__ == variant.architecture
