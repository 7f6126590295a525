"""What an exported model is made of: groups of units, residual branches, what stays whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, fx

from hwnas.networks.axes import Axis


class Group(NamedTuple):
    """Units that live on the same axes of the same weights, so that one width decides them.

    Attributes:
        name: of the weight that makes them, as the model calls it (`layer1.0.conv1`).
        units: how many there are.
        weights: (name of a tensor of `Analysis.tensors`, axis) of every axis that they are on.
    """

    name: str
    units: int
    weights: tuple[tuple[str, int], ...]


class Branch(NamedTuple):
    """A residual branch that may be skipped: x + f(x) becomes x.

    Attributes:
        name: as the model calls what it skips (`layer1.0`).
        add: node of the addition.
        shortcut: node that is left, x.
        nodes: of f.
    """

    name: str
    add: str
    shortcut: str
    nodes: frozenset[str]


@dataclass(frozen=True, eq=False)
class Analysis:
    """An exported model and what may be taken out of it.

    Attributes:
        program: its graph; every node is a placeholder, a get_attr, an aten call, or the output.
        tensors: parameters, buffers and constants by the name of their node.
        names: what the model calls each of `tensors` that is in its state dict.
        axes: for each node of one tensor, how its size depends on widths, axis by axis (the batch
            is the first of a value); a node of several tensors has none, its `getitem` nodes do.
        groups: in the order of the graph; a stretch names one by its index.
        branches: in the order of the graph.
        whole: reason by name, of what could be thought elastic and is not.
    """

    program: fx.GraphModule
    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]
    axes: Mapping[str, tuple[Axis, ...]]
    groups: tuple[Group, ...]
    branches: tuple[Branch, ...]
    whole: Mapping[str, str]
