"""Axes whose size depends on chosen widths: runs of units of which the first ones are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

WHOLE = -1  # the group of what always stays


class Stretch(NamedTuple):
    """Consecutive places of an axis.

    Attributes:
        group: whose units they are, an index; WHOLE: they always stay.
        first: rank of the first unit in its group.
        units: how many; their ranks follow each other.
        repeat: places of each unit, one after another.
    """

    group: int
    first: int
    units: int
    repeat: int = 1


Axis = tuple[Stretch, ...]


def kept(stretch: Stretch, widths: Mapping[int, int]) -> int:
    """Places of a stretch that stay where each group keeps its first `widths[group]` units."""
    if stretch.group == WHOLE:
        return stretch.units * stretch.repeat
    left = min(max(widths[stretch.group] - stretch.first, 0), stretch.units)
    return left * stretch.repeat


def size(axis: Axis, widths: Mapping[int, int]) -> int:
    """Places of an axis that stay."""
    return sum(kept(stretch, widths) for stretch in axis)


def cuts(axis: Axis, widths: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    """Which places stay: (start, stop) of each run of them, ascending, neighbours joined."""
    out: list[tuple[int, int]] = []
    start = 0
    for stretch in axis:
        stop = start + kept(stretch, widths)
        if stop > start:
            if out and out[-1][1] == start:
                out[-1] = out[-1][0], stop
            else:
                out.append((start, stop))
        start += stretch.units * stretch.repeat
    return tuple(out)


def groups_of(axis: Axis) -> set[int]:
    """Groups that decide the size of an axis."""
    return {stretch.group for stretch in axis} - {WHOLE}
