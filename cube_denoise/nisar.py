"""NISAR's interferograms: L2 GUNW, HDF5.

Which date comes first the file itself tells; the phase is positive for range increase
from the one called reference to the one called secondary. Component 0 was not unwrapped
reliably. The look vector, east and north from the ground to the satellite, is on a
coarse mesh of x, y and height; it is taken on the ellipsoid.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from cube_denoise.conventions import SPEED_OF_LIGHT
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
    r"NISAR_L2_\w\w_GUNW_\d{3}_(?P<orbit>\d{3})_(?P<direction>[AD])_"
    r"(?P<frame>\d{3})_.+?"
    r"_(?P<reference>\d{8}T\d{6})_\d{8}T\d{6}_(?P<secondary>\d{8}T\d{6})_.+"
)
"""Of a product, without ``.h5``."""
_BANDS = ("LSAR", "SSAR")
_POLARISATIONS = ("HH", "VV", "HV", "VH")


def read_nisar(
    href: str | Path, *, track: str | None = None, polarisation: str | None = None
) -> Interferogram:
    """Read the record of a NISAR L2 GUNW product.

    Parameters
    ----------
    href : str or path
        The ``.h5`` file; or its ``https://`` or ``s3://`` address, of which only the
        blocks needed are read.
    track : str, optional
        Such as ``"A077"``; else from the file.
    polarisation : str, optional
        Such as ``"HH"``; else the first there is of HH, VV, HV and VH.

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
    with product(href) as file:
        band = next((b for b in _BANDS if f"/science/{b}/GUNW" in file), _BANDS[0])
        root, told = f"/science/{band}/GUNW", f"/science/{band}/identification"
        grids, mesh = f"{root}/grids/frequencyA", f"{root}/metadata/radarGrid"
        layers = f"{grids}/unwrappedInterferogram"
        dates = [f"{told}/{w}ZeroDopplerStartTime" for w in ("reference", "secondary")]
        nodes = [
            f"{mesh}/{n}"
            for n in ("xCoordinates", "yCoordinates", "heightAboveEllipsoid")
        ]
        look = [f"{mesh}/losUnitVector{axis}" for axis in "XY"]
        need(file, [layers, *dates, *nodes, *look, f"{grids}/centerFrequency"], href)
        known = [p for p in _POLARISATIONS if p in file[layers]]
        chosen = polarisation or next(iter(known), None)
        if chosen not in known:
            raise ValueError(
                f"{without_secrets(href)} has the polarisations {known}: "
                f"{polarisation=} must be one of them"
            )
        images = f"{layers}/{chosen}"
        x, y, phase = (
            f"{images}/{n}" for n in ("xCoordinates", "yCoordinates", "unwrappedPhase")
        )
        need(file, [x, y, phase], href)
        place = grid_of(file, x, y, href)
        check_image(file, phase, place["shape"], RADIANS, href)
        crs = _crs(file, images, href)
        assets = {
            role: image(file, href, role, f"{images}/{dataset}")
            for role, dataset in (
                ("unwrapped_phase", "unwrappedPhase"),
                ("coherence", "coherenceMagnitude"),
                ("connected_components", "connectedComponents"),
            )
            if f"{images}/{dataset}" in file
        }
        for role, dataset in zip(("los_east", "los_north"), look, strict=True):
            part = Part(dataset, mesh=(nodes[0], nodes[1], nodes[2]))
            assets[role] = Asset(href, role, ROLES[role], None, part=part)
        east, north = (float(np.nanmedian(filled(file[n]))) for n in look)
        direction = _word(file, f"{told}/orbitPassDirection", href)
        side = _word(file, f"{told}/lookDirection", href)
        number = f"{told}/trackNumber"
        if track is None:
            need(file, [number], href)
            track = f"{direction[0].upper()}{int(number_of(file, number, href)):03d}"
        baseline = f"{mesh}/perpendicularBaseline"
        ordered = earlier_first(
            *(moment_of(file, name, href) for name in dates),
            perpendicular_baseline=(
                middle(file, baseline) if baseline in file else math.nan
            ),
            phase_sign=1,
        )
        frequency = number_of(file, f"{grids}/centerFrequency", href)
    check_look(
        east,
        math.sqrt(max(1 - east**2 - north**2, 0)),
        ascending=direction.startswith("a"),
        right=side.startswith("r"),
        href=href,
    )
    return Interferogram(
        id=stem_of(href) + ("" if chosen == known[0] else f"_{chosen}"),
        **ordered._asdict(),
        track=track,
        wavelength=SPEED_OF_LIGHT / frequency,
        crs=crs,
        **place,
        incidence_angle=None,
        heading=None,
        assets=assets,
        frame=str(int(name["frame"])) if name else "",
    )


def _word(file: Any, name: str, href: str) -> str:
    need(file, [name], href)
    word = text_of(file, name).strip().lower()
    if word not in ("ascending", "descending", "left", "right"):
        raise ValueError(f"{name} of {without_secrets(href)} is {word!r}")
    return word


def _crs(file: Any, group: str, href: str) -> str:
    """CRS of the nearest ``projection`` from a group upward."""
    while group.count("/") > 2:
        if f"{group}/projection" in file:
            told = file[f"{group}/projection"]
            code = np.ravel(told.attrs.get("epsg_code", told[()]))[0]
            return known_crs(f"EPSG:{code}", f"{group}/projection", href)
        group = group.rpartition("/")[0]
    raise ValueError(f"{without_secrets(href)} has no dataset 'projection'")
