"""STAC of a published product: an item for each version, and their collection.

The grid is in the ``projection`` extension, dimensions and variables in ``datacube``,
how to open the store in ``zarr``.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pystac
import xarray as xr
from odc.geo.geobox import GeoBox
from pystac.utils import datetime_to_str
from shapely.geometry import MultiPolygon, Polygon, box, mapping

from cube_denoise.conventions import X, Y
from cube_denoise.grid import degrees_bounds, degrees_outline, geobox_of
from cube_denoise.product_folder import VERSIONS, Record
from cube_denoise.product_variables import COMPONENT, COVARIANCE_TERM

DATACUBE, PROJECTION, ZARR = (
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("datacube/v2.2.0", "projection/v2.0.0", "zarr/v1.0.0")
)
STORE = "velocity.zarr"
"""Name of the Zarr store of a version."""
ZARR_TYPE = "application/vnd.zarr; version=3"
_JSON = {"type": "application/json"}


def item_of(
    product: xr.Dataset,
    version: str,
    *,
    collection: str,
    dates: tuple[np.datetime64, np.datetime64],
    published: datetime,
    maps: Sequence[str],
) -> dict[str, Any]:
    """STAC item of a version of a product.

    Parameters
    ----------
    product : xarray.Dataset
        As `product_variables.checked_product` gives it; no values are read.
    version : str
        Its name.
    collection : str
        Id of the collection.
    dates : tuple of numpy.datetime64
        First and last date used anywhere; NaT where not known.
    published : datetime.datetime
        Now.
    maps : sequence of str
        Names of the cloud-optimised GeoTIFFs beside the item.

    Returns
    -------
    dict
        JSON-able.
    """
    grid = geobox_of(product)
    assert grid.crs is not None
    known = not np.isnat(dates[0]) and not np.isnat(dates[1])
    start, end = (_moment(d) if known else published for d in dates)
    epsg = grid.crs.epsg
    item = pystac.Item(
        id=f"{collection}-{version}",
        geometry=_footprint(grid),
        bbox=list(degrees_bounds(grid)),
        datetime=end,
        start_datetime=start,
        end_datetime=end,
        collection=collection,
        stac_extensions=[DATACUBE, PROJECTION, ZARR],
        properties={
            "created": datetime_to_str(published),
            "title": str(product.attrs.get("title", "velocity of the ground")),
            "proj:code": f"EPSG:{epsg}" if epsg else None,
            **({} if epsg else {"proj:wkt2": grid.crs.to_wkt()}),
            "proj:shape": list(grid.shape),
            "proj:transform": list(grid.affine)[:6],
            "proj:bbox": list(grid.boundingbox),
            "cube:dimensions": dimensions(product, grid),
            "cube:variables": variables(product),
        },
    )
    item.add_asset("zarr", pystac.Asset(f"./{STORE}", **_zarr_fields()))
    for file in maps:
        name = file.removesuffix(".tif")
        asset = pystac.Asset(
            f"./{file}",
            title=name.replace("_", " "),
            media_type=pystac.MediaType.COG,
            roles=["data"],
            extra_fields={"data_type": "float32", "nodata": "nan", "unit": "m year-1"},
        )
        item.add_asset(name, asset)
    made = item.to_dict(include_self_link=False)
    up = [{"rel": r, "href": "../collection.json"} | _JSON for r in _UP]
    return made | {"links": up}


_UP = ("root", "parent", "collection")


def collection_of(
    record: Record | None,
    item: Mapping[str, Any],
    *,
    version: str,
    attrs: Mapping[Any, Any],
    keep: int | None = None,
) -> Record:
    """STAC collection after a version is published: it is the first, and current.

    Parameters
    ----------
    record : dict or None
        The collection before.
    item : mapping
        Item of the new version.
    version : str
        Its name.
    attrs : mapping
        Attributes of the product: ``title``, ``description``, ``license``.
    keep : int, optional
        Versions that stay in it.
    """
    properties = item["properties"]
    times = [properties["start_datetime"], properties["end_datetime"]]
    known = [] if record is None else record[VERSIONS]
    earlier = [v for v in known if v["version"] != version]
    versions = [{"version": version, "published": properties["created"]}, *earlier]
    versions = versions[:keep]
    links = [
        {
            "rel": "item",
            "href": f"./{v['version']}/item.json",
            "type": "application/geo+json",
            "title": v["version"],
        }
        for v in versions
    ]
    return {
        "type": "Collection",
        "stac_version": item["stac_version"],
        "stac_extensions": [DATACUBE, ZARR],
        "id": item["collection"],
        "title": properties["title"],
        "description": str(attrs.get("description") or _DESCRIPTION),
        "license": str(attrs.get("license") or "other"),
        "extent": {
            "spatial": {"bbox": [item["bbox"]]},
            "temporal": {"interval": [times]},
        },
        "cube:dimensions": properties["cube:dimensions"],
        "cube:variables": properties["cube:variables"],
        "assets": {
            "zarr": pystac.Asset(f"./{version}/{STORE}", **_zarr_fields()).to_dict()
        },
        VERSIONS: versions,
        "links": [{"rel": "root", "href": "./collection.json"} | _JSON, *links],
    }


_DESCRIPTION = "Velocity of the ground from radar interferometry, with uncertainty."


def _zarr_fields() -> dict[str, Any]:
    return {
        "title": "all variables, with coarser levels in the groups 1, 2, ...",
        "media_type": ZARR_TYPE,
        "roles": ["data"],
        "extra_fields": {
            "zarr:node_type": "group",
            "zarr:zarr_format": 3,
            "zarr:consolidated": True,
        },
    }


def dimensions(product: xr.Dataset, grid: GeoBox) -> dict[str, Any]:
    """``cube:dimensions`` of a product."""
    assert grid.crs is not None
    bounds = grid.boundingbox
    system = grid.crs.epsg or grid.crs.to_wkt()
    found: dict[str, Any] = {
        axis: {
            "type": "spatial",
            "axis": axis,
            "extent": extent,
            "step": abs(step),
            "reference_system": system,
        }
        for axis, extent, step in (
            (X, [bounds.left, bounds.right], grid.affine.a),
            (Y, [bounds.bottom, bounds.top], grid.affine.e),
        )
    }
    for dim, kind in ((COMPONENT, "bands"), (COVARIANCE_TERM, "bands")):
        if dim in product.dims:
            found[dim] = {"type": kind, "values": [str(v) for v in product[dim].values]}
    return found


def variables(product: xr.Dataset) -> dict[str, Any]:
    """``cube:variables`` of a product."""
    found = {}
    for name, array in product.data_vars.items():
        told: dict[str, Any] = {
            "dimensions": [str(d) for d in array.dims],
            "type": "data",
            "description": str(array.attrs.get("long_name", name)),
        }
        if array.attrs.get("units"):
            told["unit"] = str(array.attrs["units"])
        found[str(name)] = told
    return found


def _moment(date: np.datetime64) -> datetime:
    seconds = date.astype("datetime64[s]").astype("int64")
    return datetime.fromtimestamp(int(seconds), UTC)


def _footprint(grid: GeoBox) -> dict[str, Any]:
    """Outline of the grid as GeoJSON; in two parts if it crosses the date line."""
    west, south, east, north = degrees_bounds(grid)
    ring = degrees_outline(grid)
    if abs(ring[-1, 0] - ring[0, 0]) > 180:  # around a pole
        return mapping(box(west, south, east, north))
    if west < east:
        return mapping(Polygon(ring))
    turned = (Polygon(ring + np.array([turn, 0.0])) for turn in (-360.0, 0.0, 360.0))
    parts = [part.intersection(box(-180, -90, 180, 90)) for part in turned]
    return mapping(MultiPolygon([p for p in parts if p.area > 0]))
