"""Inversion of simulated networks with gaps against truth and dense least squares."""

import logging
import pickle

import numpy as np
import pytest
import xarray as xr

from cube_denoise.blocks import lazy
from cube_denoise.conventions import VARIABLES, displacement_to_phase
from cube_denoise.invert import invert, plan_inversion
from cube_denoise.network import incidence_matrix
from cube_denoise.reference import choose_reference, reference_phase
from cube_denoise.reference_area import ReferenceArea

WAVELENGTH = 0.05546576
TIMES = np.datetime64("2020-01-01T05:00:00", "s") + 12 * 86400 * np.arange(12)
YEARS = 12 / 365.25 * np.arange(12)
PAIRS = [(i, i + k) for i in range(12) for k in (1, 2, 3) if i + k < 12]
AREA = {"y": slice(2, 6), "x": slice(3, 8)}
WEIGHTINGS = {
    "none": np.ones_like,
    "coherence": lambda g: g,
    "variance": lambda g: g**2 / (1 - g**2),
}


def make_cube(phase, coherence=None, pairs=PAIRS, **attrs):
    first, second = np.array(pairs).T
    variables = {"unwrapped_phase": (("pair", "y", "x"), phase.astype("float32"))}
    if coherence is not None:
        variables["coherence"] = (("pair", "y", "x"), coherence.astype("float32"))
    return xr.Dataset(
        variables,
        coords={
            "reference_time": ("pair", TIMES[first]),
            "secondary_time": ("pair", TIMES[second]),
        },
        attrs={"wavelength": WAVELENGTH, "crs": "EPSG:32611"} | attrs,
    )


def simulate(displacement, pairs=PAIRS):
    """Noise-free pairs (rad) of a displacement history (m)."""
    x = displacement_to_phase(displacement, WAVELENGTH)
    first, second = np.array(pairs).T
    return x[second] - x[first]


def noisy_cube(shape=(21, 18), gaps=0.3, seed=0):
    """Random phase with random gaps, an empty pixel and a good reference area."""
    rng = np.random.default_rng(seed)
    phase = rng.normal(scale=3, size=(len(PAIRS), *shape))
    coherence = rng.random(phase.shape)
    phase[rng.random(phase.shape) < gaps * rng.random(shape)] = np.nan
    phase[:, 0, 0] = np.nan
    phase[:, 2:6, 3:8] = rng.normal(size=(len(PAIRS), 4, 5))
    coherence[rng.random(phase.shape) < 0.05] = np.nan
    return make_cube(phase, coherence)


def linear_motion(shape, rate):
    """A history (m) growing from zero in the reference area to `rate` (m/yr)."""
    pattern = np.linspace(0, 1, shape[0] * shape[1]).reshape(shape)
    pattern[AREA["y"], AREA["x"]] = 0
    return rate * YEARS[:, None, None] * pattern, rate * pattern


@pytest.mark.parametrize("weights", WEIGHTINGS)
def test_equals_dense_weighted_least_squares(weights):
    cube = noisy_cube()
    result = invert(cube, weights=weights, reference=AREA).compute()
    A, times = incidence_matrix(cube.reference_time, cube.secondary_time)
    np.testing.assert_array_equal(result.time, times)

    phase = cube.unwrapped_phase.values.astype("float64")
    phase = phase - np.nanmean(phase[:, 2:6, 3:8], axis=(1, 2), keepdims=True)
    coherence = np.clip(np.nan_to_num(cube.coherence.values), 0.05, 0.99)
    weight = WEIGHTINGS[weights](coherence.astype("float64"))
    for y, x in np.ndindex(phase.shape[1:]):
        pixel = result.isel(y=y, x=x)
        valid = np.isfinite(phase[:, y, x])
        if not valid.any():
            assert pixel.gap_count == -1 and pixel.pair_count == 0
            assert np.isnan(pixel.displacement).all()
            continue
        reached = np.zeros(times.size, bool)
        reached[0] = True
        for _ in times:
            reached |= (np.abs(A[valid & (np.abs(A) @ reached > 0)]) > 0).any(0)
        used = valid & (np.abs(A) @ reached == 2)
        root = np.sqrt(weight[used, y, x])
        free = np.flatnonzero(reached)[1:]
        dates = np.where(reached, 0.0, np.nan)
        dates[free] = np.linalg.lstsq(
            A[used][:, free] * root[:, None], phase[used, y, x] * root, rcond=None
        )[0]
        truth = -WAVELENGTH / (4 * np.pi) * dates
        np.testing.assert_allclose(pixel.displacement, truth, rtol=1e-5, atol=1e-8)
        assert pixel.displacement[0] == 0
        assert pixel.pair_count == used.sum()
        assert pixel.gap_count == (~reached).sum()
        if used.any():
            r = phase[used, y, x] - A[used] @ np.nan_to_num(dates)
            np.testing.assert_allclose(pixel.residual_rms, np.sqrt((r**2).mean()), 1e-5)
            np.testing.assert_allclose(
                pixel.temporal_coherence, abs(np.exp(1j * r).mean()), atol=1e-6
            )
        if free.size >= 2:
            line = np.polyfit(YEARS[reached], truth[reached], 1)[0]
            np.testing.assert_allclose(pixel.velocity, line, rtol=1e-4, atol=1e-7)


def test_motion_comes_back_through_gaps_and_pair_constants():
    rng = np.random.default_rng(0)
    history, rate = linear_motion((16, 20), 0.05)
    phase = simulate(history) + rng.normal(scale=40, size=(len(PAIRS), 1, 1))
    gaps = rng.random(phase.shape) < 0.1
    gaps[:, AREA["y"], AREA["x"]] = False
    cube = make_cube(np.where(gaps, np.nan, phase), np.full(phase.shape, 0.7))
    result = invert(cube, reference=AREA).compute()
    there = np.isfinite(result.displacement)
    assert there.mean() > 0.99
    np.testing.assert_allclose(
        result.displacement.values[there], history[there], atol=2e-7
    )
    np.testing.assert_allclose(result.velocity, rate, atol=1e-6)
    np.testing.assert_allclose(result.velocity_std, 0, atol=1e-6)
    np.testing.assert_allclose(result.temporal_coherence, 1, atol=1e-6)
    np.testing.assert_allclose(result.residual_rms, 0, atol=1e-4)


def test_uplift_is_positive_and_flipped_phase_flips_it():
    history, _ = linear_motion((16, 20), 0.05)
    cube = make_cube(simulate(history))
    up = invert(cube, weights="none", reference=AREA).velocity.values
    down = invert(
        cube.assign(unwrapped_phase=-cube.unwrapped_phase),
        weights="none",
        reference=AREA,
    ).velocity.values
    assert up[-1, -1] == pytest.approx(0.05, rel=1e-5)
    np.testing.assert_array_equal(up, -down)


def test_reference_constants_drop_out():
    cube = noisy_cube()
    constants = np.random.default_rng(1).normal(scale=50, size=(len(PAIRS), 1, 1))
    shifted = cube.assign(
        unwrapped_phase=cube.unwrapped_phase.astype(float) + constants
    )
    one = invert(cube, reference=AREA).compute()
    two = invert(shifted, reference=ReferenceArea(**AREA)).compute()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=2e-5, atol=1e-7)


def test_pair_order_does_not_matter():
    cube = noisy_cube()
    order = np.random.default_rng(2).permutation(len(PAIRS))
    one = invert(cube, reference=AREA).compute()
    two = invert(cube.isel(pair=order), reference=AREA).compute()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "none" else name
        for name in WEIGHTINGS
    ],
)
def test_block_cut_does_not_change_a_bit(weights):
    cube = noisy_cube((11, 9))
    whole = invert(cube, weights=weights, block=64).compute()
    for block in (1, 5, 8):
        cut = invert(cube, weights=weights, block=block).compute(scheduler="sync")
        xr.testing.assert_identical(cut, whole)


def test_window_job_is_picklable_and_leaves_the_cube_alone():
    cube = noisy_cube()
    before = cube.copy(deep=True)
    job = pickle.loads(pickle.dumps(plan_inversion(cube, reference=AREA, block=8)))
    result = lazy(job, cube).compute()
    xr.testing.assert_identical(cube, before)
    xr.testing.assert_identical(result, invert(cube, reference=AREA).compute())
    covered = np.zeros((21, 18), int)
    for window in job.windows:
        covered[window["y"], window["x"]] += 1
        arrays = job.compute(cube, window)
        for name, array in arrays.items():
            assert array.dtype == VARIABLES[name].dtype
    assert (covered == 1).all()


def test_disconnected_network_warns_and_goes_on():
    pairs = [(0, 1), (3, 4), (4, 5), (5, 6), (3, 5)]
    history = np.zeros((12, 8, 8)) + 0.1 * YEARS[:, None, None]
    history[:, AREA["y"], AREA["x"]] = 0
    cube = make_cube(simulate(history, pairs), pairs=pairs)
    with pytest.warns(UserWarning, match="not connected.*2020-01-01.*2020-01-13") as w:
        result = invert(cube, weights="none", reference=AREA).compute()
    assert w[0].filename == __file__
    assert result.displacement.attrs["reference_time"] == "2020-02-06T05:00:00"
    assert np.isnan(result.displacement[:2]).all()
    assert (result.displacement[2] == 0).all()
    assert (result.gap_count == 2).all() and (result.pair_count == 4).all()
    assert result.velocity[-1, -1] == pytest.approx(0.1, rel=1e-5)


def test_pair_without_reference_is_left_out_with_a_warning():
    history, rate = linear_motion((16, 20), 0.05)
    phase = simulate(history)
    k = PAIRS.index((2, 4))
    phase[k] += 100
    phase[k, AREA["y"], AREA["x"]] = np.nan
    with pytest.warns(UserWarning, match="2020-01-25T05:00:00/2020-02-18T05:00:00"):
        result = invert(make_cube(phase), weights="none", reference=AREA).compute()
    assert (result.pair_count == len(PAIRS) - 1).all()
    np.testing.assert_allclose(result.velocity, rate, atol=1e-6)


def test_reference_phase_is_the_mean_over_large_areas_too():
    rng = np.random.default_rng(0)
    phase = rng.normal(scale=9, size=(3, 300, 20)).astype("float32")
    phase[1, 10:280, 3] = np.nan
    cube = make_cube(phase, pairs=PAIRS[:3])
    area = ReferenceArea(slice(5, 299), slice(2, 19))
    np.testing.assert_allclose(
        reference_phase(cube, "unwrapped_phase", area),
        np.nanmean(phase[:, 5:299, 2:19].astype("float64"), axis=(1, 2)),
        rtol=1e-12,
    )


def test_chosen_reference_is_the_most_coherent_complete_cell(caplog):
    rng = np.random.default_rng(0)
    shape = (4, 37, 530)
    phase, coherence = np.zeros(shape), rng.uniform(0.2, 0.4, shape)
    coherence[:, 8:16, 16:24] = 0.9  # best, but not in all pairs
    phase[2, 8:16, 16:24] = np.nan
    coherence[:, 24:32, 520:528] = 0.8  # best of all pairs, in the far window
    coherence[:, 32:37, 40:48] = 0.95  # cut off by the edge
    coherence[:, 16:24, 41:47] = 0.85  # fills no cell
    cube = make_cube(phase, coherence, pairs=PAIRS[:4])
    with caplog.at_level(logging.INFO, "cube_denoise"):
        area = choose_reference(cube)
    assert area == ReferenceArea(slice(24, 32), slice(520, 528))
    assert "rows 24 to 32, columns 520 to 528" in caplog.text
    job = plan_inversion(cube, block=16)
    assert job.attributes["velocity"]["reference_rows"] == [24, 32]


def test_without_coherence_the_reference_is_where_the_phase_varies_least(caplog):
    rng = np.random.default_rng(0)
    size = np.ones((37, 530))
    size[24:32, 520:528] = 0.5  # the quietest cell of all pairs, in the far window
    size[8:16, 16:24] = 0.1  # quieter, but not in all pairs
    phase = 1000 + size * rng.normal(size=(4, 37, 530))
    phase[2, 8:16, 16:24] = np.nan
    phase[:, 24:32, 520:524] = np.nan  # its other half is enough
    with caplog.at_level(logging.INFO, "cube_denoise"):
        area = choose_reference(make_cube(phase, pairs=PAIRS[:4]))
    assert area == ReferenceArea(slice(24, 32), slice(520, 528))
    variance = np.nanvar(phase[:, 24:32, 520:528], (1, 2)).mean()
    assert f"variance of the phase (rad2) {variance:.3f}" in caplog.text


def test_ties_of_the_reference_go_by_position():
    phase = np.zeros((2, 30, 600))
    phase[:, :8, :] = np.nan
    phase[:, :16, :500] = np.nan
    assert choose_reference(make_cube(phase, pairs=PAIRS[:2])) == ReferenceArea(
        slice(8, 16), slice(504, 512)
    )


def test_tiny_cubes_are_their_own_reference():
    area = choose_reference(make_cube(np.zeros((2, 3, 20)), pairs=PAIRS[:2]))
    assert area == ReferenceArea(slice(0, 3), slice(0, 8))


def test_corrected_phase_comes_first_and_attributes_say_so():
    cube = noisy_cube()
    cube = cube.assign(corrected_phase=2 * cube.unwrapped_phase)
    one = invert(cube, reference=AREA)
    two = invert(cube, reference=AREA, variable="unwrapped_phase")
    np.testing.assert_allclose(one.velocity, 2 * two.velocity, rtol=1e-5, atol=1e-8)
    for result, variable in ((one, "corrected_phase"), (two, "unwrapped_phase")):
        for name in result.data_vars:
            attrs = result[name].attrs
            assert attrs["phase_variable"] == variable
            assert attrs["weights"] == "coherence"
            assert attrs["reference_columns"] == [3, 8]
            assert attrs["units"] == VARIABLES[name].units


def test_lazy_files_give_the_same(tmp_path):
    cube = noisy_cube()
    cube.to_zarr(tmp_path / "cube.zarr", consolidated=False)
    stored = xr.open_zarr(tmp_path / "cube.zarr", chunks=None, consolidated=False)
    xr.testing.assert_equal(
        invert(stored, reference=AREA, block=8).compute(),
        invert(cube, reference=AREA).compute(),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "coh"}, "weights='coh' must be one of none, coherence, variance"),
        ({"variable": "phase"}, "must be one of corrected_phase, unwrapped_phase"),
        ({"variable": "corrected_phase"}, "be in the cube"),
        ({"reference": {"y": slice(0, 9)}}, "must have the slices 'y' and 'x'"),
        ({"reference": {"y": slice(15, 25), "x": slice(0, 5)}}, r"within 0\.\.21"),
        ({"reference": {"y": slice(-3, 5), "x": slice(0, 5)}}, r"within 0\.\.21"),
        ({"reference": {"y": slice(0, 1), "x": slice(0, 1)}}, "must hold data"),
        ({"block": 0}, "at least 1"),
    ],
)
def test_bad_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        invert(noisy_cube(), **({"reference": AREA} | options))


def test_bad_cubes_raise():
    cube = noisy_cube()
    cases = [
        (cube.drop_vars("coherence"), "needs the variable coherence"),
        (cube.drop_attrs(), "wavelength=None"),
        (cube.drop_vars("secondary_time"), "must have secondary_time"),
        (cube.drop_vars("unwrapped_phase"), "be in the cube"),
        (cube.isel(pair=slice(0)), "no data"),
        (cube.isel(pair=[0, 0]), "more than once"),
        (cube.isel(pair=0), "they must be"),
    ]
    for bad, message in cases:
        with pytest.raises(ValueError, match=message):
            invert(bad, reference=AREA)
    with pytest.raises(ValueError, match="half filled"):
        invert(cube.assign(unwrapped_phase=cube.unwrapped_phase * np.nan))


def test_velocity_std_says_how_far_it_holds():
    cube = noisy_cube()
    raw = invert(cube, reference=AREA).velocity_std.attrs
    assert "71 to 73 % of truths" in raw["coverage"]
    corrected = cube.assign(corrected_phase=cube.unwrapped_phase)
    corrected["corrected_phase"].attrs["method"] = "mine"
    told = invert(corrected, reference=AREA).velocity_std.attrs["coverage"]
    assert "not known" in told
    assert "mine" in told
