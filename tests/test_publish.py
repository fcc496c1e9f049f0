"""A published product holds what it was made of, appears at once, and loses nothing."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import publishing_child
import pytest
import rasterio
import s3_server
import xarray as xr
from publishing_child import POINTS, constant
from publishing_child import SMALL as CONSTANT
from typer.testing import CliRunner
from velocity_products import velocity_product

import cube_denoise as cd
from cube_denoise import store
from cube_denoise.cli.application import MISTAKE, app
from cube_denoise.product_folder import VERSIONS, ProductError

SMALL = {"chunk": 16, "shard": 32, "workers": 2}


@pytest.fixture(scope="module")
def product() -> xr.Dataset:
    return velocity_product((41, 59))


@pytest.fixture(scope="module")
def url(product: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    url = tmp_path_factory.mktemp("published") / "anatolia"
    cd.publish(product, url, **SMALL)
    return url


def store_of(url: str | Path, version: str | None = None) -> Path:
    record = json.loads((Path(url) / "collection.json").read_text())
    return Path(url) / (version or record[VERSIONS][0]["version"]) / "velocity.zarr"


def plain(dataset: xr.Dataset) -> xr.Dataset:
    """Values and labels alone."""
    return dataset.drop_vars("spatial_ref").drop_attrs(deep=True).compute()


# --- what is written ---


def test_round_trip(product: xr.Dataset, url: Path) -> None:
    found = cd.open_velocity(url)
    assert found.chunks and not found["velocity"].variable._in_memory
    xr.testing.assert_identical(plain(found), plain(product)[sorted(product)])
    assert found.odc.geobox == product.odc.geobox
    assert found.attrs["frames"] == product.attrs["frames"]
    assert found["velocity"].attrs["units"] == "m year-1"
    assert {n: v.dtype for n, v in found.items()} == {
        n: v.dtype for n, v in product.items()
    }


def test_levels_are_of_all_valid_pixels(product: xr.Dataset, url: Path) -> None:
    """Against means of the product itself, taken in one go."""
    whole = cd.open_velocity(url)
    assert whole.attrs["levels"] == 3
    for level in range(1, 3):
        found = cd.open_velocity(url, level=level).compute()
        step = 2**level
        assert found.odc.geobox.affine == product.odc.geobox.affine * rasterio.Affine(
            step, 0, 0, 0, step, 0
        )

        def coarse(array: xr.DataArray, how: str, step: int = step) -> np.ndarray:
            parts = array.astype("float64").coarsen(y=step, x=step, boundary="pad")
            return np.asarray(getattr(parts, how)())

        square = coarse(product["velocity_std"] ** 2, "mean") ** 0.5
        for name, expected in (
            ("velocity", coarse(product["velocity"], "mean")),
            ("velocity_std", square),
            ("velocity_covariance", coarse(product["velocity_covariance"], "mean")),
            ("condition_number", coarse(product["condition_number"], "max")),
            ("frame_count", coarse(product["frame_count"], "max")),
        ):
            np.testing.assert_allclose(found[name], expected, rtol=3e-5, atol=1e-8)
        variance = found["velocity_covariance"].sel(covariance_term="up_up")
        up = found["velocity_std"].sel(component="up")
        np.testing.assert_allclose(up**2, variance, rtol=1e-4)
        seconds = product["first_date"].values.astype("int64").astype("float64")
        seconds[np.isnat(product["first_date"])] = np.nan
        first = coarse(xr.DataArray(seconds, dims=("y", "x")), "min")
        known = np.isfinite(first)
        np.testing.assert_array_equal(known, ~np.isnat(found["first_date"]))
        np.testing.assert_array_equal(
            found["first_date"].values[known].astype("int64"), first[known]
        )
        assert "mean" in found["velocity"].attrs["cell_methods"]


@pytest.mark.parametrize(("chunk", "shard", "dask"), [(16, 16, None), (16, 48, 10)])
def test_cuts_change_nothing(
    product: xr.Dataset, url: Path, tmp_path: Path, chunk: int, shard: int, dask: Any
) -> None:
    lazy = product if dask is None else product.chunk(y=dask, x=dask)
    cd.publish(lazy, tmp_path / "p", chunk=chunk, shard=shard, cog=False)
    for level in range(3):
        one, other = (cd.open_velocity(u, level=level) for u in (url, tmp_path / "p"))
        xr.testing.assert_identical(plain(one), plain(other))


def test_a_lazy_product_is_computed_once_block_by_block(tmp_path: Path) -> None:
    product = velocity_product((64, 96))
    sizes: list[int] = []
    lock = threading.Lock()

    def counted(block: np.ndarray) -> np.ndarray:
        with lock:
            sizes.append(block[0].size)
        return block

    lazy = product.chunk(y=32, x=32)
    blocks = lazy["velocity"].data.map_blocks(counted, meta=np.empty((0,) * 3, "f4"))
    lazy["velocity"] = (lazy["velocity"].dims, blocks)
    # The standard deviation is made of the same blocks: they are shared.
    lazy["velocity_std"] = (lazy["velocity"].dims, da.fabs(blocks))
    cd.publish(lazy, tmp_path / "p", **SMALL)
    assert len(sizes) == 6
    assert sum(sizes) == 64 * 96
    np.testing.assert_array_equal(
        cd.open_velocity(tmp_path / "p")["velocity_std"], abs(product["velocity"])
    )


def test_maps_as_geotiff(product: xr.Dataset, url: Path) -> None:
    folder = store_of(url).parent
    names = [f"{n}_{c}" for n in ("velocity", "velocity_std") for c in ("east", "up")]
    assert sorted(p.stem for p in folder.glob("*.tif")) == sorted(names)
    for name in names:
        variable, _, component = name.rpartition("_")
        with rasterio.open(folder / f"{name}.tif") as raster:
            expected = product[variable].sel(component=component)
            np.testing.assert_array_equal(raster.read(1), expected)
            assert raster.transform == product.odc.geobox.affine
            assert raster.crs.to_epsg() == 32635
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_a_cube_is_a_product(small_cube: Path, tmp_path: Path) -> None:
    """By the command; look vectors and covariance are there, and the cube is named."""
    cube = tmp_path / "cube"
    cd.ingest_dataset(cd.open_cube(small_cube), cube, chunk=32, shard=64)
    refused = CliRunner().invoke(app, ["publish", str(cube), str(tmp_path / "p")])
    assert refused.exit_code == MISTAKE
    assert "invert it first" in refused.stderr
    assert not (tmp_path / "p").exists()
    cd.invert_cube(cube)
    done = CliRunner().invoke(
        app, ["publish", str(cube), str(tmp_path / "p"), "--title", "mine", "--no-cog"]
    )
    assert done.exit_code == 0, done.output
    found = cd.open_velocity(tmp_path / "p")
    opened = cd.open_cube(cube)
    np.testing.assert_array_equal(found["velocity"][0], opened["velocity"])
    np.testing.assert_array_equal(found["los_up"], opened["los_up"])
    np.testing.assert_allclose(
        found["velocity_covariance"][0], opened["velocity_std"] ** 2
    )
    assert found.attrs["title"] == "mine"
    (frame,) = found.attrs["frames"]
    assert frame["url"] == str(cube)
    assert frame["snapshot"] == store.history(cube)[0]["id"]
    known = np.isfinite(found["velocity"][0])
    assert (found["first_date"].values[known] == opened.time.values[0]).all()


# --- versions ---


def test_versions_stay_until_they_are_pruned(tmp_path: Path) -> None:
    url = tmp_path / "p"
    one = cd.publish(constant(1), url, **CONSTANT)
    reader = cd.open_velocity(url)
    two = cd.publish(constant(2), url, **CONSTANT)
    assert float(reader["velocity"].mean()) == 1
    assert cd.open_velocity(url).attrs["versions"] == [two, one]
    assert float(cd.open_velocity(url)["velocity"].max()) == 2
    assert float(cd.open_velocity(url, version=one)["velocity"].max()) == 1
    three = cd.publish(constant(3), url, keep=2, **CONSTANT)
    assert cd.open_velocity(url).attrs["versions"] == [three, two]
    assert {p.name for p in url.iterdir() if p.is_dir()} == {three, two}
    with pytest.raises(ProductError, match="must be one of"):
        cd.open_velocity(url, version=one)
    with pytest.raises(ValueError, match="keep=0"):
        cd.publish(constant(3), url, keep=0, **CONSTANT)


def killed(runs: list[tuple[str, float, str]]) -> list[int]:
    """Exit codes of publishers that are to be killed."""
    told = [str(t) for run in runs for t in run]
    command = [sys.executable, publishing_child.__file__, *told]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [int(code) for code in done.stdout.split()[-len(runs) :]]


def versions_at(url: str) -> set[str]:
    """Names of the folders of versions, whether anything names them or not."""
    if url.startswith("s3://"):
        names = {name.split("/")[0] for name in s3_server.objects(url)}
    else:
        names = {p.name for p in Path(url).iterdir() if p.is_dir()}
    return names - {"collection.json"}


def check_killed(places: dict[str, str]) -> None:
    """Kill publishers at points; readers and the next publisher find what is right."""
    first = {
        point: cd.publish(constant(1), url, **CONSTANT) for point, url in places.items()
    }
    assert set(killed([(u, 2, p) for p, u in places.items()])) == {-9}
    for point, url in places.items():
        now = cd.open_velocity(url)
        expected = 2 if point == "after the record" else 1
        values = now["velocity"].values
        assert (values == expected).all(), point
        assert (now.attrs["version"] == first[point]) == (expected == 1)
        assert len(versions_at(url)) == 2, point
        last = cd.publish(constant(3), url, **CONSTANT)
        assert versions_at(url) == {last, *now.attrs["versions"]}, point
        assert (cd.open_velocity(url)["velocity"] == 3).all()


def test_killed_publishers_show_nothing(tmp_path: Path) -> None:
    check_killed({p: str(tmp_path / p.replace(" ", "-")) for p in POINTS})


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    url = tmp_path / "p"
    version = cd.publish(constant(1), url, **CONSTANT)
    lazy = constant(2).chunk(y=16, x=16)

    def broken(block: np.ndarray) -> np.ndarray:
        raise OSError("disk full")

    bad = lazy["velocity"].data.map_blocks(broken, meta=np.empty((0,) * 3, "f4"))
    lazy["velocity"] = (lazy["velocity"].dims, bad)
    with pytest.raises(OSError, match="disk full"):
        cd.publish(lazy, url, **CONSTANT)
    assert sorted(p.name for p in url.iterdir()) == [version, "collection.json"]


def race(urls: list[str]) -> None:
    """Several publishers and a reader at once: every state seen is a whole one."""
    runs = [(url, value, "nowhere") for url in urls for value in (2, 3, 4)]
    for url in urls:
        cd.publish(constant(1), url, **CONSTANT)
    done = threading.Event()
    seen: set[float] = set()

    def read() -> None:
        while not done.is_set():
            for url in urls:
                values = np.unique(cd.open_velocity(url)["velocity"].values)
                seen.add(float(values[0]) if len(values) == 1 else np.nan)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert set(killed(runs)) == {0}
    finally:
        done.set()
        reader.join()
    assert seen <= {1, 2, 3, 4}
    for url in urls:
        versions = cd.open_velocity(url).attrs["versions"]
        assert len(versions) == 4
        means = {
            float(cd.open_velocity(url, version=v)["velocity"].mean()) for v in versions
        }
        assert means == {1, 2, 3, 4}


@pytest.mark.slow
def test_publishers_do_not_lose_each_other(tmp_path: Path) -> None:
    race([str(tmp_path / "p")])


def test_in_a_bucket(
    product: xr.Dataset,
    url: Path,
    s3_of_all: s3_server.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3_of_all.use(monkeypatch)
    there = f"s3://{s3_server.BUCKET}/velocity/anatolia"
    version = cd.publish(product, there, **SMALL)
    here = cd.open_velocity(url)
    xr.testing.assert_identical(plain(cd.open_velocity(there)), plain(here))
    names = set(s3_server.objects(there))
    assert {"collection.json", f"{version}/item.json"} <= names
    assert f"{version}/velocity_up.tif" in names
    assert not any("publishing" in n for n in names)
    later = cd.publish(product, there, keep=1, cog=False, **SMALL)
    assert {n.split("/")[0] for n in s3_server.objects(there)} == {
        "collection.json",
        later,
    }


@pytest.mark.slow
def test_killed_publishers_to_a_bucket_show_nothing(
    s3_of_all: s3_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_of_all.use(monkeypatch)
    base = f"s3://{s3_server.BUCKET}/killed"
    check_killed({p: f"{base}/{p.replace(' ', '-')}" for p in POINTS})


@pytest.mark.slow
def test_publishers_to_a_bucket_do_not_lose_each_other(
    s3_of_all: s3_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_of_all.use(monkeypatch)
    race([f"s3://{s3_server.BUCKET}/race"])


# --- refusals ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.drop_vars("velocity_std"), "lacks velocity_std"),
        (lambda p: p.assign(speed=p["frame_count"]), "'speed', which is none of"),
        (lambda p: p.assign(velocity=p["velocity"][0]), "has dims"),
        (
            lambda p: p.assign(velocity=p["velocity"].assign_attrs(units="mm/yr")),
            "in 'mm/yr' and must be in 'm year-1'",
        ),
        (lambda p: p.assign_coords(component=["east", "down"]), "different ones of"),
        (lambda p: p.drop_vars("component"), "no coordinate 'component'"),
        (lambda p: p.drop_vars("spatial_ref").drop_attrs(), "no CRS"),
        (lambda p: p.isel(y=slice(None, None, -1)), "north-up"),
        (lambda p: p.assign_attrs(frames=[{"offset": np.float32(1)}]), "'frames'"),
        (lambda p: p.assign(first_date=p["frame_count"]), "must have the type"),
    ],
)
def test_what_is_no_product(
    product: xr.Dataset, tmp_path: Path, change: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        cd.publish(change(product), tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_places_that_hold_something_else(
    product: xr.Dataset, small_cube: Path, tmp_path: Path
) -> None:
    with pytest.raises(ProductError, match="holds something else"):
        cd.publish(product, small_cube)
    (tmp_path / "collection.json").write_text('{"type": "Collection"}')
    with pytest.raises(ProductError, match="is of something else"):
        cd.publish(product, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["collection.json"]
    with pytest.raises(ValueError, match="multiple of chunk"):
        cd.publish(product, tmp_path / "new", chunk=16, shard=40)
    assert not (tmp_path / "new" / "collection.json").exists()
