"""OPERA's displacement of Sentinel-1: DISP-S1, NetCDF4, or GeoTIFFs as dolphin's.

Each file is displacement (m, positive toward the satellite) of one date against a
reference date that moves on from time to time. Every file becomes the pair of its two
dates as it is: the pairs form a tree, so that inversion accumulates them where the
reference moves, and a date that is masked at a pixel costs that date alone. Pixels
where ``recommended_mask`` or ``connected_component_labels`` is 0 are no data. The files
hold no look direction: it comes from the static layers beside them, or is given.
"""

import functools
import re
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cube_denoise.conventions import SENTINEL1_WAVELENGTH, displacement_to_phase
from cube_denoise.hdf5_access import is_remote
from cube_denoise.interferogram import (
    ROLES,
    Asset,
    Interferogram,
    earlier_first,
    read_raster,
)
from cube_denoise.places import without_secrets
from cube_denoise.product_files import (
    METRES,
    absolute,
    check_heading,
    check_image,
    check_look_rasters,
    grid_of,
    image,
    known_crs,
    middle,
    moment_of,
    need,
    number_of,
    product,
    stem_of,
    text_of,
)

NAME = re.compile(
    r"OPERA_L3_DISP-S1_IW_F(?P<frame>\d{5})_\w\w_(?P<reference>\d{8}T\d{6})Z_"
    r"(?P<secondary>\d{8}T\d{6})Z_v[\d.]+_\d{8}T\d{6}Z"
)
"""Of a product, without ``.nc``."""
GEOTIFF = re.compile(r"displacement_(?P<reference>\d{8})_(?P<secondary>\d{8})\.tif")
"""Of a displacement raster of dolphin or of one cut from a product."""
MASKS = {
    "mask": "recommended_mask",
    "connected_components": "connected_component_labels",
}
"""Role -> dataset, or start of the name of a GeoTIFF."""
STATIC = {"los": "line_of_sight_enu.tif", "elevation": "dem.tif"}
"""Ends of the names of static layers, OPERA_L3_DISP-S1-STATIC_F....tif."""
_IDENTITY = "/identification"


def is_static(href: str) -> bool:
    """Whether a file is a static layer that is used, by its name."""
    name = f"{stem_of(href)}.tif"
    return "DISP-S1-STATIC_F" in name and name.endswith((*STATIC.values(),))


def read_opera(
    href: str | Path,
    *,
    track: str | None = None,
    incidence_angle: float | None = None,
    heading: float | None = None,
    static: Sequence[str | Path] = (),
) -> Interferogram:
    """Read the record of one DISP-S1 product, or of one GeoTIFF as dolphin names it.

    Parameters
    ----------
    href : str or path
        The ``.nc`` file or its ``https://`` or ``s3://`` address, of which only the
        blocks needed are read; or ``displacement_<date>_<date>.tif``, local.
    track : str, optional
        Such as ``"D078"``; else from the product. A GeoTIFF does not tell it.
    incidence_angle, heading : float, optional
        Degrees from the vertical, and of the flight direction clockwise from north;
        needed where there is no static layer ``*line_of_sight_enu.tif`` of the frame.
    static : sequence of str or path, optional
        Static layers, ``OPERA_L3_DISP-S1-STATIC_F..._line_of_sight_enu.tif`` and
        ``..._dem.tif``, local or ``https://`` or ``s3://`` addresses; of several frames
        those are taken that the product is of. Those beside a local product are found.

    Returns
    -------
    Interferogram

    Raises
    ------
    ValueError
        If the file cannot be read, lacks a group, is in other units; or if nothing
        tells the track or the look direction.

    Warns
    -----
    UserWarning
        Of a GeoTIFF, which does not tell its wavelength: taken to be that of
        Sentinel-1.
    """
    href = absolute(href)
    read = _geotiff if href.endswith(".tif") else _netcdf
    found = read(href, track)
    check_heading(heading, found["track"])
    beside = [] if is_remote(href) else _beside(Path(href))
    layers = _static([*beside, *map(absolute, static)], found["frame"])
    if "los_up" not in layers and (incidence_angle is None or heading is None):
        raise ValueError(
            f"{without_secrets(href)} does not tell its look direction: put the static "
            f"layer of its frame, *{STATIC['los']}, beside it, or give static, its "
            "place, or incidence_angle and heading, degrees (cube-denoise index "
            "--static, --incidence --heading)"
        )
    if "los_up" in layers:
        check_look_rasters(layers["los_east"], layers["los_up"], found["track"])
    return Interferogram(
        **(found | {"assets": found["assets"] | layers}),
        incidence_angle=incidence_angle,
        heading=heading,
    )


def _netcdf(href: str, track: str | None) -> dict[str, Any]:
    with product(href) as file:
        wavelength, first, second = (
            f"{_IDENTITY}/{n}"
            for n in ("radar_wavelength", "reference_datetime", "secondary_datetime")
        )
        need(
            file,
            ["displacement", "x", "y", "spatial_ref", wavelength, first, second],
            href,
        )
        place = grid_of(file, "x", "y", href)
        check_image(file, "displacement", place["shape"], METRES, href)
        length = number_of(file, wavelength, href)
        baseline = "/corrections/perpendicular_baseline"
        masks = {
            role: image(file, href, role, name)
            for role, name in MASKS.items()
            if name in file
        }
        ordered = earlier_first(
            *(moment_of(file, name, href) for name in (first, second)),
            perpendicular_baseline=(
                middle(file, baseline) if baseline in file else float("nan")
            ),
            phase_sign=1,
        )
        role = "unwrapped_phase"
        scale = displacement_to_phase(1.0, length)
        frame = f"{_IDENTITY}/frame_id"
        return {
            "id": stem_of(href),
            **ordered._asdict(),
            "track": track or _track(file, href),
            "wavelength": length,
            "crs": _crs(file, href),
            **place,
            "assets": {role: image(file, href, role, "displacement", scale=scale)}
            | masks,
            "frame": str(int(number_of(file, frame, href))) if frame in file else "",
        }


def _geotiff(href: str, track: str | None) -> dict[str, Any]:
    path = Path(href)
    name = GEOTIFF.fullmatch(path.name)
    if name is None:
        raise ValueError(f"{path} must be named displacement_YYYYMMDD_YYYYMMDD.tif")
    if track is None:
        raise ValueError(
            f"{path} does not tell its track: give it, such as D078 (cube-denoise "
            "index --track, track=)"
        )
    header = read_raster(path)
    if header.unit.lower() not in ("", *METRES):
        raise ValueError(f"{path} is in {header.unit!r}: must be in metres")
    length = header.tags.get("wavelength")
    if length is None:
        warnings.warn(
            f"{path} does not tell its wavelength: taken to be that of Sentinel-1, "
            f"{SENTINEL1_WAVELENGTH} m",
            stacklevel=4,
        )
    wavelength = float(length or SENTINEL1_WAVELENGTH)
    masks = {}
    for role, kind in MASKS.items():
        beside = path.with_name(path.name.replace("displacement", kind))
        if beside.is_file():
            masks[role] = Asset(
                str(beside), role, ROLES[role], read_raster(beside).nodata
            )
    role = "unwrapped_phase"
    phase = Asset(
        href,
        role,
        ROLES[role],
        header.nodata,
        scale=displacement_to_phase(1.0, wavelength),
    )
    days = (
        datetime.strptime(name[n], "%Y%m%d").replace(tzinfo=UTC)
        for n in ("reference", "secondary")
    )
    return {
        "id": f"{track}_{path.stem}",
        **earlier_first(
            *days, perpendicular_baseline=float("nan"), phase_sign=1
        )._asdict(),
        "track": track,
        "wavelength": wavelength,
        "crs": header.crs,
        "shape": header.shape,
        "transform": header.transform,
        "assets": {role: phase} | masks,
        "frame": "",
    }


def _beside(path: Path) -> list[str]:
    places = (path.parent, path.parent / "static")
    return [str(f) for p in places for f in sorted(p.glob("*.tif"))]


def _static(files: Sequence[str], frame: str) -> dict[str, Asset]:
    """Look vector and elevation of the static layers of a frame, the last there are."""
    start = f"OPERA_L3_DISP-S1-STATIC_F{int(frame):05d}_" if frame else ""
    found = {}
    for kind, end in STATIC.items():
        names = {f: f"{stem_of(f)}.tif" for f in files}
        there = [f for f, n in names.items() if n.startswith(start) and n.endswith(end)]
        if not there:
            continue
        roles = ("los_east", "los_north", "los_up") if kind == "los" else (kind,)
        declared = _nodata(there[-1])
        nodata = 0.0 if kind == "los" and declared is None else declared
        for band, role in enumerate(roles, 1):
            found[role] = Asset(there[-1], role, ROLES[role], nodata, band=band)
    return found


@functools.lru_cache(maxsize=8)
def _nodata(href: str) -> float | None:
    """That of a static layer, which all products of a frame have in common."""
    return read_raster(href).nodata


def _track(file: Any, href: str) -> str:
    number, way = f"{_IDENTITY}/track_number", f"{_IDENTITY}/orbit_pass_direction"
    if number not in file or way not in file:
        raise ValueError(
            f"{without_secrets(href)} lacks {number} or {way}: give the track, such as "
            "D078 (cube-denoise index --track, track=)"
        )
    direction = text_of(file, way).strip()[:1].upper()
    return f"{direction}{int(number_of(file, number, href)):03d}"


def _crs(file: Any, href: str) -> str:
    told = file["spatial_ref"].attrs.get("crs_wkt", b"")
    text = told.decode() if isinstance(told, bytes) else str(told)
    return known_crs(text, "crs_wkt of spatial_ref", href)
