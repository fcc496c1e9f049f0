"""Random fields against the covariances and spectra they were asked for."""

from itertools import pairwise, product

import numpy as np
import pytest
from scipy.special import gamma, kv

from cube_denoise.simulate.spectrum import Matern, PowerLaw, structure_function
from cube_denoise.simulate.turbulence import (
    Turbulence,
    gaussian_fields,
    turbulent_delays,
)

SPACING, SIZE = 100.0, 96
SIDE = SPACING * SIZE


def draw(count, *spectra, seed=0, shape=(SIZE, SIZE), spacing=SPACING, **options):
    return gaussian_fields(
        count,
        shape,
        spacing=spacing,
        spectra=spectra,
        generator=np.random.default_rng(seed),
        **options,
    )


def matern_covariance(distance, spectrum):
    nu = spectrum.smoothness
    x = np.sqrt(2 * nu) * np.maximum(distance, 1e-6) / spectrum.length
    return spectrum.std**2 * 2 ** (1 - nu) / gamma(nu) * x**nu * kv(nu, x)


def some_of(lengths, *, chosen):
    """Lengths with each smoothness; those not `chosen` are slow together."""
    return [
        pair if pair in chosen else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in product(lengths, (1 / 3, 1 / 2, 5 / 6))
    ]


def lagged(fields, lag, axis):
    """Covariance at a lag of so many pixels; the mean is known to be zero."""
    n = fields.shape[axis]
    early = np.take(fields, range(n - lag), axis)
    late = np.take(fields, range(lag, n), axis)
    return float(np.mean(early * late, dtype="float64"))


def lagged_difference(fields, lag, axis):
    """Mean squared difference at a lag of so many pixels."""
    n = fields.shape[axis]
    change = np.take(fields, range(lag, n), axis) - np.take(
        fields, range(n - lag), axis
    )
    return float(np.mean(change**2, dtype="float64"))


def radial_spectrum(fields, spacing, edges):
    """Periodogram (Hann window) averaged over draws and rings; and their frequency."""
    rows, columns = fields.shape[1:]
    window = np.outer(np.hanning(rows), np.hanning(columns))
    power = np.mean(np.abs(np.fft.fft2(fields * window)) ** 2, 0)
    power *= spacing**2 / np.sum(window**2)
    frequency = np.hypot(
        np.fft.fftfreq(rows, spacing)[:, None], np.fft.fftfreq(columns, spacing)
    )
    rings = [(frequency >= low) & (frequency < high) for low, high in pairwise(edges)]
    return [power[r] for r in rings], [frequency[r] for r in rings]


def beyond_nyquist(spectrum, spacing):
    """Variance of frequencies outside the square that pixels can hold."""
    nyquist = 0.5 / spacing
    f = np.geomspace(nyquist, 1e5 * nyquist, 200_000)
    outside = np.where(
        f < np.sqrt(2) * nyquist, 4 / np.pi * np.arccos(np.minimum(nyquist / f, 1)), 1
    )
    return np.trapezoid(2 * np.pi * f * spectrum.density(f) * outside, f)


@pytest.mark.parametrize(
    ("length", "nu"),
    some_of((1200.0, 3000.0), chosen=((1200.0, 1 / 3), (3000.0, 5 / 6))),
)
def test_covariance_is_the_one_asked_for(nu, length):
    """At r = 0, l/2, l, 2l, within four standard errors (at most 0.06) of 1,500 draws.

    At r = 0 the variance of wavelengths below two pixels is missing.
    """
    spectrum = Matern(1.0, length, nu)
    fields = draw(1500, spectrum)
    # The mean over an area A of N draws: 2 / (A N) times the integral of exp(-2 r/l).
    error = np.sqrt(np.pi * length**2 / (SIDE**2 * len(fields)))
    for part in (0, 0.5, 1, 2):
        lag = round(part * length / SPACING)
        expected = matern_covariance(lag * SPACING, spectrum)
        expected -= 0 if lag else beyond_nyquist(spectrum, SPACING)
        for axis in (1, 2):
            found = lagged(fields, lag, axis)
            assert found == pytest.approx(expected, abs=4 * error + 0.002)


@pytest.mark.parametrize("std", [1.0, 0.01])
def test_covariance_scales_with_the_variance(std):
    fields = draw(300, Matern(std, 1500.0, 0.5))
    for lag in (0, 7, 15, 30):
        expected = np.exp(-lag / 15)
        for axis in (1, 2):
            assert lagged(fields, lag, axis) / std**2 == pytest.approx(
                expected, abs=0.03
            )


@pytest.mark.parametrize(
    ("times_side", "nu"),
    some_of((0.5, 2.0, 20.0), chosen=((0.5, 5 / 6), (2.0, 1 / 2), (20.0, 1 / 3))),
)
def test_lengths_beyond_the_area(nu, times_side):
    """Differences across the area and covariances, for l up to 20 times the side.

    Differences within 5 %. Covariances at r = 0, l/2, l, 2l (as far as they fit) within
    four standard errors of 6,000 draws that may be little more than one constant each.
    """
    n, spacing = 24, SIDE / 24
    spectrum = Matern(1.0, times_side * SIDE, nu)
    fields = draw(6000, spectrum, shape=(n, n), spacing=spacing)
    lost = beyond_nyquist(spectrum, spacing)
    for lag in (6, 12, 22):
        expected = 2 * (1 - matern_covariance(lag * spacing, spectrum) - lost)
        for axis in (1, 2):
            found = lagged_difference(fields, lag, axis)
            assert found == pytest.approx(expected, rel=0.05)
    for lag in (0, *(round(p * times_side * n) for p in (0.5, 1, 2))):
        if lag < n:
            expected = matern_covariance(lag * spacing, spectrum) - lost * (lag == 0)
            bound = 4 * np.sqrt(2 / len(fields))
            assert lagged(fields, lag, 1) == pytest.approx(expected, abs=bound)


def test_doubled_padding_is_too_weak_at_long_lengths():
    """The reason for the exact sampler: the bound of the test above fails here."""
    spectrum = Matern(1.0, 3 * SIDE, 0.5)
    expected = 2 * (1 - matern_covariance(22 * SIDE / 24, spectrum))
    cheap = draw(4000, spectrum, padding="double", shape=(24, 24), spacing=SIDE / 24)
    assert lagged_difference(cheap, 22, 1) / expected < 0.8


@pytest.mark.parametrize("times_side", [0.15, 0.5, 2.0])
def test_opposite_edges_do_not_meet(times_side):
    """Their covariance is the one of their distance; on a torus it would be near 1."""
    spectrum = Matern(1.0, times_side * SIDE, 0.5)
    fields = draw(800, spectrum, shape=(48, 48), spacing=SIDE / 48)
    expected = matern_covariance(47 * SIDE / 48, spectrum)
    for axis in (1, 2):
        assert lagged(fields, 47, axis) == pytest.approx(expected, abs=0.11)
    corner = np.mean(fields[:, 0, 0] * fields[:, -1, -1])
    expected = matern_covariance(47 * SIDE / 48 * np.sqrt(2), spectrum)
    assert corner == pytest.approx(expected, abs=0.14)


@pytest.mark.parametrize("length", [800.0, 2.0 * SIDE])
@pytest.mark.parametrize("nu", [1 / 3, 1 / 2, 5 / 6])
def test_spectrum_is_the_one_asked_for(nu, length):
    """Windowed periodograms of 100 draws, within 12 % in rings of frequency."""
    spectrum = Matern(1.0, length, nu)
    edges = np.geomspace(5 / SIDE, 0.4 / SPACING, 6)
    for power, frequency in zip(
        *radial_spectrum(draw(100, spectrum), SPACING, edges), strict=True
    ):
        assert power.mean() == pytest.approx(
            spectrum.density(frequency).mean(), rel=0.12
        )


@pytest.mark.parametrize(
    ("spacing", "band", "slope"),
    [(500.0, (2e-4, 6e-4), -8 / 3), (60.0, (9e-4, 3e-3), -11 / 3),
     (12.0, (5e-3, 0.03), -5 / 3)],
)  # fmt: skip
def test_slope_of_each_regime(spacing, band, slope):
    """Fitted to the radially averaged spectrum: within 0.12 of Hanssen's slopes."""
    fields = draw(60, PowerLaw(std=0.01), shape=(128, 128), spacing=spacing)
    power, frequency = radial_spectrum(fields, spacing, np.geomspace(*band, 8))
    found = np.polyfit(
        [np.log(f.mean()) for f in frequency], [np.log(p.mean()) for p in power], 1
    )[0]
    assert found == pytest.approx(slope, abs=0.12)


@pytest.mark.parametrize(
    "spectrum",
    [
        Matern(0.3, 2e3, 1 / 3),
        Matern(0.3, 2e3, 1 / 2),
        Matern(0.3, 2e3, 5 / 6),
        PowerLaw(0.3),
        PowerLaw(0.3, outer_scale=8000.0, breaks=(), slopes=(-11 / 3,)),
        PowerLaw(0.3, breaks=(2000.0,), slopes=(-8 / 3, -2.0)),
    ],
)
def test_spectrum_integrates_to_the_variance(spectrum):
    frequency = np.geomspace(1e-9, 1e3, 400_000)
    density = spectrum.density(frequency)
    total = np.trapezoid(2 * np.pi * frequency * density, frequency)
    assert total == pytest.approx(0.09, rel=2e-3)


def test_power_law_is_continuous_and_cut():
    law = PowerLaw(0.01)
    for wavelength in (1500.0, 250.0):
        below, above = law.density(np.array([0.999999, 1.000001]) / wavelength)
        assert below == pytest.approx(above, rel=1e-4)
    assert law.density(np.array([0.051]))[0] == 0
    flat = law.density(np.array([0.0, 1e-7]))
    assert np.isfinite(flat).all() and flat[0] == pytest.approx(flat[1], rel=1e-3)


@pytest.mark.parametrize("nu", [1 / 3, 1 / 2, 5 / 6])
@pytest.mark.parametrize("distance", [200.0, 3000.0, 50_000.0])
def test_structure_function_of_matern(nu, distance):
    spectrum = Matern(0.02, 9000.0, nu)
    expected = 2 * (0.02**2 - matern_covariance(distance, spectrum))
    assert structure_function(spectrum, distance) == pytest.approx(expected, rel=5e-3)


def test_power_law_from_its_differences():
    """2.5 mm at 1 km (Emardson et al., 2003): drawn fields differ by that."""
    law = PowerLaw.from_structure(0.0025, distance=1000.0)
    assert structure_function(law, 1000.0) ** 0.5 == pytest.approx(0.0025, rel=1e-6)
    fields = draw(60, law, shape=(64, 64))
    found = np.sqrt(lagged_difference(fields, 10, 1))
    assert found == pytest.approx(0.0025, rel=0.05)


def test_variances_of_spectra_add():
    fields = draw(200, Matern(3.0, 600.0, 0.5), Matern(4.0, 900.0, 0.5))
    assert fields.std() == pytest.approx(5.0, rel=0.03)


def test_two_fields_of_one_transform_are_independent():
    fields = draw(400, Matern(1.0, 600.0, 0.5))
    assert abs(np.mean(fields[::2] * fields[1::2])) < 0.01
    long = draw(800, Matern(1.0, 3 * SIDE, 0.5), shape=(32, 32), spacing=SIDE / 32)
    assert abs(np.mean(long[::2] * long[1::2])) < 4 / np.sqrt(400)


def smooth_difference(distance, length):
    """Structure function of Matern(1, length, 3/2)."""
    x = np.sqrt(3) * distance / length
    return 2 - 2 * (1 + x) * np.exp(-x)


@pytest.mark.parametrize("length", [800.0, 5000.0])
def test_anisotropy_stretches_along_its_direction(length):
    """Ratio 4: lengths are doubled along columns and halved across them.

    At 5 km, half the side, the spectrum comes in bands.
    """
    for direction, along in ((0.0, 2), (90.0, 1)):
        fields = draw(
            400, Matern(1.0, length, 1.5), anisotropy=4.0, direction=direction
        )
        for axis, scale in ((along, 2.0), (3 - along, 0.5)):
            lag = round(min(scale * length, 0.5 * SIDE) / SPACING)
            expected = smooth_difference(lag * SPACING, scale * length)
            found = lagged_difference(fields, lag, axis)
            assert found == pytest.approx(expected, rel=0.1)


def test_oblique_direction_turns_toward_higher_rows():
    fields = draw(300, Matern(1.0, 800.0, 1.5), anisotropy=4.0, direction=45.0)
    lag = 6
    down = np.mean((fields[:, lag:, lag:] - fields[:, :-lag, :-lag]) ** 2)
    up = np.mean((fields[:, :-lag, lag:] - fields[:, lag:, :-lag]) ** 2)
    distance = lag * np.sqrt(2) * SPACING
    assert down == pytest.approx(smooth_difference(distance, 1600), rel=0.08)
    assert up == pytest.approx(smooth_difference(distance, 400), rel=0.08)


@pytest.mark.parametrize("padding", ["exact", "double"])
def test_fields_repeat_with_the_seed(padding):
    scales = (Matern(1.0, 900.0, 0.5), Matern(1.0, 3 * SIDE, 0.5))
    one, same, other = (draw(3, *scales, seed=s, padding=padding) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.dtype == "float32" and one.shape == (3, SIZE, SIZE)


@pytest.mark.parametrize("shape", [(37, 50), (1, 300), (8, 8)])
def test_fields_of_any_shape(shape):
    fields = draw(200, Matern(1.0, 5000.0, 0.5), shape=shape)
    assert fields.shape == (200, *shape)
    lag = shape[1] // 2
    assert lagged_difference(fields, lag, 2) == pytest.approx(
        2 - 2 * np.exp(-lag * SPACING / 5000), rel=0.15
    )


GAUSSIAN = {"intermittency": 0.0, "amplitude_spread": 0.0, "outlier_probability": 0.0}


def delays(count, shape=(48, 48), seed=0, spacing=200.0, **how):
    return turbulent_delays(
        count,
        shape,
        spacing=spacing,
        turbulence=Turbulence(**how),
        generator=np.random.default_rng(seed),
    )


def test_plain_delays_have_the_spectrum():
    found = delays(300, spectra=(Matern(0.008, 1500.0, 0.5),), **GAUSSIAN)
    assert found.std() == pytest.approx(0.008, rel=0.03)
    assert found.dtype == "float32" and found.shape == (300, 48, 48)


def test_delays_are_longest_along_their_azimuth():
    """45 degrees east of north: from the lower left to the upper right."""
    found = delays(
        200,
        spectra=(Matern(1.0, 1200.0, 0.5),),
        anisotropy=4.0,
        azimuth=45.0,
        **GAUSSIAN,
    )
    northeast = np.mean((found[:, :-6, 6:] - found[:, 6:, :-6]) ** 2)
    southeast = np.mean((found[:, 6:, 6:] - found[:, :-6, :-6]) ** 2)
    assert northeast < 0.6 * southeast
    found = delays(
        200,
        spectra=(Matern(1.0, 1200.0, 0.5),),
        anisotropy=4.0,
        azimuth=0.0,
        **GAUSSIAN,
    )
    assert lagged_difference(found, 6, 1) < 0.6 * lagged_difference(found, 6, 2)


def test_intermittency_keeps_the_mean_square_and_adds_tails():
    """E m^2 = 1; kurtosis 3 E m^4 = 3 exp(4 sigma^2) of a pixel."""
    how = {"spectra": (Matern(1.0, 800.0, 1.5),), "intermittency_length": 1500.0}
    found = delays(500, **how, **GAUSSIAN | {"intermittency": 0.3})
    assert np.mean(found**2) == pytest.approx(1, rel=0.05)
    kurtosis = np.mean(found**4) / np.mean(found**2) ** 2
    assert kurtosis == pytest.approx(3 * np.exp(4 * 0.09), rel=0.08)
    plain = delays(500, **how, **GAUSSIAN)
    kurtosis = np.mean(plain**4) / np.mean(plain**2) ** 2
    assert kurtosis == pytest.approx(3, rel=0.05)


def test_dates_differ_in_amplitude_and_some_are_bad():
    how = {"spectra": (Matern(0.01, 500.0, 1.5),), "intermittency": 0.0}
    options = {"amplitude_spread": 0.4, "outlier_probability": 0.0}
    spread = delays(1500, (32, 32), **how, **options)
    level = np.log(spread.std((1, 2)) / 0.01)
    assert level.std() == pytest.approx(0.4, rel=0.1)
    assert np.median(level) == pytest.approx(0, abs=0.05)
    options = {
        "amplitude_spread": 0.0,
        "outlier_probability": 0.1,
        "outlier_factor": 5.0,
    }
    bad = delays(1500, (32, 32), **how, **options)
    level = bad.std((1, 2)) / 0.01
    assert np.mean(level > 2.5) == pytest.approx(0.1, abs=0.03)
    assert np.median(level[level > 2.5]) == pytest.approx(5, rel=0.05)


def test_delays_repeat_with_the_seed():
    np.testing.assert_array_equal(delays(3, seed=4), delays(3, seed=4))
    assert not np.array_equal(delays(3, seed=4), delays(3, seed=5))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Matern(-1.0, 100.0, 0.5), "std=-1.0"),
        (lambda: Matern(1.0, 0.0, 0.5), "length=0.0"),
        (lambda: PowerLaw(1.0, outer_scale=1000.0), "outer_scale"),
        (lambda: PowerLaw(1.0, slopes=(-8 / 3,)), "slopes="),
        (lambda: Turbulence(outlier_probability=3.0), "outlier_probability=3.0"),
        (lambda: draw(1, Matern(1.0, 900.0, 0.5), anisotropy=0.5), "anisotropy=0.5"),
        (lambda: draw(1, Matern(1.0, 900.0, 0.5), spacing=0.0), "spacing=0.0"),
    ],
)
def test_bad_parameters_are_named(make, name):
    with pytest.raises(ValueError, match=name):
        make()
