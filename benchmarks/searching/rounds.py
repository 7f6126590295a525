"""Contestants in interleaved rounds, and bars as every benchmark prints them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

Outcome = TypeVar("Outcome")


def play(
    contestants: dict[str, Callable[[int], Outcome]], rounds: int, warm: bool = True
) -> dict[str, list[Outcome]]:
    """Outcomes of every contestant, one a round, in random order.

    Args:
        contestants: each is given a seed.
        rounds: that count.
        warm: whether a round that does not count goes first.
    """
    order, names = np.random.default_rng(0), list(contestants)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    for number in range(rounds + warm):
        for name in order.permutation(names).tolist():
            outcome = contestants[name](number)
            if number or not warm:
                outcomes[name].append(outcome)
    return outcomes


def bar(name: str, value: float, sign: str, limit: float) -> dict[str, Any]:
    """One bar: sign is <= or >=."""
    holds = value <= limit if sign == "<=" else value >= limit
    return {"name": name, "value": round(value, 5), "limit": f"{sign} {limit:g}", "holds": holds}


def spread_text(values: list[float], form: str) -> str:
    """Median, least and most."""
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return f"{middle} ({low} to {high})"
