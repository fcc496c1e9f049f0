"""The whole job with the catalog in a STAC API, rasters and cube in a bucket.

`make test-cloud` runs the slow one: the demo's own region, and a pgstac API.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pgstac_server
import pytest
import s3_server
import xarray as xr
from distributed import LocalCluster
from s3_server import BUCKET, Server

from cube_denoise import pipeline, store
from cube_denoise.catalog import search, to_item, write_catalog
from cube_denoise.demo import demo
from cube_denoise.products import find_products

COLLECTION = "interferograms"
TOLERANCE = 1e-6
"""Of displacement (m), velocity (m/yr) and phase (rad)."""


@pytest.fixture(scope="module")
def s3(s3_of_all: Server) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        s3_of_all.use(patch)
        yield s3_of_all


@pytest.fixture(scope="module")
def two_processes(s3: Server) -> Iterator[str]:
    """Address of a cluster of two processes, which inherit the environment."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


def in_bucket(
    products: Path, place: str, folder: Path, *, count: int | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Upload products; collection and items of some, with the links of the bucket."""
    s3_server.upload(products, place)
    records = find_products(products)[0][:count]
    root = json.loads(write_catalog(records, folder, collection=COLLECTION).read_text())
    text = json.dumps(
        [to_item(r).to_dict() | {"collection": COLLECTION} for r in records]
    )
    text = text.replace(products.resolve().as_uri(), place)
    assert "file://" not in text
    items = [item | {"links": []} for item in json.loads(text)]
    return root | {"links": []}, items


@contextmanager
def rustac(
    collection: dict[str, Any], items: list[dict[str, Any]], folder: Path
) -> Iterator[str]:
    """A light STAC API, which can neither query nor filter."""
    executable = Path(sys.executable).with_name("rustac")
    if not executable.exists():
        pytest.skip("the rustac server is not installed")
    paths = [folder / "served.json", folder / "served-items.json"]
    features = {"type": "FeatureCollection", "features": items}
    for path, content in zip(paths, (collection, features), strict=True):
        path.write_text(json.dumps(content))
    address = f"127.0.0.1:{s3_server.free_ports(1)[0]}"
    server = subprocess.Popen(
        [executable, "serve", "-a", address, *paths],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        pgstac_server.wait_for(f"http://{address}", server)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(10)


def assert_same(there: xr.Dataset, here: xr.Dataset) -> None:
    assert set(there.variables) == set(here.variables)
    names = {"unwrapped_phase", "corrected_phase", "displacement", "velocity"}
    assert names <= set(here.variables)
    for name in here.data_vars:
        np.testing.assert_allclose(
            there[name].values, here[name].values, rtol=0, atol=TOLERANCE, err_msg=name
        )
    for name in ("reference_time", "secondary_time", "time"):
        np.testing.assert_array_equal(there[name], here[name])
    assert [i["key"] for i in there.attrs["items"]] == [
        i["key"] for i in here.attrs["items"]
    ]


@pytest.mark.filterwarnings("ignore:.*cannot filter by properties:UserWarning")
def test_a_job_in_the_cloud_equals_the_local_one(
    s3: Server, product_folder: Path, plain_model: Path, tmp_path: Path
) -> None:
    method = {"method": str(plain_model), "precision": "float32"}
    write_catalog(find_products(product_folder)[0][:4], tmp_path / "local")
    here, there = tmp_path / "cube", f"s3://{BUCKET}/light/cube"
    pipeline.run(
        {
            "source": str(tmp_path / "local"),
            "cube": str(here),
            "correct": method,
            "cluster": "threads",
        }
    )
    place = f"s3://{BUCKET}/light/products"
    held = in_bucket(product_folder, place, tmp_path / "c", count=4)
    with rustac(*held, tmp_path) as api:
        report = pipeline.run(
            {
                "source": api,
                "search": {"orbit": "A005", "collections": [COLLECTION]},
                "cube": there,
                "correct": method,
                "cluster": "threads",
            }
        )
    assert (report.ingest.added, report.ingest.failed) == (4, {})
    assert_same(store.open_cube(there), store.open_cube(here))


@pytest.mark.slow
def test_the_demo_in_the_cloud_equals_the_local_one(
    two_processes: str, tmp_path: Path
) -> None:
    """With the network, the region and the number of pairs of `cube-denoise demo`."""
    demo(tmp_path / "demo")
    place = f"s3://{BUCKET}/demo"
    collection, items = in_bucket(
        tmp_path / "demo" / "products", f"{place}/products", tmp_path / "c"
    )
    with pgstac_server.running(collection, items) as api:
        report = pipeline.run(
            {
                "source": api,
                "search": {"collections": [COLLECTION]},
                "cube": f"{place}/cube",
                "correct": {"method": "dncnn-dilated"},
                "cluster": two_processes,
            }
        )
    here = store.open_cube(tmp_path / "demo" / "cube")
    assert report.ingest.added == here.sizes["pair"] > 40
    assert report.ingest.failed == {}
    assert_same(store.open_cube(f"{place}/cube"), here)


SEARCHES = (
    {"orbit": "A005"},
    {"orbit": 6},
    {"filters": ["insar:temporal_baseline<=12"]},
    {"filters": ["insar:temporal_baseline>12", "sat:relative_orbit=5"]},
    {"filters": ["sat:orbit_state=descending"]},
    {"datetime": "2023-01-10/2023-01-20"},
    {"bbox": [-180.0, -80.0, 180.0, 80.0], "orbit": "A005"},
    {"bbox": [0.0, 0.0, 1.0, 1.0]},
)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["query", "filter"])
def test_pgstac_filters_as_we_do(
    product_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    language: str,
) -> None:
    """The server narrows by query or CQL2; what is found is what we find here."""
    from cube_denoise import stac_source

    records = find_products(product_folder)[0]
    catalog = write_catalog(records, tmp_path, collection=COLLECTION)
    root = json.loads(catalog.read_text()) | {"links": []}
    items = [
        to_item(r).to_dict() | {"collection": COLLECTION, "links": []} for r in records
    ]
    if language == "filter":  # as of a server without the query extension
        read = stac_source.read_source

        def without_query(source: Any) -> Any:
            data, href = read(source)
            classes = [c for c in data.get("conformsTo", ()) if "#query" not in c]
            return data | {"conformsTo": classes}, href

        monkeypatch.setattr(stac_source, "read_source", without_query)
    with pgstac_server.running(root, items) as api:
        asked: list[dict[str, Any]] = []
        from pystac_client import Client

        plain = Client.search
        monkeypatch.setattr(
            Client, "search", lambda self, **k: asked.append(k) or plain(self, **k)
        )
        for options in SEARCHES:
            found = {r.id for r in search(api, **options)}
            assert found == {r.id for r in search(catalog, **options)}, options
        narrowed = [k for k in asked if language in k]
        assert len(narrowed) == sum(
            bool({"orbit", "filters"} & set(o)) for o in SEARCHES
        )
        assert {r.id for r in search(api)} == {r.id for r in records}
