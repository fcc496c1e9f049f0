"""Delays that a weather model gives, read from files."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from odc.geo.crs import CRS
from pyproj import Transformer
from scipy.ndimage import map_coordinates

from cube_denoise.blocks import Window
from cube_denoise.conventions import PAIR, TIME, X, Y, displacement_to_phase
from cube_denoise.corrections.correction import (
    Correction,
    Plan,
    Run,
    pair_windows,
    read,
)
from cube_denoise.delays import Survey, open_delays, survey

ROUNDING = 1e-6
"""Weight of missing neighbours that is taken for rounding of the coordinates."""


@dataclass(frozen=True, kw_only=True)
class Weather(Correction):
    r"""Subtract the difference of two dates' delays from a weather model.

    .. math:: \varphi - \frac{4\pi}{\lambda} (D_2 - D_1), \qquad
       D = \mathrm{ZTD} / \cos\theta

    with the zenith total delay ZTD and the incidence angle :math:`\theta` (Yu et al.
    2018); :math:`\cos\theta` is ``los_up`` of the cube. Delays along the line of sight
    are taken as they are. They are interpolated bilinearly in their own CRS to the
    centre of every pixel; one without data beside it gets none.

    Only differences between dates matter, so delays may lack a map that all dates
    share. What a pair's mean becomes has no meaning: it is not referenced.

    Parameters
    ----------
    delays : path or str
        Folder, pattern or file: see `delays.open_delays`.
    delay_type : {"zenith", "line of sight"}, optional
        What they are, if the files do not say or are wrong.
    incidence : float, optional
        Incidence angle from the vertical, degrees, one for all pixels, in place of
        ``los_up``.

    Raises
    ------
    ValueError
        If `incidence` is not in 0 to 90 degrees.
    """

    name: ClassVar[str] = "weather"
    delays: str | Path
    delay_type: str | None = None
    incidence: float | None = None

    def __post_init__(self) -> None:
        if self.incidence is not None and not 0 <= self.incidence < 90:
            raise ValueError(f"incidence={self.incidence} must be 0 to 90 degrees")

    @property
    def label(self) -> dict[str, str]:
        """Options; which delays, `Plan.settled` says."""
        options = {"delay_type": self.delay_type, "incidence": self.incidence}
        return {"method": self.name, "method_options": json.dumps(options)}

    def again(self, known: Mapping[str, Any]) -> Self | None:
        """See `Correction.again`; the delays must hold what they held."""
        if super().again(known) is None:
            return None
        before = json.loads(known["delays_sha256"])
        delays = open_delays(self.delays, delay_type=self.delay_type)
        there = np.isin(_days(delays[TIME].values), _days(list(before)))
        if there.sum() < len(before):
            return None
        now = survey(delays.isel({TIME: np.flatnonzero(there)})).fingerprints
        return self if now == before else None

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`."""
        import odc.geo.xr  # noqa: F401 (registers the accessor)

        delays = open_delays(self.delays, delay_type=self.delay_type)
        zenith = delays.attrs["delay_type"] == "zenith"
        if zenith and self.incidence is None and "los_up" not in cube:
            raise ValueError(
                f"{self.delays} has zenith delays and the cube no 'los_up' (y, x): "
                "ingest the look vectors, or give incidence=DEGREES"
            )
        if not zenith and self.incidence is not None:
            raise ValueError(
                f"incidence={self.incidence} is of no use: {self.delays} has delays "
                "along the line of sight"
            )
        if cube.odc.crs is None or not {Y, X} <= set(cube.coords):
            raise ValueError(
                "cube has no CRS: give it one, e.g. cube.odc.assign_crs('EPSG:32613')"
            )
        positions, needed = _positions(cube, delays)
        delays = delays.isel({TIME: needed})
        found = survey(delays)
        _warn_of_gaps(found, self.delays)
        _check_cover(cube, delays, pairs, run)
        cosine = None if self.incidence is None else np.cos(np.deg2rad(self.incidence))
        return Plan(
            partial(_apply, delays=delays, positions=positions, cosine=cosine),
            settled={
                "delays": str(self.delays),
                "delays_sha256": json.dumps(found.fingerprints),
            },
        )


def _days(times: Any) -> np.ndarray:
    return np.asarray(
        [f"{t[:4]}-{t[4:6]}-{t[6:]}" if isinstance(t, str) else t for t in times],
        "datetime64[D]",
    )


def _positions(cube: xr.Dataset, delays: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Where the dates of the pairs, shape (pairs, 2), are among the dates needed.

    The second result are the positions of those among all dates of the delays.
    """
    known = _days(delays[TIME].values)
    wanted = np.stack(
        [_days(cube[n].values) for n in ("reference_time", "secondary_time")], -1
    )
    dates, positions = np.unique(wanted, return_inverse=True)
    missing = [str(d) for d in dates if d not in known]
    if missing:
        raise ValueError(
            f"{delays.attrs['source']} has no delays of {len(missing)} of the "
            f"{dates.size} dates of the cube: {', '.join(missing)}"
        )
    return positions.reshape(wanted.shape), np.searchsorted(known, dates)


def _warn_of_gaps(found: Survey, source: str | Path) -> None:
    if found.missing:
        warnings.warn(
            f"{source} has no data at {found.missing:.1%} of its pixels: the corrected "
            "phase has none there",
            stacklevel=2,
        )


def _indices(
    cube: xr.Dataset, delays: xr.DataArray, window: Window
) -> tuple[np.ndarray, np.ndarray]:
    """Row and column among the delays, as fractions, of the pixels of a window."""
    import odc.geo.xr  # noqa: F401 (registers the accessor)

    x, y = np.meshgrid(*(cube[d].values[window[d]].astype("float64") for d in (X, Y)))
    own, other = cube.odc.crs, CRS(delays.attrs["crs"])
    if own != other:
        # A transformer is not safe to share between threads.
        change = Transformer.from_crs(own.to_wkt(), other.to_wkt(), always_xy=True)
        x, y = change.transform(x, y)
    columns, rows = (
        (v - delays[d].values[0]) / _step(delays, d) for v, d in ((x, X), (y, Y))
    )
    if other.geographic:  # Longitudes may run to 180 or to 360 degrees.
        turn = 360 / abs(_step(delays, X))
        columns = (columns + 0.5) % turn - 0.5
    return rows, columns


def _step(delays: xr.DataArray, dim: str) -> float:
    axis = delays[dim].values
    return float(axis[-1] - axis[0]) / (axis.size - 1)


def _covered(delays: xr.DataArray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Whether points are in the pixels of the delays."""
    return np.asarray(
        (rows >= -0.5 - ROUNDING)
        & (rows <= delays.sizes[Y] - 0.5 + ROUNDING)
        & (columns >= -0.5 - ROUNDING)
        & (columns <= delays.sizes[X] - 0.5 + ROUNDING)
    )


def _check_cover(
    cube: xr.Dataset, delays: xr.DataArray, pairs: Sequence[int], run: Run
) -> None:
    """Raise if a valid pixel is outside; reads phase only where pixels are."""
    rows, columns = slice(0, cube.sizes[Y]), slice(0, cube.sizes[X])
    border = [{Y: rows, X: slice(k, k + 1)} for k in (0, cube.sizes[X] - 1)]
    border += [{Y: slice(k, k + 1), X: columns} for k in (0, cube.sizes[Y] - 1)]
    # What its border is in, the scene is in.
    if all(_covered(delays, *_indices(cube, delays, w)).all() for w in border):
        return
    outside = [
        window
        for window in pair_windows(cube)
        if not _covered(delays, *_indices(cube, delays, window)).all()
    ]
    lost = run(partial(_uncovered, cube, delays=delays, windows=outside), pairs)
    if sum(lost):
        raise ValueError(
            f"{delays.attrs['source']} does not cover {max(lost)} pixels of the cube "
            f"that hold data: it reaches {_bounds(delays)} and the cube "
            f"{_bounds(cube)} (west, south, east, north; {delays.attrs['crs']} and "
            f"{cube.odc.crs})"
        )


def _uncovered(
    cube: xr.Dataset,
    pair: int,
    *,
    delays: xr.DataArray,
    windows: Sequence[Window],
) -> int:
    """Valid pixels of a pair outside the delays."""
    count = 0
    for window in windows:
        inside = _covered(delays, *_indices(cube, delays, window))
        here = {PAIR: slice(pair, pair + 1), **window}
        phase = read(cube, "unwrapped_phase", here)[0]
        count += int((np.isfinite(phase) & ~inside).sum())
    return count


def _bounds(data: xr.Dataset | xr.DataArray) -> str:
    """Outer edges of the pixels."""
    ends = {}
    for d in (X, Y):
        axis = data[d].values.astype("float64")
        half = abs(axis[-1] - axis[0]) / max(1, axis.size - 1) / 2
        ends[d] = (axis.min() - half, axis.max() + half)
    return ", ".join(f"{ends[d][k]:.6g}" for k in (0, 1) for d in (X, Y))


def _apply(
    cube: xr.Dataset,
    window: Window,
    *,
    delays: xr.DataArray,
    positions: np.ndarray,
    cosine: float | None,
) -> np.ndarray:
    phase = read(cube, "unwrapped_phase", window)
    rows, columns = _indices(cube, delays, window)
    first, second = positions[window[PAIR].start]
    longer = _interpolated(delays, int(first), int(second), rows, columns)
    if delays.attrs["delay_type"] == "zenith":
        longer = longer / (read(cube, "los_up", window) if cosine is None else cosine)
    # A longer path is as good as motion away.
    unwanted = displacement_to_phase(-longer, float(cube.attrs["wavelength"]))
    return (phase - unwanted).astype("float32")


def _interpolated(
    delays: xr.DataArray,
    first: int,
    second: int,
    rows: np.ndarray,
    columns: np.ndarray,
) -> np.ndarray:
    """Delay of the second date less that of the first, m; NaN where unknown."""
    result = np.full(rows.shape, np.nan)
    inside = _covered(delays, rows, columns)
    if not inside.any():
        return result
    points, window = [], {}
    for dim, place in ((Y, rows), (X, columns)):
        place = place[inside].clip(0, delays.sizes[dim] - 1)
        start = int(place.min())
        window[dim] = slice(start, int(np.ceil(place.max())) + 1)
        # Exact: no digit is lost by taking a smaller whole number off.
        points.append(place - start)
    before, after = (
        delays.isel({TIME: k, **window}).values.astype("float64")
        for k in (first, second)
    )
    difference = after - before
    missing = np.isnan(difference)
    values = map_coordinates(np.where(missing, 0, difference), points, order=1)
    if missing.any():
        weight = map_coordinates(missing.astype("float64"), points, order=1)
        values = np.where(weight > ROUNDING, np.nan, values) / (1 - weight.clip(0, 0.5))
    result[inside] = values
    return result
