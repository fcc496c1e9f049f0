"""A displacement series in a file as the pairs of dates that follow each other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cube_denoise.conventions import displacement_to_phase
from cube_denoise.file_parts import Part
from cube_denoise.interferogram import ROLES, Asset, Interferogram


def consecutive_pairs(
    path: Path,
    part: Part,
    *,
    times: Sequence[datetime],
    baselines: Sequence[float] | None,
    metres: float,
    shared: Mapping[str, Any],
    layers: Mapping[str, Asset],
) -> list[Interferogram]:
    """Make the records of pairs of neighbouring dates: they hold all of the series.

    Their inversion gives the series back. Longer pairs would be sums of them.

    Parameters
    ----------
    path : pathlib.Path
        The HDF5 file.
    part : file_parts.Part
        Dataset (date, y, x), line-of-sight displacement, positive toward the satellite.
    times : sequence of datetime
        Of the dates, UTC, in the order of the dataset.
    baselines : sequence of float, optional
        Perpendicular baselines of the dates, m.
    metres : float
        Of a unit of the displacement.
    shared : mapping
        Fields of `Interferogram` that all pairs have alike.
    layers : mapping
        Assets that all pairs have alike, by role.

    Raises
    ------
    ValueError
        If there are fewer than two dates, or one twice.
    """
    order = sorted(range(len(times)), key=lambda k: times[k])
    if len(set(times)) < max(len(times), 2):
        raise ValueError(
            f"{path} has {len(times)} dates, {len(set(times))} of them different: must "
            "have at least two, each once"
        )
    depth = [math.nan] * len(times) if baselines is None else np.asarray(baselines)
    role = "unwrapped_phase"
    whole = Asset(
        str(path),
        role,
        ROLES[role],
        None,
        scale=displacement_to_phase(metres, shared["wavelength"]),
    )
    return [
        Interferogram(
            id=f"{shared['track']}_{times[i]:%Y%m%d}_{times[j]:%Y%m%d}_series",
            reference_time=times[i],
            secondary_time=times[j],
            perpendicular_baseline=float(depth[j] - depth[i]),
            phase_sign=1,
            **shared,
            assets={role: replace(whole, part=replace(part, layer=j, minus=i))}
            | dict(layers),
        )
        for i, j in pairwise(order)
    ]
