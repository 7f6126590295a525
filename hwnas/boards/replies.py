"""What a board answers, checked before anything of it is printed, kept or believed.

A board may be broken or hostile: text with control characters (which a terminal would obey),
numbers without bounds, missing or unknown fields are refused with the reason.
"""

from __future__ import annotations

import json
from typing import Any

from profilers import protocol
from profilers.errors import DeviceError, printable
from profilers.schema import ENGINE_FORMAT, SURVEY_FORMAT
from profilers.shape import Shape


def survey(output: bytes, where: str) -> dict[str, Any]:
    """The survey in what a board printed.

    Raises:
        DeviceError: there is none, or it is not whole.
    """
    return _checked(output, where, SURVEY_FORMAT, protocol.SURVEY)


def engine(output: bytes, where: str) -> dict[str, Any]:
    """The answer about an engine, parsed from what a board printed; its problem in one line.

    Raises:
        DeviceError: there is none, or it is not whole.
    """
    found = _checked(output, where, ENGINE_FORMAT, protocol.ENGINE)
    found["problem"] = found["problem"] and printable(found["problem"])
    return found


def _checked(output: bytes, where: str, wanted: str, shape: Shape) -> dict[str, Any]:
    answer = _last_answer(output, where)
    if answer.get("format") != wanted:
        raise DeviceError(
            f"{where} answered in another format than {wanted!r}; a stranger's program answers as "
            "its Python: name the right one with --python"
        )
    wrong = shape(answer)
    if wrong:
        raise DeviceError(f"{where} sent a survey that cannot be used: it{wrong}")
    del answer["format"]
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
    raise DeviceError(f"{where} answered {said!r}, which does not answer the question")
