"""Rasters of any grid land on the cube's; what cannot be read is told, not fatal."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cube_denoise import store
from cube_denoise.catalog import resolve, write_items
from cube_denoise.cluster import Workers
from cube_denoise.conventions import los_unit_vector
from cube_denoise.grid import grid_of
from cube_denoise.ingest import ingest, ingest_dataset
from cube_denoise.interferogram import Asset, Interferogram
from cube_denoise.pipeline import run
from cube_denoise.products import find_products

TARGET = GeoBox.from_bbox(
    (500_000, 1_990_000, 510_000, 2_000_000), crs="EPSG:32613", resolution=80
)  # 125 x 125
START = datetime(2020, 1, 1, 5, tzinfo=UTC)
Field = Callable[[np.ndarray, np.ndarray], np.ndarray]

OTHERS = {
    "same": TARGET,
    "whole pixels off": GeoBox(
        (130, 128), Affine(80, 0, 499_760, 0, -80, 2_000_160), "EPSG:32613"
    ),
    "part of a pixel off": GeoBox(
        (130, 131), Affine(80, 0, 499_777, 0, -80, 2_000_123), "EPSG:32613"
    ),
    "finer": GeoBox(
        (340, 340), Affine(30, 0, 499_955, 0, -30, 2_000_075), "EPSG:32613"
    ),
    "south up": GeoBox(
        (130, 131), Affine(80, 0, 499_777, 0, 80, 1_989_777), "EPSG:32613"
    ),
    "degrees": GeoBox.from_bbox(
        (-105.01, 17.98, -104.89, 18.10), crs="EPSG:4326", resolution=0.0008
    ),
    "next zone": GeoBox.from_bbox(
        (-137_500, 1_999_000, -124_000, 2_011_500), crs="EPSG:32614", resolution=80
    ),
}


def plane(east: np.ndarray, north: np.ndarray) -> np.ndarray:
    """Phase, rad: 0.08 and 0.16 per pixel of the cube."""
    return (east - 505_000) * 1e-3 - (north - 1_995_000) * 2e-3 + 7


def half(east: np.ndarray, north: np.ndarray) -> np.ndarray:
    return 0 * east + 0.5


def constant(value: float) -> Field:
    return lambda east, north: 0 * east + value


def centres(grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """East and north of the pixels in EPSG:32613, m."""
    column, row = np.meshgrid(*(np.arange(n) + 0.5 for n in grid.shape[::-1]))
    a = grid.affine
    x, y = a.c + a.a * column + a.b * row, a.f + a.d * column + a.e * row
    return Transformer.from_crs(str(grid.crs), "EPSG:32613", always_xy=True).transform(
        x, y
    )


def write(path: Path, grid: GeoBox, field: Field, **profile: Any) -> Path:
    values = field(*centres(grid)).astype("float32")
    profile = {
        "crs": str(grid.crs),
        "transform": grid.affine,
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
    } | profile
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=grid.shape[0],
        width=grid.shape[1],
        count=1,
        dtype="float32",
        **profile,
    ) as target:
        target.write(values, 1)
    return path


def make(
    folder: Path,
    k: int = 0,
    grid: GeoBox = TARGET,
    *,
    phase: Field = plane,
    coherence: Field = half,
    nodata: float | None = None,
    **fields: Any,
) -> Interferogram:
    """Pair number `k` with its two rasters in `folder`."""
    layers = {"unwrapped_phase": phase, "coherence": coherence}
    units = {"unwrapped_phase": "rad", "coherence": "1"}
    assets = {
        role: Asset(
            str(write(folder / f"{k}-{role}.tif", grid, field)),
            role,
            units[role],
            nodata,
        )
        for role, field in layers.items()
    }
    options: dict[str, Any] = {
        "id": f"item-{k}",
        "reference_time": START + timedelta(12 * k),
        "secondary_time": START + timedelta(12 * k + 12),
        "track": "A005",
        "wavelength": 0.0555,
        "perpendicular_baseline": 10.0 * k,
        "crs": str(grid.crs),
        "shape": tuple(grid.shape),
        "transform": tuple(grid.affine)[:6],
        "phase_sign": 1,
        "incidence_angle": 39.0,
        "heading": -12.0,
        "assets": assets,
    }
    return Interferogram(**(options | fields))


def phase_of(url: Path, k: int = 0) -> np.ndarray:
    return store.open_cube(url)["unwrapped_phase"][k].values


# --- where things land -----------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
def test_a_warped_plane_is_the_plane(tmp_path: Path, name: str) -> None:
    item = make(tmp_path, grid=OTHERS[name])
    report = ingest([item], tmp_path / "cube", grid=TARGET, chunk=32, shard=64)
    assert (report.added, report.failed) == (1, {})
    found = phase_of(tmp_path / "cube")
    assert np.isfinite(found).all()
    # A thousandth of a pixel; where finer pixels are averaged, a twentieth of those.
    tolerance = 0.05 * (0.03 + 0.06) if name == "finer" else 2e-4
    np.testing.assert_allclose(found, plane(*centres(TARGET)), atol=tolerance)


@pytest.mark.parametrize(
    "name",
    [
        "part of a pixel off",
        pytest.param("degrees", marks=pytest.mark.slow),
        "next zone",
    ],
)
def test_the_block_that_is_read_does_not_matter(tmp_path: Path, name: str) -> None:
    def rough(east: np.ndarray, north: np.ndarray) -> np.ndarray:
        values = 5 * np.sin(east / 150) * np.cos(north / 110)
        return np.where((east + north) % 3000 < 300, np.nan, values)

    item = make(tmp_path, grid=OTHERS[name], phase=rough)
    found = []
    for shard in (16, 48, 1024):
        url = tmp_path / f"cube-{shard}"
        ingest([item], url, grid=TARGET, chunk=16 if shard < 1024 else 64, shard=shard)
        found.append(phase_of(url))
    assert 0.01 < np.isnan(found[0]).mean() < 0.5
    for other in found[1:]:
        np.testing.assert_array_equal(np.isnan(other), np.isnan(found[0]))
        np.testing.assert_allclose(other, found[0], atol=2e-3)


def test_beyond_a_raster_there_is_no_data(tmp_path: Path) -> None:
    """Whether or not the raster has a value for that."""
    small = GeoBox((50, 40), Affine(80, 0, 502_400, 0, -80, 1_998_400), "EPSG:32613")
    for k, nodata in enumerate((None, 0.0, -9999.0)):
        item = make(tmp_path, k, small, nodata=nodata)
        url = tmp_path / f"cube-{k}"
        ingest([item], url, grid=TARGET, chunk=32, shard=32)
        inside = np.zeros(TARGET.shape, bool)
        inside[20:70, 30:70] = True
        found = phase_of(url)
        np.testing.assert_array_equal(np.isfinite(found), inside)
        np.testing.assert_allclose(
            found[inside], plane(*centres(TARGET))[inside], atol=1e-5
        )
        cube = store.open_cube(url)
        assert float(cube["valid_fraction"][0]) == pytest.approx(inside.mean())


def test_nodata_does_not_bleed_into_neighbours(tmp_path: Path) -> None:
    """-9999 beside data is missing, never averaged into a phase."""

    def holed(east: np.ndarray, north: np.ndarray) -> np.ndarray:
        return np.where(
            (east // 400 + north // 400) % 5 == 0, -9999.0, plane(east, north)
        )

    item = make(tmp_path, grid=OTHERS["degrees"], phase=holed, nodata=-9999.0)
    ingest([item], tmp_path / "cube", grid=TARGET, chunk=64, shard=64)
    found, expected = phase_of(tmp_path / "cube"), plane(*centres(TARGET))
    valid = np.isfinite(found)
    assert 0.5 < valid.mean() < 0.95
    # One-sided interpolation may shift by half a pixel, not more.
    assert np.abs(found - expected)[valid].max() < 0.25


def test_grid_of_a_new_cube_is_that_of_the_items(tmp_path: Path) -> None:
    other = OTHERS["whole pixels off"]
    ingest([make(tmp_path, 0), make(tmp_path, 1, other)], tmp_path / "cube")
    grid = grid_of(store.open_cube(tmp_path / "cube").attrs)
    assert grid.boundingbox == (TARGET | other).boundingbox
    assert np.isnan(phase_of(tmp_path / "cube", 0)).any()
    assert np.isfinite(phase_of(tmp_path / "cube", 1)).mean() > 0.99


def test_sign_and_order(tmp_path: Path) -> None:
    items = [
        make(tmp_path, 1, phase=lambda e, n: -plane(e, n), phase_sign=-1),
        make(tmp_path, 0),
    ]
    ingest(items, tmp_path / "cube", grid=TARGET)
    cube = store.open_cube(tmp_path / "cube").load()
    for k in (0, 1):
        np.testing.assert_allclose(
            cube["unwrapped_phase"][k], plane(*centres(TARGET)), atol=1e-5
        )
    assert cube["reference_time"].values[0] == np.datetime64("2020-01-01T05:00:00")
    assert cube["secondary_time"].values[1] == np.datetime64("2020-01-25T05:00:00")
    np.testing.assert_array_equal(cube["perpendicular_baseline"], [0, 10])


def test_summaries_are_of_the_whole_pair(tmp_path: Path) -> None:
    ingest([make(tmp_path)], tmp_path / "cube", grid=TARGET, chunk=32, shard=32)
    cube = store.open_cube(tmp_path / "cube").load()
    np.testing.assert_allclose(
        cube["phase_quantiles"][0],
        np.quantile(cube["unwrapped_phase"][0], cube["quantile"]),
        rtol=1e-5,
    )
    assert float(cube["valid_fraction"][0]) == 1


# --- static layers ---------------------------------------------------------------


def with_layer(item: Interferogram, role: str, path: Path) -> Interferogram:
    unit = "m" if role == "elevation" else "rad"
    return replace(
        item, assets={**item.assets, role: Asset(str(path), role, unit, None)}
    )


def test_look_vectors_from_angles_and_from_rasters(tmp_path: Path) -> None:
    east, north, up = los_unit_vector(39.0, -12.0)
    angles = make(tmp_path, 0)
    rasters = replace(angles, incidence_angle=None, heading=None)
    for role, value in (
        ("look_elevation", np.arcsin(up)),
        ("look_orientation", np.arctan2(north, east)),
    ):
        path = write(tmp_path / f"{role}.tif", TARGET, constant(value))
        rasters = with_layer(rasters, role, path)
    for item, name in ((angles, "a"), (rasters, "b")):
        ingest([item], tmp_path / name, grid=TARGET, shard=64, chunk=64)
        cube = store.open_cube(tmp_path / name)
        for layer, value in (("los_east", east), ("los_north", north), ("los_up", up)):
            np.testing.assert_allclose(cube[layer].values, value, atol=1e-6)


def test_elevation_of_the_first_item_that_can_give_it(tmp_path: Path) -> None:
    dem = write(tmp_path / "dem.tif", OTHERS["part of a pixel off"], plane)
    items = [
        with_layer(make(tmp_path, 0), "elevation", tmp_path / "not-there.tif"),
        with_layer(make(tmp_path, 1), "elevation", dem),
    ]
    report = ingest(items, tmp_path / "cube", grid=TARGET, shard=64, chunk=64)
    assert report.added == 2
    found = store.open_cube(tmp_path / "cube")["elevation"].values
    np.testing.assert_allclose(found, plane(*centres(TARGET)), atol=1e-3)


def test_without_a_readable_dem_the_pairs_go_in(tmp_path: Path) -> None:
    item = with_layer(make(tmp_path, 0), "elevation", tmp_path / "not-there.tif")
    report = ingest([item], tmp_path / "cube", grid=TARGET, shard=64, chunk=64)
    assert (report.added, report.failed) == (1, {})
    assert "elevation" not in store.open_cube(tmp_path / "cube")


# --- what cannot be read ---------------------------------------------------------


def truncate(item: Interferogram, role: str = "unwrapped_phase") -> None:
    path = Path(item.assets[role].href)
    path.write_bytes(path.read_bytes()[:20_000])


def test_failing_pairs_are_recorded_and_the_rest_goes_in(tmp_path: Path) -> None:
    def eight_bit(east: np.ndarray, north: np.ndarray) -> np.ndarray:
        return 0 * east + 127

    def nothing(east: np.ndarray, north: np.ndarray) -> np.ndarray:
        return east * np.nan

    far = GeoBox((20, 20), Affine(80, 0, 700_000, 0, -80, 2_000_000), "EPSG:32613")
    items = [make(tmp_path, k) for k in range(9)]
    truncate(items[0])
    truncate(items[2], "coherence")
    Path(items[3].assets["unwrapped_phase"].href).unlink()
    items[4] = make(tmp_path, 4, coherence=eight_bit)
    items[5] = make(tmp_path, 5, far)
    items[6] = make(tmp_path, 6, phase=nothing)
    for k, crs in ((7, None), (8, 'LOCAL_CS["here",UNIT["metre",1]]')):
        for role in ("unwrapped_phase", "coherence"):
            Path(items[k].assets[role].href).unlink()
            write(Path(items[k].assets[role].href), TARGET, plane, crs=crs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = ingest(items, tmp_path / "cube", grid=TARGET, chunk=32, shard=32)
    assert report.added == 1
    reasons = {int(name.split("-")[1]): why for name, why in report.failed.items()}
    assert sorted(reasons) == [0, 2, 3, 4, 5, 6, 7, 8]
    assert all(reasons.values())
    assert all("\n" not in why for why in reasons.values())
    assert "0-unwrapped_phase.tif" in reasons[0]
    assert "2-coherence.tif" in reasons[2]
    assert "3-unwrapped_phase.tif" in reasons[3]
    assert "127: must be 0 to 1" in reasons[4]
    assert "no valid pixel" in reasons[5]
    assert "no valid pixel" in reasons[6]
    assert "has no CRS" in reasons[7]
    cube = store.open_cube(tmp_path / "cube").load()
    assert cube.sizes["pair"] == 1
    assert cube.attrs["items"][0]["id"] == "item-1"
    assert {f["id"]: f["reason"] for f in cube.attrs["failed"]} == report.failed
    np.testing.assert_allclose(
        cube["unwrapped_phase"][0], plane(*centres(TARGET)), atol=1e-5
    )
    np.testing.assert_array_equal(cube["coherence"], 0.5)
    assert cube["reference_time"].values[0] == np.datetime64("2020-01-13T05:00:00")


def test_a_mended_pair_goes_in_at_the_second_run(tmp_path: Path) -> None:
    items = [make(tmp_path, k) for k in range(3)]
    truncate(items[0])
    first = ingest(items, tmp_path / "cube", grid=TARGET, chunk=32, shard=64)
    assert (first.added, list(first.failed)) == (2, ["item-0"])
    again = ingest(items, tmp_path / "cube")
    assert (again.added, again.present, list(again.failed)) == (0, 2, ["item-0"])
    make(tmp_path, 0)
    mended = ingest(items, tmp_path / "cube")
    assert (mended.added, mended.present, mended.failed) == (1, 2, {})
    cube = store.open_cube(tmp_path / "cube")
    assert [i["id"] for i in cube.attrs["items"]] == ["item-1", "item-2", "item-0"]
    assert cube.attrs["failed"] == []


def test_second_run_reads_nothing_and_changes_nothing(tmp_path: Path) -> None:
    items = [make(tmp_path, k) for k in range(2)]
    ingest(items, tmp_path / "cube", grid=TARGET, chunk=32, shard=64)
    tip = store.open_repository(tmp_path / "cube").lookup_branch("main")
    for item in items:
        for asset in item.assets.values():
            Path(asset.href).unlink()
    report = ingest(items, tmp_path / "cube")
    assert (report.added, report.present, report.failed) == (0, 2, {})
    assert store.open_repository(tmp_path / "cube").lookup_branch("main") == tip


def test_append_equals_rebuild(tmp_path: Path) -> None:
    items = [make(tmp_path, k, phase=constant(k)) for k in range(4)]
    ingest(items, tmp_path / "once", grid=TARGET, chunk=32, shard=64)
    for item in items:
        ingest([item], tmp_path / "grown", grid=TARGET, chunk=32, shard=64)
    once, grown = (store.open_cube(tmp_path / n).load() for n in ("once", "grown"))
    xr.testing.assert_identical(
        once.drop_attrs(deep=False), grown.drop_attrs(deep=False)
    )
    assert once.attrs["items"] == grown.attrs["items"]


# --- what is refused -------------------------------------------------------------


def test_nothing_to_ingest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="items is empty"):
        ingest([], tmp_path / "cube")
    assert not (tmp_path / "cube").exists()


def test_mixed_tracks_and_wavelengths_are_refused(tmp_path: Path) -> None:
    one = make(tmp_path, 0)
    for other, message in (
        (replace(make(tmp_path, 1), track="D012"), "tracks.*A005.*D012"),
        (replace(make(tmp_path, 1), wavelength=0.24), "mix wavelengths"),
    ):
        with pytest.raises(ValueError, match=message):
            ingest([one, other], tmp_path / "cube")
        assert not (tmp_path / "cube").exists()
    ingest([one], tmp_path / "cube")
    before = store.open_repository(tmp_path / "cube").lookup_branch("main")
    for other, message in (
        (replace(make(tmp_path, 1), track="D012"), "of track D012 and .* A005"),
        (replace(make(tmp_path, 1), wavelength=0.24), "wavelength 0.24 m and"),
    ):
        with pytest.raises(ValueError, match=message):
            ingest([other], tmp_path / "cube")
    with pytest.raises(ValueError, match="differs from that of"):
        ingest([make(tmp_path, 1)], tmp_path / "cube", grid=OTHERS["finer"])
    assert store.open_repository(tmp_path / "cube").lookup_branch("main") == before


def test_duplicates_are_resolved_with_a_warning(tmp_path: Path) -> None:
    old = make(tmp_path, 0, phase=constant(1), id="pair-v1")
    (tmp_path / "new").mkdir()
    new = make(tmp_path / "new", 0, phase=constant(2), id="pair-v2")
    with pytest.warns(UserWarning, match=r"found 2 times: kept 'pair-v2'"):
        ingest([new, old], tmp_path / "cube", grid=TARGET)
    np.testing.assert_array_equal(phase_of(tmp_path / "cube"), 2)


# --- products and datasets -------------------------------------------------------


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_products_arrive_as_simulated(
    product_folder: Path, stack: xr.Dataset, tmp_path: Path, workers: str
) -> None:
    """The same by threads and by processes, through the door of a user."""
    items = resolve(find_products(product_folder)[0])
    report = ingest(
        items, tmp_path / "cube", workers=Workers(workers, count=2), chunk=32, shard=64
    )
    assert report.added == stack.sizes["pair"]
    cube = store.open_cube(tmp_path / "cube").load()
    order = np.lexsort((stack["secondary_time"], stack["reference_time"]))
    truth = stack.isel(pair=order)
    for name in ("unwrapped_phase", "coherence", "elevation", "los_up", "los_east"):
        np.testing.assert_allclose(cube[name], truth[name], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(cube["reference_time"], truth["reference_time"])


def test_dataset_of_another_grid_track_or_wavelength_is_refused(
    stack: xr.Dataset, make_cube: Callable[..., Path]
) -> None:
    url = make_cube(stack.isel(pair=[0, 1]))
    for other, message in (
        (stack.isel(x=slice(0, 50)), "the grid of dataset, 96 x 50"),
        (stack.assign_attrs(track="A006"), "of track A006"),
        (stack.assign_attrs(wavelength=0.24), "wavelength 0.24 m"),
        (stack.isel(pair=[2, 2]), "more than once"),
        (stack.drop_vars("reference_time"), "no variable 'reference_time'"),
        (stack.drop_attrs(deep=False), "no 'wavelength'"),
    ):
        with pytest.raises(ValueError, match=message):
            ingest_dataset(other, url)
    assert store.open_cube(url).sizes["pair"] == 2


def test_dataset_may_be_transposed_and_is_appended(
    stack: xr.Dataset, make_cube: Callable[..., Path]
) -> None:
    url = make_cube(stack.isel(pair=[0, 1]))
    report = ingest_dataset(stack.transpose("x", "pair", "y"), url)
    assert (report.added, report.present) == (stack.sizes["pair"] - 2, 2)
    np.testing.assert_array_equal(
        store.open_cube(url)["unwrapped_phase"], stack["unwrapped_phase"]
    )


def test_pairs_of_a_branch_are_known_there(
    stack: xr.Dataset, make_cube: Callable[..., Path]
) -> None:
    url = make_cube(stack.isel(pair=[0, 1]))
    for added in (1, 0):
        report = ingest_dataset(stack.isel(pair=[0, 1, 2]), url, branch="trial")
        assert report.added == added
    assert store.open_cube(url).sizes["pair"] == 2
    assert store.open_cube(url, branch="trial").sizes["pair"] == 3


def test_a_job_takes_new_items_onto_the_grid_it_began_with(tmp_path: Path) -> None:
    """The next month's products lie further out; the cube keeps its grid."""
    further = GeoBox(
        (160, 150), Affine(80, 0, 499_200, 0, -80, 2_000_800), "EPSG:32613"
    )
    items = [make(tmp_path, 0), make(tmp_path, 1, further)]
    job: dict[str, Any] = {
        "source": str(tmp_path / "items.json"),
        "cube": str(tmp_path / "cube"),
        "grid": {"resolution": 160.0},
        "workers": 1,
    }
    for count in (1, 2):
        write_items(items[:count], job["source"])
        report = run(job)
        assert (report.ingest.added, report.ingest.present) == (1, count - 1)
    cube = store.open_cube(tmp_path / "cube")
    assert cube.sizes["pair"] == 2
    assert grid_of(cube.attrs).resolution.x == 160


def test_a_job_with_another_grid_leaves_the_cube(tmp_path: Path) -> None:
    job: dict[str, Any] = {
        "source": str(tmp_path / "items.json"),
        "cube": str(tmp_path / "cube"),
        "grid": {"resolution": 160.0},
        "workers": 1,
    }
    write_items([make(tmp_path, 0)], job["source"])
    run(job)
    write_items([make(tmp_path, k) for k in (0, 1)], job["source"])
    before = store.open_repository(job["cube"]).lookup_branch("main")
    with pytest.raises(ValueError, match=r"differs from the cube .* at 160: make"):
        run({**job, "grid": {"resolution": 80.0}})
    repository = store.open_repository(job["cube"])
    assert repository.lookup_branch("main") == before
    assert set(repository.list_branches()) == {"main"}
