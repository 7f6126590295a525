"""Amounts as settings give them: a number, or a share like `60%` of something whole."""

from __future__ import annotations

import re


def check_amount(value: float | str, what: str) -> None:
    """Refuse what is neither a positive number nor a positive share like `60%`."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)
        if match is None or float(match.group(1)) <= 0:
            raise ValueError(f"{what} {value!r} is neither a number nor a share like 60%")
    elif not 0 < value < float("inf"):
        raise ValueError(f"{what} {value!r} is not a positive number")


def amount(value: float | str, whole: float) -> float:
    """An absolute number, or `whole` times a share like `60%`."""
    return (
        float(value.strip().rstrip("%")) / 100 * whole if isinstance(value, str) else float(value)
    )


def short_amount(value: float | str) -> str:
    """An amount as part of a folder's name."""
    text = value if isinstance(value, str) else f"{value:.12g}"
    return re.sub(r"[\s+]", "", text).replace("%", "pct")
