r"""Noise of cells and points: how large it is, and how far it is alike.

The noise of a frame in two cells or points k, l that are d apart has the covariance

.. math:: C_{kl} = \sigma_k \sigma_l (1 - \nu) \exp(-d / \ell), \qquad
    C_{kk} = \sigma_k^2 = s \bar\sigma_k^2

where :math:`\bar\sigma` is the standard deviation of its pixels, s a factor of each
kind of equations, :math:`\nu` = `OWN`, and the length :math:`\ell` is one for all.
What differences within a track lack of it, frames of that track have in common, in
other equations. s and :math:`\ell` are those of the largest restricted likelihood
(REML: of the residuals, what the offsets take out of them allowed for), found by the
average information [1]_, with log-normal priors: residuals hardly tell the variance of
noise that is alike over a frame, which looks as its offset does, and then it is about
that of the pixels times `FACTOR`; where they are too few to tell how far it is alike,
that is about `LENGTH`.

What is not known of the ground between points is alike over `GROUND_LENGTH` likewise.

References
----------
.. [1] Gilmour, Thompson & Cullis (1995), Average information REML, Biometrics 51.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import exp1
from scipy.stats import norm

from cube_denoise.joining.equations import OVERLAPS, TIES, TRACKS, Rows
from cube_denoise.joining.lattice import Lattice

KINDS = (TIES, OVERLAPS, TRACKS)
GROUND_LENGTH = 50e3
"""m: over so much what is not known of the ground between points is alike."""
OWN = 0.1
"""Share of the variance that a cell or point has by itself."""
APART = 1e-3
"""Share of it that frames of a track at least do not have in common."""
LENGTH = 50e3
"""m: how far noise is taken to be alike before residuals are seen."""
LENGTH_SPREAD = 0.7
"""Standard deviation of its natural logarithm."""
FACTOR = 0.5
"""On the variance of pixels before residuals are seen: some of it averages out."""
FACTOR_SPREADS = (0.5, 1.5)
"""Standard deviations of its natural logarithm below and above that: residuals hide
noise that is alike over a frame, and tell where it is larger, not where it is less."""
TOLD = 0.5
"""Share of what is known of the length from which on residuals are said to tell it."""
LENGTHS = (2e3, 200e3)
"""m, bounds."""
FACTORS = (1e-4, 1e4)
"""Bounds."""
HUBER = 1.5
"""Prediction error over its standard deviation from which on cells count less."""
MOST = 600
"""Equations in a block, if those of one cell are not more."""
WIDEST = 16
"""Cells a side of the largest block."""
REACH = 4.0
"""Lengths over which the noise of two blocks is taken as alike."""


def _huber_bias() -> float:
    """Sum of squares that counts, over what it is taken for, of normal errors."""
    inside = norm.cdf(HUBER) - norm.cdf(-HUBER)
    squares = inside - 2 * HUBER * norm.pdf(HUBER) + HUBER**2 * (1 - inside)
    weights = inside + HUBER * exp1(HUBER**2 / 2) / math.sqrt(2 * math.pi)
    return float(squares / weights)


HUBER_BIAS = _huber_bias()


EXPECTED = np.log([FACTOR, FACTOR, FACTOR, LENGTH])
"""Logarithms of the factors of `KINDS` and of the length."""


def expectation(logarithms: np.ndarray) -> np.ndarray:
    """Inverse variances about `EXPECTED` on the side of these, independent."""
    less, more = FACTOR_SPREADS
    factors = np.where(logarithms[:-1] < EXPECTED[:-1], less, more)
    factors[KINDS.index(TRACKS)] = more
    return np.append(factors, LENGTH_SPREAD) ** -2.0


@dataclass(frozen=True)
class Noise:
    """What is taken of the noise of all cells and points."""

    factors: Mapping[str, float]
    """On the variance, by kind of equations."""
    length: float
    """m."""
    told: float = 0.0
    """Share of what is known of the logarithm of the length that residuals tell: 1 less
    its variance over that of `LENGTH_SPREAD`."""

    @classmethod
    def of(cls, logarithms: np.ndarray, told: float = 0.0) -> "Noise":
        """From the logarithms of the factors of `KINDS` and of the length."""
        *factors, length = np.exp(logarithms).tolist()
        return cls(
            dict(
                zip(KINDS, (float(np.clip(f, *FACTORS)) for f in factors), strict=True)
            ),
            float(np.clip(length, *LENGTHS)),
            told,
        )

    @property
    def logarithms(self) -> np.ndarray:
        """Of the factors of `KINDS` and of the length."""
        return np.log([*(self.factors[k] for k in KINDS), self.length])

    @property
    def share(self) -> float:
        """Of the variance, that frames of one track have in common."""
        apart = self.factors[TRACKS] / self.factors[OVERLAPS]
        return min(1 - APART, max(0.0, 1 - apart))


@dataclass(frozen=True)
class Block:
    """Equations near each other, stacked."""

    rows: tuple[int, ...]
    """Positions of the `Rows`."""
    values: np.ndarray
    """m/yr, shape (equations,)."""
    columns: np.ndarray
    """Positions of the coefficients that are in it."""
    design: np.ndarray
    """Shape (equations, columns)."""
    row: np.ndarray
    """Which of `rows` each equation is of."""
    kind: np.ndarray
    """Which of `KINDS`."""
    place: np.ndarray
    """Positions in space, m, shape (equations, 3)."""
    frames: np.ndarray
    """Increasing."""
    own: np.ndarray
    """Standard deviation of the noise of frames in each, shape (equations, frames)."""
    tracks: np.ndarray
    """Increasing."""
    common: np.ndarray
    """Of the noise of tracks; 0 in differences within a track."""
    ground: np.ndarray
    """Standard deviations of what is not known of the ground, shape (equations, 3)."""

    @cached_property
    def distance(self) -> np.ndarray:
        """m, shape (equations, equations)."""
        return _distance(self.place, self.place)


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    return np.sqrt(np.maximum(squares, 0.0))


def blocks_of(
    rows: Sequence[Rows], tracks: Sequence[str], lattice: Lattice
) -> list[Block]:
    """Equations in squares of up to `WIDEST` cells, quartered until they are few."""
    if not rows:
        return []
    where = np.array([r.where for r in rows])
    cell = np.stack(lattice.place(lattice.keys(*where.T)), 1) // lattice.per_cell
    size = np.array([r.values.size for r in rows])
    pending, found = [(np.arange(len(rows)), WIDEST)], []
    while pending:
        mine, side = pending.pop()
        _, tile = np.unique(cell[mine] // side, axis=0, return_inverse=True)
        for number in range(tile.max() + 1):
            part = mine[tile.ravel() == number]
            if side > 1 and size[part].sum() > MOST:
                pending.append((part, side // 2))
            else:
                found.append(part)
    found.sort(key=lambda part: int(part[0]))
    return [stacked([rows[k] for k in p], tracks, lattice, p) for p in found]


def stacked(
    mine: Sequence[Rows],
    tracks: Sequence[str],
    lattice: Lattice,
    numbers: Sequence[int],
) -> Block:
    """Some equations as one block.

    Parameters
    ----------
    mine : sequence of Rows
    tracks : sequence of str
        Of all frames.
    lattice : Lattice
    numbers : sequence of int
        Positions of `mine` among all.
    """
    _, track = np.unique(tracks, return_inverse=True)
    place = lattice.in_space(*np.array([r.where for r in mine]).T)
    ends = np.cumsum([0] + [r.values.size for r in mine])
    columns = np.unique(np.concatenate([r.columns for r in mine]))
    frames = np.unique(np.concatenate([r.frames for r in mine]))
    held = np.unique(track[frames])
    count = int(ends[-1])
    design, own = np.zeros((count, columns.size)), np.zeros((count, frames.size))
    common = np.zeros((count, held.size))
    ground = np.zeros((count, 3))
    for r, a, b in zip(mine, ends[:-1], ends[1:], strict=True):
        design[a:b, np.searchsorted(columns, r.columns)] = r.design
        own[a:b, np.searchsorted(frames, r.frames)] = r.mixing * np.sqrt(r.noise)
        ground[a:b] = r.ground
    which = np.searchsorted(held, track[frames])
    kind = np.repeat([KINDS.index(r.kind) for r in mine], np.diff(ends))
    for k, number in enumerate(which):
        common[:, number] += own[:, k]
    common[kind == KINDS.index(TRACKS)] = 0.0
    row = np.repeat(np.arange(len(mine)), np.diff(ends))
    return Block(
        tuple(int(k) for k in numbers),
        np.concatenate([r.values for r in mine]),
        columns,
        design,
        row,
        kind,
        place[row],
        frames,
        own,
        held,
        common,
        ground,
    )


def _sources(block: Block, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """Noise of frames alone and of tracks in each equation, standard deviations."""
    std = np.sqrt([noise.factors[k] for k in KINDS])[block.kind, None]
    within = (block.kind == KINDS.index(TRACKS))[:, None]
    own = np.where(within, 1.0, math.sqrt(1 - noise.share)) * std * block.own
    return own, math.sqrt(noise.share) * std * block.common


def alike(block: Block, noise: Noise) -> np.ndarray:
    """Covariance of the noise of the equations of a block, (m/yr)^2."""
    own, common = parts_alike(block, noise)
    return own + common


def parts_alike(block: Block, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """The same, of the noise of frames alone and of that of tracks."""
    own, common = _sources(block, noise)
    near = (1 - OWN) * np.exp(-block.distance / noise.length)
    near = np.where(block.row[:, None] == block.row, 1.0, near)
    return near * (own @ own.T), near * (common @ common.T)


def alike_between(one: Block, other: Block, noise: Noise) -> np.ndarray:
    """The same of the equations of two blocks."""
    total = np.zeros((one.values.size, other.values.size))
    for sources, names in ((0, "frames"), (1, "tracks")):
        _, a, b = np.intersect1d(
            getattr(one, names),
            getattr(other, names),
            assume_unique=True,
            return_indices=True,
        )
        if a.size:
            left = _sources(one, noise)[sources][:, a]
            total = total + left @ _sources(other, noise)[sources][:, b].T
    distance = _distance(one.place, other.place)
    return (1 - OWN) * np.exp(-distance / noise.length) * total


def unknown(block: Block, other: Block) -> np.ndarray:
    """Covariance of what is not known of the ground, of the equations of two blocks.

    Errors of points have nothing to do with each other.
    """
    tie = KINDS.index(TIES)
    near = np.exp(-_distance(block.place, other.place) / GROUND_LENGTH)
    near = near * ((block.kind != tie)[:, None] & (other.kind != tie))
    if other is block:
        both = (block.kind == tie)[:, None] & (block.row[:, None] == block.row)
        near = np.where(both, 1.0, near)
    return near * (block.ground @ other.ground.T)


def errors(block: Block, noise: Noise, inflation: np.ndarray) -> np.ndarray:
    """Covariance of the errors of the equations of a block."""
    found = alike(block, noise)
    more = inflation[list(block.rows)][block.row] - 1
    return (
        unknown(block, block)
        + found
        + np.where(block.row[:, None] == block.row, more * found, 0.0)
    )
