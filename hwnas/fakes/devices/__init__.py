"""Devices without hardware, by name."""
