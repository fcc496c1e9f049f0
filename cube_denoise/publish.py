"""Publish a velocity product: a new version beside the old, then one file replaced.

``URL/collection.json`` is a STAC collection and names the current version and earlier
ones. A version is a folder, ``URL/VERSION``, that never changes: ``item.json``,
``velocity.zarr`` (see `store.write_pyramid`) and a cloud-optimised GeoTIFF of
each component. Readers see the old version or the new one.
"""

import contextlib
import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import xarray as xr
from obstore.exceptions import BaseError

from cube_denoise import places, store
from cube_denoise.export import export_geotiff
from cube_denoise.export_folder import ExportFolder
from cube_denoise.product_folder import (
    NAME,
    ProductError,
    ProductFolder,
    Record,
    versions_of,
)
from cube_denoise.product_stac import STORE, collection_of, item_of
from cube_denoise.product_variables import COMPONENT, checked_product

log = logging.getLogger(__name__)

MAPS = ("velocity", "velocity_std")
"""Variables that are written as GeoTIFF as well, by component."""


def publish(
    product: xr.Dataset,
    url: str | Path,
    *,
    keep: int | None = None,
    cog: bool = True,
    chunk: int = store.CHUNK,
    shard: int = store.SHARD,
    workers: int | None = None,
) -> str:
    """Publish a velocity product, or a new version of one.

    It appears at once when it is whole: a reader, at any moment, sees the version
    before or this one, and one that has opened a version goes on reading it. Of
    several publishers at once, none is lost: the last to end is current. What a
    publisher that was killed has left is not seen, and removed by the next.

    Parameters
    ----------
    product : xarray.Dataset
        dims (component, y, x): `velocity` and `velocity_std` (m year-1), and what else
        `product_variables.PRODUCT_VARIABLES` lists; on a regular north-up grid.
        Attributes ``title``, ``description``, ``license``, ``history`` and ``frames``
        (list of JSON-able dicts) are kept. Dask arrays are computed block by block.
    url : str or pathlib.Path
        Local path, ``s3://``, ``gs://`` or ``az://``: empty, or of a product.
    keep : int, optional
        Versions that stay, this one included; older ones are deleted, and readers that
        still have one open then fail. All stay when not given.
    cog : bool
        Write the components of velocity and of its standard deviation as
        cloud-optimised GeoTIFF too.
    chunk, shard : int
        Pixels a side of the units of reading and of writing of the Zarr store.
    workers : int, optional
        Threads; as many as there are processors when not given.

    Returns
    -------
    str
        Name of the version.

    Raises
    ------
    ValueError
        If the product is not as it must be, there is something else at `url`, or the
        place refuses.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"{keep=} must be at least 1: the version that is published")
    checked = checked_product(product)
    _check_attributes(checked.attrs)
    folder = check_place(url)
    for left in folder.abandoned():
        log.info("remove what a publisher left: %s", folder.place(left))
        folder.remove(left)
    version = folder.begin()
    here = folder.place(version)
    dropped: list[str] = []
    try:
        where = folder.place(f"{version}/{STORE}")
        store.write_pyramid(checked, where, chunk=chunk, shard=shard, workers=workers)
        item = item_of(
            checked,
            version,
            collection=_identifier(folder),
            dates=_dates(where),
            published=datetime.now(UTC),
            maps=_write_maps(where, here) if cog else [],
        )
        with ExportFolder(here).writing("item.json") as path:
            path.write_text(json.dumps(item, indent=1, allow_nan=False) + "\n")

        def change(record: Record | None) -> Record:
            changed = collection_of(
                record, item, version=version, attrs=checked.attrs, keep=keep
            )
            dropped[:] = sorted(versions_of(record) - versions_of(changed))
            return changed

        folder.replace_record(change)
    except BaseException as error:
        _take_back(folder, version)
        if isinstance(error, BaseError):
            raise places.unreachable(folder.url, error) from None
        raise
    folder.end(version)
    log.info("published %s, version %s", folder.url, version)
    for old in dropped:
        log.info("remove version %s", old)
        folder.remove(old)
    return version


def _take_back(folder: ProductFolder, version: str) -> None:
    """Remove a version unless it is named: of a request cut off that is not known."""
    with contextlib.suppress(Exception):  # the next publisher removes it
        if version not in versions_of(folder.record()):
            folder.remove(version)


def _check_attributes(attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"product: attribute {name!r} cannot be written as JSON: {error}"
            ) from None


def check_place(url: str | Path) -> ProductFolder:
    """Folder of a product, or for one; refuse to publish among something else.

    Raises
    ------
    ValueError
        If the place cannot be one, or holds something else.
    """
    folder = ProductFolder(url)
    if folder.local is not None and folder.local.exists() and not folder.local.is_dir():
        raise ProductError(f"url={str(url)!r} is a file: give a folder, or a new place")
    if folder.record() is not None:
        return folder
    names = sorted(folder.names())
    others = [n for n in names if not (NAME.fullmatch(n) or n.startswith("."))]
    if others:
        raise ProductError(
            f"url={places.without_secrets(folder.url)!r} holds something else "
            f"({', '.join(others[:3])}): give an empty place, or that of a product"
        )
    return folder


def _identifier(folder: ProductFolder) -> str:
    """Id of the collection: the last part of the address."""
    last = urlsplit(folder.url).path.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.-]", "-", last) or "velocity"


def _dates(where: str) -> tuple[np.datetime64, np.datetime64]:
    """First and last date used anywhere: of the coarsest level, which keeps both."""
    coarsest = store.open_level(where, level=-1)
    none = np.array([], "datetime64[s]")
    found = []
    for name, most in (("first_date", min), ("last_date", max)):
        values = coarsest[name].values.ravel() if name in coarsest else none
        known = values[~np.isnat(values)]
        found.append(most(known, default=np.datetime64("NaT")))
    return found[0], found[1]


def _write_maps(where: str, folder: str) -> list[str]:
    """Write components as GeoTIFF, from the store that was written; names of files."""
    written = store.open_level(where)
    components = {
        f"{name}_{component}": written[name].sel({COMPONENT: component}, drop=True)
        for name in MAPS
        for component in written[COMPONENT].values
    }
    maps = xr.Dataset(components, attrs=written.attrs)
    export_geotiff(maps, folder, variables=list(components))
    return [f"{name}.tif" for name in components]
