import math
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from cube_denoise import open_cube
from cube_denoise.grid import regular_grid
from cube_denoise.ingest import ingest
from cube_denoise.products import (
    Asset,
    Interferogram,
    earlier_first,
    find_products,
    read_hyp3,
    read_raster_stack,
    relative_orbit,
)

MEXICO = Path(__file__).parents[2] / "shared/data/mexico-city-s1"
needs_mexico = pytest.mark.skipif(
    not MEXICO.is_dir(), reason=f"real data not found: {MEXICO}"
)
MEXICO_STACK = {
    "pattern": "unw/cropA_{reference}-{secondary}_VV_8rlks_eqa_unw.tif",
    "coherence": "coh/cropA_{reference}-{secondary}_*_cc.tif",
    "elevation": "dem/cropA_T005A_dem.tif",
    "baselines": "pairs.csv",
    "acquisitions": "acquisitions.csv",
    "track": "A005",
}

GAMMA = "S1AB_20171111T150004_20171117T145926_VVP006_INT80_G_ueF_4D09"
BURST = "S1_136231_IW2_20200604_20200616_VV_INT80_12E3"
MULTI = "S1_064_000000s1n00-136231s2n02-000000s3n00_IW_20200604_20200616_VV_INT80_77F1"
GAMMA_TEXT = """\
Reference Granule: S1A_IW_SLC__1SDV_20171111T150004_20171111T150032_019219_020882_F5DC
Secondary Granule: S1B_IW_SLC__1SDV_20171117T145926_20171117T145953_008323_00EBC2_7D4F
Reference Pass Direction: DESCENDING
Reference Orbit Number: 19219
Baseline: -58.3898
UTCTime: 54004.5
Heading: 193.25
Spacecraft height: 700618.63
Earth radius at nadir: 6370250.07
Slant range center: 879794.14
"""
BURST_TEXT = """\
Reference Granule: S1_136231_IW2_20200604T022312_VV_7C85-BURST
Secondary Granule: S1_136231_IW2_20200616T022313_VV_5D11-BURST
Reference Pass Direction: ASCENDING
Baseline: 12.5
UTC time: 8592.5
Heading: -12.5
"""
TRANSFORM = Affine(80, 0, 400_000, 0, -80, 3_800_000)


def write_tif(path, *, value=1.0, crs="EPSG:32611", nodata=None, tags=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"height": 4, "width": 5, "count": 1, "dtype": "float32"}
    where = {"crs": crs, "transform": TRANSFORM, "nodata": nodata}
    with rasterio.open(path, "w", driver="GTiff", **shape, **where) as target:
        target.write(np.full((4, 5), value, "float32"), 1)
        target.update_tags(**(tags or {}))


def write_product(root, name, text, layers=("unw_phase", "corr", "dem")):
    for layer in layers:
        write_tif(root / name / f"{name}_{layer}.tif")
    (root / name / f"{name}.txt").write_text(text)
    return root / name


def record(**changes):
    fields = {
        "id": "one",
        "reference_time": datetime(2018, 1, 6, tzinfo=UTC),
        "secondary_time": datetime(2018, 1, 18, tzinfo=UTC),
        "track": "A005",
        "wavelength": 0.055,
        "perpendicular_baseline": 10.0,
        "crs": "EPSG:32611",
        "shape": (4, 5),
        "transform": tuple(TRANSFORM)[:6],
        "phase_sign": 1,
        "incidence_angle": 39.0,
        "heading": -12.0,
        "assets": {"unwrapped_phase": Asset("/a.tif", "unwrapped_phase", "rad", 0.0)},
    }
    return Interferogram(**fields | changes)


def test_record_has_identity_and_hash():
    one = record()
    assert one.key == ("2018-01-06", "2018-01-18", "A005")
    assert hash(one) == hash(record())
    assert record(perpendicular_baseline=math.nan) == record(
        perpendicular_baseline=float("nan")
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reference_time": datetime(2018, 2, 1, tzinfo=UTC)}, "must be before"),
        ({"reference_time": datetime(2018, 1, 1)}, "must carry a time zone"),
        ({"track": "A???"}, "track='A\\?\\?\\?' must be A .* or D"),
        ({"wavelength": 5.5}, "wavelength=5.5 must be in metres"),
        ({"phase_sign": 0}, "phase_sign=0 must be 1 or -1"),
        ({"assets": {}}, "must have one with the role 'unwrapped_phase'"),
    ],
)
def test_record_refuses(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        record(**changes)


def test_swap_flips_baseline_and_phase_and_twice_is_identity():
    early, late = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 13, tzinfo=UTC)
    swapped = earlier_first(late, early, perpendicular_baseline=7.0, phase_sign=1)
    assert swapped == (early, late, -7.0, -1)
    assert earlier_first(
        swapped.secondary_time,
        swapped.reference_time,
        perpendicular_baseline=-7.0,
        phase_sign=-1,
    ) == (early, late, 7.0, 1)


@pytest.mark.parametrize(
    ("mission", "absolute", "relative"),
    [
        ("A", 18302, 30),
        ("B", 7231, 30),
        ("C", 1681, 110),
        ("C", 8019, 46),
        ("D", 2389, 73),
    ],
)
def test_relative_orbit_of_known_granules(mission, absolute, relative):
    assert relative_orbit(mission, absolute) == relative


def test_gamma_product(tmp_path):
    layers = ("unw_phase", "corr", "dem", "lv_theta", "lv_phi")
    found = read_hyp3(write_product(tmp_path, GAMMA, GAMMA_TEXT, layers))
    assert found.id == GAMMA
    assert found.reference_time == datetime(2017, 11, 11, 15, 0, 4, tzinfo=UTC)
    assert found.secondary_time == datetime(2017, 11, 17, 14, 59, 26, tzinfo=UTC)
    assert found.track == f"D{(19219 - 73) % 175 + 1:03d}"
    assert found.perpendicular_baseline == -58.3898
    assert found.phase_sign == 1
    assert found.heading == pytest.approx(-166.75)
    assert found.incidence_angle == pytest.approx(41.2, abs=3)
    assert (found.crs, found.shape) == ("EPSG:32611", (4, 5))
    assert found.transform == tuple(TRANSFORM)[:6]
    assert {r: a.unit for r, a in found.assets.items()} == {
        "unwrapped_phase": "rad",
        "coherence": "1",
        "elevation": "m",
        "look_elevation": "rad",
        "look_orientation": "rad",
    }
    assert all(a.nodata == 0 for a in found.assets.values())


@pytest.mark.parametrize("name", [BURST, MULTI])
def test_isce_products(tmp_path, name):
    found = read_hyp3(write_product(tmp_path, name, BURST_TEXT))
    assert found.track == "A064"
    assert found.reference_time == datetime(2020, 6, 4, 2, 23, 12, tzinfo=UTC)
    assert found.secondary_time == datetime(2020, 6, 16, 2, 23, 13, tzinfo=UTC)
    assert found.incidence_angle is None


def test_isce_product_without_granules_uses_utc_time(tmp_path):
    text = "".join(x for x in BURST_TEXT.splitlines(True) if "Granule" not in x)
    found = read_hyp3(write_product(tmp_path, BURST, text))
    assert found.reference_time == datetime(2020, 6, 4, 2, 23, 12, 500_000, tzinfo=UTC)


def test_product_stored_later_first_is_swapped(tmp_path):
    name = BURST.replace("20200604_20200616", "20200616_20200604")
    found = read_hyp3(write_product(tmp_path, name, BURST_TEXT))
    assert found.reference_time < found.secondary_time
    assert (found.phase_sign, found.perpendicular_baseline) == (-1, -12.5)


def test_track_is_never_guessed(tmp_path):
    text = "".join(x for x in GAMMA_TEXT.splitlines(True) if "Baseline" in x)
    folder = write_product(tmp_path, GAMMA, text)
    with pytest.raises(ValueError, match=r"neither .* pass direction nor the heading"):
        read_hyp3(folder)
    folder = write_product(tmp_path, GAMMA, text + "Heading: -12\n")
    with pytest.raises(ValueError, match=r"relative orbit .* is not clear"):
        read_hyp3(folder)
    assert read_hyp3(folder, track="A005").track == "A005"


def test_bad_products_are_reported_and_do_not_stop(tmp_path):
    good = write_product(tmp_path / "job", GAMMA, GAMMA_TEXT)
    empty = write_product(tmp_path, BURST, BURST_TEXT, layers=("corr",))
    broken = write_product(tmp_path, MULTI, "Baseline: twelve\n")
    (tmp_path / "not-a-product").mkdir()
    found, unreadable = find_products(tmp_path)
    assert [f.id for f in found] == [good.name]
    assert set(unreadable) == {empty, broken}
    assert "unw_phase.tif is missing" in unreadable[empty]
    assert "baseline='twelve'" in unreadable[broken]
    assert [f.id for f in find_products(good)[0]] == [good.name]
    with pytest.raises(ValueError, match="must be an existing folder"):
        find_products(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="not named as HyP3"):
        read_hyp3(tmp_path / "not-a-product")
    (good / f"{GAMMA}_unw_phase.tif").write_bytes(b"II*\0 cut short")
    with pytest.raises(ValueError, match=r"raster .*unw_phase\.tif cannot be read"):
        read_hyp3(good)


@needs_mexico
def test_mexico_stack_is_what_its_readme_says():
    stack = read_raster_stack(MEXICO, **MEXICO_STACK)
    assert len(stack) == 30
    first = stack[0]
    assert first.key == ("2018-01-06", "2018-01-30", "A005")
    assert first.reference_time == datetime(2018, 1, 6, 0, 40, 21, tzinfo=UTC)
    assert first.wavelength == 0.05550415767769124
    assert first.perpendicular_baseline == 30.34
    assert first.heading == pytest.approx(-12.274, abs=1e-3)
    assert first.incidence_angle == pytest.approx(39.70, abs=0.01)
    assert (first.crs, first.shape) == ("EPSG:4326", (60, 100))
    assert first.transform[2] == pytest.approx(-99.19107, abs=1e-5)
    assert first.transform[5] == pytest.approx(19.45129, abs=1e-5)
    assert set(first.assets) == {"unwrapped_phase", "coherence", "elevation"}
    assert all(Path(a.href).exists() for r in stack for a in r.assets.values())
    assert len({r.key for r in stack}) == 30
    dates = [(r.reference_time, r.secondary_time) for r in stack]
    assert dates == sorted(dates)


@needs_mexico
def test_mexico_without_baselines_is_nan_and_options_win():
    options = {"pattern": MEXICO_STACK["pattern"], "track": "A005"}
    one, *_ = read_raster_stack(
        MEXICO, wavelength=0.0555, incidence_angle=40.0, heading=-13.0, **options
    )
    assert math.isnan(one.perpendicular_baseline)
    assert one.wavelength == 0.0555
    assert (one.incidence_angle, one.heading) == (40.0, -13.0)
    assert one.reference_time.hour == 0


def test_licsar_like_folders_and_later_first(tmp_path):
    for pair in ("20200113_20200101", "20200101_20200125"):
        write_tif(tmp_path / f"GEOC/{pair}/{pair}.geo.unw.tif", nodata=math.nan)
    swapped, other = read_raster_stack(
        tmp_path,
        pattern="GEOC/{reference}_{secondary}/{reference}_{secondary}.geo.unw.tif",
        track="D021",
        wavelength=0.0555,
    )
    assert swapped.key == ("2020-01-01", "2020-01-13", "D021")
    assert (swapped.phase_sign, other.phase_sign) == (-1, 1)
    assert swapped.assets["unwrapped_phase"].nodata == 0  # NaN always is no data


def test_stack_errors_are_one_clear_sentence(tmp_path):
    options = {"pattern": "{reference}_{secondary}*.tif", "track": "A005"}

    def read(**more):
        return read_raster_stack(tmp_path, **options | more)

    with pytest.raises(ValueError, match=r"pattern='.*' matches no file in"):
        read()
    path = tmp_path / "20200101_20200113.tif"
    write_tif(path)
    with pytest.raises(ValueError, match="no tag WAVELENGTH_METRES: give wavelength="):
        read()
    with pytest.raises(ValueError, match=r"must contain {secondary}"):
        read(pattern="{reference}.tif")
    with pytest.raises(ValueError, match=r"coherence='.*' matches no file"):
        read(wavelength=0.05, coherence="cc/{reference}_{secondary}.tif")
    table = tmp_path / "pairs.csv"
    table.write_text("reference,secondary,other\n20200101,20200113,5\n")
    with pytest.raises(ValueError, match="one of the columns"):
        read(wavelength=0.05, baselines="pairs.csv")
    table.write_text("reference,secondary,perpendicular_baseline\n1,2,5\n")
    with pytest.warns(UserWarning, match="baselines has nothing for"):
        assert math.isnan(
            read(wavelength=0.05, baselines="pairs.csv")[0].perpendicular_baseline
        )
    table.write_text("date,utc_center_time\n20200101,00:40:00\n")
    with pytest.raises(ValueError, match=r"no row for \['20200113'\]"):
        read(wavelength=0.05, acquisitions="pairs.csv")
    shutil.copy(path, tmp_path / "20200101_20200113_v2.tif")
    with pytest.raises(ValueError, match="matches both"):
        read(wavelength=0.05)
    (tmp_path / "20200101_20200113_v2.tif").unlink()
    write_tif(path, tags={"DATA_UNITS": "MILLIMETRES"})
    with pytest.raises(ValueError, match="'millimetres' by its tags"):
        read(wavelength=0.05)
    write_tif(path, crs=None)
    with pytest.raises(ValueError, match=r"20200101_20200113\.tif has no CRS"):
        read(wavelength=0.05)


@pytest.mark.parametrize("step", [80.0, 60.0])
def test_component_0_of_a_burst_is_no_data(tmp_path, step):
    """Also where the grid of the cube has other pixels: components are not averaged."""
    product = write_product(tmp_path / "in", BURST, BURST_TEXT, ("unw_phase", "corr"))
    components = np.full((4, 5), 3, "uint8")
    components[1, 2] = components[3, 0] = 0
    where = {"crs": "EPSG:32611", "transform": TRANSFORM, "nodata": 0}
    shape = {"height": 4, "width": 5, "count": 1, "dtype": "uint8"}
    path = product / f"{BURST}_conncomp.tif"
    with rasterio.open(path, "w", driver="GTiff", **shape, **where) as target:
        target.write(components, 1)
    grid = regular_grid(
        [(read_hyp3(product).crs, (4, 5), tuple(TRANSFORM)[:6])], resolution=step
    )
    ingest([read_hyp3(product)], tmp_path / "cube", grid=grid, chunk=16, shard=32)
    cube = open_cube(tmp_path / "cube").load()
    x = np.floor((cube.x.values - TRANSFORM.c) / 80).astype(int)
    y = np.floor((TRANSFORM.f - cube.y.values) / 80).astype(int)
    inside = np.ix_((y >= 0) & (y < 4), (x >= 0) & (x < 5))
    phase = cube.unwrapped_phase.values[0][inside]
    parts = components[np.ix_(y[(y >= 0) & (y < 4)], x[(x >= 0) & (x < 5)])]
    np.testing.assert_array_equal(np.isnan(phase), parts == 0)
    assert (parts == 0).any() and np.all(phase[parts > 0] == 1)


def test_replace_keeps_validation():
    with pytest.raises(ValueError, match="track="):
        replace(record(), track="5")
