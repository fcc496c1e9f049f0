"""The same job on a real S3 server (SeaweedFS): same numbers, clear refusals."""

import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import s3_server
import xarray as xr
from s3_server import BUCKET, KEY, PUBLIC, SECRET, Server
from typer.testing import CliRunner

from cube_denoise import places, raster_access, store
from cube_denoise.cli.application import MISTAKE, app
from cube_denoise.cluster import Workers
from cube_denoise.export import export_geotiff
from cube_denoise.ingest import ingest
from cube_denoise.products import find_products
from cube_denoise.stac_source import read_source
from cube_denoise.steps import correct_cube, invert_cube


@pytest.fixture
def s3(s3_of_all: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, with the environment of a user of it."""
    s3_of_all.use(monkeypatch)
    return s3_of_all


def whole_job(url: str | Path, products: Path, model: Path) -> None:
    def two() -> Workers:
        return Workers("threads", count=2)

    items = find_products(products)[0]
    first = ingest(items[:4], url, chunk=32, shard=64, workers=two())
    rest = ingest(items, url, workers=two())
    assert (first.added, rest.added, rest.present) == (4, 3, 4)
    correct_cube(url, model, precision="float32", workers=two())
    invert_cube(url, workers=two())


@pytest.fixture(scope="module")
def cube(
    s3_of_all: Server,
    product_folder: Path,
    plain_model: Path,
) -> str:
    """A cube in the bucket that went through the whole job. Not to be changed."""
    url = f"s3://{BUCKET}/folder/track-005"
    with pytest.MonkeyPatch.context() as patch:
        s3_of_all.use(patch)
        whole_job(url, product_folder, plain_model)
    return url


def test_the_job_gives_the_same_in_a_bucket(
    s3: Server, cube: str, product_folder: Path, plain_model: Path, tmp_path: Path
) -> None:
    whole_job(tmp_path / "cube", product_folder, plain_model)
    there, here = store.open_cube(cube), store.open_cube(tmp_path / "cube")
    assert not there["corrected_phase"].variable._in_memory
    xr.testing.assert_identical(
        there.load().drop_attrs(deep=False), here.load().drop_attrs(deep=False)
    )
    assert [h["message"] for h in store.history(cube)] == [
        h["message"] for h in store.history(tmp_path / "cube")
    ]
    assert np.isfinite(there["velocity"]).mean() > 0.5


# --- products ---


def plain_zarr(url: str) -> xr.Dataset:
    """Read without our package's help: by zarr alone."""
    from zarr.storage import ObjectStore

    return xr.open_zarr(ObjectStore(places.object_store(url)), decode_coords="all")


def test_plain_zarr_in_a_bucket(s3: Server, cube: str) -> None:
    url = f"s3://{BUCKET}/published/track-005.zarr"
    names = ["unwrapped_phase", "displacement", "velocity"]
    opened = store.open_cube(cube, chunks={})[names]
    store.export_zarr(opened, url)
    xr.testing.assert_identical(plain_zarr(url).load(), opened.load())
    assert all(
        name.startswith("track-005.zarr/")
        for name in s3_server.objects(f"s3://{BUCKET}/published")
    )
    with pytest.raises(store.CubeError, match="exists"):
        store.export_zarr(opened[["velocity"]], url)
    store.export_zarr(opened[["velocity"]], url, overwrite=True)
    assert list(plain_zarr(url).data_vars) == ["velocity"]


@pytest.mark.parametrize("moved", [0, 1, 5])
def test_an_export_that_dies_shows_nothing_half(
    s3: Server, cube: str, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """Killed while objects are moved: no store, and the next export puts it there."""
    import obstore

    url = f"s3://{BUCKET}/dying-{moved}.zarr"
    opened = store.open_cube(cube, chunks={})[["velocity", "temporal_coherence"]]
    store.export_zarr(opened[["velocity"]], url)
    copy, count = obstore.copy, iter(range(1000))

    def dying(*args: object) -> None:
        if next(count) >= moved:
            raise KeyboardInterrupt
        copy(*args)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "copy", dying)
        with pytest.raises(KeyboardInterrupt):
            store.export_zarr(opened, url, overwrite=True)
    with pytest.raises(FileNotFoundError):
        plain_zarr(url)
    store.export_zarr(opened, url)
    xr.testing.assert_identical(plain_zarr(url).load(), opened.load())


def test_what_is_no_zarr_store_is_left_alone(s3: Server, cube: str) -> None:
    url = f"s3://{BUCKET}/letters"
    s3_server.put(url, "to-mother.txt", b"dear")
    with pytest.raises(store.CubeError, match="not a Zarr store"):
        store.export_zarr(store.open_cube(cube)[["velocity"]], url, overwrite=True)
    assert s3_server.objects(url) == {"to-mother.txt": b"dear"}
    with pytest.raises(store.CubeError, match="must have a path"):
        store.export_zarr(store.open_cube(cube)[["velocity"]], f"s3://{BUCKET}")


def test_maps_in_a_bucket(s3: Server, cube: str, tmp_path: Path) -> None:
    opened = store.open_cube(cube)
    names = ["velocity", "velocity_std"]
    url = f"s3://{BUCKET}/maps"
    assert export_geotiff(opened, url, variables=names) == [
        f"{url}/{name}.tif" for name in names
    ]
    here = export_geotiff(opened, tmp_path, variables=names)
    for name, path in zip(names, here, strict=True):
        with raster_access.opened(f"{url}/{name}.tif") as a, rasterio.open(path) as b:
            assert str(a.profile) == str(b.profile)
            assert a.tags() == b.tags()
            np.testing.assert_array_equal(a.read(), b.read())
    with pytest.raises(ValueError, match="exists"):
        export_geotiff(opened, url, variables=names)
    export_geotiff(opened, url, variables=names, overwrite=True)


def test_processes_read_rasters_and_write_a_cube_in_a_bucket(
    s3: Server, product_folder: Path, tmp_path: Path
) -> None:
    """Processes find credentials and endpoint, for reading as for writing."""
    items = find_products(product_folder)[0][:2]
    url = f"s3://{BUCKET}/products"
    s3_server.upload(product_folder, url)
    moved = moved_items(items, product_folder, url)
    s3_server.put(url, "items.json", moved)
    assert read_source(f"{url}/items.json")[0]["type"] == "FeatureCollection"
    from cube_denoise.catalog import search

    found = search(f"{url}/items.json")
    assert {i.assets["unwrapped_phase"].href.split("/p")[0] for i in found} == {
        f"s3://{BUCKET}"
    }
    cube = f"s3://{BUCKET}/by-processes"
    ingest(found, cube, chunk=32, shard=64, workers=Workers("processes", count=2))
    ingest(items, tmp_path / "here", chunk=32, shard=64)
    xr.testing.assert_identical(
        store.open_cube(cube).load().drop_attrs(deep=False),
        store.open_cube(tmp_path / "here").load().drop_attrs(deep=False),
    )


def moved_items(items: list, folder: Path, url: str) -> bytes:
    """An item list with the links of `folder` at another place."""
    from cube_denoise.catalog import write_items

    path = write_items(items, folder.parent / "moved-items.json")
    return path.read_bytes().replace(folder.resolve().as_uri().encode(), url.encode())


# --- who is let in ---


def test_a_profile_lets_in(
    s3: Server, cube: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For cubes, exports and rasters; a pickle holds the name, not the keys."""
    s3_server.put(f"s3://{BUCKET}/one", "map.tif", one_raster(tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    path = tmp_path / "credentials"
    path.write_text(
        f"[cubes]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_PROFILE", "cubes")
    opened = store.open_cube(cube)
    export_geotiff(opened, f"s3://{BUCKET}/by-profile", variables=["velocity"])
    with raster_access.opened(f"s3://{BUCKET}/one/map.tif") as raster:
        assert raster.shape == (20, 30)
    held = pickle.dumps(places.object_store(cube))
    assert SECRET.encode() not in held
    assert KEY.encode() not in held
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(store.CubeError) as caught:
        store.open_cube(cube)
    one_sentence(str(caught.value), "nobody", "AWS_PROFILE")


def one_raster(folder: Path) -> Path:
    values = np.arange(600, dtype="float32").reshape(1, 20, 30)
    transform = rasterio.transform.from_origin(0, 1, 0.01, 0.01)
    with rasterio.open(
        folder / "map.tif",
        "w",
        driver="GTiff",
        width=30,
        height=20,
        count=1,
        dtype="float32",
        crs="EPSG:4326",
        transform=transform,
    ) as raster:
        raster.write(values)
    return folder / "map.tif"


@pytest.mark.parametrize("way", ["environment", "url"])
def test_the_public_is_let_in_unsigned(
    s3: Server,
    product_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    way: str,
) -> None:
    url = f"s3://{PUBLIC}/{way}"
    ingest(find_products(product_folder)[0][:1], url, chunk=32, shard=64)
    s3_server.put(url, "map.tif", one_raster(tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(store.CubeError, match="there are no credentials"):
        store.open_cube(url)
    with pytest.raises(places.PlaceError, match="there are no credentials"):
        raster_access.opened(f"{url}/map.tif").__enter__()
    if way == "environment":
        monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
        query = ""
    else:
        query = "?anonymous=true"
    assert store.open_cube(url + query).sizes["pair"] == 1
    with raster_access.opened(f"{url}/map.tif{query}") as raster:
        assert raster.read(1)[3, 4] == 94
    with pytest.raises(store.CubeError, match="access is denied"):
        store.open_cube(f"s3://{BUCKET}/folder/track-005{query}")


def test_the_url_may_say_where_the_bucket_is(
    s3: Server, cube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rasters may be of one provider and the cube of another."""
    port = s3_server.free_ports(1)[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    opened = store.open_cube(f"{cube}?endpoint={s3.endpoint}&region=us-east-1")
    assert opened.sizes["pair"] == 7


# --- refusals: one sentence, what to set, within seconds, exit code 2 ---

REFUSALS = {
    "secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
    "key": ({"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID"),
    "bucket": ({}, "no bucket 'no-such-bucket'"),
    "server": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "AWS_ENDPOINT_URL"),
    "host": ({"AWS_ENDPOINT_URL": "http://nowhere.invalid"}, "AWS_ENDPOINT_URL"),
}


def one_sentence(text: str, *words: str) -> None:
    assert "\n" not in text
    assert len(text) < 400
    for word in words:
        assert word in text, text


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "host" else name
        for name in REFUSALS
    ],
)
def test_refusals(
    s3: Server,
    product_folder: Path,
    cube: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    refusal: str,
) -> None:
    """Of a cube, an export and a raster."""
    change, word = REFUSALS[refusal]
    bucket = "no-such-bucket" if refusal == "bucket" else BUCKET
    url = f"s3://{bucket}/refused"
    opened = store.open_cube(cube)[["velocity"]].load()
    items = find_products(product_folder)[0]
    (tmp_path / "items.json").write_bytes(moved_items(items, product_folder, url))
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    attempts = [
        lambda: store.open_cube(url),
        lambda: store.export_zarr(opened, f"{url}.zarr"),
        lambda: export_geotiff(opened, url, variables=["velocity"]),
    ]
    begin = time.monotonic()
    for attempt in attempts[: 1 if refusal in ("server", "host") else 3]:
        with pytest.raises(ValueError) as caught:
            attempt()
        one_sentence(str(caught.value), url, word)
    for command in (
        ["ingest", str(tmp_path / "items.json"), url],
        ["ingest", str(tmp_path / "items.json"), str(tmp_path / "cube")],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == MISTAKE, result.output
        lines = [li for li in result.stderr.splitlines() if li.startswith("error:")]
        assert len(lines) == 1
        one_sentence(lines[0], url, word)
    # Of all attempts; Icechunk alone would try a dead host for half a minute, each.
    assert time.monotonic() - begin < 60


def test_a_cube_that_is_not_there(s3: Server) -> None:
    with pytest.raises(store.CubeError, match="there is no cube"):
        store.open_cube(f"s3://{BUCKET}/nothing")
    assert not store.exists(f"s3://{BUCKET}/nothing")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3:///cube", "must be s3://bucket/path"),
        ("ftp://host/cube", "must be a local path, s3://..., gs://... or az://..."),
        ("s3://b/cube?colour=red", "options are anonymous, endpoint, region"),
        ("s3://user:hidden@b/cube", "must be without a password"),
        ("az://container/cube", "AZURE_STORAGE_ACCOUNT"),
    ],
)
def test_places_that_are_none(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(store.CubeError) as caught:
        store.storage(url)
    assert words in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("query", ["", "?anonymous=true"])
@pytest.mark.parametrize("scheme", ["gs", "az", "s3"])
def test_every_scheme_is_understood_by_all(
    scheme: str, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clients of the three clouds accept what we tell them (nothing is asked)."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "account")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    url = f"{scheme}://bucket/folder/cube{query}"
    shown = repr(places.icechunk_storage(url))
    assert "bucket" in shown
    assert "folder/cube" in shown
    assert places.object_store(url).prefix == "folder/cube"
    kind = {"gs": "vsigs", "az": "vsiaz", "s3": "vsis3"}[scheme]
    assert raster_access.gdal_path(url) == f"/{kind}/bucket/folder/cube"
    unsigned = "NO_SIGN_REQUEST"
    told = [v for k, v in raster_access.gdal_options(url).items() if unsigned in k]
    assert ("YES" in told) == bool(query)
