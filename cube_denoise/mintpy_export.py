"""Pairs of a cube as MintPy takes them: ``ifgramStack.h5`` and ``geometryGeo.h5``."""

import logging
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from cube_denoise.blocks import Window, spans, windows
from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.cube_fit import same_grid, told
from cube_denoise.export_folder import ExportFolder
from cube_denoise.grid import geobox_of
from cube_denoise.mintpy import geometry_file, read_mintpy
from cube_denoise.mintpy_attributes import (
    ORBIT_RADIUS,
    day_text,
    earth_radius,
    is_sentinel1,
    mintpy_attributes,
)
from cube_denoise.reference import phase_variable

log = logging.getLogger(__name__)

STACK, GEOMETRY = "ifgramStack.h5", "geometryGeo.h5"
WINDOW_MEMORY = 32 << 20
"""Bytes of a layer up to which several chunks of all pairs are read at once."""
TINY = np.float32(np.finfo("float32").tiny)
"""What a phase of 0 is written as: to MintPy 0 means no data."""


def export_mintpy(
    cube: xr.Dataset,
    folder: str | Path,
    *,
    variable: str | None = None,
    like: str | Path | None = None,
    overwrite: bool = False,
) -> list[Path | str]:
    """Write ``ifgramStack.h5`` and ``geometryGeo.h5``, which MintPy inverts.

    The phase keeps its sign: MintPy's, too, is positive for range increase from the
    first to the second date. No data become 0, and a phase of 0 becomes 1e-38.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        As `store.open_cube` gives it, or corrected lazily; read window by window.
    folder : str or pathlib.Path
        Where to, such as ``inputs`` of a MintPy project; see `export.export_geotiff`.
    variable : {"corrected_phase", "unwrapped_phase"}, optional
        What becomes ``unwrapPhase``; None = the first of them that the cube has.
    like : str or pathlib.Path, optional
        ``ifgramStack.h5`` of the project that the pairs are from: all but the phase is
        as there (connected components, coherence, attributes), and the
        geometry file beside it is copied. Pairs that the cube has not are left out:
        MintPy takes dropped pairs back, and raw ones must not mix with corrected ones.
    overwrite : bool
        Replace files that are there.

    Returns
    -------
    list of pathlib.Path, or of str in a bucket
        The files, each whole. No geometry if the cube has neither elevation nor look
        vectors.

    Raises
    ------
    ValueError
        If the cube lacks something, `like` is of other pixels, pairs or track, or a
        file is there already.

    Warns
    -----
    UserWarning
        If baselines are unknown (written as 0: do not let MintPy correct errors of
        elevation), or pairs are left out, be it that they are not corrected yet.
    """
    variable = phase_variable(cube, variable)
    cube = _with_data(cube, variable)
    target = ExportFolder(folder)
    source = None if like is None else Path(like).resolve()
    layers = ("elevation", "los_up")
    geometry = (
        any(n in cube for n in layers) if source is None else geometry_file(source)
    )
    names = [STACK, GEOMETRY] if geometry else [STACK]
    target.check(names, overwrite=overwrite)
    if source is None:
        fields = mintpy_attributes(cube, variable)
    for name in names:
        with target.writing(name) as path:
            if name == GEOMETRY and isinstance(geometry, Path):
                shutil.copyfile(geometry, path)
            elif name == GEOMETRY:
                _write_geometry(cube, fields, path)
            elif source is None:
                _write_stack(cube, variable, fields, path)
            else:
                _write_like(cube, variable, source, path)
        log.info("wrote %s", target.place(name))
    return [target.place(name) for name in names]


def _write_stack(
    cube: xr.Dataset, variable: str, fields: Mapping[str, str], path: Path
) -> None:
    import h5py

    layers = {"unwrapPhase": variable}
    layers |= {"coherence": "coherence"} if "coherence" in cube else {}
    baseline = np.full(cube.sizes[PAIR], np.nan)
    if "perpendicular_baseline" in cube:
        baseline = cube["perpendicular_baseline"].values
    if np.isnan(baseline).any():
        warnings.warn(
            f"{np.isnan(baseline).sum()} perpendicular baselines are unknown and "
            "written as 0: set mintpy.topographicResidual = no",
            stacklevel=3,
        )
    with h5py.File(path, "w") as file:
        file["date"] = np.array(_days(cube), "S8")
        file["bperp"] = np.nan_to_num(baseline).astype("float32")
        file["dropIfgram"] = np.ones(cube.sizes[PAIR], bool)  # True = used
        for window in _windows(cube):
            for name, layer in layers.items():
                values = _values(cube, layer, window)
                if not values.any():  # what is not written is 0
                    continue
                if name not in file:
                    shape = [cube.sizes[d] for d in (PAIR, Y, X)]
                    made = file.create_dataset(name, shape, "float32")
                    made.attrs["MODIFICATION_TIME"] = str(time.time())
                file[name][:, window[Y], window[X]] = values
        if "unwrapPhase" not in file:
            raise ValueError(f"{variable} has no data in any pair")
        file.attrs.update({**fields, "FILE_TYPE": "ifgramStack", "UNIT": "radian"})


def _write_geometry(cube: xr.Dataset, fields: Mapping[str, str], path: Path) -> None:
    import h5py

    looking = all(n in cube for n in ("los_east", "los_north", "los_up"))
    names = ["height"] if "elevation" in cube else []
    names += ["incidenceAngle", "azimuthAngle"] if looking else []
    ranging = looking and is_sentinel1(cube)
    names += ["slantRangeDistance"] if ranging else []
    radius = earth_radius(geobox_of(cube))
    with h5py.File(path, "w") as file:
        for name in names:
            file.create_dataset(name, [cube.sizes[d] for d in (Y, X)], "float32")
        for window in _windows(cube):
            part, where = cube.isel(window), (window[Y], window[X])
            if "elevation" in cube:
                file["height"][where] = part["elevation"].values
            if not looking:
                continue
            east, north, up = (
                part[f"los_{n}"].values.astype("float64")
                for n in ("east", "north", "up")
            )
            incidence = np.arccos(np.clip(up, -1, 1))
            file["incidenceAngle"][where] = np.degrees(incidence)
            # From north, counter-clockwise, of the vector to the satellite.
            file["azimuthAngle"][where] = np.degrees(np.arctan2(-east, north))
            if ranging:
                across = (radius * np.sin(incidence)) ** 2
                file["slantRangeDistance"][where] = (
                    np.sqrt(ORBIT_RADIUS**2 - across) - radius * up
                )
        file.attrs.update({**fields, "FILE_TYPE": "geometry", "UNIT": "m"})


def _write_like(cube: xr.Dataset, variable: str, like: Path, path: Path) -> None:
    """Copy the pairs of a stack of MintPy that the cube has, with the cube's phase."""
    import h5py

    _check_like(cube, like)
    place = {days: k for k, days in enumerate(_days(cube))}
    with h5py.File(like, "r") as theirs, h5py.File(path, "w") as ours:
        dates = [tuple(d.decode() for d in days) for days in theirs["date"][:]]
        from_cube = [place.get((min(d), max(d)), -1) for d in dates]
        there = [k for k, found in enumerate(from_cube) if found >= 0]
        whole = np.ones(len(dates), bool)
        kept = theirs["dropIfgram"][:] if "dropIfgram" in theirs else whole
        absent = [
            "_".join(days)
            for days, found, used in zip(dates, from_cube, kept, strict=True)
            if used and found < 0
        ]
        if not there:
            raise ValueError(f"{like} has none of the pairs of the cube")
        if absent:
            warnings.warn(
                f"{len(absent)} pairs of {like} are not in the cube and left out: "
                f"{', '.join(absent)}",
                stacklevel=4,
            )
        ours.attrs.update(theirs.attrs)
        for name in theirs:
            if name == "unwrapPhase" or len(there) < len(dates):
                _copy_pairs(theirs[name], ours, there, filled=name != "unwrapPhase")
            else:
                theirs.copy(name, ours)
        ours["unwrapPhase"].attrs["MODIFICATION_TIME"] = str(time.time())
        order = [from_cube[k] for k in there]
        sign = np.array([1 if dates[k][0] < dates[k][1] else -1 for k in there])
        for window in _windows(cube):
            values = _values(cube, variable, window)[order]
            values *= sign.astype("float32")[:, None, None]
            ours["unwrapPhase"][:, window[Y], window[X]] = values


def _copy_pairs(source: Any, file: Any, there: Sequence[int], *, filled: bool) -> None:
    """Make a dataset like one of a stack, for some of its pairs; image by image."""
    same = {n: getattr(source, n) for n in ("chunks", "compression", "shuffle")}
    if same["chunks"]:
        same["chunks"] = (min(same["chunks"][0], len(there)), *same["chunks"][1:])
    name = source.name.strip("/")
    made = file.create_dataset(
        name, (len(there), *source.shape[1:]), source.dtype, **same
    )
    made.attrs.update(source.attrs)
    for k, pair in enumerate(there) if filled else ():
        made[k] = source[pair]


def _check_like(cube: xr.Dataset, like: Path) -> None:
    record = read_mintpy(like, track=str(cube.attrs["track"]))[0]
    own = GeoBox(record.shape, Affine(*record.transform), record.crs)
    grid = geobox_of(cube)
    if not same_grid(own, grid):
        raise ValueError(
            f"{like=} is on the grid {told(own)} and the cube on {told(grid)}"
        )


def _with_data(cube: xr.Dataset, variable: str) -> xr.Dataset:
    """The pairs that the variable has: not those that are still to be corrected."""
    if variable != "corrected_phase" or "correction_status" not in cube:
        return cube
    done = np.flatnonzero(cube["correction_status"].values)
    if done.size == 0:
        raise ValueError("no pair is corrected: correct the cube, or give variable=")
    if missing := cube.sizes[PAIR] - done.size:
        warnings.warn(
            f"{missing} pairs are not corrected yet and left out", stacklevel=3
        )
        return cube.isel({PAIR: done})
    return cube


def _days(cube: xr.Dataset) -> list[tuple[str, str]]:
    """Dates of the pairs, YYYYMMDD."""
    early, late = (cube[n].values for n in ("reference_time", "secondary_time"))
    return [(day_text(a), day_text(b)) for a, b in zip(early, late, strict=True)]


def _windows(cube: xr.Dataset) -> tuple[Window, ...]:
    """Windows in which all pairs are read at once: chunks beside each other."""
    chunk, shard = (int(cube.attrs.get(n, 256)) for n in ("chunk", "shard"))
    many = max(1, WINDOW_MEMORY // (4 * cube.sizes[PAIR] * chunk**2))
    sides = {Y: chunk, X: min(many * chunk, shard)}
    return windows(**{d: spans(cube.sizes[d], n) for d, n in sides.items()})


def _values(cube: xr.Dataset, name: str, window: Window) -> np.ndarray:
    """All pairs of a window as MintPy has them."""
    values = cube[name].isel(window).transpose(PAIR, Y, X).values.astype("float32")
    if name != "coherence":
        values[values == 0] = TINY
    return np.nan_to_num(values, copy=False)
