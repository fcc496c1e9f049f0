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
    sees: str = "pair"
    """What it is given at once: "pair" or "stack"."""


ARCHITECTURES = {
    "DnCNN": Architecture("dncnn", "DnCNNConfig"),
    "StackNetwork": Architecture("stack", "StackConfig", sees="stack"),
    "Restormer": Architecture("restormer", "RestormerConfig"),
    "SwinIR": Architecture("swinir", "SwinIRConfig"),
    "UNet": Architecture("unet", "UNetConfig"),
    "DiffusionDenoiser": Architecture("diffusion", "DiffusionConfig"),
    "BridgeDenoiser": Architecture("bridge", "BridgeConfig"),
    "AutoencoderKL": Architecture("latent", "AutoencoderKLConfig"),
    "LatentDenoiser": Architecture("latent", "LatentConfig"),
    "SeriesAutoencoder": Architecture("autoencoder", "SeriesAutoencoderConfig"),
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
