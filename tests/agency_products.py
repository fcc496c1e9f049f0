"""Products as ARIA, NISAR and OPERA lay them out, small; the truth in them beside it.

ARIA: groups and dimensions of S1-GUNW (ARIA-tools, RAiDER). NISAR: L2 GUNW of ISCE3.
OPERA: opera-adt/disp-s1, product.py and main_static_layers.py.
"""

from pathlib import Path

import h5py
import numpy as np
import rasterio
from affine import Affine
from pyproj import CRS

ROWS, COLUMNS = 24, 30
ARIA_STEP = 1 / 1200
ARIA_CORNER = (-118.0, 35.0)
"""Outer corner of the first pixel, degrees."""
UTM_CORNER = (400_000.0, 3_800_000.0)
HEIGHTS = np.array([-1500.0, 0.0, 3000.0, 9000.0])
INCIDENCE, HEADING = 39.0, -168.0
"""Degrees, in the middle of the mesh at height 0; descending."""
WAVELENGTH = 0.05546576


def ramp(seed: int = 0, shape: tuple[int, int] = (ROWS, COLUMNS)) -> np.ndarray:
    """Values that are different at every pixel and never 0, float32."""
    random = np.random.default_rng(seed)
    return random.uniform(0.5, 6, shape).astype("float32")


def incidence(x: np.ndarray, y: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Degrees; x and y from the corner in units of the image's width and height."""
    return INCIDENCE + 4 * (x - 0.5) + 0.5 * (y - 0.5) - 0.04e-3 * height


def azimuth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """From the ground to the satellite, from east, counter-clockwise, degrees."""
    return -HEADING - 180 + 0.5 * (x - 0.5) + 1.5 * (y - 0.5)


def nodes() -> np.ndarray:
    """Places of the mesh, in units of the image's size, beyond it on all sides."""
    return np.linspace(-0.2, 1.2, 6)


def mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height, y and x (in units of the image) of the mesh's nodes."""
    return np.meshgrid(HEIGHTS, nodes(), nodes(), indexing="ij")


def pixels() -> tuple[np.ndarray, np.ndarray]:
    """y and x (in units of the image) of the middles of its pixels."""
    y, x = (np.arange(n) + 0.5 for n in (ROWS, COLUMNS))
    return np.meshgrid(y / ROWS, x / COLUMNS, indexing="ij")


def put(file: h5py.File, name: str, values: object, fill: float | None = None) -> None:
    layout = {}
    if np.ndim(values) > 1:
        layout = {
            "chunks": tuple(min(n, 128) for n in np.shape(values)),
            "compression": "gzip",
        }
    data = file.create_dataset(name, data=values, **layout)
    if fill is not None:
        data.attrs["_FillValue"] = np.array([fill], data.dtype)


def write_aria(
    folder: Path,
    later: str,
    earlier: str,
    *,
    phase: np.ndarray | None = None,
    components: np.ndarray | None = None,
    letter: str = "D",
    turn: float = 0.0,
    columns_off: int = 0,
) -> Path:
    """S1-GUNW: the later date first; fills 0 and -1; baseline 80 + 40 x m."""
    folder.mkdir(parents=True, exist_ok=True)
    name = (
        f"S1-GUNW-{letter}-R-071-tops-{later}_{earlier}-135156-"
        "00119W_00034N-PP-913f-v3_0_1.nc"
    )
    phase = ramp() if phase is None else phase
    parts = np.ones(phase.shape) if components is None else components
    rows, columns = phase.shape
    west, north = ARIA_CORNER[0] + columns_off * ARIA_STEP, ARIA_CORNER[1]
    width, height = columns * ARIA_STEP, rows * ARIA_STEP
    levels, y, x = mesh()
    with h5py.File(folder / name, "w") as file:
        file.attrs["product_type"] = "UNW GEO IFG"
        data, look = "/science/grids/data", "/science/grids/imagingGeometry"
        put(file, f"{data}/unwrappedPhase", phase, 0)
        file[f"{data}/unwrappedPhase"].attrs["units"] = "rad"
        put(file, f"{data}/coherence", 0.1 + ramp(1, phase.shape) / 10, 0)
        put(file, f"{data}/connectedComponents", parts.astype("float32"), -1)
        put(file, f"{data}/longitude", west + ARIA_STEP * (np.arange(columns) + 0.5))
        put(file, f"{data}/latitude", north - ARIA_STEP * (np.arange(rows) + 0.5))
        put(file, f"{look}/longitudeMeta", west + width * nodes())
        put(file, f"{look}/latitudeMeta", north - height * nodes())
        put(file, f"{look}/heightsMeta", HEIGHTS)
        tilt = incidence(x, y, levels)
        put(file, f"{look}/incidenceAngle", tilt.astype("float32"), 0)
        around = azimuth(x, y) + turn
        put(file, f"{look}/azimuthAngle", around.astype("float32"), 0)
        depth = (80 + 40 * (x - 0.5)).astype("float32")
        put(file, f"{look}/perpendicularBaseline", depth, 0)
        put(file, "/science/radarMetaData/wavelength", np.float64(WAVELENGTH))
    return folder / name


def write_nisar(
    folder: Path,
    reference: str,
    secondary: str,
    *,
    components: np.ndarray | None = None,
    east: float = 0.62,
    north: float = -0.11,
) -> Path:
    """L2 GUNW, descending and looking left, so that the satellite is in the west.

    Baseline -50 m; the look vector changes by 0.02 over the image from (-east, north).
    """
    folder.mkdir(parents=True, exist_ok=True)
    days = (
        f"{reference}T124615_{reference}T124650_{secondary}T124615_{secondary}T124650"
    )
    name = f"NISAR_L2_PR_GUNW_004_077_D_024_005_4000_SH_{days}_X05010_N_F_J_001.h5"
    root, told = "/science/LSAR/GUNW", "/science/LSAR/identification"
    images = f"{root}/grids/frequencyA/unwrappedInterferogram/HH"
    grid = f"{root}/metadata/radarGrid"
    width, height = 80.0 * COLUMNS, 80.0 * ROWS
    levels, y, x = mesh()
    with h5py.File(folder / name, "w") as file:
        put(file, f"{images}/unwrappedPhase", ramp(), np.nan)
        file[f"{images}/unwrappedPhase"].attrs["units"] = np.bytes_("radians")
        put(file, f"{images}/coherenceMagnitude", 0.1 + ramp(1) / 10, np.nan)
        parts = np.ones((ROWS, COLUMNS)) if components is None else components
        put(file, f"{images}/connectedComponents", parts.astype("uint16"), 65535)
        put(
            file,
            f"{images}/xCoordinates",
            UTM_CORNER[0] + 80 * (np.arange(COLUMNS) + 0.5),
        )
        put(
            file, f"{images}/yCoordinates", UTM_CORNER[1] - 80 * (np.arange(ROWS) + 0.5)
        )
        put(file, f"{images}/projection", np.uint32(32611))
        file[f"{images}/projection"].attrs["epsg_code"] = np.int64(32611)
        put(file, f"{root}/grids/frequencyA/centerFrequency", 1.2575e9)
        put(file, f"{grid}/xCoordinates", UTM_CORNER[0] + width * nodes())
        put(file, f"{grid}/yCoordinates", UTM_CORNER[1] - height * nodes())
        put(file, f"{grid}/heightAboveEllipsoid", HEIGHTS)
        put(file, f"{grid}/losUnitVectorX", -east + 0.02 * x + 1e-6 * levels)
        put(file, f"{grid}/losUnitVectorY", north + 0.02 * y)
        put(file, f"{grid}/incidenceAngle", np.full(levels.shape, 39.0))
        put(file, f"{grid}/perpendicularBaseline", np.full(levels.shape, -50.0))
        for which, date in (("reference", reference), ("secondary", secondary)):
            text = f"{date[:4]}-{date[4:6]}-{date[6:]}T12:46:15.123456789"
            put(file, f"{told}/{which}ZeroDopplerStartTime", np.bytes_(text))
        put(file, f"{told}/orbitPassDirection", np.bytes_("Descending"))
        put(file, f"{told}/lookDirection", np.bytes_("Left"))
        put(file, f"{told}/trackNumber", np.uint8(77))
    return folder / name


def write_opera(
    folder: Path,
    reference: str,
    secondary: str,
    displacement: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> Path:
    """DISP-S1: m, positive toward; baseline 25 m."""
    folder.mkdir(parents=True, exist_ok=True)
    name = (
        f"OPERA_L3_DISP-S1_IW_F08882_VV_{reference}T002651Z_{secondary}T002657Z_"
        "v1.0_20251027T005420Z.nc"
    )
    rows, columns = displacement.shape
    west, north = UTM_CORNER
    with h5py.File(folder / name, "w") as file:
        file.attrs["title"] = "OPERA_L3_DISP-S1 Product"
        put(file, "displacement", displacement.astype("float32"), np.nan)
        file["displacement"].attrs["units"] = "meters"
        good = np.ones(displacement.shape) if mask is None else mask
        put(file, "recommended_mask", good.astype("uint8"), 255)
        parts = np.ones(displacement.shape) if labels is None else labels
        put(file, "connected_component_labels", parts.astype("uint16"), 65535)
        put(file, "x", west + 30 * (np.arange(columns) + 0.5))
        put(file, "y", north - 30 * (np.arange(rows) + 0.5))
        put(file, "spatial_ref", 0)
        file["spatial_ref"].attrs["crs_wkt"] = CRS.from_epsg(32611).to_wkt()
        depth = np.full(displacement.shape, 25.0, "float32")
        put(file, "/corrections/perpendicular_baseline", depth, np.nan)
        told = "/identification"
        for which, date, clock in (
            ("reference", reference, "00:26:51"),
            ("secondary", secondary, "00:26:57"),
        ):
            text = f"{date[:4]}-{date[4:6]}-{date[6:]} {clock}.123456"
            put(file, f"{told}/{which}_datetime", np.bytes_(text))
        put(file, f"{told}/radar_wavelength", WAVELENGTH)
        put(file, f"{told}/track_number", 64)
        put(file, f"{told}/orbit_pass_direction", np.bytes_("Ascending"))
        put(file, f"{told}/frame_id", 8882)
    return folder / name


def write_static(folder: Path, frame: int = 8882) -> tuple[np.ndarray, np.ndarray]:
    """Static layers of a frame: look vector in three bands, DEM; gives both."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = pixels()
    east, north = -0.6 + 0.02 * x, -0.12 + 0.01 * y
    look = np.stack([east, north, np.sqrt(1 - east**2 - north**2)]).astype("float32")
    height = (100 + 500 * x).astype("float32")[None]
    for values, end in ((look, "line_of_sight_enu"), (height, "dem")):
        name = f"OPERA_L3_DISP-S1-STATIC_F{frame:05d}_20140403_S1A_v1.0_{end}.tif"
        with rasterio.open(
            folder / name,
            "w",
            driver="GTiff",
            count=len(values),
            height=ROWS,
            width=COLUMNS,
            dtype="float32",
            crs="EPSG:32611",
            transform=Affine(30, 0, UTM_CORNER[0], 0, -30, UTM_CORNER[1]),
        ) as file:
            file.write(values)
    return look, height[0]
