"""What the last inversion of a cube left, as far as it still holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from cube_denoise import store
from cube_denoise.conventions import PAIR
from cube_denoise.reference import phase_variable, reference_phase
from cube_denoise.reference_area import recorded_reference
from cube_denoise.reference_date import LEAST_RESIDUAL
from cube_denoise.state import pair_marks

KEPT = ("inversion_state", "inversion_drift", "inverted_pairs")
"""Variables that the next inversion goes on from."""
NEEDED = {
    "robust": ("none",),
    "gaps": ("nan",),
    "unwrapping": ("none",),
    "model": ("linear",),
    "uncertainty": ("effective", "residual"),
}
"""Settings with which an inversion can go on from a state."""


@dataclass(frozen=True)
class Stand:
    """What of the last inversion of a cube still holds."""

    reference: dict[str, Any]
    """Area that it referred to."""
    constants: np.ndarray
    """Phase of it, of the pairs that the cube has now."""
    times: np.ndarray
    """Dates that it had, datetime64[s]."""
    origin: np.datetime64
    touched: np.datetime64
    """First date with which a pair is taken up that is not as it was."""


def last_stand(cube: xr.Dataset, asked: Mapping[str, Any]) -> Stand | None:
    """Return what the last inversion left of use to one with options `asked`.

    Reads the reference area of the pairs that are new.
    """
    if not all(name in cube for name in (*KEPT, "velocity")):
        return None
    known, told = cube["inverted_pairs"].attrs, cube["velocity"].attrs
    variable = phase_variable(cube, asked["variable"])
    common, marks = pair_marks(cube, variable)
    if (
        hindrance(asked) is not None
        or known.get("pair_state") != told.get("pair_state")
        or known.get("common") != common
        or told.get("inversion_options") != store.fingerprint(asked)
    ):
        return None
    record = cube["inverted_pairs"].values
    then = {(early, late): (mark, constant) for early, late, mark, constant in record}
    dates = pair_seconds(cube)
    keys = [(float(early), float(late)) for early, late in dates]
    constants = np.full(len(keys), np.nan)
    fresh = []
    for k, key in enumerate(keys):
        mark, constant = then.get(key, (np.nan, np.nan))
        if mark == marks[k]:
            constants[k] = constant
        else:
            fresh.append(k)
    anchors = np.flatnonzero(np.isfinite(constants))
    if not anchors.size:
        return None
    reference = recorded_reference(told)
    if fresh:
        # With a pair that holds data, since without any the area would be refused.
        some = cube.isel({PAIR: [anchors[0], *fresh]})
        constants[fresh] = reference_phase(some, variable, reference)[1:]
    origin = np.datetime64(told["reference_time"], "s")
    gone = [list(key) for key in set(then) - set(keys)]
    changed = np.array([*dates[fresh].tolist(), *gone]).reshape(-1, 2)
    zero = float(origin.astype("int64"))
    times = np.unique(record[:, :2]).astype("int64").astype("datetime64[s]")
    first = np.where(changed[:, 0] == zero, changed[:, 1], changed[:, 0])
    touched = times[-1] if not first.size else np.datetime64(int(first.min()), "s")
    return Stand(reference, constants, times, origin, touched)


def hindrance(asked: Mapping[str, Any]) -> str | None:
    """Option, as ``name='value'``, with which no inversion goes on from a state."""
    settings = asked["settings"]
    for name, allowed in NEEDED.items():
        if settings[name] not in allowed:
            return f"{name}={settings[name]!r}"
    if settings["reference_date"] == LEAST_RESIDUAL:
        return f"reference_date={LEAST_RESIDUAL!r}"
    return None


def pair_seconds(cube: xr.Dataset) -> np.ndarray:
    """Dates of the pairs, seconds since 1970, shape (pairs, 2)."""
    dates = [cube[name].values for name in store.PAIR_TIMES]
    return np.stack(dates, 1).astype("datetime64[s]").astype("int64").astype("float64")
