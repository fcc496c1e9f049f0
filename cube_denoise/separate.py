"""Separate a stack into clusters of components, and remove those of the atmosphere."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.cluster_sheet import write_sheet
from cube_denoise.conventions import PAIR, TIME, X, Y
from cube_denoise.correct import correct
from cube_denoise.corrections import find_correction
from cube_denoise.corrections.correction import in_turn
from cube_denoise.network import pair_indices
from cube_denoise.separation.cluster_removal import ClusterRemoval, Decided, Separated
from cube_denoise.steps import StepReport, correct_cube

METHODS = ("vae", "pca", "ica", "nmf")


class Separation(NamedTuple):
    """What `separate` gives."""

    corrected: xr.Dataset
    """``corrected_phase`` (pair, y, x), rad, lazy, and ``correction_status`` (pair), as
    of `correct.correct`."""
    clusters: xr.Dataset
    """Per ``cluster`` (counted from 1) the ``map`` (cluster, y, x) on the coarse grid,
    of unit variance; ``amplitude`` (pair, cluster) and ``course`` (time, cluster), rad;
    the evidence (`separation.evidence.Evidence`), ``verdict`` and ``reason``."""


def separate(
    cube: xr.Dataset,
    *,
    method: str = "vae",
    keep: Sequence[int] = (),
    remove: Sequence[int] = (),
    **options: Any,
) -> Separation:
    """Split the pairs into components, cluster them, and remove the atmosphere.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``unwrapped_phase`` (pair, y, x), rad, positive away from the satellite,
        the attribute ``wavelength``, m, and, to tell stratified delay, ``elevation``
        (y, x), m. 20 pairs or more of 8 dates or more.
    method : {"vae", "pca", "ica", "nmf"}
        What splits them.
    keep, remove : sequence of int
        Clusters, counted from 1, that stay or go whatever the evidence says. Their
        numbers are those of the same call without these.
    **options
        Fields of the classes in `separation.methods`.

    Returns
    -------
    Separation

    Raises
    ------
    ValueError
        If there are too few pairs, an option is out of range, or `keep` or `remove`
        name a cluster that there is not.

    Warns
    -----
    UserWarning
        If no cluster goes.
    """
    correction = _correction(method, keep=keep, remove=remove, **options)
    found = correction.separated(_checked(cube), in_turn)
    return Separation(
        correct(cube, Decided(of=correction, found=found)), cluster_table(cube, found)
    )


def separate_cube(
    url: str | Path,
    *,
    method: str = "vae",
    sheet: str | Path | None = None,
    write: bool = True,
    branch: str = "main",
    workers: Workers | None = None,
    **options: Any,
) -> StepReport:
    """`separate` a cube in place: staged and shown at once, with a sheet to read.

    Parameters
    ----------
    url : str or pathlib.Path
        The cube.
    method : {"vae", "pca", "ica", "nmf"}
    sheet : str or pathlib.Path, optional
        Folder of the cluster sheet (`cluster_sheet.write_sheet`).
    write : bool
        Whether ``corrected_phase`` is written; if not, only the sheet is.
    branch : str
        Branch to change; made from ``main`` if new.
    workers : cluster.Workers, optional
        Threads of this machine by default. A network is fitted in this process.
    **options
        Of `separate`.

    Returns
    -------
    steps.StepReport
        Its notes begin with a line for each cluster.

    Raises
    ------
    ValueError
        As for `separate`.
    """
    correction = _correction(method, **options)
    cube = _checked(store.open_cube(url, branch=branch))
    pool = workers or Workers()
    with pool:
        found = correction.separated(cube, pool.in_order)
    decided = Decided(of=correction, found=found)
    report = StepReport()
    if write:
        report = correct_cube(url, decided, branch=branch, workers=workers)  # type: ignore[arg-type]
    told = [
        f"cluster {e.cluster}: {e.verdict}, {e.reason} ({e.members} components, "
        f"{e.variance:.0%} of the power, growth {e.growth:.2f} with p {e.growth_p:.3f})"
        for e in found.evidence
    ]
    report.notes = told + report.notes
    if sheet is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # told by the step
            phase = correct(cube, decided)["corrected_phase"]
        page = write_sheet(
            cube.assign(corrected_phase=phase),
            cluster_table(cube, found),
            found,
            sheet,
            title=f"Clusters of {url}, {correction.name}",
        )
        report.notes.append(f"cluster sheet in {page}")
    return report


def cluster_table(cube: xr.Dataset, found: Separated) -> xr.Dataset:
    """What was found, on named dimensions; see `Separation.clusters`."""
    stack = found.stack
    count = len(found.evidence)
    maps = np.full((count, *stack.known.shape), np.nan, "float32")
    maps[:, stack.known] = found.clusters.maps
    early = cube["reference_time"].values[stack.pairs]
    late = cube["secondary_time"].values[stack.pairs]
    times = pair_indices(early, late)[2]
    told = [e.told for e in found.evidence]
    coords: dict[str, Any] = {
        "cluster": np.arange(1, count + 1),
        TIME: times,
        "reference_time": (PAIR, early),
        "secondary_time": (PAIR, late),
    }
    for dim in (Y, X):
        if dim in cube.coords:
            coords[dim] = _cell_centres(cube[dim].values, stack.looks)
    names = [n for n in (told[0] if told else {}) if n != "cluster"]
    columns = {
        n: ("cluster", [np.nan if t[n] is None else t[n] for t in told]) for n in names
    }
    return xr.Dataset(
        {
            "map": (("cluster", Y, X), maps, {"units": "1"}),
            "amplitude": ((PAIR, "cluster"), found.amplitudes, {"units": "rad"}),
            "course": (
                (TIME, "cluster"),
                stack.to_dates @ found.amplitudes,
                {"units": "rad"},
            ),
            **columns,
        },
        coords,
        attrs={"looks": stack.looks},
    )


def _correction(method: str, **options: Any) -> ClusterRemoval:
    if method not in METHODS:
        raise ValueError(f"{method=} must be one of {', '.join(METHODS)}")
    correction = find_correction(f"{method}-clustering", **options)
    assert isinstance(correction, ClusterRemoval)
    return correction


def _checked(cube: xr.Dataset) -> xr.Dataset:
    if "unwrapped_phase" not in cube or cube.sizes.get(PAIR, 0) == 0:
        raise ValueError("the cube has no pairs of unwrapped_phase: ingest some first")
    return cube


def _cell_centres(values: np.ndarray, looks: int) -> np.ndarray:
    """Mean coordinate of the pixels of each cell, the last one as large as others."""
    cells = -(-values.size // looks)
    step = (values[-1] - values[0]) / max(values.size - 1, 1)
    return np.asarray(values[0] + step * ((np.arange(cells) + 0.5) * looks - 0.5))
