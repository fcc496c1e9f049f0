"""Frames that cannot be right beside the others, or beside GNSS."""

import math
from collections.abc import Sequence

import numpy as np

from cube_denoise.joining.equations import sides
from cube_denoise.joining.ground import Ground, Plate
from cube_denoise.joining.lattice import (
    Basis,
    Lattice,
    Summary,
    common,
    extent,
    meeting,
)
from cube_denoise.joining.noise import LENGTH
from cube_denoise.joining.offsets import RAMP_STD

SQUARES = 50
"""Shared squares from which on a comparison counts."""
OPPOSITE = -0.7
"""Correlation, less planes, below which two frames are taken to have opposite signs."""
SCALE = 100.0
"""Ratio of spreads above which two frames are taken to have different units."""
CELLS = 20
"""Cells under GNSS velocities from which on a frame is compared with them."""
DECISIVE = 10.0
"""Natural logarithm of how much likelier looks turned round must be, with a ramp of
`offsets.RAMP_STD`, for them to be taken as wrong."""


_MAD = 0.6745
"""Median of the magnitude of a standard normal number."""


def check_frames(
    summaries: Sequence[Summary], lattice: Lattice, ground: Ground | None
) -> None:
    """Refuse frames whose looks, signs or units contradict what is beside them.

    Raises
    ------
    ValueError
        If frames of one track look to different sides, two that overlap have opposite
        signs or different units, or a frame fits GNSS with the horizontal part of its
        looks turned round, and not as it is.
    """
    side = sides(summaries)
    first: dict[str, int] = {}
    for k, summary in enumerate(summaries):
        before = first.setdefault(summary.frame.track, k)
        if side[before] != side[k]:
            raise ValueError(
                f"frames {summaries[before].name} and {summary.name} are of one track, "
                f"{summary.frame.track}, and look to different sides (los_east="
                f"{summaries[before].look[:, 0].mean():.2f} and "
                f"{summary.look[:, 0].mean():.2f}): the look vectors of one are turned "
                "round"
            )
    for a, b in meeting(summaries, lattice):
        if side[a] == side[b]:
            _check_pair(summaries[a], summaries[b], lattice)
    # What the ground does beside a plate may be as large, and of the other sign.
    if ground is not None and not isinstance(ground, Plate):
        for summary in summaries:
            _check_looks(summary, lattice, ground)


def _check_pair(one: Summary, other: Summary, lattice: Lattice) -> None:
    first, second = common(one, other)
    if first.size < SQUARES:
        return
    keys = one.keys[first]
    a = _less_plane(one.velocity[first], keys, lattice)
    b = _less_plane(other.velocity[second], keys, lattice)
    spreads = [float(np.median(np.abs(v))) for v in (a, b)]
    if max(spreads) > SCALE * min(spreads) > 0:
        raise ValueError(
            f"frames {one.name} and {other.name} differ by {spreads[0]:.3g} and "
            f"{spreads[1]:.3g} m/yr from planes where they overlap: one is in another "
            "unit; velocities must be in m/yr"
        )
    noise = float(np.sqrt(np.median(one.variance[first] + other.variance[second])))
    correlation = float(np.corrcoef(a, b)[0, 1])
    if correlation < OPPOSITE and np.std(a - b) > 2 * noise:
        raise ValueError(
            f"frames {one.name} and {other.name} have a correlation of "
            f"{correlation:.2f} where they overlap: the sign of one is turned round; "
            "velocities must be positive toward the satellite"
        )


def _check_looks(summary: Summary, lattice: Lattice, ground: Ground) -> None:
    """Compare the frame with the ground's motion along its looks, and turned round."""
    if not ground.points(extent([summary], lattice))["longitude"].size:
        return
    told, std = ground.at(*lattice.degrees(*lattice.centres(summary.keys)))
    there = np.isfinite(told).all(-1) & np.isfinite(std).all(-1)
    cells, inverse = np.unique(lattice.cells(summary.keys[there]), return_inverse=True)
    if cells.size < CELLS:
        return
    motion = (summary.look[there, :2] * told[there, :2]).sum(1)
    places = Basis.of(summary, lattice, 1)(*lattice.centres(summary.keys[there]))
    columns = (summary.velocity[there], motion, *places.T[1:])
    count = np.bincount(inverse)
    velocity, motion, east, north = (np.bincount(inverse, c) / count for c in columns)
    plane = np.column_stack([np.ones(cells.size), east, north])
    known = float(np.sqrt(np.mean((summary.look * std)[there][:, :2] ** 2) * 2))
    # Of cells whose noise is not alike.
    number = cells.size * min(1.0, (lattice.cell / LENGTH) ** 2)
    misfits, evidence = [], []
    for sign in (1, -1):
        rest = velocity - sign * motion
        ramp = np.linalg.lstsq(plane, rest)[0]
        misfits.append(float(np.median(np.abs(rest - plane @ ramp))))
        unlikely = float(np.sum((ramp[1:] / RAMP_STD) ** 2) / 2)
        spread = math.hypot(misfits[-1], _MAD * known)
        evidence.append(-number * math.log(spread) - unlikely)
    if evidence[1] - evidence[0] > DECISIVE:
        raise ValueError(
            f"frame {summary.name}: less a ramp its velocity is {misfits[0]:.3g} m/yr "
            f"off the GNSS along its looks, and {misfits[1]:.3g} with them turned "
            "round: the look vectors must go from the ground to the satellite, and the "
            "velocity be positive toward it"
        )


def _less_plane(values: np.ndarray, keys: np.ndarray, lattice: Lattice) -> np.ndarray:
    """Values on squares less a plane: a ramp may have any sign."""
    places = np.stack(lattice.centres(keys), 1)
    places = (places - places.mean(0)) / np.ptp(places, axis=0).max()
    plane = np.column_stack([np.ones(keys.size), places])
    return values - plane @ np.linalg.lstsq(plane, values)[0]
