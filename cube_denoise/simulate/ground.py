"""The ground a simulated stack stands on: its grid and its elevation."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords  # noqa: F401  (the .odc accessor)

from cube_denoise.simulate.atmosphere import self_affine_terrain

CRS = "EPSG:32613"
LEFT, BOTTOM = 500_000, 2_000_000
"""Where simulated scenes lie, m; nothing else follows from it."""


@dataclass(frozen=True)
class Ground:
    """Grid of a stack, the height of its ground and, of real noise, its coherence."""

    grid: GeoBox
    """Projected, m."""
    elevation: np.ndarray
    """m, float32, shape (rows, columns)."""
    coherence: np.ndarray | None = None
    """0..1, shape (rows, columns); None = to be simulated."""

    @property
    def spacing(self) -> float:
        """Pixel spacing, m; of oblong pixels the geometric mean."""
        rows, columns = self.grid.resolution.y, self.grid.resolution.x
        return float(np.sqrt(abs(rows * columns)))

    def east_north(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of pixel centres, m from the lower left one."""
        rows, columns = self.grid.shape
        dy, dx = abs(self.grid.resolution.y), abs(self.grid.resolution.x)
        east, north = np.meshgrid(
            np.arange(columns) * float(dx), np.arange(rows)[::-1] * float(dy)
        )
        return east, north

    @staticmethod
    def grid_of(shape: tuple[int, int], spacing: tuple[float, float]) -> GeoBox:
        """Grid of pixels of `spacing` along rows and columns, m."""
        if min(shape) < 2 or not min(spacing) > 0:
            raise ValueError(f"{shape=} must be at least (2, 2), {spacing=} positive")
        top = BOTTOM + shape[0] * spacing[0]
        return GeoBox(shape, Affine(spacing[1], 0, LEFT, 0, -spacing[0], top), CRS)


def make_ground(
    shape: tuple[int, int] | None,
    spacing: float | None,
    terrain: float | np.ndarray | xr.DataArray | None,
    *,
    generator: np.random.Generator,
) -> Ground:
    """Make grid and elevation of what is given of shape, spacing and terrain.

    Parameters
    ----------
    shape : (int, int), optional
        Rows and columns; (128, 128), or those of `terrain`.
    spacing : float, optional
        m; 100, or that of `terrain`.
    terrain : float, numpy.ndarray or xarray.DataArray, optional
        Relief of random terrain, m, log-uniform in 20 to 2500 when not given; or the
        elevation, m, without gaps. A DataArray with a projected CRS is the grid.
    generator : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Ground

    Raises
    ------
    ValueError
        If they contradict each other, or the elevation has gaps or oblong pixels.
    """
    relief = 10 ** generator.uniform(np.log10(20), np.log10(2500))
    if terrain is None or np.ndim(terrain) == 0:
        grid = Ground.grid_of(shape or (128, 128), (spacing or 100.0,) * 2)
        height = relief if terrain is None else float(terrain)
        return Ground(grid, _random_terrain(grid, height, generator))
    elevation = np.asarray(terrain, "float32")
    if elevation.ndim != 2 or shape not in (None, elevation.shape):
        raise ValueError(
            f"terrain has shape {elevation.shape}, the stack {shape}: give the DEM on "
            "the grid of the stack"
        )
    if not np.isfinite(elevation).all():
        raise ValueError("terrain has gaps (NaN): fill them first, e.g. `fill_gaps`")
    box = terrain.odc.geobox if isinstance(terrain, xr.DataArray) else None
    if box is None or box.crs is None:
        rows, columns = elevation.shape
        return Ground(
            Ground.grid_of((rows, columns), (spacing or 100.0,) * 2), elevation
        )
    dy, dx = abs(box.resolution.y), abs(box.resolution.x)
    if box.crs.geographic or not np.isclose(dy, dx):
        unit = "degrees" if box.crs.geographic else "m"
        raise ValueError(
            f"terrain has pixels of {dy:g} x {dx:g} {unit}: warp it to "
            "square pixels of a projected CRS first"
        )
    if spacing is not None and not np.isclose(spacing, dx):
        raise ValueError(f"{spacing=} is not that of terrain, {dx:g} m")
    return Ground(box, elevation)


def _random_terrain(
    grid: GeoBox, relief: float, generator: np.random.Generator
) -> np.ndarray:
    if not relief >= 0:
        raise ValueError(f"terrain={relief} must not be negative (metres of relief)")
    return self_affine_terrain(
        (grid.shape[0], grid.shape[1]),
        spacing=abs(float(grid.resolution.x)),
        relief=relief,
        smoothness=float(generator.uniform(0.8, 1.5)),
        generator=generator,
    )
