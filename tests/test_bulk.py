"""Many frames as independent jobs: none lost, none twice, whatever dies."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
import s3_server
import yaml
from bulk_plans import SHARED, alone, assert_same_cube, plan_of, published, sources
from command_line import call, mistake
from frames import reprocessed
from hdf5_stacks import NORTH, write_cumulative

from cube_denoise import archive, bulk, frame_status, processes, store
from cube_denoise.archive import cube_place
from cube_denoise.bulk import run_plan
from cube_denoise.bulk_plan import Plan, read_plan
from cube_denoise.bulk_status import bulk_status, plan_frames
from cube_denoise.catalog import read_items, search, write_items
from cube_denoise.cluster import Workers
from cube_denoise.dry_run import DryRun, plan_job
from cube_denoise.frame_status import Claim, FrameStatus, claim, read_status
from cube_denoise.job import read_job
from cube_denoise.json_objects import JsonObjects, ObjectChangedError
from cube_denoise.processes import Process

Entries = list[dict[str, Any]]


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    """Six frames. Not to be changed."""
    return sources(tmp_path_factory.mktemp("six"), 6)


# --- workers that die ------------------------------------------------------------


@contextmanager
def killing(plan: Plan, times: int, *, seed: int) -> Iterator[list[int]]:
    """SIGKILL workers that are at a frame, at random moments; their numbers."""
    killed: list[int] = []
    over, draw = threading.Event(), random.Random(seed)
    objects = JsonObjects(plan.archive)
    after = sorted(draw.randrange(plan.count - 2) for _ in range(times))
    """So many frames are done before each."""

    def kill() -> None:
        while len(killed) < times and not over.is_set():
            told = [read_status(objects, f.name) for f in plan.frames()]
            done = [s.seconds for s in told if s.state == "done"]
            running = [s for s in told if s.state == "running" and not s.is_dead()]
            if running and len(done) >= after[len(killed)]:
                over.wait(draw.uniform(0, 1.5 * sum(done) / len(done) if done else 2))
                worker = draw.choice(running).worker
                assert worker is not None
                if not worker.is_gone():
                    os.kill(worker.pid, signal.SIGKILL)
                    killed.append(worker.pid)
            over.wait(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("cluster", "count", "kills"),
    [
        ("processes", 4, 1),
        pytest.param("processes", 60, 15, marks=pytest.mark.slow),
        pytest.param("dask", 60, 15, marks=pytest.mark.slow),
    ],
)
def test_workers_killed_at_random(
    cluster: str, count: int, kills: int, six: Entries, tmp_path: Path
) -> None:
    """Every frame is that of a run alone, and was published once."""
    entries = six if count == 6 else sources(tmp_path / "sources", count)
    plan = plan_of(tmp_path, entries, cluster=cluster)
    with killing(plan, kills, seed=count) as killed:
        report = run_plan(plan)
    assert len(killed) >= kills - 1
    assert (report.done + report.already, report.failed) == (count, {})
    for entry in entries:
        url = cube_place(plan.archive, entry["name"])
        assert published(plan, entry["name"]) == 1
        assert set(store.open_repository(url).list_branches()) == {"main"}
        assert_same_cube(url, alone(entry))
    names = [e["name"] for e in entries]
    assert [f.name for f in archive.frames(plan.archive)] == names
    objects = JsonObjects(plan.archive)
    attempts = [read_status(objects, name).attempts for name in names]
    assert count < sum(attempts) <= count + len(killed)
    again = run_plan(plan_of(tmp_path, entries))
    assert (again.done, again.already) == (0, count)


CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
from cube_denoise.bulk import run_plan
from cube_denoise.bulk_plan import read_plan
if __name__ == "__main__":
    run_plan(read_plan(sys.argv[2]))
"""


@pytest.mark.slow
def test_two_clients_and_one_is_killed(six: Entries, tmp_path: Path) -> None:
    told = {"archive": "archive", "frames": six, "workers": 1, **SHARED}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(told))
    plan, script = read_plan(path), tmp_path / "client.py"
    script.write_text(CLIENT)
    command = [sys.executable, "-W", "ignore", str(script), str(Path(__file__).parent)]
    clients = [subprocess.Popen([*command, str(path)]) for _ in range(2)]
    try:
        while bulk_status(plan).counts["done"] < 2:
            assert all(c.poll() is None for c in clients)
            time.sleep(0.1)
        clients[0].kill()
        assert clients[1].wait(timeout=300) == 0
    finally:
        for client in clients:
            client.kill()
            client.wait()
    assert bulk_status(plan).counts["done"] == len(six)
    for entry in six:
        assert published(plan, entry["name"]) == 1


def test_a_frame_that_kills_its_workers_fails(
    six: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_status, "MOST_DEATHS", 2)
    url = str(tmp_path / "archive")
    for deaths in range(3):
        got = claim(url, "deadly", job="x")
        assert isinstance(got, Claim)
        assert (got.status.attempts, got.status.deaths) == (deaths + 1, deaths)
        gone = Process(processes.host(), 2**22 + 1, 1)
        got._tell(worker=gone)  # as if that had claimed it, and died
    last = claim(url, "deadly", job="x")
    assert isinstance(last, FrameStatus) and last.state == "failed"
    assert "died 3 times" in last.reason
    anew = claim(url, "deadly", job="x")  # the user tries again
    assert isinstance(anew, Claim) and anew.status.deaths == 0


@pytest.mark.slow
def test_an_interrupted_run_goes_on(
    six: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames under way in threads end soon, and nothing looks as if it ran."""
    plan = plan_of(tmp_path, six[:3])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bulk._Run, "_take", interrupt)
        run_plan(plan)
    told = bulk_status(plan)
    assert told.counts["running"] == 0 and told.counts["waiting"] >= 1
    report = run_plan(plan)
    assert (report.done + report.already, report.failed) == (3, {})
    assert [published(plan, e["name"]) for e in six[:3]] == [1] * 3


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_in_a_bucket(
    six: Entries,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3_of_all: s3_server.Server,
) -> None:
    s3_of_all.use(monkeypatch)
    place = f"s3://{s3_server.BUCKET}/{tmp_path.name}/archive"
    lost = {"name": "lost", "source": str(tmp_path / "none.json")}
    plan = plan_of(tmp_path, [*six[:2], lost], archive=place)
    archive.make(place)
    held = claim(place, six[0]["name"], job="x")
    assert isinstance(held, Claim)
    gone = Process(processes.host(), 2**22 + 1, 1)
    held._tell(worker=gone)
    report = run_plan(plan)
    assert (report.done, list(report.failed)) == (2, ["lost"])
    assert not held.lost
    with pytest.raises(ObjectChangedError):
        held.end("done")
    told = bulk_status(plan)
    assert told.counts == {"done": 2, "running": 0, "failed": 1, "waiting": 0}
    for entry, frame in zip(six, archive.frames(place), strict=False):
        assert (frame.name, frame.url) == (
            entry["name"],
            f"{place}/cubes/{entry['name']}",
        )
        assert published(plan, frame.name) == 1
        assert_same_cube(frame.url, alone(entry))
    assert run_plan(plan).already == 2


# --- claims ----------------------------------------------------------------------


def test_frames_of_a_silent_host_are_waited_for_and_taken(
    six: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "LEASE", 0.3)
    monkeypatch.setattr(bulk, "BEAT", 0.1)
    plan = plan_of(tmp_path, six[:1])
    archive.make(plan.archive)
    held = claim(plan.archive, six[0]["name"], job="x")
    assert isinstance(held, Claim)
    held._tell(worker=Process("elsewhere", 1, 1))
    report = run_plan(plan)
    assert (report.done, report.failed) == (1, {})
    assert published(plan, six[0]["name"]) == 1


def test_frames_of_a_living_host_are_left_to_it_and_seen_to_end(
    six: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives signs for longer than a lease; what it has done is seen soon."""
    monkeypatch.setattr(bulk, "LEASE", 1.0)
    monkeypatch.setattr(bulk, "BEAT", 0.1)
    plan = plan_of(tmp_path, six[:1])
    (frame,) = plan.frames()
    archive.make(plan.archive)
    held = claim(plan.archive, frame.name, job=frame.fingerprint)
    assert isinstance(held, Claim)
    held._tell(worker=Process("elsewhere", 1, 1))

    def work() -> None:
        for beat in range(20):
            time.sleep(0.15)
            held._tell(beat=beat + 1)
        monkeypatch.setattr(bulk, "LEASE", 1000.0)
        held.end("done")

    worker = threading.Thread(target=work)
    worker.start()
    begin = time.monotonic()
    report = run_plan(plan)
    worker.join()
    assert not held.lost and (report.done, report.already) == (0, 1)
    assert 3 <= time.monotonic() - begin < 30


# --- frames that fail ------------------------------------------------------------


def test_a_frame_that_fails_stops_no_other(six: Entries, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.json"
    entries = [six[0], {"name": "bad", "source": str(nothing)}, six[1]]
    told = {"archive": "archive", "frames": entries, "cluster": "threads", **SHARED}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(told))
    result = call("bulk", path)
    assert result.exit_code == 3, result.output
    assert "2 frames done, 0 before, 1 failed" in result.stdout
    assert "failed: bad: " in result.stderr and str(nothing) in result.stderr
    shown = call("bulk", path, "--status")
    assert shown.exit_code == 0
    assert "2 done, 0 running, 1 failed, 0 waiting" in shown.stdout
    assert "nothing.json" in shown.stdout.replace("\n", "")
    write_items(read_items(six[2]["source"]), nothing)
    mended = call("bulk", path)
    assert mended.exit_code == 0, mended.output
    assert "1 frames done, 2 before, 0 failed" in mended.stdout
    told = json.loads(call("bulk", path, "--status", "--json").stdout)
    assert told["counts"] == {"done": 3, "running": 0, "failed": 0, "waiting": 0}
    assert read_status(JsonObjects(tmp_path / "archive"), "bad").attempts == 2


def test_update_takes_what_is_new(six: Entries, tmp_path: Path) -> None:
    items = read_items(six[0]["source"])
    source = tmp_path / "items.json"
    write_items(items[:4], source)
    entries = [{"name": "grows", "source": str(source)}, six[1]]
    plan = plan_of(tmp_path, entries)
    first = run_plan(plan)
    assert (first.done, first.unchanged) == (2, 0)
    before = {f.name: f.snapshot for f in archive.frames(plan.archive)}
    again = reprocessed(items[1], tmp_path / "again", 1.0)
    write_items([items[0], again, *items[2:]], source)
    assert run_plan(plan).already == 2, "only an update looks again"
    updated = run_plan(plan, updating=True)
    assert (updated.done, updated.unchanged) == (2, 1)
    cube = store.open_cube(cube_place(plan.archive, "grows"))
    assert cube.sizes["pair"] == 5
    assert [published(plan, e["name"]) for e in entries] == [2, 1]
    after = {f.name: f.snapshot for f in archive.frames(plan.archive)}
    assert after["grows"] == store.newest(cube_place(plan.archive, "grows"))[0]
    assert after["grows"] != before["grows"]
    assert after[six[1]["name"]] == before[six[1]["name"]]


# --- order, costs ----------------------------------------------------------------


def begun(plan: Plan) -> list[str]:
    """Frames in the order in which they are begun, by one worker."""
    with Workers("threads", count=1) as pool:
        return [plan.frame(p).name for p in bulk.turns(plan, pool)]


def test_order(six: Entries, tmp_path: Path) -> None:
    names = [e["name"] for e in six]
    ranked = [
        {**e, "priority": p} for e, p in zip(six, (0, 2, 1.5, 2, -1, 0), strict=True)
    ]
    wanted = [names[k] for k in (1, 3, 2, 0, 5, 4)]
    assert begun(plan_of(tmp_path, ranked)) == wanted
    assert begun(plan_of(tmp_path, ranked, order="plan")) == names
    some = [{**six[0]}, {**six[1], "search": {"datetime": "2020-01-01/2020-01-20"}}]
    lost = {"name": "lost", "source": str(tmp_path / "none.json")}
    cheapest = plan_of(tmp_path, [lost, *some], order="cheapest")
    assert begun(cheapest) == [names[1], names[0], "lost"]


def test_a_table_of_frames(six: Entries, tmp_path: Path) -> None:
    table = tmp_path / "frames.csv"
    lines = ["name,source,priority,search.datetime,grid.bbox"]
    lines += [f'005,{six[0]["source"]},,2020-01-01/2020-02-01,"[-106, 18, -104, 19]"']
    lines += [f"b,{six[1]['source']},7,,", ""]
    table.write_text("\r\n".join(lines), encoding="utf-8-sig")
    shared = {"grid": {"resolution": 160}, "search": {"orbit": "A005"}}
    plan = plan_of(tmp_path, str(table), **shared)
    first, second = plan.frames()
    assert (plan.count, first.name, first.priority, second.priority) == (2, "005", 0, 7)
    assert first.job["search"] == {"orbit": "A005", "datetime": "2020-01-01/2020-02-01"}
    box = [-106, 18, -104, 19]
    assert first.job["grid"] == {"anchored": True, "resolution": 160, "bbox": box}
    assert second.job["search"] == {"orbit": "A005"}
    assert second.job["cube"] == str(tmp_path / "archive" / "cubes" / "b")
    assert begun(plan) == ["b", "005"]
    table.write_text("name\nanother")  # by somebody, while the plan is carried out
    assert list(plan.frames()) == [first, second]


def test_frames_of_files_that_are_not_warped(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """They keep pixels that are off the family of grids, and it is told."""
    entries = []
    for name, shift in (("on", 0.0), ("off", 2e-4)):
        source = write_cumulative(tmp_path / name)
        with h5py.File(source, "r+") as file:
            file["corner_lat"][()] += shift
        entries.append({"name": name, "source": str(source)})
    plan = plan_of(tmp_path, entries)
    assert all(isinstance(found, DryRun) for _, found in plan_frames(plan))
    report = run_plan(plan)
    assert (report.done, report.failed) == (2, {})
    for name, shift in (("on", 0.0), ("off", 2e-4)):
        cube = store.open_cube(cube_place(plan.archive, name))
        assert cube.attrs["spatial:transform"][5] == pytest.approx(NORTH + shift)
        told = f"frame {name}: its pixel edges" in caplog.text
        assert told == bool(shift)
    assert "frame on: its pixel edges" not in caplog.text


def test_dates_of_yaml_are_text(six: Entries, tmp_path: Path) -> None:
    """Written as they mostly are, without quotes, in plans, tables and jobs."""
    source, day = six[0]["source"], "2020-01-20"
    found = search(source, datetime=day)
    assert 0 < len(found) < len(search(source))
    (tmp_path / "f.csv").write_text(f"name,search.datetime\na,{day}\n")
    listed = f"[{{name: a, search: {{datetime: {day}}}}}]"
    for frames in (listed, "f.csv"):
        path = tmp_path / "plan.yaml"
        path.write_text(f"archive: x\nsource: {source}\nframes: {frames}\n")
        (frame,) = read_plan(path).frames()
        assert frame.job["search"] == {"datetime": day}
    path = tmp_path / "job.yaml"
    path.write_text(f"source: {source}\ncube: c\nsearch: {{datetime: {day}}}\n")
    assert search(source, **read_job(path)["search"]) == found
    path.write_text(f"source: {source}\ncube: c\nsearch: {{datetime: 2020}}\n")
    assert "datetime=2020 must be text" in mistake("run", path)
    path.write_text(f"source: {source}\ncube: c\nsearch: {{filters: a<1}}\n")
    assert "filters='a<1' must be a list" in mistake("run", path)


def test_a_frame_for_each_track(six: Entries, tmp_path: Path) -> None:
    source = tmp_path / "two.json"
    one, other = read_items(six[0]["source"]), read_items(six[1]["source"])
    other = [replace(r, track="D080", id=f"d-{r.id}") for r in other]
    write_items([*one, *other], source)
    plan = plan_of(tmp_path, "tracks", source=str(source))
    assert [f.name for f in plan.frames()] == ["A005", "D080"]
    assert run_plan(plan).done == 2
    assert [f.track for f in archive.frames(plan.archive)] == ["A005", "D080"]


def test_dry_run_is_the_sum_of_its_frames(six: Entries, tmp_path: Path) -> None:
    bad = {"name": "bad", "source": str(tmp_path / "none.json")}
    told = {"archive": "archive", "frames": [*six[:2], bad], **SHARED}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(told))
    result = call("bulk", path, "--dry-run", "--json")
    assert result.exit_code == 3, result.output
    found = json.loads(result.stdout)
    assert list(found["cannot_be_planned"]) == ["bad"]
    plan = read_plan(path)
    single = [plan_job(f.job).total for f in plan.frames() if f.name != "bad"]
    for key in ("tasks", "bytes_read", "bytes_written"):
        assert found["total"][key] == sum(getattr(s, key) for s in single) > 0
    assert found["total"]["core_seconds"] > 0
    assert not (tmp_path / "archive").exists()
    table = call("bulk", path, "--dry-run")
    assert "worker-h" in table.stdout and six[1]["name"] in table.stdout
    assert "cannot be planned: bad" in table.stderr
    assert table.exit_code == 3
    path.write_text(yaml.safe_dump({**told, "frames": six[:1]}))
    assert call("bulk", path, "--dry-run").exit_code == 0
    assert len(list(plan_frames(plan))) == 3


# --- bad plans -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"archve": "x"}, r"keys \['archve'\]: known are archive"),
        ({"archive": None}, "no 'archive'"),
        ({"frames": []}, "no 'frames'"),
        ({"frames": 3}, "must be a list"),
        ({"frames": "none.csv"}, "none.csv cannot be read"),
        ({"frames": ["x"]}, r"frames\[0\]='x' must hold keys"),
        ({"frames": [{"source": "x"}]}, "has no name"),
        ({"frames": [{"name": "a/b", "source": "x"}]}, "name='a/b'"),
        ({"frames": [{"name": 5, "source": "x"}]}, "name=5 .* must be text"),
        ({"frames": [{"name": "a"}]}, "frame 'a': has no 'source'"),
        ({"frames": [{"name": "a", "source": "x"}] * 2}, "two frames of the name 'a'"),
        (
            {"frames": [{"name": n, "source": "x", "cube": "c"} for n in "ab"]},
            "two frames of the cube '.*/c'",
        ),
        (
            {"frames": [{"name": "a"}, {"name": "b", "cube": "archive/./cubes/a/"}]},
            "two frames of the cube '.*/archive/cubes/a'",
        ),
        (
            {"frames": [{"name": n, "cube": f"{n}/../c"} for n in "ab"]},
            "two frames of the cube '.*/c'",
        ),
        ({"frames": [{"name": "a", "source": "x", "serch": {}}]}, "key 'serch': known"),
        ({"frames": [{"name": "a", "source": "x", "workers": 2}]}, "of the whole plan"),
        ({"frames": [{"name": "a", "source": "x", "priority": "y"}]}, "priority='y'"),
        ({"frames": [{"name": "a", "priority": float("nan")}]}, "priority=nan must"),
        ({"frames": [{"name": "a", "source": "x", "search": 1}]}, "must hold keys"),
        ({"grid": {"resolutoin": 80}}, r"job\['grid'\].*resolutoin"),
        ({"invert": {"weights": "nice"}}, "weights"),
        ({"correct": {"method": "none-such"}}, "none-such"),
        ({"order": "fastest"}, "order.*'fastest' must be one of"),
        ({"at_once": 0}, "at_once.*must be a number"),
        ({"at_once": True}, "at_once.*must be a number"),
        ({"cluster": "clod"}, "cluster='clod'"),
    ],
)
def test_bad_plans(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    told = {"archive": "archive", "frames": [{"name": "a", "source": "x"}], **change}
    if "source" not in said:
        told.setdefault("source", "y")
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(told))
    sentence = mistake("bulk", path)
    assert re.search(said, sentence), sentence
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("name,source,source", "'source' is given twice"),
        ("name,search,search.orbit", "'search' is given twice"),
        ("name,name", "'name' is given twice"),
        ("nam,source", "one must be name"),
        ("name,serch.orbit", "key 'serch': known are"),
        ("name,search.orbt", "orbt"),
    ],
)
def test_bad_tables(columns: str, said: str, tmp_path: Path) -> None:
    row = ",".join("a" for _ in columns.split(","))
    (tmp_path / "frames.csv").write_text(f"{columns}\n{row}\n")
    told = {"archive": "archive", "frames": "frames.csv", "source": "x"}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(told))
    assert said in mistake("bulk", tmp_path / "plan.yaml", "--status")


def test_an_archive_that_is_something_else(six: Entries, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    cube = alone(six[0])
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("x")
    (tmp_path / "stac").mkdir()
    other = {"type": "Collection", "id": "maps", "links": []}
    (tmp_path / "stac" / "collection.json").write_text(json.dumps(other))
    for place, said in (
        (cube, "is a cube"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "full", "is not empty"),
        (tmp_path / "stac", "holds the STAC Collection 'maps'"),
        ("ftp://host/archive", "must be a local path, s3"),
    ):
        told = {"archive": str(place), "frames": six[:1], "cluster": "threads"}
        path.write_text(yaml.safe_dump(told))
        assert said in mistake("bulk", path)
    assert call("bulk", path, "--json").exit_code == 2
