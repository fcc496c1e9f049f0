"""Synthetic interferograms with known truth."""

from cube_denoise.simulate.assembly import Scene
from cube_denoise.simulate.deformation import mogi, okada
from cube_denoise.simulate.noise_bank import NoiseBank
from cube_denoise.simulate.pair import SimulatedPair, simulate_pair
from cube_denoise.simulate.pair_errors import PairErrors
from cube_denoise.simulate.recipes import RECIPES, samples
from cube_denoise.simulate.scene import simulate_scene
from cube_denoise.simulate.stack import simulate_stack
from cube_denoise.simulate.surface import subsidence_bowl
from cube_denoise.simulate.transplant import transplant_pair

__all__ = [
    "RECIPES",
    "NoiseBank",
    "PairErrors",
    "Scene",
    "SimulatedPair",
    "mogi",
    "okada",
    "samples",
    "simulate_pair",
    "simulate_scene",
    "simulate_stack",
    "subsidence_bowl",
    "transplant_pair",
]
