"""Amounts as settings give them: a number, or a share like `60%` of something whole."""

from __future__ import annotations

import re
from collections.abc import Mapping


def check_amount(value: float | str, what: str) -> None:
    """Refuse what is neither a positive number nor a share like `60%`, above 0 and up to 100 %."""
    given = f"{what} {value!r}".lstrip()
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*", value)
        if match is None or float(match.group(1)) <= 0:
            raise ValueError(f"{given} is neither a number nor a share like 60%{_hint(value)}")
        if float(match.group(1)) > 100:
            raise ValueError(f"{given} is more than the whole: a share is at most 100%")
    elif not 0 < value < float("inf"):
        raise ValueError(f"{given} is not a positive number")


def _hint(text: str) -> str:
    """What was probably meant; empty where that cannot be told."""
    if re.fullmatch(r"\s*[0-9]+,[0-9]+\s*%?\s*", text):
        return f"; write {text.strip().replace(',', '.')}"
    if re.fullmatch(r"\s*[0-9.]+\s*[A-Za-zµμ]+\s*", text):
        return "; write the number alone, in the unit of its name"
    return ""


def share(value: float | str, *, what: str = "") -> float | str:
    """The value itself, if it is above 0 and up to 1, as a number or in percent.

    By name alone: pydantic 2.7 gives a second positional argument of its own to a validator.
    """
    check_amount(value, what)
    if not isinstance(value, str) and value > 1:
        given = f"{what} {value!r}".lstrip()
        raise ValueError(f"{given} is a share: at most 1, or in percent ({value:g}%)")
    return value


def budgets(given: Mapping[str, float | str]) -> Mapping[str, float | str]:
    """The budgets themselves, if they are amounts, and that of an error a share."""
    for name, value in given.items():
        if name == "error":
            share(value, what=name)
        else:
            check_amount(value, name)
    return given


def amount(value: float | str, whole: float) -> float:
    """An absolute number, or `whole` times a share like `60%`."""
    return (
        float(value.strip().rstrip("%")) / 100 * whole if isinstance(value, str) else float(value)
    )


def short_amount(value: float | str) -> str:
    """An amount as part of a folder's name."""
    text = value if isinstance(value, str) else f"{value:.12g}"
    return re.sub(r"[\s+]", "", text).replace("%", "pct")
