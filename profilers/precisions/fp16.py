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
# Ops whose floating-point inputs and outputs all have one type, and which need no fp32 input.
SAME_TYPE = {
    *("Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "Div", "Elu"),
    *("Flatten", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"),
    *("HardSwish", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "PRelu", "Pow"),
    *("ReduceMean", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt"),
    *("Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"),
}


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
    renamed = single | results
    casts = [_cast(name, name + SUFFIX, FLOAT16) for name, _ in sources if name in single]
    body = [_renamed(node, renamed) for node in nodes]
    ends = [_cast(name + SUFFIX, name, FLOAT) for name in sorted(results)]
    return [*casts, *body, *ends, *(each for each in graph if each[0] not in (NODE, VALUE_INFO))]


def _renamed(node: Node, names: Set[str]) -> Field:
    """The node with the fp16 twins of tensors in place of the named ones."""

    def new(given: List[str]) -> List[str]:
        return [name + SUFFIX if name in names else name for name in given]

    return onnx_bytes.rewired(node, new(node.inputs), new(node.outputs))


def _cast(source: str, result: str, kind: int) -> Field:
    """A Cast node, named after its tensors, so that it belongs to their slot."""
    return onnx_bytes.made_node("Cast", f"{result}_cast", [source], result, to=kind)
