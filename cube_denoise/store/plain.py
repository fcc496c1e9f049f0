"""Copies of a cube as plain Zarr, for programs that know no Icechunk."""

import re
import secrets
import tempfile
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import xarray as xr
from odc.geo.xr import xr_coords

from cube_denoise import places
from cube_denoise.conventions import TIMES, X, Y
from cube_denoise.grid import zarr_attributes
from cube_denoise.store.layout import EPOCH, PAIR_TIMES
from cube_denoise.store.repository import CubeError

_ROOT = "zarr.json"
_MOVERS = 16  # requests at once when objects are moved


def export_zarr(cube: xr.Dataset, url: str | Path, *, overwrite: bool = False) -> None:
    """Write plain Zarr v3 with consolidated metadata, readable by xarray alone.

    Whoever opens the place finds the whole store or, while it is put there, none: on
    disk it is renamed, in a bucket it is written beside its place and moved, the
    metadata of its root first to go and last to come. A store that is replaced must be
    opened again: its old chunks are gone.

    Parameters
    ----------
    cube : xarray.Dataset
        As opened with ``open_cube(url, chunks={})``, or a region of it.
    url : str or pathlib.Path
        Where to: local path, ``s3://``, ``gs://`` or ``az://`` (`places.bucket`).
    overwrite : bool
        Replace what is there.

    Raises
    ------
    CubeError
        If there is something already, or it cannot be written.
    """
    plain = cube.drop_encoding()
    box = plain.odc.geobox
    if box is not None and box.crs is not None:  # a region has a place of its own
        plain.attrs |= zarr_attributes(box)
        plain = plain.assign_coords(spatial_ref=xr_coords(box)["spatial_ref"])
    for name in plain.variables:
        even = {d: max(c) for d, c in plain[name].variable.chunksizes.items()}
        if even:  # of a region, the first and last are smaller
            plain[name] = plain[name].variable.chunk(even)
            plain[name].encoding["chunks"] = tuple(even.values())
        if "spatial_ref" in cube.coords and {Y, X} <= set(plain[name].dims):
            plain[name].encoding["grid_mapping"] = "spatial_ref"
    for name in (*PAIR_TIMES, *TIMES):
        if name in plain:
            plain[name].encoding = {"units": EPOCH, "dtype": "int64"}
    # xarray does not list a grid mapping among the coordinates by itself.
    extra = [str(name) for name in plain.coords if name not in plain.dims]
    plain.attrs["coordinates"] = " ".join(sorted(extra))
    target = places.local_path(url)
    if target is None:
        try:
            _into_bucket(plain, str(url), overwrite=overwrite)
        except places.PlaceError as error:
            raise CubeError(str(error)) from None
        return
    if target.exists() and not overwrite:
        raise CubeError(f"url={str(url)!r} exists: give another, or overwrite")
    if target.exists() and not (target / "zarr.json").is_file():
        raise CubeError(f"url={str(url)!r} is not a Zarr store: it is not overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place: there it is whole or not at all.
    prefix = f".{target.name}-"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as work:
        _write(plain, f"{work}/new")
        if target.exists():
            target.rename(f"{work}/old")
        Path(work, "new").rename(target)


def _into_bucket(plain: xr.Dataset, url: str, *, overwrite: bool) -> None:
    """Write beside the place, then move there; see `export_zarr`."""
    import obstore
    from zarr.storage import ObjectStore

    if not places.bucket(url).prefix:
        raise CubeError(f"{url=}: must have a path in the bucket")
    places.check(url)
    address, _, options = url.partition("?")
    beside = f"{address.rstrip('/')}.exporting-{secrets.token_hex(4)}?{options}"
    try:
        whole = places.object_store(url)
        there = _objects(whole)
        if _ROOT in there and not overwrite:
            raise CubeError(f"{url=} exists: give another, or overwrite")
        # Parts without a root are what an interrupted move leaves.
        part = re.compile(r"(.+/)?(zarr\.json|c(/\d+)*)")
        if _ROOT not in there and not all(part.fullmatch(key) for key in there):
            raise CubeError(f"{url=} is not a Zarr store: it is not overwritten")
        new = places.object_store(beside)
        try:
            _write(plain, ObjectStore(new))
            if _ROOT in there:
                obstore.delete(whole, [_ROOT])
            obstore.delete(whole, sorted(there - {_ROOT}))
            prefixes = [places.bucket(at).prefix for at in (beside, url)]
            _copy(places.object_store(_bucket_itself(url)), _objects(new), *prefixes)
        finally:
            obstore.delete(new, sorted(_objects(new)))
    except obstore.exceptions.BaseError as error:
        raise places.unreachable(url, error) from None


def _objects(store: Any) -> set[str]:
    """Names of all objects of a store."""
    import obstore

    return {entry["path"] for batch in obstore.list(store) for entry in batch}


def _copy(store: Any, names: Iterable[str], source: str, target: str) -> None:
    """Copy objects within a bucket, the metadata of the root last."""
    import obstore

    def copy(name: str) -> None:
        obstore.copy(store, f"{source}/{name}", f"{target}/{name}".lstrip("/"))

    with ThreadPoolExecutor(_MOVERS) as pool:
        for _ in pool.map(copy, sorted(set(names) - {_ROOT})):
            pass
    copy(_ROOT)


def _bucket_itself(url: str) -> str:
    """Address of the bucket of a place, with the same options."""
    address, mark, options = url.partition("?")
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.split('/')[0]}{mark}{options}"


def _write(plain: xr.Dataset, where: Any) -> None:
    # In this process, so that nothing of a bucket is sent to a cluster.
    with warnings.catch_warnings(), dask.config.set(scheduler="threads"):
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        warnings.filterwarnings("ignore", message="cannot serialize global coord")
        plain.to_zarr(where, mode="w-", zarr_format=3, consolidated=True)
