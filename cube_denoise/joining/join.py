"""Join frames: one velocity with its components and their covariance."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from cube_denoise.grid import degrees_bounds, regular_grid
from cube_denoise.joining.checks import check_frames
from cube_denoise.joining.decompose import (
    EAST,
    LOS,
    MAX_CONDITION,
    NORTH,
    UP,
)
from cube_denoise.joining.equations import sides
from cube_denoise.joining.frames import Frame
from cube_denoise.joining.ground import Ground
from cube_denoise.joining.lattice import CELL, POSTING, Lattice, extent, summarise
from cube_denoise.joining.mosaic import Plan, product_of
from cube_denoise.joining.noise import LENGTH, TOLD
from cube_denoise.joining.offsets import Offsets, solve_offsets
from cube_denoise.joining.seams import Seam, Tie, seams, ties
from cube_denoise.progress import progress

log = logging.getLogger(__name__)

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
        Sides of the squares that frames are compared on, and of the cells that make one
        equation each, m.
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
        The attribute ``frames`` tells where each comes from and its offset,
        ``noise_length`` how far noise is taken as alike, m, ``noise_length_from`` why.

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
    if ground is not None:
        ground = ground.near(extent(summaries, lattice))
    check_frames(summaries, lattice, ground)
    offsets = solve_offsets(summaries, lattice, ground=ground, order=order)
    if ground is None and len(frames) > 1:
        log.warning(
            "no GNSS and no plate: velocities are relative, their level is that of the "
            "least offsets"
        )
    components: tuple[str, ...] = (EAST, NORTH, UP) if north else (EAST, UP)
    if len(set(sides(summaries))) == 1:
        if north:
            raise ValueError(
                f"{north=} needs ascending and descending frames: those given see the "
                "ground from one side, and give the velocity along their look alone"
            )
        components = (LOS,)
    found_ties = ties(offsets)
    plan = Plan(tuple(frames), offsets, grid, ground, components, max_condition)
    product = product_of(plan).assign_attrs(
        title="ground velocity of joined InSAR frames",
        frames=[_told(f, t) for f, t in zip(frames, found_ties, strict=True)],
        tied_to="nothing: the level is that of the least offsets"
        if ground is None
        else ground.told,
        north_velocity="assumed zero" if ground is None else "of what it is tied to",
        noise_length=offsets.noise.length,
        noise_length_from="residuals"
        if offsets.noise.told > TOLD
        else f"expectation ({LENGTH / 1e3:g} km): residuals tell too little",
    )
    return Joined(product, offsets, seams(offsets), found_ties)


def product_grid(
    frames: Sequence[Frame],
    *,
    crs: str | None = None,
    resolution: float | None = None,
    bbox: tuple[float, float, float, float] | None = None,
) -> GeoBox:
    """Grid of the product, of all frames or within `bbox`.

    Parameters
    ----------
    frames : sequence of frames.Frame
    crs, resolution, bbox
        See `join`.

    Returns
    -------
    odc.geo.geobox.GeoBox
        North up; pixel edges are multiples of the resolution (`grid.regular_grid`).
    """
    grids = [f.grid for f in sorted(frames, key=lambda f: f.name)]
    if resolution is None and crs is None:
        resolution = float(f"{abs(grids[0].affine.a):.{_DIGITS}g}")
    return regular_grid(
        ((str(g.crs), (g.shape.y, g.shape.x), tuple(g.affine)[:6]) for g in grids),
        crs=crs,
        resolution=resolution,
        bbox=bbox,
        anchored=True,
    )


def _told(frame: Frame, tie: Tie) -> dict[str, Any]:
    """What the product says of a frame; its bounds as `grid.degrees_bounds`."""
    return {
        "name": frame.name,
        "track": frame.track,
        "bbox": list(degrees_bounds(frame.grid)),
        **frame.told,
        "offset": tie.offset,
        "offset_std": tie.offset_std,
    }
