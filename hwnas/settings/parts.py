"""Choices of the settings that are parts: offered by the files that are there."""

from __future__ import annotations

from pathlib import Path

from profilers.plugins import names_in

_HWNAS = Path(__file__).parents[1]


def names(room: str, *others: str) -> tuple[str, ...]:
    """The parts of a folder of hwnas, and others that are no file."""
    return (*names_in([str(_HWNAS / room)]), *others)
