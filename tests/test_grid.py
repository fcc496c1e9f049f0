"""The fixed grid: snapping, cutting, and what the file says of it."""

import json
from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from cube_denoise.grid import grid_of, regular_grid, zarr_attributes

UTM = ("EPSG:32613", (50, 60), (80.0, 0.0, 500_013.0, 0.0, -80.0, 2_000_037.0))
DEGREES = ("EPSG:4326", (90, 120), (0.001, 0.0, -105.0, 0.0, -0.001, 18.09))


def edges(grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixel edges: x, y."""
    a = grid.affine
    return (
        a.c + a.a * np.arange(grid.shape[1] + 1),
        a.f + a.e * np.arange(grid.shape[0] + 1),
    )


@pytest.mark.parametrize("footprint", [UTM, DEGREES])
def test_one_raster_keeps_its_own_grid(footprint: Any) -> None:
    crs, shape, transform = footprint
    assert regular_grid([footprint]) == GeoBox(shape, Affine(*transform), crs)


def test_union_covers_all_rasters_on_the_edges_of_the_first() -> None:
    crs, shape, t = UTM
    shifted = (crs, shape, (80.0, 0.0, t[2] + 1000, 0.0, -80.0, t[5] - 777))
    grid = regular_grid([UTM, shifted])
    bounds = grid.boundingbox
    assert bounds.left == t[2]
    assert bounds.top == t[5]
    assert t[2] + 1000 + 60 * 80 <= bounds.right < t[2] + 1000 + 61 * 80
    assert t[5] - 777 - 51 * 80 < bounds.bottom <= t[5] - 777 - 50 * 80
    assert (grid.affine.a, grid.affine.e) == (80, -80)


def test_coarser_grid_falls_on_multiples_of_the_resolution() -> None:
    grid = regular_grid([UTM], resolution=200)
    for line in edges(grid):
        np.testing.assert_array_equal(line % 200, 0)
    own, found = GeoBox(UTM[1], Affine(*UTM[2]), UTM[0]).boundingbox, grid.boundingbox
    assert found.left <= own.left < found.left + 200
    assert found.top - 200 < own.top <= found.top


@pytest.mark.parametrize("resolution", [None, 100.0])
def test_neighbouring_boxes_share_edges(resolution: float | None) -> None:
    """Grids cut from the same rasters lie on one lattice, and meet or overlap."""
    west = regular_grid(
        [UTM], bbox=(-104.995, 17.9, -104.98, 18.1), resolution=resolution
    )
    east = regular_grid(
        [UTM], bbox=(-104.98, 17.9, -104.96, 18.1), resolution=resolution
    )
    step = west.affine.a
    shift = (east.affine.c - west.affine.c) / step
    assert shift == pytest.approx(round(shift), abs=1e-9)
    assert east.boundingbox.left <= west.boundingbox.right
    assert west.boundingbox.right - east.boundingbox.left < 10 * step
    assert west.shape[1] < UTM[1][1]


def test_bbox_is_covered_and_no_more_than_a_pixel_larger() -> None:
    box = (-104.95, 18.02, -104.9, 18.05)
    grid = regular_grid([DEGREES], bbox=box)
    found = grid.boundingbox
    for got, wanted, outward in zip(
        (found.left, found.bottom, found.right, found.top),
        box,
        (-1, -1, 1, 1),
        strict=True,
    ):
        assert -1e-6 <= outward * (got - wanted) < 0.001
    assert grid.crs == "EPSG:4326"


def test_bbox_larger_than_the_rasters_is_cut_to_them() -> None:
    assert regular_grid([UTM], bbox=(-110, 10, -100, 20)) == regular_grid([UTM])


def test_another_crs_covers_the_rasters() -> None:
    grid = regular_grid([UTM], crs="EPSG:4326", resolution=0.001)
    assert grid.crs == "EPSG:4326"
    own = GeoBox(UTM[1], Affine(*UTM[2]), UTM[0]).footprint("EPSG:4326").boundingbox
    found = grid.boundingbox
    assert found.left <= own.left
    assert found.right >= own.right
    assert found.bottom <= own.bottom
    assert found.top >= own.top
    for line in edges(grid):
        np.testing.assert_allclose(line / 0.001, np.round(line / 0.001), atol=1e-6)


def test_rasters_of_several_crs() -> None:
    """The first raster's CRS is kept and the other lies inside."""
    grid = regular_grid([UTM, DEGREES])
    assert grid.crs == "EPSG:32613"
    other = GeoBox(DEGREES[1], Affine(*DEGREES[2]), DEGREES[0])
    wanted, found = other.footprint("EPSG:32613").boundingbox, grid.boundingbox
    assert found.right >= wanted.right
    assert found.bottom <= wanted.bottom
    assert found.top >= wanted.top


@pytest.mark.parametrize(
    ("footprints", "options", "message"),
    [
        ([], {}, "footprints is empty"),
        ([UTM], {"crs": "EPSG:4326"}, "resolution=None"),
        ([UTM], {"crs": "moon", "resolution": 1.0}, "crs='moon' is unknown"),
        ([("nowhere", *UTM[1:])], {}, "crs='nowhere' is unknown"),
        ([UTM], {"resolution": 0.0}, "resolution=0.0 must be positive"),
        ([UTM], {"resolution": float("nan")}, "must be positive"),
        ([UTM], {"resolution": 1e9}, "larger than the area"),
        ([UTM], {"resolution": 1e6, "anchored": True}, "larger than the area"),
        ([UTM], {"bbox": (0, 0, 1, 1)}, "does not overlap"),
        ([UTM], {"bbox": (2, 0, 1, 1)}, "must be .west, south, east, north."),
        ([UTM], {"bbox": (-105, 17, -104)}, "must be .west, south, east, north."),
        ([UTM], {"bbox": (5e5, 2e6, 6e5, 3e6)}, "in degrees"),
    ],
)
def test_what_cannot_be_a_grid_is_refused(
    footprints: Any, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        regular_grid(footprints, **options)


LAMBERT = (
    "+proj=laea +lat_0=12.5 +lon_0=33 +x_0=0 +y_0=0 +ellps=WGS84 +units=m +type=crs"
)


@pytest.mark.parametrize("crs", ["EPSG:32613", "EPSG:4326", LAMBERT])
def test_attributes_read_back_as_the_same_grid(crs: str) -> None:
    grid = GeoBox((7, 9), Affine(0.1, 0, 33.1, 0, -0.1, 12.7), crs)
    stored = json.loads(json.dumps(zarr_attributes(grid)))
    assert grid_of(stored) == grid


def test_attributes_follow_the_conventions_named_in_them() -> None:
    grid = regular_grid([UTM])
    found = zarr_attributes(grid)
    assert found["proj:code"] == "EPSG:32613"
    assert found["spatial:shape"] == [50, 60]
    assert found["spatial:dimensions"] == ["y", "x"]
    west, south, east, north = found["spatial:bbox"]
    assert (east - west, north - south) == (60 * 80, 50 * 80)
    prefixes = {key.split(":")[0] for key in found if ":" in key}
    assert {c["name"].rstrip(":") for c in found["zarr_conventions"]} == prefixes
