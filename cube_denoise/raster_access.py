"""How GDAL opens rasters of files, buckets and web servers: options and logins.

The options are made in the process, and the moment, that reads: nothing of them is in
a task graph. GDAL takes keys of buckets, profiles and roles from the environment by
itself. A login for web servers comes from ``EARTHDATA_TOKEN`` or a netrc file.
"""

import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import rasterio

from cube_denoise import places

EARTHDATA_HOSTS = ("earthdata.nasa.gov", "earthdatacloud.nasa.gov", "asf.alaska.edu")
"""Domains that are sent ``EARTHDATA_TOKEN``; ``EARTHDATA_HOSTS`` (with commas
between) adds others."""
_PREFIXES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_DEFAULTS: dict[str, Any] = {
    "GDAL_CACHEMAX": 64,  # MB
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,  # s
    "GDAL_HTTP_CONNECTTIMEOUT": 5,  # s
    "GDAL_HTTP_TIMEOUT": 60,  # s
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": 4 << 20,  # bytes, of each file
}


def gdal_path(href: str) -> str:
    """Name of a raster for GDAL: ``s3://...`` becomes ``/vsis3/...``, and so on.

    Raises
    ------
    places.PlaceError
        If there is a password in it.
    """
    if places.is_bucket(href):
        place = places.bucket(href)
        return f"{_PREFIXES[place.scheme]}{place.name}/{place.prefix}"
    return href


def gdal_options(href: str) -> dict[str, Any]:
    """GDAL options for one raster; what the user has set as GDAL's own stays.

    None of them is secret: rasterio logs options.
    """
    options = {k: v for k, v in _DEFAULTS.items() if k not in os.environ}
    if places.is_bucket(href):
        return options | _bucket_options(places.bucket(href))
    host = _host(href)
    if host is None:
        return options
    netrc = os.environ.get("NETRC")
    if netrc and "GDAL_HTTP_NETRC_FILE" not in os.environ:
        options["GDAL_HTTP_NETRC_FILE"] = netrc
    if takes_token(host):
        if token := os.environ.get("EARTHDATA_TOKEN"):
            options["GDAL_HTTP_HEADER_FILE"] = _header_file(token)
        elif "GDAL_HTTP_COOKIEFILE" not in os.environ:
            # Earthdata login hands its cookie from host to host; keep it in memory.
            options["GDAL_HTTP_COOKIEFILE"] = ""
    return options


@contextmanager
def opened(href: str) -> Iterator[rasterio.DatasetReader]:
    """Open a raster with its options, which hold for opening only.

    Raises
    ------
    places.PlaceError
        If the place as a whole is not there or refuses: one sentence with what to set.
    rasterio.errors.RasterioIOError
        If this raster is not there or not as it should be.
    """
    try:
        with rasterio.Env(**gdal_options(href)):
            raster = rasterio.open(gdal_path(href))
    except rasterio.errors.RasterioIOError as error:
        reason = refusal(href, str(error))
        if reason is None:
            raise
        raise places.PlaceError(reason) from None
    with raster:
        yield raster


def refusal(href: str, message: str) -> str | None:
    """What GDAL's message says of the place as a whole, one sentence; None if nothing.

    Parameters
    ----------
    href : str
        Of the raster.
    message : str
        Of GDAL's error.
    """
    host = _host(href)
    if host is None:
        return places.explain(href, message)
    shown = places.without_secrets(href.removeprefix("/vsicurl/"))
    if re.search(r"Failed to connect|resolve host|timed out|Timeout", message):
        return f"{shown}: {host} cannot be reached; check the network"
    if not re.search(r"\b401\b", message):
        return None
    if not takes_token(host):
        return f"{shown}: {host} wants a login; put one into ~/.netrc (or $NETRC)"
    if os.environ.get("EARTHDATA_TOKEN"):
        return (
            f"{shown}: {host} refuses the EARTHDATA_TOKEN; it has expired or is "
            "wrong: make a new one at urs.earthdata.nasa.gov"
        )
    return (
        f"{shown}: {host} wants an Earthdata login; set EARTHDATA_TOKEN, or put user "
        "and password into ~/.netrc (or $NETRC)"
    )


def takes_token(host: str) -> bool:
    """Whether a host is one that ``EARTHDATA_TOKEN`` is for."""
    added = os.environ.get("EARTHDATA_HOSTS", "").split(",")
    domains = (*EARTHDATA_HOSTS, *(h.strip() for h in added if h.strip()))
    return any(host == d or host.endswith(f".{d}") for d in domains)


def _bucket_options(place: places.Bucket) -> dict[str, Any]:
    """Where a bucket is; keys, profile and role GDAL finds in the environment."""
    if place.scheme == "gs":
        return {"GS_NO_SIGN_REQUEST": "YES"} if place.anonymous else {}
    if place.scheme == "az":
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        options = {"AZURE_STORAGE_ACCOUNT": account} if account else {}
        return options | ({"AZURE_NO_SIGN_REQUEST": "YES"} if place.anonymous else {})
    options = {"AWS_NO_SIGN_REQUEST": "YES" if place.anonymous else "NO"}
    if place.endpoint:
        options |= {
            "AWS_S3_ENDPOINT": place.endpoint.split("://")[-1].rstrip("/"),
            "AWS_HTTPS": "NO" if place.allow_http else "YES",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    if place.region:
        options["AWS_REGION"] = place.region
    if shared := os.environ.get("AWS_SHARED_CREDENTIALS_FILE"):  # GDAL's own name
        options["CPL_AWS_CREDENTIALS_FILE"] = shared
    return options


def _host(href: str) -> str | None:
    """Host of a web address, as GDAL takes it; None for any other place."""
    parts = urlsplit(href.removeprefix("/vsicurl/"))
    return parts.hostname if parts.scheme in ("http", "https") else None


@functools.lru_cache(maxsize=8)
def _header_file(token: str) -> str:
    """A file in this process's memory, on no disk, with the header of a login."""
    file = os.memfd_create("headers")
    os.write(file, f"Authorization: Bearer {token}\n".encode())
    return f"/proc/self/fd/{file}"
