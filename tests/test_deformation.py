"""Dislocations and point sources against published numbers, cutde and volumes."""

import cutde.halfspace
import numpy as np
import pytest

from cube_denoise.simulate.deformation import mogi, okada

MECHANISMS = {
    "strike": {"slip": 1.0, "rake": 0.0},
    "dip": {"slip": 1.0, "rake": 90.0},
    "tensile": {"opening": 1.0},
}


def okada_frame(x, y, *, depth, dip, length, width, **dislocation):
    """Displacement along Okada's (1985) axes: x along strike, y to its left, z up.

    His origin is above the lower-left corner of the rectangle, at `depth`. With a
    strike of 90 degrees x is east and y is north.
    """
    sine, cosine = np.sin(np.deg2rad(dip)), np.cos(np.deg2rad(dip))
    moved = okada(
        np.array(x, float),
        np.array(y, float),
        depth=depth - width / 2 * sine,
        strike=90.0,
        dip=dip,
        length=length,
        width=width,
        centre=(length / 2, width / 2 * cosine),
        **dislocation,
    )
    return np.array(moved)


@pytest.mark.parametrize(
    ("mechanism", "printed"),
    [
        ("strike", ("-8.689e-03", "-4.298e-03", "-2.747e-03")),
        ("dip", ("-4.682e-03", "-3.527e-02", "-3.564e-02")),
        ("tensile", ("-2.660e-04", "1.056e-02", "3.214e-03")),
    ],
)
def test_okada_table_2_case_2(mechanism, printed):
    moved = okada_frame(
        2, 3, depth=4, dip=70, length=3, width=2, **MECHANISMS[mechanism]
    )
    assert tuple(f"{u:.3e}" for u in moved) == printed


@pytest.mark.parametrize(
    ("mechanism", "expected"),
    [
        ("strike", (0, 5.253e-3, 0)),
        ("dip", (0, 0, 0)),
        ("tensile", (1.223e-2, 0, -1.606e-2)),
    ],
)
def test_okada_table_2_case_3(mechanism, expected):
    """x = y = 0, dip 90: on the trace, where some denominators vanish."""
    moved = okada_frame(
        0, 0, depth=4, dip=90, length=3, width=2, **MECHANISMS[mechanism]
    )
    np.testing.assert_allclose(moved, expected, atol=5.1e-6)


def rectangle(*, depth, strike, dip, length, width, centre):
    """Corners (east, north, up): upper left, upper right, lower right, lower left."""
    s, d = np.deg2rad(strike), np.deg2rad(dip)
    along = np.array([np.sin(s), np.cos(s), 0])
    down = np.array([np.cos(s) * np.cos(d), -np.sin(s) * np.cos(d), -np.sin(d)])
    middle = np.array([*centre, -depth])
    return [
        middle + i * length / 2 * along + j * width / 2 * down
        for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]


def error_against_triangles(seed, *, dip=None):
    """Largest difference from cutde at random points, relative to the largest value.

    cutde computes the triangular dislocations of Nikkhoo and Walter (2015); two of
    them make the rectangle.
    """
    rng = np.random.default_rng(seed)
    length, width = rng.uniform(0.5, 8, 2)
    dip = rng.uniform(5, 89) if dip is None else dip
    geometry = {
        "depth": width / 2 * np.sin(np.deg2rad(dip)) + rng.uniform(0.3, 5),
        "strike": rng.uniform(0, 360),
        "dip": dip,
        "length": length,
        "width": width,
        "centre": tuple(rng.uniform(-3, 3, 2)),
    }
    east, north = rng.uniform(-10, 10, (2, 25))
    slip, rake, opening = rng.normal(), rng.uniform(-180, 180), rng.normal()
    nu = rng.uniform(0.1, 0.4)

    a, b, c, d = rectangle(**geometry)
    points = np.stack([east, north, np.zeros(25)], 1)
    triangles = np.array([[a, d, c], [a, c, b]])  # seen from above anticlockwise
    unit = cutde.halfspace.disp_matrix(points, triangles, nu).sum(2)
    angle = np.deg2rad(rake)
    expected = (unit @ [slip * np.cos(angle), slip * np.sin(angle), opening]).T

    moved = okada(
        east,
        north,
        slip=slip,
        rake=rake,
        opening=opening,
        poisson_ratio=nu,
        **geometry,
    )
    return np.abs(np.array(moved) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("seed", range(30))
def test_random_faults_equal_two_triangles(seed):
    assert error_against_triangles(seed) < 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_vertical_faults_equal_two_triangles(seed):
    """Exactly 90 degrees has formulas of its own."""
    assert error_against_triangles(seed, dip=90.0) < 1e-9


def test_nearly_vertical_faults_join_the_vertical_one(monkeypatch):
    """The general formulas lose digits there as 1 / cos(dip)^3; so does cutde."""
    east, north = np.random.default_rng(1).uniform(-10, 10, (2, 50))

    def moved(dip):
        fault = {"depth": 4.0, "strike": 35.0, "length": 5.0, "width": 4.0}
        return np.array(
            okada(east, north, dip=dip, slip=1.0, rake=50.0, opening=0.5, **fault)
        )

    largest = np.abs(moved(90.0)).max()
    for dip in (89.9999, 90.0001):
        assert np.abs(moved(dip) - moved(90.0)).max() < 1e-5 * largest
    near = moved(89.97), moved(90.03)
    monkeypatch.setattr("cube_denoise.simulate.deformation.NEARLY_VERTICAL", 0.0)
    general = moved(89.97), moved(90.03)
    np.testing.assert_allclose(near, general, atol=1e-6 * largest)
    assert np.abs(moved(89.9999) - moved(90.0)).max() > 1e-5 * largest


@pytest.mark.parametrize("seed", range(5))
def test_horizontal_sheets_equal_two_triangles(seed):
    """Nearly so: at exactly 0 degrees a triangle has no strike."""
    assert error_against_triangles(seed, dip=1e-5) < 1e-9


def test_superposition():
    east, north = np.random.default_rng(0).uniform(-9, 9, (2, 50))
    geometry = {"depth": 3.0, "strike": 20.0, "dip": 40.0, "length": 4.0, "width": 2.0}
    both = okada(east, north, slip=2.0, rake=35.0, opening=0.5, **geometry)
    shear = okada(east, north, slip=2.0, rake=35.0, **geometry)
    opening = okada(east, north, opening=0.5, **geometry)
    np.testing.assert_allclose(np.array(both), np.array(shear) + np.array(opening))


def test_turning_the_fault_turns_the_field():
    east, north = np.random.default_rng(0).uniform(-9, 9, (2, 50))
    geometry = {"depth": 3.0, "dip": 40.0, "length": 4.0, "width": 2.0, "slip": 1.0}
    at_zero = okada(east, north, strike=0.0, rake=70.0, **geometry)
    # A quarter clockwise: north becomes east, east becomes south.
    turned = okada(north, -east, strike=90.0, rake=70.0, **geometry)
    np.testing.assert_allclose(turned.east, at_zero.north, atol=1e-15)
    np.testing.assert_allclose(turned.north, -at_zero.east, atol=1e-15)
    np.testing.assert_allclose(turned.up, at_zero.up, atol=1e-15)


def test_thrust_lifts_and_normal_fault_lowers_the_hanging_wall():
    """Strike north, dip to the east: the hanging wall is in the east."""
    geometry = {"depth": 2.0, "strike": 0.0, "dip": 45.0, "length": 8.0, "width": 2.0}
    east, north = np.array([1.0]), np.array([0.0])
    assert okada(east, north, slip=1.0, rake=90.0, **geometry).up > 0.1
    assert okada(east, north, slip=1.0, rake=-90.0, **geometry).up < -0.1


def radial_volume(profile, inner, outer):
    """Volume under an axisymmetric surface: Gauss-Legendre in log radius."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    low, high = np.log([inner, outer])
    radius = np.exp(low + (nodes + 1) / 2 * (high - low))
    density = 2 * np.pi * radius**2 * profile(radius)
    return float(np.sum(weights * density) * (high - low) / 2)


def test_sill_lifts_the_volume_it_opens():
    """Over all directions and out to 3,000 lengths; what is beyond is 1e-3 of it."""
    angles = 2 * np.pi * (np.arange(16) + 0.5) / 16

    def mean_uplift(radius):
        east, north = np.outer(np.cos(angles), radius), np.outer(np.sin(angles), radius)
        moved = okada(
            east, north, depth=2.0, strike=0, dip=0, length=1, width=0.7, opening=0.5
        )
        return moved.up.mean(0)

    volume = radial_volume(mean_uplift, 1e-4, 3000)
    assert volume == pytest.approx(1 * 0.7 * 0.5, rel=2e-3)


@pytest.mark.parametrize("nu", [0.25, 0.4])
def test_mogi_volume_and_peak(nu):
    depth, change = 3000.0, 1e6

    def uplift(radius):
        return mogi(
            radius, 0 * radius, depth=depth, volume_change=change, poisson_ratio=nu
        ).up

    # The tail beyond R holds depth / R of the volume.
    volume = radial_volume(uplift, depth / 1e4, depth * 1e4)
    assert volume == pytest.approx(2 * (1 - nu) * change, rel=2e-4)
    peak = float(uplift(np.zeros(1))[0])
    assert peak == pytest.approx((1 - nu) / np.pi * change / depth**2, rel=1e-12)
    if nu == 0.25:
        assert peak == pytest.approx(0.239 * change / depth**2, rel=2e-3)


def test_mogi_moves_away_from_the_axis():
    moved = mogi(
        np.array([4000.0, 0.0]),
        np.array([0.0, -4000.0]),
        depth=4000.0,
        volume_change=1e6,
    )
    assert moved.east[0] > 0 and moved.north[1] < 0
    # At a horizontal distance of one depth the two components are equal.
    np.testing.assert_allclose(moved.east[0], moved.up[0])


def test_line_of_sight_projection():
    moved = mogi(np.array([1e3]), np.array([2e3]), depth=3e3, volume_change=1e6)
    los = (-0.6, -0.1, np.sqrt(1 - 0.37))
    expected = sum(u * k for u, k in zip(moved, los, strict=True))
    np.testing.assert_allclose(moved.along(los), expected)


def test_bad_input():
    here = np.zeros(1)
    with pytest.raises(ValueError, match="upper edge"):
        okada(here, here, depth=1.0, strike=0, dip=90, length=1, width=3, slip=1)
    with pytest.raises(ValueError, match="length=0 and width=1 must be positive"):
        okada(here, here, depth=1.0, strike=0, dip=90, length=0, width=1, slip=1)
    with pytest.raises(ValueError, match="depth=0 must be positive"):
        mogi(here, here, depth=0, volume_change=1)
