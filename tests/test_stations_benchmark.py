"""The benchmark at GNSS stations: its metric, its bounds and its stacks."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from benchmarks import bhutan_gacos, mexico_city, real_stacks, station_stacks, stations
from benchmarks.station_scores import at_stations, lowered
from benchmarks.station_stacks import Source, StationStack, draw, turned
from cube_denoise.conventions import phase_to_displacement
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.seeds import split_seed
from cube_denoise.simulate.spectrum import Matern
from cube_denoise.simulate.turbulence import gaussian_fields

FOLDERS = (mexico_city.FOLDER, real_stacks.PERMIAN, bhutan_gacos.FOLDER)
DATES, SIDE, WAVELENGTH = 10, 32, 0.0555


@pytest.fixture(scope="module")
def source():
    """Ten fields of correlated noise, 5 mm, with relief."""
    fields = gaussian_fields(
        DATES + 1,
        (SIDE, SIDE),
        spacing=150.0,
        spectra=[Matern(0.005, 1500.0, 1.0)],
        generator=np.random.default_rng(3),
    ).astype("float32")
    bank = NoiseBank(
        "residual",
        None,
        fields[:DATES],
        np.arange("2020-01-01", "2020-01-11", dtype="datetime64[D]")[:, None],
        1e4 * fields[DATES],
        np.full((SIDE, SIDE), 0.8, "float32"),
        (150.0, 150.0),
        WAVELENGTH,
    )
    return Source("made up", bank, DATES, (SIDE, SIDE))


@pytest.fixture(scope="module")
def stack(source):
    return draw(source, 0.03, 0, split_seed("test", 1))


@pytest.fixture(scope="module")
def judged(stack):
    chosen = stations.methods(stack)
    names = (stations.RAW, stations.PERFECT, stations.ZERO)
    return stations.judge(stack, {name: chosen[name] for name in names}).found


def hand_made(gnss, moved, amplitude=0.01):
    """Stations in the middle of three patches of 5 x 5 pixels, which move as told, m.

    The first is the reference.
    """
    times = np.arange("2020-01-01", "2020-01-04", dtype="datetime64[D]")
    times = times.astype("datetime64[ns]")
    grid = GeoBox.from_bbox((0, 0, 1500, 500), crs="EPSG:32613", resolution=100)
    maps = np.repeat(np.array(moved, "float64").T, 5, 1)[:, None]
    truth = xr.DataArray(
        np.broadcast_to(maps, (3, 5, 15)),
        dims=("time", "y", "x"),
        coords={**xr_coords(grid), "time": times},
    )
    from pyproj import Transformer

    place = Transformer.from_crs("EPSG:32613", "EPSG:4326", always_xy=True)
    longitude, latitude = place.transform([250, 750, 1250], [250] * 3)
    series = np.array(gnss, "float64")
    found = xr.Dataset(
        {
            "los": (("station", "time"), series),
            "los_std": (("station", "time"), np.full_like(series, 0.001)),
        },
        {
            "station": ["Q1", "Q2", "M1"],
            "time": times,
            "longitude": ("station", longitude),
            "latitude": ("station", latitude),
        },
    )
    scene = SimpleNamespace(truth={"displacement": truth})
    return StationStack("case", 0, amplitude, scene, found), truth


def test_metric_of_a_case_made_by_hand(monkeypatch):
    """Less the reference and the mean over time: 0 and (-1, 0, 1), (-3, 0, 3) mm."""
    monkeypatch.setattr("benchmarks.station_scores.RADAR_DAYS", 0.0)
    gnss = [[0.005] * 3, [0.005, 0.006, 0.007], [0.0] * 3]
    moved = [[0, 0.001, 0.002], [0, 0.001, 0.002], [0.0, 0.004, 0.008]]
    stack, truth = hand_made(gnss, moved)
    found = at_stations(truth, stack)
    # Of Q2 the radar has 0 where GNSS has -1, 0, 1; of M1 -3, 0, 3 where GNSS has 0.
    assert found.by_station == pytest.approx({"Q2": 2 / 3, "M1": 2.0})
    assert found.misfit.avg == pytest.approx((2 / 3 + 2) / 2)
    assert found.misfit.avg_demeaned == pytest.approx(4 / 3)
    assert (found.error, found.slope) == pytest.approx((0, 1))
    assert np.isnan(found.alarm)
    half = at_stations(0.5 * truth, stack)
    assert half.slope == pytest.approx(0.5)
    assert half.by_station["M1"] == pytest.approx(1.0)
    assert half.error == pytest.approx(0.5)


def test_false_alarm_at_rest(monkeypatch):
    monkeypatch.setattr("benchmarks.station_scores.RADAR_DAYS", 0.0)
    stack, truth = hand_made(np.zeros((3, 3)), np.zeros((3, 3)), amplitude=0.0)
    seen = truth.copy(data=truth + 0.004 * (np.arange(15) >= 10))
    seen[0] = 0
    found = at_stations(seen, stack)
    # M1 has -8/3, 4/3, 4/3 mm; Q2 nothing.
    assert found.alarm == pytest.approx(8 / 3, rel=0.05)
    assert np.isnan(found.slope)


def gnss_at_dates(stack):
    """GNSS less the first station and its own mean, mm, without the package."""
    days = stack.stations["time"].values
    los = stack.stations["los"].transpose("station", "time").values
    near = [
        np.abs(days - d) <= np.timedelta64(3, "D")
        for d in stack.scene.truth["time"].values.astype("datetime64[ns]")
    ]
    mean = np.stack([los[:, n].mean(1) for n in near], 1)
    mean = mean[1:] - mean[0]
    return 1e3 * (mean - mean.mean(1, keepdims=True))


def test_zero_leaves_all_of_gnss(stack, judged):
    expected = np.abs(gnss_at_dates(stack)).mean()
    assert judged[stations.ZERO].misfit.avg == pytest.approx(expected, rel=1e-6)
    assert judged[stations.ZERO].slope == 0


def test_perfect_correction_leaves_the_noise_of_gnss(stack, judged):
    found = judged[stations.PERFECT]
    # Pairs in rad, stored in float32, solved and referenced to another place.
    assert found.error < 0.01
    assert found.slope == pytest.approx(1, abs=1e-3)
    moved = at_pixels(stack, stack.scene.truth["displacement"].values)
    noise = gnss_at_dates(stack) - moved
    assert found.misfit.avg == pytest.approx(np.abs(noise).mean(), rel=0.01)


def at_pixels(stack, series):
    """Medians of 5 x 5 pixels around stations, less the first and the mean, mm."""
    from pyproj import Transformer

    grid = stack.scene.truth["displacement"]
    place = Transformer.from_crs("EPSG:4326", str(grid.odc.crs), always_xy=True)
    east, north = place.transform(
        stack.stations["longitude"].values, stack.stations["latitude"].values
    )
    rows = np.abs(grid["y"].values[:, None] - north).argmin(0)
    columns = np.abs(grid["x"].values[:, None] - east).argmin(0)
    seen = np.stack(
        [
            np.nanmedian(
                series[:, max(r - 2, 0) : r + 3, max(c - 2, 0) : c + 3], (1, 2)
            )
            for r, c in zip(rows, columns, strict=True)
        ]
    )
    seen = 1e3 * (seen[1:] - seen[0])
    return seen - seen.mean(1, keepdims=True)


def test_raw_equals_least_squares_of_the_pairs(source, stack):
    """Without gaps, and with pixels alike in coherence: one matrix solves all."""
    full = draw_without_gaps(stack, source)
    found = stations.judge(full, {"raw": stations.uncorrected}).found["raw"]
    cube = full.scene.cube
    times = full.scene.truth["time"].values.astype("datetime64[ns]")
    design = np.zeros((cube.sizes["pair"], times.size))
    for sign, name in ((-1, "reference_time"), (1, "secondary_time")):
        at = np.searchsorted(times, cube[name].values)
        design[np.arange(len(at)), at] += sign
    pairs = phase_to_displacement(cube["unwrapped_phase"].values, WAVELENGTH)
    flat = pairs.reshape(len(pairs), -1).astype("float64")
    series = np.linalg.lstsq(design[:, 1:], flat, rcond=None)[0]
    series = np.concatenate([np.zeros((1, flat.shape[1])), series])
    seen = at_pixels(full, series.reshape(times.size, SIDE, SIDE))
    expected = np.abs(seen - gnss_at_dates(full)).mean()
    assert found.misfit.avg == pytest.approx(expected, rel=1e-3)
    moved = at_pixels(full, full.scene.truth["displacement"].values)
    assert expected > 2 * np.abs(gnss_at_dates(full) - moved).mean()


def draw_without_gaps(stack, source):
    """The stack with the pairs of its noise and truth, nothing missing."""
    cube, truth = stack.scene
    clean = stations.noise_free(
        cube.assign(unwrapped_phase=cube["unwrapped_phase"].fillna(0)), truth=truth
    )["corrected_phase"]
    noise = -4 * np.pi / WAVELENGTH * source.bank.fields
    times = truth["time"].values.astype("datetime64[ns]")
    early, late = (
        np.searchsorted(times, cube[n].values)
        for n in ("reference_time", "secondary_time")
    )
    phase = clean + (noise[late] - noise[early])
    full = cube.assign(
        unwrapped_phase=phase.astype("float32"), coherence=0 * cube["coherence"] + 0.8
    )
    full["coherence"] = full["coherence"].fillna(0.8)
    return stack._replace(scene=stack.scene._replace(cube=full))


def test_noise_of_gnss_is_as_stated(source):
    """2 mm a day along the line of sight, where nothing moves."""
    drawn = draw(source, 0.0, 0, split_seed("test", 4)).stations
    los = drawn["los"].values
    assert los.std() == pytest.approx(0.002, rel=0.2)
    assert drawn["los_std"].values == pytest.approx(0.002, rel=0.06)


def test_stations_lie_far_from_the_sources_and_on_them(stack):
    names = stack.stations["station"].values.tolist()
    assert names == ["Q1", "Q2", "Q3", "Q4", "M1", "M2", "M3", "M4"]
    truth = stack.scene.truth["displacement"]
    peak = np.abs(truth.values).max()
    assert peak == pytest.approx(0.03)
    largest = np.abs(1e-3 * at_every_station(stack)).max(1)
    assert largest[4:].min() >= 0.5 * peak
    quiet = np.quantile(np.abs(truth.values).max(0), 0.25)
    assert largest[:4].max() <= max(0.1 * peak, quiet) + 1e-3


def at_every_station(stack):
    """True displacement of the pixels of all stations, mm."""
    from cube_denoise.evaluate.stations import sample_at_stations

    truth = stack.scene.truth["displacement"]
    return 1e3 * sample_at_stations(truth, stack.stations, window=1).values


def test_turned_fields_are_the_same_fields(source):
    more = turned(source.bank)
    assert len(more.fields) == 8 * DATES
    assert len(np.unique(more.fields.reshape(8 * DATES, -1), axis=0)) == 8 * DATES
    for k in range(DATES):
        for field in more.fields[k::DATES]:
            assert np.array_equal(np.sort(field, None), np.sort(more.fields[k], None))
    assert not more.elevation.any()


def test_lowered_is_of_the_means():
    raw = np.array([4.0, 2.0, 6.0])
    assert lowered(np.array([1.0, 1.0, 4.0]), raw)[0] == pytest.approx(50)
    assert lowered(0.6 * raw, raw) == pytest.approx((40, 40, 40))
    assert lowered(raw, raw) == pytest.approx((0, 0, 0))
    value, low, high = lowered(np.array([1.0, 1.0, 4.0]), raw)
    assert low < value < high


def test_rows_as_they_are_written(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(station_stacks, "sources", lambda **_: iter([source]))
    path = tmp_path / "rows.json"
    made = stations.main(["--quick", "--out", str(path)])
    assert json.loads(path.read_text()) == [r.record for r in made]
    value = {(r.method, r.metric): r.value for r in made if r.case == "made up"}
    assert value["raw", "lowered"] == 0
    best = max(v for (m, k), v in value.items() if k == "lowered" and m != "truth")
    assert value["truth", "lowered"] > max(best, 40)
    assert value["truth", "false alarm"] < 0.01 < value["raw", "false alarm"]
    assert value["output zero", "slope above 20 mm"] == 0
    tables = [r for r in made if r.case.startswith("made up, stack")]
    assert len({(r.case, r.method) for r in tables}) == 2 * 7
    each = [r.value for r in tables if r.metric == "raw"]
    assert np.mean(each) == pytest.approx(value["raw", "mean"], rel=1e-9)
    printed = capsys.readouterr().out
    assert printed.count("M4") == 1
    assert "where raw has" in printed


@pytest.mark.skipif(
    not all(f.is_dir() for f in FOLDERS),
    reason=f"needs the data folders in {real_stacks.DATA}",
)
def test_real_noise_suffices_for_every_case():
    with pytest.warns(UserWarning, match="no elevation"):
        found = list(station_stacks.sources(quick=False))
    assert len(found) == 4
    for source in found:
        assert len(source.bank.fields) >= source.dates
        size = 1e3 * np.nanstd(source.bank.fields, (1, 2))
        assert 1 < np.median(size) < 20
