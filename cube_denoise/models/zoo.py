"""Networks by name: create, load, save.

A model is a folder of ``config.json`` (architecture, constructor arguments, how it was
trained), ``model.safetensors`` (weights) and ``README.md`` (model card).
"""

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from cube_denoise.models.dncnn import DnCNN, DnCNNConfig

WEIGHTS = Path(__file__).parent / "weights"
"""Where the weights lie that come with the package."""

VARIANTS: dict[str, DnCNNConfig] = {
    "dncnn": DnCNNConfig(),
    "dncnn-dilated": DnCNNConfig(
        inputs=("displacement", "log_scale", "elevation", "valid"),
        normalisation="robust",
        dilations=(1, 2, 4, 8, 16),
    ),
}
"""Configurations by name."""


def shipped_models() -> list[str]:
    """Names of the models whose weights come with the package."""
    return sorted(p.parent.name for p in WEIGHTS.glob("*/model.safetensors"))


def create_model(name: str) -> DnCNN:
    """New network with random weights.

    Raises
    ------
    ValueError
        If `name` is unknown.
    """
    if name not in VARIANTS:
        raise ValueError(f"{name=}: known architectures are {', '.join(VARIANTS)}")
    return DnCNN(VARIANTS[name])


def model_folder(name_or_path: str | Path) -> Path:
    """Folder of a model given by name or by path.

    Raises
    ------
    ValueError
        If there is no such model, or its files are not there.
    """
    folder = WEIGHTS / str(name_or_path)
    if not (folder / "model.safetensors").is_file():
        folder = Path(name_or_path)
    for file in ("config.json", "model.safetensors"):
        if not (folder / file).is_file():
            raise ValueError(
                f"model={str(name_or_path)!r} is neither a shipped model "
                f"({', '.join(shipped_models())}) nor a folder with {file}"
            )
    return folder


def model_hash(name_or_path: str | Path) -> str:
    """SHA-256 of the weight file, hexadecimal."""
    path = model_folder(name_or_path) / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def held_out_scores(name_or_path: str | Path) -> dict[str, float]:
    """Scores on simulated pairs that training never drew; empty where not recorded."""
    config = _config(model_folder(name_or_path))
    return dict(config.get("training", {}).get("scores", {}))


def load_model(name_or_path: str | Path) -> DnCNN:
    """Network with trained weights, in eval mode, on the CPU.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        Name of a shipped model or a folder as `save_model` writes it.

    Raises
    ------
    ValueError
        If there is no such model, or its weight file is not safetensors or does not
        fit the configuration.
    """
    folder = model_folder(name_or_path)
    config = _config(folder)
    architecture = config.get("architecture")
    if architecture != "DnCNN":
        raise ValueError(f"{architecture=} in {folder}/config.json: must be 'DnCNN'")
    arguments: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config["arguments"].items()
    }
    model = DnCNN(DnCNNConfig(**arguments))
    path = folder / "model.safetensors"
    try:
        model.load_state_dict(safetensors.torch.load_file(path))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its config.json: {error}") from error
    return model.eval()


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{folder}/config.json is not a JSON object: {error}"
        ) from None


def save_model(
    model: DnCNN, folder: str | Path, *, training: dict[str, Any], card: str
) -> Path:
    """Write a model folder; an older one of that name is replaced at the end, whole.

    Parameters
    ----------
    model : DnCNN
        Network to save.
    folder : str or pathlib.Path
        Folder to make.
    training : dict
        JSON-able record of how the weights were made.
    card : str
        Model card, Markdown.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": "DnCNN",
        "arguments": dataclasses.asdict(model.config),
        "training": training,
    }
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as new:
        made = Path(new) / "model"
        made.mkdir()
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
        safetensors.torch.save_file(state, made / "model.safetensors")
        (made / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (made / "README.md").write_text(card)
        if folder.exists():
            folder.rename(Path(new) / "old")
        made.rename(folder)
    return folder
