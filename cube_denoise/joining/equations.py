r"""Equations of the offsets: differences in shared cells, comparisons at points.

A frame f sees, in the mean over a cell, :math:`y_f = l_f \cdot u + B_f p_f + e_f`: the
ground's velocity u along its look vector, its own offset (and ramp) :math:`p_f`, noise.

* In cells that frames of the same side share, differences over the pixels that both
  see, :math:`y_a - y_b = (l_a - l_b) \cdot u + B_a p_a - B_b p_b + e_a - e_b`. u is
  what the ground is known to do (0 without anything) with the covariance `UNKNOWN`
  beside; frames of one track have :math:`l_a = l_b`, and then it is all the same.
* At points whose velocity g is known, :math:`y_f - l_f \cdot g = B_f p_f + e_f - l_f
  \cdot e_g`, where all frames share the error of the point.

Frames of one track are of the same acquisitions, and where they overlap most of their
noise is the same: what they differ by tells little of the noise of frames of different
tracks, and is kept apart from it.

So horizontal motion, seen under the angles that change along and between swaths, is
taken out with the look vectors of every place, and does not become a ramp.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import xarray as xr

from cube_denoise.evaluate.gnss import COMPONENTS, STATION
from cube_denoise.joining.ground import Ground
from cube_denoise.joining.lattice import (
    Basis,
    Lattice,
    Summary,
    common,
    extent,
    meeting,
)

UNKNOWN = np.diag([0.03, 0.03, 0.01]) ** 2
"""(m/yr)^2: covariance of east, north, up of ground of which nothing is known."""
LOCAL = np.diag([0.005, 0.005, 0.01]) ** 2
"""(m/yr)^2: what ground does beside the motion that stations or a plate tell."""
FEWEST = 3
"""Squares that two frames must share in a cell."""
TIE_SQUARES = 1
"""Squares beside the one that holds a point whose mean is compared with it."""


TIES, OVERLAPS, TRACKS = "ties", "overlaps", "tracks"
"""Kinds of equations: at a point, between frames of different tracks, of one track."""


@dataclass(frozen=True)
class Rows:
    """Equations of one kind, cell or point.

    ``values = design @ coefficients[columns] + error``.
    """

    kind: str
    """`TIES`, `OVERLAPS` or `TRACKS`."""
    frames: tuple[int, ...]
    """Frames whose noise is in it, by position."""
    pairs: tuple[tuple[int, int], ...]
    """Frames that each equation compares; (f, -1): a frame and a point."""
    values: np.ndarray
    """m/yr, shape (equations,)."""
    columns: np.ndarray
    """Positions of the coefficients of `frames` among all."""
    design: np.ndarray
    """Shape (equations, columns)."""
    mixing: np.ndarray
    """What of the noise of `frames` is in each equation, shape (equations, frames)."""
    noise: np.ndarray
    """Variance of the noise of `frames`, (m/yr)^2."""
    ground: np.ndarray
    """Standard deviations of what is not known of east, north and up of the ground, as
    each equation sees them, m/yr, shape (equations, 3)."""
    where: tuple[float, float]
    """x, y of the map."""
    inflation: float = 1.0
    """Of the variance of the noise, for being far off; what is above 1 is alike in no
    other."""

    @property
    def is_tie(self) -> bool:
        """Whether these are of a point."""
        return self.kind == TIES

    def residual(self, coefficients: np.ndarray) -> np.ndarray:
        """What coefficients of all frames leave, m/yr."""
        return self.values - self.design @ coefficients[self.columns]


def sides(summaries: Sequence[Summary]) -> list[tuple[str, bool]]:
    """Which side each frame sees the ground from: direction, and east or west of it."""
    return [(s.frame.track[0], bool(s.look[:, 0].mean() > 0)) for s in summaries]


def overlap_rows(
    summaries: Sequence[Summary],
    bases: Sequence[Basis],
    lattice: Lattice,
    ground: Ground | None,
) -> list[Rows]:
    """Differences in every cell that frames of one side share, cell by cell."""
    side = sides(summaries)
    track = [s.frame.track for s in summaries]
    cells: dict[int, list[_Shared]] = defaultdict(list)
    for a, b in meeting(summaries, lattice):
        if side[a] != side[b]:
            continue
        first, second = common(summaries[a], summaries[b])
        owner = lattice.cells(summaries[a].keys[first])
        order = np.argsort(owner, kind="stable")
        cuts = np.flatnonzero(np.diff(owner[order])) + 1
        kind = TRACKS if track[a] == track[b] else OVERLAPS
        for group in np.split(order, cuts) if order.size else ():
            if group.size >= FEWEST:
                shared = _Shared(kind, a, b, first[group], second[group])
                cells[int(owner[group[0]])].append(shared)
    trees = [
        list(part)
        for cell in sorted(cells)
        for _, part in groupby(_tree(cells[cell]), key=lambda s: s.kind)
    ]
    places = np.array([_middle(t, summaries, lattice) for t in trees]).reshape(-1, 2)
    return [
        _cell_rows(tree, summaries, bases, tuple(place), u, std)
        for tree, place, u, std in zip(
            trees, places, *_known(lattice, places, ground), strict=True
        )
    ]


@dataclass(frozen=True)
class _Shared:
    """Squares of one cell that two frames share, by position in each."""

    kind: str
    a: int
    b: int
    first: np.ndarray
    second: np.ndarray


def _tree(shared: list[_Shared]) -> list[_Shared]:
    """Pairs that link all frames of a cell without a loop.

    Those of one track come first, then those that share most. A loop would tell nothing
    new but for the squares that not all share.
    """
    root: dict[int, int] = {}

    def find(k: int) -> int:
        while root.setdefault(k, k) != k:
            k = root[k]
        return k

    kept = []
    for pair in sorted(
        shared, key=lambda s: (s.kind != TRACKS, -s.first.size, s.a, s.b)
    ):
        one, other = find(pair.a), find(pair.b)
        if one != other:
            root[one] = other
            kept.append(pair)
    return kept


def _middle(
    shared: Sequence[_Shared], summaries: Sequence[Summary], lattice: Lattice
) -> np.ndarray:
    """Middle of what frames share in a cell, x and y."""
    keys = np.concatenate([summaries[s.a].keys[s.first] for s in shared])
    return np.array([v.mean() for v in lattice.centres(np.unique(keys))])


def _cell_rows(
    shared: Sequence[_Shared],
    summaries: Sequence[Summary],
    bases: Sequence[Basis],
    where: tuple[float, float],
    known: np.ndarray,
    std: np.ndarray,
) -> Rows:
    frames = tuple(sorted({f for s in shared for f in (s.a, s.b)}))
    size = bases[0].size
    values, design = np.empty(len(shared)), np.zeros((len(shared), size * len(frames)))
    mixing, apart = np.zeros((len(shared), len(frames))), np.zeros((len(shared), 3))
    noise: dict[int, list[float]] = defaultdict(list)
    for k, pair in enumerate(shared):
        values[k] = 0.0
        for f, at, sign in ((pair.a, pair.first, 1), (pair.b, pair.second, -1)):
            s = summaries[f]
            x, y = bases[f].lattice.centres(s.keys[at])
            values[k] += sign * s.velocity[at].mean()
            apart[k] += sign * s.look[at].mean(0)
            number = frames.index(f)
            part = slice(number * size, (number + 1) * size)
            design[k, part] = sign * bases[f](x, y).mean(0)
            mixing[k, number] = sign
            noise[f].append(float(s.variance[at].mean()))
    return Rows(
        shared[0].kind,
        frames,
        tuple((s.a, s.b) for s in shared),
        values - apart @ known,
        _columns(frames, size),
        design,
        mixing,
        np.array([np.mean(noise[f]) for f in frames]),
        apart * std,
        where,
    )


def _known(
    lattice: Lattice, places: np.ndarray, ground: Ground | None
) -> tuple[np.ndarray, np.ndarray]:
    """East, north, up at places and their standard deviations, shapes (n, 3)."""
    values = np.zeros((len(places), 3))
    std = np.broadcast_to(np.sqrt(np.diag(UNKNOWN)), (len(places), 3)).copy()
    if ground is not None and len(places):
        told, spread = ground.at(*lattice.degrees(*places.T))
        there = np.isfinite(told).all(-1) & np.isfinite(spread).all(-1)
        values[there] = told[there]
        std[there] = np.sqrt(spread[there] ** 2 + np.diag(LOCAL))
    return values, std


def tie_rows(
    summaries: Sequence[Summary],
    bases: Sequence[Basis],
    lattice: Lattice,
    ground: Ground,
) -> list[Rows]:
    """Frames at each point whose velocity is known, point by point.

    A frame that holds none of the points of a field or a plate is compared with it in
    its middle.
    """
    rows = _at_points(ground.points(extent(summaries, lattice)), summaries, bases)
    held = {f for row in rows for f in row.frames}
    for f in range(len(summaries)):
        if f in held:
            continue
        x, y = lattice.centres(summaries[f].keys)
        middle = int(np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2))
        lon, lat = (float(v) for v in lattice.degrees(x[middle], y[middle]))
        point = ground.points((lon, lat, lon, lat))
        more = _at_points(point, summaries, bases)
        held |= {f for row in more for f in row.frames}
        rows += more
    return rows


def _at_points(
    points: xr.Dataset, summaries: Sequence[Summary], bases: Sequence[Basis]
) -> list[Rows]:
    lattice = bases[0].lattice
    lon, lat = points["longitude"].values, points["latitude"].values
    x, y = lattice.of_degrees(lon, lat)
    keys = lattice.keys(x, y)
    rows = []
    for k in np.lexsort((lon, lat)):
        near = np.sort(lattice.around(int(keys[k]), TIE_SQUARES))
        found = []
        for f, s in enumerate(summaries):
            at = np.searchsorted(s.keys, near)
            at = at[
                (at < s.keys.size) & (s.keys[np.minimum(at, s.keys.size - 1)] == near)
            ]
            if at.size:
                found.append((f, at))
        if found:
            point = points.isel({STATION: k})
            where = (float(x[k]), float(y[k]))
            rows.append(_point_rows(point, where, found, summaries, bases))
    return rows


def _point_rows(
    point: xr.Dataset,
    where: tuple[float, float],
    found: list[tuple[int, np.ndarray]],
    summaries: Sequence[Summary],
    bases: Sequence[Basis],
) -> Rows:
    size = bases[0].size
    design = np.zeros((len(found), size * len(found)))
    look = np.stack([summaries[f].look[at].mean(0) for f, at in found])
    velocity = np.array([summaries[f].velocity[at].mean() for f, at in found])
    known = np.array([float(point[n]) for n in COMPONENTS])
    std = np.array([float(point[f"{n}_std"]) for n in COMPONENTS])
    for k, (f, at) in enumerate(found):
        x, y = bases[f].lattice.centres(summaries[f].keys[at])
        design[k, k * size : (k + 1) * size] = bases[f](x, y).mean(0)
    frames = tuple(f for f, _ in found)
    return Rows(
        TIES,
        frames,
        tuple((f, -1) for f in frames),
        velocity - look @ known,
        _columns(frames, size),
        design,
        np.eye(len(found)),
        np.array([summaries[f].variance[at].mean() for f, at in found]),
        look * std,
        where,
    )


def _columns(frames: Sequence[int], size: int) -> np.ndarray:
    """Positions of the coefficients of frames that have `size` each."""
    return (np.array(frames)[:, None] * size + np.arange(size)).ravel()
