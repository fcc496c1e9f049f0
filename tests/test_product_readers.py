"""What is published is read by others, who know nothing of us."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pystac.validation
import pytest
import xarray as xr
from pyproj import Transformer
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from velocity_products import velocity_product

import cube_denoise as cd

SCHEMAS = Path(__file__).parent / "stac_schemas"
TO_DEGREES = Transformer.from_crs("EPSG:32635", "EPSG:4326", always_xy=True)


@pytest.fixture(scope="module")
def product() -> xr.Dataset:
    return velocity_product((60, 90), gaps=0.1)


@pytest.fixture(scope="module")
def folder(product: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the version."""
    url = tmp_path_factory.mktemp("published") / "p"
    return url / cd.publish(product, url, chunk=32, shard=32)


def place(product: xr.Dataset, row: int, column: int) -> tuple[float, float]:
    """Longitude and latitude of the centre of a pixel."""
    lon, lat = TO_DEGREES.transform(float(product.x[column]), float(product.y[row]))
    return lon, lat


def some_pixel(product: xr.Dataset) -> tuple[int, int]:
    """One with data and, so that a reader cannot be half a pixel off, no like it."""
    rows, columns = np.nonzero(np.isfinite(product["velocity"].values[0]))
    return int(rows[len(rows) // 2]), int(columns[len(rows) // 2])


# --- STAC ---


@pytest.fixture
def validator(monkeypatch: pytest.MonkeyPatch) -> JsonSchemaSTACValidator:
    """Against the schemas that pystac and the tests carry; nothing is fetched."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the network is asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = JsonSchemaSTACValidator()
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        uri = schema["$id"].rstrip("#")
        found.schema_cache[uri] = schema | {"$id": uri}
    return found


def test_stac_validates(folder: Path, validator: JsonSchemaSTACValidator) -> None:
    root = folder.parent / "collection.json"
    collection = pystac.Collection.from_file(str(root))
    (item,) = collection.get_items()
    for thing in (collection, item):
        checked = thing.validate(validator)
        names = [uri.split("/")[3] for uri in checked if "stac-extensions" in uri]
        assert {"datacube", "zarr"} <= set(names), checked
    assert "projection" in names
    assert item.get_parent().id == collection.id == "p"
    for asset in (*collection.assets.values(), *item.assets.values()):
        assert Path(asset.get_absolute_href()).exists()
    assert set(item.assets) == {
        "zarr",
        *(f"{n}_{c}" for n in ("velocity", "velocity_std") for c in ("east", "up")),
    }
    extent = collection.extent.temporal.intervals[0]
    assert [str(t)[:4] for t in extent] == ["2017", "2020"]


def test_the_schemas_refuse_what_is_wrong(
    folder: Path, validator: JsonSchemaSTACValidator
) -> None:
    """Each of them: a test of validity that cannot fail would be none."""
    told = json.loads((folder / "item.json").read_text())
    for change in (
        lambda d: d["properties"]["cube:dimensions"]["x"].pop("extent"),
        lambda d: d["properties"].update({"proj:shape": [1.5, 2]}),
        lambda d: d["assets"]["zarr"].update({"zarr:zarr_format": 4}),
        lambda d: d["properties"].pop("datetime"),
    ):
        wrong = json.loads(json.dumps(told))
        change(wrong)
        with pytest.raises(pystac.STACValidationError):
            pystac.validation.validate_dict(wrong, validator=validator)


# --- Zarr ---


def test_xarray_alone_reads_it(product: xr.Dataset, folder: Path) -> None:
    code = (
        "import sys, xarray\n"
        "root = xarray.open_zarr(sys.argv[1])\n"
        "assert not {'cube_denoise', 'icechunk'} & set(sys.modules)\n"
        "print(root.velocity.dtype, root.velocity.attrs['units'])\n"
        "print(float(root.velocity[1, 5, 7]), str(root.first_date.values[5, 7])[:10])\n"
    )
    store = str(folder / "velocity.zarr")
    run = [sys.executable, "-W", "error", "-c", code, store]
    out = subprocess.run(run, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    kind, values = out.stdout.splitlines()
    assert kind == "float32 m year-1"
    velocity, first = values.split()
    assert float(velocity) == float(product["velocity"][1, 5, 7])
    assert first == str(product["first_date"].values[5, 7])[:10]


def test_all_levels_open_at_once(product: xr.Dataset, folder: Path) -> None:
    found = xr.open_groups(folder / "velocity.zarr", engine="zarr")
    assert set(found) == {"/", "/1", "/2"}
    rows, columns = product.sizes["y"], product.sizes["x"]
    for k, name in enumerate(sorted(found)):
        shape = tuple(-(-n // 2**k) for n in (rows, columns))
        assert found[name]["velocity"].shape[1:] == shape


def test_rioxarray_knows_the_place(product: xr.Dataset, folder: Path) -> None:
    pytest.importorskip("rioxarray")
    for level in range(3):
        found = xr.open_zarr(
            folder / "velocity.zarr",
            group=str(level) if level else None,
            decode_coords="all",
        )
        assert found.rio.crs.to_epsg() == 32635
        step = 2**level
        affine = product.odc.geobox.affine
        assert found["velocity"].rio.transform() == type(affine)(
            affine.a * step, 0, affine.c, 0, affine.e * step, affine.f
        )


def test_conventions_are_found_by_their_uuids(folder: Path) -> None:
    told = json.loads((folder / "velocity.zarr" / "zarr.json").read_text())
    attributes = told["attributes"]
    uuids = {c["uuid"] for c in attributes["zarr_conventions"]}
    assert uuids == {
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "d35379db-88df-4056-af3a-620245f8e347",
    }
    layout = attributes["multiscales"]["layout"]
    assert [entry["asset"] for entry in layout] == ["/", "1", "2"]
    assert [entry.get("derived_from") for entry in layout] == [None, "/", "1"]
    inside = told["consolidated_metadata"]["metadata"]
    for entry in layout:  # as bowser does
        found = xr.open_zarr(folder / "velocity.zarr", group=entry["asset"])
        assert list(found["velocity"].shape[1:]) == entry["spatial:shape"]
    for entry in layout[1:]:
        assert entry["transform"]["scale"] == [2.0, 2.0]
        shape = inside[f"{entry['asset']}/velocity"]["shape"]
        assert entry["spatial:shape"] == shape[1:]
    velocity = inside["velocity"]
    assert velocity["dimension_names"] == ["component", "y", "x"]
    assert velocity["codecs"][0]["name"] == "sharding_indexed"


# --- odc-stac, titiler, bowser: where they are installed ---


def test_odc_stac_loads_it(product: xr.Dataset, folder: Path) -> None:
    odc_stac = pytest.importorskip("odc.stac", reason="odc-stac is not installed")
    item = pystac.Item.from_file(str(folder / "item.json"))
    item.make_asset_hrefs_absolute()
    found = odc_stac.load([item], bands=["velocity_up", "velocity_std_east"])
    assert found.odc.geobox == product.odc.geobox
    for name in ("velocity_up", "velocity_std_east"):
        variable, _, component = name.rpartition("_")
        expected = product[variable].sel(component=component)
        np.testing.assert_array_equal(found[name][0], expected)


@pytest.fixture
def web() -> Any:
    """Titiler in this process: COGs below /cog, Zarr below /zarr."""
    reason = "titiler.core and titiler.xarray are not installed"
    core = pytest.importorskip("titiler.core.factory", reason=reason)
    xarrays = pytest.importorskip("titiler.xarray.factory", reason=reason)
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app = FastAPI()
    app.include_router(core.TilerFactory(router_prefix="/cog").router, prefix="/cog")
    zarrs = xarrays.TilerFactory(router_prefix="/zarr").router
    app.include_router(zarrs, prefix="/zarr")
    with TestClient(app) as client:
        yield client


def test_titiler_gives_its_values(product: xr.Dataset, folder: Path, web: Any) -> None:
    row, column = some_pixel(product)
    lon, lat = place(product, row, column)
    expected = float(product["velocity"].sel(component="up")[row, column])
    cog = {"url": str(folder / "velocity_up.tif")}
    answer = web.get(f"/cog/point/{lon},{lat}", params=cog)
    assert answer.json()["values"] == pytest.approx([expected])
    zarr = {"url": str(folder / "velocity.zarr"), "variable": "velocity"}
    up = zarr | {"sel": "component=3"}
    answer = web.get(f"/zarr/point/{lon},{lat}", params=up)
    assert answer.status_code == 200, answer.text
    assert answer.json()["values"] == pytest.approx([expected])
    coarse = web.get(f"/zarr/point/{lon},{lat}", params=up | {"group": "1"})
    level = cd.open_velocity(folder.parent, level=1)["velocity"]
    mean = float(level.sel(component="up")[row // 2, column // 2])
    assert coarse.json()["values"] == pytest.approx([mean])


def test_titiler_gives_tiles(product: xr.Dataset, folder: Path, web: Any) -> None:
    import morecantile

    tms = morecantile.tms.get("WebMercatorQuad")
    tile = tms.tile(*place(product, 30, 45), 12)
    where = f"WebMercatorQuad/{tile.z}/{tile.x}/{tile.y}.png"
    shown = {"rescale": "-0.05,0.05"}
    for kind, options in (
        ("cog", {"url": str(folder / "velocity_up.tif")}),
        (
            "zarr",
            {
                "url": str(folder / "velocity.zarr"),
                "variable": "velocity",
                "sel": "component=3",
            },
        ),
    ):
        answer = web.get(f"/{kind}/tiles/{where}", params=options | shown)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        assert len(answer.content) > 1000
