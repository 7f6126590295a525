"""What each op does to labels: ops that compute unite them, ops that move data are run on them.

A rule takes the labels of the graph so far and a node, and gives the labels of that node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor, fx

from hwnas.traced.contractions import matmul
from hwnas.traced.elementwise import elementwise, united
from hwnas.traced.labels import Labels, blank, read_by, shape_of
from hwnas.traced.plain import arguments, op_of
from hwnas.traced.program import module_of
from hwnas.traced.units import Ids

Rule = Callable[[Labels, fx.Node], Any]
VALUE_BY_VALUE = (
    "relu relu6 hardtanh hardswish hardsigmoid silu gelu sigmoid tanh leaky_relu elu "
    "mish _to_copy to neg exp pow sqrt rsqrt abs clamp clamp_min clamp_max softplus erf log celu "
    "selu square reciprocal log_sigmoid logit sin cos floor round sign add sub mul div maximum "
    "minimum rsub where lerp addcmul addcdiv masked_fill gt lt ge le eq ne logical_and logical_or "
    "logical_not bitwise_not fill type_as softsign tanhshrink hardshrink threshold"
)


def label(labels: Labels, node: fx.Node) -> Any:
    """Labels of a call; where nothing is known of its op, all that it reads stays whole."""
    op = op_of(node)
    if op == "getitem":
        return labels.of(node.args[0])[node.args[1]]  # type: ignore[arg-type]
    return RULES.get(op, _unknown)(labels, node)


def _unknown(labels: Labels, node: fx.Node) -> Any:
    labels.computed.setdefault(
        module_of(node) or node.name, f"hwnas does not know {op_of(node)} (node {node.name})"
    )
    return _frozen(labels, node, f"{op_of(node)}, which hwnas does not know,")


def _frozen(labels: Labels, node: fx.Node, what: str) -> Any:
    """Labels of a node that stays whole with all that it reads."""
    for source in node.all_input_nodes:
        value = labels.of(source)
        for ids in value if isinstance(value, list) else [value]:
            labels.units.freeze(ids, read_by(what, node))
    values = node.meta["val"]
    if isinstance(values, (list, tuple)):
        return [blank(value.ndim) for value in values]
    return blank(values.ndim)


def _convolution(labels: Labels, node: fx.Node) -> Ids:
    """Convolutions of any number of axes, transposed ones, and those in groups of channels."""
    a = arguments(node)
    x, weight, groups = a["input"], a["weight"], a["groups"]
    axis = len(shape_of(x)) - len(shape_of(weight)) + 1
    into = labels.along(labels.of(x), axis, shape_of(x)[axis])
    out = _weighted(labels, node, into, groups)
    _match(labels, a["bias"], out)
    return labels.on_axis(out, axis, len(shape_of(node)))


def _weighted(labels: Labels, node: fx.Node, into: Ids, groups: int) -> Ids:
    """Labels of the channels that a convolution makes."""
    weight = arguments(node)["weight"]
    transposed = "transpose" in op_of(node)
    if groups == 1:
        labels.units.union(labels.side(weight, 0 if transposed else 1), into)
        return labels.made(weight, 1 if transposed else 0)
    inner = into.reshape(groups, -1)
    if transposed:  # whole groups; those that a group makes lie on no axis of their own
        labels.units.union(inner, inner[:, :1])
        labels.units.union(labels.side(weight, 0), into)
        return np.repeat(inner[:, 0], shape_of(weight)[1])
    out = labels.made(weight, 0)
    outer = out.reshape(groups, -1)
    if groups >= inner.shape[1]:  # whole groups come and go
        labels.units.union(inner, inner[:, :1])
        labels.units.union(outer, inner[:, :1])
    else:  # the same channels of every group
        labels.units.union(inner, inner[:1])
        labels.units.union(outer, outer[:1])
        labels.units.union(labels.side(weight, 1), inner[0])
    return out


def _match(labels: Labels, tensor: fx.Node | None, channels: Ids) -> None:
    """A tensor of one number for each channel goes with the channels."""
    if tensor is not None:
        labels.units.union(labels.side(tensor, 0), channels)


def _linear(labels: Labels, node: fx.Node) -> Ids:
    a = arguments(node)
    into = labels.along(labels.of(a["input"]), -1, shape_of(a["input"])[-1])
    labels.units.union(labels.side(a["weight"], 1), into)
    out = labels.made(a["weight"], 0)
    _match(labels, a["bias"], out)
    return labels.on_axis(out, -1, len(shape_of(node)))


def _channelwise(labels: Labels, node: fx.Node) -> Ids:
    """BatchNorm and its like: one number of each tensor for each channel, axis 1."""
    x = node.args[0]
    channels = labels.along(labels.of(x), 1, shape_of(x)[1])  # type: ignore[arg-type]
    for tensor in node.all_input_nodes:
        if tensor is not x and shape_of(tensor) == (len(channels),):
            _match(labels, tensor, channels)
    return labels.on_axis(channels, 1, len(shape_of(node)))


def _layer_norm(labels: Labels, node: fx.Node) -> Ids:
    """Statistics over the last axis: those of the channels that stay."""
    a = arguments(node)
    values: Ids = labels.of(a["input"])
    if not any(labels.varies(values, -1 - i) for i in range(len(a["normalized_shape"]))):
        return values
    if len(a["normalized_shape"]) > 1:
        return _frozen_values(labels, node, "a LayerNorm over several axes")
    if _apart(labels, values, [values.ndim - 1]):
        return labels.united(values, [values.ndim - 1])
    channels = labels.along(values, -1, shape_of(node)[-1])
    for tensor in (a["weight"], a.get("bias")):
        _match(labels, tensor, channels)
    return labels.on_axis(channels, -1, values.ndim)


def _apart(labels: Labels, values: Ids, axes: Sequence[int]) -> bool:
    """Whether each place of the other axes, a head, has units of its own along these."""
    others = [n for axis, n in enumerate(values.shape) if axis not in axes]
    return max(others, default=1) > 1 and len(np.unique(labels.units.find(values))) == values.size


def _frozen_values(labels: Labels, node: fx.Node, what: str) -> Ids:
    out: Ids = _frozen(labels, node, what)
    return out


def _group_norm(labels: Labels, node: fx.Node) -> Ids:
    """As a convolution in groups: whole groups, or the same channels of every group."""
    a = arguments(node)
    channels = labels.along(labels.of(a["input"]), 1, shape_of(node)[1])
    groups = channels.reshape(a["num_groups"], -1)
    if a["num_groups"] >= groups.shape[1]:
        labels.units.union(groups, groups[:, :1])
    else:
        labels.units.union(groups, groups[:1])
    for tensor in (a["weight"], a["bias"]):
        _match(labels, tensor, channels)
    return labels.on_axis(channels, 1, len(shape_of(node)))


def _spatial(axes: int) -> Rule:
    """Pools and resizing of the last axes, channel by channel."""

    def rule(labels: Labels, node: fx.Node) -> Any:
        x = node.args[0]
        shape, axis = shape_of(x), len(shape_of(x)) - axes - 1  # type: ignore[arg-type]
        channels = labels.along(labels.of(x), axis, shape[axis])  # type: ignore[arg-type]
        out = labels.on_axis(channels, axis, len(shape))
        return [out, out] if isinstance(node.meta["val"], (list, tuple)) else out

    return rule


def _shuffled_pixels(labels: Labels, node: fx.Node) -> Ids:
    """Channels that become pixels, or pixels channels: those of one place go together."""
    x = node.args[0]
    before, after = shape_of(x)[-3], shape_of(node)[-3]  # type: ignore[arg-type]
    channels = labels.along(labels.of(x), -3, before)  # type: ignore[arg-type]
    if after > before:
        return labels.on_axis(np.repeat(channels, after // before), -3, len(shape_of(node)))
    blocks = channels.reshape(after, -1)
    labels.units.union(blocks, blocks[:, :1])
    return labels.on_axis(blocks[:, 0], -3, len(shape_of(node)))


def _patches(labels: Labels, node: fx.Node) -> Ids:
    """im2col: the pixels of a window one after another, channel by channel."""
    x = node.args[0]
    channels = labels.along(labels.of(x), 1, shape_of(x)[1])  # type: ignore[arg-type]
    times = shape_of(node)[1] // len(channels)
    return labels.on_axis(np.repeat(channels, times), 1, len(shape_of(node)))


def _pad(labels: Labels, node: fx.Node) -> Ids:
    """What is padded to an axis stays; other axes keep their labels."""
    a = arguments(node)
    values: Ids = labels.of(a["self"])
    pads = [(values.ndim - 1 - i // 2, i % 2, size) for i, size in enumerate(a["pad"]) if size]
    for axis, after, size in pads:
        if not labels.varies(values, axis):
            continue
        if size < 0 or a.get("mode", "constant") != "constant":
            return _frozen_values(labels, node, "padding of channels")
        sizes = [size if i == axis else full for i, full in enumerate(values.shape)]
        whole = np.broadcast_to(labels.units.whole("it is added to padding"), sizes)
        values = np.concatenate([values, whole] if after else [whole, values], axis)
    return labels.compact(values)


def _move(labels: Labels, node: fx.Node) -> Any:
    """An op that only moves data, run on labels."""

    def spread(given: fx.Node) -> Tensor:
        return labels.spread(labels.of(given), shape_of(given))

    args, kwargs = fx.map_arg(node.args, spread), fx.map_arg(node.kwargs, spread)
    moved = node.target(*args, **kwargs)  # type: ignore[operator]
    if isinstance(moved, (list, tuple)):
        return [labels.compact(part) for part in moved]
    return labels.compact(moved)


def _ordered(labels: Labels, node: fx.Node) -> Any:
    """A move that must not cut the axis that labels vary over: a roll, a step."""
    a = arguments(node)
    if op_of(node) == "slice" and a["step"] == 1:
        return _move(labels, node)
    dims = a["dims"] if "dims" in a else [a["dim"]]
    values: Ids = labels.of(a["self"])
    if not dims or any(labels.varies(values, dim) for dim in dims):
        return _frozen(labels, node, f"{op_of(node)} over channels")
    return _move(labels, node)


def _index(labels: Labels, node: fx.Node) -> Any:
    """Values taken by constant indices. Where other axes have units, those go for all indices."""
    a = arguments(node)
    values: Ids = labels.of(a["self"])
    given = a["indices"] if "indices" in a else [None] * (a["dim"] % values.ndim) + [a["index"]]
    if not all(index is None or index.name in labels.tensors for index in given):
        return _frozen(labels, node, "indexing by computed indices")
    taken = [axis for axis, index in enumerate(given) if index is not None]
    if any(labels.varies(values, axis) for axis in taken):
        if set(labels.varying(values)) <= set(taken):
            return _frozen(labels, node, "indexing of channels")
        values = labels.united(values, taken)
    indices = [None if index is None else labels.tensors[index.name] for index in given]
    spread = labels.spread(values, shape_of(a["self"]))
    if "indices" in a:
        return labels.compact(node.target(spread, indices))  # type: ignore[operator]
    return labels.compact(node.target(spread, a["dim"], indices[-1]))  # type: ignore[operator]


def _reduce(labels: Labels, node: fx.Node) -> Ids:
    """A mean or its like: over channels only where all of them stay."""
    a = arguments(node)
    values: Ids = labels.of(a["self"])
    dims = _dims(a.get("dim"), values.ndim)
    if any(labels.varies(values, dim) for dim in dims):
        if not _apart(labels, values, dims):
            what = _NAMES.get(op_of(node), op_of(node))
            return _frozen_values(labels, node, f"{what} over channels")
        values = labels.united(values, dims)
    keep = bool(a.get("keepdim", False))
    return values if keep else np.squeeze(values, tuple(dims))


def _dims(given: int | Sequence[int] | None, ndim: int) -> list[int]:
    dims = range(ndim) if given is None or given == [] else given
    return [dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)]


_NAMES = {"mean": "a mean", "sum": "a sum", "amax": "a maximum", "amin": "a minimum",
          "var": "a variance", "linalg_vector_norm": "a norm", "softmax": "a softmax",
          "_softmax": "a softmax", "log_softmax": "a softmax",
          "cumsum": "a running sum"}  # fmt: skip


def _within(labels: Labels, node: fx.Node) -> Ids:
    """A softmax or its like along an axis: over channels only where all of them stay."""
    a = arguments(node)
    values: Ids = labels.of(a["self"])
    if labels.varies(values, a["dim"]):
        return _frozen_values(labels, node, f"{_NAMES[op_of(node)]} over channels")
    return values


def _addmm(labels: Labels, node: fx.Node) -> Ids:
    """A sum and a product of two matrices."""
    bias, a, b = node.args[:3]
    product = matmul(labels, labels.of(a), labels.of(b), shape_of(node))  # type: ignore[arg-type]
    operands = [(labels.of(bias), shape_of(bias)), (product, shape_of(node))]  # type: ignore[arg-type]
    return united(labels, operands, shape_of(node), node)


def _product(labels: Labels, node: fx.Node) -> Ids:
    a, b = (labels.of(source) for source in node.args[:2])  # type: ignore[arg-type]
    return matmul(labels, a, b, shape_of(node))


def _table(rules: dict[Rule, str]) -> dict[str, Rule]:
    return {op: rule for rule, ops in rules.items() for op in ops.split()}


RULES: dict[str, Rule] = _table({
    _convolution: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    _linear: "linear",
    _channelwise: "batch_norm instance_norm prelu _prelu_kernel",
    _layer_norm: "layer_norm rms_norm",
    _group_norm: "group_norm",
    _spatial(1): "max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d upsample_nearest1d "
    "upsample_linear1d",
    _spatial(2): "max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest2d "
    "upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d max_pool2d_with_indices "
    "_adaptive_avg_pool2d",
    _spatial(3): "max_pool3d avg_pool3d adaptive_avg_pool3d upsample_nearest3d "
    "upsample_trilinear3d",
    _shuffled_pixels: "pixel_shuffle pixel_unshuffle",
    _patches: "im2col",
    _pad: "pad constant_pad_nd",
    _move: "view reshape _unsafe_view permute transpose unsqueeze squeeze flatten select split "
    "split_with_sizes chunk tensor_split unbind cat stack expand t narrow flip unflatten repeat "
    "movedim channel_shuffle native_channel_shuffle expand_as repeat_interleave tile",
    _ordered: "slice roll",
    _index: "index index_select",
    elementwise: VALUE_BY_VALUE,
    _reduce: "mean sum amax amin linalg_vector_norm var std prod",
    _within: "softmax _softmax log_softmax cumsum",
    _product: "matmul bmm mm",
    _addmm: "addmm baddbmm",
})  # fmt: skip
