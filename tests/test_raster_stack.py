"""The general door: ISCE's and GAMMA's files, raw arrays, displacement in any unit."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from command_line import done, mistake
from pyproj import CRS

import cube_denoise as cd
from cube_denoise.products import read_raster_stack

GREECE = Path(__file__).parents[2] / "shared/data/greece-coseismic"
needs_greece = pytest.mark.skipif(
    not GREECE.is_dir(), reason=f"real data not found: {GREECE}"
)
ROWS, COLUMNS = 20, 26
WAVELENGTH = 0.05546576
PAIR = "20200101_20200113"
COMMON = ("--track", "A087", "--wavelength", WAVELENGTH)


def values(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.uniform(0.5, 6, (ROWS, COLUMNS)).astype("float32")


def cube_of(place: Path, folder: Path, *options: object) -> xr.Dataset:
    done("index", place, "-o", folder / "catalog.json", *COMMON, *options)
    done("search", folder / "catalog.json", "-o", folder / "items.json")
    shapes = ("--chunk", 128, "--shard", 512)
    done("ingest", folder / "items.json", folder / "cube", *shapes)
    return cd.open_cube(folder / "cube").load()


def raw_vrt(
    source: str,
    shape: tuple[int, int],
    transform: tuple[float, ...],
    crs: str,
    bands: list[tuple[int, int, str]],
    kind: str = "Float32",
) -> str:
    """GDAL's description of flat numbers: bands of (first byte, bytes a row, order)."""
    rows, columns = shape
    size = {"Float32": 4, "Byte": 1}[kind]
    text = f'<VRTDataset rasterXSize="{columns}" rasterYSize="{rows}">'
    text += f"<SRS>{CRS.from_user_input(crs).to_wkt('WKT1_GDAL')}</SRS>"
    text += f"<GeoTransform>{', '.join(str(v) for v in transform)}</GeoTransform>"
    for number, (first, line, order) in enumerate(bands, 1):
        text += (
            f'<VRTRasterBand dataType="{kind}" band="{number}" '
            'subClass="VRTRawRasterBand">'
            f'<SourceFilename relativeToVRT="1">{source}</SourceFilename>'
            f"<ImageOffset>{first}</ImageOffset><PixelOffset>{size}</PixelOffset>"
            f"<LineOffset>{line}</LineOffset><ByteOrder>{order}</ByteOrder>"
            "</VRTRasterBand>"
        )
    return text + "</VRTDataset>"


def write_isce(folder: Path, name: str = PAIR) -> None:
    """ISCE2's stack: amplitude and phase interleaved by line, geocoded, with .vrt."""
    pair = folder / name
    pair.mkdir(parents=True)
    amplitude = np.full((ROWS, COLUMNS), 1e4, "float32")
    phase = values()
    phase[2, 3] = 0
    place = (-118.0, 0.001, 0.0, 35.0, 0.0, -0.001)
    both = np.stack([amplitude, phase], axis=1)  # row, band, column
    both.tofile(pair / "filt_fine.unw.geo")
    line = 8 * COLUMNS
    bands = [(0, line, "LSB"), (4 * COLUMNS, line, "LSB")]
    (pair / "filt_fine.unw.geo.vrt").write_text(
        raw_vrt("filt_fine.unw.geo", (ROWS, COLUMNS), place, "EPSG:4326", bands)
    )
    (values(1) / 10).astype("float32").tofile(pair / "filt_fine.cor.geo")
    (pair / "filt_fine.cor.geo.vrt").write_text(
        raw_vrt(
            "filt_fine.cor.geo",
            (ROWS, COLUMNS),
            place,
            "EPSG:4326",
            [(0, 4 * COLUMNS, "LSB")],
        )
    )
    components = np.ones((ROWS, COLUMNS), "uint8")
    components[5, 5:9] = 0
    components.tofile(pair / "filt_fine.unw.conncomp.geo")
    (pair / "filt_fine.unw.conncomp.geo.vrt").write_text(
        raw_vrt(
            "filt_fine.unw.conncomp.geo",
            (ROWS, COLUMNS),
            place,
            "EPSG:4326",
            [(0, COLUMNS, "LSB")],
            "Byte",
        )
    )


def test_isce(tmp_path: Path) -> None:
    write_isce(tmp_path / "in")
    cube = cube_of(
        tmp_path / "in",
        tmp_path,
        *("--pattern", "{reference}_{secondary}/filt_fine.unw.geo.vrt", "--band", 2),
        *("--coherence", "{reference}_{secondary}/filt_fine.cor.geo.vrt"),
        *("--mask", "{reference}_{secondary}/filt_fine.unw.conncomp.geo.vrt"),
    )
    expected = values()
    expected[2, 3] = expected[5, 5:9] = np.nan
    np.testing.assert_array_equal(cube.unwrapped_phase[0], expected)
    np.testing.assert_allclose(cube.coherence[0], values(1) / 10, rtol=1e-6)
    corner = cube.odc.geobox.affine
    assert (corner.c, corner.f, corner.a) == pytest.approx((-118, 35, 0.001))
    told = mistake(
        *("index", tmp_path / "in", *COMMON, "--band", 3),
        *("--pattern", "{reference}_{secondary}/filt_fine.unw.geo.vrt"),
    )
    assert "has 2 bands: band=3 is none" in told


def test_files_of_one_name_in_folders_of_pairs(tmp_path: Path) -> None:
    pairs = ["20200101_20200113", "20200101_20200125", "20200113_20200125"]
    for pair in pairs:
        write_isce(tmp_path / "in", pair)
    cube = cube_of(
        tmp_path / "in",
        tmp_path,
        *("--pattern", "{reference}_{secondary}/filt_*.unw.geo.vrt", "--band", 2),
    )
    ids = [f"A087_{pair}_filt_fine.unw.geo.vrt" for pair in pairs]
    assert [item["id"] for item in cube.attrs["items"]] == ids


EQA = f"""\
Gamma DIFF&GEO DEM/MAP parameter file
DEM_projection:     EQA
width: {COLUMNS}
nlines: {ROWS}
corner_lat: 34.9995  decimal degrees
corner_lon: -117.9995  decimal degrees
post_lat: -0.001 decimal degrees
post_lon: 0.001 decimal degrees
"""
UTM = f"""\
DEM_projection:     UTM
width: {COLUMNS}
nlines: {ROWS}
corner_north: 3800000.000   m
corner_east: 400000.000   m
post_north: -80.0   m
post_east: 80.0   m
projection_name: UTM
projection_zone: 11
false_northing: 0.000   m
"""


@pytest.mark.parametrize("kind", ["EQA", "UTM"])
def test_gamma(kind: str, tmp_path: Path) -> None:
    """Big-endian; the corner of the parameters is the middle of the first pixel."""
    folder = tmp_path / "in"
    folder.mkdir()
    values().astype(">f4").tofile(folder / f"{PAIR}.adf.unw.geo")
    (values(1) / 10).astype(">f4").tofile(folder / f"{PAIR}.adf.cc.geo")
    (values(2) * 100).astype(">f4").tofile(folder / "dem.geo")
    (folder / "dem_seg.par").write_text({"EQA": EQA, "UTM": UTM}[kind])
    options = (
        *("--pattern", "{reference}_{secondary}.adf.unw.geo", "--grid", "dem_seg.par"),
        *(
            "--coherence",
            "{reference}_{secondary}.adf.cc.geo",
            "--elevation",
            "dem.geo",
        ),
        *("--incidence", 39.0, "--heading", -12.0),
    )
    cube = cube_of(folder, tmp_path, *options)
    np.testing.assert_array_equal(cube.unwrapped_phase[0], values())
    np.testing.assert_allclose(cube.coherence[0], values(1) / 10, rtol=1e-6)
    np.testing.assert_allclose(cube.elevation, values(2) * 100, rtol=1e-6)
    corner = cube.odc.geobox.affine
    place = (-118, 35) if kind == "EQA" else (400_000 - 40, 3_800_000 + 40)
    assert (corner.c, corner.f) == pytest.approx(place)
    assert cube.odc.crs.epsg == (4326 if kind == "EQA" else 32611)
    flipped = (*options[:-1], -168.0)
    assert "the look vector would be flipped" in mistake(
        "index", folder, *COMMON, *flipped
    )
    phase = folder / f"{PAIR}.adf.unw.geo"
    phase.write_bytes(phase.read_bytes()[:-40])
    told = mistake("index", folder, *COMMON, *options)
    assert "it may be cut short" in told
    (folder / "dem_seg.par").write_text("DEM_projection: LCC\n")
    assert "must be EQA or UTM" in mistake("index", folder, *COMMON, *options)


@pytest.mark.parametrize(("unit", "metres"), [("m", 1.0), ("cm", 1e-2), ("mm", 1e-3)])
def test_displacement_in_any_unit(unit: str, metres: float, tmp_path: Path) -> None:
    """Toward the satellite by half a wavelength is a cycle of 4 pi of less range."""
    toward = np.full((ROWS, COLUMNS), WAVELENGTH / 2 / metres, "float32")
    write_tif(tmp_path / f"in/{PAIR}.tif", toward, unit)
    write_tif(tmp_path / "in/20200113_20200125.tif", toward, "")
    pattern = ("--pattern", "{reference}_{secondary}.tif", "--phase-sign", -1)
    told = mistake("index", tmp_path / "in", *COMMON, *pattern)
    assert f"is in '{unit}' by its tags and must be in 'rad'" in told
    cube = cube_of(tmp_path / "in", tmp_path, *pattern, "--unit", unit)
    np.testing.assert_allclose(cube.unwrapped_phase, -2 * np.pi, rtol=1e-6)
    other = "mm" if unit == "m" else "m"
    told = mistake("index", tmp_path / "in", *COMMON, *pattern, "--unit", other)
    assert f"must be in '{other}'" in told
    with pytest.raises(ValueError, match=r"unit='inch' must be one of \['rad'"):
        read_raster_stack(tmp_path, pattern="", track="A001", unit="inch")


def write_tif(path: Path, array: np.ndarray, unit: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=array.shape[0],
        width=array.shape[1],
        dtype="float32",
        crs="EPSG:32611",
        transform=Affine(80, 0, 400_000, 0, -80, 3_800_000),
    ) as file:
        file.write(array, 1)
        if unit:
            file.set_band_unit(1, unit)


@needs_greece
def test_greece(tmp_path: Path) -> None:
    """Raw numbers, first row in the south, m, positive away; its place is not known.

    A .vrt beside them says what they are, and the row order is a negative step.
    """
    size, step, half = 801, 100, 50
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "greece.unw").symlink_to(GREECE / "greece.unw")
    line = 4 * size
    place = (-40000 - half, step, 0, -40000 + size * step - half, 0, -step)
    local = "+proj=tmerc +lat_0=39.8 +lon_0=22.2 +datum=WGS84 +units=m"
    (folder / "20210218_20210303.vrt").write_text(
        raw_vrt(
            "greece.unw",
            (size, size),
            place,
            local,
            [((size - 1) * line, -line, "LSB")],
        )
    )
    cube = cube_of(
        folder,
        tmp_path,
        *("--pattern", "{reference}_{secondary}.vrt", "--unit", "m"),
        *("--incidence", 39.0, "--heading", -12.0),
    )
    away = np.fromfile(GREECE / "greece.unw", "<f4").reshape(size, size)[::-1]
    away = np.where(away == 0, np.nan, away)
    expected = 4 * np.pi / WAVELENGTH * away
    np.testing.assert_allclose(cube.unwrapped_phase[0], expected, rtol=1e-6)
    # Of the earthquake the largest motion is 0.48 m away, 17 fringes.
    assert float(cube.unwrapped_phase.max()) == pytest.approx(109, abs=2)
    assert float(cube.y[0] - cube.y[1]) == step
    assert float(cube.x[400]) == pytest.approx(0) == float(cube.y[400])
