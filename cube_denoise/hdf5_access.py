"""How HDF5 and NetCDF4 files are opened, wherever they are: blocks of bytes, logins.

Of a file in a bucket or on a web server the blocks are read that HDF5 asks for, by
obstore and requests; h5py takes them as a file. Keys of buckets come from the
environment, a login for web servers from ``EARTHDATA_TOKEN`` or a netrc file, both in
the process that reads.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

from cube_denoise import places
from cube_denoise.raster_access import refusal, takes_token

if TYPE_CHECKING:
    import h5py

BLOCK = 1 << 19
"""Bytes that are fetched at once: a chunk of a product holds about as many."""
KEPT = 32
"""Blocks of a file that are kept in memory."""
_TIMEOUT = 60.0  # s, of one request


class UnansweredError(OSError):
    """A file that may be there and whole: a server did not give it this time."""


def is_remote(href: str | Path) -> bool:
    """Whether it is on a web server or in a bucket."""
    return places.is_bucket(href) or str(href).startswith(("http://", "https://"))


@contextmanager
def opened(href: str | Path) -> "Iterator[h5py.File]":
    """Open a HDF5 file for reading.

    Parameters
    ----------
    href : str or pathlib.Path
        Path, or ``https://``, ``s3://``, ``gs://`` or ``az://`` address.

    Raises
    ------
    places.PlaceError
        If the place as a whole is not there or refuses: one sentence with what to set.
    UnansweredError
        If the server does not give this file: it may another time.
    OSError
        If this file is not there, cut short, or no HDF5.
    """
    import h5py

    if not is_remote(href):
        with h5py.File(href, "r") as file:
            yield file
        return
    with _remote(str(href)) as content, h5py.File(content, "r") as file:
        yield file


class _Blocks(AbstractBufferedFile):
    """A file of which blocks are fetched on demand."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        super().__init__(
            None,
            "",
            block_size=BLOCK,
            cache_type="blockcache",
            cache_options={"maxblocks": KEPT},
            size=size,
        )

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._fetch(start, end)


@contextmanager
def _remote(href: str) -> Iterator[_Blocks]:
    if places.is_bucket(href):
        yield _in_bucket(href)
        return
    import requests

    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_without_queries)
    with requests.Session() as session:
        yield _on_server(session, href)


def _without_queries(record: logging.LogRecord) -> bool:
    """Drop from what urllib3 logs the queries of addresses, which may be signatures."""
    record.msg, record.args = re.sub(r"\?\S*", "", record.getMessage()), ()
    return True


def _in_bucket(href: str) -> _Blocks:
    import obstore

    store, name = places.object_of(href)

    def fetch(start: int, end: int) -> bytes:
        with _told(href):
            return bytes(obstore.get_range(store, name, start=start, end=end))

    with _told(href):
        return _Blocks(fetch, obstore.head(store, name)["size"])


@contextmanager
def _told(href: str) -> Iterator[None]:
    """Turn what obstore raises into what `opened` does."""
    try:
        yield
    except places.PlaceError:
        raise
    except FileNotFoundError:
        raise OSError(f"{places.without_secrets(href)} is not there") from None
    except Exception as error:
        raise places.unreachable(href, error) from None


def _on_server(session: Any, href: str) -> _Blocks:
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry

    retry = Retry(
        total=3, connect=1, backoff_factor=1, status_forcelist=[429, 502, 503, 504]
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    token = os.environ.get("EARTHDATA_TOKEN")
    if token and takes_token(urlsplit(href).hostname or ""):
        # Of this address alone: requests drops it where another host takes over.
        session.auth = _bearer(token)

    def fetch(start: int, end: int) -> bytes:
        return bytes(_range(session, href, start, end)[0])

    return _Blocks(fetch, _range(session, href, 0, 1)[1])


def _bearer(token: str) -> Callable[[Any], Any]:
    def sign(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign


def _range(session: Any, href: str, start: int, end: int) -> tuple[bytes, int]:
    """Bytes from `start` to before `end`, and how many the file has."""
    import requests

    shown = places.without_secrets(href)
    try:
        wanted = {"Range": f"bytes={start}-{end - 1}"}
        with session.get(href, headers=wanted, timeout=_TIMEOUT, stream=True) as answer:
            status = answer.status_code
            total = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
            content = answer.content if status == 206 else b""
    except requests.RequestException as error:
        unreached = refusal(href, "Failed to connect") or str(error)
        raise places.PlaceError(unreached) from None
    if status == 206 and total:
        whole = int(total[1])
        if len(content) != min(end, whole) - start:
            raise UnansweredError(
                f"{shown}: the server gave less than it was asked for"
            )
        return content, whole
    if reason := refusal(href, f"HTTP {status}"):
        raise places.PlaceError(reason)
    if status in (404, 410):
        raise FileNotFoundError(f"{shown} is not there (HTTP {status})")
    if status == 200:
        raise OSError(f"{shown}: the server gives whole files alone, no parts of them")
    raise UnansweredError(f"{shown}: the server answers HTTP {status}")
