"""Work cut into blocks: what is computed, window by window, whoever runs it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

import numpy as np
import xarray as xr

from cube_denoise.conventions import VARIABLES

Window = Mapping[str, slice]
"""Dimension name -> slice with explicit non-negative start and stop."""

Compute = Callable[[xr.Dataset, Window], dict[str, np.ndarray]]
"""``compute(cube, window)``: see `BlockJob`."""


@dataclass(frozen=True)
class BlockJob:
    """A computation that gives the same numbers however it is cut into windows.

    ``compute(cube, window)`` reads what it needs from ``cube`` (halo included) and
    returns one NumPy array per output variable, for exactly that window. It must be
    picklable: a module-level function or a `functools.partial` of one.
    """

    outputs: tuple[str, ...]
    """Names of the variables computed, as in `conventions.VARIABLES`."""
    compute: Compute
    windows: tuple[Window, ...]
    """The windows; together they cover each output once."""
    sizes: Mapping[str, int]
    """Length of every dimension of the outputs."""
    region: Window = field(default_factory=dict)
    """Part of the cube that the windows cover; dimensions left out are whole."""
    coords: Mapping[str, Any] = field(default_factory=dict)
    """Coordinates the outputs bring along (``time`` of an inversion)."""
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Attributes by output variable, beside those of `conventions.VARIABLES`."""
    within: Callable[[Window], Compute] | None = None
    """Gives ``compute`` for one window alone, where the whole would be much to send."""

    def computing(self, window: Window) -> Compute:
        """Return what computes one window, and brings no more than that needs."""
        return self.compute if self.within is None else self.within(window)


def spans(stop: int, size: int, *, start: int = 0) -> list[slice]:
    """Cut ``start..stop`` at multiples of `size`, counted from 0.

    Examples
    --------
    >>> spans(10, 4, start=3)
    [slice(3, 4, None), slice(4, 8, None), slice(8, 10, None)]
    """
    if size < 1:
        raise ValueError(f"{size=} must be at least 1")
    edges = [start, *range((start // size + 1) * size, stop, size), stop]
    pairs = pairwise(edges)
    return [slice(a, b) for a, b in pairs if b > a]


def windows(**cuts: Sequence[slice]) -> tuple[dict[str, slice], ...]:
    """All combinations of the slices given per dimension, first dimension outermost.

    Examples
    --------
    >>> len(windows(y=spans(10, 4), x=spans(6, 4)))
    6
    """
    return tuple(
        dict(zip(cuts, combination, strict=True))
        for combination in product(*cuts.values())
    )


def variable_window(name: str, window: Window) -> tuple[slice, ...]:
    """Slices of `window` for the dimensions of variable `name`, in their order."""
    return tuple(window.get(d, slice(None)) for d in VARIABLES[name].dims)


def lazy(job: BlockJob, cube: xr.Dataset) -> xr.Dataset:
    """Give the outputs of `job` as Dask arrays, one task per window.

    `cube` goes into the graph as it is: opened with ``open_cube`` it is a few kilobytes
    of lazy references, and every task reads its own window.
    """
    import dask
    import dask.array as da

    source = dask.delayed(cube, traverse=False, pure=False)
    tasks = [dask.delayed(job.computing(w), pure=False)(source, w) for w in job.windows]
    variables = {}
    for name in job.outputs:
        spec = VARIABLES[name]
        pieces = {}
        for task, window in zip(tasks, job.windows, strict=True):
            where = [
                range(job.sizes[d])[s]
                for d, s in zip(spec.dims, variable_window(name, window), strict=True)
            ]
            pieces[tuple(r.start for r in where)] = da.from_delayed(
                task[name], tuple(len(r) for r in where), spec.dtype
            )
        attrs = spec.attributes | dict(job.attributes.get(name, {}))
        variables[name] = (spec.dims, _assemble(pieces, len(spec.dims)), attrs)
    inherited = {n: c for n, c in cube.coords.items() if set(c.dims) <= set(job.sizes)}
    part = xr.Dataset(coords=inherited).isel(dict(job.region), missing_dims="ignore")
    return xr.Dataset(variables, coords=dict(part.coords) | dict(job.coords))


def _assemble(pieces: dict[tuple[int, ...], Any], ndim: int) -> Any:
    """Blocks keyed by their first index -> one array (the blocks form a grid)."""
    import dask.array as da

    def nest(prefix: tuple[int, ...]) -> Any:
        if len(prefix) == ndim:
            return pieces[prefix]
        depth = len(prefix)
        heads = sorted({k[depth] for k in pieces if k[:depth] == prefix})
        return [nest((*prefix, h)) for h in heads]

    return da.block(nest(()))
