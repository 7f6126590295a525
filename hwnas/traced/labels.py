"""Labels: for each value of a tensor the unit that it belongs to.

Labels of a tensor have its number of axes; along an axis that they do not vary over they have size
1, so that maps of many pixels cost no more than their channels. Two that are compared need not be
equal numbers: `Units.find` says which set a label is in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from hwnas.traced.program import module_of
from hwnas.traced.units import WHOLE, Ids, Units

LARGEST_VALUE = 1 << 19  # values of a tensor that gets a label for each


class Labels:
    """Labels of an exported graph, as far as it has been walked.

    Attributes:
        units: which labels belong together.
        values: labels of a node of one tensor, a list of them for one of several.
        sides: labels of the axes of a tensor that an op reads as a weight.
        makers: (tensor, axis) of the weights that make channels, in the order of the graph.
        computed: why channels stay whole whose weight is computed, by module.
    """

    def __init__(self, tensors: Mapping[str, Tensor], kept: Callable[[str], str]) -> None:
        """Args:
        tensors: of the graph, by node.
        kept: the reason why what a tensor makes stays whole, or nothing.
        """
        self.units = Units()
        self.values: dict[str, Any] = {}
        self.sides: dict[str, dict[int, Ids]] = {}
        self.makers: list[tuple[str, int]] = []
        self.computed: dict[str, str] = {}
        self.tensors = tensors
        self._kept = kept
        self._owner: dict[int, str] = {}

    def owner(self, name: str) -> str:
        """The first node of the tensor that a node holds: nodes may share one."""
        return self._owner.setdefault(id(self.tensors[name]), name)

    def of(self, node: fx.Node) -> Any:
        """Labels of a node; a tensor that is read as a value has a label for each of its own."""
        if node.name not in self.tensors:
            value = self.values[node.name]
            return value if isinstance(value, list) else self.compact(value)
        name = self.owner(node.name)
        if name not in self.values:
            self.values[name] = self._as_value(self.tensors[name])
        return self.compact(self.values[name])

    def _as_value(self, tensor: Tensor) -> Ids:
        if tensor.is_floating_point() and 1 < tensor.numel() <= LARGEST_VALUE:
            return self.units.fresh(tensor.numel()).reshape(tuple(tensor.shape))
        reason = "it is combined with one number" if tensor.numel() == 1 else (
            "it is combined with a tensor of integers" if not tensor.is_floating_point()
            else f"it is combined with a tensor of more than {LARGEST_VALUE:,} numbers"
        )  # fmt: skip
        return self.units.whole(reason).reshape((1,) * tensor.ndim)

    def side(self, node: fx.Node, axis: int) -> Ids:
        """Labels of one axis of a weight; one that is computed stays whole."""
        size = int(node.meta["val"].shape[axis])
        if node.name not in self.tensors:
            reason = f"forward computes its weight (node {node.name}): make that a parameter"
            self.units.freeze(self.of(node), reason)
            return np.repeat(self.units.whole(reason), size)
        slots = self.sides.setdefault(self.owner(node.name), {})
        if axis not in slots:
            slots[axis] = self.units.fresh(size)
        return slots[axis]

    def made(self, node: fx.Node, axis: int) -> Ids:
        """Labels of the axis of a weight that makes channels."""
        ids = self.side(node, axis)
        if node.name not in self.tensors:
            self.computed[module_of(node) or node.name] = self.units.reason(int(ids[0]))
        elif (self.owner(node.name), axis) not in self.makers:
            self.makers.append((self.owner(node.name), axis))
            if reason := self._kept(self.owner(node.name)):
                self.units.freeze(ids, reason)
        return ids

    def varies(self, labels: Ids, axis: int) -> bool:
        """Whether labels differ along an axis."""
        if labels.shape[axis] == 1:
            return False
        roots = self.units.find(labels)
        return bool((roots != roots.take([0], axis)).any())

    def varying(self, labels: Ids) -> list[int]:
        """The axes along which labels differ."""
        return [axis for axis in range(labels.ndim) if self.varies(labels, axis)]

    def all_whole(self, labels: Ids) -> bool:
        """Whether no label can go."""
        return not self.units.find(labels).any()

    def along(self, labels: Ids, axis: int, size: int) -> Ids:
        """(size,) labels of the places of an axis, each united over all other axes."""
        flat = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
        if flat.shape[1] > 1:
            self.units.union(flat, flat[:, :1])
        return np.broadcast_to(flat[:, 0], size)

    def united(self, labels: Ids, axes: Sequence[int]) -> Ids:
        """Labels united over some axes."""
        first = labels[tuple(slice(0, 1) if a in axes else slice(None) for a in range(labels.ndim))]
        self.units.union(labels, first)
        return first

    def on_axis(self, ids: Ids, axis: int, ndim: int) -> Ids:
        """Labels of a tensor of some axes that vary along one."""
        shape = [1] * ndim
        shape[axis] = len(ids)
        return self.compact(ids.reshape(shape))

    def spread(self, labels: Ids, shape: Sequence[int]) -> Tensor:
        """Labels of every value of a tensor; axes that they do not vary over cost nothing."""
        return torch.from_numpy(np.array(labels)).expand(tuple(shape))

    def compact(self, labels: Tensor | Ids) -> Ids:
        """Labels without the axes along which they do not vary."""
        ids = labels.numpy() if isinstance(labels, Tensor) else labels
        for axis in range(ids.ndim):
            if ids.strides[axis] == 0:
                ids = _first(ids, axis)
        for axis in range(ids.ndim):
            if not self.varies(ids, axis):
                ids = _first(ids, axis)
        return np.ascontiguousarray(ids)

    def same(self, *labels: Ids) -> Ids:
        """(1,), the label of all of some labels, united."""
        flat = np.unique(np.concatenate([np.ravel(self.units.find(ids)) for ids in labels]))
        self.units.union(flat, flat[:1])
        return flat[:1]


def _first(ids: Ids, axis: int) -> Ids:
    return ids[(slice(None),) * axis + (slice(0, 1),)]


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Sizes of a node of one tensor."""
    return tuple(node.meta["val"].shape)


def blank(ndim: int) -> Ids:
    """Labels of a tensor of which everything stays."""
    return np.full((1,) * ndim, WHOLE, np.int64)


def read_by(what: str, node: fx.Node) -> str:
    """A reason: what needs all of it, and where."""
    return f"{what} needs all of it ({module_of(node) or 'forward'}, node {node.name})"
