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
    "SeriesAutoencoder": Architecture(
        "autoencoder", "SeriesAutoencoderConfig", sees="stack"
    ),
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
    "unet": Variant("UNet"),
    "restormer-small": Variant(
        "Restormer",
        {
            "channels": 16,
            "blocks": (1, 2, 2, 3),
            "refinement": 1,
            "inputs": ("displacement", "log_scale", "elevation", "valid"),
        },
    ),
    "swinir-tiny": Variant(
        "SwinIR",
        {
            "channels": 48,
            "depths": (4, 4, 4),
            "heads": (4, 4, 4),
            "inputs": ("displacement", "log_scale", "elevation", "valid"),
        },
    ),
    "diffusion": Variant("DiffusionDenoiser", {"steps": 4}),
    "bridge": Variant("BridgeDenoiser", {"steps": 2}),
    "autoencoder": Variant("SeriesAutoencoder"),
    "stack": Variant("StackNetwork"),
}
"""Networks that can be made by name."""
