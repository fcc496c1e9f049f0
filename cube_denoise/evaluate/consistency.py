"""Consistency of pairs and inversions, which no truth is needed for.

Closure and residuals tell what does not fit together; they are blind to all that does:
the atmosphere of a date closes exactly. Spreads and correlations tell how much is left,
deformation included. **All of these figures are won by outputting zero.** Never rank
corrections by them alone: `held_out.held_out_dates` and scores against injected
deformation expose what they cannot.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr

from cube_denoise.conventions import PAIR, X, Y, phase_to_displacement
from cube_denoise.evaluate.similarity import correlation
from cube_denoise.evaluate.structure import checked_wavelength
from cube_denoise.network import closure_triplets, triplet_closure
from cube_denoise.reference import phase_variable

COHERENT = 0.7
"""Temporal coherence from which a pixel counts as coherent (Yunjun et al. 2019)."""


class Closure(NamedTuple):
    """How well the triangles of a network close."""

    rms: float
    """Root mean square over loops and pixels, rad; NaN without loops."""
    beyond_pi: float
    """Fraction of loops and pixels that miss by more than pi: unwrapping errors."""
    loops: int
    """Number of triangles with data."""


class ElevationCorrelation(NamedTuple):
    """Correlation of the pairs with elevation."""

    pairs: xr.DataArray
    """Pearson correlation of phase and elevation, dims (pair,); NaN where the terrain
    or the phase is flat."""
    rms: float
    """Root mean square over pairs."""
    median: float
    """Median over pairs, signed: seasonal delay does not average out."""


class InversionSummary(NamedTuple):
    """Quality of an inversion in three numbers."""

    temporal_coherence: float
    """Median over pixels."""
    coherent_fraction: float
    """Fraction of pixels with a temporal coherence of 0.7 or more."""
    residual_rms: float
    """Root mean square over all pairs and pixels used, rad."""


class ShortBaselineStd(NamedTuple):
    """Spread of the pairs of the shortest time span."""

    std: float
    """mm of displacement, each pair less its mean, pooled over pairs and pixels."""
    days: float
    """Their time span."""
    pairs: int
    """Number of pairs."""


def triplet_closure_rms(cube: xr.Dataset, variable: str | None = None) -> Closure:
    r"""Misclosure of the triangles, :math:`\varphi_{12} + \varphi_{23} - \varphi_{13}`.

    The median of each loop is taken off first, as every pair has its own constant. A
    correction by dates leaves closure as it is; one by pairs raises it where it makes
    three pairs disagree. Outputting zero closes perfectly.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        Phase, rad, with ``reference_time`` and ``secondary_time`` on ``pair``. Three
        maps are held in memory at a time.
    variable : {"corrected_phase", "unwrapped_phase"}, optional
        None = the first of them that the cube has.

    Returns
    -------
    Closure

    Raises
    ------
    ValueError
        If the cube is not as above.
    """
    variable = phase_variable(cube, variable)
    times = (cube[name].values for name in ("reference_time", "secondary_time"))
    square, beyond, count, loops = 0.0, 0, 0, 0
    for triplet in closure_triplets(*times):
        phase = np.stack([_map(cube, variable, k) for k in triplet])
        (loop,) = triplet_closure(phase, np.array([[0, 1, 2]]))
        loop = loop[np.isfinite(loop)]
        if not loop.size:
            continue
        loop -= np.median(loop)
        square += float(np.sum(loop**2))
        beyond += int((np.abs(loop) > np.pi).sum())
        count += loop.size
        loops += 1
    if not count:
        return Closure(float("nan"), float("nan"), 0)
    return Closure((square / count) ** 0.5, beyond / count, loops)


def elevation_correlation(
    cube: xr.Dataset, variable: str | None = None
) -> ElevationCorrelation:
    """Correlation of every pair with elevation: stratified delay, mostly.

    Deformation may correlate with elevation too (a volcano inflates under its summit).
    The correlation has no unit: a correction that leaves little may leave it high.

    Parameters
    ----------
    cube : xarray.Dataset
        Phase (pair, y, x), rad, and ``elevation`` (y, x), m. One pair is held in memory
        at a time.
    variable : {"corrected_phase", "unwrapped_phase"}, optional
        None = the first of them that the cube has.

    Returns
    -------
    ElevationCorrelation

    Raises
    ------
    ValueError
        If the cube is not as above.
    """
    variable = phase_variable(cube, variable)
    if "elevation" not in cube:
        raise ValueError("the cube has no variable elevation (y, x), m: ingest a DEM")
    elevation = cube["elevation"].transpose(Y, X).values.astype("float64")
    found = np.array(
        [
            correlation(_map(cube, variable, k), elevation)
            for k in range(cube.sizes[PAIR])
        ]
    )
    known = found[np.isfinite(found)]
    pairs = xr.DataArray(
        found,
        dims=(PAIR,),
        coords={n: c for n, c in cube.coords.items() if c.dims == (PAIR,)},
        name="elevation_correlation",
        attrs={"units": "1"},
    )
    if not known.size:
        return ElevationCorrelation(pairs, float("nan"), float("nan"))
    rms = float(np.sqrt(np.mean(known**2)))
    return ElevationCorrelation(pairs, rms, float(np.median(known)))


def inversion_summary(inversion: xr.Dataset) -> InversionSummary:
    """Summarise the temporal coherence and the residuals of an inversion.

    Both tell how well the pairs fit dates, not how well the dates fit the ground:
    atmosphere fits, and zero fits perfectly.

    Parameters
    ----------
    inversion : xarray.Dataset, dims (y, x)
        ``temporal_coherence``, ``residual_rms`` (rad) and ``pair_count``, as from
        `invert.invert`.

    Returns
    -------
    InversionSummary
        NaN where no pixel has data.

    Raises
    ------
    ValueError
        If a variable is missing.
    """
    names = ("temporal_coherence", "residual_rms", "pair_count")
    missing = [name for name in names if name not in inversion]
    if missing:
        raise ValueError(f"inversion lacks {', '.join(missing)}: give one from invert")
    coherence, residual, used = (
        inversion[n].values.astype("float64").ravel() for n in names
    )
    known = np.isfinite(coherence) & np.isfinite(residual) & (used > 0)
    if not known.any():
        return InversionSummary(float("nan"), float("nan"), float("nan"))
    coherence, residual, used = coherence[known], residual[known], used[known]
    return InversionSummary(
        float(np.median(coherence)),
        float(np.mean(coherence >= COHERENT)),
        float(np.sqrt(np.sum(used * residual**2) / used.sum())),
    )


def short_baseline_std(
    cube: xr.Dataset, variable: str | None = None
) -> ShortBaselineStd:
    r"""Spread of the pairs with the shortest time span, in which little has moved.

    Mostly atmosphere: :math:`\sqrt{2}` times that of one date, plus what moves in that
    time. Outputting zero makes it zero.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x)
        Phase, rad, with ``reference_time`` and ``secondary_time`` on ``pair`` and the
        attribute ``wavelength`` (m). One pair is held in memory at a time.
    variable : {"corrected_phase", "unwrapped_phase"}, optional
        None = the first of them that the cube has.

    Returns
    -------
    ShortBaselineStd
        Pairs whose span, rounded to days, is the shortest.

    Raises
    ------
    ValueError
        If the cube is not as above.
    """
    variable = phase_variable(cube, variable)
    scale = 1e3 * phase_to_displacement(1.0, checked_wavelength(cube))
    span = cube["secondary_time"].values - cube["reference_time"].values
    days = np.rint(span / np.timedelta64(1, "D"))
    chosen = np.flatnonzero(days == days.min())
    square, count = 0.0, 0
    for k in chosen:
        phase = _map(cube, variable, int(k))
        phase = phase[np.isfinite(phase)]
        if phase.size:
            square += float(np.sum((phase - phase.mean()) ** 2))
            count += phase.size
    std = abs(scale) * (square / count) ** 0.5 if count else float("nan")
    return ShortBaselineStd(std, float(days.min()), chosen.size)


def _map(cube: xr.Dataset, variable: str, pair: int) -> np.ndarray:
    """One pair, rad, float64, shape (rows, columns)."""
    phase = cube[variable].isel({PAIR: pair}).transpose(Y, X)
    return np.asarray(phase.values, "float64")
