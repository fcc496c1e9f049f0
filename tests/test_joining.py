"""Frames joined: against truth, dense least squares, and themselves cut otherwise."""

import dataclasses
import re

import numpy as np
import pytest
import xarray as xr
from dense_joining import Equation, covariance
from odc.geo.crs import CRS

import cube_denoise as cd
from cube_denoise import archive
from cube_denoise.conventions import los_unit_vector
from cube_denoise.joining import mosaic, noise
from cube_denoise.joining.decompose import Seen, centres, decompose
from cube_denoise.joining.frames import frame_of_dataset, read_frames
from cube_denoise.joining.ground import Plate, Stations
from cube_denoise.joining.ground_files import read_ground
from cube_denoise.joining.join import join
from cube_denoise.joining.lattice import Lattice, summarise
from cube_denoise.joining.offsets import solve_offsets
from cube_denoise.joining.seams import step_over_std
from cube_denoise.point_series import point_series
from cube_denoise.simulate.frames import simulate_frames

SMALL = {"tracks": 4, "per_track": 3, "size": (60, 50), "stations": 15}
EXACT = {"white": 0.0, "correlated": 0.0, "station_std": (1e-6, 1e-6, 1e-6)}


def frames_of(scene):
    return [frame_of_dataset(d, name=n) for n, d in scene.frames.items()]


@pytest.fixture(scope="module")
def scene():
    return simulate_frames(seed=3, **SMALL)


@pytest.fixture(scope="module")
def joined(scene):
    return join(frames_of(scene), ground=Stations(scene.stations))


@pytest.fixture(scope="module")
def product(joined):
    return joined.product.compute()


def test_offsets_are_found_within_their_errors(scene, joined):
    found = np.array([t.offset for t in joined.ties])
    true = np.array([scene.errors[t.frame][0] for t in joined.ties])
    std = np.array([t.offset_std for t in joined.ties])
    assert np.std(true) > 5 * np.std(found - true)
    assert np.abs((found - true) / std).max() < 4
    assert 0.3 < np.sqrt(np.mean(((found - true) / std) ** 2)) < 2


def test_velocity_against_truth(scene, product):
    for name in ("east", "up"):
        error = (product.velocity.sel(component=name) - scene.truth[name]).values
        std = product.velocity_std.sel(component=name).values
        there = np.isfinite(error)
        assert there.mean() > 0.6
        # Of 68 %; somewhat more, since pixels share noise with their offsets.
        assert 0.63 < np.mean(np.abs(error[there]) < std[there]) < 0.78, name
        # Without joining, offsets of 10 mm/yr would be in it.
        assert np.sqrt(np.mean(error[there] ** 2)) < 3e-3


@pytest.mark.parametrize("alike", [0.0, 1.0])
def test_noise_that_frames_of_a_track_share_is_not_averaged_away(alike):
    """What two frames of one track say is no surer than what one of them says."""
    covered = []
    for seed in (1, 2, 3):
        scene = simulate_frames(seed=seed, **SMALL, alike=alike)
        product = join(
            frames_of(scene), ground=Stations(scene.stations)
        ).product.compute()
        twice = xr.zeros_like(product.frame_count, dtype=bool)
        for track in ("A001", "D002", "A003", "D004"):
            count = xr.zeros_like(product.frame_count)
            for frame in scene.frames.values():
                if frame.attrs["track"] == track:
                    count.loc[{"y": frame.y, "x": frame.x}] += 1
            twice |= count > 1
        error = abs(
            product.velocity - scene.truth[["east", "up"]].to_array("component")
        )
        inside = (error < product.velocity_std).where(np.isfinite(error) & twice)
        covered.append(float(inside.mean()))
    # Of 68 %; more where the noise is not shared, never much less.
    assert np.mean(covered) > 0.64
    assert alike < 1 or np.mean(covered) < 0.73


def test_more_than_64_frames_in_a_block():
    scene = simulate_frames(seed=1, tracks=2, per_track=35, size=(8, 6), stations=30)
    found = join(frames_of(scene), ground=Stations(scene.stations)).product.compute()
    count = xr.zeros_like(found.frame_count)
    for frame in scene.frames.values():
        count.loc[{"y": frame.y, "x": frame.x}] += 1
    np.testing.assert_array_equal(found.frame_count, count)
    both = np.isfinite(found.velocity.sel(component="up").values)
    assert both.all(axis=1).sum() == 0 and both.any(axis=1).all()
    error = (found.velocity.sel(component="east") - scene.truth.east).values[both]
    assert np.sqrt(np.mean(error**2)) < 5e-3


def test_offsets_are_as_sure_as_stated_where_noise_is_alike_over_60_km():
    """Taken as independent, the same cells make them surer by a factor of three."""
    lattice, squares = Lattice(CRS("EPSG:32637")), []
    for seed in range(4):
        scene = simulate_frames(seed=seed, **SMALL, length=60e3)
        summaries = [summarise(f, lattice) for f in frames_of(scene)]
        found = solve_offsets(summaries, lattice, ground=Stations(scene.stations))
        for k, name in enumerate(found.names):
            offset, std = found.level(k)
            squares.append(((offset - scene.errors[name][0]) / std) ** 2)
    assert 0.7 < np.sqrt(np.mean(squares)) < 1.4


def test_what_blocks_of_equations_share_is_in_the_covariance(scene, monkeypatch):
    """Solved in blocks of two cells, it is that of the same weights, all in one."""
    monkeypatch.setattr(noise, "WIDEST", 2)
    monkeypatch.setattr(noise, "MOST", 1)
    lattice = Lattice(CRS("EPSG:32637"))
    summaries = [summarise(f, lattice) for f in frames_of(scene)]
    found = solve_offsets(summaries, lattice, ground=Stations(scene.stations))
    inflation = np.array([r.inflation for r in found.rows])
    every = range(len(found.rows))
    whole = noise.stacked(found.rows, found.tracks, lattice, every)
    covariance = noise.errors(whole, found.noise, inflation)
    weights = np.zeros_like(covariance)
    first = np.cumsum([0] + [r.values.size for r in found.rows])
    for block in noise.blocks_of(found.rows, found.tracks, lattice):
        at = np.concatenate([np.arange(first[k], first[k + 1]) for k in block.rows])
        weights[np.ix_(at, at)] = np.linalg.inv(covariance[np.ix_(at, at)])
    left = np.linalg.inv(whole.design.T @ weights @ whole.design) @ whole.design.T
    gain = left @ weights
    np.testing.assert_allclose(
        found.covariance, gain @ covariance @ gain.T, rtol=1e-6, atol=1e-12
    )
    apart = np.linalg.inv(whole.design.T @ weights @ whole.design)
    assert np.diag(found.covariance).mean() > 1.02 * np.diag(apart).mean()


def test_how_far_noise_is_alike_is_found():
    lengths, told = [], []
    for length in (5e3, 60e3):
        scene = simulate_frames(
            seed=100, tracks=4, per_track=2, size=(60, 50), pixel=3e3, length=length
        )
        product = join(frames_of(scene), ground=Stations(scene.stations)).product
        lengths.append(product.attrs["noise_length"])
        told.append(product.attrs["noise_length_from"])
    assert lengths[0] < 40e3 < 60e3 < lengths[1]
    assert told == ["residuals"] * 2
    few = [f for f in frames_of(scene) if f.name.startswith("001A")]
    attrs = join(few).product.attrs
    assert attrs["noise_length_from"].startswith("expectation (50 km)")
    assert attrs["noise_length"] == pytest.approx(50e3, rel=0.2)


def test_steps_at_seams(joined):
    before = np.sqrt(np.mean([s.before**2 for s in joined.seams]))
    after = np.sqrt(np.mean([s.after**2 for s in joined.seams]))
    assert after < before / 20
    assert step_over_std(joined.seams) < 1


def test_without_noise_the_components_are_exact():
    scene = simulate_frames(seed=5, **SMALL, **EXACT, offset_std=0.0)
    frames = frames_of(scene)
    found = join(frames, ground=Stations(scene.stations), north=True)
    # The offsets are nought; what is left is what the spline of north does not know.
    product = found.product.compute()
    north = product.velocity.sel(component="north") - scene.truth["north"]
    assert np.abs(north).max() < 1e-4
    for name in ("east", "up"):
        error = product.velocity.sel(component=name) - scene.truth[name]
        assert np.abs(error).max() < 5e-4, name


def dense_offsets(summaries, lattice, offsets, stations):
    """Offsets by one dense whitened least squares, from the sums of frames alone."""
    names = [s.name for s in summaries]
    equations, rows, right = [], [], []
    inflation = {
        (r.pairs, tuple(np.round(r.where, 3))): r.inflation for r in offsets.rows
    }
    for r in offsets.rows:
        assert r.inflation >= 1
    by_key = [
        dict(zip(s.keys.tolist(), range(s.keys.size), strict=True)) for s in summaries
    ]
    # Ties: the mean of the nine squares around each station.
    lon, lat = stations["longitude"].values, stations["latitude"].values
    x, y = lattice.of_degrees(lon, lat)
    for k in range(lon.size):
        row = np.floor(y[k] / lattice.step), np.floor(x[k] / lattice.step)
        used, values, looks, noise = [], [], [], []
        for f, s in enumerate(summaries):
            at = [
                by_key[f][key]
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
                if (
                    key := int(
                        lattice.keys(
                            np.array((row[1] + dx + 0.5) * lattice.step),
                            np.array((row[0] + dy + 0.5) * lattice.step),
                        )
                    )
                )
                in by_key[f]
            ]
            if at:
                used.append(f)
                values.append(s.velocity[at].mean())
                looks.append(s.look[at].mean(0))
                noise.append(s.variance[at].mean())
        if not used:
            continue
        g = [float(stations[n][k]) for n in ("east", "north", "up")]
        std = [float(stations[f"{n}_std"][k]) for n in ("east", "north", "up")]
        key = (tuple((f, -1) for f in used), tuple(np.round((x[k], y[k]), 3)))
        for f, value, look, variance in zip(used, values, looks, noise, strict=True):
            equations.append(
                Equation(
                    "ties",
                    k,
                    (x[k] / 1e3, y[k] / 1e3),
                    {f: np.sqrt(variance)},
                    look * std,
                    inflation[key],
                )
            )
            rows.append(np.eye(len(names))[f])
            right.append(value - look @ g)
    # Overlaps: frames of one track see alike, so every pair of a cell is by itself.
    for r in offsets.rows:
        cell = lattice.cells(lattice.keys(*(np.array([v]) for v in r.where)))[0]
        for a, b in () if r.is_tie else r.pairs:
            shared = [
                k
                for k in by_key[a].keys() & by_key[b].keys()
                if lattice.cells(np.array([k]))[0] == cell
            ]
            i, j = [by_key[a][k] for k in shared], [by_key[b][k] for k in shared]
            one, other = summaries[a], summaries[b]
            assert one.frame.track == other.frame.track
            noise = {
                f: sign * np.sqrt(summaries[f].variance[at].mean())
                for f, sign, at in ((a, 1, i), (b, -1, j))
            }
            equations.append(
                Equation(
                    "tracks",
                    len(equations),
                    (r.where[0] / 1e3, r.where[1] / 1e3),
                    noise,
                    np.zeros(3),
                    r.inflation,
                )
            )
            rows.append(np.eye(len(names))[a] - np.eye(len(names))[b])
            right.append((one.velocity[i] - other.velocity[j]).mean())
    tracks = [s.frame.track for s in summaries]
    root = np.linalg.cholesky(covariance(equations, offsets.noise, tracks))
    design, values = (np.linalg.solve(root, np.array(v)) for v in (rows, right))
    return np.linalg.lstsq(design, values)[0]


def test_offsets_equal_a_dense_solution():
    scene = simulate_frames(seed=11, tracks=2, per_track=4, size=(60, 50), stations=20)
    lattice = Lattice(CRS("EPSG:32637"))
    summaries = [summarise(f, lattice) for f in frames_of(scene)]
    offsets = solve_offsets(summaries, lattice, ground=Stations(scene.stations))
    expected = dense_offsets(summaries, lattice, offsets, scene.stations)
    assert any(not r.is_tie for r in offsets.rows)
    np.testing.assert_allclose(offsets.coefficients, expected, rtol=0, atol=1e-8)


def test_order_of_frames_and_windows_change_nothing(scene, joined, product):
    frames = frames_of(scene)
    again = join(frames[::-1], ground=Stations(scene.stations))
    assert [t.offset for t in again.ties] == [t.offset for t in joined.ties]
    part = again.product.isel(y=slice(31, 77), x=slice(40, 93)).compute()
    xr.testing.assert_identical(
        part, product.isel(y=slice(31, 77), x=slice(40, 93)).assign_attrs(part.attrs)
    )


def test_frames_one_at_a_time_equal_all_at_once(scene, joined):
    lattice, ground = Lattice(CRS("EPSG:32637")), Stations(scene.stations)
    summaries = []
    for frame in np.random.default_rng(0).permutation(
        np.array(frames_of(scene), object)
    ):
        summaries.append(summarise(frame, lattice))
        offsets = solve_offsets(summaries, lattice, ground=ground)
    told = dict(zip(offsets.names, offsets.coefficients, strict=True))
    assert told == {t.frame: t.offset for t in joined.ties}


def test_ramps_are_found():
    scene = simulate_frames(seed=8, **SMALL, ramp_std=5e-3, white=5e-4)
    ground = Stations(scene.stations)
    errors = []
    for order in (0, 1):
        found = join(frames_of(scene), ground=ground, order=order)
        up = found.product.velocity.sel(component="up").compute()
        errors.append(float(np.sqrt(np.mean((up - scene.truth["up"]) ** 2))))
    assert errors[1] < 0.8 * errors[0]


def test_a_single_frame_keeps_its_pixels(scene):
    name, frame = next(iter(scene.frames.items()))
    found = join([frame_of_dataset(frame, name=name)]).product.compute()
    assert found["component"].values.tolist() == ["los"]
    np.testing.assert_array_equal(found.velocity[0], frame.velocity)
    np.testing.assert_array_equal(found.los_east, frame.los_east)
    assert (found.frame_count == 1).all()


def test_frames_of_one_side_give_the_velocity_along_the_mean_look():
    """Looks of two tracks differ: their mean is no unit vector."""
    look = np.stack([los_unit_vector(angle, -12.0) for angle in (25.0, 45.0)])
    motion = np.array([0.1, 0.02, -0.05])
    variance = np.array([1e-6, 3e-6])
    seen = Seen(
        (look @ motion).reshape(2, 1, 1),
        variance.reshape(2, 1, 1),
        look.reshape(2, 3, 1, 1),
        np.ones((2, 1, 1, 1)),
        np.array(["A001", "A002"]),
    )
    found = decompose(seen, np.zeros((2, 2)), components=("los",), north=None)
    along = found.look[:, 0, 0]
    assert np.linalg.norm(along) == pytest.approx(1)
    assert found.values.item() == pytest.approx(along @ motion, rel=1e-6)
    weights = variance**-1 / (variance**-1).sum()
    length = np.linalg.norm(weights @ look)
    assert length < 0.99
    np.testing.assert_allclose(weights @ look / length, along, rtol=1e-6)
    expected = 1 / (variance**-1).sum() / length**2
    assert found.covariance.item() == pytest.approx(expected)


def test_two_looks_give_the_covariance_of_the_textbook(scene):
    """Without errors of offsets, the covariance is that of solving two equations."""
    a, d = (
        next(f for n, f in scene.frames.items() if n.startswith(p))
        for p in ("001A", "002D")
    )
    common = a.indexes["x"].intersection(d.indexes["x"])
    frames = [
        frame_of_dataset(f.sel(x=common), name=n) for n, f in (("a", a), ("d", d))
    ]
    found = join(frames).product.isel(y=5, x=5).compute()
    at = {"x": common[5], "y": a.y[5]}
    looks = np.array(
        [[float(f.sel(at)[n]) for n in ("los_east", "los_up")] for f in (a, d)]
    )
    sigma = float(a.velocity_std[0, 0])
    inverse = np.linalg.inv(looks)
    expected = sigma**2 * inverse @ inverse.T
    terms = found.velocity_covariance.values
    np.testing.assert_allclose(terms, expected[[0, 0, 1], [0, 1, 1]], rtol=1e-4)
    singular = np.linalg.svd(looks, compute_uv=False)
    np.testing.assert_allclose(
        found.condition_number, singular[0] / singular[1], rtol=1e-5
    )


def test_a_plate_turns_about_its_pole():
    lon, lat = np.array([30.0, -70.0]), np.array([40.0, 10.0])
    values, _ = Plate(30.6, -25.7, 0.37, 1e-3).at(lon, lat)

    def unit(longitude, latitude):
        a, b = np.radians(longitude), np.radians(latitude)
        return np.array([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)])

    for k in range(2):
        omega = np.radians(0.37) / 1e6 * unit(-25.7, 30.6)
        velocity = np.cross(omega, 6_371_000.0 * unit(lon[k], lat[k]))
        a, b = np.radians([lon[k], lat[k]])
        east = velocity @ [-np.sin(a), np.cos(a), 0]
        north = velocity @ [-np.sin(b) * np.cos(a), -np.sin(b) * np.sin(a), np.cos(b)]
        np.testing.assert_allclose(values[k], [east, north, 0], atol=1e-12)


def test_frames_smaller_than_the_spacing_of_points_are_tied_to_a_plate():
    scene = simulate_frames(
        seed=1, tracks=2, per_track=1, size=(60, 60), pixel=500.0, white=2e-4
    )
    lattice = Lattice(CRS("EPSG:32637"))
    plate = Plate(50.4, -1.1, 0.6, 1e-4)
    for frame in scene.frames.values():
        lon, lat = lattice.degrees(*np.meshgrid(frame.x.values, frame.y.values))
        moved = plate.at(lon, lat)[0]
        looks = [frame[f"los_{n}"].values for n in ("east", "north", "up")]
        frame["velocity"].values[:] = 0.03 + sum(
            look * moved[..., k] for k, look in enumerate(looks)
        )
    found = join(frames_of(scene), ground=plate)
    assert [t.points for t in found.ties] == [1, 1]
    for tie in found.ties:
        assert tie.offset == pytest.approx(0.03, abs=1e-4)
        assert tie.offset_std > 2e-4


def test_a_moving_plate_does_not_become_vertical():
    """All ground moves with a plate; the looks change along the swath, up must not."""
    scene = simulate_frames(seed=2, **SMALL, **EXACT)
    lattice = Lattice(CRS("EPSG:32637"))
    plate = Plate(54.2, -98.8, 0.63, 1e-4)
    for frame in scene.frames.values():
        lon, lat = lattice.degrees(*np.meshgrid(frame.x.values, frame.y.values))
        moved = plate.at(lon, lat)[0]
        looks = [frame[f"los_{n}"].values for n in ("east", "north", "up")]
        frame["velocity"].values[:] = sum(
            look * moved[..., k] for k, look in enumerate(looks)
        )
    found = join(frames_of(scene), ground=plate).product.compute()
    assert np.abs(found.velocity.sel(component="up")).max() < 1e-5
    assert np.abs(found.velocity.sel(component="east")).max() > 0.01


def test_cubes_of_an_archive(small_cube, tmp_path):
    url = tmp_path / "cube"
    cd.ingest_dataset(cd.open_cube(small_cube), url, chunk=32, shard=64)
    with pytest.raises(ValueError, match="must be inverted"):
        read_frames([url])
    cd.invert_cube(url)
    archive.add(tmp_path / "archive", "one", url)
    (frame,) = read_frames([tmp_path / "archive"])
    cube = cd.open_cube(url)
    assert (frame.name, frame.track) == ("one", cube.attrs["track"])
    product = join([frame]).product.compute()
    np.testing.assert_allclose(product.velocity[0], cube.velocity, atol=1e-7)
    (told,) = product.attrs["frames"]
    assert told["url"] == str(url)
    west, south, east, north = told["bbox"]
    assert west < east and south < north
    series = point_series(product, (west + east) / 2, (south + north) / 2)
    assert list(series) == ["one"]
    assert series["one"].sizes["time"] == cube.sizes["time"]
    assert told["pair_count"] == cube.sizes["pair"]
    dates = product.first_date.values
    assert set(dates[~np.isnat(dates)].astype("M8[D]")) == {
        cube.time.values[0].astype("M8[D]")
    }


# What cannot be.


def test_frames_that_share_nothing_are_refused(scene, joined):
    held = {t.frame for t in joined.ties if t.points}
    track = next(t for t in ("001A", "002D") if {f"{t}_00000", f"{t}_00002"} <= held)
    frames = [
        f for f in frames_of(scene) if f.name in (f"{track}_00000", f"{track}_00002")
    ]
    with pytest.raises(ValueError, match=f"{track}_00002 share nothing .* GNSS"):
        join(frames)
    join(frames, ground=Stations(scene.stations))


def test_north_needs_both_sides(scene):
    frames = [f for f in frames_of(scene) if f.name.startswith("001A")]
    with pytest.raises(ValueError, match="north=True needs ascending and descending"):
        join(frames, ground=Stations(scene.stations), north=True)


def turned(frame, *names):
    class Turned:
        def read(self, window):
            return {
                n: -v if n in names else v for n, v in frame.maps.read(window).items()
            }

    return dataclasses.replace(frame, maps=Turned())


def test_looks_and_signs_turned_round_are_refused(scene):
    frames = frames_of(scene)
    looks = ("los_east", "los_north", "los_up")
    with pytest.raises(ValueError, match=r"001A_00000.*point down"):
        join([turned(frames[0], *looks), *frames[1:]])
    with pytest.raises(ValueError, match=r"one track.*different sides"):
        join([turned(frames[0], *looks[:2]), *frames[1:]])
    quiet = simulate_frames(seed=3, **SMALL, white=2e-4, correlated=0.0)
    frames = frames_of(quiet)
    with pytest.raises(ValueError, match=r"001A_00000 and .* sign of one"):
        join([turned(frames[0], "velocity"), *frames[1:]])


def test_units_are_not_mixed(scene):
    name, frame = next(iter(scene.frames.items()))
    wrong = frame.copy()
    wrong["velocity"] = (1e3 * frame.velocity).assign_attrs(units="mm/yr")
    with pytest.raises(ValueError, match=f"{name}.*unit 'mm/yr'.*'m year-1'"):
        frame_of_dataset(wrong, name=name)
    wrong["velocity"].attrs["units"] = "m year-1"
    with pytest.raises(ValueError, match=f"{name}.*m/yr, not in mm/yr"):
        join([frame_of_dataset(wrong, name=name)])


def test_ground_files(tmp_path):
    csv = tmp_path / "stations.csv"
    csv.write_text(
        "station,longitude,latitude,east,north,up,east_std\n"
        "A,30,40,1,2,3,0.5\nB,31,40,-1,2,,\nC,30,41,1,0,3,\n"
    )
    with pytest.raises(ValueError, match=r"unit.*--gnss-unit"):
        read_ground(csv)
    with pytest.raises(ValueError, match="gnss_unit='cm/yr' must be"):
        read_ground(csv, unit="cm/yr")
    found = read_ground(csv, unit="mm/yr").velocities
    np.testing.assert_allclose(found["east"], [1e-3, -1e-3, 1e-3])
    np.testing.assert_allclose(found["up"], [3e-3, 0, 3e-3])
    np.testing.assert_allclose(found["east_std"], [5e-4, 1e-3, 1e-3])
    with pytest.raises(ValueError, match="give one of them"):
        read_ground(csv, plate="30,20,0.5", unit="mm/yr")
    with pytest.raises(ValueError, match="plate='30,20' must be latitude"):
        read_ground(plate="30,20")
    with pytest.raises(ValueError, match="cannot be read"):
        read_ground(tmp_path / "absent.csv")
    # MIDAS: name, label, first, last, years, counts, e n u, their errors, ...
    line = (
        "{} MIDAS5 2010.0 2020.0 10.0 3600 3500 9000 0.001 0.002 -0.003 0.0002 0.0003 "
        "0.0009 0 0 0 0.1 0.1 0.1 0.01 0.01 0.01 0 {} {} 1000.0\n"
    )
    midas = tmp_path / "midas.txt"
    midas.write_text(
        "".join(
            line.format(n, lat, lon)
            for n, lat, lon in zip(
                "ABC", (40.5, 41.0, 40.5), (-330.0, 31.0, 32.0), strict=True
            )
        )
    )
    found = read_ground(midas).velocities
    np.testing.assert_allclose(found["longitude"], [30, 31, 32])
    np.testing.assert_allclose(found["latitude"], [40.5, 41, 40.5])
    np.testing.assert_allclose(found["up"], -0.003)
    np.testing.assert_allclose(found["up_std"], 0.0009)
    midas.write_text(line.format("A", 40.5, 30.0) + "B cut short\n")
    with pytest.raises(ValueError, match="line 2: 3 columns"):
        read_ground(midas)


# How a block is computed changes nothing.


def test_parts_of_a_block_change_nothing(scene, product, monkeypatch):
    monkeypatch.setattr(mosaic, "LAYERS", 0.05)
    frames = frames_of(scene)
    assert mosaic._side(frames, frames[0].grid) < min(frames[0].grid.shape)
    again = join(frames, ground=Stations(scene.stations)).product.compute()
    xr.testing.assert_identical(again, product)


def test_a_coarse_product_reads_frames_a_window_at_a_time(scene, monkeypatch):
    """Not a whole frame, however many of its pixels a block holds."""
    monkeypatch.setattr(mosaic, "READ", 500)
    name, data = next(iter(scene.frames.items()))
    rows, columns = (np.repeat(np.arange(data.sizes[d]), 20) for d in ("y", "x"))
    fine = data.isel(y=rows, x=columns).assign_coords(
        x=data.x[0].item() + 50.0 * np.arange(columns.size),
        y=data.y[0].item() - 50.0 * np.arange(rows.size),
    )
    frame = frame_of_dataset(fine, name=name)
    sizes = []

    class Watched:
        def read(self, window):
            sizes.append(max(s.stop - s.start for s in window.values()))
            return frame.maps.read(window)

    watched = dataclasses.replace(frame, maps=Watched())
    found = join([watched], resolution=1000.0).product
    sizes.clear()
    found.velocity.compute()
    assert max(sizes) <= 1.1 * mosaic.READ < max(frame.grid.shape) / 2


def test_the_spline_at_nodes_is_that_at_pixels(scene):
    """Whatever the window, and within 0.1 mm/yr of the spline."""
    ground = Stations(scene.stations)
    whole = next(iter(scene.frames.values())).odc.geobox.zoom_to(resolution=200.0)
    values, std = mosaic._north(ground, whole)
    part = mosaic._north(ground, whole[37:90, 120:200])
    np.testing.assert_array_equal(part[0], values[37:90, 120:200])
    np.testing.assert_array_equal(part[1], std[37:90, 120:200])
    lattice = Lattice(whole.crs)
    told, spread = ground.at(*lattice.degrees(*centres(whole)))
    np.testing.assert_allclose(values, told[..., 1], atol=1e-4)
    np.testing.assert_allclose(std, spread[..., 1], atol=1e-4)


def test_what_velocities_are_relative_to_is_told(scene):
    frames = frames_of(scene)
    for ground, words in (
        (None, "nothing: the level"),
        (Stations(scene.stations), "15 GNSS stations"),
        (
            Plate(30.5, -25.0, 0.37, 1e-3),
            "0.37 degrees .* latitude 30.5, longitude -25",
        ),
    ):
        assert re.search(words, join(frames, ground=ground).product.attrs["tied_to"])


def test_a_crs_is_named_in_short(scene):
    with pytest.raises(ValueError, match=r"rasters are in EPSG:32637$"):
        join(frames_of(scene), crs="EPSG:4326")
