"""The errors of hwnas, which are those of the worker: one list, one set of exit codes.

Also how a wrong setting reads: pydantic's words are for programmers.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from profilers.errors import (
    ConfigError,
    DeviceBusyError,
    DeviceError,
    DiskFullError,
    FileFormatError,
    HwnasError,
    InfeasibleError,
    LostDeviceError,
    MissingOpError,
    RuntimeMissingError,
    TableError,
    TableFormatError,
    UnstableMeasurementError,
    VerificationError,
)

__all__ = [
    "ConfigError",
    "DeviceBusyError",
    "DeviceError",
    "DiskFullError",
    "FileFormatError",
    "HwnasError",
    "InfeasibleError",
    "LostDeviceError",
    "MissingOpError",
    "RuntimeMissingError",
    "TableError",
    "TableFormatError",
    "UnstableMeasurementError",
    "VerificationError",
    "explain_settings",
]

_KINDS = {  # pydantic's names of types, in plain words
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "dict": "keys and values",
    "model": "keys and values",
}


def explain_settings(
    problems: Sequence[Mapping[str, Any]], known_keys: Callable[[list[str]], list[str]]
) -> tuple[list[str], str]:
    """The place of the first problem of a settings file, and a line: what was given and what is
    allowed.

    Args:
        problems: `errors()` of pydantic's ValidationError.
        known_keys: the keys that are allowed at a place like `["pick", "0"]`.
    """
    place = _place(problems[0])
    same = [problem for problem in problems if _place(problem) == place]
    return place, _explained(same, place, known_keys)


def _explained(
    same: Sequence[Mapping[str, Any]],
    place: list[str],
    known_keys: Callable[[list[str]], list[str]],
) -> str:
    """What is wrong at one place."""
    first, where = same[0], ".".join(place)
    if first["type"] == "extra_forbidden":
        known = known_keys(place[:-1])
        return f"unknown key {where!r}{_known(place[-1], known)}"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    if [problem["type"] for problem in same] == ["literal_error"]:
        return f"{where}: unknown {first['input']!r}{_known(first['input'], _choices(first))}"
    wanted = " or ".join(dict.fromkeys(map(_wanted, same)))
    return f"{where}: must be {wanted} (given: {_given(first['input'])})"


def _given(value: Any) -> str:
    """A value as it may be written in YAML."""
    if value is None:
        return "nothing"
    return repr(value) if isinstance(value, str) else json.dumps(value, default=str)


def _place(problem: Mapping[str, Any]) -> list[str]:
    """Keys that lead to a problem, without the branch of a union and the mark of a wrong key."""
    place = [str(part) for part in problem["loc"]]
    if place and place[-1] == "[key]":
        return place[:-2]
    kinds = ("int", "float", "str", "constrained-int")
    branch = place and (place[-1] in kinds or place[-1].startswith("literal["))
    return place[:-1] if branch else place


def _choices(problem: Mapping[str, Any]) -> list[str]:
    return re.findall(r"'([^']*)'", problem["ctx"]["expected"])


def _known(given: Any, known: list[str]) -> str:
    """The nearest of the known words, and all of them."""
    known = [word for word in known if word]
    close = difflib.get_close_matches(str(given), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (known: {', '.join(sorted(known))})"


def _wanted(problem: Mapping[str, Any]) -> str:
    """What a value must be, in plain words."""
    kind, _, how = problem["type"].partition("_")
    limits = problem.get("ctx", {})
    if problem["type"] == "literal_error":
        return str(limits["expected"])
    if problem["type"] == "too_short":
        return f"a list of {limits['min_length']} or more"
    if problem["type"] == "too_long":
        return f"a list of at most {limits['max_length']}"
    if problem["type"] == "string_too_short":
        return "text that is not empty"
    if kind in _KINDS and how.startswith(("type", "parsing", "from", "attributes")):
        return _KINDS[kind]
    return str(problem["msg"]).removeprefix("Input should be ")
