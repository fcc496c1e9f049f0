"""What corrections there are: for those who choose one."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from cube_denoise.corrections import CLASSICAL, SEPARATIONS, correction_class
from cube_denoise.corrections.correction import Correction


class Listed(NamedTuple):
    """A method that `correct.correct` takes by name."""

    name: str
    text: str
    """What it does, in a line."""
    needs: tuple[str, ...]
    """Variables of the cube, and options without which it does nothing."""
    options: Mapping[str, str]
    """Their defaults, as text; "needed" where there is none."""


def list_methods() -> list[Listed]:
    """List the classical corrections, those by clusters, then the shipped networks."""
    from cube_denoise.corrections.network import NetworkCorrection
    from cube_denoise.corrections.stack_network import StackNetworkCorrection
    from cube_denoise.models import zoo

    found = []
    for name in (*CLASSICAL, *SEPARATIONS):
        found.append(_listed(name, correction_class(name)))
    kinds = {
        "pair": _listed("network", NetworkCorrection),
        "stack": _listed("network", StackNetworkCorrection),
    }
    for name in zoo.shipped_models():
        sees = zoo.what_it_sees(name)
        correction = kinds[sees]
        options = {k: v for k, v in correction.options.items() if k != "model"}
        scores = zoo.held_out_scores(name)
        text = f"Network: {correction.text.lower()}"
        if "amplitude_slope" in scores:
            text = (
                f"{text.removesuffix('.')}; on held-out simulated {sees}s "
                f"{scores['rms_error_reduction']:.0%} off the error, "
                f"{scores['amplitude_slope']:.0%} of the deformation kept."
            )
        found.append(Listed(name, text, zoo.needed_variables(name), options))
    return found


def _listed(name: str, kind: type[Correction]) -> Listed:
    text = (kind.__doc__ or "").strip().splitlines()[0]
    options, needed = {}, []
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            options[field.name] = str(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            options[field.name] = str(field.default_factory())
        else:
            options[field.name] = "needed"
            needed.append(f"the option {field.name}")
    return Listed(name, text, (*kind.needs, *needed), options)
