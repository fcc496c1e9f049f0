"""Take the noise that a network estimates out of every pair of a cube."""

import functools
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from cube_denoise import halo
from cube_denoise.blocks import BlockJob, Window, lazy, spans, windows
from cube_denoise.conventions import (
    PAIR,
    VARIABLES,
    X,
    Y,
    displacement_to_phase,
    pair_label,
    phase_to_displacement,
)
from cube_denoise.inference import (
    Network,
    NoiseModel,
    loaded,
    network_reference,
    noise,
    read_tile,
    resolve_precision,
    with_precision,
)
from cube_denoise.normalise import (
    Scaling,
    five_numbers,
    sample_stride,
    scaling,
)

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

CORRECTED, PASSED_THROUGH = 1, 2
"""Values of ``correction_status``."""
MAX_MISSING = 0.5
"""Pairs with a larger fraction missing are passed through."""


def correct(
    cube: xr.Dataset,
    model: "str | Path | nn.Module",
    *,
    region: Window | None = None,
    precision: str = "auto",
    block: int = 1024,
) -> xr.Dataset:
    """Estimate the atmosphere of every pair with a network and subtract it.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``unwrapped_phase`` (pair, y, x), rad, positive away from the satellite,
        and what the network asks for (``elevation`` (y, x), m); attribute
        ``wavelength``, m.
    model : str, pathlib.Path or torch.nn.Module
        Name of a shipped model, a model folder, or a network in eval mode.
    region : mapping of str to slice, optional
        Pixel window ``{"y": slice, "x": slice}`` to correct. The numbers are those of
        the whole cube: give the whole cube here, not a cut of it.
    precision : {"auto", "float32", "bfloat16"}
        "auto" takes bfloat16 where the processor has it and a tile of this cube
        changes by less than 0.1 mm rms.
    block : int
        Pixels a side of the unit of work; does not change the result.

    Returns
    -------
    xarray.Dataset
        ``corrected_phase`` (pair, y, x), rad, lazy, NaN where the input is; and
        ``correction_status`` (pair).

    Raises
    ------
    ValueError
        If a variable or attribute is missing, or the model or region is unknown.

    Warns
    -----
    UserWarning
        For pairs more than half missing, which are passed through uncorrected.
    """
    job, status = plan_correction(
        cube, model, region=region, precision=precision, block=block
    )
    spec = VARIABLES["correction_status"]
    return lazy(job, cube).assign(correction_status=(PAIR, status, spec.attributes))


def plan_correction(
    cube: xr.Dataset,
    model: "str | Path | nn.Module",
    *,
    region: Window | None = None,
    pairs: Sequence[int] | None = None,
    precision: str = "auto",
    block: int = 1024,
    threads: int = 1,
) -> tuple[BlockJob, np.ndarray]:
    """Plan `correct` as independent blocks; see there for the other parameters.

    Parameters
    ----------
    pairs : sequence of int, optional
        Positions of the pairs to correct; all by default.
    threads : int
        Torch threads of one task.

    Returns
    -------
    job : blocks.BlockJob
        One window per pair and block.
    status : numpy.ndarray of uint8, shape (pairs,)
        What each pair gets: `CORRECTED` or `PASSED_THROUGH`.
    """
    _check(cube)
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"{precision=}: must be 'auto', 'float32' or 'bfloat16'")
    chosen = list(range(cube.sizes[PAIR])) if pairs is None else list(pairs)
    label = describe(model)
    network = Network(
        network_reference(model), label["model_sha256"], "float32", threads
    )
    config = loaded(network).config
    names = tuple(config.inputs)
    if "elevation" in names and "elevation" not in cube:
        raise ValueError(
            f"model={str(model)!r} uses elevation and the cube has none; ingest a DEM "
            "or take a model without it (dncnn)"
        )
    smallest = getattr(loaded(network), "smallest_side", 1)
    if min(cube.sizes[Y], cube.sizes[X]) < smallest:
        raise ValueError(
            f"cube has {cube.sizes[Y]} x {cube.sizes[X]} pixels: "
            f"model={str(model)!r} needs at least {smallest} along each side"
        )
    quantiles, valid_fraction = _summaries(cube)
    missing = [k for k in chosen if not valid_fraction[k] >= 1 - MAX_MISSING]
    if missing:
        labels = ", ".join(pair_label(cube, k) for k in missing)
        warnings.warn(
            f"{len(missing)} pairs are more than half missing and are passed through "
            f"uncorrected: {labels}",
            stacklevel=3,
        )
    scalings = tuple(
        scaling(
            config.normalisation, phase_to_displacement(q, cube.attrs["wavelength"])
        )
        if np.isfinite(q).all()
        else Scaling(0.0, 1.0)
        for q in quantiles
    )
    work = NoiseModel(
        network=network,
        wavelength=float(cube.attrs["wavelength"]),
        names=names,
        scalings=scalings,
        passed=frozenset(missing),
        elevation_median=_elevation_median(cube) if "elevation" in names else 0.0,
        radius=loaded(network).receptive_radius,
    )
    resolved = resolve_precision(cube, work, scalings, precision)
    area = _region(cube, region)
    job = BlockJob(
        outputs=("corrected_phase",),
        compute=functools.partial(_correct_block, block=with_precision(work, resolved)),
        windows=windows(
            pair=[slice(k, k + 1) for k in chosen],
            y=spans(area[Y].stop, block, start=area[Y].start),
            x=spans(area[X].stop, block, start=area[X].start),
        ),
        sizes={PAIR: cube.sizes[PAIR], Y: cube.sizes[Y], X: cube.sizes[X]},
        region=area,
        attributes={"corrected_phase": label | {"precision": resolved}},
    )
    status = np.full(cube.sizes[PAIR], CORRECTED, "uint8")
    status[~(valid_fraction >= 1 - MAX_MISSING)] = PASSED_THROUGH
    return job, status


def describe(model: "str | Path | nn.Module") -> dict[str, str]:
    """Name and hash of a model, for attributes and histories."""
    if isinstance(model, (str, Path)):
        from cube_denoise.models import zoo

        return {"model": Path(model).name, "model_sha256": zoo.model_hash(model)}
    return {"model": type(model).__name__, "model_sha256": ""}


def _correct_block(
    cube: xr.Dataset, window: Window, *, block: NoiseModel
) -> dict[str, np.ndarray]:
    """Corrected phase of one window (one pair), shape (1, rows, columns)."""
    pair = window[PAIR].start
    target = halo.Tile(window[Y], window[X])
    phase = read_tile(cube["unwrapped_phase"][pair], target)
    if pair in block.passed or not np.isfinite(phase).any():
        return {"corrected_phase": phase[None]}
    unwanted = noise(cube, target, pair, block)
    scale = block.scalings[pair].scale
    corrected = phase - displacement_to_phase(unwanted * scale, block.wavelength)
    return {"corrected_phase": corrected[None].astype("float32")}


def _check(cube: xr.Dataset) -> None:
    if "unwrapped_phase" not in cube:
        raise ValueError(
            f"cube has the variables {sorted(map(str, cube.data_vars))} and must have "
            "'unwrapped_phase'"
        )
    if cube.sizes.get(PAIR, 0) == 0:
        raise ValueError("cube has no pairs: ingest some first")
    if "wavelength" not in cube.attrs:
        raise ValueError("cube.attrs has no 'wavelength' (radar wavelength, m)")


def _region(cube: xr.Dataset, region: Window | None) -> dict[str, slice]:
    area = {}
    for dim in (Y, X):
        part = (region or {}).get(dim, slice(None))
        start, stop, step = part.indices(cube.sizes[dim])
        if step != 1 or start >= stop:
            raise ValueError(
                f"region[{dim!r}]={part} must be a slice of pixels within "
                f"0..{cube.sizes[dim]}"
            )
        area[dim] = slice(start, stop)
    unknown = set(region or {}) - {Y, X}
    if unknown:
        raise ValueError(f"region has the keys {sorted(unknown)}: must be 'y' and 'x'")
    return area


def _summaries(cube: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Five-number summary (rad) and valid fraction of every pair.

    Those stored at ingest, else computed alike from the whole pairs.
    """
    if "phase_quantiles" in cube and "valid_fraction" in cube:
        return cube["phase_quantiles"].values, cube["valid_fraction"].values
    stride = sample_stride((cube.sizes[Y], cube.sizes[X]))
    quantiles, valid = [], []
    for k in range(cube.sizes[PAIR]):
        sample = cube["unwrapped_phase"][k, ::stride, ::stride].values
        quantiles.append(five_numbers(sample))
        valid.append(np.isfinite(sample).mean())
    return np.array(quantiles), np.array(valid)


def _elevation_median(cube: xr.Dataset) -> float:
    stride = sample_stride((cube.sizes[Y], cube.sizes[X]))
    sample = cube["elevation"][::stride, ::stride].values
    return float(np.nanmedian(sample)) if np.isfinite(sample).any() else 0.0
