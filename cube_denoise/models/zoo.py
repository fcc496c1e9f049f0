"""Networks by name: create, load, save.

A model is a folder of ``config.json`` (architecture, arguments of its configuration,
SHA-256 of the weights, how they were trained), ``model.safetensors`` (weights) and
``README.md`` (model card); ``curves.csv`` tells how the loss fell.

A network is a `torch.nn.Module` that is built from its configuration, a frozen
dataclass, alone, and has it as ``config``.
"""

import dataclasses
import hashlib
import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from cube_denoise.models.registry import ARCHITECTURES, VARIANTS

WEIGHTS = Path(__file__).parent / "weights"
"""Where the weights lie that come with the package."""


def shipped_models() -> list[str]:
    """Names of the models whose weights come with the package."""
    return sorted(p.parent.name for p in WEIGHTS.glob("*/model.safetensors"))


def variant_config(name: str) -> Any:
    """Return the configuration of a variant.

    Raises
    ------
    ValueError
        If `name` is unknown.
    """
    if name not in VARIANTS:
        raise ValueError(f"{name=}: known networks are {', '.join(VARIANTS)}")
    architecture, arguments = VARIANTS[name]
    return classes(architecture)[0](**arguments)


def create_model(name: str) -> Any:
    """New network (`torch.nn.Module`) with random weights.

    Raises
    ------
    ValueError
        If `name` is unknown.
    """
    config = variant_config(name)
    return classes(VARIANTS[name].architecture)[1](config)


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


def what_it_sees(name_or_path: str | Path) -> str:
    """What a model is given at once: "pair" or "stack"; errors as `load_config`."""
    path = model_folder(name_or_path) / "config.json"
    _network_of(path)
    return ARCHITECTURES[str(_record(path)["architecture"])].sees


def needed_variables(name_or_path: str | Path) -> tuple[str, ...]:
    """Variables that a cube must have beside the phase; errors as `load_config`."""
    inputs = getattr(load_config(name_or_path), "inputs", ())
    return tuple(name for name in inputs if name == "elevation")


def held_out_scores(name_or_path: str | Path) -> dict[str, float]:
    """Scores on simulated samples that training never drew; empty if not recorded."""
    record = _record(model_folder(name_or_path) / "config.json")
    return dict(record.get("training", {}).get("scores", {}))


def load_config(name_or_path: str | Path) -> Any:
    """Configuration of a model, without its weights.

    Raises
    ------
    ValueError
        If there is no such model, or its ``config.json`` names no known architecture
        or not exactly its arguments.
    """
    return _network_of(model_folder(name_or_path) / "config.json")[0]


def load_model(name_or_path: str | Path) -> Any:
    """Network (`torch.nn.Module`) with trained weights, in eval mode, on the CPU.

    Weights stored in half precision come back as float32.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        Name of a shipped model or a folder as `save_model` writes it.

    Raises
    ------
    ValueError
        If there is no such model; if its weight file is not safetensors (pickles are
        never loaded), is not the one that ``config.json`` records, or does not fit
        the configuration; or for what `load_config` refuses.
    """
    folder = model_folder(name_or_path)
    path, config_path = folder / "model.safetensors", folder / "config.json"
    config, kind = _network_of(config_path)
    data = path.read_bytes()
    try:
        weights = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file, and nothing else is loaded: {error}"
        ) from error
    recorded, found = _record(config_path).get("sha256"), hashlib.sha256(data)
    if found.hexdigest() != recorded:
        raise ValueError(
            f"{path} is not the file that config.json records: its SHA-256 is "
            f"{found.hexdigest()}, recorded is {recorded}"
        )
    try:
        model = kind(config)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ValueError(
            f"{config_path}: {kind.__name__} cannot be built of {config}: {error}"
        ) from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its config.json: {error}") from error
    return model.eval()


def save_model(
    model: Any,
    folder: str | Path,
    *,
    training: dict[str, Any],
    card: str,
    curves: str | None = None,
    half: bool = False,
) -> Path:
    """Write a model folder; an older one of that name is replaced at the end, whole.

    Parameters
    ----------
    model : torch.nn.Module
        Network to save, of one of `registry.ARCHITECTURES`.
    folder : str or pathlib.Path
        Folder to make.
    training : dict
        JSON-able record of how the weights were made.
    card : str
        Model card, Markdown.
    curves : str, optional
        Losses by step, CSV.
    half : bool
        Store floating-point weights as float16: half the size.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ValueError
        If the class of `model` is not registered, or a weight is too large for `half`.
    """
    folder, architecture = Path(folder), type(model).__name__
    classes(architecture)
    data = safetensors.torch.save(_stored(model, half=half))
    config = {
        "architecture": architecture,
        "arguments": dataclasses.asdict(model.config),
        "sha256": hashlib.sha256(data).hexdigest(),
        "training": training,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as new:
        made = Path(new) / "model"
        made.mkdir()
        (made / "model.safetensors").write_bytes(data)
        (made / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (made / "README.md").write_text(card)
        if curves is not None:
            (made / "curves.csv").write_text(curves)
        if folder.exists():
            folder.rename(Path(new) / "old")
        made.rename(folder)
    return folder


def _stored(model: Any, *, half: bool) -> dict[str, torch.Tensor]:
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        for key, value in state.items():
            if not torch.isfinite(value).all():
                raise ValueError(f"half=True: {key} has values beyond float16")
    return state


def classes(architecture: str) -> tuple[Any, Any]:
    """Configuration and network of an architecture; its module is imported now."""
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{architecture=}: known architectures are {', '.join(ARCHITECTURES)}"
        )
    module, config, _ = ARCHITECTURES[architecture]
    home = importlib.import_module(f"cube_denoise.models.{module}")
    return getattr(home, config), getattr(home, architecture)


def _record(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a JSON object: {error}") from None


def _network_of(path: Path) -> tuple[Any, Any]:
    """Configuration and class of the network that a ``config.json`` describes."""
    record = _record(path)
    try:
        config, kind = classes(str(record.get("architecture")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    given = record.get("arguments")
    if not isinstance(given, dict):
        raise ValueError(f"{path}: arguments={given!r} must be an object")
    fields = {field.name for field in dataclasses.fields(config)}
    unknown, missing = sorted(given.keys() - fields), sorted(fields - given.keys())
    if unknown or missing:
        raise ValueError(
            f"{path}: arguments of {kind.__name__} are {', '.join(sorted(fields))}; "
            f"unknown: {', '.join(unknown) or 'none'}; "
            f"missing: {', '.join(missing) or 'none'}"
        )
    arguments = {key: _frozen(value) for key, value in given.items()}
    try:
        return config(**arguments), kind
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _frozen(value: Any) -> Any:
    """JSON value with tuples for lists: configurations are hashable."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
