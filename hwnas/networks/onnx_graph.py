"""Placed ops to ONNX: the one builder of micro-models, kit networks and exported packages.

Opset 17, IR 8, static shapes, BatchNorm already folded into weight and bias, no constants but
weights, shapes, single numbers (the bounds of relu6), and the ones and zeros of a GroupNorm, so the
initializers are the model's weight bytes. Every exported primitive is one node; node and tensor
names start with the op's slot, because optimisers rename nodes after their output tensor.
Hard-swish is written HardSigmoid then Mul: ONNX
Runtime fuses both spellings where it can, and this one keeps its names where it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from hwnas.networks.graph import INPUTS
from hwnas.networks.ops import BYTES
from hwnas.networks.placed import START, PlacedOp
from hwnas.networks.primitives import NORM_EPS, Primitive

OPSET, IR_VERSION = 17, 8
LARGEST = float(np.finfo(np.float32).max)
INPUT, OUTPUT = "image", "logits"


class Weight(NamedTuple):
    """A weight tensor: its name, shape, and fan-in (how many inputs one output sums; 0: no sum)."""

    name: str
    shape: tuple[int, ...]
    fan_in: int


def weights_of(ops: Iterable[PlacedOp]) -> list[Weight]:
    """Every weight tensor of the ops, in their order."""
    return [
        Weight(
            f"{placed.slot}/{p.name}/{role}",
            shape,
            math.prod(shape[1:]) if role == "weight" else 0,
        )
        for placed in ops
        for p in placed.op.exported
        for role, shape in p.weights.items()
    ]


def build(
    ops: Sequence[PlacedOp],
    weights: Mapping[str, np.ndarray],
    batch: int = 1,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The model of a network with its weights inside.

    Args:
        ops: in order; one op makes a micro-model.
        weights: float32 array of every tensor that `weights_of(ops)` names.
        batch: images of one inference.
        metadata: text kept in the model's properties.
    """
    tensors = []
    for weight in weights_of(ops):
        value = np.ascontiguousarray(weights[weight.name], dtype="<f4")
        if value.shape != weight.shape:
            raise ValueError(
                f"weight {weight.name} has shape {value.shape}, expected {weight.shape}"
            )
        tensors.append(
            helper.make_tensor(
                weight.name, TensorProto.FLOAT, weight.shape, value.tobytes(), raw=True
            )
        )
    return _model(ops, tensors, batch, metadata or {})


def build_external(
    ops: Sequence[PlacedOp],
    offsets: Mapping[str, int],
    batch: int = 1,
    location: str = "weights.bin",
) -> onnx.ModelProto:
    """The same model with its weights in a file beside it.

    Args:
        offsets: where each tensor of `weights_of(ops)` starts in the file, bytes.
        location: name of the file, in the model's own folder.
    """
    tensors = []
    for weight in weights_of(ops):
        tensor = TensorProto(name=weight.name, data_type=TensorProto.FLOAT, dims=weight.shape)
        tensor.data_location = TensorProto.EXTERNAL
        length = BYTES * math.prod(weight.shape)
        for key, value in (
            ("location", location),
            ("offset", offsets[weight.name]),
            ("length", length),
        ):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
    return _model(ops, tensors, batch, {})


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The model's file: equal models give equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))


def _model(
    ops: Sequence[PlacedOp], tensors: list[TensorProto], batch: int, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    outputs = {START: INPUT}
    for i, placed in enumerate(ops):
        reads = [outputs.get(name, INPUT) for name in placed.reads]
        named = dict(zip(INPUTS, reads if i else _read(placed), strict=False))
        for p in placed.op.exported:
            node, constants = _emit(placed.slot, p, named, batch)
            nodes.append(node)
            tensors = tensors + constants
        outputs[placed.slot] = nodes[-1].output[0]
    _rename_output(nodes, outputs[ops[-1].slot])
    graph = helper.make_graph(
        nodes,
        "hwnas",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
            for name, shape in inputs_of(ops).items()
        ],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [batch, *ops[-1].op.shape])],
        tensors,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="hwnas",
    )
    if metadata:
        helper.set_model_props(model, dict(sorted(metadata.items())))
    return model


def inputs_of(ops: Sequence[PlacedOp]) -> dict[str, tuple[int, ...]]:
    """Name and shape, without the batch, of each input of the model of some ops: one, but for a
    micro-model of an op that reads several.
    """
    return dict(zip(_read(ops[0]), ops[0].op.inputs, strict=True))


def _read(first: PlacedOp) -> list[str]:
    """Name of each input that the first op of a model reads; the network's own counts once."""
    sources = [name if name == START else str(i) for i, name in enumerate(first.reads)]
    number = {source: i for i, source in enumerate(dict.fromkeys(sources))}
    return [f"{INPUT}{number[s] + 1}" if number[s] else INPUT for s in sources]


def _rename_output(nodes: list[onnx.NodeProto], last: str) -> None:
    for node in nodes:
        node.input[:] = [OUTPUT if name == last else name for name in node.input]
        node.output[:] = [OUTPUT if name == last else name for name in node.output]


def _emit(
    slot: str, p: Primitive, named: Mapping[str, str], batch: int
) -> tuple[onnx.NodeProto, list[TensorProto]]:
    """The ONNX node of one exported primitive, and the constants that it reads."""
    name = f"{slot}/{p.name}"
    operator, attributes, constants = NODES[p.kind](p, batch)
    tensors = [
        helper.make_tensor(f"{name}/{role}", kind, shape, value)
        for role, (kind, shape, value) in constants.items()
    ]
    inputs = [named.get(source, f"{slot}/{source}") for source in p.inputs]
    inputs += [f"{name}/{role}" for role in p.weights] + [tensor.name for tensor in tensors]
    return helper.make_node(operator, inputs, [name], name=name, **attributes), tensors


# ---- one node for each primitive ----------------------------------------------------------------

_Node = tuple[str, dict[str, Any], dict[str, Any]]  # operator, attributes, constants by name


def _plain(operator: str, **attributes: Any) -> Callable[[Primitive, int], _Node]:
    return lambda p, batch: (operator, attributes, {})


def _number(value: float) -> tuple[int, tuple[int, ...], list[float]]:
    return TensorProto.FLOAT, (), [value]


def _numbers(values: Sequence[int]) -> tuple[int, tuple[int, ...], list[int]]:
    return TensorProto.INT64, (len(values),), list(values)


def _window(p: Primitive) -> dict[str, Any]:
    pads = [pad[0] for pad in p.args["pads"]] + [pad[1] for pad in p.args["pads"]]
    given = {"kernel_shape": p.args["kernel"], "strides": p.args["stride"], "pads": pads}
    return {**given, "dilations": p.args["dilation"]} if max(p.args["dilation"]) > 1 else given


def _conv(p: Primitive, batch: int) -> _Node:
    return "Conv", {"group": p.args["groups"], **_window(p)}, {}


def _mean(p: Primitive, batch: int) -> _Node:
    if p.args["keep"] and p.args["axes"] == tuple(range(1, len(p.shapes[0]))):
        return "GlobalAveragePool", {}, {}
    return "ReduceMean", _reduced(p), {}


def _reduced(p: Primitive) -> dict[str, Any]:
    axes = [axis + 1 for axis in p.args["axes"]]
    return {"axes": axes, "keepdims": int(p.args["keep"])}


def _clip(p: Primitive, batch: int) -> _Node:
    low, high = max(p.args["low"], -LARGEST), min(p.args["high"], LARGEST)
    return "Clip", {}, {"min": _number(low), "max": _number(high)}


def _affine(p: Primitive, batch: int) -> _Node:
    if p.args["offset"]:
        return "Add", {}, {"offset": _number(p.args["offset"])}
    return "Mul", {}, {"factor": _number(p.args["factor"])}


def _reshape(p: Primitive, batch: int) -> _Node:
    if len(p.shape) == 1:
        return "Flatten", {}, {}
    return "Reshape", {}, {"shape": _numbers([batch, *p.shape])}


def _slice(p: Primitive, batch: int) -> _Node:
    values = {"starts": p.args["start"], "ends": p.args["stop"], "axes": p.args["axis"] + 1}
    return "Slice", {}, {name: _numbers([value]) for name, value in values.items()}


def _level(p: Primitive, batch: int) -> _Node:
    rows = p.shape[0]
    given = {"scale": [1.0] * rows, "bias": [0.0] * rows}
    constants = {name: (TensorProto.FLOAT, (rows,), values) for name, values in given.items()}
    return "InstanceNormalization", {"epsilon": p.args["eps"]}, constants


UPSAMPLED = {  # by mode
    "nearest": {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    },
    "linear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "corners": {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
}


def _upsample(p: Primitive, batch: int) -> _Node:
    scales = [1.0, 1.0, *(float(p.args["factor"]),) * (len(p.shape) - 1)]
    attributes = UPSAMPLED[p.args.get("mode", "nearest")]
    roi: tuple[int, tuple[int, ...], list[float]] = (TensorProto.FLOAT, (0,), [])
    return (
        "Resize",
        attributes,
        {"roi": roi, "scales": (TensorProto.FLOAT, (len(scales),), scales)},
    )


def _pad(p: Primitive, batch: int) -> _Node:
    before, after = zip(*p.args["pads"], strict=True)
    pads = {"pads": _numbers([0, 0, *before, 0, 0, *after])}
    value = p.args.get("value", 0.0)
    return "Pad", {}, {**pads, "value": _number(value)} if value else pads


NODES: dict[str, Callable[[Primitive, int], _Node]] = {
    "conv": _conv,
    "linear": lambda p, batch: ("Gemm", {"transB": 1}, {}),
    "product": _plain("MatMul"),
    "times": _plain("Mul"),
    "plus": _plain("Add"),
    "layer_norm": lambda p, batch: (
        "LayerNormalization",
        {"axis": -1, "epsilon": p.args.get("eps", NORM_EPS)},
        {},
    ),
    "level": _level,
    "relu": _plain("Relu"),
    "relu6": lambda p, batch: ("Clip", {}, {"min": _number(0.0), "max": _number(6.0)}),
    "leaky_relu": lambda p, batch: ("LeakyRelu", {"alpha": p.args["slope"]}, {}),
    "tanh": _plain("Tanh"),
    "softplus": _plain("Softplus"),
    "clip": lambda p, batch: (
        "Clip",
        {},
        {
            "min": _number(max(p.args["low"], -LARGEST)),
            "max": _number(min(p.args["high"], LARGEST)),
        },
    ),
    "sigmoid": _plain("Sigmoid"),
    "h_sigmoid": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "affine": _affine,
    "erf": _plain("Erf"),
    **{name: _plain(name.title()) for name in ("add", "sub", "mul", "div")},
    "concat": lambda p, batch: ("Concat", {"axis": p.args["axis"] + 1}, {}),
    "max_pool": lambda p, batch: ("MaxPool", _window(p), {}),
    "avg_pool": lambda p, batch: ("AveragePool", {**_window(p), "count_include_pad": 0}, {}),
    "mean": _mean,
    "length": lambda p, batch: ("ReduceL2", _reduced(p), {}),
    "matmul": _plain("MatMul"),
    "softmax": _plain("Softmax", axis=-1),
    "reshape": _reshape,
    "transpose": lambda p, batch: (
        "Transpose",
        {"perm": [0, *(axis + 1 for axis in p.args["axes"])]},
        {},
    ),
    "slice": _slice,
    "upsample": _upsample,
    "pad": _pad,
}
