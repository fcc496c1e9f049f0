"""What agencies' product files have in common: HDF5 groups, grids, looks, refusals."""

import functools
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from rasterio.windows import Window

from cube_denoise import hdf5_access
from cube_denoise import raster_access as rasters
from cube_denoise.file_parts import Part, filled, packing
from cube_denoise.interferogram import ROLES, Asset
from cube_denoise.places import PlaceError, without_secrets

RADIANS = ("rad", "radian", "radians")
METRES = ("m", "meter", "meters", "metre", "metres")


@contextmanager
def product(href: str | Path) -> Iterator[Any]:
    """Open a product file, local or remote; gives an `h5py.File`.

    Raises
    ------
    ValueError
        If it cannot be read: it is cut short, or no HDF5.
    places.PlaceError
        If the place of a remote file refuses, or does not give it this time: then
        nothing is known of the file.
    """
    try:
        with hdf5_access.opened(href) as file:
            yield file
    except hdf5_access.UnansweredError as error:
        raise PlaceError(str(error)) from None
    except OSError as error:
        reason = without_secrets(" ".join(str(error).split()))
        raise ValueError(
            f"{without_secrets(str(href))} cannot be read as HDF5; it may be cut "
            f"short: {reason}"
        ) from error


def absolute(href: str | Path) -> str:
    """Address of a remote file as it is, else the absolute path."""
    return str(href) if hdf5_access.is_remote(href) else str(Path(href).resolve())


def stem_of(href: str) -> str:
    """Name of a file or its address, without folders, query and suffix."""
    path = urlsplit(href).path if hdf5_access.is_remote(href) else href
    return PurePosixPath(path).stem


def need(file: Any, names: Sequence[str], href: str) -> None:
    """Refuse a file without these groups and datasets."""
    missing = [name for name in names if name not in file]
    if missing:
        raise ValueError(
            f"{without_secrets(href)} lacks {', '.join(missing)}; it has "
            f"{', '.join(sorted(file)) or 'nothing'}"
        )


def text_of(file: Any, name: str) -> str:
    """Scalar text of a file."""
    value = np.ravel(file[name][()])[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def number_of(file: Any, name: str, href: str) -> float:
    """Scalar number of a file."""
    try:
        return float(np.ravel(file[name][()])[0])
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} of {without_secrets(href)} is {file[name][()]!r}: must be a number"
        ) from None


def moment_of(file: Any, name: str, href: str) -> datetime:
    """Date and time of a file, UTC, to the second."""
    text = text_of(file, name).replace("Z", "")
    try:
        found = datetime.fromisoformat(re.sub(r"\.\d*$", "", text.strip()))
    except ValueError:
        raise ValueError(
            f"{name} of {without_secrets(href)} is {text!r}: must be a date and time"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def known_crs(told: Any, what: str, href: str) -> str:
    """CRS from a code or WKT: ``"EPSG:32611"``, or WKT where there is no code."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        crs = CRS.from_user_input(str(told))
    except CRSError:
        raise ValueError(
            f"{what} of {without_secrets(href)} is {str(told)!r}: must be a CRS"
        ) from None
    code = crs.to_epsg()
    return crs.to_wkt() if code is None else f"EPSG:{code}"


def grid_of(file: Any, x: str, y: str, href: str) -> dict[str, Any]:
    """Shape and transform of an image from the middles of its pixels."""
    steps, first = [], []
    for name in (x, y):
        middles = np.asarray(file[name], "float64")
        step = np.diff(middles)
        even = middles.ndim == 1 and len(step) and np.ptp(step) <= 0.01 * abs(step[0])
        if not even:  # nor with NaN
            raise ValueError(
                f"{name} of {without_secrets(href)} must be evenly spaced, at least two"
            )
        steps.append(float(middles[-1] - middles[0]) / len(step))
        first.append(float(middles[0]) - steps[-1] / 2)
    if steps[0] < 0 or steps[1] > 0:
        raise ValueError(
            f"{without_secrets(href)} must have rows from north to south and columns "
            f"from west to east: {y} steps by {steps[1]:g}, {x} by {steps[0]:g}"
        )
    return {
        "shape": (file[y].shape[0], file[x].shape[0]),
        "transform": (steps[0], 0.0, first[0], 0.0, steps[1], first[1]),
    }


def check_image(
    file: Any, name: str, shape: tuple[int, int], units: Sequence[str], href: str
) -> None:
    """Refuse an image of another shape, or in another unit than one of `units`."""
    shown = without_secrets(href)
    kind = getattr(getattr(file[name], "dtype", None), "kind", "a group")
    if kind not in "fiu":
        raise ValueError(f"{shown} has {name} of kind {kind!r}: must be numbers")
    if file[name].shape != shape:
        raise ValueError(
            f"{shown} has {name} of shape {file[name].shape}: must be {shape}, as its "
            "coordinates have it"
        )
    told = file[name].attrs.get("units", units[0])
    unit = (told.decode() if isinstance(told, bytes) else str(told)).strip().lower()
    if unit not in units:
        raise ValueError(f"{shown} has {name} in {unit!r}: must be in {units[0]!r}")


def image(file: Any, href: str, role: str, name: str, **changes: Any) -> Asset:
    """Make the asset of a dataset; its ``_FillValue`` means no data.

    Numbers that are packed (CF's ``scale_factor`` and ``add_offset``) are unpacked.
    """
    fill = file[name].attrs.get("_FillValue")
    value = None if fill is None else float(np.ravel(fill)[0])
    nodata = None if value is None or math.isnan(value) else value
    factor, added = packing(file[name])
    scale = changes.pop("scale", 1.0)
    return Asset(
        *(href, role, ROLES[role], nodata),
        scale=scale * factor,
        offset=scale * added,
        part=Part(name),
        **changes,
    )


def middle(file: Any, name: str) -> float:
    """Mean of a coarse mesh; of a large image, that of its middle. NaN if empty."""
    data = file[name]
    if data.size > 1 << 20:
        rows, columns = (
            slice(max(n // 2 - 32, 0), n // 2 + 32) for n in data.shape[-2:]
        )
        values = np.asarray(data[..., rows, columns], "float64")
        valid = values[np.isfinite(values)]
    else:
        values = filled(data)
        valid = values[np.isfinite(values)]
    return float(valid.mean()) if valid.size else math.nan


def check_look(
    east: float, up: float, *, ascending: bool, right: bool, href: str
) -> None:
    """Refuse a look vector that does not point to where the satellite is.

    Parameters
    ----------
    east, up : float
        Of the unit vector from the ground to the satellite, in the middle.
    ascending, right : bool
        Direction of flight, and the side it looks to: a satellite that ascends and
        looks to the right is in the west.
    href : str
        Of the product.
    """
    west = ascending == right
    if not (0.2 < up <= 1 and abs(east) > 0.1 and (east < 0) == west):
        raise ValueError(
            f"{without_secrets(href)} has a look vector of east {east:.2f} and up "
            f"{up:.2f} and is {'ascending' if ascending else 'descending'}, looking "
            f"{'right' if right else 'left'}: the satellite must be in the "
            f"{'west' if west else 'east'} and above; the look vector may be flipped"
        )


def check_heading(heading: float | None, track: str) -> None:
    """Refuse a flight direction that is not that of a track."""
    if heading is None:
        return
    north = math.cos(math.radians(heading)) > 0
    if north != track.startswith("A"):
        raise ValueError(
            f"{heading=} is the flight {'north' if north else 'south'} of a satellite "
            f"that {'ascends' if north else 'descends'}, and {track=} is "
            f"{'ascending' if track.startswith('A') else 'descending'}: one of them is "
            "wrong, and the look vector would be flipped"
        )


def check_look_rasters(east: Asset, up: Asset, track: str) -> None:
    """`check_look` of a right-looking satellite, from a coarse view of two rasters."""
    means = _coarse_mean(east), _coarse_mean(up)
    if not any(math.isnan(mean) for mean in means):
        ascending = track.startswith("A")
        check_look(*means, ascending=ascending, right=True, href=east.href)


@functools.lru_cache(maxsize=8)
def _coarse_mean(asset: Asset) -> float:
    """Mean of the middle of a raster; where that is empty, of all, seen coarsely."""
    with rasters.opened(asset.href) as source:
        sizes = [min(n, 64) for n in source.shape]
        starts = [(n - k) // 2 for n, k in zip(source.shape, sizes, strict=True)]
        middle = Window(starts[1], starts[0], sizes[1], sizes[0])
        for part in ({"window": middle}, {"out_shape": sizes}):
            values = source.read(asset.band, **part).astype("float64")
            valid = np.isfinite(values) & (values != asset.nodata)
            if valid.any():
                return float(values[valid].mean())
    return math.nan
