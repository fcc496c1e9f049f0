"""Structure functions against brute force and closed forms."""

import numpy as np
import pytest

from cube_denoise.conventions import phase_to_displacement
from cube_denoise.evaluate.structure import (
    pair_structure,
    structure_function,
)
from cube_denoise.grid import pixel_spacing
from cube_denoise.simulate import simulate_scene


def brute_force(field, spacing, distances_km):
    """Root mean square difference of all pairs of pixels, one by one."""
    y, x = np.nonzero(np.isfinite(field))
    value = field[y, x]
    apart = np.hypot((y[:, None] - y) * spacing[0], (x[:, None] - x) * spacing[1])
    difference = value[:, None] - value
    found = []
    for r in 1e3 * np.asarray(distances_km):
        half = max(0.1 * r, max(spacing) / 2)
        used = (np.abs(apart - r) <= half) & (apart > 0)
        found.append(np.sqrt(np.mean(difference[used] ** 2)))
    return found


@pytest.mark.parametrize("spacing", [(100.0, 100.0), (80.0, 120.0)])
def test_equals_brute_force_with_gaps(spacing):
    generator = np.random.default_rng(1)
    field = np.cumsum(generator.normal(size=(24, 31)), 0) + 1e3
    field[generator.random(field.shape) < 0.3] = np.nan
    field[:3] = np.nan
    distances = (0.1, 0.33, 0.7, 1.0)
    found = structure_function(field, spacing=spacing, distances_km=distances)
    assert found == pytest.approx(brute_force(field, spacing, distances), rel=1e-9)


def test_exponential_covariance_has_its_closed_form():
    std, length, side = 3.0, 300.0, 24
    y, x = (100.0 * a.ravel() for a in np.indices((side, side)))
    apart = np.hypot(y[:, None] - y, x[:, None] - x)
    root = np.linalg.cholesky(std**2 * np.exp(-apart / length))
    white = np.random.default_rng(2).normal(size=(side**2, 400))
    fields = (root @ white).T.reshape(-1, side, side)
    distances = (0.3, 0.6, 1.0)
    roots = [
        structure_function(f, spacing=100.0, distances_km=distances) for f in fields
    ]
    expected = 2 * std**2 * (1 - np.exp(-1e3 * np.array(distances) / length))
    assert np.mean(np.square(roots), 0) == pytest.approx(expected, rel=0.03)


def test_ramp_has_its_closed_form():
    """D = slope^2 r^2 / 2 in the mean over directions."""
    field = np.broadcast_to(np.arange(200) * 0.02, (200, 200))
    (found,) = structure_function(field, spacing=50.0, distances_km=(2.0,))
    assert found == pytest.approx(0.02 * 2000 / 50 / np.sqrt(2), rel=0.02)


def test_constant_does_not_matter():
    field = np.random.default_rng(3).normal(size=(40, 40)).astype("float32")
    one, other = (
        structure_function(f, spacing=100.0, distances_km=(0.2, 1.0))
        for f in (field, field.astype("float64") + 1e4)
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)
    flat = structure_function(np.full((40, 40), 7.0), spacing=100.0, distances_km=(1,))
    assert flat == 0


def test_distances_that_do_not_fit_are_nan():
    field = np.random.default_rng(4).normal(size=(60, 60))
    found = structure_function(field, spacing=100.0)
    assert np.isfinite(found).tolist() == [True, False, False, False, False]
    wide = np.full((600, 600), np.nan)
    wide[100:160, 200:260] = field  # gaps around a scene do not make it larger
    again = structure_function(wide, spacing=100.0)
    np.testing.assert_allclose(found, again, rtol=1e-9)
    coarse = structure_function(field, spacing=5000.0)
    assert np.isnan(coarse[0]) and np.isfinite(coarse[1])
    assert np.isnan(structure_function(np.full((9, 9), np.nan), spacing=10.0)).all()


def test_pairs_are_averaged_in_millimetres():
    cube = simulate_scene(size=48, dates=4, seed=5).cube
    found = pair_structure(cube, "unwrapped_phase", distances_km=(1.0, 2.0, 50.0))
    mm = 1e3 * phase_to_displacement(cube.unwrapped_phase.values, 0.05546576)
    roots = [structure_function(p, spacing=100.0, distances_km=(1, 2, 50)) for p in mm]
    assert found.attrs["units"] == "mm" and found.distance.values.tolist() == [1, 2, 50]
    np.testing.assert_allclose(found, np.sqrt(np.mean(np.square(roots), 0)), rtol=1e-5)
    assert np.isnan(found[-1])
    half = cube.assign(corrected_phase=cube.unwrapped_phase / 2)
    scaled = pair_structure(half, distances_km=(1.0, 2.0))
    np.testing.assert_allclose(2 * scaled, found[:2], rtol=1e-5)


def test_spacing_is_measured_on_the_ground():
    cube = simulate_scene(size=32, dates=3, seed=6).cube
    assert pixel_spacing(cube) == pytest.approx((100, 100))
    degrees = cube.assign_coords(
        y=40.9 - 0.001 * np.arange(32), x=14.0 + 0.001 * np.arange(32), spatial_ref=4326
    )
    degrees = degrees.odc.assign_crs("EPSG:4326")
    # What the README of Campi Flegrei gives for 0.001 degrees there: 84 x 111 m.
    assert pixel_spacing(degrees) == pytest.approx((111.0, 84.2), abs=0.3)
    with pytest.raises(ValueError, match="regular grid"):
        pixel_spacing(cube.drop_vars(["y", "x", "spatial_ref"]))


def test_bad_input_is_named():
    field = np.zeros((8, 8))
    with pytest.raises(ValueError, match="spacing=0"):
        structure_function(field, spacing=0)
    with pytest.raises(ValueError, match="distances_km"):
        structure_function(field, spacing=1.0, distances_km=(-1.0,))
    with pytest.raises(ValueError, match="rows and columns"):
        structure_function(field[0], spacing=1.0)
    cube = simulate_scene(size=16, dates=2, seed=6).cube
    del cube.attrs["wavelength"]
    with pytest.raises(ValueError, match="wavelength"):
        pair_structure(cube)
