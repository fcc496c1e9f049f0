"""Line-of-sight velocities of frames: cubes, rasters of LiCSBAS, datasets."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from cube_denoise import archive, places, store
from cube_denoise.blocks import Window, spans, windows
from cube_denoise.conventions import PAIR, TIME, X, Y
from cube_denoise.grid import geobox_of
from cube_denoise.interferogram import read_raster
from cube_denoise.licsbas import FRAME
from cube_denoise.raster_access import opened

LOOK = ("los_east", "los_north", "los_up")
"""Unit vector from the ground to the satellite."""
MAPS = ("velocity", "velocity_std", *LOOK)
"""What a frame must have, dims (y, x); velocities in m/yr, positive toward the
satellite."""
METRES = ("m year-1", "m/yr", "m/year", "m yr-1", "m a-1", "metre year-1")
MILLIMETRES = ("mm year-1", "mm/yr", "mm/year", "mm yr-1", "mm a-1")
LEAST_STD = 1e-4
"""m/yr: smaller standard deviations, such as 0 at a reference pixel, count as this."""
FASTEST = 2.0
"""m/yr: a median speed above that is a unit mistaken."""
READ_SIZE = 1024
"""Pixels a side of the windows in which frames are looked through."""


class Maps(Protocol):
    """Where the maps of a frame are read from."""

    def read(self, window: Window) -> dict[str, np.ndarray]:
        """All of `MAPS` in a window, float32, NaN = no data."""
        ...


@dataclass(frozen=True)
class Frame:
    """Line-of-sight velocity of one track and frame, on its own grid."""

    name: str
    track: str
    """A or D and the relative orbit, such as ``"A014"``; frames of one track see the
    ground from the same side."""
    grid: GeoBox
    maps: Maps = field(repr=False)
    told: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Where it comes from: url, snapshot, first_date, last_date, pair_count."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[AD]\d{3}", self.track):
            raise ValueError(
                f"frame {self.name!r}: track={self.track!r} must be A (ascending) or D "
                "(descending) and three digits of relative orbit, such as 'A014'"
            )

    def windows(self) -> tuple[dict[str, slice], ...]:
        """Cut of the frame for looking through it."""
        rows, columns = self.grid.shape
        return windows(y=spans(rows, READ_SIZE), x=spans(columns, READ_SIZE))


@dataclass(frozen=True)
class DatasetMaps:
    """Maps of a dataset, read when they are asked for."""

    dataset: xr.Dataset

    def read(self, window: Window) -> dict[str, np.ndarray]:
        """See `Maps`."""
        part = self.dataset.isel({Y: window[Y], X: window[X]})
        return {n: np.asarray(part[n].values, "float32") for n in MAPS}


@dataclass(frozen=True)
class RasterMaps:
    """Maps as rasters on one grid."""

    paths: Mapping[str, Path]
    """Name, of `MAPS` or ``mask`` (0 = no data) -> raster."""
    metres: float
    """What velocities are multiplied by to be in m/yr."""

    def read(self, window: Window) -> dict[str, np.ndarray]:
        """See `Maps`; a raster that cannot be read is a `ValueError`."""
        found = {name: self._read(path, window) for name, path in self.paths.items()}
        if (mask := found.pop("mask", None)) is not None:
            found["velocity"][~(mask > 0)] = np.nan
        for name in ("velocity", "velocity_std"):
            found[name] *= np.float32(self.metres)
        return found

    @staticmethod
    def _read(path: Path, window: Window) -> np.ndarray:
        y, x = window[Y], window[X]
        where = RasterWindow(x.start, y.start, x.stop - x.start, y.stop - y.start)
        try:
            with opened(str(path)) as raster:
                values = raster.read(1, window=where, masked=True)
        except RasterioError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"raster {path} cannot be read: {reason}") from error
        return np.ma.filled(values.astype("float32"), np.nan)


def frame_of_dataset(
    dataset: xr.Dataset, *, name: str, track: str | None = None, **told: Any
) -> Frame:
    """Frame of a dataset, such as a cube that was inverted.

    Parameters
    ----------
    dataset : xarray.Dataset, dims (y, x)
        With `MAPS`; ``velocity`` and ``velocity_std`` say ``units`` (m/yr).
    name : str
    track : str, optional
        Else the attribute ``track``.
    **told
        Of its provenance.

    Returns
    -------
    Frame

    Raises
    ------
    ValueError
        If a map, the unit, the grid or the track is missing or another one.
    """
    missing = [n for n in MAPS if n not in dataset]
    if missing:
        raise ValueError(
            f"frame {name!r} has no {', '.join(missing)}: it must be inverted, with "
            "look vectors"
        )
    for variable in ("velocity", "velocity_std"):
        unit = dataset[variable].attrs.get("units")
        if unit not in METRES:
            raise ValueError(
                f"frame {name!r}: {variable} has the unit {unit!r} and must be in "
                f"{METRES[0]!r}"
            )
    track = track or str(dataset.attrs.get("track", ""))
    maps = dataset[list(MAPS)].transpose(Y, X)
    return Frame(name, track, geobox_of(dataset), DatasetMaps(maps), told)


def read_frame(
    place: str | Path, *, name: str | None = None, snapshot: str | None = None
) -> Frame:
    """Read one frame: a cube that was inverted, or a folder of LiCSBAS.

    Parameters
    ----------
    place : str or pathlib.Path
        URL of a cube; or a folder named as the frame (``014A_04939_131313``) with
        ``vel``, ``vstd``, ``E``, ``N``, ``U`` and, if there, ``mask`` (0 = no data),
        each ``NAME.geo.tif``; velocities in mm/yr unless their tag ``UNITS`` says so.
    name : str, optional
        The last part of the place if not given.
    snapshot : str, optional
        State of the cube; the newest if not given.

    Returns
    -------
    Frame

    Raises
    ------
    ValueError
        If it is neither, or not inverted.
    """
    folder = places.local_path(place)
    if folder is not None and _velocity_raster(folder) is not None:
        return _licsbas_frame(folder)
    if not store.exists(place):
        raise ValueError(
            f"{place} is neither a cube nor a folder with vel.geo.tif, vstd.geo.tif "
            "and E, N, U.geo.tif"
        )
    newest, cube = store.newest(place)
    if snapshot is not None:
        newest, cube = snapshot, store.open_cube(place, snapshot=snapshot)
    dates: dict[str, str] = {}
    if TIME in cube.coords and cube.sizes[TIME]:
        first, last = (str(cube[TIME].values[k])[:10] for k in (0, -1))
        dates = {"first_date": first, "last_date": last}
    return frame_of_dataset(
        cube,
        name=name or str(place).rstrip("/").rsplit("/", 1)[-1],
        url=str(place),
        snapshot=newest,
        pair_count=cube.sizes.get(PAIR, 0),
        **dates,
    )


def read_frames(found: Iterable[str | Path]) -> list[Frame]:
    """Read frames of archives, of cubes, and of folders, which may hold folders.

    Raises
    ------
    ValueError
        If a place is none of it, two frames are called alike, or there is none.
    """
    frames = [frame for place in found for frame in _frames_of(place)]
    names = [f.name for f in frames]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"frames={twice} are given twice: every name must be its own")
    if not frames:
        raise ValueError("frames is empty: give cubes, archives or folders")
    return frames


def _frames_of(place: str | Path) -> list[Frame]:
    folder = places.local_path(place)
    if folder is not None and folder.is_dir():
        if _velocity_raster(folder):
            return [read_frame(place)]
        inside = [p for p in sorted(folder.iterdir()) if _velocity_raster(p)]
        if inside:
            return [read_frame(p) for p in inside]
    if store.exists(place):
        return [read_frame(place)]
    try:
        listed = archive.frames(place)
    except ValueError as error:
        raise ValueError(
            f"frames: {place} is neither a cube, an archive of frames, nor a folder "
            f"with vel.geo.tif, vstd.geo.tif and E, N, U.geo.tif: {error}"
        ) from None
    return [read_frame(f.url, name=f.name, snapshot=f.snapshot) for f in listed]


def checked(frame: Frame, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Maps of a window as all steps take them; refuse what cannot be.

    Pixels count that have all of `MAPS`; the others become NaN in all.
    """
    length = np.sqrt(sum(maps[n].astype("float64") ** 2 for n in LOOK))
    there = np.isfinite(length) & np.isfinite(maps["velocity"] + maps["velocity_std"])
    there &= maps["velocity_std"] >= 0
    if not there.any():
        return {n: np.full_like(v, np.nan) for n, v in maps.items()}
    if np.abs(length[there] - 1).max() > 0.02:
        raise ValueError(
            f"frame {frame.name!r}: look vectors have lengths from "
            f"{length[there].min():.3g} to {length[there].max():.3g} and must be unit "
            "vectors"
        )
    if maps["los_up"][there].max() <= 0:
        raise ValueError(
            f"frame {frame.name!r}: look vectors point down (los_up="
            f"{maps['los_up'][there].mean():.2f}); they must go from the ground to the "
            "satellite: turn them round"
        )
    speed = float(np.median(np.abs(maps["velocity"][there])))
    if speed > FASTEST:
        raise ValueError(
            f"frame {frame.name!r}: the median speed is {speed:.3g} m/yr: the velocity "
            "must be in m/yr, not in mm/yr"
        )
    found = {n: np.where(there, v, np.float32(np.nan)) for n, v in maps.items()}
    np.maximum(found["velocity_std"], LEAST_STD, out=found["velocity_std"])
    return found


def _velocity_raster(folder: Path) -> Path | None:
    file = folder / "vel.geo.tif"
    return file if folder.is_dir() and file.is_file() else None


def _licsbas_frame(folder: Path) -> Frame:
    found = FRAME.search(folder.name)
    if found is None:
        raise ValueError(
            f"{folder} must be named as its frame, such as 014A_04939_131313"
        )
    names = dict(zip(MAPS, ("vel", "vstd", "E", "N", "U"), strict=True), mask="mask")
    paths = {role: folder / f"{name}.geo.tif" for role, name in names.items()}
    missing = [
        p.name for role, p in paths.items() if role != "mask" and not p.is_file()
    ]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}")
    paths = {role: path for role, path in paths.items() if path.is_file()}
    headers = {role: read_raster(path) for role, path in paths.items()}
    first = headers["velocity"]
    for role, header in headers.items():
        if (header.crs, header.shape) != (first.crs, first.shape) or not np.allclose(
            header.transform, first.transform, rtol=0, atol=1e-6
        ):
            raise ValueError(f"{paths[role]} has another grid than {paths['velocity']}")
    unit = first.tags.get("UNITS", MILLIMETRES[0])
    if unit not in METRES + MILLIMETRES:
        raise ValueError(
            f"{paths['velocity']}: the tag UNITS={unit!r} must be 'm year-1' or "
            "'mm year-1'"
        )
    return Frame(
        folder.name,
        f"{found[2]}{found[1]}",
        GeoBox(first.shape, Affine(*first.transform), first.crs),
        RasterMaps(paths, 1.0 if unit in METRES else 1e-3),
        {"url": str(folder)},
    )
