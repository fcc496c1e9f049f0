"""Places of cubes, products and catalogs: local paths and buckets, in one form.

Credentials never pass through here: Icechunk, obstore and GDAL each take them from the
environment of the process that reads or writes, so that nothing secret is in a task
graph, and a worker's own role or profile is used where it runs.
"""

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    import icechunk

SCHEMES = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give "
    "the machine a role (AWS_NO_SIGN_REQUEST=YES for what is public)",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or give the machine a service account "
    "(GS_NO_SIGN_REQUEST=YES for what is public)",
    "az": "set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_ACCESS_KEY, or give the machine "
    "an identity (AZURE_NO_SIGN_REQUEST=YES for what is public)",
}
"""Schemes of buckets, and how to log in there."""
_ANONYMOUS = {
    "s3": "AWS_NO_SIGN_REQUEST",
    "gs": "GS_NO_SIGN_REQUEST",
    "az": "AZURE_NO_SIGN_REQUEST",
}
_OPTIONS = ("anonymous", "endpoint", "region")
_RETRIES = 4  # waiting 0.2, 0.4, 0.8 and 1.6 s: a restart is borne, a dead host is not

_PROBE = "refs/branch.main/ref.json"
"""What is asked for: a cube has it; that it is absent is an answer as well."""


class PlaceError(ValueError):
    """A place that is not one, cannot be reached, or refuses."""


@dataclass(frozen=True)
class Bucket:
    """A prefix in a bucket; nothing in it is secret."""

    scheme: str
    name: str
    prefix: str
    endpoint: str | None
    """Of S3; None for Amazon's own."""
    region: str | None
    anonymous: bool
    """Whether requests are not signed."""

    @property
    def allow_http(self) -> bool:
        """Whether the endpoint is without TLS."""
        return bool(self.endpoint and self.endpoint.startswith("http://"))


_ANSWERED: set[tuple[Bucket, int]] = set()
"""Places, and how we logged in, that have answered this process."""


def local_path(url: str | Path) -> Path | None:
    """Absolute path of a place on disk; None for one in a bucket."""
    parts = urlsplit(str(url))
    if parts.scheme not in ("", "file"):
        return None
    return Path(parts.path if parts.scheme else str(url)).absolute()


def is_bucket(url: str | Path) -> bool:
    """Whether it is ``s3://``, ``gs://`` or ``az://``."""
    return urlsplit(str(url)).scheme in SCHEMES


def bucket(url: str | Path) -> Bucket:
    """Read ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.

    Endpoint, region and anonymous access come from the environment
    (``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``; ``AWS_REGION`` or
    ``AWS_DEFAULT_REGION``; ``AWS_NO_SIGN_REQUEST``, ``GS_NO_SIGN_REQUEST``,
    ``AZURE_NO_SIGN_REQUEST``), or for this place alone from the URL:
    ``?endpoint=https://...&region=...&anonymous=true``.

    Raises
    ------
    PlaceError
        If the scheme or an option is unknown, there is no bucket in the URL, or
        there is a password in it.
    """
    shown = without_secrets(str(url))
    parts = urlsplit(str(url))
    if parts.scheme not in SCHEMES:
        raise PlaceError(
            f"url={shown!r}: must be a local path, s3://..., gs://... or az://..."
        )
    if "@" in parts.netloc:
        raise PlaceError(
            f"url={shown!r} must be without a password: {SCHEMES[parts.scheme]}"
        )
    if not parts.netloc:
        raise PlaceError(f"url={shown!r}: must be {parts.scheme}://bucket/path")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise PlaceError(
            f"url={shown!r}: options are {', '.join(_OPTIONS)}, not "
            f"{', '.join(unknown)}"
        )
    anonymous = options.get("anonymous", _env(_ANONYMOUS[parts.scheme]) or "no")
    found: dict[str, str | None] = {"endpoint": None, "region": None}
    if parts.scheme == "s3":
        found = {
            "endpoint": _env("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
            "region": _env("AWS_REGION", "AWS_DEFAULT_REGION"),
        }
    found |= {k: v for k, v in options.items() if k != "anonymous"}
    return Bucket(
        scheme=parts.scheme,
        name=parts.netloc,
        prefix=parts.path.strip("/"),
        anonymous=_is_yes(anonymous),
        **found,
    )


def icechunk_storage(url: str | Path) -> "icechunk.Storage":
    """Icechunk storage of a local path or a bucket; no request is made.

    Raises
    ------
    PlaceError
        As `bucket`.
    """
    import icechunk

    path = local_path(url)
    if path is not None:
        return icechunk.local_filesystem_storage(str(path))
    place = bucket(url)
    login: dict[str, Any] = {"anonymous" if place.anonymous else "from_env": True}
    if place.scheme == "s3":
        return icechunk.s3_storage(
            bucket=place.name,
            prefix=place.prefix,
            endpoint_url=place.endpoint,
            allow_http=place.allow_http,
            force_path_style=bool(place.endpoint),
            region=place.region,
            requester_pays=os.environ.get("AWS_REQUEST_PAYER") == "requester",
            **login,
        )
    if place.scheme == "gs":
        return icechunk.gcs_storage(bucket=place.name, prefix=place.prefix, **login)
    return icechunk.azure_storage(
        account=_account(url),
        container=place.name,
        prefix=place.prefix,
        from_env=True,
        config={"azure_skip_signature": "true"} if place.anonymous else None,
    )


def object_store(url: str | Path) -> Any:
    """Object store (obstore) of a local folder, which is made, or of a bucket's prefix.

    Raises
    ------
    PlaceError
        As `bucket`; or if half of a login is given, or ``AWS_PROFILE`` is set and
        boto3, which reads profiles, is not there.
    """
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

    path = local_path(url)
    if path is not None:
        return LocalStore(path, mkdir=True)
    place = bucket(url)
    shared: dict[str, Any] = {
        "prefix": place.prefix or None,
        "client_options": {"connect_timeout": "5s", "allow_http": place.allow_http},
        "retry_config": {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=30),
            "backoff": {
                "base": 2,
                "init_backoff": timedelta(seconds=0.2),
                "max_backoff": timedelta(seconds=2),
            },
        },
    }
    if place.anonymous:
        shared["skip_signature"] = True
    try:
        if place.scheme == "gs":
            return GCSStore(place.name, **shared)
        if place.scheme == "az":
            return AzureStore(place.name, account_name=_account(url), **shared)
        where = {"endpoint": place.endpoint, "region": place.region}
        own: dict[str, Any] = {k: v for k, v in where.items() if v is not None}
        return S3Store(place.name, **own, **_profile(url, place), **shared)
    except BaseError as error:
        raise unreachable(url, error) from None


def check(url: str | Path) -> None:
    """Ask a bucket whether it is there and knows us; within seconds, once per process.

    Whether it lets us do something shows only when that is tried: no right is needed.

    Raises
    ------
    PlaceError
        If not: one sentence with what to set.
    """
    import obstore

    mark = (bucket(url), _login())
    if mark in _ANSWERED:
        return
    try:
        obstore.get(object_store(url), _PROBE)
    except PlaceError:
        raise
    except Exception as error:
        absent = isinstance(error, FileNotFoundError | PermissionError)
        if not absent or explain(url, _told(error)):
            raise unreachable(url, error) from None
    _ANSWERED.add(mark)


def _login() -> int:
    """Tell apart what the environment says of who we are."""
    kinds = ("AWS_", "AZURE_", "GOOGLE_", "GS_")
    return hash(frozenset(i for i in os.environ.items() if i[0].startswith(kinds)))


def unreachable(url: str | Path, error: Exception) -> PlaceError:
    """Make one sentence of what a client of a bucket raised."""
    text = _told(error)
    known = explain(url, text, denied=True)
    what = known or f"{without_secrets(str(url))} cannot be used: {text}"
    return PlaceError(without_secrets(" ".join(what.split()))[:400])


def _told(error: Exception) -> str:
    # Below its first line, obstore repeats an error with all its parts.
    return str(error).split("Debug source:")[0]


def explain(url: str | Path, message: str, *, denied: bool = False) -> str | None:
    """What a message of Icechunk, obstore or GDAL means, and what to set.

    Parameters
    ----------
    url : str or pathlib.Path
        What was asked for.
    message : str
        Of the error.
    denied : bool
        Whether a plain "access denied" tells of the place. It does not where S3 gives
        it for a single object that is not there.

    Returns
    -------
    str or None
        One sentence; None if the error is not of the place as a whole.
    """
    shown = without_secrets(str(url))
    parts = urlsplit(shown)
    login = SCHEMES.get(parts.scheme)
    if login is None:
        return None
    place = bucket(url)
    at = f" at {place.endpoint}" if place.endpoint else ""
    setting = " and AWS_ENDPOINT_URL" if place.scheme == "s3" else ""
    meanings = {
        r"NoSuchBucket|bucket does not exist|ContainerNotFound": f"there is no bucket "
        f"{place.name!r}{at}; check the name{setting}",
        r"InvalidAccessKeyId|access key ID you provided": "the access key is not known "
        f"there; {login}",
        r"SignatureDoesNotMatch|signature we calculated|AuthenticationFailed": "the "
        f"secret does not fit the access key; {login}",
        r"ExpiredToken|InvalidToken|TokenRefreshRequired|security token|has expired": (
            f"the session token has expired or is wrong; {login}"
        ),
        r"169\.254\.169\.254|no providers in chain|InvalidCredentials|"
        r"[Nn]o valid \w+ credentials|credential provider|options not defined|"
        r"not filled|metadata\.google|"
        r"Missing ?\w*Key|Missing account": f"there are no credentials; {login}",
        r"[Ff]ailed to connect|[Cc]onnect error|dispatch failure|resolve host|"
        r"error sending request|[Tt]imed? ?out|tcp connect": f"it cannot be reached"
        f"{at}; check the network{setting}",
    }
    if denied:
        meanings[
            r"AccessDenied|Access Denied|\b403\b|[Pp]ermission|privileges|\b401\b"
        ] = f"access is denied; {login}"
    for pattern, meaning in meanings.items():
        if re.search(pattern, message):
            return f"{shown}: {meaning}"
    return None


def without_secrets(text: str) -> str:
    """Drop passwords and queries, which may be signatures, from URLs in a text."""
    text = re.sub(r"(?<=://)[^/@\s'\"]+@", "", text)
    return re.sub(r"(://[^\s?'\"]+)\?[^\s'\")]*", r"\1", text)


def object_of(url: str) -> tuple[Any, str]:
    """Object store (obstore) of the folder that an object is in, and its name there."""
    folder, _, name = url.partition("?")[0].rpartition("/")
    query = f"?{urlsplit(url).query}" if "?" in url else ""
    return object_store(folder + query), name


def read_text(url: str) -> str:
    """Text of an object in a bucket.

    Raises
    ------
    PlaceError
        If it cannot be read.
    """
    import obstore

    try:
        got = obstore.get(*object_of(url)).bytes()
        return bytes(got).decode()
    except PlaceError:
        raise
    except FileNotFoundError:
        raise PlaceError(f"{without_secrets(url)} is not there") from None
    except Exception as error:
        raise unreachable(url, error) from None


def _profile(url: str | Path, place: Bucket) -> dict[str, Any]:
    """Where obstore gets credentials that are not in the environment itself."""
    if place.anonymous or _env("AWS_ACCESS_KEY_ID"):
        return {}
    try:
        region = _session().region_name
    except ImportError:
        if not _env("AWS_PROFILE"):
            return {}  # roles of the machine are known to obstore itself
        raise PlaceError(
            f"{without_secrets(str(url))}: AWS_PROFILE={os.environ['AWS_PROFILE']} "
            "needs boto3 to be read: pip install 'cube-denoise[aws]'"
        ) from None
    except Exception as error:  # botocore's, of a profile that is not there
        raise PlaceError(
            f"{without_secrets(str(url))}: {' '.join(str(error).split())}; "
            f"{SCHEMES['s3']}"
        ) from None
    found = {"credential_provider": _credentials}
    return found | ({"region": region} if region and not place.region else {})


def _session() -> Any:
    import boto3

    return boto3.Session()


def _credentials() -> dict[str, Any]:
    """Credentials of profile or role: a function, so that a pickle names only it."""
    found = _session().get_credentials()
    if found is None:
        raise PlaceError(f"there are no credentials; {SCHEMES['s3']}")
    frozen = found.get_frozen_credentials()
    return {
        "access_key_id": frozen.access_key,
        "secret_access_key": frozen.secret_key,
        "token": frozen.token,
        "expires_at": getattr(found, "_expiry_time", None),
    }


def _account(url: str | Path) -> str:
    account = _env("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
    if account is None:
        raise PlaceError(f"{without_secrets(str(url))}: {SCHEMES['az']}")
    return account


def _env(*names: str) -> str | None:
    """The first of some environment variables that is set."""
    return next((os.environ[n] for n in names if os.environ.get(n)), None)


def _is_yes(text: str) -> bool:
    return text.lower() in ("1", "yes", "true", "on")
