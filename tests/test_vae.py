"""The separating autoencoder: shapes, divergences, and a fit to known sources."""

import numpy as np
import pytest
import torch

from cube_denoise.models.vae import Separator, SeparatorConfig, misfit
from cube_denoise.models.vae_fit import FitOptions, fit_separator, sources_of


@pytest.fixture(scope="module")
def mixtures():
    """Two patterns with independent amplitudes, and noise; 60 pairs of 16 x 16."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    patterns = np.stack([np.exp(-8 * (x**2 + y**2)), x])
    patterns -= patterns.mean((1, 2), keepdims=True)
    patterns /= patterns.std((1, 2), keepdims=True)
    amplitudes = rng.laplace(size=(60, 2))
    maps = np.einsum("nk,kyx->nyx", amplitudes, patterns)
    maps += 0.1 * rng.normal(size=maps.shape)
    return maps.astype("float32"), np.ones(maps.shape, bool), np.arange(60)


def fit(mixtures, **options):
    config = SeparatorConfig(tile=16, sources=2, latent=4)
    return fit_separator(*mixtures, config, FitOptions(**options), device="cpu")


@pytest.mark.parametrize("arch", ["mlp", "conv"])
@pytest.mark.parametrize("prior", ["normal", "laplace"])
def test_sources_add_up_and_nothing_is_empty(arch, prior):
    config = SeparatorConfig(tile=16, sources=3, latent=4, arch=arch, prior=prior)
    network = Separator(config).eval()
    maps = torch.randn(5, 16, 16)
    sources, mean, log_variance = network(maps)
    assert sources.shape == (5, 3, 16, 16)
    assert mean.shape == log_variance.shape == (5, 3, 4)
    # Products of matrices of other sizes round otherwise.
    assert network.decode(torch.zeros(2, 3, 4)).abs().max() < 1e-6
    assert (network.divergence(mean, log_variance) > 0).all()
    # One decoder: what describes a source decides, not which source it is.
    swapped = network.decode(mean.flip(1)).flip(1)
    torch.testing.assert_close(swapped, sources, atol=1e-5, rtol=1e-4)
    difference = misfit(maps, sources, torch.ones(5, 16, 16, dtype=torch.bool))
    expected = (maps - sources.sum(1)).abs().sum((1, 2)) * 2**0.5
    torch.testing.assert_close(difference, expected)


def test_divergences_are_those_of_the_distributions():
    mean, log_variance = torch.tensor([[[0.3, -2.0]]]), torch.tensor([[[0.5, -1.0]]])
    own = torch.distributions.Normal(mean, (log_variance / 2).exp())
    for prior, other in (
        ("normal", torch.distributions.Normal(0.0, 1.0)),
        ("laplace", torch.distributions.Laplace(0.0, 0.5**0.5)),
    ):
        network = Separator(SeparatorConfig(tile=2, sources=1, latent=2, prior=prior))
        torch.manual_seed(0)
        drawn = own.sample((200_000,))
        expected = (own.log_prob(drawn) - other.log_prob(drawn)).mean(0).sum()
        found = network.divergence(mean, log_variance)
        assert float(found) == pytest.approx(float(expected), rel=0.01)


def test_unknown_pixels_do_not_count():
    maps, sources = torch.randn(3, 4, 4), torch.randn(3, 2, 4, 4)
    known = torch.ones(3, 4, 4, dtype=torch.bool)
    known[:, 0] = False
    other = maps.clone()
    other[:, 0] = torch.nan
    assert torch.equal(misfit(maps, sources, known), misfit(other, sources, known))


def test_fit_explains_known_mixtures(mixtures):
    told = []
    config = SeparatorConfig(tile=16, sources=2, latent=4)
    found = fit_separator(
        *mixtures,
        config,
        FitOptions(epochs=50, ramp=5),
        device="cpu",
        progress=lambda *now: told.append(now),
    )
    maps = mixtures[0]
    left = maps - sources_of(found.network, maps).sum(1)
    assert (left**2).mean() < 0.2 * (maps**2).mean()
    assert [epoch for epoch, *_ in told] == list(range(1, found.epochs + 1))
    assert tuple((a, b) for _, a, b in told) == found.losses
    assert found.losses[found.best - 1][1] == min(o for _, o in found.losses[5:])


def test_one_seed_gives_one_network(mixtures):
    one, again, other = (fit(mixtures, epochs=3, seed=s) for s in (1, 1, 2))
    state = one.network.state_dict()
    for name, values in again.network.state_dict().items():
        assert torch.equal(values, state[name]), name
    assert one.losses == again.losses != other.losses


def test_fit_leaves_the_global_generator_alone(mixtures):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(mixtures, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_fit_stops_when_nothing_is_gained(mixtures):
    noise = np.random.default_rng(1).normal(size=mixtures[0].shape).astype("float32")
    options = {"epochs": 60, "ramp": 2, "patience": 5}
    found = fit((noise, *mixtures[1:]), **options)
    assert found.epochs < 60 and found.best <= found.epochs - 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tile": 0}, "tile=0"),
        ({"arch": "gru"}, "arch='gru'"),
        ({"prior": "flat"}, "prior='flat'"),
        ({"tile": 20, "arch": "conv"}, "multiple of 16"),
    ],
)
def test_bad_configuration_is_named(options, text):
    with pytest.raises(ValueError, match=text):
        SeparatorConfig(**options)


def test_bad_fit_options_are_named(mixtures):
    for options, text in (({"epochs": 0}, "epochs=0"), ({"beta": -1.0}, "beta=-1")):
        with pytest.raises(ValueError, match=text):
            FitOptions(**options)
    few = tuple(a[:1] for a in mixtures)
    with pytest.raises(ValueError, match="1 maps"):
        fit(few)
