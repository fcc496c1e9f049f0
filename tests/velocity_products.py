"""Small velocity products whose every value is known."""

import numpy as np
import odc.geo.xr  # noqa: F401  (registers the accessor)
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

TERMS = {
    ("los",): ("los_los",),
    ("east", "up"): ("east_east", "east_up", "up_up"),
}


def velocity_product(
    shape: tuple[int, int] = (150, 210),
    *,
    components: tuple[str, ...] = ("east", "up"),
    pixel: float = 100.0,
    crs: str = "EPSG:32635",
    corner: tuple[float, float] = (500_000.0, 4_500_000.0),
    gaps: float = 0.2,
    seed: int = 0,
) -> xr.Dataset:
    """A joined product of random numbers with gaps, as `joining` gives it."""
    random = np.random.default_rng(seed)
    grid = GeoBox(shape, Affine(pixel, 0, corner[0], 0, -pixel, corner[1]), crs)
    count, (rows, columns) = len(components), shape
    hole = random.random(shape) < gaps
    factor = random.normal(0, 1e-3, (count, count, rows, columns))
    matrix = np.einsum("ikyx,jkyx->ijyx", factor, factor)
    upper = np.triu_indices(count)
    velocity = random.normal(0, 0.02, (count, rows, columns))
    day = np.datetime64("2017-01-01", "s")
    days = random.integers(0, 900, shape).astype("timedelta64[D]")
    first = np.where(hole, np.datetime64("NaT"), day + days)
    last = np.where(hole, np.datetime64("NaT"), day + days + np.timedelta64(400, "D"))
    maps = {
        "velocity": (("component", "y", "x"), velocity),
        "velocity_std": (
            ("component", "y", "x"),
            np.sqrt(matrix[np.arange(count), np.arange(count)]),
        ),
        "velocity_covariance": (("covariance_term", "y", "x"), matrix[upper]),
        "condition_number": (("y", "x"), 1 + random.random(shape)),
    }
    known = {
        name: (dims, np.where(hole, np.nan, values).astype("float32"))
        for name, (dims, values) in maps.items()
    }
    known["frame_count"] = (
        ("y", "x"),
        np.where(hole, 0, random.integers(1, 5, shape)).astype("int16"),
    )
    known["first_date"] = (("y", "x"), first.astype("datetime64[s]"))
    known["last_date"] = (("y", "x"), last.astype("datetime64[s]"))
    labels = {"component": list(components), "covariance_term": list(TERMS[components])}
    coords = xr_coords(grid, dims=("y", "x"))
    frames = [{"name": f"frame-{k}", "track": "A005", "offset": 0.001} for k in (1, 2)]
    attrs = {"title": "velocity of a test", "history": "made", "frames": frames}
    return xr.Dataset(known, coords={**coords, **labels}, attrs=attrs)
