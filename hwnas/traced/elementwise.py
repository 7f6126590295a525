"""Labels of ops that compute value by value: each unites what meets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from hwnas.traced.labels import Labels, blank, read_by, shape_of
from hwnas.traced.units import Ids

Operand = tuple[Ids, tuple[int, ...]]  # labels and sizes of a tensor


def elementwise(labels: Labels, node: fx.Node) -> Ids:
    """Values that meet go together."""
    operands = [(labels.of(source), shape_of(source)) for source in node.all_input_nodes]
    return united(labels, operands, shape_of(node), node)


def united(
    labels: Labels, operands: Sequence[Operand], shape: tuple[int, ...], node: fx.Node
) -> Ids:
    """Labels of what operands give that broadcast to a shape."""
    padded = [_padded(operand, len(shape)) for operand in operands]
    wide = [{axis for axis in labels.varying(ids) if ids.shape[axis] > 1} for ids, _ in padded]
    meet: list[Ids] = []
    for number, (ids, sizes) in enumerate(padded):
        others = set().union(*wide[:number], *wide[number + 1 :])
        if others and all(sizes[axis] == 1 for axis in others):  # it must stay when units go
            labels.units.freeze(ids, read_by("arithmetic that repeats it for many channels", node))
        elif np.prod(sizes) > 1 or np.prod(shape) == 1:
            meet.append(ids)
        else:
            labels.units.freeze(ids, read_by("arithmetic that repeats it for many values", node))
    for ids in meet[1:]:
        labels.units.union(meet[0], ids)
    if not meet:
        return blank(len(shape))
    return labels.compact(max(meet, key=lambda ids: ids.size))


def _padded(operand: Operand, ndim: int) -> Operand:
    ids, sizes = operand
    ones = (1,) * (ndim - len(sizes))
    return ids.reshape(ones + ids.shape), ones + sizes
