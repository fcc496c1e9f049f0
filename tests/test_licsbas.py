"""LiCSAR's and LiCSBAS's files in: values, places and signs; clear refusals."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from command_line import done, mistake
from hdf5_stacks import (
    BPERP,
    COLUMNS,
    DATES,
    FRAME,
    LOOK,
    NORTH,
    PAIRS,
    ROWS,
    STEP,
    WEST,
    series_values,
    stack_values,
    write_cumulative,
    write_licsar,
    write_licsbas,
    write_tif,
)

import cube_denoise as cd
from cube_denoise.catalog import from_item, to_item
from cube_denoise.licsbas import read_licsar, read_licsbas
from cube_denoise.products import find_products

CAMPI_FLEGREI = Path(__file__).parents[2] / "shared/data/campi-flegrei-licsbas"
needs_campi_flegrei = pytest.mark.skipif(
    not CAMPI_FLEGREI.is_dir(), reason=f"real data not found: {CAMPI_FLEGREI}"
)
SHAPES = ("--chunk", 16, "--shard", 32)


def cube_of(place: Path, folder: Path) -> xr.Dataset:
    done("index", place, "-o", folder / "catalog.json")
    done("ingest", folder / "catalog.json", folder / "cube", *SHAPES)
    return cd.open_cube(folder / "cube").load()


def check_stack(cube: xr.Dataset) -> None:
    phase, coherence = stack_values()
    expected = np.where(phase == 0, np.nan, phase)
    np.testing.assert_array_equal(cube.unwrapped_phase.values, expected)
    stored = np.round(255 * coherence)
    expected = np.where(stored == 0, np.nan, stored / 255)
    np.testing.assert_allclose(cube.coherence.values, expected, rtol=1e-6)
    for name, value in LOOK.items():
        layer = {"E": "los_east", "N": "los_north", "U": "los_up"}[name]
        np.testing.assert_allclose(cube[layer], value, rtol=1e-6)
    height = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    np.testing.assert_array_equal(cube.elevation, height)
    assert cube.attrs["track"] == "D021" and cube.odc.crs.epsg == 4326
    corner = cube.odc.geobox.affine
    np.testing.assert_allclose(corner[:6], (STEP, 0, WEST, 0, -STEP, NORTH), atol=1e-9)
    first = cube.reference_time.values[0].astype("datetime64[s]")
    assert str(first) == "2020-01-05T05:03:37"


@pytest.mark.parametrize("coherence", ["uint8", "float32"])
def test_interferograms_of_licsar(coherence, tmp_path):
    folder = write_licsar(tmp_path, coherence=coherence)
    cube = cube_of(folder, tmp_path)
    check_stack(cube)
    baseline = [BPERP[b] - BPERP[a] for a, b in PAIRS]
    np.testing.assert_allclose(cube.perpendicular_baseline, baseline)
    assert cube.attrs["heading"] == -169.9


@pytest.mark.parametrize("coherence", ["uint8", "float32"])
def test_flat_interferograms_of_licsbas(coherence, tmp_path):
    cube = cube_of(write_licsbas(tmp_path, coherence=coherence), tmp_path)
    check_stack(cube)
    assert np.isnan(cube.perpendicular_baseline).all()
    assert cube.attrs["wavelength"] == pytest.approx(0.0554658, abs=1e-7)


def test_scene_angles_stand_in_for_look_vectors(tmp_path):
    folder = write_licsar(tmp_path)
    (folder / f"{FRAME}.geo.N.tif").unlink()
    cube = cube_of(folder, tmp_path)
    np.testing.assert_allclose(cube.los_up, np.cos(np.radians(39.1)), rtol=1e-6)
    assert float(cube.los_east[0, 0]) > 0  # descending, looks west


def test_metadata_beside_the_folder(tmp_path):
    folder = write_licsar(tmp_path)
    metadata = folder.parent / "metadata"
    metadata.mkdir()
    for path in (*folder.glob("*.tif"), folder / "baselines", folder / "metadata.txt"):
        shutil.move(path, metadata)
    shutil.move(folder, folder.parent / "interferograms")
    record = read_licsar(folder.parent / "interferograms")[0]
    assert record.perpendicular_baseline == 40 and record.heading == -169.9
    assert {"elevation", "los_up"} <= set(record.assets)


@pytest.mark.parametrize("masked", [True, False])
def test_a_whole_frame_goes_in(masked, tmp_path):
    """With delays of GACOS, metadata and what LiCSBAS has made beside."""
    folder = write_licsbas(tmp_path) if masked else write_licsar(tmp_path)
    frame = folder.parent
    for date in DATES:
        delay = np.full((ROWS, COLUMNS), 2.3, "float32")
        write_tif(frame / "GACOS" / f"{date}.sltd.geo.tif", delay)
        write_tif(frame / "epochs" / date / f"{date}.geo.mli.tif", delay)
    if not masked:
        (frame / "metadata").mkdir()
        for name in ("baselines", "metadata.txt"):
            (folder / name).rename(frame / "metadata" / name)
    (frame / "TS_GEOCml1").mkdir()
    cube = cube_of(frame, tmp_path)
    check_stack(cube)
    depth = [BPERP[b] - BPERP[a] for a, b in PAIRS]
    np.testing.assert_allclose(
        cube.perpendicular_baseline, depth if not masked else np.nan
    )
    assert str(cube.reference_time.values[0])[11:19] == "05:03:37"
    (frame / "GEOCml2").mkdir()
    assert len(find_products(frame)[0]) == len(PAIRS)  # it is empty


def test_a_series_comes_back_from_its_pairs(tmp_path):
    path = write_cumulative(tmp_path)
    done("ingest", path, tmp_path / "cube", *SHAPES)
    cube = cd.open_cube(tmp_path / "cube")
    assert cube.attrs["wavelength"] == 0.0554657646
    corner = cube.odc.geobox.affine
    np.testing.assert_allclose(corner[:6], (STEP, 0, WEST, 0, -STEP, NORTH), atol=1e-9)
    assert (cube.elevation == 7).all()
    np.testing.assert_allclose(cube.perpendicular_baseline, np.diff(BPERP))
    reference = {"y": slice(20, 21), "x": slice(5, 6)}
    found = cd.invert(cube, reference=reference).compute()
    truth = series_values()
    truth = truth - truth[:, 20:21, 5:6]
    truth[:, :4, :7] = np.nan
    np.testing.assert_allclose(found.displacement, truth, atol=3e-8)
    assert float(found.velocity[20, 25]) > 0.05  # toward the satellite


def test_the_wavelength_of_a_file_alone_is_guessed_aloud(tmp_path):
    path = write_cumulative(tmp_path)
    shutil.rmtree(path.parent / "info")
    with pytest.warns(UserWarning, match="Sentinel-1"):
        records = read_licsbas(path)
    assert records[0].wavelength == 0.05546576


def test_records_survive_as_stac(tmp_path):
    records = [*read_licsar(write_licsar(tmp_path / "a"))]
    records += read_licsar(write_licsbas(tmp_path / "b"))
    records += read_licsbas(write_cumulative(tmp_path / "c"))
    for record in records:
        assert from_item(to_item(record)) == record


def test_a_flipped_look_vector_is_refused(tmp_path):
    folder = write_licsar(tmp_path)
    shape = (ROWS, COLUMNS)
    east = folder / f"{FRAME}.geo.E.tif"
    write_tif(east, np.full(shape, -LOOK["E"], "float32"))
    with pytest.raises(ValueError, match=r"in the east and above.* may be flipped"):
        read_licsar(folder)


def test_bad_folders_and_files_are_refused(tmp_path):
    folder = write_licsar(tmp_path / "a")
    bare = tmp_path / "GEOC"
    shutil.copytree(folder, bare)
    assert "--track" in mistake("index", bare, "-o", tmp_path / "c.json")
    done("index", bare, "-o", tmp_path / "c.json", "--track", "D021")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "LiCSAR" in mistake("index", empty, "-o", tmp_path / "d.json")
    with pytest.raises(ValueError, match=r"geo\.unw\.tif"):
        read_licsar(empty)
    folder = write_licsbas(tmp_path / "b")
    (folder / "EQA.dem_par").unlink()
    assert "corner_lat" in mistake("index", folder, "-o", tmp_path / "d.json")
    path = write_cumulative(tmp_path / "c")
    ingest = ("ingest", path, tmp_path / "cube")
    with h5py.File(path, "r+") as file:
        del file["corner_lat"]
    assert "corner_lat" in mistake(*ingest)
    with h5py.File(path, "r+") as file:
        del file["imdates"]
        file["imdates"] = [20200105]
    assert "shape (1,)" in mistake(*ingest)
    with h5py.File(path, "r+") as file:
        del file["imdates"]
    assert "lacks imdates" in mistake(*ingest)


@pytest.mark.parametrize("end", ["unw", "cc"])
def test_a_broken_tile_is_left_out_and_told(end, tmp_path):
    folder = write_licsar(tmp_path)
    name = f"{DATES[0]}_{DATES[1]}"
    path = folder / name / f"{name}.geo.{end}.tif"
    path.write_bytes(path.read_bytes()[:7])
    found, unreadable = find_products(folder)
    assert len(found) == len(PAIRS) - 1 and list(unreadable) == [folder / name]
    assert f"{path.name} cannot be read" in unreadable[folder / name]
    result = done("index", folder, "-o", tmp_path / "catalog.json")
    assert f"left out {name}" in result.output
    with pytest.raises(ValueError, match="cannot be read"):
        read_licsar(folder)


def test_a_short_file_is_a_pair_that_failed(tmp_path):
    folder = write_licsbas(tmp_path)
    records = read_licsar(folder)
    path = Path(records[0].assets["unwrapped_phase"].href)
    path.write_bytes(path.read_bytes()[:-4])
    report = cd.ingest(records, tmp_path / "cube", chunk=16, shard=32)
    assert report.added == len(records) - 1
    assert "must be 4 x 40 x 50" in report.failed[records[0].id]


def test_a_tile_of_another_size_is_warped(tmp_path):
    """GeoTIFFs of a frame differ in extent at times; flat files and HDF5 do not."""
    folder = write_licsar(tmp_path)
    name = f"{DATES[0]}_{DATES[1]}"
    write_tif(folder / name / f"{name}.geo.unw.tif", stack_values()[0][0][:30])
    cube = cube_of(folder, tmp_path)
    assert cube.sizes["y"] == ROWS and np.isnan(cube.unwrapped_phase[0, 30:]).all()


@needs_campi_flegrei
def test_campi_flegrei(tmp_path):
    """The real grid, dates and layers of LiCSBAS with a series of the real velocity."""
    series = tmp_path / "022D_04826_121209/TS_GEOCml1clip"
    for name in ("info", "results"):
        shutil.copytree(CAMPI_FLEGREI / name, series / name)
    dates = (series / "info/13used_image.txt").read_text().split()
    assert len(dates) == 158
    dates = dates[::40]
    shape = (121, 191)
    velocity = np.fromfile(series / "results/vel", "<f4").reshape(shape)
    days = np.array([f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in dates], "datetime64[D]")
    years = (days - days[0]).astype(int) / 365.25
    with h5py.File(series / "cum.h5", "w") as file:  # without place: info tells it
        file["cum"] = (years[:, None, None] * velocity).astype("float32")
        file["imdates"] = np.array(dates, "int32")
    cube = cube_of(series / "cum.h5", tmp_path)
    assert cube.attrs["track"] == "D022"
    assert cube.attrs["wavelength"] == 0.055465764662349676
    assert (cube.sizes["y"], cube.sizes["x"]) == shape
    # The corner of EQA.dem_par is the centre of the first pixel.
    assert float(cube.y[0]) == pytest.approx(40.89966842648, abs=1e-9)
    assert float(cube.x[0]) == pytest.approx(14.02994428828, abs=1e-9)
    height = np.fromfile(series / "results/hgt", "<f4").reshape(shape)
    np.testing.assert_array_equal(cube.elevation, height)
    found = cd.invert(cube, reference={"y": slice(65, 66), "x": slice(86, 87)})
    expected = (velocity - velocity[65, 86]) / 1e3
    np.testing.assert_allclose(found.velocity.values, expected, atol=1e-7)
    assert np.nanmax(expected) > 0.09  # the caldera rises
