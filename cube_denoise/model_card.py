"""What a model folder says of how its network was made, and of its limits."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class CardText(NamedTuple):
    """What a task says of itself in a model card, without full stops but for limits."""

    purpose: str
    """A sentence: what the network does."""
    inputs: str
    """Channels and how they are scaled."""
    samples: str
    """What it was trained on."""
    batch: str
    """What a step sees."""
    objective: str
    """The loss."""
    judged: str
    """How the scores were taken."""
    limits: tuple[str, ...]
    """Sentences."""


def model_card(
    name: str, model: Any, training: Mapping[str, Any], text: CardText
) -> str:
    """Describe a trained network in Markdown.

    Parameters
    ----------
    name : str
        Of the network, as in `models.registry.VARIANTS`.
    model : torch.nn.Module
        The network.
    training : mapping
        What `training.run.train` writes into the model folder.
    text : CardText
        Of its task.

    Returns
    -------
    str
    """
    keys = ("recipe", "noise", "noise_kind")
    asked = [f"--{k.replace('_', '-')} {training[k]}" for k in keys if k in training]
    options = [f"--seed {training['seed']}", f"--steps {training['steps']}", *asked]
    samples = f"{text.samples[0].upper()}{text.samples[1:]}, drawn on the fly."
    origin = "The parameter ranges are this project's, not those of a paper. "
    origin += "No real data was used."
    if asked:
        samples = f"Samples drawn on the fly ({', '.join(asked)})."
        origin = "Where the parameter ranges come from is told in "
        origin += "`cube_denoise.simulate.recipes` and `transplant`. "
        origin += f"Real noise: {training.get('noise', 'none')}."
    tags = "[insar, interferometry, atmosphere, denoising]"
    blocks = [
        f"---\nlicense: bsd-3-clause\nlibrary_name: cube_denoise\ntags: {tags}\n---",
        f"# {name}",
        f"{text.purpose}\n{_network(model)}; {text.inputs}.",
        "## Training",
        f"    cube-denoise train {name} {name} {' '.join(options)}",
        f"{samples}\n{origin}",
        f"{training['steps_taken']} steps of {text.batch}: {text.objective}. AdamW, "
        f"learning rate up to {training['learning_rate']:g} and down to 0 as a cosine, "
        f"weight decay {training['weight_decay']:g}. The weights, stored as float16, "
        f"are a moving average (decay {training['average']:g}) at step "
        f"{training['best_step']}, where the held-out loss was lowest: "
        f"{training['held_out_loss']:g} (`curves.csv`).",
        f"Seed {training['seed']}; {training['minutes']} minutes on "
        f"{training['hardware']}; torch {training['torch']}.",
        "## Held-out scores",
        f"{text.judged}:",
        _table(training["scores"]),
        "## Limits",
        "\n".join(f"- {limit}" for limit in text.limits),
    ]
    return "\n\n".join(blocks) + "\n"


def adapted_card(name: str, model: Any, training: Mapping[str, Any]) -> str:
    """Describe a network that was adapted to one cube, in Markdown.

    Parameters
    ----------
    name : str
        Of the model folder.
    model : torch.nn.Module
        The network.
    training : mapping
        What `training.adapt.adapt` writes into the model folder.

    Returns
    -------
    str
    """
    tags = "[insar, interferometry, atmosphere, denoising]"
    command = (
        f"cube-denoise adapt {training['cube']} {name} --model {training['adapted']} "
        f"--seed {training['seed']} --steps {training['steps']}"
        + (" --no-between" if training["between"] is None else " --between")
    )
    scores = {
        f"{key}, {when}": training[part][key]
        for key in training["scores"]
        for when, part in (("before", "before"), ("adapted", "scores"))
    }
    blocks = [
        f"---\nlicense: bsd-3-clause\nlibrary_name: cube_denoise\ntags: {tags}\n---",
        f"# {name}",
        f"{training['adapted']} (SHA-256 {training['model_sha256'][:12]}...), adapted "
        f"to the noise of {training['cube']}. {_network(model)}.",
        "## Training",
        f"    {command}",
        "Simulated deformation under the noise of the first 60 % of the dates; the "
        "next 20 % chose the weights, the last 20 % judged them. "
        f"{training['steps_taken']} steps, best at {training['best_step']}; seed "
        f"{training['seed']}; {training['minutes']} minutes on {training['hardware']}; "
        f"torch {training['torch']}.",
        "## Held-out scores",
        _table(scores),
        "## Limits",
        "- For this cube: its noise, its elevation, its area.\n"
        "- What does not move steadily was taken for noise to train with.",
    ]
    return "\n\n".join(blocks) + "\n"


def _network(model: Any) -> str:
    count = sum(p.numel() for p in model.parameters())
    radius = getattr(model, "receptive_radius", None)
    view = (
        "sees all of a tile of 256 pixels"
        if radius is None
        else f"receptive radius {radius} pixels"
    )
    return f"{type(model).__name__}, {count:,} parameters; {view}"


def _table(scores: Mapping[str, Any]) -> str:
    rows = [f"| {key.replace('_', ' ')} | {value} |" for key, value in scores.items()]
    return "\n".join(["| score | value |", "| --- | --- |", *rows])
