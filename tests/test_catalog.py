import json
import math
import shutil
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pystac
import pytest
from pyproj import Transformer
from shapely.geometry import Point, shape

from cube_denoise.catalog import (
    from_item,
    read_items,
    resolve,
    search,
    to_item,
    write_catalog,
    write_items,
)
from cube_denoise.conventions import SPEED_OF_LIGHT
from cube_denoise.products import ROLES, Asset, Interferogram, read_raster_stack

MEXICO = Path(__file__).parents[2] / "shared/data/mexico-city-s1"
START = datetime(2018, 1, 6, 0, 40, 21, tzinfo=UTC)


def record(index=0, *, days=12, folder="/data", **changes):
    start = START + timedelta(days=12 * index)
    assets = {
        role: Asset(f"{folder}/{index}_{role}.tif", role, unit, 0.0)
        for role, unit in ROLES.items()
    }
    fields = {
        "id": f"pair{index:03d}",
        "reference_time": start,
        "secondary_time": start + timedelta(days=days),
        "track": "A005",
        "wavelength": 0.05550415767769124,
        "perpendicular_baseline": 10.0 * index - 30.5,
        "crs": "EPSG:32611",
        "shape": (40, 50),
        "transform": (80.0, 0.0, 400_000.0 + 4_000 * index, 0.0, -80.0, 3_800_000.0),
        "phase_sign": 1,
        "incidence_angle": 39.7,
        "heading": -12.2742586,
        "assets": assets,
    }
    return Interferogram(**fields | changes)


RECORDS = [record(i, days=12 * (1 + i % 3)) for i in range(8)]


# --- items ---


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"phase_sign": -1, "track": "D128"},
        {"perpendicular_baseline": math.nan, "heading": None, "incidence_angle": None},
        {"reference_time": START - timedelta(microseconds=123_457)},
        {"version": "2024-05-06T07:08:09Z"},
    ],
)
def test_item_gives_the_record_back_through_json(changes):
    one = record(**changes)
    item = to_item(one)
    text = json.dumps(item.to_dict(), allow_nan=False)
    assert from_item(pystac.Item.from_dict(json.loads(text))) == one


def test_version_is_when_it_was_updated_or_else_created():
    item = to_item(record())
    assert from_item(item).version == ""
    item.properties["created"] = "2024-01-01T00:00:00Z"
    assert from_item(item).version == "2024-01-01T00:00:00Z"
    item.properties["updated"] = "2024-02-02T00:00:00Z"
    assert from_item(item).version == "2024-02-02T00:00:00Z"


def test_item_says_where_and_when():
    item = to_item(record(days=24))
    assert item.properties["insar:temporal_baseline"] == 24
    assert item.properties["sar:frequency_band"] == "C"
    west, south, east, north = item.bbox
    assert -118.1 < west < east < -118.0
    assert 34.2 < south < north < 34.4
    assert item.properties["start_datetime"] == "2018-01-06T00:40:21Z"


def test_crs_without_code_and_nan_nodata_survive():
    import rasterio

    wkt = rasterio.CRS.from_proj4("+proj=laea +lat_0=50 +lon_0=-118").to_wkt()
    phase = Asset("/a.tif", "unwrapped_phase", "rad", math.nan)
    back = from_item(to_item(record(crs=wkt, assets={"unwrapped_phase": phase})))
    assert back.crs == wkt
    assert math.isnan(back.assets["unwrapped_phase"].nodata)


def foreign(**changes):
    """An item as another provider might write it: later date first, own asset keys."""
    properties = {
        "insar:reference_datetime": "2020-01-30T13:51:56Z",
        "insar:secondary_datetime": "2020-01-24T13:51:10+00:00",
        "insar:perpendicular_baseline": 42.0,
        "sat:orbit_state": "descending",
        "sat:relative_orbit": 71,
        "sar:center_frequency": 5.405,
        "proj:epsg": 4326,
        "view:azimuth": 281.5,
    }
    properties = {k: v for k, v in (properties | changes).items() if v is not None}
    item = pystac.Item(
        "gunw",
        {"type": "Point", "coordinates": [-118.0, 34.0]},
        [-118.0, 34.0, -118.0, 34.0],
        datetime(2020, 1, 30, tzinfo=UTC),
        properties,
    )
    grid = {
        "proj:shape": [10, 20],
        "proj:transform": [0.001, 0, -118.0, 0, -0.001, 34.0, 0, 0, 1],
        "unit": "radians",
        "nodata": 0,
    }
    item.add_asset(
        "unw.20200130", pystac.Asset("https://x.org/u.tif", roles=["unwrapped_phase"])
    )
    item.assets["unw.20200130"].extra_fields.update(grid)
    item.add_asset("thumb", pystac.Asset("https://x.org/t.png", roles=["thumbnail"]))
    return item


def test_foreign_item_in_mm_with_masks_and_half_a_look_vector():
    """As the profile (stac_item) has it: a scale makes radians of what is stored."""
    item = foreign()
    phase = item.assets["unw.20200130"].extra_fields
    scale = 4 * math.pi / 0.0555 * 1e-3
    phase |= {"unit": "rad", "scale": scale, "cube_denoise:band": 2}
    for role in ("los_east", "los_north", "mask", "connected_components"):
        item.add_asset(role[::-1], pystac.Asset(f"https://x.org/{role}", roles=[role]))
    found = from_item(item)
    assert set(found.assets) == {
        *("unwrapped_phase", "los_east", "los_north", "mask", "connected_components")
    }
    assert found.assets["unwrapped_phase"].scale == scale
    assert found.assets["unwrapped_phase"].band == 2
    assert found.assets["mask"].href == "https://x.org/mask"
    assert from_item(to_item(found)) == found


def test_foreign_item_later_first_is_swapped_and_signs_flip():
    found = from_item(foreign())
    assert found.reference_time == datetime(2020, 1, 24, 13, 51, 10, tzinfo=UTC)
    assert found.secondary_time == datetime(2020, 1, 30, 13, 51, 56, tzinfo=UTC)
    assert (found.phase_sign, found.perpendicular_baseline) == (-1, -42.0)
    assert found.track == "D071"
    assert found.wavelength == pytest.approx(SPEED_OF_LIGHT / 5.405e9)
    assert found.crs == "EPSG:4326"
    assert found.shape == (10, 20)
    assert found.transform == (0.001, 0, -118.0, 0, -0.001, 34.0)
    assert found.heading == pytest.approx(-168.5)
    assert set(found.assets) == {"unwrapped_phase"}
    assert found.assets["unwrapped_phase"].nodata == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sat:relative_orbit": None}, "'gunw' lacks sat:relative_orbit$"),
        ({"insar:reference_datetime": None}, "'gunw' lacks insar:reference_datetime$"),
        ({"proj:epsg": None}, "'gunw' lacks proj:code$"),
        ({"sar:center_frequency": None}, "'gunw' lacks sar:center_frequency$"),
        ({"sat:orbit_state": "geostationary"}, "sat:orbit_state='geostationary'"),
        ({"insar:reference_datetime": "soon"}, "'soon' where a date and time must be"),
        ({"insar:secondary_datetime": "2020-01-30T13:51:56Z"}, "must be before"),
    ],
)
def test_foreign_item_that_lacks_something(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_item(foreign(**changes))


def test_foreign_item_in_metres_or_without_phase():
    item = foreign()
    item.assets["unw.20200130"].extra_fields["unit"] = "m"
    with pytest.raises(ValueError, match=r"'gunw' has unwrapped phase in unit='m'"):
        from_item(item)
    del item.assets["unw.20200130"]
    with pytest.raises(ValueError, match=r"no asset with the role .*\['thumbnail'\]"):
        from_item(item)


def test_local_paths_become_links_that_no_server_resolves():
    item = to_item(record(folder="/data/a b/100%20"))
    href = item.assets["coherence"].href
    assert href == "file:///data/a%20b/100%2520/0_coherence.tif"
    item.set_self_href("http://127.0.0.1/collections/c/items/i")
    assert from_item(item) == record(folder="/data/a b/100%20")
    remote = record(folder="s3://bucket/x")
    assert from_item(to_item(remote)) == remote


# --- files ---


def test_item_list_round_trip(tmp_path):
    path = write_items(RECORDS, tmp_path / "new" / "items.json")
    assert read_items(path) == RECORDS
    assert search(path) == RECORDS
    assert [p.name for p in path.parent.iterdir()] == ["items.json"]
    with pytest.raises(ValueError, match="must be an item list"):
        read_items(write_catalog(RECORDS, tmp_path / "catalog"))


def test_catalog_can_be_moved_with_its_rasters(tmp_path):
    here = tmp_path / "here 100%20"
    records = [record(i, folder=str(here / "rasters")) for i in range(3)]
    (here / "rasters").mkdir(parents=True)
    path = write_catalog(records, here / "stac")
    assert search(path) == search(here / "stac") == records
    shutil.move(here, tmp_path / "there")
    moved = search(tmp_path / "there" / "stac" / "catalog.json")
    href = moved[0].assets["coherence"].href
    assert href == str(tmp_path / "there" / "rasters" / "0_coherence.tif")
    far = search(write_catalog(RECORDS, tmp_path / "a" / "b" / "c.json"))
    assert far[0].assets["coherence"].href == "/data/0_coherence.tif"


def test_catalog_is_valid_stac_and_rewriting_leaves_nothing_behind(tmp_path):
    path = write_catalog(RECORDS, tmp_path)
    root = pystac.Collection.from_file(str(path))
    assert len(list(root.get_items())) == len(RECORDS)
    assert root.extent.temporal.intervals[0][0] == RECORDS[0].reference_time
    (tmp_path / "items" / "mine.json").write_text("not ours to remove")
    write_catalog(RECORDS[:2], tmp_path)
    assert search(path) == RECORDS[:2]
    (tmp_path / "items" / "mine.json").unlink()
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*"))
    assert files == ["catalog.json", "items/pair000.json", "items/pair001.json"]


def test_failed_write_leaves_the_old_catalog(tmp_path, monkeypatch):
    path = write_catalog(RECORDS[:2], tmp_path)
    real = Path.replace

    def fail(self, target):
        if Path(target).name == "pair003.json":
            raise OSError("disk full")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_catalog(RECORDS, tmp_path)
    monkeypatch.undo()
    assert search(path) == RECORDS[:2]
    assert not list(tmp_path.rglob("*.part"))


def test_catalog_refuses_nothing_and_repeated_ids(tmp_path):
    with pytest.raises(ValueError, match="interferograms is empty"):
        write_catalog([], tmp_path)
    with pytest.raises(ValueError, match=r"ids \['pair000'\] more than once"):
        write_catalog([RECORDS[0], RECORDS[0]], tmp_path)


# --- search ---

SEARCHES = [
    ({}, list(range(8))),
    ({"filters": ["insar:perpendicular_baseline<0"]}, [0, 1, 2, 3]),
    ({"filters": ["insar:perpendicular_baseline>=-20.5"]}, [1, 2, 3, 4, 5, 6, 7]),
    ({"filters": ["insar:temporal_baseline<=12"]}, [0, 3, 6]),
    (
        {"filters": ["insar:temporal_baseline!=12", "insar:temporal_baseline<30"]},
        [1, 4, 7],
    ),
    ({"filters": ["sat:orbit_state=ascending"]}, list(range(8))),
    ({"orbit": "A005"}, list(range(8))),
    ({"orbit": 5}, list(range(8))),
    ({"orbit": "D005"}, []),
    ({"orbit": 6}, []),
    ({"collections": ["interferograms"]}, list(range(8))),
    ({"collections": ["others"]}, []),
    ({"datetime": "2018-01-10"}, [0]),
    ({"datetime": "2018-01-18"}, [0, 1]),
    ({"datetime": "2018-01-19/2018-01-20"}, [1]),
    ({"datetime": "2018-03-20/.."}, [5, 6, 7]),
    ({"datetime": "../2018-01"}, [0, 1, 2]),
    ({"datetime": "2017"}, []),
    ({"bbox": [-118.085, 34.3, -118.05, 34.32]}, [0]),
    ({"bbox": [10, 34, 11, 35]}, []),
    (
        {
            "orbit": "A005",
            "datetime": "2018-01/2018-02",
            "filters": ["insar:temporal_baseline<48", "insar:temporal_baseline>12"],
        },
        [1, 2, 4],
    ),
]


@pytest.mark.parametrize(("options", "expected"), SEARCHES)
def test_search_of_a_static_catalog(tmp_path, options, expected):
    path = write_catalog(RECORDS, tmp_path)
    assert search(path, **options) == [RECORDS[i] for i in expected]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"filters": ["insar:temporal_baseline"]}, "must be a property, one of"),
        ({"filters": ["insar:temporal_baseline<soon"]}, "must compare with a number"),
        ({"datetime": "yesterday"}, "datetime='yesterday' must be a date"),
        ({"datetime": "2019/2018"}, "ends before it starts"),
        ({"bbox": [1, 2, 3]}, r"bbox=\(1, 2, 3\) must be west < east"),
        ({"bbox": [3, 2, 1, 4]}, "must be west < east"),
        ({"bbox": [1, 4, 3, 2]}, "must be west < east"),
        ({"bbox": [200, 0, 190, 1]}, "must be west < east"),
        ({"bbox": [1, 2, math.nan, 4]}, "must be west < east"),
        ({"bbox": "1,2,3,4"}, "must be west < east"),
        ({"bbox": ["1", 2, 3, 4]}, "must be west < east"),
        ({"orbit": "X5"}, "orbit='X5' must be a track"),
    ],
)
def test_bad_conditions(tmp_path, options, sentence):
    path = write_items(RECORDS[:1], tmp_path / "items.json")
    with pytest.raises(ValueError, match=sentence):
        search(path, **options)


def test_bad_sources(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.json cannot be read"):
        search(tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match=r"catalog\.json"):
        search(tmp_path)
    other = tmp_path / "other.json"
    other.write_text("not json")
    with pytest.raises(ValueError, match="is not STAC: it is not JSON"):
        search(other)
    other.write_text('{"type": "Recipe"}')
    with pytest.raises(ValueError, match="is not STAC: its type is 'Recipe'"):
        search(other)
    other.write_text('{"type": "FeatureCollection", "features": [{"id": 1}]}')
    with pytest.raises(ValueError, match="cannot be read"):
        search(other)
    with pytest.raises(ValueError, match=r"127\.0\.0\.1.* cannot be read"):
        search(f"http://127.0.0.1:{free_port()}")
    path = write_catalog(RECORDS[:2], tmp_path / "cut")
    (path.parent / "items" / "pair001.json").unlink()
    with pytest.raises(ValueError, match=r"pair001\.json"):
        search(path)


@pytest.mark.skipif(not MEXICO.is_dir(), reason=f"real data not found: {MEXICO}")
def test_real_stack_through_a_catalog(tmp_path):
    pattern = "{reference}-{secondary}_VV_8rlks_eqa_unw.tif"
    stack = read_raster_stack(
        MEXICO, pattern=f"unw/cropA_{pattern}", baselines="pairs.csv", track="A005"
    )
    path = write_catalog(stack, tmp_path)
    assert resolve(search(path)) == stack
    short = search(path, filters=["insar:temporal_baseline<=24"], orbit="A005")
    assert 0 < len(short) < 30
    assert all((r.secondary_time - r.reference_time).days <= 24 for r in short)
    assert len(search(path, bbox=[-99.1, 19.4, -99.0, 19.5])) == 30


@pytest.mark.parametrize("name", ["a b", "a%20b", "ü", "a#b", "a?b", "a&b;c", "a[1]*"])
def test_names_of_folders_with_odd_characters(name, tmp_path):
    """Those of rasters may have any; that of a catalog cannot have two."""
    wanted = record(folder=str(tmp_path / name))
    assert search(write_items([wanted], tmp_path / name / "items.json")) == [wanted]
    assert search(write_catalog([wanted], tmp_path / "catalog.json")) == [wanted]
    if set(name) & {"#", "?"}:
        with pytest.raises(ValueError, match="must have no '#' or '\\?' in it"):
            write_catalog([wanted], tmp_path / name)
    else:
        assert search(write_catalog([wanted], tmp_path / name)) == [wanted]


ACROSS = {"crs": "EPSG:32601", "shape": (2500, 3125)} | {
    "transform": (80.0, 0.0, 200_000.0, 0.0, -80.0, 5_700_000.0)
}
"""A raster from 178.7 E to 177.7 W."""


@pytest.mark.parametrize(
    ("west", "east", "there"),
    [
        (178.9, 179.3, True),
        (179.2, 179.9, True),
        (-179.9, -179.0, True),
        (179.5, -179.5, True),
        (179.5, 180.5, True),
        (-181.0, -180.5, True),
        (178.0, 178.5, False),
        (-177.5, -170.0, False),
        (10.0, 11.0, False),
        (-170.0, 170.0, False),
        (-180.0, 180.0, True),
    ],
)
def test_a_frame_across_the_antimeridian(west, east, there, tmp_path):
    path = write_items([record(0, **ACROSS), record(1)], tmp_path / "items.json")
    found = search(path, bbox=[west, 50.0, east, 51.0])
    assert [r.id for r in found] == ["pair000"] * there
    assert not search(path, bbox=[west, 10.0, east, 20.0])


def test_outlines_across_the_antimeridian(tmp_path):
    item = to_item(record(0, **ACROSS))
    west, south, east, north = item.bbox
    assert (west, east) == pytest.approx((178.689, -177.692), abs=1e-3)
    area = shape(item.geometry)
    assert area.is_valid and area.geom_type == "MultiPolygon"
    assert area.bounds == pytest.approx((-180, south, 180, north))
    to_degrees = Transformer.from_crs("EPSG:32601", "EPSG:4326", always_xy=True)
    for x, y in ((210e3, 5.6e6), (300e3, 5.55e6), (440e3, 5.65e6)):
        assert area.contains(Point(*to_degrees.transform(x, y)))
    for x, y in ((190e3, 5.6e6), (300e3, 5.49e6), (460e3, 5.65e6)):
        assert not area.contains(Point(*to_degrees.transform(x, y)))
    assert from_item(item) == record(0, **ACROSS)
    both = [record(0, **ACROSS), record(1, **ACROSS)]
    for records, limits in (
        (both, (west, east)),
        ([both[0], record(1)], (-180, 180)),
    ):
        path = write_catalog(records, tmp_path)
        ((left, _, right, _),) = json.loads(path.read_text())["extent"]["spatial"][
            "bbox"
        ]
        assert (left, right) == limits


def test_memory_of_an_item_list_does_not_grow_with_it(tmp_path):
    peaks = []
    for count in (50, 400):
        records = (record(k % 20, id=f"{k}") for k in range(count))
        tracemalloc.start()
        path = write_items(records, tmp_path / "items.json")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert [r.id for r in read_items(path)] == [str(k) for k in range(count)]
    assert peaks[1] < 2 * peaks[0]


# --- resolve ---


def test_resolve_sorts_and_keeps_one_per_pair():
    again = replace(RECORDS[1], id="pair001_v2")
    with pytest.warns(UserWarning, match=r"found 2 times: kept 'pair001_v2'"):
        kept = resolve([again, *reversed(RECORDS)])
    assert kept == [RECORDS[0], again, *RECORDS[2:]]
    assert resolve([]) == []


def test_resolve_keeps_versions_of_one_place_alone():
    """An extent may change a little when a product is made again."""
    first = RECORDS[1]
    a, b, left, *rest = first.transform
    for columns, refused in ((20, False), (24, False), (26, True), (60, True)):
        other = replace(first, id="other", transform=(a, b, left + 80 * columns, *rest))
        if refused:
            with pytest.raises(ValueError, match="found in two frames, which overlap"):
                resolve([first, other])
        else:
            with pytest.warns(UserWarning, match="found 2 times"):
                resolve([first, other])


def test_resolve_refuses_mixed_tracks():
    with pytest.raises(ValueError, match=r"tracks \['A005', 'D012'\]"):
        resolve([RECORDS[0], record(1, track="D012")])


# --- APIs ---


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def rustac(tmp_path_factory):
    """A real STAC API, without the query and filter extensions."""
    folder = tmp_path_factory.mktemp("api")
    executable = Path(sys.executable).with_name("rustac")
    if not executable.exists():
        pytest.skip("the rustac server is not installed")
    # more than one page, of a track of its own
    many = [record(i, id=f"many{i:03d}", track="D012") for i in range(230)]
    collection = write_catalog(RECORDS, folder / "static")
    root = json.loads(collection.read_text()) | {"links": []}
    collection.write_text(json.dumps(root))
    items = folder / "items.json"
    data = json.loads(write_items(RECORDS + many, items).read_text())
    for feature in data["features"]:
        feature["collection"] = "interferograms"
    items.write_text(json.dumps(data))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [executable, "serve", "-a", address, str(collection), str(items)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://{address}", timeout=1).read()
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    time.sleep(0.05)
            yield f"http://{address}"
        finally:
            server.terminate()
            server.wait(10)


def ids(records):
    return sorted(r.id for r in records)


@pytest.mark.parametrize(("options", "expected"), SEARCHES)
@pytest.mark.filterwarnings("ignore:.*cannot filter by properties:UserWarning")
def test_search_of_a_real_api(rustac, options, expected):
    options = {"filters": []} | options
    options["filters"] = [*options["filters"], "sat:relative_orbit=5"]
    found = search(rustac, **options)
    assert ids(found) == ids(RECORDS[i] for i in expected)
    assert all(r in RECORDS for r in found)


def test_api_without_filter_is_filtered_here_and_says_so(rustac):
    with pytest.warns(UserWarning, match="cannot filter by properties"):
        found = search(rustac, orbit="A005")
    assert ids(found) == ids(RECORDS)


def test_all_pages_of_a_real_api(rustac):
    assert len(search(rustac)) == 238


def test_collection_of_an_api_is_told_apart_from_a_catalog(rustac):
    with pytest.raises(ValueError, match="give the address of the API"):
        search(f"{rustac}/collections/interferograms")
    with pytest.raises(ValueError, match=r"one page of a STAC API"):
        search(f"{rustac}/collections/interferograms/items?limit=5")


@contextmanager
def stub_api(conformance):
    """An API that notes what it is asked and repeats items across its two pages."""
    asked = []
    features = [to_item(r).to_dict() for r in RECORDS]
    for feature in features:
        feature["links"] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, data):
            text = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self):
            root = {"type": "Catalog", "id": "stub", "stac_version": "1.0.0"}
            self_link = {"rel": "self", "href": url}
            post = {"rel": "search", "href": f"{url}/search", "method": "POST"}
            links = [self_link, post | {"type": "application/geo+json"}]
            text = {"description": "stub", "conformsTo": conformance, "links": links}
            self.answer(root | text)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            second = body.pop("page", None)
            asked.append(body)
            page = features[3:] if second else features[:5]
            following = {"rel": "next", "href": f"{url}/search", "method": "POST"}
            links = [] if second else [following | {"body": body | {"page": 2}}]
            self.answer({"type": "FeatureCollection", "features": page, "links": links})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield url, asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


CORE = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
]


def test_api_with_query_is_asked_and_not_trusted():
    with stub_api([*CORE, CORE[1] + "#query"]) as (url, asked):
        found = search(url, orbit="A005", filters=["insar:temporal_baseline<=12"])
    assert ids(found) == ["pair000", "pair003", "pair006"]  # repeats are left out
    assert asked[0]["query"] == {
        "sat:relative_orbit": {"eq": 5},
        "sat:orbit_state": {"eq": "ascending"},
        "insar:temporal_baseline": {"lte": 12.0},
    }
    assert 100 <= asked[0]["limit"] <= 500


def test_api_with_filter_is_asked_in_cql2():
    with stub_api([*CORE, CORE[1] + "#filter"]) as (url, asked):
        found = search(url, filters=["insar:temporal_baseline!=12"])
    assert len(found) == 5
    assert asked[0]["filter-lang"] == "cql2-json"
    assert asked[0]["filter"]["args"] == [
        {"op": "<>", "args": [{"property": "insar:temporal_baseline"}, 12.0]}
    ]


def test_catalog_imports_neither_torch_nor_distributed():
    code = (
        "import sys, cube_denoise.catalog; "
        "sys.exit(bool({'torch', 'distributed', 'pystac_client'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
