"""An fp32 ONNX graph made to compute in fp16: casts after every weight and input, before outputs.

For engines that take the precision from the graph. Reads and writes the protobuf encoding itself,
because a device has no onnx package; weights stay where they are, also in a file of their own, and
the engine folds the casts. Sources: protobuf.dev, "Encoding"; onnx.proto (field numbers).
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Set, Tuple, Union

from profilers.errors import ConfigError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
MODEL_GRAPH = 7
NODE, INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 1, 5, 11, 12, 13  # fields of GraphProto
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP, NODE_ATTRIBUTE = 1, 2, 3, 4, 5
TENSOR_TYPE, TENSOR_NAME = 2, 8
FLOAT, FLOAT16 = 1, 10  # TensorProto.DataType
ATTRIBUTE_INT = 2  # AttributeProto.AttributeType
SUFFIX = "_fp16"
# Ops whose floating-point inputs and outputs all have one type, and which need no fp32 input.
SAME_TYPE = {
    *("Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "Div", "Elu"),
    *("Flatten", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"),
    *("HardSwish", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "PRelu", "Pow"),
    *("ReduceMean", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt"),
    *("Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"),
}

Value = Union[int, bytes]
Field = Tuple[int, int, Value]  # number, wire type, value


class _Node(NamedTuple):
    """What of a node matters here."""

    fields: List[Field]
    op: str


def to_half(model: bytes) -> bytes:
    """The same network computing in fp16; its inputs and outputs stay fp32.

    Args:
        model: an ONNX file. One that has no fp32 weight or input is returned as it is.

    Raises:
        ConfigError: it cannot be read, or holds an op of which this does not know that every type
            may change.
    """
    try:
        fields = _parse(model)
        graph = next(value for number, _, value in fields if number == MODEL_GRAPH)
        new = _half_graph(_parse(_bytes(graph)))
    except (IndexError, KeyError, StopIteration, UnicodeDecodeError, TypeError):
        raise ConfigError("the model cannot be read as ONNX: it is truncated or damaged") from None
    return _encode(
        [(n, w, new if n == MODEL_GRAPH else value) for n, w, value in fields],
    )


def _half_graph(graph: List[Field]) -> bytes:
    sources = [_tensor_name(_bytes(v)) for n, _, v in graph if n == INITIALIZER]
    sources += [_value_name(_bytes(v)) for n, _, v in graph if n == INPUT]
    single = {name for name, kind in sources if kind == FLOAT}
    results = {
        name for name, kind in (_value_name(_bytes(v)) for n, _, v in graph if n == OUTPUT)
        if kind == FLOAT
    }  # fmt: skip
    if not single:
        return _encode(graph)
    nodes = [_node(_bytes(value)) for number, _, value in graph if number == NODE]
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
    rest = [field for field in graph if field[0] not in (NODE, VALUE_INFO)]
    return _encode([(NODE, BYTES, data) for data in [*casts, *body, *ends]] + rest)


def _node(data: bytes) -> _Node:
    fields = _parse(data)
    op = next(_bytes(value) for number, _, value in fields if number == NODE_OP)
    return _Node(fields, op.decode("utf-8"))


def _renamed(node: _Node, names: Set[str]) -> bytes:
    """The node with the fp16 twins of tensors in place of the named ones."""
    out: List[Field] = []
    for number, wire, value in node.fields:
        if number in (NODE_INPUT, NODE_OUTPUT):
            name = _bytes(value).decode("utf-8")
            value = (name + SUFFIX if name in names else name).encode("utf-8")
        out.append((number, wire, value))
    return _encode(out)


def _cast(source: str, result: str, kind: int) -> bytes:
    """A Cast node, named after its tensors, so that it belongs to their slot."""
    attribute = _encode([(1, BYTES, b"to"), (3, VARINT, kind), (20, VARINT, ATTRIBUTE_INT)])
    return _encode(
        [
            (NODE_INPUT, BYTES, source.encode("utf-8")),
            (NODE_OUTPUT, BYTES, result.encode("utf-8")),
            (NODE_NAME, BYTES, f"{result}_cast".encode("utf-8")),
            (NODE_OP, BYTES, b"Cast"),
            (NODE_ATTRIBUTE, BYTES, attribute),
        ]
    )


def _tensor_name(data: bytes) -> Tuple[str, int]:
    """Name and data type of a TensorProto."""
    found: Dict[int, Value] = {number: value for number, _, value in _parse(data)}
    return _bytes(found[TENSOR_NAME]).decode("utf-8"), int(found[TENSOR_TYPE])


def _value_name(data: bytes) -> Tuple[str, int]:
    """Name and element type of a ValueInfoProto that is a tensor, type 0 of any other."""
    found: Dict[int, Value] = {number: value for number, _, value in _parse(data)}
    kinds: Dict[int, Value] = {number: value for number, _, value in _parse(_bytes(found[2]))}
    tensor: Dict[int, Value] = {n: value for n, _, value in _parse(_bytes(kinds.get(1, b"")))}
    return _bytes(found[1]).decode("utf-8"), int(tensor.get(1, 0))


# ---- the encoding ------------------------------------------------------------------------------


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a number where bytes are expected")
    return value


def _parse(data: bytes) -> List[Field]:
    """The fields of a message, in order; IndexError where it ends too soon."""
    out: List[Field] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            out.append((number, wire, value))
            continue
        if wire == BYTES:
            size, at = _varint(data, at)
        elif wire in FIXED_SIZE:
            size = FIXED_SIZE[wire]
        else:
            raise TypeError(f"wire type {wire}")
        if at + size > len(data):
            raise IndexError(at)
        out.append((number, wire, data[at : at + size]))
        at += size
    return out


def _varint(data: bytes, at: int) -> Tuple[int, int]:
    """A number and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _encode(fields: List[Field]) -> bytes:
    out = bytearray()
    for number, wire, value in fields:
        out += _as_varint(number << 3 | wire)
        if isinstance(value, int):
            out += _as_varint(value)
        else:
            out += _as_varint(len(value)) if wire == BYTES else b""
            out += value
    return bytes(out)


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
