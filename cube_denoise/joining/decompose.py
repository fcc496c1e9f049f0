r"""From lines of sight to east and up, with the covariance of every pixel.

A pixel that n frames see gives :math:`y = G (u_e, u_u) + l_n u_n + e`, where y are the
velocities less the offsets of their frames. The covariance of the errors is that of the
pixels' own noise, of the offsets (shared by pixels, and correlated between frames), and
of the north velocity that is taken from elsewhere:

.. math:: S = diag(\sigma^2) + B C B^T + \sigma_n^2 l_n l_n^T, \qquad
    A = (G^T S^{-1} G)^{-1} G^T S^{-1}, \quad (u_e, u_u) = A (y - l_n u_n)

Frames of one track are of the same acquisitions, so that their pixels may have the same
noise: with E, of :math:`\sigma_i \sigma_j` for frames of one track, the covariance that
is told is :math:`A (S + E) A^T`. A second frame of a track makes no pixel surer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cube_denoise.conventions import X, Y
from cube_denoise.joining.frames import LOOK, MAPS, Frame, checked
from cube_denoise.joining.offsets import Offsets

EAST, NORTH, UP, LOS = "east", "north", "up", "los"
MAX_CONDITION = 10.0
"""Condition number of the looks (east, up) above which a pixel is left empty."""


@dataclass(frozen=True)
class Seen:
    """Frames on a window of a grid."""

    velocity: np.ndarray
    """m/yr, less the offsets; NaN = no data; shape (frames, y, x)."""
    variance: np.ndarray
    """Of the pixels' own noise, (m/yr)^2."""
    look: np.ndarray
    """Shape (frames, 3, y, x)."""
    basis: np.ndarray
    """Shape (frames, y, x, coefficients of a frame)."""
    track: np.ndarray
    """Of each frame, text."""


@dataclass(frozen=True)
class Estimate:
    """Components of a window and how well they are known."""

    values: np.ndarray
    """m/yr, shape (components, y, x)."""
    covariance: np.ndarray
    """(m/yr)^2, upper triangle row by row, shape (terms, y, x)."""
    condition: np.ndarray
    """Of the looks; 1 for a single component."""
    count: np.ndarray
    """Frames."""
    look: np.ndarray
    """Unit vector that a single component is along, shape (3, y, x); else empty."""


def on_grid(
    frame: Frame, grid: GeoBox, place: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """Maps of a frame at the centres of pixels of a grid, interpolated bilinearly.

    Of the four pixels around, those with data count; where the nearest has none there
    is no data. The value of a pixel does not depend on the window.

    Parameters
    ----------
    frame : Frame
    grid : odc.geo.geobox.GeoBox
        Of the window.
    place : (x, y)
        Centres of its pixels in the grid's map.

    Returns
    -------
    dict or None
        `MAPS`, float32; None where the frame does not reach.
    """
    x, y = place
    if frame.grid.crs != grid.crs:
        to = Transformer.from_crs(grid.crs, frame.grid.crs, always_xy=True)
        x, y = to.transform(x, y)
    column, row = ~frame.grid.affine * (x, y)
    # Pixel centres that coincide are not moved by rounding.
    column, row = (np.round(v - 0.5, 6) for v in (column, row))
    rows, columns = frame.grid.shape
    inside = (row > -0.5) & (row < rows - 0.5) & (column > -0.5)
    inside &= column < columns - 0.5
    if not inside.any():
        return None
    window = {
        d: slice(
            max(math.floor(v[inside].min()), 0), min(math.floor(v[inside].max()) + 2, n)
        )
        for d, v, n in ((Y, row, rows), (X, column, columns))
    }
    maps = checked(frame, frame.maps.read(window))
    row, column = row - window[Y].start, column - window[X].start
    last = [window[d].stop - window[d].start - 1 for d in (Y, X)]
    i, j = np.floor(row).astype(int), np.floor(column).astype(int)
    total = {n: np.zeros(x.shape) for n in MAPS}
    weights = np.zeros(x.shape)
    there = np.isfinite(maps["velocity"])
    for di in (0, 1):
        for dj in (0, 1):
            weight = np.abs(1 - di - (row - i)) * np.abs(1 - dj - (column - j))
            at = np.clip(i + di, 0, last[0]), np.clip(j + dj, 0, last[1])
            weight = np.where(inside & there[at], weight, 0.0)
            weights += weight
            for name in MAPS:
                total[name] += np.where(weight > 0, weight * maps[name][at], 0.0)
    nearest = (
        np.clip(np.floor(row + 0.5).astype(int), 0, last[0]),
        np.clip(np.floor(column + 0.5).astype(int), 0, last[1]),
    )
    kept = inside & there[nearest] & (weights > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            n: np.where(kept, v / weights, np.nan).astype("float32")
            for n, v in total.items()
        }


def centres(grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x, y of the centres of the pixels of a north-up grid."""
    rows, columns = grid.shape
    transform: Affine = grid.affine
    x = transform.c + (np.arange(columns) + 0.5) * transform.a
    y = transform.f + (np.arange(rows) + 0.5) * transform.e
    found = np.meshgrid(x, y)
    return found[0], found[1]


def seen_by(
    frames: Sequence[Frame], offsets: Offsets, grid: GeoBox
) -> tuple[list[int], Seen | None]:
    """Frames that hold data in a window, by position, and what they see.

    Parameters
    ----------
    frames : sequence of Frame
    offsets : Offsets
        Of the same frames in the same order.
    grid : odc.geo.geobox.GeoBox
        Of the window.
    """
    place = centres(grid)
    found, parts = [], []
    for k, frame in enumerate(frames):
        if (maps := on_grid(frame, grid, place)) is None:
            continue
        basis = offsets.bases[k](*place)
        velocity = maps["velocity"] - basis @ offsets.coefficients[offsets.part(k)]
        if np.isfinite(velocity).any():
            found.append(k)
            look = np.stack([maps[n] for n in LOOK])
            parts.append((velocity, maps["velocity_std"] ** 2, look, basis))
    if not found:
        return [], None
    velocity, variance, look, basis = (
        np.stack(p).astype("float64") for p in zip(*parts, strict=True)
    )
    track = np.array([frames[k].track for k in found])
    return found, Seen(velocity, variance, look, basis, track)


def decompose(
    seen: Seen,
    covariance: np.ndarray,
    *,
    components: Sequence[str],
    north: tuple[np.ndarray, np.ndarray] | None,
    max_condition: float = MAX_CONDITION,
) -> Estimate:
    """Components of every pixel of a window; see the module.

    Parameters
    ----------
    seen : Seen
        Of n frames.
    covariance : numpy.ndarray
        Of their coefficients one after another, shape (n k, n k).
    components : sequence of str
        ``("east", "up")``, ``("east", "north", "up")`` (north as given), ``("los",)``:
        of frames of one side, along the mean of their looks.
    north : (values, std) or None
        North velocity, m/yr, shape (y, x); None: 0, known.
    max_condition : float
        See `MAX_CONDITION`.

    Returns
    -------
    Estimate
        float32; NaN where there are too few frames or the looks are too alike.
    """
    n, rows, columns = seen.velocity.shape
    terms = len(components) * (len(components) + 1) // 2
    flat = rows * columns
    values = np.full((len(components), flat), np.nan)
    spread = np.full((terms, flat), np.nan)
    condition = np.full(flat, np.nan)
    along = tuple(components) == (LOS,)
    looks = np.full((3 if along else 0, flat), np.nan)
    there = np.isfinite(seen.velocity).reshape(n, flat)
    patterns, inverse = np.unique(
        np.packbits(there, axis=0), axis=1, return_inverse=True
    )
    shifted = None
    if north is not None:
        shifted = north[0].ravel(), north[1].ravel() ** 2
    for number, pattern in enumerate(patterns.T):
        used = np.flatnonzero(np.unpackbits(pattern, count=n))
        at = np.flatnonzero(inverse == number)
        if not used.size:
            continue
        size = seen.basis.shape[-1]
        wanted = np.concatenate([np.arange(size) + size * k for k in used])
        part = _Pixels(
            seen.velocity.reshape(n, flat)[np.ix_(used, at)].T,
            seen.variance.reshape(n, flat)[np.ix_(used, at)].T,
            seen.look.reshape(n, 3, flat)[used][:, :, at].transpose(2, 0, 1),
            seen.basis.reshape(n, flat, size)[used][:, at].transpose(1, 0, 2),
            covariance[np.ix_(wanted, wanted)],
            seen.track[used],
            None if shifted is None else (shifted[0][at], shifted[1][at]),
        )
        if along:
            found, errors, looks[:, at] = _along_look(part)
            cond = np.ones(at.size)
        else:
            found, errors, gain, cond = _east_up(part, max_condition)
        if NORTH in components:
            found, errors = _with_north(part, found, errors, gain)
        upper = np.triu_indices(len(components))
        values[:, at] = found.T
        spread[:, at] = errors[:, upper[0], upper[1]].T
        condition[at] = cond
    count = there.sum(0)
    shape = (rows, columns)
    return Estimate(
        values.reshape(-1, *shape).astype("float32"),
        spread.reshape(-1, *shape).astype("float32"),
        condition.reshape(shape).astype("float32"),
        count.reshape(shape).astype("int16"),
        looks.reshape(-1, *shape).astype("float32"),
    )


@dataclass(frozen=True)
class _Pixels:
    """Pixels that the same frames see."""

    velocity: np.ndarray
    """Shape (pixels, frames)."""
    variance: np.ndarray
    look: np.ndarray
    """Shape (pixels, frames, 3)."""
    basis: np.ndarray
    """Shape (pixels, frames, coefficients of a frame)."""
    covariance: np.ndarray
    """Of the coefficients of these frames."""
    track: np.ndarray
    north: tuple[np.ndarray, np.ndarray] | None
    """Velocity and variance, shape (pixels,)."""

    def errors(self) -> np.ndarray:
        """S of the module, shape (pixels, frames, frames)."""
        frames, size = self.basis.shape[1:]
        blocks = self.covariance.reshape(frames, size, frames, size)
        found = np.einsum("pia,iajb,pjb->pij", self.basis, blocks, self.basis)
        found[:, np.arange(frames), np.arange(frames)] += self.variance
        if self.north is not None:
            looks = self.look[:, :, 1]
            found += self.north[1][:, None, None] * looks[:, :, None] * looks[:, None]
        return found

    def told(self, spread: np.ndarray, gain: np.ndarray) -> np.ndarray:
        """Covariance of components, with the noise that frames of a track share.

        From that without, shape (pixels, components, components), and from A of the
        module, (pixels, components, frames).
        """
        alike = self.track[:, None] == self.track
        np.fill_diagonal(alike, False)
        if not alike.any():
            return spread
        std = gain * np.sqrt(self.variance)[:, None]
        return spread + np.einsum("pci,ij,pdj->pcd", std, alike.astype(float), std)

    def without_north(self) -> np.ndarray:
        """Velocities less the north part, shape (pixels, frames)."""
        if self.north is None:
            return self.velocity
        return self.velocity - self.look[:, :, 1] * self.north[0][:, None]


def _east_up(
    part: _Pixels, max_condition: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """East and up, their covariance, A of the module, the looks' condition."""
    pixels, frames = part.velocity.shape
    design = part.look[:, :, (0, 2)]
    condition = np.full(pixels, np.inf)
    if frames > 1:
        singular = np.linalg.svd(design, compute_uv=False)
        with np.errstate(divide="ignore"):
            condition = singular[:, 0] / singular[:, 1]
    good = condition <= max_condition
    values, spread = np.full((pixels, 2), np.nan), np.full((pixels, 2, 2), np.nan)
    gain = np.full((pixels, 2, frames), np.nan)
    if good.any():
        g = design[good]
        weighted = np.linalg.solve(part.errors()[good], g)
        spread[good] = np.linalg.inv(np.einsum("pij,pik->pjk", weighted, g))
        right = np.einsum("pij,pi->pj", weighted, part.without_north()[good])
        values[good] = np.einsum("pjk,pk->pj", spread[good], right)
        gain[good] = np.einsum("pjk,pik->pji", spread[good], weighted)
    return values, part.told(spread, gain), gain, condition


def _along_look(part: _Pixels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted mean of frames of one side, along the mean of their looks; the look.

    The mean of looks that differ is shorter than 1, and what is seen along it, too.
    """
    pixels, frames = part.velocity.shape
    weighted = np.linalg.solve(part.errors(), np.ones((pixels, frames, 1)))
    spread = 1 / weighted.sum(1, keepdims=True)
    gain = (spread * weighted).transpose(0, 2, 1)
    look = np.einsum("pci,pik->pk", gain, part.look)
    if frames > 1:
        length = np.sqrt((look**2).sum(1))[:, None]
        look = look / length
        gain, spread = gain / length[..., None], spread / length[..., None] ** 2
    values = (gain[:, 0] * part.velocity).sum(1, keepdims=True)
    return values, part.told(spread, gain), look.T


def _with_north(
    part: _Pixels, values: np.ndarray, spread: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """East, north, up and their covariance, with the north that was given."""
    assert part.north is not None
    north, variance = part.north
    pull = np.einsum("pji,pi->pj", gain, part.look[:, :, 1])
    shared = -pull * variance[:, None]
    whole = np.empty((len(north), 3, 3))
    whole[:, ::2, ::2] = spread
    whole[:, 1, 1] = variance
    whole[:, 1, ::2] = whole[:, ::2, 1] = shared
    there = np.isfinite(values).all(1)
    whole[~there] = np.nan
    north = np.where(there, north, np.nan)
    return np.stack([values[:, 0], north, values[:, 1]], 1), whole
