"""The product of joined frames, computed block by block when it is asked for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cube_denoise.blocks import spans
from cube_denoise.conventions import X, Y
from cube_denoise.joining.decompose import (
    EAST,
    LOS,
    NORTH,
    UP,
    centres,
    decompose,
    seen_by,
)
from cube_denoise.joining.equations import UNKNOWN
from cube_denoise.joining.frames import LOOK, Frame
from cube_denoise.joining.ground import Ground, Stations
from cube_denoise.joining.lattice import Lattice
from cube_denoise.joining.offsets import Offsets
from cube_denoise.product_variables import COMPONENT, COVARIANCE_TERM

BLOCK = 512
"""Pixels a side of the blocks that the product is computed in."""
LAYERS = 24
"""Frames that a whole block may hold; of more, a part of a block is taken at a time."""
READ = 2048
"""Pixels a side of a frame that are read at once, about."""
NODES = 1000.0
"""m between the places where the spline of stations is computed for finer pixels."""
LEAST = 16
"""Pixels a side below which a block is not cut."""


@dataclass(frozen=True)
class Plan:
    """What all blocks share."""

    frames: tuple[Frame, ...]
    offsets: Offsets
    grid: GeoBox
    ground: Ground | None
    components: tuple[str, ...]
    max_condition: float

    @property
    def layers(self) -> dict[str, int]:
        """Layers of a block by variable, in order."""
        count = len(self.components)
        found = {
            "velocity": count,
            "velocity_covariance": count * (count + 1) // 2,
            "condition_number": 1,
            "frame_count": 1,
            "first_date": 1,
            "last_date": 1,
        }
        return found | (dict.fromkeys(LOOK, 1) if self.components == (LOS,) else {})


def product_of(plan: Plan) -> xr.Dataset:
    """The product of a plan; blocks are computed once for all variables."""
    rows, columns = (spans(n, BLOCK) for n in plan.grid.shape)
    crs = plan.grid.crs
    assert crs is not None
    reach = np.array([bounds_of(f.grid, crs) for f in plan.frames])
    shared = {
        "frames": [dask.delayed(f, pure=False, traverse=False) for f in plan.frames],
        "ground": dask.delayed(plan.ground, pure=False, traverse=False),
    }
    depth = sum(plan.layers.values())
    whole = []
    for y in rows:
        line = []
        for x in columns:
            block = plan.grid[y, x]
            line.append(
                da.from_delayed(
                    _block(plan, block, reach, shared), (depth, *block.shape), "float64"
                )
            )
        whole.append(line)
    packed = da.block(whole)
    variables, at = {}, 0
    for name, count in plan.layers.items():
        variables[name] = packed[at : at + count]
        at += count
    return _described(plan, variables)


def _block(
    plan: Plan, grid: GeoBox, reach: np.ndarray, shared: Mapping[str, Any]
) -> Any:
    """Task of one block: it brings the frames that reach it alone."""
    box = grid.boundingbox
    # A frame in another CRS bends: take a pixel's width more of it.
    margin = 0.02 * (reach[:, 2:] - reach[:, :2]).max(1)
    near = (reach[:, 0] - margin < box.right) & (box.left < reach[:, 2] + margin)
    near &= (reach[:, 1] - margin < box.top) & (box.bottom < reach[:, 3] + margin)
    used = np.flatnonzero(near)
    return dask.delayed(compute_block, pure=False)(
        [shared["frames"][k] for k in used],
        plan.offsets.only(used.tolist()),
        grid,
        shared["ground"],
        plan.components,
        plan.max_condition,
    )


def compute_block(
    frames: Sequence[Frame],
    offsets: Offsets,
    grid: GeoBox,
    ground: Ground | None,
    components: tuple[str, ...],
    max_condition: float,
) -> np.ndarray:
    """All layers of the product in a window, float64, NaN = no data.

    Where many frames, or many of their pixels, are in it, part by part: the parts do
    not change the values.
    """
    rows, columns = (spans(n, _side(frames, grid)) for n in grid.shape)
    options = (ground, components, max_condition)
    return np.concatenate(
        [
            np.concatenate(
                [_part(frames, offsets, grid[y, x], *options) for x in columns], -1
            )
            for y in rows
        ],
        -2,
    )


def _side(frames: Sequence[Frame], grid: GeoBox) -> int:
    """Pixels a side of the parts that a window is computed in."""
    assert grid.crs is not None
    finest = 1.0
    for frame in frames:
        left, bottom, right, top = bounds_of(frame.grid, grid.crs)
        rows, columns = frame.grid.shape
        across = grid.resolution.x * columns / (right - left)
        down = abs(grid.resolution.y) * rows / (top - bottom)
        finest = max(finest, across, down)
    side = BLOCK
    while side > LEAST and (
        len(frames) * side**2 > LAYERS * BLOCK**2 or side * finest > READ
    ):
        side //= 2
    return side


def _part(
    frames: Sequence[Frame],
    offsets: Offsets,
    grid: GeoBox,
    ground: Ground | None,
    components: tuple[str, ...],
    max_condition: float,
) -> np.ndarray:
    shape = grid.shape
    used, seen = seen_by(frames, offsets, grid)
    looks = len(LOOK) if components == (LOS,) else 0
    if seen is None:
        count = len(components)
        depth = count + count * (count + 1) // 2 + 4 + looks
        empty = np.full((depth, *shape), np.nan)
        empty[depth - looks - 3] = 0
        return empty
    north = None
    if ground is not None and components != (LOS,):
        north = _north(ground, grid)
    estimate = decompose(
        seen,
        offsets.only(used).covariance,
        components=components,
        north=north,
        max_condition=max_condition,
    )
    there = np.isfinite(seen.velocity)
    layers = [
        *estimate.values,
        *estimate.covariance,
        estimate.condition,
        estimate.count,
        _dates(frames, used, there, "first_date", np.fmin),
        _dates(frames, used, there, "last_date", np.fmax),
        *estimate.look,
    ]
    return np.stack([np.asarray(v, "float64") for v in layers])


def _north(ground: Ground, grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """North velocity and its standard deviation; unknown where the ground is.

    That of stations comes from their spline at nodes `NODES` apart where pixels are
    finer than half of that, bilinear between: within 0.1 mm/yr of the spline, which
    takes seconds a block.
    """
    assert grid.crs is not None
    lattice = Lattice(grid.crs, NODES, NODES)
    x, y = centres(grid)
    if isinstance(ground, Stations) and abs(grid.affine.a) < lattice.step / 2:
        values, std = _between_nodes(ground, lattice, x[0], y[:, 0])
    else:
        told, spread = ground.at(*lattice.degrees(x, y))
        values, std = told[..., 1], spread[..., 1]
    there = np.isfinite(values) & np.isfinite(std)
    unknown = math.sqrt(UNKNOWN[1, 1])
    return np.where(there, values, 0.0), np.where(there, std, unknown)


def _between_nodes(
    ground: Ground, lattice: Lattice, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """North and its standard deviation at columns x and rows y of a map."""
    sides = []
    for at in (y, x):  # nodes do not depend on the window
        first, last = (math.floor(v / lattice.step) for v in (at.min(), at.max()))
        sides.append((first, np.arange(first, last + 2) * lattice.step))
    (first_y, rows), (first_x, columns) = sides
    told, spread = ground.at(*lattice.degrees(*np.meshgrid(columns, rows)))
    nodes = np.stack([told[..., 1], spread[..., 1]])
    i, j = np.floor(y / lattice.step), np.floor(x / lattice.step)
    down, across = (y / lattice.step - i)[:, None], x / lattice.step - j
    i, j = (i - first_y).astype(int)[:, None], (j - first_x).astype(int)
    above = nodes[:, i, j] * (1 - across) + nodes[:, i, j + 1] * across
    below = nodes[:, i + 1, j] * (1 - across) + nodes[:, i + 1, j + 1] * across
    values, std = above * (1 - down) + below * down
    return values, std


def _dates(
    frames: Sequence[Frame],
    used: Sequence[int],
    there: np.ndarray,
    name: str,
    choose: Any,
) -> np.ndarray:
    """First or last date of the frames that hold data, seconds since 1970; or NaN."""
    found = np.full(there.shape[1:], np.nan)
    for k, mine in zip(used, there, strict=True):
        date = frames[k].told.get(name)
        if date is not None:
            second = np.datetime64(date, "s").astype("int64")
            found = choose(found, np.where(mine, float(second), np.nan))
    return found


_MEANING = {
    EAST: "positive = east",
    NORTH: "positive = north",
    UP: "positive = up",
    LOS: "positive = toward the satellite, along the line of sight",
}


def _described(plan: Plan, layers: Mapping[str, da.Array]) -> xr.Dataset:
    """Variables, coordinates and attributes of the product."""
    names = plan.components
    terms = [f"{a}_{b}" for k, a in enumerate(names) for b in names[k:]]
    diagonal = [terms.index(f"{a}_{a}") for a in names]
    covariance = layers["velocity_covariance"]
    signs = "; ".join(f"{n}: {_MEANING[n]}" for n in names)
    speed = {"units": "m year-1"}
    maps: dict[str, Any] = {
        "velocity": (
            (COMPONENT, Y, X),
            layers["velocity"].astype("float32"),
            speed | {"long_name": "ground velocity", "comment": signs},
        ),
        "velocity_std": (
            (COMPONENT, Y, X),
            da.sqrt(covariance[diagonal]).astype("float32"),
            speed | {"long_name": "standard deviation of velocity"},
        ),
        "velocity_covariance": (
            (COVARIANCE_TERM, Y, X),
            covariance.astype("float32"),
            {"units": "m2 year-2", "long_name": "covariance of the components"},
        ),
        "frame_count": (
            (Y, X),
            layers["frame_count"][0].astype("int16"),
            {"units": "1", "long_name": "number of frames that hold data"},
        ),
        "condition_number": (
            (Y, X),
            layers["condition_number"][0].astype("float32"),
            {"units": "1", "long_name": "condition number of the look vectors"},
        ),
    }
    for name in ("first_date", "last_date"):
        maps[name] = (
            (Y, X),
            da.map_blocks(_times, layers[name][0], dtype="datetime64[s]"),
            {"long_name": f"{name.split('_')[0]} date of the frames that hold data"},
        )
    for name in LOOK:
        if name in layers:
            told = {"units": "1", "comment": "unit vector from ground to satellite"}
            maps[name] = ((Y, X), layers[name][0].astype("float32"), told)
    coords = {
        COMPONENT: list(names),
        COVARIANCE_TERM: terms,
        **xr_coords(plan.grid, dims=(Y, X)),
    }
    return xr.Dataset(maps, coords)


def _times(seconds: np.ndarray) -> np.ndarray:
    there = np.isfinite(seconds)
    return np.where(
        there,
        np.where(there, seconds, 0).astype("int64").astype("datetime64[s]"),
        np.datetime64("NaT", "s"),
    )


def bounds_of(grid: GeoBox, crs: CRS) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of a grid in a CRS."""
    box = grid.boundingbox if grid.crs == crs else grid.footprint(crs).boundingbox
    return box.left, box.bottom, box.right, box.top
