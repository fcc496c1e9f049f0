"""Small-baseline inversion: pairs -> displacement series, velocity and quality."""

import warnings
from collections.abc import Mapping
from functools import partial

import numpy as np
import xarray as xr

from cube_denoise.blocks import BlockJob, Window, lazy, spans, windows
from cube_denoise.conventions import (
    TIME,
    VARIABLES,
    X,
    Y,
    phase_to_displacement,
    years_since,
)
from cube_denoise.inversion.elimination import Elimination
from cube_denoise.network import Network, connected_subsets, pair_indices
from cube_denoise.reference import (
    ReferenceArea,
    checked_area,
    choose_reference,
    phase_variable,
    read_window,
    reference_phase,
)
from cube_denoise.velocity import fit_velocity

SERIES = ("displacement", "displacement_std")
MAPS = (
    *("velocity", "velocity_std", "temporal_coherence", "residual_rms"),
    *("pair_count", "gap_count"),
)
OUTPUTS = (*SERIES, *MAPS)
WEIGHTS = ("none", "coherence", "variance")
ROBUST = ("none", "l1", "huber")
GAPS = ("nan", "linear")


def invert(
    cube: xr.Dataset,
    *,
    weights: str = "coherence",
    robust: str = "none",
    gaps: str = "nan",
    reference: Mapping[str, slice] | ReferenceArea | None = None,
    variable: str | None = None,
    block: int = 256,
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
    reference : ReferenceArea or mapping with slices "y" and "x", optional
        Reference area, pixel indices; None = `choose_reference`, which reads the cube
        once.
    variable : {"corrected_phase", "unwrapped_phase"}, optional
        What to invert; None = the first of them that the cube has.
    block : int
        Windows are cut at multiples of this many pixels; no effect on the numbers.

    Returns
    -------
    xarray.Dataset
        Dask arrays. ``displacement`` (time, y, x), m, positive toward the satellite, 0
        at the reference date: the first date of the largest connected subset, named in
        the attribute ``reference_time``. ``displacement_std``, m, of the same from the
        coherence of the pairs and the residuals' size (`inversion.solver.solve`,
        `errors`). On (y, x): ``velocity`` and ``velocity_std``
        (m/yr, see `velocity.fit_velocity` for what the latter leaves out),
        ``temporal_coherence`` |mean exp(j r)| and ``residual_rms`` (rad, unweighted) of
        the residuals r of the pairs used, ``pair_count`` (pairs used) and ``gap_count``
        (dates not linked to the reference date; -1 where no pair has data).

    Raises
    ------
    ValueError
        If options or cube are not as above.

    Warns
    -----
    UserWarning
        If the network is not connected, or a pair has no data in the reference area
        and is left out.
    """
    job = _plan(cube, weights, robust, gaps, reference, variable, block)
    return lazy(job, cube)


def plan_inversion(
    cube: xr.Dataset,
    *,
    weights: str = "coherence",
    robust: str = "none",
    gaps: str = "nan",
    reference: Mapping[str, slice] | ReferenceArea | None = None,
    variable: str | None = None,
    block: int = 256,
) -> BlockJob:
    """`invert` as a plan of independent windows over (y, x); same options and errors.

    Reads the reference area now (the whole cube if it is to be chosen), the rest when
    the windows are computed.
    """
    return _plan(cube, weights, robust, gaps, reference, variable, block)


def _plan(
    cube: xr.Dataset,
    weights: str,
    robust: str,
    gaps: str,
    reference: Mapping[str, slice] | ReferenceArea | None,
    variable: str | None,
    block: int,
) -> BlockJob:
    """`plan_inversion`; warnings name the caller of the function that called this."""
    variable = check_inversion(cube, weights, variable, robust=robust, gaps=gaps)
    early, late = cube["reference_time"].values, cube["secondary_time"].values
    first, second, times = pair_indices(early, late)

    if reference is None:
        reference = choose_reference(cube, variable=variable)
    area = checked_area(reference, cube)
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
    missing = np.setdiff1d(times, subsets[0])
    if missing.size:
        warnings.warn(
            f"the network is not connected: {missing.size} of {times.size} dates have "
            f"no chain of pairs to the reference date {subsets[0][0]} and get no "
            f"displacement: {', '.join(map(str, missing))}",
            stacklevel=3,
        )
    origin = int(np.searchsorted(times, subsets[0][0]))
    attributes = {
        "phase_variable": variable,
        "weights": weights,
        "robust": robust,
        "gaps": gaps,
        "reference_rows": [area.y.start, area.y.stop],
        "reference_columns": [area.x.start, area.x.stop],
        "reference_time": str(times[origin]),
    }
    return BlockJob(
        outputs=OUTPUTS,
        compute=partial(
            _invert_window,
            variable=variable,
            weights=weights,
            robust=robust,
            gaps=gaps,
            constants=constants,
            plan=Network(first, second, times.size, origin).plan,
            years=years_since(times, times[0]),
            wavelength=float(cube.attrs["wavelength"]),
        ),
        windows=windows(**inversion_cuts(cube, block)),
        sizes={TIME: times.size, Y: cube.sizes[Y], X: cube.sizes[X]},
        coords={TIME: times},
        attributes=dict.fromkeys(OUTPUTS, attributes),
    )


def check_inversion(
    cube: xr.Dataset,
    weights: str,
    variable: str | None,
    *,
    robust: str = "none",
    gaps: str = "nan",
) -> str:
    """Name of the variable to invert; errors as for `invert` but of the data."""
    variable = phase_variable(cube, variable)
    for name, value, known in (
        ("weights", weights, WEIGHTS),
        ("robust", robust, ROBUST),
        ("gaps", gaps, GAPS),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}")
    if weights != "none" and "coherence" not in cube:
        raise ValueError(f"{weights=} needs the variable coherence: add it or use none")
    wavelength = cube.attrs.get("wavelength")
    if wavelength is None or not wavelength > 0:
        raise ValueError(
            f"{wavelength=}: cube.attrs must give the wavelength in metres"
        )
    return variable


def inversion_cuts(cube: xr.Dataset, block: int) -> dict[str, list[slice]]:
    """Cuts along y and x whose combinations are the windows of `plan_inversion`."""
    return {d: spans(cube.sizes[d], block) for d in (Y, X)}


def temporary_memory(network: Network, pairs: int, pixels: int) -> int:
    """Bytes that inverting `pixels` takes beside inputs and outputs of the window."""
    from cube_denoise.inversion.solver import scratch_memory

    return scratch_memory(network.plan, pairs) + 8 * 8 * pixels


def _invert_window(
    cube: xr.Dataset,
    window: Window,
    *,
    variable: str,
    weights: str,
    robust: str,
    gaps: str,
    constants: np.ndarray,
    plan: Elimination,
    years: np.ndarray,
    wavelength: float,
) -> dict[str, np.ndarray]:
    """Compute the outputs of one window."""
    from cube_denoise.inversion.solver import solve

    phase = read_window(cube, variable, window)
    shape = phase.shape[1:]
    coherence = None
    if "coherence" in cube:
        coherence = read_window(cube, "coherence", window)
    found = solve(
        _pixels(phase),
        plan,
        coherence=None if coherence is None else _pixels(coherence),
        constants=constants,
        weights=weights,
        robust=robust,
        gaps=gaps,
        years=years,
        errors=True,
    )
    displacement = phase_to_displacement(found.phase, wavelength)
    rate, rate_std = fit_velocity(displacement, years)
    outputs: dict[str, np.ndarray] = {
        "displacement": displacement,
        "displacement_std": abs(phase_to_displacement(found.phase_std, wavelength)),
        "velocity": rate,
        "velocity_std": rate_std,
        "temporal_coherence": found.temporal_coherence,
        "residual_rms": found.residual_rms,
        "pair_count": found.pair_count,
        "gap_count": found.gap_count,
    }
    return {
        name: array.astype(VARIABLES[name].dtype, copy=False).reshape(
            *array.shape[:-1], *shape
        )
        for name, array in outputs.items()
    }


def _pixels(values: np.ndarray) -> np.ndarray:
    """Pairs by pixels, as the solver takes them."""
    flat = values.reshape(values.shape[0], -1)
    return np.require(flat, "float32", ["C", "W"])
