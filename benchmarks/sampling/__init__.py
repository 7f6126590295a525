"""Evaluations, contestants and plot of benchmarks/sample_efficiency.py."""
