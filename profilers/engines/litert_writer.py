"""An ONNX file as a LiteRT model, one rule for each op. What LiteRT has in one piece (hard-swish,
GELU, a relu after a convolution) is found by what it is made of.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np

from profilers import onnx_bytes
from profilers.engines import litert_windows
from profilers.engines.litert_graph import RELU6, Graph, Shape, Value, lacking, stored
from profilers.engines.litert_model import Scales
from profilers.engines.litert_windows import Args, Rule, reduced, weights
from profilers.onnx_bytes import Node

AS_IT_IS = (
    "MatMul",
    "LayerNormalization",
    "Softmax",
    "Transpose",
    "InstanceNormalization",
)  # read axes where they are
GATE = (1 / 6, 0.5)  # of the HardSigmoid that is relu6(x + 3) / 6
CLOSE = 1e-6  # numbers that are written in single precision


def written(model: bytes, folder: Path) -> bytes:
    """The LiteRT model of an ONNX file with static shapes.

    Args:
        model: the file.
        folder: where its weights are, if not inside.

    Raises:
        ConfigError: it cannot be read; MissingKernelError: LiteRT lacks an op of it.
        RuntimeMissingError: the schema of LiteRT is not installed.
    """
    try:
        return _written(Graph(model, folder))
    except (IndexError, KeyError, StopIteration, UnicodeDecodeError, TypeError):
        raise onnx_bytes.unreadable() from None


def _written(graph: Graph) -> bytes:
    for name, shape in graph.inputs.items():
        last = _is_image(graph, name, shape)
        number = graph.out.tensor(name, stored(shape, last), np.float32, None)
        graph.keep(name, Value(number, shape, last))
    for node in graph.nodes:
        if node.outputs[0] not in graph.done:
            if node.op not in RULES:
                raise lacking(node)
            RULES[node.op](graph, node, onnx_bytes.attributes_of(node))
    inputs = [graph.value(name) for name in graph.inputs]
    outputs = [graph.read(name) for name in graph.outputs]
    told = [[each.shape if each.last else None for each in ends] for ends in (inputs, outputs)]
    numbers = [[each.number for each in ends] for ends in (inputs, outputs)]
    return graph.out.packed(numbers[0], numbers[1], dict(zip(("inputs", "outputs"), told)))


def _is_image(graph: Graph, name: str, shape: Shape) -> bool:
    """Whether an input has channels, which then are last: a series looks like tokens."""
    readers = {node.op for node in graph.nodes if name in node.inputs}
    if len(shape) == 3:
        return bool(readers & set(litert_windows.RULES))
    return len(shape) == 4 and not readers & set(AS_IT_IS)


# ---- element by element ------------------------------------------------------------------------


def _alike(graph: Graph, node: Node, whole: bool) -> List[Value]:
    """What a node reads that is no constant, all in one layout."""
    names = [name for name in node.inputs if not graph.is_constant(name)]
    last = any(graph.value(name).last for name in names)
    return [graph.read(name, last, whole) for name in names]


def _spread(graph: Graph, name: str, value: Value) -> int:
    """A constant that goes with each number of a tensor."""
    numbers, scales = graph.steps(name) if value.scales else (graph.constant(name), None)
    numbers = numbers.reshape((1,) * (len(value.shape) - numbers.ndim) + numbers.shape)
    if value.last:
        numbers = np.moveaxis(numbers, 1, -1).reshape(stored(numbers.shape, True))
    return graph.out.constant(name, numbers if scales else numbers.astype(np.float32), scales)


def _two(code: str) -> Rule:
    def rule(graph: Graph, node: Node, args: Args) -> None:
        fused, name = graph.ended(node)
        values = _alike(graph, node, graph.is_whole(node.inputs, name))
        if len({len(value.shape) for value in values}) > 1:
            raise lacking(node, "of tensors with other numbers of axes")
        others = iter(values)
        given = [
            _spread(graph, each, values[0]) if graph.is_constant(each) else next(others).number
            for each in node.inputs
        ]
        shape = tuple(max(sizes) for sizes in zip(*(value.shape for value in values)))
        out = values[0]._replace(shape=shape)
        graph.result(code, given, name, out, fusedActivationFunction=fused)

    return rule


def _one(code: str, positive: bool = False) -> Rule:
    def rule(graph: Graph, node: Node, args: Args) -> None:
        value = graph.read(node.inputs[0])
        if positive:
            graph.positive.add(node.outputs[0])
        graph.result(code, [value.number], node.outputs[0], value)

    return rule


def _clip(graph: Graph, node: Node, args: Args) -> None:
    value, ends, name = graph.read(node.inputs[0]), graph.bounds(node), node.outputs[0]
    if ends == (0.0, 6.0):
        _one("RELU6", True)(graph, node, args)
        return
    low, high = (graph.single(f"{node.name}/{end}", [end]) for end in ends)
    raised = graph.put("MAXIMUM", [value.number, low], f"{node.name}/raised", value.stored)
    graph.result("MINIMUM", [raised, high], name, value)


def _leaky_relu(graph: Graph, node: Node, args: Args) -> None:
    value = graph.read(node.inputs[0])
    graph.result(
        "LEAKY_RELU", [value.number], node.outputs[0], value, alpha=args.get("alpha", 0.01)
    )


def _softplus(graph: Graph, node: Node, args: Args) -> None:
    """relu(x) + log(1 + exp(-|x|)), which no large number passes the bounds of."""
    value = graph.read(node.inputs[0])
    one, last = graph.single(f"{node.name}/one", [1.0]), value.number
    for code in ("ABS", "NEG", "EXP", "ADD", "LOG"):
        given = [last, one] if code == "ADD" else [last]
        last = graph.put(code, given, f"{node.name}/{code.lower()}", value.stored)
    relu = graph.put("RELU", [value.number], f"{node.name}/relu", value.stored)
    graph.result("ADD", [relu, last], node.outputs[0], value)


def _length(graph: Graph, node: Node, args: Args) -> None:
    """The root of the sum of squares."""
    name, root = f"{node.name}/squares", f"{node.name}/sum"
    value = graph.read(node.inputs[0])
    graph.result("MUL", [value.number, value.number], name, value)
    reduced(graph, node._replace(inputs=[name], outputs=[root]), args, "SUM")
    found = graph.value(root)
    graph.result("SQRT", [found.number], node.outputs[0], found)


def _hard_sigmoid(graph: Graph, node: Node, args: Args) -> None:
    """Hard-swish where it is multiplied with what it reads, else a gate. In int8 always a gate:
    XNNPACK has no hard-swish of whole numbers.
    """
    if not np.allclose([args.get("alpha", 0.2), args.get("beta", 0.5)], GATE, atol=CLOSE):
        raise lacking(node, "but x / 6 + 1 / 2")
    whole = graph.is_whole(node.inputs, node.outputs[0])
    value, after = graph.read(node.inputs[0], None, whole), graph.reader(node.outputs[0], "Mul")
    if after is not None and node.inputs[0] in after.inputs and not whole:
        graph.done.add(after.outputs[0])
        graph.result("HARD_SWISH", [value.number], after.outputs[0], value)
        return
    three, sixth = (_number(graph, f"{node.name}/{n}", n, whole) for n in (3.0, 1 / 6))
    scales: Optional[Scales] = graph.scales[node.outputs[0]] if whole else None
    wide = scales._replace(scale=6 * scales.scale) if scales else None
    given, name = [value.number, three], f"{node.name}/relu6"
    moved = graph.put("ADD", given, name, value.stored, wide, fusedActivationFunction=RELU6)
    graph.result("MUL", [moved, sixth], node.outputs[0], value)
    graph.positive.add(node.outputs[0])


def _number(graph: Graph, name: str, number: float, whole: bool) -> int:
    """A constant of one number above zero."""
    if not whole:
        return graph.single(name, [number])
    return graph.out.constant(name, np.array([127], np.int8), Scales(np.array(number / 127), 0))


def _mul(graph: Graph, node: Node, args: Args) -> None:
    nodes = _gelu(graph, node)
    if nodes:
        graph.done.update(each.outputs[0] for each in nodes)
        value = graph.read(node.inputs[0])
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
    """Whether the second of what a node reads is this number, or a step of int8 from it."""
    if not graph.is_constant(node.inputs[1]):
        return False
    found = graph.constant(node.inputs[1])
    return found.size == 1 and bool(abs(found.item() - number) < CLOSE)


# ---- matrices ----------------------------------------------------------------------------------


def _gemm(graph: Graph, node: Node, args: Args) -> None:
    plain = args.get("alpha", 1.0) == args.get("beta", 1.0) == 1.0 and not args.get("transA")
    if not plain or not graph.is_constant(node.inputs[1]):
        raise lacking(node, "with factors, or of two activations")
    _connected(graph, node, node, not args.get("transB"))


def _matmul(graph: Graph, node: Node, args: Args) -> None:
    if not graph.is_constant(node.inputs[1]):
        values = [graph.read(name, False) for name in node.inputs]
        out = values[0]._replace(shape=(*values[0].shape[:-1], values[1].shape[-1]))
        graph.result("BATCH_MATMUL", [v.number for v in values], node.outputs[0], out)
        return
    plus, name = graph.reader(node.outputs[0], "Add"), node.outputs[0]
    is_bias = plus is not None and graph.is_constant(plus.inputs[1]) and name not in graph.scales
    if plus is not None and is_bias and graph.constant(plus.inputs[1]).ndim == 1:
        graph.done.add(plus.outputs[0])
        _connected(graph, node._replace(inputs=[*node.inputs, plus.inputs[1]]), plus, True)
        return
    _connected(graph, node, node, True)


def _connected(graph: Graph, node: Node, end: Node, turned: bool) -> None:
    """Rows times a weight, plus a bias; `end` is the last node of it."""
    fused, name = graph.ended(end)
    value = graph.read(node.inputs[0], False, graph.is_whole(node.inputs, name))
    given = weights(graph, node, (lambda w: w.T) if turned else (lambda w: w), 0, value.scales)
    size = graph.out.shape(given[0])[0]
    out = value._replace(shape=(*value.shape[:-1], size))
    options = {"keepNumDims": len(value.shape) > 2, "fusedActivationFunction": fused}
    graph.result("FULLY_CONNECTED", [value.number, *given], name, out, **options)


def _softmax(graph: Graph, node: Node, args: Args) -> None:
    value = graph.read(node.inputs[0], False)
    if args.get("axis", -1) % len(value.shape) != len(value.shape) - 1:
        raise lacking(node, "along another axis than the last")
    graph.result("SOFTMAX", [value.number], node.outputs[0], value, beta=1.0)


def _layer_norm(graph: Graph, node: Node, args: Args) -> None:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis; scale and bias are
    those of that axis, or (InstanceNormalization) of the one before.
    """
    value, name = graph.read(node.inputs[0], False), node.name
    rows = node.op == "InstanceNormalization"
    if (
        args.get("axis", -1) % len(value.shape) != len(value.shape) - 1
        or len(value.shape) < 2 + rows
    ):
        raise lacking(node, "over more than the last axis")
    whole, part = value.shape, (*value.shape[:-1], 1)
    axis = graph.whole(f"{name}/axis", [len(whole) - 1])
    middle = graph.put("MEAN", [value.number, axis], f"{name}/mean", part, keepDims=True)
    apart = graph.put("SUB", [value.number, middle], f"{name}/apart", whole)
    squares = graph.put("MUL", [apart, apart], f"{name}/squares", whole)
    spread = graph.put("MEAN", [squares, axis], f"{name}/variance", part, keepDims=True)
    least = graph.single(f"{name}/epsilon", [args.get("epsilon", 1e-5)])
    spread = graph.put("ADD", [spread, least], f"{name}/above", part)
    factor = graph.put("RSQRT", [spread], f"{name}/factor", part)
    found = graph.put("MUL", [apart, factor], f"{name}/normal", whole)
    given = [graph.constant(each) for each in node.inputs[1:]]
    scale, bias = (
        graph.single(f"{name}/{n}", g[:, None] if rows else g) for n, g in enumerate(given)
    )
    found = graph.put("MUL", [found, scale], f"{name}/scaled", whole)
    graph.result("ADD", [found, bias], node.outputs[0], value)


# ---- what only moves numbers -------------------------------------------------------------------


def _moving(graph: Graph, node: Node, last: Optional[bool] = False) -> Value:
    """What a node reads that changes no number."""
    whole = graph.is_whole(node.inputs[:1], node.outputs[0])
    return graph.read(node.inputs[0], last, whole)


def _concat(graph: Graph, node: Node, args: Args) -> None:
    """In int8 everything is brought to the steps of the result."""
    name, whole = node.outputs[0], graph.is_whole(node.inputs, node.outputs[0])
    values = _alike(graph, node, whole)
    axis = args["axis"] % len(values[0].shape)
    size = sum(value.shape[axis] for value in values)
    out = values[0]._replace(shape=(*values[0].shape[:axis], size, *values[0].shape[axis + 1 :]))
    scales: Optional[Scales] = graph.scales[name] if whole else None
    given = [
        value.number
        if value.scales is scales or value.scales == scales
        else graph.put("QUANTIZE", [value.number], f"{name}/{n}", value.stored, scales)
        for n, value in enumerate(values)
    ]
    graph.result("CONCATENATION", given, name, out, axis=out.axis(axis))


def _slice(graph: Graph, node: Node, args: Args) -> None:
    value = _moving(graph, node, None)
    starts, stops, axes = (graph.constant(name).tolist() for name in node.inputs[1:4])
    if node.inputs[4:] or min(*starts, *stops) < 0:
        raise lacking(node, "with steps, or from the end")
    shape, begin = list(value.shape), [0] * len(value.stored)
    for start, stop, axis in zip(starts, stops, axes):
        shape[axis] = min(stop, shape[axis]) - start
        begin[value.axis(axis)] = start
    out = value._replace(shape=tuple(shape))
    first = graph.whole(f"{node.name}/begin", begin)
    size = graph.whole(f"{node.name}/size", out.stored)
    graph.result("SLICE", [value.number, first, size], node.outputs[0], out)


def _reshape(graph: Graph, node: Node, args: Args) -> None:
    _in_shape(graph, node, tuple(graph.constant(node.inputs[1]).tolist()))


def _flatten(graph: Graph, node: Node, args: Args) -> None:
    if args.get("axis", 1) != 1:
        raise lacking(node, "but to two axes")
    _in_shape(graph, node, (graph.value(node.inputs[0]).shape[0], -1))


def _in_shape(graph: Graph, node: Node, shape: Shape) -> None:
    value = _moving(graph, node)
    if -1 in shape:
        rest = math.prod(value.shape) // -math.prod(shape)
        shape = tuple(rest if n == -1 else n for n in shape)
    number = graph.reshaped(node.outputs[0], value, shape)
    graph.keep(node.outputs[0], value._replace(number=number, shape=shape))


def _transpose(graph: Graph, node: Node, args: Args) -> None:
    value, axes = _moving(graph, node), args["perm"]
    given = graph.whole(f"{node.name}/axes", axes)
    out = value._replace(shape=tuple(value.shape[axis] for axis in axes))
    graph.result("TRANSPOSE", [value.number, given], node.outputs[0], out)


RULES: Dict[str, Rule] = {
    **litert_windows.RULES,
    "Relu": _one("RELU", True),
    "Clip": _clip,
    "Sigmoid": _one("LOGISTIC", True),
    "HardSigmoid": _hard_sigmoid,
    "Tanh": _one("TANH"),
    "Softplus": _softplus,
    "LeakyRelu": _leaky_relu,
    "Add": _two("ADD"),
    "Sub": _two("SUB"),
    "Div": _two("DIV"),
    "Mul": _mul,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "ReduceMean": reduced,
    "ReduceL2": _length,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _layer_norm,
    "Concat": _concat,
    "Slice": _slice,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
}
