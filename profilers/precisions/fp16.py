"""fp16: an fp32 ONNX graph with casts after every weight and input, before outputs.

Weights stay where they are, also in a file of their own, and the engine folds the casts.
"""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Set

from profilers import onnx_bytes
from profilers.errors import ConfigError
from profilers.onnx_bytes import FLOAT, FLOAT16, INPUT, NODE, OUTPUT, VALUE_INFO, Field, Node
from profilers.precisions import Precision

# 11 bits of mantissa over some 20 layers
PRECISION = Precision(tolerance=2e-2, loss=2e-2, weight_bytes=2, activation_bytes=2)
SUFFIX = "_fp16"
# Ops whose floating-point inputs and outputs all have one type, and which need no fp32 input but
# those of FP32_INPUTS.
SAME_TYPE = {
    *("Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose"),
    *("DepthToSpace", "Div", "Elu", "Erf", "Exp", "Expand", "Flatten", "Gather", "Gelu", "Gemm"),
    *("GlobalAveragePool", "GlobalMaxPool", "GroupNormalization", "HardSigmoid", "HardSwish"),
    *("Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax"),
    *("MatMul", "Max", "MaxPool", "Min", "Mish", "Mul", "Neg", "Pad", "PRelu", "Pow"),
    *("Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu"),
    *("Reshape", "Resize", "Selu", "Sigmoid", "Slice", "Softmax", "Softplus", "Softsign"),
    *("SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose"),
    "Unsqueeze",
}
FP32_INPUTS = {"Resize": (1, 2)}  # roi and scales, by their places


def rewritten(model_path: Path, recipe: str = "") -> Optional[bytes]:
    """The file computing in fp16, inputs and outputs fp32; None where it has no fp32 weight or
    input.

    Raises:
        ConfigError: it cannot be read, or holds an op of which this does not know that every type
            may change.
    """
    return to_half(Path(model_path).read_bytes())


def to_half(model: bytes) -> Optional[bytes]:
    """As `rewritten`, of the bytes of a file."""
    graph = onnx_bytes.graph_of(model)
    try:
        new = _half_graph(graph)
    except (IndexError, KeyError, UnicodeDecodeError, TypeError):
        raise onnx_bytes.unreadable() from None
    return None if new is None else onnx_bytes.with_graph(model, new)


def _half_graph(graph: List[Field]) -> Optional[List[Field]]:
    sources = [(tensor.name, tensor.kind) for tensor in onnx_bytes.tensors_of(graph)]
    sources += onnx_bytes.values_of(graph, INPUT)
    single = {name for name, kind in sources if kind == FLOAT}
    results = {name for name, kind in onnx_bytes.values_of(graph, OUTPUT) if kind == FLOAT}
    if not single:
        return None
    nodes = onnx_bytes.nodes_of(graph)
    strange = sorted({node.op for node in nodes} - SAME_TYPE)
    if strange:
        raise ConfigError(
            f"the model holds the op {strange[0]}, of which it is not known that it may compute in "
            "fp16; export the model with fp16 types"
        )
    body = [_renamed(node, single, results) for node in nodes]
    read = {name for node in nodes for name in _halved(node)}
    casts = [
        _cast(name, name + SUFFIX, FLOAT16)
        for name, _ in sources
        if name in single and name in read | results
    ]
    ends = [_cast(name + SUFFIX, name, FLOAT) for name in sorted(results)]
    return [*casts, *body, *ends, *(each for each in graph if each[0] not in (NODE, VALUE_INFO))]


def _halved(node: Node) -> List[str]:
    """What a node reads in fp16, where it is of floating point."""
    kept = FP32_INPUTS.get(node.op, ())
    return [name for place, name in enumerate(node.inputs) if place not in kept]


def _renamed(node: Node, single: Set[str], results: Set[str]) -> Field:
    """The node with the fp16 twins of tensors in place of the named ones."""
    halved = (single | results) & {*_halved(node), *node.outputs}

    def new(given: List[str]) -> List[str]:
        return [name + SUFFIX if name in halved else name for name in given]

    return onnx_bytes.rewired(node, new(node.inputs), new(node.outputs))


def _cast(source: str, result: str, kind: int) -> Field:
    """A Cast node, named after its tensors, so that it belongs to their slot."""
    return onnx_bytes.made_node("Cast", f"{result}_cast", [source], result, to=kind)
