"""Frames that cannot be right beside the others, or beside GNSS."""

from collections.abc import Sequence

import numpy as np

from cube_denoise.evaluate.gnss import COMPONENTS
from cube_denoise.joining.equations import sides
from cube_denoise.joining.ground import Ground
from cube_denoise.joining.lattice import Lattice, Summary, common, extent

SQUARES = 50
"""Shared squares, or squares under a field, from which on a comparison counts."""
OPPOSITE = -0.7
"""Correlation below which two frames are taken to have opposite signs."""
SCALE = 100.0
"""Ratio of spreads above which two frames are taken to have different units."""
BETTER = 0.5
"""Share of the misfit to GNSS that must be left with the looks turned round for them to
be taken as wrong."""


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
        one = first.setdefault(summary.frame.track, k)
        if side[one] != side[k]:
            raise ValueError(
                f"frames {summaries[one].name} and {summary.name} are of one track, "
                f"{summary.frame.track}, and look to different sides (los_east="
                f"{summaries[one].look[:, 0].mean():.2f} and "
                f"{summary.look[:, 0].mean():.2f}): the look vectors of one are turned "
                "round"
            )
    for a, one in enumerate(summaries):
        for b in range(a + 1, len(summaries)):
            if side[a] == side[b]:
                _check_pair(one, summaries[b])
    if ground is not None:
        for summary in summaries:
            _check_looks(summary, lattice, ground)


def _check_pair(one: Summary, other: Summary) -> None:
    first, second = common(one, other)
    if first.size < SQUARES:
        return
    a, b = one.velocity[first], other.velocity[second]
    a, b = a - np.median(a), b - np.median(b)
    spreads = [float(np.median(np.abs(v))) for v in (a, b)]
    if max(spreads) > SCALE * min(spreads) > 0:
        raise ValueError(
            f"frames {one.name} and {other.name} differ by {spreads[0]:.3g} and "
            f"{spreads[1]:.3g} m/yr from their medians where they overlap: one is in "
            "another unit; velocities must be in m/yr"
        )
    correlation = float(np.corrcoef(a, b)[0, 1])
    if correlation < OPPOSITE:
        raise ValueError(
            f"frames {one.name} and {other.name} have a correlation of "
            f"{correlation:.2f} where they overlap: the sign of one is turned round; "
            "velocities must be positive toward the satellite"
        )


def _check_looks(summary: Summary, lattice: Lattice, ground: Ground) -> None:
    """Compare the frame with the ground's motion along its looks, and turned round."""
    bounds = extent([summary], lattice)
    points = ground.points(bounds)
    lon, lat = lattice.degrees(*lattice.centres(summary.keys))
    thin = slice(None, None, max(1, summary.keys.size // 2000))
    if not points["longitude"].size or summary.keys[thin].size < SQUARES:
        return
    told, std = ground.at(lon[thin], lat[thin])
    there = np.isfinite(told).all(-1) & np.isfinite(std).all(-1)
    if there.sum() < SQUARES:
        return
    look, velocity = summary.look[thin][there], summary.velocity[thin][there]
    along = look[:, :2] @ np.eye(2) * told[there, :2]
    motion = along.sum(1)
    misfits = []
    for sign in (1, -1):
        rest = velocity - sign * motion
        misfits.append(float(np.median(np.abs(rest - np.median(rest)))))
    if misfits[1] < BETTER * misfits[0]:
        raise ValueError(
            f"frame {summary.name}: its velocity is {misfits[0]:.3g} m/yr off the GNSS "
            f"({', '.join(COMPONENTS[:2])}) along its looks, and {misfits[1]:.3g} with "
            "them turned round: the look vectors must go from the ground to the "
            "satellite, and the velocity be positive toward it"
        )
