"""An fp32 ONNX graph to one in 8 bits: pairs of QuantizeLinear and DequantizeLinear.

Weights are int8 with a scale for each output channel, activations of 8 bits with one scale each,
biases int32 with the product of both; engines join the pairs round an op to an integer kernel. Ops
without one stay in float between pairs. New nodes and tensors are named after the slot of what they
belong to. Source: ONNX operators; ONNX Runtime, "Quantize ONNX Models".
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Sequence, Set

import numpy as np

from profilers import onnx_bytes
from profilers.errors import ConfigError
from profilers.onnx_bytes import INITIALIZER, INPUT, NODE, OUTPUT, VALUE_INFO, Field, Node, Tensor
from profilers.precisions import Range

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = ("Conv", "Gemm", "MatMul")
INTEGER = (*WEIGHTED, "Add", "Mul", "GlobalAveragePool", "Concat")
MOVING = ("Flatten", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
CLIPPING = ("Relu", "Clip")  # done by the quantisation of what they follow
FLOAT_END = ("Gemm", "MatMul")  # have kernels with float results
LEAST_OPSET = 13  # of a scale for each channel
LEAST_RANGE = 1e-6  # of an activation that is constant
BIAS_LIMIT = 1 << 30


class Recipe(NamedTuple):
    """How a network is written for a class of devices.

    Attributes:
        signed: activations are int8, else uint8.
        symmetric: the zero point of activations is 0.
        weight_limit: largest magnitude of a weight.
        bias: whether biases are quantised.
        least_channels: convolutions that read fewer stay in float, which is quicker there.
    """

    signed: bool
    symmetric: bool
    weight_limit: int
    bias: bool
    least_channels: int = 0


class Placed(NamedTuple):
    """A graph, and where it is quantised.

    Attributes:
        model: the file.
        graph: its fields.
        nodes: in order.
        tensors: initializers by name.
        results: names of the graph's outputs.
        pairs: tensors that are quantised, in the order in which they are written.
        integer: outputs of nodes with an integer kernel.
        clipped: results of Relu and Clip that the quantisation of what they follow does, by the
            name of that.
        moved: what a moved tensor was before, by name: its scale is the same.
    """

    model: bytes
    graph: List[Field]
    nodes: List[Node]
    tensors: Dict[str, Tensor]
    results: Set[str]
    pairs: List[str]
    integer: Set[str]
    clipped: Dict[str, str]
    moved: Dict[str, str]

    @property
    def is_done(self) -> bool:
        """Whether the file is quantised already."""
        return any(node.op in (QUANTISE, DEQUANTISE) for node in self.nodes)

    @property
    def ranged(self) -> Dict[str, str]:
        """Tensors whose ranges decide how the graph is written, and the ops that make them."""
        makers = {node.outputs[0]: node.op for node in self.nodes}
        return {name: makers.get(name, "") for name in self.pairs if name not in self.moved}

    @property
    def in_float(self) -> Dict[str, int]:
        """How many nodes of each op compute in float."""
        done = self.integer | {self.clipped[name] for name in self.integer & set(self.clipped)}
        left = Counter(node.op for node in self.nodes if node.outputs[0] not in done)
        return dict(sorted(left.items()))


def placed(model: bytes, least_channels: int = 0) -> Placed:
    """Where a file is quantised: at both ends of every node with an integer kernel.

    Args:
        model: an ONNX file.
        least_channels: convolutions that read fewer stay in float.

    Raises:
        ConfigError: it cannot be read, or is of an opset without a scale for each channel.
    """
    graph = onnx_bytes.graph_of(model)
    try:
        nodes = onnx_bytes.nodes_of(graph)
        tensors = {tensor.name: tensor for tensor in onnx_bytes.tensors_of(graph)}
        results = {name for name, _ in onnx_bytes.values_of(graph, OUTPUT)}
        given = [name for name, _ in onnx_bytes.values_of(graph, INPUT) if name not in tensors]
        opset = onnx_bytes.opset_of(model)
        found = Placed(model, graph, nodes, tensors, results, [], set(), {}, {})
        _place(found, given, least_channels)
    except (IndexError, KeyError, ValueError, TypeError):
        raise onnx_bytes.unreadable() from None
    if opset < LEAST_OPSET:
        raise ConfigError(
            f"the model is of ONNX opset {opset}, int8 needs {LEAST_OPSET}; export it again"
        )
    return found


def _place(found: Placed, given: Sequence[str], least_channels: int) -> None:
    readers = Counter(name for node in found.nodes for name in node.inputs)
    integer = {
        node.outputs[0]
        for node in found.nodes
        if _has_kernel(node, found.tensors)
        and not (node.op == "Conv" and _channels(node, found.tensors) < least_channels)
    }
    for node in found.nodes:
        source = node.inputs[0] if node.inputs else ""
        alone = readers[source] == 1 and source not in found.results
        if node.op in CLIPPING and source in integer and alone:
            found.clipped[source] = node.outputs[0]
    wanted: Set[str] = set()
    for node in found.nodes:
        out = node.outputs[0]
        if out in integer:
            wanted |= {name for name in node.inputs if name and name not in found.tensors}
            end = found.clipped.get(out, out)
            if end not in found.results or node.op not in FLOAT_END:
                wanted.add(end)
        elif node.op in MOVING and node.inputs[0] in wanted and len(node.outputs) == 1:
            wanted.add(out)
            found.moved[out] = node.inputs[0]
    found.integer.update(integer, found.moved)
    found.pairs.extend(name for name in given if name in wanted)
    found.pairs.extend(node.outputs[0] for node in found.nodes if node.outputs[0] in wanted)


def _channels(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """Channels that a convolution reads."""
    groups: int = onnx_bytes.attributes_of(node).get("group", 1)
    return groups * tensors[node.inputs[1]].dims[1]


def _has_kernel(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    """Whether engines compute a node in integers as it is written."""
    if node.op not in INTEGER or len(node.outputs) != 1:
        return False
    if node.op not in ("Conv", "Gemm"):
        return any(name not in tensors for name in node.inputs)
    told = onnx_bytes.attributes_of(node)
    plain = told.get("alpha", 1.0) == told.get("beta", 1.0) == 1.0 and not told.get("transA")
    biases = [len(tensors[name].dims) for name in node.inputs[2:] if name in tensors]
    fixed = all(name in tensors for name in node.inputs[1:]) and biases in ([], [1])
    return plain and fixed and node.inputs[0] not in tensors


# ---- numbers ------------------------------------------------------------------------------------


class Scale(NamedTuple):
    """Of an activation: value = scale * (number - zero)."""

    scale: np.float32
    zero: int


def scale_of(low: float, high: float, recipe: Recipe) -> Scale:
    """Scale and zero point of a range, which is widened to hold 0.

    Raises:
        ConfigError: an end is not a number.
    """
    if not np.isfinite([low, high]).all():
        raise ConfigError("an activation is not a number; the network's weights are useless")
    low, high = min(low, 0.0), max(high, 0.0)
    if recipe.symmetric:
        return Scale(np.float32(max(-low, high, LEAST_RANGE) / 127), 0)
    step = max(high - low, LEAST_RANGE) / 255
    scale = np.float32(step)
    if float(scale) > step:  # the range may not pass the bounds of a Clip that it replaces
        scale = np.nextafter(scale, np.float32(0))
    return Scale(scale, round(-low / step) - (128 if recipe.signed else 0))


def as_steps(values: np.ndarray, scale: Scale, dtype: str) -> np.ndarray:
    """Values of any shape in steps of a scale, of an integer type."""
    ends = np.iinfo(dtype)
    steps: np.ndarray = np.rint(values / scale.scale) + scale.zero
    held: np.ndarray = np.clip(steps, ends.min, ends.max).astype(dtype)
    return held


def weight_scales(
    weight: np.ndarray, axis: int, limit: int, bias: np.ndarray, given: float
) -> np.ndarray:
    """(channels,) scale of each channel of a weight; such that its bias fits in 32 bits.

    Args:
        weight: any shape.
        axis: of the channels.
        limit: largest magnitude of a weight in steps.
        bias: (channels,), or empty.
        given: scale of what the weight is multiplied with.
    """
    others = tuple(n for n in range(weight.ndim) if n != axis % weight.ndim)
    scales = np.abs(weight).max(axis=others) / limit
    if bias.size:
        scales = np.maximum(scales, np.abs(bias) / (given * BIAS_LIMIT))
    found: np.ndarray = np.where(scales > 0, scales, 1.0).astype("<f4")
    return found


# ---- the new graph ------------------------------------------------------------------------------


def written(found: Placed, folder: Path, recipe: Recipe, ranges: Mapping[str, Range]) -> bytes:
    """The file with its pairs; weights are inside.

    Args:
        found: of `placed`.
        folder: where its weights are, if not inside.
        recipe: how it is written.
        ranges: least and largest value of each tensor of `ranged`.
    """
    try:
        return _Writer(found, Path(folder), recipe, ranges).model()
    except ConfigError:
        raise
    except (IndexError, KeyError, ValueError, TypeError):
        raise onnx_bytes.unreadable() from None


class _Writer:
    """A graph on its way into another one."""

    def __init__(
        self, found: Placed, folder: Path, recipe: Recipe, ranges: Mapping[str, Range]
    ) -> None:
        self._found, self._folder, self._recipe = found, folder, recipe
        self._dtype = "i1" if recipe.signed else "u1"
        self._scales: Dict[str, Scale] = {}
        for name in found.pairs:
            moved = found.moved.get(name)
            self._scales[name] = self._scales[moved] if moved else scale_of(*ranges[name], recipe)
        self._makers = {node.outputs[0]: node for node in found.nodes}
        self._body: List[Field] = []
        self._new: Dict[str, Field] = {}  # initializers
        self._kept: Set[str] = set()
        self._weights: Dict[str, np.ndarray] = {}  # scales of those that are written
        self._read_as: Dict[str, str] = {}  # constants by their name after DequantizeLinear

    def model(self) -> bytes:
        """The whole file."""
        found = self._found
        for name in found.pairs:
            if name not in self._makers:
                self._pair(name, name, f"{self._base(name)}_dq")
        for node in found.nodes:
            self._node(node)
        old = [self._old(found.tensors[name]) for name in found.tensors if name in self._kept]
        rest = [f for f in found.graph if f[0] not in (NODE, INITIALIZER, VALUE_INFO)]
        graph = [*self._body, *old, *self._new.values(), *rest]
        return onnx_bytes.with_graph(found.model, graph)

    def _node(self, node: Node) -> None:
        """A node, with what it reads before it and the pair of its result after it."""
        out, results = node.outputs[0], self._found.results
        reads = [self._read(node, place, name) for place, name in enumerate(node.inputs)]
        paired = out in self._scales
        first = f"{self._base(out)}_float" if paired and out in results else out
        self._body.append(onnx_bytes.rewired(node, reads, [first, *node.outputs[1:]]))
        if paired:
            self._pair(out, first, out if out in results else f"{self._base(out)}_dq")

    def _read(self, node: Node, place: int, name: str) -> str:
        """What a node reads in place of a tensor."""
        if name in self._scales:  # of a result, what it was before it got its last name
            return name if name in self._found.results else f"{self._base(name)}_dq"
        if name not in self._found.tensors:
            return name
        if node.outputs[0] in self._found.integer and node.outputs[0] not in self._found.moved:
            slot = self._base(node.outputs[0]).partition("/")[0]
            if node.op in WEIGHTED and place == 1:
                return self._weight(node, slot)
            if node.op in WEIGHTED and place == 2:
                return self._bias(node, slot) if self._recipe.bias else self._keep(name)
            return self._fixed(name, slot)
        return self._keep(name)

    def _base(self, name: str) -> str:
        """What the names round an activation begin with: its slot."""
        if name in self._makers:
            return (self._makers[name].name if name in self._found.results else "") or name
        reader = next(node.name for node in self._found.nodes if name in node.inputs)
        slot, _, rest = reader.partition("/")
        return f"{slot}/{name}" if rest else name

    def _pair(self, name: str, source: str, last: str) -> None:
        """QuantizeLinear and DequantizeLinear of an activation."""
        base, (scale, zero) = self._base(name), self._scales[name]
        given = [self._constant(np.array(scale, "<f4")), self._zero(zero)]
        q = f"{base}_q"
        self._body.append(onnx_bytes.made_node(QUANTISE, q, [source, *given], q))
        self._body.append(onnx_bytes.made_node(DEQUANTISE, f"{base}_dq", [q, *given], last))

    def _fixed(self, name: str, slot: str) -> str:
        """A constant in the steps of activations."""
        if name not in self._read_as:
            value = self._value(name)
            scale, zero = scale_of(float(value.min()), float(value.max()), self._recipe)
            given = [self._constant(np.array(scale, "<f4")), self._zero(zero)]
            steps = as_steps(value, Scale(scale, zero), self._dtype)
            self._read_as[name] = self._from_steps(slot, steps, given)
        return self._read_as[name]

    def _weight(self, node: Node, slot: str) -> str:
        name = node.inputs[1]
        if name not in self._read_as:
            weight, axis, limit = self._value(name), 0, self._recipe.weight_limit
            if node.op == "MatMul" or (
                node.op == "Gemm" and not onnx_bytes.attributes_of(node).get("transB")
            ):
                axis = weight.ndim - 1
            bias = self._value(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(0)
            given = float(self._scales[node.inputs[0]].scale)
            scales = self._weights[name] = weight_scales(weight, axis, limit, bias, given)
            wide = scales.reshape([-1 if n == axis else 1 for n in range(weight.ndim)])
            steps = np.clip(np.rint(weight / wide), -limit, limit).astype("i1")
            about = [self._constant(scales), self._zeros(scales.size)]
            self._read_as[name] = self._from_steps(slot, steps, about, axis)
        return self._read_as[name]

    def _bias(self, node: Node, slot: str) -> str:
        name, given = node.inputs[2], self._scales[node.inputs[0]].scale
        if name not in self._read_as:
            scales = (self._weights[node.inputs[1]] * given).astype("<f4")
            steps = np.rint(self._value(name).astype(float) / scales)
            steps = np.clip(steps, -BIAS_LIMIT, BIAS_LIMIT).astype("<i4")
            self._read_as[name] = self._from_steps(slot, steps, [self._constant(scales)], 0)
        return self._read_as[name]

    def _from_steps(
        self, slot: str, steps: np.ndarray, given: Sequence[str], axis: int = -1
    ) -> str:
        """The name after DequantizeLinear of a constant."""
        name = self._constant(steps)
        last = f"{slot}/{name}"
        about = {"axis": axis} if axis >= 0 else {}
        self._body.append(onnx_bytes.made_node(DEQUANTISE, last, [name, *given], last, **about))
        return last

    def _zeros(self, channels: int) -> str:
        """The zero points of a weight; ONNX Runtime has no integer Gemm without."""
        return self._constant(np.zeros(channels, "i1"), f"_zero_i1_x{channels}")

    def _zero(self, zero: int) -> str:
        """One constant for each zero point."""
        return self._constant(np.array(zero, self._dtype), f"_zero_{self._dtype}_{zero}")

    def _constant(self, value: np.ndarray, name: str = "") -> str:
        """A constant, named by its number where none is shared: names make files 4 % larger."""
        name = name or f"_{len(self._new)}"
        if name not in self._new:
            self._new[name] = onnx_bytes.made_tensor(name, value)
        return name

    def _keep(self, name: str) -> str:
        self._kept.add(name)
        return name

    def _old(self, tensor: Tensor) -> Field:
        """A tensor that stays as it is, inside."""
        if onnx_bytes.is_external(tensor):
            return onnx_bytes.made_tensor(tensor.name, self._value(tensor.name))
        return INITIALIZER, onnx_bytes.BYTES, onnx_bytes.encode(tensor.fields)

    def _value(self, name: str) -> np.ndarray:
        return onnx_bytes.value_of(self._found.tensors[name], self._folder)
