"""Answers of a bucket that end half way: asked again, or told; never taken for data."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import xarray as xr
import zarr
from cutting_proxy import Proxy, cutting
from s3_server import BUCKET, Server
from zarr.errors import GroupNotFoundError

from cube_denoise import places, store
from cube_denoise.blocks import Window
from cube_denoise.ingest import ingest_dataset
from cube_denoise.store import answers
from cube_denoise.store.filling import Done, Fill
from cube_denoise.store.repository import open_snapshot

URL = f"s3://{BUCKET}/cut"


@pytest.fixture(scope="module")
def server(stack: xr.Dataset, s3_of_all: Server) -> Iterator[Server]:
    """With a cube of one pair, without gaps, at `URL`."""
    with pytest.MonkeyPatch.context() as patch:
        s3_of_all.use(patch)
        whole = stack.isel(pair=[0], x=slice(0, 64), y=slice(0, 64))
        whole["unwrapped_phase"] = whole["unwrapped_phase"].fillna(1.0)
        ingest_dataset(whole, URL, chunk=32, shard=64)
        yield s3_of_all


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Before the server; the environment points to it."""
    with cutting(server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def opened_here() -> np.ndarray:
    return store.open_cube(URL)["unwrapped_phase"].values


def test_every_answer_may_be_cut_once(proxy: Proxy) -> None:
    """From opening to the last chunk; as in a notebook, and as in a worker."""
    truth = opened_here()
    assert np.isfinite(truth).all()
    held = pickle.dumps(store.open_cube(URL)["unwrapped_phase"])

    def sent_to_a_worker() -> np.ndarray:
        return pickle.loads(held).values

    for read in (opened_here, sent_to_a_worker):
        proxy.begin()
        read()
        count = len(proxy.requests)
        assert count >= 3
        for cut in range(count):
            proxy.begin(lambda number, path, cut=cut: number == cut)
            np.testing.assert_array_equal(read(), truth)
            assert len(proxy.requests) > cut


ONE_PAIR = {"pair": slice(0, 1), "y": slice(0, 64), "x": slice(0, 64)}


def twos(cube: xr.Dataset, task: object) -> Iterator[tuple[Window, dict[str, Any]]]:
    yield ONE_PAIR, {"unwrapped_phase": np.full((1, 64, 64), 2, "float32")}


def filling() -> Fill:
    """A task that writes, as a worker gets it."""
    session = store.open_repository(URL).writable_session("main")
    return Fill(URL, session.snapshot_id, session.fork(), twos)


def test_a_writing_worker_may_have_every_answer_cut_once(proxy: Proxy) -> None:
    truth = opened_here()
    writing = pickle.dumps(filling())

    def task() -> Done:
        open_snapshot.cache_clear()
        return pickle.loads(writing)((0, None))

    task()  # what a process asks once
    proxy.begin()
    task()
    reads = [k for k, (method, _) in enumerate(proxy.requests) if method == "GET"]
    assert len(reads) >= 2
    for cut in reads:
        proxy.begin(lambda number, path, cut=cut: number == cut)
        done = task()
        assert len(proxy.requests) > cut
        written = zarr.open_group(done.fork.store, mode="r")["unwrapped_phase"]
        assert (written[:] == 2).all()
    np.testing.assert_array_equal(opened_here(), truth)  # nothing is committed


@pytest.mark.parametrize(
    "kind",
    [
        "/refs/",
        "/snapshots/",
        "/manifests/",
        # Icechunk itself asks for these again, for more than a minute.
        pytest.param("/chunks/", marks=pytest.mark.slow),
    ],
)
def test_answers_that_are_always_cut(
    proxy: Proxy, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, whatever it is that cannot be read; never a value."""
    monkeypatch.setattr(answers, "WAITS", (0.01,))
    session = store.open_repository(URL).readonly_session("main")
    held = pickle.dumps([session.store, store.open_cube(URL)["unwrapped_phase"]])

    def group_of_a_worker() -> object:
        steady = answers.SteadyStore(pickle.loads(held)[0], URL)
        return zarr.open_group(steady, mode="r")["unwrapped_phase"][:]

    def values_of_a_worker() -> object:
        return pickle.loads(held)[1].values

    writing = pickle.dumps(filling())

    def a_writing_worker() -> object:
        return pickle.loads(writing)((0, None))

    asked: list[Callable[[], object]] = [opened_here]
    if kind != "/refs/":
        asked += [values_of_a_worker]
    if kind == "/snapshots/":
        asked += [group_of_a_worker, a_writing_worker, lambda: store.newest(URL)]
    proxy.begin(lambda number, path: kind in path)
    if kind == "/snapshots/":  # what it is that must not reach anybody
        with pytest.raises(GroupNotFoundError):
            zarr.open_group(pickle.loads(held)[0], mode="r")
    for ask in asked:
        with pytest.raises(store.CubeError) as caught:
            ask()
        said = str(caught.value)
        assert URL in said and "cannot be" in said
        assert "\n" not in said and len(said) < 400


def test_a_place_is_asked_once_whether_it_is_there(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again under another login; nobody needs the right to list."""
    monkeypatch.setattr(places, "_ANSWERED", set())
    for _ in range(3):
        store.open_cube(URL)
    ours = [path for _, path in proxy.requests if "x-id=" not in path]
    heads = [path for method, path in proxy.requests if method == "HEAD"]
    assert len(ours) - len(heads) == 1, ours
    assert not any("list-type" in path for _, path in proxy.requests)
    assert store.exists(URL) and not store.exists(URL + "-not")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(store.CubeError, match="does not fit the access key"):
        store.open_cube(URL)


@pytest.mark.parametrize(
    "method", ["list_branches", "lookup_branch", "readonly_session", "ancestry"]
)
@pytest.mark.parametrize(
    "ask",
    [store.open_cube, store.newest, store.newest_step, store.history, store.exists],
)
def test_nothing_of_icechunk_gets_out(
    ask: Callable[[Path], object],
    method: str,
    small_cube: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    met = []

    def failing(*args: object, **options: object) -> None:
        met.append(method)
        raise icechunk.IcechunkError("it is broken")

    monkeypatch.setattr(icechunk.Repository, method, failing)
    try:
        ask(small_cube)
    except store.CubeError as error:
        assert "it is broken" in str(error)
    else:
        assert not met


def test_a_rollback_that_cannot_read(
    small_cube: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: object, **options: object) -> None:
        raise icechunk.IcechunkError("it is broken")

    monkeypatch.setattr(icechunk.Repository, "list_branches", failing)
    with pytest.raises(store.CubeError, match="it is broken"):
        store.rollback(small_cube, "nothing")
