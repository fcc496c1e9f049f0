"""From a displacement map to what a network sees, and its unit back to metres.

Training and inference go through the same functions. Statistics come from the whole
pair (`five_numbers`), never from the block at hand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cube_denoise.conventions import QUANTILE_LEVELS

SCALE_LIMITS = (0.002, 0.5)
"""Smallest and largest scale of the robust normalisation, m."""

ELEVATION_UNIT = 1000.0
"""Elevation channels are in units of this many metres."""

MAX_SAMPLES = 1 << 20
"""Pairs with more pixels are summarised on a regular subsample of at most this many."""


SAMPLE = 1 << 13
"""Values that tell roughly where a quantile lies."""


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
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.full(len(QUANTILE_LEVELS), np.nan, "float32")
    inner = [_quantile(finite, level) for level in QUANTILE_LEVELS[1:-1]]
    return np.array([finite.min(), *inner, finite.max()], "float32")


def _quantile(values: np.ndarray, level: float) -> float:
    """`numpy.quantile`, to the bit, but quicker: only values near it are ordered.

    A regular sample tells between which values it lies; if it told wrong, all values
    are ordered.
    """
    if values.size < 4 * SAMPLE:
        return float(np.quantile(values, level))
    few = np.sort(values[:: values.size // SAMPLE])
    middle, reach = int(level * few.size), few.size // 40
    low, high = few[middle - reach], few[middle + reach]
    above = values >= low
    near = values[above & (values <= high)]
    position = level * (values.size - 1)
    first = int(position) - (values.size - int(np.count_nonzero(above)))
    if not 0 <= first < near.size - 1:
        return float(np.quantile(values, level))
    near.partition((first, first + 1))
    return float(np.quantile(near[first : first + 2], position - int(position)))


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
