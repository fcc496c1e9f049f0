"""Whole stacks: everything per date, then differenced; truth that says what is true."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cube_denoise.conventions import VARIABLES, years_since
from cube_denoise.invert import invert
from cube_denoise.network import closure_triplets, triplet_closure
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.pair_errors import PairErrors
from cube_denoise.simulate.sensor import SENSORS
from cube_denoise.simulate.sources import HISTORY_SHARES, draw_history
from cube_denoise.simulate.stack import power, simulate_stack
from cube_denoise.simulate.stations import simulate_stations

CLEAN = PairErrors(looks=np.inf, unwrapping=0.0, gaps=0.0)
SMALL = {"shape": (48, 40), "dates": 6}
NOISY = simulate_stack(seed=5, pair_errors=PairErrors(unwrapping=0.0), **SMALL)
PLAIN = simulate_stack(seed=5, pair_errors=CLEAN, **SMALL)


def pair_dates(cube):
    return cube["reference_time"].values, cube["secondary_time"].values


def closure(cube):
    triplets = closure_triplets(*pair_dates(cube))
    assert len(triplets)
    phase = cube["unwrapped_phase"].values.astype("float64")
    return triplet_closure(phase, triplets)


def rebuilt(scene):
    """Phase of the pairs from the dates of the truth: delay, less motion; rad."""
    away = (scene.truth["delay"] - scene.truth["displacement"]).values.astype("float64")
    away = away * 4 * np.pi / scene.cube.attrs["wavelength"]
    first, second = (
        np.searchsorted(scene.truth["time"].values, d) for d in pair_dates(scene.cube)
    )
    return away[second] - away[first]


def test_pairs_without_errors_are_differences_of_dates():
    phase = PLAIN.cube["unwrapped_phase"].values
    np.testing.assert_allclose(phase, rebuilt(PLAIN), atol=1e-4)
    assert phase.std() > 0.5
    assert np.abs(closure(PLAIN.cube)).max() < 1e-4


@pytest.mark.parametrize("sensor", SENSORS)
def test_closure_holds_for_every_sensor(sensor):
    made = simulate_stack(seed=9, sensor=sensor, pair_errors=CLEAN, **SMALL)
    assert made.cube.attrs["wavelength"] == SENSORS[sensor].wavelength
    assert np.abs(closure(made.cube)).max() < 1e-4


def test_errors_of_pairs_are_decorrelation_of_their_coherence():
    left = NOISY.cube["unwrapped_phase"].values - rebuilt(NOISY)
    g = NOISY.cube["coherence"].values
    there = np.isfinite(left)
    np.testing.assert_array_equal(there, np.isfinite(g))
    std = np.sqrt((1 - g**2) / (2 * 40 * g**2))
    assert (left / std)[there].std() == pytest.approx(1, abs=0.05)
    assert 0.03 < 1 - there.mean() < 0.07


def test_pairs_that_share_a_date_share_its_noise():
    """In pairs (i, j) and (j, k) that of j has opposite signs: correlation -1/2."""
    products, squares = [], []
    for seed in range(6):
        made = simulate_stack(
            seed=seed, amplitude=0.0, terrain=0.0, pair_errors=CLEAN, **SMALL
        )
        phase = made.cube["unwrapped_phase"].values
        phase = phase - phase.mean((1, 2), keepdims=True)
        early, late = pair_dates(made.cube)
        for a in range(len(phase)):
            for b in np.flatnonzero(early == late[a]):
                products.append((phase[a] * phase[b]).mean())
                squares.append((phase[a] ** 2 + phase[b] ** 2).mean() / 2)
    assert -0.75 < np.sum(products) / np.sum(squares) < -0.3


def test_unwrapping_errors_are_whole_cycles_and_break_closure():
    errors = PairErrors(looks=np.inf, unwrapping=1.0, gaps=0.0)
    made = simulate_stack(seed=5, pair_errors=errors, **SMALL)
    cycles = closure(made.cube) / (2 * np.pi)
    np.testing.assert_allclose(cycles, np.rint(cycles), atol=1e-4)
    wrong = (made.cube["unwrapped_phase"] - PLAIN.cube["unwrapped_phase"]).values
    assert (np.abs(wrong).max((1, 2)) > 6).all()
    np.testing.assert_array_equal(made.truth["delay"], PLAIN.truth["delay"])


def test_truth_velocity_is_the_slope_of_the_truth():
    moved = NOISY.truth["displacement"].values.astype("float64")
    t = years_since(NOISY.truth["time"].values, NOISY.truth["time"].values[0])
    slope = np.polyfit(t, moved.reshape(len(t), -1), 1)[0].reshape(moved.shape[1:])
    np.testing.assert_allclose(NOISY.truth["velocity"], slope, atol=1e-6)
    assert (moved[0] == 0).all()


def test_inversion_of_clean_pairs_gives_back_the_truth():
    made = simulate_stack(seed=7, atmosphere=0.0, pair_errors=CLEAN, **SMALL)
    area = {"y": slice(0, 5), "x": slice(0, 5)}
    got = invert(made.cube, reference=area).compute()
    true = made.truth["displacement"]
    true = true - true.isel(area).mean(("y", "x"))
    np.testing.assert_allclose(got["displacement"], true, atol=2e-6)


def test_source_mask_is_where_motion_exceeds_a_tenth():
    largest = np.abs(NOISY.truth["displacement"].values).max(0)
    np.testing.assert_array_equal(
        NOISY.truth["source_mask"], largest > 0.1 * largest.max()
    )
    at_rest = simulate_stack(seed=5, amplitude=0.0, **SMALL).truth
    assert not at_rest["source_mask"].any() and not at_rest["displacement"].any()


def test_same_seed_same_stack():
    again = simulate_stack(seed=5, pair_errors=PairErrors(unwrapping=0.0), **SMALL)
    xr.testing.assert_identical(again.cube, NOISY.cube)
    xr.testing.assert_identical(again.truth, NOISY.truth)
    other = simulate_stack(seed=6, **SMALL)
    for name in ("delay", "displacement"):
        assert not np.allclose(other.truth[name], NOISY.truth[name])
    key = np.random.SeedSequence([1, 2, 3])
    one, same = (simulate_stack(seed=key, **SMALL) for _ in range(2))
    xr.testing.assert_identical(one.cube, same.cube)


def test_options_change_what_they_name_alone():
    louder = simulate_stack(seed=5, amplitude=0.5, **SMALL)
    xr.testing.assert_identical(louder.truth["delay"], NOISY.truth["delay"])
    xr.testing.assert_identical(louder.cube["coherence"], NOISY.cube["coherence"])
    errors = PairErrors(unwrapping=1.0)
    torn = simulate_stack(seed=5, pair_errors=errors, **SMALL).cube
    wrong = (torn["unwrapped_phase"] - NOISY.cube["unwrapped_phase"]).values
    np.testing.assert_array_equal(np.isnan(wrong), np.isnan(NOISY.cube["coherence"]))
    assert 0.85 < np.mean(np.nan_to_num(wrong) == 0) < 0.99
    stronger = simulate_stack(seed=5, atmosphere=2.0, **SMALL)
    np.testing.assert_allclose(
        stronger.truth["delay"], 2 * NOISY.truth["delay"], rtol=1e-6
    )
    xr.testing.assert_identical(
        stronger.truth["displacement"], NOISY.truth["displacement"]
    )


@pytest.mark.parametrize("amplitude", [0.002, 0.03])
def test_amplitude_is_the_peak(amplitude):
    made = simulate_stack(seed=8, amplitude=amplitude, **SMALL)
    peak = float(abs(made.truth["displacement"]).max())
    assert peak == pytest.approx(amplitude, rel=1e-5)
    assert made.truth.attrs["amplitude"] == pytest.approx(amplitude, rel=1e-5)


def test_amplitudes_are_log_uniform_from_two_millimetres():
    options = {"shape": (8, 8), "dates": 2, "pair_errors": CLEAN}
    peaks = [
        float(abs(simulate_stack(seed=k, **options).truth["displacement"]).max())
        for k in range(100)
    ]
    low, high = np.log10(0.002), np.log10(0.2)
    assert min(peaks) >= 0.00199 and max(peaks) <= 0.2001
    uniform = scipy.stats.uniform(low, high - low)
    assert scipy.stats.kstest(np.log10(peaks), uniform.cdf).pvalue > 0.01


@pytest.mark.parametrize("snr", [0.01, 0.3, 10.0])
def test_snr_got_is_the_snr_asked_for(snr):
    truth = simulate_stack(seed=8, snr=snr, **SMALL).truth
    powers = []
    for name in ("displacement", "delay"):
        field = truth[name].astype("float64")
        field = field - field.mean("time")
        field = field - field.mean(("y", "x"))
        powers.append(float((field**2).mean()))
    assert powers[0] / powers[1] == pytest.approx(snr, rel=1e-4)
    assert truth.attrs["snr"] == pytest.approx(snr, rel=1e-4)


def test_ratios_of_velocities_and_pairs_are_told():
    truth, cube = NOISY.truth, NOISY.cube
    t = years_since(truth["time"].values, truth["time"].values[0])
    of_noise = np.polyfit(t, truth["delay"].values.reshape(len(t), -1), 1)[0]
    ratio = float(truth["velocity"].values.var() / of_noise.var())
    assert truth.attrs["snr_velocity"] == pytest.approx(ratio, rel=1e-3)
    first, second = (np.searchsorted(truth["time"].values, d) for d in pair_dates(cube))
    signal, noise = (
        (truth[n].values[second] - truth[n].values[first]).var((1, 2)).mean()
        for n in ("displacement", "delay")
    )
    assert truth.attrs["snr_pairs"] == pytest.approx(signal / noise, rel=1e-3)


def test_power_counts_valid_pixels_alone():
    series = np.random.default_rng(0).normal(size=(40, 30, 30))
    series[:, :5] = np.nan
    constant = np.arange(900.0).reshape(30, 30) + 100 * np.arange(40.0)[:, None, None]
    assert power(series + constant) == pytest.approx(39 / 40, rel=0.02)
    assert power(constant) == pytest.approx(0, abs=1e-12)


def test_network_holds_all_short_pairs_of_the_dates():
    dates = np.array(["2020-01-01", "2020-01-07", "2020-01-31", "2020-02-06"], "M8[s]")
    cube = simulate_stack(
        seed=1, shape=(16, 16), dates=dates, max_temporal_baseline=30
    ).cube
    early, late = (d.astype("M8[D]").astype(str) for d in pair_dates(cube))
    assert list(zip(early, late, strict=True)) == [
        ("2020-01-01", "2020-01-07"),
        ("2020-01-01", "2020-01-31"),
        ("2020-01-07", "2020-01-31"),
        ("2020-01-07", "2020-02-06"),
        ("2020-01-31", "2020-02-06"),
    ]


def test_layers_follow_the_data_model():
    for name, variable in NOISY.cube.data_vars.items():
        assert variable.dims == VARIABLES[name].dims
        assert variable.dtype == VARIABLES[name].dtype
        assert variable.attrs["units"] == VARIABLES[name].units
    squared = sum(NOISY.cube[f"los_{n}"] ** 2 for n in ("east", "north", "up"))
    np.testing.assert_allclose(squared, 1, rtol=1e-5)


def test_long_waves_see_the_ionosphere():
    """At 40 km, in proportion to the square of the wavelength more than C band."""
    options = {"shape": (16, 16), "spacing": 2500.0, "terrain": 0.0, "dates": 10}
    strength = {
        sensor: np.median(
            [
                power(
                    simulate_stack(seed=k, sensor=sensor, **options).truth.delay.values
                )
                for k in range(5)
            ]
        )
        for sensor in SENSORS
    }
    assert strength["alos-2"] > 4 * strength["sentinel-1"]


# --- ground ------------------------------------------------------------------------


def test_elevation_can_be_given():
    dem = np.linspace(0, 2000, 20 * 30).reshape(20, 30)
    made = simulate_stack(seed=1, terrain=dem, dates=4)
    np.testing.assert_allclose(made.cube["elevation"], dem, rtol=1e-6)
    # The delay follows it: the air above high ground is thinner on every date.
    assert (
        np.corrcoef(dem.ravel(), made.truth["delay"].mean("time").values.ravel())[0, 1]
        < -0.9
    )
    relief = simulate_stack(seed=1, terrain=750.0, **SMALL).cube["elevation"]
    assert float(relief.max() - relief.min()) == pytest.approx(750, rel=1e-4)


def located(resolution=(80.0, -80.0), crs="EPSG:32719", shape=(20, 24)):
    dx, dy = resolution
    box = GeoBox.from_bbox(
        (10.0, 10.0, 10.0 + shape[1] * abs(dx), 10.0 + shape[0] * abs(dy)),
        crs=crs,
        shape=shape,
    )
    values = np.random.default_rng(0).uniform(0, 100, shape)
    return xr.DataArray(values, coords=xr_coords(box), dims=box.dimensions)


def test_elevation_with_a_crs_is_the_grid():
    dem = located()
    made = simulate_stack(seed=1, terrain=dem, dates=3)
    for name in ("x", "y"):
        np.testing.assert_array_equal(made.cube[name], dem[name])
    assert made.cube.odc.geobox.crs.epsg == 32719
    np.testing.assert_allclose(made.cube["elevation"], dem.values, rtol=1e-6)


def test_elevation_on_another_grid_is_refused():
    dem = located()
    for options, message in (
        ({"shape": (20, 20)}, r"terrain has shape \(20, 24\), the stack \(20, 20\)"),
        ({"spacing": 90.0}, "spacing=90.0 is not that of terrain, 80 m"),
        ({"terrain": dem.where(dem > 5)}, "terrain has gaps"),
        ({"terrain": located((80.0, -60.0))}, "warp it to square pixels"),
        (
            {"terrain": located((0.01, -0.01), crs="EPSG:4326")},
            "0.01 x 0.01 degrees: warp it to square",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            simulate_stack(**{"seed": 1, "terrain": dem} | options)


# --- real noise and stations --------------------------------------------------------


@pytest.fixture(scope="module")
def bank():
    source = simulate_stack(seed=21, shape=(56, 64), dates=16, spacing=80.0)
    return NoiseBank.from_cube(source.cube, kind="residual")


def test_real_noise_takes_the_place_of_delays(bank):
    made = simulate_stack(
        seed=5, noise=bank, dates=8, shape=(40, 40), pair_errors=CLEAN
    )
    assert abs(made.cube.odc.geobox.resolution.x) == pytest.approx(80)
    # Every date is one field of the bank: turned, mirrored, signed, less its mean.
    found = []
    for delay in made.truth["delay"].values:
        candidates = [
            k
            for k, field in enumerate(bank.fields)
            if any(
                matches(field, np.rot90(side, turns))
                for turns in range(4)
                for side in (-delay, delay, delay[:, ::-1], -delay[:, ::-1])
            )
        ]
        assert len(candidates) == 1
        found += candidates
    assert len(set(found)) == 8
    closed = closure(made.cube)
    assert np.nanmax(np.abs(closed)) < 1e-4 and np.isfinite(closed).mean() > 0.5


def matches(field, part):
    """Whether `part` is a crop of `field` but for a constant."""
    steps = np.diff(part, axis=1)
    row, column = np.argwhere(np.isfinite(steps))[len(steps) // 2]
    value = steps[row, column]
    with np.errstate(invalid="ignore"):
        near = np.argwhere(np.abs(np.diff(field, axis=1) - value) < 1e-9)
    for y, x in near - (row, column):
        if 0 <= y <= field.shape[0] - part.shape[0] and 0 <= x <= (
            field.shape[1] - part.shape[1]
        ):
            cut = field[y : y + part.shape[0], x : x + part.shape[1]]
            rest = cut - part
            if np.nanmax(np.abs(rest - np.nanmean(rest))) < 1e-6:
                return True
    return False


def test_real_noise_brings_its_own_ground(bank):
    for options, message in (
        ({"terrain": 100.0}, "noise brings its own spacing and terrain"),
        ({"spacing": 100.0}, "noise brings its own spacing and terrain"),
        ({"dates": 30}, "dates=30: the bank has"),
        ({"shape": (100, 100)}, "larger than the scene"),
    ):
        with pytest.raises(ValueError, match=message):
            simulate_stack(
                **{"seed": 1, "noise": bank, "dates": 5, "shape": (32, 32)} | options
            )


def test_stations_stand_on_the_stack():
    stations = simulate_stations(
        NOISY.truth["displacement"],
        NOISY.cube,
        count=5,
        horizontal_std=0.0,
        vertical_std=0.0,
        generator=np.random.default_rng(0),
    )
    los = [float(NOISY.cube[f"los_{n}"][0, 0]) for n in ("east", "north", "up")]
    along = sum(
        c * stations[n] for c, n in zip(los, ("east", "north", "up"), strict=True)
    )
    series = NOISY.truth["displacement"].values.reshape(SMALL["dates"], -1)
    for one in along.values:
        assert np.abs(series - one[:, None]).max(0).min() < 1e-6


# --- histories ------------------------------------------------------------------------


def test_histories_start_at_zero_and_reach_one():
    years = np.linspace(0.3, 1.1, 12)
    rng = np.random.default_rng(0)
    drawn = np.array([draw_history(years, rng) for _ in range(400)])
    assert (drawn[:, 0] == 0).all()
    np.testing.assert_allclose(np.abs(drawn).max(1), 1)
    steady = np.abs(drawn - np.linspace(0, 1, 12)).max(1) < 1e-9
    assert steady.mean() == pytest.approx(HISTORY_SHARES["linear"], abs=0.07)
    steps = np.isin(drawn, (0, 1)).all(1)
    assert steps.mean() == pytest.approx(HISTORY_SHARES["step"], abs=0.05)
    assert sum(HISTORY_SHARES.values()) == pytest.approx(1)


# --- bad input ------------------------------------------------------------------------


def test_bad_input():
    for options, message in (
        ({"sensor": "X"}, "sensor='X'"),
        ({"amplitude": -0.1}, "amplitude=-0.1"),
        ({"amplitude": 0.1, "snr": 1.0}, "give one of them"),
        ({"atmosphere": -1.0}, "atmosphere=-1.0"),
        ({"atmosphere": 0.0, "snr": 1.0}, "it needs noise"),
        ({"dates": 1}, "dates=1"),
        ({"dates": np.array(["2020-02-01", "2020-01-01"], "M8[s]")}, "increasing"),
        ({"max_temporal_baseline": 6}, "max_temporal_baseline=6"),
        ({"shape": (1, 9)}, r"shape=\(1, 9\)"),
        ({"spacing": -5.0}, "positive"),
        ({"terrain": -5.0}, "terrain=-5.0"),
    ):
        with pytest.raises(ValueError, match=message):
            simulate_stack(**{"seed": 1} | options)
    for options in ({"looks": 0}, {"unwrapping": 1.5}, {"gaps": 0.6}):
        with pytest.raises(ValueError, match=next(iter(options))):
            PairErrors(**options)
