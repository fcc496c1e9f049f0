"""Networks that see all dates of a stack at once, as corrections."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import xarray as xr

from cube_denoise import halo
from cube_denoise.blocks import Window, spans
from cube_denoise.cluster import GPU, cores
from cube_denoise.conventions import CORRECTION_TIME, X, Y, displacement_to_phase
from cube_denoise.correction_errors import STATED
from cube_denoise.corrections.correction import Apply, Correction, Plan, Run
from cube_denoise.corrections.series import STRIP, dates_of, stack_of
from cube_denoise.inference import Network, loaded, network_label, network_reference
from cube_denoise.reference import read_window
from cube_denoise.series_inference import SeriesModel, series_model, stack_displacement

if TYPE_CHECKING:
    from torch import nn

DATES = 4
"""Least number of linked dates."""


@dataclass(frozen=True, kw_only=True)
class StackNetworkCorrection(Correction):
    r"""Subtract what a network that sees all dates takes for noise.

    The pairs are inverted for the displacement x of the dates (`series.dates_of`), of
    which the network keeps d; pairs lose the rest of both of their dates,

    .. math:: \varphi_{ij} \to \varphi_{ij} + \frac{4\pi}{\lambda}
        \left[(x_j - d_j) - (x_i - d_i)\right],

    so that closure is kept, and with it what pairs tell beyond the series. The standard
    deviations that the network states of d become ``correction_std``, the part of it
    that is of a trend in time ``correction_trend_share``.

    Parameters
    ----------
    model : str, pathlib.Path or torch.nn.Module
        Name of a shipped model, a model folder, or a network in eval mode.
    threads : int
        Torch threads of one task on a CPU.

    Raises
    ------
    ValueError
        If the model is unknown.
    """

    name: ClassVar[str] = "stack-network"
    whole_stack: ClassVar[bool] = True
    passes: ClassVar[str] = "hold no data or are not linked to the most dates"
    resource: ClassVar[str] = GPU
    model: "str | Path | nn.Module"
    threads: int = 1

    def __post_init__(self) -> None:
        network_reference(self.model)

    @property
    def label(self) -> dict[str, str]:
        """Name and hash of the model."""
        return network_label(self.model)

    @property
    def outputs(self) -> tuple[str, ...]:
        """See `Correction.outputs`."""
        states = getattr(loaded(self._network), "states_std", True)
        return (*super().outputs, *STATED) if states else super().outputs

    @property
    def _network(self) -> Network:
        reference = network_reference(self.model)
        sha256 = self.label["model_sha256"]
        return Network(reference, sha256, "float32", self.threads)

    def shared_by(self, workers: int) -> Self:
        """See `Correction.shared_by`; they share the cores."""
        return replace(self, threads=max(1, cores() // workers))

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`; fewer than four linked dates are an error."""
        model = self.prepared(cube, run)
        shape = (cube.sizes[Y], cube.sizes[X])
        states = len(self.outputs) > 1
        apply = partial(_apply, states=states)

        def within(window: Window) -> Apply:
            part = model.within(shape, halo.Tile(window[Y], window[X]))
            return partial(apply, model=part)

        return Plan(
            partial(apply, model=model),
            model.stack.unused,
            within=within,
            coords={CORRECTION_TIME: model.stack.times} if states else {},
        )

    def prepared(self, cube: xr.Dataset, run: Run) -> SeriesModel:
        """Look at the cube; see `plan`."""
        stack = stack_of(cube, run)
        used = np.isfinite(stack.constants)
        first, second = stack.network.first[used], stack.network.second[used]
        linked = np.unique([first, second])
        if linked.size < DATES:
            raise ValueError(
                f"the pairs link {linked.size} dates: "
                f"model={self.label['method']!r} needs {DATES} or more"
            )
        return series_model(cube, self._network, stack, run)


def _apply(
    cube: xr.Dataset, window: Window, *, model: SeriesModel, states: bool
) -> tuple[np.ndarray, ...]:
    """Corrected phase, rad, and `STATED` of dates that hold data, if asked."""
    tile = halo.Tile(window[Y], window[X])
    noise, std, share = stack_displacement(cube, tile, model)
    for rows in spans(tile.y.stop, STRIP, start=tile.y.start):
        here = slice(rows.start - tile.y.start, rows.stop - tile.y.start)
        phase = dates_of(cube, {Y: rows, X: tile.x}, model.stack)
        std[:, here][np.isnan(phase)] = np.nan
        noise[:, here] = phase - displacement_to_phase(noise[:, here], model.wavelength)
    share = np.where(np.isfinite(std).any(0), share, np.nan)
    network = model.stack.network
    corrected = read_window(cube, "unwrapped_phase", window).astype("float32")
    for k, (i, j) in enumerate(zip(network.first, network.second, strict=True)):
        corrected[k] -= noise[j] - noise[i]
    return (corrected, std, share) if states else (corrected,)
