"""Join frames: one velocity with its components and their covariance."""

import logging
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
from odc.geo.geom import BoundingBox
from odc.geo.xr import xr_coords

from cube_denoise.blocks import spans
from cube_denoise.conventions import X, Y
from cube_denoise.joining.checks import check_frames
from cube_denoise.joining.decompose import (
    EAST,
    LOS,
    MAX_CONDITION,
    NORTH,
    UP,
    centres,
    decompose,
    seen_by,
)
from cube_denoise.joining.equations import UNKNOWN, sides
from cube_denoise.joining.frames import LOOK, Frame
from cube_denoise.joining.ground import Ground
from cube_denoise.joining.lattice import CELL, POSTING, Lattice, summarise
from cube_denoise.joining.offsets import Offsets, solve_offsets
from cube_denoise.joining.seams import Seam, Tie, seams, ties
from cube_denoise.progress import progress

log = logging.getLogger(__name__)

COMPONENT, TERM = "component", "covariance_term"
BLOCK = 512
"""Pixels a side of the blocks that the product is computed in."""
_DIGITS = 6


@dataclass(frozen=True)
class Joined:
    """Frames that were joined."""

    product: xr.Dataset
    """See `join`."""
    offsets: Offsets
    seams: list[Seam]
    ties: list[Tie]


def join(
    frames: Sequence[Frame],
    *,
    ground: Ground | None = None,
    order: int = 0,
    north: bool = False,
    crs: str | None = None,
    resolution: float | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    posting: float = POSTING,
    cell: float = CELL,
    max_condition: float = MAX_CONDITION,
) -> Joined:
    """Join frames of any tracks to one velocity.

    Every frame loses its offset (`offsets`); what ascending and descending frames see
    becomes east and up (`decompose`). Frames of one side alone give the velocity along
    the mean of their looks.

    Parameters
    ----------
    frames : sequence of frames.Frame
        Their order does not matter.
    ground : ground.Ground, optional
        Velocities of GNSS or a plate that the frames are tied to, with the horizontal
        part along the look of every place. Its north velocity is taken out of what
        frames see. Without it, north is taken as 0, and the level is that of the least
        offsets.
    order : int
        0 = an offset a frame; 1 = and a ramp.
    north : bool
        Give the north velocity of `ground` as a component, too.
    crs, resolution, bbox
        Of the product: CRS, pixel size in its units, and west, south, east, north in
        degrees; by default those of the frame first by name and of all frames. Pixel
        edges are multiples of the resolution.
    posting, cell : float
        Sides of the squares that frames are compared on, and of the cells whose errors
        count as independent, m.
    max_condition : float
        Condition number of the looks above which a pixel is left empty.

    Returns
    -------
    Joined
        Its `product` is computed block by block when it is asked for, with dims
        (component, y, x): ``velocity`` and ``velocity_std``, m/yr, positive east,
        north, up, or toward the satellite; ``velocity_covariance`` (covariance_term, y,
        x), (m/yr)^2; ``frame_count``, ``condition_number``, ``first_date``,
        ``last_date`` (y, x); of one side also ``los_east``, ``los_north``, ``los_up``.
        The attribute ``frames`` tells where each comes from and its offset.

    Raises
    ------
    ValueError
        If frames share nothing with the others, contradict each other or the ground
        (`checks`), or an option cannot be.
    """
    frames = sorted(frames, key=lambda f: f.name)
    if not frames:
        raise ValueError("frames is empty: there is nothing to join")
    if north and ground is None:
        raise ValueError(f"{north=} needs GNSS velocities or a plate")
    grid = product_grid(frames, crs=crs, resolution=resolution, bbox=bbox)
    assert grid.crs is not None
    lattice = Lattice(grid.crs, posting, cell)
    summaries = []
    with progress("look through frames", len(frames), unit="frames") as advance:
        for frame in frames:
            summaries.append(summarise(frame, lattice))
            advance(1)
    check_frames(summaries, lattice, ground)
    offsets = solve_offsets(summaries, lattice, ground=ground, order=order)
    if ground is None and len(frames) > 1:
        log.warning(
            "no GNSS and no plate: velocities are relative, their level is that of the "
            "least offsets"
        )
    components: tuple[str, ...] = (EAST, NORTH, UP) if north else (EAST, UP)
    if len(set(sides(summaries))) == 1:
        components = (LOS,)
    found_ties = ties(offsets)
    plan = _Plan(tuple(frames), offsets, grid, ground, components, max_condition)
    product = _dataset(plan).assign_attrs(
        title="ground velocity of joined InSAR frames",
        frames=[_told(f, t) for f, t in zip(frames, found_ties, strict=True)],
        tied_to="" if ground is None else type(ground).__name__.lower(),
        north_velocity="assumed zero" if ground is None else "of what it is tied to",
    )
    return Joined(product, offsets, seams(offsets), found_ties)


def product_grid(
    frames: Sequence[Frame],
    *,
    crs: str | None = None,
    resolution: float | None = None,
    bbox: tuple[float, float, float, float] | None = None,
) -> GeoBox:
    """Grid of the product; its pixel edges are multiples of the resolution."""
    first = min(frames, key=lambda f: f.name).grid
    try:
        target = CRS(first.crs if crs is None else crs)
    except Exception:
        raise ValueError(f"{crs=} is unknown: give a code such as EPSG:32637") from None
    if resolution is None:
        if first.crs != target:
            raise ValueError(
                f"resolution=None with {crs=}: give the pixel size in units of that CRS"
            )
        resolution = float(f"{abs(first.affine.a):.{_DIGITS}g}")
    if not resolution > 0:
        raise ValueError(f"{resolution=} must be positive")
    boxes = [_bounds(f.grid, target) for f in frames]
    left, bottom = (min(b[k] for b in boxes) for k in (0, 1))
    right, top = (max(b[k] for b in boxes) for k in (2, 3))
    if bbox is not None:
        west, south, east, north = bbox if len(bbox) == 4 else (math.nan,) * 4
        if not (-360 <= west < east <= 360 and -90 <= south < north <= 90):
            raise ValueError(f"{bbox=} must be (west, south, east, north) in degrees")
        wanted = BoundingBox(west, south, east, north, "EPSG:4326").to_crs(target)
        left, bottom = max(left, wanted.left), max(bottom, wanted.bottom)
        right, top = min(right, wanted.right), min(top, wanted.top)
        if left >= right or bottom >= top:
            raise ValueError(f"{bbox=} does not overlap any of the frames")
    return GeoBox.from_bbox(
        (left, bottom, right, top), target, resolution=resolution, tol=1e-3
    )


def _bounds(grid: GeoBox, crs: CRS) -> tuple[float, float, float, float]:
    box = grid.boundingbox if grid.crs == crs else grid.footprint(crs).boundingbox
    return box.left, box.bottom, box.right, box.top


def _told(frame: Frame, tie: Tie) -> dict[str, Any]:
    """What the product says of a frame."""
    return {
        "name": frame.name,
        "track": frame.track,
        **frame.told,
        "offset": tie.offset,
        "offset_std": tie.offset_std,
    }


@dataclass(frozen=True)
class _Plan:
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


def _dataset(plan: _Plan) -> xr.Dataset:
    """The product of a plan; blocks are computed once for all variables."""
    rows, columns = (spans(n, BLOCK) for n in plan.grid.shape)
    reach = np.array([_bounds(f.grid, plan.grid.crs) for f in plan.frames])
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
    plan: _Plan, grid: GeoBox, reach: np.ndarray, shared: Mapping[str, Any]
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
    """All layers of the product in a window, float64, NaN = no data."""
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
    ]
    if looks:
        weights = np.where(there, 1 / seen.variance, 0)[:, None]
        mean = (np.where(there[:, None], seen.look, 0) * weights).sum(0)
        with np.errstate(invalid="ignore"):
            layers += [*(mean / np.sqrt((mean**2).sum(0)))]
    return np.stack([np.asarray(v, "float64") for v in layers])


def _north(ground: Ground, grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """North velocity and its standard deviation; unknown where the ground is."""
    lattice = Lattice(grid.crs)
    values, std = ground.at(*lattice.degrees(*centres(grid)))
    there = np.isfinite(values[..., 1]) & np.isfinite(std[..., 1])
    unknown = math.sqrt(UNKNOWN[1, 1])
    return (
        np.where(there, values[..., 1], 0.0),
        np.where(there, std[..., 1], unknown),
    )


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


def _described(plan: _Plan, layers: Mapping[str, da.Array]) -> xr.Dataset:
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
            (TERM, Y, X),
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
    coords = {COMPONENT: list(names), TERM: terms, **xr_coords(plan.grid, dims=(Y, X))}
    return xr.Dataset(maps, coords)


def _times(seconds: np.ndarray) -> np.ndarray:
    there = np.isfinite(seconds)
    return np.where(
        there,
        np.where(there, seconds, 0).astype("int64").astype("datetime64[s]"),
        np.datetime64("NaT", "s"),
    )
