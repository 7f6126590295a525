"""ONNX files read and written as protobuf bytes, for graphs that are rewritten on a device.

A device has no onnx package. What is not looked at stays as it is, byte for byte.
Sources: protobuf.dev, "Encoding"; onnx.proto (field numbers).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple, Union

import numpy as np

from profilers.errors import ConfigError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
MODEL_GRAPH, MODEL_OPSET = 7, 8
NODE, INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 1, 5, 11, 12, 13  # fields of GraphProto
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP, NODE_ATTRIBUTE = 1, 2, 3, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_TEXT = 1, 2, 3, 4
ATTRIBUTE_INTS, ATTRIBUTE_TYPE = 8, 20
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_WHOLES, TENSOR_NAME = 1, 2, 4, 7, 8
TENSOR_RAW, TENSOR_EXTERNAL = 9, 13
FLOAT, FLOAT16 = 1, 10  # TensorProto.DataType
DTYPES: Mapping[int, str] = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8"}  # by data type
INT_ATTRIBUTE = 2  # AttributeProto.AttributeType

Value = Union[int, bytes]
Field = Tuple[int, int, Value]  # number, wire type, value


class Node(NamedTuple):
    """A node; its fields hold all of it."""

    fields: List[Field]
    op: str
    name: str
    inputs: List[str]
    outputs: List[str]


class Tensor(NamedTuple):
    """An initializer; its fields hold all of it."""

    fields: List[Field]
    name: str
    kind: int
    dims: Tuple[int, ...]


def graph_of(model: bytes) -> List[Field]:
    """The fields of the graph of an ONNX file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return parse(as_bytes(next(v for number, _, v in parse(model) if number == MODEL_GRAPH)))
    except (IndexError, StopIteration, TypeError):
        raise unreadable() from None


def with_graph(model: bytes, graph: Sequence[Field]) -> bytes:
    """An ONNX file with another graph in it."""
    new = encode(graph)
    return encode([(n, w, new if n == MODEL_GRAPH else value) for n, w, value in parse(model)])


def opset_of(model: bytes) -> int:
    """Version of the operators of ONNX itself; 0 where none is named."""
    for number, _, value in parse(model):
        found = {n: v for n, _, v in parse(as_bytes(value))} if number == MODEL_OPSET else {}
        if number == MODEL_OPSET and not found.get(1):
            return int(found.get(2, 0))
    return 0


def unreadable() -> ConfigError:
    """The error of a file that is not ONNX."""
    return ConfigError("the model cannot be read as ONNX: it is truncated or damaged")


# ---- parts of a graph --------------------------------------------------------------------------


def nodes_of(graph: Sequence[Field]) -> List[Node]:
    """The nodes, in order."""
    return [_node(parse(as_bytes(value))) for number, _, value in graph if number == NODE]


def _node(fields: List[Field]) -> Node:
    texts: Dict[int, List[str]] = {NODE_INPUT: [], NODE_OUTPUT: [], NODE_NAME: [""], NODE_OP: []}
    for number, _, value in fields:
        if number in texts:
            texts[number].append(as_bytes(value).decode("utf-8"))
    return Node(
        fields, texts[NODE_OP][0], texts[NODE_NAME][-1], texts[NODE_INPUT], texts[NODE_OUTPUT]
    )


def rewired(node: Node, inputs: Sequence[str], outputs: Sequence[str]) -> Field:
    """The node with other tensors, as a field of a graph."""
    texts = [(NODE_INPUT, BYTES, name.encode("utf-8")) for name in inputs]
    texts += [(NODE_OUTPUT, BYTES, name.encode("utf-8")) for name in outputs]
    rest = [field for field in node.fields if field[0] not in (NODE_INPUT, NODE_OUTPUT)]
    return NODE, BYTES, encode([*texts, *rest])


def made_node(op: str, name: str, inputs: Sequence[str], output: str, **attributes: int) -> Field:
    """A new node with one output, as a field of a graph."""
    fields: List[Field] = [(NODE_INPUT, BYTES, each.encode("utf-8")) for each in inputs]
    fields += [
        (NODE_OUTPUT, BYTES, output.encode("utf-8")),
        (NODE_NAME, BYTES, name.encode("utf-8")),
        (NODE_OP, BYTES, op.encode("utf-8")),
    ]
    for key, value in attributes.items():
        about: List[Field] = [(ATTRIBUTE_NAME, BYTES, key.encode("utf-8"))]
        about += [(ATTRIBUTE_INT, VARINT, value), (ATTRIBUTE_TYPE, VARINT, INT_ATTRIBUTE)]
        fields.append((NODE_ATTRIBUTE, BYTES, encode(about)))
    return NODE, BYTES, encode(fields)


def attributes_of(node: Node) -> Dict[str, Any]:
    """The numbers, texts and lists of whole numbers among a node's attributes, by name."""
    found: Dict[str, Any] = {}
    for number, _, value in node.fields:
        if number != NODE_ATTRIBUTE:
            continue
        fields = {n: v for n, _, v in parse(as_bytes(value))}
        name = as_bytes(fields[ATTRIBUTE_NAME]).decode("utf-8")
        if ATTRIBUTE_FLOAT in fields:
            found[name] = float(np.frombuffer(as_bytes(fields[ATTRIBUTE_FLOAT]), "<f4")[0])
        elif ATTRIBUTE_TEXT in fields:
            found[name] = as_bytes(fields[ATTRIBUTE_TEXT]).decode("utf-8")
        elif ATTRIBUTE_INTS in fields:
            found[name] = _numbers(parse(as_bytes(value)), ATTRIBUTE_INTS)
        elif ATTRIBUTE_INT in fields:
            found[name] = _signed(int(fields[ATTRIBUTE_INT]))
    return found


def tensors_of(graph: Sequence[Field]) -> List[Tensor]:
    """The initializers, in order."""
    return [_tensor(parse(as_bytes(value))) for number, _, value in graph if number == INITIALIZER]


def _tensor(fields: List[Field]) -> Tensor:
    found: Dict[int, Value] = {number: value for number, _, value in fields}
    name = as_bytes(found[TENSOR_NAME]).decode("utf-8")
    return Tensor(fields, name, int(found[TENSOR_TYPE]), tuple(_numbers(fields, TENSOR_DIMS)))


def _numbers(fields: Sequence[Field], wanted: int) -> List[int]:
    """Whole numbers of a field that may be there many times, one by one or packed."""
    found: List[int] = []
    for number, wire, value in fields:
        if number == wanted:
            found += [int(value)] if wire == VARINT else _varints(as_bytes(value))
    return [_signed(value) for value in found]


def _signed(value: int) -> int:
    """A number that may be below zero: 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def made_tensor(name: str, value: np.ndarray) -> Field:
    """A new initializer, as a field of a graph."""
    kind = next(n for n, dtype in DTYPES.items() if np.dtype(dtype) == value.dtype)
    fields: List[Field] = [(TENSOR_DIMS, VARINT, int(size)) for size in value.shape]
    fields += [(TENSOR_TYPE, VARINT, kind), (TENSOR_NAME, BYTES, name.encode("utf-8"))]
    raw = np.ascontiguousarray(value, np.dtype(DTYPES[kind])).tobytes()
    return INITIALIZER, BYTES, encode([*fields, (TENSOR_RAW, BYTES, raw)])


def value_of(tensor: Tensor, folder: Path) -> np.ndarray:
    """The numbers of an initializer.

    Args:
        folder: of the model, where its weights are in a file of their own.

    Raises:
        ConfigError: that file is missing or too short, or the type is none of `DTYPES`.
    """
    found = {number: value for number, _, value in tensor.fields}
    if tensor.kind not in DTYPES:
        raise ConfigError(
            f"tensor {tensor.name} has the ONNX type {tensor.kind}; export it as fp32"
        )
    dtype = np.dtype(DTYPES[tensor.kind])
    if is_external(tensor):
        raw = _external(tensor, folder)
    elif TENSOR_WHOLES in found and TENSOR_RAW not in found:
        raw = np.array(_numbers(tensor.fields, TENSOR_WHOLES), dtype).tobytes()
    elif TENSOR_FLOATS in found and TENSOR_RAW not in found:
        raw = b"".join(as_bytes(v) for number, _, v in tensor.fields if number == TENSOR_FLOATS)
    else:
        raw = as_bytes(found.get(TENSOR_RAW, b""))
    values = np.frombuffer(raw, dtype)
    if values.size != int(np.prod(tensor.dims)):
        raise ConfigError(f"tensor {tensor.name} holds {values.size} numbers, not {tensor.dims}")
    return values.reshape(tensor.dims)


def is_external(tensor: Tensor) -> bool:
    """Whether the numbers of an initializer lie in a file beside the model."""
    return any(number == TENSOR_EXTERNAL for number, _, _ in tensor.fields)


def _external(tensor: Tensor, folder: Path) -> bytes:
    told: Dict[str, str] = {}
    for number, _, value in tensor.fields:
        if number == TENSOR_EXTERNAL:
            pair = {n: as_bytes(v).decode("utf-8") for n, _, v in parse(as_bytes(value))}
            told[pair[1]] = pair[2]
    size = int(np.prod(tensor.dims)) * np.dtype(DTYPES[tensor.kind]).itemsize
    try:
        with open(folder / told["location"], "rb") as handle:
            handle.seek(int(told.get("offset", 0)))
            return handle.read(size)
    except OSError as error:
        raise ConfigError(f"weights of the model cannot be read: {error}") from None


def value_type(data: bytes) -> Tuple[str, int]:
    """Name and element type of a ValueInfoProto that is a tensor, type 0 of any other."""
    found: Dict[int, Value] = {number: value for number, _, value in parse(data)}
    kinds: Dict[int, Value] = {number: value for number, _, value in parse(as_bytes(found[2]))}
    tensor: Dict[int, Value] = {n: v for n, _, v in parse(as_bytes(kinds.get(1, b"")))}
    return as_bytes(found[1]).decode("utf-8"), int(tensor.get(1, 0))


def shapes_of(graph: Sequence[Field], part: int) -> Dict[str, Tuple[int, ...]]:
    """Shape of each input (INPUT) or output (OUTPUT) that is a tensor, by name; a size that is not
    fixed is 0.
    """
    found: Dict[str, Tuple[int, ...]] = {}
    for number, _, value in graph:
        if number == part:
            about: Dict[int, Value] = {n: v for n, _, v in parse(as_bytes(value))}
            shape: Sequence[Field] = parse(as_bytes(about[2]))
            for field in (1, 2):  # of TypeProto the tensor, of that the shape
                shape = parse(as_bytes(next((v for n, _, v in shape if n == field), b"")))
            sizes = [{n: v for n, _, v in parse(as_bytes(dim))} for _, _, dim in shape]
            found[as_bytes(about[1]).decode("utf-8")] = tuple(int(size.get(1, 0)) for size in sizes)
    return found


def values_of(graph: Sequence[Field], part: int) -> List[Tuple[str, int]]:
    """Name and element type of each input (INPUT) or output (OUTPUT)."""
    return [value_type(as_bytes(value)) for number, _, value in graph if number == part]


# ---- the encoding ------------------------------------------------------------------------------


def as_bytes(value: Value) -> bytes:
    """A value that is not a number; TypeError where it is one."""
    if not isinstance(value, bytes):
        raise TypeError("a number where bytes are expected")
    return value


def parse(data: bytes) -> List[Field]:
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


def _varints(data: bytes) -> List[int]:
    """Packed numbers."""
    out, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        out.append(value)
    return out


def encode(fields: Sequence[Field]) -> bytes:
    """The bytes of a message."""
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
