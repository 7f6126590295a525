"""Operators, areas and runs of benchmarks/mutation.py."""
