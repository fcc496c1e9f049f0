"""Our STAC item of an interferogram, and what we understand of others'.

One item is one pair. A provider whose items are as follows needs no reader of its own;
`to_item` writes such, and a collection, a static catalog or an API of them is a source
of `catalog.search`.

Required, as properties of the item, or of the asset with the phase:

=============================================  =========================================
``insar:reference_datetime``,                  RFC 3339; UTC without a zone. Either may
``insar:secondary_datetime``                   be the earlier: see the sign below
``sat:orbit_state``, ``sat:relative_orbit``    ``ascending`` or ``descending``; number
``proj:code`` or ``proj:wkt2``;                of the phase raster; transform in affine
``proj:shape``, ``proj:transform``             order (6 or 9 numbers)
``sar:center_frequency``                       GHz; or exactly,
                                               ``cube_denoise:wavelength``, m
=============================================  =========================================

Used where they are there: ``insar:perpendicular_baseline`` (m, secondary minus
reference), ``view:incidence_angle`` and ``view:azimuth`` (degrees, for the whole scene;
with ``sar:observation_direction`` ``left`` the azimuth is not used),
``cube_denoise:heading``, ``updated`` or ``created`` (a new one marks a product as
reprocessed), ``cube_denoise:phase_sign``, ``cube_denoise:frame`` (tells neighbours of
one pass apart).

Sign: the phase is positive for range increase (away from the satellite) from the date
called reference to the one called secondary; else ``cube_denoise:phase_sign`` is -1.

Assets, found by their roles, whatever their keys; any raster that GDAL opens:

=============================================  =========================================
``unwrapped_phase`` (required)                 rad, by ``scale`` if need be
``coherence``                                  0 to 1, likewise
``connected_components``, ``mask``             the phase is no data where not above 0
``elevation``                                  m
``los_east``, ``los_north``, ``los_up``        unit vector from the ground to the
                                               satellite; up may be left out
``look_elevation``, ``look_orientation``       instead, rad: above the horizontal; from
                                               east, counter-clockwise
=============================================  =========================================

``raster:bands`` (or ``bands``) tells ``nodata`` (NaN always is none), ``scale`` and
``offset`` of what is stored, and the ``unit`` that these make of it. If the phase is
not the first band, ``cube_denoise:band`` tells which. ``cube_denoise:part`` tells which
image of a HDF5 or flat file it is (`file_parts.Part`).
"""

import math
import re
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pystac
from pystac.utils import datetime_to_str, str_to_datetime

from cube_denoise.conventions import SPEED_OF_LIGHT
from cube_denoise.file_parts import Part
from cube_denoise.longitudes import bounds_of, continuous, outline
from cube_denoise.products import ROLES, Asset, Interferogram, earlier_first

EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in (
        "insar/v1.0.0",
        "sar/v1.3.1",
        "sat/v1.0.0",
        "view/v1.0.0",
        "projection/v2.0.0",
        "raster/v1.1.0",
    )
)
_ORBIT_STATES = {"A": "ascending", "D": "descending"}
_BANDS = {"P": 1.0, "L": 2.0, "S": 4.0, "C": 8.0, "X": 12.0, "Ku": 18.0}  # up to, GHz
_OWN = "cube_denoise:"


def to_item(interferogram: Interferogram) -> pystac.Item:
    """Make the STAC item of a record; local paths become ``file://`` links.

    What the extensions cannot hold exactly is kept in ``cube_denoise:wavelength`` (m),
    ``cube_denoise:heading`` (degrees clockwise from north) and
    ``cube_denoise:phase_sign``; which image of a file an asset is, in its
    ``cube_denoise:part``; which band of a raster, in its ``cube_denoise:band``.
    """
    record = interferogram
    frequency = SPEED_OF_LIGHT / record.wavelength / 1e9
    days = (record.secondary_time - record.reference_time).total_seconds() / 86400
    properties: dict[str, Any] = {
        "insar:reference_datetime": datetime_to_str(record.reference_time),
        "insar:secondary_datetime": datetime_to_str(record.secondary_time),
        "insar:temporal_baseline": days,
        "sar:center_frequency": frequency,
        "sat:orbit_state": _ORBIT_STATES[record.track[0]],
        "sat:relative_orbit": int(record.track[1:]),
        "proj:shape": list(record.shape),
        "proj:transform": list(record.transform),
        _OWN + "wavelength": record.wavelength,
        _OWN + "phase_sign": record.phase_sign,
    }
    band = next((name for name, top in _BANDS.items() if frequency < top), None)
    coded = re.fullmatch(r"\w+:\w+", record.crs)
    optional = {
        "insar:perpendicular_baseline": record.perpendicular_baseline,
        "sar:frequency_band": band,
        "view:incidence_angle": record.incidence_angle,
        "view:azimuth": None if record.heading is None else (record.heading + 90) % 360,
        _OWN + "heading": record.heading,
        "proj:code" if coded else "proj:wkt2": record.crs,
        "updated": record.version or None,
        _OWN + "frame": frame_property(record.frame),
    }
    properties |= {k: v for k, v in optional.items() if v is not None and v == v}
    viewed = any(key.startswith("view:") for key in properties)
    ring = footprint(record)
    item = pystac.Item(
        id=record.id,
        geometry=outline(ring),
        bbox=bounds_of(ring),
        datetime=record.secondary_time,
        start_datetime=record.reference_time,
        end_datetime=record.secondary_time,
        properties=properties,
        stac_extensions=[e for e in EXTENSIONS if viewed or "/view/" not in e],
    )
    for role, asset in record.assets.items():
        description: dict[str, Any] = {"unit": asset.unit}
        if asset.nodata is not None:
            value = asset.nodata
            description["nodata"] = value if math.isfinite(value) else str(value)
        if (asset.scale, asset.offset) != (1.0, 0.0):
            description |= {"scale": asset.scale, "offset": asset.offset}
        fields: dict[str, Any] = {"raster:bands": [description]}
        if asset.part is not None:
            fields[_OWN + "part"] = asset.part.told()
        if asset.band != 1:
            fields[_OWN + "band"] = asset.band
        item.add_asset(
            role,
            pystac.Asset(
                _as_link(asset.href),
                media_type=_media_type(asset),
                roles=["data", role],
                extra_fields=fields,
            ),
        )
    return item


def from_item(item: pystac.Item) -> Interferogram:
    """Read a STAC item with ``insar`` and ``proj`` properties, ours or another's.

    If the date called reference is the later one, the dates are swapped and the signs
    of phase and baseline flipped. Without ``cube_denoise:phase_sign`` the phase is
    taken to be positive for range increase from the date called reference to the one
    called secondary. Dates without a time zone are UTC.
    """
    name = f"STAC item {item.id!r}"
    assets = _assets(item, name)
    phase = assets.get("unwrapped_phase")
    if phase is None:
        raise ValueError(
            f"{name} has no asset with the role 'unwrapped_phase', only roles "
            f"{sorted({r for a in item.assets.values() for r in a.roles or ()})}"
        )
    if phase.unit.lower() not in ("rad", "radian", "radians"):
        raise ValueError(
            f"{name} has unwrapped phase in unit={phase.unit!r}; it must be in 'rad'"
        )
    fields = dict(item.properties)
    for asset in item.assets.values():
        if "unwrapped_phase" in (asset.roles or ()):
            fields |= asset.extra_fields
            break
    own = {k.removeprefix(_OWN): v for k, v in fields.items() if k.startswith(_OWN)}
    if fields.get("proj:code") is None and fields.get("proj:epsg") is not None:
        fields["proj:code"] = f"EPSG:{fields['proj:epsg']}"
    crs = fields.get("proj:code") or fields.get("proj:wkt2") or ""
    if "wavelength" not in own and fields.get("sar:center_frequency"):
        own["wavelength"] = SPEED_OF_LIGHT / (fields["sar:center_frequency"] * 1e9)
    needed = (
        "insar:reference_datetime",
        "insar:secondary_datetime",
        "sat:orbit_state",
        "sat:relative_orbit",
        "proj:shape",
        "proj:transform",
    )
    missing = [key for key in needed if fields.get(key) is None]
    missing += [] if crs else ["proj:code"]
    missing += [] if "wavelength" in own else ["sar:center_frequency"]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    direction = {v: k for k, v in _ORBIT_STATES.items()}.get(fields["sat:orbit_state"])
    if direction is None:
        raise ValueError(
            f"{name} has sat:orbit_state={fields['sat:orbit_state']!r} and must have "
            "'ascending' or 'descending'"
        )
    heading = own.get("heading")
    right = fields.get("sar:observation_direction", "right") == "right"
    if heading is None and right and fields.get("view:azimuth") is not None:
        heading = (fields["view:azimuth"] + 90) % 360 - 180  # azimuth - 90, -180..180
    return Interferogram(
        id=item.id,
        **earlier_first(
            _moment(fields["insar:reference_datetime"], name),
            _moment(fields["insar:secondary_datetime"], name),
            perpendicular_baseline=fields.get("insar:perpendicular_baseline", math.nan),
            phase_sign=own.get("phase_sign", 1),
        )._asdict(),
        track=f"{direction}{fields['sat:relative_orbit']:03d}",
        wavelength=own["wavelength"],
        crs=crs,
        shape=tuple(fields["proj:shape"]),
        transform=tuple(fields["proj:transform"][:6]),
        incidence_angle=fields.get("view:incidence_angle"),
        heading=heading,
        assets=assets,
        version=str(fields.get("updated") or fields.get("created") or ""),
        frame=str(own.get("frame", "")),
    )


def frame_property(frame: str) -> str | int | None:
    """``cube_denoise:frame`` of an item, that conditions are compared with."""
    return int(frame) if frame.isdigit() else frame or None


def footprint(interferogram: Interferogram) -> list[list[float]]:
    """Outline of the phase raster: closed ring of [longitude, latitude], degrees.

    Across the antimeridian it goes on beyond 180.
    """
    from rasterio.warp import transform

    rows, columns = interferogram.shape
    a, b, c, d, e, f = interferogram.transform
    corners = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0)]
    pixels = [(i * columns / 2, j * rows / 2) for i, j in corners]
    longitude, latitude = transform(
        interferogram.crs,
        "EPSG:4326",
        [a * i + b * j + c for i, j in pixels],
        [d * i + e * j + f for i, j in pixels],
    )
    return continuous([*zip(longitude, latitude, strict=True)])


def as_path(href: str) -> str:
    """Turn a ``file://`` link into the path it stands for; other links stay."""
    return unquote(urlsplit(href).path) if href.startswith("file://") else href


def _as_link(href: str) -> str:
    """Turn a local path into a link that a server cannot take for one of its own."""
    if "://" in href or href.startswith("/vsi"):
        return href
    return Path(href).resolve().as_uri()


def _media_type(asset: Asset) -> str:
    if asset.part is None:
        return pystac.MediaType.GEOTIFF
    return pystac.MediaType.HDF5 if asset.part.dataset else "application/octet-stream"


def _assets(item: pystac.Item, name: str) -> dict[str, Asset]:
    """Assets of the roles we know, with absolute links."""
    found: dict[str, Asset] = {}
    for key, asset in item.assets.items():
        for role in set(asset.roles or ()) & ROLES.keys():
            if role in found:
                warnings.warn(
                    f"{name} has several assets with the role {role!r}; {key!r} is "
                    "left out",
                    stacklevel=3,
                )
                continue
            bands = asset.extra_fields.get("raster:bands")
            bands = bands or asset.extra_fields.get("bands") or [{}]
            about: Mapping[str, Any] = asset.extra_fields | bands[0]
            nodata, part = about.get("nodata"), asset.extra_fields.get(_OWN + "part")
            found[role] = Asset(
                href=as_path(asset.get_absolute_href() or asset.href),
                role=role,
                unit=str(about.get("unit") or ROLES[role]),
                nodata=None if nodata is None else float(nodata),
                scale=float(about.get("scale", 1)),
                offset=float(about.get("offset", 0)),
                part=None if part is None else Part.from_told(part),
                band=int(asset.extra_fields.get(_OWN + "band", 1)),
            )
    return found


def _moment(text: str, name: str) -> datetime:
    try:
        moment = str_to_datetime(text)
    except (ValueError, TypeError):
        raise ValueError(f"{name} has {text!r} where a date and time must be") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
