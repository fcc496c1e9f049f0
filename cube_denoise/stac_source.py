"""Where STAC items come from: an API, a static catalog, an item list."""

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pystac

from cube_denoise import places
from cube_denoise.conditions import Condition, as_cql2, as_query

_PAGE = 100  # what every STAC API we know gives at once
_TIMEOUT = 60.0  # s, of one request


def open_items(
    source: str | Path, conditions: Sequence[Condition], narrowing: dict[str, Any]
) -> Iterator[pystac.Item]:
    """Find the items of a source, narrowed by the server where there is one that can.

    Parameters
    ----------
    source : str or path
        As in `catalog.search`.
    conditions : sequence of Condition
        Sent to an API that can filter by properties; else warned of.
    narrowing : dict
        ``collections``, ``bbox`` and ``datetime`` for an API.
    """
    data, href = read_source(source)
    conforms = " ".join(data.get("conformsTo", ()))
    if "item-search" not in conforms:
        return listed(data, href)
    from pystac_client import Client

    if conditions and "item-search#query" in conforms:
        narrowing["query"] = as_query(conditions)
    elif conditions and "item-search#filter" in conforms:
        narrowing |= {"filter": as_cql2(conditions), "filter_lang": "cql2-json"}
    elif conditions:
        warnings.warn(
            f"{source} cannot filter by properties (its conformance classes have "
            f"neither query nor filter): {sorted({c.name for c in conditions})} are "
            "applied here, to every item it sends",
            stacklevel=3,
        )
    try:
        client = Client.open(href, stac_io=_client_io())
        return client.search(limit=_PAGE, **narrowing).items()
    except Exception as error:
        raise _unreadable(source, error) from error


def listed(data: dict[str, Any], href: str) -> Iterator[pystac.Item]:
    """Walk the items of a static catalog or an item list."""
    relations = {link.get("rel") for link in data.get("links", ())}
    if data["type"] == "FeatureCollection":
        if "next" in relations:
            raise ValueError(
                f"{href} is one page of a STAC API: give the address of the API"
            )
        for feature in data["features"]:
            # Copies would take most of the time of a search.
            old = feature.get("stac_version") != pystac.get_stac_version()
            item = pystac.Item.from_dict(feature, preserve_dict=False, migrate=old)
            if item.get_self_href() is None:
                item.set_self_href(href)  # relative links start from the list
            yield item
    elif data["type"] == "Feature":
        yield pystac.Item.from_dict(data, href=href)
    elif "items" in relations and "item" not in relations:
        raise ValueError(
            f"{href} is a collection of a STAC API: give the address of the API and "
            f"collections=[{data.get('id')!r}]"
        )
    else:
        io = _client_io() if _is_url(href) or places.is_bucket(href) else None
        root = pystac.read_dict(data, href=href, stac_io=io)
        if isinstance(root, pystac.Catalog):
            yield from root.get_items(recursive=True)


def read_source(source: str | Path) -> tuple[dict[str, Any], str]:
    """Read the JSON of a source; also gives its absolute address."""
    href = str(source)
    try:
        if _is_url(href):
            text = _client_io().read_text(href)
        elif places.is_bucket(href):
            text = places.read_text(href)
        else:
            path = Path(href.removeprefix("file://")).resolve()
            path = path / "catalog.json" if path.is_dir() else path
            href, text = str(path), path.read_text()
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not STAC: it is not JSON ({error})") from error
    except places.PlaceError:
        raise
    except Exception as error:
        raise _unreadable(source, error) from error
    kind = data.get("type") if isinstance(data, dict) else None
    if kind not in ("Catalog", "Collection", "Feature", "FeatureCollection"):
        raise ValueError(
            f"{source} is not STAC: its type is {kind!r} and must be 'Catalog', "
            "'Collection', 'Feature' or 'FeatureCollection'"
        )
    return data, href


def guarded(items: Iterator[pystac.Item], source: str | Path) -> Iterator[pystac.Item]:
    """Pass the items on, with one kind of error for whatever stops them."""
    try:
        yield from items
    except ValueError:
        raise
    except Exception as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str | Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(places.without_secrets(f"{source} cannot be read: {reason}"))


def _client_io() -> Any:
    """Reader of URLs that gives up on dead hosts soon and bears with busy ones.

    It reads from buckets too, so that a static catalog can be in one.
    """
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    retry = Retry(
        total=5,
        connect=1,
        backoff_factor=0.5,
        status_forcelist=[429, 502, 503, 504],
        allowed_methods=None,
    )

    class Reader(StacApiIO):
        def read_text(self, source: Any, *args: Any, **options: Any) -> str:
            href = source if isinstance(source, str) else str(source.href)
            if places.is_bucket(href):
                return places.read_text(href)
            return super().read_text(source, *args, **options)

    return Reader(timeout=_TIMEOUT, max_retries=retry)


def _is_url(href: str) -> bool:
    return href.startswith(("http://", "https://"))
