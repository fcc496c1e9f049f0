"""A real STAC API with query and filter: PostgreSQL, PostGIS, pgstac, on loopback."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from s3_server import free_ports

PATIENCE = 60.0
"""Seconds to wait for the API."""


def programs() -> Path:
    """Folder of PostgreSQL's programs; skips, with the reason, without them."""
    if missing := [
        n for n in ("pypgstac", "stac_fastapi", "uvicorn") if not find_spec(n)
    ]:
        pytest.skip(f"no {', '.join(missing)}: pip install 'cube-denoise[test-cloud]'")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = folders[-1] if folders else shutil.which("initdb")
    if found is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql-15-postgis-3")
    folder = Path(found).parent
    config = [folder / "pg_config", "--sharedir"]
    share = subprocess.run(config, capture_output=True, text=True)
    place = Path(share.stdout.strip() or f"/usr/share/postgresql/{folder.parent.name}")
    if not (place / "extension" / "postgis.control").is_file():
        pytest.skip("no PostGIS: apt-get install postgresql-15-postgis-3")
    return folder


@contextmanager
def running(collection: dict[str, Any], items: list[dict[str, Any]]) -> Iterator[str]:
    """Give the address of an API that holds one collection, and end it."""
    programs_ = programs()
    with ExitStack() as closing:
        folder = Path(tempfile.mkdtemp(prefix="pgstac-"))
        closing.callback(shutil.rmtree, folder, ignore_errors=True)
        as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            as_user = ["runuser", "-u", "postgres", "--"]
        port, api_port = free_ports(2)

        def call(name: str, *options: str, **more: Any) -> None:
            subprocess.run(
                [*as_user, programs_ / name, *options],
                check=True,
                stdout=subprocess.DEVNULL,
                cwd="/",
                **more,
            )

        data = f"{folder}/data"
        call("initdb", "-D", data, "-A", "trust", "-U", "stac", "--no-sync")
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = f"{folder}/log"
        call("pg_ctl", "-D", data, "-w", "-l", log, "-o", settings, "start")
        closing.callback(call, "pg_ctl", "-D", data, "-m", "immediate", "stop")
        call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "stac", "stac")
        reached = {"HOST": "127.0.0.1", "PORT": str(port), "USER": "stac"}
        environment = {
            **os.environ,
            **{f"PG{name}": value for name, value in reached.items()},
            "PGDATABASE": "stac",
            "PGPASSWORD": "none",
        }

        def pgstac(*options: str) -> None:
            tool = Path(sys.executable).with_name("pypgstac")
            subprocess.run(
                [tool, *options], check=True, env=environment, capture_output=True
            )

        pgstac("migrate")
        with tempfile.TemporaryDirectory() as lists:
            for name, things in (("collections", [collection]), ("items", items)):
                path = Path(lists) / name
                path.write_text("\n".join(map(json.dumps, things)))
                pgstac("load", name, str(path), "--method", "upsert")
        api = closing.enter_context(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "uvicorn", "--factory"),
                    "stac_fastapi.pgstac.app:create_app",
                    *("--host", "127.0.0.1", "--port", str(api_port)),
                ],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        closing.callback(api.terminate)
        url = f"http://127.0.0.1:{api_port}"
        wait_for(url, api)
        yield url


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    begin = time.monotonic()
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except OSError:
            assert server.poll() is None, f"{server.args} ended"
            assert time.monotonic() - begin < PATIENCE, f"{url} does not answer"
            time.sleep(0.1)
