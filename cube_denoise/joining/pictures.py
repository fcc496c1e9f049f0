"""Pictures of a join: components and their errors, mosaics, steps and misfits."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cube_denoise.conventions import X, Y
from cube_denoise.joining.join import Joined
from cube_denoise.map_axes import MAX_PIXELS
from cube_denoise.plot import MM, PLAIN, plot_maps
from cube_denoise.product_variables import COMPONENT

SIGNS = {
    "east": "positive east",
    "north": "positive north",
    "up": "positive up",
    "los": "positive toward the satellite",
}


def plot_join(joined: Joined) -> dict[str, Figure]:
    """Draw a join.

    Parameters
    ----------
    joined : Joined
        Its product is computed, with a stride where it is large.

    Returns
    -------
    dict
        ``velocity`` and ``velocity_std``: maps of the components, mm/yr; ``steps``:
        misfits to the ground and steps between frames, before and after.
    """
    strides = {
        d: slice(None, None, -(-joined.product.sizes[d] // MAX_PIXELS)) for d in (Y, X)
    }
    thin = joined.product[["velocity", "velocity_std"]].isel(strides).compute()
    figures = {}
    for name, colours in (("velocity", None), ("velocity_std", PLAIN)):
        maps = _components(thin[name])
        signs = ", ".join(SIGNS[c] for c in maps)
        label = f"velocity (mm/yr), {signs}"
        if colours:
            label = "standard deviation of velocity (mm/yr)"
        options = {"colours": colours} if colours else {}
        figures[name] = plot_maps(maps, label=label, **options)
    figures["steps"] = _steps(joined)
    return figures


def _components(maps: xr.DataArray) -> Mapping[str, xr.DataArray]:
    return {str(c): MM * maps.sel({COMPONENT: c}) for c in maps[COMPONENT].values}


def _steps(joined: Joined) -> Figure:
    """Bars: root mean square misfit of frames to the ground, and steps at seams."""
    tied = [t for t in joined.ties if t.points]
    rows = max(len(tied), len(joined.seams), 1)
    figure = Figure((10.0, 1.6 + 0.28 * min(rows, 60)), layout="constrained")
    left, right = figure.subplots(1, 2)
    _bars(
        left,
        [t.frame for t in tied],
        [[MM * t.before for t in tied], [MM * t.after for t in tied]],
        "misfit to the ground, root mean square (mm/yr)",
    )
    _bars(
        right,
        [f"{s.one} − {s.other}" for s in joined.seams],
        [[MM * s.before for s in joined.seams], [MM * s.after for s in joined.seams]],
        "step between frames (mm/yr)",
        errors=[MM * s.std for s in joined.seams],
    )
    left.legend(loc="best", frameon=False)
    return figure


def _bars(
    axis: Axes,
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    label: str,
    *,
    errors: Sequence[float] = (),
) -> None:
    place = np.arange(len(names))
    axis.barh(place - 0.2, values[0], 0.36, color="0.75", label="before")
    axis.barh(place + 0.2, values[1], 0.36, color="#2166ac", label="after")
    if len(errors):
        axis.errorbar(
            values[1], place + 0.2, xerr=errors, fmt="none", ecolor="k", lw=0.8
        )
    axis.axvline(0, color="k", lw=0.6)
    axis.set(xlabel=label, ylim=(len(names) - 0.4, -0.6))
    axis.set_yticks(place, names, fontsize="small" if len(names) < 40 else 5)
