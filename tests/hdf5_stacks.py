"""Stacks and series as MintPy, LiCSAR and LiCSBAS write them, by their documentation.

MintPy: docs/api/data_structure.md and attributes.md. LiCSBAS: its wiki (file_structure)
and what its maintainer says of registration (yumorishita/LiCSBAS2, issue 141).
"""

from pathlib import Path

import h5py
import numpy as np
import rasterio
from affine import Affine

ROWS, COLUMNS = 40, 50
DATES = ("20200105", "20200117", "20200129", "20200210", "20200305")
PAIRS = tuple((a, b) for a in range(5) for b in range(a + 1, min(a + 3, 5)))
UTM = {
    "X_FIRST": "500000.0",
    "Y_FIRST": "2000000.0",
    "X_STEP": "80.0",
    "Y_STEP": "-80.0",
    "X_UNIT": "meters",
    "Y_UNIT": "meters",
    "EPSG": "32613",
    "UTM_ZONE": "13N",
}
ATTRIBUTES = {
    "WAVELENGTH": "0.05546576",
    "ORBIT_DIRECTION": "ASCENDING",
    "relative_orbit": "5",
    "HEADING": "-12.0",
    "CENTER_LINE_UTC": "43200.0",
    "PROCESSOR": "isce",
    "LENGTH": str(ROWS),
    "WIDTH": str(COLUMNS),
    "ALOOKS": "3",
    "RLOOKS": "9",
    **UTM,
}
FRAME = "021D_04972_131213"
WEST, NORTH, STEP = 14.03, 40.9, 0.001
"""Outer corner of the first pixel, degrees."""
BPERP = (0.0, 40.0, -25.0, 10.0, 60.0)


def stack_values(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Phase with 0 where there are no data, and coherence."""
    random = np.random.default_rng(seed)
    shape = (len(PAIRS), ROWS, COLUMNS)
    phase = random.normal(0, 4, shape).astype("float32")
    phase[random.random(shape) < 0.05] = 0
    phase[:, :3, 30:] = 0
    return phase, random.uniform(0, 1, shape).astype("float32")


def write_mintpy_stack(folder: Path, **attributes: str | None) -> Path:
    """``ifgramStack.h5`` and, compressed as MintPy does, ``geometryGeo.h5``.

    Attributes of None are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    phase, coherence = stack_values()
    told = {k: v for k, v in (ATTRIBUTES | attributes).items() if v is not None}
    with h5py.File(folder / "ifgramStack.h5", "w") as file:
        file["date"] = np.array([[DATES[a], DATES[b]] for a, b in PAIRS], "S8")
        file["bperp"] = np.array([BPERP[b] - BPERP[a] for a, b in PAIRS], "float32")
        file["dropIfgram"] = np.ones(len(PAIRS), bool)
        file["unwrapPhase"] = phase
        file["coherence"] = coherence
        file["connectComponent"] = (phase != 0).astype("int16")
        file.attrs.update({**told, "FILE_TYPE": "ifgramStack", "UNIT": "radian"})
    height = np.add.outer(np.arange(ROWS), 10.0 * np.arange(COLUMNS))
    layers = {
        "height": height,
        "incidenceAngle": np.full((ROWS, COLUMNS), 39.0),
        "azimuthAngle": np.full((ROWS, COLUMNS), 102.0),
    }
    with h5py.File(folder / "geometryGeo.h5", "w") as file:
        for name, values in layers.items():
            file.create_dataset(name, data=values.astype("f4"), compression="lzf")
        file.attrs.update({**told, "FILE_TYPE": "geometry", "UNIT": "m"})
    return folder / "ifgramStack.h5"


def series_values() -> np.ndarray:
    """Displacement, m, positive toward the satellite, 0 at the first date."""
    days = np.array([np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}") for d in DATES])
    years = (days - days[0]).astype(int) / 365.25
    north, east = np.mgrid[:ROWS, :COLUMNS]
    rate = 0.02 + 0.1 * np.exp(-((north - 20) ** 2 + (east - 25) ** 2) / 100)
    wave = 0.004 * np.sin(7 * years)[:, None, None] * (1 + east / COLUMNS)
    return (years[:, None, None] * rate + wave).astype("float32")


def write_mintpy_series(folder: Path) -> Path:
    """``timeseries.h5``: 0 at the reference pixel (20, 6), and where data are none."""
    folder.mkdir(parents=True, exist_ok=True)
    values = series_values()
    values = values - values[:, 20:21, 6:7]
    values[:, :4, :7] = 0
    with h5py.File(folder / "timeseries.h5", "w") as file:
        file["date"] = np.array(DATES, "S8")
        file["bperp"] = np.array(BPERP, "float32")
        file["timeseries"] = values
        told = {"FILE_TYPE": "timeseries", "UNIT": "m", "REF_Y": "20", "REF_X": "6"}
        file.attrs.update({**ATTRIBUTES, **told})
    return folder / "timeseries.h5"


def write_tif(path: Path, values: np.ndarray) -> None:
    """GeoTIFF on the grid of the frame, without a no-data value, as LiCSAR's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=values.shape[0],
        width=values.shape[1],
        dtype=values.dtype,
        crs="EPSG:4326",
        transform=Affine(STEP, 0, WEST, 0, -STEP, NORTH),
    ) as file:
        file.write(values, 1)


LOOK = {"E": 0.6198, "N": -0.1097, "U": 0.7771}


def write_licsar(top: Path, *, coherence: str = "uint8") -> Path:
    """``GEOC`` of a frame: GeoTIFFs, baselines of dates, metadata."""
    folder = top / FRAME / "GEOC"
    phase, cc = stack_values()
    for k, (a, b) in enumerate(PAIRS):
        name = f"{DATES[a]}_{DATES[b]}"
        write_tif(folder / name / f"{name}.geo.unw.tif", phase[k])
        stored = np.round(255 * cc[k]).astype("uint8")
        if coherence != "uint8":
            stored = stored.astype("float32") / np.float32(255)
        write_tif(folder / name / f"{name}.geo.cc.tif", stored)
    shape = (ROWS, COLUMNS)
    for name, value in LOOK.items():
        write_tif(folder / f"{FRAME}.geo.{name}.tif", np.full(shape, value, "float32"))
    height = np.arange(ROWS * COLUMNS, dtype="float32").reshape(shape)
    write_tif(folder / f"{FRAME}.geo.hgt.tif", height)
    lines = [
        f"20190101 {d} {b + 7} {30 * k}"
        for k, (d, b) in enumerate(zip(DATES, BPERP, strict=True))
    ]
    (folder / "baselines").write_text("\n".join(lines) + "\n")
    (folder / "metadata.txt").write_text(
        "primary=20190101\ncenter_time=05:03:37.608\nheading=-169.9\n"
        "avg_incidence_angle=39.1\n"
    )
    return folder


def map_parameters() -> str:
    """EQA.dem_par: the corner is the centre of the first pixel."""
    return (
        "Gamma DIFF&GEO DEM/MAP parameter file\nDEM_projection:     EQA\n"
        f"width: {COLUMNS}\nnlines: {ROWS}\n"
        f"corner_lat: {NORTH - STEP / 2:.10f}  decimal degrees\n"
        f"corner_lon: {WEST + STEP / 2:.10f}  decimal degrees\n"
        f"post_lat: {-STEP} decimal degrees\npost_lon: {STEP} decimal degrees\n"
    )


SENSOR = "radar_frequency: 5405000000.0 Hz\ncenter_time: 5:03:37.608\n"


def write_licsbas(top: Path, *, coherence: str = "uint8") -> Path:
    """``GEOCml1`` of the same frame: flat files, NaN or 0 where there are no data."""
    folder = top / FRAME / "GEOCml1"
    phase, cc = stack_values()
    phase[phase == 0] = np.nan
    for k, (a, b) in enumerate(PAIRS):
        pair = folder / f"{DATES[a]}_{DATES[b]}"
        pair.mkdir(parents=True)
        phase[k].tofile(pair / f"{pair.name}.unw")
        stored = np.round(255 * cc[k]).astype("uint8")
        if coherence != "uint8":
            stored = stored.astype("float32") / np.float32(255)
        stored.tofile(pair / f"{pair.name}.cc")
    for name, value in LOOK.items():
        np.full((ROWS, COLUMNS), value, "float32").tofile(folder / f"{name}.geo")
    np.arange(ROWS * COLUMNS, dtype="float32").tofile(folder / "hgt")
    (folder / "EQA.dem_par").write_text(map_parameters())
    (folder / "slc.mli.par").write_text(SENSOR)
    return folder


def write_cumulative(top: Path) -> Path:
    """``cum.h5`` of LiCSBAS, mm, and ``info`` beside it."""
    folder = top / FRAME / "TS_GEOCml1"
    (folder / "info").mkdir(parents=True)
    values = 1e3 * series_values()
    values[:, :4, :7] = np.nan
    with h5py.File(folder / "cum.h5", "w") as file:
        file["cum"] = values
        file["imdates"] = np.array([int(d) for d in DATES], "int32")
        file["bperp"] = np.array(BPERP)
        file["corner_lat"], file["corner_lon"] = NORTH - STEP / 2, WEST + STEP / 2
        file["post_lat"], file["post_lon"] = -STEP, STEP
        file["refarea"] = "5:6/20:21"
        file["hgt"] = np.full((ROWS, COLUMNS), 7, "float32")
    (folder / "info/13parameters.txt").write_text("wavelength:     0.0554657646\n")
    (folder / "info/slc.mli.par").write_text(SENSOR)
    return folder / "cum.h5"
