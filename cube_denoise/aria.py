"""ARIA's Sentinel-1 interferograms: S1-GUNW, NetCDF4.

The later date comes first, in the name and as reference: phase is positive for range
increase from the later to the earlier date, and the baseline is likewise. Both are
turned round. Component 0 was not unwrapped reliably, and -1 is no data. The look
direction is on a coarse mesh of longitude, latitude and height; ``azimuthAngle`` is the
direction from the ground to the satellite, from east, counter-clockwise
(insarlab/MintPy, issue 162). It is taken on the ellipsoid: a ground 1 km higher is seen
0.04 degrees steeper, which changes displacement by 5e-4 of itself.
"""

import math
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cube_denoise.file_parts import Part, filled
from cube_denoise.interferogram import ROLES, Asset, Interferogram, earlier_first
from cube_denoise.places import without_secrets
from cube_denoise.product_files import (
    RADIANS,
    absolute,
    check_image,
    check_look,
    grid_of,
    image,
    middle,
    need,
    number_of,
    product,
    stem_of,
)

NAME = re.compile(
    r"S1-GUNW-(?P<direction>[AD])-(?P<side>[RL])-(?P<orbit>\d{3})-tops-"
    r"(?P<reference>\d{8})_(?P<secondary>\d{8})-(?P<time>\d{6})-"
    r"(?P<frame>[^-]+)-.+"
)
"""Of a product, without ``.nc``."""
_DATA, _LOOK = "/science/grids/data", "/science/grids/imagingGeometry"
_MESH = tuple(f"{_LOOK}/{n}Meta" for n in ("longitude", "latitude", "heights"))
_WAVELENGTH = "/science/radarMetaData/wavelength"


def read_aria(href: str | Path, *, track: str | None = None) -> Interferogram:
    """Read the record of a S1-GUNW product.

    Parameters
    ----------
    href : str or path
        The ``.nc`` file, with the name it was given; or its ``https://`` or ``s3://``
        address, of which only the blocks needed are read.
    track : str, optional
        Such as ``"D071"``; else from the name.

    Returns
    -------
    Interferogram

    Raises
    ------
    ValueError
        If the file cannot be read, lacks a group, is in other units, or its look vector
        points away from the satellite.
    """
    href = absolute(href)
    name = NAME.fullmatch(stem_of(href))
    if name is None:
        raise ValueError(
            f"{without_secrets(href)} must be named as ARIA names products, such as "
            "S1-GUNW-D-R-071-tops-20200130_20200124-135156-...nc: its dates and track "
            "are read from there"
        )
    data = {n: f"{_DATA}/{n}" for n in ("unwrappedPhase", "longitude", "latitude")}
    look = {n: f"{_LOOK}/{n}" for n in ("incidenceAngle", "azimuthAngle")}
    with product(href) as file:
        need(file, [*data.values(), *look.values(), *_MESH, _WAVELENGTH], href)
        place = grid_of(file, data["longitude"], data["latitude"], href)
        check_image(file, data["unwrappedPhase"], place["shape"], RADIANS, href)
        assets = {
            role: image(file, href, role, f"{_DATA}/{dataset}")
            for role, dataset in (
                ("unwrapped_phase", "unwrappedPhase"),
                ("coherence", "coherence"),
                ("connected_components", "connectedComponents"),
            )
            if f"{_DATA}/{dataset}" in file
        }
        incidence, azimuth = (
            float(np.nanmedian(np.radians(filled(file[n])))) for n in look.values()
        )
        baseline = f"{_LOOK}/perpendicularBaseline"
        depth = middle(file, baseline) if baseline in file else math.nan
        wavelength = number_of(file, _WAVELENGTH, href)
    check_look(
        math.sin(incidence) * math.cos(azimuth),
        math.cos(incidence),
        ascending=name["direction"] == "A",
        right=name["side"] == "R",
        href=href,
    )
    assets |= _look(href, look["incidenceAngle"], look["azimuthAngle"])
    return Interferogram(
        id=name.string,
        **earlier_first(
            _moment(name, "reference"),
            _moment(name, "secondary"),
            perpendicular_baseline=depth,
            phase_sign=1,
        )._asdict(),
        track=track or f"{name['direction']}{name['orbit']}",
        frame=name["frame"],
        wavelength=wavelength,
        crs="EPSG:4326",
        **place,
        incidence_angle=None,
        heading=None,
        assets=assets,
    )


def _look(href: str, incidence: str, azimuth: str) -> dict[str, Asset]:
    degree, mesh = math.radians(1), (_MESH[0], _MESH[1], _MESH[2])
    return {
        "look_elevation": Asset(
            href,
            "look_elevation",
            ROLES["look_elevation"],
            None,
            scale=-degree,
            offset=math.pi / 2,
            part=Part(incidence, mesh=mesh),
        ),
        "look_orientation": Asset(
            href,
            "look_orientation",
            ROLES["look_orientation"],
            None,
            scale=degree,
            part=Part(azimuth, mesh=mesh, period=360.0),
        ),
    }


def _moment(name: re.Match[str], which: str) -> datetime:
    text = name[which] + name["time"]
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(
            f"{name.string} tells no date and time by {name[which]} and {name['time']}"
        ) from None
