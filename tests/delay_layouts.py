"""Files of a known delay in every layout that `delays.open_delays` reads."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import rasterio
import xarray as xr
from affine import Affine

DATES = ("20200105", "20200117", "20200210")
WEST, NORTH, STEP = 89.1, 27.7, 0.01
"""Corner of the first pixel and size, degrees."""
SHAPE = (60, 70)
PLANES = ((2.3, 0.02, -0.03), (2.35, -0.04, 0.01), (2.2, 0.05, 0.06))
"""Delay, m, at 89.4 E 27.4 N and its slopes to the east and north, m per degree."""


def plane(k: int, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Delay of a date, m: linear, so that bilinear interpolation is exact."""
    at, east, north = PLANES[k]
    return at + east * (lon - 89.4) + north * (lat - 27.4)


def centres() -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes of the columns and rows."""
    lon = WEST + STEP * (np.arange(SHAPE[1]) + 0.5)
    lat = NORTH - STEP * (np.arange(SHAPE[0]) + 0.5)
    return lon, lat


def planes() -> np.ndarray:
    """Delays on the grid, shape (dates, rows, columns)."""
    lon, lat = np.meshgrid(*centres())
    return np.stack([plane(k, lon, lat) for k in range(len(DATES))])


def write_ztd(place: Path, values: np.ndarray) -> Path:
    """GACOS, binary."""
    place.mkdir(exist_ok=True)
    for day, layer in zip(DATES, values, strict=True):
        layer.astype("<f4").tofile(place / f"{day}.ztd")
        (place / f"{day}.ztd.rsc").write_text(
            f"WIDTH {layer.shape[1]}\nFILE_LENGTH {layer.shape[0]}\n"
            f"XMIN 0\nXMAX {layer.shape[1]}\nX_FIRST {WEST}\nY_FIRST {NORTH}\n"
            f"X_STEP {STEP}\nY_STEP {-STEP}\nX_UNIT degres\nPROJECTION LATLON\n"
            "DATUM WGS84\n"
        )
    return place


def write_tif(place: Path, values: np.ndarray) -> Path:
    """GACOS, GeoTIFF."""
    place.mkdir(exist_ok=True)
    for day, layer in zip(DATES, values, strict=True):
        with rasterio.open(
            place / f"{day}.ztd.tif",
            "w",
            driver="GTiff",
            count=1,
            height=layer.shape[0],
            width=layer.shape[1],
            dtype="float32",
            crs="EPSG:4326",
            transform=Affine(STEP, 0, WEST, 0, -STEP, NORTH),
        ) as file:
            file.write(layer.astype("float32"), 1)
    return place


def write_mintpy(place: Path, values: np.ndarray) -> Path:
    """MintPy: minus the delay, dates out of order."""
    place.mkdir(exist_ok=True)
    order = [2, 0, 1]
    with h5py.File(place / "ERA5.h5", "w") as file:
        file["date"] = np.array([DATES[k] for k in order], "S8")
        file["timeseries"] = -values[order].astype("float32")
        file.attrs.update(
            {
                "X_FIRST": str(WEST),
                "Y_FIRST": str(NORTH),
                "X_STEP": str(STEP),
                "Y_STEP": str(-STEP),
                "X_UNIT": "degrees",
                "UNIT": "m",
                "WIDTH": str(values.shape[2]),
                "LENGTH": str(values.shape[1]),
                "FILE_TYPE": "timeseries",
            }
        )
    return place / "ERA5.h5"


def dataset(values: np.ndarray, **attributes: str) -> xr.Dataset:
    """NetCDF layout: centimetres, latitudes upward, time last."""
    lon, lat = centres()
    delay = xr.DataArray(
        100 * values,
        dims=("time", "lat", "lon"),
        coords={
            "time": [
                np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}T12", "ns") for d in DATES
            ],
            "lat": lat,
            "lon": lon,
        },
        attrs={"units": "cm", "delay_type": "zenith"} | attributes,
    )
    return delay[:, ::-1].transpose("lat", "lon", "time").to_dataset(name="ztd")


def write_netcdf(place: Path, values: np.ndarray) -> Path:
    """NetCDF as of `dataset`."""
    place.mkdir(exist_ok=True)
    dataset(values).to_netcdf(place / "delays.nc", engine="h5netcdf")
    return place / "delays.nc"


WRITERS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "ztd": write_ztd,
    "tif": write_tif,
    "mintpy": write_mintpy,
    "netcdf": write_netcdf,
}
KINDS = {
    "ztd": "zenith",
    "tif": "zenith",
    "mintpy": "line of sight",
    "netcdf": "zenith",
}
