"""What a value must be: declared once as data, checked where it arrives.

A shape is a function from a value to what is wrong with it, in words that follow its name; empty
for nothing. Everything has bounds and objects are closed, because what arrives may be damaged or
hostile. Standard library only. The shapes of what host and worker say: `profilers.protocol`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Optional

from profilers.errors import printable

Shape = Callable[[Any], str]

MOST_TEXT = 300  # characters, where nothing else is said
MOST_ENTRIES = 64  # of a list or a map, where nothing else is said
SHOWN = 60  # characters of a wrong value


def flag(value: Any) -> str:
    """True or false."""
    return "" if isinstance(value, bool) else _not(value, "true or false")


def whole(low: int, high: int) -> Shape:
    """A whole number from `low` to `high`."""

    def check(value: Any) -> str:
        fits = type(value) is int and low <= value <= high
        return "" if fits else _not(value, f"a whole number from {low} to {high}")

    return check


def number(low: float, high: float) -> Shape:
    """A number from `low` to `high`; neither NaN nor infinite."""

    def check(value: Any) -> str:
        fits = type(value) in (int, float) and low <= value <= high  # NaN is in no range
        return "" if fits else _not(value, f"a number from {low:g} to {high:g}")

    return check


def text(most: int = MOST_TEXT, least: int = 0) -> Shape:
    """Text of bounded length that every terminal can show."""

    def check(value: Any) -> str:
        fits = isinstance(value, str) and least <= len(value) <= most and value.isprintable()
        return "" if fits else _not(value, f"text of {least} to {most} printable characters")

    return check


def like(pattern: str, wanted: str) -> Shape:
    """Text that a regular expression matches as a whole; `wanted` says it in words."""
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        fits = isinstance(value, str) and compiled.fullmatch(value) is not None
        return "" if fits else _not(value, wanted)

    return check


def either(*words: str) -> Shape:
    """One of some words."""
    return lambda value: "" if value in words else _not(value, f"one of {', '.join(words)}")


def maybe(shape: Shape) -> Shape:
    """The shape, or null: unknown."""
    return lambda value: "" if value is None else shape(value)


def plain(most: int) -> Shape:
    """Any JSON value of at most `most` characters of canonical text."""

    def check(value: Any) -> str:
        try:
            size = len(json.dumps(value, separators=(",", ":"), allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            return _not(value, "a JSON value")
        return "" if size <= most else f" has {size} characters, at most {most} are taken"

    return check


def list_of(shape: Shape, most: int = MOST_ENTRIES, least: int = 0) -> Shape:
    """A list of `least` to `most` values of one shape."""

    def check(value: Any) -> str:
        if not isinstance(value, list) or not least <= len(value) <= most:
            return _not(value, f"a list of {least} to {most} entries")
        return next((f"[{i}]{wrong}" for i, wrong in enumerate(map(shape, value)) if wrong), "")

    return check


def fixed(*shapes: Shape) -> Shape:
    """A list of exactly these shapes."""

    def check(value: Any) -> str:
        if not isinstance(value, list) or len(value) != len(shapes):
            return _not(value, f"a list of {len(shapes)} entries")
        found = (shape(value[i]) for i, shape in enumerate(shapes))
        return next((f"[{i}]{wrong}" for i, wrong in enumerate(found) if wrong), "")

    return check


def map_of(shape: Shape, most: int = MOST_ENTRIES, name: Optional[Shape] = None) -> Shape:
    """An object from names (short text, where no shape of them is given) to values of one shape."""
    named = name or text()

    def check(value: Any) -> str:
        if not isinstance(value, dict) or len(value) > most:
            return _not(value, f"an object of at most {most} entries")
        for key, entry in value.items():
            if named(key):
                return f" has the name{named(key)}"
            if shape(entry):
                return f".{key}{shape(entry)}"
        return ""

    return check


def closed(fields: Dict[str, Shape], optional: Optional[Dict[str, Shape]] = None) -> Shape:
    """An object with exactly these fields, and some that may be left out."""
    every = {**fields, **(optional or {})}

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return _not(value, "an object")
        for key, entry in value.items():
            if key not in every:
                return f" has the unknown field {printable(str(key), SHOWN)!r}"
            wrong = every[key](entry)
            if wrong:
                return f".{key}{wrong}"
        missing = [key for key in fields if key not in value]
        return f" lacks {missing[0]!r}" if missing else ""

    return check


def by_field(shapes: Dict[str, Shape], otherwise: Shape) -> Shape:
    """The shape of the first of some fields that an object has."""

    def check(value: Any) -> str:
        found = [shape for key, shape in shapes.items() if isinstance(value, dict) and key in value]
        return (found[0] if found else otherwise)(value)

    return check


def _not(value: Any, wanted: str) -> str:
    shown = repr(value) if isinstance(value, (str, int, float, type(None))) else str(type(value))
    return f" is {printable(shown[:1000], SHOWN)}, expected {wanted}"
