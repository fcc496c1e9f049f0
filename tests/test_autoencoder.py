"""The series autoencoder: its axes, what it sees, and series longer than its window."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cube_denoise.models.autoencoder import (
    SeriesAutoencoder,
    SeriesAutoencoderConfig,
    relative_elevation,
    slide,
)


def small(**options):
    torch.manual_seed(0)
    return SeriesAutoencoder(SeriesAutoencoderConfig(**{"channels": 4} | options))


def randomised(model):
    torch.nn.init.normal_(model.output.weight, std=0.1)
    return model.eval()


def times(model):
    """Lengths of the time axis from the input to the end of the encoder."""
    seen = [model.config.dates]
    for convolution in model.encoder:
        convolution.register_forward_hook(lambda _, __, y: seen.append(y.shape[2]))
    with torch.inference_mode():
        model(torch.randn(1, model.config.dates, 6, 7), torch.rand(1, 6, 7))
    return [n for n, before in zip(seen, [0, *seen], strict=False) if n != before]


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (9, [9, 7, 5, 3, 1]),
        (12, [12, 10, 8, 6, 4, 2, 1]),
        (3, [3, 1]),
        (2, [2, 1]),
    ],
)
def test_time_shrinks(dates, expected):
    assert times(small(dates=dates)) == expected


def test_size_of_our_reading():
    model = SeriesAutoencoder()
    assert sum(p.numel() for p in model.parameters()) == 630_913
    assert model.config.dates == 9
    assert 2 * model.receptive_radius + 1 == 27


@pytest.mark.parametrize("size", [(2, 2), (13, 18)])
def test_any_size(size):
    model = randomised(small())
    with torch.inference_mode():
        moved = model(torch.randn(2, 9, *size), torch.rand(2, *size))
    assert moved.shape == (2, 1, *size)
    assert moved.std() > 0


def test_new_network_sees_no_displacement():
    with torch.inference_mode():
        moved = small().eval()(torch.randn(1, 9, 8, 8), torch.rand(1, 8, 8))
    assert not moved.any()


@pytest.mark.parametrize("options", [{}, {"between": 2}, {"dates": 4, "decoder": 3}])
def test_radius_is_what_is_seen(options):
    model = small(**options).double()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            fan = module.weight[0].numel()
            torch.nn.init.constant_(module.weight, 1 / fan)
    radius, dates = model.receptive_radius, model.config.dates
    size = 2 * radius + 5
    middle = size // 2
    series = torch.ones(1, dates, size, size, dtype=torch.float64, requires_grad=True)
    height = torch.ones(1, size, size, dtype=torch.float64, requires_grad=True)
    model(series, height)[0, 0, middle, middle].backward()
    assert (series.grad[0].abs().amax((1, 2)) > 0).all()  # all dates
    for seen, expected in (
        (series.grad[0].abs().sum(0), radius),
        (height.grad[0], model.config.decoder + 1),
    ):
        rows, columns = np.nonzero(seen.numpy())
        assert np.abs(rows - middle).max() == expected
        assert np.abs(columns - middle).max() == expected


def test_edges_are_reflected():
    """Half of a mirrored map is computed as the whole of it."""
    model = randomised(small()).double()
    series = torch.randn(1, 9, 20, 20, dtype=torch.float64)
    height = torch.rand(1, 20, 20, dtype=torch.float64)

    def mirrored(x):
        return torch.cat([x, x.flip(-1)[..., 1:]], -1)

    # Kernels that do not tell left from right, so that the mirror holds inside too.
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            weight = module.weight.data
            module.weight.data = (weight + weight.flip(-1)) / 2
    with torch.inference_mode():
        half = model(series, height)
        whole = model(mirrored(series), mirrored(height))
    torch.testing.assert_close(half, whole[..., :20])


def test_relative_elevation():
    generator = torch.Generator().manual_seed(0)
    height = 300 + 2000 * torch.rand(3, 5, 7, generator=generator)
    height[1] = 42.0
    found = relative_elevation(height)
    assert found[0].min() == 0 and found[0].max() == 1
    assert not found[1].any()
    low, high = height[2].min(), height[2].max()
    torch.testing.assert_close(found[2], (height[2] - low) / (high - low))
    torch.testing.assert_close(relative_elevation(3 * height - 7), found)


class LastMinusFirst(SeriesAutoencoder):
    """Perfect where there is no noise."""

    def forward(self, series, elevation):
        assert not series[:, 0].any()
        return series[:, -1:] - series[:, :1]


@pytest.mark.parametrize("dates", [2, 4, 9])
@pytest.mark.parametrize("number", [2, 5, 9, 10, 40])
def test_sliding_a_perfect_model_gives_the_series_back(number, dates):
    torch.manual_seed(0)
    model = LastMinusFirst(SeriesAutoencoderConfig(dates=dates, channels=1))
    series = torch.randn(2, number, 3, 4, dtype=torch.float64).cumsum(1)
    found = slide(model, series, torch.zeros(2, 3, 4))
    assert not found[:, 0].any()
    torch.testing.assert_close(found, series - series[:, :1], rtol=0, atol=1e-12)


def test_sliding_is_least_squares_over_the_windows():
    """Answers that contradict each other, against a solver that knows no windows."""
    number, dates = 13, 5
    random = np.random.default_rng(0)
    answers = random.normal(size=number + dates - 3)

    class Answering(SeriesAutoencoder):
        calls = 0

        def forward(self, series, elevation):
            self.calls += 1
            return torch.full_like(series[:, :1], answers[self.calls - 1])

    model = Answering(SeriesAutoencoderConfig(dates=dates, channels=1))
    series = torch.randn(1, number, 2, 2, dtype=torch.float64)
    found = slide(model, series, torch.zeros(1, 2, 2))
    assert model.calls == len(answers)
    rows = []
    for start in range(2 - dates, number - 1):
        row = np.zeros(number)
        row[min(start + dates - 1, number - 1)] += 1
        row[max(start, 0)] -= 1
        rows.append(row[1:])
    expected = np.linalg.lstsq(np.array(rows), answers, rcond=None)[0]
    np.testing.assert_allclose(found[0, 1:, 1, 0], expected, rtol=1e-10)


def test_errors_of_windows_do_not_add_up():
    """Error of a date, in errors of a window: as the docstring of `slide` says."""
    torch.manual_seed(0)

    class Erring(LastMinusFirst):
        def forward(self, series, elevation):
            exact = super().forward(series, elevation)
            return exact + torch.randn_like(exact)

    model = Erring(SeriesAutoencoderConfig(channels=1))
    found = slide(model, torch.zeros(1, 60, 100, 100), torch.zeros(1, 100, 100))
    assert found[0].std((1, 2)).max() == pytest.approx(1.6, abs=0.05)


def test_sliding_needs_two_dates():
    with pytest.raises(ValueError, match="series has 1 dates"):
        slide(small(), torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))


def test_other_numbers_of_dates_are_refused():
    with pytest.raises(ValueError, match="series has 8 dates: must be 9"):
        small()(torch.zeros(1, 8, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="dates=1 must be at least 2"):
        SeriesAutoencoderConfig(dates=1)
    with pytest.raises(ValueError, match="decoder=0"):
        SeriesAutoencoderConfig(decoder=0)


def test_fused_equals_unfused():
    model = randomised(small())
    series, height = torch.randn(1, 9, 12, 15), torch.rand(1, 12, 15)
    with torch.inference_mode():
        expected = model(series, height)
        found = model.train().fused()(series, height)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_training_lowers_the_loss():
    """Steady motion under noise of every date."""
    model = small(channels=8).train()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    bump = torch.exp(-(torch.linspace(-2, 2, 16) ** 2))
    growth = torch.linspace(0, 1, 9)[:, None, None]

    def loss_of(number):
        size = 3 * torch.randn(number, 1, 1, 1, generator=generator)
        moved = size * bump[:, None] * bump
        noise = 0.3 * torch.randn(number, 9, 16, 16, generator=generator)
        series = growth * moved + noise
        estimate = model(series - series[:, :1], torch.zeros(number, 16, 16))
        return functional.l1_loss(estimate, moved)

    before = loss_of(64).item()
    for _ in range(30):
        optimiser.zero_grad()
        loss_of(8).backward()
        optimiser.step()
    assert loss_of(64).item() < 0.5 * before
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_bfloat16():
    model = randomised(small(channels=16))
    series, height = torch.randn(1, 9, 16, 16), torch.rand(1, 16, 16)
    with torch.inference_mode():
        exact = model(series, height)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(series, height)
    assert torch.linalg.norm(rough.float() - exact) < 0.03 * torch.linalg.norm(exact)
