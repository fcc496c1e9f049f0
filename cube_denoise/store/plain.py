"""Copies of a cube as plain Zarr, for programs that know no Icechunk."""

import tempfile
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import xarray as xr
import zarr
from odc.geo.xr import xr_coords

from cube_denoise.conventions import TIME, X, Y
from cube_denoise.grid import zarr_attributes
from cube_denoise.store.layout import EPOCH, PAIR_TIMES
from cube_denoise.store.repository import CubeError


def export_zarr(cube: xr.Dataset, url: str | Path, *, overwrite: bool = False) -> None:
    """Write plain Zarr v3 with consolidated metadata, readable by xarray alone.

    Parameters
    ----------
    cube : xarray.Dataset
        As opened with ``open_cube(url, chunks={})``, or a region of it.
    url : str or pathlib.Path
        Where to; any fsspec URL.
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
    for name in (*PAIR_TIMES, TIME):
        if name in plain:
            plain[name].encoding = {"units": EPOCH, "dtype": "int64"}
    # xarray does not list a grid mapping among the coordinates by itself.
    extra = [str(name) for name in plain.coords if name not in plain.dims]
    plain.attrs["coordinates"] = " ".join(sorted(extra))
    parts = urlsplit(str(url))
    if parts.scheme not in ("", "file"):
        _write_plain(plain, str(url), str(url), overwrite=overwrite)
        return
    target = Path(parts.path if parts.scheme else url).absolute()
    if target.exists() and not overwrite:
        raise CubeError(f"url={str(url)!r} exists: give another, or overwrite")
    if target.exists() and not (target / "zarr.json").is_file():
        raise CubeError(f"url={str(url)!r} is not a Zarr store: it is not overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place: there it is whole or not at all.
    prefix = f".{target.name}-"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as work:
        _write_plain(plain, f"{work}/new", str(url), overwrite=False)
        if target.exists():
            target.rename(f"{work}/old")
        Path(work, "new").rename(target)


def _write_plain(plain: xr.Dataset, where: str, url: str, *, overwrite: bool) -> None:
    """Write with metadata last; `url` is what the user calls it."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            warnings.filterwarnings("ignore", message="cannot serialize global coord")
            plain.to_zarr(
                where,
                mode="w" if overwrite else "w-",
                zarr_format=3,
                consolidated=True,
            )
    except (FileExistsError, zarr.errors.ContainsGroupError):
        raise CubeError(f"{url=} exists: give another, or overwrite") from None
    except (ImportError, ValueError) as error:  # unknown schemes, no driver for one
        raise CubeError(f"{url=} cannot be written: {error}") from None
