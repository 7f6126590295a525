"""What a board answers, checked before anything of it is printed, kept or believed.

A board may be broken or hostile: text with control characters (which a terminal would obey),
numbers without bounds, missing or unknown fields are refused with the reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from profilers.errors import DeviceError
from profilers.schema import ENGINE_FORMAT, SURVEY_FORMAT

TEXT_CHARS, LIST_ITEMS = 300, 64
Check = Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """Short text that every terminal can show."""
    return isinstance(value, str) and len(value) <= TEXT_CHARS and value.isprintable()


def is_flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_count(value: Any) -> bool:
    """A whole number that a machine may have of something."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60


def is_number(value: Any) -> bool:
    """A finite number."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and abs(value) < 1e15 and math.isfinite(value)


def or_null(check: Check) -> Check:
    """The check, or null: unknown."""
    return lambda value: value is None or check(value)


def list_of(check: Check) -> Check:
    """A short list of what passes the check."""
    return lambda value: (
        isinstance(value, list) and len(value) <= LIST_ITEMS and all(map(check, value))
    )


def map_of(check: Check) -> Check:
    """A short object from text to what passes the check."""
    return lambda value: (
        isinstance(value, dict)
        and len(value) <= LIST_ITEMS
        and all(is_text(name) and check(entry) for name, entry in value.items())
    )


def fields_of(checks: Mapping[str, Check]) -> Check:
    """An object with exactly these fields."""
    return lambda value: (
        isinstance(value, dict)
        and set(value) == set(checks)
        and all(check(value[name]) for name, check in checks.items())
    )


METER: dict[str, Check] = {"name": is_text, "problem": or_null(is_text), "detail": is_text}
THROTTLED: dict[str, Check] = {
    "now": list_of(is_text),
    "since_boot": list_of(is_text),
    "events": map_of(is_count),
}
SURVEY: dict[str, Check] = {
    **dict.fromkeys(("hardware", "system", "kernel", "python", "machine"), is_text),
    **dict.fromkeys(("l4t", "os", "board", "cpu", "cpu_id", "gpu", "gpu_driver"), or_null(is_text)),
    **dict.fromkeys(("governor", "power_mode", "disk_problem"), or_null(is_text)),
    **dict.fromkeys(("environment", "managed", "pip", "emulated"), is_flag),
    **dict.fromkeys(("virtual", "clocks_locked"), or_null(is_flag)),
    **dict.fromkeys(("bits", "cores", "disk_free_bytes"), is_count),
    **dict.fromkeys(("big_cores", "memory_bytes", "memory_free_bytes"), or_null(is_count)),
    **dict.fromkeys(("clock_mhz", "temperature_c", "gpu_clock_mhz"), or_null(is_number)),
    "time_s": is_number,
    "modules": map_of(is_flag),
    "cpu_features": list_of(is_text),
    "load_average": or_null(list_of(is_number)),
    "throttled": or_null(fields_of(THROTTLED)),
    "meters": list_of(fields_of(METER)),
}
ENGINE: dict[str, Check] = {
    "name": is_text,
    "version": or_null(is_text),
    "providers": list_of(is_text),
    "problem": or_null(lambda value: isinstance(value, str)),
}


def survey(output: bytes, where: str) -> dict[str, Any]:
    """The survey in what a board printed.

    Raises:
        DeviceError: there is none, or it is not whole.
    """
    return _checked(output, where, SURVEY_FORMAT, SURVEY)


def engine(output: bytes, where: str) -> dict[str, Any]:
    """The answer about an engine in what a board printed; its problem in one line.

    Raises:
        DeviceError: there is none, or it is not whole.
    """
    found = _checked(output, where, ENGINE_FORMAT, ENGINE)
    found["problem"] = found["problem"] and printable(found["problem"])
    return found


def _checked(output: bytes, where: str, wanted: str, checks: Mapping[str, Check]) -> dict[str, Any]:
    answer = _last_answer(output, where)
    if answer.pop("format", None) != wanted:
        raise DeviceError(
            f"{where} answered in another format than {wanted!r}; a stranger's program answers as "
            "its Python: name the right one with --python"
        )
    for name, check in checks.items():
        if name not in answer:
            raise DeviceError(f"{where} answered without {name!r}; its answer is not used")
        if not check(answer[name]):
            shown = printable(repr(answer[name]), 60)
            raise DeviceError(f"{where} answered {name} = {shown}; its answer is not used")
    unknown = sorted(set(answer) - set(checks))
    if unknown:
        raise DeviceError(
            f"{where} answered with the unknown field {printable(unknown[0], 60)!r}; its answer "
            "is not used"
        )
    return answer


def _last_answer(output: bytes, where: str) -> dict[str, Any]:
    """The last line that is a JSON object; a login shell may print text before it."""
    for line in reversed(output.splitlines()):
        if line.startswith(b"{"):
            try:
                value = json.loads(line.decode("utf-8", errors="replace"))
            except (ValueError, RecursionError):
                break
            if isinstance(value, dict):
                return value
            break
    said = printable(output[-200:].decode("utf-8", errors="replace"), 60)
    raise DeviceError(f"{where} answered {said!r}, which is no answer to what was asked")


def printable(text: str, most: int = 160) -> str:
    """Text in one line that every terminal can show, cut to a length."""
    words = " ".join(text.split())
    shown = "".join(letter if letter.isprintable() else "?" for letter in words)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
