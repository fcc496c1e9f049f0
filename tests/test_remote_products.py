"""Product files on web servers and in buckets: the blocks needed, logins, refusals."""

import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import s3_server
from agency_products import ARIA_CORNER, ARIA_STEP, ramp, write_aria
from command_line import done, mistake
from web_site import TOKEN, Site, basic, bearer, serving

from cube_denoise import hdf5_access, store
from cube_denoise.cluster import Workers
from cube_denoise.grid import grid_of, regular_grid
from cube_denoise.ingest import ingest
from cube_denoise.places import PlaceError
from cube_denoise.products import find_products, read_aria

SIZE = 768
ANYONE = lambda request: None  # noqa: E731


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A product of some MB, whose numbers do not compress."""
    folder = tmp_path_factory.mktemp("large")
    return write_aria(folder, "20200130", "20200124", phase=ramp(0, (SIZE, SIZE)))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    with ExitStack() as running:
        yield lambda folder, admits=ANYONE: running.enter_context(
            serving(folder, admits)
        )


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login but the test's own."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("EARTHDATA_TOKEN", raising=False)
    monkeypatch.setenv("EARTHDATA_HOSTS", "localhost")


def test_bytes_go_with_the_region(
    large: Path, serve: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what the header costs; in blocks small beside this file, as others are."""
    monkeypatch.setattr(hdf5_access, "BLOCK", 1 << 16)
    site = serve(large.parent)
    record = read_aria(site.url(large.name))
    whole = large.stat().st_size
    assert whole > 4e6 and 0 < site.sent < 0.2 * whole
    truth = -ramp(0, (SIZE, SIZE))
    cost = {}
    for side in (SIZE // 6, SIZE // 2, SIZE):
        west, north = ARIA_CORNER
        extent = side * ARIA_STEP
        box = (west, north - extent, west + extent, north)
        grid = regular_grid([(record.crs, record.shape, record.transform)], bbox=box)
        site.sent = 0
        url = tmp_path / f"cube-{side}"
        one = Workers("threads", count=1)
        report = ingest([record], url, grid=grid, chunk=128, shard=512, workers=one)
        assert (report.added, report.failed) == (1, {})
        cost[side] = site.sent
        cube = store.open_cube(url).load()
        assert grid_of(cube.attrs).shape == (side, side)
        np.testing.assert_array_equal(cube.unwrapped_phase[0], truth[:side, :side])
    print({n: f"{c / whole:.2f} of the file" for n, c in cost.items()})
    header = cost[SIZE // 6] - whole / 36
    for side, bytes_read in cost.items():
        share = (bytes_read - header) / whole
        assert share == pytest.approx((side / SIZE) ** 2, abs=0.1)
    assert header < 0.2 * whole


def test_a_token_reaches_the_worker_and_nothing_else(
    serve: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_aria(tmp_path / "in", "20200130", "20200124")
    site = serve(path.parent, bearer)
    url = site.url(path.name)
    told = mistake("index", url, "-o", tmp_path / "catalog.json")
    assert "wants an Earthdata login; set EARTHDATA_TOKEN" in told
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    done("index", url, "-o", tmp_path / "catalog.json")
    assert "MARKER" not in (tmp_path / "catalog.json").read_text()
    for item in (tmp_path / "items").iterdir():
        assert "MARKER" not in item.read_text()
    records = find_products(url)[0]
    assert TOKEN.encode() not in pickle.dumps(records)
    report = ingest(records, tmp_path / "web", chunk=32, shard=64)
    assert (report.added, report.failed) == (1, {})
    ingest([read_aria(path)], tmp_path / "disk", chunk=32, shard=64)
    web, disk = (store.open_cube(tmp_path / n).load() for n in ("web", "disk"))
    for name in ("unwrapped_phase", "coherence", "los_east", "los_up"):
        np.testing.assert_array_equal(web[name], disk[name])
    assert {who for _, who in site.seen} == {None, f"Bearer {TOKEN}"}


def test_logins_of_netrc_and_of_a_redirect(
    serve: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token does not follow to the host that a server sends on to."""
    path = write_aria(tmp_path / "in", "20200130", "20200124")
    (tmp_path / "netrc").write_text(
        "machine localhost login user password word-MARKER\n"
    )
    site = serve(path.parent, basic)
    assert read_aria(site.url(path.name)).id == path.stem
    other = serve(path.parent)
    onward = serve(
        path.parent,
        lambda r: bearer(r) or (302, {"Location": other.url(r.path[1:], "127.0.0.1")}),
    )
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    (tmp_path / "netrc").unlink()
    assert read_aria(onward.url(path.name)).id == path.stem
    assert {who for _, who in other.seen} == {None}
    assert {who for _, who in onward.seen} == {f"Bearer {TOKEN}"}


def test_a_token_that_ends_on_the_way(
    serve: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told as such, not as a broken file."""
    path = write_aria(tmp_path / "in", "20200130", "20200124")
    left = [1000]

    def admits(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]] | None:
        left[0] -= 1
        return None if left[0] >= 0 else (401, {"WWW-Authenticate": "Bearer"})

    site = serve(path.parent, admits)
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    records = find_products(site.url(path.name))[0]
    left[0] = 1
    with pytest.raises(PlaceError, match="refuses the EARTHDATA_TOKEN"):
        ingest(records, tmp_path / "cube", workers=Workers(count=1))


def test_what_is_not_there_cut_short_or_whole(
    serve: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = write_aria(tmp_path / "in", "20200130", "20200124")
    site = serve(path.parent)
    with pytest.raises(ValueError, match=r"is not there \(HTTP 404\)"):
        read_aria(site.url(path.name.replace("071", "072") + "?sig=MARKER"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="it may be cut short") as caught:
        read_aria(site.url(path.name) + "?sig=MARKER")
    assert "MARKER" not in str(caught.value)
    path.write_bytes(content)
    site.whole = True
    with pytest.raises(ValueError, match="whole files alone"):
        read_aria(site.url(path.name))
    with pytest.raises(PlaceError, match="cannot be reached; check the network"):
        read_aria(f"http://localhost:1/{path.name}?sig=MARKER")
    assert "urllib3" in caplog.text and "MARKER" not in caplog.text


def test_what_a_server_does_not_give_this_time(serve: Callable, tmp_path: Path) -> None:
    """A pair that failed, to be taken again; but not a product that is no more."""
    path = write_aria(tmp_path / "in", "20200130", "20200124")
    busy = [False]
    site = serve(path.parent, lambda request: (403, {}) if busy[0] else None)
    record = read_aria(site.url(path.name))
    busy[0] = True
    report = ingest([record], tmp_path / "cube", chunk=32, shard=64)
    assert "HTTP 403" in report.failed[record.id]
    with pytest.raises(PlaceError, match="HTTP 403"):
        find_products(site.url(path.name))
    busy[0] = False
    assert ingest([record], tmp_path / "cube").added == 1


def test_a_product_in_a_bucket(
    s3_of_all: s3_server.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3_of_all.use(monkeypatch)
    path = write_aria(tmp_path / "in", "20200130", "20200124")
    folder = f"s3://{s3_server.BUCKET}/gunw"
    s3_server.put(folder, path.name, path)
    done("index", f"{folder}/{path.name}", "-o", tmp_path / "catalog.json")
    done("ingest", tmp_path / "catalog.json", tmp_path / "cube")
    cube = store.open_cube(tmp_path / "cube").load()
    np.testing.assert_array_equal(cube.unwrapped_phase[0], -ramp())
    with pytest.raises(ValueError, match="is not there"):
        read_aria(f"{folder}/{path.name.replace('071', '072')}")
    with hdf5_access.opened(f"{folder}/{path.name}") as file:
        assert "science" in file
    other = write_aria(tmp_path / "in", "20200205", "20200130")
    s3_server.put(f"{folder}/below", other.name, other.read_bytes()[:20_000])
    found, unreadable = find_products(folder)
    assert [r.id for r in found] == [path.stem]
    assert list(unreadable) == [f"{folder}/below/{other.name}"]
    assert find_products(f"s3://{s3_server.BUCKET}/empty") == ([], {})
