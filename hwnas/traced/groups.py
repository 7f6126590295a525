"""From labels to groups: what every tensor must be (a rectangle), and which units are alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import fx

from hwnas.networks.axes import WHOLE as WHOLE_GROUP
from hwnas.networks.axes import Axis, Stretch
from hwnas.traced.analysis import Group
from hwnas.traced.labels import Labels
from hwnas.traced.units import WHOLE, Ids


class Place(NamedTuple):
    """An axis whose places are units: labels of one axis of a tensor."""

    name: str
    axis: int
    ids: Ids


class Ranked(NamedTuple):
    """Groups, and for each unit its group (WHOLE_GROUP: it stays) and its rank there."""

    groups: tuple[Group, ...]
    group: Ids
    rank: Ids


def settle(labels: Labels, nodes: list[fx.Node]) -> None:
    """Unite until each tensor stays a rectangle when any unit goes.

    Labels that vary over several axes, like (groups, channels of a group), keep the units of the
    last such axis, each over all others. A tensor that is read both as a weight and as a value
    stays whole.
    """
    for name in labels.sides.keys() & labels.values.keys():
        reason = "its parameter is both a weight and an activation: make it two"
        for ids in [*labels.sides[name].values(), labels.values[name]]:
            labels.units.freeze(ids, reason)
    arrays = [ids for _, ids in _arrays(labels)]
    changed = True
    while changed:
        changed = False
        for ids in arrays:
            varying = labels.varying(ids) if ids.ndim > 1 else []
            if len(varying) > 1:
                labels.along(ids, varying[-1], ids.shape[varying[-1]])
                changed = True


def _arrays(labels: Labels) -> Iterator[tuple[str, Ids]]:
    """Labels of each single tensor."""
    for name, value in labels.values.items():
        parts = value if isinstance(value, list) else [value]
        for part in parts:
            yield name, part


def places(labels: Labels) -> list[Place]:
    """Every axis that units are on: of weights, then of values."""
    found = [
        Place(name, axis, labels.units.find(ids))
        for name, slots in labels.sides.items()
        for axis, ids in sorted(slots.items())
    ]
    for name, value in labels.values.items():
        if not isinstance(value, list):
            for axis in labels.varying(value):
                roots = labels.units.find(np.moveaxis(value, axis, 0))
                found.append(Place(name, axis, roots.reshape(value.shape[axis], -1)[:, 0]))
    return found


def ranked(labels: Labels, found: list[Place], names: Mapping[str, str]) -> Ranked:
    """Units that lie on the same axes of the same tensors, as often, form a group.

    Units that also pass through the same values can change places: any order of a group's units is
    the same network.
    """
    alike = _alike(found)
    order = _order(labels, found)
    sets = sorted(alike.values(), key=lambda units: min(order[unit] for unit in units))
    size = 1 + max((int(place.ids.max()) for place in found), default=0)
    group, rank = np.full(size, WHOLE_GROUP, np.int64), np.zeros(size, np.int64)
    out: list[Group] = []
    taken: dict[str, int] = {}
    for units in sets:
        if len(units) < 2:
            continue
        units.sort(key=order.__getitem__)
        group[units], rank[units] = len(out), np.arange(len(units))
        on = tuple((p.name, p.axis) for p in found
                   if p.name in labels.tensors and np.isin(units[0], p.ids))  # fmt: skip
        out.append(Group(_unique(_name(labels, on, names), taken), len(units), on))
    return Ranked(tuple(out), group, rank)


def _alike(found: list[Place]) -> dict[bytes, list[int]]:
    """Units by the axes that they lie on and how often."""
    rows = []
    for key, place in enumerate(found):
        units, counts = np.unique(place.ids, return_counts=True)
        rows.append(np.stack([units, np.full_like(units, key), counts]))
    table = np.concatenate(rows, axis=1) if rows else np.zeros((3, 0), np.int64)
    table = table[:, np.argsort(table[0], kind="stable")]
    units, starts = np.unique(table[0], return_index=True)
    alike: dict[bytes, list[int]] = {}
    for unit, rows_of in zip(units, np.split(table[1:], starts[1:], axis=1), strict=True):
        if unit != WHOLE:
            alike.setdefault(rows_of.tobytes(), []).append(int(unit))
    return alike


def _order(labels: Labels, found: list[Place]) -> dict[int, int]:
    """Rank of each unit: by the first weight that makes it, and its place there."""
    ids = {(place.name, place.axis): place.ids for place in found}
    first = [ids[maker] for maker in labels.makers]
    order: dict[int, int] = {}
    for unit in np.concatenate([*first, *ids.values()] or [np.zeros(0, np.int64)]).tolist():
        order.setdefault(unit, len(order))
    return order


def _name(labels: Labels, on: tuple[tuple[str, int], ...], names: Mapping[str, str]) -> str:
    makers = [maker for maker in labels.makers if maker in on]
    name = (makers or [*on])[0][0]
    return module_name(names.get(name, name))


def module_name(name: str) -> str:
    """What a weight belongs to, as the model calls it."""
    return name.removesuffix(".weight")


def _unique(name: str, taken: dict[str, int]) -> str:
    taken[name] = taken.get(name, 0) + 1
    return name if taken[name] == 1 else f"{name}:{taken[name]}"


def axes_of(shape: tuple[int, ...], on: Mapping[int, Ids], ranks: Ranked) -> tuple[Axis, ...]:
    """How the size of each axis of a tensor depends on widths.

    Args:
        shape: of the tensor.
        on: units of the places of an axis, for axes that have any.
    """
    return tuple(
        _axis(on[axis], ranks) if axis in on else (Stretch(WHOLE_GROUP, 0, size),)
        for axis, size in enumerate(shape)
    )


def _axis(ids: Ids, ranks: Ranked) -> Axis:
    """Runs of units whose ranks follow each other, as long as they can be."""
    groups, firsts = ranks.group[ids], ranks.rank[ids]
    groups = np.where(ids == WHOLE, WHOLE_GROUP, groups)
    firsts = np.where(groups == WHOLE_GROUP, 0, firsts)
    change = (np.diff(groups) != 0) | (np.diff(firsts) != 0)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    repeats = np.diff(np.concatenate([starts, [len(ids)]]))
    out: list[Stretch] = []
    for group, first, repeat in zip(
        groups[starts].tolist(), firsts[starts].tolist(), repeats.tolist(), strict=True
    ):
        last = out[-1] if out else None
        if group == WHOLE_GROUP:
            out.append(Stretch(group, 0, repeat))
        elif last and _follows(last, group, first, repeat):
            out[-1] = last._replace(units=last.units + 1)
        else:
            out.append(Stretch(group, first, 1, repeat))
    return tuple(out)


def _follows(last: Stretch, group: int, first: int, repeat: int) -> bool:
    return last.group == group and last.repeat == repeat and last.first + last.units == first


def sizes(value: Any) -> tuple[int, ...] | None:
    """Of a node of one tensor; None for one of several."""
    return tuple(value.shape) if hasattr(value, "shape") else None
