"""Real noise: of its split alone, and turned as said."""

from itertools import product

import numpy as np
import pytest
import xarray as xr

from cube_denoise.conventions import phase_to_displacement, years_since
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.residual_fields import residual_fields
from cube_denoise.simulate.scene import simulate_scene
from cube_denoise.simulate.seeds import SPLITS, dates_of_split
from cube_denoise.simulate.transplant import transplant_pair

KINDS = ("short-pairs", "residual")
SCENE = simulate_scene(size=48, dates=20, gaps=0.05, seed=2)
TIMES = SCENE.truth["time"].values.astype("datetime64[s]")


def stack_of(dates, times, max_days=40.0):
    """Cube whose pairs are differences of known phases (dates, rows, columns), rad."""
    days = (times - times[0]) / np.timedelta64(1, "D")
    i, j = np.nonzero(np.triu(days - days[:, None] <= max_days, 1))
    cube = SCENE.cube.isel(
        pair=slice(0, 1), y=slice(dates.shape[1]), x=slice(dates.shape[2])
    )
    return xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), dates[j] - dates[i])},
        coords={n: cube[n] for n in ("y", "x", "spatial_ref")}
        | {"reference_time": ("pair", times[i]), "secondary_time": ("pair", times[j])},
        attrs={"wavelength": 0.05},
    )


def every(days, count):
    start = np.datetime64("2020-01-01T06:00:00", "s")
    return start + np.arange(count) * np.timedelta64(days, "D")


# --- splits ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 13, 100])
def test_splits_divide_the_dates(count):
    times = every(12, count)
    parts = [dates_of_split(times, split) for split in SPLITS]
    np.testing.assert_array_equal(np.concatenate(parts), times)
    np.testing.assert_array_equal(dates_of_split(times[::-1], None), times)


def test_growth_moves_no_date_from_training_to_the_tests():
    times = every(12, 60)
    for old in range(2, 60):
        trained = dates_of_split(times[:old], "train")
        for new in range(old, 60):
            tested = dates_of_split(times[:new], "test")
            assert not np.isin(trained, tested).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [*SPLITS, None])
def test_other_dates_do_not_matter(kind, split):
    """A bank is the same whatever the pairs with dates of other splits hold."""
    mine = dates_of_split(TIMES, split)
    cube = SCENE.cube.copy(deep=True)
    ends = [cube[n].values.astype("datetime64[s]") for n in ("reference_time",)]
    ends.append(cube["secondary_time"].values.astype("datetime64[s]"))
    foreign = ~(np.isin(ends[0], mine) & np.isin(ends[1], mine))
    assert foreign.any() == (split is not None)
    cube["unwrapped_phase"].values[foreign] = 1e3
    cube["coherence"].values[foreign] = 0
    one, other = (
        NoiseBank.from_cube(c, kind=kind, split=split) for c in (SCENE.cube, cube)
    )
    np.testing.assert_array_equal(one.fields, other.fields)
    np.testing.assert_array_equal(one.coherence, other.coherence)
    assert np.isin(one.dates, mine).all()
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert np.isin(one.draw((24, 24), rng).dates, mine).all()


def test_samples_of_a_split_take_no_other_bank():
    banks = {s: NoiseBank.from_cube(SCENE.cube, split=s) for s in [*SPLITS, None]}
    for split in SPLITS:
        banks[split].check_split(split)
        for other in set(SPLITS) - {split}:
            with pytest.raises(ValueError, match=f"noise is of split {other}"):
                banks[other].check_split(split)
    banks[None].check_split("train")
    with pytest.raises(ValueError, match="noise is of split None"):
        banks[None].check_split("test")


# --- what the fields are ---------------------------------------------------------


def test_short_pairs_are_the_pairs():
    bank = NoiseBank.from_cube(SCENE.cube, split=None, max_days=12)
    assert len(bank.fields) == 19 and (np.diff(bank.dates)[:, 0].astype(int) > 0).all()
    for field, (early, late) in zip(bank.fields, bank.dates, strict=True):
        pair = SCENE.cube["unwrapped_phase"].values[
            (SCENE.cube["reference_time"] == early)
            & (SCENE.cube["secondary_time"] == late)
        ][0]
        wavelength = SCENE.cube.attrs["wavelength"]
        np.testing.assert_allclose(
            field, phase_to_displacement(pair, wavelength), rtol=1e-6
        )


def test_seconds_beside_whole_days_do_not_count():
    times = every(12, 6) + np.arange(6).astype("timedelta64[s]")
    cube = stack_of(np.random.default_rng(0).normal(size=(6, 8, 8)), times, 12.1)
    with pytest.warns(UserWarning, match="no elevation"):
        bank = NoiseBank.from_cube(cube, split=None, max_days=12)
    assert len(bank.fields) == 5


def expected_residual(dates, times, columns=0):
    """Studentised residuals by one LAPACK call; mean of each date removed."""
    t = years_since(times, times[0])
    design = [np.ones_like(t), t, np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)]
    G = np.stack(design[: 2 + columns], 1)
    moved = phase_to_displacement(dates.reshape(len(t), -1), 0.05)
    residual = moved - G @ np.linalg.lstsq(G, moved, rcond=None)[0]
    leverage = np.diag(G @ np.linalg.inv(G.T @ G) @ G.T)
    residual = (residual / np.sqrt(1 - leverage)[:, None]).reshape(dates.shape)
    return residual - residual.mean((1, 2), keepdims=True)


@pytest.mark.parametrize("seasonal", [False, True])
def test_residual_fields_are_those_of_least_squares(seasonal):
    times = every(30, 20)
    dates = np.random.default_rng(1).normal(size=(20, 10, 12))
    fields, found = residual_fields(stack_of(dates, times), seasonal=seasonal)
    np.testing.assert_array_equal(found, times)
    expected = expected_residual(dates, times, 2 * seasonal)
    np.testing.assert_allclose(fields, expected, atol=1e-7)


def test_steady_and_seasonal_motion_leave_no_trace():
    times = every(30, 20)
    t = years_since(times, times[0])[:, None, None]
    rng = np.random.default_rng(1)
    dates = rng.normal(size=(20, 10, 12))
    rate, cycle = rng.normal(size=(2, 10, 12)) * 30
    plain = residual_fields(stack_of(dates, times))[0]
    moving = residual_fields(stack_of(dates + rate * t, times))[0]
    np.testing.assert_allclose(moving, plain, atol=1e-6)
    seasonal = dates + rate * t + cycle * np.cos(2 * np.pi * t + 1)
    options = {"seasonal": True}
    plain = residual_fields(stack_of(dates, times), **options)[0]
    moving = residual_fields(stack_of(seasonal, times), **options)[0]
    np.testing.assert_allclose(moving, plain, atol=1e-6)


def test_residual_fields_have_the_variance_of_the_dates():
    """First and last date too, of which the fit takes most; noise of 1 rad."""
    times = every(12, 8)
    dates = np.random.default_rng(3).normal(size=(8, 40, 40))
    fields, _ = residual_fields(stack_of(dates, times))
    std = fields.std((1, 2)) / abs(phase_to_displacement(1.0, 0.05))
    np.testing.assert_allclose(std, 1, atol=0.06)


def test_residual_fields_of_a_scene_are_its_delays():
    """With decorrelation and gaps, delay as motion away."""
    bank = NoiseBank.from_cube(SCENE.cube, kind="residual", split=None)
    phase = 4 * np.pi / 0.05 * SCENE.truth["delay"].values.astype("float64")
    expected = expected_residual(phase, TIMES)
    there = np.isfinite(bank.fields)
    assert there.mean() > 0.95
    assert np.corrcoef(bank.fields[there], expected[there])[0, 1] > 0.995
    error = (bank.fields - expected)[there]
    assert error.std() < 0.1 * expected.std()


def test_dates_without_a_link_are_missing_there_alone():
    times = every(12, 8)
    cube = stack_of(np.random.default_rng(4).normal(size=(8, 6, 6)), times)
    last = cube["secondary_time"].values == times[-1].astype("datetime64[ns]")
    cube["unwrapped_phase"].values[last, :2] = np.nan
    fields, _ = residual_fields(cube)
    assert np.isnan(fields[-1, :2]).all()
    assert np.isfinite(fields[:-1]).all() and np.isfinite(fields[:, 2:]).all()


# --- draws -----------------------------------------------------------------------


def coded_bank(kind="residual", count=6, shape=(20, 26)):
    """Field k is k + 1 times the elevation: a draw tells how it was turned."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    elevation = (2.0 * y + 7.0 * x).astype("float32")
    factor = np.arange(1.0, count + 1, dtype="float32")[:, None, None]
    dates = every(12, 2 * count).reshape(count, 2)
    return NoiseBank(
        kind,
        "train",
        factor * elevation,
        dates if kind == "short-pairs" else dates[:, :1],
        elevation,
        0.1 + 0 * elevation,
        (90.0, 110.0),
        0.05,
    )


def slopes(elevation):
    """Rise per row and per column: each of the eight orientations has its own."""
    return (
        round(float(elevation[1, 0] - elevation[0, 0])),
        round(float(elevation[0, 1] - elevation[0, 0])),
    )


def test_draws_are_crops_turned_mirrored_and_flipped():
    bank = coded_bank("short-pairs")
    rng = np.random.default_rng(0)
    seen, signs = set(), set()
    for _ in range(300):
        one = bank.draw((12, 9), rng)
        assert one.displacement.shape == one.elevation.shape == (12, 9)
        factor = 1 + int(np.flatnonzero((bank.dates == one.dates).all(1))[0])
        relief = one.elevation - one.elevation.mean()
        sign = np.sign((one.displacement * relief).sum())
        np.testing.assert_allclose(one.displacement, sign * factor * relief, atol=1e-3)
        assert np.median(one.elevation) == pytest.approx(0, abs=1e-6)
        seen.add(slopes(one.elevation))
        signs.add((factor, float(sign)))
        # Columns of the scene are 110 m apart; turned, they are rows.
        steep_rows = abs(slopes(one.elevation)[0]) == 7
        assert one.spacing == ((110.0, 90.0) if steep_rows else (90.0, 110.0))
    assert seen == {
        (a, b) for a, b in product((-7, -2, 2, 7), repeat=2) if a**2 != b**2
    }
    assert len(signs) == 2 * len(bank.fields)


def test_series_have_one_crop_and_signs_of_their_own():
    bank = coded_bank()
    rng = np.random.default_rng(0)
    orders, signs = set(), set()
    for _ in range(120):
        one = bank.draw_series(4, (8, 8), rng)
        assert len(set(one.dates)) == 4
        relief = one.elevation - one.elevation.mean()
        found = []
        for field, date in zip(one.displacement, one.dates, strict=True):
            factor = 1 + int(np.flatnonzero(bank.dates[:, 0] == date)[0])
            sign = np.sign((field * relief).sum())
            np.testing.assert_allclose(field, sign * factor * relief, atol=1e-3)
            found.append(float(sign))
        orders.add(tuple(one.dates))
        signs.add(tuple(found))
    assert len(orders) > 90 and len(signs) == 16


def test_pair_of_residual_fields_is_a_difference():
    bank = coded_bank()
    one = bank.draw((8, 8), np.random.default_rng(1))
    factors = [1 + int(np.flatnonzero(bank.dates[:, 0] == d)[0]) for d in one.dates]
    relief = one.elevation - one.elevation.mean()
    slope = (one.displacement * relief).sum() / (relief**2).sum()
    possible = [a * factors[1] - b * factors[0] for a in (-1, 1) for b in (-1, 1)]
    assert min(abs(slope - p) for p in possible) < 1e-4
    np.testing.assert_allclose(one.displacement, slope * relief, atol=1e-3)


def test_oblong_crops_turn_only_where_they_fit():
    bank = coded_bank("short-pairs", shape=(12, 26))
    rng = np.random.default_rng(0)
    for shape in ((12, 26), (26, 12), (10, 20)):
        for _ in range(20):
            assert bank.draw(shape, rng).displacement.shape == shape


def test_gaps_come_along_and_emptier_crops_are_passed_over():
    bank = coded_bank("short-pairs")
    bank.fields[:, :, :10] = np.nan
    rng = np.random.default_rng(0)
    missing = [np.isnan(bank.draw((8, 8), rng).displacement).mean() for _ in range(100)]
    assert 0.3 < max(missing) <= 0.5
    bank.fields[:, :, :24] = np.nan
    with pytest.raises(ValueError, match="more than half empty"):
        bank.draw((8, 8), rng)


def test_same_generator_same_draw():
    bank = NoiseBank.from_cube(SCENE.cube)
    one, same, other = (
        bank.draw((30, 20), np.random.default_rng(k)) for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.displacement, same.displacement)
    assert not np.array_equal(one.displacement, other.displacement, equal_nan=True)


# --- transplant ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_transplanted_pair_is_deformation_on_a_draw(kind):
    bank = NoiseBank.from_cube(SCENE.cube, kind=kind)
    for snr in (0.01, 1.0):
        pair = transplant_pair(bank, (32, 32), seed=5, snr=snr, deforming=True)
        there = np.isfinite(pair.noisy)
        noise = (pair.noisy - pair.truth)[there]
        assert abs(noise.mean()) < 1e-6
        ratio = pair.truth[there].var() / noise.var()
        assert ratio == pytest.approx(pair.snr, rel=1e-3)
        assert pair.snr == pytest.approx(snr, rel=1e-3)
    quiet = transplant_pair(bank, (32, 32), seed=5, deforming=False)
    np.testing.assert_allclose(quiet.noisy[there], noise, atol=1e-7)
    assert not quiet.truth.any() and quiet.snr == 0
    assert np.isfinite(pair.coherence).all() and np.isfinite(pair.elevation).all()


# --- bad input -------------------------------------------------------------------


def test_bad_cubes():
    cube = SCENE.cube
    for options, message in (
        ({"kind": "era5"}, "kind='era5'"),
        ({"split": "exam"}, "split='exam'"),
        ({"max_days": 6}, "no pair of at most 6 days lies within the train split"),
    ):
        with pytest.raises(ValueError, match=message):
            NoiseBank.from_cube(cube, **options)
    with pytest.raises(ValueError, match="wavelength=None"):
        NoiseBank.from_cube(cube.assign_attrs(wavelength=None))
    with pytest.raises(ValueError, match="coordinate reference system"):
        NoiseBank.from_cube(
            cube.drop_vars("spatial_ref").drop_attrs().assign_attrs(wavelength=0.05)
        )
    empty = cube.assign(unwrapped_phase=cube["unwrapped_phase"] * np.nan)
    with pytest.raises(ValueError, match=r"0 field\(s\) of the train split"):
        NoiseBank.from_cube(empty)
    few = cube.isel(pair=cube["secondary_time"].values <= TIMES[4])
    with pytest.raises(ValueError, match="the pairs link 3 dates"):
        NoiseBank.from_cube(few, kind="residual")
    with pytest.raises(ValueError, match="needs a year of dates"):
        NoiseBank.from_cube(cube, kind="residual", seasonal=True)


def test_networks_that_fall_apart_are_told():
    times = np.concatenate([every(12, 6), every(12, 4) + np.timedelta64(900, "D")])
    cube = stack_of(np.random.default_rng(4).normal(size=(10, 6, 6)), times)
    with pytest.warns(UserWarning, match="fall apart into 2 networks: the 6 dates"):
        fields, found = residual_fields(cube)
    assert len(fields) == 6
    np.testing.assert_array_equal(found, times[:6])


def test_bad_draws():
    rng = np.random.default_rng(0)
    pairs, dates = coded_bank("short-pairs"), coded_bank()
    with pytest.raises(ValueError, match=r"shape=\(64, 64\) is larger than the scene"):
        pairs.draw((64, 64), rng)
    with pytest.raises(ValueError, match="a series needs a bank of 'residual'"):
        pairs.draw_series(3, (8, 8), rng)
    with pytest.raises(ValueError, match="dates=9: the bank has 6 fields of the train"):
        dates.draw_series(9, (8, 8), rng)
