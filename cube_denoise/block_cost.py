"""Pixels that blocks read and compute, and the memory that one of them takes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from cube_denoise import halo, store
from cube_denoise.calibration import Rate
from cube_denoise.conventions import PAIR, VARIABLES, X, Y
from cube_denoise.corrections import Correction
from cube_denoise.corrections.correction import READ_SIZE
from cube_denoise.corrections.network import NetworkCorrection
from cube_denoise.corrections.series import MEMORY, STRIP

ITEM = 4
"""Bytes of a value of phase, coherence or a map."""
SEEN_BYTES = 550
"""That the network of stacks takes for each pixel and date of a tile, about."""
OVERLAP = 4
"""Tiles that blend and see the same pixel."""


def bytes_of(name: str, sizes: Mapping[str, int]) -> int:
    """Bytes of a variable of the data model, before compression."""
    spec = VARIABLES[name]
    count = math.prod(sizes.get(d, 5) for d in spec.dims)
    return count * np.dtype(spec.dtype).itemsize


def date_count(cube: xr.Dataset) -> int:
    """Dates of the pairs of a cube."""
    return np.unique([cube[name].values for name in store.PAIR_TIMES]).size


def sides_of(
    cube: xr.Dataset, cuts: Mapping[str, list[slice]]
) -> list[tuple[int, list[slice]]]:
    """Length and cuts along y and x."""
    return [(cube.sizes[d], cuts[d]) for d in (Y, X)]


def grown(length: int, cuts: Sequence[slice], reach: int) -> int:
    """Pixels read along one side: the cuts with what they need around them."""
    return sum(min(c.stop + reach, length) - max(c.start - reach, 0) for c in cuts)


def network_side(
    length: int, cuts: Sequence[slice], radius: int | None, reading: bool
) -> int:
    """Pixels along one side that tiles of a network see, or read to fill gaps."""
    from cube_denoise.inference import FILL_MARGIN, lattice_of

    lattice = lattice_of((length, 1), radius)
    found = 0
    for cut in cuts:
        views = lattice.views(halo.Tile(cut, slice(0, 1)))
        # Tiles that blend lie twice across a map of one column.
        for view, clipped in {v.y.start: (v.y, c.y) for v, c in views}.values():
            if reading:
                found += grown(length, [clipped], FILL_MARGIN)
            else:
                found += view.stop - view.start
    return found


def tile_of(cube: xr.Dataset, radius: int | None) -> int:
    """Pixels that a network sees at once, at most."""
    from cube_denoise.inference import lattice_of

    lattice = lattice_of((cube.sizes[Y], cube.sizes[X]), radius)
    if radius is None:
        return lattice.tile**2
    side = lattice.tile + 2 * radius
    return min(side, lattice.shape[0]) * min(side, lattice.shape[1])


def inputs_of(correction: Correction) -> tuple[str, ...]:
    """Variables that a correction reads in every block, beside the phase."""
    if not isinstance(correction, NetworkCorrection):
        return correction.needs
    return tuple(_network(correction).config.inputs)


def radius_of(correction: Correction) -> int | None:
    """Receptive radius of the network of a correction, px; None for a wider view."""
    radius: int | None = _network(correction).receptive_radius
    return radius


def _network(correction: Any) -> Any:
    from cube_denoise.inference import Network, loaded, network_reference

    sha256 = correction.label["model_sha256"]
    reference = network_reference(correction.model)
    return loaded(Network(reference, sha256, "float32", 1))


def block_memory(
    cube: xr.Dataset,
    correction: Correction,
    rate: Rate,
    shape: tuple[int, int],
    static: int,
) -> int:
    """Peak memory of a task without a network, bytes.

    What was measured on a small block, and beside it what is read and encoded. `shape`
    is that of a block with what it needs around it, `static` the number of maps read.
    """
    wide = math.prod(shape)
    scene = math.prod(min(cube.sizes[d], READ_SIZE) for d in (Y, X))
    looking = scene * (rate.look_memory + ITEM * (1 + static))
    if not correction.whole_stack:
        return round(max(wide * (rate.memory + ITEM * (2 + static)), looking))
    count = cube.sizes[PAIR]
    dates = date_count(cube)
    # They work strip by strip, and parts of a strip that a fixed memory holds.
    strip = min(STRIP, shape[0]) * shape[1] * count
    temporary = min(rate.memory * strip, 2 * ITEM * strip + 2 * MEMORY)
    return round(max(ITEM * wide * (count + 2 * dates) + temporary, looking))


def projection_memory(cube: xr.Dataset, shape: tuple[int, int]) -> int:
    """Bytes that projecting all pairs of a block of that shape on dates takes."""
    count = cube.sizes[PAIR]
    dates = date_count(cube)
    strip = min(STRIP, shape[0]) * shape[1]
    return ITEM * (count * math.prod(shape) + (count + dates) * strip)


def stack_network_cost(cube: xr.Dataset) -> tuple[int, int]:
    """Bytes that a tile of a network of stacks takes, and how often a pixel is seen.

    A network that sees tiles with a halo takes less.
    """
    from cube_denoise.series_inference import TILE

    dates = date_count(cube)
    sides = [min(cube.sizes[d], TILE) for d in (Y, X)]
    seen = 1 if max(cube.sizes[d] for d in (Y, X)) <= TILE else OVERLAP
    return math.prod(sides) * dates * SEEN_BYTES, seen


def overlap(
    crs: str, shape: tuple[int, int], transform: tuple[float, ...], grid: GeoBox
) -> float:
    """Pixels of a raster that lie on a grid, by its bounds."""
    assert grid.crs is not None
    box, own = grid.extent.boundingbox, GeoBox(shape, Affine(*transform), crs).extent
    bounds = (own if CRS(crs) == grid.crs else own.to_crs(grid.crs)).boundingbox
    width = min(box.right, bounds.right) - max(box.left, bounds.left)
    height = min(box.top, bounds.top) - max(box.bottom, bounds.bottom)
    share = max(width, 0) * max(height, 0) / (bounds.span_x * bounds.span_y)
    return float(min(share, 1) * math.prod(shape))
