"""Exact MACs, parameters, bytes and activation memory of an op.

One MAC is one multiply-accumulate (2 FLOPs). Counted are convolutions, the two squeeze-excite 1x1
convolutions and the linear layer, as once-for-all does; activations, additions and pooling count
nothing. What an op is made of is said once, by `convolutions` and `nodes`; the ONNX emitter writes
exactly these.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterable, List, NamedTuple, Tuple

from profilers.schema import OpSpec

BYTES = 4  # of one fp32 number


class Node(NamedTuple):
    """One emitted node: ONNX operator, output tensor, how many elements that has, which tensors of
    the op it reads.

    A convolution's output is called like the convolution (`Conv.name`).
    """

    op: str
    output: str
    elements: int
    inputs: Tuple[str, ...]


class Conv(NamedTuple):
    """One convolution (or linear layer) of an op."""

    name: str
    in_channels: int
    out_channels: int
    kernel_size: int
    groups: int
    out_size: int
    norm: str  # "bn": BatchNorm follows; "bias": has a bias; "": neither


def convolutions(spec: OpSpec) -> List[Conv]:
    """The convolutions and linear layers of an op, in their order.

    Raises:
        ValueError: the kind is unknown.
    """
    if spec.kind not in _CONVOLUTIONS:
        raise ValueError(f"op kind {spec.kind!r} is not one of {', '.join(sorted(_CONVOLUTIONS))}")
    return _CONVOLUTIONS[spec.kind](spec)


def _mbconv(spec: OpSpec) -> List[Conv]:
    mid, out = spec.mid_channels, spec.out_size
    layers = []
    if mid != spec.in_channels:
        layers.append(Conv("expand", spec.in_channels, mid, 1, 1, spec.in_size, "bn"))
    layers.append(Conv("depthwise", mid, mid, spec.kernel_size, mid, out, "bn"))
    if spec.se_channels:
        layers.append(Conv("se_reduce", mid, spec.se_channels, 1, 1, 1, "bias"))
        layers.append(Conv("se_expand", spec.se_channels, mid, 1, 1, 1, "bias"))
    layers.append(Conv("project", mid, spec.out_channels, 1, 1, out, "bn"))
    return layers


def _bottleneck(spec: OpSpec) -> List[Conv]:
    mid, out = spec.mid_channels, spec.out_size
    layers = [
        Conv("reduce", spec.in_channels, mid, 1, 1, spec.in_size, "bn"),
        Conv("spatial", mid, mid, spec.kernel_size, 1, out, "bn"),
        Conv("project", mid, spec.out_channels, 1, 1, out, "bn"),
    ]
    if not spec.residual:
        layers.append(Conv("shortcut", spec.in_channels, spec.out_channels, 1, 1, out, "bn"))
    return layers


_CONVOLUTIONS: Dict[str, Callable[[OpSpec], List[Conv]]] = {
    "conv": lambda s: [
        Conv("conv", s.in_channels, s.out_channels, s.kernel_size, 1, s.out_size, "bn")
    ],
    "mbconv": _mbconv,
    "bottleneck": _bottleneck,
    "max_pool": lambda s: [],
    "pool": lambda s: [],
    "mix": lambda s: [Conv("conv", s.in_channels, s.out_channels, 1, 1, s.in_size, "")],
    "linear": lambda s: [Conv("linear", s.in_channels, s.out_channels, 1, 1, 1, "bias")],
}
KINDS = tuple(sorted(_CONVOLUTIONS))


def macs(spec: OpSpec) -> int:
    """Multiply-accumulates of one inference at batch 1."""
    return sum(
        c.out_size**2 * c.out_channels * (c.in_channels // c.groups) * c.kernel_size**2
        for c in convolutions(spec)
    )


def params(spec: OpSpec) -> int:
    """Trainable parameters of the static op: weights, biases, and weight and bias of each
    BatchNorm.
    """
    extra = {"bn": 2, "bias": 1, "": 0}
    return sum(_weights(c) + extra[c.norm] * c.out_channels for c in convolutions(spec))


def weight_bytes(spec: OpSpec) -> int:
    """Bytes of the weights in the exported fp32 model, where each BatchNorm is folded into one
    bias.
    """
    return BYTES * sum(_weights(c) + (c.out_channels if c.norm else 0) for c in convolutions(spec))


def _weights(conv: Conv) -> int:
    return conv.out_channels * (conv.in_channels // conv.groups) * conv.kernel_size**2


def nodes(spec: OpSpec) -> List[Node]:
    """The nodes that the emitter writes for an op, in their order, at batch 1. The op's input is
    called `in`.
    """
    return _NODES[spec.kind](spec)


def _activation(act: str, source: str, elements: int) -> List[Node]:
    """The nodes of an activation after tensor `source`; the last one is the result."""
    if act == "none":
        return []
    if act == "relu":
        return [Node("Relu", f"{source}_relu", elements, (source,))]
    if act == "relu6":
        return [Node("Clip", f"{source}_relu6", elements, (source,))]
    gate = Node("HardSigmoid", f"{source}_gate", elements, (source,))
    return [gate, Node("Mul", f"{source}_act", elements, (source, gate.output))]


def _conv_nodes(name: str, source: str, channels: int, size: int, act: str) -> List[Node]:
    elements = channels * size * size
    return [Node("Conv", name, elements, (source,)), *_activation(act, name, elements)]


def _single_nodes(spec: OpSpec) -> List[Node]:
    """Convolution and activation, then the sum with the input where the op is residual."""
    out = _conv_nodes("conv", "in", spec.out_channels, spec.out_size, spec.act)
    if spec.residual:
        out.append(Node("Add", "add", out[-1].elements, (out[-1].output, "in")))
    return out


def _mbconv_nodes(spec: OpSpec) -> List[Node]:
    mid, out_size = spec.mid_channels, spec.out_size
    out: List[Node] = []
    last = "in"
    if mid != spec.in_channels:
        out += _conv_nodes("expand", last, mid, spec.in_size, spec.act)
        last = out[-1].output
    out += _conv_nodes("depthwise", last, mid, out_size, spec.act)
    last = out[-1].output
    if spec.se_channels:
        out += [
            Node("GlobalAveragePool", "se_pool", mid, (last,)),
            Node("Conv", "se_reduce", spec.se_channels, ("se_pool",)),
            Node("Relu", "se_reduce_relu", spec.se_channels, ("se_reduce",)),
            Node("Conv", "se_expand", mid, ("se_reduce_relu",)),
            Node("HardSigmoid", "se_gate", mid, ("se_expand",)),
            Node("Mul", "se_scale", mid * out_size**2, (last, "se_gate")),
        ]
        last = "se_scale"
    elements = spec.out_channels * out_size**2
    out.append(Node("Conv", "project", elements, (last,)))
    if spec.residual:
        out.append(Node("Add", "add", elements, ("project", "in")))
    return out


def _bottleneck_nodes(spec: OpSpec) -> List[Node]:
    mid, out_size = spec.mid_channels, spec.out_size
    elements = spec.out_channels * out_size**2
    out = _conv_nodes("reduce", "in", mid, spec.in_size, spec.act)
    out += _conv_nodes("spatial", out[-1].output, mid, out_size, spec.act)
    out.append(Node("Conv", "project", elements, (out[-1].output,)))
    shortcut = "in"
    if not spec.residual:
        if spec.stride > 1:
            pooled = spec.in_channels * out_size**2
            out.append(Node("AveragePool", "shortcut_pool", pooled, ("in",)))
            shortcut = "shortcut_pool"
        out.append(Node("Conv", "shortcut", elements, (shortcut,)))
        shortcut = "shortcut"
    out.append(Node("Add", "add", elements, ("project", shortcut)))
    return out + _activation(spec.act, "add", elements)


def _max_pool_nodes(spec: OpSpec) -> List[Node]:
    return [Node("MaxPool", "pool", spec.out_channels * spec.out_size**2, ("in",))]


_NODES: Dict[str, Callable[[OpSpec], List[Node]]] = {
    "conv": _single_nodes,
    "mbconv": _mbconv_nodes,
    "bottleneck": _bottleneck_nodes,
    "max_pool": _max_pool_nodes,
    "pool": lambda s: [Node("GlobalAveragePool", "pool", s.in_channels, ("in",))],
    "mix": lambda s: _conv_nodes("conv", "in", s.out_channels, s.in_size, s.act),
    "linear": lambda s: [
        Node("Flatten", "flat", s.in_channels, ("in",)),
        Node("Gemm", "linear", s.out_channels, ("flat",)),
    ],
}


def peak_activation_bytes(spec: OpSpec) -> int:
    """Most fp32 bytes of activations alive at once while the op runs: its input, until its last
    reader, included.

    A tensor is alive from the node that writes it to the last node that reads it. Ops form a chain,
    so the peak of a network is the largest peak of its ops.
    """
    return BYTES * _peak_elements(spec.in_channels * spec.in_size**2, nodes(spec))


def _peak_elements(in_elements: int, emitted: Iterable[Node]) -> int:
    sequence = list(emitted)
    size = {"in": in_elements, **{n.output: n.elements for n in sequence}}
    last_read = {name: i for i, n in enumerate(sequence) for name in n.inputs}
    alive, peak = {"in"}, in_elements
    for i, node in enumerate(sequence):
        alive.add(node.output)
        peak = max(peak, sum(size[name] for name in alive))
        alive = {name for name in alive if last_read.get(name, len(sequence)) > i}
    return peak
