"""Which architectures there are, and which variants of them have a name.

Plain data: to list the names costs no torch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Architecture(NamedTuple):
    """Where a network is defined."""

    module: str
    """Of this package."""
    config: str
    """Its configuration, a frozen dataclass in the same module."""


ARCHITECTURES = {
    "DnCNN": Architecture("dncnn", "DnCNNConfig"),
}
"""By class, as in ``config.json``."""


class Variant(NamedTuple):
    """An architecture with some arguments."""

    architecture: str
    """Of `ARCHITECTURES`."""
    arguments: Mapping[str, Any] = {}
    """Of its configuration, where they differ from the defaults."""


VARIANTS = {
    "dncnn": Variant("DnCNN"),
    "dncnn-dilated": Variant(
        "DnCNN",
        {
            "inputs": ("displacement", "log_scale", "elevation", "valid"),
            "normalisation": "robust",
            "dilations": (1, 2, 4, 8, 16),
        },
    ),
}
"""Networks that can be made by name."""
