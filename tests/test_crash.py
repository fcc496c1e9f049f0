"""SIGKILL at several points of every step: readers see whole states, reruns go on."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import pytest
import xarray as xr

from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.ingest import ingest
from cube_denoise.products import find_products
from cube_denoise.steps import correct_cube, invert_cube

CHILD = """
import sys, time
import icechunk
from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.ingest import ingest
from cube_denoise.steps import correct_cube, invert_cube
from cube_denoise.products import find_products
from cube_denoise.store import layout, staging

step, url, extra, stop_at = sys.argv[1:]
staging.COMMIT_SECONDS = 0

def say(what, number=""):
    print(what, number, flush=True)
    if what == stop_at:
        time.sleep(60)

def after(owner, name, told):
    original = getattr(owner, name)
    def wrapper(self, *args, **options):
        result = original(self, *args, **options)
        told(self, *args)
        return result
    setattr(owner, name, wrapper)

def slow_task(self, task):
    time.sleep(0.03)

after(store.Stage, "_resume_or_start", lambda s: say("begin", s.tasks_done))
after(store.Stage, "_commit", lambda s, *a: say("staged", s.tasks_done))
after(staging.Fill, "__call__", slow_task)
reset = icechunk.Repository.reset_branch
def reset_branch(self, branch, *args, **options):
    if branch == "main":
        say("publishing")
    reset(self, branch, *args, **options)
    if branch == "main":
        say("shown")
icechunk.Repository.reset_branch = reset_branch
create = layout.create_repository
def create_repository(place):
    made = create(place)
    say("created")
    return made
layout.create_repository = create_repository

one = Workers("threads", count=1)
if step == "ingest":
    ingest(find_products(extra)[0], url, chunk=32, shard=64, workers=one)
elif step == "correct":
    correct_cube(url, extra, precision="float32", workers=one)
else:
    invert_cube(url, workers=one)
say("finished")
"""


def run_and_kill(
    arguments: list[str], *, at: str, number: int | None = None, delay: float = 0.0
) -> list[str]:
    """Start a step, kill it `delay` seconds after it says `at`; what it said."""
    # The child holds still at points that pass too quickly to be hit.
    hold = at if at in ("created", "begin", "publishing", "shown") else "-"
    command = [sys.executable, "-W", "ignore", "-c", CHILD, *arguments, hold]
    heard: list[str] = []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            heard.append(line.strip())
            said, *count = line.split()
            if said == at and (number is None or int(count[0]) >= number):
                time.sleep(delay)
                break
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL, (heard, child.returncode)
    assert "finished" not in heard
    return heard


def numbers(heard: list[str], what: str) -> list[int]:
    return [int(h.split()[1]) for h in heard if h.split()[0] == what]


def contents(url: Path) -> tuple[xr.Dataset, dict[str, Any]]:
    """All that a reader sees; attributes without times of day."""
    cube = store.open_cube(url).load()
    attributes = {k: v for k, v in cube.attrs.items() if k != "history"}
    return cube.drop_attrs(deep=False), attributes


def count_tasks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Tasks done in this process from now on."""
    done: list[Any] = []
    original = Workers.run

    def run(self: Workers, function: Any, tasks: Any) -> Any:
        given = list(tasks)
        done.extend(given)
        return original(self, function, given)

    monkeypatch.setattr(Workers, "run", run)
    return done


@pytest.fixture(scope="module")
def staged_cubes(
    product_folder: Path,
    plain_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """The cube before each step, and after the last."""
    folder = tmp_path_factory.mktemp("before")
    items = find_products(product_folder)[0]
    url = folder / "ingest"
    ingest(items[:2], url, chunk=32, shard=64)
    found = {"ingest": url}
    for step, act in (
        ("correct", lambda url: ingest(items, url)),
        ("invert", lambda url: correct_cube(url, plain_model, precision="float32")),
        ("done", invert_cube),
    ):
        url = Path(shutil.copytree(url, folder / step))
        act(url)
        found[step] = url
    return found


AFTER = {"ingest": "correct", "correct": "invert", "invert": "done"}


@pytest.mark.parametrize("step", ["ingest", "correct", "invert"])
def test_killed_again_and_again(
    step: str,
    staged_cubes: dict[str, Path],
    product_folder: Path,
    plain_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five times in one step, each time further on; then let it finish."""
    url = Path(shutil.copytree(staged_cubes[step], tmp_path / "cube"))
    extra = {"ingest": str(product_folder), "correct": str(plain_model), "invert": "-"}
    arguments = [step, str(url), extra[step]]
    before, attributes = contents(url)
    tip = store.open_repository(url).lookup_branch("main")
    delays = random.Random(f"crash {step}")

    def check_nothing_shows() -> None:
        assert store.open_repository(url).lookup_branch("main") == tip
        now, told = contents(url)
        xr.testing.assert_identical(now, before)
        assert told == attributes

    run_and_kill(arguments, at="begin")
    check_nothing_shows()

    heard = run_and_kill(arguments, at="staged", number=0, delay=delays.uniform(0, 0.1))
    assert numbers(heard, "begin") == [0]
    check_nothing_shows()

    # In the middle of the tasks that follow the first staged ones.
    heard = run_and_kill(arguments, at="staged", number=4, delay=delays.uniform(0, 0.1))
    staged = numbers(heard, "staged")[-1]
    assert staged >= 4
    check_nothing_shows()

    heard = run_and_kill(arguments, at="publishing")
    (begun,) = numbers(heard, "begin")
    assert begun >= staged, "staged tasks were done again"
    assert all(n > begun for n in numbers(heard, "staged"))
    check_nothing_shows()

    done = count_tasks(monkeypatch)
    finishers: dict[str, Callable[[], Any]] = {
        "ingest": lambda: ingest(find_products(product_folder)[0], url),
        "correct": lambda: correct_cube(url, plain_model, precision="float32"),
        "invert": lambda: invert_cube(url),
    }
    finishers[step]()
    assert done == [], "all tasks were staged, only publishing was left"

    now, told = contents(url)
    undisturbed, expected = contents(staged_cubes[AFTER[step]])
    xr.testing.assert_identical(now, undisturbed)
    assert told == expected
    assert set(store.open_repository(url).list_branches()) == {"main"}
    assert [h["metadata"]["step"] for h in store.history(url)] == [
        h["metadata"]["step"] for h in store.history(staged_cubes[AFTER[step]])
    ]


def test_killed_just_after_it_shows(
    staged_cubes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is there, whole; the rerun finds nothing to do."""
    url = Path(shutil.copytree(staged_cubes["invert"], tmp_path / "cube"))
    run_and_kill(["invert", str(url), "-"], at="shown")
    now, _ = contents(url)
    xr.testing.assert_identical(now, contents(staged_cubes["done"])[0])
    done = count_tasks(monkeypatch)
    assert "up to date" in invert_cube(url).notes[0]
    assert done == []
    # What was left of the step does not disturb the next one of that name.
    invert_cube(url, weights="none")
    assert store.open_cube(url)["velocity"].attrs["weights"] == "none"
    assert set(store.open_repository(url).list_branches()) == {"main"}


def test_killed_while_the_cube_is_made(
    staged_cubes: dict[str, Path], product_folder: Path, tmp_path: Path
) -> None:
    url = tmp_path / "cube"
    run_and_kill(["ingest", str(url), str(product_folder)], at="created")
    assert icechunk.Repository.exists(icechunk.local_filesystem_storage(str(url)))
    assert not store.exists(url)
    with pytest.raises(store.CubeError, match="there is no cube"):
        store.open_cube(url)
    report = ingest(find_products(product_folder)[0], url, chunk=32, shard=64)
    assert report.added == 7
    now, _ = contents(url)
    xr.testing.assert_identical(now, contents(staged_cubes["correct"])[0])


@pytest.mark.parametrize(
    "count", [2, pytest.param(8, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_at_any_moment(
    count: int,
    staged_cubes: dict[str, Path],
    plain_model: Path,
    tmp_path: Path,
) -> None:
    """Seeded moments, whatever is going on; the last run ends by itself."""
    url = Path(shutil.copytree(staged_cubes["correct"], tmp_path / "cube"))
    before, _ = contents(url)
    moments = random.Random("any moment")
    for _ in range(count):
        delay = moments.uniform(0, 1.2)
        arguments = ["correct", str(url), str(plain_model)]
        command = [sys.executable, "-W", "ignore", "-c", CHILD, *arguments, "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()  # it has begun
            time.sleep(delay)
            child.send_signal(signal.SIGKILL)
        now, _ = contents(url)
        if "corrected_phase" in now:  # it was quicker
            break
        xr.testing.assert_identical(now, before)
    correct_cube(url, plain_model, precision="float32")
    now, _ = contents(url)
    xr.testing.assert_identical(now, contents(staged_cubes["invert"])[0])
