"""Locked fault against Okada and closed forms; bowls and patches against volumes."""

import numpy as np
import pytest
from scipy.special import gamma

from cube_denoise.simulate.deformation import okada
from cube_denoise.simulate.surface import (
    interseismic,
    landslide_patch,
    subsidence_bowl,
)

LOCKED = {"slip": 0.03, "locking_depth": 12e3}


def test_interseismic_is_half_of_the_far_motion_at_one_locking_depth():
    """v / pi * atan(1) = v / 4 on either side; v / 2 far away."""
    east = np.array([-1e12, -12e3, 0, 12e3, 1e12])
    moved = interseismic(east, 0 * east, strike=0.0, **LOCKED)
    expected = 0.03 * np.array([-1 / 2, -1 / 4, 0, 1 / 4, 1 / 2])
    np.testing.assert_allclose(moved.north, expected, atol=1e-9)
    assert not moved.east.any() and not moved.up.any()


def test_interseismic_strain_rate_at_the_fault():
    """The largest shear: v / (pi D)."""
    east = np.array([-1.0, 1.0])
    moved = interseismic(east, 0 * east, strike=0.0, **LOCKED)
    assert np.diff(moved.north) / 2 == pytest.approx(0.03 / (np.pi * 12e3), rel=1e-6)


@pytest.mark.parametrize("strike", [0.0, 37.0, 250.0])
def test_interseismic_equals_deep_left_lateral_slip(strike):
    """Okada's vertical fault from the locking depth down and along without end."""
    east, north = np.random.default_rng(5).uniform(-60e3, 60e3, (2, 40))
    place = {"strike": strike, "centre": (4e3, -7e3)}
    top, end = 12e3, 2e8
    deep = okada(
        east,
        north,
        depth=top + end / 2,
        dip=90.0,
        length=2 * end,
        width=end,
        slip=0.03,
        rake=0.0,
        **place,
    )
    moved = interseismic(east, north, **LOCKED, **place)
    np.testing.assert_allclose(moved.east, deep.east, atol=1e-5)
    np.testing.assert_allclose(moved.north, deep.north, atol=1e-5)
    np.testing.assert_allclose(moved.up, deep.up, atol=1e-5)
    assert np.hypot(*moved[:2]).max() > 0.01


def test_negative_slip_is_right_lateral():
    """Seen across a fault that strikes north, the east side goes to the right."""
    moved = interseismic(
        np.array([1e4]), np.zeros(1), slip=-1.0, locking_depth=1e3, strike=0.0
    )
    assert moved.north < -0.4


def test_a_creeping_fault_is_a_clean_offset():
    east = np.array([-5.0, 0.0, 5.0])
    moved = interseismic(east, 0 * east, slip=1.0, locking_depth=0.0, strike=0.0)
    np.testing.assert_array_equal(moved.north, [-0.5, 0, 0.5])


def test_bowl_has_its_depth_and_widths():
    along, across = 2000.0, 500.0
    place = {"sigma": (along, across), "azimuth": 30.0, "centre": (100.0, -50.0)}
    s, c = np.sin(np.deg2rad(30)), np.cos(np.deg2rad(30))
    east = 100 + np.array([0, along * s, across * c])
    north = -50 + np.array([0, along * c, -across * s])
    bowl = subsidence_bowl(east, north, subsidence=0.2, **place)
    np.testing.assert_allclose(bowl.up, -0.2 * np.exp([0, -0.5, -0.5]))
    assert not bowl.east.any() and not bowl.north.any()


def test_bowl_volume():
    east, north = np.meshgrid(*2 * [np.arange(-6000, 6001, 50.0)])
    bowl = subsidence_bowl(
        east, north, subsidence=0.2, sigma=(900.0, 400.0), azimuth=70
    )
    volume = -bowl.up.sum() * 50**2
    assert volume == pytest.approx(0.2 * 2 * np.pi * 900 * 400, rel=1e-9)


SLIDE = {
    "slip": 0.4,
    "azimuth": 110.0,
    "dip": 25.0,
    "semi_axes": (600.0, 250.0),
    "centre": (50.0, 80.0),
}


def at(along, across):
    """East and north of points of `SLIDE`."""
    a = np.deg2rad(110.0)
    along, across = np.asarray(along, float), np.asarray(across, float)
    return (
        50 + along * np.sin(a) + across * np.cos(a),
        80 + along * np.cos(a) - across * np.sin(a),
    )


def test_landslide_moves_down_the_slope():
    moved = np.array(landslide_patch(*at(0, 0), **SLIDE))
    a, d = np.deg2rad(110.0), np.deg2rad(25.0)
    down = [np.cos(d) * np.sin(a), np.cos(d) * np.cos(a), -np.sin(d)]
    np.testing.assert_allclose(moved, 0.4 * np.array(down))
    assert moved[0] > 0 > moved[1]  # east-south-east


@pytest.mark.parametrize("order", [1.0, 4.0, 9.0])
def test_landslide_is_half_at_its_semi_axes(order):
    here = at([600, -600, 0, 0], [0, 0, 250, -250])
    size = np.linalg.norm(landslide_patch(*here, order=order, **SLIDE), axis=0)
    np.testing.assert_allclose(size, 0.2)


@pytest.mark.parametrize("order", [1.0, 4.0])
def test_landslide_volume(order):
    """Area integral of 2^(-r^2p): pi a b Gamma(1 + 1/p) / ln(2)^(1/p)."""
    east, north = np.meshgrid(*2 * [np.arange(-3500, 3501, 10.0)])
    up = landslide_patch(east, north, order=order, **SLIDE).up
    area = np.pi * 600 * 250 * gamma(1 + 1 / order) / np.log(2) ** (1 / order)
    sunk = 0.4 * np.sin(np.deg2rad(25)) * area
    assert -up.sum() * 10**2 == pytest.approx(sunk, rel=1e-4)


def test_landslide_has_a_soft_edge_that_sharpens_with_order():
    near = at(1.3 * 600, 0)
    soft, sharp = (-landslide_patch(*near, order=p, **SLIDE).up for p in (2.0, 6.0))
    assert soft > 10 * sharp > 0


def test_far_from_a_landslide_nothing_moves_or_overflows():
    with np.errstate(all="raise", under="ignore"):
        moved = landslide_patch(np.array([1e60]), np.zeros(1), **SLIDE)
    assert not np.any(moved)


def test_bad_input():
    here = np.zeros(1), np.zeros(1)
    with pytest.raises(ValueError, match="locking_depth=-1 must be"):
        interseismic(*here, slip=1.0, locking_depth=-1, strike=0.0)
    with pytest.raises(ValueError, match=r"sigma=\(1, 0\) must be positive"):
        subsidence_bowl(*here, subsidence=1.0, sigma=(1, 0))
    for change, message in (
        ({"dip": 95}, "dip=95 must be 0 to 90"),
        ({"dip": -5}, "dip=-5 must be 0 to 90"),
        ({"semi_axes": (0, 5)}, "semi_axes=.* must be positive"),
        ({"order": 0}, "order=0 must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            landslide_patch(*here, **{**SLIDE, **change})
