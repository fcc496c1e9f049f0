"""STAC sources whose items say too little: NASA's CMR-STAC of interferogram products.

Its items (`<https://cmr.earthdata.nasa.gov/stac/ASF>`_, collections ARIA_S1_GUNW_1 and
OPERA_L3_DISP-S1_V1_1) have keys of assets that change with each product, no properties
but one time that many pairs share, and come slowly, a hundred at most a page. So: the
product is the asset that is data and named as one; dates and track are taken from that
name; no condition and no time is left to the server, which could not know; what fits is
then read from the header of each product, over the network. This holds for every item
that has such an asset and no ``insar`` properties. Neighbouring frames of a pass are
told apart by ``cube_denoise:frame``, such as 00119W_00034N (ARIA), 24 (NISAR) or 8882
(OPERA).
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pystac
from pystac.utils import datetime_to_str

from cube_denoise import aria, nisar, opera
from cube_denoise.interferogram import Interferogram
from cube_denoise.places import PlaceError, without_secrets
from cube_denoise.product_files import stem_of
from cube_denoise.products import is_product, read_product
from cube_denoise.progress import progress
from cube_denoise.stac_item import frame_property

log = logging.getLogger(__name__)

HOST = "cmr.earthdata.nasa.gov"
COLLECTIONS = re.compile(r"ARIA_S1_GUNW|OPERA_L3_DISP-S1|NISAR_L2_GUNW")
"""Start of the ids of collections whose items are such."""
_DATES = ("insar:reference_datetime", "insar:secondary_datetime")
_STATES = {"A": "ascending", "D": "descending"}


@dataclass(frozen=True)
class NamedProduct:
    """An item that is known by the name of its product alone."""

    id: str
    href: str
    properties: Mapping[str, Any]
    """What the name tells, as properties of the ``insar`` and ``sat`` extensions, and
    ``cube_denoise:frame``: neighbours along a track have the same dates."""
    earlier: datetime
    later: datetime
    version: str

    def read(self, **look: Any) -> Interferogram:
        """Read the header of the product; options and errors of `read_product`."""
        if opera.NAME.fullmatch(stem_of(self.href)) is None:
            look = {}
        return replace(read_product(self.href, **look), version=self.version)


def applies(source: str | Path, collections: Sequence[str] | None) -> bool:
    """Whether a source is such, before it is asked.

    Raises
    ------
    ValueError
        If it is CMR-STAC and no collection is named: all of NASA's would be listed.
    """
    host = urlsplit(str(source)).hostname == HOST
    if host and not collections:
        raise ValueError(
            f"{source} has the products of all missions: name collections, such as "
            "ARIA_S1_GUNW_1 (cube-denoise search --collection, collections=)"
        )
    return host or bool(
        collections and all(COLLECTIONS.match(name) for name in collections)
    )


def named_product(item: pystac.Item) -> NamedProduct | None:
    """Read an item by the name of its product; None if it is another kind of item."""
    if _DATES[0] in item.properties:
        return None
    hrefs = [
        asset.href
        for asset in item.assets.values()
        if "data" in (asset.roles or ()) and is_product(asset.href)
    ]
    if not hrefs:
        return None
    # The twin in a bucket can be read next to it alone, with a login of an hour.
    href = min(hrefs, key=lambda h: not h.startswith("http"))
    name = next(
        found
        for reader in (aria, nisar, opera)
        if (found := reader.NAME.fullmatch(stem_of(href)))
    )
    told = name.groupdict()
    dates = sorted(_moment(told[n], told) for n in ("reference", "secondary"))
    properties: dict[str, Any] = {
        **dict(zip(_DATES, map(datetime_to_str, dates), strict=True)),
        "insar:temporal_baseline": (dates[1] - dates[0]).total_seconds() / 86400,
        "cube_denoise:frame": frame_property(told["frame"]),
    }
    if "orbit" in told:
        properties["sat:relative_orbit"] = int(told["orbit"])
        properties["sat:orbit_state"] = _STATES[told["direction"]]
    version = item.properties.get("updated") or item.properties.get("created") or ""
    return NamedProduct(item.id, href, properties, dates[0], dates[1], str(version))


def read_named(
    products: Sequence[NamedProduct], **look: Any
) -> list[Interferogram | None]:
    """Read the headers of products; one that is broken or gone is told, and None.

    Parameters
    ----------
    products : sequence of NamedProduct
    **look
        ``incidence_angle``, ``heading`` and ``static`` of DISP-S1 products, as of
        `products.read_product`.

    Raises
    ------
    places.PlaceError
        If their place refuses, or does not give one: it may be whole, and must not be
        taken for withdrawn.
    """
    found: list[Interferogram | None] = []
    if not products:
        return found
    with progress("read headers", len(products), unit="products") as advance:
        for product in products:
            try:
                found.append(product.read(**look))
            except PlaceError:
                raise
            except ValueError as error:
                log.warning("left out %s: %s", product.id, without_secrets(str(error)))
                found.append(None)
            advance(1)
    return found


def _moment(date: str, told: Mapping[str, str]) -> datetime:
    text = date.replace("T", "") + ("" if "T" in date else told["time"])
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
