"""Pricing: metrics as sums (or maxima) of tables over choices, looked up, bounded and searched."""
