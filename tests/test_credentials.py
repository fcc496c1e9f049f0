"""After a run, no secret is anywhere but in the environment."""

import io
import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import icechunk
import pytest
import s3_server
import zarr
from s3_server import BUCKET, Server

from cube_denoise import pipeline, store
from cube_denoise.catalog import search, to_item, write_items
from cube_denoise.cluster import Workers
from cube_denoise.export import export_geotiff
from cube_denoise.products import find_products
from cube_denoise.summary import summarise

KEY, SECRET = "KEYMARKERKEYMARKER42", "SECRETMARKER0123456789abcdefSECRETMARKER"
TOKEN = "TOKENMARKER.0123456789"
CUBE = f"s3://{BUCKET}/cube"


class Trail:
    """Everything a run left, by where it was found."""

    def __init__(self) -> None:
        self.found: dict[str, bytes] = {}

    def keep(self, where: str, what: Any) -> None:
        text = what if isinstance(what, bytes) else str(what).encode()
        assert text, where
        self.found[f"{len(self.found)} {where}"] = text

    def of(self, kind: str) -> list[bytes]:
        return [text for where, text in self.found.items() if kind in where]

    def holding(self, *secrets: str) -> list[str]:
        return [
            where
            for where, text in self.found.items()
            if any(secret.encode() in text for secret in secrets)
        ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("s3")
    with s3_server.running(folder, key=KEY, secret=SECRET) as server:
        yield server


@pytest.fixture(scope="module")
def trail(
    server: Server,
    product_folder: Path,
    plain_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Trail]:
    """What a whole job leaves, with rasters, cube and exports in a bucket."""
    folder = tmp_path_factory.mktemp("run")
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    with pytest.MonkeyPatch.context() as patch:
        server.use(patch)
        patch.setenv("EARTHDATA_TOKEN", TOKEN)
        trail = Trail()
        _record_tasks(patch, trail)
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            _run(product_folder, plain_model, folder, trail)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
        trail.keep("log", log.getvalue())
        _look(folder, trail)
        yield trail


def _record_tasks(patch: pytest.MonkeyPatch, trail: Trail) -> None:
    """Pickle what goes to workers and what comes back, as Dask would."""
    submit = Workers._submit

    def recording(self: Workers, function: Any, task: Any) -> Any:
        trail.keep("graph", cloudpickle.dumps((function, task)))
        future = submit(self, function, task)
        future.add_done_callback(
            lambda done: trail.keep("result", cloudpickle.dumps(done.result()))
        )
        return future

    patch.setattr(Workers, "_submit", recording)


def _run(products: Path, model: Path, folder: Path, trail: Trail) -> None:
    place = f"s3://{BUCKET}/products"
    s3_server.upload(products, place)
    items = json.dumps(
        {
            "type": "FeatureCollection",
            "features": [to_item(r).to_dict() for r in find_products(products)[0][:5]],
        }
    ).replace(products.resolve().as_uri(), place)
    s3_server.put(place, "items.json", items.encode())
    job = {
        "source": f"{place}/items.json",
        "cube": CUBE,
        "correct": {"method": str(model), "precision": "float32"},
        "cluster": "threads",
    }
    report = pipeline.run(job)
    trail.keep("report", report)
    trail.keep("records", pickle.dumps(search(f"{place}/items.json")))
    write_items(search(f"{place}/items.json"), folder / "items.json")
    opened = store.open_cube(CUBE, chunks={})
    trail.keep("graph", cloudpickle.dumps(opened["velocity"].__dask_graph__()))
    store.export_zarr(opened, f"s3://{BUCKET}/out/plain.zarr")
    store.export_zarr(opened, folder / "plain.zarr")
    export_geotiff(opened, f"s3://{BUCKET}/out/maps")


def _look(folder: Path, trail: Trail) -> None:
    repository = store.open_repository(CUBE)
    for branch in repository.list_branches():
        for commit in repository.ancestry(branch=branch):
            trail.keep("commit", f"{commit.message} {commit.metadata}")
    root = zarr.open_group(repository.readonly_session("main").store, mode="r")
    trail.keep("attributes", dict(root.attrs))
    for name, array in root.arrays():
        trail.keep(f"attributes of {name}", dict(array.attrs) | {"name": name})
    trail.keep("summary", summarise(CUBE))
    trail.keep("history", store.history(CUBE))
    for name, content in s3_server.objects(f"s3://{BUCKET}").items():
        trail.keep(f"object {name}", content or b"-")
    for path in folder.rglob("*"):
        if path.is_file():
            trail.keep(f"file {path}", path.read_bytes() or b"-")


def test_the_trail_is_complete(trail: Trail) -> None:
    """A grep that finds nothing means something only where there is something."""
    assert len(trail.of("graph")) > 10
    assert len(trail.of("result")) > 10
    assert len(trail.of("commit")) > 4
    assert len(trail.of("attributes of")) > 8
    assert len(trail.of("object cube/")) > 20
    assert len(trail.of("object out/")) > 10
    assert any(b"products/" in text for text in trail.of("graph"))
    (log,) = trail.of("log")
    for part in (b"pairs", b"rasterio", b"Entering env context"):
        assert part in log, part


def test_no_secret_is_left(trail: Trail) -> None:
    assert trail.holding(SECRET, KEY, TOKEN) == []


def test_a_secret_would_be_found(server_repository: bytes) -> None:
    """Given outright, credentials travel in the pickles of a session."""
    telling = Trail()
    telling.keep("graph", server_repository)
    assert telling.holding(SECRET)


@pytest.fixture
def server_repository(server: Server) -> bytes:
    """A forked session of a client that is given its keys as arguments."""
    outright = icechunk.s3_storage(
        bucket=BUCKET,
        prefix="outright",
        access_key_id=KEY,
        secret_access_key=SECRET,
        endpoint_url=server.endpoint,
        region="us-east-1",
        allow_http=True,
        force_path_style=True,
    )
    repository = icechunk.Repository.create(outright)
    return cloudpickle.dumps(repository.writable_session("main").fork())
