"""Run a network over a map tile by tile, so that the cut cannot be seen.

All tiles lie on one lattice anchored at the first pixel of the cube. Whatever window
is asked for, the tiles it touches are computed whole and alike, so the result for a
pixel does not depend on the window, to the last bit.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Tile(NamedTuple):
    """Rows and columns, as slices into the whole map; they may reach beyond it."""

    y: slice
    x: slice


TileFunction = Callable[[Tile, Tile], np.ndarray]
"""``function(view, clipped)``: the network's output for the window `view`, of which
`clipped` lies on the map. It returns an array of the shape of `view`, or of what
`Lattice.certain` leaves of it."""
Sides = tuple[bool, bool, bool, bool]
"""Top, bottom, left, right."""


@dataclass(frozen=True)
class Lattice:
    """How a map is cut for a network."""

    shape: tuple[int, int]
    """Rows and columns of the whole map."""
    tile: int
    """Pixels a side: kept part of a tile (finite view), or tile that is blended."""
    radius: int | None
    """Receptive radius of the network; None for a wider or global view."""

    def __post_init__(self) -> None:
        if self.tile < 2 or (self.radius is None and self.tile % 2):
            raise ValueError(f"tile={self.tile} must be an even number of pixels")

    @property
    def whole(self) -> Tile | None:
        """The map, where a network with a wider view sees it at once; else None."""
        if self.radius is not None or max(self.shape) > self.tile:
            return None
        return Tile(slice(0, self.shape[0]), slice(0, self.shape[1]))

    def tiles(self, window: Tile) -> Iterator[Tile]:
        """Tiles (kept or blended part) that touch `window`, in a fixed order."""
        for y in self._spans(window.y, self.shape[0]):
            for x in self._spans(window.x, self.shape[1]):
                yield Tile(y, x)

    def _spans(self, window: slice, length: int) -> Iterator[slice]:
        if self.radius is not None:
            first = window.start // self.tile * self.tile
            for start in range(first, window.stop, self.tile):
                yield slice(start, min(start + self.tile, length))
        else:
            stride = self.tile // 2
            first = (window.start // stride - 1) * stride
            for start in range(first, window.stop, stride):
                if start + self.tile > window.start:
                    yield slice(start, start + self.tile)

    def apply(self, function: TileFunction, window: Tile) -> np.ndarray:
        """Output of the network for `window`.

        With a finite view, each tile is computed with a halo of its radius and
        trimmed: the result is that of the whole map at once. Otherwise a map that fits
        into a tile is seen whole; of larger ones tiles overlap by half and are blended
        with Hann weights.

        Parameters
        ----------
        function : callable
            See `TileFunction`.
        window : Tile
            Inside the map.

        Returns
        -------
        numpy.ndarray, float32, shape of `window`
        """
        return self.join((function(*view) for view in self.views(window)), window)

    def views(self, window: Tile) -> Iterator[tuple[Tile, Tile]]:
        """What the network must see for `window`: the arguments of a `TileFunction`."""
        if self.whole is not None:
            yield self.whole, self.whole
            return
        for tile in self.tiles(window):
            if self.radius is not None:
                view = clip(grow(tile, self.radius), self.shape)
                yield view, view
            else:
                clipped = clip(tile, self.shape)
                if all(s.start < s.stop for s in clipped):
                    yield tile, clipped

    def goes_on(self, view: Tile) -> Sides:
        """Whether the map goes on beyond each side of a view."""
        y, x = view
        rows, columns = self.shape
        return y.start > 0, y.stop < rows, x.start > 0, x.stop < columns

    def certain(self, view: Tile) -> Tile:
        """Part of a view whose output does not depend on what lies beyond it."""
        top, bottom, left, right = (
            side * (self.radius or 0) for side in self.goes_on(view)
        )
        y, x = view
        return Tile(
            slice(y.start + top, y.stop - bottom),
            slice(x.start + left, x.stop - right),
        )

    def join(self, outputs: Iterable[np.ndarray], window: Tile) -> np.ndarray:
        """Output for `window` of those for each of its `views`, in their order."""
        if self.whole is not None:
            (values,) = outputs
            return np.asarray(values[shift(window, self.whole)], "float32")
        if self.radius is not None:
            return self._trim(outputs, window)
        return self._blend(outputs, window)

    def _trim(self, outputs: Iterable[np.ndarray], window: Tile) -> np.ndarray:
        out = np.empty(_lengths(window), "float32")
        seen = zip(self.tiles(window), self.views(window), outputs, strict=True)
        for tile, (view, _), values in seen:
            part = intersect(tile, window)
            whole = values.shape == _lengths(view)
            there = shift(part, view if whole else self.certain(view))
            out[shift(part, window)] = values[there]
        return out

    def _blend(self, outputs: Iterable[np.ndarray], window: Tile) -> np.ndarray:
        total = np.zeros(_lengths(window))
        weights = np.zeros(_lengths(window))
        hann = np.sin(np.pi * (np.arange(self.tile) + 0.5) / self.tile) ** 2
        for (tile, _), values in zip(self.views(window), outputs, strict=True):
            part = intersect(tile, window)
            inside = shift(part, tile)
            weight = np.outer(hann[inside[0]], hann[inside[1]])
            total[shift(part, window)] += weight * values[inside]
            weights[shift(part, window)] += weight
        return (total / weights).astype("float32")


def grow(tile: Tile, margin: int) -> Tile:
    """`tile` with `margin` more pixels on every side."""
    return Tile(*(slice(s.start - margin, s.stop + margin) for s in tile))


def clip(tile: Tile, shape: tuple[int, int]) -> Tile:
    """Cut `tile` to a map of `shape`."""
    return Tile(
        *(
            slice(max(s.start, 0), min(s.stop, n))
            for s, n in zip(tile, shape, strict=True)
        )
    )


def intersect(one: Tile, other: Tile) -> Tile:
    """Keep the part common to both."""
    return Tile(
        *(
            slice(max(a.start, b.start), min(a.stop, b.stop))
            for a, b in zip(one, other, strict=True)
        )
    )


def shift(part: Tile, origin: Tile) -> tuple[slice, slice]:
    """Slices of `part` counted from the first pixel of `origin`."""
    y, x = (
        slice(p.start - o.start, p.stop - o.start)
        for p, o in zip(part, origin, strict=True)
    )
    return y, x


def _lengths(tile: Tile) -> tuple[int, int]:
    return tile.y.stop - tile.y.start, tile.x.stop - tile.x.start
