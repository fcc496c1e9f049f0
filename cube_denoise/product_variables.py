"""The velocity product: its variables, and its labels, which Zarr keeps as numbers."""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import xarray as xr

from cube_denoise.conventions import VARIABLES, Variable, X, Y
from cube_denoise.grid import geobox_of

COMPONENT, COVARIANCE_TERM = "component", "covariance_term"
COMPONENTS = ("los", "east", "north", "up")
"""Of the velocity; on disk each is its position here."""
COVARIANCE_TERMS = (
    "los_los",
    *("_".join(p) for p in combinations_with_replacement(COMPONENTS[1:], 2)),
)
"""Of the covariance: the upper triangle, row by row; on disk the position here."""
LABELS = {COMPONENT: COMPONENTS, COVARIANCE_TERM: COVARIANCE_TERMS}
UNITS = "m year-1"

PRODUCT_VARIABLES: dict[str, Variable] = {
    "velocity": Variable(
        (COMPONENT, Y, X),
        "float32",
        UNITS,
        "velocity of the ground",
        "los is positive toward the satellite",
    ),
    "velocity_std": Variable(
        (COMPONENT, Y, X), "float32", UNITS, "standard deviation of velocity"
    ),
    "velocity_covariance": Variable(
        (COVARIANCE_TERM, Y, X),
        "float32",
        "m2 year-2",
        "covariance of the components of velocity",
    ),
    "frame_count": Variable((Y, X), "int16", "1", "number of frames used"),
    "condition_number": Variable(
        (Y, X), "float32", "1", "condition number of the split into components"
    ),
    "first_date": Variable((Y, X), "datetime64[s]", "", "first date used"),
    "last_date": Variable((Y, X), "datetime64[s]", "", "last date used"),
    "valid_fraction": Variable(
        (COMPONENT, Y, X),
        "float32",
        "1",
        "fraction of the pixel's area that has velocity",
        "of coarser levels only",
    ),
    **{n: VARIABLES[n] for n in ("los_east", "los_north", "los_up")},
}
"""What a product may hold; `velocity` and `velocity_std` it must."""


def checked_product(product: xr.Dataset) -> xr.Dataset:
    """Check a product, and give its variables in their order, types and attributes.

    Parameters
    ----------
    product : xarray.Dataset
        dims (component, y, x), see `PRODUCT_VARIABLES`; on a regular north-up grid
        with a CRS. Coordinates of labels are strings. Dask arrays stay lazy.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    ValueError
        If a variable is missing, unknown, or has other dims, units or labels.
    """
    grid = geobox_of(product)
    if not (grid.axis_aligned and grid.affine.a > 0 > grid.affine.e):
        raise ValueError(f"product must be on a north-up grid, not {grid.affine!r}")
    missing = sorted({"velocity", "velocity_std"} - set(map(str, product.data_vars)))
    if missing:
        raise ValueError(f"product lacks {' and '.join(missing)}")
    _check_labels(product)
    found = {}
    for name, array in product.data_vars.items():
        spec = PRODUCT_VARIABLES.get(str(name))
        if spec is None:
            raise ValueError(
                f"product has {name!r}, which is none of {', '.join(PRODUCT_VARIABLES)}"
            )
        if set(array.dims) != set(spec.dims):
            raise ValueError(
                f"product: {name!r} has dims {array.dims} and must have {spec.dims}"
            )
        units = array.attrs.get("units")
        if units is not None and units != spec.units:
            raise ValueError(
                f"product: {name!r} is in {units!r} and must be in {spec.units!r}"
            )
        kind = np.dtype(spec.dtype).kind
        if (array.dtype.kind == "M") != (kind == "M"):
            raise ValueError(f"product: {name!r} must have the type {spec.dtype}")
        typed = array.transpose(*spec.dims).astype(spec.dtype)
        known = {k: v for k, v in array.attrs.items() if k != "grid_mapping"}
        told = {k: v for k, v in spec.attributes.items() if v}
        found[name] = typed.drop_attrs(deep=False).assign_attrs(told | known)
    return xr.Dataset(found, attrs=product.attrs)


def _check_labels(product: xr.Dataset) -> None:
    for dim, known in LABELS.items():
        if dim not in product.dims:
            continue
        if dim not in product.coords:
            raise ValueError(f"product has no coordinate {dim!r}")
        labels = [str(v) for v in product[dim].values]
        if not set(labels) <= set(known) or len(set(labels)) < len(labels):
            raise ValueError(
                f"product has {dim}={labels}: it must have different ones of "
                f"{', '.join(known)}"
            )


def codes(dim: str, labels: Sequence[Any]) -> np.ndarray:
    """Labels as the numbers that stand for them on disk, int8.

    Examples
    --------
    >>> codes("component", ["east", "up"])
    array([1, 3], dtype=int8)
    """
    return np.array([LABELS[dim].index(str(v)) for v in labels], "int8")


def label_attributes(dim: str) -> dict[str, Any]:
    """CF attributes that say what the numbers of `codes` mean."""
    return {
        "flag_values": list(range(len(LABELS[dim]))),
        "flag_meanings": " ".join(LABELS[dim]),
        "long_name": dim.replace("_", " "),
    }


def with_labels(dataset: xr.Dataset) -> xr.Dataset:
    """Give the labels of a product as text, by their CF attributes."""
    texts = {}
    for dim in set(LABELS) & set(map(str, dataset.coords)):
        attributes = dataset[dim].attrs
        meanings = dict(
            zip(
                attributes["flag_values"],
                attributes["flag_meanings"].split(),
                strict=True,
            )
        )
        texts[dim] = (dim, [meanings[int(v)] for v in dataset[dim].values])
    return dataset.assign_coords(texts)
