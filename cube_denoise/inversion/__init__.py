"""The network inversion: one elimination per network, many pixels in step."""
