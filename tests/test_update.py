"""Updates: what is new, reprocessed, withdrawn; interrupted, failing, concurrent."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import s3_server
from frames import (
    assert_same_maps,
    branches,
    frames,
    job_of,
    keys,
    reprocessed,
    tip,
)
from typer.testing import CliRunner

from cube_denoise import changes, pipeline, store
from cube_denoise.changes import compare, source_version
from cube_denoise.cli import app
from cube_denoise.pipeline import run
from cube_denoise.state import velocity_is_current
from cube_denoise.steps import correct_cube
from cube_denoise.store import owners, staging
from cube_denoise.update import update

pytestmark = pytest.mark.filterwarnings("ignore:.*(not connected|without data)")


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return frames(tmp_path_factory.mktemp("frames"))


def rebuilt(folder: Path, items: list[Any]) -> Path:
    folder.mkdir()
    run(job_of(folder, items, folder / "cube"))
    return folder / "cube"


# --- what changed ----------------------------------------------------------------


def test_versions_of_a_product(nine: list[Any], tmp_path: Path) -> None:
    item = nine[0]
    assert source_version(item) == item.version
    untold = replace(item, version="")
    before = source_version(untold)
    assert before.startswith("files:")
    moved = reprocessed(item, tmp_path, 1.0)
    assert source_version(replace(moved, version="")) != before
    path = Path(moved.assets["unwrapped_phase"].href)
    first = source_version(replace(moved, version=""))
    os.utime(path, ns=(1, 1))
    assert source_version(replace(moved, version="")) != first


def test_a_signature_is_no_new_version(nine: list[Any]) -> None:
    def at(href: str) -> Any:
        asset = replace(nine[0].assets["unwrapped_phase"], href=href)
        return replace(nine[0], version="", assets={"unwrapped_phase": asset})

    one, other = (at(f"https://me:{n}@host/a.tif?sig={n}") for n in (1, 2))
    assert source_version(one) == source_version(other)
    assert source_version(one) != source_version(at("https://host/b.tif"))


def test_only_the_search_that_brought_a_pair_withdraws_it(nine: list[Any]) -> None:
    known = [
        changes.as_item(r, "mine" if k < 3 else "other") for k, r in enumerate(nine)
    ]
    found = compare(known, nine[1:2], search="mine")
    assert [i["id"] for i in found.withdrawn] == [nine[0].id, nine[2].id]
    assert not found.new and not found.reprocessed
    assert not compare(known, nine[1:2])
    del known[1]["version"]  # a cube of an earlier version of the package
    assert not compare(known, [replace(nine[1], version="new")])
    assert compare(known, [replace(nine[1], id="new")]).reprocessed


# --- what an update does ---------------------------------------------------------


def test_new_reprocessed_and_withdrawn_pairs(nine: list[Any], tmp_path: Path) -> None:
    url = tmp_path / "cube"
    begun = run(job_of(tmp_path, nine[2:8], url))
    old = tip(url)
    before = store.open_cube(url).load()
    current = [
        *nine[:2],  # late frames, older than those present
        *nine[3:6],
        reprocessed(nine[6], tmp_path / "again", 3.0),
        *nine[7:],
    ]
    report = update(job_of(tmp_path, current, url))
    assert set(report.record["added"]) == {nine[k].id for k in (0, 1, 8)}
    assert report.record["replaced"] == [{"old": nine[6].id, "new": nine[6].id}]
    assert report.record["withdrawn"] == [nine[2].id]
    assert report.record["failed"] == {}
    assert (report.record["snapshot_before"], report.record["snapshot_after"]) == (
        old,
        tip(url),
    )
    assert begun.record["snapshot_after"] == old
    assert report.correct is not None
    assert report.correct.done == 4, "only what is new or reprocessed is corrected"
    cube = store.open_cube(url)
    assert keys(cube) == sorted(r.id for r in current)
    assert (cube["correction_status"] == 1).all()
    assert velocity_is_current(cube)
    assert cube["velocity"].attrs["pairs_inverted"] == 8
    assert_same_maps(url, rebuilt(tmp_path / "anew", current))
    # The old state is still there, whole.
    was = store.open_cube(url, snapshot=old).load()
    assert nine[2].id in keys(was)
    np.testing.assert_array_equal(was["velocity"], before["velocity"])
    newest = store.history(url)[0]
    assert newest["message"] == "update: 3 added, 1 replaced, 1 withdrawn"
    told = newest["metadata"]["details"]
    assert told["withdrawn"] == [nine[2].id]
    assert [s.split(":")[0] for s in told["steps"]] == ["ingest", "correct", "invert"]
    assert branches(url) == {"main"}


def test_each_pair_keeps_its_own_rasters(nine: list[Any], tmp_path: Path) -> None:
    """Moving pairs on disk mixes nothing up, per pair and layer."""
    url, other = tmp_path / "cube", tmp_path / "other"
    run(job_of(tmp_path, nine, url))
    left = [nine[k] for k in (1, 2, 4, 5, 6, 8)]
    update(job_of(tmp_path, left, url))
    run(job_of(tmp_path, left, other))
    a, b = (store.open_cube(u).load() for u in (url, other))
    places = [i["id"] for i in a.attrs["items"]]
    order = [places.index(i["id"]) for i in b.attrs["items"]]
    a = a.isel(pair=order)
    np.testing.assert_array_equal(a["reference_time"], b["reference_time"])
    for name in (*b.data_vars, "perpendicular_baseline"):
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, err_msg=name)


def test_nothing_new_writes_nothing(nine: list[Any], tmp_path: Path) -> None:
    url = tmp_path / "cube"
    job = job_of(tmp_path, nine[:5], url)
    run(job)

    def files() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in url.rglob("*") if p.is_file()}

    before = files()
    for act in (update, run):
        report = act(job)
        assert report.record == {}
        assert files() == before


def test_withdrawal_of_the_stack_needs_insistence(
    nine: list[Any], tmp_path: Path
) -> None:
    url = tmp_path / "cube"
    run(job_of(tmp_path, nine[:5], url))
    before = tip(url)
    with pytest.raises(ValueError, match=r"3 of the 5 pairs .* --allow-withdrawn"):
        update(job_of(tmp_path, nine[:2], url))
    with pytest.raises(ValueError, match="no interferogram fits"):
        update(job_of(tmp_path, [], url), allow_withdrawn=True)
    assert (tip(url), branches(url)) == (before, {"main"})
    report = update(job_of(tmp_path, nine[:2], url), allow_withdrawn=True)
    assert len(report.record["withdrawn"]) == 3
    assert keys(store.open_cube(url)) == [nine[0].id, nine[1].id]


def test_another_search_withdraws_nothing(nine: list[Any], tmp_path: Path) -> None:
    url = tmp_path / "cube"
    run(job_of(tmp_path, nine[:5], url))
    narrower = {"datetime": "2020-01-02/2020-01-03"}
    report = update(job_of(tmp_path, nine[:5], url, search=narrower))
    assert not report.changed
    assert store.open_cube(url).sizes["pair"] == 5


def test_failed_items_do_not_stop_the_others(nine: list[Any], tmp_path: Path) -> None:
    url = tmp_path / "cube"
    run(job_of(tmp_path, nine[:4], url))
    bad = reprocessed(nine[1], tmp_path / "bad", 1.0)
    worse = reprocessed(nine[5], tmp_path / "bad", 1.0)
    for item in (bad, worse):
        Path(item.assets["unwrapped_phase"].href).write_bytes(b"nothing")
    current = [nine[0], bad, *nine[2:5], worse]
    report = update(job_of(tmp_path, current, url))
    assert report.record["added"] == [nine[4].id]
    assert report.record["replaced"] == []
    assert set(report.record["failed"]) == {bad.id, worse.id}
    assert_same_maps(url, rebuilt(tmp_path / "anew", nine[:5]))
    # Again: nothing gets better, and nothing is written.
    before = tip(url)
    again = update(job_of(tmp_path, current, url))
    assert set(again.ingest.failed) == {bad.id, worse.id}
    assert (again.record, tip(url), branches(url)) == ({}, before, {"main"})
    mended = [*nine[:5], nine[5]]
    assert update(job_of(tmp_path, mended, url)).record["added"] == [nine[5].id]


def test_a_method_of_the_whole_stack_is_done_anew(
    nine: list[Any], tmp_path: Path
) -> None:
    url, anew = tmp_path / "cube", tmp_path / "anew"
    method = {"method": "common-scene"}
    run(job_of(tmp_path, nine, url, correct=method))
    report = update(job_of(tmp_path, nine[1:], url, correct=method))
    assert report.correct is not None and report.correct.done == 8
    anew.mkdir()
    run(job_of(anew, nine[1:], anew / "cube", correct=method))
    assert_same_maps(url, anew / "cube")
    assert "corrected with" in correct_cube(url, **method).notes[0]


def test_run_leaves_reprocessed_and_withdrawn_pairs(
    nine: list[Any], tmp_path: Path
) -> None:
    url = tmp_path / "cube"
    run(job_of(tmp_path, nine[:4], url))
    again = reprocessed(nine[1], tmp_path / "again", 1.0)
    report = run(job_of(tmp_path, [again, *nine[2:5]], url))
    assert report.record["added"] == [nine[4].id]
    assert not report.record["replaced"] and not report.record["withdrawn"]
    assert store.open_cube(url).sizes["pair"] == 5


# --- interrupted -----------------------------------------------------------------


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    ("at", "moved"),
    [
        *(
            pytest.param(at, False, marks=pytest.mark.slow)
            for at in ("ingest", "correct", "invert")
        ),
        ("publish", False),
        ("invert", True),
    ],
)
def test_interrupted_updates_are_taken_up(
    nine: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    moved: bool,
) -> None:
    """Whatever was staged is not done again, unless the cube was changed meanwhile."""
    url = tmp_path / "cube"
    run(job_of(tmp_path, nine[:5], url))
    before = store.open_cube(url).load()
    job = job_of(tmp_path, nine[1:8], url)
    publish, told = store.Stage.publish, []

    def dying(self: Any, *args: Any, **options: Any) -> str:
        if self.step == at:
            raise KilledError
        told.append(self.step)
        return publish(self, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(store.Stage, "publish", dying)
        if at == "publish":
            patch.setattr(store.Draft, "discard", _die)
            patch.setattr("cube_denoise.store.drafting.move_branch", _die)
        update(job)
    now = store.open_cube(url).load()
    assert now.identical(before), "a reader sees nothing of it"
    if moved:
        correct_cube(url, "ramp", surface="bilinear")
    done: list[str] = []
    fill = store.Stage.fill

    def counted(self: Any, work: Any, tasks: Any, *args: Any, **options: Any) -> None:
        done.extend([self.step] * (len(tasks) - self.tasks_done))
        fill(self, work, tasks, *args, **options)

    monkeypatch.setattr(store.Stage, "fill", counted)
    report = update(job)
    if moved:
        assert done.count("ingest") == 3
    else:
        assert done.count(at) == 0, "it was all staged"
        order = ["ingest", "correct", "invert", "publish"]
        assert not any(step in done for step in order[: order.index(at)])
    assert sorted(report.record["added"]) == sorted(r.id for r in nine[5:8])
    assert report.record["withdrawn"] == [nine[0].id]
    assert_same_maps(url, rebuilt(tmp_path / "anew", nine[1:8]))
    assert branches(url) == {"main"}
    assert [h["metadata"]["step"] for h in store.history(url)].count("update") == 1


KILLED = """
import json, sys, time
from cube_denoise import store
from cube_denoise.update import update

publish = store.Stage.publish
def told(self, *args, **options):
    shown = publish(self, *args, **options)
    print(self.step, flush=True)
    time.sleep(float(sys.argv[2]) if self.step == sys.argv[3] else 0)
    return shown
store.Stage.publish = told
update(json.loads(sys.argv[1]))
"""


def test_killed_after_every_step(nine: list[Any], tmp_path: Path) -> None:
    """SIGKILL; each run goes on at once from what the killed one did."""
    url = tmp_path / "cube"
    run(job_of(tmp_path, nine[:5], url))
    before = store.open_cube(url).load()
    job = json.dumps(job_of(tmp_path, nine[1:8], url))
    command = [sys.executable, "-W", "ignore", "-c", KILLED, job, "60"]
    steps = ("ingest", "correct", "invert")
    for step in steps:
        with subprocess.Popen(
            [*command, step], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline().strip() == step, "earlier steps are done"
            child.send_signal(signal.SIGKILL)
        assert store.open_cube(url).load().identical(before)
    report = update(json.loads(job))
    assert sorted(report.record["added"]) == sorted(r.id for r in nine[5:8])
    assert [s.split(":")[0] for s in report.record["steps"]] == list(steps)
    assert (report.ingest.added, report.invert.done) == (0, 0), "all was done"
    assert_same_maps(url, rebuilt(tmp_path / "anew", nine[1:8]))
    assert branches(url) == {"main"}


def _die(*args: Any, **options: Any) -> None:
    raise KilledError


def test_a_mistake_leaves_nothing(nine: list[Any], tmp_path: Path) -> None:
    url = tmp_path / "cube"
    run(job_of(tmp_path, nine[:4], url))
    before = tip(url)
    for more in (
        {"correct": {"method": "nothing"}},
        {"correct": {"method": "ramp", "degree": "x"}},
        {"invert": {"weights": "nice"}},
        {"invert": {"speed": 1}},
        {"branch": "work-mine"},
    ):
        with pytest.raises(ValueError):
            update(job_of(tmp_path, nine[:5], url, **more))
        assert tip(url) == before
    assert not [b for b in branches(url) if b.startswith("staging")]


# --- two at once -----------------------------------------------------------------


def test_owners_of_work() -> None:
    name = owners.claim("staging-test")
    owner = owners.owner_of(name)
    assert owner is not None and owner.pid == os.getpid()
    assert owners.label_of(name) == "staging-test"
    assert owners.owner_of("staging-test-main") is None
    nobody: Any = None
    assert owners.is_live(nobody, name)
    owners.release(name)
    assert not owners.is_live(nobody, name)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as child:
        born = owners._born(child.pid)
        parts = name.rsplit("-", 5)
        parts[2:4] = [str(child.pid), str(born)]
        assert owners.is_live(nobody, "-".join(parts))
        parts[3] = str(born + 1)
        assert not owners.is_live(nobody, "-".join(parts)), "its number is used again"
        parts[3] = str(born)
        child.send_signal(signal.SIGKILL)
        time.sleep(0.2)
        assert not owners.is_live(nobody, "-".join(parts)), "dead, and not waited for"


def test_work_of_another_host_is_left_for_a_while(
    nine: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tmp_path / "cube"
    run(job_of(tmp_path, nine[:4], url))
    with monkeypatch.context() as patch:
        patch.setattr(owners, "_host", lambda: "elsewhere")
        asked = {"n": 1}
        with store.stage(url, step="test", branch="main", asked=asked) as stage:
            stage.change(lambda root: root.attrs.update(note=1), "note")
    with store.stage(url, step="test", branch="main", asked=asked) as mine:
        assert not mine.resumed()
        assert len(branches(url)) == 3
        mine.discard()
    monkeypatch.setattr(owners, "ADOPT_SECONDS", 0)
    with store.stage(url, step="test", branch="main", asked=asked) as mine:
        assert mine.resumed()
        assert len(branches(url)) == 2
        mine.discard()


CHILD = """
import sys, json
sys.path.insert(0, sys.argv[1])
from cube_denoise.job import read_job
from cube_denoise.update import update
from cube_denoise import store
print("ready", flush=True)
input()
for line in sys.stdin:
    job = json.loads(line)
    try:
        print(json.dumps(update(job).record), flush=True)
    except store.CubeChangedError as error:
        print(json.dumps({"lost": str(error)}), flush=True)
"""


@contextlib.contextmanager
def updaters() -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that update, at once, what they are told to."""
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(Path(__file__).parent)]
    children = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    try:
        for child in children:
            assert child.stdout is not None and child.stdin is not None
            assert child.stdout.readline() == "ready\n"
            child.stdin.write("\n")
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def race(
    url: str,
    children: Sequence[subprocess.Popen[str]],
    folder: Path,
    items: list[Any],
    rounds: int,
) -> None:
    """Two processes update one cube, each from a source with pairs of its own."""
    first, last = items[:3], items[3:]
    run(job_of(folder, first, url))
    rng = np.random.default_rng(3)
    start = tip(url)
    for turn in range(rounds):
        if turn:
            store.rollback(url, start)
        shuffled = rng.permutation(len(last))
        mine = [[last[k] for k in shuffled[:4]], [last[k] for k in shuffled[2:]]]
        for n, (child, items_) in enumerate(zip(children, mine, strict=True)):
            part = folder / f"source-{n}"
            part.mkdir(exist_ok=True)
            assert child.stdin is not None
            job = job_of(part, items_, url)
            child.stdin.write(json.dumps(job) + "\n")
            child.stdin.flush()
        told = []
        for child in children:
            assert child.stdout is not None
            told.append(json.loads(child.stdout.readline()))
        assert not any("lost" in t for t in told), told
        added = [name for t in told for name in t.get("added", ())]
        assert sorted(added) == sorted({r.id for r in last}), "each once"
        cube = store.open_cube(url)
        assert keys(cube) == sorted(r.id for r in items)
        assert (cube["correction_status"] == 1).all()
        assert velocity_is_current(cube)
        assert not [b for b in branches(url) if b != "main"]


@pytest.mark.parametrize(
    "rounds", [1, pytest.param(20, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_two_updates_at_once(
    rounds: int,
    nine: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3_of_all: s3_server.Server,
) -> None:
    """On disk and in a bucket."""
    s3_of_all.use(monkeypatch)
    alone = rebuilt(tmp_path / "anew", nine)
    with updaters() as children:
        for url in (
            str(tmp_path / "cube"),
            f"s3://{s3_server.BUCKET}/race-{rounds}",
        ):
            race(url, children, tmp_path, nine, rounds)
            assert_same_maps(url, alone)


def test_always_too_late_is_said(
    nine: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tmp_path / "cube"
    run(job_of(tmp_path, nine[:4], url))
    before = tip(url)
    monkeypatch.setattr(pipeline.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(pipeline, "ATTEMPTS", 3)
    tries: list[int] = []

    def late(*args: Any, **options: Any) -> None:
        tries.append(1)
        raise store.CubeChangedError("changed by another process")

    monkeypatch.setattr("cube_denoise.store.drafting.move_branch", late)
    with pytest.raises(store.CubeChangedError, match="another process"):
        update(job_of(tmp_path, nine[:5], url))
    assert len(tries) == pipeline.ATTEMPTS
    assert (tip(url), branches(url)) == (before, {"main"})


# --- the command -----------------------------------------------------------------


def test_the_command(nine: list[Any], tmp_path: Path) -> None:
    url = tmp_path / "cube"
    path = tmp_path / "job.yaml"

    def call(count: int, *options: str) -> Any:
        path.write_text(json.dumps(job_of(tmp_path, nine[:count], url)))
        return CliRunner().invoke(app, ["update", str(path), *options])

    first = call(3)
    assert first.exit_code == 0, first.output
    (line,) = [n for n in first.stdout.splitlines() if n.startswith("{")]
    assert len(json.loads(line)["added"]) == 3
    again = json.loads(call(3).stdout.splitlines()[-1])
    assert again == {"changed": False, "failed": {}}
    record = tmp_path / "records" / "update.json"
    assert call(4, "--record", str(record)).exit_code == 0
    told = json.loads(record.read_text())
    assert (told["changed"], told["added"]) == (True, [nine[3].id])
    assert list(record.parent.iterdir()) == [record]
    refused = call(1)
    assert refused.exit_code == 2
    assert "--allow-withdrawn" in refused.stderr
    assert call(1, "--allow-withdrawn").exit_code == 0


def test_icechunk_moves_a_branch_only_from_where_it_was(
    nine: list[Any], tmp_path: Path
) -> None:
    """What publishing rests on."""
    url = tmp_path / "cube"
    run(job_of(tmp_path, nine[:3], url))
    repository = store.open_repository(url)
    old = store.history(url)[1]["id"]
    with pytest.raises(icechunk.IcechunkError):
        repository.reset_branch("main", old, from_snapshot_id=old)
    assert staging.COMMIT_SECONDS < owners.ADOPT_SECONDS
