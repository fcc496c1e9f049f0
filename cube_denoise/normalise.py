"""From a displacement map to what a network sees, and its unit back to metres.

Training and inference go through the same functions. Statistics come from the whole
pair (`five_numbers`), never from the block at hand.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cube_denoise.conventions import QUANTILE_LEVELS

SCALE_LIMITS = (0.002, 0.5)
"""Smallest and largest scale of the robust normalisation, m."""

ELEVATION_UNIT = 1000.0
"""Elevation channels are in units of this many metres."""

MAX_SAMPLES = 1 << 20
"""Pairs with more pixels are summarised on a regular subsample of at most this many."""


SAMPLE = 1 << 13
"""Values, about, that tell roughly where a quantile lies."""
PIECE = 1 << 16
"""Values that are looked at together."""


class Scaling(NamedTuple):
    """``normalised = (displacement - offset) / scale``."""

    offset: float
    """m"""
    scale: float
    """m"""


def sample_stride(shape: tuple[int, int]) -> int:
    """Stride of the subsample, anchored at the first pixel, that summaries use."""
    stride = 1
    while -(-shape[0] // stride) * -(-shape[1] // stride) > MAX_SAMPLES:
        stride += 1
    return stride


def five_numbers(values: np.ndarray) -> np.ndarray:
    """Minimum, quartiles, maximum of the finite values; NaN where there are none.

    Returns
    -------
    numpy.ndarray, float32, shape (5,)
        Unit of `values`; levels are `conventions.QUANTILE_LEVELS`.
    """
    values = np.ravel(values)
    if values.size == 0:
        return np.full(len(QUANTILE_LEVELS), np.nan, "float32")
    ends = [np.fmin.reduce(values), np.fmax.reduce(values)]
    if np.isinf(ends).any():
        return five_numbers(values[np.isfinite(values)])
    count = int(sum(np.count_nonzero(p == p) for p in _pieces(values)))
    if count == 0:
        return np.full(len(QUANTILE_LEVELS), np.nan, "float32")
    inner = _quantiles(values, count, QUANTILE_LEVELS[1:-1])
    return np.array([ends[0], *inner, ends[1]], "float32")


def _pieces(values: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of a long vector that the processor's cache holds."""
    for begin in range(0, values.size, PIECE):
        yield values[begin : begin + PIECE]


def _quantiles(
    values: np.ndarray, count: int, levels: Sequence[float]
) -> list[np.floating[Any]]:
    """Quantiles of the `count` values that are not NaN.

    They are those of `numpy.quantile`, to the bit, but quicker: only values near them
    are ordered. A sample tells between which values they lie; if it told wrong, all
    values are ordered.
    """
    # An odd step takes from every column of a map whose width is a power of two.
    few = np.sort(values[:: values.size // SAMPLE | 1])
    few = few[: few.size - np.count_nonzero(np.isnan(few))]
    reach = SAMPLE // 80
    if min(few.size, count // 4) < SAMPLE // 4:
        known = values[~np.isnan(values)]
        return [np.quantile(known, level) for level in levels]
    middles = [int(level * few.size) for level in levels]
    bounds = [(few[m - reach], few[m + reach]) for m in middles]
    reached = [0] * len(levels)
    near: list[list[np.ndarray]] = [[] for _ in levels]
    masks = np.empty((2, PIECE), bool)
    for piece in _pieces(values):
        inside, below = masks[:, : piece.size]
        for k, (low, high) in enumerate(bounds):
            np.greater_equal(piece, low, out=inside)
            reached[k] += int(np.count_nonzero(inside))
            np.logical_and(inside, np.less_equal(piece, high, out=below), out=inside)
            near[k].append(piece[inside])
    return [
        _quantile(values, np.concatenate(near[k]), count, count - reached[k], level)
        for k, level in enumerate(levels)
    ]


def _quantile(
    values: np.ndarray, near: np.ndarray, count: int, below: int, level: float
) -> np.floating[Any]:
    """Quantile of `count` values, of which `below` are less than all of `near`."""
    position = level * (count - 1)
    first = int(position) - below
    if not 0 <= first < near.size - 1:
        return np.quantile(values[~np.isnan(values)], level)
    near.partition(first)
    pair = np.array([near[first], near[first + 1 :].min()])
    return np.quantile(pair, position - int(position))


def scaling(kind: str, quantiles: np.ndarray) -> Scaling:
    """Offset and scale of a pair from its five-number summary.

    Parameters
    ----------
    kind : {"minmax", "robust"}
        "minmax" maps the range of the pair to 0..1 (the 8-bit scaling of the DnCNN
        poster of Li and Sagiya, divided by 255). "robust" subtracts the median and
        divides by the interquartile range / 1.349, clipped to 2 mm..50 cm.
    quantiles : numpy.ndarray, shape (5,)
        Of the displacement, m.

    Returns
    -------
    Scaling

    Raises
    ------
    ValueError
        If `kind` is not one of the two.
    """
    low, first, median, third, high = (float(q) for q in np.sort(quantiles))
    if kind == "minmax":
        return Scaling(low, high - low if high > low else 1.0)
    if kind == "robust":
        return Scaling(median, float(np.clip((third - first) / 1.349, *SCALE_LIMITS)))
    raise ValueError(f"{kind=}: must be 'minmax' or 'robust'")


def network_inputs(
    names: Sequence[str],
    displacement: np.ndarray,
    *,
    scaling: Scaling,
    valid: np.ndarray,
    elevation: np.ndarray | None = None,
) -> np.ndarray:
    """Stack the channels a network asks for.

    Parameters
    ----------
    names : sequence of {"displacement", "log_scale", "elevation", "valid"}
        Channels, in order. "displacement" is normalised; "log_scale" is the constant
        log10(scale / 1 cm); "elevation" is in km; "valid" is 1 where there are data.
    displacement : numpy.ndarray, shape (rows, columns)
        m, without gaps (`gaps.fill_gaps`).
    scaling : Scaling
        Of the pair.
    valid : numpy.ndarray of bool, shape (rows, columns)
        Where there were data.
    elevation : numpy.ndarray, shape (rows, columns), optional
        m, relative to the median of the scene, without gaps.

    Returns
    -------
    numpy.ndarray, float32, shape (len(names), rows, columns)
    """
    channels = []
    for name in names:
        if name == "displacement":
            channels.append((displacement - scaling.offset) / scaling.scale)
        elif name == "log_scale":
            level = np.log10(scaling.scale / 0.01)
            channels.append(np.full(displacement.shape, level))
        elif name == "elevation":
            if elevation is None:
                raise ValueError("elevation=None, but the network has that channel")
            channels.append(elevation / ELEVATION_UNIT)
        elif name == "valid":
            channels.append(valid)
        else:
            raise ValueError(
                f"{name=}: channels are displacement, log_scale, elevation, valid"
            )
    return np.stack(channels).astype("float32")
