"""The linear bound: closed form, limits, and what must not be taken for it."""

import numpy as np
import pytest
import scipy.fft
import xarray as xr

from cube_denoise import store
from cube_denoise.conventions import displacement_to_phase
from cube_denoise.correct import PASSED_THROUGH, correct
from cube_denoise.corrections import find_correction
from cube_denoise.simulate import simulate_scene

WAVELENGTH = 4 * np.pi  # phase = -displacement
SIZE, PAIRS = 128, 12


def density(frequency, *, length, std):
    """Squared exponential covariance: power a pixel, of the variance std^2."""
    return (
        std**2 * 2 * np.pi * length**2 * np.exp(-2 * (np.pi * frequency * length) ** 2)
    )


def fields(rng, *, length, std, shape=(SIZE, SIZE), count=PAIRS):
    """Stationary Gaussian fields, cut from ones twice as large."""
    fy, fx = (scipy.fft.fftfreq(2 * n) for n in shape)
    amplitude = np.sqrt(density(np.hypot(fy[:, None], fx), length=length, std=std))
    white = scipy.fft.fft2(rng.normal(size=(count, *(2 * n for n in shape))))
    return scipy.fft.ifft2(white * amplitude).real[:, : shape[0], : shape[1]]


def stack(signal, delay, white=None, gaps=None):
    """Pairs of one date and the next, with the truth of the dates."""
    count = len(signal) + 1
    times = np.datetime64("2023-01-05", "ns") + np.arange(count) * np.timedelta64(
        12, "D"
    )
    truth = xr.Dataset(
        {
            name: (
                ("time", "y", "x"),
                np.concatenate([np.zeros_like(v[:1]), v]).cumsum(0),
            )
            for name, v in (("displacement", signal), ("delay", delay))
        },
        coords={"time": times},
    )
    phase = -(signal - delay) + (0 if white is None else white)
    if gaps is not None:
        phase = np.where(gaps, np.nan, phase)
    cube = xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), phase.astype("float32"))},
        coords={
            "reference_time": ("pair", times[:-1]),
            "secondary_time": ("pair", times[1:]),
        },
        attrs={"wavelength": WAVELENGTH},
    )
    return cube, truth


def left(cube, truth, **options):
    corrected = correct(cube, "wiener", truth=truth, **options)["corrected_phase"]
    return corrected.values.astype("float64")


def errors(phase, signal):
    """Rms of each pair, without means."""
    e = phase + signal
    return np.sqrt(np.nanmean((e - np.nanmean(e, (1, 2), keepdims=True)) ** 2, (1, 2)))


@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
def test_error_is_that_of_the_closed_form(strength):
    """Mean square error = integral of S_d S_n / (S_d + S_n)."""
    rng = np.random.default_rng(4)
    shapes = {"length": 10.0, "std": strength}, {"length": 2.5, "std": 0.7}
    signal, delay = (fields(rng, **s) for s in shapes)
    white = 0.4 * rng.normal(size=signal.shape)
    f = scipy.fft.fftfreq(1024)
    radial = np.hypot(f[:, None], f)
    noise = density(radial, **shapes[1]) + 0.4**2
    power = density(radial, **shapes[0])
    expected = np.sqrt((power * noise / (power + noise)).mean())
    found = np.sqrt((errors(left(*stack(signal, delay, white)), signal) ** 2).mean())
    # The mirrored edges whiten the spectra; a finite scene has its own.
    assert 0.94 < found / expected < 1.1


def test_filter_is_the_best_that_depends_on_the_frequency_alone():
    """No other gain by radius, tried one by one, has a smaller expected error."""
    from cube_denoise.corrections.wiener import _gain, _radius

    rng = np.random.default_rng(9)
    signal = fields(rng, length=9.0, std=1.0, shape=(40, 64), count=1)
    delay = fields(rng, length=3.0, std=0.8, shape=(40, 64), count=1)
    cube, truth = stack(signal, delay)
    gain = _gain(cube, 0, truth=truth)
    radius = _radius((40, 64))
    power = [scipy.fft.dctn(v[0], norm="ortho") ** 2 for v in (signal, delay)]

    def expected(k, h):  # signal and noise uncorrelated
        at = radius == k
        return ((1 - h) ** 2 * power[0][at] + h**2 * power[1][at]).sum()

    for k in range(1, len(gain)):
        best = min(expected(k, h) for h in np.linspace(0, 1, 201))
        assert expected(k, gain[k]) <= best + 1e-9


def test_limits():
    rng = np.random.default_rng(5)
    signal = fields(rng, length=6.0, std=1.0, count=2)
    delay = fields(rng, length=6.0, std=1.0, count=2)
    white = 0.3 * rng.normal(size=signal.shape)
    offset = 7.0 + 0 * signal
    # Nothing but noise: only the mean, which no filter can know, is left.
    cube, truth = stack(0 * signal, delay, white + offset)
    found = left(cube, truth)
    mean = cube["unwrapped_phase"].values.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(found, np.broadcast_to(mean, found.shape), atol=1e-5)
    # Nothing but signal: the identity.
    cube, truth = stack(signal, 0 * delay, offset)
    np.testing.assert_allclose(
        left(cube, truth), cube["unwrapped_phase"].values, atol=2e-5
    )
    # Nothing at all.
    cube, truth = stack(0 * signal, 0 * delay)
    assert (left(cube, truth) == 0).all()


def test_nothing_wraps_around():
    """A ramp, whose ends would meet, keeps its edges."""
    signal = np.zeros((1, 64, 64)) + np.linspace(-5, 5, 64)
    white = 0.5 * np.random.default_rng(2).normal(size=signal.shape)
    error = left(*stack(signal, 0 * signal, white)) + signal
    assert np.abs(error.mean((0, 1))).max() < 0.25


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2, 2.0])
def test_it_is_better_than_nothing_at_every_signal_to_noise_ratio(rate):
    scene = simulate_scene(size=96, dates=5, rate=rate, gaps=0.1, seed=2)
    raw = scene.cube["unwrapped_phase"].values.astype("f8")
    d = displacement_to_phase(
        scene.truth["displacement"].values.astype("f8"), scene.cube.attrs["wavelength"]
    )
    times = scene.truth["time"].values.astype("M8[s]")
    first, second = (
        np.searchsorted(times, scene.cube[n].values.astype("M8[s]"))
        for n in ("reference_time", "secondary_time")
    )
    found = left(scene.cube, scene.truth)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(raw))
    before, after = (errors(p, -(d[second] - d[first])) for p in (raw, found))
    assert (after < before).all()


def test_cut_and_pairs_do_not_matter():
    scene = simulate_scene(size=64, dates=4, seed=1)
    whole = left(scene.cube, scene.truth)
    np.testing.assert_array_equal(left(scene.cube, scene.truth, block=23), whole)
    region = {"y": slice(5, 40), "x": slice(63, 64)}
    part = left(scene.cube, scene.truth, region=region)
    np.testing.assert_array_equal(part, whole[:, 5:40, 63:])
    alone = left(scene.cube.isel(pair=[2]), scene.truth)
    np.testing.assert_array_equal(alone[0], whole[2])


def test_truth_on_disk(tmp_path):
    scene = simulate_scene(size=32, dates=3, seed=1)
    store.export_zarr(scene.truth, tmp_path / "truth.zarr")
    on_disk, in_memory = tmp_path / "truth.zarr", scene.truth
    np.testing.assert_array_equal(
        left(scene.cube, on_disk), left(scene.cube, in_memory)
    )
    named = find_correction("wiener", truth=str(on_disk))
    assert str(on_disk) in named.label["method_options"]
    assert named.again(named.label) is named
    unnamed = find_correction("wiener", truth=in_memory)
    assert "in memory" in unnamed.label["method_options"]
    assert unnamed.again(unnamed.label) is None


def test_pair_without_data_is_passed_through():
    rng = np.random.default_rng(5)
    signal, delay = (fields(rng, length=6.0, std=1.0, count=3) for _ in range(2))
    gaps = np.zeros(signal.shape, bool)
    gaps[1] = True
    cube, truth = stack(signal, delay, gaps=gaps)
    with pytest.warns(UserWarning, match="1 pairs hold no data"):
        result = correct(cube, "wiener", truth=truth).compute()
    assert result["correction_status"].values.tolist() == [1, PASSED_THROUGH, 1]
    assert np.isnan(result["corrected_phase"][1]).all()


def test_bad_truth(tmp_path):
    scene = simulate_scene(size=32, dates=3, seed=1)
    cube, truth = scene.cube, scene.truth
    with pytest.raises(ValueError, match=r"has the options .*truth"):
        find_correction("wiener")
    with pytest.raises(ValueError, match=r"must have \['delay'\]"):
        left(cube, truth.drop_vars("delay"))
    with pytest.raises(ValueError, match="lacks the dates 2023-01-29"):
        left(cube, truth.isel(time=[0, 1]))
    with pytest.raises(ValueError, match="differ along y"):
        left(cube, truth.isel(y=slice(1, None)))
    with pytest.raises(ValueError, match="differ along x"):
        left(cube, truth.assign_coords(x=truth["x"] + 50.0))
    with pytest.raises(ValueError, match="no delay at some pixels of 20230105-"):
        left(cube, truth.assign(delay=truth["delay"].where(truth["delay"] > 0)))
    with pytest.raises(ValueError, match="cannot be read"):
        left(cube, tmp_path / "nothing.zarr")
