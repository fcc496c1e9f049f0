"""Whether what a cube shows belongs together: pairs, their correction, the maps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from cube_denoise import store
from cube_denoise.conventions import PAIR
from cube_denoise.corrections import Correction
from cube_denoise.reference import phase_variable


def stack_state(cube: xr.Dataset) -> str:
    """Fingerprint of which pairs a cube has, whatever their order on disk."""
    return store.fingerprint({"pairs": sorted(_told(item) for item in _items(cube))})


def pair_state(cube: xr.Dataset, variable: str) -> str:
    """Fingerprint of the pairs of a cube and of how `variable` came about.

    An inversion records it in the attribute ``pair_state`` of what it gives.
    """
    told = _common(cube, variable)
    told["pairs"] = sorted(
        [*_told(item), done]
        for item, done in zip(_items(cube), _status(cube, variable), strict=True)
    )
    return store.fingerprint(told)


def pair_marks(cube: xr.Dataset, variable: str) -> tuple[str, np.ndarray]:
    """What `pair_state` tells of all pairs in common, and of each pair by itself.

    Returns
    -------
    common : str
        Fingerprint of how `variable` came about.
    marks : numpy.ndarray, float64, shape (pairs,)
        Whole numbers; pairs of the same dates with the same mark hold the same data.
    """
    marks = [
        int(store.fingerprint({"pair": [*_told(item), done]})[:13], 16)
        for item, done in zip(_items(cube), _status(cube, variable), strict=True)
    ]
    return store.fingerprint(_common(cube, variable)), np.array(marks, "float64")


def _common(cube: xr.Dataset, variable: str) -> dict[str, Any]:
    told: dict[str, Any] = {"variable": variable}
    if variable == "corrected_phase":
        told["corrected"] = {k: str(v) for k, v in cube[variable].attrs.items()}
    return told


def _status(cube: xr.Dataset, variable: str) -> list[int]:
    if variable == "corrected_phase" and "correction_status" in cube:
        return [int(done) for done in cube["correction_status"].values]
    return [0] * cube.sizes[PAIR]


def velocity_is_current(cube: xr.Dataset) -> bool:
    """Whether displacement and velocity are of the pairs that the cube shows.

    Raises
    ------
    ValueError
        If the cube has no velocity.
    """
    if "velocity" not in cube:
        raise ValueError("cube has no velocity: invert it first")
    known = cube["velocity"].attrs
    variable = known.get("phase_variable")
    if variable is None or variable not in cube:
        return False
    return bool(known.get("pair_state") == pair_state(cube, variable))


def inversion_is_due(cube: xr.Dataset, asked: Mapping[str, Any]) -> bool:
    """Whether an inversion with options `asked` would give anything else."""
    if "velocity" not in cube:
        return True
    known = cube["velocity"].attrs
    variable = phase_variable(cube, asked.get("variable"))
    return bool(
        known.get("inversion_options") != store.fingerprint(asked)
        or known.get("pair_state") != pair_state(cube, variable)
    )


def pairs_to_correct(
    cube: xr.Dataset, correction: Correction
) -> tuple[Correction, list[int], bool]:
    """What a correction has to do on a cube.

    Returns
    -------
    correction : corrections.Correction
        With the settings that were chosen for the pairs corrected already.
    pairs : list of int
        Positions to correct; all of them where pairs depend on each other.
    fresh : bool
        Whether all that there is is replaced.
    """
    every = list(range(cube.sizes.get(PAIR, 0)))
    if "corrected_phase" not in cube:
        return correction, every, True
    known = cube["corrected_phase"].attrs
    again = correction.again(known)
    if again is None:
        return correction, every, True
    todo = np.flatnonzero(cube["correction_status"].values == 0).tolist()
    if not correction.whole_stack:
        return again, todo, False
    state = stack_state(cube)
    # Cubes made by earlier versions do not tell which pairs they were made from.
    stale = bool(todo) or known.get("stack_state", state) != state
    return correction, every if stale else [], True


def _items(cube: xr.Dataset) -> list[Mapping[str, Any]]:
    items = cube.attrs.get("items")
    if items is not None and len(items) == cube.sizes[PAIR]:
        return list(items)
    return [{"id": str(k)} for k in range(cube.sizes[PAIR])]


def _told(item: Mapping[str, Any]) -> list[str]:
    return [str(item.get("key")), str(item["id"]), str(item.get("version"))]
