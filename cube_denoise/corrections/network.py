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
from cube_denoise.corrections.series import Projection
from cube_denoise.inference import (
    Network,
    NoiseModel,
    fastest_precision,
    loaded,
    network_label,
    network_reference,
    noise,
    read_tile,
    stated_std,
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
    r"""Subtract the noise that a network sees in each pair.

    What it sees in pairs need not close. With `closure_consistent` the pairs lose what
    their dates explain of it instead, each pixel by itself,

    .. math:: \varphi_{ij} \to \varphi_{ij} - (a_j - a_i), \qquad
        \min_a \sum_{ij} (a_j - a_i - r_{ij})^2,

    r being the noise seen, over the pairs that are corrected. Their closure is then
    that of the raw pairs, and an inversion of them with equal weights gives the same.

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
    closure_consistent : bool
        Whether what is removed is projected on dates. Off by default: with it a new
        pair changes the correction of the others, so updates correct all of them again.

    Raises
    ------
    ValueError
        If the model is unknown or an option none of these.
    """

    name: ClassVar[str] = "network"
    passes: ClassVar[str] = "are more than half missing"
    resource: ClassVar[str] = GPU
    model: "str | Path | nn.Module"
    precision: str = "auto"
    threads: int = 1
    closure_consistent: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.closure_consistent, bool):
            raise ValueError(
                f"closure_consistent={self.closure_consistent!r}: must be true or false"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision={self.precision!r}: must be one of {', '.join(PRECISIONS)}"
            )
        network_reference(self.model)

    @property
    def whole_stack(self) -> bool:  # type: ignore[override]
        """See `Correction.whole_stack`: the dates of a pair have other pairs."""
        return self.closure_consistent

    @property
    def label(self) -> dict[str, str]:
        """Name and hash of the model; whether pairs are closed, where they are."""
        closed = {"closure_consistent": "true"} if self.closure_consistent else {}
        return network_label(self.model) | closed

    def again(self, known: Mapping[str, Any]) -> Self | None:
        """See `Correction.again`; a precision chosen before is kept."""
        same = super().again(known)
        if same is None or self.precision not in ("auto", known["precision"]):
            return None
        if ("closure_consistent" in known) != self.closure_consistent:
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
        work = self._work(cube, pairs)
        missing = work.passed
        resolved = self.precision
        if resolved == "auto":
            # Asked of a worker: it may have another device than this process.
            usable = [k for k in range(cube.sizes[PAIR]) if k not in missing]
            resolved, reason = run(partial(fastest_precision, cube, work), [usable])[0]
            log.info("precision %s: %s", resolved, reason)
        work = with_precision(work, resolved)
        apply = partial(_correct_pair, model=work)
        if self.closure_consistent:
            apply = partial(_correct_all, model=work, dates=Projection.of(cube))
        return Plan(apply, missing, {"precision": resolved})

    def stated_std(self, cube: xr.Dataset, target: halo.Tile, pair: int) -> np.ndarray:
        """Standard deviation of a corrected pair in a window, m, at float32.

        Raises
        ------
        ValueError
            If the model states none or does not fit the cube, or the pair is passed
            through.
        """
        from cube_denoise.models import zoo

        if isinstance(self.model, (str, Path)):
            config = zoo.load_config(self.model)
        else:
            config = self.model.config
        if getattr(config, "members", 1) < 2:
            raise ValueError(
                f"model={str(self.model)!r} draws no samples whose spread would tell a "
                "standard deviation: take diffusion, with two members or more"
            )
        work = self._work(cube, [pair])
        if pair in work.passed:
            raise ValueError(f"{pair=} is more than half missing: it is not corrected")
        std = stated_std(cube, target, pair, work) * work.scalings[pair].scale
        known = np.isfinite(read_tile(cube["unwrapped_phase"][pair], target))
        return np.where(known, std, np.nan).astype("float32")

    def _work(self, cube: xr.Dataset, pairs: Sequence[int]) -> NoiseModel:
        """What all windows share, at float32.

        Raises
        ------
        ValueError
            If the model does not fit the cube.
        """
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
        return NoiseModel(
            network=network,
            wavelength=float(cube.attrs["wavelength"]),
            names=names,
            scalings=scalings,
            passed=missing,
            elevation_median=_elevation_median(cube) if "elevation" in names else 0.0,
            radius=loaded(network).receptive_radius,
        )


def _correct_pair(cube: xr.Dataset, window: Window, *, model: NoiseModel) -> np.ndarray:
    pair, target = window[PAIR].start, halo.Tile(window[Y], window[X])
    phase = read_tile(cube["unwrapped_phase"][pair], target)
    if not np.isfinite(phase).any():
        return phase[None]
    return np.asarray((phase - _seen(cube, target, pair, model))[None], "float32")


def _correct_all(
    cube: xr.Dataset, window: Window, *, model: NoiseModel, dates: Projection
) -> np.ndarray:
    """`_correct_pair` of all pairs, the noise being projected on dates first."""
    target = halo.Tile(window[Y], window[X])
    sides = [s.stop - s.start for s in target]
    phases = np.full((cube.sizes[PAIR], *sides), np.nan, "float32")
    for pair in sorted(set(range(len(phases))) - model.passed):
        known = np.isfinite(read_tile(cube["unwrapped_phase"][pair], target))
        if known.any():
            phases[pair] = np.where(known, _seen(cube, target, pair, model), np.nan)
    dates.project(phases)
    for pair, removed in enumerate(phases):
        np.subtract(read_tile(cube["unwrapped_phase"][pair], target), removed, removed)
    return phases


def _seen(
    cube: xr.Dataset, target: halo.Tile, pair: int, model: NoiseModel
) -> np.ndarray:
    """Noise that the network sees in a window of one pair, rad."""
    unwanted = noise(cube, target, pair, model) * model.scalings[pair].scale
    return displacement_to_phase(unwanted, model.wavelength)


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
