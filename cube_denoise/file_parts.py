"""Images that are parts of files which are no rasters: of HDF5 datasets, or flat.

MintPy and LiCSBAS keep all pairs or dates of a stack in one HDF5 dataset, and LiCSBAS
and GAMMA interferograms as bare numbers; GUNW and DISP products are groups of datasets,
with the look direction on a coarse mesh. They are read by h5py and NumPy, not by GDAL:
what MintPy compresses (LZF), GDAL's builds do not read. HDF5 files may be remote.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.windows import Window


@dataclass(frozen=True)
class Part:
    """One image of a file."""

    dataset: str | None = None
    """Of an HDF5 file, dims (layer, y, x) or (y, x); None: the file is flat, one image
    row by row."""
    layer: int | None = None
    """Position along the first of three dims, from 0."""
    minus: int | None = None
    """Position of a layer that is subtracted."""
    reference: tuple[int, int] | None = None
    """Row and column of the one pixel where 0 is a value; at others it means no data.
    None: 0 is a value everywhere; (-1, -1): nowhere."""
    dtype: str = "<f4"
    """Of a flat file."""
    mesh: tuple[str, str, str] | None = None
    """Datasets with the x, y and height of the nodes of a coarse mesh, in the CRS of
    the image and m: the dataset has the dims (height, y, x), and the image is
    interpolated in it at the height 0, on the ellipsoid."""
    period: float | None = None
    """Of a mesh of angles: 360 if it is in degrees."""

    def told(self) -> dict[str, Any]:
        """As JSON has it, without what is as by default; `from_told` reads it back."""
        plain = asdict(Part())
        return {k: v for k, v in asdict(self).items() if v != plain[k]}

    @classmethod
    def from_told(cls, told: Mapping[str, Any]) -> Self:
        """Read what `told` has given; `ValueError` if it is something else."""
        names = {"reference", "mesh"} & set(told)
        try:
            return cls(**{**told, **{n: tuple(told[n]) for n in names}})
        except TypeError:
            raise ValueError(f"{told} does not tell a part of a file") from None


class PartRaster:
    """A part of a file with what `same_pixels` asks of a raster."""

    mask_flag_enums = ([MaskFlags.all_valid],)
    dtypes = ("float32",)
    nodata = None

    def __init__(
        self, values: Any, part: Part, shape: tuple[int, int], transform: Affine
    ) -> None:
        self.values, self.part, self.transform = values, part, transform
        self.height, self.width = shape

    def read(self, band: int, *, window: Window) -> np.ndarray:
        """Values of a window, float32, NaN = no data."""
        rows, columns = window.toslices()
        found = self._layer(self.part.layer, rows, columns)
        if self.part.minus is not None:
            found = found - self._layer(self.part.minus, rows, columns)
        found = found.astype("float32")
        if self.part.reference is not None:
            row, column = self.part.reference
            there = found == 0
            if rows.start <= row < rows.stop and columns.start <= column < columns.stop:
                there[row - rows.start, column - columns.start] = False
            found[there] = np.nan
        return found

    def _layer(self, k: int | None, rows: slice, columns: slice) -> np.ndarray:
        where = (rows, columns) if k is None else (k, rows, columns)
        return np.asarray(self.values[where])


class MeshRaster(PartRaster):
    """A mesh, interpolated on the pixels of an image."""

    def __init__(
        self, file: Any, part: Part, shape: tuple[int, int], transform: Affine
    ) -> None:
        from scipy.interpolate import RegularGridInterpolator

        assert part.mesh is not None
        x, y, height = (np.asarray(file[name], "float64") for name in part.mesh)
        nodes = filled(file[part.dataset])
        if not height.min() <= 0 <= height.max():
            raise OSError(f"{part.mesh[2]!r} has no node at or below, or above 0 m")
        if part.period is not None:  # all within half a turn of one of them
            turn, start = part.period, np.nanmax(nodes)
            nodes = start + (nodes - start + turn / 2) % turn - turn / 2
        outside: dict[str, Any] = {"bounds_error": False, "fill_value": np.nan}
        try:
            level = RegularGridInterpolator((height,), nodes, **outside)([0.0])[0]
            self.surface = RegularGridInterpolator((y, x), level, **outside)
        except ValueError as error:
            raise OSError(f"{part.dataset!r} is no mesh: {error}") from None
        super().__init__(None, part, shape, transform)

    def _layer(self, k: int | None, rows: slice, columns: slice) -> np.ndarray:
        column, row = np.meshgrid(
            np.arange(columns.start, columns.stop) + 0.5,
            np.arange(rows.start, rows.stop) + 0.5,
        )
        where = self.transform
        x = where.a * column + where.b * row + where.c
        y = where.d * column + where.e * row + where.f
        return np.asarray(self.surface((y, x)))


def filled(dataset: Any) -> np.ndarray:
    """Values of a HDF5 dataset, float64, unpacked, with NaN for its ``_FillValue``."""
    values = np.asarray(dataset, "float64")
    if "_FillValue" in dataset.attrs:
        values[values == np.ravel(dataset.attrs["_FillValue"])[0]] = np.nan
    factor, added = packing(dataset)
    return values * factor + added


def packing(dataset: Any) -> tuple[float, float]:
    """What the numbers of a HDF5 dataset are multiplied by, and what is added (CF)."""
    names = {"scale_factor": 1.0, "add_offset": 0.0}
    factor, added = (
        float(np.ravel(dataset.attrs.get(name, plain))[0])
        for name, plain in names.items()
    )
    return factor, added


def image(
    file: Any, part: Part, shape: tuple[int, int], transform: Affine
) -> PartRaster:
    """Image of a file.

    Parameters
    ----------
    file : h5py.File or str or pathlib.Path
        Open (`hdf5_access.opened`), or the path of a flat file.
    part : Part
    shape : (rows, columns)
        That the image must have.
    transform : affine.Affine
        Of its pixels.

    Raises
    ------
    OSError
        If the part is not there, or has another shape.
    """
    if part.dataset is None:
        return PartRaster(_flat(Path(file), part.dtype, shape), part, shape, transform)
    absent = [n for n in (part.dataset, *(part.mesh or ())) if n not in file]
    if absent:
        raise OSError(f"{file.filename} has no dataset {absent[0]!r}")
    if part.mesh is not None:
        return MeshRaster(file, part, shape, transform)
    values = file[part.dataset]
    deep = [k for k in (part.layer, part.minus) if k is not None]
    fits = values.shape[-2:] == shape and values.ndim == (3 if deep else 2)
    if not fits or any(k >= values.shape[0] for k in deep):
        raise OSError(
            f"{part.dataset!r} in {file.filename} has the shape {values.shape}: asked "
            f"for layer {deep} of {shape[0]} x {shape[1]} pixels"
        )
    return PartRaster(values, part, shape, transform)


def _flat(path: Path, dtype: str, shape: tuple[int, int]) -> np.ndarray:
    size, item = path.stat().st_size, np.dtype(dtype).itemsize
    if size != item * shape[0] * shape[1]:
        raise OSError(
            f"{path} has {size} bytes: must be {item} x {shape[0]} x {shape[1]}"
        )
    return np.memmap(path, dtype, "r", shape=shape)
