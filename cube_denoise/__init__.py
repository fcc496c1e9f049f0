"""Atmosphere removal and velocity maps for stacks of unwrapped interferograms."""
