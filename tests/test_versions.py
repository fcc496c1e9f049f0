"""Older states of a cube: listed, compared, shown again, let go of."""

import json
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
from frames import branches, frames, job_of, reprocessed, tip
from typer.testing import CliRunner

from cube_denoise import store
from cube_denoise.cli import app
from cube_denoise.pipeline import run
from cube_denoise.steps import invert_cube
from cube_denoise.store import owners
from cube_denoise.update import update
from cube_denoise.versions import diff

pytestmark = pytest.mark.filterwarnings("ignore:.*(not connected|without data)")
NOW = timedelta(0)


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return frames(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def grown(nine: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four states after the empty one. Not to be changed."""
    folder = tmp_path_factory.mktemp("grown")
    url = folder / "cube"
    run(job_of(folder, nine[:5], url))
    update(job_of(folder, nine[:7], url))
    changed = reprocessed(nine[1], folder / "again", 2.0)
    update(job_of(folder, [changed, *nine[2:7]], url))
    invert_cube(url, weights="none", reference={"y": [0, 6], "x": [0, 6]})
    return url


@pytest.fixture
def cube(grown: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown, tmp_path / "cube"))


@pytest.fixture
def call() -> Callable[..., str]:
    def invoke(*arguments: Any, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    return invoke


def ids(url: Path) -> list[str]:
    return [state["id"] for state in store.history(url)]


def size(url: Path) -> int:
    return sum(p.stat().st_size for p in url.rglob("*") if p.is_file())


# --- history and differences -----------------------------------------------------


def test_history_lists_what_readers_saw(grown: Path, call: Callable[..., str]) -> None:
    states = json.loads(call("history", grown, "--json"))
    assert [s["message"] for s in states] == [
        "invert: 6 pairs of corrected_phase",
        "update: 1 replaced, 1 withdrawn",
        "update: 2 added",
        "run: 5 added",
        "create",
    ]
    lines = call("history", grown).splitlines()
    assert [line.split()[0] for line in lines] == [s["id"] for s in states]


def test_diff_tells_pairs_and_maps(grown: Path, nine: list[Any]) -> None:
    inverted, replaced, added, begun, empty = ids(grown)
    found = diff(grown, begun, added)
    assert sorted(found["added"]) == sorted(r.id for r in nine[5:7])
    assert found["replaced"] == found["withdrawn"] == []
    a, b = (store.open_cube(grown, snapshot=s) for s in (begun, added))
    change = np.abs(b["velocity"].values - a["velocity"].values)
    told = found["values"]["velocity"]
    assert told["max_abs"] == pytest.approx(np.nanmax(change))
    assert told["rms"] == pytest.approx(np.sqrt(np.nanmean(change**2)))
    assert "displacement" in found["values"]
    assert "unwrapped_phase" not in found["values"]
    found = diff(grown, added, replaced, layers=True)
    assert found["withdrawn"] == [nine[0].id]
    assert found["replaced"] == [{"old": nine[1].id, "new": nine[1].id}]
    assert found["values"]["unwrapped_phase"]["max_abs"] == pytest.approx(2, abs=1e-5)
    found = diff(grown, replaced)
    assert not (found["added"] or found["replaced"] or found["withdrawn"])
    assert "weights" in found["attributes"]["velocity"]
    assert "corrected_phase" not in found["values"]
    assert diff(grown, inverted)["values"] == {}
    assert "velocity" in diff(grown, empty)["variables"]["added"]


def test_diff_as_a_command(grown: Path, call: Callable[..., str]) -> None:
    _, replaced, added, *_ = ids(grown)
    text = call("diff", grown, added, replaced)
    assert "withdrawn: frame-0-1" in text
    assert "replaced: frame-1-2 by frame-1-2" in text
    assert "velocity: differs by at most" in text
    assert json.loads(call("diff", grown, added, replaced, "--json"))["values"]
    assert "no such snapshot" in call("diff", grown, "nonsense", code=2)


# --- rollback --------------------------------------------------------------------


def test_back_and_forth(cube: Path, call: Callable[..., str]) -> None:
    newest, _, older, *_ = ids(cube)
    text = call("rollback", cube, older)
    assert tip(cube) == older
    assert store.open_cube(cube).sizes["pair"] == 7
    assert f"rollback {cube} {newest} goes forward again" in text
    repository = store.open_repository(cube)
    (tag,) = repository.list_tags()
    assert repository.lookup_tag(tag) == newest
    store.maintain(cube, days=0, keep=2, grace=NOW)
    assert store.open_cube(cube, snapshot=newest).load().sizes["pair"] == 6
    store.rollback(cube, newest)
    assert tip(cube) == newest


def test_rollbacks_that_are_refused(cube: Path, call: Callable[..., str]) -> None:
    newest, older, *_ = ids(cube)
    assert "no such state" in call("rollback", cube, "nonsense", code=2)
    assert "shows already" in call("rollback", cube, newest, code=2)
    assert "no such branch" in call("rollback", cube, older, "--branch", "x", code=2)
    within = next(
        c.id
        for c in store.open_repository(cube).ancestry(branch="main")
        if (c.metadata or {}).get("within")
    )
    assert "within a step" in call("rollback", cube, within, code=2)
    with store.stage(cube, step="test", branch="main", asked={}) as stage:
        assert "--force" in call("rollback", cube, older, code=2)
        assert tip(cube) == newest
        call("rollback", cube, older, "--force")
        with pytest.raises(store.CubeChangedError):
            stage.publish("late")
    assert tip(cube) == older


def test_an_update_after_a_rollback(
    cube: Path, nine: list[Any], tmp_path: Path
) -> None:
    store.rollback(cube, ids(cube)[-2])
    report = update(job_of(tmp_path, nine, cube))
    assert len(report.record["added"]) == 4
    assert store.open_cube(cube).sizes["pair"] == 9


# --- maintenance -----------------------------------------------------------------


def test_maintenance_keeps_what_is_needed(cube: Path, call: Callable[..., str]) -> None:
    newest, second, third, *_ = ids(cube)
    repository = store.open_repository(cube)
    repository.create_tag("paper", third)
    before = store.open_cube(cube).load()
    tagged = store.open_cube(cube, snapshot=third).load()
    reader = store.open_cube(cube, snapshot=second)
    full = size(cube)
    with store.stage(cube, step="test", branch="main", asked={"n": 1}) as stage:
        stage.change(lambda root: root.attrs.update(note="live"), "note")
        dry = call(
            "maintain", cube, "--days", 0, "--keep", 2, "--grace-hours", 0, "--dry-run"
        )
        assert "would be removed: 0 branches" in dry
        assert size(cube) <= full + 100_000 and ids(cube)[0] == newest
        done = store.maintain(cube, days=0, keep=2, grace=NOW)
        assert done.states and done.objects > 0 and done.branches == []
        assert dry.count("state: ") == len(done.states)
        assert ids(cube)[:2] == [newest, second]
        assert store.open_cube(cube).load().identical(before)
        assert store.open_cube(cube, snapshot=third).load().identical(tagged)
        assert np.isfinite(reader["velocity"].values).any()
        assert stage.cube.attrs["note"] == "live"
        stage.publish("on it goes")
    assert store.open_cube(cube).attrs["note"] == "live"
    assert size(cube) < full


def test_maintenance_is_gentle_by_default(cube: Path) -> None:
    before = ids(cube)
    done = store.maintain(cube)
    assert (done.states, done.objects) == ([], 0)
    assert ids(cube) == before
    for options in ({"keep": 1}, {"days": -1.0}):
        with pytest.raises(ValueError, match="must be at least 2"):
            store.maintain(cube, **options)


def test_work_given_up_is_removed_after_the_grace(cube: Path) -> None:
    with store.stage(cube, step="test", branch="main", asked={}) as stage:
        stage.change(lambda root: root.attrs.update(note="left"), "note")
    with store.draft(cube, branch="main", asked={}) as draft:
        assert store.maintain(cube).branches == []
        done = store.maintain(cube, grace=NOW)
        assert done.branches == [stage.name]
        assert branches(cube) == {"main", draft.name}


def test_maintenance_beside_a_writer(
    cube: Path, nine: list[Any], tmp_path: Path
) -> None:
    """Collected between all the steps of an update, of everything but live data."""
    publish = store.Stage.publish
    turns: list[int] = []

    def between(self: Any, *args: Any, **options: Any) -> str:
        shown = publish(self, *args, **options)
        store.maintain(cube, days=0, keep=2, grace=NOW)
        turns.append(1)
        return shown

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.Stage, "publish", between)
        update(job_of(tmp_path, nine[1:], cube))
    assert len(turns) == 3
    assert store.open_cube(cube).load().sizes["pair"] == 8
    assert store.maintain(cube, days=0, keep=2, grace=NOW).branches == []


def test_the_newest_sign_of_work_counts(cube: Path) -> None:
    repository: icechunk.Repository = store.open_repository(cube)
    with store.stage(cube, step="test", branch="main", asked={}) as stage:
        begun = owners.last_sign(repository, stage.name)
        time.sleep(1.1)
        stage.change(lambda root: root.attrs.update(note="later"), "note")
        assert owners.last_sign(repository, stage.name) >= begun + 1
        stage.discard()
