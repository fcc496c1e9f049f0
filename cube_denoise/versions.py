"""What differs between two states of a cube: pairs, maps, attributes."""

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cube_denoise import store
from cube_denoise.blocks import spans, windows
from cube_denoise.changes import difference
from cube_denoise.conventions import PAIR, TIMES, X, Y
from cube_denoise.last_inversion import KEPT

BLOCK = 512
"""Side of the windows in which maps are compared, px."""
UNTOLD = {"items", "history"}
"""Attributes that change with every step, and are told otherwise."""


def diff(
    url: str | Path,
    older: str,
    newer: str | None = None,
    *,
    branch: str = "main",
    layers: bool = False,
) -> dict[str, Any]:
    """Compare two states of a cube.

    Parameters
    ----------
    url : str or pathlib.Path
        The cube.
    older, newer : str
        Ids of states, as in `store.history`; the newest of the branch by default.
    branch : str
        Branch of the newest state.
    layers : bool
        Whether to compare the values of pairs that both have as well; reads both
        stacks.

    Returns
    -------
    dict
        JSON-able. ``added``, ``replaced``, ``withdrawn``: pairs. ``variables``: those
        that came and went. ``values``: by variable that changed, the largest absolute
        difference, its root mean square and how many values are known in one state
        only; of a series at the dates that both have. ``attributes``: by
        variable (``""`` for the cube) the names of those that changed.

    Raises
    ------
    CubeError
        If there is no such cube or state.
    ValueError
        If the states are on different grids.
    """
    one = store.open_cube(url, snapshot=older)
    other = store.open_cube(url, snapshot=newer, branch=branch)
    if one.sizes[Y] != other.sizes[Y] or one.sizes[X] != other.sizes[X]:
        raise ValueError(f"{older=} and {newer=} are on different grids")
    found: dict[str, Any] = dict(difference(one.attrs["items"], other.attrs["items"]))
    found["variables"] = {
        "added": sorted(map(str, set(other.data_vars) - set(one.data_vars))),
        "removed": sorted(map(str, set(one.data_vars) - set(other.data_vars))),
    }
    found["values"] = {
        name: told
        for name, a, b in _matched(one, other, layers)
        if (told := _compare(a, b)) is not None
    }
    found["attributes"] = _attributes(one, other)
    return found


def _matched(
    one: xr.Dataset, other: xr.Dataset, layers: bool
) -> Iterator[tuple[str, xr.DataArray, xr.DataArray]]:
    """Variables of both, cut to what both have."""
    places = [
        {tuple(i["key"]): k for k, i in enumerate(c.attrs["items"])}
        for c in (one, other)
    ]
    common = sorted(set(places[0]) & set(places[1]))
    times = {d: sorted({*_times(one, d)} & {*_times(other, d)}) for d in TIMES}
    both = set(one.data_vars) & set(other.data_vars)
    for name in sorted(map(str, both - set(KEPT))):
        pair = []
        for cube, place in zip((one, other), places, strict=True):
            array = cube[name]
            if PAIR in array.dims:
                array = array.isel({PAIR: [place[key] for key in common]})
            array = array.sel({d: times[d] for d in TIMES if d in array.dims})
            pair.append(array)
        if PAIR in pair[0].dims and Y in pair[0].dims and not layers:
            continue
        if pair[0].dims == pair[1].dims and pair[0].dtype.kind in "fiu":
            yield name, pair[0], pair[1]


def _times(cube: xr.Dataset, dim: str) -> np.ndarray:
    return cube[dim].values if dim in cube.coords else np.array([], "datetime64[ns]")


def _compare(one: xr.DataArray, other: xr.DataArray) -> dict[str, Any] | None:
    """Difference of two arrays of one shape, window by window; None if equal."""
    largest, square, count, unknown = 0.0, 0.0, 0, 0
    cuts = {d: spans(one.sizes[d], BLOCK) for d in (Y, X) if d in one.dims}
    cuts |= {d: spans(one.sizes[d], 1) for d in (PAIR,) if d in one.dims and cuts}
    for window in windows(**cuts):
        a, b = (np.asarray(c.isel(window).values, "float64") for c in (one, other))
        known = np.isfinite(a), np.isfinite(b)
        unknown += int((known[0] ^ known[1]).sum())
        change = np.abs(b - a)[known[0] & known[1]]
        if change.size:
            largest = max(largest, float(change.max()))
            square += float((change**2).sum())
            count += change.size
    if not largest and not unknown:
        return None
    return {
        "max_abs": largest,
        "rms": float(np.sqrt(square / count)) if count else None,
        "known_in_one_only": unknown,
        "units": str(one.attrs.get("units", "")),
    }


def _attributes(one: xr.Dataset, other: xr.Dataset) -> dict[str, list[str]]:
    def told(cube: xr.Dataset) -> dict[str, Mapping[Hashable, Any]]:
        return {"": cube.attrs} | {str(n): v.attrs for n, v in cube.data_vars.items()}

    before, after = told(one), told(other)
    found = {}
    for name in sorted(set(before) & set(after)):
        a, b = before[name], after[name]
        names = {str(k) for k in set(a) | set(b) if str(a.get(k)) != str(b.get(k))}
        if names - UNTOLD:
            found[name] = sorted(names - UNTOLD)
    return found
