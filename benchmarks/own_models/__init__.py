"""Parts of benchmarks/own_model.py."""
