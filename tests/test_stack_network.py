"""The stack network and its samples: invariances, shapes, learning."""

import numpy as np
import pytest
import torch

from cube_denoise.models.stack import StackConfig, StackNetwork
from cube_denoise.models.stack_features import centred, local_lines
from cube_denoise.models.stack_loss import stack_loss
from cube_denoise.stack_samples import StackBatch, StackSampling, stack_batch

SMALL = StackConfig(channels=(8, 8, 8), heads=2)
Inputs = dict[str, torch.Tensor]


def network(config: StackConfig = SMALL) -> StackNetwork:
    """Network whose last layers are not those of the start."""
    torch.manual_seed(0)
    made = StackNetwork(config)
    for head in (*made.heads, made.finest):
        torch.nn.init.normal_(head.layer.weight, std=0.1)
        torch.nn.init.zeros_(head.layer.bias)
    return made.eval()


def inputs(
    dates: int = 9, shape: tuple[int, int] = (24, 32), *, seed: int = 0
) -> Inputs:
    rng = np.random.default_rng(seed)
    years = np.sort(rng.uniform(0, 1, (2, dates)), 1)
    y, x = np.mgrid[: shape[0], : shape[1]]
    bowl = np.exp(-((y - 10) ** 2 + (x - 12) ** 2) / 50)
    series = 0.03 * years[:, :, None, None] * bowl
    series = series + 0.005 * rng.standard_normal((2, dates, 1, 1)) * (x - y) / 20
    series = series + 0.002 * rng.standard_normal((2, dates, *shape))
    arrays = {
        "series": series,
        "years": years,
        "elevation": 500 * rng.random((2, *shape)),
        "coherence": rng.random((2, *shape)),
    }
    found = {name: torch.from_numpy(a).double() for name, a in arrays.items()}
    return found | {"visible": torch.ones(series.shape, dtype=torch.bool)}


def estimate(made: StackNetwork, given: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return made.double()(**given)


def assert_same(
    one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...], **tolerance: float
) -> None:
    tolerance = {"rtol": 1e-6, "atol": 1e-9} | tolerance
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_it_is_of_the_size_that_ships() -> None:
    count = sum(p.numel() for p in StackNetwork().parameters())
    assert 200_000 < count < 500_000


@pytest.mark.parametrize(
    ("dates", "shape"), [(4, (8, 8)), (7, (33, 50)), (30, (16, 9))]
)
def test_any_number_of_dates_and_any_shape(dates: int, shape: tuple[int, int]) -> None:
    given = inputs(dates, shape)
    displacement, std = estimate(network(), given)
    assert displacement.shape == std.shape == given["series"].shape
    assert torch.isfinite(displacement).all()
    assert (std > 0).all()
    assert displacement.mean((2, 3)).abs().max() < 1e-12
    assert displacement.mean(1).abs().max() < 1e-12


def test_too_little_is_an_error() -> None:
    with pytest.raises(ValueError, match="4 dates or more"):
        network().double()(**inputs(3))
    with pytest.raises(ValueError, match="8 x 8 pixels"):
        network().double()(**inputs(5, (7, 30)))
    given = inputs(5)
    given["visible"][0, 2:] = False
    with pytest.raises(ValueError, match="2 visible dates"):
        network().double()(**given)


@pytest.mark.parametrize("what", ["date", "time", "height", "pixel", "NaN"])
def test_what_does_not_change_the_estimate(what: str) -> None:
    made, given = network(), inputs()
    given["visible"][:, 3] = False
    if what != "pixel":
        given["visible"][0, 5, :9, :11] = False
    before = estimate(made, given)
    rng = torch.Generator().manual_seed(0)
    changed = dict(given)
    series = given["series"]
    if what == "date":
        more = torch.rand(2, 9, 1, 1, generator=rng, dtype=torch.double)
        changed["series"] = series + more
    elif what == "pixel":
        more = torch.rand(2, 1, 24, 32, generator=rng, dtype=torch.double)
        changed["series"] = series + more
    elif what == "time":
        changed["years"] = given["years"] + 17
    elif what == "height":
        changed["elevation"] = given["elevation"] - 300
    else:
        changed["series"] = torch.where(given["visible"], series, torch.nan)
    assert_same(before, estimate(made, changed))


def test_a_hidden_date_is_as_if_it_were_not_there() -> None:
    made, given = network(), inputs(10)
    given["visible"][:, 4] = False
    others = [k for k in range(10) if k != 4]
    fewer = {
        name: a[:, others] if name in ("series", "visible", "years") else a
        for name, a in given.items()
    }
    displacement, std = estimate(made, given)
    assert_same((displacement[:, others], std[:, others]), estimate(made, fewer))
    given["series"][:, 4] += 1
    assert_same((displacement, std), estimate(made, given), rtol=0, atol=0)


def test_every_date_sees_the_others() -> None:
    made, given = network(), inputs()
    before, _ = estimate(made, given)
    given["series"][:, 0, 3, 3] += 0.01
    after, _ = estimate(made, given)
    assert ((after - before).abs().amax((2, 3)) > 1e-6).all()


def test_the_scale_is_one_channel() -> None:
    """Without the channel of the noise level the estimate scales with the data."""
    made, given = network(), inputs()
    with torch.no_grad():
        made.stem.weight[:, made.count + 5 + 2 + 3 + 4 + 3 + 2] = 0
    once = estimate(made, given)
    thrice = estimate(made, given | {"series": 3 * given["series"]})
    assert_same(tuple(3 * a for a in once), thrice)


def test_the_untrained_network_keeps_steady_motion() -> None:
    given = inputs()
    truth = given["years"][:, :, None, None] * given["coherence"][:, None]
    given["series"] = 0.01 * truth
    made = StackNetwork(SMALL)
    for head in (*made.heads, made.finest):
        with torch.no_grad():
            head.layer.bias[-2] = 20.0  # all of it
    found, _ = estimate(made, given)
    expected = centred(0.01 * truth, given["visible"].any(3).any(2))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_local_lines_are_those_of_least_squares() -> None:
    years = torch.tensor([0.0, 0.3, 0.4, 1.0, 1.5], dtype=torch.double)
    weight = torch.tensor([1.0, 2.0, 0.0, 0.5, 1.0], dtype=torch.double)
    lag = (years[None, :] - years[:, None]) / 0.5
    made = local_lines(lag[None], weight[None], ridge=0.0)[0].numpy()
    data = np.array([1.0, -2.0, 99.0, 0.5, 3.0])
    for k in range(5):
        w = np.sqrt(weight.numpy() * np.exp(-(lag[k].numpy() ** 2) / 2))
        line = np.polyfit(years.numpy() - years[k].item(), data, 1, w=w)
        assert made[k] @ data == pytest.approx(line[1], abs=1e-9)


SAMPLING = StackSampling(sides=(32,), dates=(8, 10), volume=32 * 32 * 40, bank=8)


def drawn(number: int, *, split: str = "train", seed: int = 0) -> StackBatch:
    return stack_batch(number, SAMPLING, split=split, seed=seed)


def test_batches_depend_on_split_seed_and_number_alone() -> None:
    drawn(0, seed=3)
    first, again = drawn(1, seed=3), drawn(1, seed=3)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    for other in (
        drawn(2, seed=3),
        drawn(1, seed=4),
        drawn(1, split="validation", seed=3),
    ):
        assert not torch.equal(first.elevation[:2], other.elevation[:2])


def test_samples_are_what_they_say() -> None:
    hidden = rest = 0
    for number in range(12):
        batch = drawn(number)
        count, dates = batch.years.shape
        assert batch.series.shape == (count, dates, 32, 32) == batch.visible.shape
        assert (batch.series[~batch.visible] == 0).all()
        assert (batch.years.diff(dim=1) > 0).all()
        assert all(torch.isfinite(a.float()).all() for a in batch)
        hidden += int((~batch.visible.any(3).any(2)).any(1).sum())
        rest += int((batch.displacement == 0).all(3).all(2).all(1).sum())
        largest = batch.displacement.abs().amax((1, 2, 3))
        assert ((largest == 0) | ((largest > 0.0019) & (largest < 2.01))).all()
    assert hidden > 5
    assert rest > 0


def test_samples_out_of_range_are_an_error() -> None:
    with pytest.raises(ValueError, match="at most 128"):
        stack_batch(0, StackSampling(sides=(256,)), split="train", seed=0)


def loss(made: StackNetwork, batch: StackBatch) -> torch.Tensor:
    found, std = made(*batch[:5])
    return stack_loss(found, std, batch.displacement, batch.series, batch.visible)


def test_the_loss_is_smallest_for_truth_and_quantile() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 6, 40, 40, generator=rng)
    noise = torch.randn(1, 6, 40, 40, generator=rng)
    visible = torch.ones(truth.shape, dtype=torch.bool)

    def score(part: float, std: float) -> float:
        wrong = centred(truth + part * noise, visible.any(3).any(2))
        width = torch.full_like(truth, std)
        return float(stack_loss(wrong, width, truth, truth + noise, visible))

    assert score(0.1, 0.1) < score(0.2, 0.2) < score(0.4, 0.4)
    best = min((score(0.2, std), std) for std in np.geomspace(0.05, 0.8, 81))[1]
    assert best == pytest.approx(0.2, rel=0.1)


def test_it_learns() -> None:
    """Seconds are enough to do better on what it sees; held-out noise is halved."""
    torch.manual_seed(0)
    made = StackNetwork(SMALL)
    how = torch.optim.AdamW(made.parameters(), lr=3e-3)
    seen = [drawn(k) for k in range(4)]

    def score() -> float:
        with torch.no_grad():
            return float(np.mean([loss(made, batch) for batch in seen]))

    before = score()
    for number in range(40):
        how.zero_grad()
        loss(made, seen[number % 4]).backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 5.0)
        how.step()
    assert score() < before - 0.15
    parts = []
    for number in range(8):
        batch = drawn(number, split="validation")
        dates = batch.visible.any(3).any(2)
        truth = centred(batch.displacement, dates)
        with torch.no_grad():
            wrong = (made(*batch[:5])[0] - truth) * batch.visible
        noise = (centred(batch.series, dates) - truth) * batch.visible
        parts += ((wrong**2).sum((1, 2, 3)) / (noise**2).sum((1, 2, 3))).tolist()
    assert np.sqrt(np.median(parts)) < 0.5
