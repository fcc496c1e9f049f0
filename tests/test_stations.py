"""Simulated GNSS stations against the displacement they stand on."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.evaluate.gnss import SERIES
from cube_denoise.evaluate.stations import (
    project_on_line_of_sight,
    sample_at_stations,
)
from cube_denoise.simulate import simulate_scene
from cube_denoise.simulate.stations import simulate_stations

QUIET = {"horizontal_std": 0.0, "vertical_std": 0.0}


@pytest.fixture(scope="module")
def scene():
    return simulate_scene(size=48, dates=8, seed=2)


def place(scene, count=12, *, displacement=None, seed=0, **options):
    return simulate_stations(
        scene.truth.displacement if displacement is None else displacement,
        scene.cube,
        count=count,
        generator=np.random.default_rng(seed),
        **options,
    )


def every_day(scene):
    first, last = scene.truth.time.values[[0, -1]]
    return np.arange(first, last, np.timedelta64(1, "D"))


def test_layout_is_that_of_the_judge(scene):
    stations = place(scene)
    assert dict(stations.sizes) == {"station": 12, "time": 8}
    assert set(stations.data_vars) == set(SERIES)
    assert all(stations[n].dims == ("station", "time") for n in SERIES)
    assert all(stations[n].attrs["units"] == "m" for n in SERIES)
    assert set(stations.coords) == {"station", "time", "longitude", "latitude"}
    assert len(set(stations.station.values)) == 12
    assert stations.time.dtype == "datetime64[ns]"
    assert (stations.up_std == 0.006).all() and (stations.east_std == 0.002).all()


def test_noise_free_stations_project_on_the_true_displacement(scene):
    """Read by the judge: at their own pixel, on all dates, to rounding."""
    stations = place(scene, **QUIET)
    los = [scene.cube[f"los_{n}"][0, 0].item() for n in ("east", "north", "up")]
    found = project_on_line_of_sight(stations, *los).los
    truth = sample_at_stations(scene.truth.displacement, stations, window=1)
    assert np.abs(truth).max() > 1e-3
    np.testing.assert_allclose(found, truth.transpose("station", "time"), atol=1e-8)


def test_stations_move_across_the_line_of_sight(scene):
    """The part the radar does not see is at right angles and linear in time."""
    stations = place(scene, 200, across_rate=0.03, **QUIET)
    motion = np.stack([stations[n] for n in ("east", "north", "up")], -1)
    los = np.array([scene.cube[f"los_{n}"][0, 0] for n in ("east", "north", "up")])
    across = motion - (motion @ los)[..., None] * los
    years = (stations.time - stations.time[0]).values / np.timedelta64(1, "D") / 365.25
    rate = across[:, -1] / years[-1]
    np.testing.assert_allclose(across, years[:, None] * rate[:, None], atol=1e-9)
    assert np.linalg.norm(rate, axis=1).std() > 0
    assert np.sqrt(np.mean(np.sum(rate**2, 1))) == pytest.approx(0.03, rel=0.15)
    still = place(scene, across_rate=0.0, **QUIET)
    parallel = np.stack([still[n] for n in ("east", "north", "up")], -1)
    np.testing.assert_allclose(
        parallel - (parallel @ los)[..., None] * los, 0, atol=1e-8
    )


def test_daily_series_are_linear_between_dates(scene):
    stations = place(scene, times=every_day(scene), across_rate=0.0, **QUIET)
    assert stations.sizes["time"] == 84
    second = np.diff(stations.up.values, 2, axis=1)
    np.testing.assert_allclose(second, 0, atol=1e-7)  # the scene moves steadily


def test_noise_has_the_stated_spread(scene):
    stations = place(scene, 300, times=every_day(scene), seed=1)
    clean = place(scene, 300, times=every_day(scene), seed=1, **QUIET)
    noise = {n: (stations[n] - clean[n]).values for n in ("east", "north", "up")}
    for name, std in (("east", 0.002), ("north", 0.002), ("up", 0.006)):
        assert noise[name].std() == pytest.approx(std, rel=0.05)
        assert abs(noise[name].mean()) < 0.1 * std
    assert abs(np.corrcoef(noise["east"].ravel(), noise["up"].ravel())[0, 1]) < 0.05


def test_noise_is_white_at_high_and_flicker_at_low_frequency():
    """Of 1,000 days: power falls as 1/f until the white half takes over."""
    times = np.datetime64("2018-01-01", "ns") + np.arange(1001) * np.timedelta64(1, "D")
    flat = xr.DataArray(
        np.zeros((2, 20, 20)),
        dims=("time", "y", "x"),
        coords={"time": times[[0, -1]], "y": np.arange(20.0), "x": np.arange(20.0)},
    ).odc.assign_crs("EPSG:32613")
    unit = {"los_east": 0.6, "los_north": 0.0, "los_up": 0.8}
    los = xr.Dataset({n: flat[0].drop_vars("time") + v for n, v in unit.items()})
    stations = simulate_stations(
        flat,
        los,
        count=400,
        times=times,
        horizontal_std=1.0,
        across_rate=0.0,
        generator=np.random.default_rng(0),
    )
    east = stations.east.values * np.hanning(1001)
    power = np.mean(np.abs(np.fft.rfft(east)) ** 2, 0) / np.sum(np.hanning(1001) ** 2)
    frequency = np.fft.rfftfreq(1001)
    # Half the variance is white (power 0.5); flicker shares the rest as c / f, whose
    # sum over the 2,002 frequencies of the longer record is half the variance.
    lines = np.abs(np.fft.fftfreq(2002))[1:]
    c = 0.5 * 2002 / np.sum(1 / lines)
    for low, high in ((0.004, 0.008), (0.02, 0.04), (0.1, 0.2), (0.3, 0.5)):
        ring = (frequency >= low) & (frequency < high)
        expected = 0.5 + np.mean(c / frequency[ring])
        assert power[ring].mean() == pytest.approx(expected, rel=0.08)


def test_stations_stand_on_pixels_with_data_on_all_dates(scene):
    displacement = scene.truth.displacement.copy(deep=True)
    displacement[:, :, 10:] = np.nan
    displacement[3, :20, :] = np.nan
    stations = place(scene, 28 * 10, displacement=displacement, **QUIET)
    assert all(stations[n].notnull().all() for n in SERIES)
    found = sample_at_stations(displacement, stations, window=1)
    assert found.notnull().all()
    places = zip(stations.longitude.values, stations.latitude.values, strict=True)
    assert len(set(places)) == 280
    with pytest.raises(ValueError, match=r"count=281 must be from 1 to 280"):
        place(scene, 281, displacement=displacement)


def test_stations_repeat_with_the_seed(scene):
    xr.testing.assert_identical(place(scene), place(scene))
    assert not place(scene).equals(place(scene, seed=1))


def test_input_is_left_alone(scene):
    before = scene.truth.copy(deep=True)
    place(scene)
    xr.testing.assert_identical(scene.truth, before)


def test_bad_input_is_named(scene):
    bare = xr.DataArray(
        scene.truth.displacement.values,
        dims=("time", "y", "x"),
        coords={n: scene.truth[n].values for n in ("time", "y", "x")},
    )
    with pytest.raises(ValueError, match="no CRS"):
        place(scene, displacement=bare)
    with pytest.raises(ValueError, match="must be on the grid"):
        place(scene, displacement=scene.truth.displacement[:, :20])
    with pytest.raises(ValueError, match="must lie within"):
        place(scene, times=every_day(scene) + np.timedelta64(30, "D"))
    with pytest.raises(ValueError, match="must rise"):
        place(scene, times=every_day(scene)[::-1])
    with pytest.raises(ValueError, match=r"vertical_std=-1\.0"):
        place(scene, vertical_std=-1.0)
