"""Offsets for given noise, and the noise that is likelier than the one before."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cube_denoise.joining.equations import TRACKS
from cube_denoise.joining.noise import (
    EXPECTED,
    HUBER,
    HUBER_BIAS,
    KINDS,
    REACH,
    Block,
    Noise,
    alike,
    alike_between,
    errors,
    expectation,
    parts_alike,
    unknown,
)

_SINGULAR = 1e-10


@dataclass(frozen=True)
class Solution:
    """Coefficients by generalised least squares, block by block."""

    coefficients: np.ndarray
    covariance: np.ndarray
    """As if blocks were independent."""
    inverses: tuple[np.ndarray, ...]
    """Of the covariance of the equations of each block."""
    gains: tuple[np.ndarray, ...]
    """These times the design."""


def solve(
    blocks: Sequence[Block], noise: Noise, inflation: np.ndarray, prior: np.ndarray
) -> Solution:
    """Solve all coefficients; of least norm where there are many.

    Parameters
    ----------
    blocks : sequence of Block
    noise : Noise
    inflation : numpy.ndarray
        Of the noise of each of the `Rows`; what is above 1 is alike in no other.
    prior : numpy.ndarray
        Inverse variances of the coefficients before anything is known.
    """
    normal, right = np.diag(prior), np.zeros(prior.size)
    inverses, gains = [], []
    for block in blocks:
        inverse = np.linalg.inv(errors(block, noise, inflation))
        inverse = (inverse + inverse.T) / 2
        gain = inverse @ block.design
        normal[np.ix_(block.columns, block.columns)] += block.design.T @ gain
        right[block.columns] += gain.T @ block.values
        inverses.append(inverse)
        gains.append(gain)
    values, vectors = np.linalg.eigh(normal)
    kept = values > _SINGULAR * values[-1]
    covariance = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return Solution(covariance @ right, covariance, tuple(inverses), tuple(gains))


def whole_covariance(
    blocks: Sequence[Block], noise: Noise, solution: Solution
) -> np.ndarray:
    """Covariance of the coefficients with the noise that blocks have in common."""
    middle = np.zeros_like(solution.covariance)
    low = np.array([b.place.min(0) for b in blocks]).reshape(-1, 3)
    high = np.array([b.place.max(0) for b in blocks]).reshape(-1, 3)
    for k, one in enumerate(blocks):
        gap = np.maximum(np.maximum(low[k] - high, low - high[k]), 0.0)
        near = np.flatnonzero(np.sqrt((gap**2).sum(1)) < REACH * noise.length)
        for other in near[near > k]:
            between = unknown(one, blocks[other])
            between += alike_between(one, blocks[other], noise)
            part = solution.gains[k].T @ between @ solution.gains[other]
            middle[np.ix_(one.columns, blocks[other].columns)] += part
            middle[np.ix_(blocks[other].columns, one.columns)] += part.T
    return solution.covariance + solution.covariance @ middle @ solution.covariance


def likelier(
    blocks: Sequence[Block], noise: Noise, solution: Solution
) -> tuple[np.ndarray, float]:
    """A step of the logarithms of factors and length toward the likeliest noise.

    Also the share of what is known of the length that residuals tell.
    """
    size = EXPECTED.size
    score, within = np.zeros(size), np.zeros((size, size))
    pulls = np.zeros((size, solution.coefficients.size))
    for block, inverse, gain in zip(
        blocks, solution.inverses, solution.gains, strict=True
    ):
        own, common = parts_alike(block, noise)
        covariance = own + common
        # With that within tracks given, the factors of the others are of what is
        # left: frames of a track that see the same tell nothing of it.
        beside = common / noise.share if noise.share else own
        left = block.values - block.design @ solution.coefficients[block.columns]
        z = inverse @ left
        spent = solution.covariance[np.ix_(block.columns, block.columns)]
        projected = inverse - gain @ spent @ gain.T
        longer = covariance * block.distance / noise.length
        inside = block.kind == KINDS.index(TRACKS)
        longer[inside[:, None] != inside] = 0.0
        longer[np.ix_(inside, inside)] *= 1 - noise.share
        moved = np.empty((size, z.size))
        for k in range(len(KINDS)):
            mine = block.kind == k
            part = own if KINDS[k] == TRACKS else beside
            moved[k] = (mine * (part @ z) + part @ (mine * z)) / 2
            score[k] -= (projected[mine] * part[mine]).sum() / 2
        moved[-1] = longer @ z
        score[-1] -= (projected * longer).sum() / 2
        score += moved @ z / 2 / HUBER_BIAS
        within += moved @ inverse @ moved.T / 2
        pulls[:, block.columns] += moved @ gain
    information = within - pulls @ solution.covariance @ pulls.T / 2
    prior = expectation(noise.logarithms)
    score -= prior * (noise.logarithms - EXPECTED)
    posterior = np.linalg.inv(information + np.diag(prior))
    told = 1 - posterior[-1, -1] * prior[-1]
    return posterior @ score, float(told)


def inflations(
    blocks: Sequence[Block], noise: Noise, solution: Solution, before: np.ndarray
) -> np.ndarray:
    """Inflation of the noise of each of the `Rows` that its residuals ask for.

    A cell counts less where it is off by more than `HUBER` standard deviations from
    what all others of its block tell of it.
    """
    found = np.ones_like(before)
    for block, inverse in zip(blocks, solution.inverses, strict=True):
        own = np.diag(alike(block, noise))
        left = block.values - block.design @ solution.coefficients[block.columns]
        spread = 1 / np.diag(inverse)
        off = (inverse @ left) * spread
        inflation = before[list(block.rows)]
        plain = np.maximum(spread - (inflation[block.row] - 1) * own, 1e-3 * spread)
        number = np.bincount(block.row)
        ratio = np.sqrt(np.bincount(block.row, off**2 / plain) / number)
        scale = np.bincount(block.row, plain / own) / number
        found[list(block.rows)] = 1 + scale * np.maximum(ratio / HUBER - 1, 0.0)
    return found
