"""The judge sees through doing nothing, outputting zero, and says what is wrong."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr

from cube_denoise.conventions import displacement_to_phase
from cube_denoise.corrections.correction import Correction, Plan, read
from cube_denoise.evaluate.injection import Case
from cube_denoise.evaluate.judge import applicable_methods, evaluate_cube
from cube_denoise.simulate import Scene, simulate_scene

REFERENCE = {"y": slice(0, 8), "x": slice(0, 8)}
CASES = [Case("bowl", 400.0, 0.05), Case("bowl", 400.0, 0.02, "step")]


def _nothing(cube, window):
    return read(cube, "unwrapped_phase", window).astype("float32")


def _zero(cube, window):
    return (0 * read(cube, "unwrapped_phase", window)).astype("float32")


@dataclass(frozen=True, kw_only=True)
class DoNothing(Correction):
    name: ClassVar[str] = "nothing"

    def plan(self, cube, pairs, run):
        return Plan(_nothing)


@dataclass(frozen=True, kw_only=True)
class OutputZero(Correction):
    name: ClassVar[str] = "zero"

    def plan(self, cube, pairs, run):
        return Plan(_zero)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return simulate_scene(size=64, dates=10, rate=0.3, gaps=0.05, seed=8)


@pytest.fixture(scope="module")
def judged(scene: Scene):
    """Raw, doing nothing, outputting zero."""
    found = evaluate_cube(
        scene.cube,
        [DoNothing(), OutputZero()],
        truth=scene.truth,
        cases=CASES,
        reference=REFERENCE,
    )
    return {v.method: v for v in found.verdicts}


def test_doing_nothing_changes_no_score(judged):
    raw, nothing = judged["raw"].scores, judged["nothing"].scores
    assert list(judged) == ["raw", "nothing", "zero"]
    assert raw.keys() == nothing.keys()
    for name, value in raw.items():
        assert nothing[name] == pytest.approx(value, nan_ok=True), name
    assert nothing["velocity reduction"] == 0
    assert nothing["steady slope"] == pytest.approx(1, abs=1e-3)
    assert nothing["step slope"] == pytest.approx(1, abs=1e-3)
    assert nothing["slope on raw velocity"] == pytest.approx(1)


def test_outputting_zero_is_exposed(judged):
    raw, zero = judged["raw"].scores, judged["zero"].scores
    # What it wins ...
    for name in ("closure", "residual", "structure 1 km"):
        assert zero[name] == pytest.approx(0, abs=1e-6)
        assert raw[name] > 0.01
    assert zero["temporal coherence"] == 1 > raw["temporal coherence"]
    # ... and what gives it away.
    assert zero["velocity slope"] == pytest.approx(0, abs=1e-6)
    assert zero["steady slope"] == pytest.approx(0, abs=1e-6)
    assert zero["step slope"] == pytest.approx(0, abs=1e-6)
    assert np.isinf(zero["steady detectable"]) and np.isfinite(raw["steady detectable"])
    assert zero["held-out ratio"] == pytest.approx(1)
    assert raw["held-out ratio"] < 0.9
    assert zero["velocity rms error"] > raw["velocity rms error"]


def test_doing_nothing_without_noise_is_perfect(scene: Scene):
    """Slope 1, no error: truth and stack agree in sign, unit and dates."""
    truth, cube = scene.truth, scene.cube
    moved = truth["displacement"].sel(time=cube["secondary_time"].values).values
    moved = moved - truth["displacement"].sel(time=cube["reference_time"].values).values
    phase = displacement_to_phase(moved, cube.attrs["wavelength"]).astype("float32")
    clean = cube.assign(unwrapped_phase=(("pair", "y", "x"), phase))
    (raw,) = evaluate_cube(clean, [], truth=truth, reference=REFERENCE).verdicts
    assert raw.scores["velocity slope"] == pytest.approx(1, abs=1e-4)
    assert raw.scores["velocity rms error"] < 0.01
    assert raw.scores["velocity bias"] == pytest.approx(0, abs=0.01)
    assert raw.scores["velocity correlation"] == pytest.approx(1, abs=1e-6)
    assert raw.scores["displacement rms error"] < 0.01
    assert raw.scores["pair slope"] == pytest.approx(1, abs=1e-4)
    assert raw.scores["closure"] == pytest.approx(0, abs=1e-5)


def test_methods_by_name_and_what_does_not_apply(scene: Scene):
    names = applicable_methods(scene.cube)
    assert {"ramp", "phase-elevation"} <= set(names)
    assert not {"weather", "wiener"} & set(names)
    flat = scene.cube.drop_vars("elevation")
    assert "phase-elevation" not in applicable_methods(flat)
    found = evaluate_cube(flat, ["phase-elevation", "ramp"], reference=REFERENCE)
    _, regression, ramp = found.verdicts
    assert "not judged further" in regression.notes[0]
    assert "elevation" in regression.notes[0]
    assert not regression.scores
    assert ramp.scores["held-out ratio"] > 0
    assert ramp.label["method"] == "ramp"


def test_the_cube_is_not_changed(scene: Scene):
    cube = scene.cube.isel(pair=slice(12), x=slice(32))
    before = cube.copy(deep=True)
    evaluate_cube(cube, ["ramp"], cases=CASES[:1], reference=REFERENCE)
    xr.testing.assert_identical(cube, before)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda c: c, {"methods": ["no-such"]}, "method='no-such' is not a classical"),
        (lambda c: c.drop_vars("unwrapped_phase"), {}, "no unwrapped_phase"),
        (lambda c: c * np.nan, {}, "NaN everywhere"),
        (lambda c: c.drop_vars("coherence"), {}, "weights='coherence' needs"),
        (lambda c: c, {"methods": ["ramp", "ramp"]}, "has 'ramp' twice"),
        (lambda c: c, {"truth": xr.Dataset()}, "truth has no 'displacement'"),
    ],
)
def test_bad_input(scene: Scene, change, options, message):
    with xr.set_options(keep_attrs=True):
        cube = change(scene.cube)
    options = {"methods": [], "reference": REFERENCE} | options
    methods = options.pop("methods")
    with pytest.raises(ValueError, match=message):
        evaluate_cube(cube, methods, **options)


def test_truth_of_other_dates_or_another_grid(scene: Scene):
    fewer = scene.truth.isel(time=slice(3, None))
    with pytest.raises(ValueError, match="truth lacks the dates"):
        evaluate_cube(scene.cube, [], truth=fewer, reference=REFERENCE)
    smaller = scene.truth.isel(y=slice(0, 32))
    with pytest.raises(ValueError, match="must be on one grid"):
        evaluate_cube(scene.cube, [], truth=smaller, reference=REFERENCE)
