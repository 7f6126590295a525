"""Placed ops to ONNX: the one builder of micro-models, kit networks and exported packages.

Opset 17, IR 8, static shapes, BatchNorm already folded into weight and bias, no constants but
weights and the two bounds of relu6, so the initializers are the model's weight bytes. Node and
tensor names start with the op's slot, because optimisers rename nodes after their output tensor.
Hard-swish is written HardSigmoid then Mul: ONNX Runtime fuses both spellings where it can, and this
one keeps its names where it cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from hwnas.networks.space import PlacedOp
from profilers import counts
from profilers.schema import OpSpec

OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT = "image", "logits"


class Weight(NamedTuple):
    """A weight tensor: its name, shape, and fan-in (how many inputs one output sums; 0: a bias)."""

    name: str
    shape: tuple[int, ...]
    fan_in: int


def weights_of(ops: Iterable[PlacedOp]) -> list[Weight]:
    """Every weight tensor of the ops, in their order."""
    out = []
    for slot, spec in ops:
        for conv in counts.convolutions(spec):
            per_group = conv.in_channels // conv.groups
            shape: tuple[int, ...] = (conv.out_channels, per_group)
            if spec.kind != "linear":
                shape += (conv.kernel_size, conv.kernel_size)
            out.append(Weight(f"{slot}/{conv.name}/weight", shape, per_group * conv.kernel_size**2))
            if conv.norm:
                out.append(Weight(f"{slot}/{conv.name}/bias", (conv.out_channels,), 0))
    return out


def build(
    ops: Sequence[PlacedOp],
    weights: Mapping[str, np.ndarray],
    batch: int = 1,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The model of a chain of ops with its weights inside.

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
        length = counts.BYTES * int(np.prod(weight.shape))
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
    nodes, last = [], INPUT
    tensors = tensors + _bounds(ops)
    for op in ops:
        emitted = _emit(op, last, {t.name for t in tensors})
        nodes += emitted
        last = emitted[-1].output[0]
    _rename_output(nodes, last)
    first, final = ops[0].spec, ops[-1].spec
    graph = helper.make_graph(
        nodes,
        "hwnas",
        [
            helper.make_tensor_value_info(
                INPUT, TensorProto.FLOAT, [batch, first.in_channels, first.in_size, first.in_size]
            )
        ],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, _output_shape(final, batch))],
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


def _bounds(ops: Iterable[PlacedOp]) -> list[TensorProto]:
    """The bounds that opset 17 wants as tensors, for each op whose activation is relu6."""
    return [
        helper.make_tensor(f"{slot}/{name}", TensorProto.FLOAT, (), [value])
        for slot, spec in ops
        if spec.act == "relu6"
        for name, value in _RELU6
    ]


def _emit(op: PlacedOp, source: str, known: set[str]) -> list[onnx.NodeProto]:
    """The ONNX nodes of one op, one for each entry of `counts.nodes`."""
    slot, spec = op
    convs = {c.name: c for c in counts.convolutions(spec)}
    out = []
    for node in counts.nodes(spec):
        inputs = [source if name == "in" else f"{slot}/{name}" for name in node.inputs]
        name = f"{slot}/{node.output}"
        inputs += [n for n in (f"{name}/weight", f"{name}/bias") if n in known]
        attributes: dict[str, Any] = dict(_ATTRIBUTES.get(node.op, {}))
        if node.op == "Conv":
            attributes = _conv_attributes(convs[node.output], spec.stride)
        elif node.op == "Clip":
            inputs += [f"{slot}/{bound}" for bound, _ in _RELU6]
        elif node.op == "AveragePool":
            attributes = _average_attributes(spec)
        out.append(helper.make_node(node.op, inputs, [name], name=name, **attributes))
    return out


_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "HardSigmoid": {"alpha": 1 / 6, "beta": 0.5},
    "Gemm": {"transB": 1},
    "MaxPool": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
}
_RELU6 = (("relu6_min", 0.0), ("relu6_max", 6.0))


def _average_attributes(spec: OpSpec) -> dict[str, Any]:
    """Mean over stride x stride pixels; of an odd size the last window holds fewer.

    Written as padding that does not count rather than as `ceil_mode`, which engines round
    differently.
    """
    over = -spec.in_size % spec.stride
    return {
        "kernel_shape": [spec.stride] * 2,
        "strides": [spec.stride] * 2,
        "pads": [0, 0, over, over],
        "count_include_pad": 0,
    }


def _conv_attributes(conv: counts.Conv, stride: int) -> dict[str, Any]:
    step = stride if conv.groups > 1 or conv.kernel_size > 1 else 1
    return {
        "group": conv.groups,
        "kernel_shape": [conv.kernel_size] * 2,
        "pads": [conv.kernel_size // 2] * 4,
        "strides": [step] * 2,
    }


def _rename_output(nodes: list[onnx.NodeProto], last: str) -> None:
    for node in nodes:
        node.input[:] = [OUTPUT if name == last else name for name in node.input]
        node.output[:] = [OUTPUT if name == last else name for name in node.output]


def _output_shape(spec: OpSpec, batch: int) -> list[int]:
    if spec.kind == "linear":
        return [batch, spec.out_channels]
    return [batch, spec.out_channels, spec.out_size, spec.out_size]
