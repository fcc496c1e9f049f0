"""Small-baseline inversion: pairs -> displacement series, velocity and quality."""

import warnings
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from cube_denoise.blocks import BlockJob, lazy, spans, windows
from cube_denoise.conventions import (
    PAIR,
    PARAMETER,
    TIME,
    X,
    Y,
)
from cube_denoise.correction_errors import stated_errors
from cube_denoise.inversion.solver import check_device
from cube_denoise.inversion_window import OUTPUTS, Settings, invert_window
from cube_denoise.network import (
    Network,
    closure_triplets,
    connected_subsets,
    pair_indices,
)
from cube_denoise.reference import (
    find_reference,
    phase_variable,
    reference_phase,
)
from cube_denoise.reference_area import Reference
from cube_denoise.reference_date import (
    LEAST_RESIDUAL,
    asked_date,
    least_residual,
    reference_position,
)
from cube_denoise.time_models import TimeModel
from cube_denoise.unwrapping import loop_constants
from cube_denoise.velocity import STATEMENTS, coverage_statement

BLOCK_MEMORY = 3 << 26
"""Bytes up to which the pairs of more than a chunk are read at once."""


def invert(
    cube: xr.Dataset,
    *,
    weights: str = "coherence",
    robust: str = "none",
    gaps: str = "nan",
    unwrapping: str = "none",
    model: TimeModel | str = "linear",
    uncertainty: str = "effective",
    reference: Reference = None,
    reference_date: str | date | np.datetime64 = "first",
    variable: str | None = None,
    block: int = 256,
    device: str = "cpu",
) -> xr.Dataset:
    r"""Invert a network of pairs for displacement and velocity, lazily.

    Each pixel by itself minimises (Berardino et al. 2002, with weights)

    .. math:: \sum_m w_m (x_{j_m} - x_{i_m} - \varphi_m)^2, \qquad x_0 = 0

    over the phases x of the dates, for the pairs m = (i, j) that have data there; then
    ``displacement = -wavelength / (4 pi) * x``. Before that the mean over the reference
    area is taken off each pair. The time series has no smoothness or velocity
    constraint.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        Phase (rad, positive away from the satellite, later minus earlier date), with
        ``reference_time`` and ``secondary_time`` on ``pair``, the attribute
        ``wavelength`` (m) and, for weights, ``coherence``. NaN = no data.
    weights : {"coherence", "variance", "none"}
        w = coherence; w = coherence^2 / (1 - coherence^2), the inverse of the
        Cramer-Rao bound of the phase variance up to a factor; or w = 1. Coherence is
        clipped to 0.05..0.99 first; where the phase has data and the coherence has
        none, it counts as 0.05.
    robust : {"none", "l1", "huber"}
        Whether absolute values, or Huber's mixture of both, take the place of the
        squares, by reweighting; see `inversion.solver.solve`.
    gaps : {"nan", "linear"}
        What a date becomes that a pixel's pairs do not link to the reference date: no
        data, or what the pixel's linear model says, as in the limit of a vanishing
        constraint of NSBAS (`inversion.gaps.bridge`).
    unwrapping : {"none", "mask", "correct"}
        What is done to pairs whose triplets do not close by whole cycles: nothing; they
        are left out; or the fewest cycles that close them are added where they are
        unique, and the rest is left out (`closure.unwrapping_cycles`).
    model : TimeModel or str
        Terms of the fit that gives the velocity (`time_models.TimeModel.parse`).
    uncertainty : {"effective", "residual", "bootstrap"}
        How the residuals of that fit become `velocity_std` (`velocity.fit_model`).
    reference : mapping, ReferenceArea, str or path, optional
        Reference area: index slices or limits ``{"y": , "x": }``; a point
        ``{"lon": , "lat": }``, or ``{"x": , "y": }`` in the cube's CRS, and the pixels
        around it, in a square of ``"window"`` pixels (5) or within ``"radius"`` metres;
        polygons as GeoJSON or the path of a GeoJSON file, longitudes and latitudes if
        it names no other CRS; or "auto" = None, `choose_reference`, which reads the
        cube once. The mean is over the pixels that hold data in the pair.
    reference_date : {"first", "least-residual"} or date
        Date at which the displacement is 0: the first of the largest connected subset;
        the one of it with the least residuals, after a look at some of the pixels
        (`reference_date.least_residual`); or one of the dates, such as "2020-01-31".
        Pixels that have no pair with it are NaN.
    variable : {"corrected_phase", "unwrapped_phase"}, optional
        What to invert; None = the first of them that the cube has.
    block : int
        Windows are cut at multiples of this many pixels; no effect on the numbers.
    device : {"cpu", "cuda"}
        Where pixels are solved: the cores, or the GPU of the process that computes a
        window; the displacement is the same within 1e-6 m. "cpu", since reading bounds
        the work and the compiled code is near the speed of memory; whether a GPU is
        quicker has not been measured.

    Returns
    -------
    xarray.Dataset
        Dask arrays. ``displacement`` (time, y, x), m, positive toward the satellite, 0
        at the reference date, which is named in the attribute ``reference_time``.
        ``displacement_std``, m, of the same from the coherence of the pairs and the
        residuals' size (`inversion.solver.solve`, `errors`). On (y, x): ``velocity``
        and ``velocity_std`` (m/yr, see `velocity.fit_model` for what the latter holds,
        with the errors that the correction of the pairs states, `correction_errors`;
        two dates have a velocity, but its standard deviation is NaN),
        ``temporal_coherence`` |mean exp(j r)| and ``residual_rms`` (rad, unweighted) of
        the residuals r of the pairs used, ``closure_rms`` of all triplets (rad, before
        any correction), ``pair_count`` (pairs used) and ``gap_count`` (dates not linked
        to the reference date; -1 where no pair has data). Where asked for,
        ``unwrapping_error_count`` (pairs corrected or masked), and for a `model` of
        more than a line ``model_parameters`` (parameter, y, x), with names in its
        attributes.

    Raises
    ------
    ValueError
        If options or cube are not as above; when computed, if there is no such device.

    Warns
    -----
    UserWarning
        If the network is not connected, or a pair has no data in the reference area
        and is left out.
    """
    settings = Settings(
        weights=weights,
        robust=robust,
        gaps=gaps,
        unwrapping=unwrapping,
        model=str(model),
        uncertainty=uncertainty,
        reference_date=asked_date(reference_date),
    )
    job = _plan(cube, settings, reference, variable, block, device=device)
    return lazy(job, cube)


def plan_inversion(
    cube: xr.Dataset,
    *,
    reference: Reference = None,
    variable: str | None = None,
    block: int | tuple[int, int] = 256,
    constants: np.ndarray | None = None,
    device: str = "cpu",
    **settings: str,
) -> BlockJob:
    """`invert` as a plan of independent windows over (y, x); same options and errors.

    `block` may be rows and columns.

    Reads the reference area now (the whole cube if it is to be chosen), the rest when
    the windows are computed. With `constants`, the phase of the pairs in the area,
    shape (pairs,), it reads nothing now.
    """
    return _plan(
        *(cube, Settings(**settings), reference, variable, block, constants),
        device=device,
    )


def _plan(
    cube: xr.Dataset,
    settings: Settings,
    reference: Reference,
    variable: str | None,
    block: int | tuple[int, int],
    constants: np.ndarray | None = None,
    *,
    device: str,
) -> BlockJob:
    """`plan_inversion`; warnings name the caller of the function that called this."""
    check_device(device)
    variable = check_inversion(cube, settings, variable)
    early, late = cube["reference_time"].values, cube["secondary_time"].values
    first, second, times = pair_indices(early, late)

    area = find_reference(cube, reference, variable=variable)
    if constants is None:
        constants = reference_phase(cube, variable, area)
    used = np.isfinite(constants)
    if not used.all():
        names = [f"{times[first[k]]}/{times[second[k]]}" for k in np.flatnonzero(~used)]
        warnings.warn(
            f"{len(names)} pair(s) without data in the reference area are left out: "
            + ", ".join(names),
            stacklevel=3,
        )
    subsets = connected_subsets(early[used], late[used])
    origin = reference_position(settings.reference_date, times, subsets)
    linked = next(subset for subset in subsets if times[origin] in subset)
    missing = np.setdiff1d(times, linked)
    if missing.size:
        warnings.warn(
            f"the network is not connected: {missing.size} of {times.size} dates have "
            f"no chain of pairs to the reference date {times[origin]} and get no "
            f"displacement: {', '.join(map(str, missing))}",
            stacklevel=3,
        )
    triplets = closure_triplets(early, late)
    loops = None
    if settings.unwrapping != "none":
        loops = loop_constants(cube, variable, constants, triplets)
    design = TimeModel.parse(settings.model).design(times)
    compute = partial(
        invert_window,
        variable=variable,
        settings=settings,
        constants=constants,
        plan=Network(first, second, times.size, origin).plan,
        design=design,
        triplets=triplets,
        loops=loops,
        wavelength=float(cube.attrs["wavelength"]),
        stated=stated_errors(cube, variable, area, times),
        device=device,
    )
    if settings.reference_date == LEAST_RESIDUAL:
        look = replace(settings, gaps="nan", uncertainty="residual")
        # Here, where there may be no GPU.
        looking = partial(compute, settings=look, device="cpu")
        origin = least_residual(cube, looking, times, np.isin(times, linked))
        plan = Network(first, second, times.size, origin).plan
        compute = partial(compute, plan=plan)
    attributes = {
        "phase_variable": variable,
        **asdict(settings),
        **area.attributes(),
        "reference_time": str(times[origin]),
    }
    outputs = [*OUTPUTS]
    if settings.unwrapping != "none":
        outputs.append("unwrapping_error_count")
    told: dict[str, dict[str, Any]] = {name: dict(attributes) for name in outputs}
    sizes = {TIME: times.size, Y: cube.sizes[Y], X: cube.sizes[X]}
    if len(design.names) > 2:
        outputs.append("model_parameters")
        sizes[PARAMETER] = len(design.names)
        told["model_parameters"] = attributes | {
            "names": list(design.names),
            "parameter_units": list(design.units),
        }
    told["velocity_std"]["comment"] = STATEMENTS[settings.uncertainty]
    method = "none"
    if variable == "corrected_phase":
        method = str(cube[variable].attrs.get("method", "an unknown method"))
    told["velocity_std"]["coverage"] = coverage_statement(method)
    return BlockJob(
        outputs=tuple(outputs),
        compute=compute,
        windows=windows(**inversion_cuts(cube, block)),
        sizes=sizes,
        coords={TIME: times},
        attributes=told,
    )


def check_inversion(cube: xr.Dataset, settings: Settings, variable: str | None) -> str:
    """Name of the variable to invert; errors as for `invert` but of the data."""
    variable = phase_variable(cube, variable)
    weights = settings.weights
    if weights != "none" and "coherence" not in cube:
        raise ValueError(f"{weights=} needs the variable coherence: add it or use none")
    wavelength = cube.attrs.get("wavelength")
    if wavelength is None or not wavelength > 0:
        raise ValueError(
            f"{wavelength=}: cube.attrs must give the wavelength in metres"
        )
    return variable


def inversion_block(cube: xr.Dataset) -> tuple[int, int]:
    """Rows and columns of the windows that `cube` is best inverted in, px.

    Chunks that follow each other in a shard are read at one request per pair: as many
    rows of them as fit into `BLOCK_MEMORY`, a shard wide; else a part of a row; one
    chunk at least.
    """
    shard, chunk = int(cube.attrs["shard"]), int(cube.attrs["chunk"])
    layers = 1 + ("coherence" in cube)
    pixel = 4 * layers * cube.sizes[PAIR]
    parts = [k for k in range(shard, 0, -chunk) if shard % k == 0]
    for rows, columns in [(k, shard) for k in parts] + [(chunk, k) for k in parts]:
        pixels = min(rows, cube.sizes[Y]) * min(columns, cube.sizes[X])
        if pixel * pixels <= BLOCK_MEMORY:
            return rows, columns
    return chunk, chunk


def inversion_cuts(
    cube: xr.Dataset, block: int | tuple[int, int]
) -> dict[str, list[slice]]:
    """Cuts along y and x whose combinations are the windows of `plan_inversion`."""
    sides = block if isinstance(block, tuple) else (block, block)
    return {d: spans(cube.sizes[d], n) for d, n in zip((Y, X), sides, strict=True)}


def temporary_memory(network: Network, pairs: int, pixels: int) -> int:
    """Bytes that inverting `pixels` takes beside inputs and outputs of the window."""
    from cube_denoise.inversion.solver import scratch_memory

    return scratch_memory(network.plan, pairs) + 8 * 8 * pixels
