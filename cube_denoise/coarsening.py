"""Maps of a velocity product at half the resolution, honest about what is missing."""

from collections.abc import Callable, Sequence

import numpy as np

NO_DATE = int(np.iinfo("int64").min)
"""Where there is no date, as seconds since 1970."""
METHODS = {
    "velocity": "mean",
    "velocity_std": "root mean square",
    "velocity_covariance": "mean",
    "frame_count": "maximum",
    "condition_number": "maximum",
    "first_date": "minimum",
    "last_date": "maximum",
    "los_east": "mean",
    "los_north": "mean",
    "los_up": "mean",
}
"""How four pixels become one, by variable."""


def halved(
    name: str, values: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Every 2 x 2 pixels as one, of those that hold data.

    Parameters
    ----------
    name : str
        Variable, one of `METHODS`.
    values : numpy.ndarray, shape (..., rows, columns)
        NaN, or `NO_DATE` of dates as integers, = no data.
    weights : numpy.ndarray, optional
        Of the same shape, for means: what part of the pixel holds data.

    Returns
    -------
    numpy.ndarray, shape (..., ceil(rows / 2), ceil(columns / 2))
        Of the same type.
    """
    method = METHODS[name]
    if method == "maximum":
        return _folded(values, np.fmax)
    if method == "minimum":
        late = np.where(values == NO_DATE, np.iinfo("int64").max, values)
        least = _folded(late, np.minimum)
        return np.where(least == np.iinfo("int64").max, NO_DATE, least)
    given = np.isfinite(values).astype(values.dtype)
    if weights is not None:
        given *= weights
    known = np.where(given > 0, values, 0)
    if method == "root mean square":
        known *= known
    total = _folded(given, np.add)
    with np.errstate(invalid="ignore"):
        found = _folded(known * given, np.add) / total  # 0 / 0 = NaN: no data
    return np.sqrt(found) if method == "root mean square" else found


def halved_fraction(fraction: np.ndarray) -> np.ndarray:
    """Fraction of every 2 x 2 pixels that holds data; beyond the edge there is none."""
    return _folded(fraction, np.add) / fraction.dtype.type(4)


def weights_for(
    name: str, fraction: np.ndarray, components: Sequence[str], terms: Sequence[str]
) -> np.ndarray | None:
    """Weights of a variable's pixels, from the fraction by component that holds data.

    None where all count the same. A covariance has those of the lesser of its two.
    """
    if name in ("velocity", "velocity_std"):
        return fraction
    if name != "velocity_covariance":
        return None
    place = {c: k for k, c in enumerate(components)}
    return np.stack(
        [fraction[[place[c] for c in term.split("_")]].min(0) for term in terms]
    )


def _folded(
    values: np.ndarray, join: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Join every 2 x 2 pixels; the last row and column stand alone if they must."""
    rows, columns = values.shape[-2:]
    if rows % 2 or columns % 2:
        neutral = {np.add: 0, np.minimum: np.iinfo("int64").max}.get(join)  # type: ignore[call-overload]
        if neutral is None:
            neutral = np.nan if values.dtype.kind == "f" else np.iinfo(values.dtype).min
        ends = [(0, 0)] * (values.ndim - 2) + [(0, rows % 2), (0, columns % 2)]
        values = np.pad(values, ends, constant_values=neutral)
    halves = join(values[..., ::2, :], values[..., 1::2, :])
    return join(halves[..., ::2], halves[..., 1::2])
