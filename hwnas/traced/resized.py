"""Calls of an exported graph on tensors of which only some places are left."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from hwnas.traced.plain import arguments, op_of

Mask = NDArray[np.bool_]  # of the places of an axis, those that stay


class Call(NamedTuple):
    """A call whose arguments hold tensors that are cut already.

    Attributes:
        node: that is called.
        given: arguments by name.
        left: for each node of one tensor, what stays of each axis.
    """

    node: fx.Node
    given: dict[str, Any]
    left: Mapping[str, Sequence[Mask]]

    @property
    def shape(self) -> list[int]:
        """Of the result."""
        return [int(mask.sum()) for mask in self.left[self.node.name]]

    def mask(self, argument: str, axis: int) -> Mask:
        """What stays of an axis of an argument."""
        return self.left[arguments(self.node)[argument].name][axis]


def resized(call: Call) -> Any:
    """What a call gives when its sizes follow those of its tensors."""
    change = CHANGES.get(op_of(call.node))
    return called(call.node, {**call.given, **(change(call) if change else {})})


def called(node: fx.Node, given: Mapping[str, Any]) -> Any:
    """What an aten call gives for arguments by name."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    by_name = {a.name: given[a.name] for a in schema if a.kwarg_only and a.name in given}
    return node.target(  # type: ignore[operator]
        *(given[a.name] for a in schema if not a.kwarg_only), **by_name
    )


def _reshape(call: Call) -> dict[str, Any]:
    return {"shape": call.shape}


def _expand(call: Call) -> dict[str, Any]:
    return {"size": call.shape}


def _split(call: Call) -> dict[str, Any]:
    """Sizes of the parts: how many places of each stay."""
    dim = call.given["dim"]
    mask = call.mask("self", dim)
    sizes = [value.shape[dim] for value in call.node.meta["val"]]
    stops = [0, *itertools.accumulate(sizes)]
    return {"split_sizes": [int(mask[a:b].sum()) for a, b in itertools.pairwise(stops)]}


def _slice(call: Call) -> dict[str, Any]:
    mask = call.mask("self", call.given["dim"])
    if mask.all():
        return {}
    start, stop, _ = slice(call.given["start"], call.given["end"]).indices(len(mask))
    return {"start": int(mask[:start].sum()), "end": int(mask[:stop].sum())}


def _select(call: Call) -> dict[str, Any]:
    mask = call.mask("self", call.given["dim"])
    index = call.given["index"] % len(mask)
    return {"index": int(mask[:index].sum())}


def _layer_norm(call: Call) -> dict[str, Any]:
    axes = len(call.given["normalized_shape"])
    return {"normalized_shape": list(call.given["input"].shape[-axes:])}


def _convolution(call: Call) -> dict[str, Any]:
    """Groups that are left: those that the channels of its weight make up."""
    x, weight, groups = (call.given[name] for name in ("input", "weight", "groups"))
    if groups == 1:
        return {}
    axis = x.ndim - weight.ndim + 1
    if "transpose" in op_of(call.node):
        return {"groups": groups * x.shape[axis] // len(call.mask("input", axis))}
    return {"groups": x.shape[axis] // weight.shape[1]}


def _group_norm(call: Call) -> dict[str, Any]:
    """Groups that are left: those of which anything stays."""
    mask = call.mask("input", 1).reshape(call.given["num_groups"], -1)
    return {"num_groups": int(mask.any(axis=1).sum())}


CHANGES: dict[str, Callable[[Call], dict[str, Any]]] = {
    "reshape": _reshape,
    "expand": _expand,
    "split_with_sizes": _split,
    "slice": _slice,
    "select": _select,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "group_norm": _group_norm,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution),
}


def masked_norm(call: Call) -> Tensor | None:
    """A normalisation of whole tensors whose statistics are those of the places that stay; None
    for a call of something else, or where all places stay.

    Source: the definitions of LayerNorm, RMSNorm and GroupNorm, with sums over a mask.
    """
    rule = NORMS.get(op_of(call.node))
    return rule(call) if rule else None


def _masked_layer_norm(call: Call) -> Tensor | None:
    mask = call.mask("input", -1)
    if mask.all():
        return None
    x, weight, bias = (call.given.get(name) for name in ("input", "weight", "bias"))
    assert x is not None
    m = x.new_tensor(mask)
    mean = (x * m).sum(-1, keepdim=True) / m.sum()
    eps = call.given["eps"]
    if op_of(call.node) == "rms_norm":
        mean, eps = 0 * mean, np.finfo(np.float64).eps if eps is None else eps
    variance = (((x - mean) ** 2) * m).sum(-1, keepdim=True) / m.sum()
    out: Tensor = (x - mean) / (variance + eps).sqrt()
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _masked_group_norm(call: Call) -> Tensor | None:
    mask = call.mask("input", 1)
    if mask.all():
        return None
    x, weight, bias = (call.given[name] for name in ("input", "weight", "bias"))
    groups = call.given["num_groups"]
    m = x.new_tensor(mask).reshape(1, groups, -1, 1)
    g = x.reshape(x.shape[0], groups, m.shape[2], -1)
    count = (m.sum((2, 3), keepdim=True) * g.shape[3]).clamp_min(1)
    mean = (g * m).sum((2, 3), keepdim=True) / count
    variance = (((g - mean) ** 2) * m).sum((2, 3), keepdim=True) / count
    out: Tensor = ((g - mean) / (variance + call.given["eps"]).sqrt()).reshape(x.shape)
    per_channel = (1, -1) + (1,) * (x.ndim - 2)
    out = out if weight is None else out * weight.reshape(per_channel)
    return out if bias is None else out + bias.reshape(per_channel)


NORMS: dict[str, Callable[[Call], Tensor | None]] = {
    "layer_norm": _masked_layer_norm,
    "rms_norm": _masked_layer_norm,
    "group_norm": _masked_group_norm,
}
