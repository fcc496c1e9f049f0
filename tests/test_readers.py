"""Readers poll a cube while it is updated: none ever sees a mixed state."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import s3_server
from frames import frames, job_of, reprocessed

from cube_denoise.pipeline import run
from cube_denoise.update import update

pytestmark = pytest.mark.filterwarnings("ignore:.*(not connected|without data)")

READER = """
import json, sys, threading, time
import numpy as np
from cube_denoise import store
from cube_denoise.invert import invert
from cube_denoise.state import velocity_is_current

url = sys.argv[1]
seen, wrong, polls, refused = set(), [], 0, 0
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
print("reading", flush=True)
while not stop.is_set():
    time.sleep(float(sys.argv[2]))
    try:
        cube = store.open_cube(url).load()
    except store.CubeError:  # a busy server; what counts is what it does give
        refused += 1
        continue
    pairs = cube.sizes["pair"]
    status = cube["correction_status"].values
    told = cube["velocity"].attrs["pairs_inverted"]
    ids = [i["id"] for i in cube.attrs["items"]]
    dates = set(cube["reference_time"].values) | set(cube["secondary_time"].values)
    filled = np.isfinite(cube["corrected_phase"].values).any((1, 2))
    # The velocity is that of the very pairs that are shown.
    known = cube["velocity"].attrs
    rows, columns = (slice(*known["reference_" + n]) for n in ("rows", "columns"))
    again = invert(cube, reference={"y": rows, "x": columns})["velocity"]
    off = float(np.nanmax(np.abs(again.values - cube["velocity"].values)))
    ok = (
        len(ids) == len(set(ids)) == pairs == told == len(status)
        and off < 1e-6
        and (status == 1).all()
        and filled.all()
        and dates == set(cube["time"].values)
        and cube.sizes["time"] == len(cube["displacement"].values)
        and velocity_is_current(cube)
    )
    polls += 1
    seen.add(cube["velocity"].attrs["pair_state"])
    if not ok:
        wrong.append([pairs, told, status.tolist(), off])
print(json.dumps({"polls": polls, "states": len(seen), "wrong": wrong[:5],
                  "refused": refused}), flush=True)
"""


def watch(
    url: str, folder: Path, *, readers: int, updates: int, pause: float = 0.0
) -> None:
    nine = frames(folder / "frames")
    run(job_of(folder, nine[:3], url))
    command = [sys.executable, "-W", "ignore", "-c", READER, url, str(pause)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [
        subprocess.Popen(command, text=True, env=environment, **pipes)
        for _ in range(readers)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "reading\n"
        for turn in range(updates):
            # Pairs come, go and change, round and round.
            current = [nine[(turn + k) % 9] for k in range(4 + turn % 3)]
            current[0] = reprocessed(current[0], folder / str(turn), turn)
            job = job_of(folder, current, url)
            assert update(job, allow_withdrawn=True).changed
        told = []
        for child in children:
            out, _ = child.communicate("stop\n", timeout=120)
            assert child.returncode == 0, out
            told.append(json.loads(out))
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert [t["wrong"] for t in told] == [[]] * readers, told
    assert all(t["polls"] >= 3 for t in told), told
    # They did read while it changed.
    assert sum(t["states"] for t in told) > readers, told
    print("polls", *(sum(t[n] for t in told) for n in ("polls", "refused")))


def test_a_reader_of_a_disk(tmp_path: Path) -> None:
    watch(str(tmp_path / "cube"), tmp_path, readers=1, updates=3, pause=0.1)


@pytest.mark.slow
def test_ten_readers_of_a_disk(tmp_path: Path) -> None:
    watch(str(tmp_path / "cube"), tmp_path, readers=10, updates=20)


@pytest.mark.slow
def test_ten_readers_of_a_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server.running(tmp_path) as server:
        server.use(monkeypatch)
        url = f"s3://{s3_server.BUCKET}/watched"
        watch(url, tmp_path, readers=10, updates=20, pause=0.5)
