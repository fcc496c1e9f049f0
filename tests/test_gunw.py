"""ARIA's and NISAR's GUNW files in: order, signs, masks, look vectors; refusals."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from agency_products import (
    ARIA_CORNER,
    ARIA_STEP,
    COLUMNS,
    HEADING,
    INCIDENCE,
    ROWS,
    WAVELENGTH,
    incidence,
    pixels,
    put,
    ramp,
    write_aria,
    write_nisar,
)
from command_line import call, done, mistake

import cube_denoise as cd
from cube_denoise.aria import read_aria
from cube_denoise.catalog import from_item, resolve, to_item
from cube_denoise.conventions import los_unit_vector
from cube_denoise.nisar import read_nisar
from cube_denoise.products import find_products

SHAPES = ("--chunk", 16, "--shard", 32)


def cube_of(place: Path, folder: Path, *options: object) -> xr.Dataset:
    """By index, search and ingest, as a user would."""
    done("index", place, "-o", folder / "catalog.json", *options)
    done("search", folder / "catalog.json", "-o", folder / "items.json")
    done("ingest", folder / "items.json", folder / "cube", *SHAPES)
    return cd.open_cube(folder / "cube").load()


def test_aria_comes_in_turned_round(tmp_path: Path) -> None:
    """The raster is earlier minus later (positive if the range grew backward)."""
    phase, parts = ramp(), np.ones((ROWS, COLUMNS))
    phase[3, 4] = 0  # the file's no data
    parts[5:7, 8:11], parts[9, 9] = 0, -1
    write_aria(tmp_path / "in", "20200130", "20200124", phase=phase, components=parts)
    cube = cube_of(tmp_path / "in", tmp_path)
    expected = -phase
    expected[(phase == 0) | (parts <= 0)] = np.nan
    np.testing.assert_array_equal(cube.unwrapped_phase[0], expected)
    np.testing.assert_allclose(cube.coherence[0], 0.1 + ramp(1) / 10, rtol=1e-6)
    assert str(cube.reference_time.values[0])[:19] == "2020-01-24T13:51:56"
    assert str(cube.secondary_time.values[0])[:10] == "2020-01-30"
    assert float(cube.perpendicular_baseline[0]) == pytest.approx(-80, abs=1e-3)
    assert cube.attrs["track"] == "D071"
    assert cube.attrs["wavelength"] == WAVELENGTH
    corner = cube.odc.geobox.affine
    assert (corner.c, corner.f) == pytest.approx(ARIA_CORNER, abs=1e-9)
    assert corner.a == pytest.approx(ARIA_STEP) and cube.odc.crs.epsg == 4326


def test_look_vectors_of_aria(tmp_path: Path) -> None:
    """The mesh is linear in x, y and height, so that interpolation is exact."""
    write_aria(tmp_path / "in", "20200130", "20200124")
    cube = cube_of(tmp_path / "in", tmp_path)
    y, x = pixels()
    tilt = np.radians(incidence(x, y, np.zeros_like(x)))
    # Heading follows from the side: a right-looking satellite flies 90 degrees
    # clockwise, seen from above, of the direction from the ground to it.
    heading = HEADING - 0.5 * (x - 0.5) - 1.5 * (y - 0.5)
    course = np.radians(heading)
    expected = {
        "los_east": -np.sin(tilt) * np.cos(course),
        "los_north": np.sin(tilt) * np.sin(course),
        "los_up": np.cos(tilt),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(cube[name], values, atol=2e-6, err_msg=name)
    middle = los_unit_vector(INCIDENCE, HEADING)
    there = [float(cube[n].mean()) for n in expected]
    np.testing.assert_allclose(there, middle, atol=2e-3)
    assert there[0] > 0.6  # a descending satellite is in the east


def test_frames_of_other_extents_share_their_pixels(tmp_path: Path) -> None:
    write_aria(tmp_path / "in", "20200130", "20200124")
    write_aria(tmp_path / "in", "20200205", "20200130", columns_off=7)
    cube = cube_of(tmp_path / "in", tmp_path)
    assert cube.sizes["x"] == COLUMNS + 7
    np.testing.assert_array_equal(cube.unwrapped_phase[0, :, :COLUMNS], -ramp())
    np.testing.assert_array_equal(cube.unwrapped_phase[1, :, 7:], -ramp())
    assert np.isnan(cube.unwrapped_phase[1, :, :7]).all()


def test_frames_of_one_pass_are_not_mixed(tmp_path: Path) -> None:
    """They have the same track and dates: one is chosen by its name."""
    folder, beside = tmp_path / "in", "00120W_00036N"
    for dates in (("20200130", "20200124"), ("20200211", "20200130")):
        write_aria(folder, *dates)
        other = write_aria(tmp_path / "moved", *dates, columns_off=COLUMNS - 4)
        other.rename(folder / other.name.replace("00119W_00034N", beside))
    done("index", folder, "-o", tmp_path / "catalog.json")
    everything = ("search", tmp_path / "catalog.json", "-o", tmp_path / "items.json")
    done(*everything)
    told = mistake("ingest", tmp_path / "items.json", tmp_path / "cube")
    assert "two frames, which overlap by 13%" in told
    assert "cube_denoise:frame=00119W_00034N or 00120W_00036N" in told
    assert not (tmp_path / "cube").exists()
    done(*everything, "--filter", f"cube_denoise:frame={beside}")
    done("ingest", tmp_path / "items.json", tmp_path / "cube", *SHAPES)
    cube = cd.open_cube(tmp_path / "cube")
    west = ARIA_CORNER[0] + (COLUMNS - 4) * ARIA_STEP
    assert cube.odc.geobox.affine.c == pytest.approx(west, abs=1e-9)
    assert cube.sizes["pair"] == 2


def test_the_newer_version_of_a_product_is_kept(tmp_path: Path) -> None:
    """Whatever the part of its name between the frame and the version says."""
    newer = write_aria(tmp_path, "20200130", "20200124")
    for name in ("ffff-v3_0_0", "ffff-v2_0_10"):
        write_aria(tmp_path / "old", "20200130", "20200124").rename(
            tmp_path / newer.name.replace("913f-v3_0_1", name)
        )
    found, _ = find_products(tmp_path)
    assert len(found) == 3
    with pytest.warns(UserWarning, match="found 3 times"):
        assert [r.id for r in resolve(found)] == [newer.stem]


@pytest.mark.parametrize("later_first", [True, False])
def test_nisar_by_its_own_dates(later_first: bool, tmp_path: Path) -> None:
    dates = ("20251115", "20251103") if later_first else ("20251103", "20251115")
    parts = np.ones((ROWS, COLUMNS))
    parts[2, :5], parts[4, 4] = 0, 65535
    write_nisar(tmp_path / "in", *dates, components=parts)
    cube = cube_of(tmp_path / "in", tmp_path)
    sign = -1 if later_first else 1
    expected = sign * ramp()
    expected[(parts == 0) | (parts == 65535)] = np.nan
    np.testing.assert_array_equal(cube.unwrapped_phase[0], expected)
    assert str(cube.reference_time.values[0])[:19] == "2025-11-03T12:46:15"
    assert float(cube.perpendicular_baseline[0]) == sign * -50
    assert cube.attrs["track"] == "D077" and cube.odc.crs.epsg == 32611
    assert cube.attrs["wavelength"] == pytest.approx(0.23840, abs=1e-5)
    y, x = pixels()
    east, north = -0.62 + 0.02 * x, -0.11 + 0.02 * y
    np.testing.assert_allclose(cube.los_east, east, atol=1e-6)
    np.testing.assert_allclose(cube.los_north, north, atol=1e-6)
    up = np.sqrt(1 - east**2 - north**2)
    np.testing.assert_allclose(cube.los_up, up, atol=1e-6)


def test_records_survive_as_stac(tmp_path: Path) -> None:
    records = [
        read_aria(write_aria(tmp_path, "20200130", "20200124")),
        read_nisar(write_nisar(tmp_path, "20251103", "20251115")),
    ]
    for record in records:
        assert from_item(to_item(record)) == record


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def without(name: str):
    def drop(path: Path) -> None:
        with h5py.File(path, "a") as file:
            del file[name]

    return drop


def in_metres(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["/science/grids/data/unwrappedPhase"].attrs["units"] = "m"


PHASE = "/science/grids/data/unwrappedPhase"


def a_group(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file[PHASE]
        file.create_group(PHASE)


def text(path: Path) -> None:
    with h5py.File(path, "a") as file:
        values = file[PHASE][()].astype("S5")
        del file[PHASE]
        file[PHASE] = values


def nowhere(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["/science/grids/data/longitude"][0] = np.nan


BROKEN = {
    "group": (a_group, "unwrappedPhase of kind 'a group': must be numbers"),
    "text": (text, "unwrappedPhase of kind 'S': must be numbers"),
    "no place": (nowhere, "longitude .* must be evenly spaced"),
    "cut short": (cut, "cannot be read as HDF5; it may be cut short"),
    "no look": (without("/science/grids/imagingGeometry"), "lacks .*/incidenceAngle"),
    "no wavelength": (without("/science/radarMetaData"), "lacks .*/wavelength"),
    "no data": (without("/science/grids/data"), "lacks .*/unwrappedPhase"),
    "metres": (in_metres, "unwrappedPhase in 'm': must be in 'rad'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_product_is_left_out_and_told(kind: str, tmp_path: Path) -> None:
    """The good one beside it goes in; nothing else is lost."""
    spoil, told = BROKEN[kind]
    good = write_aria(tmp_path, "20200130", "20200124")
    bad = write_aria(tmp_path, "20200205", "20200130")
    spoil(bad)
    with pytest.raises(ValueError, match=told):
        read_aria(bad)
    found, unreadable = find_products(tmp_path)
    assert [r.id for r in found] == [good.stem] and list(unreadable) == [bad]
    result = call("index", tmp_path, "-o", tmp_path / "catalog.json")
    assert result.exit_code == 0 and f"left out {bad.name}" in result.output
    good.unlink()
    assert "no readable product" in mistake("index", tmp_path)


def test_packed_numbers_are_unpacked(tmp_path: Path) -> None:
    """CF's scale_factor and add_offset, of the phase and of the look mesh."""
    path = write_aria(tmp_path / "in", "20200130", "20200124")
    tilt = "/science/grids/imagingGeometry/incidenceAngle"
    with h5py.File(path, "a") as file:
        for name, factor, added in ((PHASE, 1e-3, 2.0), (tilt, 5e-3, 39.0)):
            stored = np.round((file[name][()] - added) / factor).astype("int16")
            unit = file[name].attrs.get("units")
            del file[name]
            put(file, name, stored, -32768)
            file[name].attrs["scale_factor"] = factor
            file[name].attrs["add_offset"] = np.array([added])
            if unit is not None:
                file[name].attrs["units"] = unit
        file[PHASE][3, 4] = -32768
    cube = cube_of(tmp_path / "in", tmp_path)
    expected = -ramp()
    expected[3, 4] = np.nan
    np.testing.assert_allclose(cube.unwrapped_phase[0], expected, atol=6e-4)
    assert np.isnan(cube.unwrapped_phase[0, 3, 4])
    y, x = pixels()
    up = np.cos(np.radians(incidence(x, y, np.zeros_like(x))))
    np.testing.assert_allclose(cube.los_up, up, atol=1e-4)


@pytest.mark.parametrize(("letter", "turn"), [("D", 180.0), ("A", 0.0)])
def test_a_flipped_look_vector_is_refused(letter: str, turn: float, tmp_path) -> None:
    path = write_aria(tmp_path, "20200130", "20200124", letter=letter, turn=turn)
    with pytest.raises(ValueError, match="the look vector may be flipped"):
        read_aria(path)
    other = write_nisar(tmp_path, "20251103", "20251115", east=-0.62)
    with pytest.raises(ValueError, match=r"in the west and above.* may be flipped"):
        read_nisar(other)


def test_an_ascending_azimuth_that_jumps_at_180(tmp_path: Path) -> None:
    """Angles on both sides of 180 degrees are not averaged to 0."""
    path = write_aria(tmp_path, "20200130", "20200124", letter="A", turn=191.8)
    name = "/science/grids/imagingGeometry/azimuthAngle"
    with h5py.File(path, "a") as file:  # -12 + 191.8 = 179.8, +- 1
        file[name][:] = (file[name][:] + 180) % 360 - 180
        assert np.ptp(file[name][:]) > 300
    cube = cube_of(path, tmp_path)
    y, x = pixels()
    angle = np.radians(179.8 + 0.5 * (x - 0.5) + 1.5 * (y - 0.5))
    tilt = np.radians(incidence(x, y, np.zeros_like(x)))
    np.testing.assert_allclose(cube.los_east, np.sin(tilt) * np.cos(angle), atol=3e-6)
    np.testing.assert_allclose(cube.los_north, np.sin(tilt) * np.sin(angle), atol=3e-6)


def test_products_of_all_kinds_in_one_folder(tmp_path: Path) -> None:
    """None is lost; what does not belong together, ingest and search tell apart."""
    write_aria(tmp_path / "in", "20200130", "20200124")
    write_nisar(tmp_path / "in" / "nisar", "20251103", "20251115")
    burst = "S1_136231_IW2_20200604_20200616_VV_INT80_12E3"
    (tmp_path / "in" / burst).mkdir()
    found, unreadable = find_products(tmp_path / "in")
    assert [r.track for r in found] == ["D077", "D071"]
    assert [Path(p).name for p in unreadable] == [burst]


def test_names_are_needed(tmp_path: Path) -> None:
    path = write_aria(tmp_path, "20200130", "20200124")
    renamed = path.rename(tmp_path / "interferogram.nc")
    assert "must be named as a product of ARIA" in mistake("index", renamed)
    gunw = write_nisar(tmp_path, "20251103", "20251115")
    with pytest.raises(ValueError, match=r"polarisations \['HH'\].* must be one"):
        read_nisar(gunw, polarisation="VV")
    with h5py.File(gunw, "a") as file:
        del file["/science/LSAR/identification/lookDirection"]
    with pytest.raises(ValueError, match=r"lacks .*/lookDirection"):
        read_nisar(gunw)
