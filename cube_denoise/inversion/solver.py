"""Pixels of a network solved for its dates: NumPy in, NumPy out."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from cube_denoise.inversion.elimination import Elimination
from cube_denoise.inversion.gaps import GAPS
from cube_denoise.inversion.kernel import GIVEN, WEIGHTS, arrays, state_rows
from cube_denoise.inversion.lanes import LANES
from cube_denoise.inversion.robust import LOSSES
from cube_denoise.inversion.tiles import TILES, solve_tiles
from cube_denoise.time_models import Design

DEVICES = ("cpu", "cuda")
"""Where pixels are solved: by compiled code on the cores, or by torch on a GPU."""


@dataclass(frozen=True)
class Solution:
    """What `solve` finds of the pixels; phases in rad, sign of the pairs."""

    phase: np.ndarray
    """Of the dates, float32, (dates, pixels); 0 at the origin, NaN where not linked."""
    temporal_coherence: np.ndarray
    """|mean exp(j r)| of the residuals r of the pairs used, (pixels,)."""
    residual_rms: np.ndarray
    """Root mean square of these, unweighted, rad."""
    pair_count: np.ndarray
    """Number of pairs used."""
    gap_count: np.ndarray
    """Number of dates not linked to the origin; -1 where no pair has data."""
    phase_std: np.ndarray
    """Of the dates, rad, from the coherence of the pairs; empty without `errors`."""
    rate_variance: np.ndarray
    """Of the rate of a line (or `design`), from the same, rad^2 / year^2; likewise."""
    scatter: np.ndarray
    """Expected sum of squares about that fit, from the same, rad^2; likewise."""


def solve(
    phase: np.ndarray,
    plan: Elimination,
    *,
    coherence: np.ndarray | None = None,
    constants: np.ndarray | None = None,
    weights: str | np.ndarray = "none",
    robust: str = "none",
    gaps: str = "nan",
    years: np.ndarray | None = None,
    design: Design | None = None,
    quality: bool = True,
    errors: bool = False,
    threads: int = 1,
    device: str = "cpu",
) -> Solution:
    r"""Weighted least-squares phase of the dates, each pixel by itself.

    Minimises :math:`\sum_m w_m (x_{j_m} - x_{i_m} - \varphi_m)^2` with
    :math:`x_\mathrm{origin} = 0` (Berardino et al. 2002, weighted) over the pairs that
    have data; float64 inside. Runs without the GIL.

    Parameters
    ----------
    phase : numpy.ndarray, float32, shape (pairs, pixels), C-contiguous
        rad, NaN = no data.
    plan : Elimination
        Of the network.
    coherence : numpy.ndarray, float32, shape (pairs, pixels), optional
        For weights and errors; NaN counts as 0.05.
    constants : numpy.ndarray, float64, shape (pairs,), optional
        Taken off the phase, rad; NaN = leave the pair out.
    weights : {"none", "coherence", "variance"} or numpy.ndarray, float32
        w = 1, g, or g^2 / (1 - g^2), of coherence g clipped to 0.05..0.99; or w itself,
        shape (pairs, pixels), a pair of weight zero being left out.
    robust : {"none", "l1", "huber"}
        Minimise weighted absolute values, or Huber's loss with the corner at 1.345
        standard deviations (from the median residual of the pixel), instead of squares,
        by up to 50 rounds of reweighting.
    gaps : {"nan", "linear"}
        What becomes of dates that a pixel's pairs do not link to the origin; see
        `gaps.bridge`.
    years : numpy.ndarray, shape (dates,), optional
        Times of the dates; for ``gaps="linear"`` and `errors`.
    design : time_models.Design, optional
        Of the fit to the dates that `errors` tells of; by default a line.
    quality : bool
        Whether the residuals are judged; if not, zeros are returned for the maps.
    errors : bool
        Whether errors are propagated: independent errors of the pairs with variances
        that go with (1 - g^2) / g^2 (Cramer-Rao), their common factor from the
        residuals of the pixel's redundant pairs. That holds decorrelation, but not
        the atmosphere, which pairs of common dates share and residuals do not show.
        NaN where pairs are not redundant.
    threads : int
        Among which the pixels are shared; no effect on the numbers.
    device : str
        "cpu" = compiled code; else a device of torch, such as "cuda", or "cpu:0" for
        the same on its CPU. The phase is the same to 1e-5 rad, to 1e-4 with `robust`.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError
        If weights or coherence do not have the shape of the phase, or a weight is
        negative or not finite, or torch does not see the device.
    """
    pairs, pixels = phase.shape
    dates = plan.order.size + (plan.origin >= 0)
    series = np.zeros((dates, pixels), "float32")
    maps = np.zeros((4, pixels), "float32")
    if design is None:
        t = np.zeros(dates) if years is None else np.asarray(years, "float64")
        matrix, rate = np.stack([np.ones(dates), t], 1), np.array([0.0, 1.0])
    else:
        matrix, rate = design.matrix, design.rate
    basis, R = np.linalg.qr(matrix) if errors else (np.empty((0, 0)), np.eye(0))
    columns = basis.shape[1]
    products = np.zeros((1 + columns * (columns + 1) // 2, pixels))
    deviations = np.zeros((dates, pixels) if errors else (1, 1), "float32")
    if isinstance(weights, str):
        way, worth = WEIGHTS[weights], coherence
    else:
        way, worth = GIVEN, weights
    _check_worth(worth, way, phase.shape)
    nothing = np.empty((0, pixels), "float32")
    tiles = -(-pixels // LANES)
    edges = [min(pixels, LANES * (tiles * k // threads)) for k in range(threads + 1)]
    work = partial(
        _tiles_on(device),
        phase,
        nothing if worth is None else worth,
        np.zeros(pairs) if constants is None else np.asarray(constants, "float64"),
        way,
        LOSSES[robust],
        GAPS[gaps],
        arrays(plan),
        state_rows(plan),
        np.asarray(plan.order, "int64"),
        plan.origin,
        np.zeros(dates) if years is None else np.asarray(years, "float64"),
        quality,
        errors,
        basis,
        series,
        maps,
        deviations,
        products,
    )
    edges[-1] = pixels
    if threads == 1:
        wrong = work(0, pixels)
    else:
        with ThreadPoolExecutor(threads) as pool:
            wrong = sum(pool.map(work, edges[:-1], edges[1:]))
    if wrong and worth is not None:
        raise ValueError(
            f"weights are {worth.min()} to {worth.max()}: they must be 0 or more, and "
            "finite"
        )
    rate_variance = scatter = np.empty(0)
    if errors:
        rate_variance, scatter = rate_errors(
            np.isfinite(deviations),
            basis,
            rate @ np.linalg.inv(R),
            products[0],
            products[1:],
        )
    return Solution(
        phase=series,
        temporal_coherence=maps[0],
        residual_rms=maps[1],
        pair_count=maps[2].astype("int32"),
        gap_count=maps[3].astype("int32"),
        phase_std=deviations if errors else np.empty(0, "float32"),
        rate_variance=rate_variance,
        scatter=scatter,
    )


def check_device(device: str) -> None:
    """Refuse names other than `DEVICES`; whether it is there, `solve` will see.

    Raises
    ------
    ValueError
    """
    if device not in DEVICES:
        raise ValueError(f"{device=}: must be {' or '.join(map(repr, DEVICES))}")


def _tiles_on(device: str) -> Callable[..., int]:
    """Return what solves pixels on a device."""
    if device == "cpu":
        solver: Callable[..., int] = solve_tiles
        return solver
    from cube_denoise.inversion import tensor_tiles

    return partial(tensor_tiles.solve_tiles, device=device)


def _check_worth(worth: np.ndarray | None, way: int, shape: tuple[int, ...]) -> None:
    """Refuse weights, or coherence they come from, that compiled code would misread."""
    name = "weights" if way == GIVEN else "coherence"
    if worth is None:
        if way != WEIGHTS["none"]:
            raise ValueError("coherence=None: weights of that kind need it")
    elif worth.shape != shape:
        raise ValueError(f"{name} has shape {worth.shape}: phase has {shape}")


def scratch_memory(plan: Elimination, pairs: int, *, errors: bool = True) -> int:
    """Bytes that `solve` takes beside its inputs and outputs."""
    entries, positions = plan.entry_other.size, plan.order.size
    rows = 8 * state_rows(plan) + 4 * pairs * (2 * TILES + 4 + 1)
    rows += positions * (1 + 4 * TILES)
    if errors:
        rows += 8 * (2 * (entries + positions) + 2 * entries + 8 * positions)
    return LANES * rows


def rate_errors(
    there: np.ndarray,
    basis: np.ndarray,
    functional: np.ndarray,
    total: np.ndarray,
    products: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    r"""What errors of the dates with covariance C do to a fit and to its residuals.

    Parameters
    ----------
    there : numpy.ndarray of bool, shape (dates, pixels)
        Dates that are fitted.
    basis : numpy.ndarray, shape (dates, parameters)
        Q of the design G = Q R.
    functional : numpy.ndarray, shape (parameters,)
        Makes the rate of the coefficients in this basis.
    total : numpy.ndarray, shape (pixels,)
        Trace of C.
    products : numpy.ndarray, shape (parameters (parameters + 1) / 2, pixels)
        :math:`Q^T C Q`, upper triangle row by row.

    Returns
    -------
    rate_variance, scatter : numpy.ndarray, shape (pixels,)
        :math:`g^T C g`, g being the row that makes the rate of the series, and
        :math:`tr(P C)`, P being the projection onto residuals. NaN where the dates do
        not determine the fit.
    """
    size = basis.shape[1]
    upper = np.triu_indices(size)
    matrix = np.empty((there.shape[1], size, size))
    matrix[:, upper[0], upper[1]] = matrix[:, upper[1], upper[0]] = products.T
    # With all dates the basis is orthonormal.
    rate = np.einsum("a,pab,b->p", functional, matrix, functional, optimize=True)
    scatter = total - np.einsum("paa->p", matrix)
    gappy = np.flatnonzero(~there.all(0))
    if gappy.size:
        some = there[:, gappy].astype("float64")
        gram = np.einsum("dp,da,db->pab", some, basis, basis, optimize=True)
        regular = np.linalg.eigvalsh(gram)[:, 0] > 1e-10
        gram[~regular] = np.eye(size)
        inverse = np.linalg.inv(gram)
        row = inverse @ functional
        of_gappy = np.einsum("pa,pab,pb->p", row, matrix[gappy], row, optimize=True)
        lost = np.einsum("pab,pba->p", inverse, matrix[gappy])
        bad = ~regular | (some.sum(0) <= 1)
        rate[gappy] = np.where(bad, np.nan, of_gappy)
        scatter[gappy] = np.where(bad, np.nan, total[gappy] - lost)
    return rate, scatter
