"""An archive of frames: valid STAC, whole items, many writers, one family of grids."""

import copy
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  (the .odc accessor)
import pystac
import pytest
import s3_server
import xarray as xr
from pyproj import Transformer
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from cube_denoise import archive, store
from cube_denoise.archive import ArchivedFrame
from cube_denoise.grid import grid_of, is_anchored, regular_grid
from cube_denoise.json_objects import JsonObjects, ObjectChangedError, below, join

SCHEMAS = Path(__file__).parent / "stac_schemas"


@pytest.fixture(params=["disk", "bucket"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Nothing yet, on disk or in a bucket."""
    if request.param == "disk":
        return str(tmp_path / "archive")
    server = request.getfixturevalue("s3_of_all")
    server.use(monkeypatch)
    return f"s3://{s3_server.BUCKET}/{tmp_path.name}/archive"


def together(count: int, act: Callable[[int], None]) -> None:
    """Do something many times at once."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            act(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# --- small objects ---------------------------------------------------------------


def test_no_writer_undoes_another(place: str) -> None:
    objects = JsonObjects(place)

    def count(_: int) -> None:
        for _ in range(5):
            objects.change("a/n.json", lambda d: {"n": d["n"] + 1 if d else 1})

    together(4, count)
    found = objects.read("a/n.json")
    assert found is not None and found.data == {"n": 20}
    assert list(objects.names("a")) == ["a/n.json"]
    objects.replace("a/n.json", {"n": 1}, before=found)
    for before in (found, None):
        with pytest.raises(ObjectChangedError):
            objects.replace("a/n.json", {"n": 2}, before=before)
    now = objects.read("a/n.json")
    assert now is not None and now.data == {"n": 1}
    assert objects.read("a/none.json") is None
    assert not objects.is_empty()
    assert JsonObjects(join(place, "b")).is_empty()


def test_places_below_others(tmp_path: Path) -> None:
    bucket = "s3://b/top?endpoint=http://host:1"
    assert join(bucket, "x/y") == "s3://b/top/x/y?endpoint=http://host:1"
    assert below(bucket, join(bucket, "x/y")) == "x/y"
    assert below(bucket, "s3://b/top/x/y") is None, "another endpoint"
    assert below("s3://b/top", "s3://b/topmost/x") is None
    assert below(tmp_path, tmp_path / "x" / "y") == "x/y"
    assert below(tmp_path, tmp_path) is None


# --- the archive -----------------------------------------------------------------


def listed(place: str) -> list[str]:
    found = JsonObjects(place).read("collection.json")
    assert found is not None
    links = found.data["links"]
    return sorted(x["href"] for x in links if x["rel"] == "item")


def test_many_writers(place: str, small_cube: Path) -> None:
    """Each adds frames of its own; in the end all are listed, once."""
    names = [f"frame-{k}" for k in range(12)]

    def write(k: int) -> None:
        for name in names[k::4]:
            archive.add(place, name, small_cube)

    together(4, write)
    assert listed(place) == sorted(f"./items/{name}.json" for name in names)
    assert [f.name for f in archive.frames(place)] == sorted(names)


def test_an_item_that_a_killed_writer_did_not_list(
    tmp_path: Path, small_cube: Path
) -> None:
    place = str(tmp_path / "archive")
    archive.add(place, "one", small_cube)
    archive.write_item(place, "two", small_cube)
    assert listed(place) == ["./items/one.json"]
    assert [f.name for f in archive.frames(place)] == ["one", "two"]
    archive.add(place, "three", small_cube)
    assert len(listed(place)) == 3


def test_stac_that_others_read(make_cube: Callable[..., Path], tmp_path: Path) -> None:
    """Valid, with the extensions' fields, and it may be moved as a whole."""
    place, elsewhere = tmp_path / "archive", make_cube()
    archive.make(place)
    inside = Path(archive.cube_place(place, "inside"))
    shutil.copytree(elsewhere, inside)
    archive.add(place, "inside", inside)
    archive.add(place, "elsewhere", elsewhere)
    place = Path(shutil.move(place, tmp_path / "moved"))
    root = pystac.Collection.from_file(str(place / "collection.json"))
    validator = JsonSchemaSTACValidator()
    found = {item.id: item for item in root.get_items()}
    assert set(found) == {"inside", "elsewhere"}
    for thing, kind in ((root, "COLLECTION"), *((i, "ITEM") for i in found.values())):
        told = copy.deepcopy(thing.to_dict(include_self_link=False))
        validator.validate_core(told, pystac.STACObjectType[kind], "1.1.0")
        if kind == "ITEM":
            (uri,) = (u for u in told["stac_extensions"] if "projection" in u)
            schema = json.loads((SCHEMAS / "projection-v2.0.0.json").read_text())
            validator.schema_cache[uri] = schema | {"$id": uri}
            validator.validate_extension(told, pystac.STACObjectType.ITEM, "1.1.0", uri)
            told["properties"]["proj:shape"] = [1.5, 2]
            with pytest.raises(pystac.STACValidationError):
                item = pystac.STACObjectType.ITEM
                validator.validate_extension(told, item, "1.1.0", uri)
    cube = store.open_cube(elsewhere)
    for name, item in found.items():
        url = item.assets["cube"].get_absolute_href()
        assert url is not None
        opened = store.open_cube(url.removeprefix("file://"))
        assert opened.identical(cube)
        sat = pystac.extensions.sat.SatExtension.ext(item)
        projection = pystac.extensions.projection.ProjectionExtension.ext(item)
        assert (sat.orbit_state, sat.relative_orbit) == orbit(cube)
        assert projection.shape == [cube.sizes["y"], cube.sizes["x"]]
        assert projection.epsg == cube.odc.crs.epsg
        assert item.collection_id == root.id, name
        begin = np.datetime64(item.properties["start_datetime"].removesuffix("Z"))
        assert begin == cube["reference_time"].values.min()
    frames = {f.name: f for f in archive.frames(place)}
    assert frames["inside"].url == str(place / "cubes" / "inside")
    assert frames["elsewhere"].url == str(elsewhere)
    for frame in frames.values():
        assert frame.snapshot == store.newest(elsewhere)[0]
        check_frame(frame, cube)
    assert root.extent.spatial.bboxes == [list(frames["inside"].bbox)]
    (interval,) = root.extent.temporal.intervals
    assert interval[1] is not None
    last = np.datetime64(interval[1].replace(tzinfo=None))
    assert last == cube["secondary_time"].values.max()


def test_a_frame_across_the_antimeridian(
    stack: xr.Dataset, make_cube: Callable[..., Path], tmp_path: Path
) -> None:
    moved = stack.assign_coords(x=stack.x - stack.x[0] + 285e3)
    moved = moved.assign_coords(y=stack.y - stack.y[0] + 5.6e6)
    place = tmp_path / "archive"
    archive.add(place, "one", make_cube(moved.odc.assign_crs("EPSG:32601")))
    (frame,) = archive.frames(place)
    west, south, east, north = frame.bbox
    assert 179 < west < 180 and -180 < east < -179 and south < north
    item = JsonObjects(place).read("items/one.json")
    collection = JsonObjects(place).read("collection.json")
    assert item is not None and collection is not None
    assert item.data["geometry"]["type"] == "MultiPolygon"
    assert collection.data["extent"]["spatial"]["bbox"] == [list(frame.bbox)]


def orbit(cube: Any) -> tuple[str, int]:
    states = {"A": "ascending", "D": "descending"}
    return states[cube.attrs["track"][0]], int(cube.attrs["track"][1:])


def check_frame(frame: ArchivedFrame, cube: Any) -> None:
    """Bounds by the outer edges of the pixels, all around."""
    x, y = cube["x"].values, cube["y"].values
    half = abs(x[1] - x[0]) / 2
    west, east, south, north = x.min() - half, x.max() + half, y.min() - half, y.max()
    north += half
    across, along = np.linspace(west, east, 50), np.linspace(south, north, 50)
    edge_x = np.r_[across, across, np.full(50, west), np.full(50, east)]
    edge_y = np.r_[np.full(50, south), np.full(50, north), along, along]
    to_degrees = Transformer.from_crs(cube.odc.crs.proj, 4326, always_xy=True)
    lon, lat = to_degrees.transform(edge_x, edge_y)
    wanted = [lon.min(), lat.min(), lon.max(), lat.max()]
    np.testing.assert_allclose(frame.bbox, wanted, rtol=0, atol=1e-6)
    assert frame.track == cube.attrs["track"]


def test_an_empty_archive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no archive of frames"):
        archive.frames(tmp_path / "archive")
    archive.make(tmp_path / "archive")
    archive.make(tmp_path / "archive")
    assert archive.frames(tmp_path / "archive") == []
    told = json.loads((tmp_path / "archive" / "collection.json").read_text())
    validator = JsonSchemaSTACValidator()
    validator.validate_core(told, pystac.STACObjectType.COLLECTION, "1.1.0")
    with pytest.raises(ValueError, match=r"name='\.\./x' of a frame"):
        archive.add(tmp_path / "archive", "../x", tmp_path)
    with pytest.raises(ValueError, match="there is no cube"):
        archive.add(tmp_path / "archive", "x", tmp_path / "none")
    assert archive.frames(tmp_path / "archive") == []


def test_what_a_writer_killed_at_the_first_object_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def killed(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    place = tmp_path / "archive"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            archive.make(place)
    (left,) = place.iterdir()
    assert left.name.endswith(".part")
    archive.make(place)
    assert archive.frames(place) == []


# --- one family of grids ---------------------------------------------------------


@pytest.mark.parametrize(
    ("crs", "size", "origins"),
    [
        ("EPSG:32613", 80.0, [(500_013.0, 2_000_037.0), (511_111.5, 1_999_999.0)]),
        ("EPSG:4326", 0.001, [(-105.00037, 18.09021), (-104.9, 18.0)]),
    ],
)
def test_anchored_grids_share_pixel_edges(
    crs: str, size: float, origins: list[tuple[float, float]]
) -> None:
    rasters = [(crs, (50, 60), (size, 0.0, x, 0.0, -size, y)) for x, y in origins]
    for raster, (x, y) in zip(rasters, origins, strict=True):
        grid = regular_grid([raster], anchored=True)
        a = grid.affine
        assert (a.a, a.e) == (size, -size)
        for edge in (a.c / size, a.f / size):
            assert abs(edge - round(edge)) < 1e-6
        assert a.c <= x + 1e-9 and a.f >= y - 1e-9
        assert a.c + grid.shape[1] * size >= x + 60 * size - 1e-9
        assert a.f - grid.shape[0] * size <= y - 50 * size + 1e-9
        assert x - a.c < size and a.f - y < size
        assert is_anchored(grid)
    assert not is_anchored(regular_grid(rasters[:1]))


def test_a_cube_off_the_family_is_told(
    small_cube: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    on_edges = is_anchored(grid_of(store.open_cube(small_cube).attrs))
    archive.add(tmp_path / "archive", "one", small_cube)
    assert ("not at multiples" in caplog.text) == (not on_edges)
