"""LiCSAR interferograms and LiCSBAS series: ``GEOC*`` folders, ``cum.h5``.

LiCSAR gives the earlier date first and phase that is positive for range increase, as
`conventions` has it; LiCSBAS gives displacement in mm, positive toward the satellite.
GeoTIFFs tell the outer corner of their first pixel, EQA.dem_par and ``cum.h5`` its
centre.
"""

import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from cube_denoise.conventions import SENTINEL1_WAVELENGTH, SPEED_OF_LIGHT
from cube_denoise.file_parts import Part
from cube_denoise.gamma import map_grid, read_number, read_parameters
from cube_denoise.interferogram import ROLES, Asset, Interferogram, read_raster
from cube_denoise.product_files import check_look_rasters
from cube_denoise.series_pairs import consecutive_pairs

log = logging.getLogger(__name__)

PAIR_FOLDER = re.compile(r"(\d{8})_(\d{8})")
FRAME = re.compile(r"(\d{3})([AD])_\d{5}_\d{6}")
"""LiCSAR's name of a frame: relative orbit, direction, place."""
STATIC = {"elevation": "hgt", "los_east": "E", "los_north": "N", "los_up": "U"}
"""Role -> name of a layer that all pairs share; as flat files E.geo, N.geo, U.geo."""


def licsar_folder(place: Path) -> Path | None:
    """Folder of interferograms as LiCSAR or LiCSBAS names them: this or one in it.

    Of a frame folder ``GEOC`` or ``interferograms``, or else the one ``GEOCml*``.
    """
    made = [p for p in place.glob("GEOCml*") if p.is_dir() and _is_licsar(p)]
    inside = [place, place / "GEOC", place / "interferograms"]
    found = next((p for p in inside if p.is_dir() and _is_licsar(p)), None)
    return made[0] if found is None and len(made) == 1 else found


def _is_licsar(folder: Path) -> bool:
    return any(
        (pair / f"{pair.name}{end}").is_file()
        for pair in folder.iterdir()
        if PAIR_FOLDER.fullmatch(pair.name)
        for end in (".geo.unw.tif", ".unw")
    )


def read_licsar(folder: str | Path, *, track: str | None = None) -> list[Interferogram]:
    """Read the records of a ``GEOC`` folder of LiCSAR, or a ``GEOCml*`` of LiCSBAS.

    Parameters
    ----------
    folder : path
        With folders YYYYMMDD_YYYYMMDD, in them ``*.geo.unw.tif`` and, if there,
        ``*.geo.cc.tif`` (0 to 1, or uint8 0 to 255), beside them elevation and look
        vectors ``*.geo.{hgt,E,N,U}.tif``, ``baselines`` and ``metadata.txt`` (also in
        ``../metadata``). Or with flat ``*.unw`` and ``*.cc``, beside them
        ``EQA.dem_par``, ``slc.mli.par`` and ``hgt``, ``E.geo``, ``N.geo``, ``U.geo``.
    track : str, optional
        Such as ``"A005"``; else from the name of the frame in the path.

    Returns
    -------
    list of Interferogram
        In the order of their dates.

    Raises
    ------
    ValueError
        If the folder is not so, lacks what a record needs, or a file cannot be read.
    """
    found, unreadable = find_licsar(folder, track=track)
    for reason in unreadable.values():
        raise ValueError(reason)
    return found


def find_licsar(
    folder: str | Path, *, track: str | None = None
) -> tuple[list[Interferogram], dict[str | Path, str]]:
    """Read the records of a folder as `read_licsar`, but for pairs that are broken.

    Returns
    -------
    interferograms : list of Interferogram
    unreadable : dict
        Folder of a pair -> why it could not be read.
    """
    folder = Path(folder).resolve()
    places = (folder, folder.parent / "metadata")
    pairs = sorted(p for p in folder.iterdir() if PAIR_FOLDER.fullmatch(p.name))
    tiled = [p for p in pairs if (p / f"{p.name}.geo.unw.tif").is_file()]
    flat = [p for p in pairs if (p / f"{p.name}.unw").is_file()]
    if not tiled and not flat:
        raise ValueError(
            f"{folder} has no YYYYMMDD_YYYYMMDD/YYYYMMDD_YYYYMMDD.geo.unw.tif (LiCSAR) "
            "nor .unw (LiCSBAS)"
        )
    text = read_parameters(*(p / "metadata.txt" for p in places))
    text |= read_parameters(folder / "slc.mli.par")
    depth = _baselines(*(p / "baselines" for p in places))
    shared: dict[str, Any] = {
        "track": track or _track(folder),
        "wavelength": _wavelength(text, folder),
        "incidence_angle": read_number(text, "avg_incidence_angle", folder),
        "heading": read_number(text, "heading", folder),
        "phase_sign": 1,
    }
    if not tiled:
        shared |= map_grid(
            read_parameters(folder / "EQA.dem_par"), folder / "EQA.dem_par"
        )
        layers = _flat_layers(folder, shared["shape"])
    else:
        layers = _raster_layers(places)
        if {"los_east", "los_up"} <= set(layers):
            check_look_rasters(layers["los_east"], layers["los_up"], shared["track"])
    found = []
    unreadable: dict[str | Path, str] = {}
    for pair in tiled or flat:
        early, late = pair.name.split("_")
        try:
            place, assets = _rasters(pair) if tiled else _flats(pair, shared["shape"])
        except ValueError as error:
            unreadable[pair] = str(error)
            continue
        found.append(
            Interferogram(
                id=f"{shared['track']}_{pair.name}",
                reference_time=_moment(early, text, folder),
                secondary_time=_moment(late, text, folder),
                perpendicular_baseline=depth.get(late, math.nan)
                - depth.get(early, math.nan),
                **(shared | place),
                assets=assets | layers,
            )
        )
    return found, unreadable


def read_licsbas(path: str | Path, *, track: str | None = None) -> list[Interferogram]:
    """Read a time series of LiCSBAS as the pairs of dates that follow each other.

    These hold all of the series, and their inversion gives it back. They have no
    coherence.

    Parameters
    ----------
    path : path
        ``cum.h5`` or ``cum_filt.h5``. The wavelength and the time of day are those of
        ``info/13parameters.txt`` and ``info/slc.mli.par`` beside it, elevation and look
        vectors those in the file or in ``results``.
    track : str, optional
        Such as ``"A005"``; else from the name of the frame in the path.

    Returns
    -------
    list of Interferogram

    Raises
    ------
    ValueError
        If the file cannot be read or lacks something.

    Warns
    -----
    UserWarning
        If nothing tells the wavelength: it is taken to be that of Sentinel-1.
    """
    import h5py

    path = Path(path).resolve()
    info = path.parent / "info"
    text = read_parameters(info / "slc.mli.par", info / "13parameters.txt")
    if not {"wavelength", "radar_frequency"} & set(text):
        warnings.warn(
            f"{info} does not tell the wavelength: taken to be that of Sentinel-1, "
            f"{SENTINEL1_WAVELENGTH} m",
            stacklevel=2,
        )
    try:
        with h5py.File(path, "r") as file:
            missing = [name for name in ("cum", "imdates") if name not in file]
            if missing:
                raise ValueError(
                    f"{path} has {sorted(file)} and lacks {' and '.join(missing)}, "
                    "which LiCSBAS writes"
                )
            values = file["cum"].shape
            if len(values) != 3 or file["imdates"].shape != values[:1]:
                raise ValueError(
                    f"{path} has cum of shape {values} and imdates of shape "
                    f"{file['imdates'].shape}: must be (dates, rows, columns) and "
                    "(dates,)"
                )
            names = ("corner_lat", "corner_lon", "post_lat", "post_lon")
            told = {n: str(float(file[n][()])) for n in names if n in file}
            told |= {"nlines": str(values[1]), "width": str(values[2])}
            dates = [str(int(d)) for d in file["imdates"][:]]
            depth = file["bperp"][:] if "bperp" in file else None
            inside = {
                role: name
                for role, name in _flat_names().items()
                if name in file and file[name].shape == values[1:]
            }
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}") from error
    shared: dict[str, Any] = {
        "track": track or _track(path),
        "wavelength": _wavelength(text, info),
        "incidence_angle": None,
        "heading": None,
        **map_grid(read_parameters(info / "EQA.dem_par") | told, path),
    }
    layers = _flat_layers(path.parent / "results", shared["shape"]) | {
        role: Asset(str(path), role, ROLES[role], _none(role), part=Part(name))
        for role, name in inside.items()
    }
    return consecutive_pairs(
        path,
        Part("cum"),
        times=[_moment(d, text, path) for d in dates],
        baselines=depth if depth is not None and len(depth) == len(dates) else None,
        metres=1e-3,
        shared=shared,
        layers=layers,
    )


def _rasters(pair: Path) -> tuple[dict[str, Any], dict[str, Asset]]:
    """Grid and assets of a pair of GeoTIFFs."""
    path = pair / f"{pair.name}.geo.unw.tif"
    raster, role = read_raster(path), "unwrapped_phase"
    assets = {role: Asset(str(path), role, ROLES[role], _nodata(raster.nodata))}
    place = {
        "crs": raster.crs,
        "shape": raster.shape,
        "transform": raster.transform,
    }
    path, role = pair / f"{pair.name}.geo.cc.tif", "coherence"
    if path.is_file():
        header = read_raster(path)
        scale = 1 / 255 if header.dtype == "uint8" else 1.0
        assets[role] = Asset(
            str(path), role, ROLES[role], _nodata(header.nodata), scale=scale
        )
    return place, assets


def _flats(
    pair: Path, shape: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Asset]]:
    """As `_rasters` of flat files; the coherence is uint8 or float32 by its size."""
    path, role = pair / f"{pair.name}.unw", "unwrapped_phase"
    found = {role: Asset(str(path), role, ROLES[role], 0.0, part=Part())}
    path, role = pair / f"{pair.name}.cc", "coherence"
    if path.is_file():
        small = path.stat().st_size == shape[0] * shape[1]
        found[role] = Asset(
            str(path),
            role,
            ROLES[role],
            0.0,
            scale=1 / 255 if small else 1.0,
            part=Part(dtype="u1") if small else Part(),
        )
    return {}, found


def _flat_names() -> dict[str, str]:
    return {r: n if len(n) > 1 else f"{n}.geo" for r, n in STATIC.items()}


def _flat_layers(folder: Path, shape: tuple[int, int]) -> dict[str, Asset]:
    return {
        role: Asset(str(folder / name), role, ROLES[role], _none(role), part=Part())
        for role, name in _flat_names().items()
        if (folder / name).is_file()
        and (folder / name).stat().st_size == 4 * shape[0] * shape[1]
    }


def _none(role: str) -> float | None:
    """No-data value of a layer of LiCSBAS."""
    return None if role == "elevation" else 0.0


def _raster_layers(places: Sequence[Path]) -> dict[str, Asset]:
    found = {}
    for role, name in STATIC.items():
        files = [f for p in places for f in sorted(p.glob(f"*.geo.{name}.tif"))]
        if files:
            declared = read_raster(files[0]).nodata
            nodata = declared if role == "elevation" else _nodata(declared)
            found[role] = Asset(str(files[0]), role, ROLES[role], nodata)
    return found


def _nodata(declared: float | None) -> float:
    """No-data value of LiCSAR's files, which mostly declare none."""
    return 0.0 if declared is None or math.isnan(declared) else declared


def _track(place: Path) -> str:
    for part in reversed(place.parts):
        if found := FRAME.search(part):
            return f"{found[2]}{found[1]}"
    raise ValueError(
        f"{place} is not below a folder named as its frame, such as "
        "021D_04972_131213: give the track, such as D021 (cube-denoise index --track, "
        "track=)"
    )


def _wavelength(text: Mapping[str, str], where: Path) -> float:
    """m; that of Sentinel-1, which alone LiCSAR processes, where nothing tells it."""
    length = read_number(text, "wavelength", where)
    frequency = read_number(text, "radar_frequency", where)
    if length is None and frequency:
        length = SPEED_OF_LIGHT / frequency
    return SENTINEL1_WAVELENGTH if length is None else length


def _moment(date: str, text: Mapping[str, str], where: Path) -> datetime:
    clock = text.get("center_time", "0:00:00")
    try:
        hour, minute, second = clock.split(":")
        moment = time(int(hour), int(minute), int(float(second)), tzinfo=UTC)
        return datetime.combine(datetime.strptime(date, "%Y%m%d").date(), moment)
    except ValueError:
        raise ValueError(
            f"date {date!r} at center_time={clock!r} of {where}: must be YYYYMMDD and "
            "HH:MM:SS"
        ) from None


def _baselines(*files: Path) -> dict[str, float]:
    """Perpendicular baseline of dates, m: primary, date, baseline, days."""
    found: dict[str, float] = {}
    for file in files:
        if file.is_file():
            rows = (line.split() for line in file.read_text().splitlines())
            for row in rows:
                if len(row) >= 3:
                    found.setdefault(row[1], float(row[2]))
    return found
