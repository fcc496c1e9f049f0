"""Figures: signs, scales, memory; not their pixels."""

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import LineCollection

import cube_denoise as cd
from cube_denoise import plot


@pytest.fixture(scope="module")
def cube():
    scene = cd.simulate_scene(size=48, dates=5, seed=2)
    area = {"y": slice(8, 16), "x": slice(0, 8)}
    inverted = cd.invert(scene.cube, reference=area).compute()
    corrected = scene.cube.unwrapped_phase + 5.0
    return scene.cube.merge(inverted).assign(corrected_phase=corrected)


def image(figure, k=0):
    return figure.axes[k].images[0]


def test_velocity_is_blue_toward_the_satellite(cube):
    drawn = image(plot.plot_velocity(cube))
    low, high = drawn.get_clim()
    assert low == -high
    limit = np.nanpercentile(np.abs(cube.velocity) * 1e3, 98)
    assert high == pytest.approx(limit, rel=1e-6)
    red, _, blue, _ = drawn.to_rgba(np.array([high]))[0]
    assert blue > red
    red, _, blue, _ = drawn.to_rgba(np.array([low]))[0]
    assert red > blue
    np.testing.assert_allclose(drawn.get_array(), cube.velocity * 1e3)


def test_phase_is_red_away_from_the_satellite(cube):
    drawn = image(plot.plot_pair(cube, 0))
    red, _, blue, _ = drawn.to_rgba(np.array([drawn.get_clim()[1]]))[0]
    assert red > blue


def test_pair_is_zero_at_the_reference_and_on_one_scale(cube):
    figure = plot.plot_pair(cube, 1)
    maps = [image(figure, k) for k in range(3)]
    assert len({m.get_clim() for m in maps}) == 1
    raw, corrected, difference = (np.ma.filled(m.get_array(), np.nan) for m in maps)
    assert abs(np.nanmean(raw[8:16, 0:8])) < 1e-4
    np.testing.assert_allclose(raw, corrected, atol=1e-4)  # differ by a constant
    np.testing.assert_allclose(np.nan_to_num(difference), 0, atol=1e-4)


def test_pair_without_correction_and_without_reference(cube):
    raw = cube[["unwrapped_phase"]].assign_attrs(cube.attrs)
    figure = plot.plot_pair(raw, 0)
    assert "not corrected" in figure.get_suptitle()
    assert abs(np.ma.median(image(figure).get_array())) < 1e-4


def test_axes_kilometres_units_and_reference(cube):
    axis, bar = plot.plot_velocity(cube).axes
    assert "mm/yr" in bar.get_ylabel()
    assert axis.get_xlabel() == "x (km)" and axis.get_aspect() == 1
    assert axis.get_xlim() == pytest.approx((500, 504.8))
    assert axis.get_ylim() == pytest.approx((2000, 2004.8))
    square = axis.patches[0]
    assert square.get_x() == pytest.approx(500.0)
    assert square.get_y() + square.get_height() == pytest.approx(2004.0)


def test_axes_degrees():
    y, x = 60 - 0.01 * np.arange(20), 10 + 0.01 * np.arange(30)
    coords = {
        "y": ("y", y, {"units": "degrees_north"}),
        "x": ("x", x, {"units": "degrees_east"}),
    }
    values = np.random.default_rng(0).normal(size=(20, 30)).astype("f4")
    cube = xr.Dataset({"velocity": (("y", "x"), values)}, coords)
    axis = plot.plot_velocity(cube).axes[0]
    assert axis.get_xlabel() == "longitude (°)"
    assert axis.get_aspect() == pytest.approx(1 / np.cos(np.deg2rad(59.905)), rel=1e-3)


def test_big_maps_are_thinned():
    values = np.zeros((10, 3200), "float32")
    map_ = xr.DataArray(values, dims=("y", "x"))
    figure = plot.plot_maps({"": map_}, label="m")
    assert image(figure).get_array().shape == (4, 1067)
    assert figure.axes[0].get_xlim() == (-0.5, 3199.5)


def test_maps_without_data_can_be_drawn(cube, tmp_path):
    empty = cube.assign(
        velocity=cube.velocity * np.nan, velocity_std=cube.velocity * np.nan
    )
    for figure in (plot.plot_velocity(empty), plot.plot_uncertainty(empty)):
        plot.save_figure(figure, tmp_path / "x.png")
    pair = cube.assign(unwrapped_phase=cube.unwrapped_phase * np.nan)
    plot.save_figure(plot.plot_pair(pair, 0), tmp_path / "x.png")
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def lines(figure):
    return next(c for c in figure.axes[0].collections if isinstance(c, LineCollection))


def test_network_recovers_the_baselines_of_dates(cube):
    drawn = lines(plot.plot_network(cube))
    heights = np.array([s[1, 1] - s[0, 1] for s in drawn.get_segments()])
    np.testing.assert_allclose(heights, cube.perpendicular_baseline, atol=1e-3)
    mean = cube.coherence.mean(("y", "x"))
    np.testing.assert_allclose(drawn.get_array(), mean, rtol=1e-4)


@pytest.mark.parametrize("known", [0, 2])
def test_network_with_unknown_baselines(cube, known, tmp_path):
    baseline = cube.perpendicular_baseline.where(
        cube.perpendicular_baseline.pair < known
    )
    figure = plot.plot_network(cube.assign_coords(perpendicular_baseline=baseline))
    assert np.isfinite(lines(figure).get_segments()).all()
    assert len(lines(figure).get_segments()) == cube.sizes["pair"]
    if known:
        assert "unknown" in figure.axes[0].get_legend().get_texts()[0].get_text()
    else:
        assert "unknown" in figure.axes[0].get_ylabel()
    plot.save_figure(figure, tmp_path / "network.png")


def test_network_without_coherence(cube):
    bare = cube.drop_vars("coherence")
    assert len(lines(plot.plot_network(bare)).get_segments()) == cube.sizes["pair"]


def test_series_of_the_pixel_asked_for(cube):
    y, x = float(cube.y[7]) + 30, float(cube.x[3]) - 30  # inside the pixel
    axis = plot.plot_series(cube, y, x).axes[0]
    points = axis.lines[-1].get_ydata()
    np.testing.assert_allclose(points, cube.displacement[:, 7, 3] * 1e3, rtol=1e-5)
    assert (
        f"{float(cube.velocity[7, 3]) * 1e3:.1f} ±"
        in axis.get_legend_handles_labels()[1][0]
    )


def test_what_cannot_be_drawn(cube):
    with pytest.raises(ValueError, match="outside the cube"):
        plot.plot_series(cube, 0, 0)
    with pytest.raises(ValueError, match="must be 0 to"):
        plot.plot_pair(cube, -1)
    with pytest.raises(ValueError, match=r"no 'velocity'.*invert"):
        plot.plot_velocity(cube.drop_vars("velocity"))
    with pytest.raises(ValueError, match="is not in the cube"):
        plot.find_pair(cube, "20200101-20200113")
    assert plot.find_pair(cube, "20230105-20230117") == plot.find_pair(cube, "0") == 0


def test_no_global_state():
    assert "matplotlib.pyplot" not in vars(plot).values()
    assert matplotlib.get_backend() is not None
