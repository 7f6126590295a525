"""Channels inside the ops of a supernet, sorted so that leading slices keep the important ones.

Once-for-all sorts the middle channels of each block before it trains smaller expand ratios: by the
L1 norm of the weights that read them (`re_organize_middle_weights` in
ofa/imagenet_classification/elastic_nn/modules/dynamic_layers.py). The max network computes the
same before and after. What is not sorted: channels that enter or leave an op, and those that
something else than convolutions, norms and functions of single values touches.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hwnas.networks.graph import INPUTS, Graph
from hwnas.networks.primitives import Primitive
from hwnas.supernet.network import Layer, Supernet, layers_of

SINGLE = {
    *("relu", "relu6", "h_swish", "silu", "mish", "gelu", "gelu_tanh", "tanh", "leaky_relu"),
    *("sigmoid", "h_sigmoid", "clip", "affine", "erf", "softplus"),
}
PAIRED = {"add", "sub", "mul", "div"}
FIXED = 0  # the group of channels that keep their order


class _Use(NamedTuple):
    """An axis of a primitive's weights that runs over the channels of a group."""

    group: int
    name: str
    axis: int


@torch.no_grad()
def sort_channels(net: Supernet) -> None:
    """Sort the inner channels of every op, the most important first; in place."""
    if any(placed.cuts for placed in net.space.smallest.ops):
        return  # its subnets take no leading slices
    for placed in net.space.largest.ops:
        layers, uses = layers_of(net, placed.slot), _uses(placed.op.graph)
        for group in sorted({use.group for use in uses} - {FIXED}):
            mine = [use for use in uses if use.group == group]
            read = [layers[use.name].weight for use in mine if use.axis == 1]
            if read:
                parts = [weight.abs().transpose(0, 1).flatten(1).sum(1) for weight in read]
                order = torch.stack(parts).sum(0).argsort(descending=True, stable=True)
                for use in mine:
                    _reorder(layers[use.name], use.axis, order)


def _reorder(layer: Layer, axis: int, order: Tensor) -> None:
    for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        if name == "weight" or (axis == 0 and not name.startswith("transform_")):
            tensor.copy_(tensor.index_select(axis, order))


def _uses(graph: Graph) -> list[_Use]:
    """Which weights of an op run over which group of channels."""
    groups, found = _groups(graph), []
    for p in graph.primitives:
        if p.weights:
            found.append(_Use(groups[p.name], p.name, 0))
        if _mixes(p):
            found.append(_Use(groups[p.inputs[0]], p.name, 1))
    return found


def _groups(graph: Graph) -> dict[str, int]:
    """The group of each tensor's channels; FIXED: they keep their order."""
    group = dict.fromkeys(INPUTS, FIXED)
    for number, p in enumerate(graph.primitives, start=1):
        known = {group[name] for name in p.inputs}
        if _mixes(p):
            group[p.name] = number
            continue
        group[p.name] = min(known)
        if not _keeps(p):
            known.add(FIXED)
        for name, other in group.items():  # all that it joins are one from now on
            if other in known:
                group[name] = min(known)
    last = group[graph.primitives[-1].name]
    return {name: FIXED if other == last else other for name, other in group.items()}


def _mixes(p: Primitive) -> bool:
    """Whether each output channel is made of all input channels."""
    if p.kind == "linear":
        return len(p.shape) == 1
    return p.kind == "conv" and p.args["groups"] == 1


def _keeps(p: Primitive) -> bool:
    """Whether each output channel is made of the same input channel, all of them alike."""
    if p.kind == "conv":
        return bool(p.args["groups"] == p.shape[0] == p.shapes[0][0])
    if p.kind == "mean":
        return 0 not in p.args["axes"]
    if p.kind in PAIRED:
        return all(shape[0] == p.shape[0] for shape in p.shapes)
    return p.kind in SINGLE or p.kind == "batch_norm"
