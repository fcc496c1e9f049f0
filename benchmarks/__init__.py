"""What the product claims, measured: ``python -m benchmarks.NAME``."""
