"""Meters without a sensor, by name."""
