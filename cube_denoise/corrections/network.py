"""Networks that estimate the noise of one pair at a time, as corrections."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import xarray as xr

from cube_denoise import halo
from cube_denoise.blocks import Window
from cube_denoise.cluster import GPU, cores
from cube_denoise.conventions import (
    PAIR,
    X,
    Y,
    displacement_to_phase,
    phase_to_displacement,
)
from cube_denoise.corrections.correction import Correction, Plan, Run
from cube_denoise.inference import (
    Network,
    NoiseModel,
    fastest_precision,
    loaded,
    network_label,
    network_reference,
    noise,
    read_tile,
    with_precision,
)
from cube_denoise.normalise import (
    Scaling,
    five_numbers,
    sample_stride,
    scaling,
)

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

MAX_MISSING = 0.5
"""Pairs with a larger fraction missing are passed through."""
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class NetworkCorrection(Correction):
    """Subtract the noise that a network sees in each pair.

    Parameters
    ----------
    model : str, pathlib.Path or torch.nn.Module
        Name of a shipped model, a model folder, or a network in eval mode.
    precision : {"auto", "float32", "tf32", "bfloat16"}
        "auto" takes bfloat16, or TF32 on a GPU, where the worker's device has it and a
        tile of the cube changes by less than 0.1 mm rms. A worker without a GPU
        computes TF32 as float32.
    threads : int
        Torch threads of one task on a CPU.

    Raises
    ------
    ValueError
        If the model is unknown or `precision` none of these.
    """

    name: ClassVar[str] = "network"
    passes: ClassVar[str] = "are more than half missing"
    resource: ClassVar[str] = GPU
    model: "str | Path | nn.Module"
    precision: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision={self.precision!r}: must be one of {', '.join(PRECISIONS)}"
            )
        network_reference(self.model)

    @property
    def label(self) -> dict[str, str]:
        """Name and hash of the model."""
        return network_label(self.model)

    def again(self, known: Mapping[str, Any]) -> Self | None:
        """See `Correction.again`; a precision chosen before is kept."""
        same = super().again(known)
        if same is None or self.precision not in ("auto", known["precision"]):
            return None
        return replace(self, precision=known["precision"])

    def shared_by(self, workers: int) -> Self:
        """See `Correction.shared_by`; they share the cores."""
        return replace(self, threads=max(1, cores() // workers))

    def caution(self) -> list[str]:
        """What the model does to deformation, beside what it does to noise."""
        if not isinstance(self.model, (str, Path)):
            return []
        from cube_denoise.models import zoo

        scores = zoo.held_out_scores(self.model)
        if "amplitude_slope" not in scores:
            return []
        return [
            f"on held-out simulated pairs {Path(self.model).name} takes "
            f"{scores['rms_error_reduction']:.0%} off the error and keeps "
            f"{scores['amplitude_slope']:.0%} of the deformation (medians); slow "
            "motion suffers most: compare with invert --variable unwrapped_phase"
        ]

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`."""
        network = Network(
            network_reference(self.model),
            self.label["model_sha256"],
            "float32",
            self.threads,
        )
        config = loaded(network).config
        names = tuple(config.inputs)
        if "elevation" in names and "elevation" not in cube:
            raise ValueError(
                f"model={str(self.model)!r} uses elevation and the cube has none; "
                "ingest a DEM or take a model without it (dncnn)"
            )
        smallest = getattr(loaded(network), "smallest_side", 1)
        if min(cube.sizes[Y], cube.sizes[X]) < smallest:
            raise ValueError(
                f"cube has {cube.sizes[Y]} x {cube.sizes[X]} pixels: "
                f"model={str(self.model)!r} needs at least {smallest} along each side"
            )
        quantiles, valid_fraction = _summaries(cube)
        missing = frozenset(
            k for k in pairs if not valid_fraction[k] >= 1 - MAX_MISSING
        )
        scalings = tuple(
            scaling(
                config.normalisation,
                phase_to_displacement(q, cube.attrs["wavelength"]),
            )
            if np.isfinite(q).all()
            else Scaling(0.0, 1.0)
            for q in quantiles
        )
        work = NoiseModel(
            network=network,
            wavelength=float(cube.attrs["wavelength"]),
            names=names,
            scalings=scalings,
            passed=missing,
            elevation_median=_elevation_median(cube) if "elevation" in names else 0.0,
            radius=loaded(network).receptive_radius,
        )
        resolved = self.precision
        if resolved == "auto":
            # Asked of a worker: it may have another device than this process.
            usable = [k for k in range(cube.sizes[PAIR]) if k not in missing]
            resolved, reason = run(partial(fastest_precision, cube, work), [usable])[0]
            log.info("precision %s: %s", resolved, reason)
        return Plan(
            partial(_correct_pair, model=with_precision(work, resolved)),
            missing,
            {"precision": resolved},
        )


def _correct_pair(cube: xr.Dataset, window: Window, *, model: NoiseModel) -> np.ndarray:
    pair = window[PAIR].start
    target = halo.Tile(window[Y], window[X])
    phase = read_tile(cube["unwrapped_phase"][pair], target)
    if not np.isfinite(phase).any():
        return phase[None]
    unwanted = noise(cube, target, pair, model)
    scale = model.scalings[pair].scale
    corrected = phase - displacement_to_phase(unwanted * scale, model.wavelength)
    return np.asarray(corrected[None], "float32")


def _summaries(cube: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Five-number summary (rad) and valid fraction of every pair.

    Those stored at ingest, else computed alike from the whole pairs.
    """
    if "phase_quantiles" in cube and "valid_fraction" in cube:
        return cube["phase_quantiles"].values, cube["valid_fraction"].values
    stride = sample_stride((cube.sizes[Y], cube.sizes[X]))
    quantiles, valid = [], []
    for k in range(cube.sizes[PAIR]):
        sample = cube["unwrapped_phase"][k, ::stride, ::stride].values
        quantiles.append(five_numbers(sample))
        valid.append(np.isfinite(sample).mean())
    return np.array(quantiles), np.array(valid)


def _elevation_median(cube: xr.Dataset) -> float:
    stride = sample_stride((cube.sizes[Y], cube.sizes[X]))
    sample = cube["elevation"][::stride, ::stride].values
    return float(np.nanmedian(sample)) if np.isfinite(sample).any() else 0.0
