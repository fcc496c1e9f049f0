"""Amplitude and standard deviation of the stack network, put right at the end."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from cube_denoise.models.stack import (
    FOUND,
    RECOVERED,
    StackConfig,
    StackNetwork,
    recovery_gain,
)
from cube_denoise.simulate.seeds import SPLITS
from cube_denoise.training import stacks

TINY = StackConfig(channels=(8, 12), heads=2)
FACTORS = (0.5, 2.0, 0.8)


def network(
    factor: float | tuple[float, ...], *, recovery: float = 0.0
) -> StackNetwork:
    torch.manual_seed(0)
    made = StackNetwork(TINY).eval()
    return stacks._with(made, std_factor=factor, recovery=recovery)


def given(motion: float) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:24, :24]
    bowl = np.exp(-((y - 12) ** 2 + (x - 12) ** 2) / 60)
    series = motion * np.linspace(0, 1, 9)[:, None, None] * bowl
    series = series + 0.003 * rng.standard_normal((9, 24, 24))
    visible = torch.ones((1, 9, 24, 24), dtype=torch.bool)
    visible[:, 3, :8] = False
    return {
        "series": torch.from_numpy(series)[None].float(),
        "visible": visible,
        "years": torch.linspace(0, 0.3, 9)[None],
        "elevation": torch.zeros((1, 24, 24)),
        "coherence": torch.full((1, 24, 24), 0.5),
    }


@pytest.mark.parametrize("motion", [0.0, 0.02, 2.0])
def test_factor_follows_what_was_found(motion: float) -> None:
    inputs = given(motion)
    with torch.no_grad():
        estimate, plain = network(1.0)(**inputs)
        same, doubled = network(2.0)(**inputs)
        _, scaled = network(FACTORS)(**inputs)
    torch.testing.assert_close(same, estimate)
    torch.testing.assert_close(doubled, 2 * plain)
    seen = inputs["visible"]
    at = (estimate[seen].square().mean() / plain[seen].square().mean()).sqrt()
    expected = np.exp(np.interp(np.log(at), np.log(FOUND), np.log(FACTORS)))
    torch.testing.assert_close(scaled, plain * float(expected), rtol=1e-4, atol=0.0)


def test_stacks_of_a_batch_have_factors_of_their_own() -> None:
    one, other = given(0.0), given(2.0)
    both = {k: torch.cat([one[k], other[k]]) for k in one}
    made = network(FACTORS)
    with torch.no_grad():
        together = made(**both)[1]
        for k, alone in enumerate((one, other)):
            torch.testing.assert_close(
                together[k : k + 1], made(**alone)[1], rtol=1e-3, atol=1e-6
            )


@pytest.mark.parametrize("motion", [0.0, 0.01, 2.0])
def test_recovery_makes_the_estimate_larger_and_keeps_the_rest(motion: float) -> None:
    inputs = given(motion)
    with torch.no_grad():
        estimate, std = network(FACTORS)(**inputs)
        more, same = network(FACTORS, recovery=0.8)(**inputs)
        plain = network(1.0)(**inputs)[1]
    torch.testing.assert_close(same, std)
    seen = inputs["visible"]
    sure = (estimate[seen].square().mean() / plain[seen].square().mean()).sqrt()
    torch.testing.assert_close(more, estimate * recovery_gain(sure, 0.8))


def test_nothing_is_recovered_where_nothing_is_found_or_motion_is_plain() -> None:
    sure = np.array([0.1, RECOVERED[0], RECOVERED[1], 3.0, 100.0])
    gain = recovery_gain(sure, 1.0)
    np.testing.assert_array_equal(gain[:2], 1)
    np.testing.assert_allclose(gain[2:], 1 + 1 / sure[2:] ** 2)
    np.testing.assert_array_equal(recovery_gain(sure, 0.0), 1)


def test_what_a_wiener_filter_loses_comes_back(monkeypatch) -> None:
    """The estimate of least error and its error, in closed form: recovery is one."""

    def scene(number: int, side: int) -> SimpleNamespace:
        rng = np.random.default_rng(number)
        signal = rng.standard_normal((8, 40, 40))
        if number % 5 == 4:
            signal[:] = 0
        truth = xr.Dataset({"displacement": (("time", "y", "x"), signal)})
        return SimpleNamespace(truth=truth, number=number)

    def seen(model: StackNetwork, drawn: SimpleNamespace) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng([1, drawn.number])
        true = stacks.centred(drawn.truth["displacement"].values)
        ratio = (0.3, 0.2, 0.1, 0.05, 1.0)[drawn.number % 5]
        noise = stacks.centred(np.sqrt(ratio) * rng.standard_normal(true.shape))
        kept = np.mean(true**2) / (np.mean(true**2) + np.mean(noise**2))
        kept = max(float(kept), 0.01)
        std = np.sqrt(kept * np.mean(noise**2))
        return true + noise, kept * (true + noise), np.full(true.shape, std)

    monkeypatch.setattr(stacks, "calibration_stack", scene)
    monkeypatch.setattr(stacks, "seen_by", seen)
    made = stacks.calibrated(network(1.0), count=20)
    assert made.config.recovery == pytest.approx(1, abs=0.05)


def test_calibration_finds_the_factors_that_make_68_percent_hold(monkeypatch) -> None:
    """Errors whose true spread is known for every stack, stated as one everywhere."""

    def course(number: int) -> tuple[float, float]:
        found = (0.7, 1.2, 2.0, 4.0, 8.0)[number % 5]
        return found, np.exp(np.interp(np.log(found), np.log(FOUND), np.log(FACTORS)))

    def scene(number: int, side: int) -> SimpleNamespace:
        truth = xr.Dataset(
            {"displacement": (("time", "y", "x"), np.zeros((8, 40, 40)))}
        )
        return SimpleNamespace(truth=truth, number=number)

    def seen(model: StackNetwork, drawn: SimpleNamespace) -> tuple[np.ndarray, ...]:
        assert model.config.std_factor == 1.0
        found, spread = course(drawn.number)
        rng = np.random.default_rng(drawn.number)
        error = spread * rng.standard_normal((8, 40, 40))
        # What is found is the rms of the estimate over the standard deviation: with
        # a truth of zero, the standard deviation tells it.
        std = np.full(error.shape, spread / found)
        error[0, 0] = np.nan
        return error, error, std

    monkeypatch.setattr(stacks, "calibration_stack", scene)
    monkeypatch.setattr(stacks, "seen_by", seen)
    monkeypatch.setattr(stacks, "WEAK", 0.0)
    before = network(1.0)
    made = stacks.calibrated(before, count=20)
    assert before.config.std_factor == 1.0
    # The interval must grow from spread / found to the spread: by what is found.
    np.testing.assert_allclose(made.config.std_factor, FOUND, rtol=0.05)


def test_calibration_stacks_are_of_the_validation_split_and_of_all_cases() -> None:
    drawn = [stacks.calibration_stack(k, 16) for k in range(5)]
    for case, scene in zip(stacks.CASES, drawn, strict=True):
        assert 12 <= scene.truth.sizes["time"] <= 40
        told = scene.truth.attrs
        assert told["seed"].startswith(f"[{SPLITS['validation']}, ")
        if case is None:
            assert not scene.truth["displacement"].any()
        else:
            assert 10.0**case <= told["snr"] * 1.0001 <= 10.0 ** (case + 1) * 1.001
    xr.testing.assert_identical(drawn[1].cube, stacks.calibration_stack(1, 16).cube)
