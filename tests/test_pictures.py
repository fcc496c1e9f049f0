"""Pictures of an evaluation: what is in them, signs and scales; not their pixels."""

import numpy as np
import pytest
from judged import METHODS, judged, with_zero
from matplotlib.collections import EllipseCollection

from cube_denoise.evaluate import (
    detection_pictures,
    injection_pictures,
    pictures,
    station_pictures,
)
from cube_denoise.evaluate.recovery import by_kind, smallest_detectable


@pytest.fixture(scope="module")
def evaluation():
    return judged()


def drawn(figure, tmp_path):
    path = tmp_path / "x.png"
    figure.savefig(path, dpi=60, bbox_inches="tight")
    assert path.stat().st_size > 5000
    return figure


def maps_of(figure):
    return [axis for axis in figure.axes if axis.images]


def test_velocities_are_on_one_scale_and_blue_toward(evaluation, tmp_path):
    figure = drawn(pictures.plot_velocities(evaluation), tmp_path)
    axes = maps_of(figure)
    assert [a.get_title() for a in axes] == ["truth", *METHODS]
    images = [a.images[0] for a in axes]
    (limits,) = {i.get_clim() for i in images}
    assert limits[0] == -limits[1]
    raw = evaluation.verdicts[0].maps["velocity"].values * 1e3
    np.testing.assert_allclose(images[1].get_array(), raw, rtol=1e-5)
    area = np.ma.filled(images[0].get_array(), np.nan)[0:8, 0:8]
    assert abs(np.nanmean(area)) < 1e-3 * limits[1]
    red, _, blue, _ = images[0].to_rgba(np.array([limits[1]]))[0]
    assert blue > red
    assert "mm/yr" in figure.axes[-1].get_ylabel()


def test_errors_have_the_rms_of_the_table(evaluation, tmp_path):
    figure = drawn(pictures.plot_velocity_errors(evaluation), tmp_path)
    for axis, verdict in zip(maps_of(figure), evaluation.verdicts, strict=True):
        error = verdict.scores["velocity rms error"]
        assert axis.get_title() == f"{verdict.method}: rms {error:.1f}"


def test_structure_and_held_out_hold_what_was_found(evaluation, tmp_path):
    figure = drawn(pictures.plot_structure(evaluation), tmp_path)
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == METHODS
    known = evaluation.verdicts[2].structure.dropna("distance")
    np.testing.assert_allclose(lines[2].get_ydata(), known)
    assert len(known) > 5
    figure = drawn(pictures.plot_held_out(evaluation), tmp_path)
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == METHODS
    large = [line for line in axis.lines if line.get_markersize() == 10]
    ratios = [v.held_out.ratio for v in evaluation.verdicts]
    np.testing.assert_allclose([line.get_xdata()[0] for line in large], ratios)
    assert any("no better than no motion" in t.get_text() for t in axis.texts)


@pytest.mark.parametrize("demeaned", [False, True])
def test_stations_show_the_misfit_of_the_others(evaluation, tmp_path, demeaned):
    figure = drawn(
        station_pictures.plot_stations(evaluation, demeaned=demeaned), tmp_path
    )
    for axis, verdict in zip(figure.axes, evaluation.verdicts, strict=True):
        points = np.concatenate(
            [np.transpose(line.get_data()) for line in axis.lines[1:]]
        )
        assert len(axis.lines) == 4  # 1:1 and three stations without the reference
        gnss, radar = points.T
        if demeaned:
            dates = len(axis.lines[1].get_xdata())
            per_date = (radar - gnss).reshape(3, dates)
            np.testing.assert_allclose(np.nanmean(per_date, 0), 0, atol=1e-9)
            misfit = verdict.scores["avg, mean removed"]
            found = np.nanmean(np.nanmean(np.abs(per_date), 1))
            assert found == pytest.approx(misfit, rel=1e-6)
            assert f"{misfit:.1f} mm" in axis.get_title()


def test_series_leave_out_the_reference_station(evaluation, tmp_path):
    figure = drawn(station_pictures.plot_station_series(evaluation), tmp_path)
    assert [a.get_title() for a in figure.axes] == ["BBBB", "CCCC", "DDDD"]


def test_slopes_are_medians_by_radius(evaluation, tmp_path):
    figure = drawn(injection_pictures.plot_slopes(evaluation, "steady"), tmp_path)
    assert len(figure.axes) == 4  # two shapes, two amplitudes
    own = [n for n in figure.axes[1].lines if n.get_marker() != "."]
    own = [n for n in own if len(set(n.get_ydata())) > 1 or n.get_ydata()[0] != 0]
    for k, verdict in enumerate(evaluation.verdicts):
        wanted = [
            np.nanmedian(r.slope)
            for r in verdict.recoveries
            if (r.case.shape, r.case.amplitude) == ("bowl", 0.1)
            and r.case.history == "steady"
        ]
        np.testing.assert_allclose(own[k].get_ydata(), wanted)


def test_recovered_maps_are_those_of_the_middle_amplitude(evaluation, tmp_path):
    figure = drawn(injection_pictures.plot_recovered(evaluation, "steady"), tmp_path)
    axes = maps_of(figure)
    assert len(axes) == 3 * 3  # injected and two methods; two bowls and a patch
    (limits,) = {a.images[0].get_clim() for a in axes}
    assert limits == (-100, 100)
    injected = axes[0].images[0].get_array()
    assert np.max(injected) == pytest.approx(100, rel=0.02)
    np.testing.assert_allclose(axes[3].images[0].get_array(), injected, atol=15)


def test_detectable_maps_show_every_source(evaluation, tmp_path):
    figure = drawn(
        detection_pictures.plot_detectable_maps(evaluation, "steady"), tmp_path
    )
    axes = maps_of(figure)
    assert len(axes) == 3 * 2
    group = next(iter(by_kind(evaluation.verdicts[0].recoveries).values()))
    (circles,) = (c for c in axes[0].collections if isinstance(c, EllipseCollection))
    assert len(circles.get_offsets()) == group[0].rows.size == 4
    widths = 2 * 300 / evaluation.spacing[1]
    np.testing.assert_allclose(circles.get_widths(), widths)
    least = 1e3 * smallest_detectable(group)
    told = {t.get_text() for t in axes[0].texts}
    wanted = {
        ">100" if np.isinf(v) else f"{v:.{0 if v >= 9.95 else 1}f}" for v in least
    }
    assert told == wanted


def test_signals_not_found_are_hollow(evaluation, tmp_path):
    lost = with_zero(evaluation)
    figure = drawn(detection_pictures.plot_detectable_maps(lost, "steady"), tmp_path)
    texts = [t.get_text() for t in maps_of(figure)[2].texts]
    assert set(texts) <= {">100", "no data"} and ">100" in texts
    figure = drawn(detection_pictures.plot_detectable(lost), tmp_path)
    lost = [n for n in figure.axes[0].lines if n.get_ydata()[0] == 1]
    hollow = [n for n in lost if n.get_markerfacecolor() == "none"]
    assert len(hollow) == 2  # a radius each
    for marker in hollow:
        assert marker.get_marker() == ">" and marker.get_xdata()[0] == 100


def test_colours_of_methods_do_not_depend_on_the_others():
    one, two = pictures.styles(["raw", "ramp"]), pictures.styles(["pca", "x", "ramp"])
    assert one["ramp"] == two["ramp"] and one["pca"] == two["pca"]
    assert one["raw"].color == "black"
    many = list(pictures.styles(f"m{k}" for k in range(5)).values())
    assert len(set(many)) == len(many)
