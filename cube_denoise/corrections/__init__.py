"""Corrections by name: what takes the atmosphere out of the pairs of a cube.

Each is one class: its fields are its options, `Correction.plan` looks at the cube, and
what it returns corrects one window after the other.
"""

import importlib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cube_denoise.corrections.correction import Correction

if TYPE_CHECKING:
    from torch import nn

    Method = str | Path | nn.Module | Correction
    """Name of a correction or shipped network, model folder, network, correction."""

CLASSICAL = {
    "ramp": "ramp.Ramp",
    "phase-elevation": "elevation.PhaseElevation",
    "weather": "weather.Weather",
    "local-phase-elevation": "local_elevation.LocalPhaseElevation",
    "common-scene": "common_scene.CommonSceneStacking",
    "temporal-filter": "temporal_filter.TemporalFilter",
    "pca": "principal.PrincipalComponents",
    "ica": "independent.IndependentComponents",
    "wiener": "wiener.Wiener",
}
"""Corrections without a network: name -> module and class."""

SEPARATIONS = {
    "vae-clustering": "methods.VAEClustering",
    "pca-clustering": "methods.PrincipalClustering",
    "ica-clustering": "methods.IndependentClustering",
    "nmf-clustering": "methods.NonNegativeClustering",
}
"""Corrections that cluster components of the pairs (`separate.separate`): name ->
module of `separation` and class. They are tried only where they are asked for."""


def find_correction(method: "Method", **options: Any) -> Correction:
    """Make the correction of a name, a model folder or a network.

    Parameters
    ----------
    method : str, pathlib.Path, torch.nn.Module or Correction
        One of `CLASSICAL` or `SEPARATIONS`, a shipped model, a model folder, a network
        in eval mode, or a correction, which is returned.
    **options
        Fields of its class.

    Returns
    -------
    Correction

    Raises
    ------
    ValueError
        If there is no such method or it has no such option.
    """
    if isinstance(method, Correction):
        if options:
            raise ValueError(f"{sorted(options)}: give options to {method} itself")
        return method
    if isinstance(method, str) and method in {**CLASSICAL, **SEPARATIONS}:
        kind = correction_class(method)
    else:
        kind = _network_correction(method)
        options = {"model": method, **options}
    try:
        made: Correction = kind(**options)
    except TypeError as error:
        known = ", ".join(f.name for f in fields(kind) if f.name != "model")
        raise ValueError(
            f"method={str(method)!r} has the options {known or 'none'}: {error}"
        ) from None
    return made


def correction_class(name: str) -> type[Correction]:
    """Class of one of `CLASSICAL` or `SEPARATIONS`."""
    home = "corrections" if name in CLASSICAL else "separation"
    module, kind = {**CLASSICAL, **SEPARATIONS}[name].split(".")
    found: type[Correction] = getattr(
        importlib.import_module(f"cube_denoise.{home}.{module}"), kind
    )
    return found


def _network_correction(model: "str | Path | nn.Module") -> type[Correction]:
    """Class of the corrections by a network: of one pair, or of the whole stack."""
    from cube_denoise.corrections.network import NetworkCorrection
    from cube_denoise.corrections.stack_network import StackNetworkCorrection
    from cube_denoise.models import registry, zoo

    if isinstance(model, (str, Path)):
        try:
            sees = zoo.what_it_sees(model)
        except ValueError as error:
            raise ValueError(
                f"method={str(model)!r} is not a classical correction "
                f"({', '.join([*CLASSICAL, *SEPARATIONS])}), and as a network: {error}"
            ) from None
    else:
        known = registry.ARCHITECTURES.get(type(model).__name__)
        sees = "pair" if known is None else known.sees
    return StackNetworkCorrection if sees == "stack" else NetworkCorrection


__all__ = [
    "CLASSICAL",
    "SEPARATIONS",
    "Correction",
    "correction_class",
    "find_correction",
]
