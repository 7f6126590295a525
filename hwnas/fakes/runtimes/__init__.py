"""Runtimes without an engine, by name."""
