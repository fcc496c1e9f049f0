"""Closure, correlation with elevation, inversion quality, short baselines."""

import numpy as np
import pytest
import xarray as xr

from cube_denoise.conventions import SENTINEL1_WAVELENGTH, displacement_to_phase
from cube_denoise.evaluate import (
    elevation_correlation,
    inversion_summary,
    short_baseline_std,
    triplet_closure_rms,
)
from cube_denoise.evaluate.similarity import correlation
from cube_denoise.invert import invert

SHAPE = (20, 30)


def network_cube(dates_phase, first, second, *, constants=0.0):
    """Pairs of given dates, 12 days apart."""
    first, second = np.asarray(first), np.asarray(second)
    times = np.datetime64("2020-01-01", "ns") + 12 * np.arange(
        len(dates_phase)
    ) * np.timedelta64(1, "D")
    phase = dates_phase[second] - dates_phase[first]
    phase = phase + np.broadcast_to(constants, first.shape)[:, None, None]
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase),
            "coherence": (("pair", "y", "x"), np.full(phase.shape, 0.7)),
        },
        coords={
            "reference_time": ("pair", times[first]),
            "secondary_time": ("pair", times[second]),
        },
        attrs={"wavelength": SENTINEL1_WAVELENGTH},
    )


@pytest.fixture
def triangles():
    """Four dates, five pairs, two triangles; every pair has its own constant."""
    generator = np.random.default_rng(1)
    dates = generator.normal(0, 3, (4, *SHAPE))
    return network_cube(
        dates, [0, 1, 0, 2, 1], [1, 2, 2, 3, 3], constants=generator.normal(0, 20, 5)
    )


def test_differences_of_dates_close(triangles):
    found = triplet_closure_rms(triangles)
    assert found.rms < 1e-12 and found.beyond_pi == 0 and found.loops == 2


def test_closure_finds_unwrapping_errors(triangles):
    # Pair 4 = (1, 3) is in one of the two triangles; 60 of 600 pixels are a cycle off.
    triangles.unwrapped_phase[4, :2] += 2 * np.pi
    found = triplet_closure_rms(triangles)
    assert found.beyond_pi == pytest.approx(0.05)
    assert found.rms == pytest.approx(2 * np.pi * np.sqrt(0.05))
    # Pair 1 = (1, 2) is in both.
    triangles.unwrapped_phase[4, :2] -= 2 * np.pi
    triangles.unwrapped_phase[1, :2] += 2 * np.pi
    assert triplet_closure_rms(triangles).beyond_pi == pytest.approx(0.1)


def test_closure_of_independent_pair_noise():
    generator = np.random.default_rng(2)
    cube = network_cube(np.zeros((3, *SHAPE)), [0, 1, 0], [1, 2, 2])
    noise = generator.normal(0, 0.2, cube.unwrapped_phase.shape)
    noise[0, 0] = np.nan
    found = triplet_closure_rms(
        cube.assign(corrected_phase=cube.unwrapped_phase + noise)
    )
    assert found.rms == pytest.approx(0.2 * np.sqrt(3), rel=0.1)
    assert triplet_closure_rms(cube, "unwrapped_phase").rms == 0


def test_without_triangles_there_is_no_closure():
    cube = network_cube(np.zeros((3, *SHAPE)), [0, 1], [1, 2])
    found = triplet_closure_rms(cube)
    assert np.isnan(found.rms) and np.isnan(found.beyond_pi) and found.loops == 0


def test_correlation_with_elevation(triangles):
    generator = np.random.default_rng(3)
    elevation = generator.normal(500, 200, SHAPE)
    noise = generator.normal(0, 1, SHAPE)
    noise -= np.polyval(np.polyfit(elevation.ravel(), noise.ravel(), 1), elevation)
    noise *= 200 * 0.01 / noise.std() * (elevation.std() / 200)
    phase = np.stack(
        [
            0.01 * elevation,
            5 - 0.01 * elevation,
            0.01 * elevation + noise,  # equal parts: 1 / sqrt(2)
            noise,
            np.zeros(SHAPE),
        ]
    )
    phase[0, :5] = np.nan
    cube = triangles.assign(
        corrected_phase=(("pair", "y", "x"), phase), elevation=(("y", "x"), elevation)
    )
    found = elevation_correlation(cube)
    assert found.pairs.values[:4] == pytest.approx([1, -1, 0.5**0.5, 0], abs=1e-9)
    assert np.isnan(found.pairs[4])  # a flat pair correlates with nothing
    assert found.rms == pytest.approx(np.sqrt(2.5 / 4))
    assert found.median == pytest.approx(0.5**0.5 / 2)
    assert "reference_time" in found.pairs.coords
    with pytest.raises(ValueError, match="no variable elevation"):
        elevation_correlation(triangles)


def test_correlation_needs_two_values():
    one = np.array([1.0, np.nan, 2.0])
    assert np.isnan(correlation(one, np.array([np.nan, 1.0, 3.0])))
    assert correlation(one, np.array([1.0, 9.0, 0.0])) == pytest.approx(-1)


def test_summary_of_an_inversion(triangles):
    found = inversion_summary(
        xr.Dataset(
            {
                "temporal_coherence": (("y", "x"), [[0.9, 0.6, np.nan, 0.8]]),
                "residual_rms": (("y", "x"), [[1.0, 2.0, np.nan, 0.0]]),
                "pair_count": (("y", "x"), [[4, 1, 0, 3]]),
            }
        )
    )
    assert found.temporal_coherence == 0.8
    assert found.coherent_fraction == pytest.approx(2 / 3)
    assert found.residual_rms == pytest.approx(np.sqrt((4 + 4) / 8))
    perfect = invert(triangles, reference={"y": slice(0, 8), "x": slice(0, 8)})
    found = inversion_summary(perfect.compute())
    assert found.temporal_coherence == pytest.approx(1) and found.residual_rms < 1e-6
    with pytest.raises(ValueError, match="lacks pair_count"):
        inversion_summary(perfect.drop_vars("pair_count"))


def test_spread_of_the_shortest_pairs():
    generator = np.random.default_rng(4)
    dates = displacement_to_phase(
        generator.normal(0, 0.004, (5, 60, 60)), SENTINEL1_WAVELENGTH
    )
    first, second = [0, 1, 2, 3, 0], [1, 2, 3, 4, 4]
    cube = network_cube(dates, first, second, constants=np.arange(5.0))
    cube.unwrapped_phase[4] *= 100  # the long pair does not count
    cube.unwrapped_phase[0, :30] = np.nan
    found = short_baseline_std(cube)
    assert found.std == pytest.approx(4 * np.sqrt(2), rel=0.03)
    assert found.days == 12 and found.pairs == 4


def test_zero_wins_all_of_them(triangles):
    """Why the module warns of them."""
    cube = triangles.assign(corrected_phase=0 * triangles.unwrapped_phase)
    assert triplet_closure_rms(cube).rms == 0
    assert short_baseline_std(cube).std == 0
    reference = {"y": slice(0, 8), "x": slice(0, 8)}
    found = inversion_summary(invert(cube, reference=reference).compute())
    assert found.temporal_coherence == pytest.approx(1) and found.residual_rms == 0
