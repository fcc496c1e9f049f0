"""Atmospheric delays of weather models, opened from files and looked through."""

import hashlib
from glob import has_magic
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from cube_denoise.conventions import TIME, X, Y
from cube_denoise.delay_files import (
    DelayFiles,
    Read,
    gacos_files,
    mintpy_file,
    netcdf_file,
)

LARGEST = {"zenith": 4.0, "line of sight": 8.0}
"""Largest credible delay by its type, m: 2.4 m at the zenith of the sea, twice that at
an incidence of 60 degrees."""
LARGEST_DIFFERENCE = 1.0
"""Largest credible difference between dates, m; also how far below zero delays that are
stored as differences may go."""
ROWS = 512
"""Rows that are read at once where all are read."""
SAMPLES = 64
"""About as many rows and columns are compared between dates."""


def open_delays(path: str | Path, *, delay_type: str | None = None) -> xr.DataArray:
    """Open the atmospheric delays of several dates, lazily.

    Parameters
    ----------
    path : str or pathlib.Path
        One of

        - a folder of GACOS zenith delays (Yu et al. 2018), ``YYYYMMDD.ztd`` with
          ``YYYYMMDD.ztd.rsc``, or GeoTIFF whose names begin with the date; 0 = no data.
          A pattern, ``"folder/*.tif"``, chooses where there are both;
        - delays as MintPy keeps them (``ERA5.h5``): ``timeseries`` (date, y, x) and
          ``date``, geocoded, in m along the line of sight with the sign of a
          displacement toward the satellite, which is undone here;
        - a NetCDF file with one variable of dims (time or date, y, x or lat, lon) and
          its ``units``; positive = longer path.
    delay_type : {"zenith", "line of sight"}, optional
        What the delays are, whatever the files say. Must be given where they do not
        say, by an attribute ``delay_type`` of the variable.

    Returns
    -------
    xarray.DataArray, float32, dims (time, y, x)
        Delay, m, positive = longer path, NaN = no data. ``time`` are days; y and x are
        pixel centres in the CRS of the files, which is the attribute ``crs``; the
        attribute ``delay_type`` is one of the two above.

    Raises
    ------
    ValueError
        If there is no such file, a date is in none of the names, or twice, dates are on
        different grids, or CRS, unit or type are unknown.

    Notes
    -----
    ``X_FIRST``, ``Y_FIRST`` are taken as the corner of the first pixel, as ROI_PAC,
    MintPy and GDAL do; NetCDF coordinates are pixel centres.
    """
    if delay_type is not None and delay_type not in LARGEST:
        raise ValueError(f"{delay_type=} must be one of {', '.join(LARGEST)}")
    path = Path(path)
    if has_magic(path.name):
        found = gacos_files(sorted(path.parent.glob(path.name)), path)
    elif path.is_dir():
        files = sorted(f for s in ("*.ztd", "*.tif") for f in path.glob(s))
        found = gacos_files(files, path)
    elif not path.is_file():
        raise ValueError(f"{path} is no file or folder with delays")
    elif path.suffix in (".h5", ".he5", ".hdf5"):
        found = mintpy_file(path)
    elif path.suffix in (".nc", ".nc4", ".cdf"):
        found = netcdf_file(path)
    else:
        raise ValueError(
            f"{path} is neither a folder of GACOS files nor a .h5 of MintPy nor a .nc"
        )
    kind = delay_type or found.delay_type
    if kind not in LARGEST:
        raise ValueError(
            f"{path} does not say whether its delays are along the zenith or the line "
            f"of sight: give {delay_type=} as one of {', '.join(LARGEST)}"
        )
    if min(found.grid.shape) < 2:
        raise ValueError(f"{path} has {found.grid.shape} pixels: must be 2 x 2 or more")
    return _delays(path, found, kind)


def _delays(path: Path, files: DelayFiles, kind: str) -> xr.DataArray:
    days, grid = files.days, files.grid
    if len(set(days)) < len(days):
        twice = sorted({d for d in days if days.count(d) > 1})
        raise ValueError(
            f"{path} has delays of {', '.join(twice)} twice: keep one file a date, or "
            "give a pattern such as 'folder/*.ztd'"
        )
    stack = _Stack(files.read, (len(days), *grid.shape))
    y, x = (
        first + step * np.arange(size)
        for first, step, size in zip(grid.first, grid.step, grid.shape, strict=True)
    )
    order = np.argsort(days, kind="stable")
    times = np.array(days, "datetime64[s]")
    return xr.DataArray(
        xr.Variable((TIME, Y, X), indexing.LazilyIndexedArray(stack)),
        {TIME: times, Y: y, X: x},
        name="delay",
        attrs={
            "units": "m",
            "long_name": "atmospheric delay",
            "comment": "positive = longer path",
            "delay_type": kind,
            "crs": grid.crs,
            "source": str(path),
        },
    ).isel({TIME: order})


class _Stack(BackendArray):
    """Values of the files, read window by window; picklable."""

    def __init__(self, read: Read, shape: tuple[int, ...]) -> None:
        self.read, self.shape, self.dtype = read, shape, np.dtype("float32")

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Values at `key`."""
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._pick
        )

    def _pick(self, key: tuple[Any, ...]) -> np.ndarray:
        dates, *places = (np.arange(n)[k] for n, k in zip(self.shape, key, strict=True))
        hull = [slice(int(p.min()), int(p.max()) + 1) for p in places]
        # Each date is cut as soon as it is read: a sample of many dates stays small.
        cut = [p - h.start for p, h in zip(places, hull, strict=True)]
        read = [
            self.read(int(k), *hull).take(cut[0], -2).take(cut[1], -1)
            for k in np.atleast_1d(dates)
        ]
        return np.asarray(np.stack(read) if dates.ndim else read[0], "float32")


class Survey(NamedTuple):
    """What all values of some delays were found to be."""

    fingerprints: dict[str, str]
    """Hash of grid, type and values by date, YYYYMMDD."""
    missing: float
    """Fraction without data."""


def survey(delays: xr.DataArray) -> Survey:
    """Read all of some delays, and say whether they can be true.

    Parameters
    ----------
    delays : xarray.DataArray, dims (time, y, x)
        As of `open_delays`.

    Raises
    ------
    ValueError
        If a date has no data, is out of -1 to 4 m along the zenith or -1 to 8 m along
        the line of sight, or differs by more than 1 m from another (at about 64 x 64
        pixels): in another unit, or of the wrong sign.
    """
    kind, source = delays.attrs["delay_type"], delays.attrs["source"]
    largest = LARGEST[kind]
    stride = {d: max(1, delays.sizes[d] // SAMPLES) for d in (Y, X)}
    known, fingerprints, samples = 0, {}, []
    place = np.concatenate([delays[Y].values, delays[X].values]).astype("<f8")
    for k, time in enumerate(delays[TIME].values):
        day = str(time.astype("datetime64[D]")).replace("-", "")
        digest = hashlib.sha256(f"{kind} {delays.attrs['crs']}".encode())
        digest.update(place.tobytes())
        low, high, count, sample = np.inf, -np.inf, 0, []
        for start in range(0, delays.sizes[Y], ROWS):
            part = delays[k, start : start + ROWS].values
            digest.update(part.astype("<f4").tobytes())
            sample.append(part[-start % stride[Y] :: stride[Y], :: stride[X]])
            finite = part[np.isfinite(part)]
            count += finite.size
            low = min(low, finite.min(initial=np.inf))
            high = max(high, finite.max(initial=-np.inf))
        if count == 0:
            raise ValueError(f"delays of {day} in {source} hold no data")
        if low < -LARGEST_DIFFERENCE or high > largest:
            raise ValueError(
                f"delays of {day} in {source} are {low:.4g} to {high:.4g} m: a {kind} "
                f"delay is -1 (as a difference) to {largest:g} m, positive = longer "
                "path; check unit and sign"
            )
        known += count
        fingerprints[day] = digest.hexdigest()[:16]
        samples.append(np.concatenate(sample))
    spread = np.ptp(np.nan_to_num(samples), 0)[np.isfinite(samples).all(0)]
    if spread.max(initial=0) > LARGEST_DIFFERENCE:
        raise ValueError(
            f"delays in {source} differ by {spread.max():.3g} m between dates: more "
            f"than {LARGEST_DIFFERENCE:g} m is not credible; check their units"
        )
    return Survey(fingerprints, 1 - known / delays.size)
