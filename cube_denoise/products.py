"""Products on disk or on a server -> records: which reader a place is for.

`hyp3`, `aria`, `nisar` and `opera` read what these services deliver, `mintpy` and
`licsbas` the stacks and series of these programs, `raster_stack` any other folder of
rasters; `find_products` tells which it is. In the readers end all differences of names,
units and signs between providers.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cube_denoise import aria, hyp3, nisar, opera, places
from cube_denoise.aria import read_aria
from cube_denoise.hdf5_access import is_remote
from cube_denoise.hyp3 import read_hyp3, relative_orbit
from cube_denoise.interferogram import ROLES, Asset, Interferogram, earlier_first
from cube_denoise.licsbas import (
    find_licsar,
    licsar_folder,
    read_licsar,
    read_licsbas,
)
from cube_denoise.mintpy import read_mintpy
from cube_denoise.nisar import read_nisar
from cube_denoise.opera import read_opera
from cube_denoise.product_files import product, stem_of
from cube_denoise.progress import progress
from cube_denoise.raster_stack import read_raster_stack

__all__ = [
    "ROLES",
    "Asset",
    "Interferogram",
    "earlier_first",
    "find_products",
    "read_aria",
    "read_hyp3",
    "read_licsar",
    "read_licsbas",
    "read_mintpy",
    "read_nisar",
    "read_opera",
    "read_product",
    "read_raster_stack",
    "relative_orbit",
]

HDF5 = (".h5", ".hdf5", ".he5", ".nc")
"""Suffixes of HDF5 and NetCDF4 files."""


def find_products(
    place: str | Path,
    *,
    track: str | None = None,
    incidence_angle: float | None = None,
    heading: float | None = None,
    static: Sequence[str | Path] = (),
) -> tuple[list[Interferogram], dict[str | Path, str]]:
    """Read every product at a place, whoever made it.

    Parameters
    ----------
    place : str or path
        ``ifgramStack.h5`` or ``timeseries.h5`` of MintPy, ``cum.h5`` of LiCSBAS; a
        frame folder of LiCSAR or its ``GEOC`` or ``GEOCml*``; a folder of products of
        ARIA (S1-GUNW), NISAR (GUNW), OPERA (DISP-S1) or HyP3. Of the first three also
        one file, by its path or ``https://`` or ``s3://`` address, or all of a place
        in a bucket (``s3://bucket/folder``).
    track : str, optional
        Such as ``"A005"``; else as the products tell.
    incidence_angle, heading : float, optional
        Degrees; of DISP-S1 products without static layers, see `opera.read_opera`.
    static : sequence of str or path, optional
        Static layers of DISP-S1 products. Those beside products, in folders and in
        buckets, are found.

    Returns
    -------
    interferograms : list of Interferogram
    unreadable : dict
        File or folder of a product -> why it could not be read.

    Raises
    ------
    ValueError
        If there is no such place, or a stack or series that lacks something.
    """

    def read(href: str | Path) -> Interferogram:
        return read_product(
            href,
            track=track,
            incidence_angle=incidence_angle,
            heading=heading,
            static=static,
        )

    if places.is_bucket(place) and not is_product(place):
        objects = sorted(_product_objects(str(place)))
        static = [*(o for o in objects if opera.is_static(o)), *static]
        return _read_all([o for o in objects if is_product(o)], read)
    if is_remote(place):
        return [read(place)], {}
    place = Path(place).resolve()
    if place.is_dir() and (files := sorted(_product_files(place))):
        found, unreadable = _read_all(files, read)
        others, bad = hyp3.find_products(place, track=track)
        return found + others, unreadable | bad
    if is_stack_file(place) and (is_product(place) or _is_agencys(place)):
        return [read(place)], {}
    if incidence_angle is not None or heading is not None or static:
        raise ValueError(
            f"{incidence_angle=}, {heading=} and {static=} are for DISP-S1 products, "
            f"and {place} has none"
        )
    if is_stack_file(place):
        with product(place) as file:
            read_stack = read_licsbas if {"cum", "imdates"} & set(file) else read_mintpy
        return read_stack(place, track=track), {}
    if place.is_dir() and (folder := licsar_folder(place)):
        return find_licsar(folder, track=track)
    return hyp3.find_products(place, track=track)


def is_stack_file(place: str | Path) -> bool:
    """Whether a place is a local HDF5 or NetCDF4 file, by its name."""
    return "://" not in str(place) and Path(place).suffix in HDF5


def is_product(href: str | Path) -> bool:
    """Whether a file is a product of ARIA, NISAR or OPERA, by its name."""
    return _reader_of(href) is not None


def read_product(
    href: str | Path,
    *,
    track: str | None = None,
    incidence_angle: float | None = None,
    heading: float | None = None,
    static: Sequence[str | Path] = (),
) -> Interferogram:
    """Read the record of one product file of ARIA, NISAR or OPERA, by its name.

    Parameters
    ----------
    href : str or path
        Path, or ``https://`` or ``s3://`` address.
    track : str, optional
        Such as ``"A005"``; else as the product tells.
    incidence_angle, heading, static
        As in `find_products`.

    Raises
    ------
    ValueError
        If it is no such product, or cannot be read.
    """
    reader = _reader_of(href)
    if reader == "opera":
        return read_opera(
            href,
            track=track,
            incidence_angle=incidence_angle,
            heading=heading,
            static=static,
        )
    name = stem_of(str(href))
    if incidence_angle is not None or heading is not None or static:
        raise ValueError(
            f"{incidence_angle=}, {heading=} and {static=} are for DISP-S1 products: "
            f"{name} is none, or not named as one"
        )
    if reader is None:
        raise ValueError(
            f"{name} must be named as a product of ARIA (S1-GUNW-...), NISAR "
            "(NISAR_L2_.._GUNW_...) or OPERA (OPERA_L3_DISP-S1_...)"
        )
    return (read_aria if reader == "aria" else read_nisar)(href, track=track)


def _reader_of(href: str | Path) -> str | None:
    name, stem = Path(str(href)).name, stem_of(str(href))
    if opera.GEOTIFF.fullmatch(name):
        return "opera"
    names = {"aria": aria.NAME, "nisar": nisar.NAME, "opera": opera.NAME}
    return next((n for n, p in names.items() if p.fullmatch(stem)), None)


def _product_files(folder: Path) -> Iterator[Path]:
    """Product files in a folder or one level further down."""
    for place in (folder, *(p for p in folder.iterdir() if p.is_dir())):
        for file in place.iterdir():
            if file.suffix in (*HDF5, ".tif") and is_product(file):
                yield file


def _product_objects(url: str) -> Iterator[str]:
    """Addresses of products and static layers in a bucket, at a place or below."""
    import obstore

    folder, _, query = url.partition("?")
    try:
        for batch in obstore.list(places.object_store(url)):
            for entry in batch:
                href = f"{folder.rstrip('/')}/{entry['path']}"
                if is_product(href) or opera.is_static(href):
                    yield f"{href}?{query}" if query else href
    except places.PlaceError:
        raise
    except Exception as error:
        raise places.unreachable(url, error) from None


def _read_all(
    files: Sequence[str | Path], read: Callable[[str | Path], Interferogram]
) -> tuple[list[Interferogram], dict[str | Path, str]]:
    found, unreadable = [], {}
    with progress("read headers", len(files), unit="products") as advance:
        for file in sorted(files, key=lambda f: stem_of(str(f))):
            try:
                found.append(read(file))
            except places.PlaceError:
                raise
            except ValueError as error:
                unreadable[file] = str(error)
            advance(1)
    return found, unreadable


def _is_agencys(path: Path) -> bool:
    """Whether a file of another name is a product of an agency, by what is in it."""
    with product(path) as file:
        return "science" in file or {"displacement", "identification"} <= set(file)
