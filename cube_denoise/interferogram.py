"""The record of one interferogram: what every reader gives and every step takes."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from rasterio.errors import RasterioIOError

from cube_denoise.file_parts import Part
from cube_denoise.places import without_secrets
from cube_denoise.raster_access import opened


@dataclass(frozen=True)
class Asset:
    """One raster of a product."""

    href: str
    """Path or URL that rasterio opens, or the path of a file with a `part`."""
    role: str
    """What it holds; the keys of `ROLES`."""
    unit: str
    """Unit of its values."""
    nodata: float | None
    """Value that means no data (NaN always does); None when there is no such value. As
    stored, before `scale`."""
    scale: float = 1.0
    """What the stored numbers are multiplied by to be in `unit`, before `offset`."""
    offset: float = 0.0
    """What is added then."""
    part: Part | None = None
    """Which image of the file it is, where that is no raster. Its grid is that of the
    interferogram."""
    band: int = 1
    """Which band of a raster."""


ROLES: dict[str, str] = {
    "unwrapped_phase": "rad",
    "coherence": "1",
    "elevation": "m",
    "look_elevation": "rad",
    "look_orientation": "rad",
    "los_east": "1",
    "los_north": "1",
    "los_up": "1",
    "connected_components": "1",
    "mask": "1",
}
"""Roles of assets and their units. ``look_elevation`` is the angle to the sensor above
the horizontal, ``look_orientation`` its direction from east, counter-clockwise;
``los_east``, ``los_north`` and ``los_up`` are the unit vector to it instead, of which
the last may be left out."""
MASKS = ("connected_components", "mask")
"""Roles of what tells where the phase holds: where it is above 0. Component 0 is what
could not be unwrapped reliably."""


@dataclass(frozen=True)
class Interferogram:
    """One unwrapped interferogram on its own grid, before it enters a cube."""

    id: str
    reference_time: datetime
    """Earlier acquisition, UTC."""
    secondary_time: datetime
    """Later acquisition, UTC."""
    track: str
    """A or D (ascending, descending) and the relative orbit: ``"A005"``."""
    wavelength: float
    """Radar wavelength, m."""
    perpendicular_baseline: float
    """m, secondary minus reference; NaN when unknown."""
    crs: str
    """Of the phase raster: ``"EPSG:32611"``, or WKT where there is no code."""
    shape: tuple[int, int]
    """(rows, columns) of the phase raster."""
    transform: tuple[float, float, float, float, float, float]
    """Affine order: x = a column + b row + c, y = d column + e row + f."""
    phase_sign: int
    """+1 if the raster is positive for range increase from the earlier to the later
    date, -1 if it must be negated to be so."""
    incidence_angle: float | None
    """Degrees from the vertical, for the whole scene; used where there are no rasters
    of the look direction."""
    heading: float | None
    """Flight direction, degrees clockwise from north; used as `incidence_angle` is."""
    assets: Mapping[str, Asset] = field(hash=False)
    """By role; ``unwrapped_phase`` is always there."""
    version: str = ""
    """When the product was made or changed, as its catalog says (RFC 3339); empty where
    it does not."""
    frame: str = ""
    """What its provider calls the frame or burst: neighbours of one pass have the same
    track and dates. Empty where that is not told."""

    def __post_init__(self) -> None:
        """Refuse what no reader can mean."""
        name = f"interferogram {self.id!r}"
        for moment in (self.reference_time, self.secondary_time):
            if moment.utcoffset() is None:
                raise ValueError(f"{name}: {moment.isoformat()} must carry a time zone")
        if self.reference_time >= self.secondary_time:
            raise ValueError(
                f"{name}: reference_time={self.reference_time.isoformat()} must be "
                f"before secondary_time={self.secondary_time.isoformat()}"
            )
        if not re.fullmatch(r"[AD]\d{3}", self.track):
            raise ValueError(
                f"{name}: track={self.track!r} must be A (ascending) or D (descending) "
                "and three digits of relative orbit, such as 'A005'"
            )
        if not 0.01 < self.wavelength < 1:
            raise ValueError(
                f"{name}: wavelength={self.wavelength} must be in metres, 0.01 to 1"
            )
        angle = self.incidence_angle
        if angle is not None and not 5 < angle < 85:
            raise ValueError(
                f"{name}: incidence_angle={angle} must be in degrees from the "
                "vertical, 5 to 85"
            )
        if self.phase_sign not in (1, -1):
            raise ValueError(f"{name}: phase_sign={self.phase_sign} must be 1 or -1")
        if "unwrapped_phase" not in self.assets:
            raise ValueError(
                f"{name} has assets {sorted(self.assets)} and must have one with the "
                "role 'unwrapped_phase'"
            )
        if math.isnan(self.perpendicular_baseline):  # one NaN, so that records equal
            object.__setattr__(self, "perpendicular_baseline", math.nan)

    @cached_property
    def key(self) -> tuple[str, str, str]:
        """Identity of the pair: (reference date, secondary date, track)."""
        dates = (self.reference_time, self.secondary_time)
        first, second = (d.astimezone(UTC).date().isoformat() for d in dates)
        return first, second, self.track


class EarlierFirst(NamedTuple):
    """What `earlier_first` gives."""

    reference_time: datetime
    secondary_time: datetime
    perpendicular_baseline: float
    phase_sign: int


def earlier_first(
    reference_time: datetime,
    secondary_time: datetime,
    *,
    perpendicular_baseline: float,
    phase_sign: int,
) -> EarlierFirst:
    """Put the earlier date first; a swap flips the signs of baseline and phase."""
    if reference_time <= secondary_time:
        return EarlierFirst(
            reference_time, secondary_time, perpendicular_baseline, phase_sign
        )
    return EarlierFirst(
        secondary_time, reference_time, -perpendicular_baseline, -phase_sign
    )


class Raster(NamedTuple):
    """Header of a raster: what `read_raster` gives."""

    crs: str
    shape: tuple[int, int]
    transform: tuple[float, float, float, float, float, float]
    nodata: float | None
    tags: Mapping[str, str]
    dtype: str
    unit: str
    """As its header tells; empty where it does not."""


def read_raster(path: str | Path, band: int = 1) -> Raster:
    """Read where a raster lies and what it says of itself; no pixels."""
    try:
        with opened(str(path)) as source:
            if source.crs is None:
                raise ValueError(
                    f"{path} has no CRS: give it one with gdal_edit -a_srs"
                )
            if not 1 <= band <= source.count:
                raise ValueError(f"{path} has {source.count} bands: {band=} is none")
            code = source.crs.to_epsg()
            return Raster(
                crs=source.crs.to_wkt() if code is None else f"EPSG:{code}",
                shape=(source.height, source.width),
                transform=tuple(source.transform)[:6],
                nodata=source.nodatavals[band - 1],
                tags=source.tags(),
                dtype=source.dtypes[band - 1],
                unit=source.units[band - 1] or "",
            )
    except RasterioIOError as error:
        reason = without_secrets(str(error))
        raise ValueError(f"raster {path} cannot be read: {reason}") from error
