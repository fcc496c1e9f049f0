"""MintPy's files in and out: values to the bit, signs by truth, clear refusals."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from affine import Affine
from command_line import done, mistake
from hdf5_stacks import (
    BPERP,
    COLUMNS,
    DATES,
    PAIRS,
    ROWS,
    series_values,
    stack_values,
    write_mintpy_series,
    write_mintpy_stack,
)
from rasterio.windows import Window

import cube_denoise as cd
from cube_denoise.catalog import from_item, to_item
from cube_denoise.conventions import los_unit_vector, phase_to_displacement
from cube_denoise.file_parts import Part, PartRaster
from cube_denoise.mintpy import read_mintpy
from cube_denoise.mintpy_export import export_mintpy

SHAPES = ("--chunk", 16, "--shard", 32)


@pytest.fixture
def stack(tmp_path):
    """A stack that a test may change."""
    return write_mintpy_stack(tmp_path / "project/inputs")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A stack that no test changes."""
    return write_mintpy_stack(tmp_path_factory.mktemp("kept") / "inputs")


@pytest.fixture(scope="module")
def url(kept):
    """Its cube, made without a catalog."""
    done("ingest", kept, kept.parent / "cube", *SHAPES)
    return kept.parent / "cube"


def contents(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


def test_into_a_cube_and_back_to_the_bit(kept, tmp_path):
    done("index", kept, "-o", tmp_path / "catalog.json")
    done("ingest", tmp_path / "catalog.json", tmp_path / "cube", *SHAPES)
    done("export", tmp_path / "cube", tmp_path / "out", "--format", "mintpy")
    theirs, ours = contents(kept), contents(tmp_path / "out/ifgramStack.h5")
    for name in ("unwrapPhase", "coherence", "date", "bperp", "dropIfgram"):
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].tobytes() == theirs[name].tobytes(), name
    assert "connectComponent" not in ours  # the cube has none
    theirs, ours = (
        contents(p / "geometryGeo.h5") for p in (kept.parent, tmp_path / "out")
    )
    np.testing.assert_array_equal(ours["height"], theirs["height"])
    for name in ("incidenceAngle", "azimuthAngle"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4)


def test_zero_is_no_data_and_pairs_keep_their_sign(url):
    cube = cd.open_cube(url)
    phase, coherence = stack_values()
    expected = np.where(phase == 0, np.nan, phase)
    np.testing.assert_array_equal(cube.unwrapped_phase.values, expected)
    np.testing.assert_array_equal(cube.coherence.values, coherence)
    dates = [DATES[a] for a, _ in PAIRS]
    told = cube.reference_time.dt.strftime("%Y%m%d %H").values
    assert told.tolist() == [f"{d} 12" for d in dates]  # CENTER_LINE_UTC
    baseline = [BPERP[b] - BPERP[a] for a, b in PAIRS]
    np.testing.assert_allclose(cube.perpendicular_baseline, baseline)
    assert cube.attrs["track"] == "A005" and cube.odc.crs.epsg == 32613
    assert cube.odc.geobox.affine[:6] == (80, 0, 500_000, 0, -80, 2_000_000)
    # Azimuth 102 degrees from north, counter-clockwise, is a heading of -12.
    for name, value in zip(
        ["east", "north", "up"], los_unit_vector(39.0, -12.0), strict=True
    ):
        np.testing.assert_allclose(cube[f"los_{name}"], value, atol=1e-6)


def test_part_of_the_area_is_read(kept, tmp_path):
    box = "-104.99,18.07,-104.975,18.08"
    done("ingest", kept, tmp_path / "cube", f"--bbox={box}", *SHAPES)
    cube = cd.open_cube(tmp_path / "cube")
    assert 0 < cube.sizes["y"] < ROWS and 0 < cube.sizes["x"] < COLUMNS
    row = round((2_000_000 - float(cube.y[0])) / 80 - 0.5)
    column = round((float(cube.x[0]) - 500_000) / 80 - 0.5)
    phase = stack_values()[0]
    part = phase[:, row : row + cube.sizes["y"], column : column + cube.sizes["x"]]
    expected = np.where(part == 0, np.nan, part)
    np.testing.assert_array_equal(cube.unwrapped_phase.values, expected)


def test_a_stack_is_not_put_on_other_pixels(kept, tmp_path):
    told = mistake("ingest", kept, tmp_path / "cube", "--resolution", 100)
    assert "own pixels" in told and "40 x 50" in told
    assert not (tmp_path / "cube").exists()


def test_a_copy_has_the_phase_of_the_cube_and_all_else_of_the_project(stack, tmp_path):
    """But the pair that MintPy has dropped, which it would take back, raw."""
    with h5py.File(stack, "r+") as file:
        file["dropIfgram"][2] = False
    done("ingest", stack, tmp_path / "cube", *SHAPES)
    done("correct", tmp_path / "cube", "--method", "ramp")
    done(
        *("export", tmp_path / "cube", tmp_path / "new", "--format", "mintpy"),
        *("--like", stack),
    )
    cube = cd.open_cube(tmp_path / "cube")
    assert cube.sizes["pair"] == len(PAIRS) - 1
    theirs, ours = contents(stack), contents(tmp_path / "new/ifgramStack.h5")
    assert set(theirs) == set(ours)
    for name in set(theirs) - {"unwrapPhase"}:
        np.testing.assert_array_equal(ours[name], np.delete(theirs[name], 2, 0))
    expected = np.nan_to_num(cube.corrected_phase.values)
    np.testing.assert_array_equal(ours["unwrapPhase"], expected)
    assert not np.array_equal(expected, np.delete(theirs["unwrapPhase"], 2, 0))
    geometry = "geometryGeo.h5"
    copied = (tmp_path / "new" / geometry).read_bytes()
    assert copied == (stack.parent / geometry).read_bytes()
    with h5py.File(stack) as a, h5py.File(tmp_path / "new/ifgramStack.h5") as b:
        assert dict(a.attrs) == dict(b.attrs)


def test_pairs_that_the_cube_has_not_are_left_out(kept, url, tmp_path):
    cube = cd.open_cube(url, chunks={}).isel(pair=slice(1, None))
    with pytest.warns(UserWarning, match="1 pairs .* left out: 20200105_20200117"):
        export_mintpy(cube, tmp_path / "new", like=kept)
    ours = contents(tmp_path / "new/ifgramStack.h5")
    np.testing.assert_array_equal(ours["unwrapPhase"], stack_values()[0][1:])
    with pytest.raises(ValueError, match="none of the pairs"):
        late = cube.reference_time + np.timedelta64(1, "D")
        export_mintpy(
            cube.assign_coords(reference_time=late), tmp_path / "none", like=kept
        )


def test_pairs_that_are_not_corrected_are_left_out(url, tmp_path):
    cube = cd.open_cube(url).load()
    status = np.array([1, 1, 0, 1, 2, 1, 1], "uint8")
    cube["corrected_phase"] = cube.unwrapped_phase.where(status[:, None, None] > 0)
    cube["correction_status"] = ("pair", status)
    with pytest.warns(UserWarning, match="1 pairs are not corrected"):
        export_mintpy(cube, tmp_path / "out")
    phase = contents(tmp_path / "out/ifgramStack.h5")["unwrapPhase"]
    np.testing.assert_array_equal(phase, np.delete(stack_values()[0], 2, 0))
    cube["correction_status"] = ("pair", 0 * status)
    with pytest.raises(ValueError, match="no pair is corrected"):
        export_mintpy(cube, tmp_path / "none")


def test_a_copy_keeps_the_order_of_dates(stack, tmp_path):
    """A pair that names the later date first enters the cube and leaves it flipped."""
    with h5py.File(stack, "r+") as file:
        file["date"][3] = file["date"][3][::-1]
        file["bperp"][3] *= -1
    done("ingest", stack, tmp_path / "cube", *SHAPES)
    cube = cd.open_cube(tmp_path / "cube")
    phase = stack_values()[0]
    flipped = -np.where(phase[3] == 0, np.nan, phase[3])
    np.testing.assert_array_equal(cube.unwrapped_phase[3].values, flipped)
    assert cube.perpendicular_baseline[3] == pytest.approx(
        BPERP[PAIRS[3][1]] - BPERP[PAIRS[3][0]]
    )
    export_mintpy(cube, tmp_path / "new", like=stack)
    ours = contents(tmp_path / "new/ifgramStack.h5")
    np.testing.assert_array_equal(ours["unwrapPhase"], phase)


def test_a_series_comes_back_from_its_pairs(tmp_path):
    write_mintpy_stack(tmp_path / "project/inputs")
    series = write_mintpy_series(tmp_path / "project")
    done("ingest", series, tmp_path / "cube", *SHAPES)
    cube = cd.open_cube(tmp_path / "cube")
    assert cube.sizes["pair"] == len(DATES) - 1
    assert np.isnan(cube.coherence).all()
    assert "elevation" in cube  # of inputs/geometryGeo.h5
    reference = {"y": slice(20, 21), "x": slice(6, 7)}
    found = cd.invert(cube, weights="none", reference=reference)
    truth = series_values()
    truth = truth - truth[:, 20:21, 6:7]
    truth[:, :4, :7] = np.nan
    np.testing.assert_allclose(found.displacement.values, truth, atol=2e-8)
    assert float(found.velocity[20, 25]) > 0.05  # toward the satellite


def test_a_record_survives_as_stac(kept, tmp_path):
    for record in (*read_mintpy(kept), *read_mintpy(write_mintpy_series(tmp_path))):
        assert from_item(to_item(record)) == record


def test_a_catalog_moves_with_its_stack(stack, tmp_path):
    done("index", stack, "-o", stack.parent / "catalog.json")
    shutil.move(tmp_path / "project", tmp_path / "moved")
    catalog = tmp_path / "moved/inputs/catalog.json"
    done("ingest", catalog, tmp_path / "cube", *SHAPES)
    assert cd.open_cube(tmp_path / "cube").sizes["pair"] == len(PAIRS)


def test_what_mintpy_reads_in_attributes(url, tmp_path):
    cube = cd.open_cube(url)
    area = {"y": slice(20, 25), "x": slice(30, 35)}
    cube["velocity"] = cd.invert(cube, reference=area).velocity
    export_mintpy(cube, tmp_path / "out")
    with h5py.File(tmp_path / "out/ifgramStack.h5") as file:
        told = dict(file.attrs)
        values = file["unwrapPhase"][:], file["coherence"][:]
    assert all(isinstance(value, str) for value in told.values())
    place = {"X_FIRST": 500_000, "Y_FIRST": 2_000_000, "X_STEP": 80, "Y_STEP": -80}
    assert {k: float(told[k]) for k in place} == place
    assert told["EPSG"] == "32613" and told["UTM_ZONE"] == "13N"
    assert told["X_UNIT"] == told["Y_UNIT"] == "meters"
    assert told["ORBIT_DIRECTION"] == "ASCENDING" and float(told["HEADING"]) == -12
    assert float(told["WAVELENGTH"]) == 0.05546576
    assert float(told["CENTER_LINE_UTC"]) == 43200
    assert (told["LENGTH"], told["WIDTH"]) == (str(ROWS), str(COLUMNS))
    assert (told["START_DATE"], told["END_DATE"]) == (DATES[0], DATES[-1])
    # South-west first: an ascending satellite that looks right.
    assert float(told["LAT_REF1"]) < float(told["LAT_REF3"])
    assert float(told["LON_REF1"]) < float(told["LON_REF2"])
    row, column = int(told["REF_Y"]), int(told["REF_X"])
    area = slice(None), *area.values()
    whole = (values[0][area] != 0).all(0)
    best = np.where(whole, values[1][area].mean(0), 0).max()
    assert values[1][:, row, column].mean() == pytest.approx(best)


def test_a_phase_of_zero_stays_data(url, tmp_path):
    cube = cd.open_cube(url).load()
    cube["unwrapped_phase"][:] = 0
    cube["unwrapped_phase"][0, 5, 5] = np.nan
    export_mintpy(cube, tmp_path / "out")
    phase = contents(tmp_path / "out/ifgramStack.h5")["unwrapPhase"]
    assert phase[0, 5, 5] == 0 and np.count_nonzero(phase == 0) == 1
    assert np.abs(phase).max() < 1e-30


def test_unknown_baselines_are_told(url, tmp_path):
    cube = cd.open_cube(url)
    cube["perpendicular_baseline"] = cube.perpendicular_baseline * np.nan
    with pytest.warns(UserWarning, match="baselines are unknown"):
        export_mintpy(cube, tmp_path / "out")


def test_files_are_not_replaced_unasked(kept, url, tmp_path):
    export = ("export", url, tmp_path / "out", "--format", "mintpy")
    done(*export)
    assert "exists" in mistake(*export)
    done(*export, "--overwrite")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "ifgramStack.h5",
        "geometryGeo.h5",
    }
    assert "--like" in mistake("export", url, tmp_path / "z", "--like", kept)


def edited(stack: Path, edit: str) -> None:
    with h5py.File(stack, "r+") as file:
        if edit in file:
            del file[edit]
        elif edit in file.attrs:
            del file.attrs[edit]
        else:
            name, _, shape = edit.partition(" ")
            del file[name]
            file[name] = np.ones([int(n) for n in shape.split("x")], "float32")


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ("unwrapPhase", "'unwrapPhase'"),
        ("date", "'date'"),
        ("X_FIRST", "radar coordinates .*geocode"),
        ("WAVELENGTH", "WAVELENGTH"),
        ("ORBIT_DIRECTION", "--track"),
        ("date 7x3", r"\(7, 3\)"),
        ("unwrapPhase 3x40x50", r"\(3, 40, 50\)"),
        ("unwrapPhase 40x50", r"\(40, 50\)"),
        ("coherence 7x40x49", r"coherence of shape \(7, 40, 49\)"),
        ("bperp 6", r"bperp of shape \(6,\)"),
    ],
)
def test_bad_stacks_are_refused(edit, told, stack, tmp_path):
    edited(stack, edit)
    with pytest.raises(ValueError, match=told):
        read_mintpy(stack)
    mistake("index", stack, "-o", tmp_path / "catalog.json")
    mistake("ingest", stack, tmp_path / "cube")
    assert not (tmp_path / "cube").exists()


def test_other_refusals(stack, tmp_path):
    assert "HDF5" in mistake("index", __file__.replace(".py", ".h5"))
    (tmp_path / "text.h5").write_text("no")
    assert "HDF5" in mistake("ingest", tmp_path / "text.h5", tmp_path / "cube")
    with h5py.File(stack, "r+") as file:
        file["dropIfgram"][:] = False
    assert "dropped" in mistake("ingest", stack, tmp_path / "cube")
    write_mintpy_stack(stack.parent, EPSG=None, UTM_ZONE=None)
    assert "EPSG or UTM_ZONE" in mistake("ingest", stack, tmp_path / "cube")
    write_mintpy_stack(stack.parent)
    edited(stack.parent / "geometryGeo.h5", "height 3x4")
    assert "height of shape (3, 4)" in mistake("ingest", stack, tmp_path / "cube")


def test_a_dataset_that_vanished_is_a_pair_that_failed(stack, tmp_path):
    records = read_mintpy(stack)
    edited(stack, "coherence")
    report = cd.ingest(records, tmp_path / "cube", chunk=16, shard=32)
    assert len(report.failed) == len(PAIRS)
    assert "no dataset 'coherence'" in next(iter(report.failed.values()))


def test_another_grid_is_no_model(url, tmp_path):
    other = write_mintpy_stack(tmp_path / "other", X_FIRST="500080.0")
    told = mistake(
        *("export", url, tmp_path / "out", "--format", "mintpy"),
        *("--like", other),
    )
    assert "grid" in told and not (tmp_path / "out/ifgramStack.h5").exists()


def test_pairs_without_coherence_have_none_for_mintpy(url, tmp_path):
    cube = cd.open_cube(url)
    cube["coherence"] = cube.coherence * np.nan
    export_mintpy(cube, tmp_path / "out")
    assert "coherence" not in contents(tmp_path / "out/ifgramStack.h5")


def test_blocks_alone_are_read():
    """Of every dataset no more than the window asked for."""

    class Asked:
        def __init__(self):
            self.windows = []

        def __getitem__(self, where):
            self.windows.append(where)
            sizes = [k.stop - k.start for k in where if isinstance(k, slice)]
            return np.full(sizes, where[0] + 1, "float32")

    asked, part = Asked(), Part("x", layer=4, minus=1)
    raster = PartRaster(asked, part, (90, 80), Affine.identity())
    found = raster.read(1, window=Window(10, 20, 3, 2))
    assert found.shape == (2, 3) and (found == 3).all()
    rows, columns = slice(20, 22), slice(10, 13)
    assert asked.windows == [(4, rows, columns), (1, rows, columns)]


def test_phase_and_displacement_have_opposite_signs(tmp_path):
    record = read_mintpy(write_mintpy_series(tmp_path), track="D003")[0]
    scale = record.assets["unwrapped_phase"].scale
    assert phase_to_displacement(scale * 1.0, record.wavelength) == pytest.approx(1)
