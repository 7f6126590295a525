"""Training recipes compared (benchmarks/training.py)."""
