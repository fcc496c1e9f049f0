"""The U-Net: size, what it sees, padding, conditioning on a time."""

import dataclasses
import itertools
import json

import pytest
import torch

from cube_denoise.models.unet import UNet, UNetConfig, mean_square

TINY = {"channels": (4, 6, 8), "dilations": (1, 2), "inputs": ("displacement",)}


@pytest.fixture(autouse=True)
def one_thread():
    """Small maps: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def trained(**options):
    """Network as after training: no weight is 0."""
    torch.manual_seed(0)
    model = UNet(UNetConfig(**options)).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def block(channels, told=0):
    film = 2 * channels * (told + 1) if told else 0
    return 2 * (9 * channels**2 + channels) + film


def test_size_is_that_of_its_layers():
    config = UNetConfig()
    c = config.channels
    expected = 9 * 4 * c[0] + c[0] + 9 * c[0] + 1
    expected += sum(2 * config.blocks * block(n) for n in c[:-1])
    expected += len(config.dilations) * block(c[-1])
    expected += sum((9 + 1) * a * b + a + b for a, b in itertools.pairwise(c))
    assert parameters(UNet()) == expected == 1_299_937


def test_time_adds_its_embedding_and_two_numbers_a_channel():
    plain, told = (UNet(UNetConfig(**TINY, time=t)) for t in (False, True))
    embedding = 65 * 128 + 129 * 128
    film = sum(2 * n * 129 for n in (4, 4, 6, 6, 8, 8))
    assert parameters(told) - parameters(plain) == embedding + film


def test_new_network_removes_nothing():
    with torch.inference_mode():
        assert not UNet()(torch.randn(2, 4, 33, 48)).any()


@pytest.mark.parametrize("time", [None, torch.tensor([0.2, 0.9])])
def test_any_size_from_the_smallest(time):
    model = trained(**TINY, time=time is not None)
    assert model.smallest_side == 3
    for shape in ((3, 3), (4, 7), (17, 3), (20, 24)):
        with torch.inference_mode():
            out = model(torch.randn(2, 1, *shape), time)
        assert out.shape == (2, 1, *shape)
        assert out.isfinite().all()
    with pytest.raises(RuntimeError, match=r"[Pp]adding"):
        model(torch.randn(2, 1, 2, 20), time)
    assert UNet().smallest_side == 9


def test_maps_are_continued_by_reflection():
    model = trained(**TINY)
    x = torch.randn(1, 1, 14, 16)
    whole = torch.cat([x, x[:, :, [12, 11]]], 2)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), model(whole)[:, :, :14])


def test_default_network_sees_a_tile_from_its_middle():
    """Weights made positive, so that no path hides; the farthest inputs that count."""
    model = trained(**dataclasses.asdict(UNetConfig(channels=(2,) * 5))).double()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    side = 704
    x = torch.ones(1, 4, side, side, dtype=torch.float64, requires_grad=True)
    model(x)[0, 0, side // 2, side // 2].backward()
    rows = x.grad[0].abs().sum((0, 2)).nonzero().ravel()
    assert int(rows.min()) > 0 and int(rows.max()) < side - 1, "larger map, please"
    assert min(side // 2 - int(rows.min()), int(rows.max()) - side // 2) >= 300
    assert model.receptive_radius is None


def test_shift_by_the_coarsest_pixel_shifts_the_output():
    model = trained(**TINY).double()
    x = torch.randn(1, 1, 128, 128, dtype=torch.float64)
    with torch.inference_mode():
        one, other = model(x[..., :124]), model(x[..., 4:])
    torch.testing.assert_close(one[..., 52:72], other[..., 48:68])


def test_maps_of_a_batch_do_not_meet():
    model = trained(**TINY, time=True)
    x, time = torch.randn(3, 1, 20, 20), torch.tensor([0.1, 0.5, 1.0])
    with torch.inference_mode():
        together = model(x, time)
        alone = torch.cat([model(x[[k]], time[[k]]) for k in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_time_matters_and_must_be_given_where_asked_for():
    model = trained(**TINY, time=True)
    x = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        outs = [model(x, torch.tensor([t])) for t in (0.1, 0.9)]
    assert (outs[0] - outs[1]).std() > 1e-3
    with pytest.raises(ValueError, match="time=None"):
        model(x)
    with pytest.raises(ValueError, match="time=a tensor"):
        trained(**TINY)(x, torch.tensor([0.1]))


def test_configuration_round_trip():
    config = UNetConfig(channels=(8, 16), dilations=(1,), time=True, outputs=2)
    read = json.loads(json.dumps(dataclasses.asdict(config)))
    again = {k: tuple(v) if isinstance(v, list) else v for k, v in read.items()}
    assert UNetConfig(**again) == config
    assert hash(UNetConfig(**again)) == hash(config)
    with pytest.raises(ValueError, match=r"channels=\(8,\)"):
        UNet(UNetConfig(channels=(8,)))


def test_fused_equals_the_network_and_leaves_it():
    model = trained(**TINY).train()
    fused = model.fused()
    x = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(fused(x), model(x))
    assert model.training and not fused.training


def test_mean_square_counts_valid_pixels():
    error = torch.tensor([[[[1.0, 2.0], [3.0, 100.0]]]])
    valid = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    assert float(mean_square(error, valid)) == pytest.approx(14 / 3)
    both = mean_square(error.expand(1, 2, 2, 2), valid)
    assert float(both) == pytest.approx(14 / 3)


def test_it_learns_a_plane_through_elevation():
    """What phase-elevation regression does: noise is a multiple of the elevation."""
    torch.manual_seed(0)
    model = UNet(
        UNetConfig(
            channels=(12, 16, 24),
            dilations=(1, 2),
            inputs=("displacement", "elevation"),
        )
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def batch():
        elevation = torch.nn.functional.interpolate(
            torch.randn(8, 1, 5, 5), 32, mode="bicubic"
        )
        noise = torch.randn(8, 1, 1, 1) * elevation
        speckle = 0.3 * torch.randn(8, 1, 32, 32)
        return torch.cat([noise + speckle, elevation], 1), noise + speckle, noise

    for _ in range(80):
        inputs, _, noise = batch()
        optimizer.zero_grad()
        mean_square(model(inputs) - noise, torch.ones_like(noise)).backward()
        optimizer.step()
    inputs, raw, noise = batch()
    with torch.inference_mode():
        error = mean_square(model(inputs) - noise, torch.ones_like(noise))
    assert float(error) < 0.5 * float((raw - noise).square().mean())
