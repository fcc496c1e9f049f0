"""What the displacement series leaves of every pair: statistics that find bad pairs."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window, spans, windows
from cube_denoise.conventions import PAIR, TIME, X, Y, displacement_to_phase
from cube_denoise.inversion.elimination import Elimination
from cube_denoise.inversion.kernel import HIGHEST, LOWEST
from cube_denoise.inversion.solver import solve
from cube_denoise.network import Network, pair_indices
from cube_denoise.pair_variances import network_spread, own_variances, stand_out
from cube_denoise.reference import phase_variable, read_window, reference_phase
from cube_denoise.reference_area import recorded_reference
from cube_denoise.reference_pixels import checked_area
from cube_denoise.state import pair_state

ROUNDING = 1e-3
"""Residuals below this are taken for rounding, rad."""
SAMPLE, SAMPLE_COST = 256, 2e10
"""Most pixels whose networks are averaged, and multiplications that may take."""
RECORDED = ("phase_variable", "weights", "robust", "unwrapping")


def pair_residuals(cube: xr.Dataset, *, block: int = 256) -> xr.Dataset:
    r"""Residuals of every pair of an inverted cube, and which pairs stand out.

    The residual of a pair (i, j) is its phase, less its mean over the reference area,
    less :math:`x_j - x_i` of the phases x that ``displacement`` stands for. The phase
    is taken as it is in the cube: what ``unwrapping="correct"`` or ``"mask"`` took out
    shows in full.

    The judgement that follows is of the residuals that unweighted least squares leave,
    however the cube was inverted. A bad pair leaves part of its error on its
    neighbours: at a pixel :math:`r = (I - H) e` with :math:`H = A (A^T A)^+ A^T`. For
    independent errors e with variances :math:`f_k v_k`, v being what coherence predicts
    up to a factor (Cramer-Rao; 1 without coherence), squares are expected to be

    .. math:: \sum_p u (r_m - \bar r_m)^2
        = \sum_k f_k \sum_p u (I - H)_{mk}^2 v_k

    over the pixels p, with :math:`u = 1 / \bar v` of the pixel; a constant of a pair,
    which noise of the reference area leaves, is in ``mean`` alone. With one variance
    for all they are :math:`f (1 - h_m)`, h being the leverage. Solved for f, this
    is the estimate of variances from squared residuals of Hartley, Rao & Kiefer (1969);
    here the solution is by relative error (Itakura-Saito) and has no negative f.
    ``suspicion`` is the root of f over the median of all pairs: how many times noisier
    than its coherence says a pair is. The right side is of at most 256 random pixels,
    with their gaps. Pairs that only occur in the same loops share what they miss. With
    many gaps a pair that is far worse than all others makes some neighbours be flagged,
    with less suspicion: take it out and judge again.

    Parameters
    ----------
    cube : xarray.Dataset, dims (pair, y, x) and (time, y, x)
        An inverted cube as `store.open_cube` gives it, or a cube with the result of
        `invert` assigned to it: phase (rad), ``displacement`` (m) with its attributes,
        and, if there, ``coherence``.
    block : int
        The cube is read in windows cut at multiples of this many pixels; numbers
        change by rounding of float64 sums.

    Returns
    -------
    xarray.Dataset
        Along ``pair``: ``pixels`` with a residual; ``mean`` and ``rms`` of it, rad;
        ``beyond_half_pi`` and ``beyond_pi``, share of these pixels with a larger one;
        ``square_share``, the part of the sum of squares of all pairs; ``leverage``, 0
        to 1; ``noise_std``, the pair's own error, rad; ``suspicion``, 1 for the median
        pair; ``flagged``, whether it is at least 1.5 and 5 robust standard deviations
        (`pair_variances.stand_out`) above the median pair. NaN = no data, or for the
        last numbers a pair in no loop. Attributes tell the inversion.

    Raises
    ------
    ValueError
        If the cube is not inverted, or was changed since.
    """
    variable, told = _inversion(cube)
    network = _network(cube, told)
    pairs = cube.sizes[PAIR]
    constants = reference_phase(
        cube, variable, checked_area(recorded_reference(told), cube)
    )
    plan = network.plan
    chosen = _sampled(cube)
    told_sums, judged_sums = np.zeros((5, pairs)), np.zeros((5, pairs))
    sample: list[tuple[np.ndarray, np.ndarray]] = []
    for window in windows(**{d: spans(cube.sizes[d], block) for d in (Y, X)}):
        residual = _residuals(cube, variable, constants, network, window)
        for k, values in enumerate(residual):
            told_sums[:, k] += _plain_sums(values[np.isfinite(values)])
        _to_least_squares(residual, network, plan)
        variance = _variances(cube, window, residual.shape)
        there = np.isfinite(residual)
        total = np.where(there, variance, 0).sum(0, dtype="float64")
        scale = there.sum(0) / np.where(total > 0, total, 1)
        for k, (values, here) in enumerate(zip(residual, there, strict=True)):
            judged_sums[:, k] += _scaled_sums(
                values[here], scale[here], variance[k][here]
            )
        for y, x in _inside(chosen, window):
            if scale[y, x] > 0:
                sample.append((there[:, y, x], scale[y, x] * variance[:, y, x]))

    pixels, total, square, half, whole = told_sums
    count = np.where(pixels > 0, pixels, np.nan)
    number, expected, weight, first, second = judged_sums
    about = second - first**2 / np.where(weight > 0, weight, 1)
    leverage, spread = network_spread(network, sample)
    least = ROUNDING**2 * np.maximum(weight, 1)
    factor = own_variances(np.maximum(about, least) / max(number.max(), 1), spread)
    factor[number == 0] = np.nan
    suspicion, flagged = stand_out(factor)
    rad, one = {"units": "rad"}, {"units": "1"}
    share = square / square.sum() if square.any() else square
    return xr.Dataset(
        {
            "pixels": (PAIR, pixels.astype("int64"), one),
            "mean": (PAIR, total / count, rad),
            "rms": (PAIR, np.sqrt(square / count), rad),
            "beyond_half_pi": (PAIR, half / count, one),
            "beyond_pi": (PAIR, whole / count, one),
            "square_share": (PAIR, np.where(pixels > 0, share, np.nan), one),
            "leverage": (PAIR, leverage, one),
            "noise_std": (PAIR, np.sqrt(factor * expected / number.clip(1)), rad),
            "suspicion": (PAIR, suspicion, one),
            "flagged": (PAIR, flagged),
        },
        coords={
            name: cube[name].variable for name in ("reference_time", "secondary_time")
        },
        attrs={n: told[n] for n in told if n in RECORDED or n.startswith("reference_")},
    )


def _inversion(cube: xr.Dataset) -> tuple[str, dict[str, Any]]:
    """Phase variable and attributes of the inversion a cube holds."""
    if "displacement" not in cube:
        raise ValueError(
            "the cube has no displacement: invert it first (cube-denoise invert)"
        )
    told = dict(cube["displacement"].attrs)
    needed = {"phase_variable", "reference_time", "reference_rows", "reference_columns"}
    if missing := sorted(needed - set(told)):
        raise ValueError(
            f"displacement lacks the attribute(s) {', '.join(missing)} that an "
            "inversion records: invert the cube again"
        )
    variable = phase_variable(cube, told["phase_variable"])
    _, _, times = pair_indices(
        cube["reference_time"].values, cube["secondary_time"].values
    )
    dates = cube[TIME].values.astype("datetime64[s]")
    recorded = told.get("pair_state")
    stale = recorded is not None and recorded != pair_state(cube, variable)
    if stale or not np.array_equal(dates, times):
        raise ValueError(
            "displacement is not of the pairs that the cube has now: invert it again"
        )
    return variable, told


def _network(cube: xr.Dataset, told: Mapping[str, Any]) -> Network:
    first, second, times = pair_indices(
        cube["reference_time"].values, cube["secondary_time"].values
    )
    origin = np.datetime64(told["reference_time"], "s")
    return Network(first, second, times.size, int(np.searchsorted(times, origin)))


def _residuals(
    cube: xr.Dataset,
    variable: str,
    constants: np.ndarray,
    network: Network,
    window: Window,
) -> np.ndarray:
    """Residuals of one window, rad, float32, shape (pairs, rows, columns)."""
    residual = np.array(read_window(cube, variable, window), "float32", order="C")
    part = cube["displacement"].isel(dict(window)).compute().transpose(TIME, Y, X)
    dates = displacement_to_phase(
        part.values.astype("float64"), float(cube.attrs["wavelength"])
    )
    for k, (i, j) in enumerate(zip(network.first, network.second, strict=True)):
        residual[k] = residual[k] - (constants[k] + dates[j] - dates[i])
    return residual


def _variances(cube: xr.Dataset, window: Window, shape: tuple[int, ...]) -> np.ndarray:
    """Phase variance by coherence, up to a factor; 1 without."""
    if "coherence" not in cube:
        return np.broadcast_to(np.float32(1), shape)
    g = read_window(cube, "coherence", window).astype("float32")
    g = np.where(np.isnan(g), LOWEST, g).clip(LOWEST, HIGHEST)
    return (1 - g**2) / g**2


def _to_least_squares(
    residual: np.ndarray, network: Network, plan: Elimination
) -> None:
    """Take off what a series can explain; NaN for pairs not linked to the origin."""
    flat = residual.reshape(len(residual), -1)
    x = solve(flat, plan, quality=False).phase
    for k, (i, j) in enumerate(zip(network.first, network.second, strict=True)):
        flat[k] -= x[j] - x[i]


def _plain_sums(r: np.ndarray) -> np.ndarray:
    """Number, sum, sum of squares, and how many are beyond half pi and pi."""
    r = r.astype("float64")
    size = np.abs(r)
    beyond = (size > np.pi / 2).sum(), (size > np.pi).sum()
    return np.array([r.size, r.sum(), np.square(r).sum(), *beyond])


def _scaled_sums(r: np.ndarray, scale: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Number, sum of variances, and sums of `scale` and of it times r and r^2."""
    scaled = scale * r
    sums = scale.sum(), scaled.sum(), (scaled * r).sum()
    return np.array([r.size, variance.sum(dtype="float64"), *sums])


def _sampled(cube: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels whose networks are averaged."""
    rows, columns = cube.sizes[Y], cube.sizes[X]
    cost = cube.sizes[PAIR] ** 2 * cube.sizes[TIME]
    count = min(int(np.clip(SAMPLE_COST / cost, 16, SAMPLE)), rows * columns)
    drawn = np.random.default_rng(0).choice(rows * columns, count, replace=False)
    return drawn // columns, drawn % columns


def _inside(
    chosen: tuple[np.ndarray, np.ndarray], window: Window
) -> Iterator[tuple[int, int]]:
    """Places in the window of the pixels that were chosen in the scene."""
    for y, x in zip(*chosen, strict=True):
        rows, columns = window[Y], window[X]
        if rows.start <= y < rows.stop and columns.start <= x < columns.stop:
            yield int(y) - rows.start, int(x) - columns.start
