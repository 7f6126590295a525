"""An ONNX file as a LiteRT model, one rule for each op. What LiteRT has in one piece (hard-swish,
GELU, a relu after a convolution) is found by what it is made of.

Padding that is not LiteRT's own is written out; XNNPACK takes it into the convolution after it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from profilers import onnx_bytes
from profilers.engines.litert_graph import (
    RELU6,
    Graph,
    Shape,
    Value,
    lacking,
    stored,
)
from profilers.onnx_bytes import Node

Args = Dict[str, Any]  # attributes of a node
Pads = List[Tuple[int, int]]  # before and after, height and width
SAME, VALID = 0, 1  # of Padding
AS_IT_IS = ("MatMul", "LayerNormalization", "Softmax", "Transpose")  # read axes where they are
GATE = (1 / 6, 0.5)  # of the HardSigmoid that is relu6(x + 3) / 6
CLOSE = 1e-6  # numbers that are written in single precision


def written(model_path: Path) -> bytes:
    """The LiteRT model of an ONNX file with static shapes.

    Raises:
        ConfigError: it cannot be read; ModelError: LiteRT lacks an op of it.
        RuntimeMissingError: the schema of LiteRT is not installed.
    """
    graph = Graph(Path(model_path).read_bytes(), Path(model_path).parent)
    for name, shape in graph.inputs.items():
        is_image = _is_image(graph, name, shape)
        number = graph.out.tensor(name, stored(shape, is_image), np.float32, None)
        graph.keep(name, Value(number, shape, is_image))
    for node in graph.nodes:
        if node.outputs[0] not in graph.done:
            if node.op not in RULES:
                raise lacking(node)
            RULES[node.op](graph, node, onnx_bytes.attributes_of(node))
    ends = [*graph.inputs, *graph.outputs]
    last = {name: graph.value(name).shape for name in ends if graph.value(name).last}
    inputs, outputs = (
        [graph.value(name).number for name in names] for names in (graph.inputs, graph.outputs)
    )
    return graph.out.packed(inputs, outputs, {"channels_last": last})


def _is_image(graph: Graph, name: str, shape: Shape) -> bool:
    """Whether an input has channels, which then are last: a series looks like tokens."""
    readers = [node.op for node in graph.nodes if name in node.inputs]
    if len(shape) == 3:
        return bool(set(readers) & set(PLACES))
    return len(shape) == 4 and not set(readers) & set(AS_IT_IS)


# ---- convolutions and windows ------------------------------------------------------------------


def _square(numbers: Sequence[int], fill: int) -> List[int]:
    """Of height and width; a series has no height."""
    return [fill] * (2 - len(numbers)) + [int(number) for number in numbers]


class _Window:
    """Kernel, stride, dilation and padding of height and width, and the shape that comes out."""

    def __init__(self, shape: Shape, args: Args, kernel: Sequence[int]) -> None:
        axes = len(shape) - 2
        self.kernel = _square(kernel, 1)
        self.stride = _square(args.get("strides", [1] * axes), 1)
        self.dilation = _square(args.get("dilations", [1] * axes), 1)
        given = args.get("pads", [0] * 2 * axes)
        self.pads: Pads = list(zip(_square(given[:axes], 0), _square(given[axes:], 0)))
        sizes = zip(_square(shape[2:], 1), self.kernel, self.stride, self.dilation, self.pads)
        self.places, self.same = [], []
        for size, width, step, apart, pads in sizes:
            reach = (width - 1) * apart + 1
            self.places.append((size + sum(pads) - reach) // step + 1)
            most = max((-(-size // step) - 1) * step + reach - size, 0)
            self.same.append((most // 2, most - most // 2))
        self.rest = tuple(self.places[2 - axes :])

    def options(self) -> Dict[str, int]:
        """Strides as LiteRT calls them."""
        return {"strideH": self.stride[0], "strideW": self.stride[1]}


def _padded(
    graph: Graph, node: Node, value: Value, window: _Window, fill: float = 0.0
) -> Tuple[int, int]:
    """The tensor that a window goes over, and LiteRT's word for the padding that is left to do."""
    if not any(map(sum, window.pads)):
        return value.number, VALID
    if window.pads == window.same:
        return value.number, SAME
    n, height, width, channels = graph.out.shape(value.number)
    shape = (n, height + sum(window.pads[0]), width + sum(window.pads[1]), channels)
    sizes = graph.whole(f"{node.name}/pads", [(0, 0), *window.pads, (0, 0)])
    name = f"{node.name}/padded"
    if not fill:
        return graph.put("PAD", [value.number, sizes], name, shape), VALID
    number = graph.single(f"{node.name}/fill", [fill])
    return graph.put("PADV2", [value.number, sizes, number], name, shape), VALID


def _conv(graph: Graph, node: Node, args: Args) -> None:
    value, weight = graph.read(node.inputs[0], True), graph.constant(node.inputs[1])
    bias = _bias(graph, node.inputs[2:], len(weight))
    window = _Window(value.shape, args, weight.shape[2:])
    number, padding = _padded(graph, node, value, window)
    weight = weight.reshape(
        (*weight.shape[:2], *window.kernel)
    )  # out, in of a group, height, width
    fused, name = graph.ended(node)
    options = {**window.options(), "padding": padding, "fusedActivationFunction": fused}
    options.update(dilationHFactor=window.dilation[0], dilationWFactor=window.dilation[1])
    channels, groups = value.shape[1], args.get("group", 1)
    depthwise = groups > 1 and groups == channels
    if depthwise:
        options["depthMultiplier"] = len(weight) // channels
    axes = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    given = graph.single(node.inputs[1], weight.transpose(axes))
    out = Value(0, (value.shape[0], len(weight), *window.rest), True)
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    graph.result(code, [number, given, bias], name, out, **options)


def _bias(graph: Graph, names: Sequence[str], size: int) -> int:
    """The constant of a bias; zeros where there is none."""
    numbers = graph.constant(names[0]) if names else np.zeros(size)
    return graph.single(names[0] if names else "zeros", numbers)


def _max_pool(graph: Graph, node: Node, args: Args) -> None:
    value = graph.read(node.inputs[0], True)
    window = _Window(value.shape, args, args["kernel_shape"])
    if max(window.dilation) > 1 or args.get("ceil_mode"):
        raise lacking(node, "with dilation or ceil_mode")
    positive = node.inputs[0] in graph.positive
    fill = 0.0 if positive else float(np.finfo(np.float32).min)
    number, padding = _padded(graph, node, value, window, fill)
    if positive:
        graph.positive.add(node.outputs[0])
    _pooled(graph, "MAX_POOL_2D", number, padding, node.outputs[0], value, window)


def _average_pool(graph: Graph, node: Node, args: Args) -> None:
    """The mean of what a window holds of the image: of padding that LiteRT does not do, the zeros
    are taken out of the mean by a factor for each place.
    """
    value = graph.read(node.inputs[0], True)
    window = _Window(value.shape, args, args["kernel_shape"])
    if args.get("count_include_pad") or args.get("ceil_mode"):
        raise lacking(node, "that counts padding, or with ceil_mode")
    number, padding = _padded(graph, node, value, window)
    if not any(map(sum, window.pads)) or padding == SAME:
        _pooled(graph, "AVERAGE_POOL_2D", number, padding, node.outputs[0], value, window)
        return
    counts = [
        _counts(*axis)
        for axis in zip(_square(value.shape[2:], 1), window.kernel, window.stride, window.pads)
    ]
    shares = math.prod(window.kernel) / np.multiply.outer(*counts)
    name = f"{node.name}/means"
    _pooled(graph, "AVERAGE_POOL_2D", number, padding, name, value, window)
    factors = graph.single(f"{node.name}/shares", shares[None, :, :, None])
    graph.result("MUL", [graph.value(name).number, factors], node.outputs[0], graph.value(name))


def _counts(size: int, kernel: int, stride: int, pads: Tuple[int, int]) -> np.ndarray:
    """How many places of the image each window holds along an axis."""
    starts = np.arange(-pads[0], size + pads[1] - kernel + 1, stride)
    return np.minimum(starts + kernel, size) - np.maximum(starts, 0)


def _pooled(
    graph: Graph, code: str, number: int, padding: int, name: str, value: Value, window: _Window
) -> None:
    options = {**window.options(), "padding": padding}
    options.update(filterHeight=window.kernel[0], filterWidth=window.kernel[1])
    out = value._replace(shape=(*value.shape[:2], *window.rest))
    graph.result(code, [number], name, out, **options)


def _pad(graph: Graph, node: Node, args: Args) -> None:
    value, sizes = graph.read(node.inputs[0], True), graph.constant(node.inputs[1]).tolist()
    half = len(value.shape)
    if any(sizes[:2] + sizes[half : half + 2]) or len(sizes) != 2 * half or node.inputs[2:]:
        raise lacking(node, "of anything but places, with zeros")
    pads = list(zip(_square(sizes[2:half], 0), _square(sizes[half + 2 :], 0)))
    given = graph.whole(f"{node.name}/pads", [(0, 0), *pads, (0, 0)])
    places = [size + sum(pad) for size, pad in zip(_square(value.shape[2:], 1), pads)]
    out = value._replace(shape=(*value.shape[:2], *places[4 - half :]))
    graph.result("PAD", [value.number, given], node.outputs[0], out)


def _upsample(graph: Graph, node: Node, args: Args) -> None:
    value, scales = graph.read(node.inputs[0], True), graph.constant(node.inputs[2])
    places = [int(n * scale) for n, scale in zip(value.shape[2:], scales[2:])]
    size = graph.whole(f"{node.name}/size", _square(places, 1))
    out = value._replace(shape=(*value.shape[:2], *places))
    graph.result("RESIZE_NEAREST_NEIGHBOR", [value.number, size], node.outputs[0], out)


# ---- element by element ------------------------------------------------------------------------


def _alike(graph: Graph, node: Node) -> List[Value]:
    """What a node reads that is no constant, all in one layout."""
    names = [name for name in node.inputs if not graph.is_constant(name)]
    last = any(graph.value(name).last for name in names)
    return [graph.read(name, last) for name in names]


def _spread(graph: Graph, name: str, value: Value) -> int:
    """A constant that goes with each number of a tensor."""
    numbers = graph.constant(name)
    shape: Shape = (1,) * (len(value.shape) - numbers.ndim) + numbers.shape
    if value.last and numbers.size > 1:
        numbers = np.moveaxis(numbers.reshape(shape), 1, -1)
        numbers = numbers.reshape(stored(shape, True))
    return graph.single(name, numbers)


def _two(code: str) -> Callable[[Graph, Node, Args], None]:
    def rule(graph: Graph, node: Node, args: Args) -> None:
        values = _alike(graph, node)
        ranks = {len(value.shape) for value in values}
        if len(ranks) > 1:
            raise lacking(node, "of tensors with other numbers of axes")
        others = iter(values)
        given = [
            _spread(graph, name, values[0]) if graph.is_constant(name) else next(others).number
            for name in node.inputs
        ]
        shapes = [value.shape for value in values]
        out = values[0]._replace(shape=tuple(max(sizes) for sizes in zip(*shapes)))
        fused, name = graph.ended(node)
        graph.result(code, given, name, out, fusedActivationFunction=fused)

    return rule


def _one(code: str, positive: bool = False) -> Callable[[Graph, Node, Args], None]:
    def rule(graph: Graph, node: Node, args: Args) -> None:
        value = graph.value(node.inputs[0])
        if positive:
            graph.positive.add(node.outputs[0])
        graph.result(code, [value.number], node.outputs[0], value)

    return rule


def _clip(graph: Graph, node: Node, args: Args) -> None:
    if graph.bounds(node) != (0.0, 6.0):
        raise lacking(node, "but from 0 to 6")
    _one("RELU6", True)(graph, node, args)


def _hard_sigmoid(graph: Graph, node: Node, args: Args) -> None:
    """Hard-swish where it is multiplied with what it reads, else a gate."""
    if not np.allclose([args.get("alpha", 0.2), args.get("beta", 0.5)], GATE, atol=CLOSE):
        raise lacking(node, "but x / 6 + 1 / 2")
    value, after = graph.value(node.inputs[0]), graph.reader(node.outputs[0], "Mul")
    if after is not None and node.inputs[0] in after.inputs:
        graph.done.add(after.outputs[0])
        graph.result("HARD_SWISH", [value.number], after.outputs[0], value)
        return
    three, sixth = (graph.single(f"{node.name}/{n}", [n]) for n in (3.0, 1 / 6))
    shape = stored(value.shape, value.last)
    name = f"{node.name}/relu6"
    moved = graph.put("ADD", [value.number, three], name, shape, fusedActivationFunction=RELU6)
    graph.result("MUL", [moved, sixth], node.outputs[0], value)
    graph.positive.add(node.outputs[0])


def _mul(graph: Graph, node: Node, args: Args) -> None:
    nodes = _gelu(graph, node)
    if nodes:
        graph.done.update(each.outputs[0] for each in nodes)
        value = graph.value(node.inputs[0])
        graph.result("GELU", [value.number], nodes[-1].outputs[0], value)
        return
    _two("MUL")(graph, node, args)


def _gelu(graph: Graph, node: Node) -> List[Node]:
    """The nodes after x * sqrt(1/2) that make it the GELU of x: x / 2 * (1 + erf(...))."""
    erf = graph.reader(node.outputs[0], "Erf")
    plus = graph.reader(erf.outputs[0], "Add") if erf else None
    last = graph.reader(plus.outputs[0], "Mul") if plus else None
    if not (erf and plus and last) or not _is(graph, node, math.sqrt(0.5)):
        return []
    half = graph.maker(next(name for name in last.inputs if name != plus.outputs[0]), "Mul")
    if half is None or half.inputs[0] != node.inputs[0]:
        return []
    return [erf, plus, half, last] if _is(graph, half, 0.5) and _is(graph, plus, 1.0) else []


def _is(graph: Graph, node: Node, number: float) -> bool:
    """Whether the second of what a node reads is this number."""
    if not graph.is_constant(node.inputs[1]):
        return False
    found = graph.constant(node.inputs[1])
    return found.size == 1 and bool(abs(found.item() - number) < CLOSE)


# ---- matrices, means, axes ---------------------------------------------------------------------


def _gemm(graph: Graph, node: Node, args: Args) -> None:
    weight = graph.constant(node.inputs[1])
    plain = args.get("alpha", 1.0) == args.get("beta", 1.0) == 1.0 and not args.get("transA")
    if not plain:
        raise lacking(node, "with factors")
    value = graph.read(node.inputs[0], False)
    fused, name = graph.ended(node)
    wide = weight if args.get("transB") else weight.T
    given = graph.single(node.inputs[1], wide)
    bias, out = _bias(graph, node.inputs[2:], len(wide)), (value.shape[0], len(wide))
    options = {"fusedActivationFunction": fused}
    graph.result(
        "FULLY_CONNECTED", [value.number, given, bias], name, Value(0, out, False), **options
    )


def _matmul(graph: Graph, node: Node, args: Args) -> None:
    first = graph.read(node.inputs[0], False)
    if not graph.is_constant(node.inputs[1]):
        other = graph.read(node.inputs[1], False)
        out = Value(0, (*first.shape[:-1], other.shape[-1]), False)
        graph.result("BATCH_MATMUL", [first.number, other.number], node.outputs[0], out)
        return
    weight = graph.constant(node.inputs[1])
    given, end = graph.single(node.inputs[1], weight.T), node
    plus = graph.reader(node.outputs[0], "Add")
    bias = _bias(graph, [], weight.shape[1])
    if (
        plus is not None
        and graph.is_constant(plus.inputs[1])
        and graph.constant(plus.inputs[1]).ndim == 1
    ):
        end, bias = plus, _bias(graph, plus.inputs[1:], weight.shape[1])
        graph.done.add(plus.outputs[0])
    fused, name = graph.ended(end)
    out = Value(0, (*first.shape[:-1], weight.shape[1]), False)
    options = {"keepNumDims": True, "fusedActivationFunction": fused}
    graph.result("FULLY_CONNECTED", [first.number, given, bias], name, out, **options)


def _mean(graph: Graph, node: Node, args: Args) -> None:
    value = graph.value(node.inputs[0])
    places = list(range(2, len(value.shape)))
    axes = [axis % len(value.shape) for axis in args.get("axes", places)]
    keep = bool(args.get("keepdims", 1))
    if value.last and not keep and axes != places:
        value = graph.read(node.inputs[0], False)
    shape = tuple(1 if i in axes else n for i, n in enumerate(value.shape))
    if not keep:
        shape = tuple(n for i, n in enumerate(shape) if i not in axes)
    given = [1, 2] if value.last and axes == places else [value.axis(axis) for axis in axes]
    number = graph.whole(f"{node.name}/axes", given)
    out = Value(0, shape, value.last and keep)
    graph.result("MEAN", [value.number, number], node.outputs[0], out, keepDims=keep)


def _softmax(graph: Graph, node: Node, args: Args) -> None:
    value = graph.read(node.inputs[0], False)
    if args.get("axis", -1) % len(value.shape) != len(value.shape) - 1:
        raise lacking(node, "along another axis than the last")
    graph.result("SOFTMAX", [value.number], node.outputs[0], value, beta=1.0)


def _layer_norm(graph: Graph, node: Node, args: Args) -> None:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis."""
    value, name = graph.read(node.inputs[0], False), node.name
    if args.get("axis", -1) % len(value.shape) != len(value.shape) - 1:
        raise lacking(node, "over more than the last axis")
    whole, part = value.shape, (*value.shape[:-1], 1)
    axis = graph.whole(f"{name}/axis", [len(whole) - 1])
    mean = graph.put("MEAN", [value.number, axis], f"{name}/mean", part, keepDims=True)
    apart = graph.put("SUB", [value.number, mean], f"{name}/apart", whole)
    square = graph.put("MUL", [apart, apart], f"{name}/square", whole)
    spread = graph.put("MEAN", [square, axis], f"{name}/variance", part, keepDims=True)
    least = graph.single(f"{name}/epsilon", [args.get("epsilon", 1e-5)])
    spread = graph.put("ADD", [spread, least], f"{name}/above", part)
    factor = graph.put("RSQRT", [spread], f"{name}/factor", part)
    found = graph.put("MUL", [apart, factor], f"{name}/normal", whole)
    scale, bias = (graph.single(each, graph.constant(each)) for each in node.inputs[1:])
    found = graph.put("MUL", [found, scale], f"{name}/scaled", whole)
    graph.result("ADD", [found, bias], node.outputs[0], value)


def _concat(graph: Graph, node: Node, args: Args) -> None:
    values, axis = _alike(graph, node), args["axis"] % len(graph.value(node.inputs[0]).shape)
    size = sum(value.shape[axis] for value in values)
    shape = tuple(size if i == axis else n for i, n in enumerate(values[0].shape))
    out, at = values[0]._replace(shape=shape), values[0].axis(axis)
    graph.result("CONCATENATION", [v.number for v in values], node.outputs[0], out, axis=at)


def _slice(graph: Graph, node: Node, args: Args) -> None:
    value = graph.value(node.inputs[0])
    starts, stops, axes = (graph.constant(name).tolist() for name in node.inputs[1:4])
    if node.inputs[4:] or min(*starts, *stops) < 0:
        raise lacking(node, "with steps, or from the end")
    shape, begin = list(value.shape), [0] * len(stored(value.shape, value.last))
    for start, stop, axis in zip(starts, stops, axes):
        shape[axis] = min(stop, shape[axis]) - start
        begin[value.axis(axis)] = start
    out = value._replace(shape=tuple(shape))
    first = graph.whole(f"{node.name}/begin", begin)
    size = graph.whole(f"{node.name}/size", stored(out.shape, out.last))
    graph.result("SLICE", [value.number, first, size], node.outputs[0], out)


def _reshape(graph: Graph, node: Node, args: Args) -> None:
    value = graph.read(node.inputs[0], False)
    shape = tuple(graph.constant(node.inputs[1]).tolist())
    _in_shape(graph, node, value, shape)


def _flatten(graph: Graph, node: Node, args: Args) -> None:
    value = graph.read(node.inputs[0], False)
    if args.get("axis", 1) != 1:
        raise lacking(node, "but to two axes")
    _in_shape(graph, node, value, (value.shape[0], math.prod(value.shape[1:])))


def _in_shape(graph: Graph, node: Node, value: Value, shape: Shape) -> None:
    if -1 in shape:
        rest = -math.prod(shape)
        shape = tuple(math.prod(value.shape) // rest if n == -1 else n for n in shape)
    number = graph.reshaped(node.outputs[0], value.number, shape)
    graph.keep(node.outputs[0], Value(number, shape, False))


def _transpose(graph: Graph, node: Node, args: Args) -> None:
    value, axes = graph.read(node.inputs[0], False), args["perm"]
    given = graph.whole(f"{node.name}/axes", axes)
    out = value._replace(shape=tuple(value.shape[axis] for axis in axes))
    graph.result("TRANSPOSE", [value.number, given], node.outputs[0], out)


Rule = Callable[[Graph, Node, Args], None]
PLACES: Dict[str, Rule] = {  # ops over images and series
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _mean,
    "Pad": _pad,
    "Resize": _upsample,
}
RULES: Dict[str, Rule] = {
    **PLACES,
    "Relu": _one("RELU", True),
    "Clip": _clip,
    "Sigmoid": _one("LOGISTIC", True),
    "HardSigmoid": _hard_sigmoid,
    "Add": _two("ADD"),
    "Mul": _mul,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "ReduceMean": _mean,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
    "Concat": _concat,
    "Slice": _slice,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
}
