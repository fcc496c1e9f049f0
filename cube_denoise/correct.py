"""Take the atmosphere that a method estimates out of every pair of a cube."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cube_denoise.blocks import BlockJob, Compute, Window, lazy, spans, windows
from cube_denoise.conventions import PAIR, VARIABLES, X, Y, pair_label
from cube_denoise.corrections import find_correction
from cube_denoise.corrections.correction import Apply, Correction, Plan, Run, in_turn
from cube_denoise.halo import Tile

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from cube_denoise.corrections import Method

CORRECTED, PASSED_THROUGH = 1, 2
"""Values of ``correction_status``."""


def correct(
    cube: xr.Dataset,
    method: "Method",
    *,
    region: Window | None = None,
    block: int = 1024,
    **options: Any,
) -> xr.Dataset:
    """Estimate the atmosphere of every pair and subtract it.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``unwrapped_phase`` (pair, y, x), rad, positive away from the satellite,
        and what the method asks for (``elevation`` (y, x), m); attribute
        ``wavelength``, m.
    method : str, pathlib.Path, torch.nn.Module or Correction
        A classical correction by name (`corrections.CLASSICAL`), a shipped network by
        name, a model folder, or a network in eval mode.
    region : mapping of str to slice, optional
        Pixel window ``{"y": slice, "x": slice}`` to correct. The numbers are those of
        the whole cube: give the whole cube here, not a cut of it.
    block : int
        Pixels a side of the unit of work; does not change the result.
    **options
        Of the method: the fields of its class in `corrections`.

    Returns
    -------
    xarray.Dataset
        ``corrected_phase`` (pair, y, x), rad, lazy, NaN where the input is;
        ``correction_status`` (pair); and, where a network of stacks states it,
        ``correction_std`` (correction_time, y, x), m, lazy, NaN where a date has no
        data.

    Raises
    ------
    ValueError
        If a variable or attribute is missing or in another unit, or the method, an
        option or the region is unknown.

    Warns
    -----
    UserWarning
        For pairs that are passed through uncorrected.
    """
    job, status = _plan(cube, method, region, None, block, in_turn, options)
    spec = VARIABLES["correction_status"]
    return lazy(job, cube).assign(correction_status=(PAIR, status, spec.attributes))


def pair_std(
    cube: xr.Dataset,
    model: "str | Path | nn.Module",
    pair: int,
    *,
    region: Window | None = None,
    threads: int = 1,
) -> xr.DataArray:
    """Standard deviation that a diffusion network states of a pair it corrected.

    Of the displacement less its mean over the map: the spread of the samples times the
    factor that the model card tells. Where tiles overlap, standard deviations are
    blended as what is subtracted, which bounds that of the blend from above.

    Parameters
    ----------
    cube : xarray.Dataset
        As for `correct`.
    model : str, pathlib.Path or torch.nn.Module
        Network that draws two samples or more: ``"diffusion"``, a model folder, or a
        network in eval mode.
    pair : int
        Position of the pair.
    region : mapping of str to slice, optional
        As for `correct`: it does not change the numbers.
    threads : int
        Torch threads on a CPU.

    Returns
    -------
    xarray.DataArray, float32, dims (y, x)
        m, of the displacement; NaN where the pair has no data. In memory.

    Raises
    ------
    ValueError
        If the network states no standard deviation, the pair is not there or is passed
        through, or for what `correct` refuses.
    """
    from cube_denoise.corrections.network import NetworkCorrection

    correction = NetworkCorrection(model=model, threads=threads)
    _check(cube, correction)
    if not 0 <= pair < cube.sizes[PAIR]:
        raise ValueError(f"{pair=}: the cube has the pairs 0 to {cube.sizes[PAIR] - 1}")
    area = _region(cube, region)
    target = Tile(area[Y], area[X])
    like = cube["unwrapped_phase"][{PAIR: pair, **area}].transpose(Y, X)
    name = "standard deviation of the displacement of the corrected pair"
    return xr.DataArray(
        correction.stated_std(cube, target, pair),
        like.coords,
        (Y, X),
        name="pair_std",
        attrs=correction.label | {"units": "m", "long_name": name},
    )


def plan_correction(
    cube: xr.Dataset,
    method: "Method",
    *,
    region: Window | None = None,
    pairs: Sequence[int] | None = None,
    block: int = 1024,
    run: Run = in_turn,
    **options: Any,
) -> tuple[BlockJob, np.ndarray]:
    """Plan `correct` as independent blocks; see there for the other parameters.

    Parameters
    ----------
    pairs : sequence of int, optional
        Positions of the pairs to correct; all by default, and always where a corrected
        pair depends on the others.
    run : callable
        Who looks through whole pairs first, where the method must.

    Returns
    -------
    job : blocks.BlockJob
        One window per pair and block, or per block where a pair depends on the others.
    status : numpy.ndarray of uint8, shape (pairs,)
        What each pair gets: `CORRECTED` or `PASSED_THROUGH`; 0 for those not asked for.
    """
    return _plan(cube, method, region, pairs, block, run, options)


def _plan(
    cube: xr.Dataset,
    method: "Method",
    region: Window | None,
    pairs: Sequence[int] | None,
    block: int,
    run: Run,
    options: dict[str, Any],
) -> tuple[BlockJob, np.ndarray]:
    """`plan_correction`; warnings name the caller of the function that called this."""
    correction = find_correction(method, **options)
    area = _region(cube, region)
    cuts = correction_cuts(cube, correction, pairs, area=area, block=block)
    chosen = [k for cut in cuts[PAIR] for k in range(cut.start, cut.stop)]
    plan = correction.plan(cube, chosen, run)
    if plan.passed:
        labels = ", ".join(pair_label(cube, k) for k in sorted(plan.passed))
        warnings.warn(
            f"{len(plan.passed)} pairs {correction.passes} and are passed through "
            f"uncorrected: {labels}",
            stacklevel=3,
        )
    told = correction.label | dict(plan.settled)
    compute = partial(_correct_block, passed=plan.passed, outputs=correction.outputs)
    job = BlockJob(
        outputs=correction.outputs,
        compute=partial(compute, apply=plan.apply),
        within=_within(plan, compute),
        windows=windows(**cuts),
        sizes={d: cube.sizes[d] for d in (PAIR, Y, X)}
        | {d: values.size for d, values in plan.coords.items()},
        region=area,
        coords=plan.coords,
        attributes=dict.fromkeys(correction.outputs, told),
    )
    return job, _status(cube, chosen, plan)


def correction_cuts(
    cube: xr.Dataset,
    correction: Correction,
    pairs: Sequence[int] | None = None,
    *,
    area: Window | None = None,
    block: int,
) -> dict[str, list[slice]]:
    """Cuts along pair, y and x whose combinations are the blocks of `plan_correction`.

    No data are read; errors as for `correct`, as far as they show without.
    """
    _check(cube, correction)
    area = area or _region(cube, None)
    count = cube.sizes[PAIR]
    chosen = range(count) if pairs is None else pairs
    whole = correction.whole_stack
    return {
        PAIR: [slice(0, count)] if whole else [slice(k, k + 1) for k in chosen],
        Y: spans(area[Y].stop, block, start=area[Y].start),
        X: spans(area[X].stop, block, start=area[X].start),
    }


def _correct_block(
    cube: xr.Dataset,
    window: Window,
    *,
    apply: Apply,
    passed: frozenset[int],
    outputs: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """Outputs of one window; pairs that are passed through are only read."""
    pairs = range(window[PAIR].start, window[PAIR].stop)
    asis = [k - window[PAIR].start for k in pairs if k in passed]
    if len(asis) == len(pairs):
        return {"corrected_phase": _raw(cube, window)}
    found = apply(cube, window)
    arrays = found if isinstance(found, tuple) else (found,)
    if asis:
        arrays[0][asis] = _raw(cube, window)[asis]
    return dict(zip(outputs, arrays, strict=True))


def _within(
    plan: Plan, compute: Callable[..., dict[str, np.ndarray]]
) -> Callable[[Window], Compute] | None:
    """`_correct_block` for one window alone."""
    cut = plan.within
    if cut is None:
        return None
    return lambda window: partial(compute, apply=cut(window))


def _raw(cube: xr.Dataset, window: Window) -> np.ndarray:
    part = cube["unwrapped_phase"].isel(dict(window)).transpose(PAIR, Y, X)
    return np.asarray(part.values, "float32")


def _status(cube: xr.Dataset, chosen: Sequence[int], plan: Plan) -> np.ndarray:
    status = np.zeros(cube.sizes[PAIR], "uint8")
    status[list(chosen)] = CORRECTED
    status[list(plan.passed)] = PASSED_THROUGH
    return status


def _check(cube: xr.Dataset, correction: Correction) -> None:
    for name in ("unwrapped_phase", *correction.needs):
        if name not in cube:
            raise ValueError(
                f"cube has the variables {sorted(map(str, cube.data_vars))} and must "
                f"have {name!r} for {correction.name}"
            )
    if cube.sizes.get(PAIR, 0) == 0:
        raise ValueError("cube has no pairs: ingest some first")
    if "wavelength" not in cube.attrs:
        raise ValueError("cube.attrs has no 'wavelength' (radar wavelength, m)")
    units = cube["unwrapped_phase"].attrs.get("units", "rad")
    if units not in ("rad", "radian", "radians"):
        raise ValueError(
            f"unwrapped_phase is in {units!r}: it must be in rad "
            "(conventions.displacement_to_phase makes phase of displacement in m)"
        )


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
