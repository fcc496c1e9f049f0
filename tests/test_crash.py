"""SIGKILL at several points of every step: readers see whole states, reruns go on."""

import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import icechunk
import pytest
import xarray as xr
from crash_child import carry_out

from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.ingest import ingest
from cube_denoise.products import find_products
from cube_denoise.steps import correct_cube, invert_cube

QUICK = ("created", "begin", "publishing", "shown")
"""Points that pass too quickly to be hit: there the process holds still."""


@pytest.fixture(scope="module")
def children() -> BaseContext:
    """Processes forked from one that has imported everything, and no more than that."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crash_child"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        # It does not take over sys.path before Python 3.13, and imports in silence.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        forkserver.ensure_running()
    return context


class Child:
    """A step in a process of its own."""

    def __init__(
        self, context: BaseContext, arguments: list[str], hold_at: tuple[str, ...]
    ) -> None:
        self.heard: list[tuple[str, int]] = []
        self._told, telling = context.Pipe(duplex=False)
        self._process = context.Process(  # type: ignore[attr-defined]
            target=carry_out, args=(telling, *arguments, hold_at)
        )
        self._process.start()
        telling.close()

    def listen(self, until: str, number: int = 0) -> None:
        """Hear what it says, until it says this or ends."""
        with suppress(EOFError):
            while True:
                self.heard.append(self._told.recv())
                said, count = self.heard[-1]
                if said == until and count >= number:
                    return

    def kill(self) -> None:
        """Kill it and hear the rest."""
        self._process.kill()
        self._process.join()
        self.exitcode = self._process.exitcode
        self.listen("nothing more")


def run_and_kill(
    context: BaseContext,
    arguments: list[str],
    *,
    at: str,
    number: int = 0,
    delay: float = 0.0,
) -> list[tuple[str, int]]:
    """Start a step, kill it `delay` seconds after it says `at`; what it said."""
    # However late the signal comes, nothing is shown that should not be.
    hold_at = (at,) if at in QUICK else ("publishing",)
    child = Child(context, arguments, hold_at)
    child.listen(at, number)
    time.sleep(delay)
    child.kill()
    assert child.exitcode == -signal.SIGKILL, child.heard
    return child.heard


def numbers(heard: list[tuple[str, int]], what: str) -> list[int]:
    return [number for said, number in heard if said == what]


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


@pytest.mark.parametrize(
    "step", ["ingest", "correct", pytest.param("invert", marks=pytest.mark.slow)]
)
def test_killed_again_and_again(
    step: str,
    children: BaseContext,
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

    def soon() -> float:
        return delays.uniform(0, 0.1)

    def check_nothing_shows() -> None:
        assert store.open_repository(url).lookup_branch("main") == tip
        now, told = contents(url)
        xr.testing.assert_identical(now, before)
        assert told == attributes

    run_and_kill(children, arguments, at="begin")
    check_nothing_shows()

    heard = run_and_kill(children, arguments, at="staged", number=0, delay=soon())
    assert numbers(heard, "begin") == [0]
    check_nothing_shows()

    # In the middle of the tasks that follow the first staged ones.
    heard = run_and_kill(children, arguments, at="staged", number=4, delay=soon())
    staged = numbers(heard, "staged")[-1]
    assert staged >= 4
    check_nothing_shows()

    heard = run_and_kill(children, arguments, at="publishing")
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
    children: BaseContext,
    staged_cubes: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The result is there, whole; the rerun finds nothing to do."""
    url = Path(shutil.copytree(staged_cubes["invert"], tmp_path / "cube"))
    run_and_kill(children, ["invert", str(url), "-"], at="shown")
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
    children: BaseContext,
    staged_cubes: dict[str, Path],
    product_folder: Path,
    tmp_path: Path,
) -> None:
    url = tmp_path / "cube"
    run_and_kill(children, ["ingest", str(url), str(product_folder)], at="created")
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
    children: BaseContext,
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
        child = Child(children, ["correct", str(url), str(plain_model)], ())
        child.listen("begin")
        time.sleep(delay)
        child.kill()
        now, _ = contents(url)
        if "corrected_phase" in now:  # it was quicker
            break
        xr.testing.assert_identical(now, before)
    correct_cube(url, plain_model, precision="float32")
    now, _ = contents(url)
    xr.testing.assert_identical(now, contents(staged_cubes["invert"])[0])
