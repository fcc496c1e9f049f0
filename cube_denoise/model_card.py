"""What a model folder says of how its network was made, and of its limits."""

from collections.abc import Mapping
from typing import Any

from cube_denoise.conventions import VARIABLES
from cube_denoise.models import zoo


def model_card(name: str, training: Mapping[str, Any]) -> str:
    """Describe a trained network in Markdown.

    Parameters
    ----------
    name : str
        Architecture, as in `models.zoo.VARIANTS`.
    training : mapping
        What `train.train` writes into the model folder.

    Returns
    -------
    str
    """
    scores = "\n".join(
        f"| {key.replace('_', ' ')} | {value} |"
        for key, value in training["scores"].items()
    )
    model = zoo.create_model(name)
    patch, steps = training["patch"], f"--steps {training['steps']}"
    keys = ("recipe", "noise", "noise_kind")
    asked = [f"--{k.replace('_', '-')} {training[k]}" for k in keys if k in training]
    command = " ".join([f"--seed {training['seed']} {steps}", *asked])
    source = "Simulated pairs only (`cube_denoise.simulate.pair`), drawn on the fly:"
    origin = "The parameter ranges are this project's, not those of a paper. "
    origin += "No real data was used."
    if asked:
        source = f"Pairs drawn on the fly ({', '.join(asked)}):"
        origin = "Where the parameter ranges come from is told in "
        origin += "`cube_denoise.simulate.recipes` and `transplant`. "
        origin += f"Real noise: {training.get('noise', 'none')}."
    return f"""---
license: bsd-3-clause
library_name: cube_denoise
tags: [insar, interferometry, atmosphere, denoising]
---
# {name}

Estimates the atmospheric and decorrelation noise of one unwrapped interferogram.
DnCNN, {sum(p.numel() for p in model.parameters()):,} parameters, input channels
{", ".join(model.config.inputs)}; receptive radius {model.receptive_radius} pixels;
"{model.config.normalisation}" scaling of the whole pair.

## Training

    cube-denoise train {name} {name} {command}

{source}
{training["steps"]} steps of {training["batch"]} patches of {patch} x {patch} pixels,
Adam with one cycle to {training["learning_rate"]}, mean square error of the noise over
valid pixels. Seed {training["seed"]}; {training["minutes"]} minutes on
{training["hardware"]}; torch {training["torch"]}.
{origin}

## Held-out scores

Medians over simulated pairs of seeds that training never draws, 256 x 256 pixels,
power of deformation over power of noise from 0.01 to 30:

| score | value |
| --- | --- |
{scores}

## Limits

- Sees one pair at a time, {2 * (model.receptive_radius or 0) + 1} pixels wide, and was
  trained on patches of {patch}: it cannot tell a long-wavelength atmosphere from
  long-wavelength deformation.
- Damps real deformation, in every pair alike, so that it adds up in a velocity:
  `python -m benchmarks.atmosphere` and `python -m benchmarks.mexico_city` print by how
  much. Compare with the raw pairs.
- Trained at 60-180 m pixel spacing and C-band amplitudes (displacement of millimetres
  to 30 cm).
- Output: {VARIABLES["corrected_phase"].long_name}.
"""
