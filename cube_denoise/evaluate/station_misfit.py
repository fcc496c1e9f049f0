"""Misfit of radar displacement to GNSS stations, with and without a common offset."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from cube_denoise.evaluate.gnss import STATION
from cube_denoise.evaluate.similarity import correlation


class StationMisfit(NamedTuple):
    """Misfit of a radar to GNSS stations, in the unit compared (`station_misfit`)."""

    avg: float
    """Mean over stations of the mean absolute difference at each."""
    mae: float
    """Mean absolute difference over all values: stations with more count more."""
    rms: float
    """Root mean square difference over all values."""
    l2: float
    """L2 norm of the differences; grows with their number."""
    avg_demeaned: float
    """`avg` after removing the mean over stations at each date or pair."""
    l2_demeaned: float
    """`l2` after removing the mean over stations at each date or pair."""
    correlation: float
    """Pearson correlation of radar and GNSS, the reference station left out."""
    chi2: float
    """Mean square of difference over standard deviation; NaN if none was given."""
    stations: int
    """Number of stations with a value."""
    values: int
    """Number of values."""

    def reduction(self, raw: "StationMisfit") -> dict[str, float]:
        """Relative reduction, 1 - self / raw, of each misfit; negative = worse."""
        names = ("avg", "mae", "rms", "l2", "avg_demeaned", "l2_demeaned", "chi2")
        pairs = {n: (getattr(self, n), getattr(raw, n)) for n in names}
        return {
            n: 1 - own / other if other > 0 else float("nan")
            for n, (own, other) in pairs.items()
        }


def station_misfit(
    insar: xr.DataArray | np.ndarray,
    gnss: xr.DataArray | np.ndarray,
    *,
    std: xr.DataArray | np.ndarray | None = None,
    reference_station: str | int | None = None,
) -> StationMisfit:
    r"""Misfit of radar displacement to that of GNSS stations.

    With differences :math:`d_i` of radar and GNSS: ``avg`` is the diffusion poster's
    :math:`\frac{1}{n} \sum |d_i|` (Popescu et al.), ``l2`` the DnCNN poster's
    :math:`\sqrt{\sum d_i^2}` (Li and Sagiya). Both can be lowered by a better constant
    alone, as the error of the reference station or pixel is in all differences; their
    ``_demeaned`` forms cannot. Report both.

    Parameters
    ----------
    insar, gnss : xarray.DataArray or numpy.ndarray, dims (station,) or (station, n)
        Displacement in one unit, n dates or pairs, as of `compare_with_stations`; NaN =
        no data, left out. Station first in an array.
    std : same, optional
        Standard deviation of the difference, in that unit, for ``chi2``. A zero is
        allowed where the difference is zero (the reference station), and left out.
    reference_station : str or int, optional
        The station to which all displacement refers, by name (DataArray) or position.
        Its differences are zero by construction: it counts in ``avg``, ``mae`` and
        ``rms``, as in the posters, but not in the correlation, nor in the mean over
        stations and the scores after removing it.

    Returns
    -------
    StationMisfit
        In the unit of the input. The ``_demeaned`` scores use the dates or pairs with
        two stations at least besides the reference; NaN if there are none.

    Raises
    ------
    ValueError
        If stations or units differ, there is no value that both have, `std` is negative
        or zero beside a difference, or the reference station is not among them.

    Examples
    --------
    >>> found = station_misfit(np.array([3.0, 5.0]), np.array([1.0, 1.0]))
    >>> found.avg, found.avg_demeaned
    (3.0, 1.0)
    """
    names = (
        insar[STATION].values
        if isinstance(insar, xr.DataArray) and STATION in insar.coords
        else np.arange(len(insar))
    )
    own, other = _station_first(insar, "insar"), _station_first(gnss, "gnss")
    _check_alike(insar, gnss, own, other)
    difference = own - other
    valid = np.isfinite(difference)
    if not valid.any():
        raise ValueError("insar and gnss have no value that both have: all are NaN")
    kept = difference[valid]
    chi2 = float("nan")
    if std is not None:
        sigma = _station_first(std, "std")
        if sigma.shape != own.shape:
            raise ValueError(f"std of shape {sigma.shape} and insar {own.shape} differ")
        known = valid & np.isfinite(sigma) & ~((sigma == 0) & (difference == 0))
        if np.any(sigma[known] <= 0):
            raise ValueError("std must be positive where insar and gnss differ")
        if known.any():
            chi2 = float(np.mean((difference[known] / sigma[known]) ** 2))
    others = valid.copy()
    if reference_station is not None:
        others[_position(reference_station, names)] = False
    counted = others & (others.sum(0, keepdims=True) > 1)
    demeaned = _centred(difference, counted, 0)
    some = counted.any()
    return StationMisfit(
        avg=_mean_of_means(difference, valid),
        mae=float(np.abs(kept).mean()),
        rms=float(np.sqrt(np.mean(kept**2))),
        l2=float(np.sqrt(np.sum(kept**2))),
        avg_demeaned=_mean_of_means(demeaned, counted) if some else float("nan"),
        l2_demeaned=(
            float(np.sqrt(np.sum(demeaned[counted] ** 2))) if some else float("nan")
        ),
        correlation=correlation(own[others], other[others]),
        chi2=chi2,
        stations=int(valid.any(1).sum()),
        values=int(valid.sum()),
    )


def _centred(values: np.ndarray, valid: np.ndarray, axis: int) -> np.ndarray:
    """Values with the mean of the valid ones along an axis removed."""
    count = np.maximum(valid.sum(axis, keepdims=True), 1)
    return values - np.where(valid, values, 0).sum(axis, keepdims=True) / count


def _position(reference_station: str | int, names: np.ndarray) -> int:
    found = np.flatnonzero([name == reference_station for name in names.tolist()])
    if not found.size:
        told = ", ".join(map(str, names))
        raise ValueError(f"{reference_station=} must be one of {told}")
    return int(found[0])


def _mean_of_means(values: np.ndarray, valid: np.ndarray) -> float:
    """Mean over rows of the mean magnitude of the valid values of each."""
    count = valid.sum(1)
    total = np.where(valid, np.abs(values), 0).sum(1)
    return float(np.mean(total[count > 0] / count[count > 0]))


def _station_first(values: xr.DataArray | np.ndarray, name: str) -> np.ndarray:
    """Values as float64 of shape (station, n)."""
    if isinstance(values, xr.DataArray):
        if STATION not in values.dims:
            raise ValueError(f"{name} has dims {values.dims}: one must be {STATION!r}")
        values = values.transpose(STATION, ...).values
    array = np.asarray(values, "float64")
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(
            f"{name} has shape {array.shape}: it must be (station,) or (station, n)"
        )
    return array.reshape(len(array), -1)


def _check_alike(
    insar: xr.DataArray | np.ndarray,
    gnss: xr.DataArray | np.ndarray,
    own: np.ndarray,
    other: np.ndarray,
) -> None:
    if own.shape != other.shape:
        raise ValueError(f"insar of shape {own.shape} and gnss {other.shape} differ")
    if not (isinstance(insar, xr.DataArray) and isinstance(gnss, xr.DataArray)):
        return
    units = insar.attrs.get("units"), gnss.attrs.get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(f"insar is in {units[0]}, gnss in {units[1]}: one unit")
    if STATION in insar.coords and STATION in gnss.coords:
        stations = [a[STATION].values.tolist() for a in (insar, gnss)]
        if stations[0] != stations[1]:
            raise ValueError(f"insar is at stations {stations[0]}, gnss {stations[1]}")
