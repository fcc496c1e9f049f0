"""The velocity of one cube as a product of its own, of the component ``los``."""

from typing import Any

import numpy as np
import xarray as xr

from cube_denoise.conventions import PAIR, TIME, X, Y
from cube_denoise.grid import degrees_bounds, geobox_of
from cube_denoise.product_variables import COMPONENT, COVARIANCE_TERM
from cube_denoise.store import SHARD

LOOK = ("los_east", "los_north", "los_up")


def product_of_cube(
    cube: xr.Dataset,
    *,
    name: str | None = None,
    url: str | None = None,
    snapshot: str | None = None,
) -> xr.Dataset:
    """Velocity product of one cube, along its line of sight.

    Parameters
    ----------
    cube : xarray.Dataset
        Inverted, as `store.open_cube` gives it; read when the product is.
    name : str, optional
        Of the frame; the cube's track when not given.
    url, snapshot : str, optional
        Where the cube is, and its state: needed to ask the product for series.

    Returns
    -------
    xarray.Dataset
        dims (component, y, x), with one component ``los``, positive toward the
        satellite: see `product_variables.PRODUCT_VARIABLES`. Look vectors are among
        its variables if the cube has them.

    Raises
    ------
    ValueError
        If the cube has no velocity, or no CRS.
    """
    missing = sorted({"velocity", "velocity_std"} - set(map(str, cube.data_vars)))
    if missing:
        raise ValueError(f"cube has no {' and no '.join(missing)}: invert it first")
    grid = geobox_of(cube)
    named = ["velocity", "velocity_std", *(n for n in LOOK if n in cube)]
    maps = cube[named].chunk({Y: SHARD, X: SHARD})
    maps = maps.drop_vars([n for n in maps.coords if n not in (Y, X, "spatial_ref")])
    maps = maps.assign({n: a.drop_attrs() for n, a in maps.data_vars.items()})
    known = np.isfinite(maps["velocity"])
    found = maps.drop_vars(["velocity", "velocity_std"])
    los = {COMPONENT: np.array(["los"])}
    for variable in ("velocity", "velocity_std"):
        found[variable] = maps[variable].expand_dims(los)
    found["velocity_covariance"] = (maps["velocity_std"] ** 2).expand_dims(
        {COVARIANCE_TERM: np.array(["los_los"])}
    )
    found["frame_count"] = known.astype("int16")
    frame: dict[str, Any] = {
        "name": name or str(cube.attrs.get("track", "frame")),
        "track": str(cube.attrs.get("track", "")),
        "pair_count": int(cube.sizes.get(PAIR, 0)),
        "offset": 0.0,
        "bbox": list(degrees_bounds(grid)),
    }
    frame |= {k: v for k, v in (("url", url), ("snapshot", snapshot)) if v is not None}
    if TIME in cube.coords and cube.sizes[TIME]:
        times = cube[TIME].values.astype("datetime64[s]")
        for variable, date in (("first_date", times.min()), ("last_date", times.max())):
            none = np.datetime64("NaT", "s")
            found[variable] = xr.where(known, date, none).astype("datetime64[s]")
            frame[variable] = str(date)
    title = f"line-of-sight velocity of {frame['name']}"
    history = {k: v for k, v in cube.attrs.items() if k == "history"}
    return found.drop_attrs(deep=False).assign_attrs(
        title=title, frames=[frame], **history
    )
