"""What comes back of injected deformation: of nothing done, nothing left, a half."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.conventions import displacement_to_phase, phase_to_displacement
from cube_denoise.correct import correct
from cube_denoise.evaluate.held_out import uncorrected
from cube_denoise.evaluate.injection import (
    SHAPES,
    Case,
    amplitude_map,
    default_cases,
    history_of,
    inject,
    stack_times,
)
from cube_denoise.evaluate.recovery import recover, smallest_detectable
from cube_denoise.simulate import simulate_scene

REFERENCE = {"y": slice(0, 8), "x": slice(0, 8)}
CASES = [Case("bowl", 400.0, rate) for rate in (0.01, 0.05)]
STEP = Case("bowl", 400.0, 0.02, "step")


@pytest.fixture(scope="module")
def still() -> xr.Dataset:
    """Nothing moves; atmosphere only, some gaps."""
    scene = simulate_scene(size=64, dates=10, rate=1e-9, gaps=0.05, seed=5)
    return scene.cube.load()


def scaled(factor: float):
    def corrector(cube: xr.Dataset) -> xr.Dataset:
        return cube.assign(corrected_phase=factor * cube["unwrapped_phase"])

    return corrector


def run(cube, corrector, cases=CASES):
    return list(recover(cube, corrector, cases, reference=REFERENCE))


def test_doing_nothing_keeps_everything(still):
    for found in run(still, uncorrected, [*CASES, STEP]):
        known = np.isfinite(found.slope)
        assert known.any()
        np.testing.assert_allclose(found.slope[known], 1, atol=2e-4)
        assert np.nanmax(found.rms_error) < 2e-4 * found.case.amplitude
        valid = np.isfinite(found.recovered)
        apart = (found.recovered - found.injected)[valid]
        assert np.ptp(apart) < 1e-3 * found.case.amplitude


def test_outputting_zero_loses_everything_and_finds_nothing(still):
    found = run(still, scaled(0.0))
    for one in found:
        np.testing.assert_allclose(one.slope[np.isfinite(one.slope)], 0, atol=1e-6)
    detectable = smallest_detectable(found)
    assert np.isinf(detectable[~np.isnan(detectable)]).all()


def test_a_damping_factor_is_the_slope_but_gains_no_sensitivity(still):
    """Half of the signal in half of the noise: what can be found stays the same."""
    raw, half = run(still, uncorrected), run(still, scaled(0.5))
    np.testing.assert_allclose(half[0].slope, 0.5, atol=1e-3)
    np.testing.assert_allclose(half[0].noise, raw[0].noise / 2, rtol=1e-3)
    np.testing.assert_allclose(
        smallest_detectable(half), smallest_detectable(raw), rtol=0.02
    )


def test_noise_is_that_of_the_rate_of_a_source():
    """Date-wise noise of the source's own shape, of known variance."""
    scene = simulate_scene(size=48, dates=8, rate=1e-9, gaps=0.0, seed=1)
    case = Case("bowl", 500.0, 0.05)
    cube = scene.cube
    shape = amplitude_map(cube, case) / case.amplitude
    times = stack_times(cube)
    years = history_of(times, case)
    rng = np.random.default_rng(0)
    found, expected = [], []
    for _ in range(12):
        dates = 0.01 * rng.standard_normal(times.size)
        position = dict(zip(times, dates, strict=True))
        ends = [
            np.array([position[t] for t in cube[n].values.astype("datetime64[s]")])
            for n in ("reference_time", "secondary_time")
        ]
        apart = (ends[1] - ends[0])[:, None, None] * shape
        noisy = cube.assign(
            unwrapped_phase=(
                cube["unwrapped_phase"].dims,
                displacement_to_phase(apart, cube.attrs["wavelength"]).astype("f4"),
            )
        )
        (one,) = run(noisy, uncorrected, [case])
        found.append(np.nanmean(one.noise**2))
        expected.append(0.01**2 / np.sum((years - years.mean()) ** 2))
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.35)


def test_smallest_detectable_separates_signal_from_noise(still):
    """At the threshold the signal is found 95 %, noise alone 5 % of the time."""
    (one, *_) = run(still, uncorrected)
    threshold = smallest_detectable(run(still, uncorrected))
    known = np.isfinite(threshold)
    ratio = threshold[known] / one.noise[known]
    # Normal quantiles would give 1.96 + 1.64; eight degrees of freedom give more.
    np.testing.assert_allclose(ratio, 2.306 + 1.860, rtol=0.01)


def test_injection_is_consistent_over_dates(still):
    """What is added closes, and its velocity is the map."""
    case = CASES[1]
    changed = inject(still, case)
    added = phase_to_displacement(
        changed["unwrapped_phase"] - still["unwrapped_phase"],
        still.attrs["wavelength"],
    )
    years = (
        (still["secondary_time"] - still["reference_time"]) / np.timedelta64(1, "s")
    ) / (365.25 * 86400)
    velocity = (added / years).transpose("pair", "y", "x").values
    expected = np.broadcast_to(amplitude_map(still, case), velocity.shape)
    valid = np.isfinite(velocity)
    np.testing.assert_allclose(velocity[valid], expected[valid], atol=2e-4)
    assert "corrected_phase" not in changed
    assert still["unwrapped_phase"].identical(still["unwrapped_phase"])


def test_a_step_is_in_the_pairs_that_span_it_alone(still):
    added = inject(still, STEP)["unwrapped_phase"] - still["unwrapped_phase"]
    times = stack_times(still)
    onset = times[0] + (times[-1] - times[0]) / 2
    spans = (still["reference_time"].values <= onset) & (
        still["secondary_time"].values > onset
    )
    moved = abs(added).max(("y", "x")).values > 1e-3
    np.testing.assert_array_equal(moved, spans)


def test_shapes_are_half_at_their_radius():
    for shape in SHAPES.values():
        assert shape(np.array(0.0)) == 1
        assert shape(np.array(1.0)) == pytest.approx(0.5)


def test_default_cases_fit_and_differ(still):
    cases = default_cases(still)
    assert {c.history for c in cases} == {"steady", "step"}
    assert {c.shape for c in cases} == set(SHAPES)
    assert max(c.radius for c in cases) <= 64 * 100 / 4
    assert len(set(cases)) == len(cases)


def test_regression_on_elevation_damps_what_looks_like_it(still):
    """A method that is known to take a signal that follows the terrain."""
    cube = still.assign(
        elevation=(("y", "x"), 1000 * amplitude_map(still, Case("bowl", 1600.0, 1.0)))
    )
    case = Case("bowl", 1600.0, 0.05)
    (one,) = run(
        cube,
        lambda c: c.assign(
            corrected_phase=correct(c, "phase-elevation")["corrected_phase"]
        ),
        [case],
    )
    assert abs(np.nanmean(one.slope)) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("cone", 400.0, 0.1), "shape='cone' must be one of bowl"),
        (("bowl", 400.0, 0.1, "twice"), "history='twice' must be one of steady"),
        (("bowl", 0.0, 0.1), "radius=0.0 must be positive"),
        (("bowl", 400.0, -0.1), "amplitude=-0.1 must be positive"),
    ],
)
def test_a_case_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Case(*options)


def test_what_cannot_be_judged(still):
    with pytest.raises(ValueError, match="needs at least 4"):
        run(still.isel(pair=[0]), uncorrected)
    with pytest.raises(ValueError, match="at least 12 along each side"):
        default_cases(still.isel(y=slice(0, 8)))
    with pytest.raises(ValueError, match="give those of one kind"):
        smallest_detectable(run(still, uncorrected, [CASES[0], STEP]))
