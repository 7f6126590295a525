"""An ONNX graph on its way into a LiteRT model: what was written, and in which layout it lies.

LiteRT's convolutions want images as (batch, height, width, channels); a series is an image of
height 1. Tensors that no such operator touches, as (batch, tokens, features), stay as they are.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from profilers import onnx_bytes
from profilers.engines.litert_model import LiteRtModel
from profilers.errors import ModelError
from profilers.onnx_bytes import INPUT, OUTPUT, Node

Shape = Tuple[int, ...]
NONE, RELU, RELU6 = 0, 1, 3  # of ActivationFunctionType
IMAGES = (3, 4)  # ranks of what may have channels and places
FALLBACK = "run it in ONNX Runtime, by a target of the runtime ort-cpu"


class Value(NamedTuple):
    """A tensor: its number, its shape in the ONNX graph, and whether its channels are last here."""

    number: int
    shape: Shape
    last: bool

    def axis(self, axis: int) -> int:
        """Where an axis of the ONNX graph is here."""
        axis %= len(self.shape)
        if not self.last or axis == 0:
            return axis
        return 3 if axis == 1 else axis + 3 - len(self.shape)


def stored(shape: Shape, last: bool) -> Shape:
    """The shape here of a tensor of the ONNX graph."""
    if not last:
        return shape
    n, channels, *places = shape
    return (n, *[1] * (2 - len(places)), *places, channels)


def lacking(node: Node, what: str = "") -> ModelError:
    """The error of an op that cannot be written."""
    words = f"{node.op} {what}".strip()
    return ModelError(f"LiteRT has no {words} (node {node.name}); {FALLBACK}")


class Graph:
    """What was written of a graph, and what is left."""

    def __init__(self, model: bytes, folder: Path) -> None:
        """Nothing is written yet.

        Args:
            model: an ONNX file with static shapes.
            folder: where its weights are, if not inside.
        """
        graph = onnx_bytes.graph_of(model)
        self.out = LiteRtModel()
        self.nodes = onnx_bytes.nodes_of(graph)
        self._tensors = {tensor.name: tensor for tensor in onnx_bytes.tensors_of(graph)}
        shapes = onnx_bytes.shapes_of(graph, INPUT)
        self.inputs = {name: shapes[name] for name in shapes if name not in self._tensors}
        self.outputs = [name for name, _ in onnx_bytes.values_of(graph, OUTPUT)]
        self.done: Set[str] = set()  # results of nodes that were written with another one
        self.positive: Set[str] = set()  # tensors that hold no number below zero
        self._folder = folder
        self._makers = {name: node for node in self.nodes for name in node.outputs}
        self._readers: Dict[str, List[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)
        self._values: Dict[Tuple[str, bool], Value] = {}
        self._written: Dict[str, Value] = {}

    # ---- what is read --------------------------------------------------------------------------

    def is_constant(self, name: str) -> bool:
        """Whether a tensor's numbers are in the file."""
        return name in self._tensors

    def constant(self, name: str) -> np.ndarray:
        """The numbers of a tensor of the file.

        Raises:
            ModelError: they are computed.
        """
        if name not in self._tensors:
            raise ModelError(f"LiteRT needs {name} to be a constant; {FALLBACK}")
        return onnx_bytes.value_of(self._tensors[name], self._folder)

    def maker(self, name: str, op: str) -> Optional[Node]:
        """The node whose result a tensor is, where it is of this op."""
        found = self._makers.get(name)
        return found if found is not None and found.op == op else None

    def reader(self, name: str, op: str) -> Optional[Node]:
        """The node that alone reads a tensor, where it is of this op."""
        found = self._readers.get(name, [])
        return (
            found[0] if len(found) == 1 and found[0].op == op and name not in self.outputs else None
        )

    def value(self, name: str) -> Value:
        """A tensor as it was written."""
        return self._written[name]

    def read(self, name: str, last: bool) -> Value:
        """A tensor with its channels where they are wanted."""
        value = self._written[name]
        if value.last == last or len(value.shape) not in IMAGES:
            return value
        if (name, last) not in self._values:
            self._values[name, last] = self._moved(name, value)
        return self._values[name, last]

    def _moved(self, name: str, value: Value) -> Value:
        """The same tensor with its channels in the other place."""
        n, channels, *places = value.shape
        number, image = value.number, (n, channels, *[1] * (2 - len(places)), *places)
        if 1 not in (channels, math.prod(places)):  # else the numbers stay in their order
            axes, shape = ((0, 3, 1, 2), image) if value.last else ((0, 2, 3, 1), ())
            number = number if value.last else self.reshaped(name, number, image)
            axis = self.whole(f"{name}/axes", axes)
            shape = shape or stored(value.shape, True)
            number = self.put("TRANSPOSE", [number, axis], f"{name}/moved", shape)
        number = self.reshaped(name, number, stored(value.shape, not value.last))
        return Value(number, value.shape, not value.last)

    # ---- what is written -----------------------------------------------------------------------

    def put(
        self, code: str, inputs: Sequence[int], name: str, shape: Sequence[int], **options: Any
    ) -> int:
        """Write an operator; the number of its result."""
        number = self.out.tensor(name, shape, np.float32, None)
        self.out.operator(code, inputs, number, **options)
        return number

    def result(
        self, code: str, inputs: Sequence[int], name: str, value: Value, **options: Any
    ) -> None:
        """Write an operator whose result is a tensor of the ONNX graph, laid out as `value`."""
        number = self.put(code, inputs, name, stored(value.shape, value.last), **options)
        self.keep(name, value._replace(number=number))

    def keep(self, name: str, value: Value) -> None:
        """Remember what a tensor of the ONNX graph is here."""
        self._written[name] = value

    def whole(self, name: str, numbers: Any) -> int:
        """A constant of whole numbers."""
        return self.out.constant(name, np.array(numbers, np.int32))

    def single(self, name: str, numbers: Any) -> int:
        """A constant of floats."""
        return self.out.constant(name, np.array(numbers, np.float32))

    def reshaped(self, name: str, number: int, shape: Sequence[int]) -> int:
        """A tensor in another shape."""
        if self.out.shape(number) == list(shape):
            return number
        wanted = self.whole(f"{name}/shape", shape)
        sizes = np.array(shape, np.int32)
        return self.put("RESHAPE", [number, wanted], f"{name}/reshaped", shape, newShape=sizes)

    def ended(self, node: Node) -> Tuple[int, str]:
        """Which activation is written with a node, and the tensor that comes out then."""
        name = node.outputs[0]
        after = self.reader(name, "Relu") or self.reader(name, "Clip")
        if after is None or (after.op == "Clip" and self.bounds(after) != (0.0, 6.0)):
            return NONE, name
        self.done.add(after.outputs[0])
        self.positive.add(after.outputs[0])
        return (RELU if after.op == "Relu" else RELU6), after.outputs[0]

    def bounds(self, clip: Node) -> Tuple[float, float]:
        """Of a Clip."""
        ends = [float(self.constant(name)) for name in clip.inputs[1:]]
        return (ends[0], ends[1]) if len(ends) == 2 else (-math.inf, math.inf)
