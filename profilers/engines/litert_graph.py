"""An ONNX graph on its way into a LiteRT model: what was written, in which layout and numbers.

LiteRT's convolutions want images as (batch, height, width, channels); a series is an image of
height 1. Tensors that no such operator touches, as (batch, tokens, features), stay as they are. A
tensor that the graph quantises is int8 where an operator over int8 makes or reads it, else float.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from profilers import onnx_bytes
from profilers.engines.litert_model import LiteRtModel, Scales
from profilers.errors import MissingKernelError
from profilers.onnx_bytes import INPUT, OUTPUT, Node

Shape = Tuple[int, ...]
NONE, RELU, RELU6 = 0, 1, 3  # of ActivationFunctionType
IMAGES = (3, 4)  # ranks of what may have channels and places
FALLBACK = "run it in ONNX Runtime, by a target of the runtime ort-cpu"


class Value(NamedTuple):
    """A tensor: its number, its shape in the ONNX graph, whether its channels are last here, and
    its scales where it is int8.
    """

    number: int
    shape: Shape
    last: bool
    scales: Optional[Scales] = None

    def axis(self, axis: int) -> int:
        """Where an axis of the ONNX graph is here."""
        axis %= len(self.shape)
        if not self.last or axis == 0:
            return axis
        return 3 if axis == 1 else axis + 3 - len(self.shape)

    @property
    def stored(self) -> Shape:
        """Its shape here."""
        return stored(self.shape, self.last)


def stored(shape: Shape, last: bool) -> Shape:
    """The shape here of a tensor of the ONNX graph."""
    if not last:
        return shape
    n, channels, *places = shape
    return (n, *[1] * (2 - len(places)), *places, channels)


def lacking(node: Node, what: str = "") -> MissingKernelError:
    """The error of an op that cannot be written."""
    words = f"{node.op} {what}".strip()
    return MissingKernelError(f"LiteRT has no {words} (node {node.name}); {FALLBACK}")


class Source:
    """The ONNX graph: its nodes and constants, pairs of QuantizeLinear and DequantizeLinear taken
    out and remembered as scales of the tensor before them.
    """

    def __init__(self, model: bytes, folder: Path) -> None:
        graph = onnx_bytes.graph_of(model)
        self._tensors = {tensor.name: tensor for tensor in onnx_bytes.tensors_of(graph)}
        self._folder = folder
        self._steps: Dict[str, Tuple[np.ndarray, Scales]] = {}  # constants in int8 or int32
        self.scales: Dict[str, Scales] = {}  # of activations
        shapes = onnx_bytes.shapes_of(graph, INPUT)
        self.inputs = {name: shapes[name] for name in shapes if name not in self._tensors}
        before: Dict[str, str] = {}  # tensors by their name after a pair
        self.nodes: List[Node] = []
        for node in onnx_bytes.nodes_of(graph):
            if node.op not in ("QuantizeLinear", "DequantizeLinear"):
                read = [before.get(name, name) for name in node.inputs]
                self.nodes.append(node._replace(inputs=read))
            elif node.inputs[0] in self._tensors:
                self._steps[node.outputs[0]] = self._in_steps(node)
            else:
                name = before.get(node.inputs[0], node.inputs[0])
                before[node.outputs[0]] = name
                self.scales[name] = self._scales(node)
        self.outputs = [before.get(name, name) for name, _ in onnx_bytes.values_of(graph, OUTPUT)]
        self._makers = {name: node for node in self.nodes for name in node.outputs}
        self._readers: Dict[str, List[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)

    def _scales(self, node: Node) -> Scales:
        """Of a node of a pair, as of int8."""
        scale, zero = self.constant(node.inputs[1]), np.zeros((), np.int8)
        if node.inputs[2:]:
            zero = self.constant(node.inputs[2])
        shift = 128 if zero.dtype == np.uint8 else 0
        axis = onnx_bytes.attributes_of(node).get("axis", 0)
        return Scales(scale, int(np.ravel(zero)[0]) - shift, axis)

    def _in_steps(self, node: Node) -> Tuple[np.ndarray, Scales]:
        steps = self.constant(node.inputs[0])
        if steps.dtype == np.uint8:
            steps = (steps.astype(np.int16) - 128).astype(np.int8)
        return steps, self._scales(node)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor's numbers are in the file."""
        return name in self._tensors or name in self._steps

    def constant(self, name: str) -> np.ndarray:
        """The numbers of a tensor of the file.

        Raises:
            MissingKernelError: they are computed.
        """
        if name in self._steps:
            steps, scales = self._steps[name]
            wide = [1] * steps.ndim
            if scales.scale.size > 1:
                wide[scales.axis] = -1
            values: np.ndarray = (steps.astype(np.float32) - scales.zero) * scales.scale.reshape(
                wide
            )
            return values
        if name not in self._tensors:
            raise MissingKernelError(f"LiteRT needs {name} to be a constant; {FALLBACK}")
        return onnx_bytes.value_of(self._tensors[name], self._folder)

    def steps(self, name: str) -> Tuple[np.ndarray, Scales]:
        """The whole numbers of a constant, and what they stand for."""
        return self._steps[name]

    def is_whole(self, inputs: Sequence[str], output: str) -> bool:
        """Whether all of what an op reads and makes is quantised."""
        known = all(name in self.scales or name in self._steps for name in inputs)
        return known and output in self.scales

    def maker(self, name: str, op: str) -> Optional[Node]:
        """The node whose result a tensor is, where it is of this op."""
        found = self._makers.get(name)
        return found if found is not None and found.op == op else None

    def reader(self, name: str, op: str) -> Optional[Node]:
        """The node that alone reads a tensor, where it is of this op."""
        found = [] if name in self.outputs else self._readers.get(name, [])
        return found[0] if len(found) == 1 and found[0].op == op else None


class Graph(Source):
    """What was written of a graph, and what is left."""

    def __init__(self, model: bytes, folder: Path) -> None:
        """Nothing is written yet.

        Args:
            model: an ONNX file with static shapes.
            folder: where its weights are, if not inside.
        """
        super().__init__(model, folder)
        self.out = LiteRtModel()
        self.done: Set[str] = set()  # results of nodes that were written with another one
        self.positive: Set[str] = set()  # tensors that hold no number below zero
        self._written: Dict[str, Value] = {}
        self._others: Dict[Tuple[str, bool, bool], Value] = {}  # in other layouts and numbers

    # ---- what is read --------------------------------------------------------------------------

    def value(self, name: str) -> Value:
        """A tensor as it was written."""
        return self._written[name]

    def read(self, name: str, last: Optional[bool] = None, whole: bool = False) -> Value:
        """A tensor with its channels where they are wanted (None: where they are), in float or
        int8.
        """
        value = self._written[name]
        last = value.last if last is None or len(value.shape) not in IMAGES else last
        key = (name, last, whole)
        if key not in self._others:
            value = self._moved(name, value) if value.last != last else value
            self._others[key] = self._cast(name, value) if bool(value.scales) != whole else value
        return self._others[key]

    def _cast(self, name: str, value: Value) -> Value:
        """The same tensor in float, or in int8."""
        scales, code = (None, "DEQUANTIZE") if value.scales else (self.scales[name], "QUANTIZE")
        number = self.put(code, [value.number], f"{name}/{code.lower()}", value.stored, scales)
        return value._replace(number=number, scales=scales)

    def _moved(self, name: str, value: Value) -> Value:
        """The same tensor with its channels in the other place."""
        n, channels, *places = value.shape
        number, image = value.number, (n, channels, *[1] * (2 - len(places)), *places)
        there = stored(value.shape, not value.last)
        if 1 not in (channels, math.prod(places)):  # else the numbers stay in their order
            number = number if value.last else self.reshaped(name, value, image)
            axis = self.whole(f"{name}/axes", (0, 3, 1, 2) if value.last else (0, 2, 3, 1))
            shape = image if value.last else there
            number = self.put("TRANSPOSE", [number, axis], f"{name}/moved", shape, value.scales)
        number = self.reshaped(name, value._replace(number=number), there)
        return value._replace(number=number, last=not value.last)

    # ---- what is written -----------------------------------------------------------------------

    def put(
        self,
        code: str,
        inputs: Sequence[int],
        name: str,
        shape: Sequence[int],
        scales: Optional[Scales] = None,
        **options: Any,
    ) -> int:
        """Write an operator; the number of its result, which is int8 where it has scales."""
        number = self.out.tensor(name, shape, np.float32 if scales is None else np.int8, scales)
        self.out.operator(code, inputs, number, **options)
        return number

    def result(
        self, code: str, inputs: Sequence[int], name: str, value: Value, **options: Any
    ) -> None:
        """Write an operator whose result is a tensor of the ONNX graph, laid out as `value`, and
        int8 where that is.
        """
        scales = self.scales[name] if value.scales else None
        number = self.put(code, inputs, name, value.stored, scales, **options)
        self.keep(name, value._replace(number=number, scales=scales))

    def keep(self, name: str, value: Value) -> None:
        """Remember what a tensor of the ONNX graph is here."""
        self._written[name] = value

    def whole(self, name: str, numbers: Any) -> int:
        """A constant of whole numbers."""
        return self.out.constant(name, np.array(numbers, np.int32))

    def single(self, name: str, numbers: Any) -> int:
        """A constant of floats."""
        return self.out.constant(name, np.array(numbers, np.float32))

    def reshaped(self, name: str, value: Value, shape: Sequence[int]) -> int:
        """A tensor in another shape."""
        if self.out.shape(value.number) == list(shape):
            return value.number
        given = [value.number, self.whole(f"{name}/shape", shape)]
        sizes = np.array(shape, np.int32)
        return self.put("RESHAPE", given, f"{name}/reshaped", shape, value.scales, newShape=sizes)

    def ended(self, node: Node) -> Tuple[int, str]:
        """Which activation is written with a node, and the tensor that comes out then."""
        name = node.outputs[0]
        after = self.reader(name, "Relu") or self.reader(name, "Clip")
        if after is None or name in self.scales:
            return NONE, name
        if after.op == "Clip" and self.bounds(after) != (0.0, 6.0):
            return NONE, name
        self.done.add(after.outputs[0])
        self.positive.add(after.outputs[0])
        return (RELU if after.op == "Relu" else RELU6), after.outputs[0]

    def bounds(self, clip: Node) -> Tuple[float, float]:
        """Of a Clip."""
        ends = [float(self.constant(name)) for name in clip.inputs[1:]]
        return (ends[0], ends[1]) if len(ends) == 2 else (-math.inf, math.inf)
