"""What the errors that a correction states add to the error of a velocity."""

import numpy as np
import pytest
import torch
import xarray as xr

from cube_denoise.conventions import displacement_to_phase, years_since
from cube_denoise.correct import correct
from cube_denoise.correction_errors import StatedErrors, propagated
from cube_denoise.invert import invert
from cube_denoise.models.stack import FOUND, StackConfig, StackNetwork
from cube_denoise.reference import choose_reference
from cube_denoise.simulate import simulate_stack
from cube_denoise.time_models import Design, TimeModel
from cube_denoise.training import trend_share

WAVELENGTH = 0.056
AREA = {"y": slice(0, 2), "x": slice(0, 3)}


def some_dates(count: int) -> np.ndarray:
    days = np.cumsum(np.random.default_rng(0).choice([6, 12, 24], count))
    return np.datetime64("2020-01-01", "s") + days * 86400


def dense(
    there: np.ndarray, design: Design, std: np.ndarray, share: float
) -> tuple[float, float]:
    """Variance of the rate and expected squared residuals, by matrices."""
    G, t, s = design.matrix[there], design.years[there], std[there]
    g = design.rate @ np.linalg.pinv(G)
    P = np.eye(t.size) - G @ np.linalg.pinv(G)
    u = s * np.sign(t - t.mean())
    S = (1 - share) * np.diag(s**2) + share * np.outer(u, u)
    return float(g @ S @ g), float(np.trace(P @ S))


@pytest.mark.parametrize("model", ["linear", "linear+annual+step:2020-06-01"])
def test_terms_are_those_of_the_covariance(model: str):
    rng = np.random.default_rng(1)
    design = TimeModel.parse(model).design(some_dates(30))
    there = rng.random((30, 40)) < 0.8
    std, own = rng.uniform(0.001, 0.02, (30, 40)), rng.uniform(0, 1, 40)
    std[~there] = np.nan
    area, part = rng.uniform(0.001, 0.01, (30, 1)), np.asarray(0.3)
    found = propagated(there, design, (std, own), (area, part))
    for k in range(40):
        pixel = dense(there[:, k], design, np.nan_to_num(std[:, k]), own[k])
        reference = dense(there[:, k], design, area[:, 0], 0.3)
        expected = np.add(pixel, reference)
        np.testing.assert_allclose([a[k] for a in found], expected, rtol=1e-9)
        alone = propagated(
            there[:, k : k + 1], design, (std[:, k : k + 1], own[k : k + 1])
        )
        beside = propagated(there, design, (std, own))
        assert [a[0] for a in alone] == [a[k] for a in beside]


def test_what_the_parts_mean():
    """A trend of which all errors are is that of the rate; none: independent dates."""
    design = TimeModel.parse("linear").design(some_dates(40))
    t = design.years
    spread, there = ((t - t.mean()) ** 2).sum(), np.ones((40, 1), bool)
    std = np.full((40, 1), 0.01)
    grows = 0.02 * np.abs(t - t.mean())[:, None]
    rate, scatter = propagated(there, design, (grows, np.ones(1)))
    assert np.sqrt(rate[0]) == pytest.approx(0.02)
    assert scatter[0] == pytest.approx(0, abs=1e-12)
    rate, scatter = propagated(there, design, (std, np.zeros(1)))
    assert rate[0] == pytest.approx(1e-4 / spread)
    assert scatter[0] == pytest.approx(1e-4 * 38)


@pytest.fixture
def corrected() -> xr.Dataset:
    """Straight lines without errors, of which a network states some, with gaps."""
    times = some_dates(12)
    years = years_since(times, times[0])
    rng = np.random.default_rng(2)
    rate = rng.uniform(-0.1, 0.1, (8, 70))
    pairs = [(i, i + k) for i in range(11) for k in (1, 2) if i + k < 12]
    first, second = np.array(pairs).T
    moved = rate * (years[second] - years[first])[:, None, None]
    dims, where = ("pair", "y", "x"), ("correction_time", "y", "x")
    told = {"method": "some", "model_sha256": "1"}
    phase = displacement_to_phase(moved, WAVELENGTH).astype("float32")
    phase[(first == 5) | (second == 5), 4:, 30:] = np.nan
    phase[2:5, :, 50] = np.nan
    std = rng.uniform(0.002, 0.01, (12, 8, 70)).astype("float32")
    share = rng.uniform(0, 1, (8, 70)).astype("float32")
    return xr.Dataset(
        {
            "corrected_phase": (dims, phase, told),
            "unwrapped_phase": (dims, phase),
            "correction_std": (where, std, told),
            "correction_trend_share": (("y", "x"), share, told),
        },
        coords={
            "reference_time": ("pair", times[first]),
            "secondary_time": ("pair", times[second]),
            "correction_time": times,
            "y": -np.arange(8.0),
            "x": np.arange(70.0),
        },
        attrs={"wavelength": WAVELENGTH},
    )


def plain(cube: xr.Dataset, **options: object) -> xr.Dataset:
    return invert(cube, weights="none", reference=AREA, **options).compute()


def test_velocity_std_holds_what_is_stated(corrected: xr.Dataset):
    found = plain(corrected)
    there = np.isfinite(found["displacement"].values)
    assert there.mean() < 1
    design = TimeModel.parse("linear").design(found["time"].values)
    std, share = (
        corrected[n].values.astype("float64")
        for n in ("correction_std", "correction_trend_share")
    )
    area, part = std[:, :2, :3].mean((1, 2)), share[:2, :3].mean()
    for y, x in [(0, 0), (7, 69), (6, 35), (2, 50)]:
        seen = there[:, y, x]
        own, _ = dense(seen, design, std[:, y, x], share[y, x])
        reference, _ = dense(seen, design, area, part)
        expected = np.sqrt(own + reference)
        assert found["velocity_std"].values[y, x] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(
        plain(corrected, block=16)["velocity_std"], found["velocity_std"]
    )


def test_what_was_stated_of_other_phases_is_left_out(corrected: xr.Dataset):
    without = plain(corrected.drop_vars("correction_std"))["velocity_std"]
    assert float(without.max()) < 1e-5 < float(plain(corrected)["velocity_std"].min())
    raw = plain(corrected, variable="unwrapped_phase")["velocity_std"]
    np.testing.assert_array_equal(raw, without)
    for key, value in (("method", "ramp"), ("model_sha256", "2")):
        other = corrected.copy()
        other["corrected_phase"] = corrected["corrected_phase"].assign_attrs(
            {key: value}
        )
        np.testing.assert_array_equal(plain(other)["velocity_std"], without)


def test_dates_without_a_statement_get_that_of_the_others(corrected: xr.Dataset):
    fewer = corrected.isel(correction_time=np.arange(12) != 4)
    found = plain(fewer)["velocity_std"].values
    std = corrected["correction_std"].values.astype("float64")
    std[4] = np.sqrt((np.delete(std, 4, 0) ** 2).mean(0))
    filled = corrected.copy()
    filled["correction_std"] = corrected["correction_std"].copy(data=std)
    np.testing.assert_allclose(found, plain(filled)["velocity_std"], rtol=1e-2)
    assert (found > 0).all()


def test_the_network_tells_its_part_by_what_it_finds():
    shares = (0.2, 0.6, 0.1)
    network = StackNetwork(StackConfig(channels=(4, 8), heads=2, trend_share=shares))
    std, visible = torch.ones(1, 5, 8, 8), torch.ones(1, 5, 8, 8, dtype=torch.bool)
    middle = float(np.sqrt(FOUND[0] * FOUND[1]))
    for size, share in zip(
        (0.1, *FOUND, 50, middle), (0.2, *shares, 0.1, 0.4), strict=True
    ):
        told = network.trend_share(size * std, std, visible)
        assert told.shape == (1,) and float(told) == pytest.approx(share, abs=1e-6)
    assert StackConfig().trend_share == 1.0, "nothing known: all of it"


def test_parts_are_found_again():
    """Errors drawn with the parts of a network give these parts."""
    rng = np.random.default_rng(3)
    true = (0.3, 0.7, 0.1)
    sure = np.exp(rng.uniform(np.log(FOUND[0]), np.log(FOUND[2]), 60))
    own = np.interp(np.log(sure), np.log(FOUND), true)
    excess = [
        np.log(np.abs(rng.normal(size=4000)) + 1e-6)
        + 0.5 * (np.log(0.02 + q) - np.log(0.02 + trend_share.GRID))[:, None]
        for q in own
    ]
    cases = np.digitize(np.log(sure), np.log([1.2, 2.5, 5.0]))
    found = trend_share.fitted_share(sure, excess, cases)
    np.testing.assert_allclose(found, true, atol=0.08)


def test_excess_is_of_the_velocity_that_users_get():
    """With all errors a trend, of `invert` as it is; less where fewer are."""
    torch.manual_seed(0)
    network = StackNetwork(StackConfig(channels=(4, 8), heads=2)).eval()
    scene = simulate_stack(seed=5, shape=(40, 40), dates=12, snr=1.0)
    found = trend_share.rate_excess(network, scene, 0)
    assert found.shape == (trend_share.GRID.size, trend_share.SOME)
    area = choose_reference(scene.cube, variable="unwrapped_phase")
    made = scene.cube.assign(correct(scene.cube, network).compute().data_vars)
    got = invert(made, reference=area).compute()
    error = trend_share._missed(got, scene.truth, area)
    every = np.log(np.abs(error) / got["velocity_std"].values + 1e-6)
    assert np.isin(found[-1].astype("f4"), every.astype("f4")).all()


def test_statements_of_a_window_are_read_alone(corrected: xr.Dataset):
    errors = StatedErrors(np.arange(12), np.zeros(12), 0.0)
    design = TimeModel.parse("linear").design(corrected["correction_time"].values)
    window = {"y": slice(2, 5), "x": slice(10, 20)}
    part = errors.rate_terms(
        corrected.isel(window),
        {"y": slice(0, 3), "x": slice(0, 10)},
        np.zeros((12, 30)),
        design,
    )
    whole = errors.rate_terms(corrected, window, np.zeros((12, 30)), design)
    np.testing.assert_array_equal(part, whole)
