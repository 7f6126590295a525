"""Fronts as the page holds them: columns, numbers of few digits, choices packed into characters.

So a report of 6 targets with 500 networks each stays below 400 KB. report.js unpacks them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Data = dict[str, Any]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"  # as in report.js
_LEAST, _MOST = 4, 6  # significant digits of a metric's least value, of its largest at most


def compact(front: Mapping[str, Any] | None) -> Data | None:
    """A front of a target, as `collect` makes it, in fewer bytes."""
    if front is None or not front["points"]:
        return None
    points, choices = front["points"], front["choices"]
    stages = list(dict.fromkeys(name for p in points for name, _ in p["stages"] or ()))
    return {
        **{name: front[name] for name in ("costs", "unit", "only", "uncertain", "noise")},
        "choices": list(choices.items()),
        "ids": [p["id"] for p in points],
        "predicted": {
            name: _column([p["predicted"][name] for p in points], name)
            for name in points[0]["predicted"]
        },
        "measured": {n: p["measured"] for n, p in enumerate(points) if p["measured"]},
        "archs": "".join(_packed(p["options"], choices) for p in points),
        "stages": stages,
        "shares": "".join(_shares(dict(p["stages"] or ()), stages) for p in points),
    }


def _column(values: Sequence[float], name: str) -> Data:
    """Values of a metric as whole numbers of a power of ten; a cost is never rounded down, so a
    budget of it is met.
    """
    if name == "error":
        return {"digits": 6, "values": [round(1e6 * value) for value in values]}
    sizes = [math.floor(math.log10(value)) for value in values if value > 0] or [0]
    digits = min(_LEAST - 1 - min(sizes), _MOST - 1 - max(sizes))
    found = [math.ceil(_times(value, digits)) for value in values]
    short = [_times(n, -digits) < value for n, value in zip(found, values, strict=True)]
    return {"digits": digits, "values": [n + s for n, s in zip(found, short, strict=True)]}


def _times(value: float, digits: int) -> float:
    """value * 10 ** digits, rounded once: a whole number becomes what its decimals read as."""
    return value * float(10**digits) if digits >= 0 else value / float(10**-digits)


def groups(sizes: Sequence[int]) -> Iterable[list[int]]:
    """Places of choices that share two characters, in order: as many as have at most 4,096
    combinations of their options and of being absent.
    """
    group: list[int] = []
    total = 1
    for place, size in enumerate(sizes):
        if group and total * (size + 1) > len(ALPHABET) ** 2:
            yield group
            group, total = [], 1
        group.append(place)
        total *= size + 1
    if group:
        yield group


def _packed(options: Mapping[str, int], choices: Mapping[str, Sequence[int]]) -> str:
    """Option of each choice, 0 where it is absent and else one more than its index, as text."""
    named = list(choices.items())
    codes = [1 + offered.index(options[n]) if n in options else 0 for n, offered in named]
    sizes = [len(offered) for _, offered in named]
    text = ""
    for group in groups(sizes):
        code = 0
        for place in group:
            code = code * (sizes[place] + 1) + codes[place]
        text += ALPHABET[code // len(ALPHABET)] + ALPHABET[code % len(ALPHABET)]
    return text


def _shares(stages: Mapping[str, float], names: Sequence[str]) -> str:
    """Percent of its latency that each stage of a network takes, two digits each, at most 99; 0 of
    a network whose stages are not known.
    """
    total = sum(stages.values()) or 1.0
    return "".join(f"{min(99, round(100 * stages.get(n, 0.0) / total)):02d}" for n in names)
