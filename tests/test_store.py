"""Cubes on disk: layout, branches, steps without half states, export."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox

from cube_denoise import store
from cube_denoise.blocks import Window, spans, windows
from cube_denoise.cluster import Workers
from cube_denoise.conventions import VARIABLES
from cube_denoise.grid import grid_of
from cube_denoise.store import staging

GRID = GeoBox.from_bbox((0, 0, 700, 500), crs="EPSG:32613", resolution=10)  # 50 x 70
ATTRIBUTES = {"wavelength": 0.0555, "track": "A005"}


def quiet(amount: float) -> None:
    """No progress."""


def root_of(url: Path, branch: str = "main") -> zarr.Group:
    session = store.open_repository(url).readonly_session(branch)
    return zarr.open_group(session.store, mode="r")


def append(root: zarr.Group, count: int, *, first: int = 0) -> None:
    days = np.datetime64("2020-01-01T05:00:00", "s") + 86400 * np.arange(
        first, first + count + 1
    )
    store.append_pairs(
        root,
        reference_time=days[:-1],
        secondary_time=days[1:],
        perpendicular_baseline=np.arange(first, first + count),
        items=[{"id": f"p{first + k}", "key": [k]} for k in range(count)],
    )


def fill(url: Path, tasks: Any, work: store.Work, *, edit: Any = None) -> str:
    with store.stage(url, step="test", branch="main", asked={"n": len(tasks)}) as stage:
        if edit:
            stage.change(edit, "layout")
        with Workers("threads", count=3) as pool:
            stage.fill(work, tasks, pool, advance=quiet)
        return stage.publish("filled")


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    """Empty cube of 50 x 70 pixels with two pairs' room."""
    url = tmp_path / "cube"
    store.create_cube(url, GRID, attributes=ATTRIBUTES, chunk=16, shard=32)
    with store.stage(url, step="room", branch="main", asked={}) as stage:
        stage.change(lambda root: append(root, 2), "room")
        stage.publish("room")
    return url


# --- opening ---------------------------------------------------------------------


def test_open_is_lazy_and_carries_the_crs(small_cube: Path, stack: xr.Dataset) -> None:
    import odc.geo.xr  # noqa: F401
    import rioxarray  # noqa: F401

    cube = store.open_cube(small_cube)
    assert not cube["unwrapped_phase"].variable._in_memory
    assert cube.odc.geobox == stack.odc.geobox == grid_of(cube.attrs)
    assert cube.rio.crs.to_epsg() == 32613
    assert cube["unwrapped_phase"].rio.crs.to_epsg() == 32613
    assert cube["velocity" if "velocity" in cube else "elevation"].odc.crs.epsg == 32613
    window = cube["unwrapped_phase"][2, 10:20, 30:50]
    np.testing.assert_array_equal(
        window.values, stack["unwrapped_phase"][2, 10:20, 30:50].values
    )
    assert not cube["unwrapped_phase"].variable._in_memory
    for name in ("reference_time", "secondary_time", "perpendicular_baseline"):
        assert name in cube.coords
        np.testing.assert_array_equal(cube[name].values, stack[name].values)


def test_chunks_give_one_task_per_chunk(small_cube: Path) -> None:
    cube = store.open_cube(small_cube, chunks={})
    assert set(cube["unwrapped_phase"].data.chunksize) == {1, 32}


def test_plain_xarray_opens_the_same(small_cube: Path) -> None:
    session = store.open_repository(small_cube).readonly_session("main")
    plain = xr.open_zarr(session.store, consolidated=False)
    cube = store.open_cube(small_cube)
    assert set(plain.data_vars) == set(cube.data_vars)
    for name in cube.data_vars:
        np.testing.assert_array_equal(plain[name].values, cube[name].values)
        assert plain[name].attrs["units"] == VARIABLES[str(name)].units


def test_a_cube_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    for call in (store.open_cube, store.history, store.newest_step):
        with pytest.raises(store.CubeError, match="there is no cube"):
            call(tmp_path / "none")
    assert not store.exists(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://somewhere/cube", r"must be a local path, s3://\.\.\., gs://"),
        ("s3:///cube", "must be s3://bucket/path"),
        ("gs://", "must be gs://bucket/path"),
    ],
)
def test_bad_urls_get_one_sentence(url: str, message: str) -> None:
    for call in (store.open_cube, store.exists):
        with pytest.raises(store.CubeError, match=message) as caught:
            call(url)
        assert "\n" not in str(caught.value)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(store.CubeError):
            store.open_cube(path)
        with pytest.raises(store.CubeError, match=r"file"):
            store.create_cube(path, GRID, attributes=ATTRIBUTES)
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(store.CubeError, match="cannot be made"):
        store.create_cube("/proc/no/cube", GRID, attributes=ATTRIBUTES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branch": "other"}, "branch='other'.* has the branches main"),
        ({"snapshot": "nonsense"}, "snapshot='nonsense'.* no such snapshot"),
        ({"snapshot": "HRDN6W4HH8NAZHYX6PWG"}, "no such snapshot"),
    ],
)
def test_unknown_branch_and_snapshot(
    small_cube: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(store.CubeError, match=message) as caught:
        store.open_cube(small_cube, **options)
    assert "\n" not in str(caught.value)


# --- making ----------------------------------------------------------------------


def test_a_cube_is_not_made_twice(cube: Path) -> None:
    before = store.open_repository(cube).lookup_branch("main")
    with pytest.raises(store.CubeError, match="there is a cube already"):
        store.create_cube(cube, GRID, attributes=ATTRIBUTES)
    assert store.open_repository(cube).lookup_branch("main") == before


def test_making_that_was_interrupted_is_done_again(tmp_path: Path) -> None:
    """Killed after Icechunk made its files and before the first commit."""
    url = tmp_path / "cube"
    url.mkdir()
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(url)))
    assert not store.exists(url)
    with pytest.raises(store.CubeError, match="there is no cube"):
        store.open_cube(url)
    store.create_cube(url, GRID, attributes=ATTRIBUTES)
    assert store.open_cube(url).sizes["y"] == 50


@pytest.mark.parametrize(("chunk", "shard"), [(16, 24), (0, 16), (32, 16)])
def test_shard_must_be_a_multiple_of_chunk(
    tmp_path: Path, chunk: int, shard: int
) -> None:
    with pytest.raises(ValueError, match=f"shard={shard} must be a multiple"):
        store.create_cube(
            tmp_path / "c", GRID, attributes=ATTRIBUTES, chunk=chunk, shard=shard
        )
    assert not store.exists(tmp_path / "c")


def test_group_attributes_follow_the_conventions(cube: Path) -> None:
    attrs = dict(root_of(cube).attrs)
    assert str(attrs["Conventions"]).startswith("CF-")
    assert grid_of(attrs) == GRID
    assert json.dumps(attrs)


def _own(
    cube: xr.Dataset, task: tuple[str, Window]
) -> Iterator[tuple[Window, Mapping[str, np.ndarray]]]:
    """Write what nobody else has: pixel index plus 10,000 times the pair or date."""
    name, window = task
    lengths = {"time": 3} | dict(cube.sizes)
    index = [
        np.arange(*window.get(d, slice(None)).indices(lengths[d])[:2])
        for d in VARIABLES[name].dims
    ]
    grid = np.meshgrid(*index, indexing="ij")
    values = grid[-2] * 100.0 + grid[-1]
    yield window, {name: values if len(grid) == 2 else values + 10_000 * grid[0]}


LAYOUTS = [(16, 16), (16, 48), (64, 128), (32, 32), (40, 40), (256, 1024), (7, 21)]


@pytest.mark.parametrize(("chunk", "shard"), LAYOUTS)
@pytest.mark.parametrize("shape", [(50, 70), (128, 65), (1, 3)])
def test_layouts_write_and_read_exactly(
    tmp_path: Path, chunk: int, shard: int, shape: tuple[int, int]
) -> None:
    """No two tasks share a shard, pairs least of all; every pixel arrives."""
    rows, columns = shape
    grid = GeoBox.from_bbox((0, 0, columns, rows), crs="EPSG:32613", resolution=1)
    url = tmp_path / "cube"
    store.create_cube(url, grid, attributes=ATTRIBUTES, chunk=chunk, shard=shard)
    names = ("unwrapped_phase", "velocity", "displacement")
    times = np.array(["2020-01-01", "2020-01-13", "2020-02-06"], "datetime64[s]")

    def layout(root: zarr.Group) -> None:
        append(root, 2)
        sizes = {"time": 3, "y": rows, "x": columns}
        store.declare(root, names[1:], sizes, times={"time": times})

    opened = store.open_cube(url)
    tasks: list[tuple[str, Window]] = []
    for name in names:
        unit = store.writing_unit(opened, name)
        pairs = {"pair": spans(2, 1)} if name == "unwrapped_phase" else {}
        cuts = windows(**pairs, y=spans(rows, unit[0]), x=spans(columns, unit[1]))
        tasks += [(name, w) for w in cuts]
    fill(url, tasks, _own, edit=layout)

    cube, root = store.open_cube(url), root_of(url)
    for name in names:
        array: Any = root[name]
        dims = VARIABLES[name].dims
        found = cube[name].values
        expected = 100.0 * np.arange(rows)[:, None] + np.arange(columns)
        if len(dims) == 3:
            expected = expected + 10_000.0 * np.arange(found.shape[0])[:, None, None]
        np.testing.assert_array_equal(found, expected)
        unit_shape = dict(zip(dims, array.shards or array.chunks, strict=True))
        if "pair" in dims:
            assert unit_shape["pair"] == 1
            assert array.chunks[0] == 1
        owners: dict[tuple[int, ...], int] = {}
        for k, (_, window) in enumerate(t for t in tasks if t[0] == name):
            touched = [
                range(
                    window.get(d, slice(0, 1)).start // unit_shape[d],
                    -(-window.get(d, slice(0, 1)).stop // unit_shape[d]),
                )
                for d in dims
            ]
            for corner in product(*touched):
                assert owners.setdefault(corner, k) == k, f"{name}: {corner} shared"
    np.testing.assert_array_equal(cube["time"].values, times)


# --- steps -----------------------------------------------------------------------


def _layer(
    cube: xr.Dataset, task: int
) -> Iterator[tuple[Window, Mapping[str, np.ndarray]]]:
    values = np.full((1, cube.sizes["y"], cube.sizes["x"]), task + 1, "float32")
    yield {"pair": slice(task, task + 1)}, {"unwrapped_phase": values}


def test_staged_work_is_invisible_until_published(cube: Path) -> None:
    before = store.open_repository(cube).lookup_branch("main")
    with store.stage(cube, step="test", branch="main", asked={}) as stage:
        stage.change(lambda root: root.attrs.update(note="staged"), "note")
        with Workers("threads", count=1) as pool:
            stage.fill(_layer, [0, 1], pool, advance=quiet)
        assert store.open_repository(cube).lookup_branch("main") == before
        assert store.visible_branches(store.open_repository(cube)) == {"main"}
        reader = store.open_cube(cube)
        assert "note" not in reader.attrs
        assert np.isnan(reader["unwrapped_phase"].values).all()
        assert float(stage.cube["unwrapped_phase"][1, 0, 0]) == 2
        tip = stage.publish("all")
    assert store.open_repository(cube).lookup_branch("main") == tip
    after = store.open_cube(cube)
    assert after.attrs["note"] == "staged"
    np.testing.assert_array_equal(after["unwrapped_phase"][:, 7, 7].values, [1, 2])
    assert np.isnan(reader["unwrapped_phase"].values).all()  # a reader keeps its state
    assert np.isnan(
        store.open_cube(cube, snapshot=before)["unwrapped_phase"].values
    ).all()
    assert set(store.open_repository(cube).list_branches()) == {"main"}


def test_an_error_in_a_task_leaves_the_cube_as_it_was(cube: Path) -> None:
    def broken(cube: xr.Dataset, task: int) -> Any:
        yield from _layer(cube, task)
        if task == 1:
            raise RuntimeError("disk on fire")

    before = store.open_repository(cube).lookup_branch("main")
    with pytest.raises(RuntimeError, match="disk on fire"):
        fill(cube, [0, 1], broken)
    assert store.open_repository(cube).lookup_branch("main") == before
    assert np.isnan(store.open_cube(cube)["unwrapped_phase"].values).all()


def test_skipped_tasks_are_told_by_position_and_survive_a_resume(
    cube: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "COMMIT_SECONDS", 0)

    def picky(cube: xr.Dataset, task: int) -> Any:
        if task == 0:
            raise store.SkipTask("not today")
        yield from _layer(cube, task)

    with store.stage(cube, step="test", branch="main", asked={}) as stage:
        with Workers("threads", count=1) as pool:
            stage.fill(picky, [0, 1], pool, advance=quiet)
        assert stage.skipped == {0: "not today"}
    with store.stage(cube, step="test", branch="main", asked={}) as again:
        assert again.resumed()
        assert again.tasks_done == 2
        assert again.skipped == {0: "not today"}


@pytest.mark.parametrize("asked", [{"n": 1}, {"n": 2}])
def test_resuming_needs_the_same_request(cube: Path, asked: dict[str, int]) -> None:
    with store.stage(cube, step="test", branch="main", asked={"n": 1}) as stage:
        stage.change(lambda root: root.attrs.update(note="staged"), "note")
    with store.stage(cube, step="test", branch="main", asked=asked) as again:
        assert again.resumed() == (asked == {"n": 1})
        assert ("note" in again.cube.attrs) == (asked == {"n": 1})


def test_killed_between_the_last_commit_and_showing_it(
    cube: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The staged tasks are taken up; only the last, small commit is made again."""

    class KilledError(Exception):
        pass

    def die(*args: Any, **options: Any) -> None:
        raise KilledError

    asked = {"n": 2}
    with (
        pytest.raises(KilledError),
        store.stage(cube, step="test", branch="main", asked=asked) as stage,
        Workers("threads", count=1) as pool,
    ):
        stage.fill(_layer, [0, 1], pool, advance=quiet)
        monkeypatch.setattr(stage, "repository", _Proxy(stage.repository, die))
        stage.publish("all", edit=lambda root: root.attrs.update(note="1"))
    assert "note" not in store.open_cube(cube).attrs
    with store.stage(cube, step="test", branch="main", asked=asked) as again:
        assert again.tasks_done == 2
        assert "note" not in again.cube.attrs
        again.publish("all", edit=lambda root: root.attrs.update(note="2"))
    after = store.open_cube(cube)
    assert after.attrs["note"] == "2"
    np.testing.assert_array_equal(after["unwrapped_phase"][:, 0, 0].values, [1, 2])
    told = [h["message"] for h in store.history(cube)]
    assert told == ["test: all", "room: room", "create"]


class _Proxy:
    """A repository whose `reset_branch` is `broken`."""

    def __init__(self, repository: icechunk.Repository, broken: Any) -> None:
        self._repository, self.reset_branch = repository, broken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)


def test_a_cube_that_moved_meanwhile_is_not_overwritten(cube: Path) -> None:
    with store.stage(cube, step="one", branch="main", asked={}) as stage:
        stage.change(lambda root: root.attrs.update(one="yes"), "one")
        with store.stage(cube, step="two", branch="main", asked={}) as other:
            other.change(lambda root: root.attrs.update(two="yes"), "two")
            other.publish("two")
        with pytest.raises(store.CubeChangedError, match="run it again"):
            stage.publish("one")
    attrs = store.open_cube(cube).attrs
    assert attrs["two"] == "yes"
    assert "one" not in attrs
    with store.stage(cube, step="one", branch="main", asked={}) as stage:
        assert not stage.resumed()
        stage.change(lambda root: root.attrs.update(one="yes"), "one")
        stage.publish("one")
    attrs = store.open_cube(cube).attrs
    assert (attrs["one"], attrs["two"]) == ("yes", "yes")


def test_two_runs_of_one_step_at_the_same_time(cube: Path) -> None:
    """Each has a branch of its own; the later one to publish is refused."""
    with store.stage(cube, step="test", branch="main", asked={}) as stage:
        stage.change(lambda root: root.attrs.update(mine=1), "mine")
        with store.stage(cube, step="test", branch="main", asked={}) as other:
            assert not other.resumed()
            other.change(lambda root: root.attrs.update(theirs=1), "theirs")
            other.publish("theirs")
        with pytest.raises(store.CubeChangedError, match="another process"):
            stage.publish("mine")
    attrs = store.open_cube(cube).attrs
    assert "theirs" in attrs and "mine" not in attrs


def test_a_plan_of_another_state_is_refused(cube: Path) -> None:
    base, _ = store.newest(cube)
    fill(cube, [0, 1], _layer)
    with (
        pytest.raises(store.CubeChangedError, match="another process"),
        store.stage(cube, step="test", branch="main", asked={}, base=base),
    ):
        pytest.fail("it was begun")
    assert set(store.open_repository(cube).list_branches()) == {"main"}


def test_steps_of_a_draft_show_at_once(cube: Path) -> None:
    before = store.newest(cube)[0]
    with store.draft(cube, branch="main", asked={"n": 1}) as draft:
        for name in ("one", "two"):
            with store.stage(cube, step=name, branch=draft.name, asked={}) as stage:
                stage.change(lambda root: root.attrs.update({name: 1}), name)  # noqa: B023
                stage.publish(name)
            assert store.newest(cube)[0] == before
            assert store.visible_branches(store.open_repository(cube)) == {"main"}
        assert draft.steps() == ["one: one", "two: two"]
        tip = draft.publish("both", "done", record={"n": 2})
    assert store.newest(cube)[0] == tip
    assert {"one", "two"} <= set(store.open_cube(cube).attrs)
    newest = store.history(cube)[0]
    assert newest["message"] == "both: done"
    assert newest["metadata"]["details"] == {"n": 2}
    assert "one: one" not in [h["message"] for h in store.history(cube)]
    assert set(store.open_repository(cube).list_branches()) == {"main"}


def test_a_draft_may_make_its_branch_and_may_be_dropped(cube: Path) -> None:
    with store.draft(cube, branch="trial", asked={}):
        assert store.visible_branches(store.open_repository(cube)) == {"main"}
    assert set(store.open_repository(cube).list_branches()) == {"main"}
    with store.draft(cube, branch="trial", asked={}) as draft:
        draft.publish("try", "it", record={})
    assert store.history(cube, branch="trial")[0]["message"] == "try: it"
    assert store.history(cube)[0]["message"] != "try: it"
    with (
        pytest.raises(ValueError, match="must not begin with"),
        store.draft(cube, branch="staging-x", asked={}),
    ):
        pass


def test_two_drafts_at_once(cube: Path) -> None:
    with (
        pytest.raises(store.CubeChangedError, match="run it again"),
        store.draft(cube, branch="main", asked={}) as late,
    ):
        with store.draft(cube, branch="main", asked={}) as quick:
            assert quick.name != late.name
            quick.publish("quick", "yes", record={})
        late.publish("late", "no", record={})
    assert store.history(cube)[0]["message"] == "quick: yes"
    assert set(store.open_repository(cube).list_branches()) == {"main"}


def test_history_tells_what_was_done(cube: Path) -> None:
    fill(cube, [0, 1], _layer)
    newest, *_, oldest = store.history(cube)
    assert newest["message"] == "test: filled"
    assert newest["metadata"]["step"] == "test"
    assert newest["metadata"]["details"]["n"] == 2
    assert {"cube-denoise", "icechunk", "zarr"} <= set(newest["metadata"]["versions"])
    assert oldest["message"] == "create"
    assert newest["time"] >= oldest["time"]
    assert store.newest_step(cube) == newest["metadata"]
    assert all("(staged)" not in h["message"] for h in store.history(cube))
    old = store.open_cube(cube, snapshot=store.history(cube)[1]["id"])
    assert np.isnan(old["unwrapped_phase"].values).all()


def test_an_experiment_is_a_branch(cube: Path) -> None:
    with store.stage(cube, step="try", branch="trial", asked={}) as stage:
        stage.change(lambda root: root.attrs.update(trial="yes"), "trial")
        stage.publish("trial")
    assert "trial" not in store.open_cube(cube).attrs
    assert store.open_cube(cube, branch="trial").attrs["trial"] == "yes"
    assert store.visible_branches(store.open_repository(cube)) == {"main", "trial"}
    assert store.newest_step(cube, branch="unborn") == {}


# --- pairs -----------------------------------------------------------------------


def test_append_keeps_what_is_there(cube: Path) -> None:
    fill(cube, [0, 1], _layer)
    before = store.open_cube(cube).load()
    with store.stage(cube, step="more", branch="main", asked={}) as stage:
        stage.change(lambda root: append(root, 3, first=2), "more")
        stage.publish("more")
    after = store.open_cube(cube)
    assert after.sizes["pair"] == 5
    xr.testing.assert_equal(after.isel(pair=slice(0, 2)).load(), before)
    assert np.isnan(after["unwrapped_phase"][2:].values).all()
    np.testing.assert_array_equal(after["perpendicular_baseline"], np.arange(5))
    assert [i["id"] for i in after.attrs["items"]] == ["p0", "p1", "p2", "p3", "p4"]
    assert after["reference_time"].values[4] == np.datetime64("2020-01-05T05:00:00")


@pytest.mark.parametrize("gone", [[0], [4], [1, 3], [0, 1, 2], [0, 1, 2, 3, 4], []])
def test_dropped_pairs_leave_the_others(cube: Path, gone: list[int]) -> None:
    def some(cube: xr.Dataset, task: int) -> Any:
        """Only part of pair 3 holds data: the rest must not show another pair's."""
        for window, arrays in _layer(cube, task):
            values = arrays["unwrapped_phase"].copy()
            if task == 3:
                values[:, :40] = np.nan
            yield window, {"unwrapped_phase": values}
        yield {"pair": slice(task, task + 1)}, {"valid_fraction": np.array([task / 8])}

    fill(cube, range(5), some, edit=lambda root: append(root, 3, first=2))
    before = store.open_cube(cube).load()
    with store.stage(cube, step="drop", branch="main", asked={}) as stage:
        stage.change(
            lambda root: store.arrange_pairs(
                root, [k for k in range(5) if k not in gone]
            ),
            "drop",
        )
        stage.publish("drop")
    after = store.open_cube(cube).load()
    kept = [k for k in range(5) if k not in gone]
    xr.testing.assert_equal(after, before.isel(pair=kept))
    assert [i["id"] for i in after.attrs["items"]] == [f"p{k}" for k in kept]


@pytest.mark.parametrize("sources", [[1, 0], [0, 0], [0, 2], [0, 1, 2]])
def test_arrangements_that_cannot_be(cube: Path, sources: list[int]) -> None:
    with (
        store.stage(cube, step="arrange", branch="main", asked={}) as stage,
        pytest.raises(ValueError, match="must be different positions below 2"),
    ):
        stage.change(lambda root: store.arrange_pairs(root, sources), "arrange")


# --- export ----------------------------------------------------------------------


@pytest.mark.parametrize("region", [{}, {"y": slice(5, 90), "x": slice(40, 71)}])
def test_export_is_plain_zarr(
    small_cube: Path, tmp_path: Path, region: dict[str, slice]
) -> None:
    import rioxarray  # noqa: F401

    cube = store.open_cube(small_cube, chunks={}).isel(region)
    store.export_zarr(cube, tmp_path / "plain.zarr")
    plain = xr.open_zarr(tmp_path / "plain.zarr", decode_coords="all")
    xr.testing.assert_equal(plain.load(), cube.load())
    assert plain["unwrapped_phase"].rio.crs.to_epsg() == 32613
    assert zarr.open_group(tmp_path / "plain.zarr").metadata.zarr_format == 3


def test_export_of_a_region_has_the_place_of_the_region(
    small_cube: Path, tmp_path: Path
) -> None:
    cube = store.open_cube(small_cube, chunks={})
    a, _, left, _, e, top = cube.attrs["spatial:transform"]
    assert cube.attrs["spatial:shape"] == [96, 96]
    store.export_zarr(cube.isel(y=slice(5, 90), x=slice(40, 71)), tmp_path / "part")
    plain = xr.open_zarr(tmp_path / "part", decode_coords="all")
    west, north = left + 40 * a, top + 5 * e
    assert plain.attrs["spatial:shape"] == [85, 31]
    assert plain.attrs["spatial:transform"] == pytest.approx([a, 0, west, 0, e, north])
    assert plain.attrs["spatial:bbox"] == pytest.approx(
        [west, north + 85 * e, west + 31 * a, north]
    )
    told = [float(v) for v in plain["spatial_ref"].attrs["GeoTransform"].split()]
    assert told == pytest.approx([west, a, 0, north, 0, e])


def test_export_does_not_overwrite_unasked(small_cube: Path, tmp_path: Path) -> None:
    cube = store.open_cube(small_cube, chunks={})
    target = tmp_path / "plain.zarr"
    store.export_zarr(cube[["elevation"]], target)
    with pytest.raises(store.CubeError, match="exists: give another, or overwrite"):
        store.export_zarr(cube, target)
    assert "coherence" not in xr.open_zarr(target)
    store.export_zarr(cube[["coherence"]], target, overwrite=True)
    assert set(xr.open_zarr(target).data_vars) - {"spatial_ref"} == {"coherence"}


def test_make_cube_gives_independent_cubes(make_cube: Callable[..., Path]) -> None:
    one, other = make_cube(chunk=16, shard=16), make_cube(chunk=48, shard=96)
    xr.testing.assert_identical(
        store.open_cube(one).drop_attrs().load(),
        store.open_cube(other).drop_attrs().load(),
    )
