"""Held-out-date error: against brute force, closed forms, and those who would cheat."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.conventions import SENTINEL1_WAVELENGTH, displacement_to_phase
from cube_denoise.evaluate.held_out import (
    DERIVED,
    held_out_dates,
    local_linear,
    uncorrected,
)
from cube_denoise.network import connected_subsets
from cube_denoise.simulate import simulate_scene

REFERENCE = {"y": slice(0, 8), "x": slice(0, 8)}


def cube_of(displacement, *, days=None, reach=3, pairs=None):
    """Pairs (m -> rad) of every date with the next `reach`."""
    count = len(displacement)
    days = 12 * np.arange(count) if days is None else np.asarray(days)
    times = np.datetime64("2020-01-01", "ns") + days * np.timedelta64(1, "D")
    if pairs is None:
        pairs = [
            (i, j)
            for i in range(count)
            for j in range(i + 1, min(i + 1 + reach, count))
        ]
    first, second = np.array(pairs).T
    phase = displacement_to_phase(
        displacement[second] - displacement[first], SENTINEL1_WAVELENGTH
    )
    return xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), phase)},
        coords={
            "reference_time": ("pair", times[first]),
            "secondary_time": ("pair", times[second]),
        },
        attrs={"wavelength": SENTINEL1_WAVELENGTH},
    )


def zero(cube):
    return cube.assign(corrected_phase=0 * cube.unwrapped_phase)


def truth_of(displacement, times):
    """The correction that knows the ground."""

    def correct(cube):
        first, second = (
            np.searchsorted(times, cube[name].values.astype("datetime64[s]"))
            for name in ("reference_time", "secondary_time")
        )
        phase = displacement_to_phase(
            displacement[second] - displacement[first], SENTINEL1_WAVELENGTH
        )
        return cube.assign(corrected_phase=(("pair", "y", "x"), phase))

    return correct


def spy(seen):
    """Correct nothing, and keep what was given."""

    def correct(cube):
        seen.append(cube)
        return uncorrected(cube)

    return correct


def dates_of(cube):
    return np.union1d(cube.reference_time.values, cube.secondary_time.values)


@pytest.fixture(scope="module")
def scenes():
    return {
        rate: simulate_scene(size=64, dates=16, rate=rate, gaps=0.02, seed=3)
        for rate in (0.0, 0.2)
    }


def test_ranking_where_the_ground_moves(scenes):
    scene = scenes[0.2]
    truth = truth_of(
        scene.truth.displacement.values,
        scene.truth.time.values.astype("datetime64[s]"),
    )
    raw, best, none = (
        held_out_dates(scene.cube, method) for method in (uncorrected, truth, zero)
    )
    assert none.ratio == 1 and none.error == none.motion
    assert best.ratio < 0.95 * raw.ratio < 0.95
    assert raw.motion == best.motion == none.motion
    # Half the motion kept: between all and none, as an attenuating method deserves.
    halved = held_out_dates(
        scene.cube,
        lambda c: c.assign(corrected_phase=truth(c).corrected_phase / 2),
    )
    assert best.ratio < halved.ratio < 1


def test_ranking_on_pure_noise(scenes):
    scene = scenes[0.0]
    raw, none = (held_out_dates(scene.cube, m) for m in (uncorrected, zero))
    assert none.ratio == 1 and raw.ratio > 1.05


def test_equals_brute_force():
    """Noise-free pairs: the series are the dates, the rest is arithmetic."""
    generator = np.random.default_rng(1)
    days = np.cumsum(generator.integers(6, 40, 14))
    rate = generator.normal(size=(10, 12))
    dates = 1e-3 * (
        days[:, None, None] / 20 * rate + generator.normal(size=(14, 10, 12))
    )
    cube = cube_of(dates, days=days)
    seen = []
    found = held_out_dates(cube, spy(seen), reference=REFERENCE, seed=4)
    times = cube.reference_time.values.min() + (days - days[0]) * np.timedelta64(1, "D")
    h = 3 * (days[-1] - days[0]) / 13
    error, motion = np.full(14, np.nan), np.full(14, np.nan)
    for given in seen:
        visible = np.isin(times, dates_of(given))
        for k in np.flatnonzero(~visible):
            root = np.exp(-0.25 * ((days[visible] - days[k]) / h) ** 2)
            line = np.polyfit(
                days[visible] - days[k], dates[visible].reshape(-1, 120), 1, w=root
            )
            mean = dates[visible].mean(0).ravel()
            f, x = line[1] - mean, dates[k].ravel() - mean
            f, x = f - f.mean(), x - x.mean()
            error[k], motion[k] = np.sum((f - x) ** 2), np.sum(x**2)
    hidden = np.isfinite(error)
    assert hidden.sum() == 12
    assert found.ratio == pytest.approx(
        error[hidden].sum() / motion[hidden].sum(), 1e-4
    )
    np.testing.assert_allclose(
        found.dates.ratio, error[hidden] / motion[hidden], rtol=1e-3
    )
    np.testing.assert_array_equal(found.dates.time, times[hidden])
    np.testing.assert_allclose(
        found.dates.error, 1e3 * np.sqrt(error[hidden] / 120), rtol=1e-3
    )
    assert found.motion == pytest.approx(
        1e3 * np.sqrt(motion[hidden].mean() / 120), 1e-4
    )


def test_floor_and_noise_gain_are_as_stated():
    """White dates: raw (1 + sum w^2) / (1 + 1/V), perfection 1; with ramps in time,
    perfection var(a) (1 + 1/V) over that plus the motion."""
    generator = np.random.default_rng(2)
    count, days = 16, 12.0 * np.arange(16)
    noise = generator.normal(0, 1e-3, (count, 60, 60))
    raw = held_out_dates(cube_of(noise), uncorrected, folds=14, reference=REFERENCE)
    gain = []
    for k in range(1, count - 1):  # 14 folds: every date is hidden alone
        offset = np.delete(days, k) - days[k]
        kernel = np.exp(-0.5 * (offset / 36) ** 2)
        moments = [(kernel * offset**n).sum() for n in range(3)]
        w = kernel * (moments[2] - moments[1] * offset)
        gain.append(np.sum((w / w.sum()) ** 2))
    expected = (1 + np.mean(gain)) / (1 + 1 / 15)
    assert raw.ratio == pytest.approx(expected, rel=0.02)

    rate = generator.normal(0, 1e-3 / 60, (60, 60))
    ground = days[:, None, None] * rate
    times = np.unique(cube_of(noise).reference_time.values).astype("datetime64[s]")
    times = np.append(times, times[-1] + np.timedelta64(12, "D"))
    perfect = held_out_dates(
        cube_of(ground + noise), truth_of(ground, times), folds=14, reference=REFERENCE
    )
    floor = 1e-6 * (1 + 1 / 15)
    motion = [
        rate.var() * (np.delete(days, k).mean() - days[k]) ** 2 for k in range(1, 15)
    ]
    assert perfect.ratio == pytest.approx(floor / (floor + np.mean(motion)), rel=0.03)
    assert perfect.error == pytest.approx(1e3 * floor**0.5, rel=0.02)


def test_methods_see_visible_pairs_only(scenes):
    cube = scenes[0.2].cube
    derived = dict.fromkeys(DERIVED, cube.unwrapped_phase)
    seen = []
    found = held_out_dates(cube.assign(derived), spy(seen), seed=1)
    assert len(seen) == 5
    hidden = [np.setdiff1d(dates_of(cube), dates_of(given)) for given in seen]
    every = np.sort(np.concatenate(hidden))
    np.testing.assert_array_equal(every, found.dates.time.values)
    np.testing.assert_array_equal(every, dates_of(cube)[1:-1])
    np.testing.assert_array_equal(found.kept, dates_of(cube)[[0, -1]])
    for given, out in zip(seen, hidden, strict=True):
        assert not set(DERIVED) & set(given.variables)
        assert not np.isin(dates_of(given), out).any()
        (rest,) = connected_subsets(given.reference_time, given.secondary_time)
        assert rest.size == 16 - out.size


def test_a_smoother_of_all_dates_gains_nothing(scenes):
    """What it made of the hidden dates beforehand is not there for it to return."""
    cube = scenes[0.0].cube
    loud = cube.assign(unwrapped_phase=cube.unwrapped_phase.copy())
    date = dates_of(cube)[7]
    touches = (cube.reference_time == date) | (cube.secondary_time == date)
    loud.unwrapped_phase[touches.values] += np.linspace(0, 50, 64)[:, None]
    cheat = loud.unwrapped_phase * 0.9

    def remembered(given):
        return given if "corrected_phase" in given else uncorrected(given)

    plain, quiet = [], []
    loud_score = held_out_dates(loud, spy(plain), reference=REFERENCE)
    held_out_dates(cube, spy(quiet), reference=REFERENCE)
    cheated = held_out_dates(
        loud.assign(corrected_phase=cheat), remembered, reference=REFERENCE
    )
    assert cheated.ratio == loud_score.ratio
    # In the fold that hides it, the date has no influence at all.
    (pair,) = [
        (a, b) for a, b in zip(plain, quiet, strict=True) if date not in dates_of(a)
    ]
    xr.testing.assert_identical(*pair)


def test_dates_that_hold_the_network_together_stay():
    noise = np.random.default_rng(5).normal(0, 1e-3, (7, 12, 12))
    # Two triangles and more that meet in date 3 alone.
    pairs = [(0, 1), (1, 2), (0, 2), (1, 3), (2, 3), (0, 3), (3, 4), (4, 5), (3, 5)]
    pairs += [(4, 6), (5, 6), (3, 6)]
    cube = cube_of(noise, pairs=pairs)
    seen = []
    found = held_out_dates(cube, spy(seen), folds=2, reference=REFERENCE)
    dates = dates_of(cube)
    np.testing.assert_array_equal(found.kept, dates[[0, 3, 6]])
    assert {d for s in seen for d in np.setdiff1d(dates, dates_of(s))} == {
        *dates[[1, 2, 4, 5]]
    }
    for given in seen:
        assert len(connected_subsets(given.reference_time, given.secondary_time)) == 1
    with pytest.raises(ValueError, match="no date of the 7 can be hidden"):
        held_out_dates(
            cube_of(noise, pairs=[(k, k + 1) for k in range(6)]), uncorrected
        )


def test_seed_decides(scenes):
    cube = scenes[0.0].cube
    one, again, other = (held_out_dates(cube, uncorrected, seed=s) for s in (0, 0, 1))
    assert one.ratio == again.ratio != other.ratio
    xr.testing.assert_identical(one.dates, again.dates)
    # Another split of the dates, much the same verdict.
    assert one.ratio == pytest.approx(other.ratio, rel=0.1)


def test_constants_of_pairs_and_gaps_do_not_matter():
    generator = np.random.default_rng(6)
    dates = np.linspace(0, 0.05, 10)[:, None, None] * generator.normal(size=(20, 20))
    dates += generator.normal(0, 2e-3, (10, 20, 20))
    cube = cube_of(dates)
    plain = held_out_dates(cube, uncorrected, reference=REFERENCE)
    constant = xr.DataArray(generator.normal(0, 30, cube.sizes["pair"]), dims="pair")
    phase = cube.unwrapped_phase + constant
    moved = held_out_dates(
        cube.assign(unwrapped_phase=phase), uncorrected, reference=REFERENCE
    )
    assert moved.ratio == pytest.approx(plain.ratio, rel=1e-4)
    phase[0, 10:] = np.nan  # a pair that others stand in for
    phase[:, 19] = np.nan
    gappy = held_out_dates(
        cube.assign(unwrapped_phase=phase), uncorrected, reference=REFERENCE
    )
    assert (gappy.dates.pixels == 1).all()
    assert gappy.ratio == pytest.approx(plain.ratio, rel=0.1)

    def drops(given):
        phase = given.unwrapped_phase.copy()
        phase[:, 15:] = np.nan
        return given.assign(corrected_phase=phase)

    dropped = held_out_dates(cube, drops, reference=REFERENCE)
    np.testing.assert_allclose(dropped.dates.pixels, 0.75)


def test_local_linear_is_a_weighted_line():
    generator = np.random.default_rng(7)
    offset = np.sort(generator.uniform(-200, 200, 12))
    values = generator.normal(size=(12, 6))
    values[generator.random(values.shape) < 0.3] = np.nan
    values[:, 4] = np.nan
    values[1:, 5] = np.nan  # one date does not make a line
    found = local_linear(values, offset, 60.0)
    root = np.exp(-0.25 * (offset / 60) ** 2)
    for k in range(4):
        ok = np.isfinite(values[:, k])
        line = np.polyfit(offset[ok], values[ok, k], 1, w=root[ok])
        assert found[k] == pytest.approx(line[1])
    assert np.isnan(found[4:]).all()
    # Far from all dates the nearest ones still carry it, to the end of the weights.
    far = local_linear(np.array([[3.0], [2.0]]), np.array([500.0, 600.0]), 60.0)
    assert far == pytest.approx(8.0)
    assert np.isnan(local_linear(np.ones((2, 1)), np.array([0.0, 6000.0]), 60.0))


def test_bad_input_is_named():
    cube = cube_of(np.random.default_rng(8).normal(0, 1e-3, (6, 8, 8)))
    with pytest.raises(ValueError, match="folds=1"):
        held_out_dates(cube, uncorrected, folds=1)
    with pytest.raises(ValueError, match="bandwidth_days=0"):
        held_out_dates(cube, uncorrected, bandwidth_days=0)
    with pytest.raises(ValueError, match="must return corrected_phase"):
        held_out_dates(cube, lambda c: c)
    with pytest.raises(ValueError, match="other pairs"):
        held_out_dates(cube, lambda c: uncorrected(c).isel(pair=slice(1, None)))
    with pytest.raises(ValueError, match="other pairs"):
        held_out_dates(cube, lambda c: uncorrected(c).isel(pair=slice(None, None, -1)))
    apart = cube_of(np.zeros((6, 8, 8)), pairs=[(0, 1), (1, 2), (3, 4), (4, 5)])
    with pytest.raises(ValueError, match="2 parts, the largest of 3 of 6"):
        held_out_dates(apart, uncorrected)
