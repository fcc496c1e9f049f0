"""Fill what is missing, for networks that need a value at every pixel."""

import numpy as np
from scipy import ndimage


def fill_gaps(values: np.ndarray) -> np.ndarray:
    """Replace NaN by a smooth surface through the valid pixels (push-pull pyramid).

    Valid pixels are averaged over 2 x 2, 4 x 4, ... cells until every cell holds
    data, and the coarse values are interpolated back into the holes; far from the data
    this tends to their mean. The result depends on the whole array: give arrays cut on
    a fixed lattice.

    Parameters
    ----------
    values : numpy.ndarray, shape (rows, columns)
        Any unit, NaN = no data.

    Returns
    -------
    numpy.ndarray, float32
        The same values where there were any, finite everywhere.

    Raises
    ------
    ValueError
        If no pixel holds data.
    """
    valid = np.isfinite(values)
    if not valid.any():
        raise ValueError("values has no valid pixel: there is nothing to fill from")
    if valid.all():
        return values.astype("float32")
    offset = values[valid].mean(dtype="float64")
    centred = np.where(valid, values - offset, 0.0)
    return (_push_pull(centred, valid.astype("float64")) + offset).astype("float32")


def _push_pull(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fill where `weight` is 0; both float64, values 0 there."""
    if (weight > 0).all():
        return values
    rows, columns = values.shape
    padding = ((0, rows % 2), (0, columns % 2))
    w = np.pad(weight, padding)
    v = np.pad(values, padding) * w
    cells = (w.shape[0] // 2, 2, w.shape[1] // 2, 2)
    total = w.reshape(cells).sum((1, 3))
    mean = v.reshape(cells).sum((1, 3)) / np.where(total > 0, total, 1)
    coarse = _push_pull(mean, np.minimum(total, 1.0))
    fine = ndimage.zoom(coarse, 2, order=1, mode="nearest", grid_mode=True)
    return np.where(weight > 0, values, fine[:rows, :columns])
