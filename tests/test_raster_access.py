"""Rasters behind logins: a web server that wants a token, a netrc login, a cookie."""

import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import rasterio
from web_site import TOKEN, Site, basic, bearer, serving

from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.ingest import ingest
from cube_denoise.interferogram import Interferogram, read_raster
from cube_denoise.places import PlaceError
from cube_denoise.products import find_products
from cube_denoise.raster_access import gdal_options, opened, takes_token


@pytest.fixture
def serve(product_folder: Path) -> Iterator[Callable[..., Site]]:
    with ExitStack() as running:
        yield lambda admits: running.enter_context(serving(product_folder, admits))


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login but the test's own."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("EARTHDATA_TOKEN", raising=False)
    monkeypatch.setenv("EARTHDATA_HOSTS", "localhost")


def a_raster(folder: Path) -> str:
    return next(folder.rglob("*_unw_phase.tif")).relative_to(folder).as_posix()


def elsewhere(items: list[Interferogram], folder: Path, site: Site) -> list:
    """The same items with links to a site."""
    return [
        replace(
            item,
            assets={
                role: replace(
                    asset,
                    href=site.url(Path(asset.href).relative_to(folder).as_posix()),
                )
                for role, asset in item.assets.items()
            },
        )
        for item in items
    ]


@pytest.mark.parametrize("cluster", ["threads", "processes"])
def test_a_token_reaches_every_worker(
    serve: Callable[..., Site],
    product_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cluster: str,
) -> None:
    site = serve(bearer)
    items = find_products(product_folder)[0][:2]
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    asked = elsewhere(items, product_folder.resolve(), site)
    assert TOKEN.encode() not in pickle.dumps(asked)
    ingest(
        asked, tmp_path / "web", chunk=32, shard=64, workers=Workers(cluster, count=2)
    )
    ingest(items, tmp_path / "disk", chunk=32, shard=64)
    web, disk = (store.open_cube(tmp_path / n).load() for n in ("web", "disk"))
    for name in ("unwrapped_phase", "coherence", "elevation", "los_up"):
        np.testing.assert_array_equal(web[name], disk[name])
    assert {login for _, login in site.seen} == {f"Bearer {TOKEN}"}


def test_a_login_from_netrc(
    serve: Callable[..., Site],
    product_folder: Path,
    tmp_path: Path,
) -> None:
    site = serve(basic)
    url = site.url(a_raster(product_folder))
    (tmp_path / "netrc").write_text(
        "machine localhost login user password word-MARKER\n"
    )
    with (
        opened(url) as there,
        rasterio.open(product_folder / a_raster(product_folder)) as h,
    ):
        np.testing.assert_array_equal(there.read(), h.read())
    assert read_raster(url).shape == (96, 96)


def test_the_way_of_earthdata_login(
    serve: Callable[..., Site], product_folder: Path, tmp_path: Path
) -> None:
    """Sent to another host to log in by netrc, and back with a cookie."""

    def data(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]] | None:
        if "session=1" in (request.headers["Cookie"] or ""):
            return None
        path, _, query = request.path.partition("?")
        if query == "code=1":
            return 302, {"Location": path, "Set-Cookie": "session=1; Path=/"}
        return 302, {"Location": f"http://127.0.0.1:{login.port}{path}"}

    def authorise(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
        back = f"http://localhost:{site.port}{request.path}?code=1"
        return basic(request) or (302, {"Location": back})

    site, login = serve(data), serve(authorise)
    (tmp_path / "netrc").write_text(
        "machine 127.0.0.1 login user password word-MARKER\n"
    )
    with opened(site.url(a_raster(product_folder))) as raster:
        assert np.isfinite(raster.read(1)).any()
    assert {who for _, who in site.seen} == {None}


def test_a_token_goes_to_its_hosts_alone(
    serve: Callable[..., Site], product_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither to other hosts nor along a redirect to one."""
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    other = serve(lambda request: None)

    def redirect(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
        assert bearer(request) is None
        return 302, {"Location": other.url(request.path[1:], "127.0.0.1")}

    site = serve(redirect)
    with opened(site.url(a_raster(product_folder))) as raster:
        raster.read(1)
    with opened(other.url(a_raster(product_folder), "127.0.0.1")) as raster:
        raster.read(1)
    assert len(other.seen) > 1
    assert {login for _, login in other.seen} == {None}
    assert {login for _, login in site.seen} == {f"Bearer {TOKEN}"}
    assert takes_token("data.asf.alaska.edu")
    assert not takes_token("asf.alaska.edu.evil.org")
    assert not takes_token("notearthdata.nasa.gov.org")


def test_options_tell_no_secret(
    serve: Callable[..., Site],
    product_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """rasterio may log the options that it sets."""
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    url = serve(bearer).url(a_raster(product_folder))
    with caplog.at_level(logging.DEBUG), opened(url) as raster:
        raster.read(1)
    assert "rasterio.env" in caplog.text
    assert "GDAL_HTTP_HEADER_FILE" in gdal_options(url)
    assert "MARKER" not in caplog.text
    assert "MARKER" not in str(gdal_options(url))


def test_what_the_user_sets_of_gdal_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gdal_options("x.tif")["GDAL_HTTP_MAX_RETRY"] == 3
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "9")
    assert "GDAL_HTTP_MAX_RETRY" not in gdal_options("x.tif")


@pytest.mark.parametrize(
    ("token", "hosts", "words"),
    [
        (None, "localhost", "wants an Earthdata login; set EARTHDATA_TOKEN"),
        ("old-MARKER", "localhost", "refuses the EARTHDATA_TOKEN; it has expired"),
        (None, "elsewhere.org", "wants a login; put one into ~/.netrc"),
    ],
)
def test_who_is_not_let_in_is_told_what_to_set(
    serve: Callable[..., Site],
    product_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    token: str | None,
    hosts: str,
    words: str,
) -> None:
    """In one sentence, at the first raster; the rest is not tried in vain."""
    monkeypatch.setenv("EARTHDATA_HOSTS", hosts)
    if token:
        monkeypatch.setenv("EARTHDATA_TOKEN", token)
    site = serve(bearer)
    items = find_products(product_folder)[0]
    with pytest.raises(PlaceError) as caught:
        ingest(
            elsewhere(items, product_folder.resolve(), site),
            tmp_path / "cube",
            workers=Workers(count=1),
        )
    text = str(caught.value)
    assert words in text
    assert "\n" not in text
    assert "MARKER" not in text
    assert len(site.seen) < 10


def test_one_raster_that_is_not_there_stops_nothing(
    serve: Callable[..., Site], product_folder: Path, tmp_path: Path
) -> None:
    site = serve(lambda r: (404, {}) if r.path.endswith(gone) else None)
    items = elsewhere(
        find_products(product_folder)[0][:3], product_folder.resolve(), site
    )
    gone = items[1].assets["unwrapped_phase"].href.rsplit("/", 1)[1]
    report = ingest(items, tmp_path / "cube", chunk=32, shard=64)
    assert report.added == 2
    assert list(report.failed) == [items[1].id]
    assert "404" in report.failed[items[1].id]


def test_signatures_are_not_told(
    serve: Callable[..., Site], product_folder: Path, tmp_path: Path
) -> None:
    """A signed URL serves as it is; neither cube nor message repeats its signature."""
    site = serve(lambda r: None if "sig=MARKER" in r.path else (403, {}))
    items = elsewhere(
        find_products(product_folder)[0][:2], product_folder.resolve(), site
    )
    signed = [
        replace(
            item,
            assets={
                role: replace(asset, href=f"{asset.href}?sig={mark}")
                for role, asset in item.assets.items()
            },
        )
        for item, mark in zip(items, ("MARKER", "STALEMARK"), strict=True)
    ]
    report = ingest(signed, tmp_path / "cube", chunk=32, shard=64)
    assert (report.added, len(report.failed)) == (1, 1)
    assert "MARK" not in str(report.failed)
    told = str(store.history(tmp_path / "cube")) + str(
        store.open_cube(tmp_path / "cube").attrs
    )
    assert "MARK" not in told
