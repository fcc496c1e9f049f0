"""Synthetic interferograms with known truth."""

from cube_denoise.simulate.deformation import mogi, okada
from cube_denoise.simulate.pair import SimulatedPair, simulate_pair
from cube_denoise.simulate.scene import Scene, simulate_scene
from cube_denoise.simulate.surface import subsidence_bowl

__all__ = [
    "Scene",
    "SimulatedPair",
    "mogi",
    "okada",
    "simulate_pair",
    "simulate_scene",
    "subsidence_bowl",
]
