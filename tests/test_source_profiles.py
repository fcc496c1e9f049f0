"""NASA's CMR-STAC as its source and users tell of it, served here; real files behind.

nasa/cmr-stac: keys of assets are pieces of URLs (utils/index.ts, extractAssetMapKey),
properties hold three times alone (domains/items.ts), pages hold at most 100 items
(issues 203, 411).
"""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agency_products import ARIA_CORNER, ramp, write_aria, write_opera
from command_line import done, mistake
from web_site import serving

from cube_denoise import open_cube
from cube_denoise.catalog import search

ARIA, OPERA = "ARIA_S1_GUNW_1", "OPERA_L3_DISP-S1_V1_1"
WEST, NORTH = ARIA_CORNER
pytestmark = pytest.mark.usefixtures("logging_as_it_was")
LOOK = {"incidence_angle": 38.0, "heading": -13.0}


def asset_key(href: str) -> str:
    """Of CMR-STAC: the last piece but one of the URL, split at its dots."""
    return href.split(".")[-2]


def item(name: str, site: str, collection: str, start: str) -> dict[str, Any]:
    """Item of a product as CMR-STAC gives it."""
    href, twin = f"{site}/{name}", f"s3://asf-cumulus-prod/{name}"
    box = [WEST, NORTH - 0.02, WEST + 0.025, NORTH]
    ring = [[box[i], box[j]] for i, j in ((0, 1), (2, 1), (2, 3), (0, 3), (0, 1))]
    browse = f"{site}/{name.rpartition('.')[0]}.png"
    return {
        "type": "Feature",
        "id": name.rpartition(".")[0],
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": box,
        "properties": dict.fromkeys(
            ("datetime", "start_datetime", "end_datetime"), start
        ),
        "links": [],
        "assets": {
            "s3_" + asset_key(twin): {"href": twin, "roles": ["data"]},
            asset_key(href): {"href": href, "roles": ["data"]},
            asset_key(href + ".xml"): {"href": href + ".xml", "roles": ["metadata"]},
            "browse": {"href": browse, "roles": ["browse"], "type": "image/png"},
        },
    }


@contextmanager
def cmr(items: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The API: it filters by collection and box, and by times as it knows them."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def answer(self, data: dict[str, Any], status: int = 200) -> None:
            text = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            conforms = "https://api.stacspec.org/v1.0.0/"
            search = {"rel": "search", "href": f"{url}/search", "method": "POST"}
            self.answer(
                {
                    "type": "Catalog",
                    "id": "ASF",
                    "stac_version": "1.0.0",
                    "description": "Root catalog for ASF",
                    "conformsTo": [
                        conforms + end
                        for end in ("core", "item-search", "item-search#query")
                    ],
                    "links": [
                        {"rel": "self", "href": url},
                        search | {"type": "application/geo+json"},
                    ],
                }
            )

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            if body["limit"] > 100:
                self.answer({"errors": ["limit must be at most 100"]}, 400)
                return
            there = [
                i
                for i in items
                if i["collection"] in body.get("collections", [i["collection"]])
                and not body.get("query")  # no item has such a property
                and i["properties"]["datetime"] >= body.get("datetime", "")
            ]
            begin = int(body.get("cursor", 0))
            page = there[begin : begin + body["limit"]]
            end = begin + len(page)
            next_ = {"rel": "next", "href": f"{url}/search", "method": "POST"}
            links = (
                [next_ | {"body": body | {"cursor": end}}] if end < len(there) else []
            )
            # Pages overlap where products come in meanwhile.
            page = page + there[begin : begin + 1]
            self.answer({"type": "FeatureCollection", "features": page, "links": links})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}/stac/ASF"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield url, asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asf")
    for later, earlier in (("20200130", "20200124"), ("20200205", "20200124")):
        write_aria(folder, later, earlier)
    write_aria(folder, "20200205", "20200130")
    write_opera(folder, "20220111", "20220123", 0.01 * ramp())
    return folder


@pytest.fixture(scope="module")
def api(files: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Three products and 150 of other tracks, of which there are no files."""
    with serving(files, lambda request: None) as site:
        base = site.url("")[:-1]
        items = []
        for path in sorted(files.glob("*.nc")):
            kind = ARIA if path.name.startswith("S1") else OPERA
            # The earlier time of the pair, which pairs of one start share.
            date = path.name.split("_")[1][:8] if kind == ARIA else "20220111"
            start = f"{date[:4]}-{date[4:6]}-{date[6:]}T00:00:00.000Z"
            items.append(item(path.name, base, kind, start))
        first = next(i for i in items if i["collection"] == ARIA)
        others = [
            json.loads(json.dumps(first).replace("-D-R-071-", f"-{d}-R-{n:03d}-"))
            for n in range(100, 175)
            for d in "AD"
        ]
        items = [items[0], *others, *items[1:]]
        with cmr(items) as served:
            yield served


def test_products_of_one_track_over_pages(api, tmp_path: Path) -> None:
    """Through the command line to a cube: dates, order and signs are the files'."""
    url, asked = api
    asked.clear()
    done(
        *("search", url, "--collection", ARIA, "--orbit", "D071"),
        *("--bbox=-119,34,-117,36", "-o", tmp_path / "items.json"),
    )
    assert len(asked) == 2 and {a["limit"] for a in asked} == {100}
    assert not any("query" in a or "filter" in a for a in asked)
    done("ingest", tmp_path / "items.json", tmp_path / "cube")
    cube = open_cube(tmp_path / "cube").load()
    dates = [
        [str(cube[f"{n}_time"].values[k])[:10] for n in ("reference", "secondary")]
        for k in range(3)
    ]
    assert dates == [
        ["2020-01-24", "2020-01-30"],
        ["2020-01-24", "2020-02-05"],
        ["2020-01-30", "2020-02-05"],
    ]
    for k in range(3):
        np.testing.assert_array_equal(cube.unwrapped_phase[k], -ramp())
    assert cube.attrs["track"] == "D071" and "los_up" in cube


@pytest.mark.parametrize(
    ("conditions", "spans"),
    [
        ({"datetime": "2020-01-25/2020-01-26"}, {"0130_0124", "0205_0124"}),
        ({"datetime": "2020-02-01/.."}, {"0205_0124", "0205_0130"}),
        ({"filters": ["insar:temporal_baseline<=6"]}, {"0130_0124", "0205_0130"}),
        ({"filters": ["insar:perpendicular_baseline>0"]}, set()),  # in the files alone
        ({"bbox": (10, 10, 11, 11)}, set()),
        ({"filters": ["cube_denoise:frame=00119W_00036N"]}, set()),
        (
            {"filters": ["cube_denoise:frame=00119W_00034N"]},
            {"0130_0124", "0205_0124", "0205_0130"},
        ),
    ],
)
def test_times_are_those_of_pairs(api, conditions, spans) -> None:
    """The server, which knows one time of each, would lose pairs."""
    url, asked = api
    asked.clear()
    found = search(url, collections=[ARIA], orbit=71, **conditions)
    assert {r.id[21:38].replace("2020", "") for r in found} == spans
    assert "datetime" not in asked[0]


def test_displacement_by_its_own_track(api) -> None:
    """The name does not tell it, and the look direction is given."""
    url, _ = api
    (record,) = search(url, collections=[OPERA], orbit="A064", **LOOK)
    assert record.track == "A064" and record.heading == -13.0
    assert record.assets["unwrapped_phase"].href.startswith("http://")
    assert search(url, collections=[OPERA], orbit="D064", **LOOK) == []
    frame = {"filters": ["cube_denoise:frame=8882"]}
    assert search(url, collections=[OPERA], **frame, **LOOK) == [record]


def test_what_cannot_be_read_is_told(api, caplog: pytest.LogCaptureFixture) -> None:
    url, _ = api
    with caplog.at_level(logging.WARNING):
        assert search(url, collections=[ARIA], orbit="A150") == []
        assert search(url, collections=[OPERA]) == []
    assert "S1-GUNW-A-R-150" in caplog.text and "HTTP 404" in caplog.text
    assert "does not tell its look direction" in caplog.text
    told = mistake("search", "https://cmr.earthdata.nasa.gov/stac/ASF")
    assert "name collections, such as ARIA_S1_GUNW_1" in told
