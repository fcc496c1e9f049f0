"""Known deformation added to the pairs of a real stack, consistently over its dates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from cube_denoise.conventions import (
    PAIR,
    X,
    Y,
    displacement_to_phase,
    years_since,
)
from cube_denoise.evaluate.held_out import DERIVED
from cube_denoise.grid import pixel_spacing
from cube_denoise.network import acquisition_times

REACH = 3.0
"""A source is judged within this many radii of its centre."""
APART = 8.0
"""Sources of one case are this many radii apart, so that they do not touch."""

SHAPES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "bowl": lambda r: np.exp(-np.log(2) * r**2),
    "point source": lambda r: (1 + (2 ** (2 / 3) - 1) * r**2) ** -1.5,
    "patch": lambda r: np.exp(-np.log(2) * r**8),
}
"""Line-of-sight displacement by distance in radii: 1 at the centre, 1/2 at one radius.

A Gaussian bowl; the vertical motion over a point source (Mogi, 1958); a patch with an
edge, as of a landslide.
"""


HISTORIES = {"steady": "m year-1", "step": "m"}
"""What a signal does in time, and the unit of its amplitude: grow steadily, or come at
once half way between the first and the last date."""
AMPLITUDE_UNITS = {"steady": "mm/yr", "step": "mm"}
"""Units in which reports give these amplitudes."""


@dataclass(frozen=True)
class Case:
    """One signal that is added to a stack."""

    shape: str
    """One of `SHAPES`."""
    radius: float
    """Distance at which it is half as large as at its centre, m."""
    amplitude: float
    """Line-of-sight amplitude at the centre, positive; the signs of the sources
    alternate. Unit: see `HISTORIES`."""
    history: str = "steady"
    """One of `HISTORIES`."""

    def __post_init__(self) -> None:
        for name, known in (("shape", SHAPES), ("history", HISTORIES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}"
                )
        for name in ("radius", "amplitude"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")


def default_cases(cube: xr.Dataset) -> list[Case]:
    """Cases that fit a cube: shapes, sizes and amplitudes, steady and sudden.

    Radii are 3, 6 and 12 pixels as far as they are at most a quarter of the shorter
    side, and a quarter of it where that is much more: what is as wide as the scene is
    what ramps take. Rates are 10, 50 and 250 mm/yr, steps (bowls only) 5, 20 and 80 mm.

    Raises
    ------
    ValueError
        If the scene is too small for any.
    """
    spacing = float(np.mean(pixel_spacing(cube)))
    side = min(cube.sizes[Y], cube.sizes[X])
    radii = [n * spacing for n in (3, 6, 12) if 4 * n <= side]
    if not radii:
        raise ValueError(
            f"cube has {cube.sizes[Y]} x {cube.sizes[X]} pixels: injection needs at "
            "least 12 along each side"
        )
    if side / 4 * spacing > 1.5 * radii[-1]:
        radii.append(side / 4 * spacing)
    steady = [
        Case(shape, radius, rate)
        for shape in SHAPES
        for radius in radii
        for rate in (0.01, 0.05, 0.25)
    ]
    sudden = [
        Case("bowl", radius, size, "step")
        for radius in radii
        for size in (0.005, 0.02, 0.08)
    ]
    return steady + sudden


def inject(cube: xr.Dataset, case: Case) -> xr.Dataset:
    """Add the signal of a case to the pairs of a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``unwrapped_phase`` (pair, y, x), rad.
    case : Case
        What to add; sources are on a lattice `APART` radii apart, centred on the scene,
        with alternating signs.

    Returns
    -------
    xarray.Dataset
        The cube with ``unwrapped_phase`` changed, without what was computed from it.
    """
    history = history_of(stack_times(cube), case)
    return add_motion(cube, history[:, None, None] * amplitude_map(cube, case))


def add_motion(cube: xr.Dataset, displacement: np.ndarray) -> xr.Dataset:
    """Add motion to the pairs of a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``unwrapped_phase`` (pair, y, x), rad.
    displacement : numpy.ndarray, shape (dates, rows, columns)
        m, toward the satellite, at the dates of `stack_times`.

    Returns
    -------
    xarray.Dataset
        The cube with ``unwrapped_phase`` changed, without what was computed from it.
    """
    times = stack_times(cube)
    early, late = (
        np.searchsorted(times, cube[n].values.astype("datetime64[s]"))
        for n in ("reference_time", "secondary_time")
    )
    phase = cube["unwrapped_phase"].transpose(PAIR, Y, X)
    values = np.stack(
        [
            phase[k].values
            + displacement_to_phase(
                displacement[j] - displacement[i], cube.attrs["wavelength"]
            )
            for k, (i, j) in enumerate(zip(early, late, strict=True))
        ]
    )
    derived = [n for n in ("phase_quantiles", "valid_fraction", *DERIVED) if n in cube]
    return cube.drop_vars(derived).assign(
        unwrapped_phase=phase.copy(data=values.astype("float32"))
    )


def stack_times(cube: xr.Dataset) -> np.ndarray:
    """Dates of the pairs of a cube, sorted, datetime64[s]."""
    names = ("reference_time", "secondary_time")
    return acquisition_times(*(cube[n].values for n in names))


def history_of(times: np.ndarray, case: Case) -> np.ndarray:
    """Displacement of a signal of unit amplitude at the dates."""
    years = years_since(times, times[0])
    if case.history == "steady":
        return years
    return np.asarray(years > years[-1] / 2, "float64")


def amplitude_map(cube: xr.Dataset, case: Case) -> np.ndarray:
    """Injected amplitude, float64, shape (rows, columns)."""
    height, width = pixel_spacing(cube)
    y, x = np.arange(cube.sizes[Y]) * height, np.arange(cube.sizes[X]) * width
    total = np.zeros((y.size, x.size))
    for k, (row, column) in enumerate(zip(*centres(cube, case), strict=True)):
        distance = np.hypot((y - row * height)[:, None], (x - column * width)[None])
        total += (-1) ** k * SHAPES[case.shape](distance / case.radius)
    return case.amplitude * total


def centres(cube: xr.Dataset, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the sources: one at least, in the middle."""
    lines = []
    for dim, spacing in zip((Y, X), pixel_spacing(cube), strict=True):
        apart = APART * case.radius / spacing
        room = cube.sizes[dim] - 2 * REACH * case.radius / spacing
        count = 1 + max(int(room // apart), 0)
        middle = (cube.sizes[dim] - 1) / 2
        offset = (np.arange(count) - (count - 1) / 2) * apart
        lines.append(np.rint(middle + offset).astype(int))
    rows, columns = np.meshgrid(*lines, indexing="ij")
    return rows.ravel(), columns.ravel()
