"""Covariance of the equations of joined frames, one pair of equations at a time."""

import math
from dataclasses import dataclass

import numpy as np

OWN = 0.1
GROUND_KM = 50.0
TILE_KM = 320.0


@dataclass
class Equation:
    """A frame at a point, or the difference of two in a cell."""

    kind: str
    place: int
    """Number of the point or cell, of this kind."""
    where: tuple[float, float]
    """km in the map, or degrees."""
    noise: dict[int, float]
    """Of frames: the sign times the standard deviation of their pixels, m/yr."""
    ground: np.ndarray
    """Of east, north and up: times the standard deviation that is not known, m/yr."""
    inflation: float


def kilometres(one, other, degrees):
    """Between two places; of degrees the chord of a sphere."""
    if not degrees:
        return math.dist(one, other)
    (a, b), (c, d) = np.radians(one), np.radians(other)
    inside = math.sin((b - d) / 2) ** 2
    inside += math.cos(b) * math.cos(d) * math.sin((a - c) / 2) ** 2
    return 2 * 111.32 * 180 / math.pi * math.sqrt(inside)


def covariance(equations, noise, tracks, *, degrees=False):
    """Of their errors, (m/yr)^2, those in other squares of 320 km apart."""
    found = np.zeros((len(equations), len(equations)))
    per = 111.32 if degrees else 1.0
    tile = [[math.floor(v * per / TILE_KM) for v in e.where] for e in equations]
    for k, one in enumerate(equations):
        for i, other in enumerate(equations[: k + 1]):
            if tile[k] != tile[i]:
                continue
            same = (one.kind, one.place) == (other.kind, other.place)
            apart = kilometres(one.where, other.where, degrees)
            near = 1.0 if same else (1 - OWN) * math.exp(-1e3 * apart / noise.length)
            scale = math.sqrt(noise.factors[one.kind] * noise.factors[other.kind])
            common = noise.share
            total = 0.0
            for f, a in one.noise.items():
                for g, b in other.noise.items():
                    if f == g:
                        inside = (one.kind, other.kind).count("tracks")
                        total += a * b * math.sqrt(1 - common) ** (2 - inside)
                    if (
                        "tracks" not in (one.kind, other.kind)
                        and tracks[f] == tracks[g]
                    ):
                        total += a * b * common
            value = near * scale * total
            if same:
                value *= one.inflation
            if "ties" not in (one.kind, other.kind):
                value += math.exp(-apart / GROUND_KM) * (one.ground @ other.ground)
            elif same:
                value += one.ground @ other.ground
            found[k, i] = found[i, k] = value
    return found
