"""Stacks and time series of MintPy: ``ifgramStack.h5``, ``timeseries.h5``.

MintPy's phase is, as ours, positive for range increase from the first to the second
date of a pair; its displacement is positive toward the satellite. 0 means no data.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cube_denoise.file_parts import Part
from cube_denoise.interferogram import ROLES, Asset, Interferogram, earlier_first
from cube_denoise.mintpy_files import (
    attributes_of,
    crs_of,
    moment,
    number_of,
    transform_of,
)
from cube_denoise.series_pairs import consecutive_pairs

log = logging.getLogger(__name__)

GEOMETRY = ("geometryGeo.h5", "geo_geometryRadar.h5")
"""Names of a geometry file, which lies beside a stack or in ``inputs``."""
QUARTER = math.pi / 2
_LAYERS = {
    "elevation": ("height", 1.0, 0.0, None),
    # Incidence from the vertical; azimuth of the vector from the ground to the
    # satellite, from north, counter-clockwise; degrees.
    "look_elevation": ("incidenceAngle", -math.radians(1), QUARTER, 0.0),
    "look_orientation": ("azimuthAngle", math.radians(1), QUARTER, 0.0),
}
"""Role -> dataset of a geometry file, scale, offset and no-data value."""


def read_mintpy(path: str | Path, *, track: str | None = None) -> list[Interferogram]:
    """Read the records of a geocoded stack or time series of MintPy.

    Pairs that MintPy has dropped (``dropIfgram``) are left out. A time series becomes
    the pairs of dates that follow each other: they hold all of it, and their inversion
    gives it back; longer pairs would be sums of them. They have no coherence.

    Parameters
    ----------
    path : path
        ``ifgramStack.h5``, ``timeseries.h5`` (or one with corrections), geocoded.
        Elevation and look direction come from the geometry file beside it or in
        ``inputs``, where there is one.
    track : str, optional
        Such as ``"A005"``; else from ORBIT_DIRECTION and relative_orbit or trackNumber.

    Returns
    -------
    list of Interferogram
        In the order of the file.

    Raises
    ------
    ValueError
        If the file cannot be read, lacks something, or is in radar coordinates.
    """
    import h5py

    path = Path(path).resolve()
    try:
        with h5py.File(path, "r") as file:
            fields = attributes_of(file)
            name = next((n for n in ("unwrapPhase", "timeseries") if n in file), None)
            if name is None or "date" not in file:
                raise ValueError(
                    f"{path} has {sorted(file)}: must have 'date' and 'unwrapPhase' "
                    "(ifgramStack.h5) or 'timeseries' (timeseries.h5), as MintPy "
                    "writes them"
                )
            shape = _shape(file, name, path)
            read = _stack if name == "unwrapPhase" else _series
            wavelength = number_of(fields, "WAVELENGTH", path)
            if wavelength is None:
                raise ValueError(f"{path} lacks the attribute WAVELENGTH, m")
            shared: dict[str, Any] = {
                "track": track or _track(fields, path),
                "wavelength": wavelength,
                "crs": crs_of(fields, path),
                "shape": shape,
                "transform": transform_of(fields, path),
                **_look(fields, path),
            }
            layers = _geometry(path, shape)
            return read(file, fields, path, shared, layers)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}") from error


def _shape(file: Any, name: str, path: Path) -> tuple[int, int]:
    """Rows and columns of the images, which all of them must have."""
    dates, values = file["date"].shape, file[name].shape
    pairs = name == "unwrapPhase"
    if (
        len(values) != 3
        or dates[:1] != values[:1]
        or dates[1:] != ((2,) if pairs else ())
    ):
        raise ValueError(
            f"{path} has {name} of shape {values} and date of shape {dates}: must be "
            f"({'pairs' if pairs else 'dates'}, rows, columns) and "
            f"({'pairs, 2' if pairs else 'dates,'})"
        )
    for other in ("coherence", "bperp", "dropIfgram") if pairs else ("bperp",):
        wanted = values if other == "coherence" else values[:1]
        if other in file and file[other].shape != wanted:
            raise ValueError(
                f"{path} has {other} of shape {file[other].shape}: must be {wanted}, "
                f"as {name} has it"
            )
    return values[1], values[2]


def _stack(
    file: Any,
    fields: Mapping[str, str],
    path: Path,
    shared: Mapping[str, Any],
    layers: Mapping[str, Asset],
) -> list[Interferogram]:
    dates = file["date"][:]
    count = len(dates)
    kept = (
        file["dropIfgram"][:].astype(bool) if "dropIfgram" in file else [True] * count
    )
    baselines = file["bperp"][:] if "bperp" in file else [math.nan] * count
    if not np.any(kept):
        raise ValueError(f"{path} has no pair that is not dropped (dropIfgram)")
    if not np.all(kept):
        log.info("%s: %d dropped pairs left out", path, count - np.sum(kept))
    roles: dict[str, tuple[str, float | None]]
    roles = {"unwrapped_phase": ("unwrapPhase", 0.0)}
    if "coherence" in file:
        roles["coherence"] = ("coherence", None)  # 0 is a value
    return [
        Interferogram(
            id=f"{shared['track']}_{_text(dates[k][0])}_{_text(dates[k][1])}",
            **earlier_first(
                *(moment(d, fields, path) for d in dates[k]),
                perpendicular_baseline=float(baselines[k]),
                phase_sign=1,
            )._asdict(),
            **shared,
            assets={
                role: Asset(
                    str(path), role, ROLES[role], nodata, part=Part(dataset, layer=k)
                )
                for role, (dataset, nodata) in roles.items()
            }
            | dict(layers),
        )
        for k in range(count)
        if kept[k]
    ]


def _series(
    file: Any,
    fields: Mapping[str, str],
    path: Path,
    shared: Mapping[str, Any],
    layers: Mapping[str, Asset],
) -> list[Interferogram]:
    unit = fields.get("UNIT", "m")
    if unit != "m":
        raise ValueError(f"{path} has UNIT={unit}: must be a displacement in m")
    row, column = (number_of(fields, name, path) for name in ("REF_Y", "REF_X"))
    known = row is not None and column is not None
    reference = (int(row or 0), int(column or 0)) if known else (-1, -1)
    return consecutive_pairs(
        path,
        Part("timeseries", reference=reference),
        times=[moment(d, fields, path) for d in file["date"][:]],
        baselines=file["bperp"][:] if "bperp" in file else None,
        metres=1.0,
        shared=shared,
        layers=layers,
    )


def _track(fields: Mapping[str, str], path: Path) -> str:
    direction = fields.get("ORBIT_DIRECTION", "")[:1].upper()
    names = ("relative_orbit", "trackNumber")
    orbit = next((fields[n] for n in names if fields.get(n, "").isdigit()), None)
    if direction not in ("A", "D") or orbit is None:
        raise ValueError(
            f"{path} has ORBIT_DIRECTION={fields.get('ORBIT_DIRECTION')!r} and no "
            f"number in {' or '.join(names)}: give the track, such as A005 "
            "(cube-denoise index --track, track=)"
        )
    return f"{direction}{int(orbit):03d}"


def _look(fields: Mapping[str, str], path: Path) -> dict[str, float | None]:
    """Look direction of the scene as a whole, of a satellite that looks right."""
    right = (number_of(fields, "ANTENNA_SIDE", path) or -1) < 0
    heading = number_of(fields, "HEADING", path) if right else None
    return {
        "incidence_angle": number_of(fields, "CENTER_INCIDENCE_ANGLE", path),
        "heading": None if heading is None else (heading + 180) % 360 - 180,
    }


def geometry_file(path: Path) -> Path | None:
    """Geometry file beside a stack or series, or in ``inputs``; None without one."""
    folders = (path.parent, path.parent / "inputs", path.parent.parent / "inputs")
    files = (folder / name for folder in folders for name in GEOMETRY)
    return next((f for f in files if f.is_file()), None)


def _geometry(path: Path, shape: tuple[int, int]) -> dict[str, Asset]:
    """Elevation and look direction of the geometry file of a stack."""
    import h5py

    place = geometry_file(path)
    if place is None:
        log.info("%s has no %s beside it or in inputs", path, " or ".join(GEOMETRY))
        return {}
    found = {}
    with h5py.File(place, "r") as file:
        for role, (dataset, scale, offset, nodata) in _LAYERS.items():
            if dataset not in file:
                continue
            if file[dataset].shape != shape:
                raise ValueError(
                    f"{place} has {dataset} of shape {file[dataset].shape}: must be "
                    f"{shape}, as {path.name} has it"
                )
            found[role] = Asset(
                str(place), role, ROLES[role], nodata, scale, offset, Part(dataset)
            )
    return found


def _text(date: bytes | str) -> str:
    return date.decode() if isinstance(date, bytes) else str(date)
