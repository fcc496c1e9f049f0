"""Product folders of ASF HyP3: their names, metadata, units and signs.

HyP3 gives the earlier date first and phase that is positive for range increase, as
`conventions` has it; 0 means no data. Component 0 of ISCE2's products is what could not
be unwrapped reliably: no data.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cube_denoise.conventions import SENTINEL1_WAVELENGTH
from cube_denoise.interferogram import (
    ROLES,
    Asset,
    Interferogram,
    earlier_first,
    read_raster,
)


def relative_orbit(mission: str, absolute_orbit: int) -> int:
    """Relative orbit (1 to 175) of a Sentinel-1 absolute orbit.

    Parameters
    ----------
    mission : str
        A, B, C or D.
    absolute_orbit : int
        As in the name of a granule. Sentinel-1C moved to another place in the cycle
        after its orbit 8018 (June 2026).

    Examples
    --------
    >>> relative_orbit("A", 18302), relative_orbit("B", 7231)
    (30, 30)
    """
    offsets = {"A": 73, "B": 27, "C": 172 if absolute_orbit <= 8018 else 99, "D": 42}
    if mission not in offsets:
        raise ValueError(f"{mission=} must be one of {sorted(offsets)}")
    return (absolute_orbit - offsets[mission]) % 175 + 1


_LAYERS = {
    "unwrapped_phase": "unw_phase",
    "coherence": "corr",
    "elevation": "dem",
    "look_elevation": "lv_theta",
    "look_orientation": "lv_phi",
    "connected_components": "conncomp",
}
_NAMES = (
    re.compile(  # INSAR_GAMMA
        r"S1(?P<missions>[A-D]{2})_(?P<reference>\d{8}T\d{6})_(?P<secondary>\d{8}T\d{6})"
        r"_(?:VV|HH)[PRO]\d{3,4}_INT\d{2}_G_[uw][ec][123F]_[0-9A-F]{4}"
    ),
    re.compile(  # INSAR_ISCE_BURST
        r"S1_(?P<frame>(?P<burst>\d{6})_IW[123])_(?P<reference>\d{8})_(?P<secondary>\d{8})"
        r"_(?:VV|HH)_INT\d{2}_[0-9A-F]{4}"
    ),
    re.compile(  # INSAR_ISCE_MULTI_BURST
        r"S1_(?P<orbit>\d{3})_(?P<frame>\d{6}s1n\d{2}-\d{6}s2n\d{2}-\d{6}s3n\d{2})_IW"
        r"_(?P<reference>\d{8})_(?P<secondary>\d{8})_(?:VV|HH)_INT\d{2}_[0-9A-F]{4}"
    ),
)


def read_hyp3(folder: str | Path, *, track: str | None = None) -> Interferogram:
    """Read the record of one unpacked HyP3 product (GAMMA, ISCE2 burst, multi-burst).

    Parameters
    ----------
    folder : path
        Folder with the product's own name, its GeoTIFFs and its ``.txt`` in it.
    track : str, optional
        Such as ``"A005"``. Without it the pass direction comes from the ``.txt`` and
        the relative orbit from the absolute orbit of the granules, from the burst
        number or from the product's name.

    Returns
    -------
    Interferogram
        Without look vector rasters the incidence angle at the centre of the swath,
        computed from the orbit in the ``.txt``, stands for the scene.
    """
    folder = Path(folder).resolve()
    match = next((m for p in _NAMES if (m := p.fullmatch(folder.name))), None)
    if match is None:
        raise ValueError(
            f"folder={str(folder)!r} is not named as HyP3 names its INSAR_GAMMA, "
            "INSAR_ISCE_BURST or INSAR_ISCE_MULTI_BURST products"
        )
    text = folder / f"{folder.name}.txt"
    parameters = _read_parameters(text)
    heading = _number(parameters, "heading", text)
    baseline = _number(parameters, "baseline", text)
    ordered = earlier_first(
        *(_time(match, date, parameters) for date in ("reference", "secondary")),
        perpendicular_baseline=math.nan if baseline is None else baseline,
        phase_sign=1,
    )
    if track is None:
        track = _pass(parameters, heading, text) + f"{_orbit(match, parameters):03d}"
    assets, phase = {}, None
    for role, suffix in _LAYERS.items():
        path = folder / f"{folder.name}_{suffix}.tif"
        if not path.exists():
            continue
        raster = read_raster(path)
        nodata = 0.0 if raster.nodata is None else raster.nodata
        assets[role] = Asset(str(path), role, ROLES[role], nodata)
        phase = raster if role == "unwrapped_phase" else phase
    if phase is None:
        raise ValueError(f"{folder.name}_unw_phase.tif is missing in {folder}")
    return Interferogram(
        id=folder.name,
        **ordered._asdict(),
        track=track,
        wavelength=SENTINEL1_WAVELENGTH,
        crs=phase.crs,
        shape=phase.shape,
        transform=phase.transform,
        incidence_angle=_centre_incidence(parameters, text),
        heading=None if heading is None else (heading + 180) % 360 - 180,
        assets=assets,
        frame=match.groupdict().get("frame", ""),
    )


def find_products(
    folder: str | Path, *, track: str | None = None
) -> tuple[list[Interferogram], dict[str | Path, str]]:
    """Read every HyP3 product in `folder`, in its folders or one level further down.

    Returns
    -------
    interferograms : list of Interferogram
        In the order of their folders' names.
    unreadable : dict
        Folder -> why it could not be read.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise ValueError(f"folder={str(folder)!r} must be an existing folder")
    candidates = (folder, *folder.glob("*"), *folder.glob("*/*"))
    named = {
        c for c in candidates if c.is_dir() and any(p.fullmatch(c.name) for p in _NAMES)
    }
    found: list[Interferogram] = []
    unreadable: dict[str | Path, str] = {}
    for product in sorted(named, key=lambda p: (p.name, p)):
        try:
            found.append(read_hyp3(product, track=track))
        except ValueError as error:
            unreadable[product] = str(error)
    return found, unreadable


def _read_parameters(path: Path) -> dict[str, str]:
    """``Key with spaces: value`` lines -> values by key, lower case, without spaces."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"metadata file {path} cannot be read: {error}") from error
    pairs = (line.partition(":") for line in lines)
    return {k.replace(" ", "").lower(): v.strip() for k, sep, v in pairs if sep}


def _number(parameters: Mapping[str, str], key: str, path: str | Path) -> float | None:
    try:
        return float(parameters[key]) if key in parameters else None
    except ValueError:
        raise ValueError(
            f"{key}={parameters[key]!r} in {path} must be a number"
        ) from None


def _time(match: re.Match[str], which: str, parameters: Mapping[str, str]) -> datetime:
    """Start of an acquisition: from the name, else the granule, else the UTC time."""
    stamp = match[which]
    if "T" not in stamp:
        name = f"{match.string}.txt"
        granules = parameters.get(f"{which}granule", "")
        starts = re.findall(rf"{stamp}T\d{{6}}", granules)
        if not starts and "utctime" not in parameters:
            raise ValueError(f"{name} must name the {which} granule or give a UTC time")
        if not starts:  # a repeat orbit passes at the same time of day, within seconds
            midnight = datetime.strptime(stamp, "%Y%m%d").replace(tzinfo=UTC)
            return midnight + timedelta(
                seconds=_number(parameters, "utctime", name) or 0
            )
        stamp = min(starts)
    return datetime.strptime(stamp, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def _pass(parameters: Mapping[str, str], heading: float | None, path: Path) -> str:
    direction = parameters.get("referencepassdirection", "").upper()
    if direction in ("ASCENDING", "DESCENDING"):
        return direction[0]
    if heading is None:
        raise ValueError(
            f"{path} gives neither the reference pass direction nor the heading: "
            "give track="
        )
    return "A" if math.cos(math.radians(heading)) > 0 else "D"


def _orbit(match: re.Match[str], parameters: Mapping[str, str]) -> int:
    """Relative orbit of a product, from whatever its kind tells."""
    fields = match.groupdict()
    if "orbit" in fields:
        return int(fields["orbit"])
    if "burst" in fields:
        # Bursts count from the first ascending node of the 175 orbits of a cycle
        # (Sentinel-1 SLC algorithm definition, table 9-7: 2.758273 s, 2.299849 s).
        start = (int(fields["burst"]) - 1) * 2.758273 + 2.299849
        orbits = {int(t * 175 // (12 * 86400)) + 1 for t in (start, start + 2.758273)}
    else:
        orbits = set()
        for which, mission in zip(
            ("reference", "secondary"), fields["missions"], strict=True
        ):
            granule = parameters.get(f"{which}granule", "").split("_")
            number = parameters.get(f"{which}orbitnumber", "")
            if len(granule) > 7 and granule[7].isdigit():
                number = granule[7]
            if number.isdigit():
                orbits.add(relative_orbit(mission, int(number)))
    if len(orbits) != 1:
        raise ValueError(
            f"the relative orbit of {match.string} is not clear from its burst or its "
            f"granules (found {sorted(orbits) or 'none'}): give track="
        )
    return orbits.pop()


def _centre_incidence(parameters: Mapping[str, str], path: Path) -> float | None:
    """Incidence angle at the centre of the swath, degrees, over a spherical Earth."""
    keys = ("spacecraftheight", "earthradiusatnadir", "slantrangecenter")
    values = [_number(parameters, key, path) for key in keys]
    if None in values:
        return None
    height, radius, slant = (v for v in values if v is not None)
    cosine = ((radius + height) ** 2 - radius**2 - slant**2) / (2 * radius * slant)
    return math.degrees(math.acos(cosine)) if abs(cosine) < 1 else None
